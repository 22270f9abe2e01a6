"""How a source writes its values, declared once for a table: separator, encoding, numbers, times, truth, and what means no value.

Belongs here: the declaration, and what of a file says it, which a person sees before it counts. Does not: how values are read by it
(`sources.canonical`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from ml_assets.sources.time_format import ISO, format_fault

DECIMALS = (".", ",")
THOUSANDS = ("", ",", ".", " ", "'")
PerColumn = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How one table of a source is written; columns are named as in the source. `Dialect()` is what needs no declaration.

    Raises:
        ValueError: a setting is none of those that can be; says which can.
    """

    separator: str = ","
    """Of CSV: one character."""
    encoding: str = "utf-8"
    """Of CSV and JSON lines, as Python names it: utf-8 (with or without a mark), cp1252, latin-1, utf-16, …"""
    decimal: str = "."
    """Of numbers that are text: "." or ","."""
    thousands: str = ""
    """Of numbers that are text: "", ",", ".", " " (of any width) or "'"."""
    missing: tuple[str, ...] | PerColumn = ()
    """Texts that mean no value, besides the empty one; or (column, texts) where it is not so in all columns."""
    time: str | tuple[tuple[str, str], ...] = ISO
    """Of times that are text (or numbers): "ISO", a format of strptime such as "%d/%m/%Y %H:%M", or one of `EPOCHS`; or (column, that) for
    each column that is not ISO."""
    true: tuple[str, ...] = ()
    """Texts that mean true in columns of true and false, besides true and 1; case does not matter."""
    false: tuple[str, ...] = ()
    uuid: tuple[str, ...] = ()
    """Columns of 16 bytes that are UUIDs, where their type does not say so."""
    index: bool = False
    """Whether the first column of CSV has no name and numbers the rows, as pandas and R write it: it is left out."""
    table: str = field(default="events", compare=False, repr=False)
    """Names it in messages: `declare [events.dialect] …`."""
    because: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Of one that was inferred: a line for each inference."""
    questions: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Of one that was inferred: a line for each thing that the file leaves open, with the line to declare; the setting is the default."""

    def __post_init__(self) -> None:
        if faults := list(self._faults()):
            raise ValueError("; ".join(faults))

    def time_of(self, column: str) -> str:
        """How the times of a column are written."""
        return self.time if isinstance(self.time, str) else dict(self.time).get(column, ISO)

    def missing_of(self, column: str) -> tuple[str, ...]:
        """Texts that mean no value in a column, besides the empty one."""
        return self._everywhere or dict(self._by_column).get(column, ())

    @property
    def _everywhere(self) -> tuple[str, ...]:
        return tuple(each for each in self.missing if isinstance(each, str))

    @property
    def _by_column(self) -> PerColumn:
        return tuple(each for each in self.missing if not isinstance(each, str))

    @property
    def writes_numbers(self) -> bool:
        """Whether numbers that are text differ from those of most programs."""
        return (self.decimal, self.thousands) != (".", "")

    @property
    def needs_types(self) -> bool:
        """Whether it has to be known which columns are numbers, or true and false, to read by it."""
        return self.writes_numbers or bool(self.true or self.false)

    def explanations(self) -> list[str]:
        """A line for each inference."""
        return list(self.because)

    def settings(self) -> dict[str, object]:
        """What of it is to be declared in TOML, as plain data: the settings that are not the default."""
        names = [each.name for each in fields(self) if each.compare and getattr(self, each.name) != each.default]
        settings: dict[str, object] = {}
        for name in names:
            value = getattr(self, name)
            if name == "missing":
                value = list(self._everywhere) or {column: list(texts) for column, texts in self._by_column}
            elif name == "time" and not isinstance(value, str):
                value = dict(value)
            settings[name] = list(value) if isinstance(value, tuple) else value
        return settings

    def cure(self, line: str) -> str:
        """What to put into the TOML file."""
        return f"declare [{self.table}.dialect] {line}"

    def _faults(self) -> Iterator[str]:
        if len(self.separator) != 1 or self.separator in '"\r\n' or not self.separator.isascii():
            yield f'separator is {self.separator!r}, expected one character such as ";" or "\\t"'
        if not _is_encoding(self.encoding):
            yield f"encoding is {self.encoding!r}, expected one that Python knows, such as cp1252, latin-1 or utf-16"
        if self.decimal not in DECIMALS:
            yield f"decimal is {self.decimal!r}, expected {' or '.join(map(repr, DECIMALS))}"
        if self.thousands not in THOUSANDS or self.thousands == self.decimal:
            allowed = [each for each in THOUSANDS if each != self.decimal]
            yield f"thousands is {self.thousands!r} beside the decimal {self.decimal!r}, expected one of {', '.join(map(repr, allowed))}"
        for form in {self.time} if isinstance(self.time, str) else {form for _, form in self.time}:
            if fault := format_fault(form):
                yield fault
        true, false = ({text.strip().lower() for text in texts} for texts in (self.true, self.false))
        if both := sorted(true & (false | {"false", "0"}) | false & {"true", "1"}):
            yield f"{', '.join(both)} would mean both true and false"


def _is_encoding(name: str) -> bool:
    try:
        return "a".encode(name) != b""
    except (LookupError, ValueError):  # of bytes to bytes, such as zlib, or with a NUL in its name
        return False
