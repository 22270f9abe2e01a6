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
_BLOCK = 2**24
"""So much is looked at at once: positions take eight times the memory of what they are in."""
_NUMBER = re.compile(rb"[-+0-9.,:/TZ ]*[0-9][-+0-9.,:/TZ ]*")
_FIELD = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_RECORD = re.compile(rb'(?:[^"\n]++|"[^"]*+(?:""[^"]*+)*+")*+')

Octets = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]


def quote_fault(content: bytes, separator: str, limits: Limits) -> str | None:
    """What is wrong with the quotes of a CSV file in UTF-8, with the row, counted from 1 without the header; None when nothing is.

    A quote opens at the beginning of a field and closes at its end; within, there are two for one. A field has at most
    `limits.field_lines` line breaks, and none by which it falls into pieces that look like rows.
    """
    if b'"' not in content:
        return None
    octets = np.frombuffer(content, np.uint8)
    columns = _columns(content, separator)
    last = 0
    for block in _blocks(octets):
        if len(block.quotes):
            if fault := _stray_fault(content, octets, block, ord(separator), last):
                return fault
            last = int(block.quotes[-1])
        for row, start in block.of_several_lines():
            if fault := _field_fault(content, start, columns, separator, limits):
                return f"row {row}: {fault}"
    if block.within_after:
        return f"row {_row(octets, last)}: a quote is opened and never closed"
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """Places in a part of a file, counted from the beginning of the file."""

    quotes: Places
    lines: Places
    """Line breaks."""
    within: npt.NDArray[np.bool_]
    """For each line break, whether it is within quotes."""
    within_before: bool
    within_after: bool
    row: int
    """Of the beginning of the block; the header is 0."""
    row_start: int

    def of_several_lines(self) -> Iterator[tuple[int, int]]:
        """Number and beginning of each row that has a line break within quotes."""
        ends = self.lines[~self.within]
        starts = np.concatenate([[self.row_start], ends + 1])
        for index in np.unique(np.searchsorted(ends, self.lines[self.within])):
            yield self.row + int(index), int(starts[index])


def _blocks(octets: Octets) -> Iterator[_Block]:
    within, row, row_start = False, 0, 0
    for start in range(0, len(octets), _BLOCK):
        part = octets[start : start + _BLOCK]
        quotes, lines = np.flatnonzero(part == _QUOTE) + start, np.flatnonzero(part == _LINE) + start
        inside = (np.searchsorted(quotes, lines) + within) % 2 == 1
        after = bool((len(quotes) + within) % 2)
        yield _Block(
            quotes=quotes, lines=lines, within=inside, within_before=within, within_after=after, row=row, row_start=row_start
        )
        ends = lines[~inside]
        within, row, row_start = after, row + len(ends), int(ends[-1]) + 1 if len(ends) else row_start


def _stray_fault(content: bytes, octets: Octets, block: _Block, separator: int, last: int) -> str | None:
    """The first quote that neither begins nor ends a field, and is none of a pair within one."""
    opening, closing = block.quotes[int(block.within_before) :: 2], block.quotes[1 - int(block.within_before) :: 2]
    borders = np.zeros(256, np.bool_)
    borders[[separator, _LINE, _RETURN, _QUOTE]] = True
    bad_opening = opening[(opening > 0) & ~borders[octets[np.maximum(opening - 1, 0)]]]
    bad_closing = closing[(closing < len(octets) - 1) & ~borders[octets[np.minimum(closing + 1, len(octets) - 1)]]]
    if not len(bad_opening) and not len(bad_closing):
        return None
    if len(bad_opening) and not (len(bad_closing) and bad_closing[0] < bad_opening[0]):
        place = int(bad_opening[0])
        return (
            f"row {_row(octets, place)}: a quote in the middle of a field, {_around(content, place)}: expected it to be quoted, too"
        )
    place = int(bad_closing[0])
    index = int(np.searchsorted(block.quotes, place))
    opened = int(block.quotes[index - 1]) if index else last
    row, line = _row(octets, opened), content.count(b"\n", opened, place)
    where = f" {line:,} lines later" if line else ""
    met = f"the next one{where} is in the middle of a field, {_around(content, place)}"
    return f"row {row}: a quote opens, {_around(content, opened)}, and {met}"


def _row(octets: Octets, place: int) -> int:
    """The number of the row in which a place is: a line break within quotes ends none."""
    return sum(int(np.count_nonzero(~block.within)) for block in _blocks(octets[:place]))


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
