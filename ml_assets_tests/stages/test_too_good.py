"""The gate refuses what is too good to be true until the case allows it; nobody has to be better than perfect."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.evaluate import Report, compare
from ml_assets.stages.gate import SCREENED, constant_reason, rival_reason
from ml_assets.stages.monitor import daily_performance
from ml_assets.stages.package import candidate_in, files_of, manifest_of
from ml_assets.stages.pictures import draw
from ml_assets.stages.promise import promise_findings, promises
from ml_assets.stages.reference import reference_of
from ml_assets.stages.report import render, summary_markdown
from ml_assets.stages.screening import FILE
from ml_assets.stages.train import Candidate, train_candidate
from ml_assets.use_case import Column, DType, Screening, Training, UseCase

Events = Callable[..., Any]


def with_leak(case: UseCase, **changes: Any) -> UseCase:
    column = Column(name="handling_days", dtype=DType.FLOAT64)
    return replace(
        case,
        features=replace(case.features, columns=(*case.features.columns, column)),
        gate=replace(case.gate, **changes),
    )


def leaking(events: Events, first: str, last: str, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rows, labels = events(first, last, seed=seed)
    others = np.random.default_rng(seed + 1).choice([0.0, 1.0, 2.0, 4.0, 5.0, 6.0], len(rows))
    rows = rows.assign(handling_days=np.where(labels == 1, 3.0, others), event_id=[f"e{place}" for place in range(len(rows))])
    return rows, labels


@pytest.fixture(scope="module")
def candidate(small_case: UseCase, events: Events) -> Candidate:
    rows, labels = leaking(events, "2024-01-01", "2024-02-04")
    return train_candidate(rows, labels, rows["day"], case=with_leak(small_case))


def judged(candidate: Candidate, case: UseCase, events: Events, champion: Candidate | None = None) -> Report:
    rows, labels = leaking(events, "2024-02-10", "2024-02-16", seed=5)
    return compare(
        case,
        week="2024-02-17",
        as_of="2024-02-17T00:00:00+00:00",
        holdout=rows,
        labels=labels,
        candidate=candidate,
        candidate_version="new",
        champion=champion.model if champion else None,
        champion_version="old" if champion else None,
        champion_threshold=champion.threshold if champion else None,
        candidate_bytes=1000,
        row_milliseconds=1.0,
    )


def failed(report: Report) -> dict[str, tuple[str, str]]:
    return {reason.name: (reason.observed, reason.wanted) for reason in report.decision.reasons if not reason.passed}


def test_a_leak_is_refused_by_name_until_it_is_allowed(candidate: Candidate, small_case: UseCase, events: Events) -> None:
    report = judged(candidate, with_leak(small_case), events)

    assert report.candidate.metrics["average_precision"] > 0.999
    assert list(failed(report)) == [SCREENED]
    observed, wanted = failed(report)[SCREENED]
    assert observed.startswith("handling_days: AUC 1.000, average precision 1.000, determines 100% of the positives")
    assert "positive where 3" in observed
    assert "allowed_alone=('handling_days',)" in wanted

    allowed = judged(candidate, with_leak(small_case, allowed_alone=("handling_days",)), events)
    assert failed(allowed) == {}
    (reason,) = [reason for reason in allowed.decision.reasons if reason.name == SCREENED]
    assert reason.observed.startswith("allowed: handling_days: AUC 1.000")

    assert failed(judged(candidate, with_leak(small_case, screening=Screening(max_auc=1.1, max_determined=1.1)), events)) == {}
    other = judged(candidate, with_leak(small_case, allowed_alone=("risk",)), events)
    assert "allowed_alone=('handling_days', 'risk',)" in failed(other)[SCREENED][1]


def test_the_next_perfect_candidate_passes_a_perfect_champion(candidate: Candidate, small_case: UseCase, events: Events) -> None:
    report = judged(candidate, with_leak(small_case, allowed_alone=("handling_days",)), events, champion=candidate)
    assert failed(report) == {}


def test_what_was_screened_is_in_package_report_and_page(candidate: Candidate, small_case: UseCase, events: Events) -> None:
    case = with_leak(small_case)
    report = judged(candidate, case, events)
    rows, _ = leaking(events, "2024-02-10", "2024-02-16", seed=5)
    files = files_of(candidate)
    manifest = manifest_of(case, candidate, week="2024-02-17", as_of="", days={}, contents={}, holdout=rows)

    assert candidate_in(files, json.loads(json.dumps(manifest))).screening == candidate.screening
    assert json.loads(files[FILE])["features"][0]["feature"] == "handling_days"
    assert Report.from_json(report.to_json()) == report
    assert report.screening is not None
    assert report.screening.features[0].feature == "handling_days"
    page = render(report, draw(report), title="A week")
    assert "<h2>Features alone</h2>" in page
    assert "positive where 3" in page
    assert "handling\\_days" in summary_markdown(report) or "handling_days: AUC 1.000" in summary_markdown(report)


def test_reports_and_packages_from_before_are_read_and_judged(candidate: Candidate, small_case: UseCase, events: Events) -> None:
    case = with_leak(small_case)
    content = json.loads(judged(candidate, case, events).to_json())
    del content["screening"]
    assert Report.from_json(json.dumps(content)).screening is None
    assert "Features alone" not in render(Report.from_json(json.dumps(content)), {}, title="A week")

    files = {name: each for name, each in files_of(candidate).items() if name != FILE}
    rows, _ = leaking(events, "2024-02-10", "2024-02-16", seed=5)
    manifest = manifest_of(case, candidate, week="2024-02-17", as_of="", days={}, contents={}, holdout=rows)
    old = candidate_in(files, json.loads(json.dumps(manifest)))
    assert old.screening is None
    assert SCREENED not in {reason.name for reason in judged(old, case, events).decision.reasons}


def test_against_a_perfect_rival_perfect_is_enough(candidate: Candidate, small_case: UseCase, events: Events) -> None:
    performance = judged(candidate, with_leak(small_case), events).candidate

    def of(value: float, family: str = "lightgbm") -> Any:
        return replace(performance, family=family, metrics={**performance.metrics, "average_precision": value})

    perfect, near = of(1.0, "logistic"), of(0.99996, "logistic")
    assert rival_reason(of(1.0), perfect, "the baseline").passed
    assert rival_reason(of(1.0 - 1e-12), perfect, "the baseline").passed
    found = rival_reason(of(0.9994), perfect, "the baseline")
    assert (found.passed, found.observed, found.wanted) == (False, "0.9994", "at least 1.0000, which is perfect")
    close = rival_reason(of(0.99995), near, "the baseline")
    assert (close.passed, close.observed, close.wanted) == (False, "0.99995", "above 0.99996")


def test_a_margin_below_the_baseline_is_declared(candidate: Candidate, small_case: UseCase, events: Events) -> None:
    performance = judged(candidate, with_leak(small_case), events).candidate

    def of(value: float, family: str = "lightgbm") -> Any:
        return replace(performance, family=family, metrics={**performance.metrics, "average_precision": value})

    baseline = of(0.40, "logistic")
    assert not rival_reason(of(0.38), baseline, "the baseline").passed
    found = rival_reason(of(0.38), baseline, "the baseline", margin=0.03)
    assert (found.name, found.passed, found.wanted) == (
        "average_precision not below the baseline by more than 0.03",
        True,
        "at least 0.3700",
    )
    assert not rival_reason(of(0.36), baseline, "the baseline", margin=0.03).passed


@pytest.fixture(scope="module")
def mute(small_case: UseCase, events: Events) -> tuple[UseCase, Candidate]:
    """No leaf may hold as many rows as a split needs: one score for all."""
    training: Training = replace(
        small_case.training, parameters={**small_case.training.parameters, "min_data_in_leaf": 100_000, "verbosity": -1}
    )
    case = replace(small_case, training=training)
    rows, labels = events("2024-01-01", "2024-02-04")
    return case, train_candidate(rows, labels, rows["day"], case=case)


def test_constant_scores_are_a_reason(mute: tuple[UseCase, Candidate], events: Events) -> None:
    case, model = mute
    rows, labels = events("2024-02-10", "2024-02-16", seed=5)
    report = compare(
        case,
        week="2024-02-17",
        as_of="",
        holdout=rows,
        labels=labels,
        candidate=model,
        candidate_version="new",
        champion=None,
        champion_version=None,
        champion_threshold=None,
        candidate_bytes=1,
        row_milliseconds=1.0,
    )
    assert report.candidate.metrics["roc_auc"] == 0.5
    assert failed(report)["scores differ between events"][0].endswith("for each of 1,050 events")
    assert draw(report)
    assert constant_reason(np.array([0.1, 0.2])).passed


def test_a_model_of_one_score_is_watched_on_days_of_one_class_and_of_none(
    mute: tuple[UseCase, Candidate], events: Events, small_case: UseCase
) -> None:
    """Rankings of one class are undefined, hence nan, and so are falls; nothing is warned of, and nothing ends in an error."""
    case, model = mute
    rows, labels = events("2024-02-10", "2024-02-16", seed=5)
    rows = rows.assign(event_id=[f"e{place}" for place in range(len(rows))], label=labels)
    reference = reference_of(model.model, rows, rows)
    assert reference.roc_auc == 0.5
    assert reference.calibration.rate(model.model.predict(rows))[0] == pytest.approx(labels.mean())

    scores = pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "day": rows["day"],
            "model_version": "new",
            "score": 0.3,
            "alert": 1,
            "baseline_score": 0.3,
            "climatology_score": 0.3,
            "rate": 0.3,
        }
    )
    for known in (rows.assign(label=0), rows.assign(label=1), rows.iloc[:0]):
        truth = known.assign(
            known_at=pd.Timestamp("2024-02-20", tz="UTC"), event_day=known["day"], event_time=pd.Timestamp("2024-02-10", tz="UTC")
        )[["event_id", "event_day", "event_time", "known_at", "label", "day"]]
        first = dict.fromkeys(rows["day"], "2024-02-10")
        live = daily_performance(scores, truth, first, case=case)
        assert len(live) == 7
        assert live[["roc_auc", "average_precision", "baseline_average_precision"]].isna().all(axis=None)
        estimates = live[["day", "model_version"]].assign(roc_auc=0.5, average_precision=0.3)
        found = promises(live, estimates, ["2024-02-16"], references={"new": reference}, monitoring=case.monitoring)
        assert found["fall"].isna().all()
        assert (found["alarm"] == 0).all() or known["label"].eq(1).any()
        assert promise_findings(found, case.monitoring)["2024-02-16"][0].passed
    nothing = daily_performance(scores.iloc[:0], truth, {}, case=case)
    assert nothing.empty
    assert promises(nothing, estimates.iloc[:0], ["2024-02-16"], references={}, monitoring=case.monitoring).empty
