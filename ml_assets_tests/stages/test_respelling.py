"""A delivery that writes its keys otherwise is noticed on its day, and not by its effect."""

import pandas as pd
import pytest

from ml_assets.stages.respelling import LOOK_BACK_DAYS, respelling_findings
from ml_assets.use_case import Severity, day_range

DAYS = day_range("2024-01-01", "2024-01-20")


def rows(change: dict[str, list[str]], usual: list[str]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"customer": change.get(day, usual), "day": day}) for day in DAYS], ignore_index=True)


@pytest.mark.parametrize(
    ("before", "after"), [("17", "17.0"), ("1234", "01234"), ("true", "True"), ("web", "WEB"), ("17.0", "17"), ("yes", "Y")]
)
def test_another_spelling_is_red_on_its_day_and_named(before: str, after: str) -> None:
    found = respelling_findings(rows({DAYS[9]: ["other", after]}, ["other", before]), DAYS, ["customer"])
    assert [day for day in DAYS if not found[day][0].passed] == [DAYS[9]]
    [finding] = found[DAYS[9]]
    assert finding.severity is Severity.ERROR
    assert finding.observed == "1 of 2 values are written otherwise; declare a spelling of the column"
    assert finding.examples == (f"{after!r}, before {before!r}",)


def test_one_value_of_many_is_a_warning() -> None:
    found = respelling_findings(rows({DAYS[9]: ["17.0"] + ["b"] * 30}, ["17"] + ["b"] * 30), DAYS, ["customer"])
    assert found[DAYS[9]][0].severity is Severity.WARN
    assert not found[DAYS[9]][0].passed


def test_two_ways_that_were_always_there_are_no_news() -> None:
    found = respelling_findings(rows({}, ["17", "17.0"]), DAYS, ["customer"])
    assert all(finding.passed for day in DAYS for finding in found[day])


def test_a_new_value_is_no_spelling_of_another() -> None:
    found = respelling_findings(rows({DAYS[9]: ["18", "true", "", "1700"]}, ["17", "1"]), DAYS, ["customer"])
    assert all(finding.passed for day in DAYS for finding in found[day])


def test_only_the_days_before_are_looked_at() -> None:
    told = {day: ["17.0"] for day in DAYS[: -LOOK_BACK_DAYS - 1]}
    found = respelling_findings(rows(told, ["17"]), [DAYS[-1]], ["customer"])
    assert found[DAYS[-1]][0].passed
