"""Whether there is enough to train a model on and to judge it by, asked before anything is trained.

Belongs here: what is foreseen to be missing, in words that name the days. Does not: how much is declared to be needed (`use_case.Split`).
"""

from collections.abc import Sequence

import numpy.typing as npt
import pandas as pd

from ml_assets.use_case import Day


class CannotJudgeError(ValueError):
    """No candidate can be trained or judged from what there is; the message is the reason for which the week is refused."""


def require_both_classes(labels: npt.ArrayLike, days: Sequence[Day], *, events: int, purpose: str, known_before: Day) -> None:
    """Labels of both classes are known among the events of some days.

    Args:
        labels: 0 or 1, of the events whose label is known, shape (n,).
        days: the days that the events are of, ascending.
        events: how many there are, labelled or not.
        purpose: what the days are for, such as "holdout".
        known_before: the day from which on a label comes too late.

    Raises:
        CannotJudgeError: there is no event, no known label, or one class alone.
    """
    truth, where = pd.Series(labels), f"{purpose} {days[0]} to {days[-1]}"
    if not events:
        raise CannotJudgeError(f"{where}: no events")
    if truth.empty:
        raise CannotJudgeError(f"{where}: no label that counts is known before {known_before} of any of {events:,} events")
    if truth.nunique() == 1:
        name = "positives" if truth.iloc[0] == 1 else "negatives"
        raise CannotJudgeError(f"{where}: all {len(truth):,} events with a known label are {name}, of {events:,} events")
