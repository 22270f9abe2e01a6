"""Quotes of CSV that stand where they may not, or hold more than a field: two stray ones make one field of all rows between them.

Belongs here: whether each quote opens or closes a whole field, and what fields hold line breaks. Does not: reading the fields, which
pyarrow does, and does not mind any of this.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_assets.sources.limits import Limits

_QUOTE, _LINE, _RETURN = (ord(each) for each in '"\n\r')
_BLOCK = 2**22
"""So much is looked at at once."""
_NUMBER = re.compile(rb"[-+0-9.,:/TZ ]*[0-9][-+0-9.,:/TZ ]*")
_FIELD = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_RECORD = re.compile(rb'(?:[^"\n]++|"[^"]*+(?:""[^"]*+)*+")*+')

Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def quote_fault(content: bytes, separator: str, limits: Limits) -> str | None:
    """What is wrong with the quotes of a CSV file in UTF-8, with the row, counted from 1 without the header; None when nothing is.

    A quote opens at the beginning of a field and closes at its end; within, there are two for one. A field has at most
    `limits.field_lines` line breaks, and none by which it falls into pieces that look like rows.
    """
    if b'"' not in content:
        return None
    octets = np.frombuffer(content, np.uint8)
    columns = _columns(content, separator)
    borders = (ord(separator), _LINE, _RETURN, _QUOTE)
    within = False
    for block in _blocks(octets):
        if (fault := _stray_fault(content, octets, block, borders)) is not None:
            return fault
        for row, start in block.of_several_lines():
            if fault := _field_fault(content, start, columns, separator, limits):
                return f"row {row}: {fault}"
        within = block.within_after
    if within:
        opened = content.rindex(b'"')
        return f"row {_row(octets, opened)}: a quote is opened and never closed"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """A part of a file."""

    start: int
    quotes: Mask
    """Which of its bytes are quotes."""
    within: Mask
    """Which are within quotes: the first quote is, the last is not."""
    ends: Mask
    """Which end a row."""
    broken: Mask
    """Which end a line within quotes."""
    row: int
    """Of the beginning of the block; the header is 0."""
    row_start: int

    @property
    def within_after(self) -> bool:
        return bool(self.within[-1])

    def of_several_lines(self) -> Iterator[tuple[int, int]]:
        """Number and beginning of each row that has a line break within quotes."""
        if not self.broken.any():
            return
        ends = np.flatnonzero(self.ends) + self.start
        starts = np.concatenate([[self.row_start], ends + 1])
        for index in np.unique(np.searchsorted(ends, np.flatnonzero(self.broken) + self.start)):
            yield self.row + int(index), int(starts[index])


def _blocks(octets: Octets) -> Iterator[_Block]:
    within, row, row_start = False, 0, 0
    for start in range(0, len(octets), _BLOCK):
        part = octets[start : start + _BLOCK]
        quotes = part == _QUOTE
        inside = _within(quotes) ^ within
        lines = part == _LINE
        ends = lines & ~inside
        yield _Block(start=start, quotes=quotes, within=inside, ends=ends, broken=lines & inside, row=row, row_start=row_start)
        within, row = bool(inside[-1]), row + int(np.count_nonzero(ends))
        row_start = start + int(len(part) - np.argmax(ends[::-1])) if ends.any() else row_start


def _within(quotes: Mask) -> Mask:
    """Whether the number of quotes up to each byte is odd, 64 at a time: numpy's own `accumulate` takes thirty times as long."""
    words = np.zeros(-(-len(quotes) // 64), np.uint64)
    bits = np.packbits(quotes, bitorder="little")
    words.view(np.uint8)[: len(bits)] = bits
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    odd = (words >> np.uint64(63)).astype(np.bool_)
    before = np.concatenate([[False], np.logical_xor.accumulate(odd)[:-1]])
    words ^= np.where(before, np.uint64(2**64 - 1), np.uint64(0))
    return np.unpackbits(words.view(np.uint8), count=len(quotes), bitorder="little").view(np.bool_)


def _stray_fault(content: bytes, octets: Octets, block: _Block, borders: tuple[int, ...]) -> str | None:
    """The first quote that neither begins nor ends a field, and is none of a pair within one."""
    begin, end = block.start, block.start + len(block.quotes)
    # The bytes around the block, with a line break before the first and behind the last.
    around = np.full(end - begin + 2, _LINE, np.uint8)
    around[int(begin == 0) : len(around) - int(end == len(octets))] = octets[max(0, begin - 1) : end + 1]
    border = around == borders[0]
    for each in borders[1:]:
        border |= around == each
    bad = block.quotes & ((block.within & ~border[:-2]) | (~block.within & ~border[2:]))
    if not bad.any():
        return None
    index = int(np.argmax(bad))
    place = begin + index
    if block.within[index]:
        return (
            f"row {_row(octets, place)}: a quote in the middle of a field, {_around(content, place)}: expected it to be quoted, too"
        )
    opened = content.rindex(b'"', 0, place)
    line = content.count(b"\n", opened, place)
    where = f" {line:,} lines later" if line else ""
    met = f"the next one{where} is in the middle of a field, {_around(content, place)}"
    return f"row {_row(octets, opened)}: a quote opens, {_around(content, opened)}, and {met}"


def _row(octets: Octets, place: int) -> int:
    """The number of the row in which a place is: a line break within quotes ends none."""
    return sum(int(np.count_nonzero(block.ends)) for block in _blocks(octets[:place]))


def _around(content: bytes, place: int) -> str:
    begin = content.rfind(b"\n", 0, place) + 1
    return repr(content[max(begin, place - 30) : place + 30].split(b"\n")[0].decode(errors="replace"))


def _columns(content: bytes, separator: str) -> int:
    """How many fields the header has."""
    header = _RECORD.match(content)
    return 1 + _FIELD.sub(b"", header[0] if header else b"").count(separator.encode())


# Fields of several lines --------------------------------------------------------------------------------------------------------


def _field_fault(content: bytes, start: int, columns: int, separator: str, limits: Limits) -> str | None:
    """What is wrong with a field of several lines in the row that begins there."""
    record = _RECORD.match(content, start)
    assert record is not None
    for field in _FIELD.finditer(content, start, record.end()):
        breaks = field[0].count(b"\n")
        shown = _around(content, field.start())
        if breaks > limits.field_lines:
            return limits.exceeded(f"a quoted field has {breaks:,} line breaks ({shown})", "field_lines", breaks)
        if breaks > limits.rows_in_field:
            ahead, behind = content[start : field.start()], content[field.end() : record.end()]
            if _looks_like_rows(field[0][1:-1], ahead, behind, columns, separator.encode()):
                what = f"two stray quotes swallow rows: a quoted field has {breaks:,} line breaks by which it looks like rows ({shown})"
                return limits.exceeded(what, "rows_in_field", breaks)
    return None


def _looks_like_rows(text: bytes, before: bytes, after: bytes, columns: int, mark: bytes) -> bool:
    """Whether the lines of a field have the fields that rows would have in its place, of the kinds of the fields around it."""
    ahead, behind = _split(before, mark)[:-1], _split(after.rstrip(b"\r"), mark)[1:]
    first, *whole, last = text.split(b"\n")
    rest, begin = first.rstrip(b"\r").split(mark)[1:], last.split(mark)[:-1]
    if (
        columns < 2
        or (len(rest), len(begin)) != (len(behind), len(ahead))
        or any(each.count(mark) != columns - 1 for each in whole)
    ):
        return False
    return all(_alike(*pair) for pair in (*zip(rest, behind, strict=True), *zip(begin, ahead, strict=True)))


def _split(part: bytes, mark: bytes) -> list[bytes]:
    """Fields of a part of a row, those with quotes by a stand-in."""
    return _FIELD.sub(b"x", part).split(mark)


def _alike(one: bytes, other: bytes) -> bool:
    """Whether both can be of one column: not if one is a number or a time, and the other has no digit at all."""
    kinds = {_kind(one), _kind(other)}
    return not kinds >= {"number", "words"}


def _kind(text: bytes) -> str:
    bare = text.strip().strip(b'"')
    if not bare or _NUMBER.fullmatch(bare):
        return "number" if bare else "nothing"
    return "code" if any(48 <= octet <= 57 for octet in bare) else "words"
