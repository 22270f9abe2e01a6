"""The file of events from which a case is made, as columns, and how it is written.

Belongs here: reading it once, whole. Does not: what its columns are (`scaffold.roles`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ml_assets.scaffold.roles import CannotInferError
from ml_assets.sources.as_text import plain
from ml_assets.sources.dialect import Dialect
from ml_assets.sources.files import UNREADABLE, text_columns, unpacked
from ml_assets.sources.json_lines import lines_as_columns

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zip", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Events of some weeks."""

    file: Path
    """Absolute."""
    columns: Mapping[str, pa.Array]
    """Header → values, shape (rows,): text from CSV and JSON lines, any type from Parquet."""
    rows: int
    dialect: Dialect


def read_sample(file: Path) -> Sample:
    """Reads the file.

    Raises:
        CannotInferError: there is none, it cannot be read, or has no rows.
    """
    if not file.is_file():
        raise CannotInferError(f"--from: there is no file {file}")
    if not file.name.endswith(SUFFIXES):
        raise CannotInferError(f"--from: {file.name}, expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        table, dialect = _table(file)
    except (*UNREADABLE, pa.ArrowException) as error:
        raise CannotInferError(f"--from: {file} cannot be read: {error}") from error
    if not table.num_rows:
        raise CannotInferError(f"--from: {file} has no rows: what is in them decides what the case is")
    if twice := sorted({name for name in table.column_names if table.column_names.count(name) > 1}):
        raise CannotInferError(f"--from: {file} has more than one column {', '.join(map(repr, twice))}: rename all but one")
    columns = {name: plain(table[name].combine_chunks()) for name in table.column_names}
    return Sample(file=file.absolute(), columns=columns, rows=table.num_rows, dialect=dialect)


def _table(file: Path) -> tuple[pa.Table, Dialect]:
    if file.name.endswith(".parquet"):
        return pq.read_table(file), Dialect()
    content = unpacked(file, file.read_bytes())
    if ".jsonl" in file.suffixes:
        return lines_as_columns(content), Dialect()
    return text_columns(content, missing=("",)), Dialect()
