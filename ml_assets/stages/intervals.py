"""How far a model's figures would move with other days: bootstrap by day of every metric of one model.

Belongs here: one model alone. Does not: the difference of two (`comparison`), which is known better than either figure.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ml_assets.stages.comparison import average_precisions, multiplicities
from ml_assets.stages.inputs import FloatArray, IntArray
from ml_assets.stages.metrics import within_bounds

MIDDLE = (0.025, 0.975)


def intervals(
    scores: FloatArray, labels: FloatArray, days: npt.ArrayLike, *, threshold: float, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The middle 95 % of each metric over resamples of whole days, named and defined as in `metrics.measure`.

    A resample in which a metric is undefined (no positive, hence no recall) is left out, and a metric that is undefined in all of
    them too. Only the expected calibration error has none: its bins belong to the rows they were made from.

    Args:
        scores: probabilities, finite, shape (n,).
        labels: 0 or 1, shape (n,).
        days: what is drawn together, shape (n,).
    """
    day: IntArray = np.unique(np.asarray(days, dtype=str), return_inverse=True)[1]
    times = multiplicities(int(day.max()) + 1, resamples=resamples, seed=seed)
    found = {
        **_at_threshold(scores >= threshold, labels, day, times),
        "roc_auc": roc_aucs(labels, scores, day, times),
        "average_precision": average_precisions(labels, scores, day, times),
        **_of_probabilities(scores, labels, day, times),
    }
    return dict(_middles({name: within_bounds(name, values) for name, values in found.items()}))


def roc_aucs(labels: FloatArray, scores: FloatArray, day: IntArray, times: FloatArray) -> FloatArray:
    """ROC AUC of each resample, as `sklearn.metrics.roc_auc_score` of the rows repeated; nan without both classes.

    It is the share of pairs of a positive and a negative that stand in the right order, a tie counting half (Mann and Whitney,
    1947). Pairs are counted once, by the day of the positive and the day of the negative; a resample weights these counts.

    Args:
        labels, scores, day: one a row; `day` numbers the days from 0.
        times: shape (resamples, days).
    """
    positive = labels == 1
    days = times.shape[1]
    ordered = np.zeros((days, days))
    for negatives_day in range(days):
        negatives = np.sort(scores[~positive & (day == negatives_day)])
        below = [np.searchsorted(negatives, scores[positive], side=side) for side in ("left", "right")]
        ordered[:, negatives_day] = np.bincount(day[positive], (below[0] + below[1]) / 2, minlength=days)
    pairs = np.outer(np.bincount(day[positive], minlength=days), np.bincount(day[~positive], minlength=days)).astype(np.float64)
    return _ratio(((times @ ordered) * times).sum(axis=1), ((times @ pairs) * times).sum(axis=1))


def _at_threshold(flagged: npt.NDArray[np.bool_], labels: FloatArray, day: IntArray, times: FloatArray) -> dict[str, FloatArray]:
    """With no row flagged, precision is 0, as in `metrics`; so is F1 with neither a flagged row nor a positive."""
    rows, positives, alerts = _sums(np.ones_like(labels), day, times), _sums(labels, day, times), _sums(flagged, day, times)
    found = _sums(flagged * labels, day, times)
    return {
        "accuracy": (rows - positives - alerts + 2 * found) / rows,
        "precision": np.nan_to_num(_ratio(found, alerts)),
        "recall": _ratio(found, positives),
        "f1": np.nan_to_num(_ratio(2 * found, positives + alerts)),
        "alert_share": alerts / rows,
    }


def _of_probabilities(scores: FloatArray, labels: FloatArray, day: IntArray, times: FloatArray) -> dict[str, FloatArray]:
    rows = _sums(np.ones_like(labels), day, times)
    smallest = np.finfo(np.float64).eps  # as sklearn's log_loss, where a certain forecast that fails would cost infinitely much
    surprise = -np.log(np.clip(np.where(labels == 1, scores, 1 - scores), smallest, 1 - smallest))
    return {
        "log_loss": _sums(surprise, day, times) / rows,
        "brier": _sums((scores - labels) ** 2, day, times) / rows,
    }


def _sums(values: npt.NDArray[np.float64 | np.bool_], day: IntArray, times: FloatArray) -> FloatArray:
    """The sum over the rows of each resample: linear in the sums of the days."""
    found: FloatArray = times @ np.bincount(day, values, minlength=times.shape[1])
    return found


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Undefined, hence nan, where the whole is 0."""
    found: FloatArray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return found


def _middles(found: dict[str, FloatArray]) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, values in found.items():
        defined = values[~np.isnan(values)]
        if len(defined):
            low, high = np.quantile(defined, MIDDLE)
            yield name, (float(low), float(high))
