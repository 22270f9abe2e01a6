"""Figures and curves against sklearn and against counting by hand."""

import numpy as np
import pytest
from sklearn import metrics

from ml_assets.stages.metrics import measure


def made(count: int = 5000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    scores = np.round(random.beta(1, 4, count), 3)
    return scores, (random.random(count) < scores).astype(float)


def test_figures_at_the_threshold_are_counts_of_the_rows_at_or_above_it() -> None:
    scores, labels = np.array([0.1, 0.5, 0.5, 0.9, 0.2]), np.array([0.0, 1.0, 0.0, 1.0, 1.0])

    found = measure(scores, labels, version="v", family="lightgbm", threshold=0.5)

    assert found.confusion == {"tp": 2, "fp": 1, "fn": 1, "tn": 1}
    assert found.metrics["precision"] == pytest.approx(2 / 3)
    assert found.metrics["recall"] == pytest.approx(2 / 3)
    assert found.metrics["f1"] == pytest.approx(2 / 3)
    assert found.metrics["accuracy"] == pytest.approx(3 / 5)
    assert found.metrics["alert_share"] == pytest.approx(3 / 5)


def test_figures_over_all_thresholds_are_those_of_sklearn() -> None:
    scores, labels = made()

    found = measure(scores, labels, version="v", family="lightgbm", threshold=0.5).metrics

    assert found["roc_auc"] == metrics.roc_auc_score(labels, scores)
    assert found["average_precision"] == metrics.average_precision_score(labels, scores)
    assert found["log_loss"] == metrics.log_loss(labels, scores)
    assert found["brier"] == pytest.approx(((labels - scores) ** 2).mean())


def test_calibrated_scores_have_a_small_calibration_error_and_halved_ones_half_their_mean() -> None:
    scores, labels = made(50_000)

    right = measure(scores, labels, version="v", family="lightgbm", threshold=0.5)
    halved = measure(scores / 2, labels, version="v", family="lightgbm", threshold=0.5)

    assert right.metrics["expected_calibration_error"] < 0.01
    assert halved.metrics["expected_calibration_error"] == pytest.approx(scores.mean() / 2, abs=0.005)
    assert len(right.curves.calibration) == 10
    assert sum(rows for _, _, rows in right.curves.calibration) == 50_000


def test_rows_with_one_score_share_a_bin() -> None:
    labels = np.array([0.0, 1.0] * 50)

    found = measure(np.full(100, 0.3), labels, version="v", family="climatology", threshold=0.5)

    assert found.curves.calibration == [[pytest.approx(0.3), 0.5, 100]]


def test_curves_are_thin_end_where_they_must_and_keep_their_area() -> None:
    scores, labels = made()

    found = measure(scores, labels, version="v", family="lightgbm", threshold=0.5)
    false_rate, true_rate = np.array(found.curves.roc).T
    recall, precision = np.array(found.curves.precision_recall).T

    assert len(false_rate) <= 200
    assert len(recall) <= 200
    assert (found.curves.roc[0], found.curves.roc[-1]) == ([0, 0], [1, 1])
    assert found.curves.precision_recall[-1] == [0, 1]
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(found.metrics["roc_auc"], abs=0.005)
    assert -np.trapezoid(precision, recall) == pytest.approx(found.metrics["average_precision"], abs=0.01)


def test_no_row_flagged_is_precision_0() -> None:
    scores, labels = made()

    assert measure(scores, labels, version="v", family="lightgbm", threshold=2.0).metrics["precision"] == 0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_refused_in_plain_words(label: float) -> None:
    with pytest.raises(ValueError, match=f"all 3 rows of the hold-out have label {label:g}"):
        measure(np.array([0.1, 0.2, 0.3]), np.full(3, label), version="v", family="lightgbm", threshold=0.5)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="1 of 2 scores of model v are not finite"):
        measure(np.array([0.1, score]), np.array([0.0, 1.0]), version="v", family="lightgbm", threshold=0.5)
