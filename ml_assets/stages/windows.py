"""Facts as they were known at a time: trailing windows and latest values.

Belongs here: arithmetic on sorted arrays. Does not: what a use case wants to know (`use_cases`), where facts are kept (`storage`).

Every question is answered with prefix sums and two binary searches: O(n log n), no loop over rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """Facts and questions on one axis, ordered by (time, id); a fact comes before a question with the same time and id.

    Build it with `Timeline.of`. A fact counts for a question when it lies before it on the axis: `(known_at, id) <= (t, id)`.
    """

    fact: Int64Array  # (n,) position of each fact on the axis
    asked: Int64Array  # (m,) position of each question on the axis
    facts: Int64Array  # (n,) the facts in the order of the axis
    questions: Int64Array  # (m,) the questions in the order of the axis
    asked_at: Int64Array  # (m,) microseconds since the epoch
    times: Int64Array  # (n + m,) times of the axis, ascending
    own: npt.NDArray[np.bool_]  # (m,) whether a fact has the question's time and id: then it lies right before it
    _before: dict[timedelta, Int64Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, *, known_at: Int64Array, fact_id: Int64Array, asked_at: Int64Array, asked_id: Int64Array) -> "Timeline":
        """Order n facts and m questions. Times in microseconds; ids are ranks on one common scale."""
        time, id = np.concatenate([known_at, asked_at]), np.concatenate([fact_id, asked_id])
        is_question = np.repeat([0, 1], [len(known_at), len(asked_at)])
        order = np.lexsort((is_question, id, time))
        position = np.empty(len(order), dtype=np.int64)
        position[order] = np.arange(len(order))
        asked = position[len(known_at) :]
        before = order[asked - 1]  # of a question at the start of the axis the last one, which is none of its facts
        own = (asked > 0) & (is_question[before] == 0) & (time[before] == asked_at) & (id[before] == asked_id)
        return cls(
            fact=position[: len(known_at)],
            asked=asked,
            facts=order[order < len(known_at)],
            questions=order[order >= len(known_at)] - len(known_at),
            asked_at=asked_at,
            times=time[order],
            own=own,
        )

    def before(self, ago: timedelta) -> Int64Array:
        """For each question, the axis position up to which things happened at or before `t - ago`, shape (m,)."""
        if ago not in self._before:
            self._before[ago] = np.searchsorted(self.times, self.asked_at - ago // timedelta(microseconds=1), side="right")
        return self._before[ago]


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """The facts of each entity in order, ready for questions about the same entities. Entity -1 has no facts.

    Questions are answered by entity and then time, in the order `order`: neighbours search and sum neighbouring memory, which is
    several times faster; `asked` puts answers back. What several statistics ask alike, where a window begins, is found once and kept.
    """

    timeline: Timeline
    key: Int64Array  # (k,) entity and position in one number, ascending
    row: Int64Array  # (k,) which fact it is
    order: Int64Array  # (m,) questions by entity and time
    first: Int64Array  # (m,) in this order: no key of the question's entity is less
    _starts: dict[timedelta, Int64Array] = field(default_factory=dict, repr=False, compare=False)
    _ends: list[Int64Array] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(cls, timeline: Timeline, *, fact_entity: Int64Array, asked_entity: Int64Array) -> "Known":
        span = len(timeline.times) + 1
        rows = _by_entity(fact_entity, timeline.facts[fact_entity[timeline.facts] >= 0])
        order = _by_entity(asked_entity, timeline.questions)
        return cls(
            timeline=timeline,
            key=fact_entity[rows] * span + timeline.fact[rows],
            row=rows,
            order=order,
            first=asked_entity[order] * span,
        )

    def until(self, position: Int64Array) -> Int64Array:
        """How many keys lie before each question's entity and axis position; `position` as asked, the answer in `order`."""
        return np.searchsorted(self.key, self.first + position[self.order], side="left")

    def asked(self, answer: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Answers in `order`, put back as they were asked for."""
        back = np.empty_like(answer)
        back[self.order] = answer
        return back

    @property
    def end(self) -> Int64Array:
        """How many keys lie before each question, its own event counted, shape (m,), in `order`."""
        if not self._ends:
            self._ends.append(self.until(self.timeline.asked))
        return self._ends[0]

    def start(self, window: timedelta) -> Int64Array:
        """How many keys lie before the window of each question, at most `end`, shape (m,), in `order`."""
        if window not in self._starts:
            self._starts[window] = np.minimum(self.until(self.timeline.before(window)), self.end)
        return self._starts[window]

    def latest(self, ago: timedelta = timedelta(0), *, itself: bool = True) -> Int64Array:
        """Index of the latest fact known at `t - ago`, shape (m,), as asked; -1 when nothing was known about the entity.

        A fact with the time and id of a question is the event's own, which counts only with `itself`.
        """
        position = self.timeline.before(ago) if ago else self.timeline.asked - (self.timeline.own & (not itself))
        end = self.until(position)
        found = np.flatnonzero(end)
        found = found[self.key[end[found] - 1] >= self.first[found]]
        last = np.full(len(end), -1, dtype=np.int64)
        last[self.order[found]] = self.row[end[found] - 1]
        return last


def _by_entity(entity: Int64Array, order: Int64Array) -> Int64Array:
    """Stable order by entity of what is in some order. Halves of a code, since numpy sorts 16 bits by radix, 10 times faster."""
    code = (entity[order] + 1).astype(np.uint64)
    digits = [(code >> shift).astype(np.uint16) for shift in range(0, max(int(code.max(initial=0)).bit_length(), 1), 16)]
    return order[np.lexsort(digits)]


def trailing(known: Known, values: Sequence[Int64Array], windows: tuple[timedelta, ...]) -> dict[timedelta, tuple[Int64Array, ...]]:
    """Count of each entity's facts in `(t - window, t]`, and the sum of each of some values of them.

    Args:
        values: each (n,), whole numbers, so that sums are exact whatever the order; none may leave 64 bits (`exact` splits larger ones).

    Returns:
        For each window the count and as many sums as values, of shape (m,), in the order of the questions; all 0 where nothing was known.
    """
    return {window: (known.asked(known.end - known.start(window)), *found) for window, found in sums(known, values, windows)}


def sums(
    known: Known, values: Sequence[Int64Array], windows: tuple[timedelta, ...]
) -> Iterator[tuple[timedelta, list[Int64Array]]]:
    """The sums of `trailing`, of one window after the other. A running sum may leave 64 bits: differences are right nevertheless."""
    running = [np.concatenate([[0], np.cumsum(each[known.row])]).astype(np.int64) for each in values]
    ended = [of_values[known.end] for of_values in running]
    for window in windows:
        start = known.start(window)
        yield window, [known.asked(end - of_values[start]) for of_values, end in zip(running, ended, strict=True)]


def span(known: Known, windows: tuple[timedelta, ...]) -> dict[timedelta, Int64Array]:
    """Age of each entity's oldest fact in `(t - window, t]`, in microseconds.

    Returns:
        For each window an array of shape (m,), in the order of the questions; -1 where nothing was known.
    """
    known_at = known.timeline.times[known.timeline.fact]
    answers = {}
    for window in windows:
        start = known.start(window)
        found = np.flatnonzero(start < known.end)
        asked = known.order[found]
        answers[window] = np.full(len(start), -1, dtype=np.int64)
        answers[window][asked] = known.timeline.asked_at[asked] - known_at[known.row[start[found]]]
    return answers


def ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any], *, of_nothing: float = np.nan) -> npt.NDArray[np.float64]:
    """Quotient, and `of_nothing` where the denominator is 0: a mean of nothing is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: npt.NDArray[np.float64] = numerator / denominator
    np.copyto(found, of_nothing, where=denominator == 0)
    return found
