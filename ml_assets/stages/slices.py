"""Parts of the hold-out on which a candidate must not be much worse than the champion."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from ml_assets.stages.inputs import FloatArray, IntArray, numbers
from ml_assets.stages.ranking import average_precision
from ml_assets.use_case import Gate, Slice

MISSING_VALUE = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceResult:
    """Average precision on a part of the hold-out.

    Without a champion there is no difference, and the part passes; so does one that is not `required`.
    """

    column: str
    value: str
    rows: int
    candidate: float
    champion: float | None
    difference: float | None
    passed: bool
    required: bool = True


def judge_slices(
    holdout: pd.DataFrame, labels: FloatArray, candidate: FloatArray, champion: FloatArray | None, *, gate: Gate
) -> Iterator[SliceResult]:
    """One result for each value, or band, of each declared column with enough rows and both classes.

    Missing values are a part of their own.

    Args:
        holdout, labels, candidate, champion: one row an event; the last two are scores.

    Raises:
        ValueError: naming the declared columns that the hold-out lacks.
    """
    lacking = sorted({declared.column for declared in gate.slices} - set(holdout.columns))
    if lacking:
        raise ValueError(f"no column {', '.join(lacking)} to slice by; the hold-out has {', '.join(map(str, holdout.columns))}")
    for declared in gate.slices:
        names, place = _parts(holdout, declared)
        for number, value in enumerate(names):
            part = (place == number) | ((labels == 0) & declared.of_positives)
            if part.sum() < declared.minimum_rows or labels[part].min() == labels[part].max():
                continue
            ours = average_precision(labels[part], candidate[part])
            theirs = None if champion is None else average_precision(labels[part], champion[part])
            difference = None if theirs is None else ours - theirs
            yield SliceResult(
                column=declared.column,
                value=value,
                rows=int(part.sum()),
                candidate=ours,
                champion=theirs,
                difference=difference,
                passed=not declared.required or difference is None or difference >= -gate.slice_margin,
                required=declared.required,
            )


def _parts(holdout: pd.DataFrame, declared: Slice) -> tuple[list[str], IntArray]:
    """The names of a column's parts, and each row's place among them."""
    if not declared.edges:
        given = holdout[declared.column]
        whole = given.astype("Int64") if pd.api.types.is_float_dtype(given) and not (given.dropna() % 1).any() else given
        values = whole.astype("str").fillna(MISSING_VALUE).to_numpy(dtype=str)
        names, place = np.unique(values, return_inverse=True)
        return names.tolist(), place
    column = numbers(holdout, declared.column)
    there = ~np.isnan(column)
    names_of_bands = bands(declared.edges)
    return [*names_of_bands, MISSING_VALUE], np.where(
        there, np.searchsorted(declared.edges, column, side="right"), len(names_of_bands)
    )


def bands(edges: Sequence[float]) -> list[str]:
    """The parts between edges; an edge belongs to the band above it.

    >>> bands([50, 1000])
    ['below 50', '50 to 1,000', 'from 1,000']

    Raises:
        ValueError: when edges do not rise.
    """
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges must rise; got {', '.join(map(str, edges))}")
    texts = [f"{edge:,.10g}" for edge in edges]
    return [f"below {texts[0]}", *(f"{low} to {high}" for low, high in pairwise(texts)), f"from {texts[-1]}"]
