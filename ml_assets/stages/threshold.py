"""The operating threshold: from which score on an event is flagged."""

import numpy as np
import numpy.typing as npt

from ml_assets.stages.inputs import FloatArray
from ml_assets.use_case import AlertShare, AlertsPerDay, Costs, Operating


def operating_threshold(scores: FloatArray, labels: FloatArray, days: npt.ArrayLike, operating: Operating) -> float:
    """The score at or above which an event is flagged, chosen on these rows; ties at it are flagged too.

    Args:
        scores, labels, days: one a row: a finite score, 0 or 1, and the day's key.

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"a threshold needs finite scores; {int(np.isfinite(scores).sum())} of {len(scores)} are")
    match operating:
        case AlertShare(share=share):
            return _flagging(scores, share * len(scores))
        case AlertsPerDay(alerts=alerts):
            return _flagging(scores, alerts * len(np.unique(np.asarray(days, dtype=str))))
        case Costs():
            return _cheapest(scores, labels, operating)


def _flagging(scores: FloatArray, rows: float) -> float:
    """The threshold that flags so many rows, one at least.

    >>> _flagging(np.array([0.1, 0.4, 0.2, 0.3]), 2)
    0.3
    """
    flagged = min(max(round(rows), 1), len(scores))
    return float(np.sort(scores)[-flagged])


def _cheapest(scores: FloatArray, labels: FloatArray, costs: Costs) -> float:
    """Where the cost is least; just above every score where any alert costs more than it saves.

    >>> _cheapest(np.array([0.1, 0.9, 0.5]), np.array([0.0, 1.0, 0.0]), Costs(false_positive=1, false_negative=5))
    0.9
    """
    levels, place = np.unique(-scores, return_inverse=True)
    found, flagged = np.cumsum(np.bincount(place, labels)), np.cumsum(np.bincount(place))
    cost = costs.false_positive * (flagged - found) + costs.false_negative * (labels.sum() - found)
    best = int(np.argmin(cost))
    if cost[best] >= costs.false_negative * labels.sum():
        return float(np.nextafter(scores.max(), np.inf))
    return float(-levels[best])
