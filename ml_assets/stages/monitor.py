"""How the model in force does on live events, once the truth about them is known."""

import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from ml_assets.use_case import Column, DType, nullable_dtype

PERFORMANCE_COLUMNS = (
    Column(name="model_version", dtype=DType.STRING),
    Column(name="events", dtype=DType.INT64, unit="events", minimum=0),
    Column(name="labelled", dtype=DType.INT64, unit="events", description="events whose label is known", minimum=0),
    Column(name="waiting", dtype=DType.INT64, unit="events", description="events whose label is not known yet", minimum=0),
    Column(name="positives", dtype=DType.INT64, unit="events", minimum=0),
    Column(name="alerts", dtype=DType.INT64, unit="events", minimum=0),
    *(
        Column(name=name, dtype=DType.FLOAT64, nullable=True, minimum=0, maximum=1)
        for name in (
            "precision",
            "recall",
            "roc_auc",
            "average_precision",
            "baseline_average_precision",
            "climatology_average_precision",
        )
    ),
)


def performance(scores: pd.DataFrame, labels: pd.Series) -> dict[str, float]:
    """Figures over all scored events together.

    Args:
        scores: rows of the table `scores`.
        labels: the label of each event, by `event_id`.

    Returns:
        The numeric columns of `PERFORMANCE_COLUMNS`. Ranking metrics are nan while only one class is known, precision is nan
        without alerts, recall without positives.
    """
    truth = scores["event_id"].map(labels)
    seen = scores[truth.notna()]
    positive = truth[truth.notna()].to_numpy() == 1
    both = bool(positive.any() and not positive.all())
    alerts = seen["alert"].to_numpy() == 1
    hits = int((alerts & positive).sum())
    return {
        "events": len(scores),
        "labelled": len(seen),
        "waiting": len(scores) - len(seen),
        "positives": int(positive.sum()),
        "alerts": int(alerts.sum()),
        "precision": hits / alerts.sum() if alerts.any() else float("nan"),
        "recall": hits / positive.sum() if positive.any() else float("nan"),
        "roc_auc": float(roc_auc_score(positive, seen["score"])) if both else float("nan"),
        **{
            name: float(average_precision_score(positive, seen[column])) if both else float("nan")
            for name, column in (
                ("average_precision", "score"),
                ("baseline_average_precision", "baseline_score"),
                ("climatology_average_precision", "climatology_score"),
            )
        },
    }


def daily_performance(scores: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """`PERFORMANCE_COLUMNS` and `day`, one row a day and model version."""
    known = labels.set_index("event_id")["label"]
    rows = [
        {"model_version": version, **performance(group, known), "day": day}
        for (day, version), group in scores.groupby(["day", "model_version"], sort=True)
    ]
    types = {column.name: nullable_dtype(column.dtype) for column in PERFORMANCE_COLUMNS} | {"day": "str"}
    return pd.DataFrame(rows, columns=list(types)).astype(types)
