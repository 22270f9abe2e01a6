"""When something in a row can have been known: when the row says, and never before the row itself was there.

A row of a day is read by those who look at this day. What it says of an earlier time nobody knew then, and nobody who makes that earlier
day alone would see it; so a day comes out alike alone and in any range.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ml_assets.stages.windows import Int64Array
from ml_assets.use_case import Day, Table, UseCase, shift

NEVER = np.iinfo(np.int64).min
"""Stands for an instant that is missing."""
MICROSECOND = timedelta(microseconds=1)


def known_times(case: UseCase, table: Table, rows: pd.DataFrame, known_at: str, *, within: timedelta | None = None) -> Int64Array:
    """From when on each row counts, in microseconds since the epoch; `NEVER` where its time is missing, shape (n,).

    A time before the day under which the row was delivered is the start of that day; the end of it where rows may come days late
    (`late_days`), since nobody knows at what hour of that day it came.

    Args:
        rows: with `day` and the column `known_at`.
        within: a row that is known later than this after the end of its day never counts: a look back does not reach it. None: not asked.
    """
    times = microseconds(rows[known_at])
    codes, days = pd.factorize(rows["day"])
    if not len(times):
        return times
    starts, ends = np.array([_bounds(case, str(day)) for day in days], dtype=np.int64).T
    there = times != NEVER
    late = ends - 1 if table.late_days else starts
    times = np.where(there & (times < starts[codes]), late[codes], times)
    if within is not None:
        times = np.where(there & (times >= ends[codes] + within // MICROSECOND), NEVER, times)
    return times


def known_time(case: UseCase, table: Table, time: int | None, day: Day, *, within: timedelta) -> int | None:
    """`known_times` of one row; None for never."""
    if time is None:
        return None
    start, end = _bounds(case, day)
    if time < start:
        return end - 1 if table.late_days else start
    return None if time >= end + within // MICROSECOND else time


@lru_cache(maxsize=1000)
def _bounds_in(timezone: str, day: Day) -> tuple[int, int]:
    first, last = (datetime.fromisoformat(each).replace(tzinfo=ZoneInfo(timezone)) for each in (day, shift(day, 1)))
    return int(first.timestamp()) * 1_000_000, int(last.timestamp()) * 1_000_000


def _bounds(case: UseCase, day: Day) -> tuple[int, int]:
    """The instants at which a day begins and ends."""
    return _bounds_in(case.timezone, day)


def microseconds(times: pd.Series) -> Int64Array:
    """Instants as microseconds since the epoch; `NEVER` where one is missing."""
    naive: Int64Array = times.dt.as_unit("us").dt.tz_convert(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return naive


def instants(times: Int64Array) -> pd.Series:
    """Inverse of `microseconds`."""
    return pd.Series(pd.DatetimeIndex(times.view("datetime64[us]"), tz="UTC"))
