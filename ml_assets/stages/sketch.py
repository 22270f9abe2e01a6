"""Sketches: how the values of a column are distributed, in a few dozen numbers that can be added up.

Belongs here: cutting a column into bins and counting. Does not: how far two sketches are apart (`drift`), what is kept of a model
(`reference`).

The bins are those of the rows that a model was judged on: ten with equally many of them, as far as values differ, and one for what is
missing. So two days are compared by subtracting counts, and a week is the sum of its days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.stages.inputs import FloatArray, Frame, IntArray, numbers
from ml_assets.use_case import Day

BINS = 10
CATEGORIES = 20
"""Texts with a bin of their own, the most frequent ones; all others share one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketch:
    """The bins of a column, and how many rows lie in each.

    A number lies in the first bin whose upper edge it does not exceed, or in the last; a text in the bin of its category, or in that of all
    others. The very last bin counts missing values.
    """

    edges: FloatArray
    """Upper edges, ascending; empty for texts."""
    categories: tuple[str, ...]
    counts: IntArray
    """Shape (bins + 1,): the last counts missing values."""

    @property
    def labels(self) -> list[str]:
        """What lies in each bin, in words."""
        if self.categories:
            return [*self.categories, "others", "missing"]
        uppers = [f"{edge:.4g}" for edge in self.edges]
        if not uppers:
            return ["any number", "missing"]
        between = [f"{low} to {high}" for low, high in pairwise(uppers)]
        return [f"up to {uppers[0]}", *between, f"over {uppers[-1]}", "missing"]

    @property
    def null_share(self) -> float:
        """The share of missing values; nan without rows."""
        total = int(self.counts.sum())
        return float(self.counts[-1] / total) if total else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain values; `sketch_from_json` is the inverse."""
        return {"edges": self.edges.tolist(), "categories": list(self.categories), "counts": self.counts.tolist()}


def sketch_from_json(content: Mapping[str, Any]) -> Sketch:
    """Inverse of `Sketch.to_json`."""
    return Sketch(
        edges=np.asarray(content["edges"], dtype=np.float64),
        categories=tuple(content["categories"]),
        counts=np.asarray(content["counts"], dtype=np.int64),
    )


def sketch(rows: Frame, name: str, *, text: bool) -> Sketch:
    """The sketch of a column, its bins made from the same rows.

    Args:
        text: whether the column holds texts; a number that is nan is missing.
    """
    if text:
        frequent = pd.Series(rows[name]).value_counts()  # equally frequent ones in the order in which they come
        bins = Sketch(
            edges=np.empty(0),
            categories=tuple(sorted(map(str, frequent.index[:CATEGORIES]))) or ("",),
            counts=np.zeros(0, dtype=np.int64),
        )
    else:
        values = numbers(rows, name)
        finite = values[~np.isnan(values)]
        quantiles = np.arange(1, BINS) / BINS
        cuts = np.unique(np.quantile(finite, quantiles, method="inverted_cdf")) if finite.size else np.empty(0)
        if cuts.size and cuts[-1] == finite.max():
            cuts = cuts[:-1]  # nothing would lie above it
        bins = Sketch(edges=cuts, categories=(), counts=np.zeros(0, dtype=np.int64))
    return Sketch(edges=bins.edges, categories=bins.categories, counts=count(rows, name, bins))


def count(rows: Frame, name: str, bins: Sketch) -> IntArray:
    """How many rows lie in each bin of another sketch, shape (bins + 1,)."""
    return np.bincount(_places(rows, name, bins), minlength=_width(bins)).astype(np.int64)


def count_days(rows: pd.DataFrame, name: str, bins: Sketch, days: Sequence[Day], of_day: IntArray) -> IntArray:
    """The same for each day, shape (days, bins + 1).

    Args:
        of_day: for each row the place of its day in `days`.
    """
    width = _width(bins)
    found: IntArray = np.bincount(of_day * width + _places(rows, name, bins), minlength=len(days) * width).astype(np.int64)
    return found.reshape(len(days), width)


def trailing_sum(counts: IntArray, days: Sequence[Day], *, window: int) -> IntArray:
    """For each day the counts of the `window` days that end with it; days that are not there count nothing.

    Args:
        counts: shape (days, bins), days ascending.
    """
    number = np.asarray(days, dtype="datetime64[D]").astype(np.int64)
    sums = np.vstack([np.zeros((1, counts.shape[1]), dtype=np.int64), counts.cumsum(axis=0)])
    first = np.searchsorted(number, number - window, side="right")
    return np.asarray(sums[np.arange(1, len(number) + 1)] - sums[first], dtype=np.int64)


def _places(rows: Frame, name: str, bins: Sketch) -> IntArray:
    if bins.categories:
        texts = pd.Series(rows[name], dtype="str")
        found = pd.Index(bins.categories, dtype="str").get_indexer(pd.Index(texts))  # a tenth of the time of looking each up
        missing = texts.isna().to_numpy()
        placed = np.where(found < 0, len(bins.categories), found)
        placed[missing] = len(bins.categories) + 1
        return placed.astype(np.int64)
    values = numbers(rows, name)
    places = np.asarray(np.searchsorted(bins.edges, values, side="left"), dtype=np.int64)
    places[np.isnan(values)] = len(bins.edges) + 1
    return places


def _width(bins: Sketch) -> int:
    return (len(bins.categories) or len(bins.edges)) + 2
