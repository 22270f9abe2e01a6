"""One bad day fails alone, says which rows broke which rule, and the rest of the range passes. Real Great Expectations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.quality import FAULTS, Finding, Verdict, audit
from ml_assets.use_case import Column, Day, DayRange, DType, Severity

DAYS = ["2013-07-01", "2013-07-02", "2013-07-03"]
BAD = DAYS[1]
COLUMNS = (
    Column(name="event_id", dtype=DType.STRING),
    Column(name="carrier", dtype=DType.STRING, allowed=("AA", "UA")),
    Column(name="distance_miles", dtype=DType.FLOAT64, minimum=1, maximum=6000),
    Column(name="gust_mph", dtype=DType.FLOAT64, nullable=True),
    Column(name="seats", dtype=DType.INT64, minimum=1),
    Column(name="departs_at", dtype=DType.TIMESTAMP),
)


def flights(days: Sequence[Day] = DAYS, rows_a_day: int = 4) -> pd.DataFrame:
    """Clean rows; those of the n-th day are called `n-0`, `n-1`, …"""
    day = np.repeat(np.array(days, dtype=object), rows_a_day)
    number = np.tile(np.arange(rows_a_day), len(days))
    frame = pd.DataFrame(
        {
            "day": day,
            "event_id": [f"{days.index(key)}-{n}" for key, n in zip(day, number, strict=True)],
            "carrier": np.where(number % 2 == 0, "AA", "UA"),
            "distance_miles": 100.0 + number,
            "gust_mph": np.where(number == 0, np.nan, 10.0),
            "seats": 150 + number,
            "departs_at": pd.to_datetime(day, utc=True),
        }
    )
    return frame.astype({"day": "str", "event_id": "str", "carrier": "str", "departs_at": pd.DatetimeTZDtype("us", "UTC")})


def judge(rows: pd.DataFrame, *, days: Sequence[Day] = DAYS, **more: Any) -> dict[Day, Verdict]:
    return audit(rows, days=days, columns=COLUMNS, key=["event_id"], **more)


def spoiled(column: str, value: object, *, row: int = 5) -> pd.DataFrame:
    """Clean rows but for one value; row 5 is `1-1`, on the second day."""
    rows = flights()
    rows.loc[row, column] = value
    return rows


def test_clean_days_pass_and_say_so_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    verdicts = judge(flights())

    assert list(verdicts) == DAYS
    assert all(verdict.passed and not verdict.warned and verdict.rows == 4 for verdict in verdicts.values())
    assert verdicts[BAD].message() == f"{len(verdicts[BAD].findings)} expectations hold"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("carrier", None, "carrier is never missing: 1 of 4 rows, e.g. 1-1: carrier=nan"),
        ("departs_at", pd.NaT, "departs_at is never missing: 1 of 4 rows, e.g. 1-1: departs_at=NaT"),
        ("distance_miles", -5.0, "distance_miles is between 1 and 6000: 1 of 4 rows, e.g. 1-1: distance_miles=-5.0"),
        ("distance_miles", 6000.5, "distance_miles is between 1 and 6000: 1 of 4 rows, e.g. 1-1: distance_miles=6000.5"),
        ("seats", 0, "seats is at least 1: 1 of 4 rows, e.g. 1-1: seats=0"),
        ("carrier", "ZZ", "carrier is one of AA, UA: 1 of 4 rows, e.g. 1-1: carrier=ZZ"),
        ("gust_mph", np.inf, "gust_mph is finite: 1 of 4 rows, e.g. 1-1: gust_mph=inf"),
        ("event_id", "1-0", "event_id is unique: 2 of 4 rows, e.g. 1-0"),
    ],
)
def test_a_bad_row_fails_its_day_only_and_is_named(column: str, value: object, fault: str) -> None:
    verdicts = judge(spoiled(column, value))

    assert [day for day, verdict in verdicts.items() if not verdict.passed] == [BAD]
    assert len(verdicts[BAD].failed) == 1
    assert verdicts[BAD].message().endswith(f"do not hold on {BAD}: error: {fault}")


@pytest.mark.parametrize(
    ("column", "value"), [("distance_miles", 1.0), ("distance_miles", 6000.0), ("gust_mph", np.nan), ("seats", 1)]
)
def test_a_value_on_the_bound_or_missing_where_it_may_be_passes(column: str, value: object) -> None:
    assert all(verdict.passed for verdict in judge(spoiled(column, value)).values())


def test_a_day_is_judged_alike_alone_and_in_a_range() -> None:
    rows = spoiled("event_id", "0-0").drop(index=6)
    rows.loc[7, "distance_miles"] = -1.0

    assert judge(rows)[BAD] == judge(rows[rows["day"] == BAD], days=[BAD])[BAD]


def test_a_compound_key_is_unique_as_a_whole_and_names_rows() -> None:
    rows = spoiled("carrier", "AA").assign(event_id="x")
    verdict = audit(rows, days=DAYS, columns=COLUMNS, key=["event_id", "carrier"])[BAD]

    (finding,) = verdict.failed
    assert (finding.expectation, finding.unexpected, finding.examples) == ("event_id/carrier is unique", 3, ("x/AA",))


def test_examples_are_few_however_many_rows_are_broken() -> None:
    (finding,) = judge(flights(rows_a_day=50).assign(seats=0))[BAD].failed

    assert (finding.unexpected, len(finding.examples)) == (50, 5)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (flights().drop(columns="distance_miles"), "distance_miles is float64: missing"),
        (flights().astype({"distance_miles": "int64"}), "distance_miles is float64: int64"),
        (flights().astype({"departs_at": "datetime64[ns, UTC]"}), "departs_at is datetime64[us, UTC]: datetime64[ns, UTC]"),
        (flights().drop(columns="event_id"), "event_id is str: missing"),
    ],
)
def test_a_missing_column_or_a_wrong_dtype_fails_every_day(rows: pd.DataFrame, fault: str) -> None:
    verdicts = judge(rows, ranges=[DayRange(figure="mean:distance_miles", maximum=1000)])

    assert all(not verdict.passed and fault in verdict.message() for verdict in verdicts.values())


def test_rows_are_named_by_number_without_their_key() -> None:
    verdict = judge(spoiled("seats", 0).drop(columns="event_id"))[BAD]

    assert "e.g. row 5: seats=0" in verdict.message()


@pytest.mark.parametrize(("severity", "passed", "warned"), [(Severity.ERROR, False, False), (Severity.WARN, True, True)])
def test_an_empty_day_breaks_only_its_number_of_rows(severity: Severity, passed: bool, warned: bool) -> None:
    rows = flights()
    bounds = [
        DayRange(figure="rows", minimum=3, severity=severity),
        DayRange(figure="mean:seats", minimum=100),
        DayRange(figure="null_share:gust_mph", maximum=0.5),
    ]
    verdicts = judge(rows[rows["day"] != BAD], ranges=bounds)

    assert (verdicts[BAD].rows, verdicts[BAD].passed, verdicts[BAD].warned) == (0, passed, warned)
    assert [str(finding) for finding in verdicts[BAD].failed] == ["rows a day is at least 3: 0"]
    assert all(verdicts[day].passed and not verdicts[day].warned for day in DAYS if day != BAD)


def test_a_range_without_any_row_is_judged() -> None:
    verdicts = judge(flights().iloc[:0], ranges=[DayRange(figure="rows", minimum=1), DayRange(figure="mean:seats", minimum=1)])

    assert [len(verdict.failed) for verdict in verdicts.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("bound", "fault"),
    [
        (DayRange(figure="null_share:gust_mph", maximum=0.3), "share of gust_mph missing a day is at most 0.3: 1"),
        (DayRange(figure="mean:gust_mph", minimum=5, maximum=8), None),
        (DayRange(figure="mean:distance_miles", minimum=150.5), "mean of distance_miles a day is at least 150.5: 101.5"),
    ],
)
def test_a_figure_out_of_range_warns(bound: DayRange, fault: str | None) -> None:
    rows = flights()
    rows.loc[rows["day"] == BAD, "gust_mph"] = np.nan
    verdict = judge(rows, ranges=[bound])[BAD]

    assert verdict.passed
    assert verdict.warned is (fault is not None)
    assert [str(finding) for finding in verdict.failed] == ([fault] if fault else [])


def test_two_bounds_on_one_figure_are_judged_apart() -> None:
    bounds = [DayRange(figure="rows", minimum=5), DayRange(figure="rows", minimum=2, severity=Severity.ERROR)]
    verdict = judge(flights(), ranges=bounds)[BAD]

    assert verdict.passed
    assert [finding.expectation for finding in verdict.failed] == ["rows a day is at least 5"]


def test_findings_from_elsewhere_join_their_day() -> None:
    late = Finding(
        expectation="no fact is known later than its event", passed=False, severity=Severity.ERROR, observed="1 of 4 rows"
    )
    verdicts = judge(flights(), also={BAD: [late]})

    assert [day for day, verdict in verdicts.items() if late in verdict.findings] == [BAD]
    assert [day for day, verdict in verdicts.items() if not verdict.passed] == [BAD]


def test_the_table_shows_failures_first_and_keeps_its_cells() -> None:
    lines = judge(spoiled("carrier", "Z|Z"))[BAD].table().splitlines()

    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert lines[2] == r"| carrier is one of AA, UA | **no** | error | 1 of 4 rows | 1-1: carrier=Z\|Z |"
    assert all("| yes |" in line for line in lines[3:])


def test_a_message_stays_short_and_puts_errors_first() -> None:
    rule = {"passed": False, "observed": "1 of 1 rows"}
    errors = [Finding(expectation=f"rule {n}", severity=Severity.ERROR, **rule) for n in range(FAULTS)]
    warning = Finding(expectation="unusual", severity=Severity.WARN, **rule)
    message = Verdict(day=BAD, rows=1, findings=(warning, *errors)).message()

    assert message.endswith(f"error: rule {FAULTS - 1}: 1 of 1 rows; and 1 more")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"days": DAYS[:2]}, "rows of days that are not judged: 2013-07-03"),
        ({"also": {"2014-01-01": []}}, "findings of days that are not judged: 2014-01-01"),
        ({"ranges": [DayRange(figure="mean:altitude", minimum=0)]}, "altitude"),
        ({"ranges": [DayRange(figure="median:seats", minimum=0)]}, "median:seats"),
        ({"ranges": [DayRange(figure="rows")]}, "minimum or a maximum"),
    ],
)
def test_a_question_that_cannot_be_answered_raises(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        judge(flights(), **more)


def test_what_great_expectations_cannot_evaluate_raises() -> None:
    from great_expectations import expectations as gxe

    from ml_assets.stages.quality import _unexpected

    with pytest.raises(RuntimeError, match="could not evaluate"):
        _unexpected(pd.DataFrame({"day": DAYS}), [gxe.ExpectColumnValuesToNotBeNull(column="rows")], index=["day"])
