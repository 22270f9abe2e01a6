"""How the model in force does on live events, once the truth about them is known."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ml_assets.stages.bounds import as_declared
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.labels import latest_known, news
from ml_assets.stages.ranking import average_precision, roc_auc
from ml_assets.use_case import Column, Day, DType, Investigation, UseCase

PERFORMANCE_COLUMNS = (
    Column(name="model_version", dtype=DType.STRING),
    Column(name="events", dtype=DType.INT64, unit="events", minimum=0),
    Column(name="labelled", dtype=DType.INT64, unit="events", description="events whose label is known", minimum=0),
    Column(name="waiting", dtype=DType.INT64, unit="events", description="events whose label is not known yet", minimum=0),
    Column(
        name="already_known",
        dtype=DType.INT64,
        unit="events",
        description="labelled events of entities that were known as positive: no part of the figures that follow",
        minimum=0,
    ),
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
            "precision_at_top",
        )
    ),
    Column(
        name="expected_positives",
        dtype=DType.FLOAT64,
        nullable=True,
        unit="events",
        description="of the events that the figures are about, by the calibration of the model",
        minimum=0,
    ),
)


def performance(
    scores: pd.DataFrame, known: pd.DataFrame, *, reported: pd.DataFrame, first: Day, case: UseCase
) -> dict[str, float]:
    """Figures over all scored events together.

    Args:
        scores: rows of the table `scores`; with a column `rate`, the calibrated probability, there are expected positives.
        known: the label in force of each event, with its entities.
        reported: all labels, repeated ones too, that tell which entities were known as positive; of these alone positives count.
        first: the first of the days that are judged together, such as the day on which the model went live.

    Returns:
        The numeric columns of `PERFORMANCE_COLUMNS`. Ranking metrics are nan while only one class is known, precision is nan
        without alerts, recall without positives, `precision_at_top` where the case declares no investigation.
    """
    told = known.set_index("event_id").reindex(scores["event_id"])
    labelled = told["label"].notna().to_numpy()
    seen, told = scores[labelled].copy(), told[labelled]
    seen["label"] = told["label"].to_numpy()
    if case.investigation:
        seen[case.investigation.entity] = told[case.investigation.entity].to_numpy()
    judged = seen[news(seen, reported, first=first, case=case)]
    positive = judged["label"].to_numpy() == 1
    both = bool(positive.any() and not positive.all())
    alerts = judged["alert"].to_numpy() == 1
    hits = int((alerts & positive).sum())
    return {
        "events": len(scores),
        "labelled": len(seen),
        "waiting": len(scores) - len(seen),
        "already_known": len(seen) - len(judged),
        "positives": int(positive.sum()),
        "expected_positives": float(judged["rate"].sum(skipna=False)) if "rate" in judged else float("nan"),
        "alerts": int(alerts.sum()),
        "precision": hits / alerts.sum() if alerts.any() else float("nan"),
        "recall": hits / positive.sum() if positive.any() else float("nan"),
        "roc_auc": roc_auc(positive, judged["score"]) if both else float("nan"),
        **{
            name: average_precision(positive, judged[column]) if both else float("nan")
            for name, column in (
                ("average_precision", "score"),
                ("baseline_average_precision", "baseline_score"),
                ("climatology_average_precision", "climatology_score"),
            )
        },
        "precision_at_top": (
            precision_at_top(judged, judged["score"].to_numpy(), case.investigation)
            if case.investigation and both
            else float("nan")
        ),
    }


def precision_at_top(events: pd.DataFrame, scores: FloatArray, investigation: Investigation) -> float:
    """Share of positives among the `top` entities of each day by their highest score, a mean over days.

    An entity that was among them and positive is left out on later days: it has been dealt with (card precision top-k of Le Borgne et
    al., 2022). Entities with equal scores are taken in the order of their names.

    Args:
        events: `day`, `label` and the entity's column.
    """
    rows = pd.DataFrame({"day": events["day"], "entity": events[investigation.entity], "label": events["label"], "score": scores})
    entities = rows.groupby(["day", "entity"], as_index=False)[["label", "score"]].max()
    found: set[str] = set()
    shares = []
    for _, of_day in entities.groupby("day"):
        top = of_day[~of_day["entity"].isin(found)].sort_values("score", ascending=False, kind="stable").head(investigation.top)
        shares.append(top["label"].sum() / investigation.top)
        found |= set(top.loc[top["label"] == 1, "entity"])
    return float(np.mean(shares)) if shares else float("nan")


def daily_performance(scores: pd.DataFrame, labels: pd.DataFrame, first: Mapping[Day, Day], *, case: UseCase) -> pd.DataFrame:
    """`PERFORMANCE_COLUMNS` and `day`, one row a day and model version.

    Args:
        labels: all labels of the days' events and of the days before, with their entities.
        first: for each day, the first of the days that it is judged with.
    """
    known = latest_known(labels)
    reported = labels[labels["label"] == 1]
    of_day = {str(day): rows for day, rows in known.groupby("event_day")}
    rows = []
    for (day, version), group in scores.groupby(["day", "model_version"], sort=True):
        here = of_day.get(str(day), known.iloc[:0])
        figures = performance(group, here, reported=reported, first=first[str(day)], case=case)
        rows.append({"model_version": version, **figures, "day": day})
    return as_declared(pd.DataFrame(rows, columns=[*(column.name for column in PERFORMANCE_COLUMNS), "day"]), PERFORMANCE_COLUMNS)
