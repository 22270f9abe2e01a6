"""A source that reads the reader's own Parquet, CSV or JSON files, each of any number of days, under the column names of a table.

Belongs here: which days files hold, and reading those. Does not: where files lie (`folders`), what becomes of their columns
(`sources.delivered`), or how a mapping is written down (`sources.mapping`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from ml_assets.folders import Folder, Found, LocalFolder
from ml_assets.sources.as_text import Dates
from ml_assets.sources.bounds import Bounds, later
from ml_assets.sources.canonical import REFUSED
from ml_assets.sources.delivered import Delivered, Time, as_delivered, neighbours, not_delivered
from ml_assets.sources.dialect import USUAL_DIALECT, Dialect
from ml_assets.sources.files import UNREADABLE, as_day, digest, text_columns, united
from ml_assets.sources.json_lines import sound_lines_as_columns
from ml_assets.sources.limits import USUAL, Limits, unpacked
from ml_assets.sources.placement import Placement, day_in, place, sound_days
from ml_assets.sources.survey import Content, File, Survey
from ml_assets.use_case import Batch, Day, DType

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zip", ".jsonl", ".jsonl.gz")
DAY = "{day}"
"""Stands in a pattern for the day that all rows of a file belong to."""
ANY_DAY = "; it may hold any day, since no name says which"
_ANY_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
AT_ONCE = 2**17
"""Rows of a Parquet file in memory before those that nobody asked for are dropped."""

_UNREADABLE = (*UNREADABLE, pa.ArrowException, OverflowError)


@dataclass(frozen=True, kw_only=True, slots=True)
class MappedFiles:
    """All files that match a pattern, their rows as `Delivered` says.

    Where the pattern says the day of a file, no other file is opened for it. Else a row's time does, and every file is read once for its
    days: one that cannot be read may hold any day, so it is a problem of all; one that lacks a column, of the days it holds.

    A row without a time that can be read, or out of bounds, is stray: it is delivered under the day of the sound row before it in its file,
    or else of the next one, for cleaning to reject. Of a file in which no row is sound, it is the day in its name, or else that of the
    file before it; then such a file may hold any day that no other file holds. A stray row never makes a day one that was delivered.

    Raises:
        ValueError: the declaration contradicts itself.
    """

    folder: Path | Folder
    pattern: str
    """Glob below the folder, with `{day}` where names have the day. Of Parquet a piece at a time is in memory, of CSV and JSON a file."""
    columns: Mapping[str, str]
    """Delivered column → column in the files; "" where the files have none: it is delivered without values."""
    day_column: str
    """Delivered column whose time says to which day a row belongs."""
    timezone: str
    delayed: Mapping[str, tuple[str, timedelta]] = field(default_factory=dict)
    """Delivered column → a time in the files and how much later the delivered time is. A delay of 0 reads text as a time."""
    where: tuple[str, str] | None = None
    """A column in the files and its text in the rows to keep; None keeps all."""
    present: str | None = None
    """A column in the files that has a value in the rows to keep; None keeps all."""
    may_lack: tuple[str, ...] = ()
    """Delivered columns that are delivered without values from a file that has no such column."""
    complete_to: Day | None = None
    """First day of which the files say nothing: a day before it without a row had none. None: that after the last row's."""
    bounds: Bounds | None = None
    """As `Delivered.bounds`."""
    dates: Dates | None = None
    """As `Delivered.dates`."""
    dialect: Dialect = USUAL_DIALECT
    """How the files are written."""
    limits: Limits = USUAL
    """What is refused when it holds more."""
    dtypes: Mapping[str, DType] = field(default_factory=dict)
    """What delivered columns are to become, where that decides how they are read."""

    def __post_init__(self) -> None:
        if faults := list(self._faults()):
            raise ValueError(f"{self.pattern} in {self.folder}: {'; '.join(faults)}")

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """For each day a hash over the files that hold it and over how they are read; the same for all days without rows.

        No day has one where `read` raises. A file is read for its hash and days once, and again when its size or times change.
        """
        survey = self._survey()
        return {day: self._version(survey, day) for day in days if self._problem(survey, day) is None}

    def read(self, days: Sequence[Day]) -> Batch:
        """Rows of these days, by name of the file and then by row."""
        survey = self._survey()
        problems = {day: problem for day in days if (problem := self._problem(survey, day)) is not None}
        tables: list[pa.Table] = []
        for file in survey.files:
            asked = [day for day in days if day not in problems and day in file.days]
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
        return Batch(rows=united([self._delivered.no_rows(), *tables]), counted=dict(counted), versions=versions, problems=problems)

    def trouble(self) -> str:
        """See `WatchedSource`."""
        survey = self._survey()
        return survey.unreadable or survey.without_days

    def watched(self, days: Sequence[Day]) -> Sequence[Day]:
        """All: files are listed completely, so that one that came late or was replaced is found however old its day is."""
        return days

    # What the files hold ------------------------------------------------------------------------------------------------------

    def _survey(self) -> Survey:
        files, unreadable = list[File](), list[str]()
        span = self._delivered.span()
        try:
            found = self._folder.find(self.pattern.replace(DAY, _ANY_DAY))
        except OSError as error:
            return Survey.of((), unreadable=str(error))
        for each in found:
            try:
                files.append(self._file(each, self._content(each), span))
            except _UNREADABLE as error:
                anything = "" if DAY in self.pattern else ANY_DAY
                unreadable.append(f"{self.folder}/{each.name}: {error}{anything}")
        if not files and not unreadable:
            unreadable = [f"no file matches {self.pattern} in {self.folder}: deliver one and materialise the day again"]
        return Survey.of(files, unreadable="; ".join(unreadable))

    def _file(self, found: Found, content: Content, span: tuple[Day, Day] | None) -> File:
        """Raises any of `_UNREADABLE`."""
        outside = frozenset(day for day in content.days if not span[0] <= day <= span[1]) if span else frozenset[Day]()
        path, placement, named = f"{self.folder}/{found.name}", None, None
        if content.parts is None and outside:
            told = f"its name says {', '.join(outside)}, which is out of bounds"
            placement = Placement(sound=frozenset(), parts=(), before=(), strays={None: content.version}, example=told)
        elif outside or content.timeless:
            placement = _placement(self._folder, found, self._reading, outside)
            if None in placement.strays and (day := day_in(found.name)) is not None:
                day = later(day, self._delivered.time.delay)
                named = day if span is None or span[0] <= day <= span[1] else None
        return File(path=path, found=found, content=content, outside=outside, placement=placement, named=named)

    def _problem(self, survey: Survey, day: Day) -> str | None:
        """Why a day cannot be delivered, as far as is known without reading it."""
        if survey.unreadable or survey.without_days:
            return survey.unreadable or survey.without_days
        whole = f"{self.pattern} in {self.folder}"
        if late := not_delivered(day, complete_to=self.complete_to, last=survey.last, whole=whole, latest=f"row in {whole}"):
            return "; ".join([late, *(f"{file.path}, {file.fault}" for file in survey.astray if file.other == day)])
        if lost := survey.lost(day):
            return lost
        faults = [
            f"{file.path} {lacking}"
            for file in survey.files
            if day in file.days and file.content.columns and (lacking := self._delivered.lacking(file.content.columns))
        ]
        return "; ".join(faults) or None

    def _content(self, found: Found) -> Content:
        """Raises any of `_UNREADABLE`."""
        if DAY not in self.pattern or self.day_column in self.delayed:  # the name says the day of the time that is not delayed
            return _content(self._folder, found, self._reading)
        mark = "0day0"
        told = re.match(glob_translate(self.pattern.replace(DAY, mark)).replace(mark, "([0-9-]{10})"), found.name)
        day = as_day(told[1]) if told else None
        if day is None:
            raise ValueError(f"its name has no day where {self.pattern} says: expected one such as 2018-04-01")
        return Content(version=self._folder.version(found), columns=(), parts=None, days=frozenset([day]), timeless=False)

    def _version(self, survey: Survey, day: Day) -> str:
        held = [(file.found.name, file.content.version, *file.strays_of(day)) for file in survey.files if day in file.days]
        return digest(repr((held, (*self._delivered.meaning, ("",)))).encode() if held else b"")

    # Rows ---------------------------------------------------------------------------------------------------------------------

    def _read(self, file: File, days: Sequence[Day]) -> list[pa.Table]:
        """The rows of these days in one file; raises any of `_UNREADABLE`."""
        if not days:
            return []
        delivered, found, content = self._delivered, file.found, file.content
        day = None if content.parts is not None else days[0]
        with _opened(self._folder, found.name, self.dialect, self.limits) as opened:
            if opened.is_bare:
                return []
            if day and (lacking := delivered.lacking(opened.columns)):
                raise ValueError(lacking)
            parts = range(len(opened.sizes)) if day else file.parts_of(days)
            tables = [
                delivered.rows(batch, days, file=found.name, version=content.version, before=before, day=day or placed)
                for part in parts
                for before, batch, placed in self._placed(file, opened.pieces(part, delivered.needed_of(opened.columns)), part)
            ]
        if self._folder.stamp(found.name) != found.stamp:
            raise ValueError("it changed while it was read: materialise the day again")
        return tables

    def _placed(
        self, file: File, pieces: Iterable[tuple[int, pa.RecordBatch]], part: int
    ) -> Iterator[tuple[int, pa.RecordBatch, pa.Array | None]]:
        """With the day under which each row is delivered, where it is not its time alone that says it."""
        if file.placement is None or file.content.parts is None:
            yield from ((before, batch, None) for before, batch in pieces)
            return
        day = file.before(part)
        for before, batch in pieces:
            placed = neighbours(sound_days(self._delivered.time.days(batch), file.outside), day)
            day = placed[-1].as_py() if len(placed) else day
            yield before, batch, placed

    # The declaration ----------------------------------------------------------------------------------------------------------

    @property
    def _delivered(self) -> Delivered:
        return Delivered(
            columns=self.columns,
            day_column=self.day_column,
            timezone=self.timezone,
            delayed=self.delayed,
            where=self.where,
            present=self.present,
            may_lack=self.may_lack,
            bounds=self.bounds,
            dates=self.dates,
            dialect=self.dialect,
            limits=self.limits,
            dtypes=self.dtypes,
        )

    @property
    def _reading(self) -> "_Reading":
        return _Reading(time=self._delivered.time, limits=self.limits)

    @property
    def _folder(self) -> Folder:
        return LocalFolder(self.folder) if isinstance(self.folder, Path) else self.folder

    def _faults(self) -> Iterator[str]:
        if not self.pattern.endswith(SUFFIXES) or Path(self.pattern).is_absolute():
            yield f"expected a pattern below the folder that ends in {', '.join(SUFFIXES)}"
        if self.complete_to is not None and as_day(self.complete_to) != self.complete_to:
            yield f"complete_to is {self.complete_to!r}, expected a day such as 2018-04-01"
        yield from self._delivered.faults()


# Which days a file holds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """On what the days of a file depend besides its bytes."""

    time: Time
    limits: Limits

    def needed(self, columns: Sequence[str]) -> list[str]:
        """Which columns of a file say it."""
        return [name for name in self.time.needed if name in columns]


@lru_cache(maxsize=10_000)
def _placement(folder: Folder, found: Found, reading: _Reading, outside: frozenset[Day]) -> Placement:
    """Raises any of `_UNREADABLE`."""
    with _opened(folder, found.name, reading.time.dialect, reading.limits) as opened:
        needed = reading.needed(opened.columns)
        return place((opened.pieces(part, needed) for part in range(len(opened.sizes))), reading.time, outside)


@lru_cache(maxsize=10_000)
def _content(folder: Folder, found: Found, reading: _Reading) -> Content:
    """Raises any of `_UNREADABLE`."""
    parts = []
    timeless = False
    with _opened(folder, found.name, reading.time.dialect, reading.limits) as opened:
        time = reading.time
        if time.column not in opened.columns and not opened.is_bare:
            raise ValueError(f"no column {time.column}, which says the day; it has {', '.join(opened.columns)}")
        needed = reading.needed(opened.columns)
        for part in range(len(opened.sizes)):
            days: set[Day] = set()
            for _, batch in opened.pieces(part, needed):
                of_row = time.days(batch)
                days.update(of_row.drop_null().unique().to_pylist())
                timeless = timeless or of_row.null_count > 0
            parts.append(frozenset(days))
    return Content(
        version=folder.version(found),
        columns=opened.columns,
        parts=tuple(parts),
        days=frozenset().union(*parts),
        timeless=timeless,
    )


# A file in pieces -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    columns: tuple[str, ...]
    sizes: tuple[int, ...]
    """Rows of each part of the file."""
    batches: Callable[[int, Sequence[str]], Iterator[pa.RecordBatch]]
    """A part and names → these columns, some rows at a time."""

    @property
    def is_bare(self) -> bool:
        """No rows that could say which columns there are, as in a file of JSON without a line."""
        return not self.columns and not any(self.sizes)

    def pieces(self, part: int, names: Iterable[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each batch, and the number of rows of the file before it."""
        before = sum(self.sizes[:part])
        for batch in self.batches(part, list(names)):
            yield before, as_delivered(batch, before)
            before += batch.num_rows


@contextmanager
def _opened(folder: Folder, name: str, dialect: Dialect, limits: Limits) -> Iterator[_Opened]:
    with folder.open(name) as content:
        if name.endswith(".parquet"):
            with pq.ParquetFile(content) as file:
                columns = tuple(file.schema_arrow.names)
                if twice := sorted({name for name in columns if columns.count(name) > 1}):
                    raise ValueError(f"column {', '.join(twice)} appears more than once")
                groups = [file.metadata.row_group(part) for part in range(file.num_row_groups)]
                for part, group in enumerate(groups):
                    if group.total_byte_size > limits.unpacked_bytes:
                        what = f"row group {part} unpacks to {group.total_byte_size:,} bytes"
                        raise ValueError(limits.exceeded(what, "unpacked_bytes", group.total_byte_size))
                yield _Opened(
                    columns=columns,
                    sizes=tuple(group.num_rows for group in groups),
                    batches=lambda part, names: file.iter_batches(AT_ONCE, row_groups=[part], columns=names),
                )
        else:
            plain = unpacked(Path(name), content.read(), limits)
            lines = ".jsonl" in Path(name).suffixes
            table = (sound_lines_as_columns if lines else text_columns)(plain, dialect, limits)
            always = [REFUSED] if lines else []
            yield _Opened(
                columns=tuple(name for name in table.column_names if name not in always),
                sizes=(table.num_rows,),
                batches=lambda _, names: iter(table.select([*names, *always]).to_batches()),
            )
