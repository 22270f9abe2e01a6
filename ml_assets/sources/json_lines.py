"""JSON objects, one a line or one a message, as columns of text: what a number was written as, it stays.

Belongs here: the form of objects. Does not: where lines come from (`sources.mapped`, `sources.landing`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
import pyarrow as pa

NO_FIELD = re.compile(r'[\\"\x00-\x1f]')
"""What the name of a field of a struct of msgspec cannot hold, and that of a member of an object can."""
_decode = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode
_encode = msgspec.json.Encoder().encode


def json_object(content: bytes | str) -> dict[str, str | None]:
    """The members of an object as text: true and false as such, lists and objects as JSON, null as None.

    >>> json_object('{"amount": 12.50, "night": true, "at": "2018-04-01", "terminal": null}')
    {'amount': '12.50', 'night': 'true', 'at': '2018-04-01', 'terminal': None}

    Raises:
        ValueError: it is no JSON object in UTF-8.
    """
    try:
        return {name: value if isinstance(value, str) else _text(value) for name, value in _decode(content).items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a JSON object: {error}") from error


def lines_as_columns(content: bytes) -> pa.Table:
    """All columns of the objects, one a line, in the order in which they first appear; empty lines do not count as rows.

    Raises:
        ValueError: with the row, counted from 1, and what is wrong with it.
    """
    objects = []
    for number, line in enumerate(filter(None, map(bytes.strip, content.split(b"\n"))), 1):
        try:
            objects.append(json_object(line))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from error
    return as_columns(objects)


def as_columns(objects: Sequence[dict[str, str | None]], names: Iterable[str] = ()) -> pa.Table:
    """The members of the objects below each other; `names` are there in any case."""
    columns = dict.fromkeys((*names, *(name for each in objects for name in each)))
    return pa.table({name: pa.array([each.get(name) for each in objects], pa.string()) for name in columns})


def members_of(contents: Sequence[bytes], names: Sequence[str], *, otherwise: str) -> pa.RecordBatch:
    """These members of objects, as text, and in the column `otherwise` what is no object; the others are not even looked at."""
    decode, nothing = _reader(tuple(names)), (None,) * len(names)
    rows: list[tuple[Any, ...]] = []
    told: dict[int, str] = {}
    for place, content in enumerate(contents):
        try:
            rows.append(decode(content))
        except (msgspec.DecodeError, UnicodeDecodeError):
            rows.append(nothing)
            told[place] = content.decode(errors="backslashreplace")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    arrays = [pa.array([each if isinstance(each, str) else _text(each) for each in column], pa.string()) for column in columns]
    arrays.append(pa.array([told.get(place) for place in range(len(rows))] if told else [None] * len(rows), pa.string()))
    return pa.RecordBatch.from_arrays(arrays, [*names, otherwise])


@cache
def _reader(names: tuple[str, ...]) -> Callable[[bytes], tuple[Any, ...]]:
    if any(map(NO_FIELD.search, names)):
        members = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode
        return lambda content: tuple(map(members(content).get, names))
    fields = [(f"member_{place}", Any, None) for place in range(len(names))]
    struct = msgspec.defstruct("Members", fields, rename={field: name for (field, *_), name in zip(fields, names, strict=True)})
    decode = msgspec.json.Decoder(struct, float_hook=str).decode
    return lambda content: msgspec.structs.astuple(decode(content))


def _text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return _encode(value).decode()
