"""One delivered row, as plain values: typed, derived and held to the contract by the rules of `clean`.

Belongs here: the rules of `Column` for one value, and which field of a row breaks which. Does not: what a column means (`use_cases`).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ml_assets.sources.iso import one_as_most_write
from ml_assets.stages.availability import microseconds
from ml_assets.stages.clean import PATTERNS, WANTED, expected
from ml_assets.stages.dates import instant_of, is_date
from ml_assets.stages.spelling import canonical
from ml_assets.stages.values import shown
from ml_assets.use_case import Column, Day, DType, Spelling, Table, day_at, nullable_dtype

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST_TEXT = 1000
FIRST = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
LAST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // MICROSECOND
_Step = TypeVar("_Step")
FOUR_CENTURIES = timedelta(days=146_097)
"""After which the calendar repeats itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is wrong with a field: the value that it has, and the rule that this breaks."""

    field: str
    value: Any
    rule: str


class InvalidRowError(ValueError):
    """A row that cannot be taken in."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{each.field}: {shown(each.value)} {each.rule}" for each in problems))
        self.problems = problems


class Taken(NamedTuple):
    """A row that was taken in: instants as microseconds since the epoch, None for what is missing."""

    row: dict[str, Any]
    day: Day


class RowIntake:
    """Takes in single rows of a table: those that `clean` keeps, with the values that it gives them.

    It asks two things more: a text has at most `MOST_TEXT` characters, since it becomes a key of a store, and there are no fields but
    the declared ones.

    Args:
        timezone: in which a day is a day.

    Raises:
        ValueError: the table takes none, or does not say on which day a row is.
    """

    def __init__(self, table: Table, *, timezone: str = "UTC") -> None:
        if table.intake is None:
            raise ValueError(f"table {table.name} takes no single rows: it declares no `intake`")
        if table.intake.day is None and table.time is None:
            raise ValueError(
                f"table {table.name} does not say on which day a single row is: declare `time`, or `day` of its `intake`"
            )
        self.table, self._intake, self._zone = table, table.intake, ZoneInfo(timezone)
        self._delivered = [(column.name, _rules(column, parses=True)) for column in table.delivered]
        self._names = {column.name for column in table.delivered}
        self._clean = [(column.name, _rules(column, parses=False)) for column in table.columns]

    def take(self, content: Mapping[str, Any] | Taken) -> Taken:
        """The clean row, and the day in which it would be delivered. A row that was taken already is returned as it is.

        Raises:
            InvalidRowError: naming every field that breaks a rule of the delivered columns, or else of the clean ones.
        """
        if isinstance(content, Taken):
            return content
        typed = self._typed(content)
        day = self._day(typed)
        return Taken(self._kept_row(self._derived([typed], [day])[0]), day)

    def take_all(self, contents: Sequence[Mapping[str, Any]]) -> list[Taken]:
        """The same for many rows; those of a table without a `derive` for one row are derived together, at the cost of one.

        Raises:
            InvalidRowError: naming every field of every row that breaks a rule, with the number of the row, from 0.
        """
        problems: dict[int, list[Problem]] = {}
        typed = dict(_each(self._typed, enumerate(contents), problems))
        days = dict(_each(self._day, typed.items(), problems))
        typed = {place: typed[place] for place in days}
        derived = self._derived(list(typed.values()), list(days.values())) if typed else []
        rows = dict(_each(self._kept_row, zip(typed, derived, strict=True), problems))
        if problems:
            raise InvalidRowError([numbered(each, place) for place in sorted(problems) for each in problems[place]])
        return [Taken(rows[place], days[place]) for place in range(len(contents))]

    def _typed(self, content: Mapping[str, Any]) -> dict[str, Any]:
        problems = [] if content.keys() <= self._names else list(self._unknown(content))
        typed = _kept(self._delivered, content, problems)
        if problems:
            raise InvalidRowError(problems)
        return typed

    def _day(self, typed: dict[str, Any]) -> Day:
        try:
            day = self._day_of_time(typed) if self._intake.day is None else self._intake.day(typed)
        except OverflowError:  # of the first or the last year, in another time zone
            raise InvalidRowError([Problem(field="row", value=None, rule="has a time whose day cannot be computed")]) from None
        if day is None:
            raise InvalidRowError([Problem(field="row", value=None, rule="has no time that says its day")])
        return day

    def _day_of_time(self, typed: dict[str, Any]) -> Day | None:
        assert self.table.time is not None
        at = typed[self.table.time]
        return None if at is None else day_at(at, self._zone)

    def _unknown(self, content: Mapping[str, Any]) -> Iterator[Problem]:
        known = ", ".join(name for name, _ in self._delivered)
        for name, value in content.items():
            if name not in self._names:
                yield Problem(field=name, value=value, rule=f"is not a field; there are {known}")

    def _derived(self, typed: Sequence[dict[str, Any]], days: Sequence[Day]) -> list[dict[str, Any]]:
        if self._intake.derive is None:
            return self._by_frames(typed, days)
        try:
            return [self._intake.derive(row) for row in typed]
        except ArithmeticError:
            # Where Python refuses to round infinity, a frame holds it, and the rules of the clean columns judge it.
            return self._by_frames(typed, days)

    def _by_frames(self, typed: Sequence[dict[str, Any]], days: Sequence[Day]) -> list[dict[str, Any]]:
        """By one frame, or by halves where a row that cannot be computed with, such as one of the year 1000, would take all with it."""
        try:
            return self._by_frame(typed, days)
        except (ValueError, ArithmeticError) as error:
            if len(typed) == 1:
                return [{"reject_reason": f"cannot be computed with: {error}"}]
        half = len(typed) // 2
        return self._by_frames(typed[:half], days[:half]) + self._by_frames(typed[half:], days[half:])

    def _by_frame(self, typed: Sequence[dict[str, Any]], days: Sequence[Day]) -> list[dict[str, Any]]:
        """What the table's `derive` makes of rows; of one that it rejects, the reason alone."""
        given = {column.name: _series([row[column.name] for row in typed], column.dtype) for column in self.table.delivered}
        made = self.table.derive(pd.DataFrame({**given, "partition_day": pd.Series(days, dtype="str")}))
        reasons = [None] * len(typed) if "reject_reason" not in made else _plain(made["reject_reason"], DType.STRING)
        sound = made[[reason is None for reason in reasons]]
        columns = [_plain(sound[column.name], column.dtype) for column in self.table.columns]
        names = [column.name for column in self.table.columns]
        rows = iter([dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)])
        return [next(rows) if reason is None else {"reject_reason": reason} for reason in reasons]

    def _kept_row(self, derived: Mapping[str, Any]) -> dict[str, Any]:
        if reason := derived.get("reject_reason"):
            raise InvalidRowError([Problem(field="row", value=None, rule=reason)])
        problems: list[Problem] = []
        row = _kept(self._clean, derived, problems)
        if problems:
            raise InvalidRowError(problems)
        return row


def numbered(problem: Problem, place: int) -> Problem:
    """The problem of one of several rows: its field is that of a row, such as `3.amount`."""
    return replace(problem, field=f"{place}.{problem.field}")


def _each(
    step: Callable[[Any], _Step], rows: Iterable[tuple[int, Any]], problems: dict[int, list[Problem]]
) -> Iterator[tuple[int, _Step]]:
    for place, row in rows:
        try:
            yield place, step(row)
        except InvalidRowError as error:
            problems[place] = error.problems


def _kept(columns: list[tuple[str, Callable[[Any], Any]]], content: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    kept = {}
    for name, rules in columns:
        value = content.get(name)
        try:
            kept[name] = rules(value)
        except ValueError as error:
            problems.append(Problem(field=name, value=value, rule=str(error)))
    return kept


def _rules(column: Column, *, parses: bool) -> Callable[[Any], Any]:
    """What a value must be, as a function from it to what is kept; it raises ValueError with the rule that is broken."""
    parse = _parser(column) if parses else _as_declared
    low, high, allowed = column.minimum, column.maximum, frozenset(column.allowed)
    blank, fill, nullable = column.impossible == "blank", column.fill, column.nullable
    outside = f"is not one of {', '.join(column.allowed)}"

    def within(value: Any) -> Any:
        broken = None
        if isinstance(value, float) and not math.isfinite(value):
            broken = "is not finite"
        elif low is not None and value < low:
            broken = f"is below {shown(low)}"
        elif high is not None and value > high:
            broken = f"is above {shown(high)}"
        elif allowed and value not in allowed:
            broken = outside
        if broken and not blank:
            raise ValueError(broken)
        return None if broken else value

    limited = column.dtype in (DType.FLOAT64, DType.INT64) or low is not None or high is not None or bool(allowed)

    def rules(value: Any) -> Any:
        if value is not None:
            value = parse(value)
        if limited and value is not None:
            value = within(value)
        if value is None:
            value = fill
            if value is None and not nullable:
                raise ValueError("is missing")
        return value

    return rules


def _parser(column: Column) -> Callable[[Any], Any]:
    """From a delivered value to the one that is kept."""
    if column.dtype is DType.TIMESTAMP:
        return _time_parser(column)
    if column.spelling is Spelling.TEXT:
        return _PARSERS[column.dtype]
    spelling, rule = column.spelling, expected(column)

    def spelled(value: Any) -> str | None:
        # A number or a truth value of JSON is what a source would write it as.
        text = _string(str(value) if isinstance(value, bool | float) else value)
        if text is None:
            return None
        if (word := canonical(text, spelling)) is None:
            raise ValueError(rule)
        return word

    return spelled


def _as_declared(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _string(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("is not a text")
    if len(value) > MOST_TEXT:
        raise ValueError(f"is longer than {MOST_TEXT:,} characters")
    return value.strip() or None


def _whole(value: Any) -> int | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, DType.INT64)
    return int(_matching(text, DType.INT64)) if text else None


def _number(value: Any) -> float | None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(WANTED[DType.FLOAT64])
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(WANTED[DType.FLOAT64]) from None
    text = _text(value, DType.FLOAT64)
    number = float(_matching(text, DType.FLOAT64)) if text else None
    if number is not None and math.isinf(number):
        raise ValueError(WANTED[DType.FLOAT64])
    return number


def _bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = str(value) if isinstance(value, int) else _text(value, DType.BOOL)
    return _matching(text, DType.BOOL).lower() in ("true", "1") if text else None


def _instant(value: Any) -> int | None:
    text = _text(value, DType.TIMESTAMP)
    if not text:
        return None
    if not _COMPILED[DType.TIMESTAMP].fullmatch(text):
        text = _matching(one_as_most_write(text), DType.TIMESTAMP)
    if text[-1] != "Z" and text[-2] > "5":  # an offset of 60 minutes or more, which Python takes for one of hours
        raise ValueError(WANTED[DType.TIMESTAMP])
    try:
        found = _microseconds(datetime.fromisoformat(text) - EPOCH)
    except ValueError:
        found = _instant_of_year_0(text)
    if not FIRST <= found <= LAST:
        raise ValueError(WANTED[DType.TIMESTAMP])
    return found


def _time_parser(column: Column) -> Callable[[Any], Any]:
    """A date without a time of day is what the column says, if anything."""

    def parse(value: Any) -> int | None:
        if isinstance(value, str) and len(text := value.strip()) == 10 and is_date(text):
            return instant_of(text, column)
        return _instant(value)

    return parse


def _microseconds(span: timedelta) -> int:
    """As `span // MICROSECOND`, in a third of the time."""
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def _instant_of_year_0(text: str) -> int:
    """Python has no year 0, and the offset can bring a time of it into the year 1. The calendar is that of the year 400."""
    try:
        later = datetime.fromisoformat(f"0400{text[4:]}")
    except ValueError:
        later = None
    if later is None or not text.startswith("0000"):
        raise ValueError(WANTED[DType.TIMESTAMP])
    return (later - EPOCH - FOUR_CENTURIES) // MICROSECOND


def _text(value: Any, dtype: DType) -> str:
    if not isinstance(value, str):
        raise ValueError(WANTED[dtype])
    return value.strip()


def _matching(text: str, dtype: DType) -> str:
    if not _COMPILED[dtype].fullmatch(text):
        raise ValueError(WANTED[dtype])
    return text


_COMPILED = {dtype: re.compile(pattern) for dtype, pattern in PATTERNS.items()}
_PARSERS: dict[DType, Callable[[Any], Any]] = {
    DType.STRING: _string,
    DType.INT64: _whole,
    DType.FLOAT64: _number,
    DType.BOOL: _bool,
    DType.TIMESTAMP: _instant,
}

# Frames ---------------------------------------------------------------------------------------------------------------------

_NO_TIME = np.iinfo(np.int64).min
"""NaT, as a whole number."""


def _series(values: list[Any], dtype: DType) -> pd.Series:
    """Typed values as `clean` gives them to the table's `derive`."""
    if dtype is DType.TIMESTAMP:
        instants = np.array([_NO_TIME if value is None else value for value in values], dtype="int64")
        return pd.Series(pd.DatetimeIndex(instants.view("datetime64[us]"), tz="UTC"))
    return pd.Series(values, dtype=nullable_dtype(dtype))


def _plain(values: pd.Series, dtype: DType) -> list[Any]:
    """The values of a column in plain Python, None for what is missing."""
    wanted: Any = nullable_dtype(dtype)
    if dtype is DType.TIMESTAMP:
        found = microseconds(values.astype(wanted)).tolist()
        return [None if value == _NO_TIME else value for value in found]
    missing = values.isna().tolist()
    declared = values if any(missing) and dtype in (DType.INT64, DType.BOOL) else values.astype(wanted)
    return [None if gone else value for value, gone in zip(declared.tolist(), missing, strict=True)]
