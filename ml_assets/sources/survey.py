"""What the files of a table hold: which days, which of their rows are stray, and how far all of them reach.

Belongs here: what is known of files together. Does not: how one is read (`sources.mapped`), where its stray rows go (`sources.placement`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ml_assets.folders import Found
from ml_assets.sources.placement import Placement
from ml_assets.use_case import Day


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a file says by itself, whatever is in bounds."""

    version: str
    columns: tuple[str, ...]
    """Of a file that was opened for its days."""
    parts: tuple[frozenset[Day], ...] | None
    """Days of each row group of Parquet, or of all of another file. Rows that are not kept count: they show how far the file reaches. None
    where its name says the day of all rows."""
    days: frozenset[Day]
    timeless: bool
    """Whether the time of any row cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file, and under which days its rows are delivered."""

    path: str
    found: Found
    content: Content
    outside: frozenset[Day]
    """Days of its rows that are out of bounds."""
    placement: Placement | None
    """Of its stray rows; None where it can have none."""
    named: Day | None = None
    """Of a file without a sound row, the day in its name."""
    other: Day | None = None
    """Of a file without a sound row, the day under which its rows are delivered."""

    @property
    def sound(self) -> frozenset[Day]:
        """Days of rows that are not stray."""
        return self.content.days if self.placement is None else self.placement.sound

    @property
    def days(self) -> frozenset[Day]:
        """Days under which rows are delivered."""
        return self.content.days if self.placement is None else self.placement.days(self.other)

    @property
    def fault(self) -> str:
        """What is wrong with the first row to keep where none is sound, or ""."""
        return self.placement.example if self.placement is not None and None in self.placement.strays else ""

    def strays_of(self, day: Day) -> tuple[str, ...]:
        """Which stray rows are delivered under a day."""
        if self.placement is None:
            return ()
        return tuple(rows for of, rows in self.placement.strays.items() if (of or self.other) == day)

    def parts_of(self, days: Sequence[Day]) -> list[int]:
        """Which parts have rows of these days."""
        if self.placement is None:
            return [number for number, part in enumerate(self.content.parts or ()) if not part.isdisjoint(days)]
        every = bool(self.fault) and self.other in days
        return [number for number, part in enumerate(self.placement.parts) if every or not part.isdisjoint(days)]

    def before(self, part: int) -> Day | None:
        """Under which day the first rows of a part are delivered if these are stray."""
        return (self.placement.before[part] if self.placement is not None else None) or self.other


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """All files."""

    files: tuple[File, ...]
    unreadable: str
    """Why nobody knows which days there are, or ""."""
    last: Day | None
    """Of all sound rows; None when there are none."""
    astray: tuple[File, ...]
    """Those without a sound row, but with rows to keep."""

    @classmethod
    def of(cls, files: Sequence[File], *, unreadable: str) -> "Survey":
        """Of files in the order of their names."""
        placed = _with_others(files)
        last = max((day for file in placed for day in file.sound), default=None)
        return cls(files=placed, unreadable=unreadable, last=last, astray=tuple(file for file in placed if file.fault))

    @property
    def without_days(self) -> str:
        """Why no row has a day, or ""."""
        return f"{self.astray[0].path}, {self.astray[0].fault}" if self.astray and self.last is None else ""

    def lost(self, day: Day) -> str:
        """Why nobody knows whether a day has rows, or "": no file holds it for sure, and there are some whose days nobody knows."""
        lost = [file for file in self.astray if file.named is None]
        if not lost or any(day in file.days for file in self.files):
            return ""
        return f"no row is of the day for sure: {'; '.join(f'{file.path} has no row whose day is known, {file.fault}' for file in lost)}"


def _with_others(files: Sequence[File]) -> tuple[File, ...]:
    """Those without a sound row with the day of their rows: that in the name, or else the last of the files before, or the first behind."""
    before = _carried([max(file.sound, default=None) for file in files])
    behind = _carried([min(file.sound, default=None) for file in reversed(files)])[::-1]
    return tuple(
        replace(file, other=file.named or last or first) if file.fault else file
        for file, last, first in zip(files, before, behind, strict=True)
    )


def _carried(days: Sequence[Day | None]) -> list[Day | None]:
    """For each place the last day before it."""
    carried, current = list[Day | None](), None
    for day in days:
        carried.append(current)
        current = day or current
    return carried
