"""Climatology: the training rate of rows that share some features. What a model must beat to be worth anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.stages.inputs import Columns, FloatArray, Frame

Key = tuple[str | float | None, ...]
"""The values of the features, in their order; None where missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Climatology:
    """Rate of positives for each combination seen in training; `overall` for any other."""

    inputs: tuple[str, ...]
    rates: Mapping[Key, float]
    overall: float

    def predict(self, frame: Frame) -> FloatArray:
        """Each row's probability of a positive, shape (rows,)."""
        return np.array([self.rates.get(key, self.overall) for key in _keys(_framed(frame), self.inputs)], dtype=np.float64)

    def importance(self) -> list[tuple[str, float]]:
        """None: a table has no gain."""
        return []

    def to_json(self) -> dict[str, Any]:
        """The table, as JSON can hold it: values of the features, then their rate."""
        return {"inputs": list(self.inputs), "overall": self.overall, "rates": [[*key, rate] for key, rate in self.rates.items()]}


def climatology_from_json(content: Mapping[str, Any]) -> Climatology:
    """Inverse of `Climatology.to_json`."""
    rates = {tuple(key): rate for *key, rate in content["rates"]}
    return Climatology(inputs=tuple(content["inputs"]), rates=rates, overall=content["overall"])


def fit_climatology(rows: pd.DataFrame, labels: FloatArray, *, inputs: tuple[str, ...]) -> Climatology:
    """The table of rates; without features it holds the overall rate alone."""
    counts: dict[Key, list[float]] = {}
    for key, label in zip(_keys(rows, inputs), labels.tolist(), strict=True):
        count = counts.setdefault(key, [0.0, 0.0])
        count[0] += label
        count[1] += 1.0
    ordered = sorted(counts, key=lambda key: [(value is None, str(value)) for value in key])
    rates = {key: counts[key][0] / counts[key][1] for key in ordered}
    return Climatology(inputs=inputs, rates=rates, overall=float(labels.mean()))


def _framed(frame: Frame) -> pd.DataFrame:
    return pd.DataFrame(dict(frame.arrays)) if isinstance(frame, Columns) else frame


def _keys(frame: pd.DataFrame, inputs: tuple[str, ...]) -> list[Key]:
    if not inputs:
        return [()] * len(frame)
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in inputs]
    return list(zip(*columns, strict=True))
