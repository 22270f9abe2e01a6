"""Sums, means and standard deviations of facts in trailing windows, for many questions at once.

Belongs here: which exact sums are formed of which facts (`exact` has the arithmetic, `windows` the windows). Does not: what is declared
(`features`), a few questions at once (`online_features`).
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_assets.stages.exact import FloatArray, Numbers, RunningSums, Sums, numbers
from ml_assets.stages.windows import Int64Array, Known, sums

Moment = str
"""`sum`, `mean` or `std`."""
MOMENTS: Collection[Moment] = ("sum", "mean", "std")
CHUNK = 1 << 15
"""Questions whose sums are numbers of Python at a time: such a number takes up to half a kilobyte."""


def moment(name: Moment, of: Sums) -> FloatArray:
    """One of the `MOMENTS` of what was summed: a sum of nothing is 0, a mean or standard deviation of nothing nan.

    Raises:
        OverflowError: a sum is greater than any float.
    """
    match name:
        case "sum":
            return of.total()
        case "mean":
            return of.mean()
        case "std":
            return of.std()
        case _:
            raise ValueError(f"no moment {name!r}; there are {', '.join(MOMENTS)}")


def moments(
    known: Known, values: npt.NDArray[Any], counts: Mapping[timedelta, Int64Array], names: Collection[Moment]
) -> dict[timedelta, dict[Moment, FloatArray]]:
    """Moments of each entity's facts in `(t - window, t]`, each the float nearest to the exact number.

    Args:
        values: finite numbers, shape (n,), one a fact.
        counts: for each window how many facts lie in it, shape (m,), in the order of the questions.
        names: which of the `MOMENTS`.

    Returns:
        For each window the moments by name, of shape (m,), in the order of the questions.

    Raises:
        OverflowError: as `moment`.
    """
    answers: dict[timedelta, dict[Moment, FloatArray]] = {window: {} for window in counts}
    whole = numbers(values)
    if whole is not None:
        for window, of_window in _in_64_bits(known, whole, counts, squares="std" in names):
            answers[window] = {name: moment(name, of_window) for name in names}
        return answers
    for window, questions, of_window in _in_python(known, values, tuple(counts)):
        for name in names:
            answers[window].setdefault(name, np.empty(len(known.order)))[questions] = moment(name, of_window)
    return answers


def _in_64_bits(
    known: Known, whole: Numbers, counts: Mapping[timedelta, Int64Array], *, squares: bool
) -> Iterator[tuple[timedelta, Sums]]:
    """The sums of one window after the other."""
    most = max((int(count.max(initial=0)) for count in counts.values()), default=0)
    first = whole.summands(most)
    second = whole.squares(most) if squares else ()
    for window, found in sums(known, (*first, *second), tuple(counts)):
        yield (
            window,
            Sums(
                count=counts[window],
                first=tuple(found[: len(first)]),
                second=tuple(found[len(first) :]),
                exponent=whole.exponent,
                reach=whole.largest * most,
            ),
        )


def _in_python(
    known: Known, values: npt.NDArray[Any], windows: tuple[timedelta, ...]
) -> Iterator[tuple[timedelta, Int64Array, Sums]]:
    """The sums of some questions after the others, and which these are."""
    for begin in range(0, len(known.order), CHUNK):
        part = slice(begin, begin + CHUNK)
        for window in windows:
            starts, ends = known.start(window)[part], known.end[part]
            low, high = int(starts.min()), int(ends.max())
            running = RunningSums.of(values[known.row[low:high]])
            yield window, known.order[part], running.between(starts - low, ends - low)
