"""What the gate lets through and what it refuses, through real models."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from ml_assets.stages.evaluate import Report, Trial, compare, measure_row_milliseconds
from ml_assets.stages.gate import rival_reason
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

    def contributions(self, frame: pd.DataFrame) -> None:
        return None


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


def test_a_slice_that_is_not_required_is_shown_and_does_not_decide(good: Candidate, small_case: UseCase, judge: Judge) -> None:
    blind = spoil(good, lambda frame: frame["kind"] == "c", 0.1)
    champion = spoil(good, lambda frame: frame["kind"] == "a", 0.3)
    lenient = gated(small_case, margin=1.0, floors={}, slices=(Slice(column="kind", minimum_rows=100, required=False),))

    report = judge(blind, champion, lenient)

    assert report.decision.promoted
    assert min(part.difference for part in report.slices if part.difference is not None) < -0.05
    assert all(part.passed and not part.required for part in report.slices)
    assert "no slice decides" in report.decision.reasons[-3].observed


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


def test_the_cases_own_metrics_are_measured_for_every_model_and_may_have_a_floor(
    good: Candidate, weak: Candidate, small_case: UseCase, judge: Judge, events: Events
) -> None:
    _, truth = events("2024-02-10", "2024-02-16", seed=5)
    further = {"precision_of_ten": lambda scores: float(truth[np.argsort(-scores)[:10]].mean())}

    report = judge(good, weak, gated(small_case, floors={"precision_of_ten": 0.99999}), further=further)

    assert report.champion is not None
    for model in (report.candidate, report.champion, report.baseline, report.climatology):
        assert list(model.metrics)[-1] == "precision_of_ten"
        assert 0 < model.metrics["precision_of_ten"] <= 1
    assert report.candidate.metrics["precision_of_ten"] == further["precision_of_ten"](
        good.model.predict(events("2024-02-10", "2024-02-16", seed=5)[0])
    )
    assert report.decision.reasons[0].name == "precision_of_ten floor"


@pytest.mark.parametrize(
    ("name", "value", "said"), [("recall", 0.5, "another name"), ("gain", np.nan, "gain of model new is not finite")]
)
def test_a_further_metric_must_be_new_and_defined(name: str, value: float, said: str, good: Candidate, judge: Judge) -> None:
    with pytest.raises(ValueError, match=said):
        judge(good, further={name: lambda scores: value})


def test_figures_of_candidate_and_champion_have_intervals(good: Candidate, weak: Candidate, judge: Judge) -> None:
    report = judge(good, weak)

    assert report.champion is not None
    for model in (report.candidate, report.champion):
        assert set(model.metrics) - set(model.intervals) == {"expected_calibration_error"}
        assert all(low < model.metrics[name] < high for name, (low, high) in model.intervals.items())
    assert report.baseline.intervals == {}


def test_a_report_tells_what_moves_scores(good: Candidate, judge: Judge) -> None:
    report = judge(good)

    assert report.contributions[0].feature == "risk"
    assert [example.score for example in report.examples] == sorted((example.score for example in report.examples), reverse=True)
    assert report.examples[0].reasons[0].feature == "risk"


def test_trials_of_the_search_are_kept(good: Candidate, judge: Judge) -> None:
    trial = Trial(
        number=0, state="pruned", value=0.4, family="logistic", parameters={"inverse_penalty": 1.0}, folds=(0.4,), trees=None
    )

    assert judge(good, trials=[trial]).trials == (trial,)


def test_reports_of_before_can_be_read(good: Candidate, judge: Judge) -> None:
    """A report of the first version has neither intervals, contributions, examples nor trials, and no optional slices."""
    content = json.loads(judge(good).to_json())
    for name in ("contributions", "examples", "trials"):
        del content[name]
    del content["candidate"]["intervals"]
    for part in content["slices"]:
        del part["required"]

    old = Report.from_json(json.dumps(content))

    assert (old.contributions, old.trials, old.candidate.intervals) == ((), (), {})
    assert old.slices[0].required


def test_a_model_that_does_not_beat_a_simpler_forecast_of_another_family_is_refused(good: Candidate, judge: Judge) -> None:
    ours = judge(good).candidate
    as_good = rival_reason(ours, replace(ours, family="logistic"), "the baseline")

    assert (as_good.name, as_good.passed) == ("average_precision better than the baseline", False)
    assert rival_reason(ours, judge(good).baseline, "the baseline").passed


def test_a_candidate_of_the_simpler_family_must_not_be_worse_than_it(good: Candidate, judge: Judge) -> None:
    """Where the search finds nothing better than the baseline's family, the candidate is the baseline."""
    assert failed(judge(replace(good, model=good.baseline))) == []

    baseline = judge(good).baseline
    worse = replace(baseline, metrics={**baseline.metrics, "average_precision": baseline.metrics["average_precision"] - 0.0001})

    assert rival_reason(baseline, baseline, "the baseline").passed
    found = rival_reason(worse, baseline, "the baseline")
    assert (found.name, found.passed) == ("average_precision not below the baseline", False)


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
    trial = Trial(
        number=3, state="complete", value=0.5, family="lightgbm", parameters={"num_leaves": 7}, folds=(0.4, 0.6), trees=60
    )
    for report in (judge(good), judge(weak, good, trials=[trial])):
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
