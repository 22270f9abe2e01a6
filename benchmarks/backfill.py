"""A year of every daily asset of flight_delays, as the command `ml-assets` runs it, and what Dagster's event log costs in it.

    python benchmarks/backfill.py [--days 365] [--stock-days 60]

Tables, models and Dagster's storage are in a folder of their own, removed at the end.
"""

import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import dagster as dg
import typer
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from rich.console import Console
from rich.table import Table

from ml_assets.orchestration.event_log import BatchedEventLog
from ml_assets.orchestration.partitions import case_weeks, daily_tables_of
from ml_assets.orchestration.rounds import AFTER_DEPLOYMENT, WEEKLY, Runner
from ml_assets.orchestration.store import Store
from ml_assets.use_case import WHOLE, Day, UseCase, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

OURS, STOCK = "ml_assets.orchestration.event_log.BatchedSqliteStorage", "dagster._core.storage.sqlite_storage.DagsterSqliteStorage"
# The first Monday with 56 days to train on and 14 to judge, so that most of the year has a model in force.
CASE = replace(FLIGHT_DELAYS, split=replace(FLIGHT_DELAYS.split, first_go_live="2013-03-18"))


@dataclass
class Stopwatch:
    """Seconds spent in the event log's writing, calls from within it not counted again, and the events written."""

    seconds: float = 0.0
    events: int = 0
    _inside: bool = field(default=False, repr=False)

    @contextmanager
    def on(self, log: type[SqliteEventLogStorage]) -> Iterator["Stopwatch"]:
        """Times `store_event`, `store_event_batch` and, where there is one, `_flush` of a storage."""
        names = [name for name in ("store_event", "store_event_batch", "_flush") if hasattr(log, name)]
        with mock.patch.multiple(log, **{name: self._timed(getattr(log, name)) for name in names}):
            yield self

    def _timed(self, method: Any) -> Any:
        @wraps(method)
        def timed(log: Any, *arguments: Any) -> Any:
            if self._inside:
                return method(log, *arguments)
            self._inside, started = True, time.perf_counter()
            try:
                return method(log, *arguments)
            finally:
                self._inside = False
                self.seconds += time.perf_counter() - started
                if arguments:
                    self.events += 1 if isinstance(arguments[0], dg.EventLogEntry) else len(arguments[0])

        return timed


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run: seconds by step, and what each asset reported."""

    seconds: float
    log: Stopwatch
    steps: dict[str, float]
    materialized: Counter[str]
    checks: Counter[str]
    refused: Counter[str]


@contextmanager
def runner_on(storage: str, place: Path) -> Iterator[Runner]:
    """The command's runner, with a Dagster instance that differs from the project's in its storage class alone."""
    module, _, name = storage.rpartition(".")
    place.mkdir()
    settings = f"storage:\n  custom: {{module: {module}, class: {name}, config: {{base_dir: {place / 'dagster'}}}}}\n"
    (place / "dagster.yaml").write_text(settings + "telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(place)) as instance:
        yield Runner(case=CASE, store=Store(root=str(place / "root")), instance=instance, heard=lambda _: None)


def measured(runner: Runner, tables: Sequence[str], first: Day, last: Day, log: type[SqliteEventLogStorage]) -> Cost:
    """One run, timed from outside; the parts are read from its events afterwards."""
    started = time.perf_counter()
    with Stopwatch().on(log) as watch:
        result = runner.run(tables, first, last, title="benchmark")
    seconds = time.perf_counter() - started
    marks: dict[str, list[float]] = defaultdict(list)
    materialized: Counter[str] = Counter()
    kinds = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.ASSET_MATERIALIZATION}
    for entry in runner.instance.all_logs(result.run_id, of_type=kinds):
        event = entry.get_dagster_event()
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
            materialized[event.asset_key.path[-1]] += 1
        else:
            marks[str(event.step_key)].append(entry.timestamp)
    return Cost(
        seconds=seconds,
        log=watch,
        steps={step: max(times) - min(times) for step, times in marks.items()},
        materialized=materialized,
        checks=Counter(check.asset_key.path[-1] for check in result.checks),
        refused=Counter(check.asset_key.path[-1] for check in result.failed),
    )


def before_models(case: UseCase) -> list[str]:
    """The daily assets that need no model."""
    return daily_tables_of(case, [*(name for t in case.daily_tables for name in (t.raw_name, t.name)), "labels", "features"])


def build_dimensions(runner: Runner) -> None:
    for table in CASE.dimensions:
        runner.run(daily_tables_of(CASE, [table.raw_name, table.name]), WHOLE, WHOLE, title=table.name)


def deploy_a_model(runner: Runner, last: Day) -> Day | None:
    """The first week whose candidate passes the gate."""
    for week in case_weeks(CASE).get_partition_keys():
        if shift(week, 6) <= last:
            runner.run(WEEKLY, week, week, title="a model")
            if runner.store.models.in_force(CASE.name, week):
                return str(week)
    return None


def show(out: Console, title: str, cost: Cost) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("asset", "days", "check results", "not published", "seconds"):
        table.add_column(heading, justify="left" if heading == "asset" else "right")
    for step, seconds in cost.steps.items():
        names = daily_tables_of(CASE, [step.split("__", 1)[1]])
        for position, name in enumerate(names):
            shown = f"{seconds:.1f}" if position == 0 else "(same step)"
            counts = (counter[name] for counter in (cost.materialized, cost.checks, cost.refused))
            table.add_row(name, *(f"{count:,}" for count in counts), shown)
    table.add_section()
    totals = (counter.total() for counter in (cost.materialized, cost.checks, cost.refused))
    table.add_row("together", *(f"{total:,}" for total in totals), f"{cost.seconds:.1f}", style="bold")
    out.print(table)
    share = cost.log.seconds / cost.seconds
    out.print(
        f"event log: {cost.log.events:,} events in {cost.log.seconds:.1f} s, "
        f"{share:.0%} of the run, {1000 * cost.log.seconds / cost.log.events:.2f} ms each\n"
    )


def main(
    days: Annotated[int, typer.Option(min=1, max=365, help="Days to build, from 2013-01-01.")] = 365,
    stock_days: Annotated[int, typer.Option(min=1, max=365, help="Days built again on Dagster's own SQLite storage.")] = 60,
) -> None:
    """Time a backfill, and the same on Dagster's own event log."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")  # as the command sets it
    out = Console(width=100)
    last, stock_last = shift(CASE.start, days - 1), shift(CASE.start, stock_days - 1)
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder:
        with runner_on(OURS, Path(folder) / "ours") as runner:
            build_dimensions(runner)
            ours = measured(runner, before_models(CASE), CASE.start, last, BatchedEventLog)
            show(out, f"{days} days, from delivered files to features", ours)
            if live := deploy_a_model(runner, last):
                scored = measured(runner, AFTER_DEPLOYMENT, live, last, BatchedEventLog)
                show(out, f"{scored.materialized['scores']} days with a model in force (live on {live})", scored)
        with runner_on(STOCK, Path(folder) / "stock") as runner:
            build_dimensions(runner)
            stock = measured(runner, before_models(CASE), CASE.start, stock_last, SqliteEventLogStorage)
            show(out, f"{stock_days} days again, on Dagster's own SQLite storage", stock)
    ratio = (stock.log.seconds / stock.log.events) / (ours.log.seconds / ours.log.events)
    out.print(f"an event costs {ratio:.1f} times as much on Dagster's own SQLite storage")


if __name__ == "__main__":
    typer.run(main)
