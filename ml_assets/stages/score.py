"""Scores: what the model in force says about each event of a day."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ml_assets.stages.model import Model
from ml_assets.stages.quality import Finding
from ml_assets.use_case import Column, Day, DType, Severity

SCORE_COLUMNS = (
    Column(name="event_id", dtype=DType.STRING),
    Column(name="event_time", dtype=DType.TIMESTAMP),
    Column(name="score", dtype=DType.FLOAT64, unit="probability", minimum=0, maximum=1),
    Column(name="alert", dtype=DType.INT64, description="1 at or above the threshold", minimum=0, maximum=1),
    Column(name="threshold", dtype=DType.FLOAT64, unit="probability"),
    Column(name="model_version", dtype=DType.STRING),
    Column(name="baseline_score", dtype=DType.FLOAT64, unit="probability", minimum=0, maximum=1),
    Column(name="climatology_score", dtype=DType.FLOAT64, unit="probability", minimum=0, maximum=1),
)


def score(
    features: pd.DataFrame, *, version: str, threshold: float, model: Model, baseline: Model, climatology: Model
) -> pd.DataFrame:
    """One row an event, in the order of `features`, with the scores of the two models that the deployed one has to beat."""
    scores = model.predict(features)
    return pd.DataFrame(
        {
            "event_id": features["event_id"],
            "event_time": features["event_time"],
            "score": scores,
            "alert": (scores >= threshold).astype(np.int64),
            "threshold": threshold,
            "model_version": pd.array([version] * len(features), dtype="str"),
            "baseline_score": baseline.predict(features),
            "climatology_score": climatology.predict(features),
            "day": features["day"],
        }
    )


def scoring_findings(events: Mapping[Day, int], scores: pd.DataFrame, days: Sequence[Day]) -> dict[Day, list[Finding]]:
    """Every event with features has exactly one score."""
    counts, distinct = scores["day"].value_counts(), scores.groupby("day")["event_id"].nunique()
    return {
        day: [
            Finding(
                expectation="every event has one score",
                passed=int(counts.get(day, 0)) == int(distinct.get(day, 0)) == events[day],
                severity=Severity.ERROR,
                observed=f"{int(counts.get(day, 0))} scores of {int(distinct.get(day, 0))} events, for {events[day]} with features",
            )
        ]
        for day in days
    }
