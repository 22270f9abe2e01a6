"""Weeks side by side, known and not yet known."""

from dataclasses import replace
from io import BytesIO
from math import nan
from typing import Any

import pytest
from PIL import Image

from ml_assets.stages.backtest import BacktestWeek, draw_weeks, headline, render_weeks

HOSTILE = "<script>alert(1)</script>"


def week(day: str, **changes: Any) -> BacktestWeek:
    given: dict[str, Any] = {
        "week": day,
        "promoted": True,
        "candidate": 0.4412,
        "candidate_interval": (0.40, 0.48),
        "champion": 0.4301,
        "champion_interval": (0.39, 0.47),
        "model": "v-1",
        "live": {"roc_auc": 0.81, "average_precision": 0.4},
        "baseline_live": 0.3,
    }
    return BacktestWeek(**{**given, **changes})


WEEKS = [
    week("2024-03-04", champion=None, champion_interval=None),
    week("2024-03-11", promoted=False, candidate=0.42, live={"roc_auc": 0.8, "average_precision": 0.5}),
    week("2024-03-18", live=None, baseline_live=None),
]


@pytest.mark.parametrize("count", [0, 1, 3, 60])
def test_any_number_of_weeks_has_a_picture_and_a_page(count: int) -> None:
    weeks = [replace(WEEKS[place % 3], week=f"{2020 + place // 12}-{place % 12 + 1:02}-04") for place in range(count)]

    picture = draw_weeks(weeks)
    page = render_weeks(weeks, picture, title="Card fraud")

    assert Image.open(BytesIO(picture)).size == (960, 420)
    assert len(picture) < 60_000
    assert draw_weeks(weeks[::-1]) == picture
    assert page.count("<tbody>") == min(count, 1)
    assert page.count('<th scope="row">') == count


def test_what_differs_is_drawn() -> None:
    drawn = {
        draw_weeks(weeks)
        for weeks in (
            WEEKS,
            [replace(each, candidate_interval=None) for each in WEEKS],
            [replace(each, promoted=not each.promoted) for each in WEEKS],
            [replace(each, baseline_live=0.35) for each in WEEKS],
            [replace(WEEKS[0], live={"average_precision": 0.45}), *WEEKS[1:]],
        )
    }

    assert len(drawn) == 5


def test_what_is_missing_is_said_so() -> None:
    page = render_weeks(WEEKS, b"", title="x")

    assert page.count("not known yet") == 3  # two live metrics and the baseline of the last week
    assert "✓ promoted" in page
    assert "✗ refused" in page
    assert "0.4412 <small>(0.40 – 0.48)</small>" in page
    assert page.index("Live average precision") < page.index("Live roc auc")
    assert page.index("2024-03-04") < page.index("2024-03-11") < page.index("2024-03-18")


def test_the_headline_compares_only_weeks_of_which_both_are_known() -> None:
    undefined = week("2024-03-25", live={"average_precision": nan}, promoted=False)

    assert headline([*WEEKS, undefined]) == (
        "2 of 4 candidates promoted; live average precision 0.450, baseline 0.300 (mean of 2 weeks)."
    )
    assert headline(WEEKS[2:]) == "1 of 1 candidates promoted; how the models did live is not known yet."
    assert headline([]) == "No week has been decided yet."
    assert "n/a" in render_weeks([undefined], b"", title="x")


def test_the_page_stands_alone_and_names_are_text() -> None:
    page = render_weeks([week("2024-03-04", model=HOSTILE)], draw_weeks(WEEKS), title=HOSTILE)

    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "--ink" in page
    assert page.count("&lt;script&gt;") == 3
