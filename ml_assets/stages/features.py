"""Features of events, point in time: the one definition that a backfill of a year and a single request share.

Belongs here: turning a declaration (`Features`) and clean tables into one row an event. Does not: reading tables, judging them.

What is unknown is missing: a mean over no facts, a plane that is not registered, weather that was never reported are nan.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.windows import Int64Array, Known, Timeline, ratio, span, trailing
from ml_assets.use_case import Column, DType, Fact, Latest, Lookup, Share, Trailing, UseCase

Tables = Mapping[str, pd.DataFrame]
MICROSECONDS_A_DAY = 86_400_000_000


def compute(case: UseCase, events: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Features of events from what was known at their time.

    Args:
        events: rows of the event table: `event_id`, `day`, the event time and the case's `event_columns` are looked at.
        tables: clean tables by name with all rows of the look-back; later rows do no harm.

    Returns:
        `event_id`, `event_time`, `day` and every declared feature, one row an event, in the order of `events`.
    """
    declared = case.features
    columns = {name: _array(events[name]) for name in declared.event_columns}
    columns |= dict(_derived(case, events, tables))
    columns |= declared.row(columns)
    kept = {column.name: _typed(columns[column.name], column) for column in declared.columns}
    head = {"event_id": events["event_id"].array, "event_time": events[case.event_time].array, "day": events["day"].array}
    return pd.DataFrame(head | kept, copy=False)  # a copy would gather the numbers in one block, and double the memory


def columns_of(trailing: Sequence[Trailing], latest: Sequence[Latest], lookups: Sequence[Lookup]) -> tuple[Column, ...]:
    """The feature columns that a declaration brings with it, in the order in which they are computed."""
    return (
        *(column for each in trailing for column in _trailing_columns(each)),
        *(column for each in latest for column in _latest_columns(each)),
        *(
            _number(f"{each.table}_{value}", f"{value} of the {each.by}, from {each.table}")
            for each in lookups
            for value in each.values
        ),
    )


def _derived(case: UseCase, events: pd.DataFrame, tables: Tables) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    questions = _Questions(case, events, tables)
    for each in case.features.trailing:
        yield from _trailing_values(each, questions)
    for latest in case.features.latest:
        yield from _latest_values(latest, questions)
    for lookup in case.features.lookups:
        found = tables[lookup.table].set_index(lookup.by).reindex(events[lookup.by])
        yield from ((f"{lookup.table}_{value}", found[value].to_numpy(dtype=np.float64)) for value in lookup.values)


class _Questions:
    """The events as questions, with the timelines and entity codes that several features share."""

    def __init__(self, case: UseCase, events: pd.DataFrame, tables: Tables) -> None:
        self.case, self.events, self.tables = case, events, tables
        self.asked_at = _microseconds(events[case.event_time])
        self._ranks: dict[tuple[str, str], tuple[Int64Array, Int64Array]] = {}
        self._entities: dict[tuple[str, tuple[str, ...]], tuple[Int64Array, Int64Array]] = {}
        self._timelines: dict[tuple[str, str, str], tuple[Timeline, Int64Array]] = {}
        self._known: dict[tuple[str, tuple[str, ...], str, str], Known] = {}

    def about(self, table: str, entity: tuple[str, ...], *, known_at: str, value: str, id: str) -> tuple[Known, Int64Array]:
        """What is known about entities, and which rows of the table are facts: those whose `known_at` and value exist."""
        facts = self.tables[table]
        there = "" if facts[value].notna().all() else value  # values that are never missing have one timeline
        timeline, rows = self._timeline(table, known_at, there, id)
        key = (table, entity, known_at, there)
        if key not in self._known:
            fact_entity, asked_entity = self._entity(table, entity)
            self._known[key] = Known.of(timeline, fact_entity=fact_entity[rows], asked_entity=asked_entity)
        return self._known[key], rows

    def _timeline(self, table: str, known_at: str, value: str, id: str) -> tuple[Timeline, Int64Array]:
        key = (table, known_at, value)
        if key not in self._timelines:
            facts = self.tables[table]
            rows = np.flatnonzero(facts[known_at].notna() & (facts[value].notna() if value else True))
            fact_rank, asked_rank = self._rank(table, id)
            timeline = Timeline.of(
                known_at=_microseconds(facts[known_at])[rows], fact_id=fact_rank[rows], asked_at=self.asked_at, asked_id=asked_rank
            )
            self._timelines[key] = timeline, rows
        return self._timelines[key]

    def _entity(self, table: str, entity: tuple[str, ...]) -> tuple[Int64Array, Int64Array]:
        """One whole number for each entity, the same in facts and events; -1 where a part of it is missing."""
        if (table, entity) not in self._entities:
            facts = self.tables[table]
            if len(entity) == 1:
                codes, _ = pd.factorize(pd.concat([facts[entity[0]], self.events[entity[0]]], ignore_index=True))
            else:
                parts = [np.concatenate(self._entity(table, (column,))) for column in entity]
                codes = parts[0]
                for part in parts[1:]:
                    codes = np.where((codes < 0) | (part < 0), -1, codes * (part.max(initial=0) + 1) + part)
            self._entities[table, entity] = codes[: len(facts)], codes[len(facts) :]
        return self._entities[table, entity]

    def _rank(self, table: str, id: str) -> tuple[Int64Array, Int64Array]:
        if (table, id) not in self._ranks and table != self.case.events:
            # Ids of another kind of thing cannot be compared with those of events: what is known at the very moment counts.
            self._ranks[table, id] = np.zeros(len(self.tables[table]), dtype=np.int64), np.ones(len(self.events), dtype=np.int64)
        elif (table, id) not in self._ranks:
            both = pd.concat([self.tables[table][id], self.events["event_id"]], ignore_index=True)
            codes = pd.factorize(both, sort=True)[0].astype(np.int64)
            facts = len(self.tables[table])
            self._ranks[table, id] = codes[:facts], codes[facts:]
        return self._ranks[table, id]


def _trailing_values(declared: Trailing, questions: _Questions) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    fact = declared.fact
    for entity in declared.entities:
        known, rows = questions.about(fact.table, entity, known_at=fact.known_at, value=fact.value, id=fact.id)
        values = questions.tables[fact.table][fact.value].to_numpy()[rows].astype(np.int64)
        wanted = _summed(declared.statistics, values)
        answers = trailing(known, list(wanted.values()), declared.windows)
        ages = span(known, declared.windows) if "span" in declared.statistics else {}
        for window in declared.windows:
            count, *sums = answers[window]
            total = dict(zip(wanted, sums, strict=True))
            for statistic in declared.statistics:
                match statistic:
                    case "count":
                        answer: npt.NDArray[Any] = count.astype(np.float64)
                    case "sum":
                        answer = total[""].astype(np.float64)
                    case "mean":
                        answer = ratio(total[""], count)
                    case "std":
                        mean = ratio(total[""], count)
                        answer = np.sqrt(np.maximum(ratio(total["square"], count) - mean * mean, 0.0))
                    case "span":
                        answer = np.where(ages[window] >= 0, ages[window] / MICROSECONDS_A_DAY, np.nan)
                    case Share():
                        answer = ratio(total[statistic.name], count)
                yield _trailing_name(fact, statistic, window, entity), answer


def _summed(statistics: Sequence[object], values: Int64Array) -> dict[str, Int64Array]:
    """What has to be summed for some statistics: nothing for counts."""
    wanted = {"": values} if {"sum", "mean", "std"} & {each for each in statistics if isinstance(each, str)} else {}
    wanted |= {"square": values * values} if "std" in statistics else {}
    return wanted | {each.name: (values >= each.at_least).astype(np.int64) for each in statistics if isinstance(each, Share)}


def _latest_values(declared: Latest, questions: _Questions) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    facts = questions.tables[declared.table]
    known, rows = questions.about(
        declared.table, declared.entity, known_at=declared.known_at, value=declared.known_at, id=declared.id
    )
    known_at = _microseconds(facts[declared.known_at])[rows].astype(np.float64)
    now, age = _within(known.latest(itself=declared.itself), known_at, questions.asked_at, declared.within)
    for value in declared.values:
        yield f"{declared.name}_{value}", _take(facts[value].to_numpy(dtype=np.float64)[rows], now)
    if declared.changes:
        then = questions.asked_at - declared.change_over // timedelta(microseconds=1)
        before, _ = _within(known.latest(declared.change_over), known_at, then, declared.within)
    for value in declared.changes:
        values = facts[value].to_numpy(dtype=np.float64)[rows]
        yield f"{declared.name}_{value}_change", _take(values, now) - _take(values, before)
    yield f"{declared.name}_age_minutes", age


def _within(
    latest: Int64Array, known_at: npt.NDArray[np.float64], asked_at: Int64Array, limit: timedelta
) -> tuple[Int64Array, npt.NDArray[np.float64]]:
    """Index and age in minutes of the latest fact, -1 and nan where it is older than the limit or there is none."""
    age = (asked_at - _take(known_at, latest)) / 60e6
    fresh = age <= limit / timedelta(minutes=1)
    return np.where(fresh, latest, -1), np.where(fresh, age, np.nan)


def _take(values: npt.NDArray[np.float64], index: Int64Array) -> npt.NDArray[np.float64]:
    """Values at an index, nan where the index is -1."""
    return np.append(values, np.nan)[index]


def _microseconds(instants: pd.Series) -> Int64Array:
    naive: Int64Array = instants.dt.as_unit("us").dt.tz_convert(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return naive


def _array(values: pd.Series) -> npt.NDArray[Any]:
    """A column as numpy has it: instants as datetime64[us] in UTC, since pandas would give an object for each."""
    return _microseconds(values).view("datetime64[us]") if isinstance(values.dtype, pd.DatetimeTZDtype) else values.to_numpy()


def _typed(values: npt.NDArray[Any], column: Column) -> Any:
    return pd.array(values, dtype="str") if column.dtype is DType.STRING else np.asarray(values, dtype=np.float64)


def _trailing_columns(declared: Trailing) -> Iterator[Column]:
    for entity in declared.entities:
        for statistic in declared.statistics:
            unit, maximum = _unit(declared.fact, statistic)
            for window in declared.windows:
                name = _trailing_name(declared.fact, statistic, window, entity)
                what = statistic.name if isinstance(statistic, Share) else statistic
                text = f"{what} of {declared.fact.name} known in the {_short(window)} before, same {' and '.join(entity)}"
                minimum = None if what in ("mean", "sum") else 0.0
                nullable = what not in ("count", "sum")
                yield Column(
                    name=name, dtype=DType.FLOAT64, description=text, unit=unit, nullable=nullable, minimum=minimum, maximum=maximum
                )


def _unit(fact: Fact, statistic: object) -> tuple[str, float | None]:
    if isinstance(statistic, Share):
        return "share", 1.0
    units = {"count": "facts", "span": "days"}
    return units.get(str(statistic), fact.unit), None


def _latest_columns(declared: Latest) -> Iterator[Column]:
    entity = " and ".join(declared.entity)
    for value in declared.values:
        yield _number(f"{declared.name}_{value}", f"latest {value} known for the {entity}")
    for value in declared.changes:
        text = f"change of {value} over {_short(declared.change_over)}, latest known for the {entity}"
        yield _number(f"{declared.name}_{value}_change", text)
    yield _number(f"{declared.name}_age_minutes", f"age of the latest {declared.name} of the {entity}", unit="minutes", minimum=0.0)


def _number(name: str, description: str, *, unit: str | None = None, minimum: float | None = None) -> Column:
    return Column(name=name, dtype=DType.FLOAT64, description=description, unit=unit, nullable=True, minimum=minimum)


def _trailing_name(fact: Fact, statistic: str | Share, window: timedelta, entity: tuple[str, ...]) -> str:
    what = statistic.name if isinstance(statistic, Share) else statistic
    return f"{fact.name}_{what}_{_short(window)}_by_{'_'.join(entity)}"


def _short(window: timedelta) -> str:
    hours = window // timedelta(hours=1)
    return f"{hours}h" if hours <= 24 else f"{hours // 24}d"
