"""What is missing to train or to judge is said before anything is trained."""

import pytest

from ml_assets.stages.sufficiency import CannotJudgeError, require_both_classes

DAYS = ["2024-01-01", "2024-01-07"]


@pytest.mark.parametrize(
    ("labels", "events", "reason"),
    [
        ([], 0, "holdout 2024-01-01 to 2024-01-07: no events"),
        (
            [],
            1200,
            "holdout 2024-01-01 to 2024-01-07: no label that counts is known before 2024-01-09 of any of 1,200 events",
        ),
        ([0, 0], 3, "holdout 2024-01-01 to 2024-01-07: all 2 events with a known label are negatives, of 3 events"),
        ([1, 1], 2, "holdout 2024-01-01 to 2024-01-07: all 2 events with a known label are positives, of 2 events"),
    ],
)
def test_the_reason_names_days_and_numbers(labels: list[int], events: int, reason: str) -> None:
    with pytest.raises(CannotJudgeError) as refused:
        require_both_classes(labels, DAYS, events=events, purpose="holdout", known_before="2024-01-09")
    assert str(refused.value) == reason


def test_both_classes_are_enough() -> None:
    require_both_classes([0, 1], DAYS, events=2, purpose="holdout", known_before="2024-01-09")
