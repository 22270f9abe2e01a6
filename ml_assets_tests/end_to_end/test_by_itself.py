"""Seven days of a shop with Dagster's daemon and web server alone, both killed again and again: every asset ends right, in few runs.

`python benchmarks/month.py` plays the whole month.
"""

from pathlib import Path

import pytest

from ml_assets_tests.end_to_end.month import CASE, WEEK, Month, counted, judge


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Month:
    month = Month(place=tmp_path_factory.mktemp("by-itself"), plan=WEEK)
    month.prepare()
    month.play()
    return month


def test_every_asset_ends_as_the_command_makes_it(played: Month, tmp_path: Path) -> None:
    found = judge(played, played.reference(tmp_path))
    assert found == []
    assert len(played.kills) == 4


def test_there_are_few_runs_and_each_says_why(played: Month, record_property: object) -> None:
    with played.instance() as instance:
        runs = played.runs(instance)
    assert all(run["why"] for run in runs), runs
    assert {run["status"] for run in runs} <= {"SUCCESS", "FAILURE", "CANCELED"}, counted(runs)
    assert len(runs) <= 12 * WEEK.days, counted(runs)
    assert CASE == "shop"
