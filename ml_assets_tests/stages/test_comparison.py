"""The bootstrap against sklearn on rows that are really repeated."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ml_assets.stages.comparison import average_precisions, multiplicities, paired_bootstrap


def made(rows: int, days: int, *, decimals: int, rate: float = 0.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows)
    labels = (random.random(rows) < rate).astype(float)
    scores = np.round(random.normal(size=rows) + labels, decimals)
    return labels, scores, random.integers(0, days, rows)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_average_precision_of_a_resample_is_that_of_sklearn_with_and_without_ties(decimals: int) -> None:
    labels, scores, day = made(600, 7, decimals=decimals)
    times = multiplicities(7, resamples=50, seed=1)

    found = average_precisions(labels, scores, day, times)

    for row, ours in zip(times, found, strict=True):
        repeated = np.repeat(np.arange(600), row[day].astype(int))
        assert ours == pytest.approx(average_precision_score(labels[repeated], scores[repeated]), abs=1e-12)


def test_as_many_days_are_drawn_as_there_are_and_the_seed_decides_which() -> None:
    times = multiplicities(7, resamples=300, seed=1)

    assert (times.sum(axis=1) == 7).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)
    np.testing.assert_array_equal(times, multiplicities(7, resamples=300, seed=1))
    assert (times != multiplicities(7, resamples=300, seed=2)).any()


def test_a_resample_without_positives_is_undefined_and_does_not_count() -> None:
    labels, scores, days = np.array([0.0, 1.0, 0.0]), np.array([0.1, 0.2, 0.3]), ["2024-01-01", "2024-01-02", "2024-01-03"]

    found = paired_bootstrap(labels, days, scores, scores, resamples=500, margin=0.0, seed=1)

    assert 0.6 * 500 < found["resamples"] < 0.8 * 500  # 1 - (2/3)**3 = 70 % of the draws hold the second day
    assert found["mean_difference"] == 0


def test_without_any_positive_it_is_refused() -> None:
    with pytest.raises(ValueError, match="undefined"):
        paired_bootstrap(np.zeros(2), ["a", "b"], np.zeros(2), np.ones(2), resamples=10, margin=0, seed=1)


def test_equal_scores_differ_by_exactly_nothing() -> None:
    labels, scores, day = made(2000, 7, decimals=2)

    found = paired_bootstrap(labels, day, scores, scores.copy(), resamples=100, margin=0.0, seed=1)

    assert (found["mean_difference"], found["chance_worse_than_margin"], found["interval_low"]) == (0, 0, 0)


def test_a_better_candidate_is_better_and_a_worse_one_worse() -> None:
    labels, scores, day = made(2000, 7, decimals=8)
    worse = scores + np.random.default_rng(0).normal(size=2000) * 2

    gain = paired_bootstrap(labels, day, scores, worse, resamples=200, margin=0.01, seed=1)
    loss = paired_bootstrap(labels, day, worse, scores, resamples=200, margin=0.01, seed=1)

    assert gain["interval_low"] > 0
    assert gain["chance_worse_than_margin"] == 0
    assert loss["chance_worse_than_margin"] == 1
    assert loss["mean_difference"] == pytest.approx(-gain["mean_difference"])


def test_the_difference_must_exceed_the_margin_to_count_as_worse() -> None:
    labels, scores, day = made(2000, 7, decimals=8)
    worse = scores + np.random.default_rng(0).normal(size=2000) * 0.1

    chances = [
        paired_bootstrap(labels, day, worse, scores, resamples=200, margin=margin, seed=1)["chance_worse_than_margin"]
        for margin in (0.0, 0.5)
    ]

    assert chances[0] > 0.5
    assert chances[1] == 0


def test_errors_that_belong_to_a_day_widen_the_interval() -> None:
    """One bad day in seven is much of the evidence: rows drawn one by one would not see it."""
    labels, scores, day = made(3500, 7, decimals=8)
    champion = scores + 1e-6 * np.arange(3500)
    spoiled = np.where(day == 3, np.random.default_rng(0).normal(size=3500), scores)

    by_day = paired_bootstrap(labels, day, spoiled, champion, resamples=500, margin=0.0, seed=1)
    by_row = paired_bootstrap(labels, np.arange(3500), spoiled, champion, resamples=100, margin=0.0, seed=1)

    widths = [found["interval_high"] - found["interval_low"] for found in (by_day, by_row)]
    assert widths[0] > 2 * widths[1]
