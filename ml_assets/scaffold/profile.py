"""What the values of a column of a file show, before anybody says what the column is.

Belongs here: kinds of values and how often they repeat. Does not: which column is the time, the id, the label (`scaffold.roles`).
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.sources.as_text import days_of, text_of
from ml_assets.use_case import Spelling

READABLE = 0.95
"""Of the values of a column of times have to be times: rows without one are quarantined, and more of them would stop a day."""
_NEARLY_ALL = 0.8
"""Of the values of a column are numbers: then the others are worth a word."""
_EXACT = 2**53
_MOST_WHOLE = 10**18
"""Whole numbers of more digits are not read."""
_WHOLE = r"^[+-]?[0-9]+(\.0+)?$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LEADING_ZERO = r"^[+-]?0[0-9]"
_BOOLEAN = r"^(?i:true|false)$"
_UUID = r"^(?i:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$"


class Kind(StrEnum):
    """What all known values of a column are; `TEXT` when nothing else, `NONE` for a type that has no text, such as a list."""

    WHOLE = "whole numbers"
    NUMBER = "numbers"
    BOOLEAN = "true or false"
    UUID = "UUIDs"
    TIME = "times"
    TEXT = "texts"
    NONE = "no plain values"


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A column of the file."""

    header: str
    type: str
    """As the file has it."""
    text: pa.Array
    """Each value in its one spelling, null where there is none, shape (rows,)."""
    kind: Kind
    distinct: int
    """Different known values."""
    pointed: bool = False
    """Whether some whole number is written with a decimal point, such as 17.0."""

    @property
    def rows(self) -> int:
        return len(self.text)

    @property
    def known(self) -> int:
        """Rows with a value."""
        return self.rows - int(self.text.null_count)

    @property
    def missing(self) -> int:
        return int(self.text.null_count)

    @property
    def repeats(self) -> float:
        """How many rows a value has on average; 0 without values."""
        return self.known / self.distinct if self.distinct else 0.0

    @property
    def odd(self) -> tuple[int, str] | None:
        """Row, from 1, and text of the first value that is no number where nearly all are; None where that is not so."""
        if self.kind is not Kind.TEXT or not self.known or pc.any(pc.match_substring_regex(self.text, _LEADING_ZERO)).as_py():
            return None
        others = pc.fill_null(pc.invert(pc.match_substring_regex(self.text, _NUMBER)), False)
        count = int(pc.sum(others).as_py())
        if not count or count > (1 - _NEARLY_ALL) * self.known:
            return None
        row = int(pc.index(others, True).as_py())
        return row + 1, self.text[row].as_py()

    @property
    def spelling(self) -> Spelling:
        """The one way in which the values are written, as a key or a category."""
        return _SPELLINGS.get(self.kind, Spelling.TEXT)

    @property
    def counts_rows(self) -> bool:
        """Whether it is 0, 1, 2, … or 1, 2, 3, … in the order of the file, as the index of a table is."""
        if self.kind is not Kind.WHOLE or self.missing:
            return False
        numbers = self.numbers
        first = numbers.iloc[0]
        return bool(first in (0, 1) and (numbers == first + pd.RangeIndex(self.rows)).all())

    @property
    def goes_up(self) -> bool:
        """Whether it is whole numbers, each larger than the one in the row before, as the index of a part of a table is."""
        return self.kind is Kind.WHOLE and not self.missing and bool((self.numbers.diff().iloc[1:] > 0).all())

    @property
    def numbers(self) -> pd.Series:
        """The known values as floats, of a kind of numbers, shape (known,)."""
        numbers: pd.Series = pc.cast(pc.replace_substring_regex(self.text.drop_null(), r"^\+", ""), pa.float64()).to_pandas()
        return numbers


_SPELLINGS = {Kind.WHOLE: Spelling.WHOLE, Kind.BOOLEAN: Spelling.BOOLEAN, Kind.UUID: Spelling.UUID}


def profile(header: str, values: pa.Array, timezone: str) -> Profile:
    """What a column of a file shows."""
    try:
        text = text_of(values, timezone)
    except ValueError:
        nothing = pa.nulls(len(values), pa.string())
        return Profile(header=header, type=str(values.type), text=nothing, kind=Kind.NONE, distinct=0)
    text = pc.utf8_trim_whitespace(text)
    text = pc.if_else(pc.equal(text, ""), None, text)
    kind = _kind(values, text, timezone)
    pointed = kind is Kind.WHOLE and bool(pc.any(pc.match_substring(text, ".")).as_py())
    text = _spelled(text, kind)
    distinct = len(pc.unique(text.drop_null()))
    return Profile(header=header, type=str(values.type), text=text, kind=kind, distinct=distinct, pointed=pointed)


def _spelled(text: pa.Array, kind: Kind) -> pa.Array:
    """As the contract spells keys and categories of this kind."""
    if kind is Kind.WHOLE:
        return pc.replace_substring_regex(pc.replace_substring_regex(text, r"^\+|\.0+$", ""), r"^-0$", "0")
    return pc.utf8_lower(text) if kind in (Kind.BOOLEAN, Kind.UUID) else text


def _kind(values: pa.Array, text: pa.Array, timezone: str) -> Kind:
    known = text.drop_null()
    if pa.types.is_temporal(values.type) or _are_times(values, text, timezone):
        return Kind.TIME
    if not len(known):
        return Kind.TEXT
    if _all(known, _BOOLEAN):
        return Kind.BOOLEAN
    if _all(known, _UUID):
        return Kind.UUID
    if not pc.any(pc.match_substring_regex(known, _LEADING_ZERO)).as_py():
        if _all(known, _WHOLE):
            return Kind.WHOLE
        if _all(known, _NUMBER):
            return Kind.NUMBER
    return Kind.TEXT


def _are_times(values: pa.Array, text: pa.Array, timezone: str) -> bool:
    known = len(text) - text.null_count
    try:
        days = days_of(values, timezone, timedelta(0))
    except ValueError:
        return False
    return bool(known and (len(days) - days.null_count) >= READABLE * known)


def _all(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())


def number_of(column: Profile) -> "Number | str":
    """How a column of numbers is declared, or why it cannot be."""
    numbers, nullable = column.numbers, column.missing > 0
    largest = float(numbers.abs().max())
    whole = column.kind is Kind.WHOLE
    if whole and (largest >= _MOST_WHOLE or (nullable and largest >= _EXACT)):
        return (
            f"has whole numbers as large as {largest:,.0f}, which a number {'that may be missing ' * nullable}cannot hold exactly"
        )
    if largest == float("inf"):
        return "has numbers too large for a float"
    money = not whole and bool(((100 * numbers).round() / 100 == numbers).all()) and largest < 1e12
    plain = whole and not nullable and not column.pointed
    return Number(dtype="INT64" if plain else "FLOAT64", whole=whole, hundredths=money)


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """How a column of numbers is declared."""

    dtype: str
    whole: bool
    hundredths: bool
    """Whether there are two decimals at most, as money has."""
