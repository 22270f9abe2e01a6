"""How well scores put positives before negatives: figures between 0 and 1 that rounding cannot carry out of it.

Belongs here: average precision and ROC AUC of one set of rows. Does not: those of resamples (`comparison`, `intervals`), other figures
(`metrics`).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_assets.stages.bounds import bounded
from ml_assets.stages.inputs import FloatArray


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Sum of precision x gain in recall over falling scores, as `sklearn.metrics.average_precision_score`; nan without positives.

    A precision is at most 1, so no rounded term is greater than its gain, nor is the correctly rounded sum of the terms (`math.fsum`)
    greater than that of the gains, by which it is divided.

    Args:
        labels: 0 or 1, or the probability of a positive, shape (n,).
        scores: finite, shape (n,).

    >>> average_precision([0, 1, 1], [0.1, 0.3, 0.2])
    1.0
    """
    levels = _Levels.of(labels, scores)
    hits = levels.positives.cumsum()
    gains = np.diff(hits, prepend=0)
    gained = np.flatnonzero(gains)
    if not len(gained):
        return math.nan
    precision = hits[gained] / levels.rows.cumsum()[gained]
    return math.fsum((gains[gained] * precision).tolist()) / math.fsum(gains[gained].tolist())


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Share of pairs of a positive and a negative that stand in the right order, a tie counting half; nan without both classes.

    Labels that are 0 or 1 make it a quotient of whole numbers, which is rounded once.

    Args:
        labels: 0 or 1, or the probability of a positive, shape (n,).
        scores: finite, shape (n,).

    >>> roc_auc([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.3])
    0.625
    """
    levels = _Levels.of(labels, scores)
    negatives = levels.rows - levels.positives
    below = negatives[::-1].cumsum()[::-1] - negatives
    halves = levels.positives * (2 * below + negatives)
    if levels.positives.dtype == np.int64:
        right, pairs = int(halves.sum()), 2 * int(levels.positives.sum()) * int(negatives.sum())
        return right / pairs if pairs else math.nan
    both = 2 * math.fsum(levels.positives.tolist()) * math.fsum(negatives.tolist())
    return float(bounded(np.float64(math.fsum(halves.tolist()) / both), name="ROC AUC")) if both else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class _Levels:
    """Each score that rows have, from the highest on: how many rows have it, and how many of them are positive."""

    rows: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int64] | FloatArray

    @classmethod
    def of(cls, labels: npt.ArrayLike, scores: npt.ArrayLike) -> "_Levels":
        falling = -np.asarray(scores, dtype=np.float64)
        order = np.argsort(falling, kind="stable")
        falling, positive = falling[order], np.asarray(labels, dtype=np.float64)[order]
        begins = np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), dtype=bool), falling[1:] != falling[:-1]]))
        rows = np.diff(begins, append=len(order))
        whole = positive.astype(np.int64)
        positives = np.add.reduceat(whole if (whole == positive).all() else positive, begins) if len(begins) else whole
        return cls(rows=rows, positives=positives)
