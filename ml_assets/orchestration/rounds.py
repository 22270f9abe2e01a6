"""From a command: make whatever is stale, in as few runs as possible, until nothing is left that can be made.

Each run is an ordinary Dagster run over a range of partitions, seen in the UI with its logs, materialisations and checks.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import dagster as dg

from ml_assets.orchestration.conditions import pages_of
from ml_assets.orchestration.partitions import case_days, case_weeks, contiguous, daily_tables_of
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.planning import Recipe, expected_inputs, not_made_from, recipes, stale_days
from ml_assets.orchestration.sensors import CASE_TAG, RANGE
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weekly import GATE, WeeksFailedError
from ml_assets.orchestration.weeks import CANDIDATE, REPORT, WEEKLY, go_lives, possible_weeks, refusals, stale_weeks
from ml_assets.use_case import WHOLE, Day, Table, UseCase

AFTER_DEPLOYMENT = (
    ("scores", "estimated_performance", "live_performance"),
    ("drift_report", "performance_report"),
    ("shadow_scores",),
)
"""Each line in runs of its own, since a run makes the same days of all its tables: reports look back, shadows change with decisions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a run did: how many partitions it materialised, and every check result."""

    materialized: int
    checks: tuple[dg.AssetCheckEvaluation, ...]
    run_id: str

    @property
    def failed(self) -> list[dg.AssetCheckEvaluation]:
        """Checks that kept a partition from being published; a refusal by the gate is not one of them."""
        return [
            check
            for check in self.checks
            if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR and check.check_name != GATE
        ]


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Starts runs of a case's assets in this process and records them in the Dagster instance."""

    case: UseCase
    store: Store
    instance: dg.DagsterInstance
    heard: Callable[[logging.LogRecord], None]
    """Gets every log record and event of the run, for a progress bar."""
    begun: Callable[[str, int], None] = lambda _title, _partitions: None
    """Gets title and number of partitions of a run when it begins."""
    results: list[RunResult] = field(default_factory=list)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """Of the case, for this process.

        Raises:
            ValueError: a setting, such as where alerts go to, makes no sense.
        """
        return build_defs([self.case], store=self.store, loggers={"terminal": self._logger()})

    def run(self, tables: Sequence[str], first: Day, last: Day, *, title: str) -> RunResult:
        """One run of these assets over the partitions from the first to the last; `WHOLE` for assets without partitions.

        Raises:
            dagster.DagsterError: a step failed. Days that fail a check do not: they are in the result.
        """
        self.begun(title, len(tables) * _count(self.case, first, last, weekly=set(tables) <= set(WEEKLY)))
        tags = {} if first == WHOLE else dict(zip(RANGE, (first, last), strict=True))
        outcome = self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([self.case.name, table]) for table in tables],
            tags={**tags, CASE_TAG: self.case.name, "ml_assets/why": title},
            run_config={"loggers": {"terminal": {}}},
        )
        events = outcome.all_events
        result = RunResult(
            materialized=sum(event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION for event in events),
            checks=tuple(outcome.get_asset_check_evaluations()),
            run_id=outcome.run_id,
        )
        self.results.append(result)
        return result

    def say(self, text: str) -> None:
        """A line of our own among those of the runs."""
        self.heard(logging.LogRecord("ml_assets", logging.INFO, __file__, 0, text, None, None))

    def _logger(self) -> dg.LoggerDefinition:
        heard = self.heard

        class Listener(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                heard(record)

        @dg.logger
        def terminal(_: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("ml_assets.terminal", logging.DEBUG)
            logger.addHandler(Listener())
            return logger

        return terminal


def bring_up_to_date(runner: Runner, *, last: Day | None = None) -> None:
    """Everything stale, from source to live performance, up to a last day (by default the last of the case).

    Raises:
        WeeksFailedError: weeks ended in an error; all else was made.
    """
    case = runner.case
    days = [day for day in case_days(case).get_partition_keys() if last is None or day <= last]
    weeks = go_lives(case, runner.store, [week for week in case_weeks(case).get_partition_keys() if week <= days[-1]])
    known = recipes(case)
    for table in case.dimensions:
        changed = any(stale_days(case, runner.store, known[name], [WHOLE]) for name in (table.raw_name, table.name))
        if changed or _without_its_rejected(runner, table):
            runner.run(table.assets, WHOLE, WHOLE, title=table.name)
    extracts = [extract.name for extract in case.extracts]
    for name in extracts:  # each by itself: no job is started for a day because something else of the day is stale
        _settle(runner, [known[name]], days)
    apart = {*chain.from_iterable(AFTER_DEPLOYMENT), *extracts}
    before = [name for name, recipe in known.items() if name not in apart and name not in case.undated and not recipe.on_demand]
    _settle(runner, [known[name] for name in before], days)
    possible, missing = possible_weeks(case, runner.store, weeks)
    for reason in missing:
        runner.say(f"no candidate for {reason}")
    told = set.intersection(*(_told(runner, name) for name in (CANDIDATE, REPORT)))
    told |= {case.week_of(week) for week in refusals(case, runner.store)}  # nothing is materialised where nothing can be judged
    stale = stale_weeks(case, runner.store, possible) or [week for week in possible if case.week_of(week) not in told]
    failed: list[WeeksFailedError] = []
    for first, last in contiguous(sorted({case.week_of(week) for week in stale}), step=7):
        try:
            runner.run(WEEKLY, first, last, title="models")
        except WeeksFailedError as error:  # the other weeks are decided, and their days are scored before this ends in the error
            failed.append(error)
    if weeks:
        for names in AFTER_DEPLOYMENT:
            _settle(runner, [known[name] for name in names if name in known], [day for day in days if day >= weeks[0]])
    if pages := [page.name for page in pages_of(case).values() if page.is_stale(case, runner.store)]:
        runner.run(pages, WHOLE, WHOLE, title="pages")
    if failed:
        raise WeeksFailedError("; ".join(map(str, failed)))


def _without_its_rejected(runner: Runner, table: Table) -> bool:
    """Whether a step was killed after it published a table and before its rejected rows."""
    of_table, rejected = (runner.store.tables(runner.case).ledger(name).get(WHOLE) for name in (table.name, table.rejected_name))
    return of_table is not None and (rejected is None or rejected.inputs != of_table.inputs)


def _settle(runner: Runner, line: Sequence[Recipe], days: Sequence[Day]) -> None:
    """Runs of a line of daily assets until no day is stale but those that were tried, from the same inputs, without success."""
    tried: set[tuple[str, Day, str]] = set()
    while True:
        stale = {recipe.table: _stale(runner, recipe, days, tried) for recipe in line}
        if not any(stale.values()):
            return
        tried |= {(table, day, inputs) for table, of_table in stale.items() for day, inputs in of_table.items()}
        first_stale = next(position for position, recipe in enumerate(line) if stale[recipe.table])
        tables = daily_tables_of(runner.case, [recipe.table for recipe in line[first_stale:]])
        for first, last in contiguous(sorted({day for of_table in stale.values() for day in of_table})):
            runner.run(tables, first, last, title=f"{first} to {last}")


def _stale(runner: Runner, recipe: Recipe, days: Sequence[Day], tried: set[tuple[str, Day, str]]) -> dict[Day, str]:
    """Days to make, with their inputs: stale ones, and those of which Dagster was never told, as after a kill between the two."""
    inputs, _ = expected_inputs(runner.case, runner.store, recipe, days)
    stale = set(not_made_from(runner.case, runner.store, recipe, inputs))
    told = _told(runner, recipe.table)
    wanted = {day: made_from for day, made_from in inputs.items() if day in stale or day not in told}
    return {day: made_from for day, made_from in wanted.items() if (recipe.table, day, made_from) not in tried}


def _told(runner: Runner, table: str) -> set[str]:
    """The partitions of an asset that Dagster knows to be materialised."""
    return set(runner.instance.get_materialized_partitions(dg.AssetKey([runner.case.name, table])))


def _count(case: UseCase, first: Day, last: Day, *, weekly: bool) -> int:
    keys = (case_weeks(case) if weekly else case_days(case)).get_partition_keys()
    return 1 if first == WHOLE else sum(first <= key <= last for key in keys)
