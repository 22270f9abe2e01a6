"""The file of events from which a case is made, as columns, and how it is written.

Belongs here: reading it once, whole. Does not: what its columns are (`scaffold.roles`).
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_assets.scaffold.roles import CannotInferError
from ml_assets.sources.as_text import plain
from ml_assets.sources.canonical import MARK, canonical
from ml_assets.sources.dialect import Dialect, infer_columns, infer_csv
from ml_assets.sources.files import UNREADABLE, text_columns
from ml_assets.sources.iso import ANY_TIME
from ml_assets.sources.json_lines import lines_as_columns
from ml_assets.sources.limits import USUAL, unpacked
from ml_assets.sources.time_format import EPOCHS, ISO
from ml_assets.use_case import DType

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zip", ".jsonl", ".jsonl.gz")
_FIRST, _LAST = 946_684_800, 2_524_608_000
"""Seconds: of 2000 and of 2050. A whole number between them may be a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Events of some weeks."""

    file: Path
    """Absolute."""
    columns: Mapping[str, pa.Array]
    """Header → values as they are delivered, shape (rows,): text from CSV and JSON lines, any type from Parquet."""
    rows: int
    dialect: Dialect


def read_sample(file: Path, declared: Sequence[str] = (), *, time: str | None = None) -> Sample:
    """Reads the file.

    Args:
        declared: settings of the dialect that somebody declared, as lines of TOML, such as `decimal = ","`.
        time: column that is the event time, though it may be a number.

    Raises:
        CannotInferError: there is none, it cannot be read, or has no rows.
    """
    if not file.is_file():
        raise CannotInferError(f"--from: there is no file {file}")
    if not file.name.endswith(SUFFIXES):
        raise CannotInferError(f"--from: {file.name}, expected a file that ends in {', '.join(SUFFIXES)}")
    if not file.stat().st_size:
        raise CannotInferError(f"--from: {file} is empty: expected events of some weeks")
    try:
        table, dialect = _table(file, _declared(declared))
    except (*UNREADABLE, pa.ArrowException) as error:
        raise CannotInferError(f"--from: {file} cannot be read: {error}") from error
    if not table.num_rows:
        raise CannotInferError(f"--from: {file} has no rows: what is in them decides what the case is")
    if twice := sorted({name for name in table.column_names if table.column_names.count(name) > 1}):
        raise CannotInferError(f"--from: {file} has more than one column {', '.join(map(repr, twice))}: rename all but one")
    columns = {name: plain(table[name].combine_chunks()) for name in table.column_names}
    if time is not None and time in columns and dialect.time_of(time) == ISO and (form := epoch_of(columns[time])) is not None:
        pairs: tuple[tuple[str, str], ...] = () if isinstance(dialect.time, str) else dialect.time
        because = f"time = {form}: {time} holds numbers of that size"
        dialect = replace(dialect, time=(*pairs, (time, form)), because=(*dialect.because, because))
    values = {name: _read(column, name, dialect) for name, column in columns.items()}
    if times := [name for name, column in values.items() if _is_time(name) and _are_times(column)]:
        raise CannotInferError(
            f"--from: {file} has no names of columns: its first row has {times[0]!r} where the others have times. Give it a "
            "first row with names"
        )
    return Sample(file=file.absolute(), columns=values, rows=table.num_rows, dialect=dialect)


def _is_time(name: str) -> bool:
    return re.search(ANY_TIME, name) is not None


def _are_times(values: pa.Array) -> bool:
    """Whether each known value is a time that is text."""
    return pa.types.is_string(values.type) and bool(pc.all(pc.match_substring_regex(values, ANY_TIME)).as_py())


def epoch_of(values: pa.Array) -> str | None:
    """Since 1970 in which unit numbers may be times of this century; None for what is none."""
    types = pa.types
    if not (types.is_integer(values.type) or types.is_floating(values.type) or types.is_string(values.type)):
        return None
    try:
        numbers = pc.cast(values, pa.float64())
        numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    except pa.ArrowInvalid:
        return None
    low, high = (bound.as_py() for bound in pc.min_max(numbers).values())
    return next((form for form, each in EPOCHS.items() if low is not None and _FIRST * each <= low and high <= _LAST * each), None)


def dialect_of(settings: Mapping[str, Any], inferred: Dialect) -> Dialect:
    """A dialect with these settings, which TOML holds, in place of those inferred.

    Raises:
        ValueError: there is no such setting, or it cannot be so.
    """

    def frozen(value: Any) -> Any:
        if isinstance(value, Mapping):
            return tuple((str(name), frozen(each)) for name, each in value.items())
        return tuple(value) if isinstance(value, list) else value

    try:
        return replace(inferred, **{name: frozen(value) for name, value in settings.items()})
    except TypeError:
        known = ", ".join(name for name in Dialect.__slots__ if name not in ("table", "because", "questions"))
        raise ValueError(f"no setting of a dialect: {', '.join(settings)}; expected {known}") from None


def _declared(lines: Sequence[str]) -> Mapping[str, Any]:
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise CannotInferError(f'--dialect: expected lines of TOML such as decimal = ",": {error}') from error


def _table(file: Path, declared: Mapping[str, Any]) -> tuple[pa.Table, Dialect]:
    if file.name.endswith(".parquet"):
        table = pq.read_table(file)
        return table, dialect_of(declared, _plain_words(infer_columns(table)))
    content = unpacked(file, file.read_bytes())
    if ".jsonl" in file.suffixes:
        table = lines_as_columns(content)
        return table, dialect_of(declared, _plain_words(infer_columns(table)))
    dialect = dialect_of(declared, _plain_words(infer_csv(content)))
    return text_columns(content, dialect), dialect


def _plain_words(inferred: Dialect) -> Dialect:
    """Without words for true and false: a generated case has no such columns, and takes each word as it is."""
    because = tuple(line for line in inferred.because if not line.startswith("true = "))
    return replace(inferred, true=(), false=(), because=because)


def _read(values: pa.Array, header: str, dialect: Dialect) -> pa.Array:
    """As the dialect reads them: as times where it says how these are written, as numbers where all are numbers."""
    if dialect.time_of(header) != ISO:
        read = canonical(values, header, dialect, DType.TIMESTAMP, USUAL)
        return pc.replace_substring_regex(read, f"{MARK}.*", "") if pa.types.is_string(read.type) else read
    as_text = canonical(values, header, dialect, None, USUAL)
    if not dialect.writes_numbers or not pa.types.is_string(as_text.type):
        return as_text
    as_number = canonical(values, header, dialect, DType.FLOAT64, USUAL)
    return as_text if pc.any(pc.match_substring(as_number, MARK)).as_py() else as_number
