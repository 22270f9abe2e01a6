"""Retraining out of turn: one new model for each onset of drift or of a fall in performance, and it has to pass the gate like any other.

The model goes live, if the gate lets it, on the day on which it was asked for, within its week; weeks go on as they would have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from ml_assets.clock import read_clock
from ml_assets.orchestration.partitions import case_weeks
from ml_assets.orchestration.schedules import awaited
from ml_assets.orchestration.sensors import CASE_TAG
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weekly import RETRAIN_TAG
from ml_assets.orchestration.weeks import WEEKLY, TooFewDaysError, plan
from ml_assets.stages import drift, promise
from ml_assets.use_case import Day, UseCase, shift

RECENT_DAYS = 14
"""An older onset is history, as after a backfill, and starts nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Onset:
    """The first day of trouble after quiet ones."""

    kind: str
    day: Day


def onsets(alarms: Sequence[Day], *, quiet_days: int) -> list[Day]:
    """The days with an alarm that no other one came before within `quiet_days`.

    >>> onsets(["2013-01-05", "2013-01-06", "2013-01-09", "2013-01-20"], quiet_days=7)
    ['2013-01-05', '2013-01-20']
    """
    ordered = sorted(alarms)
    before = ["", *ordered]
    return [day for day, last in zip(ordered, before, strict=False) if not last or last < shift(day, -quiet_days)]


def onsets_of(case: UseCase, store: Store) -> Iterator[Onset]:
    """Every onset so far, from what is published."""
    tables = store.tables(case)
    if tables.ledger("drift_report"):
        rows = tables.read("drift_report", columns=["feature", "drifted", "importance", "day"])
        for day in onsets(drift.alarms(rows, case.monitoring), quiet_days=case.monitoring.quiet_days):
            yield Onset(kind="drift", day=day)
    if tables.ledger("performance_report"):
        rows = tables.read("performance_report", columns=["alarm", "day"])
        for day in onsets(promise.alarms(rows), quiet_days=case.monitoring.quiet_days):
            yield Onset(kind="performance", day=day)


def retraining_sensor(case: UseCase, *, seconds: int) -> dg.SensorDefinition:
    """Asks for one model for each new onset."""

    @dg.sensor(
        name=f"{case.name}__retrain",
        description="One new model for each onset of drift or of a fall in performance; the gate decides about it.",
        target=dg.AssetSelection.assets(*(dg.AssetKey([case.name, name]) for name in WEEKLY)),
        minimum_interval_seconds=seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def retrain(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
        today = read_clock(store.local, case.name).today(case)
        recent = [each for each in onsets_of(case, store) if each.day >= shift(today, -RECENT_DAYS)]
        handled = set(filter(None, (context.cursor or "").split(",")))
        new = [each for each in recent if _name(each) not in handled and not _followed(case, store, each, today)]
        if not new:
            return dg.SkipReason(f"no new onset; {len(recent)} in the last {RECENT_DAYS} days")
        if reason := _not_yet(case, store, today):
            return dg.SkipReason(reason)
        said = " and ".join(f"{each.kind} since {each.day}" for each in new)
        request = dg.RunRequest(
            run_key=f"retrain/{','.join(map(_name, new))}",
            partition_key=case.week_of(today),
            asset_selection=[dg.AssetKey([case.name, name]) for name in WEEKLY],
            tags={CASE_TAG: case.name, RETRAIN_TAG: today, "ml_assets/why": f"retraining: {said}"},
        )
        return dg.SensorResult(run_requests=[request], cursor=",".join(sorted(handled | set(map(_name, new)))))

    return retrain


def _name(onset: Onset) -> str:
    return f"{onset.kind}:{onset.day}"


def _followed(case: UseCase, store: Store, onset: Onset, today: Day) -> bool:
    """Whether a model was decided on after the onset, or will be today in its turn."""
    return today == case.week_of(today) or any(onset.day < week <= today for week in store.models.reports(case.name))


def _not_yet(case: UseCase, store: Store, today: Day) -> str:
    if case.week_of(today) not in case_weeks(case).get_partition_keys():
        return f"{today} is in no week of the case"
    if days := awaited(case, store, today):
        return f"waiting for features and labels of {', '.join(days[:3])}"
    try:
        plan(case, store, today)
    except TooFewDaysError as error:
        return str(error)
    return ""
