"""Features of events, point in time: the one definition that a backfill of a year and a single request share.

Belongs here: turning a declaration (`Features`) and clean tables into one row an event. Does not: reading tables, judging them.

What is unknown is missing: a mean over no facts, a plane that is not registered, weather that was never reported are nan.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import timedelta
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.escape import markdown
from ml_assets.stages.availability import microseconds
from ml_assets.stages.exact import at_least, differences
from ml_assets.stages.moments import MOMENTS, moments
from ml_assets.stages.questions import Entity, Questions, Series
from ml_assets.stages.windows import Int64Array, Known, ratio, span, trailing
from ml_assets.use_case import Arrays, Column, DType, Fact, Latest, Lookup, Share, Trailing, UseCase

Tables = Mapping[str, pd.DataFrame]
MICROSECONDS_A_DAY = 86_400_000_000
MISSING = np.iinfo(np.int64).min


def compute(case: UseCase, events: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Features of events from what was known at their time.

    Args:
        events: rows of the event table: `event_id`, `day`, the event time and the case's `event_columns` are looked at.
        tables: clean tables by name with all rows of the look-back; later rows do no harm.

    Returns:
        `event_id`, `event_time`, `day` and every declared feature, one row an event, in the order of `events`.

    Raises:
        UndeclaredFeatureError: the case computes other features than it declares.
    """
    declared = case.features
    columns = {name: _array(events[name]) for name in declared.event_columns}
    columns |= dict(_derived(case, events, tables))
    columns |= row_features(case, columns, frozenset(declared.names))
    try:
        kept = {column.name: _typed(columns[column.name], column) for column in declared.columns}
    except KeyError as error:
        raise nowhere(case, error) from None
    head = {"event_id": events["event_id"].array, "event_time": events[case.event_time].array, "day": events["day"].array}
    return pd.DataFrame(head | kept, copy=False)  # a copy would gather the numbers in one block, and double the memory


class UndeclaredFeatureError(ValueError):
    """What a case computes and what it declares are not the same features."""


def row_features(case: UseCase, columns: Arrays, declared: Set[str]) -> dict[str, npt.NDArray[Any]]:
    """What the case's `row` makes of the columns of events.

    Args:
        declared: the names of all features.

    Raises:
        UndeclaredFeatureError: it gives a feature that is not declared, and that no model would ever see.
    """
    made = case.features.row(columns)
    if not made.keys() <= declared:
        others = ", ".join(name for name in made if name not in declared)
        raise UndeclaredFeatureError(
            f"features of {case.name}: `row` gives {others}, not declared: add Column(name=…) to `columns` of the features, or leave it out"
        )
    return made


def nowhere(case: UseCase, name: KeyError) -> UndeclaredFeatureError:
    """Of a feature that is declared and that nothing computes."""
    return UndeclaredFeatureError(
        f"features of {case.name}: {name.args[0]} is declared, but `row` does not give it, and it is no column of the event or of a fact: "
        "add it to what `row` returns, or take it out of `columns` of the features"
    )


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
    questions = Questions(case, events, tables)

    def answered(asked: tuple[Series, Entity]) -> list[tuple[str, npt.NDArray[Any]]]:
        series, entity = asked
        known = questions.known(series, entity)
        windows = [each for each in case.features.trailing if entity in each.entities and questions.series(each) == series]
        rows = [each for each in case.features.latest if entity == each.entity and questions.series(each) == series]
        return [
            *(answer for each in windows for answer in _trailing_values(each, entity, known, questions)),
            *(answer for each in rows for answer in _latest_values(each, known, questions)),
        ]

    yield from chain.from_iterable(questions.each(answered, questions.asked).values())
    for lookup in case.features.lookups:
        found = tables[lookup.table].set_index(lookup.by).reindex(events[lookup.by])
        yield from ((f"{lookup.table}_{value}", found[value].to_numpy(dtype=np.float64)) for value in lookup.values)


def _trailing_values(
    declared: Trailing, entity: Entity, known: Known, questions: Questions
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    fact, windows = declared.fact, declared.windows
    values = questions.values(declared, fact.value)
    shares = [each for each in declared.statistics if isinstance(each, Share)]
    counted = trailing(known, [at_least(values, each.at_least) for each in shares], windows)
    counts = {window: count for window, (count, *_) in counted.items()}
    ages = span(known, windows) if "span" in declared.statistics else {}
    asked = [each for each in MOMENTS if each in declared.statistics]
    try:
        answers = moments(known, values, counts, asked) if asked else {}
    except OverflowError as error:
        raise too_large(fact.table, fact.value) from error
    for window in windows:
        passed = dict(zip(shares, counted[window][1:], strict=True))
        for each in declared.statistics:
            name = trailing_name(fact, each, window, entity)
            if isinstance(each, str) and each in MOMENTS:
                yield name, answers[window][each]
            else:
                yield name, statistic(each, counts[window], passed.get(each) if isinstance(each, Share) else None, ages.get(window))


def statistic(
    declared: str | Share, count: Int64Array, passed: Int64Array | None, ages: Int64Array | None
) -> npt.NDArray[np.float64]:
    """A statistic that is none of the `MOMENTS`.

    Args:
        count: facts in windows.
        passed: of a share, how many of these are at least what it says.
        ages: of a span, microseconds since the oldest fact, -1 where there is none. Windows are shorter than the 285 years of
            microseconds that a float counts.
    """
    match declared:
        case "count":
            return count.astype(np.float64)
        case "span" if ages is not None:
            return np.where(ages >= 0, ages / MICROSECONDS_A_DAY, np.nan)
        case Share() if passed is not None:
            return ratio(passed, count)
        case _:
            raise ValueError(f"no statistic {declared!r}")


def too_large(table: str, column: str) -> OverflowError:
    """A sum of a column is greater than any float, as it can only be where nobody declares how large values may be."""
    return OverflowError(f"a sum of {table}.{column} is greater than any float: declare a `minimum` and a `maximum` of the column")


def _latest_values(declared: Latest, known: Known, questions: Questions) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    known_at, asked_at, limit = questions.known_at(declared), questions.asked_at, declared.within / timedelta(minutes=1)
    now, age = fresh(known.latest(itself=declared.itself), known_at, asked_at, limit)
    before = None
    if declared.changes:
        moment = asked_at - declared.change_over // timedelta(microseconds=1)
        before, _ = fresh(known.latest(declared.change_over), known_at, moment, limit)
    yield from latest_columns(declared, now, age, before, values=lambda name: questions.values(declared, name))


def latest_columns(
    declared: Latest,
    now: Int64Array,
    age: npt.NDArray[np.float64],
    before: Int64Array | None,
    *,
    values: Callable[[str], npt.NDArray[Any]],
) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """The columns of latest facts, by name.

    Args:
        now: which fact was the latest at each question, -1 where none was known that is `fresh`, shape (m,).
        age: of that fact in minutes, shape (m,).
        before: as `now`, `change_over` earlier; needed where changes are declared.
        values: a column of the facts.
    """
    for value in declared.values:
        yield f"{declared.name}_{value}", _take(values(value), now)
    if before is not None:
        for value in declared.changes:
            yield f"{declared.name}_{value}_change", _changes(declared, value, values(value), now, before)
    yield f"{declared.name}_age_minutes", age


def fresh(
    latest: Int64Array, known_at: Int64Array, asked_at: Int64Array, limit: float | npt.NDArray[np.float64]
) -> tuple[Int64Array, npt.NDArray[np.float64]]:
    """Index and age in minutes of the latest fact, -1 and nan where it is older than the limit or there is none.

    Args:
        latest: which fact was the latest at each question, -1 for none.
        known_at: microseconds, of the n facts.
        asked_at: microseconds, of the questions.
        limit: minutes.
    """
    age = (asked_at - _take(known_at, latest)) / 60e6
    young = age <= limit
    return np.where(young, latest, -1), np.where(young, age, np.nan)


def _take(values: npt.NDArray[Any], index: Int64Array) -> npt.NDArray[np.float64]:
    """Values at an index, nan where the index is -1 or the value is missing."""
    found, there = np.full(index.shape, np.nan), _there(values, index)
    found[there] = values[index[there]]
    return found


def _there(values: npt.NDArray[Any], index: Int64Array) -> npt.NDArray[np.bool_]:
    """Whether there is a value at an index. A whole number that is missing is the least of all, as a time that is missing is to numpy."""
    there = index >= 0
    if values.dtype == np.int64 and len(values):
        there &= values[index] != MISSING
    return there


def _changes(declared: Latest, name: str, values: npt.NDArray[Any], now: Int64Array, before: Int64Array) -> npt.NDArray[np.float64]:
    """Differences of values at two indices, correctly rounded, nan where one of them is -1.

    Raises:
        OverflowError: a difference is greater than any float.
    """
    changes, there = np.full(now.shape, np.nan), _there(values, now) & _there(values, before)
    later, earlier = values[now[there]], values[before[there]]
    with np.errstate(over="ignore"):
        changes[there] = differences(later, earlier)
    if np.isinf(changes[there]).any():
        raise OverflowError(
            f"a change of {declared.table}.{name} is greater than any float: declare a `minimum` and a `maximum` of the column"
        )
    return changes


def _array(values: pd.Series) -> npt.NDArray[Any]:
    """A column as numpy has it: instants as datetime64[us] in UTC, since pandas would give an object for each."""
    return microseconds(values).view("datetime64[us]") if isinstance(values.dtype, pd.DatetimeTZDtype) else values.to_numpy()


def _typed(values: npt.NDArray[Any], column: Column) -> Any:
    return pd.array(values, dtype="str") if column.dtype is DType.STRING else np.asarray(values, dtype=np.float64)


def _trailing_columns(declared: Trailing) -> Iterator[Column]:
    for entity in declared.entities:
        for statistic in declared.statistics:
            unit, maximum = _unit(declared.fact, statistic)
            for window in declared.windows:
                name = trailing_name(declared.fact, statistic, window, entity)
                what = statistic.name if isinstance(statistic, Share) else statistic
                who = " and ".join(entity)
                text = markdown(f"{what} of {declared.fact.name} known in the {_short(window)} before, same {who}")
                minimum = None if what in ("mean", "sum") else 0.0
                nullable = what not in ("count", "sum")
                yield Column(
                    name=name,
                    dtype=DType.FLOAT64,
                    description=text,
                    unit=unit,
                    nullable=nullable,
                    minimum=minimum,
                    maximum=maximum,
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
    return Column(name=name, dtype=DType.FLOAT64, description=markdown(description), unit=unit, nullable=True, minimum=minimum)


def trailing_name(fact: Fact, statistic: str | Share, window: timedelta, entity: tuple[str, ...]) -> str:
    """What a statistic of an entity over a window is called."""
    what = statistic.name if isinstance(statistic, Share) else statistic
    return f"{fact.name}_{what}_{_short(window)}_by_{'_'.join(entity)}"


def _short(window: timedelta) -> str:
    hours = window // timedelta(hours=1)
    return f"{hours}h" if hours <= 24 else f"{hours // 24}d"
