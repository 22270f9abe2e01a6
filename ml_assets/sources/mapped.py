"""A source that reads the reader's own Parquet or CSV files, each of any number of days, under the column names of a table.

Belongs here: finding files, which days they hold, and reading those. Does not: how a value is written as text
(`sources.as_text`), how a mapping is written down (`sources.mapping`), or what the columns mean (`stages.clean`).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_assets.sources.as_text import days_of, plain, text_of, time_text
from ml_assets.sources.files import UNREADABLE, as_day, digest, text_columns, united, unpacked, with_provenance
from ml_assets.use_case import Batch, Day

SUFFIXES = (".parquet", ".csv", ".csv.gz")
AT_ONCE = 2**17
"""Rows of a Parquet file in memory before those that nobody asked for are dropped."""

_UNREADABLE = (*UNREADABLE, pa.ArrowException, OverflowError)
_NO_DELAY = timedelta(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MappedFiles:
    """All files that match a pattern; every value is delivered as the shortest text that reads back the same.

    A time without its offset from UTC is clock time in `timezone` and delivered with its offset. A clock time that does not
    exist there, or exists twice, stays in its day and is delivered without an offset: cleaning rejects it and says so.
    A delivered column of the name of a provenance column is kept as `delivered_as` says.

    A file that cannot be read may hold any day, so it is a problem of all; one that lacks a column, of the days it holds.

    Raises:
        ValueError: the declaration contradicts itself.
    """

    folder: Path
    pattern: str
    """Glob below the folder. Of Parquet a piece at a time is in memory, of CSV a file."""
    columns: Mapping[str, str]
    """Delivered column → column in the files; "" where the files have none: it is delivered without values."""
    day_column: str
    """Delivered column whose time says to which day a row belongs."""
    timezone: str
    delayed: Mapping[str, tuple[str, timedelta]] = field(default_factory=dict)
    """Delivered column → a time in the files and how much later the delivered time is. A delay of 0 reads text as a time."""
    where: tuple[str, str] | None = None
    """A column in the files and its text in the rows to keep; None keeps all."""
    complete_to: Day | None = None
    """First day of which the files say nothing: a day before it without a row had none. None: that after the last row's."""
    missing: tuple[str, ...] = ("",)
    """Texts in CSV that mean no value."""

    def __post_init__(self) -> None:
        if faults := list(self._faults()):
            raise ValueError(f"{self.pattern} in {self.folder}: {'; '.join(faults)}")

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """For each day a hash over the files that hold it and over how they are read; the same for all days without rows.

        No day has one where `read` raises. A file is read for its hash and days once, and again when its size or times change.
        """
        survey = self._survey()
        if survey.timeless:
            return {}
        return {day: self._version(survey, day) for day in days if self._problem(survey, day) is None}

    def read(self, days: Sequence[Day]) -> Batch:
        """Rows of these days, by name of the file and then by row.

        Raises:
            ValueError: a row to keep has no time that can be read, in whatever day.
        """
        survey = self._survey()
        if survey.timeless:
            raise ValueError(survey.timeless)
        problems = {day: problem for day in days if (problem := self._problem(survey, day)) is not None}
        tables: list[pa.Table] = []
        for file in survey.files:
            asked = [day for day in days if day not in problems and day in file.content.days]
            try:
                tables += self._read(file, asked)
            except _UNREADABLE as error:
                problems |= dict.fromkeys(asked, f"{file.path}: {error}")
        ready = [day for day in days if day not in problems]
        if problems:
            # Other files may have given rows of a day before one broke off.
            tables = [table.filter(pc.is_in(table["day"], pa.array(ready, pa.string()))) for table in tables]
        counted = Counter(dict.fromkeys(ready, 0))
        for table in tables:
            counted.update({each["values"]: each["counts"] for each in pc.value_counts(table["day"]).to_pylist()})
        versions = {day: self._version(survey, day) for day in ready}
        return Batch(rows=united([self._no_rows(), *tables]), counted=dict(counted), versions=versions, problems=problems)

    # What the files hold ------------------------------------------------------------------------------------------------------

    def _survey(self) -> "_Survey":
        files, unreadable = [], []
        for name, path in sorted((path.relative_to(self.folder).as_posix(), path) for path in self.folder.glob(self.pattern)):
            try:
                if path.is_file():
                    stamp = _stamp(path)
                    files.append(_File(name=name, path=path, stamp=stamp, content=_content(path, stamp, self._reading)))
            except _UNREADABLE as error:
                unreadable.append(f"{path}: {error}")
        if not files and not unreadable:
            unreadable = [f"no file matches {self.pattern} in {self.folder}: deliver one and materialise the day again"]
        last = max((day for file in files for day in file.content.days), default=None)
        return _Survey(files=tuple(files), unreadable="; ".join(unreadable), last=last)

    def _problem(self, survey: "_Survey", day: Day) -> str | None:
        """Why a day cannot be delivered, as far as is known without reading it."""
        if survey.unreadable:
            return survey.unreadable
        if self.complete_to is not None and day >= self.complete_to:
            return f"not delivered yet: {self.pattern} in {self.folder} is complete before {self.complete_to}"
        if self.complete_to is None and (survey.last is None or day > survey.last):
            return f"not delivered yet: the last row in {self.pattern} in {self.folder} is of {survey.last or 'no day'}"
        faults = [fault for file in survey.files if day in file.content.days and (fault := self._lacking(file))]
        return "; ".join(faults) or None

    def _lacking(self, file: "_File") -> str | None:
        absent = [f"{column} ({use})" for column, use in self._needed.items() if column not in file.content.columns]
        return f"{file.path} has no column {', '.join(absent)}; it has {', '.join(file.content.columns)}" if absent else None

    def _version(self, survey: "_Survey", day: Day) -> str:
        held = [(file.name, file.content.version) for file in survey.files if day in file.content.days]
        declared = (sorted(self._sources.items()), self.day_column, self.timezone, self.where, self.missing)
        return digest(repr((held, declared)).encode() if held else b"")

    # Rows ---------------------------------------------------------------------------------------------------------------------

    def _read(self, file: "_File", days: Sequence[Day]) -> list[pa.Table]:
        """The rows of these days in one file; raises any of `_UNREADABLE`."""
        parts = [index for index, part in enumerate(file.content.parts) if not part.isdisjoint(days)]
        if not parts:
            return []
        with _opened(file.path, self.missing) as opened:
            tables = [
                self._delivered(file, before, batch, days) for part in parts for before, batch in opened.pieces(part, self._needed)
            ]
        if _stamp(file.path) != file.stamp:
            raise ValueError("it changed while it was read: materialise the day again")
        return tables

    def _delivered(self, file: "_File", before: int, batch: pa.RecordBatch, days: Sequence[Day]) -> pa.Table:
        of_row = _days(batch, self._reading)
        kept = pc.and_(pc.is_in(of_row, pa.array(days, pa.string())), _kept(batch, self._reading))
        rows = batch.filter(kept)
        return with_provenance(
            pa.table([self._values(rows, name) for name in self._sources], schema=self._schema),
            of_row.filter(kept),
            file.name,
            file.content.version,
            rows=pa.array(np.flatnonzero(kept) + before + 1, pa.int64()),
        )

    def _values(self, rows: pa.RecordBatch, name: str) -> pa.Array:
        column, delay = self._sources[name]
        if not column:
            return pa.nulls(rows.num_rows, pa.string())
        with _naming(column):
            if name == self.day_column or name in self.delayed:
                return time_text(rows[column], self.timezone, delay)
            return text_of(rows[column], self.timezone)

    def _no_rows(self) -> pa.Table:
        """So that the columns are there when no row is."""
        return with_provenance(self._schema.empty_table(), "", "", "")

    # The declaration ----------------------------------------------------------------------------------------------------------

    @property
    def _sources(self) -> dict[str, tuple[str, timedelta]]:
        return {name: (column, _NO_DELAY) for name, column in self.columns.items()} | dict(self.delayed)

    @property
    def _needed(self) -> dict[str, str]:
        """Columns in the files, and what each is needed for."""
        needed = {self.where[0]: "which rows to keep"} if self.where else {}
        return needed | {column: name for name, (column, _) in self._sources.items() if column}

    @property
    def _schema(self) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in self._sources])

    @property
    def _reading(self) -> "_Reading":
        column, delay = self._sources[self.day_column]
        return _Reading(column=column, delay=delay, timezone=self.timezone, where=self.where, missing=self.missing)

    def _faults(self) -> Iterator[str]:
        if not self.pattern.endswith(SUFFIXES) or Path(self.pattern).is_absolute():
            yield f"expected a pattern below the folder that ends in {', '.join(SUFFIXES)}"
        if twice := sorted(set(self.columns) & set(self.delayed)):
            yield f"{', '.join(twice)} is both a column and a delayed one"
        if empty := sorted(name for name, (column, _) in self._sources.items() if not column and name in self.delayed):
            yield f"the delayed {', '.join(empty)} has no column in the files"
        if not self._sources.get(self.day_column, ("",))[0]:
            yield f"the day column {self.day_column} has no column in the files"
        if self.complete_to is not None and as_day(self.complete_to) != self.complete_to:
            yield f"complete_to is {self.complete_to!r}, expected a day such as 2018-04-01"
        if not is_timezone(self.timezone):
            yield f"the time zone is {self.timezone!r}, expected a name such as Europe/Berlin"


def is_timezone(name: str) -> bool:
    """Whether the time zone database has it."""
    try:
        return bool(ZoneInfo(name))
    except (OSError, ValueError, LookupError):
        return False


# Which days a file holds ------------------------------------------------------------------------------------------------------

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """On what the days of a file depend besides its bytes."""

    column: str
    delay: timedelta
    timezone: str
    where: tuple[str, str] | None
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    version: str
    columns: tuple[str, ...]
    parts: tuple[frozenset[Day], ...]
    """Days of each row group of Parquet, or of all of a CSV. Rows that are not kept count: they show how far the file reaches."""
    days: frozenset[Day]
    timeless: str | None
    """The first row to keep whose time cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    name: str
    path: Path
    stamp: _Stamp
    content: _Content


@dataclass(frozen=True, kw_only=True, slots=True)
class _Survey:
    files: tuple[_File, ...]
    unreadable: str
    """Why nobody knows which days there are, or ""."""
    last: Day | None
    """Of all rows; None when there are none."""

    @property
    def timeless(self) -> str | None:
        return next((f"{file.path}, {file.content.timeless}" for file in self.files if file.content.timeless), None)


def _stamp(path: Path) -> _Stamp:
    """What changes with a file's content. The last is of the inode: a copy that keeps the times of its original changes it."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=10_000)
def _hash(path: Path, _: _Stamp) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


@lru_cache(maxsize=10_000)
def _content(path: Path, stamp: _Stamp, reading: _Reading) -> _Content:
    """Raises any of `_UNREADABLE`."""
    parts = []
    timeless = None
    with _opened(path, reading.missing) as opened:
        if reading.column not in opened.columns:
            raise ValueError(f"no column {reading.column}, which says the day; it has {', '.join(opened.columns)}")
        needed = [name for name in (reading.column, *(reading.where or ())[:1]) if name in opened.columns]
        for part in range(len(opened.sizes)):
            days: set[Day] = set()
            for before, batch in opened.pieces(part, needed):
                of_row = _days(batch, reading)
                days.update(of_row.drop_null().unique().to_pylist())
                timeless = timeless or _timeless(batch, of_row, reading, before)
            parts.append(frozenset(days))
    return _Content(
        version=_hash(path, stamp),
        columns=opened.columns,
        parts=tuple(parts),
        days=frozenset().union(*parts),
        timeless=timeless,
    )


def _days(batch: pa.RecordBatch, reading: _Reading) -> pa.Array:
    """The day of each row; null without a time that can be read."""
    with _naming(reading.column):
        return days_of(batch[reading.column], reading.timezone, reading.delay)


def _kept(batch: pa.RecordBatch, reading: _Reading) -> pa.Array:
    if reading.where is None or reading.where[0] not in batch.schema.names:
        return pa.repeat(True, batch.num_rows)
    column, text = reading.where
    with _naming(column):
        return pc.fill_null(pc.equal(text_of(batch[column], reading.timezone), text), False)


def _timeless(batch: pa.RecordBatch, days: pa.Array, reading: _Reading, before: int) -> str | None:
    row = pc.index(pc.and_(pc.is_null(days), _kept(batch, reading)), True).as_py()
    if row < 0:
        return None
    value = batch[reading.column][row]
    got = repr(str(value)) if value.is_valid else "missing"
    return f"row {before + row + 1}: {reading.column} is {got}, expected a time such as 2018-04-01T09:30:00 or 2018-04-01T09:30:00Z"


# A file in pieces -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    columns: tuple[str, ...]
    sizes: tuple[int, ...]
    """Rows of each part of the file."""
    batches: Callable[[int, Sequence[str]], Iterator[pa.RecordBatch]]
    """A part and names → these columns, some rows at a time."""

    def pieces(self, part: int, names: Iterable[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each batch, and the number of rows of the file before it."""
        before = sum(self.sizes[:part])
        for batch in self.batches(part, list(names)):
            yield before, pa.RecordBatch.from_arrays([plain(column) for column in batch.columns], batch.schema.names)
            before += batch.num_rows


@contextmanager
def _opened(path: Path, missing: tuple[str, ...]) -> Iterator[_Opened]:
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            if twice := sorted({name for name in columns if columns.count(name) > 1}):
                raise ValueError(f"column {', '.join(twice)} appears more than once")
            sizes = tuple(file.metadata.row_group(part).num_rows for part in range(file.num_row_groups))
            yield _Opened(
                columns=columns,
                sizes=sizes,
                batches=lambda part, names: file.iter_batches(AT_ONCE, row_groups=[part], columns=names),
            )
    else:
        table = text_columns(unpacked(path, path.read_bytes()), missing=missing)
        yield _Opened(
            columns=tuple(table.column_names),
            sizes=(table.num_rows,),
            batches=lambda _, names: iter(table.select(names).to_batches()),
        )


@contextmanager
def _naming(column: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"column {column} {error}") from error
