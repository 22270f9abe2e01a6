"""The vocabulary in which a prediction problem is declared.

Belongs here: frozen declarations and the one protocol a source keeps. Does not: anything that computes (`stages`), reads
(`sources`, `storage`) or schedules (`orchestration`).

A *day* is written everywhere as its partition key, `YYYY-MM-DD`, and means the calendar day in the case's time zone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

Day = str
"""Partition key of a day, `YYYY-MM-DD`, in the time zone of the use case."""

WHOLE: Day = "all"
"""The one partition of a table that is not delivered by day."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays of one length: a million events or one."""


class DType(StrEnum):
    """Types a column can have; `TIMESTAMP` is an instant in UTC with microseconds."""

    STRING = "string"
    INT64 = "int64"
    FLOAT64 = "float64"
    BOOL = "bool"
    TIMESTAMP = "timestamp[us, UTC]"


class Severity(StrEnum):
    """`ERROR`: the contract is broken, the day is not published. `WARN`: unusual, published, and said so."""

    ERROR = "error"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column and what may stand in it.

    `nullable` leaves a missing value to the model; otherwise a row without a value is rejected, unless `fill` says what to put.
    A value outside `minimum`..`maximum` or not in `allowed` rejects its row, or is blanked where `impossible="blank"`.
    `known_at` names the column that says from when on the value can be known; without it the value is known from the start.
    """

    name: str
    dtype: DType
    description: str = ""
    unit: str | None = None
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    fill: float | str | None = None
    impossible: Literal["reject", "blank"] = "reject"
    known_at: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DayRange:
    """A bound on a figure of the whole day: `rows`, `null_share:<column>` or `mean:<column>`."""

    figure: str
    minimum: float | None = None
    maximum: float | None = None
    severity: Severity = Severity.WARN


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a source delivered for some days.

    `rows` holds text columns exactly as delivered, plus `day`, `source_file`, `source_row` (1-based, header not counted) and
    `source_version`. `counted` is the source's own number of rows a day, `versions` its version of each day (a content hash or
    ETag), `problems` why a day could not be read at all. A day is in `counted` or in `problems`, never in neither.
    """

    rows: pd.DataFrame
    counted: Mapping[Day, int]
    versions: Mapping[Day, str]
    problems: Mapping[Day, str] = field(default_factory=dict)
    columns: Mapping[Day, Sequence[str]] | None = None
    """Which columns of `rows` were delivered for each day, where that differs from day to day."""


class Source(Protocol):
    """Where rows come from."""

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """The version of each day that the source could deliver now; a day it cannot deliver is left out. Cheap."""

    def read(self, days: Sequence[Day]) -> Batch:
        """Everything the source holds for these days."""


SourceFactory = Callable[[Mapping[str, str]], Source]
"""Makes a source from the settings (the environment of the process, or what a test passes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of the case: what is delivered, what it becomes, and what it must keep.

    `delivered` types the raw text; `derive` turns typed delivered rows into clean ones (same rows, same order);
    `columns` is the contract of the result and `key` identifies a row in it: of several rows with one key the first stays.
    """

    name: str
    source: SourceFactory
    delivered: tuple[Column, ...]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    derive: Callable[[pd.DataFrame], pd.DataFrame]
    daily: bool = True
    expectations: tuple[DayRange, ...] = ()
    max_rejected_share: float = 0.05

    @property
    def raw_name(self) -> str:
        return f"raw_{self.name}"

    @property
    def rejected_name(self) -> str:
        return f"rejected_{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """Something that becomes known about an entity at a time: a whole-number value in a column of a clean table."""

    name: str
    table: str
    value: str
    known_at: str
    unit: str
    id: str = "event_id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The share of facts in a window whose value is at least `at_least`."""

    name: str
    at_least: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trailing:
    """Statistics of a fact over trailing windows `(t - window, t]`, for each entity it is asked about.

    An entity is one column or several together (a route is an origin and a destination).
    """

    fact: Fact
    entities: tuple[tuple[str, ...], ...]
    windows: tuple[timedelta, ...]
    statistics: tuple[Literal["count", "sum", "mean"] | Share, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Latest:
    """The latest row known about an entity: its values, their change over `change_over`, and its age in minutes."""

    name: str
    table: str
    entity: tuple[str, ...]
    known_at: str
    values: tuple[str, ...]
    id: str = "event_id"
    changes: tuple[str, ...] = ()
    change_over: timedelta = timedelta(hours=3)
    within: timedelta = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Values from a dimension table; an entity that is not in it gets missing values."""

    table: str
    by: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """All features of a case. `row` computes from the event's own columns and everything above, on arrays of any length.

    `event_columns` are the columns of the event known at prediction time: the only ones that features may see.
    """

    event_columns: tuple[str, ...]
    trailing: tuple[Trailing, ...]
    latest: tuple[Latest, ...]
    lookups: tuple[Lookup, ...]
    row: Callable[[Arrays], dict[str, npt.NDArray[Any]]]
    columns: tuple[Column, ...]

    @property
    def lookback(self) -> timedelta:
        """The longest way back that a feature looks."""
        windows = [window for trailing in self.trailing for window in trailing.windows]
        return max([*windows, *(latest.within + latest.change_over for latest in self.latest)], default=timedelta(0))

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def categorical(self) -> list[str]:
        return [column.name for column in self.columns if column.dtype is DType.STRING]


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """The truth about an event: a 0/1 column of the event table, and the column that says when it became known."""

    column: str
    known_at: str
    entities: tuple[str, ...]
    latest_after: timedelta
    """No label becomes known later than this after the start of its event's day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """When models go live and which days judge them: the last `holdout_days` before a model's `as_of`, less the embargo.

    Days whose labels come too late would enter with those of their events that ended early, which are the good ones. So the last
    `embargo_days` before the hold-out, and before the model goes live, are left out.
    """

    weekday: int
    first_go_live: Day
    holdout_days: int
    embargo_days: int
    minimum_training_days: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of the hold-out on which a candidate must not be much worse than the champion."""

    column: str
    minimum_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a candidate must show before it is deployed (the figures refer to the hold-out).

    Promoted only if every floor holds, the baseline is beaten, and, against a champion on the same rows, the mean difference of
    average precision is not negative, the chance of being worse by more than `margin` (paired bootstrap by day) is under `risk`,
    and no slice is worse by more than `slice_margin`.
    """

    floors: Mapping[str, float]
    margin: float
    risk: float
    resamples: int
    slices: tuple[Slice, ...]
    slice_margin: float
    max_model_megabytes: float
    max_row_milliseconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Fixed recipe: LightGBM parameters, trees, and the share of events flagged at the operating threshold."""

    parameters: Mapping[str, Any]
    trees: int
    alert_share: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UseCase:
    """One prediction problem, whole."""

    name: str
    title: str
    owner: str
    timezone: str
    start: Day
    end: Day | None
    """First day that is not part of the case; None for a case that goes on."""
    tables: tuple[Table, ...]
    events: str
    event_time: str
    climatology: tuple[str, ...]
    """Features whose training-set rate is the simplest forecast of all: what a model must beat to be worth anything."""
    label: Label
    features: Features
    split: Split
    gate: Gate
    training: Training

    def table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"use case {self.name} has no table {name!r}; it has {', '.join(t.name for t in self.tables)}")

    @property
    def event_table(self) -> Table:
        return self.table(self.events)

    @property
    def daily_tables(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if table.daily)

    @property
    def dimensions(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if not table.daily)

    @property
    def lookback_days(self) -> int:
        """Whole days before an event's day that its features may need: the longest window, and the part of a day before it."""
        return self.features.lookback.days + 2

    @property
    def label_lookback_days(self) -> int:
        return self.label.latest_after.days

    def starts(self, day: Day) -> pd.Timestamp:
        """The instant, in UTC, at which a day begins where the case lives."""
        return pd.Timestamp(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(self.timezone))).tz_convert("UTC")

    def days_of(self, instants: pd.Series) -> pd.Series:
        """The day (key) in which each instant lies."""
        days: pd.Series = instants.dt.tz_convert(self.timezone).dt.strftime("%Y-%m-%d")
        return days


def shift(day: Day, days: int) -> Day:
    """The day so many days later.

    >>> shift("2013-03-01", -1)
    '2013-02-28'
    """
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def day_range(first: Day, last: Day) -> list[Day]:
    """All days from the first to the last, both included; empty when the last lies before the first.

    >>> day_range("2013-02-28", "2013-03-01")
    ['2013-02-28', '2013-03-01']
    """
    start, count = date.fromisoformat(first), (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    return [(start + timedelta(days=offset)).isoformat() for offset in range(count)]


def nullable_dtype(dtype: DType) -> str | np.dtype[Any] | pd.DatetimeTZDtype:
    """The pandas dtype in which a column is kept: floats carry missing numbers as nan, strings as NA.

    Whole numbers that may be missing are declared FLOAT64.
    """
    match dtype:
        case DType.STRING:
            return "str"
        case DType.TIMESTAMP:
            return pd.DatetimeTZDtype("us", "UTC")
        case _:
            return np.dtype(dtype.value)
