"""How a source writes its values, declared once for a table: separator, encoding, numbers, times, truth, and what means no value.

Belongs here: the declaration, and what of a file says it, which a person sees before it counts. Does not: how values are read by it
(`sources.canonical`).
"""

from dataclasses import dataclass, field

import pyarrow as pa

ISO = "ISO"
EPOCHS = {"epoch seconds": 1, "epoch milliseconds": 10**3, "epoch microseconds": 10**6}
"""Times written as numbers since 1970-01-01, in UTC, by how many there are in a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one table of a source is written. `Dialect()` is what needs no declaration."""

    separator: str = ","
    """Of CSV: one character."""
    encoding: str = "utf-8"
    """Of CSV and JSON lines, as Python names it: utf-8 (with or without a mark), cp1252, latin-1, utf-16, …"""
    decimal: str = "."
    """Of numbers that are text: "." or ","."""
    thousands: str = ""
    """Of numbers that are text: "", ",", ".", " " (of any width) or "'"."""
    missing: tuple[str, ...] = ()
    """Texts that mean no value, besides the empty one."""
    time: str | tuple[tuple[str, str], ...] = ISO
    """Of times that are text (or numbers): "ISO", a format of strptime such as "%d/%m/%Y %H:%M", or one of `EPOCHS`; or (column of the source,
    that) for each column that is not ISO."""
    true: tuple[str, ...] = ()
    """Texts that mean true in columns of true and false, besides true and 1; case does not matter."""
    false: tuple[str, ...] = ()
    uuid: tuple[str, ...] = ()
    """Columns of the source of 16 bytes that are UUIDs, where their type does not say so."""
    index: bool = False
    """Whether the first column of CSV has no name and numbers the rows, as pandas and R write it: it is left out."""
    table: str = field(default="events", compare=False, repr=False)
    """Names it in messages: `declare [events.dialect] …`."""
    because: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Of one that was inferred: a line for each inference."""
    questions: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Of one that was inferred: a line for each thing that the file leaves open, with the lines to declare; these settings are the default."""

    def time_of(self, column: str) -> str:
        """How the times of a column of the source are written."""
        return self.time if isinstance(self.time, str) else dict(self.time).get(column, ISO)

    def explanations(self) -> list[str]:
        """A line for each inference."""
        return list(self.because)

    def settings(self) -> dict[str, object]:
        """What of it is to be declared in TOML, as plain data: the settings that are not the default."""
        raise NotImplementedError

    def cure(self, line: str) -> str:
        """What to put into the TOML file."""
        return f"declare [{self.table}.dialect] {line}"


def infer_csv(content: bytes) -> Dialect:
    """How a CSV file (unpacked) is written: everything of a `Dialect`.

    What can be read in two ways, such as 03/04/2024 in every row, is a question and keeps the default.
    """
    raise NotImplementedError


def infer_columns(table: pa.Table) -> Dialect:
    """How the text columns of Parquet, JSON lines or a database are written: what of a `Dialect` is not CSV."""
    raise NotImplementedError
