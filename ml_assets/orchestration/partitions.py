"""Partitions of a use case: days, and weeks keyed by the day on which a model goes live."""

import warnings
from collections.abc import Iterator, Sequence

import dagster as dg

from ml_assets.use_case import Day, UseCase, shift

ALL_BEFORE = 260
"""Weeks before a model goes live whose days may train it: five years."""


def case_days(case: UseCase) -> dg.DailyPartitionsDefinition:
    """The days of a case, in its own time zone."""
    return dg.DailyPartitionsDefinition(start_date=case.start, end_date=case.end, timezone=case.timezone)


def case_weeks(case: UseCase) -> dg.WeeklyPartitionsDefinition:
    """The weeks in which a model of the case is live, as far as they are whole."""
    first = case.split.first_go_live
    no_whole_week = case.end is not None and case.end < shift(first, 7)
    return dg.WeeklyPartitionsDefinition(
        start_date=first,
        end_date=first if no_whole_week else case.end,  # of a first week that is not whole, Dagster 1.13 lists the key all the same
        timezone=case.timezone,
        day_offset=(case.split.weekday + 1) % 7,
    )


def days_back(days: int, *, ahead: int = 0) -> dg.TimeWindowPartitionMapping:
    """A day depends on so many days before it (and after it), as far as they exist."""
    return _as_far_as_they_exist(-days, ahead)


def earlier_weeks() -> dg.TimeWindowPartitionMapping:
    """A week depends on all weeks before it, or on all days before it began."""
    return _as_far_as_they_exist(-ALL_BEFORE, -1)


def daily_tables_of(case: UseCase, tables: Sequence[str]) -> list[str]:
    """The assets that a selection of tables brings with it: the rejected rows come with the clean ones."""
    rejected = {table.name: table.rejected_name for table in case.tables}
    return [asset for table in tables for asset in (table, rejected.get(table)) if asset is not None]


def contiguous(days: Sequence[Day], *, step: int = 1) -> Iterator[tuple[Day, Day]]:
    """First and last day of each unbroken stretch, in which a day follows another after `step` days.

    >>> list(contiguous(["2013-01-01", "2013-01-02", "2013-01-05"]))
    [('2013-01-01', '2013-01-02'), ('2013-01-05', '2013-01-05')]
    """
    ordered = sorted(days)
    first: Day | None = None
    for position, day in enumerate(ordered):
        first = first or day
        if position + 1 == len(ordered) or ordered[position + 1] != shift(day, step):
            yield first, day
            first = None


def _as_far_as_they_exist(first: int, last: int) -> dg.TimeWindowPartitionMapping:
    with warnings.catch_warnings():
        # allow_nonexistent_upstream_partitions is in beta in Dagster 1.13; without it the first days of a case have no look-back.
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        return dg.TimeWindowPartitionMapping(start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True)
