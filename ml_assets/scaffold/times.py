"""What the times of a file say: which days it holds, which of its rows lie far outside them, and when labels arrive.

Belongs here: times of the sample. Does not: lengths of windows (`scaffold.windows`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.scaffold.profile import READABLE, Profile
from ml_assets.scaffold.roles import CannotInferError
from ml_assets.sources.as_text import Dates, dates_among, days_of, time_text
from ml_assets.sources.bounds import bulk_of, real_time
from ml_assets.use_case import Day


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """The event times of the sample."""

    days: pa.Array
    """The day of each row, null without a time, shape (rows,)."""
    start: Day
    last: Day
    """First and last day of nearly all rows."""
    counts: Mapping[Day, int]
    """Events of each day from `start` to `last` that has some."""
    outside: Sequence[tuple[int, str]]
    """Row, from 1, and its time, of rows before `start` or after `last`."""
    unreadable: Sequence[tuple[int, str | None]]
    """Row, from 1, and its text, of rows without a time."""
    dates: bool
    """Whether there are dates without a time of day."""
    only_dates: bool

    @property
    def outside_days(self) -> list[Day]:
        """The days of the rows outside."""
        return [self.days[row - 1].as_py() for row, _ in self.outside]

    @property
    def length(self) -> int:
        """Days from the first to the last."""
        return (date.fromisoformat(self.last) - date.fromisoformat(self.start)).days + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """When labels become known."""

    embargo_days: int
    """Whole days after which nearly all labels are known."""
    latest_days: int
    """Whole days after which no more become known."""
    known_at_dates: bool = False
    """Whether the column that says so has dates without a time of day."""


def times_of(values: pa.Array, column: Profile, timezone: str) -> Times:
    """Of the column with the event times.

    Raises:
        CannotInferError: too few of its rows have a time.
    """
    try:
        days = days_of(values, timezone, timedelta(0))
    except ValueError as error:
        raise CannotInferError(f"--time: column {column.header} {error}") from error
    unreadable = [int(row) for row in np.flatnonzero(pc.is_null(days).to_numpy(zero_copy_only=False))]
    if len(unreadable) > (1 - READABLE) * len(days):
        row = unreadable[0]
        got = column.text[row].as_py()
        raise CannotInferError(
            f"--time: column {column.header} has no time in row {row + 1}"
            + (f", but {got!r}," if got is not None else "")
            + f" and in {len(unreadable):,} of {len(days):,} rows, expected one such as 2018-04-01T09:30:00Z"
        )
    every = Counter(days.drop_null().to_pylist())
    latest = (real_time().astimezone(ZoneInfo(timezone)) + timedelta(days=1)).date().isoformat()
    start, last = bulk_of(every, latest=latest)
    outside = pc.fill_null(pc.or_(pc.less(days, start), pc.greater(days, last)), False).to_numpy(zero_copy_only=False)
    share = dates_among(values, timezone)
    return Times(
        days=days,
        start=start,
        last=last,
        counts={day: count for day, count in sorted(every.items()) if start <= day <= last},
        outside=[(int(row) + 1, column.text[int(row)].as_py()) for row in np.flatnonzero(outside)],
        unreadable=[(row + 1, column.text[row].as_py()) for row in unreadable],
        dates=share.any,
        only_dates=share.dates + share.midnights == share.times,
    )


def arrival_of(known_at: pa.Array, event_time: pa.Array, header: str, timezone: str) -> Arrival:
    """From the column that says when each label was known.

    Raises:
        CannotInferError: it is no column of times, or labels are known before their events, or with them.
    """
    try:
        dates = dates_among(known_at, timezone).any
        known, events = _instants(known_at, timezone, "end" if dates else "start"), _instants(event_time, timezone, "start")
    except ValueError as error:
        raise CannotInferError(f"--known-at: column {header} {error}") from error
    after = (known - events).dropna()
    if after.empty:
        raise CannotInferError(f"--known-at: column {header} has no times, such as 2018-04-01T09:30:00Z")
    early = after[after <= timedelta(0)]
    if len(early) > (1 - READABLE) * len(after):
        row = int(early.index[0])
        raise CannotInferError(
            f"--known-at: in {len(early):,} rows {header} is not after the event, first in row {row + 1}: a label that is known before its "
            "event, or with it, cannot be predicted"
        )
    days = np.ceil(after[after > timedelta(0)].dt.total_seconds() / 86_400).astype(int)
    nearly_all = int(np.quantile(days, 0.95, method="higher"))
    return Arrival(embargo_days=max(1, nearly_all), latest_days=max(1, int(days.max())) + 2, known_at_dates=dates)


def _instants(values: pa.Array, timezone: str, dates: Dates) -> pd.Series:
    text = time_text(values, timezone, timedelta(0), dates).to_pandas().str.replace(r" ?(UTC|GMT)$", "Z", regex=True)
    instants: pd.Series = pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce")
    return instants
