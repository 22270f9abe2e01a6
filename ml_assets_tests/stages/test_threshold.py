"""The operating threshold flags what was declared, and costs are those of counting every threshold there is."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.stages.threshold import operating_threshold
from ml_assets.use_case import AlertShare, AlertsPerDay, Costs, Operating

DAYS = np.repeat(["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06"], 25)
"""A hundred rows; two days between them have none."""


def hundred() -> np.ndarray:
    return np.random.default_rng(0).permutation(np.linspace(0, 1, 100))


def flagged(scores: np.ndarray, operating: Operating) -> int:
    return int((scores >= operating_threshold(scores, np.zeros(len(scores)), DAYS[: len(scores)], operating)).sum())


@pytest.mark.parametrize(("share", "wanted"), [(0.1, 10), (0.001, 1), (1.0, 100), (0.0, 1)])
def test_a_share_is_flagged_and_one_row_at_least(share: float, wanted: int) -> None:
    assert flagged(hundred(), AlertShare(share=share)) == wanted


@pytest.mark.parametrize(("alerts", "wanted"), [(5, 20), (2.5, 10), (0.01, 1), (1000, 100)])
def test_so_many_alerts_a_day_are_a_mean_over_the_days_that_have_rows(alerts: float, wanted: int) -> None:
    assert flagged(hundred(), AlertsPerDay(alerts=alerts)) == wanted


def test_a_day_may_take_the_alerts_of_the_others() -> None:
    scores = np.where(DAYS == "2024-01-05", 0.9, 0.1) + np.linspace(0, 0.01, 100)

    threshold = operating_threshold(scores, np.zeros(100), DAYS, AlertsPerDay(alerts=5))

    assert set(DAYS[scores >= threshold]) == {"2024-01-05"}
    assert (scores >= threshold).sum() == 20


@pytest.mark.parametrize("operating", [AlertShare(share=0.1), AlertsPerDay(alerts=2.5)])
def test_ties_at_the_threshold_are_flagged_together(operating: Operating) -> None:
    """The tenth and eleventh score are equal."""
    scores = np.sort(hundred())[::-1].copy()
    scores[10] = scores[9]

    assert flagged(scores, operating) == 11


SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
LABELS = np.array([1.0, 0.0, 0.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("costs", "threshold"),
    [
        (Costs(false_positive=1, false_negative=3), 0.6),  # two wrong alerts (2) save the second positive (3)
        (Costs(false_positive=2, false_negative=3), 0.9),  # two wrong alerts (4) do not
        (Costs(false_positive=1, false_negative=2), 0.9),  # as much either way: the fewer alerts
        (Costs(false_positive=0, false_negative=3), 0.6),
    ],
)
def test_alerts_go_on_as_long_as_they_save_more_than_they_cost(costs: Costs, threshold: float) -> None:
    assert operating_threshold(SCORES, LABELS, DAYS[:5], costs) == threshold


@pytest.mark.parametrize(
    ("labels", "costs"),
    [
        (LABELS[::-1], Costs(false_positive=10, false_negative=1)),  # the highest score is a negative
        (np.zeros(5), Costs(false_positive=1, false_negative=1)),
        (LABELS, Costs(false_positive=1, false_negative=0)),
    ],
)
def test_where_no_alert_is_cheapest_nothing_is_flagged_not_even_the_highest_score(labels: np.ndarray, costs: Costs) -> None:
    threshold = operating_threshold(SCORES, labels, DAYS[:5], costs)

    assert np.isfinite(threshold)
    assert threshold > SCORES.max()


def test_rows_of_one_score_are_flagged_together_or_not_at_all() -> None:
    """Were the tie split, the positive alone would be cheapest at any cost."""
    scores, labels = np.array([0.7, 0.7, 0.7, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])

    assert operating_threshold(scores, labels, DAYS[:4], Costs(false_positive=1, false_negative=3)) == 0.7
    assert operating_threshold(scores, labels, DAYS[:4], Costs(false_positive=1, false_negative=1)) > 0.7


@st.composite
def judged(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores in tenths, so that ties are frequent, with labels."""
    rows = draw(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 1)), min_size=1, max_size=25))
    return np.array([score / 10 for score, _ in rows]), np.array([float(label) for _, label in rows])


@given(rows=judged(), false_positive=st.integers(0, 9), false_negative=st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_no_threshold_costs_less_and_of_the_cheapest_it_flags_the_fewest(
    rows: tuple[np.ndarray, np.ndarray], false_positive: int, false_negative: int
) -> None:
    scores, labels = rows

    def cost(threshold: float) -> float:
        alerts = scores >= threshold
        return false_positive * (alerts & (labels == 0)).sum() + false_negative * (~alerts & (labels == 1)).sum()

    costs = Costs(false_positive=false_positive, false_negative=false_negative)
    found = operating_threshold(scores, labels, np.repeat("2024-01-01", len(scores)), costs)

    every = [*np.unique(scores), np.inf]
    assert cost(found) == min(map(cost, every))
    assert (scores >= found).sum() == min((scores >= each).sum() for each in every if cost(each) == cost(found))


@pytest.mark.parametrize("operating", [AlertShare(share=0.5), AlertsPerDay(alerts=1), Costs(false_positive=1, false_negative=1)])
@pytest.mark.parametrize(("scores", "said"), [([0.5, np.nan], "1 of 2"), ([0.5, np.inf], "1 of 2"), ([], "0 of 0")])
def test_a_threshold_needs_finite_scores(operating: Operating, scores: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        operating_threshold(np.array(scores), np.zeros(len(scores)), DAYS[: len(scores)], operating)
