"""Days are cut so that memory has a bound, and facts are not read too often."""

import pytest

from ml_assets.stages import stretches as module
from ml_assets.stages.stretches import stretches
from ml_assets.use_case import day_range


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 100)
    monkeypatch.setattr(module, "BOUND", 20_000)


DAYS = day_range("2024-01-01", "2024-01-12")


def test_every_day_is_in_one_stretch_in_order() -> None:
    rows = dict(zip(DAYS, [3, 0, 40, 1, 1, 7, 0, 0, 25, 2, 9, 1], strict=True))

    cut = stretches(rows, columns=4)

    assert [day for days in cut for day in days] == DAYS
    assert all(cut)


def test_a_stretch_has_about_as_many_values_as_are_allowed() -> None:
    cut = stretches(dict.fromkeys(DAYS, 5), columns=4)

    assert [len(days) for days in cut] == [4, 5, 3]  # the day that reaches the bound opens the next


def test_a_large_day_is_a_stretch_of_its_own() -> None:
    assert stretches(dict.fromkeys(DAYS, 1000), columns=4) == [[day] for day in DAYS]


def test_stretches_of_large_days_are_half_as_long_as_what_they_read_before() -> None:
    cut = stretches(dict.fromkeys(DAYS, 1000), columns=4, look_back=8)

    assert [len(days) for days in cut] == [3, 4, 4, 1]


def test_a_long_look_back_does_not_make_stretches_without_end() -> None:
    cut = stretches(dict.fromkeys(DAYS, 1000), columns=4, look_back=60)

    assert [len(days) for days in cut] == [4, 5, 3]


def test_a_look_back_does_not_shorten_stretches_of_small_days() -> None:
    rows = dict.fromkeys(DAYS, 5)

    assert stretches(rows, columns=4, look_back=2) == stretches(rows, columns=4)


def test_days_without_rows_are_together_and_no_days_are_none() -> None:
    assert stretches(dict.fromkeys(DAYS, 0), columns=4, look_back=8) == [DAYS]
    assert stretches({}, columns=4, look_back=8) == []
