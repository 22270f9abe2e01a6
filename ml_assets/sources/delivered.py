"""Rows in a source's own form, as the table of a case is delivered: its columns as text, with their days and their provenance.

Belongs here: what a declaration means that every source shares. Does not: where rows come from (the other modules), how a value is written
as text (`sources.as_text`), or what the columns mean (`stages.clean`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.sources.as_text import Dates, days_of, plain, text_of, time_text
from ml_assets.sources.bounds import Bounds, later
from ml_assets.sources.canonical import NOT_READ, REFUSED, canonical, refused, text_alone
from ml_assets.sources.dialect import USUAL_DIALECT, Dialect, hint
from ml_assets.sources.files import with_provenance
from ml_assets.sources.limits import USUAL, Limits
from ml_assets.sources.time_format import ISO
from ml_assets.use_case import Day, DType

OUT_OF_BOUNDS = "lies out of bounds: if it is right, declare `earliest` or `latest` in the TOML file"
_NO_DELAY, _DAY = timedelta(0), timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """Which columns of a source are those of a table. Every value is delivered as the shortest text that reads back the same.

    A time without its offset from UTC is clock time in `timezone` and delivered with its offset. A clock time that does not
    exist there, or exists twice, stays in its day and is delivered without an offset: cleaning rejects it and says so.
    A delivered column of the name of a provenance column is kept as `delivered_as` says.
    """

    columns: Mapping[str, str]
    """Delivered column → column of the source; "" where it has none: it is delivered without values."""
    day_column: str
    """Delivered column whose time says to which day a row belongs."""
    timezone: str
    delayed: Mapping[str, tuple[str, timedelta]] = field(default_factory=dict)
    """Delivered column → a time of the source and how much later the delivered time is. A delay of 0 reads text as a time."""
    where: tuple[str, str] | None = None
    """A column of the source and its text in the rows to keep; None keeps all."""
    present: str | None = None
    """A column of the source that has a value in the rows to keep; None keeps all."""
    may_lack: tuple[str, ...] = ()
    """Delivered columns that are delivered without values where the source has no such column."""
    bounds: Bounds | None = None
    """Between which days times lie before they are delayed; a row outside counts as one without a time. None: between any."""
    dates: Dates | None = None
    """Which instant of its day a date without a time of day, or a midnight, is delivered as. None leaves a date to the table's contract."""
    dialect: Dialect = USUAL_DIALECT
    """How the source writes its values."""
    limits: Limits = USUAL
    dtypes: Mapping[str, DType] = field(default_factory=dict)
    """What delivered columns are to become, where that decides how they are read."""

    @property
    def needed(self) -> dict[str, str]:
        """Columns of the source, and what each is needed for."""
        needed = {self.where[0]: "which rows to keep"} if self.where else {}
        needed |= {self.present: "which rows to keep"} if self.present else {}
        return needed | {column: name for name, (column, _) in self._sources.items() if column}

    def needed_of(self, there: Sequence[str]) -> dict[str, str]:
        """As `needed`, of a source with these columns: without those that it may lack, and does."""
        lackable = {self._sources[name][0] for name in self.may_lack if name in self._sources}
        return {column: use for column, use in self.needed.items() if column in there or column not in lackable}

    @property
    def schema(self) -> pa.Schema:
        """Of what is delivered, without provenance."""
        return pa.schema([(name, pa.string()) for name in self._sources])

    @property
    def time(self) -> "Time":
        """Which time of the source says to which day a row belongs."""
        column, delay = self._sources[self.day_column]
        return Time(
            column=column,
            delay=delay,
            timezone=self.timezone,
            where=self.where,
            present=self.present,
            dates=self.dates,
            dialect=self.dialect,
        )

    def span(self) -> tuple[Day, Day] | None:
        """The first and the last day that rows can be of, as things are now; None for any."""
        if self.bounds is None:
            return None
        first, last = self.bounds.days(self.timezone)
        if not (delay := self.time.delay):
            return first, last
        # Where clocks are changed in between, what is delayed can be of the day before or after.
        return later(first, delay - _DAY), later(last, delay + 2 * _DAY)

    @property
    def meaning(self) -> tuple[object, ...]:
        """Everything on which it depends what is delivered of a row, for a version."""
        declared: tuple[object, ...] = (sorted(self._sources.items()), self.day_column, self.timezone, self.where)
        declared = declared if self.present is None else (*declared, self.present)
        declared += () if self.dates is None else (self.dates,)
        if (self.dialect, self.limits) == (USUAL_DIALECT, USUAL):
            return declared
        return (*declared, self.dialect, self.limits, sorted(self.dtypes.items()) if self.dialect.needs_types else ())

    def lacking(self, there: Sequence[str]) -> str:
        """What of it a source with these columns does not have, or ""."""
        absent = [f"{column} ({use})" for column, use in self.needed_of(there).items() if column not in there]
        return f"has no column {', '.join(absent)}; it has {', '.join(there)}" if absent else ""

    def rows(
        self,
        batch: pa.RecordBatch,
        days: Sequence[Day],
        *,
        file: str,
        version: str,
        before: int,
        day: Day | pa.Array | None = None,
    ) -> pa.Table:
        """The rows of these days, with their provenance; `before` of the source's rows came before the batch.

        Args:
            day: of all rows or of each, where it is not their time that says it.

        Raises:
            ValueError: a column is of a type that has no text.
        """
        of_row = self.time.days(batch) if day is None else pa.repeat(day, batch.num_rows) if isinstance(day, str) else day
        kept = pc.and_(pc.is_in(of_row, pa.array(days, pa.string())), self.time.kept(batch))
        rows = batch.filter(kept)
        numbers = pa.array(np.flatnonzero(kept) + before + 1, pa.int64())
        return with_provenance(self.values(rows), of_row.filter(kept), file, version, rows=numbers)

    def values(self, rows: pa.RecordBatch) -> pa.Table:
        """What is delivered of these rows, without provenance.

        Raises:
            ValueError: a column is of a type that has no text.
        """
        values = pa.table([self._values(rows, name) for name in self._sources], schema=self.schema)
        return values.append_column(NOT_READ, rows[REFUSED]) if REFUSED in rows.schema.names else values

    def no_rows(self) -> pa.Table:
        """So that the columns are there when no row is."""
        return with_provenance(self.schema.empty_table(), "", "", "")

    def faults(self) -> Iterator[str]:
        """What contradicts itself."""
        if twice := sorted(set(self.columns) & set(self.delayed)):
            yield f"{', '.join(twice)} is both a column and a delayed one"
        if empty := sorted(name for name, (column, _) in self._sources.items() if not column and name in self.delayed):
            yield f"the delayed {', '.join(empty)} has no column in the files"
        if not self._sources.get(self.day_column, ("",))[0]:
            yield f"the day column {self.day_column} has no column in the files"
        if self.dialect.needs_types and not self.dtypes:
            yield "the dialect says how numbers or true and false are written, and nobody says which columns are such: expected `dtypes`"
        if not is_timezone(self.timezone):
            yield f"the time zone is {self.timezone!r}, expected a name such as Europe/Berlin"
        elif self.bounds is not None and (days := self.bounds.days(self.timezone))[0] > days[1]:
            yield f"the earliest day is {days[0]}, expected one before the latest, {days[1]}"

    def _values(self, rows: pa.RecordBatch, name: str) -> pa.Array:
        column, delay = self._sources[name]
        if not column or (name in self.may_lack and column not in rows.schema.names):
            return pa.nulls(rows.num_rows, pa.string())
        is_time = name == self.day_column or name in self.delayed
        dtype = DType.TIMESTAMP if is_time else self.dtypes.get(name)
        with naming(column):
            values = canonical(rows[column], column, self.dialect, dtype, self.limits)
            if is_time or (dtype is DType.TIMESTAMP and pa.types.is_string(values.type)):
                text = time_text(values, self.timezone, delay, self.dates if is_time else None)
                outside = self._outside(rows) if name == self.day_column else None
                return text if outside is None else pc.if_else(outside, refused(text, OUT_OF_BOUNDS), text)
            return text_of(values, self.timezone)

    def _outside(self, rows: pa.RecordBatch) -> pa.Array | None:
        """Which rows have a time out of bounds; None where none has."""
        if self.bounds is None or not rows.num_rows:
            return None
        first, last = self.bounds.days(self.timezone)
        column = plain(rows[self.time.column])
        if pa.types.is_string(column.type):  # offsets carry a time a day away at most, and most times are far from the bounds
            ends = pc.min_max(column).as_py()
            if ends["min"] and later(first, _DAY) < ends["min"][:10] and ends["max"][:10] < later(last, -_DAY):
                return None
        days = self.time.days(rows)
        outside = pc.and_(pc.is_valid(days), pc.is_null(within(days, self.span())))
        return outside if pc.any(outside).as_py() else None

    @property
    def _sources(self) -> dict[str, tuple[str, timedelta]]:
        return {name: (column, _NO_DELAY) for name, column in self.columns.items()} | dict(self.delayed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Time:
    """Which time says to which day a row belongs, and which rows count."""

    column: str
    delay: timedelta
    timezone: str
    where: tuple[str, str] | None
    present: str | None = field(default=None, repr=False)
    dates: Dates | None = field(default=None, repr=False)  # by the others a landed feed is named, which stays where it is
    dialect: Dialect = field(default=USUAL_DIALECT, repr=False)

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the source that say it."""
        return tuple(dict.fromkeys(filter(None, (self.column, *(self.where or ())[:1], self.present))))

    def days(self, batch: pa.RecordBatch) -> pa.Array:
        """The day of each row; null without a time that can be read."""
        with naming(self.column):
            times = canonical(batch[self.column], self.column, self.dialect, DType.TIMESTAMP, USUAL)
            return days_of(times, self.timezone, self.delay, self.dates)

    def kept(self, batch: pa.RecordBatch) -> pa.Array:
        """Whether each row is to be kept."""
        keeps = pa.repeat(True, batch.num_rows)
        if self.present is not None:
            keeps = self._present(batch, self.present)
        if self.where is None or self.where[0] not in batch.schema.names:
            return keeps
        column, text = self.where
        with naming(column):
            is_flag = pc.fill_null(pc.equal(text_of(text_alone(batch[column]), self.timezone), text), False)
        return pc.and_(keeps, is_flag)

    def _present(self, batch: pa.RecordBatch, column: str) -> pa.Array:
        """Whether each row has a value in a column; no row has one in a column that is not there."""
        if column not in batch.schema.names:
            return pa.repeat(False, batch.num_rows)
        with naming(column):
            values = canonical(batch[column], column, self.dialect, None, USUAL)
            text = pc.utf8_trim_whitespace(text_of(values, self.timezone))
        return pc.fill_null(pc.not_equal(text, ""), False)

    def fault(self, batch: pa.RecordBatch, row: int, before: int) -> str:
        """Why a row is stray: its time cannot be read, or is out of bounds."""
        [value] = text_of(text_alone(batch[self.column]).slice(row, 1), self.timezone).to_pylist()
        got = "missing" if value is None else repr(value)
        if self.days(batch.slice(row, 1))[0].is_valid:
            return f"row {before + row + 1}: {self.column} is {got}, which is out of bounds"
        form = self.dialect.time_of(self.column)
        expected = "a time such as 2018-04-01T09:30:00 or 2018-04-01T09:30:00Z" if form == ISO else f"a time by {form!r}"
        cure = "" if value is None else hint(value, DType.TIMESTAMP, column=self.column, table=self.dialect.table)
        return f"row {before + row + 1}: {self.column} is {got}, expected {expected}{cure}"


def within(days: pa.Array, span: tuple[Day, Day] | None) -> pa.Array:
    """The days that lie in bounds, null for others and where there is none."""
    if span is None:
        return days
    inside = pc.and_(pc.greater_equal(days, span[0]), pc.less_equal(days, span[1]))
    return days if pc.all(inside).as_py() else pc.if_else(inside, days, None)


def neighbours(days: pa.Array, before: Day | None) -> pa.Array:
    """In place of each null the day before it, and of the first ones `before`."""
    forward = pc.fill_null_forward(days)
    return pc.fill_null(forward, before) if forward.null_count and before is not None else forward


def not_delivered(day: Day, *, complete_to: Day | None, last: Day | None, whole: str, latest: str) -> str | None:
    """Why a source does not deliver a day yet, None when it does.

    Args:
        complete_to: first day of which it says nothing; None: that after its last row's.
        last: the day of that row, None when there is none.
        whole: what it is called.
        latest: what its last row is called.
    """
    if complete_to is not None:
        return f"not delivered yet: {whole} is complete before {complete_to}" if day >= complete_to else None
    if last is None or day > last:
        return f"not delivered yet: the last {latest} is of {last or 'no day'}"
    return None


def as_delivered(batch: pa.RecordBatch, before: int = 0) -> pa.RecordBatch:
    """The same values, text as `string` however it was encoded; `before` of the source's rows came before the batch.

    Raises:
        ValueError: a text is no UTF-8, which Arrow takes from a file as it is and nobody behind it can read.
    """
    columns = [plain(column) for column in batch.columns]
    for name, column in zip(batch.schema.names, columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            row = next((row for row, value in enumerate(column) if not _is_sound(value)), 0)
            raise ValueError(f"row {before + row + 1}: column {name} is not UTF-8: write it again as text ({error})") from error
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def is_timezone(name: str) -> bool:
    """Whether the time zone database has it."""
    try:
        return bool(ZoneInfo(name))
    except (OSError, ValueError, LookupError):
        return False


def _is_sound(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except (UnicodeDecodeError, pa.ArrowException):
        return False
    return True


@contextmanager
def naming(column: str) -> Iterator[None]:
    """Says of an error in which column it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"column {column} {error}") from error
