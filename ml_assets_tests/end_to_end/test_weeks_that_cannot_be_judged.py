"""A week without enough to judge is refused with that reason, and the weeks around it are decided as ever."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.orchestration.publish import schema_of
from ml_assets.orchestration.weekly import GATE, LOADS, WeeksFailedError
from ml_assets.orchestration.weeks import CANDIDATE, REPORT, WEEKLY, plan, refusals, stale_weeks
from ml_assets.stages import train
from ml_assets.stages.labels import label_columns
from ml_assets.stages.monitor import PERFORMANCE_COLUMNS
from ml_assets.use_case import day_range, shift

WEEKS = ("2013-01-28", "2013-02-04", "2013-02-11")
FIRST, SECOND, THIRD = WEEKS
HOLDOUT = day_range("2013-01-26", "2013-02-02")
"""Of the second week: eight days, and a day of embargo. Its last day is the first of the third week's holdout."""
TRAINING = day_range("2013-01-01", "2013-01-24")


def publish(world: Any, name: str, edit: Callable[[pd.DataFrame], pd.DataFrame], columns: Any, days: list[str]) -> None:
    """Other rows of some days, of which the ledger says that they are made from the same."""
    ledger, rows = world.tables.ledger(name, days), world.tables.read(name, days)
    inputs = {day: entry.inputs for day, entry in ledger.items()}
    world.tables.publish(name, edit(rows), schema=schema_of(columns), inputs=inputs)


def edit_labels(world: Any, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    publish(world, "labels", edit, label_columns(world.case), list(world.tables.ledger("labels")))


def without_positives(world: Any, days: list[str]) -> None:
    edit_labels(world, lambda rows: rows.assign(label=rows["label"].where(~rows["event_day"].isin(days), 0)))


def without_labels(world: Any, days: list[str]) -> None:
    edit_labels(world, lambda rows: rows[~rows["event_day"].isin(days)])


def without_events(world: Any, days: list[str]) -> None:
    publish(world, "features", lambda rows: rows.iloc[:0], world.case.features.columns, days)


def check_of(result: Any, name: str, week: str) -> dg.AssetCheckEvaluation:
    (found,) = [check for check in result.checks if check.check_name == name and check.partition == week]
    return found


SPOILT = {
    "no positive in the holdout": (
        lambda world: without_positives(world, HOLDOUT),
        r"holdout 2013-01-26 to 2013-02-02: all [\d,]+ events with a known label are negatives, of [\d,]+ events",
    ),
    "no label in the holdout": (
        lambda world: without_labels(world, HOLDOUT),
        r"holdout 2013-01-26 to 2013-02-02: no label that counts is known before 2013-02-04 of any of [\d,]+ events",
    ),
    "no event in the holdout": (lambda world: without_events(world, HOLDOUT), "holdout 2013-01-26 to 2013-02-02: no events"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_week_that_cannot_be_judged_is_refused_with_the_reason(make_world, name):
    spoil, reason = SPOILT[name]
    world = make_world(given=("features", "labels"))
    spoil(world)

    result = world.runner().run(WEEKLY, SECOND, SECOND, title="a week")

    assert result.failed == []
    assert result.materialized == 0
    for asset_check in (LOADS, GATE):
        check = check_of(result, asset_check, SECOND)
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert re.fullmatch(f"no candidate: {reason}", check.description)
    assert re.fullmatch(reason, refusals(world.case, world.store)[SECOND])


def test_the_weeks_around_it_are_decided_and_the_model_before_it_stays(make_world):
    world = make_world(given=("features", "labels"))
    without_positives(world, HOLDOUT)

    result = world.runner().run(WEEKLY, FIRST, THIRD, title="three weeks")

    models, name = world.store.models, world.case.name
    assert result.failed == []
    assert world.partitions(CANDIDATE) == world.partitions(REPORT) == {FIRST, THIRD}
    assert list(models.reports(name)) == [FIRST, THIRD]
    champion = models.deployments(name)[FIRST]
    assert SECOND not in models.deployments(name)
    assert models.in_force(name, "2013-02-10") == (FIRST, champion)
    decisions = {each.effective: each for each in models.decisions.all(name)}
    assert list(decisions) == list(WEEKS)
    refused = decisions[SECOND]
    assert (refused.kind, refused.candidate, refused.version, refused.champion_before) == ("refused", None, champion, champion)
    assert refused.reason.startswith("No candidate: holdout 2013-01-26 to 2013-02-02")
    assert decisions[THIRD].champion_before == champion


def test_one_class_in_training_refuses_the_week(make_world):
    world = make_world(given=("features", "labels"))
    without_positives(world, TRAINING)

    result = world.runner().run(WEEKLY, SECOND, SECOND, title="a week")

    assert check_of(result, LOADS, SECOND).description.startswith("no candidate: training days 2013-01-01 to 2013-01-24: all ")
    assert result.failed == []


def test_a_refused_week_is_decided_until_what_it_was_decided_from_changes(make_world, undisturbed):
    """Days of one class are scored, too, and their figures are undefined or none of a ranking."""
    world = make_world(since="the end")
    case, models = world.case, world.store.models
    before = world.tables.read("labels")
    assert models.in_force(case.name, SECOND)[0] == SECOND, "the undisturbed week deploys"
    without_positives(world, HOLDOUT)

    runner = world.bring_up_to_date()

    assert [check for result in runner.results for check in result.failed] == []
    assert list(refusals(case, world.store)) == [SECOND]
    assert models.report(case.name, SECOND) is None
    assert SECOND not in models.deployments(case.name)
    assert models.in_force(case.name, "2013-02-10")[0] == FIRST
    assert THIRD in models.reports(case.name)
    scores = world.tables.read("scores")
    assert set(scores["day"]) == set(day_range(FIRST, shift(case.end, -1)))
    assert set(scores.loc[scores["day"].between(SECOND, "2013-02-10"), "model_version"]) == {models.deployments(case.name)[FIRST]}
    live = world.tables.read("live_performance").set_index("day")
    one_class = [day for day in live.index if day in HOLDOUT]
    assert one_class
    rankings = [
        column.name for column in PERFORMANCE_COLUMNS if column.name.endswith(("precision", "auc")) and column.name != "precision"
    ]
    assert live.loc[one_class, rankings].isna().all(axis=None)
    assert (live.loc[one_class, "positives"] == 0).all()

    assert world.bring_up_to_date().results == [], "the refused week counts as decided"

    edit_labels(world, lambda rows: before)
    world.bring_up_to_date()

    assert refusals(case, world.store) == {}
    assert models.deployments(case.name) == undisturbed.store.models.deployments(case.name)
    assert [each.kind for each in models.decisions.all(case.name) if each.effective == SECOND] == [
        "promoted",
        "refused",
        "promoted",
    ]


def test_an_allowance_decides_the_weeks_anew_and_trains_none_anew(undisturbed):
    case, store = undisturbed.case, undisturbed.store
    allowing = replace(case, gate=replace(case.gate, allowed_alone=("departure_hour",)))

    assert stale_weeks(case, store, WEEKS) == []
    assert stale_weeks(allowing, store, WEEKS) == list(WEEKS)
    assert plan(allowing, store, SECOND).inputs == plan(case, store, SECOND).inputs


def test_an_error_that_nobody_foresaw_names_its_week_and_the_others_are_made(make_world, monkeypatch):
    world = make_world(since="the end", without=("models", "reports", "weeks", "deployments", "decisions"))
    whole = train.train_candidate

    def broken(rows: pd.DataFrame, *given: Any, **named: Any) -> Any:
        if rows["day"].max() == TRAINING[-1]:
            raise ZeroDivisionError("nobody thought of this")
        return whole(rows, *given, **named)

    monkeypatch.setattr(train, "train_candidate", broken)
    with pytest.raises(WeeksFailedError, match=rf"week {SECOND}: .*ZeroDivisionError: nobody thought of this"):
        world.bring_up_to_date()

    models, name = world.store.models, world.case.name
    assert list(models.reports(name)) == [FIRST, THIRD]
    assert FIRST in models.deployments(name)
    assert set(world.tables.read("scores")["day"]) == set(day_range(FIRST, shift(world.case.end, -1)))

    monkeypatch.undo()
    world.bring_up_to_date()
    assert list(models.reports(name)) == list(WEEKS)
