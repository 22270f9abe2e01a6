"""What a date without a time of day says: which instants it can mean, for a frame and for one value alike.

Belongs here: the first and the last instant of a date. Does not: how a source writes one (`sources.as_text`).

An event of a date is asked about at its first instant, and counts as a fact from its last: nobody knows in which order the events of a date
happened, so none of them sees another, while all of the next date see them.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ml_assets.use_case import Column

DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
NOT_DATED = (
    "is a date without a time of day: expected a time such as 2013-07-04T09:30:00Z; if times have none, declare the column with "
    'dates="start" or "end", or the table with dates = "start" or "end" in the TOML file'
)
NO_DATE = "is no date of the calendar, expected one such as 2013-07-04"
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IS_DATE = re.compile(DATE)


def is_date(text: str) -> bool:
    """Whether a text is written as a date without a time of day.

    >>> is_date("2024-01-05"), is_date("2024-01-05T00:00:00Z")
    (True, False)
    """
    return _IS_DATE.fullmatch(text) is not None


def instant_of(text: str, column: Column) -> int:
    """The instant that a date means in a column, in microseconds since the epoch.

    Raises:
        ValueError: the column holds no dates, or there is no such date.
    """
    if column.dates is None:
        raise ValueError(NOT_DATED)
    try:
        return _instant(date.fromisoformat(text), column.timezone, last=column.dates == "end")
    except (ValueError, OverflowError):
        raise ValueError(NO_DATE) from None


def known_from(times: pd.Series, timezone: str) -> pd.Series:
    """From when on what has these times counts as a fact: the last instant of its date where it has no time of day, else its time.

    Args:
        times: instants in UTC; midnight of the time zone is a date. Missing ones stay so.

    >>> known_from(pd.Series(pd.to_datetime(["2024-01-05T00:00:00Z", "2024-01-05T09:30:00Z"])), "UTC").dt.time.tolist()
    [datetime.time(23, 59, 59, 999999), datetime.time(9, 30)]
    """
    # Of the first and the last year a clock can show one that there is not.
    there = times.where((times.dt.year > date.min.year) & (times.dt.year < date.max.year))
    codes, days = pd.factorize(there.dt.tz_convert(timezone).dt.tz_localize(None).dt.floor("D"))
    first, last = (_instants(days, lambda day, last=end: _instant(day, timezone, last=last)) for end in (False, True))  # type: ignore[misc]
    given = times.dt.as_unit("us").dt.tz_convert(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    dated = (codes >= 0) & (first[codes] == given)
    known = np.where(dated, last[codes], given).view("datetime64[us]")
    return pd.Series(pd.DatetimeIndex(known, tz="UTC"), index=times.index, name=times.name)


def _instants(days: pd.Index, of_day: Callable[[date], int]) -> np.ndarray:
    """One for each day, and one more that nothing has."""
    return np.array([*(of_day(day.date()) for day in days), -1], dtype=np.int64)


@lru_cache(maxsize=10_000)
def _instant(day: date, timezone: str, *, last: bool) -> int:
    """A day begins where `UseCase.starts` says, and ends a microsecond before the next."""
    if last and day == date.max:
        return _microseconds(datetime.combine(day, datetime.max.time(), ZoneInfo(timezone)))
    begins = datetime.combine(day + timedelta(days=last), datetime.min.time(), ZoneInfo(timezone))
    return _microseconds(begins) - last


def _microseconds(at: datetime) -> int:
    return (at.astimezone(UTC) - _EPOCH) // _MICROSECOND
