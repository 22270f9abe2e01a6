"""The command `ml-assets`: the same assets as in the Dagster UI, with a progress bar and a summary."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Never

import dagster as dg
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ml_assets.console import checks_in_words, out, print_account, print_provenance, print_summary
from ml_assets.orchestration import provenance, summary
from ml_assets.orchestration.partitions import case_days, case_weeks
from ml_assets.orchestration.planning import recipes
from ml_assets.orchestration.rounds import Runner, RunResult, bring_up_to_date, daily_tables_of
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weekly import WEEKLY
from ml_assets.use_case import WHOLE, UseCase, shift
from ml_assets.use_cases import find

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

DAILY = "the daily assets, in the order in which they depend on each other"
CaseName = Annotated[str, typer.Argument(help="Name of a use case, such as flight_delays.", metavar="CASE")]


@app.command()
def run(
    case: CaseName, to: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD; all days when left out.")] = None
) -> None:
    """Bring everything up to date: ingest, clean, features, weekly models and decisions, scores, live performance."""
    chosen, store = _case(case), Store()
    if to is not None:
        _key(to, case_days(chosen).get_partition_keys(), to)
    started = time.monotonic()
    with _listening() as heard:
        runner = Runner(case=chosen, store=store, instance=_instance(), heard=heard, begun=heard.begin)
        bring_up_to_date(runner, last=to)
    print_summary(chosen, store, runner.results, time.monotonic() - started)
    _exit_on_failed(runner.results)


@app.command()
def materialize(
    case: CaseName,
    select: Annotated[str, typer.Option(help=f"Assets, separated by commas; by default {DAILY}.")] = "",
    first: Annotated[str | None, typer.Option("--from", help="First partition, YYYY-MM-DD.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last partition, YYYY-MM-DD.")] = None,
) -> None:
    """Materialise a range of partitions of some assets in one run, whether they are stale or not."""
    chosen, store = _case(case), Store()
    lines = [name for table in chosen.daily_tables for name in (table.raw_name, table.name)]
    tables = [name.strip() for name in select.split(",") if name.strip()] or [
        *lines,
        "labels",
        "features",
        "scores",
        "live_performance",
    ]
    keys = _partitions(chosen, tables)
    start, end = _key(first, keys, keys[0]), _key(last, keys, first or keys[-1])
    if start > end:
        _fail(f"--from {start} is after --to {end}")
    with _listening() as heard:
        runner = Runner(case=chosen, store=store, instance=_instance(), heard=heard, begun=heard.begin)
        result = runner.run(daily_tables_of(chosen, tables), start, end, title="materialize")
    out.print(f"{result.materialized:,} partitions materialised; {checks_in_words([result])}; run {result.run_id}")
    _exit_on_failed([result])


@app.command()
def explain(case: CaseName, event_id: Annotated[str, typer.Argument(help="The event, such as 20131223-UA374-EWR.")]) -> None:
    """Where a score comes from: model, decision, training data, Delta versions, delivered rows."""
    chosen = _case(case)
    try:
        found = provenance.explain(chosen, Store(), event_id)
    except LookupError as error:
        _fail(str(error.args[0]))
    print_provenance(chosen, found)


@app.command()
def account(case: CaseName) -> None:
    """What became of every delivered event, day by day: scorable + rejected + waiting, no remainder."""
    found = summary.account(_case(case), Store())
    if found.empty:
        _fail(f"nothing is published yet: ml-assets run {case}")
    print_account(found)
    if found["remainder"].any():
        _fail("some delivered events are not accounted for")


@app.command(name="summary")
def show_summary(case: CaseName) -> None:
    """Rows, checks, decisions and live performance of what was built so far."""
    print_summary(_case(case), Store(), [], None)


def _case(name: str) -> UseCase:
    try:
        return find(name)
    except KeyError as error:
        _fail(str(error.args[0]))


def _partitions(case: UseCase, tables: list[str]) -> list[str]:
    """The partition keys that these assets have in common."""
    undated = [name for table in case.dimensions for name in (table.raw_name, table.name)]
    kinds = {"days": [name for name in recipes(case) if name not in undated], "weeks": list(WEEKLY), "no partitions": undated}
    known = [name for names in kinds.values() for name in names]
    if unknown := [name for name in tables if name not in known]:
        _fail(f"no asset {', '.join(unknown)} in {case.name}; there are {', '.join(known)}")
    of_kind = {kind for kind, names in kinds.items() if set(names) & set(tables)}
    if len(of_kind) != 1:
        _fail(
            f"one run has one kind of partitions; {', '.join(tables)} have {' and '.join(sorted(of_kind))}: materialise them one by one"
        )
    partitions = {
        "days": case_days(case).get_partition_keys(),
        "weeks": case_weeks(case).get_partition_keys(),
        "no partitions": [WHOLE],
    }
    return list(partitions[of_kind.pop()])


def _key(given: str | None, keys: Sequence[str], default: str) -> str:
    chosen = given or default
    if chosen not in keys:
        _fail(
            f"no partition {chosen}; they go from {keys[0]} to {keys[-1]}"
            + (" by weeks" if len(keys) > 1 and keys[1] != shift(keys[0], 1) else "")
        )
    return chosen


def _fail(message: str) -> Never:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/] {escape(message)}")
    raise typer.Exit(1)


def _instance() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME, by default the current folder, which holds dagster.yaml."""
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    if not (Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml").is_file():
        _fail(f"no dagster.yaml in {os.environ['DAGSTER_HOME']}: run this in the project's folder, or set DAGSTER_HOME to it")
    return dg.DagsterInstance.get()


class _Listener:
    """Turns what a run logs into a bar (partitions published) and the latest line of its steps; plain lines where there is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("starting", total=None)

    def __call__(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is not None:
            self._event(event)
        elif record.levelno >= logging.INFO:
            self._say(str(meta.get("orig_message", record.getMessage())), failed=record.levelno >= logging.ERROR)

    def begin(self, title: str, partitions: int) -> None:
        """A new run starts: a new bar."""
        self.progress.update(self.task, description=title, completed=0, total=partitions)

    def _event(self, event: dg.DagsterEvent) -> None:
        match event.event_type:
            case dg.DagsterEventType.ASSET_MATERIALIZATION:
                self.progress.advance(self.task)
            case dg.DagsterEventType.STEP_START:
                self.progress.update(self.task, description=str(event.step_key).split("__", 1)[-1])

    def _say(self, text: str, *, failed: bool) -> None:
        stamp, text = time.strftime("%H:%M:%S"), escape(text)
        self.progress.console.print(f"[dim]{stamp}[/] [red]{text}[/]" if failed else f"[dim]{stamp}[/] {text}", soft_wrap=True)


@contextmanager
def _listening() -> Iterator[_Listener]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("partitions"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=True, disable=not sys.stdout.isatty()) as progress:
        yield _Listener(progress)


def _exit_on_failed(results: list[RunResult]) -> None:
    failed = [check for result in results for check in result.failed]
    for check in failed[:20]:
        out.print(f"[red]✗[/] {check.asset_key.path[-1]} {check.partition}: {check.check_name}: {escape(check.description or '')}")
    if len(failed) > 20:
        out.print(f"[red]✗[/] and {len(failed) - 20:,} more")
    if failed:
        raise typer.Exit(1)
