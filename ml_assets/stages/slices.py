"""Parts of the hold-out on which a candidate must not be much worse than the champion."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from ml_assets.stages.inputs import FloatArray
from ml_assets.use_case import Gate

MISSING_VALUE = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceResult:
    """Average precision on a part of the hold-out; without a champion there is no difference, and the part passes."""

    column: str
    value: str
    rows: int
    candidate: float
    champion: float | None
    difference: float | None
    passed: bool


def judge_slices(
    holdout: pd.DataFrame, labels: FloatArray, candidate: FloatArray, champion: FloatArray | None, *, gate: Gate
) -> Iterator[SliceResult]:
    """One result for each value of each declared column with enough rows and both classes; missing values are a part of their own.

    Args:
        holdout, labels, candidate, champion: one row an event; the last two are scores.
    """
    for declared in gate.slices:
        values = holdout[declared.column].astype("str").fillna(MISSING_VALUE).to_numpy(dtype=str)
        for value in np.unique(values):
            part = values == value
            if part.sum() < declared.minimum_rows or labels[part].min() == labels[part].max():
                continue
            ours = float(average_precision_score(labels[part], candidate[part]))
            theirs = None if champion is None else float(average_precision_score(labels[part], champion[part]))
            difference = None if theirs is None else ours - theirs
            yield SliceResult(
                column=declared.column,
                value=str(value),
                rows=int(part.sum()),
                candidate=ours,
                champion=theirs,
                difference=difference,
                passed=difference is None or difference >= -gate.slice_margin,
            )
