"""JSON objects, one a line or one a message, as columns of text: what a number was written as, it stays.

Belongs here: the form of objects, and what is said of a line that is none. Does not: where lines come from (`sources.mapped`,
`sources.landing`), or what their texts mean (`sources.canonical`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
import pyarrow as pa

from ml_assets.sources.canonical import REFUSED, written
from ml_assets.sources.dialect import USUAL_DIALECT, Dialect
from ml_assets.sources.encodings import in_utf8
from ml_assets.sources.limits import USUAL, Limits, json_fault, number_fault

NO_FIELD = re.compile(r'[\\"\x00-\x1f]')
"""What the name of a field of a struct of msgspec cannot hold, and that of a member of an object can."""


class _Float(str):
    """A number that is no whole one, as it was written."""

    __slots__ = ()


_decode = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode
_decode_marked = msgspec.json.Decoder(dict[str, Any], float_hook=_Float).decode
_encode = msgspec.json.Encoder(enc_hook=str).encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def json_object(content: bytes | str, limits: Limits = USUAL) -> dict[str, str | None]:
    """The members of an object as text: true and false as such, lists and objects as JSON, null as None.

    >>> json_object('{"amount": 12.50, "night": true, "at": "2018-04-01", "terminal": null}')
    {'amount': '12.50', 'night': 'true', 'at': '2018-04-01', 'terminal': None}

    Raises:
        ValueError: it is no JSON object in UTF-8, or exceeds a limit.
    """
    return {name: _text(value) for name, value in _object(content, limits).items()}


def _object(content: bytes | str, limits: Limits, *, marks: bool = False) -> dict[str, Any]:
    octets = content.encode() if isinstance(content, str) else content
    if fault := json_fault(octets, limits):
        raise ValueError(fault)
    try:
        return (_decode_marked if marks else _decode)(octets)
    except _UNREADABLE as error:
        raise ValueError(number_fault(octets) or f"expected a JSON object: {error}") from error


def lines_as_columns(content: bytes, dialect: Dialect = USUAL_DIALECT, limits: Limits = USUAL) -> pa.Table:
    """All columns of the objects, one a line, in the order in which they first appear; empty lines do not count as rows.

    Raises:
        ValueError: with the row, counted from 1, and what is wrong with it.
    """
    objects = []
    for number, line in enumerate(_lines(content, dialect), 1):
        try:
            objects.append(_object(line, limits, marks=dialect.writes_numbers))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    return _table(objects, (), marks=dialect.writes_numbers)


def sound_lines_as_columns(content: bytes, dialect: Dialect = USUAL_DIALECT, limits: Limits = USUAL) -> pa.Table:
    """The same, and in the column `REFUSED` what is no object: it takes no other line with it.

    Raises:
        ValueError: no line is an object; names the first.
    """
    objects, refused = list[dict[str, Any]](), list[str | None]()
    first = None
    for number, line in enumerate(_lines(content, dialect), 1):
        try:
            objects.append(_object(line, limits, marks=dialect.writes_numbers))
            refused.append(None)
        except ValueError as error:
            first = first or f"row {number}: {error}"
            objects.append({})
            refused.append(_refused(line, str(error), limits))
    if objects and None not in refused:
        raise ValueError(first)
    table = _table(objects, (), marks=dialect.writes_numbers)
    return table.append_column(REFUSED, pa.array(refused, pa.string()))


def as_columns(objects: Sequence[dict[str, str | None]], names: Iterable[str] = ()) -> pa.Table:
    """The members of the objects below each other; `names` are there in any case."""
    return _table(objects, names, marks=False)


def members_of(
    contents: Sequence[bytes], names: Sequence[str], *, otherwise: str, limits: Limits = USUAL, marks: bool = False
) -> pa.RecordBatch:
    """These members of objects, as text, and in the column `otherwise` what is no object; the others are not even looked at.

    Args:
        marks: whether the columns say which values were numbers: `WRITTEN`.
    """
    decode, nothing = _reader(tuple(names), marks=marks), (None,) * len(names)
    rows: list[tuple[Any, ...]] = []
    told: dict[int, str] = {}
    most = limits.nesting
    for place, content in enumerate(contents):
        fault = json_fault(content, limits) if content.count(b"[") + content.count(b"{") > most else None
        try:
            if fault is not None:
                raise ValueError(fault)
            rows.append(decode(content))
        except _UNREADABLE as error:
            rows.append(nothing)
            told[place] = _refused(content, fault or number_fault(content) or f"expected a JSON object: {error}", limits)
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    arrays = [_column(column, marks=marks) for column in columns]
    arrays.append(pa.array([told.get(place) for place in range(len(rows))] if told else [None] * len(rows), pa.string()))
    return pa.RecordBatch.from_arrays(arrays, [*names, otherwise])


@cache
def _reader(names: tuple[str, ...], *, marks: bool) -> Callable[[bytes], tuple[Any, ...]]:
    hook = _Float if marks else str
    if any(map(NO_FIELD.search, names)):
        members = msgspec.json.Decoder(dict[str, Any], float_hook=hook).decode
        return lambda content: tuple(map(members(content).get, names))
    fields = [(f"member_{place}", Any, None) for place in range(len(names))]
    struct = msgspec.defstruct("Members", fields, rename={field: name for (field, *_), name in zip(fields, names, strict=True)})
    decode = msgspec.json.Decoder(struct, float_hook=hook).decode
    return lambda content: msgspec.structs.astuple(decode(content))


def _lines(content: bytes, dialect: Dialect) -> Iterable[bytes]:
    return filter(None, map(bytes.strip, in_utf8(content, dialect, header=0).split(b"\n")))


def _table(objects: Sequence[dict[str, Any]], names: Iterable[str], *, marks: bool) -> pa.Table:
    columns = dict.fromkeys((*names, *(name for each in objects for name in each)))
    return pa.table({name: _column([each.get(name) for each in objects], marks=marks) for name in columns})


def _column(values: Sequence[Any], *, marks: bool) -> pa.Array:
    texts = [each if isinstance(each, str) else _text(each) for each in values]
    if not marks:
        return pa.array(texts, pa.string())
    return written(texts, [isinstance(each, int | _Float) and not isinstance(each, bool) for each in values])


def _refused(content: bytes, why: str, limits: Limits) -> str:
    """The content, in which the reason stands where it is more than that the content is no JSON object."""
    text = content.decode(errors="backslashreplace")
    if why.startswith("expected a JSON object"):
        return text if len(text) <= limits.field_characters else f"{text[:1000]}… ({len(text):,} characters)"
    return f"{why}: {text[:200]}…"


def _text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case str():
            return str(value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return _encode(value).decode()
