"""Days in stretches that fit in memory."""

from collections.abc import Mapping
from itertools import groupby

import numpy as np

from ml_assets.use_case import Day

MOST_VALUES = 40_000_000
"""Rows times columns that are computed at once: 320 MB, some four times that while they are checked and written."""
PER_LOOK_BACK = 2
"""Stretches in the days that are looked back on. With more, time goes into reading facts again; with fewer, memory into features."""
BOUND = 200_000_000
"""Values that a stretch never exceeds by more than a day of rows, however much that takes: some 10 GB at once."""


def stretches(rows: Mapping[Day, int], *, columns: int, look_back: int = 0) -> list[list[Day]]:
    """Days in order, cut into stretches of about `MOST_VALUES`, a day at least.

    A stretch reads `look_back` days before it again, which costs more than its own where it is much shorter. So it is half as long where
    days are large: then facts are read three times, however many there are a day.

    Args:
        rows: how many rows of how many `columns` each day has.
    """
    reached = np.cumsum(list(rows.values())) * columns
    of_half = reached[-1] / len(rows) * look_back / PER_LOOK_BACK if rows else 0
    place = dict(zip(rows, reached // min(max(MOST_VALUES, of_half), BOUND), strict=True))
    return [list(days) for _, days in groupby(rows, key=place.__getitem__)]
