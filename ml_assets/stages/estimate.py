"""How well a model does, estimated before any label is known: from its own confidence (confidence-based performance estimation).

A score that the hold-out calibrated says how likely its event is positive; so a confusion matrix, a precision or a ranking can be
expected before the truth arrives (Białek et al., *Estimating Model Performance Under Covariate Shift Without Labels*, 2024). It sees a
change in what events there are, and not a change in what they mean: where that moves, the realised performance falls and the estimate
does not.
"""

import math
from collections.abc import Mapping

import pandas as pd

from ml_assets.stages.bounds import as_declared
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.ranking import average_precision, roc_auc
from ml_assets.stages.reference import Reference
from ml_assets.use_case import Column, DType

ESTIMATE_COLUMNS = (
    Column(name="model_version", dtype=DType.STRING),
    Column(name="events", dtype=DType.INT64, unit="events", minimum=0),
    Column(name="alerts", dtype=DType.INT64, unit="events", minimum=0),
    Column(name="alert_share", dtype=DType.FLOAT64, minimum=0, maximum=1),
    Column(name="mean_score", dtype=DType.FLOAT64, unit="probability", minimum=0, maximum=1),
    Column(
        name="expected_positives", dtype=DType.FLOAT64, unit="events", description="sum of the calibrated probabilities", minimum=0
    ),
    *(
        Column(name=name, dtype=DType.FLOAT64, nullable=True, minimum=0, maximum=1)
        for name in ("precision", "recall", "roc_auc", "average_precision")
    ),
)


def estimated(scores: FloatArray, alerts: FloatArray, rates: FloatArray) -> dict[str, float]:
    """What is to be expected of these events.

    Args:
        scores, alerts, rates: shape (n,), n > 0; whether each is flagged, and its calibrated probability.

    Returns:
        Precision is nan without alerts, recall and the rankings where no positive, or no negative, is expected.
    """
    positives, flagged = float(rates.sum()), alerts == 1
    both = 0 < positives < len(scores)
    return {
        "expected_positives": positives,
        "precision": float(rates[flagged].mean()) if flagged.any() else float("nan"),
        "recall": math.fsum(rates[flagged].tolist()) / math.fsum(rates.tolist()) if positives > 0 else float("nan"),
        "roc_auc": roc_auc(rates, scores) if both else float("nan"),
        "average_precision": average_precision(rates, scores) if both else float("nan"),
    }


def estimated_days(scores: pd.DataFrame, references: Mapping[str, Reference]) -> pd.DataFrame:
    """`ESTIMATE_COLUMNS` and `day`, one row a day and model version.

    Args:
        scores: rows of the table `scores`.
        references: of every version in it.
    """
    rows = []
    for (day, version), group in scores.groupby(["day", "model_version"], sort=True):
        values, alerts = group["score"].to_numpy(), group["alert"].to_numpy()
        figures = estimated(values, alerts, references[str(version)].calibration.rate(values))
        common = {"events": len(group), "alerts": int(alerts.sum()), "alert_share": alerts.mean(), "mean_score": values.mean()}
        rows.append({"model_version": version, **common, **figures, "day": day})
    return as_declared(pd.DataFrame(rows, columns=[*(column.name for column in ESTIMATE_COLUMNS), "day"]), ESTIMATE_COLUMNS)
