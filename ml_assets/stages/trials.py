"""What a search tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One recipe and what it was worth: `value` is the mean of the average precisions of its `folds`.

    A trial that was pruned has only the folds up to there. `trees` is the median of the folds' best numbers of trees, None without trees.
    """

    number: int
    state: Literal["complete", "pruned"]
    value: float | None
    family: str
    parameters: dict[str, float | int | str]
    folds: tuple[float, ...]
    trees: int | None


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """Complete trials by falling value, then pruned ones, whose values are of fewer folds."""
    return sorted(trials, key=lambda trial: (trial.state != "complete", -(trial.value or 0.0), trial.number))
