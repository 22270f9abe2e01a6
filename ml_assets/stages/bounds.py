"""Figures that are bounded by what they mean, such as a share: rounding may carry one past its bound, nothing else may.

Belongs here: the one place that forgives rounding. Does not: figures that can be computed so that they keep their bounds (`ranking`).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.use_case import Column, DType, nullable_dtype

ROUNDING = 1e-9
"""What sums of a million terms between 0 and 1 may be off by, and more; what is further off is no rounding."""


def bounded(
    values: npt.ArrayLike, *, name: str, minimum: float | None = 0.0, maximum: float | None = 1.0
) -> npt.NDArray[np.float64]:
    """The values, those at their bound that lie past it by rounding; nan stays.

    Args:
        minimum, maximum: None where there is none.

    Raises:
        ValueError: a value lies past its bound by more than `ROUNDING`: it was computed wrongly.

    >>> bounded([0.5, 1.0000000000000002], name="precision").tolist()
    [0.5, 1.0]
    """
    low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
    given = np.asarray(values, dtype=np.float64)
    wrong = (given < low - ROUNDING) | (given > high + ROUNDING)
    if wrong.any():
        raise ValueError(f"{name} is {given[wrong].flat[0]!r}, which lies outside {low:g} to {high:g} by more than rounding")
    return np.asarray(np.clip(given, low, high))


def as_declared(rows: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The columns and `day`, in their order and dtypes, figures within the bounds that are declared for them.

    Raises:
        ValueError: as `bounded`, naming the column.
    """
    types = {column.name: nullable_dtype(column.dtype) for column in columns} | {"day": "str"}
    typed = rows[list(types)].astype(types)
    figures = [column for column in columns if column.dtype is DType.FLOAT64 and (column.minimum, column.maximum) != (None, None)]
    return typed.assign(
        **{each.name: bounded(typed[each.name], name=each.name, minimum=each.minimum, maximum=each.maximum) for each in figures}
    )
