"""What a model reads from a frame: numbers and codes of categories, a column at a time.

Belongs here: conversions that give one row the same numbers as a million. Does not: what a model makes of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MISSING = -1
"""Code of a category that is missing or was not seen in training."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Named arrays of one length, which a model reads like a frame: for a single row a frame costs a hundred times as much."""

    arrays: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values()), ()))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]

    @property
    def columns(self) -> Iterable[str]:
        """Their names."""
        return self.arrays.keys()


Frame = pd.DataFrame | Columns


def require(frame: Frame, names: Iterable[str]) -> None:
    """Every column that a model was trained on is there.

    Raises:
        ValueError: naming the columns that are not.
    """
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"feature columns missing: {', '.join(missing)}; the frame has {', '.join(map(str, frame.columns))}")


def numbers(frame: Frame, name: str) -> FloatArray:
    """A column as floats; missing values are nan, booleans 0 and 1."""
    if isinstance(frame, Columns):
        return np.asarray(frame[name], dtype=np.float64)
    values = frame[name].to_numpy()
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def categories(frame: pd.DataFrame, name: str) -> tuple[str, ...]:
    """The texts that stand in a column, sorted; missing values are no category."""
    return tuple(sorted(frame[name].dropna().unique().tolist()))


def codes(frame: Frame, name: str, known: Sequence[str]) -> IntArray:
    """The place of each text among the known categories, `MISSING` where it is none of them."""
    place = {category: code for code, category in enumerate(known)}
    return np.array([place.get(text, MISSING) for text in frame[name].tolist()], dtype=np.int64)


def matrix(frame: Frame, names: Sequence[str], known: Mapping[str, Sequence[str]]) -> FloatArray:
    """Shape (rows, features), column by column; categories stand as their codes, nan where missing or unknown."""
    if isinstance(frame, Columns) and not known:
        return np.array([frame[name] for name in names], dtype=np.float64).T
    filled = np.empty((len(frame), len(names)), order="F")
    for column, name in enumerate(names):
        if name in known:
            coded = codes(frame, name, known[name])
            filled[:, column] = np.where(coded == MISSING, np.nan, coded)
        else:
            filled[:, column] = numbers(frame, name)
    return filled


def labels_of(rows: pd.DataFrame, labels: npt.ArrayLike) -> FloatArray:
    """Labels as floats 0 and 1, one a row, both of them present.

    Raises:
        ValueError: when there are no rows, a label is missing or neither 0 nor 1, or all rows have the same.
    """
    found: npt.NDArray[Any] = np.asarray(labels, dtype=np.float64)
    if not len(rows):
        raise ValueError("no rows to learn from or to judge by")
    if found.shape != (len(rows),):
        raise ValueError(f"{len(rows)} rows but labels of shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{int((~np.isfinite(found)).sum())} of {len(found)} labels are not finite; only mature rows belong here")
    if not np.isin(found, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    if found.min() == found.max():
        raise ValueError(f"all {len(found)} labels are {int(found[0])}: with one class there is nothing to learn or to measure")
    return found
