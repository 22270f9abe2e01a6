"""What is asked for at a time of day, where the case lives: the night's ingest, what has no scores by then, the week's model.

Sensors ask for what comes, and for each thing once. Schedules ask for what should be there: a day that did not come is tried, so that its
check says so, and what was asked for in vain is tried again, once a night and for two weeks. While the clock is replayed, `replay_sensor`
asks instead, by the clock's time.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from ml_assets.clock import Clock, read_clock
from ml_assets.orchestration.conditions import BY_CONDITION
from ml_assets.orchestration.partitions import case_days, case_weeks, contiguous, daily_tables_of
from ml_assets.orchestration.planning import Recipe, automatic_days, delivered_tables, recipes
from ml_assets.orchestration.sensors import CASE_TAG, RANGE, request_days
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import WEEKLY, TooFewDaysError, plan, stale_weeks
from ml_assets.use_case import WHOLE, Day, UseCase, shift

INGEST_HOUR, SCORES_HOUR, TRAINING_HOUR, TRAIN_ANYWAY_HOUR = 2, 5, 4, 12
"""A week's model waits for the labels and features of the days before it, until noon."""
REPLAYED_HOUR = 22
"""In a replay a night lasts a second: what schedules ask for at night is asked for in the evening, so that sensors come first."""
TRIED_FOR_DAYS = 14
"""What is older is asked for when it changes, or by a person."""

Ask = Callable[[UseCase, Store, dg.DagsterInstance], list[dg.RunRequest]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """Something that is asked for at a time of day."""

    name: str
    description: str
    cron: str
    hour: int
    assets: Sequence[str]
    ask: Ask
    weekly: bool = False


def due_of(case: UseCase) -> list[Due]:
    """Everything that a case asks for by the clock."""
    weekday = (case.split.weekday + 1) % 7  # cron's week begins on Sunday
    return [
        Due(
            name="nightly_ingest",
            description="Days that are over and not ingested, or not as they were delivered; one that did not come is red afterwards.",
            cron=f"0 {INGEST_HOUR} * * *",
            hour=INGEST_HOUR,
            assets=[*(extract.name for extract in case.extracts), *daily_tables_of(case, delivered_tables(case))],
            ask=ask_for_deliveries,
        ),
        Due(
            name="nightly_scores",
            description="Labels, features, scores and monitoring of the last two weeks that are not there yet, or failed.",
            cron=f"0 {SCORES_HOUR} * * *",
            hour=SCORES_HOUR,
            assets=[name for name in BY_CONDITION if name in recipes(case)],
            ask=ask_for_scores,
        ),
        Due(
            name="weekly_training",
            description="The model that may go live today: candidate, report and gate. Weeks before are never decided again.",
            cron=f"0 {TRAINING_HOUR}-23 * * {weekday}",
            hour=TRAINING_HOUR,
            assets=WEEKLY,
            weekly=True,
            ask=ask_for_model,
        ),
    ]


def schedules(case: UseCase) -> Iterator[dg.ScheduleDefinition]:
    """All schedules of a case, on by default."""
    for due in due_of(case):
        yield _schedule(case, due)


def replay_sensor(case: UseCase, *, seconds: int) -> dg.SensorDefinition:
    """Asks, while the clock is replayed, for what the schedules ask for by the real time."""

    @dg.sensor(
        name=f"{case.name}__replayed_schedules",
        description="While the clock is replayed (`ml-assets clock`): what the schedules ask for, by the clock's time.",
        # Not `target`, which makes a job of its own: none can hold days and weeks.
        asset_selection=dg.AssetSelection.key_prefixes([case.name]),
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def replayed(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
        clock = read_clock(store.local, case.name)
        if not clock.replays:
            return dg.SkipReason("the clock shows the real time: schedules ask by themselves")
        fired: dict[str, str] = json.loads(context.cursor or "{}")
        now, requests = clock.now().astimezone(ZoneInfo(case.timezone)), list[dg.RunRequest]()
        for due in due_of(case):
            day = case.week_of(now.date().isoformat()) if due.weekly else now.date().isoformat()
            hour = due.hour if due.weekly else REPLAYED_HOUR
            if fired.get(due.name, "") >= day or now < case.starts(day) + timedelta(hours=hour):
                continue
            asked = due.ask(case, store, context.instance)
            requests += asked
            if asked or not due.weekly or stale_week(case, store, clock) is None:
                fired[due.name] = day
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(fired, sort_keys=True))

    return replayed


def ask_for_deliveries(case: UseCase, store: Store, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Raw and clean days of the last two weeks that are over, not made from what is delivered now, and not under way."""
    days = _last_days(case, read_clock(store.local, case.name), case_days(case).get_partition_keys())
    lines = [(days, [extract.name]) for extract in case.extracts]
    lines += [(days if table.daily else [WHOLE], [table.raw_name, table.name]) for table in case.tables]
    found = list[dg.RunRequest]()
    for of_line, names in lines:
        line = [recipes(case)[name] for name in names]
        found += _requests(case, store, instance, line, of_line, why="nightly ingest")
    return found


def ask_for_scores(case: UseCase, store: Store, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What conditions ask for, of the last two weeks and those whose labels settled in them."""
    clock = read_clock(store.local, case.name)
    published = list(store.tables(case).ledger(case.events))
    found = list[dg.RunRequest]()
    lines = (BY_CONDITION[:6], ("live_performance", "performance_report"), ("prediction_log",))
    for names, back in zip(lines, (0, case.settled_days, 0), strict=True):
        line = [recipes(case)[name] for name in names if name in recipes(case)]
        found += _requests(case, store, instance, line, _last_days(case, clock, published, further=back), why="nightly scores")
    return found


def ask_for_model(case: UseCase, store: Store, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """The models of the week that began, when what they learn from is there, and at noon in any case."""
    clock = read_clock(store.local, case.name)
    week = stale_week(case, store, clock)
    if week is None or _under_way(case, instance, WEEKLY, [week]):
        return []
    late = clock.now() >= case.starts(week) + timedelta(hours=TRAIN_ANYWAY_HOUR)
    if not late and awaited(case, store, week):
        return []
    return [
        dg.RunRequest(
            run_key=f"models/{week}/{plan(case, store, week).inputs}",
            partition_key=week,
            asset_selection=[dg.AssetKey([case.name, name]) for name in WEEKLY],
            tags={CASE_TAG: case.name, "ml_assets/why": f"weekly training: {week}"},
        )
    ]


def stale_week(case: UseCase, store: Store, clock: Clock) -> Day | None:
    """The week that has begun, unless it is decided from what is there now or there is too little to decide from."""
    week = case.week_of(clock.today(case))
    if week not in case_weeks(case).get_partition_keys():
        return None
    try:
        return week if stale_weeks(case, store, [week]) else None
    except TooFewDaysError:
        return None


def awaited(case: UseCase, store: Store, week: Day) -> list[Day]:
    """Days before a week that will still come: any whose features or labels are stale, and the day before it while it has no features."""
    tables = store.tables(case)
    before = [day for day in tables.ledger(case.events) if day < week]
    stale = {day for name in ("features", "labels") for day in _stale(case, store, [recipes(case)[name]], before)}
    return sorted(stale | ({shift(week, -1)} - set(tables.ledger("features"))))


def _schedule(case: UseCase, due: Due) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{case.name}__{due.name}",
        description=due.description,
        cron_schedule=due.cron,
        execution_timezone=case.timezone,
        target=dg.AssetSelection.assets(*(dg.AssetKey([case.name, name]) for name in due.assets)),
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def ask(context: dg.ScheduleEvaluationContext, store: Store) -> list[dg.RunRequest] | dg.SkipReason:
        if read_clock(store.local, case.name).replays:
            return dg.SkipReason("the clock is replayed: the sensor replayed_schedules asks")
        return due.ask(case, store, context.instance) or dg.SkipReason("nothing is missing")

    return ask


def _requests(
    case: UseCase, store: Store, instance: dg.DagsterInstance, line: Sequence[Recipe], days: Sequence[Day], *, why: str
) -> list[dg.RunRequest]:
    """Runs of a line over the days that are stale in any of it."""
    stale = sorted(_stale(case, store, line, days))
    wanted = [day for day in stale if not _under_way(case, instance, [recipe.table for recipe in line], [day])]
    return [request_days(case, line, first, last, key="", why=why) for first, last in contiguous(wanted)]


def _stale(case: UseCase, store: Store, line: Sequence[Recipe], days: Sequence[Day]) -> set[Day]:
    return {day for recipe in line for day in automatic_days(case, store, recipe, days)}


def _last_days(case: UseCase, clock: Clock, days: Sequence[Day], *, further: int = 0) -> list[Day]:
    first = shift(clock.today(case), -TRIED_FOR_DAYS - further)
    return [day for day in clock.over(case, list(days)) if day >= first]


def _under_way(case: UseCase, instance: dg.DagsterInstance, tables: Sequence[str], days: Sequence[Day]) -> bool:
    """Whether a run that is not finished makes one of these partitions."""
    asked = dg.RunsFilter(statuses=list(IN_PROGRESS_RUN_STATUSES), tags={CASE_TAG: case.name})
    for run in instance.get_runs(asked):
        theirs = {key.path[-1] for key in run.asset_selection or ()}
        if theirs & set(tables) and any(_covers(run.tags, day) for day in days):
            return True
    return False


def _covers(tags: Mapping[str, str], day: Day) -> bool:
    if day == WHOLE:
        return True
    if (only := tags.get("dagster/partition")) is not None:
        return only == day
    first, last = (tags.get(name, "") for name in RANGE)
    return first <= day <= last
