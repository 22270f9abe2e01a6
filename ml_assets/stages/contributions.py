"""What moved a model's scores: each feature's contribution to the log-odds, row by row and on average.

Belongs here: sums of contributions. Does not: how a family computes them (`trees`, `logistic`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.model import Model

SAMPLE_ROWS = 2000
FEATURES = 20
EXAMPLES = 3
REASONS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Contribution:
    """A feature's contributions in log-odds over a sample of rows; a mean over a class that the sample lacks is None."""

    feature: str
    mean_absolute: float
    mean_positives: float | None
    mean_negatives: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Why:
    """A feature of an event, its value as text, and what it adds to the event's log-odds."""

    feature: str
    value: str
    contribution: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """An event of the hold-out: its score, its label, and the features that moved the score most."""

    event: str
    day: str
    score: float
    label: int
    reasons: tuple[Why, ...]


def contributions_of(model: Model, rows: pd.DataFrame, labels: FloatArray) -> tuple[Contribution, ...]:
    """The `FEATURES` features that move scores most, over at most `SAMPLE_ROWS` rows spread evenly from the first to the last.

    Empty for a family without contributions.
    """
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE_ROWS)).astype(np.int64)
    parts = model.contributions(rows.iloc[chosen])
    if parts is None:
        return ()
    truth = labels[chosen]
    found = [
        Contribution(
            feature=name,
            mean_absolute=float(np.abs(values).mean()),
            mean_positives=_mean(values[truth == 1]),
            mean_negatives=_mean(values[truth == 0]),
        )
        for name, values in zip(model.inputs, parts.T, strict=False)  # the last column is the same for every row
    ]
    return tuple(sorted(found, key=lambda each: (-each.mean_absolute, each.feature))[:FEATURES])


def examples_of(model: Model, rows: pd.DataFrame, labels: FloatArray, scores: FloatArray) -> tuple[Example, ...]:
    """The `EXAMPLES` rows with the highest scores, of equal ones the first, each with its `REASONS` largest contributions.

    An event is named by its `event_id`, by its place where the rows have none. Empty for a family without contributions.
    """
    highest = np.argsort(-scores, kind="stable")[:EXAMPLES]
    parts = model.contributions(rows.iloc[highest])
    if parts is None:
        return ()
    names = rows["event_id"] if "event_id" in rows.columns else pd.Series(range(len(rows)))
    return tuple(
        Example(
            event=str(names.iloc[place]),
            day=str(rows["day"].iloc[place]),
            score=float(scores[place]),
            label=int(labels[place]),
            reasons=_reasons(model.inputs, rows.iloc[place], values),
        )
        for place, values in zip(highest.tolist(), parts[:, :-1], strict=True)
    )


def _reasons(names: tuple[str, ...], row: "pd.Series[Any]", values: FloatArray) -> tuple[Why, ...]:
    largest = np.argsort(-np.abs(values), kind="stable")[:REASONS].tolist()
    return tuple(Why(feature=names[at], value=_text(row[names[at]]), contribution=float(values[at])) for at in largest)


def _text(value: Any) -> str:
    """A cell as text: numbers with four digits, whole and large ones in full."""
    if pd.isna(value):
        return "missing"
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return str(value)
    number = float(value)
    return f"{number:,.4g}" if abs(number) < 1000 and number % 1 else f"{number:,.0f}"


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
