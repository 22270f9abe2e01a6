"""One delivered row, as plain values: typed, derived and held to the contract by the rules of `clean`, without a frame.

Belongs here: the rules of `Column` for one value, and which field of a row breaks which. Does not: what a column means (`use_cases`).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd

from ml_assets.sources.files import delivered_as
from ml_assets.stages.clean import PATTERNS, WANTED, clean, shown
from ml_assets.use_case import Column, Day, DType, Table

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST_TEXT = 1000
FIRST = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
LAST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // MICROSECOND


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
    """Takes in rows of a table one by one.

    Raises:
        ValueError: the table takes none.
    """

    def __init__(self, table: Table) -> None:
        if table.intake is None:
            raise ValueError(f"table {table.name} takes no single rows: it declares no `intake`")
        self.table, self._intake = table, table.intake
        self._delivered = [(column.name, _rules(column, parses=True)) for column in table.delivered]
        self._names = {column.name for column in table.delivered}
        self._clean = [(column.name, _rules(column, parses=False)) for column in table.columns]

    def take(self, content: Mapping[str, Any]) -> "Taken":
        """The clean row, and the day in which it would be delivered.

        Raises:
            InvalidRowError: naming every field that breaks a rule of the delivered columns, or else of the clean ones.
        """
        problems = [] if content.keys() <= self._names else list(self._unknown(content))
        typed = dict(_kept(self._delivered, content, problems))
        if problems:
            raise InvalidRowError(problems)
        day = self._intake.day(typed)
        if self._intake.derive is None:
            return Taken(self._by_frame(content, day), day)
        derived = self._intake.derive(typed)
        if reason := derived.get("reject_reason"):
            raise InvalidRowError([Problem(field="row", value=None, rule=reason)])
        row = dict(_kept(self._clean, derived, problems))
        if problems:
            raise InvalidRowError(problems)
        return Taken(row, day)

    def _unknown(self, content: Mapping[str, Any]) -> Iterator[Problem]:
        known = ", ".join(name for name, _ in self._delivered)
        for name in content.keys() - self._names:
            yield Problem(field=name, value=content[name], rule=f"is not a field; there are {known}")

    def _by_frame(self, content: Mapping[str, Any], day: Day) -> dict[str, Any]:
        texts = {delivered_as(name): [_as_text(content.get(name))] for name in self._names}
        raw = pd.DataFrame(texts, dtype="str").assign(day=day, source_file="request", source_row=1, source_version="")
        cleaned = clean(raw, self.table)
        if len(cleaned.rejected):
            raise InvalidRowError([_problem(text, content) for text in cleaned.rejected["reason"].iloc[0].split("; ")])
        row = cleaned.rows.iloc[0]
        return {column.name: _plain(row[column.name]) for column in self.table.columns}


def _kept(
    columns: list[tuple[str, Callable[[Any], Any]]], content: Mapping[str, Any], problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    for name, rules in columns:
        value = content.get(name)
        try:
            yield name, rules(value)
        except ValueError as error:
            problems.append(Problem(field=name, value=value, rule=str(error)))


def _rules(column: Column, *, parses: bool) -> Callable[[Any], Any]:
    """What a value must be, as a function from it to what is kept; it raises ValueError with the rule that is broken."""
    parse = _PARSERS[column.dtype] if parses else _as_declared
    low, high, allowed = column.minimum, column.maximum, frozenset(column.allowed)
    blank, fill, nullable = column.impossible == "blank", column.fill, column.nullable
    outside = f"is not one of {', '.join(column.allowed)}"

    def rules(value: Any) -> Any:
        if value is not None:
            value = parse(value)
        if value is not None:
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
            if broken:
                value = None
        if value is None:
            value = fill
        if value is None and not nullable:
            raise ValueError("is missing")
        return value

    return rules


def _as_declared(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _string(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("is not a text")
    if len(value) > MOST_TEXT or "\0" in value:
        raise ValueError(f"is longer than {MOST_TEXT} characters, or has a zero byte")
    return value.strip() or None


def _whole(value: Any) -> int | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, DType.INT64)
    return int(_matching(text, DType.INT64)) if text else None


def _number(value: Any) -> float | None:
    if isinstance(value, float):
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
    try:
        moment = datetime.fromisoformat(_matching(text, DType.TIMESTAMP))
    except ValueError:
        raise ValueError(WANTED[DType.TIMESTAMP]) from None
    found = (moment - EPOCH) // MICROSECOND
    if not FIRST <= found <= LAST:
        raise ValueError(WANTED[DType.TIMESTAMP])
    return found


def _text(value: Any, dtype: DType) -> str:
    if not isinstance(value, str):
        raise ValueError(WANTED[dtype])
    return value.strip()


def _matching(text: str, dtype: DType) -> str:
    if not _COMPILED[dtype].fullmatch(text):
        raise ValueError(WANTED[dtype])
    return text


_COMPILED = {dtype: re.compile(pattern, re.ASCII) for dtype, pattern in PATTERNS.items()}
_PARSERS: dict[DType, Callable[[Any], Any]] = {
    DType.STRING: _string,
    DType.INT64: _whole,
    DType.FLOAT64: _number,
    DType.BOOL: _bool,
    DType.TIMESTAMP: _instant,
}


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return (value.to_pydatetime() - EPOCH) // MICROSECOND
    return value.item() if hasattr(value, "item") else value


def _problem(text: str, content: Mapping[str, Any]) -> Problem:
    """A reason of `clean`, such as "origin: 'XXX' is not one of EWR, JFK"."""
    field, found, rule = text.partition(": ")
    return Problem(field=field, value=content.get(field), rule=rule) if found else Problem(field="row", value=None, rule=text)
