"""Whom a candidate has to beat, what is recorded of the gate, and what a person's decision changes."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.orchestration import decisions
from ml_assets.orchestration.decisions import champion_before, first_open_day, record_gate_decision, version_before
from ml_assets.orchestration.publish import schema_of
from ml_assets.orchestration.store import Store
from ml_assets.stages import gate
from ml_assets.stages.evaluate import Report
from ml_assets.stages.metrics import Performance, measure
from ml_assets.stages.monitor import PERFORMANCE_COLUMNS
from ml_assets.stages.report import headline
from ml_assets.stages.score import SCORE_COLUMNS
from ml_assets.storage.decisions import GATE, Decision, Manual
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

CASE: UseCase = FLIGHT_DELAYS
WEEKS = ("2013-10-28", "2013-11-04", "2013-11-11", "2013-11-18")
AT = "2013-12-01T10:00:00+00:00"
REASON = "too many alerts at night"


@cache
def figures(seed: int) -> Performance:
    """A model on a small hold-out."""
    random = np.random.default_rng(seed)
    labels = (random.random(200) < 0.3).astype(float)
    scores = np.clip(random.random(200) * 0.6 + 0.3 * labels, 0, 1)
    return measure(scores, labels, version="", family="lightgbm", threshold=0.5)


def measured(version: str, seed: int) -> Performance:
    return replace(figures(seed), version=version)


@dataclass(frozen=True)
class World:
    """A store in which weeks are decided and deployed as the weekly assets do it, with packages that hold no model."""

    store: Store

    def version(self, week: Day, content: str = "first") -> str:
        manifest = {
            "week": week,
            "days": {"training": ["2013-01-01", shift(week, -16)], "holdout": [shift(week, -15), shift(week, -2)]},
        }
        return self.store.models.save(CASE.name, {"candidate/model.json": content.encode()}, manifest)

    def judged(self, week: Day, *, promoted: bool, content: str = "first", milliseconds: float = 3.0, seed: int = 1) -> Report:
        """The report of a week's candidate: the gate's floor holds or does not, and its budgets hold."""
        version, champion = self.version(week, content), champion_before(CASE, self.store, week)
        candidate = measured(version, seed)
        floor = {"average_precision": 0.1 if promoted else 0.99}
        reasons = [
            *gate.floor_reasons(candidate, floor),
            *gate.budget_reasons(megabytes=0.1, row_milliseconds=milliseconds, gate=CASE.gate),
        ]
        return Report(
            case=CASE.name,
            week=week,
            as_of=CASE.starts(week).isoformat(),
            holdout_first=shift(week, -15),
            holdout_last=shift(week, -2),
            holdout_rows=200,
            positives=60,
            candidate=candidate,
            champion=measured(champion, 0) if champion else None,
            baseline=measured("baseline", 2),
            climatology=measured("climatology", 3),
            comparison=None,
            slices=(),
            importance=(),
            decision=gate.decide(reasons, candidate_version=version, champion_version=champion),
        )

    def decided(self, week: Day, *, promoted: bool = True, at: str = AT, **report: Any) -> Report:
        """What `evaluation_report` leaves."""
        found = self.judged(week, promoted=promoted, **report)
        self.store.models.save_report(CASE.name, week, found.to_json(), None, {})
        record_gate_decision(self.store, CASE, found, decided_at=at)
        return found

    def deployed(self, *weeks: Day) -> None:
        """What `deployed_model` leaves."""
        for week in weeks:
            decision = Report.from_json(self.store.models.report(CASE.name, week) or "").decision
            if decision.promoted and decision.champion_after:
                self.store.models.deploy(CASE.name, week, decision.champion_after, {})
            else:
                self.store.models.withdraw(CASE.name, week)

    def scored(self, days: Iterable[Day]) -> None:
        """Scores and live performance of these days: an event a day, by the version in force."""
        tables, days = self.store.tables(CASE), list(days)
        versions = [self.store.models.in_force_on(CASE.name, days)[day][1] for day in days]
        scores = pd.DataFrame(
            {"event_id": days, "model_version": versions, "day": days, "event_time": [CASE.starts(day) for day in days]}
        )
        scores = scores.assign(event_time=scores["event_time"].astype("datetime64[us, UTC]"), alert=1)
        scores = scores.assign(**dict.fromkeys(("score", "threshold", "baseline_score", "climatology_score"), 0.5))
        tables.publish("scores", scores, schema=schema_of(SCORE_COLUMNS), inputs=dict(zip(days, versions, strict=True)))
        live = pd.DataFrame({column.name: 1.0 for column in PERFORMANCE_COLUMNS}, index=range(len(days)))
        live = live.assign(model_version=versions, day=days, recall=np.nan)
        live = live.astype({column.name: "int64" for column in PERFORMANCE_COLUMNS if column.dtype == "int64"})
        tables.publish(
            "live_performance", live, schema=schema_of(PERFORMANCE_COLUMNS), inputs=dict(zip(days, versions, strict=True))
        )

    def decide(self, kind: Manual, version: str | None = None, effective: Day | None = None) -> decisions.Change:
        return decisions.decide(
            CASE, self.store, kind, version=version, effective=effective, reason=REASON, decided_by="ann", decided_at=AT
        )

    def recorded(self) -> list[Decision]:
        return self.store.models.decisions.all(CASE.name)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(store=Store(root=str(tmp_path)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, tuple[str, str, str]]:
    """Three weeks: promoted, promoted, refused; deployed, and scored up to the middle of the third. For reading only."""
    world = World(store=Store(root=str(tmp_path_factory.mktemp("built"))))
    first, second, third = (world.decided(week, promoted=week != WEEKS[2]).candidate.version for week in WEEKS[:3])
    world.deployed(*WEEKS[:3])
    world.scored(day_range(WEEKS[0], "2013-11-13"))
    return world, (first, second, third)


@pytest.fixture
def three(world: World, built: tuple[World, tuple[str, str, str]]) -> tuple[str, str, str]:
    """The versions of the three weeks, in a store of the test's own."""
    shutil.copytree(Path(built[0].store.root), Path(world.store.root), symlinks=True, dirs_exist_ok=True)
    return built[1]


# Whom a candidate has to beat -------------------------------------------------------------------------------------------------


def test_a_candidate_has_to_beat_the_latest_promoted_before_any_is_deployed(world: World) -> None:
    """A backfill decides all weeks, then deploys."""
    champions, versions = [], []
    for week, promoted in zip(WEEKS, (True, False, True, True), strict=True):
        champions.append(champion_before(CASE, world.store, week))
        versions.append(world.decided(week, promoted=promoted).candidate.version)

    assert champions == [None, versions[0], versions[0], versions[2]]


def test_weeks_after_it_are_nothing_to_a_week_that_is_judged_again(world: World, three: tuple[str, str, str]) -> None:
    world.decided(WEEKS[3])

    assert champion_before(CASE, world.store, WEEKS[0]) is None
    assert champion_before(CASE, world.store, WEEKS[1]) == three[0]
    assert champion_before(CASE, world.store, WEEKS[2]) == three[1]


def test_after_a_rollback_a_candidate_has_to_beat_what_was_rolled_back_to(world: World, three: tuple[str, str, str]) -> None:
    world.decide("rollback", three[0], "2013-11-14")

    assert champion_before(CASE, world.store, WEEKS[2]) == three[1]  # it went live before the rollback
    assert champion_before(CASE, world.store, WEEKS[3]) == three[0]
    fourth = world.decided(WEEKS[3]).candidate.version
    assert champion_before(CASE, world.store, "2013-11-25") == fourth


def test_a_rollback_survives_a_backfill_of_the_weeks_before_it(world: World, three: tuple[str, str, str]) -> None:
    world.decide("rollback", three[0], "2013-11-14")

    for week in WEEKS[:3]:
        world.decided(week, promoted=week != WEEKS[2], content="made again")
        world.deployed(week)

    assert champion_before(CASE, world.store, WEEKS[3]) == three[0]
    assert world.store.models.in_force(CASE.name, "2013-11-14") == ("2013-11-14", three[0])


def test_a_decision_from_the_day_of_go_live_on_is_after_that_weeks_comparison(world: World, three: tuple[str, str, str]) -> None:
    world.decide("rollback", three[0], WEEKS[3])

    assert champion_before(CASE, world.store, WEEKS[3]) == three[1]
    assert champion_before(CASE, world.store, "2013-11-25") == three[0]


def test_under_a_pin_every_candidate_has_to_beat_the_pinned_one(world: World, three: tuple[str, str, str]) -> None:
    world.decide("pin", three[0], "2013-11-14")
    world.decided(WEEKS[3])

    assert champion_before(CASE, world.store, WEEKS[3]) == three[0]
    assert champion_before(CASE, world.store, "2013-11-25") == three[0]

    world.decide("unpin", None, "2013-11-24")
    assert champion_before(CASE, world.store, "2013-11-25") == world.version(WEEKS[3])


# What is recorded of the gate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("promoted", [True, False])
def test_the_gates_decision_is_recorded_with_its_report(promoted: bool, world: World) -> None:
    first = world.decided(WEEKS[0]).candidate.version

    report = world.decided(WEEKS[1], promoted=promoted, at="2013-12-02T10:00:00+00:00")

    made = world.recorded()[1]
    assert (made.kind, made.effective) == ("promoted" if promoted else "refused", WEEKS[1])
    assert (made.candidate, made.champion_before) == (report.candidate.version, first)
    assert made.version == (report.candidate.version if promoted else first)
    assert (made.reason, made.decided_by, made.decided_at) == (headline(report), GATE, "2013-12-02T10:00:00+00:00")
    assert world.store.models.decisions.evidence(made) == report.to_json()
    assert decisions.evidence_of(world.store, made)["week"] == WEEKS[1]


def test_what_the_clock_says_does_not_make_it_another_decision(world: World) -> None:
    world.decided(WEEKS[0], milliseconds=3.0)

    world.decided(WEEKS[0], milliseconds=4.5, at="2013-12-02T10:00:00+00:00")

    assert [made.decided_at for made in world.recorded()] == [AT]


def test_a_model_that_has_become_too_slow_or_rows_that_changed_make_it_another(world: World) -> None:
    world.decided(WEEKS[0])
    world.decided(WEEKS[0], milliseconds=1e6)
    world.decided(WEEKS[0], seed=9)

    assert [(made.kind, made.effective) for made in world.recorded()] == [
        ("promoted", WEEKS[0]),
        ("refused", WEEKS[0]),
        ("promoted", WEEKS[0]),
    ]


def test_a_refusal_says_what_failed_with_what_was_observed(world: World) -> None:
    report = world.decided(WEEKS[0], promoted=False)

    found = decisions.failed_reasons(decisions.evidence_of(world.store, world.recorded()[0]))

    observed = f"{report.candidate.metrics['average_precision']:.4f}"
    assert found == [f"average_precision floor: {observed}, wanted at least 0.99"]


# What a person decides --------------------------------------------------------------------------------------------------------


def test_a_rollback_is_by_default_to_the_version_before_from_the_first_day_without_scores(
    world: World, three: tuple[str, str, str]
) -> None:
    change = world.decide("rollback")

    assert (change.decision.version, change.decision.effective) == (three[0], "2013-11-14")
    assert (change.decision.champion_before, change.decision.decided_by) == (three[1], "ann")
    assert world.store.models.in_force(CASE.name, "2013-11-13") == (WEEKS[1], three[1])
    assert world.store.models.in_force(CASE.name, "2013-11-14") == ("2013-11-14", three[0])
    assert change.scores == []
    assert change.weeks == []


def test_a_decision_about_the_past_tells_what_is_stale(world: World, three: tuple[str, str, str]) -> None:
    change = world.decide("rollback", three[0], "2013-11-06")

    assert change.scores == day_range("2013-11-06", "2013-11-13")
    assert change.weeks == [WEEKS[2]]  # the refused candidate was compared with the second version, which was in force no more


def test_a_pin_of_the_version_in_force_makes_nothing_stale(world: World, three: tuple[str, str, str]) -> None:
    change = world.decide("pin", three[1], "2013-11-06")

    assert (change.scores, change.weeks) == ([], [])


def test_days_that_an_unpin_gives_back_are_stale_too(world: World, three: tuple[str, str, str]) -> None:
    world.decide("pin", three[0], "2013-11-05")
    world.scored(day_range("2013-11-05", "2013-11-13"))

    change = world.decide("unpin", None, "2013-11-10")

    assert change.decision.version == three[1]
    assert change.scores == day_range("2013-11-10", "2013-11-13")
    assert change.weeks == []


def test_the_evidence_is_what_was_seen(world: World, three: tuple[str, str, str]) -> None:
    change = world.decide("rollback")

    seen = decisions.evidence_of(world.store, change.decision)
    assert seen["in_force"] == {"since": WEEKS[1], "version": three[1]}
    assert [day["day"] for day in seen["live"]] == day_range("2013-11-07", "2013-11-13")
    assert {day["model_version"] for day in seen["live"]} == {three[1]}
    assert (seen["live"][0]["events"], seen["live"][0]["precision"], seen["live"][0]["recall"]) == (1, 1.0, None)


def test_before_any_day_is_judged_live_there_is_less_to_see(world: World) -> None:
    version = world.version(WEEKS[0])

    change = world.decide("pin", version)

    assert change.decision.effective == CASE.split.first_go_live
    assert decisions.evidence_of(world.store, change.decision) == {"in_force": None, "live": []}


def test_the_first_open_day_is_not_before_what_goes_live_later(world: World, three: tuple[str, str, str]) -> None:
    assert first_open_day(CASE, world.store) == "2013-11-14"

    world.decided(WEEKS[3])
    world.deployed(WEEKS[3])

    assert first_open_day(CASE, world.store) == WEEKS[3]
    change = world.decide("rollback")
    assert (change.decision.version, change.decision.effective) == (three[1], WEEKS[3])
    assert world.store.models.in_force(CASE.name, "2013-12-31") == (WEEKS[3], three[1])


def test_a_second_rollback_goes_back_to_what_was_in_force_before_the_first(world: World, three: tuple[str, str, str]) -> None:
    world.decide("rollback", None, "2013-11-14")

    assert version_before(CASE, world.store, "2013-11-15") == three[1]


def test_with_one_version_there_is_nothing_to_roll_back_to(world: World) -> None:
    with pytest.raises(ValueError, match="no other version was in force before 2013-10-28: name one with --to; there are none"):
        world.decide("rollback")

    first = world.decided(WEEKS[0]).candidate.version
    other = world.version(WEEKS[1])
    world.deployed(WEEKS[0])

    with pytest.raises(ValueError, match=f"there are {first}, {other}"):
        world.decide("rollback")
    assert [made.kind for made in world.recorded()] == ["promoted"]


def test_a_version_that_does_not_exist_is_answered_with_those_that_do(world: World, three: tuple[str, str, str]) -> None:
    with pytest.raises(FileNotFoundError, match=f"no model nothing of flight_delays; there are {', '.join(three)}"):
        world.decide("rollback", "nothing")
    assert len(world.recorded()) == 3


# What the record tells --------------------------------------------------------------------------------------------------------


def test_before_the_first_model_nothing_is_live(world: World, three: tuple[str, str, str]) -> None:
    assert decisions.live(CASE, world.store, "2013-10-27") is None


def test_what_is_live_rests_on_the_decision_that_put_it_there(world: World, three: tuple[str, str, str]) -> None:
    rolled_back = world.decide("rollback").decision

    by_gate, by_person = (decisions.live(CASE, world.store, day) for day in ("2013-11-12", "2013-11-14"))

    assert by_gate is not None
    assert by_gate.decision == world.recorded()[1]
    assert by_gate.evidence is not None
    assert (by_gate.standing.version, by_gate.evidence["candidate"]["version"]) == (three[1], three[1])
    assert by_gate.package == world.store.models.package(CASE.name, three[1])
    assert by_person is not None
    assert (by_person.decision, by_person.standing.version) == (rolled_back, three[0])
    assert by_person.evidence is not None
    assert by_person.evidence["in_force"]["version"] == three[1]


def test_a_week_that_was_judged_again_is_live_by_its_latest_promotion(world: World, three: tuple[str, str, str]) -> None:
    world.decided(WEEKS[1], seed=9)

    found = decisions.live(CASE, world.store, "2013-11-06")

    assert found is not None
    assert found.decision == world.recorded()[-1]


def test_a_deployment_from_before_there_were_records_rests_on_the_weeks_report(world: World) -> None:
    report = world.judged(WEEKS[0], promoted=True)
    world.store.models.save_report(CASE.name, WEEKS[0], report.to_json(), None, {})
    world.deployed(WEEKS[0])

    found = decisions.live(CASE, world.store, "2013-10-30")

    assert found is not None
    assert found.decision is None
    assert found.evidence == json.loads(report.to_json())


def test_a_version_is_told_with_its_judgement_and_when_it_was_in_force(world: World, three: tuple[str, str, str]) -> None:
    world.decide("rollback", three[0], "2013-11-14")

    found = decisions.versions(CASE, world.store)

    assert [each.version for each in found] == list(three)
    assert [[(period.first, period.last) for period in each.periods] for each in found] == [
        [(WEEKS[0], "2013-11-03"), ("2013-11-14", None)],
        [(WEEKS[1], "2013-11-13")],
        [],
    ]
    assert [each.report["candidate"]["version"] for each in found if each.report] == list(three)


def test_a_version_keeps_its_judgement_when_its_week_has_another_candidate(world: World, three: tuple[str, str, str]) -> None:
    other = world.decided(WEEKS[1], content="made again").candidate.version

    found = decisions.find_version(CASE, world.store, three[1])

    assert other != three[1]
    assert found.report is not None
    assert found.report["candidate"]["version"] == three[1]


def test_a_version_that_was_never_judged_has_no_report(world: World) -> None:
    assert decisions.find_version(CASE, world.store, world.version(WEEKS[0])).report is None


def test_what_does_not_exist_is_answered_with_what_does(world: World, three: tuple[str, str, str]) -> None:
    with pytest.raises(FileNotFoundError, match=f"no model 2013 of flight_delays; there are {three[0]}"):
        decisions.find_version(CASE, world.store, "2013")
    for number in (0, 4, -1):
        with pytest.raises(ValueError, match=f"no decision {number} of flight_delays; there are 1 to 3"):
            decisions.find_decision(CASE, world.store, number)
    assert decisions.find_decision(CASE, world.store, 3) == world.recorded()[2]
    with pytest.raises(ValueError, match="no decision 1 of nothing; there are none"):
        decisions.find_decision(replace(CASE, name="nothing"), world.store, 1)


def test_differences_of_manifests_are_named() -> None:
    def manifest(**changes: Any) -> dict[str, Any]:
        given = {"parameters": {"num_leaves": 31}, "trees": 150, "features": [("amount", "cents")], "numpy": "2.0"} | changes
        return {
            "training": {"parameters": given["parameters"], "trees": given["trees"], "seed": 1},
            "features": [{"name": name, "dtype": "float64", "unit": unit} for name, unit in given["features"]],
            "libraries": {"numpy": given["numpy"]},
            "threshold": len(changes),
        }

    changed = manifest(
        parameters={"num_leaves": 15, "max_bin": 63}, trees=99, features=[("amount", "euros"), ("hour", None)], numpy="2.1"
    )

    assert decisions.differences(manifest(), manifest()) == {}
    assert decisions.differences(manifest(), changed) == {
        "trees": (150, 99),
        "num_leaves": (31, 15),
        "max_bin": (None, 63),
        "feature amount": ("float64 cents", "float64 euros"),
        "feature hour": (None, "float64"),
        "library numpy": ("2.0", "2.1"),
    }
