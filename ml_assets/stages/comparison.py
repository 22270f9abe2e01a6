"""Two models on the same rows: paired bootstrap by day of the difference of average precision.

Days are drawn, not rows: the errors of a day belong together, and rows drawn one by one would make the interval too narrow.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict  # pydantic, which reads reports back, takes that of `typing` from Python 3.12 on

from ml_assets.stages.bounds import bounded
from ml_assets.stages.inputs import FloatArray, IntArray


class Comparison(TypedDict):
    """Differences are candidate minus champion; the interval holds the middle 95 % of the resamples."""

    mean_difference: float
    chance_worse_than_margin: float
    interval_low: float
    interval_high: float
    resamples: float


def paired_bootstrap(
    labels: FloatArray,
    days: npt.ArrayLike,
    candidate: FloatArray,
    champion: FloatArray,
    *,
    resamples: int,
    margin: float,
    seed: int,
) -> Comparison:
    """Draws as many days as there are, with replacement, and compares both models on the very same drawn days.

    A resample without a positive has no average precision and is left out; `resamples` is the number that count.

    Raises:
        ValueError: when no resample has a positive.
    """
    day: IntArray = np.unique(np.asarray(days, dtype=str), return_inverse=True)[1]
    times = multiplicities(int(day.max()) + 1, resamples=resamples, seed=seed)
    difference = average_precisions(labels, candidate, day, times) - average_precisions(labels, champion, day, times)
    difference = difference[~np.isnan(difference)]
    if not len(difference):
        raise ValueError(f"none of {resamples} resamples has a positive: average precision is undefined")
    low, high = np.quantile(difference, [0.025, 0.975])
    return Comparison(
        mean_difference=float(difference.mean()),
        chance_worse_than_margin=float((difference < -margin).mean()),
        interval_low=float(low),
        interval_high=float(high),
        resamples=float(len(difference)),
    )


def multiplicities(days: int, *, resamples: int, seed: int) -> FloatArray:
    """How often each day is drawn in each resample, shape (resamples, days)."""
    drawn = np.random.default_rng(seed).multinomial(days, np.full(days, 1 / days), size=resamples)
    return drawn.astype(np.float64)


def average_precisions(labels: FloatArray, scores: FloatArray, day: IntArray, times: FloatArray) -> FloatArray:
    """Average precision of each resample, as `sklearn.metrics.average_precision_score` of the rows repeated; nan without positives.

    Rows are sorted once. Only scores at which a positive stands add to the sum, and the counts up to them are linear in the
    multiplicities of the days: a resample costs (days x such scores), however many rows there are.

    Args:
        labels, scores, day: one a row; `day` numbers the days from 0.
        times: shape (resamples, days).

    Returns:
        Shape (resamples,).
    """
    if not labels.any():
        return np.full(len(times), np.nan)
    rows, hits = _counts_by_score(labels, scores, day, times.shape[1])
    chunks = np.array_split(times, max(1, times.shape[0] * rows.shape[1] // 4_000_000))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.concatenate([_weighted(chunk @ hits, chunk @ rows) for chunk in chunks])
    return bounded(found, name="average precision")


def _weighted(true_positives: FloatArray, flagged: FloatArray) -> FloatArray:
    """Sum of precision x gain in recall. A score without a drawn row adds 0, whatever its precision of 0/0."""
    gains = np.diff(true_positives, axis=1, prepend=0.0)
    precision = np.where(flagged > 0, true_positives / flagged, 0.0)
    found: FloatArray = (gains * precision).sum(axis=1) / true_positives[:, -1]
    return found


def _counts_by_score(labels: FloatArray, scores: FloatArray, day: IntArray, days: int) -> tuple[FloatArray, FloatArray]:
    """Rows and positives of each day with at least each score at which a positive stands; shape (days, scores), falling scores."""
    levels, place = np.unique(-scores, return_inverse=True)
    shape = (days, len(levels))
    rows, hits = np.zeros(shape), np.zeros(shape)
    np.add.at(rows, (day, place), 1.0)
    np.add.at(hits, (day, place), labels)
    kept: npt.NDArray[Any] = hits.sum(axis=0) > 0
    return rows.cumsum(axis=1)[:, kept], hits.cumsum(axis=1)[:, kept]
