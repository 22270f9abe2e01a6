"""Between which days the times of a source lie: what lies outside is a wrong date, and says nothing about which days came.

Belongs here: these days, declared or by default, and which days a file of events is about. Does not: what becomes of a row outside
(`sources.delivered` and the sources).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ml_assets.use_case import Day, shift

YEARS_BEFORE_START = 10
"""So many years before the first day of a case are in bounds where nothing else is declared."""
FIRST, LAST = "0002-01-01", "9998-12-31"
"""The days that can be computed with in any time zone."""
_LEAST_GAP_DAYS, _LEAST_SHARE = 30, 0.01


def real_time() -> datetime:
    """What time it is, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """The days between which the times of a case lie, both included.

    A day after tomorrow cannot have come: without `latest` it is out of bounds, unless `end` lies later.
    """

    start: Day
    """The first day of the case, which gets the rows that have no neighbour."""
    end: Day | None = None
    """The first day that is not part of it."""
    earliest: Day | None = None
    """None: ten years before the start."""
    latest: Day | None = None
    """None: tomorrow, or `end` where that is later."""
    now: Callable[[], datetime] = field(default=real_time, repr=False, compare=False)

    def days(self, timezone: str) -> tuple[Day, Day]:
        """The first and the last day in bounds, as things are now."""
        first = self.earliest or _years_before(self.start, YEARS_BEFORE_START)
        if self.latest is not None:
            return max(first, FIRST), min(self.latest, LAST)
        tomorrow = shift(self._today(timezone), 1)
        return max(first, FIRST), min(max(tomorrow, self.end or tomorrow), LAST)

    def arrival_days(self, timezone: str) -> tuple[Day, Day]:
        """The first and the last day of the case on which something can have come until now: the clock of a sender may be wrong."""
        last = min([self._today(timezone), *([shift(self.end, -1)] if self.end else [])])
        return self.start, max(self.start, last)

    def _today(self, timezone: str) -> Day:
        return self.now().astimezone(ZoneInfo(timezone)).date().isoformat()

    @property
    def declared(self) -> tuple[Any, ...]:
        """What was declared instead of the defaults, for what depends on nothing else."""
        return (self.earliest, self.latest) if self.earliest or self.latest else ()


def bulk_of(counts: Mapping[Day, int], *, latest: Day | None = None) -> tuple[Day, Day]:
    """The first and the last day of a file of events, without wrong dates: those are few, and far away from all others.

    Days at one end are left out that have less than one row in a hundred between them and lie behind a gap of more than 30 days which is
    more than a quarter as long as what it cuts off from.

    Args:
        counts: how many rows each day has; one or more.
        latest: no day after it can be right, unless all are.

    >>> bulk_of({"1970-01-01": 1, "2024-01-01": 150, "2024-02-15": 150, "2099-12-31": 2})
    ('2024-01-01', '2024-02-15')
    """
    days = sorted(counts)
    if latest is not None:
        days = [day for day in days if day <= latest] or days
    most = _LEAST_SHARE * sum(counts[day] for day in days)
    while True:
        low, high = _last_cut(days, counts, most), _last_cut(days[::-1], counts, most)
        if not low and not high:
            return days[0], days[-1]
        days = days[:-high] if high else days[low:]


def _last_cut(days: Sequence[Day], counts: Mapping[Day, int], most: float) -> int:
    """How many of the first days, in whichever direction, lie behind a gap and have less rows than `most`."""
    numbers = [date.fromisoformat(day).toordinal() for day in days]
    cut, rows = 0, 0
    for place in range(1, len(days)):
        rows += counts[days[place - 1]]
        if rows >= most:
            break
        gap, rest = abs(numbers[place] - numbers[place - 1]), abs(numbers[-1] - numbers[place])
        if gap > _LEAST_GAP_DAYS and gap > rest / 4:
            cut = place
    return cut


def _years_before(day: Day, years: int) -> Day:
    year = max(int(day[:4]) - years, int(FIRST[:4]))
    return f"{year:04d}{day[4:].replace('02-29', '02-28')}"


def later(day: Day, delay: timedelta) -> Day:
    """The day on which something of a day's first moment falls so much later, at most the last that can be computed with."""
    try:
        return max(min(shift(day, delay // timedelta(days=1)), LAST), FIRST)
    except OverflowError:
        return LAST
