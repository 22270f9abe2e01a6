"""A small bank from payment to decision: a backfill is a replay, it comes out the same twice, and a person's decision outlives it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.orchestration import daily, decisions, summary
from ml_assets.orchestration.backtest import BACKTEST, backtest_weeks
from ml_assets.stages import stretches
from ml_assets.stages.evaluate import Report
from ml_assets.use_case import day_range, shift
from ml_assets.use_cases.card_fraud import CARD_FRAUD

WEEKS = ("2018-05-23", "2018-05-30", "2018-06-06")
NOW = "2018-06-20T09:00:00+00:00"
CASE = replace(
    CARD_FRAUD,
    start="2018-04-01",
    end="2018-06-21",
    split=replace(CARD_FRAUD.split, first_go_live=WEEKS[0], holdout_days=7, minimum_training_days=21),
    investigation=replace(CARD_FRAUD.investigation, top=5),
    gate=replace(
        CARD_FRAUD.gate,
        floors={"average_precision": 0.2, "roc_auc": 0.6},
        margin=0.10,
        risk=0.50,
        resamples=100,
        slices=tuple(replace(each, required=False, minimum_rows=100) for each in CARD_FRAUD.gate.slices),
        max_row_milliseconds=1000,  # the machine's load is not what is tested here
    ),
    training=replace(
        CARD_FRAUD.training,
        trees=30,
        operating=replace(CARD_FRAUD.training.operating, alerts=10),
        parameters={**CARD_FRAUD.training.parameters, "num_leaves": 8, "min_data_in_leaf": 20, "num_threads": 1},
        search=replace(CARD_FRAUD.training.search, trials=3, folds=1, most_trees=40, patience=10),
    ),
)
SCORED = day_range(WEEKS[0], shift(CASE.end or "", -1))
SETTLED = [day for day in SCORED if day <= "2018-06-13"]
"""The last week waits for its labels."""


@pytest.fixture(scope="module")
def make_bank(tmp_path_factory: pytest.TempPathFactory, opened: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A bank with everything built; `like` copies one that is, with all that Dagster knows of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CUSTOMERS", "250"), ("TERMINALS", "500"), ("SEED", "3")):
            patch.setenv(f"ML_ASSETS_CARD_FRAUD_{name}", value)
        patch.setenv("ML_ASSETS_CARD_FRAUD_DELIVERIES", str(tmp_path_factory.mktemp("delivered")))

        def made(like: Any = None) -> Any:
            place = tmp_path_factory.mktemp("bank")
            if like is not None:
                for each in ("root", "dagster"):
                    shutil.copytree(like.root.parent / each, place / each, symlinks=True)
            world = opened(place, folder=place, case=CASE)
            world.bring_up_to_date()
            return world

        yield made


@pytest.fixture(scope="module")
def bank(make_bank: Callable[..., Any]) -> Any:
    """For reading only."""
    return make_bank()


def in_force_by_day(world: Any) -> dict[str, str]:
    rows = world.tables.read("scores", columns=["day", "model_version"]).drop_duplicates()
    assert rows["day"].is_unique
    return dict(zip(rows["day"], rows["model_version"], strict=True))


def test_each_week_is_trained_judged_and_carried_out_in_order(bank: Any) -> None:
    weeks = summary.weeks(CASE, bank.store)
    assert [week.week for week in weeks] == [*WEEKS, "2018-06-13"]
    champion = None
    for week in weeks:
        assert week.report.decision.champion_before == champion
        champion = week.report.decision.champion_after
        assert week.in_force == champion
        assert len(week.report.trials) == 3
        assert bool(week.report.decision.promoted) == (week.week in bank.partitions("deployed_model"))
    assert weeks[0].report.decision.promoted
    assert set(in_force_by_day(bank)) == set(SCORED) == bank.partitions("scores")
    assert in_force_by_day(bank) == {day: bank.store.models.in_force(CASE.name, day)[1] for day in SCORED}
    assert bank.partitions("live_performance") == set(SETTLED)


def test_no_model_learned_from_what_was_not_known(bank: Any) -> None:
    labels = bank.tables.read("labels")
    for version in bank.store.models.versions(CASE.name):
        _, manifest = bank.store.models.load(CASE.name, version)
        week, days = manifest["week"], manifest["days"]
        known = labels[(labels["known_at"] < CASE.starts(days["holdout"][0])) & labels["event_day"].between(*days["training"])]
        assert manifest["training_rows"] == known["event_id"].nunique()
        assert days["training"][1] < shift(days["holdout"][0], -CASE.split.embargo_days)
        assert days["holdout"][1] == days["refit"][1] == shift(week, -1 - CASE.split.embargo_days)


def test_the_report_has_intervals_slices_trials_and_reasons(bank: Any) -> None:
    report = Report.from_json(bank.store.models.report(CASE.name, WEEKS[1]))

    assert {"average_precision", "roc_auc", "precision", "recall"} <= set(report.candidate.intervals)
    assert CASE.investigation is not None
    assert 0 <= report.candidate.metrics[CASE.investigation.metric] <= 1
    sliced = {found.column for found in report.slices}
    assert sliced == {"amount", "hour", "payment_span_30d_by_customer_id", "scenario"}
    assert {found.value for found in report.slices if found.column == "scenario"} <= {"1", "2", "3"}
    assert report.contributions
    assert len(report.examples[0].reasons) == 5
    page = (bank.root / "reports" / CASE.name / WEEKS[1] / "report.html").read_text(encoding="utf-8")
    for words in ("scenario", "search history", "Card precision at 100"):
        assert words in page, words


def test_the_weeks_stand_side_by_side_in_one_page_and_one_picture(bank: Any) -> None:
    event = bank.instance.fetch_materializations(dg.AssetKey([CASE.name, BACKTEST]), limit=1).records[0].asset_materialization
    weeks = backtest_weeks(CASE, bank.store)

    assert event.metadata["weeks"].value == len(weeks) == 4
    assert event.metadata["picture"].md_str.startswith("![weeks](data:image/png;base64,")
    page = Path(event.metadata["page"].path).read_text(encoding="utf-8")
    assert all(week.week in page for week in weeks)
    assert [week.live is not None for week in weeks] == [True, True, True, False]
    assert weeks[0].live is not None
    assert "card_precision_at_100" in weeks[0].live


def test_the_same_data_and_seed_give_the_same_models_and_decisions(
    bank: Any, make_bank: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time in many stretches of days, as a large case has to be made."""
    cut: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> list[list[str]]:
        found = stretches.stretches(*args, **kwargs)
        cut.append(len(found))
        return found

    monkeypatch.setattr(stretches, "MOST_VALUES", 100_000)
    monkeypatch.setattr(stretches, "BOUND", 150_000)
    monkeypatch.setattr(daily, "stretches", counted)
    again = make_bank()
    assert max(cut) > 10

    assert again.store.models.versions(CASE.name) == bank.store.models.versions(CASE.name)
    told = [
        [
            (each.kind, each.effective, each.version, each.candidate, each.basis)
            for each in world.store.models.decisions.all(CASE.name)
        ]
        for world in (bank, again)
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 4
    for name in ("features", "labels", "scores", "live_performance"):
        assert again.tables.ledger(name).keys() == bank.tables.ledger(name).keys()
        contents = [{day: entry.content for day, entry in world.tables.ledger(name).items()} for world in (bank, again)]
        assert contents[0] == contents[1], name


def test_a_rollback_survives_the_next_backfill_and_is_the_champion_to_beat(bank: Any, make_bank: Callable[..., Any]) -> None:
    world = make_bank(like=bank)
    deployed = world.store.models.deployments(CASE.name)
    first = deployed[WEEKS[0]]
    latest = world.store.models.in_force(CASE.name, WEEKS[2])[1]
    assert latest != first

    change = decisions.decide(
        CASE,
        world.store,
        "rollback",
        version=first,
        effective="2018-06-09",
        reason="complaints",
        decided_by="ann",
        decided_at=NOW,
    )
    assert change.scores[0] == "2018-06-09"
    world.bring_up_to_date()

    week = Report.from_json(world.store.models.report(CASE.name, "2018-06-13"))
    assert week.decision.champion_before == first
    by_day = in_force_by_day(world)
    assert {by_day[day] for day in day_range("2018-06-09", "2018-06-12")} == {first}
    assert by_day["2018-06-08"] == latest
    before = {week: version for week, version in deployed.items() if week < "2018-06-09"}
    assert before.items() <= world.store.models.deployments(CASE.name).items()
    runs = world.instance.get_runs_count()
    assert world.bring_up_to_date().results == []
    assert world.instance.get_runs_count() == runs
    found = decisions.live(CASE, world.store, "2018-06-10")
    assert found is not None
    assert found.decision is not None
    assert (found.standing.version, found.decision.kind, found.decision.reason) == (first, "rollback", "complaints")
