"""How good scores are on labelled rows: figures at a threshold, over all thresholds, and curves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from ml_assets.stages.bounds import bounded
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.ranking import average_precision, roc_auc

CURVE_POINTS = 200
CALIBRATION_BINS = 10
UNBOUNDED = frozenset({"log_loss"})
"""Metrics that every case has and that may be above 1; none is below 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """Points to draw: [recall, precision], [false positive rate, true positive rate], [mean predicted, observed rate, rows]."""

    precision_recall: list[list[float]]
    roc: list[list[float]]
    calibration: list[list[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """One model on the hold-out. `confusion` has `tp`, `fp`, `fn` and `tn`; flagged is a score at or above `threshold`.

    `intervals` holds [low, high] of the metrics that have one: 95 %, bootstrap by day.
    """

    version: str
    family: str
    threshold: float
    metrics: dict[str, float]
    confusion: dict[str, int]
    curves: Curves
    intervals: dict[str, list[float]] = field(default_factory=dict)


def measure(
    scores: FloatArray,
    labels: FloatArray,
    *,
    version: str,
    family: str,
    threshold: float,
    further: Mapping[str, Callable[[FloatArray], float]] = MappingProxyType({}),
) -> Performance:
    """All figures and curves of one model.

    Args:
        scores: probabilities of a positive, shape (n,).
        labels: 0 or 1, shape (n,), both present.
        further: metrics of the case, each from the scores; they come after those that every case has.

    Raises:
        ValueError: when a score or a further metric is not finite, a further one has the name of another, or all labels are the same,
            so that half of the figures are undefined.
    """
    require_finite(scores, version)
    if labels.min() == labels.max():
        raise ValueError(
            f"all {len(labels)} rows of the hold-out have label {labels[0]:g}: ROC AUC and average precision are undefined"
        )
    flagged = scores >= threshold
    bins = calibration(scores, labels)
    figures = {**_at_threshold(flagged, labels), **_over_thresholds(scores, labels), **_of_probabilities(scores, labels, bins)}
    standard = {name: float(within_bounds(name, np.float64(value))) for name, value in figures.items()}
    return Performance(
        version=version,
        family=family,
        threshold=threshold,
        metrics={**standard, **_further(scores, further, standard, version)},
        confusion=_confusion(flagged, labels),
        curves=Curves(precision_recall=_precision_recall(scores, labels), roc=_roc(scores, labels), calibration=bins),
    )


def within_bounds(name: str, values: npt.ArrayLike) -> FloatArray:
    """A metric that every case has, as `bounds.bounded`."""
    return bounded(values, name=name, maximum=None if name in UNBOUNDED else 1.0)


def require_finite(scores: FloatArray, version: str) -> None:
    """Raises ValueError, naming the model, when a score is nan or infinite."""
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(scores)} scores of model {version} are not finite; a model must score every row")


def calibration(scores: FloatArray, labels: FloatArray) -> list[list[float]]:
    """[mean predicted, observed rate, rows] of bins between quantiles of the scores.

    Rows with one score share a bin, so that there may be fewer than `CALIBRATION_BINS`.
    """
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, scores, side="right")
    rows = np.bincount(place).astype(np.float64)
    there = rows > 0
    predicted, observed = np.bincount(place, scores)[there], np.bincount(place, labels)[there]
    return _points(predicted / rows[there], observed / rows[there], rows[there])


def _at_threshold(flagged: npt.NDArray[np.bool_], labels: FloatArray) -> dict[str, float]:
    """With no row flagged, precision is 0/0: undefined, hence 0, as nothing was gained."""
    return {
        "accuracy": float(metrics.accuracy_score(labels, flagged)),
        "precision": float(metrics.precision_score(labels, flagged, zero_division=0)),
        "recall": float(metrics.recall_score(labels, flagged)),
        "f1": float(metrics.f1_score(labels, flagged, zero_division=0)),
        "alert_share": float(flagged.mean()),
    }


def _over_thresholds(scores: FloatArray, labels: FloatArray) -> dict[str, float]:
    return {
        "roc_auc": roc_auc(labels, scores),
        "average_precision": average_precision(labels, scores),
    }


def _of_probabilities(scores: FloatArray, labels: FloatArray, bins: list[list[float]]) -> dict[str, float]:
    """The expected calibration error is the mean of |predicted - observed| over the bins, weighted by rows (Naeini et al., 2015)."""
    error = sum(rows * abs(predicted - observed) for predicted, observed, rows in bins) / len(scores)
    return {
        "log_loss": float(metrics.log_loss(labels, scores)),
        "brier": float(metrics.brier_score_loss(labels, scores)),
        "expected_calibration_error": float(error),
    }


def _further(
    scores: FloatArray, further: Mapping[str, Callable[[FloatArray], float]], standard: Mapping[str, float], version: str
) -> dict[str, float]:
    if taken := sorted(further.keys() & standard.keys()):
        raise ValueError(f"every case has the metric {', '.join(taken)}; give the case's own another name")
    found = {name: float(metric(scores)) for name, metric in further.items()}
    if undefined := [name for name, value in found.items() if not np.isfinite(value)]:
        raise ValueError(f"{', '.join(undefined)} of model {version} is not finite: undefined on this hold-out")
    return found


def _confusion(flagged: npt.NDArray[np.bool_], labels: FloatArray) -> dict[str, int]:
    (tn, fp), (fn, tp) = metrics.confusion_matrix(labels, flagged).tolist()
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


def _precision_recall(scores: FloatArray, labels: FloatArray) -> list[list[float]]:
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    return _thinned(recall, precision)


def _roc(scores: FloatArray, labels: FloatArray) -> list[list[float]]:
    false_rate, true_rate, _ = metrics.roc_curve(labels, scores)
    return _thinned(false_rate, true_rate)


def _thinned(across: FloatArray, up: FloatArray) -> list[list[float]]:
    """At most `CURVE_POINTS` points, evenly spaced along the curve, both ends among them."""
    steps = np.abs(np.diff(across)) + np.abs(np.diff(up))
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.linspace(0.0, along[-1], CURVE_POINTS)
    chosen = (
        np.unique(np.searchsorted(along, wanted).clip(0, len(along) - 1)) if len(along) > CURVE_POINTS else np.arange(len(along))
    )
    chosen[[0, -1]] = 0, len(along) - 1
    return _points(across[chosen], up[chosen])


def _points(*columns: FloatArray) -> list[list[float]]:
    return [list(map(float, point)) for point in zip(*columns, strict=True)]
