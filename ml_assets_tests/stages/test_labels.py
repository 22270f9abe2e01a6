"""Labels are filed under the day on which they became known, where the case lives, and none of them is lost or known too early."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from ml_assets.stages.labels import label_columns, label_days, label_findings, latest_known
from ml_assets.use_case import Column, DType, Severity, Table, UseCase


def instants(*texts: str | None) -> pd.Series:
    return pd.Series(pd.to_datetime(list(texts), utc=True, format="ISO8601")).astype("datetime64[us, UTC]")


@pytest.fixture
def case(small_case: UseCase) -> UseCase:
    """Lives in New York, four and a half hours (or so) behind Greenwich; the label is about one entity."""
    columns = (
        Column(name="event_id", dtype=DType.STRING),
        Column(name="time", dtype=DType.TIMESTAMP),
        Column(name="payer", dtype=DType.STRING),
        Column(name="label", dtype=DType.INT64, known_at="known_at"),
        Column(name="known_at", dtype=DType.TIMESTAMP, known_at="known_at"),
    )
    table: Table = replace(small_case.event_table, columns=columns)
    label = replace(small_case.label, entities=("payer",), latest_after=timedelta(days=3))
    return replace(small_case, tables=(table,), label=label, timezone="America/New_York")


@pytest.fixture
def events() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "event_id": ["e", "d", "c", "b", "a"],
            "day": ["2024-03-09", "2024-03-09", "2024-03-10", "2024-03-10", "2024-03-10"],
            "time": instants(
                "2024-03-09T10:00Z", "2024-03-09T10:00Z", "2024-03-10T12:00Z", "2024-03-10T12:00Z", "2024-03-10T12:00Z"
            ),
            "known_at": instants("2024-03-10T04:59:59Z", "2024-03-10T05:00Z", "2024-03-11T03:59Z", "2024-03-11T03:59Z", None),
            "label": [1.0, 0.0, 1.0, 0.0, 1.0],
            "payer": ["p", "q", None, "p", "p"],
        }
    )


def test_a_label_is_filed_under_the_local_day_on_which_it_became_known(case: UseCase, events: pd.DataFrame) -> None:
    """10 March 2024 has 23 hours in New York: from 05:00 to 04:00 in Greenwich."""
    rows = label_days(case, events, ["2024-03-09", "2024-03-10", "2024-03-11"])

    assert list(zip(rows["day"], rows["event_id"], rows["event_day"], strict=True)) == [
        ("2024-03-09", "e", "2024-03-09"),
        ("2024-03-10", "d", "2024-03-09"),
        ("2024-03-10", "b", "2024-03-10"),
        ("2024-03-10", "c", "2024-03-10"),
    ]
    assert rows["label"].tolist() == [1, 0, 0, 1]
    assert rows["label"].dtype == "int64"
    assert [*rows.columns] == [*(column.name for column in label_columns(case)), "day"]


def test_days_can_be_made_one_by_one_or_together_and_in_any_order_of_rows(case: UseCase, events: pd.DataFrame) -> None:
    days = ["2024-03-09", "2024-03-10", "2024-03-11"]
    together = label_days(case, events, days)

    one_by_one = pd.concat([label_days(case, events.sample(frac=1, random_state=2), [day]) for day in days], ignore_index=True)

    pd.testing.assert_frame_equal(one_by_one, together)


def test_what_is_not_known_is_not_a_label(case: UseCase, events: pd.DataFrame) -> None:
    unknown = events.assign(label=[float("nan"), 0.0, 1.0, 0.0, 1.0])

    rows = label_days(case, unknown, ["2024-03-09", "2024-03-10", "2024-03-11"])

    assert sorted(rows["event_id"]) == ["b", "c", "d"]


def test_no_events_give_no_labels_of_the_right_types(case: UseCase, events: pd.DataFrame) -> None:
    rows = label_days(case, events.iloc[:0], ["2024-03-09"])

    assert rows.empty
    assert rows["label"].dtype == "int64"
    assert str(rows["known_at"].dtype) == "datetime64[us, UTC]"


def test_a_label_known_before_its_event_is_named_on_its_day_only(case: UseCase, events: pd.DataFrame) -> None:
    early = events.assign(
        time=instants(*["2024-03-09T10:00Z"] * 2, "2024-03-11T03:59Z", "2024-03-11T03:59:00.000001Z", "2024-03-10T12:00Z")
    )
    days = ["2024-03-08", "2024-03-09", "2024-03-10"]

    found = label_findings(label_days(case, early, days), days)

    assert {day: findings[0].passed for day, findings in found.items()} == {
        "2024-03-08": True,
        "2024-03-09": True,
        "2024-03-10": False,
    }
    (finding,) = found["2024-03-10"]
    assert (finding.severity, finding.unexpected, finding.observed) == (Severity.ERROR, 1, "1 of 3 labels")
    assert len(finding.examples) == 1
    assert finding.examples[0].startswith("b: known at 2024-03-11 03:59")


def known_labels() -> pd.DataFrame:
    """Event x is judged fine, then a fraud, then fine again; y once."""
    return pd.DataFrame(
        {
            "event_id": ["y", "x", "x", "x"],
            "known_at": instants("2024-01-02T00:00Z", "2024-01-05T00:00Z", "2024-01-01T00:00Z", "2024-01-03T00:00Z"),
            "label": [1, 0, 0, 1],
        }
    )


@pytest.mark.parametrize(
    ("as_of", "wanted"),
    [
        ("2023-12-31T00:00Z", {}),
        ("2024-01-01T00:00Z", {"x": 0}),
        ("2024-01-02T23:59Z", {"x": 0, "y": 1}),
        ("2024-01-03T00:00Z", {"x": 1, "y": 1}),
        ("2024-02-01T00:00Z", {"x": 0, "y": 1}),
        (None, {"x": 0, "y": 1}),
    ],
)
def test_the_label_in_force_is_the_last_one_known_by_then(as_of: str | None, wanted: dict[str, int]) -> None:
    known: Any = latest_known(known_labels(), pd.Timestamp(as_of) if as_of else None)

    assert dict(zip(known["event_id"], known["label"], strict=True)) == wanted
