"""Features of a few events at once from the facts kept about their entities: the declarations of `features`, the same to the last bit.

Belongs here: what has to be kept of each row, under which key, and arithmetic on the few facts of an entity. Does not: where they are
kept (`storage.online`). A table of a million events goes through `features.compute`; here a single one takes a fraction of a millisecond.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.features import columns_of, latest_columns, statistic, summed, trailing_name
from ml_assets.stages.questions import Entity, microseconds
from ml_assets.stages.windows import Int64Array
from ml_assets.use_case import Column, DType, Latest, Table, Trailing, UseCase

Row = Mapping[str, Any]
"""A clean row: instants as whole microseconds since the epoch, None for what is missing."""
Place = tuple[str, Entity]
"""A table, and of whom something is known by its rows."""
Records = npt.NDArray[Any]
"""What is kept of some rows, as a structured array of the dtype `Kept.dtype`."""
NEVER = np.iinfo(np.int64).min
"""Stands for an instant that is missing."""
ID_BYTES = 40
MICROSECOND = timedelta(microseconds=1)
SEPARATOR = b"\x1f"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of the rows of a table: one record of fixed size a row, filed under each entity that features ask about."""

    table: Table
    dtype: np.dtype[Any]
    times: tuple[str, ...]
    """The columns that say when something of a row becomes known."""
    entities: tuple[Entity, ...]
    prefixes: tuple[bytes, ...]
    """Of the keys, one for each of the entities."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What is kept beside the id."""
        return (self.dtype.names or ())[1:]

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
        values = [known[name] if known[name] is not None else self._missing(name) for name in self.columns]
        return struct.pack(self._format, self.id(row), *values)

    def known(self, row: Row, known_by: int | None) -> Row:
        """The row as it was known at an instant: values that were not known yet are missing."""
        if known_by is None:
            return row
        late = {column.name for column in self.table.columns if column.known_at and not _by(row.get(column.known_at), known_by)}
        return {name: None if name in late else value for name, value in row.items()} if late else row

    def last_known(self, row: Row) -> int:
        """The instant at which the last of what is kept of a row becomes known: no window that begins later has it."""
        return max((row[name] for name in self.times if row[name] is not None), default=NEVER)

    def records(self, rows: pd.DataFrame) -> Records:
        """Many clean rows, as a table has them.

        Raises:
            ValueError: as `id`.
        """
        found = np.zeros(len(rows), dtype=self.dtype)
        parts = zip(*(rows[name].tolist() for name in self.table.key), strict=True)
        found["id"] = [_checked(" ".join(map(str, each)).encode(), self.table) for each in parts]
        for name in self.columns:
            values = rows[name]
            found[name] = microseconds(values) if isinstance(values.dtype, pd.DatetimeTZDtype) else values.to_numpy()
        return found

    def keys_of(self, rows: pd.DataFrame) -> Iterator[list[bytes | None]]:
        """For each entity, where the records of many rows are filed."""
        for prefix, entity in zip(self.prefixes, self.entities, strict=True):
            columns = [rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in entity]
            yield [key_of(prefix, entity, dict(zip(entity, values, strict=True))) for values in zip(*columns, strict=True)]

    def _missing(self, name: str) -> float | int:
        return NEVER if self.dtype[name] == np.int64 else float("nan")

    @property
    def _format(self) -> str:
        return f"<{ID_BYTES}s" + "".join("q" if self.dtype[name] == np.int64 else "d" for name in self.columns)


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
            table=case.table(name),
            dtype=np.dtype([("id", f"S{ID_BYTES}"), *((column, _dtype(case, name, column)) for column in names)]),
            times=tuple(times[name]),
            entities=tuple(entities[name]),
            prefixes=tuple(f"{name}.{'+'.join(entity)}".encode() for entity in entities[name]),
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
        parts.append(part.replace(SEPARATOR, SEPARATOR * 2) if SEPARATOR in part else part)
    return SEPARATOR.join(parts)


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
    late = table == case.events and column.known_at is not None  # an event is kept before all of it is known
    whole = column.dtype is DType.TIMESTAMP or (column.dtype is DType.INT64 and not column.nullable and not late)
    return "<i8" if whole else "<f8"


class OnlineFeatures:
    """The features of a case, for a few events at a time."""

    def __init__(self, case: UseCase) -> None:
        self.case, self.kept = case, kept_of(case)
        self._columns = {column.name: column for column in case.event_table.columns}
        self._asked: dict[Place, dict[tuple[str, str], _Series]] = {}
        for each in case.features.trailing:
            for entity in each.entities:
                self._series(each.fact.table, entity, each.fact.known_at, each.fact.value).windows.append(_Windows.of(each, entity))
        for latest in case.features.latest:
            self._series(latest.table, latest.entity, latest.known_at, latest.known_at).latest.append(latest)
        self._prefixes = {
            (name, entity): prefix
            for name, kept in self.kept.items()
            for entity, prefix in zip(kept.entities, kept.prefixes, strict=True)
        }

    def _series(self, table: str, entity: Entity, known_at: str, value: str) -> "_Series":
        kept = self.kept[table]
        gaps = value if kept.dtype[value] == np.float64 else ""
        of_entity = self._asked.setdefault((table, entity), {})
        time = next(column for column in kept.table.columns if column.name == known_at)
        missing = bool(gaps) or time.nullable or time.known_at is not None
        return of_entity.setdefault((known_at, gaps), _Series(known_at=known_at, gaps=gaps, missing=missing))

    @property
    def places(self) -> Iterable[Place]:
        """About whom features ask, in which tables."""
        return self._prefixes.keys()

    def keys(self, event: Row) -> dict[Place, bytes | None]:
        """Under which keys the facts are kept that the features of an event ask for."""
        return {place: key_of(prefix, place[1], event) for place, prefix in self._prefixes.items()}

    def compute(
        self,
        events: Sequence[Row],
        facts: Mapping[bytes, bytes] | None,
        dimensions: Callable[[str, Any], Row | None] = lambda _table, _value: None,
        *,
        keys: Sequence[Mapping[Place, bytes | None]] | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Every declared feature, in order, each an array with a value for each event.

        Args:
            events: rows of the event table, as they are known at the event.
            facts: by key the records in any order, one after the other, those of the events themselves included. None where nothing
                can be known: then everything that depends on them is missing.
            dimensions: a row of a table that is not delivered by day, by its name and the row's key.
            keys: of each event, where they are at hand.
        """
        declared = self.case.features
        ids = [str(event["event_id"]).encode() for event in events]
        asked = _Asked.of([event[self.case.event_time] for event in events], ids)
        columns = {name: self._array(self._columns[name], [event[name] for event in events]) for name in declared.event_columns}
        if facts is None:
            missing = np.full(len(events), np.nan)
            given = columns_of(declared.trailing, declared.latest, declared.lookups)
            columns |= {column.name: missing for column in given}
            columns |= declared.row(columns)
            return {column.name: columns[column.name] for column in declared.columns}
        of_events = keys or [self.keys(event) for event in events]
        for (table, entity), series in self._asked.items():
            dtype = self.kept[table].dtype
            found = [of_event[table, entity] for of_event in of_events]
            records = [facts.get(key, b"") if key else b"" for key in found]
            first = np.repeat(asked.first, [len(each) // dtype.itemsize for each in records])
            joined = np.frombuffer(b"".join(records), dtype=dtype)
            for each in series.values():
                columns.update(each.answers(each.known(joined, first, asked, own_table=table == self.case.events)))
        for lookup in declared.lookups:
            rows = [dimensions(lookup.table, event[lookup.by]) or {} for event in events]
            for value in lookup.values:
                columns[f"{lookup.table}_{value}"] = _floats([row.get(value) for row in rows])
        columns |= declared.row(columns)
        return {column.name: columns[column.name] for column in declared.columns}

    @staticmethod
    def _array(column: Column, values: list[Any]) -> npt.NDArray[Any]:
        match column.dtype:
            case DType.TIMESTAMP:
                instants = [NEVER if value is None else value for value in values]
                return np.array(instants, dtype=np.int64).view("datetime64[us]")
            case DType.STRING:
                return np.array(values, dtype=object)
            case DType.INT64 if None not in values:
                return np.array(values, dtype=np.int64)
            case _:
                return _floats(values)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Windows:
    """A declaration for one entity, with what is the same for every event."""

    declared: Trailing
    ago: Int64Array  # (w,) microseconds
    names: tuple[tuple[str, ...], ...]
    """By statistic and window."""
    sums: tuple[str, ...]
    """What is summed."""

    @classmethod
    def of(cls, declared: Trailing, entity: Entity) -> "_Windows":
        return cls(
            declared=declared,
            ago=np.array([window // MICROSECOND for window in declared.windows]),
            names=tuple(
                tuple(trailing_name(declared.fact, statistic, window, entity) for window in declared.windows)
                for statistic in declared.statistics
            ),
            sums=tuple(summed(declared.statistics, np.empty(0, dtype=np.int64))),
        )

    def answers(self, known: "_Known") -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Each statistic over each window, an array with a value for each event."""
        ends = known.ends[:, np.newaxis]
        starts = (
            np.minimum(known.before(self.ago), ends) if len(known.times) else np.zeros((len(ends), len(self.ago)), dtype=np.int64)
        )
        count = ends - starts
        flat: dict[str, Int64Array] = {}
        ages: Int64Array | None = None
        if self.sums:
            wanted = summed(self.declared.statistics, known.column(self.declared.fact.value).astype(np.int64))
            for name, values in wanted.items():
                running = np.zeros(len(values) + 1, dtype=np.int64)
                np.cumsum(values, out=running[1:])
                flat[name] = (running[ends] - running[starts]).ravel()
        if "span" in self.declared.statistics:
            found = count > 0
            ages = np.where(found, known.asked.at[:, np.newaxis] - _filled(known.times)[starts * found], -1).ravel()
        for names, each in zip(self.names, self.declared.statistics, strict=True):
            yield from zip(names, statistic(each, count.ravel(), flat, ages).reshape(count.shape).T, strict=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """The events whose features are computed; what is found once for all of them is kept."""

    at: Int64Array  # (m,) microseconds since the epoch
    ids: npt.NDArray[np.bytes_]  # (m,)
    first: Int64Array  # (m,) the least place of each event
    nobody: npt.NDArray[np.bool_]  # (m,) False
    _before: dict[bytes, Int64Array] = field(default_factory=dict)

    @classmethod
    def of(cls, at: list[int], ids: list[bytes]) -> "_Asked":
        first = np.arange(len(at), dtype=np.int64) << _TIME_BITS
        return cls(
            at=np.array(at, dtype=np.int64),
            ids=np.array(ids, dtype=f"S{ID_BYTES}"),
            first=first,
            nobody=np.zeros(len(at), dtype=bool),
        )

    def before(self, ago: Int64Array) -> Int64Array:
        """The place of each event so long before it, shape (m, windows)."""
        name = ago.tobytes()
        if name not in self._before:
            self._before[name] = self.first[:, np.newaxis] + _within_an_event(self.at[:, np.newaxis] - ago)
        return self._before[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """The facts that have a time and a value about the entities of some events, by event, time and id.

    An event has all facts of its entity, and those of one event follow those of another: one search answers for all events.
    """

    asked: _Asked
    records: Records  # (n,), as they came
    order: Int64Array | None  # (n,) in which they became known; None where they came so
    times: Int64Array  # (n,)
    places: Int64Array  # (n,) event and time in one number, ascending
    ends: Int64Array  # (m,) up to where the facts of an event were known at it
    own: npt.NDArray[np.bool_]  # (m,) whether the last of these is the event itself

    def column(self, name: str) -> npt.NDArray[Any]:
        """A value of each fact, shape (n,)."""
        values: npt.NDArray[Any] = self.records[name]
        return values if self.order is None else values[self.order]

    def before(self, ago: Int64Array) -> Int64Array:
        """Up to where the facts of each event were known so long before it, shape (m, windows)."""
        return self.places.searchsorted(self.asked.before(ago), side="right")


_TIME_BITS = 53
_MIDDLE, _LAST = 1 << (_TIME_BITS - 1), (1 << _TIME_BITS) - 1
MOST_EVENTS = 1 << (62 - _TIME_BITS)
"""So many fit beside a time into 63 bits."""
_NOW = np.zeros(1, dtype=np.int64)


def _within_an_event(times: Int64Array) -> Int64Array:
    """Times of some 140 years before and after 1970 as numbers from 0 on; others are as if at the end of these."""
    found: Int64Array = np.minimum(np.maximum(times + _MIDDLE, 0), _LAST)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Series:
    """What is asked about the facts of an entity that have a time and, where `gaps` names a column, a value in it."""

    known_at: str
    gaps: str
    missing: bool
    """Whether there are rows without a time or, in `gaps`, a value."""
    windows: list[_Windows] = field(default_factory=list)
    latest: list[Latest] = field(default_factory=list)

    def known(self, records: Records, first: Int64Array, asked: _Asked, *, own_table: bool) -> _Known:
        """Of the records of all events, those that count, in order.

        Args:
            first: the least place of the event whose record it is, shape (n,), ascending.
            own_table: whether these are rows of events: of what has the time of an event, only ids up to its own count.
        """
        times, nobody = records[self.known_at], asked.nobody
        if self.missing:
            there = times != NEVER
            if self.gaps:
                there &= ~np.isnan(records[self.gaps])
            if not there.all():
                records, first = records[there], first[there]
                times = records[self.known_at]
        places, order = first + _within_an_event(times), None
        if (places[1:] <= places[:-1]).any():
            order = places.argsort(kind="stable")
            places = places[order]
            if (places[1:] == places[:-1]).any():
                order = np.lexsort((records["id"], first + _within_an_event(times)))
            times = times[order]
        now = asked.before(_NOW)[:, 0]
        ends, own = places.searchsorted(now, side="right"), nobody
        if own_table and len(places):
            ids = records["id"]

            def last() -> npt.NDArray[Any]:
                found: npt.NDArray[Any] = ids[ends - 1 if order is None else order[ends - 1]]
                return found

            while (now_too := (ends > 0) & (places[ends - 1] == now)).any():
                if not (later := now_too & (last() > asked.ids)).any():
                    own = now_too & (last() == asked.ids)
                    break
                ends -= later
        return _Known(asked=asked, records=records, order=order, times=times, places=places, ends=ends, own=own)

    def answers(self, known: _Known) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        for windows in self.windows:
            yield from windows.answers(known)
        for declared in self.latest:
            yield from self._latest(declared, known)

    @staticmethod
    def _latest(declared: Latest, known: _Known) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        begins = known.places.searchsorted(known.asked.first)

        def last(ends: Int64Array) -> Int64Array:
            return np.where(ends > begins, ends - 1, -1)

        yield from latest_columns(
            declared,
            last(known.ends - (known.own & (not declared.itself))),
            last(known.before(np.array([declared.change_over // MICROSECOND]))[:, 0]) if declared.changes else None,
            known_at=known.times,
            asked_at=known.asked.at,
            values=known.column,
        )


def _filled(values: Int64Array) -> Int64Array:
    """At least one, so that there is something to take of nothing."""
    return values if len(values) else np.zeros(1, dtype=np.int64)


def _floats(values: list[Any]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
