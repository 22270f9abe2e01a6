"""What makes days by itself: a sensor for each table that looks at its source. What depends on it follows by `conditions`.

Belongs here: when to start a run, and of which partitions. Does not: what is stale (`planning`), how it is made (`daily`).

A sensor asks again only for what it has not asked for: the same day from the same inputs is requested once, also when its run fails. Its
cursor holds what was asked for and is not there yet, so that it survives restarts, and forgets what was done.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import dagster as dg

from ml_assets.clock import Clock, read_clock
from ml_assets.orchestration.partitions import case_days, contiguous, daily_tables_of
from ml_assets.orchestration.planning import Recipe, expected_inputs, not_made_from, recipes
from ml_assets.orchestration.store import Store
from ml_assets.settings import settings
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import WHOLE, Day, Extract, Table, UseCase, WatchedSource

MOST_DAYS = 31
"""Partitions that one tick asks for; what is left comes with the next one."""
CASE_TAG = "ml_assets/case"
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
Asked = dict[str, dict[Day, str]]
"""Table, day and the inputs from which it was asked for."""


class SourceError(RuntimeError):
    """A source cannot be asked; the tick fails, and says why."""


def sensors(case: UseCase, *, seconds: int) -> Iterator[dg.SensorDefinition]:
    """A sensor for each table, so that a source that is down does not keep another one from being read. All are on by default."""
    for extract in case.extracts:
        yield extract_sensor(case, extract, seconds=seconds)
    for table in case.tables:
        yield delivery_sensor(case, table, seconds=seconds)


def extract_sensor(case: UseCase, extract: Extract, *, seconds: int) -> dg.SensorDefinition:
    """Asks for the days that are over and of which a job has not yet written the file."""
    line = [recipes(case)[extract.name]]

    @dg.sensor(
        name=f"{case.name}__{extract.name}_due",
        description=f"Days that are over and that the job {extract.job} has not extracted.",
        target=_assets(case, line),
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def due(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult:
        return _result(case, store, line, line, _over(case, store), context.cursor)

    return due


def delivery_sensor(case: UseCase, table: Table, *, seconds: int) -> dg.SensorDefinition:
    """Asks for the days of a table that its source delivers for the first time, or other than they were read."""
    line = [recipes(case)[table.raw_name], recipes(case)[table.name]]

    @dg.sensor(
        name=f"{case.name}__{table.name}_delivered",
        description=f"Days of {table.name} that came, came late, or changed at the source.",
        target=_assets(case, line),
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def delivered(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult:
        days = deliverable(case, table, read_clock(store.local, case.name))
        return _result(case, store, line[:1], line, days, context.cursor)

    return delivered


def deliverable(case: UseCase, table: Table, clock: Clock) -> list[Day]:
    """The days that the source could deliver now, of those that it is asked about at each tick; in a replay none that is not over yet.

    Raises:
        SourceError: it cannot be asked.
    """
    source = table.source(settings())
    if not table.daily:
        return list(source.versions([WHOLE]))
    days: Sequence[Day] = case_days(case).get_partition_keys()
    tomorrow = (clock.now() + timedelta(days=1)).date().isoformat()
    days = clock.over(case, list(days)) if clock.replays else [day for day in days if day <= tomorrow]
    if isinstance(source, WatchedSource):
        if trouble := source.trouble():
            raise SourceError(f"{table.name} of {case.name}: {trouble}")
        days = source.watched(days)
    return list(source.versions(days))


def _result(
    case: UseCase, store: Store, looked_at: Sequence[Recipe], line: Sequence[Recipe], days: Sequence[Day], cursor: str | None
) -> dg.SensorResult:
    """Requests for the days that are stale in what is looked at, and what of them is kept in mind."""
    asked: Asked = json.loads(cursor or "{}")
    stale: dict[Day, str] = {}
    missing: Asked = {}
    for recipe in looked_at:
        inputs, _ = expected_inputs(case, store, recipe, days)
        known = asked.get(recipe.table, {})
        missing[recipe.table] = {day: inputs[day] for day in not_made_from(case, store, recipe, inputs)}
        for day, made_from in missing[recipe.table].items():
            if known.get(day) != made_from:
                stale[day] = fingerprint(stale.get(day, ""), recipe.table, made_from)
    chosen = sorted(stale)[:MOST_DAYS]
    waiting: Asked = {}
    for table, of_table in missing.items():
        known = asked.get(table, {})
        waiting[table] = {day: known[day] for day in of_table if day in known} | {
            day: made_from for day, made_from in of_table.items() if day in chosen
        }
    return dg.SensorResult(
        run_requests=[_request(case, line, first, last, stale) for first, last in contiguous(chosen)],
        skip_reason=None if chosen else "nothing is new",
        cursor=json.dumps({table: of_table for table, of_table in waiting.items() if of_table}, sort_keys=True),
    )


def _request(case: UseCase, line: Sequence[Recipe], first: Day, last: Day, stale: Mapping[Day, str]) -> dg.RunRequest:
    """A run over a stretch of days. Its key says of what: a daemon that died before it noted the tick starts none twice."""
    key = fingerprint(line[0].table, first, last, [stale[day] for day in sorted(stale) if first <= day <= last])
    return request_days(case, line, first, last, key=f"{line[0].table}/{first}/{key}", why="delivered")


def request_days(case: UseCase, line: Sequence[Recipe], first: Day, last: Day, *, key: str, why: str) -> dg.RunRequest:
    """A run of a line of tables over a stretch of days; without a key it is asked for as often as it is wanted."""
    stretch = first if first == last else f"{first} to {last}"
    return dg.RunRequest(
        run_key=key or None,
        asset_selection=[dg.AssetKey([case.name, name]) for name in daily_tables_of(case, [recipe.table for recipe in line])],
        tags={
            **(dict(zip(RANGE, (first, last), strict=True)) if first != WHOLE else {}),
            CASE_TAG: case.name,
            "ml_assets/why": f"{why}: {line[0].table} {stretch}",
        },
    )


def _over(case: UseCase, store: Store) -> list[Day]:
    return read_clock(store.local, case.name).over(case, list(case_days(case).get_partition_keys()))


def _assets(case: UseCase, line: Sequence[Recipe]) -> dg.AssetSelection:
    names = daily_tables_of(case, [recipe.table for recipe in line])
    return dg.AssetSelection.assets(*(dg.AssetKey([case.name, name]) for name in names))
