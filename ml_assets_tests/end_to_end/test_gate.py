"""What must not go live does not: a candidate from spoilt labels, a feature that sees the future."""

from dataclasses import replace
from datetime import timedelta

import dagster as dg
import numpy as np
import pytest

from ml_assets.orchestration import summary
from ml_assets.orchestration.publish import schema_of
from ml_assets.orchestration.weekly import GATE
from ml_assets.orchestration.weeks import CANDIDATE, DEPLOYED, REPORT, WEEKLY
from ml_assets.stages.evaluate import Report
from ml_assets.stages.features import columns_of
from ml_assets.stages.labels import label_columns
from ml_assets.use_case import Arrays, Column, DType, Fact, Features, Trailing, day_range
from ml_assets.use_cases.flight_delays.features import row

FIRST_WEEK, SECOND_WEEK = "2013-01-28", "2013-02-04"
CLEAN = ("flights", "weather", "planes")


def shuffle_labels(world, days: list[str]) -> None:
    """Each event of these days gets the label of another; nothing else changes, and the ledger says so of the inputs too."""
    ledger, rows = world.tables.ledger("labels", days), world.tables.read("labels", days)
    shuffled = rows.assign(label=np.random.default_rng(7).permutation(rows["label"].to_numpy()))
    schema = schema_of(label_columns(world.case))
    world.tables.publish("labels", shuffled, schema=schema, inputs={day: entry.inputs for day, entry in ledger.items()})


def reasons_against(world, week: str) -> set[str]:
    report = Report.from_json(world.store.models.report(world.case.name, week))
    return {reason.name for reason in report.decision.reasons if not reason.passed}


def test_a_candidate_from_shuffled_labels_is_refused_and_the_champion_stays(make_world, undisturbed):
    world = make_world(given=("features", "labels"))
    case, models = world.case, world.store.models
    world.runner().run(WEEKLY, FIRST_WEEK, FIRST_WEEK, title="the champion")
    champion = models.deployments(case.name)[FIRST_WEEK]
    shuffle_labels(world, day_range(case.start, "2013-02-03"))

    result = world.runner().run(WEEKLY, SECOND_WEEK, SECOND_WEEK, title="a candidate from shuffled labels")

    assert reasons_against(undisturbed, SECOND_WEEK) == set()
    assert reasons_against(world, SECOND_WEEK) >= {"average_precision floor", "roc_auc floor"}
    (gate,) = [check for check in result.checks if check.check_name == GATE]
    assert (gate.partition, gate.passed, gate.severity) == (SECOND_WEEK, False, dg.AssetCheckSeverity.ERROR)
    assert "roc_auc floor: 0." in gate.description
    assert ", wanted at least 0.55" in gate.description
    assert world.partitions(CANDIDATE) == world.partitions(REPORT) == {FIRST_WEEK, SECOND_WEEK}
    assert world.partitions(DEPLOYED) == {FIRST_WEEK}
    assert models.deployments(case.name) == {FIRST_WEEK: champion}

    alone = world.runner().run((DEPLOYED,), SECOND_WEEK, SECOND_WEEK, title="asked for alone")
    assert alone.materialized == 0
    assert world.partitions(DEPLOYED) == {FIRST_WEEK}
    assert models.deployments(case.name) == {FIRST_WEEK: champion}
    assert models.in_force(case.name, "2013-02-10") == (FIRST_WEEK, champion)

    second_week = day_range(SECOND_WEEK, "2013-02-10")
    world.runner().run(("scores",), second_week[0], second_week[-1], title="scores")
    scores = world.tables.read("scores")
    assert set(scores["day"]) == set(second_week) == world.partitions("scores")
    assert set(scores["model_version"]) == {champion}
    assert summary.weeks(case, world.store)[-1].in_force == champion


def a_fact_known_too_early(features: Features) -> tuple[Features, str]:
    """The delay on arrival, said to be known when the flight is scheduled to depart."""
    fact = Fact(name="peek", table="flights", value="arrival_delay_minutes", known_at="scheduled_departure", unit="minutes")
    planted = Trailing(fact=fact, entities=(("origin",),), windows=(timedelta(days=1),), statistics=("mean",))
    (column,) = columns_of((planted,), (), ())
    return replace(features, trailing=(*features.trailing, planted), columns=(*features.columns, column)), column.name


def peeking_row(columns: Arrays) -> dict:
    return {**row(columns), "peek": columns["arrival_delay_minutes"].astype("float64")}


def a_column_of_the_outcome(features: Features) -> tuple[Features, str]:
    """The event's own delay on arrival, as if it were a column known before."""
    column = Column(name="peek", dtype=DType.FLOAT64, nullable=True)
    return replace(
        features,
        event_columns=(*features.event_columns, "arrival_delay_minutes"),
        row=peeking_row,
        columns=(*features.columns, column),
    ), column.name


@pytest.mark.parametrize("plant", [a_fact_known_too_early, a_column_of_the_outcome])
def test_a_feature_that_sees_the_future_is_named_and_not_published(make_world, undisturbed, plant):
    features, name = plant(undisturbed.case.features)
    world = make_world(replace(undisturbed.case, features=features), given=CLEAN)
    days = day_range("2013-01-10", "2013-01-12")
    result = world.runner().run(("features",), days[0], days[-1], title="a look-ahead")

    honest = {check.partition: check for check in result.checks if check.check_name == "features_are_point_in_time"}
    assert sorted(honest) == days
    for check in honest.values():
        assert not check.passed
        assert check.severity is dg.AssetCheckSeverity.ERROR
        assert f"1 of {len(features.names)} features differ" in check.description
        assert f"{name}: " in check.description
    assert result.materialized == 0
    assert world.partitions("features") == set()
    assert world.tables.ledger("features") == {}


def test_without_the_planted_feature_the_same_days_are_published(make_world):
    world = make_world(given=CLEAN)
    result = world.runner().run(("features",), "2013-01-10", "2013-01-12", title="no look-ahead")
    assert result.failed == []
    assert world.partitions("features") == set(day_range("2013-01-10", "2013-01-12"))
