"""Promise and outcome: what a model showed on its hold-out, what was estimated before labels came, and what came true."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.stages.bounds import as_declared
from ml_assets.stages.quality import Finding
from ml_assets.stages.reference import Reference
from ml_assets.use_case import Column, Day, DType, Monitoring, Severity, shift

PROMISE_COLUMNS = (
    Column(name="model_version", dtype=DType.STRING, description="in force on the day"),
    Column(name="window_days", dtype=DType.INT64, unit="days", description="of the window, those with known labels", minimum=0),
    Column(name="positives", dtype=DType.INT64, unit="events", description="in the window", minimum=0),
    Column(
        name="expected_positives",
        dtype=DType.FLOAT64,
        unit="events",
        description="of the same events, by their calibrated scores",
        minimum=0,
    ),
    Column(
        name="observed_over_expected", dtype=DType.FLOAT64, nullable=True, description="1 for a model that is calibrated", minimum=0
    ),
    *(
        Column(
            name=f"{kind}_{name}", dtype=DType.FLOAT64, nullable=True, description=f"{text}, mean of the days", minimum=0, maximum=1
        )
        for name in ("average_precision", "roc_auc")
        for kind, text in (
            ("promised", "on the hold-out"),
            ("estimated", "from confidence, before labels came"),
            ("realised", "with labels"),
        )
    ),
    Column(name="fall", dtype=DType.FLOAT64, nullable=True, description="of ROC AUC, promised less realised"),
    Column(name="alarm", dtype=DType.INT64, description="1 where a limit is passed", minimum=0, maximum=1),
)


def promises(
    live: pd.DataFrame,
    estimates: pd.DataFrame,
    days: Sequence[Day],
    *,
    references: Mapping[str, Reference],
    monitoring: Monitoring,
) -> pd.DataFrame:
    """`PROMISE_COLUMNS` and `day`, one row a day with events in the window that ends with it.

    The fall is one of ROC AUC, since average precision moves with the share of positives, which no model can help.

    Args:
        live, estimates: rows of `live_performance` and `estimated_performance` of these days and the rest of their windows.
        references: of every model version in them.
    """
    both = live.merge(estimates, on=["day", "model_version"], suffixes=("", "_estimated"))
    rows = []
    for day in days:
        window = both[(both["day"] > shift(day, -monitoring.window_days)) & (both["day"] <= day)]
        if len(window):  # no events at all: nothing to say, and nothing wrong
            rows.append({**_of_window(window, references, monitoring), "day": day})
    return as_declared(pd.DataFrame(rows, columns=[*(column.name for column in PROMISE_COLUMNS), "day"]), PROMISE_COLUMNS)


def promise_findings(rows: pd.DataFrame, monitoring: Monitoring) -> dict[Day, list[Finding]]:
    """For each day, two warnings that may be due: performance fell, the score is no probability any more."""
    return {row["day"]: [_fall(row, monitoring), _calibration(row, monitoring)] for row in rows.to_dict("records")}


def alarms(rows: pd.DataFrame) -> list[Day]:
    """The days on which performance calls for a new model."""
    return sorted(rows.loc[rows["alarm"] == 1, "day"])


def _of_window(window: pd.DataFrame, references: Mapping[str, Reference], monitoring: Monitoring) -> dict[str, object]:
    promised = [references[version] for version in window["model_version"]]
    positives, expected = int(window["positives"].sum()), float(window["expected_positives"].sum())
    realised, hoped = window["roc_auc"].mean(), float(np.mean([each.roc_auc for each in promised]))
    enough = positives >= monitoring.minimum_positives
    fall = hoped - realised if enough else math.nan
    ratio = positives / expected if enough and expected > 0 else math.nan
    return {
        "model_version": window["model_version"].iloc[-1],
        "window_days": len(window),
        "positives": positives,
        "expected_positives": expected,
        "observed_over_expected": ratio,
        "promised_average_precision": float(np.mean([each.average_precision for each in promised])),
        "estimated_average_precision": window["average_precision_estimated"].mean(),
        "realised_average_precision": window["average_precision"].mean(),
        "promised_roc_auc": hoped,
        "estimated_roc_auc": window["roc_auc_estimated"].mean(),
        "realised_roc_auc": realised,
        "fall": fall,
        "alarm": int(fall > monitoring.max_fall or not _calibrated(ratio, monitoring)),
    }


def _calibrated(ratio: float, monitoring: Monitoring) -> bool:
    return math.isnan(ratio) or 1 / monitoring.max_miscalibration <= ratio <= monitoring.max_miscalibration


def _fall(row: Mapping[Any, Any], monitoring: Monitoring) -> Finding:
    observed = (
        f"undefined: {row['positives']} positives, {monitoring.minimum_positives} are needed"
        if math.isnan(row["fall"])
        else f"{row['realised_roc_auc']:.3f} over {row['window_days']} days, promised {row['promised_roc_auc']:.3f}"
    )
    return Finding(
        expectation=f"ROC AUC at most {monitoring.max_fall:g} below what the hold-out promised",
        passed=not row["fall"] > monitoring.max_fall,
        severity=Severity.WARN,
        observed=observed,
    )


def _calibration(row: Mapping[Any, Any], monitoring: Monitoring) -> Finding:
    low, high = 1 / monitoring.max_miscalibration, monitoring.max_miscalibration
    ratio = row["observed_over_expected"]
    return Finding(
        expectation=f"between {low:.2f} and {high:.2f} times as many positives as the scores say",
        passed=_calibrated(ratio, monitoring),
        severity=Severity.WARN,
        observed=f"{row['positives']} positives, {row['expected_positives']:.1f} expected"
        + ("" if math.isnan(ratio) else f": {ratio:.2f}"),
    )
