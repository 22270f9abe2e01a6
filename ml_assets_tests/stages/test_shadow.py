"""Which model scores in shadow, and what a comparison on matured labels says."""

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.shadow import compared, compared_markdown, shadow_of
from ml_assets.use_case import Gate, day_range

GATE = Gate(
    floors={}, margin=0.01, risk=0.05, resamples=200, slices=(), slice_margin=0.05, max_model_megabytes=1, max_row_milliseconds=1
)
DAYS = day_range("2024-01-01", "2024-01-14")


class Decision:
    def __init__(self, champion_before: str | None) -> None:
        self.champion_before = champion_before


class Judged:
    """What of a report decides."""

    def __init__(self, candidate: str, champion: str | None) -> None:
        self.candidate = type("Of", (), {"version": candidate})
        self.decision = Decision(champion)


@pytest.mark.parametrize(
    ("candidate", "champion", "in_force", "shadow"),
    [
        ("new", "old", "old", "new"),  # refused
        ("new", "old", "new", "old"),  # promoted
        ("new", None, "new", None),  # the first
        ("new", "old", "older", "new"),  # a person rolled back
    ],
)
def test_the_model_that_is_not_in_force_scores_in_shadow(
    candidate: str, champion: str | None, in_force: str, shadow: str | None
) -> None:
    assert shadow_of(Judged(candidate, champion), in_force) == shadow  # type: ignore[arg-type]


def rows_of(noise: float, shadow_noise: float, *, seed: int = 1, pair: tuple[str, str] = ("champion", "candidate")) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    count = 200 * len(DAYS)
    truth = (random.random(count) < 0.2).astype(int)

    def scored(spread: float) -> np.ndarray:
        return truth + random.normal(scale=spread, size=count)

    return pd.DataFrame(
        {
            "day": np.repeat(DAYS, 200),
            "label": truth,
            "score": scored(noise),
            "shadow_score": scored(shadow_noise),
            "model_version": pair[0],
            "shadow_version": pair[1],
        }
    )


@pytest.mark.parametrize(
    ("noise", "shadow_noise", "verdict"),
    [
        (1.0, 0.5, "the model in shadow was better"),
        (0.5, 1.0, "the model in force was better"),
        (1.0, 1.0, "no difference can be told"),
    ],
)
def test_the_interval_of_the_difference_decides(noise: float, shadow_noise: float, verdict: str) -> None:
    (found,) = compared(rows_of(noise, shadow_noise), gate=GATE, seed=1)
    assert found.verdict == verdict
    assert found.days == (DAYS[0], DAYS[-1])
    assert found.events == 200 * len(DAYS)
    assert found.difference[0] < found.average_precision[1] - found.average_precision[0] < found.difference[1]
    assert verdict in compared_markdown([found])


def test_every_pair_is_compared_by_itself_and_one_without_positives_is_not() -> None:
    first, second = rows_of(1.0, 0.5), rows_of(0.5, 1.0, pair=("candidate", "champion")).assign(label=0)
    found = compared(pd.concat([first, second]), gate=GATE, seed=1)
    assert [(each.in_force, each.shadow) for each in found] == [("champion", "candidate")]
