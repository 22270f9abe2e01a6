"""Shadow: the model that lost a week's decision scores the week's events, too, and is compared with the one in force once labels are known.

Nobody acts on its scores. It answers what a hold-out cannot: would the other model have been the better one?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.escape import markdown
from ml_assets.stages.comparison import paired_bootstrap
from ml_assets.stages.evaluate import Report
from ml_assets.stages.model import Model
from ml_assets.stages.ranking import average_precision, roc_auc
from ml_assets.stages.report import interval, number, table
from ml_assets.use_case import Column, Day, DType, Gate

SHADOW_COLUMNS = (
    Column(name="event_id", dtype=DType.STRING),
    Column(name="event_time", dtype=DType.TIMESTAMP),
    Column(name="score", dtype=DType.FLOAT64, unit="probability", minimum=0, maximum=1),
    Column(name="alert", dtype=DType.INT64, description="1 at or above the threshold", minimum=0, maximum=1),
    Column(name="model_version", dtype=DType.STRING, description="which scores in shadow"),
    Column(name="in_force", dtype=DType.STRING, description="which scored for real"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """Two models on the same events of some days; differences are shadow minus in force."""

    in_force: str
    shadow: str
    days: tuple[Day, Day]
    events: int
    positives: int
    average_precision: tuple[float, float]
    """In force, in shadow."""
    roc_auc: tuple[float, float]
    difference: tuple[float, float]
    """Of average precision: 95 %, paired bootstrap by day."""

    @property
    def verdict(self) -> str:
        """In words; the interval decides."""
        low, high = self.difference
        if low > 0:
            return "the model in shadow was better"
        return "the model in force was better" if high < 0 else "no difference can be told"


def shadow_of(report: Report, in_force: str) -> str | None:
    """Which model scores in shadow after a decision: of candidate and champion the one that is not in force; None without one."""
    both = [report.candidate.version, report.decision.champion_before]
    return next((version for version in both if version is not None and version != in_force), None)


def shadow_scores(features: pd.DataFrame, *, version: str, in_force: str, threshold: float, model: Model) -> pd.DataFrame:
    """`SHADOW_COLUMNS` and `day`, one row an event, in the order of `features`."""
    scores = model.predict(features)
    return pd.DataFrame(
        {
            "event_id": features["event_id"],
            "event_time": features["event_time"],
            "score": scores,
            "alert": (scores >= threshold).astype(np.int64),
            "model_version": pd.array([version] * len(features), dtype="str"),
            "in_force": pd.array([in_force] * len(features), dtype="str"),
            "day": features["day"],
        }
    )


def compared(rows: pd.DataFrame, *, gate: Gate, seed: int) -> list[Compared]:
    """Each pair of models on the days that both scored; a pair without events of both classes is left out.

    Args:
        rows: one a labelled event: `day`, `label`, `score`, `shadow_score`, `model_version`, `shadow_version`.
    """
    found = []
    for (in_force, shadow), pair in rows.groupby(["model_version", "shadow_version"], sort=False):
        truth, days = pair["label"].to_numpy(dtype=np.float64), pair["day"].to_numpy(dtype=str)
        if truth.min() == truth.max():
            continue
        ours, theirs = pair["shadow_score"].to_numpy(), pair["score"].to_numpy()
        drawn = paired_bootstrap(truth, days, ours, theirs, resamples=gate.resamples, margin=gate.margin, seed=seed)
        found.append(
            Compared(
                in_force=str(in_force),
                shadow=str(shadow),
                days=(str(pair["day"].min()), str(pair["day"].max())),
                events=len(pair),
                positives=int(truth.sum()),
                average_precision=(average_precision(truth, theirs), average_precision(truth, ours)),
                roc_auc=(roc_auc(truth, theirs), roc_auc(truth, ours)),
                difference=(drawn["interval_low"], drawn["interval_high"]),
            )
        )
    return sorted(found, key=lambda each: each.days)


def compared_markdown(found: Sequence[Compared]) -> str:
    """The pairs as a Markdown table."""
    head = ["days", "in force", "in shadow", "events", "positives", "AP in force", "AP in shadow", "difference (95 %)", "verdict"]
    return table(head, [list(_cells(each)) for each in found])


def _cells(each: Compared) -> list[Any]:
    return [
        " to ".join(each.days),
        markdown(each.in_force),
        markdown(each.shadow),
        f"{each.events:,}",
        f"{each.positives:,}",
        number(each.average_precision[0]),
        number(each.average_precision[1]),
        interval(*each.difference),
        markdown(each.verdict),
    ]
