"""Features of one event from the facts kept about its entities: the declarations of `features`, the same numbers to the last bit.

Belongs here: what has to be kept of each row, and arithmetic on the few facts of an entity. Does not: where they are kept
(`storage.online`). A table of a million events goes through `features.compute`; there a single one would take a hundred times as long.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.features import latest_columns, statistic, summed, trailing_name
from ml_assets.stages.questions import Entity, microseconds
from ml_assets.stages.windows import Int64Array
from ml_assets.use_case import DType, Latest, Trailing, UseCase

Row = Mapping[str, Any]
"""A clean row: instants as whole microseconds since the epoch, None for what is missing."""
NEVER = np.iinfo(np.int64).min
"""Stands for an instant that is missing."""
ID_BYTES = 40
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of the rows of a table: one record of fixed size a row, filed under each entity that features ask about."""

    table: str
    key: tuple[str, ...]
    dtype: np.dtype[Any]
    entities: tuple[Entity, ...]

    def records(self, rows: pd.DataFrame) -> npt.NDArray[Any]:
        """Many clean rows, as a table has them.

        Raises:
            ValueError: an id is longer than `ID_BYTES`.
        """
        found = np.zeros(len(rows), dtype=self.dtype)
        parts = zip(*(rows[name].tolist() for name in self.key), strict=True)
        ids = [" ".join(str(part) for part in each).encode() for each in parts]
        if too_long := next((id for id in ids if len(id) > ID_BYTES), None):
            raise ValueError(f"id {too_long.decode()!r} of {self.table} has {len(too_long)} bytes: at most {ID_BYTES} can be kept")
        found["id"] = ids
        for name in (self.dtype.names or ())[1:]:
            values = rows[name]
            found[name] = microseconds(values) if isinstance(values.dtype, pd.DatetimeTZDtype) else values.to_numpy()
        return found


def kept_of(case: UseCase) -> dict[str, Kept]:
    """For each table that features look back on, what is kept of its rows."""
    columns: dict[str, dict[str, None]] = {}
    entities: dict[str, dict[Entity, None]] = {}
    for each in case.features.trailing:
        columns.setdefault(each.fact.table, {}).update(dict.fromkeys((each.fact.known_at, each.fact.value)))
        entities.setdefault(each.fact.table, {}).update(dict.fromkeys(each.entities))
    for latest in case.features.latest:
        columns.setdefault(latest.table, {}).update(dict.fromkeys((latest.known_at, *latest.values, *latest.changes)))
        entities.setdefault(latest.table, {}).update({latest.entity: None})
    return {
        table: Kept(
            table=table,
            key=case.table(table).key,
            dtype=np.dtype([("id", f"S{ID_BYTES}"), *((name, _dtype(case, table, name)) for name in names)]),
            entities=tuple(entities[table]),
        )
        for table, names in columns.items()
    }


def _dtype(case: UseCase, table: str, name: str) -> str:
    column = next(column for column in case.table(table).columns if column.name == name)
    whole = column.dtype is DType.TIMESTAMP or (column.dtype is DType.INT64 and not column.nullable)
    return "<i8" if whole else "<f8"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Windows:
    """A declaration for one entity, with what is the same for every event."""

    declared: Trailing
    ago: Int64Array  # (w,) microseconds
    names: tuple[tuple[str, ...], ...]
    """By statistic and window."""

    @classmethod
    def of(cls, declared: Trailing, entity: Entity) -> "_Windows":
        return cls(
            declared=declared,
            ago=np.array([window // MICROSECOND for window in declared.windows]),
            names=tuple(
                tuple(trailing_name(declared.fact, statistic, window, entity) for window in declared.windows)
                for statistic in declared.statistics
            ),
        )

    def over(self, history: "_History", at: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Each statistic over each window, arrays of one."""
        values = history.records[self.declared.fact.value][: history.end].astype(np.int64)
        starts = np.minimum(history.times.searchsorted(at - self.ago, side="right"), history.end)
        count = history.end - starts
        sums = {name: _since(each, starts) for name, each in summed(self.declared.statistics, values).items()}
        ages = None
        if "span" in self.declared.statistics:
            ages = np.full(len(count), -1)
            ages[count > 0] = at - history.times[starts[count > 0]]
        for names, each in zip(self.names, self.declared.statistics, strict=True):
            yield from zip(names, statistic(each, count, sums, ages)[:, np.newaxis], strict=True)


class OneEvent:
    """The features of a case, for one event at a time.

    Facts are handed over as structured arrays, one record a fact, in any order.
    """

    def __init__(self, case: UseCase) -> None:
        self.case, self.kept = case, kept_of(case)
        self._types = {column.name: column.dtype for column in case.event_table.columns}
        self._asked: dict[tuple[str, Entity], dict[tuple[str, str], tuple[list[_Windows], list[Latest]]]] = {}
        for each in case.features.trailing:
            for entity in each.entities:
                self._about(each.fact.table, entity, each.fact.known_at, each.fact.value)[0].append(_Windows.of(each, entity))
        for latest in case.features.latest:
            self._about(latest.table, latest.entity, latest.known_at, latest.known_at)[1].append(latest)

    def _about(self, table: str, entity: Entity, known_at: str, value: str) -> tuple[list[_Windows], list[Latest]]:
        gaps = value if self.kept[table].dtype[value] == np.float64 else ""
        return self._asked.setdefault((table, entity), {}).setdefault((known_at, gaps), ([], []))

    def features(
        self,
        event: Row,
        facts: Callable[[str, Entity], npt.NDArray[Any]],
        dimensions: Callable[[str, Any], Row | None] = lambda _table, _value: None,
    ) -> dict[str, Any]:
        """Every declared feature, in order.

        Args:
            event: the row of the event table, as it is known at the event.
            facts: the records kept about an entity of the event, its own included where its row is a fact.
            dimensions: the row of a table that is not delivered by day.
        """
        declared, at = self.case.features, int(event[self.case.event_time])
        columns = {name: self._array(name, event[name]) for name in declared.event_columns}
        for (table, entity), series in self._asked.items():
            records, id = facts(table, entity), str(event["event_id"]).encode() if table == self.case.events else None
            for (known_at, value), (windows, latest) in series.items():
                history = _history(records, known_at, value, at, id)
                for each in windows:
                    columns.update(each.over(history, at))
                for last in latest:
                    columns.update(_latest(last, history, at))
        for lookup in declared.lookups:
            row = dimensions(lookup.table, event[lookup.by]) or {}
            for value in lookup.values:
                columns[f"{lookup.table}_{value}"] = _one(row.get(value))
        columns |= declared.row(columns)
        return {column.name: columns[column.name][0] for column in declared.columns}

    def _array(self, name: str, value: Any) -> npt.NDArray[Any]:
        match self._types[name]:
            case DType.TIMESTAMP:
                return np.array([NEVER if value is None else value], dtype=np.int64).view("datetime64[us]")
            case DType.STRING:
                return np.array([value], dtype=object)
            case DType.INT64 if value is not None:
                return np.array([value], dtype=np.int64)
            case _:
                return _one(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class _History:
    """The facts of an entity in order, of which the first `end` were known at the event; `own`: the last of them is its own."""

    records: npt.NDArray[Any]
    times: Int64Array
    end: int
    own: bool


def _history(records: npt.NDArray[Any], known_at: str, value: str, at: int, id: bytes | None) -> _History:
    """Facts with a time and a value, by time and id; a fact of an event with the same time is known if its id is not larger."""
    there = records[known_at] != NEVER
    if value:
        there &= ~np.isnan(records[value])
    if not there.all():
        records = records[there]
    times = records[known_at]
    if (times[1:] <= times[:-1]).any():
        records = records[np.lexsort((records["id"], times))]
        times = records[known_at]
    end = int(times.searchsorted(at, side="right"))
    if id is None:
        return _History(records=records, times=times, end=end, own=False)
    first = int(times.searchsorted(at, side="left"))
    end = first + int(records["id"][first:end].searchsorted(id, side="right"))
    return _History(records=records, times=times, end=end, own=end > first and records["id"][end - 1] == id)


def _since(values: Int64Array, starts: Int64Array) -> Int64Array:
    """Sum of the values from each start on."""
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values, out=sums[1:])
    found: Int64Array = sums[-1] - sums[starts]
    return found


def _latest(declared: Latest, history: _History, at: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    before = None
    if declared.changes:
        before = history.times.searchsorted([at - declared.change_over // MICROSECOND], side="right") - 1
    yield from latest_columns(
        declared,
        np.array([history.end - 1 - (history.own and not declared.itself)]),
        before,
        known_at=history.times,
        asked_at=np.array([at]),
        values=history.records.__getitem__,
    )


def _one(value: Any) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value], dtype=np.float64)
