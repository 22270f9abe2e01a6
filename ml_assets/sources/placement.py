"""Under which day a row is delivered whose own time cannot be read or is out of bounds: that of the sound row before it in its file.

Belongs here: the rows of one file, in order. Does not: how a file is read (`sources.mapped`), which times are in bounds (`sources.bounds`).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.sources.delivered import Time, neighbours
from ml_assets.sources.files import as_day
from ml_assets.use_case import Day

_DAY_IN_NAME = re.compile(r"(?<![0-9])([0-9]{4})[-_.]?([0-9]{2})[-_.]?([0-9]{2})(?![0-9])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where the rows of a file are delivered of which some are stray: without a time that can be read, or out of bounds."""

    sound: frozenset[Day]
    """Days of its other rows, which alone show how far the file reaches."""
    parts: tuple[frozenset[Day], ...]
    """Days of each part of the file, with those of its stray rows."""
    before: tuple[Day | None, ...]
    """The day of the sound row before each part, or else of the first one; None where there is none in the file."""
    strays: Mapping[Day | None, str]
    """Under which days stray rows to keep are delivered, and which rows these are, as a hash. None where no row of the file is sound."""
    example: str
    """The first of them, and what is wrong with it."""

    def days(self, other: Day | None) -> frozenset[Day]:
        """All under which rows of the file are delivered; `other` where no row is sound."""
        days = frozenset().union(*self.parts)
        return days | {other} if None in self.strays and other is not None else days


def place(parts: Iterable[Iterable[tuple[int, pa.RecordBatch]]], time: Time, outside: frozenset[Day]) -> Placement:
    """Places the rows of a file.

    Args:
        parts: the batches of each part of the file, with the number of rows before each: the time, and what decides which rows are kept.
        outside: days of its rows that are out of bounds.

    Raises:
        ValueError: the time is of a type that is none.
    """
    days, before, sound = list[set[Day]](), list[Day | None](), set[Day]()
    strays: dict[Day | None, list[bytes]] = {}
    example, current, first = "", None, None
    for part in parts:
        before.append(current)
        days.append(set())
        for count, batch in part:
            of_row = sound_days(time.days(batch), outside)
            known = pc.unique(of_row.drop_null()).to_pylist()
            sound.update(known)
            days[-1].update(known)
            first = first or (of_row.drop_null()[0].as_py() if known else None)
            placed = neighbours(of_row, current)
            stray = pc.and_(pc.is_null(of_row), time.kept(batch))
            for day, rows in _by_day(placed, stray):
                strays.setdefault(day, []).append((rows + count + 1).tobytes())
                days[-1].update([day] if day is not None else [])
            example = example or _example(batch, time, stray, count)
            current = placed[-1].as_py() if len(placed) else current
    if first is not None and None in strays:  # the rows before the first sound one
        strays[first] = [*strays.pop(None), *strays.get(first, [])]
        days = [of_part | ({first} if before[number] is None else set()) for number, of_part in enumerate(days)]
    return Placement(
        sound=frozenset(sound),
        parts=tuple(map(frozenset, days)),
        before=tuple(each or first for each in before),
        strays={day: hashlib.sha256(b"".join(rows)).hexdigest()[:16] for day, rows in strays.items()},
        example=example,
    )


def sound_days(days: pa.Array, outside: frozenset[Day]) -> pa.Array:
    """The days that are in bounds, null for others and where there is none."""
    return pc.if_else(pc.is_in(days, pa.array(sorted(outside), pa.string())), None, days) if outside else days


def day_in(name: str) -> Day | None:
    """The day that the name of a file says, such as `2024-02-15` or `20240215`; None where it says none or several.

    >>> day_in("shop/export_20240215.csv"), day_in("orders.csv"), day_in("2024-02-01_to_2024-02-15.csv")
    ('2024-02-15', None, None)
    """
    days = {as_day("-".join(parts)) for parts in _DAY_IN_NAME.findall(name.rpartition("/")[2])}
    return days.pop() if len(days) == 1 else None


def _by_day(placed: pa.Array, stray: pa.Array) -> list[tuple[Day | None, np.ndarray]]:
    """Positions of stray rows by the day under which they are delivered."""
    rows = np.flatnonzero(stray)
    if not len(rows):
        return []
    coded = placed.take(pa.array(rows)).dictionary_encode(null_encoding="encode")
    codes, days = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    return [(day, rows[codes == code].astype(np.int64)) for code, day in enumerate(days)]


def _example(batch: pa.RecordBatch, time: Time, stray: pa.Array, count: int) -> str:
    row = pc.index(stray, True).as_py()
    return "" if row < 0 else time.fault(batch, row, count)
