"""Intervals against sklearn on rows that are really repeated."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics

from ml_assets.stages.comparison import multiplicities
from ml_assets.stages.intervals import intervals, roc_aucs

METRICS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda labels, scores, flagged: metrics.accuracy_score(labels, flagged),
    "precision": lambda labels, scores, flagged: metrics.precision_score(labels, flagged, zero_division=0),
    "recall": lambda labels, scores, flagged: metrics.recall_score(labels, flagged),
    "f1": lambda labels, scores, flagged: metrics.f1_score(labels, flagged, zero_division=0),
    "alert_share": lambda labels, scores, flagged: flagged.mean(),
    "roc_auc": lambda labels, scores, flagged: metrics.roc_auc_score(labels, scores),
    "average_precision": lambda labels, scores, flagged: metrics.average_precision_score(labels, scores),
    "log_loss": lambda labels, scores, flagged: metrics.log_loss(labels, scores, labels=[0, 1]),
    "brier": lambda labels, scores, flagged: metrics.brier_score_loss(labels, scores),
}


def made(rows: int, days: int, *, decimals: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and days; a positive is more frequent on later days."""
    random = np.random.default_rng(rows)
    day = np.sort(random.integers(0, days, rows))
    labels = (random.random(rows) < 0.1 + 0.3 * day / days).astype(float)
    return np.round(1 / (1 + np.exp(1 - random.normal(size=rows) - labels)), decimals), labels, day


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("threshold", [0.4, 0.95])
def test_each_interval_is_that_of_sklearn_on_repeated_rows(decimals: int, threshold: float) -> None:
    scores, labels, day = made(600, 7, decimals=decimals)

    found = intervals(scores, labels, day, threshold=threshold, resamples=60, seed=3)

    drawn = [np.repeat(np.arange(600), row[day].astype(int)) for row in multiplicities(7, resamples=60, seed=3)]
    assert found.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        values = [metric(labels[rows], scores[rows], scores[rows] >= threshold) for rows in drawn]
        assert found[name] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-12), name


def test_certain_forecasts_cost_what_they_cost_in_sklearn() -> None:
    scores, labels = np.array([0.0, 1.0, 1.0, 0.5]), np.array([0.0, 1.0, 0.0, 1.0])

    found = intervals(scores, labels, ["2024-01-01"] * 4, threshold=0.5, resamples=5, seed=1)

    assert found["log_loss"] == pytest.approx((metrics.log_loss(labels, scores),) * 2)


def test_the_figure_lies_within_its_interval_and_the_seed_decides() -> None:
    scores, labels, day = made(5000, 14)

    found = intervals(scores, labels, day, threshold=0.4, resamples=400, seed=1)

    for name, (low, high) in found.items():
        assert low < METRICS[name](labels, scores, scores >= 0.4) < high, name
    assert found == intervals(scores, labels, day, threshold=0.4, resamples=400, seed=1)
    assert found != intervals(scores, labels, day, threshold=0.4, resamples=400, seed=2)


def test_resamples_without_a_positive_do_not_count() -> None:
    scores, labels = np.array([0.2, 0.9, 0.3]), np.array([0.0, 1.0, 0.0])

    found = intervals(scores, labels, ["a", "b", "c"], threshold=0.5, resamples=200, seed=1)

    assert found["recall"] == found["average_precision"] == found["roc_auc"] == (1, 1)
    assert found["alert_share"][0] == 0


def test_what_is_undefined_in_every_resample_has_no_interval() -> None:
    found = intervals(np.array([0.2, 0.9]), np.zeros(2), ["a", "b"], threshold=0.5, resamples=50, seed=1)

    assert not {"recall", "average_precision", "roc_auc"} & found.keys()
    assert np.isfinite(list(found.values())).all()


def test_a_day_without_either_class_does_not_disturb_roc_auc() -> None:
    scores, labels, day = made(300, 3)
    labels[day == 0], labels[day == 1] = 0, 1

    assert roc_aucs(labels, scores, day, np.ones((1, 3))) == pytest.approx(metrics.roc_auc_score(labels, scores))
