"""What is kept of the rows that features look back on, for one who scores single events.

Belongs here: what of each row, in which bytes and under which keys. Does not: where it is kept (`storage.online`), what is computed from
it (`stages.online_features`).
"""

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.availability import NEVER, known_time, known_times, microseconds
from ml_assets.stages.questions import Entity
from ml_assets.use_case import Column, Day, DType, Table, UseCase

Row = Mapping[str, Any]
"""A clean row: instants as whole microseconds since the epoch, None for what is missing."""
Place = tuple[str, Entity]
"""A table, and of whom something is known by its rows."""
Records = npt.NDArray[Any]
"""What is kept of some rows, as a structured array of the dtype `Kept.dtype`."""
ID_BYTES = 40
MICROSECOND = timedelta(microseconds=1)
SEPARATOR, _ESCAPE = b"\x1f", b"\x1e"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of the rows of a table: one record of fixed size a row, filed under each entity that features ask about."""

    case: UseCase
    table: Table
    dtype: np.dtype[Any]
    times: tuple[str, ...]
    """The columns that say when something of a row becomes known."""
    entities: tuple[Entity, ...]
    prefixes: tuple[bytes, ...]
    """Of the keys, one for each of the entities."""
    columns: tuple[str, ...] = field(init=False)
    """What is kept beside the id."""
    _packed: struct.Struct = field(init=False, repr=False, compare=False)
    _missing: dict[str, float | int] = field(init=False, repr=False, compare=False)
    """What stands for a value that is missing, by column."""
    _late: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)
    """Columns of the table that are known later than the row, and the columns that say when."""

    _within: dict[str, timedelta] = field(init=False, repr=False, compare=False)
    """How long after its day a row is known at the latest, by the column of `times`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_within", {name: self.case.features.known_within(self.table.name, name) for name in self.times})
        columns = (self.dtype.names or ())[1:]
        missing = {name: NEVER if self.dtype[name] == np.int64 else float("nan") for name in columns}
        packed = struct.Struct(f"<{ID_BYTES}s" + "".join("q" if missing[name] == NEVER else "d" for name in columns))
        late = tuple((column.name, column.known_at) for column in self.table.columns if column.known_at)
        for name, value in (("columns", columns), ("_missing", missing), ("_packed", packed), ("_late", late)):
            object.__setattr__(self, name, value)

    @property
    def id_field(self) -> str:
        """Of the dtype: what names a row."""
        return (self.dtype.names or ())[0]

    def id(self, row: Row) -> bytes:
        """What names a row in the table.

        Raises:
            ValueError: it is longer than `ID_BYTES`, empty, or holds what cannot stand in a key.
        """
        return _checked(" ".join(str(row[name]) for name in self.table.key).encode(), self.table)

    def keys(self, row: Row) -> Iterator[bytes]:
        """Where the record of a row is filed: under each of its entities that is known."""
        for prefix, entity in zip(self.prefixes, self.entities, strict=True):
            if (found := key_of(prefix, entity, row)) is not None:
                yield found

    def record(self, row: Row, *, known_by: int | None = None) -> bytes:
        """A row, with what is known of it by an instant, or for good where that is None.

        Raises:
            ValueError: as `id`.
        """
        known = self.known(row, known_by)
        values = [missing if (value := known[name]) is None else value for name, missing in self._missing.items()]
        return self._packed.pack(self.id(row), *values)

    def known(self, row: Row, known_by: int | None) -> Row:
        """The row as it was known at an instant: values that were not known yet are missing."""
        if known_by is None:
            return row
        late = dict.fromkeys(name for name, known_at in self._late if not _by(row.get(known_at), known_by))
        return {**row, **late} if late else row

    def last_known(self, row: Row) -> int:
        """The instant at which the last of what is kept of a row becomes known: no window that begins later has it."""
        return max((row[name] for name in self.times if row[name] is not None), default=NEVER)

    def counted(self, row: Row, day: Day) -> Row:
        """The row with the times from which on it counts, where it is delivered under a day."""
        case, table = self.case, self.table
        times = {name: known_time(case, table, row[name], day, within=self._within[name]) for name in self.times}
        return row if all(row[name] == time for name, time in times.items()) else {**row, **times}

    def records(self, rows: pd.DataFrame) -> Records:
        """Many clean rows, as a table has them, with the times from which on they count.

        Raises:
            ValueError: as `id`.
        """
        found = np.zeros(len(rows), dtype=self.dtype)
        parts = zip(*(rows[name].tolist() for name in self.table.key), strict=True)
        found[self.id_field] = [_checked(" ".join(map(str, each)).encode(), self.table) for each in parts]
        for name in self.columns:
            values = rows[name]
            if name in self.times:
                found[name] = known_times(self.case, self.table, rows, name, within=self._within[name])
            else:
                found[name] = microseconds(values) if isinstance(values.dtype, pd.DatetimeTZDtype) else values.to_numpy()
        return found

    def keys_of(self, rows: pd.DataFrame) -> Iterator[list[bytes | None]]:
        """For each entity, where the records of many rows are filed."""
        for prefix, entity in zip(self.prefixes, self.entities, strict=True):
            columns = [rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in entity]
            yield [key_of(prefix, entity, dict(zip(entity, values, strict=True))) for values in zip(*columns, strict=True)]


def kept_of(case: UseCase) -> dict[str, Kept]:
    """For each table that features look back on, what is kept of its rows."""
    columns: dict[str, dict[str, None]] = {}
    times: dict[str, dict[str, None]] = {}
    entities: dict[str, dict[Entity, None]] = {}
    for each in case.features.trailing:
        columns.setdefault(each.fact.table, {}).update(dict.fromkeys((each.fact.known_at, each.fact.value)))
        times.setdefault(each.fact.table, {})[each.fact.known_at] = None
        entities.setdefault(each.fact.table, {}).update(dict.fromkeys(each.entities))
    for latest in case.features.latest:
        columns.setdefault(latest.table, {}).update(dict.fromkeys((latest.known_at, *latest.values, *latest.changes)))
        times.setdefault(latest.table, {})[latest.known_at] = None
        entities.setdefault(latest.table, {}).update({latest.entity: None})
    return {
        name: Kept(
            case=case,
            table=case.table(name),
            dtype=np.dtype([(_id_beside(names), f"S{ID_BYTES}"), *((column, _dtype(case, name, column)) for column in names)]),
            times=tuple(times[name]),
            entities=tuple(entities[name]),
            prefixes=tuple(f"{name}.{'+'.join(map(_part, entity))}".encode() for entity in entities[name]),
        )
        for name, names in columns.items()
    }


def layout(case: UseCase) -> str:
    """How everything is kept, in words: records of another layout cannot be read."""
    kept = kept_of(case)
    return "; ".join(f"{name}: {each.dtype.descr} by {each.entities}" for name, each in sorted(kept.items()))


def key_of(prefix: bytes, entity: Entity, row: Row) -> bytes | None:
    """The key of an entity's records; None where one of its columns is missing: nothing is known about nobody."""
    parts = [prefix]
    for name in entity:
        if (value := row[name]) is None:
            return None
        part = str(value).encode()
        if SEPARATOR in part or _ESCAPE in part:  # or two entities of several columns could have one key
            part = part.replace(_ESCAPE, _ESCAPE + b"0").replace(SEPARATOR, _ESCAPE + b"1")
        parts.append(part)
    return SEPARATOR.join(parts)


def _part(name: str) -> str:
    r"""The name of a column among others of an entity.

    >>> _part("origin"), _part("a+b")
    ('origin', 'a\\+b')
    """
    return name.replace("\\", "\\\\").replace("+", "\\+")


def _id_beside(columns: Collection[str]) -> str:
    """A name for the id that none of the columns has."""
    name = "id"
    while name in columns:
        name += "_"
    return name


def _checked(id: bytes, table: Table) -> bytes:
    if not 0 < len(id) <= ID_BYTES or b"\0" in id:
        raise ValueError(
            f"{'id' if len(table.key) > 1 else table.key[0]} has {len(id)} bytes: from 1 to {ID_BYTES}, none of them 0"
        )
    return id


def _by(instant: int | None, moment: int) -> bool:
    return instant is not None and instant <= moment


def _dtype(case: UseCase, table: str, name: str) -> str:
    column = next(column for column in case.table(table).columns if column.name == name)
    if column.dtype is DType.INT64:
        return "<f8" if may_be_missing(case, table, column) and _fits_a_float(column) else "<i8"
    return "<i8" if column.dtype is DType.TIMESTAMP else "<f8"


def may_be_missing(case: UseCase, table: str, column: Column) -> bool:
    """Whether a record may lack a value of a column: `NEVER` where it is kept as a whole number, else nan."""
    late = table == case.events and column.known_at is not None  # an event is kept before all of it is known
    return late or column.nullable or column.dtype is not DType.INT64


def _fits_a_float(column: Column) -> bool:
    """Whether every value that a column admits is a float of its own."""
    return None not in (column.minimum, column.maximum) and max(abs(column.minimum or 0), abs(column.maximum or 0)) <= 2**53
