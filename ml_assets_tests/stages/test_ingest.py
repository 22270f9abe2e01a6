"""A delivery, whole or not."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from ml_assets.stages.ingest import delivery_findings, ingested
from ml_assets.stages.quality import Finding
from ml_assets.use_case import Batch, Column, Day, DType, Severity, Table

DAYS = ["2013-07-04", "2013-07-05"]


def no_source(settings: Any) -> Any:
    raise AssertionError("the stage reads nothing")


RIDES = Table(
    name="rides",
    source=no_source,
    delivered=(Column(name="day", dtype=DType.INT64), Column(name="fare", dtype=DType.FLOAT64)),
    columns=(Column(name="fare", dtype=DType.FLOAT64),),
    key=("fare",),
    derive=lambda rows: rows,
)


@pytest.fixture
def batch() -> Batch:
    rows = pd.DataFrame(
        {
            "delivered_day": ["4", "4", "5"],
            "fare": ["1", "2", "1"],
            "day": [DAYS[0], DAYS[0], DAYS[1]],
            "source_file": ["a.csv", "a.csv", "b.csv"],
            "source_row": [1, 2, 1],
            "source_version": ["x", "x", "y"],
        }
    )
    return Batch(rows=rows, counted={DAYS[0]: 2, DAYS[1]: 1}, versions={DAYS[0]: "x", DAYS[1]: "y"})


def failed(batch: Batch, day: Day) -> list[Finding]:
    return [finding for finding in delivery_findings(batch, RIDES, DAYS)[day] if not finding.passed]


def test_a_whole_delivery_holds(batch: Batch) -> None:
    findings = delivery_findings(batch, RIDES, DAYS)
    assert [finding.expectation for finding in findings[DAYS[0]]] == [
        "the source could be read",
        "every row that the source counts arrived",
        "every column of the contract was delivered",
        "no row was delivered twice",
    ]
    assert all(finding.passed for day in DAYS for finding in findings[day])


def test_a_problem_fails_its_day_and_asks_nothing_more(batch: Batch) -> None:
    broken = replace(batch, rows=batch.rows.iloc[:2], counted={DAYS[0]: 2}, problems={DAYS[1]: "no file b.csv"})
    assert failed(broken, DAYS[0]) == []
    assert delivery_findings(broken, RIDES, DAYS)[DAYS[1]] == [
        Finding(expectation="the source could be read", passed=False, severity=Severity.ERROR, observed="no file b.csv")
    ]


def test_a_lost_row_fails_its_day(batch: Batch) -> None:
    (finding,) = failed(replace(batch, counted={DAYS[0]: 3, DAYS[1]: 1}), DAYS[0])
    assert (finding.severity, finding.observed) == (Severity.ERROR, "2 rows arrived, the source counts 3")
    (uncounted,) = failed(replace(batch, counted={DAYS[0]: 2}), DAYS[1])
    assert uncounted.observed == "1 rows arrived, the source counts none of this day"


def test_a_column_that_nobody_delivered_is_named(batch: Batch) -> None:
    (finding,) = failed(replace(batch, rows=batch.rows.drop(columns=["delivered_day", "fare"]).iloc[1:]), DAYS[1])
    assert (finding.severity, finding.observed) == (Severity.ERROR, "not delivered: day, fare")


def test_columns_of_a_day_without_rows_are_not_judged(batch: Batch) -> None:
    empty = replace(batch, rows=batch.rows.iloc[:2].drop(columns="fare"), counted={DAYS[0]: 2, DAYS[1]: 0})
    assert failed(empty, DAYS[1]) == []


def test_a_row_delivered_twice_is_a_warning_with_its_place(batch: Batch) -> None:
    rows = pd.concat([batch.rows, batch.rows.iloc[[0]].assign(source_row=3)])
    (finding,) = failed(replace(batch, rows=rows, counted={DAYS[0]: 3, DAYS[1]: 1}), DAYS[0])
    assert (finding.severity, finding.unexpected, finding.examples) == (Severity.WARN, 1, ("row 3 of a.csv",))


def test_missing_values_are_compared_too(batch: Batch) -> None:
    rows = batch.rows.assign(delivered_day="4", fare=pd.Series([None, None, None], dtype="str"))
    assert [finding.unexpected for finding in failed(replace(batch, rows=rows), DAYS[0])] == [1]
    assert failed(replace(batch, rows=rows), DAYS[1]) == []


def test_rows_are_handed_on_as_they_came(batch: Batch) -> None:
    pd.testing.assert_frame_equal(ingested(batch, RIDES, DAYS), batch.rows)


def test_a_column_that_no_day_delivered_is_there_without_values(batch: Batch) -> None:
    rows = ingested(replace(batch, rows=batch.rows.drop(columns="fare")), RIDES, DAYS)
    assert rows["fare"].isna().all()


def test_each_day_is_judged_by_its_own_header(batch: Batch) -> None:
    """The columns of a range are those of all its days: a day that lacks one must fail in a range as it does alone."""
    whole = list(batch.rows.columns)
    by_day = replace(batch, columns={DAYS[0]: whole, DAYS[1]: [name for name in whole if name != "fare"]})
    assert failed(by_day, DAYS[0]) == []
    (finding,) = failed(by_day, DAYS[1])
    assert (finding.severity, finding.observed) == (Severity.ERROR, "not delivered: fare")


@pytest.mark.parametrize(
    ("change", "days", "told"),
    [
        ({"counted": {DAYS[0]: 2}}, DAYS, "neither counted nor reported a problem for 2013-07-05"),
        ({}, DAYS[:1], "rows of 2013-07-05, which were not asked for"),
        ({"problems": {DAYS[1]: "cut"}}, DAYS, "rows of 2013-07-05, which were not asked for or could not be read"),
        ({"rows": pd.DataFrame({"day": DAYS})}, DAYS, "without source_file, source_row, source_version"),
    ],
)
def test_a_source_that_breaks_its_protocol_is_an_error(batch: Batch, change: dict[str, Any], days: list[Day], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ingested(replace(batch, **change), RIDES, days)
