"""What can be computed of the columns that a case declares: the rest is refused when the case is loaded, not when such a day comes.

Belongs here: declarations of features against those of tables. Does not: rules of one table alone (`clean`), values (`features`).
"""

import sys
from collections.abc import Iterator, Sequence

from ml_assets.stages.moments import MOMENTS
from ml_assets.use_case import Column, DType, Fact, Share, Trailing, UseCase

NUMBERS = (DType.INT64, DType.FLOAT64, DType.BOOL)
FACTS_OF_A_WINDOW = 2**31
LARGEST_TO_SUM = sys.float_info.max / FACTS_OF_A_WINDOW
"""The sum of as many facts as a window can have, none greater than this, is a float: 8.37e298."""


def require_computable(case: UseCase) -> None:
    """Every fact, latest value and look-up is of a column that is declared and that can be computed with.

    Raises:
        ValueError: one is not; the message names each with its table and column, and says what to declare.
    """
    if faults := list(dict.fromkeys(faults_of(case))):
        raise ValueError(f"use case {case.name}: {'; '.join(faults)}")


def faults_of(case: UseCase) -> Iterator[str]:
    """What `require_computable` refuses."""
    for each in case.features.trailing:
        yield from _faults_of_trailing(case, each)
    for latest in case.features.latest:
        where = f"latest {latest.name!r}"
        yield from _faults_of_time(case, latest.table, latest.known_at, where)
        yield from _faults_of_numbers(case, latest.table, (*latest.values, *latest.changes), where)
    for lookup in case.features.lookups:
        yield from _faults_of_numbers(case, lookup.table, lookup.values, f"lookup in {lookup.table!r}")


def _faults_of_trailing(case: UseCase, declared: Trailing) -> Iterator[str]:
    fact, where = declared.fact, f"trailing fact {declared.fact.name!r}"
    yield from _faults_of_time(case, fact.table, fact.known_at, where)
    yield from _faults_of_numbers(case, fact.table, (fact.value,), where)
    for each in declared.statistics:
        if not isinstance(each, Share) and each not in ("count", "span", *MOMENTS):
            yield f"{where}: no statistic {each!r}; there are count, span, {', '.join(MOMENTS)} and Share(…)"
    column = _column(case, fact.table, fact.value)
    if column is not None and column.dtype is DType.FLOAT64 and "sum" in declared.statistics:
        yield from _faults_of_sums(fact, column, where)


def _faults_of_sums(fact: Fact, column: Column, where: str) -> Iterator[str]:
    """Whole numbers of 64 bits have sums that are floats; floats themselves need bounds."""
    ends = (column.minimum, column.maximum)
    if any(end is None or not abs(end) <= LARGEST_TO_SUM for end in ends):
        yield (
            f"{where}: a sum of {fact.table}.{fact.value} could be greater than any float: declare a `minimum` and a `maximum` of the "
            f"column, from {-LARGEST_TO_SUM:.2e} to {LARGEST_TO_SUM:.2e}; they are {ends[0]} and {ends[1]}"
        )


def _faults_of_numbers(case: UseCase, table: str, names: Sequence[str], where: str) -> Iterator[str]:
    for name in names:
        column = _column(case, table, name)
        if column is None:
            yield f"{where} refers to {table}.{name}, which is not declared: add it to `columns` of the table"
        elif column.dtype not in NUMBERS:
            cure = "seconds since some day" if column.dtype is DType.TIMESTAMP else "1 in each row that counts"
            yield (
                f"{where}: {table}.{name} is {column.dtype.value}, which cannot be computed with: let `derive` make a column of "
                f"numbers of it, such as {cure}, and refer to that"
            )


def _faults_of_time(case: UseCase, table: str, name: str, where: str) -> Iterator[str]:
    column = _column(case, table, name)
    if column is None:
        yield f"{where} is known at {table}.{name}, which is not declared: add it to `columns` of the table"
    elif column.dtype is not DType.TIMESTAMP:
        yield f"{where} is known at {table}.{name}, which is {column.dtype.value}: it must be {DType.TIMESTAMP.value}"


def _column(case: UseCase, table: str, name: str) -> Column | None:
    return next((column for each in case.tables if each.name == table for column in each.columns if column.name == name), None)
