"""From how full the days of a file are: over which of them a model learns, is judged, and when the first one goes live.

Belongs here: lengths in days. Does not: which days a file holds (`scaffold.reading`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from ml_assets.use_case import Day, day_range, shift

FEWEST_TO_LEARN = 100
"""Events with a known label before the first model."""
FEWEST_TO_JUDGE = 30
"""Events with a known label in a holdout: with fewer the interval of its average precision is wider than what models differ by."""
FEWEST_OF_A_CLASS = 5
"""Of the rarer class in a holdout, on average."""
FEWEST_DAYS = 3
"""Days with events in a holdout: its resamples are of days."""
_SHARE = 0.8
"""Of the holdouts of a case have to hold that much."""
_LADDER = ((56, 14), (28, 14), (21, 7), (14, 7))
"""Days to learn from and to be judged on, where events come every day."""
_LONGER = (14, 28, 56, 91, 182, 364)


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """The calendar of a case."""

    start: Day
    end: Day
    """The day after the last."""
    first_go_live: Day
    training_days: int
    holdout_days: int
    filled_days: int
    """Days with events."""
    rows: int
    """Events of all days."""
    rows_to_learn: int
    """Events with a known label from which the first model learns."""
    rows_to_judge: int
    """Median over the holdouts of all weeks."""
    days_to_learn: int
    """Of the first model: `training_days`, or more where the first one goes live later."""

    @property
    def days(self) -> int:
        return len(day_range(self.start, shift(self.end, -1)))

    @property
    def sparse(self) -> bool:
        """Whether most weeks have days without events."""
        return self.filled_days < 0.7 * self.days


class TooFewError(ValueError):
    """There are not enough days or events for a model; the message has the numbers."""


def windows_of(
    events: Mapping[Day, int], labels: Mapping[Day, int], *, start: Day, last: Day, embargo: int, rarer_share: float
) -> Windows:
    """The shortest windows that hold enough, the first of a list where events come every day.

    The first model goes live once a third of the days has passed, so that the others show how models do.

    Args:
        events: number of events of each day that has some; `labels` of those whose label is known.
        embargo: days until labels are known.
        rarer_share: of the rarer class among the labels.

    Raises:
        TooFewError: no windows hold enough.
    """
    days = day_range(start, last)
    known = np.array([labels.get(day, 0) for day in days])
    filled = np.array([day in events for day in days])
    rows = sum(events.get(day, 0) for day in days)
    to_judge = FEWEST_TO_JUDGE
    wanted = max(FEWEST_TO_JUDGE, int(np.ceil(FEWEST_OF_A_CLASS / max(rarer_share, 1e-9))))
    shown = f"{int(filled.sum()):,} of {len(days):,} days ({start} to {last}) have events, {rows / max(1, filled.sum()):.0f} a day"
    shortest = 14 + 7 + 2 * embargo + 14
    if len(days) < shortest:
        raise TooFewError(
            f"{shown}: expected {shortest} days or more: a model learns from two weeks at least, is judged on the next, and scores the two "
            "after that"
        )
    for least in dict.fromkeys((wanted, to_judge)):
        for training, holdout in _candidates(len(days), embargo):
            live = _first_go_live(start, len(days), training + holdout + 2 * embargo)
            learnt = int(known[: live - holdout - 2 * embargo].sum())
            judged, on = _holdouts(known, filled, live=live, holdout=holdout, embargo=embargo)
            if learnt >= FEWEST_TO_LEARN and np.mean((judged >= least) & (on >= FEWEST_DAYS)) >= _SHARE:
                return Windows(
                    start=start,
                    end=shift(last, 1),
                    first_go_live=shift(start, live),
                    training_days=training,
                    holdout_days=holdout,
                    filled_days=int(filled.sum()),
                    rows=rows,
                    rows_to_learn=learnt,
                    rows_to_judge=int(np.median(judged)),
                    days_to_learn=live - holdout - 2 * embargo,
                )
    raise TooFewError(
        f"{shown}, {int(known.sum()):,} with a known label: no windows hold {FEWEST_TO_LEARN} events with a known label to learn from and, "
        f"from then on, {to_judge} on {FEWEST_DAYS} days or more to be judged on. {_cure(days, known, filled)}"
    )


def _cure(days: Sequence[Day], known: npt.NDArray[np.int64], filled: npt.NDArray[np.bool_]) -> str:
    """What to do where no windows hold enough: labels that end long before the events do are no lack of events."""
    labelled, events = np.flatnonzero(known), np.flatnonzero(filled)
    if len(labelled) and events[-1] - labelled[-1] > len(days) // 5:
        last = days[int(labelled[-1])]
        return f"No event after {last} has a label: take the days to {last} alone, or bring the labels of the others"
    return "Take more days or more events a day"


def _candidates(days: int, embargo: int) -> list[tuple[int, int]]:
    """Windows that fit into so many days, those to prefer first."""
    usual = [
        (training, holdout)
        for training, holdout in _LADDER
        if days >= 2 * (training + holdout + 2 * embargo) or (training == 14 and days >= training + holdout + 2 * embargo + 14)
    ]
    longer = [(training, holdout) for holdout in _LONGER for training in _LONGER]
    fitting = [(training, holdout) for training, holdout in longer if days >= training + holdout + 2 * embargo + 14]
    return usual + sorted(fitting, key=sum)


def _first_go_live(start: Day, days: int, needed: int) -> int:
    """How many days after the start: a Monday on or after the day on which there is enough."""
    first = max(needed, days // 3)
    return first + -date.fromisoformat(shift(start, first)).weekday() % 7


def _holdouts(
    known: npt.NDArray[np.int64], filled: npt.NDArray[np.bool_], *, live: int, holdout: int, embargo: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Labels, and days with events, in the holdout of each week from the first on."""
    ends = np.arange(live, len(known), 7) - embargo
    starts = np.maximum(ends - holdout, 0)
    sums, days = (np.concatenate([[0], np.cumsum(each)]) for each in (known, filled.astype(np.int64)))
    return sums[ends] - sums[starts], days[ends] - days[starts]
