"""What the gate lets through and what it refuses, through real models."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from ml_assets.stages.evaluate import Report, compare, measure_row_milliseconds
from ml_assets.stages.model import Model
from ml_assets.stages.train import Candidate, train_candidate
from ml_assets.use_case import Slice, UseCase

Events = Callable[..., Any]
Judge = Callable[..., Report]


@pytest.fixture
def good(small_case: UseCase, events: Events) -> Candidate:
    rows, labels = events("2024-01-01", "2024-02-09")
    return train_candidate(rows, labels, rows["day"], case=small_case)


@pytest.fixture
def weak(good: Candidate, small_case: UseCase, events: Events) -> Candidate:
    """Learned from four days only."""
    rows, labels = events("2024-01-01", "2024-01-04")
    return train_candidate(rows, labels, rows["day"], case=small_case)


@pytest.fixture
def judge(small_case: UseCase, events: Events) -> Judge:
    """Compares on a week of hold-out; `champion` is a candidate that went live before."""
    holdout, truth = events("2024-02-10", "2024-02-16", seed=5)

    def judged(candidate: Candidate, champion: Candidate | None = None, case: UseCase = small_case, **changes: Any) -> Report:
        given: dict[str, Any] = {
            "week": "2024-02-17",
            "as_of": "2024-02-17T00:00:00+00:00",
            "holdout": holdout,
            "labels": truth,
            "candidate": candidate,
            "candidate_version": "new",
            "champion": champion.model if champion else None,
            "champion_version": "old" if champion else None,
            "champion_threshold": champion.threshold if champion else None,
            "candidate_bytes": 100_000,
            "row_milliseconds": 1.0,
        }
        return compare(case, **{**given, **changes})

    return judged


def failed(report: Report) -> list[str]:
    return [reason.name for reason in report.decision.reasons if not reason.passed]


def gated(case: UseCase, **changes: Any) -> UseCase:
    return replace(case, gate=replace(case.gate, **changes))


@dataclass(frozen=True)
class Spoiled:
    """A model whose scores are replaced where a condition holds."""

    model: Model
    where: Callable[[pd.DataFrame], Any]
    value: float
    family: str = "lightgbm"

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        return np.where(self.where(frame), self.value, self.model.predict(frame))

    def importance(self) -> list[tuple[str, float]]:
        return []


def spoil(candidate: Candidate, where: Callable[[pd.DataFrame], Any], value: float) -> Candidate:
    model: Any = Spoiled(model=candidate.model, where=where, value=value)
    return replace(candidate, model=model)


def test_the_first_good_model_is_promoted_without_a_comparison(good: Candidate, judge: Judge) -> None:
    report = judge(good)

    assert failed(report) == []
    assert report.decision.promoted
    assert (report.decision.champion_before, report.decision.champion_after) == (None, "new")
    assert report.champion is report.comparison is None
    assert {part.value for part in report.slices} == {"a", "b", "c"}
    assert all(part.passed and part.difference is None for part in report.slices)
    assert (report.holdout_first, report.holdout_last, report.holdout_rows) == ("2024-02-10", "2024-02-16", 1050)
    assert report.importance[0][0] == "risk"


def test_a_model_of_shuffled_labels_is_refused(small_case: UseCase, events: Events, judge: Judge) -> None:
    rows, labels = events("2024-01-01", "2024-02-09")
    shuffled = train_candidate(rows, np.random.default_rng(0).permutation(labels), rows["day"], case=small_case)

    report = judge(shuffled)

    assert not report.decision.promoted
    assert report.decision.champion_after is None
    assert "roc_auc floor" in failed(report)


def test_an_equal_candidate_is_promoted(good: Candidate, judge: Judge) -> None:
    report = judge(good, good)

    assert report.comparison is not None
    assert report.comparison["mean_difference"] == 0
    assert report.decision.promoted
    assert (report.decision.champion_before, report.decision.champion_after) == ("old", "new")


def test_a_worse_candidate_is_refused_and_the_champion_stays(good: Candidate, weak: Candidate, judge: Judge) -> None:
    report = judge(weak, good)

    assert not report.decision.promoted
    assert (report.decision.champion_before, report.decision.champion_after) == ("old", "old")
    assert {
        "mean difference of average_precision to the champion",
        "chance of being worse than the champion by more than 0.01",
    } <= set(failed(report))


def test_a_better_candidate_is_promoted_over_a_weak_champion(good: Candidate, weak: Candidate, judge: Judge) -> None:
    report = judge(good, weak)

    assert report.decision.promoted
    assert report.comparison is not None
    assert report.comparison["mean_difference"] > 0


def test_a_candidate_that_loses_little_on_average_but_much_on_a_slice_is_refused(
    good: Candidate, small_case: UseCase, judge: Judge
) -> None:
    """A margin of 1 leaves only the slices to object to blindness for one kind."""
    blind = spoil(good, lambda frame: frame["kind"] == "c", 0.1)
    champion = spoil(good, lambda frame: frame["kind"] == "a", 0.3)

    report = judge(blind, champion, gated(small_case, margin=1.0, floors={}))

    assert report.comparison is not None
    assert report.comparison["mean_difference"] > 0
    assert [part.value for part in report.slices if not part.passed] == ["c"]
    assert failed(report) == ["difference of average_precision on the worst slice"]
    assert not report.decision.promoted


def test_small_slices_do_not_count_and_missing_values_are_a_slice(good: Candidate, small_case: UseCase, judge: Judge) -> None:
    everything = judge(good, good, gated(small_case, slices=(Slice(column="kind", minimum_rows=1),)))
    large = judge(good, good, gated(small_case, slices=(Slice(column="kind", minimum_rows=400),)))

    assert [part.value for part in everything.slices] == ["a", "b", "c", "missing"]
    assert sum(part.rows for part in everything.slices) == 1050
    assert [part.value for part in large.slices] == ["a"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"candidate_bytes": 5_000_001}, "size of the model in MB"),
        ({"row_milliseconds": 50.1}, "milliseconds to score one row"),
    ],
)
def test_budgets_are_kept(changes: Mapping[str, Any], reason: str, good: Candidate, judge: Judge) -> None:
    assert failed(judge(good, **changes)) == [reason]


def test_each_floor_counts(good: Candidate, small_case: UseCase, judge: Judge) -> None:
    report = judge(good, case=gated(small_case, floors={"recall": 0.99, "roc_auc": 0.5}))

    assert failed(report) == ["recall floor"]
    assert next(reason for reason in report.decision.reasons if reason.name == "recall floor").wanted == "at least 0.99"


def test_a_floor_on_an_unknown_metric_is_an_error(good: Candidate, small_case: UseCase, judge: Judge) -> None:
    with pytest.raises(ValueError, match="sharpness"):
        judge(good, case=gated(small_case, floors={"sharpness": 0.1}))


@pytest.mark.parametrize(("simpler", "name"), [("baseline", "the baseline"), ("climatology", "climatology")])
def test_a_model_that_does_not_beat_a_simpler_forecast_is_refused(
    simpler: str, name: str, good: Candidate, small_case: UseCase, judge: Judge
) -> None:
    as_good = replace(good, **{simpler: good.model})

    assert failed(judge(as_good)) == [f"average_precision better than {name}"]


def test_scores_that_are_not_finite_are_an_error_not_a_refusal(good: Candidate, judge: Judge) -> None:
    with pytest.raises(ValueError, match="model new are not finite"):
        judge(spoil(good, lambda frame: frame["hour"] == 3, np.nan))


def test_a_champion_without_its_threshold_is_an_error(good: Candidate, judge: Judge) -> None:
    with pytest.raises(ValueError, match="champion"):
        judge(good, good, champion_threshold=None)


def test_a_hold_out_of_one_class_is_an_error(good: Candidate, judge: Judge) -> None:
    with pytest.raises(ValueError, match="one class"):
        judge(good, labels=np.zeros(1050))


def test_a_report_survives_its_text(good: Candidate, weak: Candidate, judge: Judge) -> None:
    for report in (judge(good), judge(weak, good)):
        text = report.to_json()

        assert Report.from_json(text) == report
        assert Report.from_json(text).to_json() == text
        assert list(json.loads(text)) == sorted(json.loads(text))
    assert judge(good, weak).to_json() == judge(good, weak).to_json()


def test_a_text_that_is_no_report_is_refused() -> None:
    with pytest.raises(ValidationError):
        Report.from_json('{"case": "small"}')


def test_a_row_takes_time(good: Candidate, events: Events) -> None:
    rows, _ = events("2024-02-10", "2024-02-10")

    assert 0 < measure_row_milliseconds(good.model, rows.head(1)) < 1000
