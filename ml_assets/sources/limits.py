"""How much a file, a row or a message may hold before it is refused by name, so that one that lies takes nothing else with it.

Belongs here: the limits, and unpacking and looking into content without going beyond them. Does not: what content means.
"""

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

import msgspec

_CHUNK = 2**20
_USUAL_RATIO = 64
"""Text packs 3 to 30 times; what packs better is counted before it is held in memory."""
MOST_NESTING = 500
"""The reader of JSON recurses, and gives up at about 900."""
_DEEPER_OR_NOT = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9]{310}")
"""More digits than the largest float has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What is refused when it holds more: a file by its day, a line of JSON or a message by itself."""

    unpacked_bytes: int = 2 * 2**30
    """Of a packed file, and of a row group of Parquet."""
    nesting: int = 64
    """Lists and objects within each other in a line of JSON or a message."""
    field_characters: int = 100_000
    """Of a value."""
    field_lines: int = 10
    """Line breaks in a quoted field of CSV: two stray quotes make one field of all between them."""
    rows_in_field: int = 0
    """Line breaks in a quoted field of CSV by which it falls into pieces that look like rows."""
    page_bytes: int = 64 * 2**20
    """Of an answer of an HTTP interface."""
    event_bytes: int = 2**20
    """Of a server-sent event."""
    table: str = field(default="events", compare=False, repr=False)
    """Names it in messages: `declare [events.limits] …`."""

    def __post_init__(self) -> None:
        for name in LIMITS:
            if getattr(self, name) < (0 if name in ("field_lines", "rows_in_field") else 1):
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if self.nesting > MOST_NESTING:
            raise ValueError(f"nesting is {self.nesting}, expected at most {MOST_NESTING}, which is what can be read")

    def exceeded(self, what: str, name: str, got: int) -> str:
        """What to say of something that holds more than the limit of that name."""
        limit = getattr(self, name)
        if name == "nesting" and got > MOST_NESTING:
            return f"{what}, expected at most {limit:,}"
        return f"{what}, expected at most {limit:,}: if it is right, declare [{self.table}.limits] {name} = {got or 10 * limit}"


LIMITS = tuple(name for name in Limits.__dataclass_fields__ if name != "table")
"""Names in TOML."""
USUAL = Limits()


def unpacked(path: Path, packed: bytes, limits: Limits = USUAL) -> bytes:
    """The CSV in a `.zip` of one, or what is in a `.gz`; of any other file its bytes.

    Raises:
        ValueError: it unpacks to more than the limit (counted, since its header may be wrong), or it is no zip of one.
    """
    raw = io.BytesIO(packed)
    match path.suffix:
        case ".gz":
            return _within(raw, lambda: gzip.GzipFile(fileobj=raw), limits)
        case ".zip":
            with zipfile.ZipFile(raw) as archive:
                members = [name for name in archive.namelist() if name.endswith(".csv")]
                if len(members) != 1:
                    raise ValueError(f"expected a zip of one CSV, got {', '.join(members[:10]) or 'none'}")
                return _within(raw, lambda: archive.open(members[0]), limits)
        case _:
            return packed


def _within(packed: io.BytesIO, opened: Callable[[], IO[bytes] | gzip.GzipFile], limits: Limits) -> bytes:
    chunks: list[bytes] = []
    size, held, start = 0, True, packed.seek(0)
    with opened() as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > limits.unpacked_bytes:
                what = f"it unpacks from {len(packed.getbuffer()):,} bytes to more than {limits.unpacked_bytes:,} bytes"
                raise ValueError(limits.exceeded(what, "unpacked_bytes", 0))
            if held and size > _USUAL_RATIO * (packed.tell() - start) + 16 * _CHUNK:
                held = False
                chunks.clear()
            if held:
                chunks.append(chunk)
    if held:
        return b"".join(chunks)
    packed.seek(0)
    with opened() as stream:
        return stream.read()


def json_fault(content: bytes, limits: Limits) -> str | None:
    """Which limit a line of JSON exceeds by its form, before it is read."""
    if content.count(b"[") + content.count(b"{") > limits.nesting and (depth := _depth(content)) > limits.nesting:
        return limits.exceeded(f"lists and objects lie {depth:,} deep in each other", "nesting", depth)
    return None


def number_fault(content: bytes) -> str | None:
    """Why a line of JSON is none that can be read, where a number is."""
    found = re.search(rb"[0-9]{310,}", content) if _LONG_NUMBER.search(content) else None
    return f"a number has {len(found[0]):,} digits, expected one that a float can hold" if found else None


def _depth(content: bytes) -> int:
    deepest = depth = 0
    for mark in _DEEPER_OR_NOT.finditer(content):
        match content[mark.start()]:
            case 0x5B | 0x7B:
                depth += 1
                deepest = max(deepest, depth)
            case 0x5D | 0x7D:
                depth -= 1
    return deepest


def shallow(content: bytes, depth: int) -> bytes:
    """JSON in which everything that lies deeper is null: readers recurse, and give up on what is 1,000 deep."""
    return _replaced(content, depth, lambda _: b"null")


def unreadable_set_aside(content: bytes, depth: int) -> tuple[bytes, dict[bytes, bytes]]:
    """JSON in which a text stands for each object and list of this depth that cannot be read, and what it stands for."""
    set_aside: dict[bytes, bytes] = {}
    names = (name for number in count() if (name := b'"unreadable %d"' % number) not in content)

    def readable(inner: bytes) -> bytes:
        try:
            msgspec.json.decode(inner)
        except (ValueError, RecursionError):
            name = next(names)
            set_aside[name] = inner
            return name
        return inner

    return _replaced(content, depth - 1, readable), set_aside


def _replaced(content: bytes, depth: int, by: Callable[[bytes], bytes]) -> bytes:
    """JSON in which each object and list that lies deeper is replaced; what is never closed is left out."""
    pieces, at, now = [], 0, 0
    for mark in _DEEPER_OR_NOT.finditer(content):
        match content[mark.start()]:
            case 0x5B | 0x7B:
                now += 1
                if now == depth + 1:
                    pieces.append(content[at : mark.start()])
                    at = mark.start()
            case 0x5D | 0x7D:
                now -= 1
                if now == depth:
                    pieces.append(by(content[at : mark.end()]))
                    at = mark.end()
    return b"".join([*pieces, content[at:] if now <= depth else b""])
