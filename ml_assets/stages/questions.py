"""What events ask of the facts in tables: which facts, in which order, about which entities. Each is found once and shared by features.

Belongs here: bringing columns of tables into the numbers that `windows` computes with. Does not: statistics (`features`).

A step is arithmetic of numpy and pyarrow on whole columns, which lets other threads run: large tables keep every core busy.
"""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.stages.availability import NEVER, known_times, microseconds
from ml_assets.stages.windows import Int64Array, Known, Timeline
from ml_assets.use_case import Latest, Trailing, UseCase

MANY_EVENTS = 50_000
"""From here on threads are worth their start."""

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")
Entity = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The rows of a table with a `known_at` and a value, in the order in which they became known; `value` "" if none is missing."""

    table: str
    known_at: str
    id: str
    value: str = ""


class Questions:
    """The events as questions about the facts that a case declares."""

    def __init__(self, case: UseCase, events: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> None:
        self._case, self._events, self.tables = case, events, tables
        self.asked_at = microseconds(events[case.event_time])
        values = {(each.fact.table, each.fact.value) for each in case.features.trailing}
        self._with_gaps = {(table, value) for table, value in values if tables[table][value].hasnans}
        asked = [(self.series(each), entity) for each in case.features.trailing for entity in each.entities]
        asked += [(self.series(each), each.entity) for each in case.features.latest]
        columns = [(series.table, column) for series, entity in asked for column in entity]
        self._asked_codes = self.each(self._code_asked, [column for _, column in columns])
        self._fact_codes = self.each(self._code_facts, columns)
        self._known_times = self.each(self._times_of, [(series.table, series.known_at) for series, _ in asked])
        self._ranks = self.each(self._rank, [(series.table, series.id) for series, _ in asked])
        self._rows = self.each(self._rows_of, [series for series, _ in asked])
        self._timelines = self.each(self._timeline, self._rows)
        self.asked = list(dict.fromkeys(asked))

    def each(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> dict[Item, Answer]:
        """The answer for each distinct item, in threads where there is much to do."""
        distinct = list(dict.fromkeys(items))
        if len(self.asked_at) < MANY_EVENTS:
            return {item: function(item) for item in distinct}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip(distinct, pool.map(function, distinct), strict=True))

    def series(self, declared: Trailing | Latest) -> Series:
        """What a declaration asks about."""
        if isinstance(declared, Latest):
            return Series(table=declared.table, known_at=declared.known_at, id=declared.id)
        fact = declared.fact
        gaps = fact.value if (fact.table, fact.value) in self._with_gaps else ""
        return Series(table=fact.table, known_at=fact.known_at, id=fact.id, value=gaps)

    def known(self, series: Series, entity: Entity) -> Known:
        """What is known about an entity. It is not kept: of a large table it takes as much memory as some thirty answers."""
        facts, events = self._entity_codes(series.table, entity)
        return Known.of(self._timelines[series], fact_entity=facts[self._rows[series]], asked_entity=events)

    def values(self, declared: Trailing | Latest, column: str) -> npt.NDArray[Any]:
        """A column of the facts that a declaration asks about, in the table's order."""
        series = self.series(declared)
        values: npt.NDArray[Any] = self.tables[series.table][column].to_numpy()[self._rows[series]]
        return values

    def known_at(self, declared: Trailing | Latest) -> Int64Array:
        """When each of these facts became known, in microseconds since the epoch."""
        return self._known_at(self.series(declared))

    def _code_asked(self, column: str) -> tuple[Int64Array, pa.Array]:
        """A whole number for each value that events have in a column, -1 for none, and the values."""
        encoded = _arrow(self._events[column]).dictionary_encode()
        return encoded.indices.fill_null(-1).to_numpy().astype(np.int64), encoded.dictionary

    def _code_facts(self, of: tuple[str, str]) -> Int64Array:
        """The same number for the same value in a table; -1 for values that no event has."""
        table, column = of
        values, (_, asked) = _arrow(self.tables[table][column]), self._asked_codes[column]
        if pa.types.is_null(values.type) or pa.types.is_null(asked.type):  # a column without any value has no type
            return np.full(len(values), -1, dtype=np.int64)
        if values.type != asked.type:
            events = self._case.events
            raise TypeError(f"{column} is {values.type} in {table} and {asked.type} in {events}: declare one type for it in both")
        found: Int64Array = pc.index_in(values, asked).fill_null(-1).to_numpy().astype(np.int64)
        return found

    def _rank(self, of: tuple[str, str]) -> tuple[Int64Array, Int64Array]:
        """Ids of facts and of events on one scale, which says what came first at one moment."""
        table, id = of
        facts, events = self.tables[table], self._events
        if table != self._case.events:
            # Ids of another kind of thing cannot be compared with those of events: what is known at the very moment counts.
            return np.zeros(len(facts), dtype=np.int64), np.ones(len(events), dtype=np.int64)
        both = pd.concat([facts[id], events["event_id"]], ignore_index=True)
        codes = pd.factorize(both, sort=True)[0].astype(np.int64)
        return codes[: len(facts)], codes[len(facts) :]

    def _times_of(self, of: tuple[str, str]) -> Int64Array:
        """From when on each row of a table counts."""
        table, column = of
        within = self._case.features.known_within(table, column)
        return known_times(self._case, self._case.table(table), self.tables[table], column, within=within)

    def _rows_of(self, series: Series) -> Int64Array:
        there = self._known_times[series.table, series.known_at] != NEVER
        return np.flatnonzero(there & self.tables[series.table][series.value].notna() if series.value else there)

    def _known_at(self, series: Series) -> Int64Array:
        return self._known_times[series.table, series.known_at][self._rows[series]]

    def _timeline(self, series: Series) -> Timeline:
        rows, (of_facts, of_events) = self._rows[series], self._ranks[series.table, series.id]
        known_at = self._known_at(series)
        timeline = Timeline.of(known_at=known_at, fact_id=of_facts[rows], asked_at=self.asked_at, asked_id=of_events)
        for window in {window for each in self._case.features.trailing if self.series(each) == series for window in each.windows}:
            timeline.before(window)  # here, since entities share it
        return timeline

    def _entity_codes(self, table: str, entity: Entity) -> tuple[Int64Array, Int64Array]:
        """One whole number for each entity that events have, in facts and events; -1 where a part is missing or no event has it."""
        facts, asked = self._fact_codes[table, entity[0]], self._asked_codes[entity[0]][0]
        for column in entity[1:]:
            fact_part, (asked_part, values) = self._fact_codes[table, column], self._asked_codes[column]
            facts, asked = (
                np.where((code < 0) | (part < 0), -1, code * len(values) + part)
                for code, part in ((facts, fact_part), (asked, asked_part))
            )
            facts, asked = _dense(facts, asked)  # products of products would leave 64 bits
        return facts, asked


def _dense(facts: Int64Array, asked: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Codes below the number of events, -1 for facts with a code that no event has."""
    known = np.unique(asked[asked >= 0])
    return _place(known, facts), _place(known, asked)


def _place(known: Int64Array, codes: Int64Array) -> Int64Array:
    """Where each code stands among the known ones, which ascend; -1 if it does not."""
    place = np.searchsorted(known, codes)
    found = place < len(known)
    found[found] = known[place[found]] == codes[found]
    return np.where(found, place, -1)


def _arrow(values: pd.Series) -> pa.Array:
    array = pa.array(values, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.large_string()) if pa.types.is_string(array.type) else array  # of texts pandas makes one or the other
