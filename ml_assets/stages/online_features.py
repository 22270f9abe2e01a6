"""Features of a few events at once from the facts kept about their entities: the declarations of `features`, the same to the last bit.

Belongs here: arithmetic on the few facts of an entity. Does not: what is kept of a row (`stages.kept`), and where (`storage.online`). A
table of a million events goes through `features.compute`; here a single one takes a fraction of a millisecond.

A single event asks for little, so that what counts is how often numpy is called, not for how much: the facts of all series of all events
stand in one array, one search answers where every window begins and ends, and each statistic is computed once for everything that asks
for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_assets.stages.availability import NEVER
from ml_assets.stages.exact import FITS, RunningSums, Sums, at_least
from ml_assets.stages.features import columns_of, fresh, latest_columns, nowhere, row_features, statistic, too_large, trailing_name
from ml_assets.stages.kept import ID_BYTES, MICROSECOND, Place, Records, Row, kept_of, key_of, may_be_missing
from ml_assets.stages.moments import MOMENTS, moment
from ml_assets.stages.questions import Entity
from ml_assets.stages.windows import Int64Array
from ml_assets.use_case import Column, DType, Latest, Share, Trailing, UseCase

_TIME_BITS = 53
_MIDDLE, _LAST = 1 << (_TIME_BITS - 1), (1 << _TIME_BITS) - 1
_MOST_BLOCKS = 1 << (63 - _TIME_BITS)
"""So many fit beside a time into 63 bits."""


class OnlineFeatures:
    """The features of a case, for a few events at a time."""

    def __init__(self, case: UseCase) -> None:
        self.case, self.kept = case, kept_of(case)
        self._columns = {column.name: column for column in case.event_table.columns}
        self._names = frozenset(case.features.names)
        self._prefixes = {
            (name, entity): prefix
            for name, kept in self.kept.items()
            for entity, prefix in zip(kept.entities, kept.prefixes, strict=True)
        }
        self._plan = _Plan.of(case, self._series_of)
        self._at_once = max(1, _MOST_BLOCKS // max(1, len(self._plan.series)))

    def _series_of(self, table: str, entity: Entity, known_at: str, value: str) -> "_Series":
        kept = self.kept[table]
        of_value, time = (next(column for column in kept.table.columns if column.name == name) for name in (value, known_at))
        gaps = value if of_value.dtype is not DType.TIMESTAMP and may_be_missing(self.case, table, of_value) else ""
        missing = bool(gaps) or time.nullable or time.known_at is not None
        return _Series(place=(table, entity), known_at=known_at, gaps=gaps, missing=missing, own=table == self.case.events)

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

        Raises:
            UndeclaredFeatureError: the case computes other features than it declares.
        """
        if len(events) > self._at_once:
            starts = range(0, len(events), self._at_once)
            some = [slice(start, start + self._at_once) for start in starts]
            parts = [self.compute(events[part], facts, dimensions, keys=keys and keys[part]) for part in some]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        declared = self.case.features
        columns = {name: self._array(self._columns[name], [event[name] for event in events]) for name in declared.event_columns}
        if facts is None:
            given = columns_of(declared.trailing, declared.latest, declared.lookups)
            columns |= dict.fromkeys((column.name for column in given), np.full(len(events), np.nan))
        else:
            of_events = keys or [self.keys(event) for event in events]
            columns.update(self._plan.answers(self._known(events, facts, of_events)))
            for lookup in declared.lookups:
                rows = [dimensions(lookup.table, event[lookup.by]) or {} for event in events]
                for value in lookup.values:
                    columns[f"{lookup.table}_{value}"] = _floats([row.get(value) for row in rows])
        columns |= row_features(self.case, columns, self._names)
        try:
            return {column.name: columns[column.name] for column in declared.columns}
        except KeyError as error:
            raise nowhere(self.case, error) from None

    def _known(
        self, events: Sequence[Row], facts: Mapping[bytes, bytes], of_events: Sequence[Mapping[Place, bytes | None]]
    ) -> "_Known":
        """What is kept about the entities of the events."""
        records: dict[Place, Records] = {}
        counts: dict[Place, list[int]] = {}
        for place in self._prefixes:
            found = [facts.get(key, b"") if (key := of_event[place]) else b"" for of_event in of_events]
            dtype = self.kept[place[0]].dtype
            records[place] = np.frombuffer(b"".join(found), dtype=dtype)
            counts[place] = [len(each) // dtype.itemsize for each in found]
        ids = np.array([str(event["event_id"]).encode() for event in events], dtype=f"S{ID_BYTES}")
        at = np.array([event[self.case.event_time] for event in events], dtype=np.int64)
        return _Known.of(self._plan, records, counts, at=at, ids=ids)

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
class _Series:
    """The facts of an entity that have a time and, where `gaps` names a column, a value in it."""

    place: Place
    known_at: str
    gaps: str
    missing: bool
    """Whether there are rows without a time or, in `gaps`, a value."""
    own: bool
    """Whether these are rows of events: of what has the time of an event, only ids up to its own count."""


@dataclass(kw_only=True, slots=True)
class _Statistic:
    """A statistic, and over which windows it is asked: features, windows and sums at the same places belong together."""

    declared: str | Share
    names: list[str] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    sums: dict[str | Share, list[int]] = field(default_factory=dict)


VALUE, SQUARE = "value", "square"
_SUMS: Mapping[str, tuple[str, ...]] = {"sum": (VALUE,), "mean": (VALUE,), "std": (VALUE, SQUARE)}
"""What is summed for a statistic: nothing for others than these and shares."""


@dataclass(kw_only=True)
class _Plan:
    """What a case asks about facts, as arrays: made once, the same for all events."""

    series: list[_Series] = field(default_factory=list)
    windows: list[tuple[int, timedelta]] = field(default_factory=list)
    """A series, and from how long before an event on."""
    values: list[tuple[int, str]] = field(default_factory=list)
    """A series and a column of it that has to do with sums."""
    summed: list[tuple[int, str | Share]] = field(default_factory=list)
    """What is summed of which of `values`: themselves, their squares, or whether they are at least what a share says."""
    sums: list[tuple[int, int]] = field(default_factory=list)
    """What of `summed`, over which window."""
    statistics: dict[object, _Statistic] = field(default_factory=dict)
    of_values: dict[int, dict[str | Share, _Statistic]] = field(default_factory=dict)
    """What is asked of each of `values` alone."""
    latest: list[tuple[int, Latest]] = field(default_factory=list)

    @classmethod
    def of(cls, case: UseCase, series_of: Callable[[str, Entity, str, str], _Series]) -> "_Plan":
        plan = cls()
        for each in case.features.trailing:
            for entity in each.entities:
                plan._ask(
                    each, entity, _place(plan.series, series_of(each.fact.table, entity, each.fact.known_at, each.fact.value))
                )
        for latest in case.features.latest:
            series = _place(plan.series, series_of(latest.table, latest.entity, latest.known_at, latest.known_at))
            plan.latest.append((series, latest))
            if latest.changes:
                _place(plan.windows, (series, latest.change_over))
        plan._freeze()
        return plan

    def _ask(self, declared: Trailing, entity: Entity, series: int) -> None:
        for each in declared.statistics:
            asked = self.statistics.setdefault(each, _Statistic(declared=each))
            for window in declared.windows:
                row = _place(self.windows, (series, window))
                asked.names.append(trailing_name(declared.fact, each, window, entity))
                asked.windows.append(row)
                if not (sums := (each,) if isinstance(each, Share) else _SUMS.get(each, ())):
                    continue
                values = _place(self.values, (series, declared.fact.value))
                alone = self.of_values.setdefault(values, {}).setdefault(each, _Statistic(declared=each))
                alone.names.append(asked.names[-1])
                alone.windows.append(row)
                for what in sums:
                    asked.sums.setdefault(what, []).append(_place(self.sums, (_place(self.summed, (values, what)), row)))

    def _freeze(self) -> None:
        self.of_windows = np.array([series for series, _ in self.windows], dtype=np.int64)
        self._blocks = np.array([*range(len(self.series)), *self.of_windows], dtype=np.int64)
        ago = [0] * len(self.series) + [window // MICROSECOND for _, window in self.windows]
        self._ago = np.array(ago, dtype=np.int64)[:, np.newaxis]
        self._first: dict[int, tuple[Int64Array, Int64Array]] = {}
        self.any_missing = any(each.missing for each in self.series)
        self.own = [place for place, each in enumerate(self.series) if each.own]
        self.sum_rows = np.array([row for _, row in self.sums], dtype=np.int64)
        self.sum_of = np.array([what for what, _ in self.sums], dtype=np.int64)
        self._asked = [
            (each, np.array(each.windows), {what: np.array(places) for what, places in each.sums.items()})
            for each in self.statistics.values()
        ]
        self._spans = np.array(self.statistics["span"].windows if "span" in self.statistics else [], dtype=np.int64)
        self._latest_series = np.array([series for series, _ in self.latest], dtype=np.int64)
        self._alone = np.array([not each.itself for _, each in self.latest], dtype=bool)[:, np.newaxis]
        self._within = np.array([each.within / timedelta(minutes=1) for _, each in self.latest])[:, np.newaxis]

    def first(self, events: int) -> tuple[Int64Array, Int64Array]:
        """The least place of each series of each event, shape (series * events,); and of what is searched, (series + windows, events)."""
        if events not in self._first:
            blocks = np.arange(len(self.series) * events, dtype=np.int64) << _TIME_BITS
            self._first[events] = blocks, blocks.reshape(len(self.series), events)[self._blocks]
        return self._first[events]

    def searched(self, at: Int64Array) -> Int64Array:
        """The places of the events in each series, and so long before them as windows begin, shape (series + windows, events)."""
        return self.first(len(at))[1] + _within_a_block(at - self._ago)

    def answers(self, known: "_Known") -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Each feature, an array with a value for each event."""
        if self.windows:
            yield from self._statistics(known)
        if self.latest:
            yield from self._latest(known)

    def _statistics(self, known: "_Known") -> Iterator[tuple[str, npt.NDArray[Any]]]:
        ends = known.ends[self.of_windows]
        starts = np.minimum(known.starts, ends)
        count = ends - starts
        sums, reach, large = known.sums(starts, ends) if self.sums else (count, 0, {})
        ages = known.ages(starts[self._spans], count[self._spans]) if len(self._spans) else None
        for each, windows, of_sums in self._asked:
            summed = {what: sums[places] for what, places in of_sums.items()}
            if isinstance(each.declared, str) and each.declared in MOMENTS:
                second = (summed[SQUARE],) if SQUARE in summed else ()
                values = moment(each.declared, Sums(count=count[windows], first=(summed[VALUE],), second=second, reach=reach))
            else:
                passed = summed[each.declared] if isinstance(each.declared, Share) else None
                values = statistic(each.declared, count[windows], passed, ages)
            yield from zip(each.names, values, strict=True)
        for of, values in large.items():
            first = known.bounds[self.values[of][0]]
            yield from self._of_large(of, values, starts - first, ends - first)

    def _of_large(
        self, of: int, values: npt.NDArray[Any], starts: Int64Array, ends: Int64Array
    ) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """What is asked of values whose sums do not fit into 64 bits; `starts` and `ends` count from the first of them on."""
        running = RunningSums.of(values)
        for declared, each in self.of_values[of].items():
            begin, end = starts[each.windows], ends[each.windows]
            if isinstance(declared, Share):
                passed = np.concatenate([[0], at_least(values, declared.at_least).cumsum()])
                answers = statistic(declared, end - begin, passed[end] - passed[begin], None)
            else:
                try:
                    answers = moment(declared, running.between(begin, end))
                except OverflowError as error:
                    series, column = self.values[of]
                    raise too_large(self.series[series].place[0], column) from error
            yield from zip(each.names, answers, strict=True)

    def _latest(self, known: "_Known") -> Iterator[tuple[str, npt.NDArray[Any]]]:
        series = self._latest_series
        ends = known.ends[series] - (known.own[series] & self._alone)
        now, age = fresh(known.in_block(ends - 1, series), known.times, known.at, self._within)
        for place, (of, declared) in enumerate(self.latest):
            before = None
            if declared.changes:
                begins = known.starts[self.windows.index((of, declared.change_over))]
                moment = known.at - declared.change_over // MICROSECOND
                before, _ = fresh(known.in_block(begins - 1, of), known.times, moment, declared.within / timedelta(minutes=1))
            yield from latest_columns(declared, now[place], age[place], before, values=partial(known.all_but_before, of))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """The facts that have a time and a value, by series, event, time and id.

    A series of an event is a block, which has all facts of its entity: one search answers for all events.
    """

    plan: _Plan
    at: Int64Array  # (m,) microseconds since the epoch, when the events were
    records: Mapping[Place, Records]
    begins: Sequence[int]
    """Where the records of each series begin, and where the last one's end."""
    order: Int64Array | None  # (n,) which record a fact is, of the records of all series; None where they are the same
    bounds: Sequence[int]
    """Where the facts of each series begin, and where the last one's end."""
    times: Int64Array  # (n,)
    places: Int64Array  # (n,) block and time in one number, ascending
    ends: Int64Array  # (series, m) up to where facts were known at an event
    starts: Int64Array  # (windows, m) ditto when a window began
    own: npt.NDArray[np.bool_]  # (series, m) whether the last of the facts known at an event is the event itself

    @classmethod
    def of(
        cls,
        plan: _Plan,
        records: Mapping[Place, Records],
        counts: Mapping[Place, list[int]],
        *,
        at: Int64Array,
        ids: npt.NDArray[np.bytes_],
    ) -> "_Known":
        """The facts in order.

        Args:
            records: those of all events, in the order of the events.
            counts: how many of them belong to each event.
            at: microseconds since the epoch, shape (m,).
            ids: of the events, shape (m,).
        """
        series = plan.series
        begins = list(accumulate((len(records[each.place]) for each in series), initial=0))
        bounds, order = begins, None
        times = np.concatenate([records[each.place][each.known_at] for each in series]) if series else at[:0]
        first = plan.first(len(at))[0].repeat([count for each in series for count in counts[each.place]])
        if plan.any_missing and not (there := _there(plan, records, begins, times)).all():
            order = there.nonzero()[0]
            times, first, bounds = times[order], first[order], order.searchsorted(begins).tolist()
        places = first + _within_a_block(times)
        if (places[1:] <= places[:-1]).any():
            again = places.argsort(kind="stable")
            if (places[again[1:]] == places[again[:-1]]).any():
                of_records = np.concatenate(
                    [records[each.place][(records[each.place].dtype.names or ("id",))[0]] for each in series]
                )
                again = np.lexsort((of_records if order is None else of_records[order], places))
            places, times, order = places[again], times[again], again if order is None else order[again]
        searched = plan.searched(at)
        found = places.searchsorted(searched, side="right")
        ends, starts = found[: len(series)], found[len(series) :]
        own = np.zeros(ends.shape, dtype=bool)
        known = cls(
            plan=plan,
            at=at,
            records=records,
            begins=begins,
            order=order,
            bounds=bounds,
            times=times,
            places=places,
            ends=ends,
            starts=starts,
            own=own,
        )
        for of in plan.own if len(places) else ():
            known._leave_out_later_ids(of, searched[of], ids)
        return known

    def _leave_out_later_ids(self, of: int, now: Int64Array, ids: npt.NDArray[np.bytes_]) -> None:
        """What happened at the same time as an event counts as before it up to its own id."""
        ends = self.ends[of]
        while (now_too := (ends > 0) & (self.places[ends - 1] == now)).any():
            last = np.where(now_too, ends - 1, self.bounds[of])
            found = self.column(of, "id")[last - self.bounds[of]]
            if not (later := now_too & (found > ids)).any():
                self.own[of] = now_too & (found == ids)
                break
            ends -= later

    def column(self, of: int, name: str) -> npt.NDArray[Any]:
        """A value of each fact of a series."""
        values: npt.NDArray[Any] = self.records[self.plan.series[of].place][name]
        if self.order is None:
            return values
        return values[self.order[self.bounds[of] : self.bounds[of + 1]] - self.begins[of]]

    def all_but_before(self, of: int, name: str) -> npt.NDArray[Any]:
        """A value of each fact of a series, at the places of all facts; what stands before them is of nobody."""
        found = self.column(of, name)
        return np.concatenate([np.zeros(self.bounds[of], dtype=found.dtype), found])

    def sums(self, starts: Int64Array, ends: Int64Array) -> tuple[Int64Array, int, dict[int, npt.NDArray[Any]]]:
        """Of what is summed, over its windows, shape (sums, m), and a number that no sum of values exceeds.

        And values whose sums may leave 64 bits, by their place in the plan: they are summed as if they were 0.
        """
        plan = self.plan
        whole, reach, large = _whole([self.column(of, column) for of, column in plan.values])
        parts: list[Int64Array] = []
        shifts, length = list[int](), 0
        for of, what in plan.summed:
            parts.append(_summand(what, whole[of]))
            shifts.append(length - self.bounds[plan.values[of][0]])
            length += len(parts[-1])
        running = np.zeros(length + 1, dtype=np.int64)
        np.concatenate(parts).cumsum(out=running[1:])
        shift = np.array(shifts, dtype=np.int64)[plan.sum_of, np.newaxis]
        found: Int64Array = running[ends[plan.sum_rows] + shift] - running[starts[plan.sum_rows] + shift]
        return found, reach, large

    def ages(self, starts: Int64Array, count: Int64Array) -> Int64Array:
        """Of the oldest fact in each of some windows, -1 where there is none."""
        if not len(self.times):
            return np.full(count.shape, -1)
        there = count > 0
        return np.where(there, self.at - self.times[starts * there], -1)

    def in_block(self, index: Int64Array, series: Int64Array | int) -> Int64Array:
        """Facts, and -1 for those that are of another series or event, since there is none before."""
        if not len(self.places):
            return np.full(index.shape, -1)
        first = self.plan.first(len(self.at))[1][: len(self.ends)][series]
        return np.where((index >= 0) & (self.places[np.maximum(index, 0)] >= first), index, -1)


def _place(of: list[Any], item: Any) -> int:
    """Where an item is in a list, at the end if it is new."""
    if item not in of:
        of.append(item)
    return of.index(item)


def _summand(what: str | Share, values: Int64Array) -> Int64Array:
    if isinstance(what, Share):
        return at_least(values, what.at_least)
    return values * values if what == SQUARE else values


def _whole(values: Sequence[npt.NDArray[Any]]) -> tuple[list[Int64Array], int, dict[int, npt.NDArray[Any]]]:
    """Values that are whole and of which sums of squares fit into 64 bits, what their sums do not exceed, and the others by their place.

    All are looked at together first, which is enough almost always.
    """
    every = np.concatenate(values)
    largest = max(float(every.max(initial=0)), -float(every.min(initial=0)))
    if largest * largest * len(every) < FITS and ((whole := every.astype(np.int64)) == every).all():
        bounds = list(accumulate(map(len, values), initial=0))
        return [whole[begin:end] for begin, end in pairwise(bounds)], int(largest) * len(every), {}
    if len(values) == 1:
        return [np.zeros(len(every), dtype=np.int64)], 0, {0: every}
    alone = [_whole([each]) for each in values]
    large = {place: values[place] for place, (_, _, of_others) in enumerate(alone) if of_others}
    return [whole for [whole], _, _ in alone], max(reach for _, reach, _ in alone), large


def _there(plan: _Plan, records: Mapping[Place, Records], begins: Sequence[int], times: Int64Array) -> npt.NDArray[np.bool_]:
    """Which records have a time and, in the column that counts, a value."""
    there: npt.NDArray[np.bool_] = times != NEVER
    for place, each in enumerate(plan.series):
        if each.gaps:
            values = records[each.place][each.gaps]
            there[begins[place] : begins[place + 1]] &= (values != NEVER) if values.dtype == np.int64 else ~np.isnan(values)
    return there


def _within_a_block(times: Int64Array) -> Int64Array:
    """Times of some 140 years before and after 1970 as numbers from 0 on; others are as if at the end of these."""
    found: Int64Array = np.minimum(np.maximum(times + _MIDDLE, 0), _LAST)
    return found


def _floats(values: list[Any]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
