"""How a source writes its values, declared once for a table: separator, encoding, numbers, times, truth, and what means no value.

Belongs here: the declaration, and what of a file says it, which a person sees before it counts. Does not: how values are read by it
(`sources.canonical`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ml_assets.sources.as_text import plain
from ml_assets.sources.csv_form import likely_encoding, separator_of
from ml_assets.sources.iso import ANY_TIME
from ml_assets.sources.number_format import DECIMALS, THOUSANDS, number_pattern, plain_numbers
from ml_assets.sources.time_format import ISO, format_fault, pattern_of
from ml_assets.use_case import DType

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


USUAL_DIALECT = Dialect()


# What a file says of it -------------------------------------------------------------------------------------------------------

INDEX_NAMES = ("", "Unnamed: 0")
"""Names that a first column has when nobody named it."""
TOKENS = (
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "NAN",
    "NULL",
    "null",
    "Null",
    "None",
    "none",
    r"\N",
    "<NA>",
    "#N/A",
    "-",
    "--",
    "?",
    ".",
)
WORDS = (
    ("yes", "no"),
    ("y", "n"),
    ("t", "f"),
    ("ja", "nein"),
    ("j", "n"),
    ("oui", "non"),
    ("si", "no"),
    ("sí", "no"),
    ("sim", "não"),
)
_STYLES = ((".", ""), (",", ""), (".", ","), (",", "."), (",", " "), (".", " "), (".", "'"), (",", "'"))
"""Decimal and thousands."""
_DATES = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y")
_NAMED_DATES = ("%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%y", "%d/%b/%Y", "%a %b %d %Y")
_CLOCKS = (
    "",
    "%H:%M",
    "%H:%M:%S",
    "%H:%M:%S.%f",
    "%H:%M:%S,%f",
    "%I:%M %p",
    "%I:%M:%S %p",
    "%I:%M%p",
    "%H.%M",
    "%H.%M.%S",
    "%Hh%M",
)
_BETWEEN = (" ", "T", ", ", ":")
_AFTER = ("", " %z", "%z", " UTC", " GMT")
_COMPACT = ("%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%Y%m%d%H%M%S", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p")
_LONGEST_TIME = 60


def infer_csv(content: bytes) -> Dialect:
    """How a CSV file (unpacked) is written: everything of a `Dialect`.

    What can be read in two ways, such as 03/04/2024 in every row, is a question and keeps the default.

    Raises:
        ValueError: it cannot be read at all.
    """
    encoding = likely_encoding(content)
    text = content.decode(encoding, errors="replace").removeprefix("\ufeff")
    separator = separator_of(text) or ","
    because = []
    if encoding != "utf-8":
        because.append(f"encoding = {toml_text(encoding)}: it is not UTF-8{_example(text)}")
    table = _texts(text, separator)
    if separator != ",":
        because.append(f"separator = {toml_text(separator)}: by it each row has {len(table.column_names)} fields")
    names = table.column_names
    index = len(names) > 1 and names[0] in INDEX_NAMES and _numbers_rows(table[0].to_pylist())
    if index:
        because.append(f"index = true: the first column, {names[0]!r}, numbers the rows, and is left out")
        table = table.remove_column(0)
    inferred = infer_columns(table)
    return replace(inferred, separator=separator, encoding=encoding, index=index, because=(*because, *inferred.because))


def infer_columns(table: pa.Table) -> Dialect:
    """How the text columns of Parquet, JSON lines or a database are written: what of a `Dialect` is not CSV."""
    notes = _Notes(because=[], questions=[])
    columns = {name: _different(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    columns = {name: values for name, values in columns.items() if len(values)}
    kinds = zip(table.column_names, table.columns, strict=True)
    uuid = tuple(name for name, column in kinds if column.type == pa.binary(16) and not _is_text(column))
    notes.because.extend(f"uuid = {toml_text([name])}: {name} has 16 bytes that are no text" for name in uuid)
    sure = {name: _without(values, TOKENS) for name, values in columns.items()}
    sure = {name: values for name, values in sure.items() if len(values)}
    times = _times_of(sure, notes)
    style = _style_of({name: values for name, values in sure.items() if name not in times}, notes)
    words = _words_of(sure, notes)
    typed = {name for name, values in sure.items() if _is_typed(values, style, times.get(name))} | words.keys()
    missing = _missing_of(columns, typed, notes)
    return Dialect(
        decimal=style[0],
        thousands=style[1],
        missing=missing,
        time=tuple((name, form) for name, form in times.items() if form != ISO) or ISO,
        true=tuple(dict.fromkeys(true for true, _ in words.values())),
        false=tuple(dict.fromkeys(false for _, false in words.values())),
        uuid=uuid,
        because=tuple(notes.because),
        questions=tuple(notes.questions),
    )


def hint(text: str, dtype: DType, *, column: str, table: str) -> str:
    """What to declare so that a text of a column which is none of its type could be read, or ""."""
    line = _line_for(text.strip(), dtype, column) if dtype is not DType.STRING else ""
    return f" (if the source writes it so, declare [{table}.dialect] {line})" if line else ""


@lru_cache(maxsize=1000)
def _line_for(text: str, dtype: DType, column: str) -> str:
    if text in TOKENS:
        return f"missing = {toml_text([text])}"
    values, notes = pa.array([text], pa.string()), _Notes(because=[], questions=[])
    match dtype:
        case DType.TIMESTAMP:
            return " or ".join(f"time = {toml_text(form)}" for form in _forms_of(values))
        case DType.BOOL:
            words = [pair for pair in WORDS if text.lower() in pair]
            return f"true = {toml_text([words[0][0]])} false = {toml_text([words[0][1]])}" if words else ""
        case _:
            style = _style_of({column: values}, notes)
            return (
                _style_text(style) or notes.questions[0].rpartition("declare ")[2] if notes.questions or style != _STYLES[0] else ""
            )


def toml_text(value: object) -> str:
    """A text, a truth, or a list or table of them, as TOML writes it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(str(name))} = {toml_text(each)}' for name, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@dataclass(frozen=True, slots=True)
class _Notes:
    because: list[str]
    questions: list[str]


def _texts(text: str, separator: str) -> pa.Table:
    """All columns, without the rows that have other fields."""
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader((text if "\n" in text else f"{text}\n").encode()),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=lambda _: "skip"
            ),
            convert_options=pyarrow.csv.ConvertOptions(default_column_type=pa.string(), null_values=[""], strings_can_be_null=True),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"expected CSV: {error}") from error


def _numbers_rows(texts: Sequence[str | None]) -> bool:
    return any(texts == [str(number) for number in range(first, first + len(texts))] for first in (0, 1))


def _different(column: pa.ChunkedArray) -> pa.Array:
    """The different texts of a column, without white space around them and empty ones; none of another type."""
    values = plain(column.combine_chunks())
    if not pa.types.is_string(values.type) or isinstance(column.type, pa.UuidType):
        return pa.array([], pa.string())
    return _without(pc.unique(pc.utf8_trim_whitespace(values.drop_null())), ("",))


def _without(values: pa.Array, tokens: Sequence[str]) -> pa.Array:
    return values.filter(pc.invert(pc.is_in(values, pa.array(tokens, pa.string()))))


def _is_text(column: pa.ChunkedArray) -> bool:
    try:
        pc.cast(column, pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _all(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _times_of(columns: Mapping[str, pa.Array], notes: _Notes) -> dict[str, str]:
    """The format of each column of times, ISO 8601 included."""
    times: dict[str, str] = {}
    for name, values in columns.items():
        if _all(values, ANY_TIME):
            times[name] = ISO
            continue
        forms = _forms_of(values)
        example = str(values[0])
        if len(forms) > 1:
            ways = " or ".join(f"time = {toml_text({name: form})}" for form in forms)
            notes.questions.append(f"{name} is {example!r}: is that {' or '.join(forms)}? declare {ways}")
        elif forms:
            times[name] = forms[0]
            notes.because.append(f"time = {toml_text({name: forms[0]})}: {name} is {example!r}, and no other form fits each row")
    return times


def _forms_of(values: pa.Array) -> list[str]:
    """All formats by which each text is a time."""
    first = str(values[0])
    if len(first) > _LONGEST_TIME or not any(each.isdigit() for each in first):
        return []
    forms = [form for form in _forms_that_fit(first) if _all(values, pattern_of(form))]
    texts = values.to_pandas()
    return [form for form in forms if not pd.to_datetime(texts, format=form, utc=True, errors="coerce", cache=False).isna().any()]


def _forms_that_fit(text: str) -> Iterator[str]:
    for date in (*_DATES, *_NAMED_DATES):
        begin = re.match(pattern_of(date).removesuffix("$"), text)
        rest = text[begin.end() :] if begin else None
        if rest == "":
            yield date
        elif rest:
            yield from (f"{date}{clock}" for clock, pattern in _clock_forms() if pattern.match(rest))
    yield from (form for form in _COMPACT if re.match(pattern_of(form), text))


@cache
def _clock_forms() -> list[tuple[str, re.Pattern[str]]]:
    """What can stand behind a date, and its texts."""
    forms = [f"{between}{clock}{after}" for clock in _CLOCKS for between in _BETWEEN for after in _AFTER]
    return [(form, re.compile(pattern_of(form))) for form in forms]


def _style_of(columns: Mapping[str, pa.Array], notes: _Notes) -> tuple[str, str]:
    """How numbers are written in all columns of numbers."""
    plain_style = _STYLES[0]
    fitting = {name: [style for style in _STYLES if _all(values, number_pattern(*style))] for name, values in columns.items()}
    other = {name: styles for name, styles in fitting.items() if styles and plain_style not in styles}
    if not other:
        return plain_style
    pointed = [styles for name, styles in fitting.items() if styles and name not in other and _any_point(columns[name])]
    common = [style for style in _STYLES if all(style in styles for styles in (*other.values(), *pointed))]
    readings = {
        tuple(text for name in other for text in plain_numbers(columns[name], *style).to_pylist()): style
        for style in reversed(common)
    }
    name = next(iter(other))
    example = str(columns[name][0])
    if len(readings) != 1:
        ways = " or ".join(_style_text(style) for style in (reversed(list(readings.values())) if readings else other[name]))
        others = "" if common else f", and other columns are written otherwise ({', '.join(list(other)[1:]) or 'with a point'})"
        notes.questions.append(f"{name} is {example!r}{others}: declare {ways}")
        return plain_style
    [style] = readings.values()
    notes.because.append(f"{_style_text(style)}: {name} is {example!r}")
    return style


def _any_point(values: pa.Array) -> bool:
    return bool(pc.any(pc.match_substring(values, ".")).as_py())


def _style_text(style: tuple[str, str]) -> str:
    parts = [f"decimal = {toml_text(style[0])}"] if style[0] != "." else []
    return " ".join([*parts, *([f"thousands = {toml_text(style[1])}"] if style[1] else [])])


def _words_of(columns: Mapping[str, pa.Array], notes: _Notes) -> dict[str, tuple[str, str]]:
    """For each column of two words the one that means true, and the one that means false."""
    words: dict[str, tuple[str, str]] = {}
    for name, values in columns.items():
        texts = {text.lower(): text for text in (values.to_pylist() if len(values) <= 2 else [])}
        pair = next((pair for pair in WORDS if set(pair) == set(texts)), None)
        if pair is not None and not {pair[0], pair[1]} & {
            word.lower() for each in words.values() for word in (each[1], each[0])
        } - set(pair):
            words[name] = (texts[pair[0]], texts[pair[1]])
            true, false = words[name]
            notes.because.append(f"true = {toml_text([true])} false = {toml_text([false])}: {name} is one or the other")
    return words


def _is_typed(values: pa.Array, style: tuple[str, str], form: str | None) -> bool:
    return form is not None or _all(values, number_pattern(*style)) or _all(values, r"^(?i:true|false)$")


def _missing_of(columns: Mapping[str, pa.Array], typed: Set[str], notes: _Notes) -> tuple[str, ...] | PerColumn:
    """What means no value: sure only where all else is a number, a time, or true or false."""
    tokens = {name: tuple(text for text in TOKENS if pc.index(values, text).as_py() >= 0) for name, values in columns.items()}
    tokens = {name: texts for name, texts in tokens.items() if texts}
    sure = {name: texts for name, texts in tokens.items() if name in typed}
    for name, texts in tokens.items():
        if name in sure:
            notes.because.append(f"missing = {toml_text(list(texts))}: all else in {name} is a number, a time, or true or false")
        else:
            told = f"missing = {toml_text({name: list(texts)})}"
            notes.questions.append(
                f"{name} has {', '.join(map(repr, texts))}, which is a value like others; if it means none, declare {told}"
            )
    everywhere = tuple(text for text in TOKENS if any(text in texts for texts in sure.values()))
    if all(name in sure for name, texts in tokens.items() if set(texts) & set(everywhere)):
        return everywhere
    return tuple(sure.items())


def _example(text: str) -> str:
    word = re.search(r"\w*[^\W\x00-\x7f]\w*", text)
    return f", and by it a text is {word[0][:40]!r}" if word else ""
