"""Labels are filed under the day on which they became known, where the case lives, and none of them is lost or known too early."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.labels import already_known, label_columns, label_days, label_findings, latest_known, news, to_judge
from ml_assets.use_case import Column, Day, DType, Investigation, Reported, Severity, Table, UseCase, day_range, shift


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
    rows = label_days(case, events, None, ["2024-03-09", "2024-03-10", "2024-03-11"])

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
    together = label_days(case, events, None, days)

    one_by_one = pd.concat(
        [label_days(case, events.sample(frac=1, random_state=2), None, [day]) for day in days], ignore_index=True
    )

    pd.testing.assert_frame_equal(one_by_one, together)


def test_what_is_not_known_is_not_a_label(case: UseCase, events: pd.DataFrame) -> None:
    unknown = events.assign(label=[float("nan"), 0.0, 1.0, 0.0, 1.0])

    rows = label_days(case, unknown, None, ["2024-03-09", "2024-03-10", "2024-03-11"])

    assert sorted(rows["event_id"]) == ["b", "c", "d"]


def test_no_events_give_no_labels_of_the_right_types(case: UseCase, events: pd.DataFrame) -> None:
    rows = label_days(case, events.iloc[:0], None, ["2024-03-09"])

    assert rows.empty
    assert rows["label"].dtype == "int64"
    assert str(rows["known_at"].dtype) == "datetime64[us, UTC]"


def test_a_label_known_before_its_event_or_with_it_is_named_on_its_day_only(case: UseCase, events: pd.DataFrame) -> None:
    early = events.assign(
        time=instants(*["2024-03-09T10:00Z"] * 2, "2024-03-11T03:58:59.999999Z", "2024-03-11T03:59:00Z", "2024-03-10T12:00Z")
    )
    days = ["2024-03-08", "2024-03-09", "2024-03-10"]

    found = label_findings(label_days(case, early, None, days), days)

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
    known: Any = latest_known(by_then(known_labels(), as_of))

    assert dict(zip(known["event_id"], known["label"], strict=True)) == wanted


def by_then(labels: pd.DataFrame, as_of: str | None) -> pd.DataFrame:
    return labels[labels["known_at"] <= pd.Timestamp(as_of)] if as_of else labels


def test_a_label_that_is_repeated_is_known_since_the_first_time_and_one_that_comes_back_since_it_came_back() -> None:
    labels = pd.DataFrame(
        {
            "event_id": ["x", "x", "x", "y", "y", "y"],
            "known_at": instants(*[f"2024-01-0{day}T00:00Z" for day in (1, 4, 6, 1, 2, 5)]),
            "label": [0, 1, 1, 1, 0, 1],
        }
    ).sample(frac=1, random_state=1)

    known = latest_known(labels)

    assert known["label"].tolist() == [1, 1]
    assert dict(zip(known["event_id"], known["known_at"].dt.day, strict=True)) == {"x": 4, "y": 5}


# Labels that others report ----------------------------------------------------------------------------------------------------


@pytest.fixture
def reported(case: UseCase) -> UseCase:
    """Payments in New York, which charge-backs may follow."""
    names = [("event_id", DType.STRING), ("time", DType.TIMESTAMP), ("payer", DType.STRING)]
    payments = replace(case.event_table, columns=tuple(Column(name=name, dtype=dtype) for name, dtype in names))
    told = (*names, ("reported_at", DType.TIMESTAMP))
    reports = replace(
        payments, name="reports", columns=tuple(Column(name=name, dtype=dtype, known_at="reported_at") for name, dtype in told)
    )
    label = Reported(
        table="reports",
        known_at="reported_at",
        entities=("payer",),
        settled_after=timedelta(days=7),
        latest_after=timedelta(days=60),
    )
    return replace(case, tables=(payments, reports), label=label)


def payments(**times: str) -> pd.DataFrame:
    """`a="2024-03-04T12:00Z"`: payment a by payer-a, on the day that it was in New York."""
    time = instants(*times.values())
    day = time.dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d")
    return pd.DataFrame({"event_id": list(times), "time": time, "payer": [f"payer-{name}" for name in times], "day": day})


def reports(paid: pd.DataFrame, *told: tuple[str, str]) -> pd.DataFrame:
    """`("a", "2024-03-06T12:00Z")`: payment a is reported then."""
    of = paid.set_index("event_id").loc[[name for name, _ in told]].reset_index()
    at = instants(*(time for _, time in told))
    return of.assign(reported_at=at, day=at.dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d"))


MARCH = day_range("2024-03-01", "2024-05-31")


def filed(case: UseCase, paid: pd.DataFrame, told: pd.DataFrame, days: Sequence[Day] = MARCH) -> list[tuple[Any, ...]]:
    rows = label_days(case, paid, told, days)
    return list(zip(rows["day"], rows["event_id"], rows["label"], strict=True))


def test_a_report_is_a_positive_of_the_day_on_which_it_came(reported: UseCase) -> None:
    """At 02:00 in Greenwich it is still the day before in New York."""
    paid = payments(a="2024-03-05T02:00Z")

    rows = label_days(reported, paid, reports(paid, ("a", "2024-03-08T02:00Z")), MARCH)

    assert rows[["day", "event_id", "event_day", "label", "payer"]].to_numpy().tolist() == [
        ["2024-03-07", "a", "2024-03-04", 1, "payer-a"]
    ]
    assert rows["known_at"].tolist() == [pd.Timestamp("2024-03-08T02:00Z")]
    assert [*rows.columns] == [*(column.name for column in label_columns(reported)), "day"]


def test_silence_is_a_negative_after_seven_days_to_the_second(reported: UseCase) -> None:
    """From winter to summer time: seven times 24 hours later it is an hour later in New York."""
    paid = payments(a="2024-03-05T04:30Z")  # 23:30 on the 4th

    rows = label_days(reported, paid, reports(paid), MARCH)

    assert rows[["day", "label"]].to_numpy().tolist() == [["2024-03-12", 0]]
    assert rows["known_at"].tolist() == [pd.Timestamp("2024-03-12T04:30Z")]
    assert rows["label"].dtype == "int64"
    assert filed(reported, paid, reports(paid), day_range("2024-03-01", "2024-03-11")) == []


@pytest.mark.parametrize(
    ("at", "labels"),
    [
        ("2024-03-11T11:59:59.999999Z", [("2024-03-11", "a", 1)]),
        ("2024-03-11T12:00:00Z", [("2024-03-11", "a", 1)]),
        ("2024-03-11T12:00:00.000001Z", [("2024-03-11", "a", 0), ("2024-03-11", "a", 1)]),
        ("2024-03-30T12:00:00Z", [("2024-03-11", "a", 0), ("2024-03-30", "a", 1)]),
    ],
)
def test_a_report_in_time_leaves_no_negative_and_a_late_one_corrects_it(
    at: str, labels: list[tuple[str, str, int]], reported: UseCase
) -> None:
    paid = payments(a="2024-03-04T12:00Z")

    assert filed(reported, paid, reports(paid, ("a", at))) == labels


def test_until_the_late_report_the_payment_counts_as_genuine(reported: UseCase) -> None:
    paid = payments(a="2024-03-04T12:00Z")
    rows = label_days(reported, paid, reports(paid, ("a", "2024-03-30T12:00Z")), MARCH)

    def in_force(as_of: str) -> list[int]:
        return latest_known(by_then(rows, as_of))["label"].tolist()

    assert in_force("2024-03-11T11:59Z") == []
    assert in_force("2024-03-11T12:00Z") == in_force("2024-03-30T11:59Z") == [0]
    assert in_force("2024-03-30T12:00Z") == [1]


def test_what_is_reported_twice_on_a_day_is_one_label(reported: UseCase) -> None:
    paid = payments(a="2024-03-04T12:00Z")
    told = reports(paid, ("a", "2024-03-06T20:00Z"), ("a", "2024-03-06T18:00Z"))

    rows = label_days(reported, paid, told, MARCH)

    assert rows["known_at"].tolist() == [pd.Timestamp("2024-03-06T18:00Z")]


def test_a_report_of_a_payment_that_was_never_delivered_is_still_a_label(reported: UseCase) -> None:
    paid = payments(a="2024-03-04T12:00Z", lost="2024-03-05T12:00Z")
    told = reports(paid, ("lost", "2024-03-07T12:00Z"))

    rows = label_days(reported, paid[paid["event_id"] == "a"], told, MARCH)

    assert rows[["day", "event_id", "event_day", "label"]].to_numpy().tolist() == [
        ["2024-03-07", "lost", "2024-03-05", 1],
        ["2024-03-11", "a", "2024-03-04", 0],
    ]


def test_no_payments_and_no_reports_give_no_labels_of_the_right_types(reported: UseCase) -> None:
    paid = payments(a="2024-03-04T12:00Z")

    rows = label_days(reported, paid.iloc[:0], reports(paid).iloc[:0], MARCH)

    assert rows.empty
    assert rows["label"].dtype == "int64"
    assert str(rows["known_at"].dtype) == "datetime64[us, UTC]"


def test_without_the_reports_labels_cannot_be_made(reported: UseCase) -> None:
    with pytest.raises(ValueError, match="labels of small are reported in reports"):
        label_days(reported, payments(a="2024-03-04T12:00Z"), None, MARCH)


def many(case: UseCase, count: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Payments of a month; a third is reported, most within days, some late, some twice."""
    random = np.random.default_rng(5)
    start = pd.Timestamp("2024-03-01T05:00Z")
    times = start + pd.to_timedelta(np.sort(random.integers(0, 30 * 86_400, count)), unit="s")
    paid = payments(**{f"e{number:03d}": str(time) for number, time in enumerate(times)})
    chosen = paid.sample(count // 3, random_state=1)
    delay = np.where(random.random(len(chosen)) < 0.7, random.integers(0, 7 * 86_400, len(chosen)), 86_400 * random.integers(7, 30))
    at = chosen["time"] + pd.to_timedelta(delay, unit="s")
    again = at.sample(20, random_state=2) + pd.Timedelta(days=12)
    told = [(paid.loc[index, "event_id"], str(time)) for index, time in [*at.items(), *again.items()]]
    return paid, reports(paid, *told)


def test_reported_labels_are_the_same_made_day_by_day_with_what_was_known_then(reported: UseCase) -> None:
    """Each day from the tables as they were on its evening and as far back as the platform reads them."""
    paid, told = many(reported)
    together = label_days(reported, paid, told, MARCH)

    def until(rows: pd.DataFrame, day: Day) -> pd.DataFrame:
        return rows[rows["day"].between(shift(day, -reported.settled_days), day)].sample(frac=1, random_state=3)

    one_by_one = pd.concat([label_days(reported, until(paid, day), until(told, day), [day]) for day in MARCH], ignore_index=True)

    pd.testing.assert_frame_equal(one_by_one, together)
    assert set(together["event_id"]) == set(paid["event_id"])


def test_in_the_end_every_reported_payment_is_positive_since_its_first_report_and_every_other_negative(reported: UseCase) -> None:
    paid, told = many(reported)

    known = latest_known(label_days(reported, paid, told, MARCH)).set_index("event_id")

    first = told.groupby("event_id")["reported_at"].min()
    assert set(known.index[known["label"] == 1]) == set(first.index)
    assert known.loc[first.index, "known_at"].tolist() == first.tolist()
    silent = paid[~paid["event_id"].isin(first.index)].set_index("event_id")
    assert (known.loc[silent.index, "known_at"] == silent["time"] + pd.Timedelta(days=7)).all()


# What is no news ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def looked_into(reported: UseCase) -> UseCase:
    return replace(
        reported,
        investigation=Investigation(metric="precision_at_2", entity="payer", top=2, known_for=timedelta(days=7)),
    )


def label_rows(*rows: tuple[str, int, str]) -> pd.DataFrame:
    """(payer, label, known at)"""
    return pd.DataFrame(
        {
            "payer": [payer for payer, _, _ in rows],
            "label": [label for _, label, _ in rows],
            "known_at": instants(*(at for _, _, at in rows)),
        }
    )


@pytest.mark.parametrize(
    ("at", "day", "known"),
    [
        ("2024-03-12T03:59:59Z", "2024-03-12", True),  # a second before the day begins in New York
        ("2024-03-12T04:00:00Z", "2024-03-12", False),
        ("2024-03-12T04:00:00Z", "2024-03-13", True),
        ("2024-03-04T05:00:00Z", "2024-03-11", True),  # at the start of the seventh day before the first that is judged
        ("2024-03-04T04:59:59Z", "2024-03-11", False),
        ("2024-03-04T05:00:00Z", "2024-03-17", True),  # seven days before the first, not before each
        ("2024-03-04T04:59:59Z", "2024-03-17", False),
    ],
)
def test_an_entity_is_known_by_what_was_reported_from_a_week_before_the_first_day_to_the_start_of_the_day(
    at: str, day: Day, known: bool, looked_into: UseCase
) -> None:
    labels = label_rows(("p", 1, at), ("q", 0, at))

    found = already_known(labels, looked_into.investigation, day=day, first="2024-03-11", case=looked_into)

    assert found == ({"p"} if known else set())


def test_events_of_known_entities_are_no_news_on_their_days_and_others_are(looked_into: UseCase) -> None:
    labels = label_rows(("p", 1, "2024-03-11T15:00Z"), ("q", 0, "2024-03-11T15:00Z"))
    events = pd.DataFrame(
        {"day": ["2024-03-11", "2024-03-12", "2024-03-12", "2024-03-12"], "payer": ["p", "p", "q", "new"]}, index=[7, 3, 9, 1]
    )

    judged = news(events, labels, first="2024-03-11", case=looked_into)

    assert judged.to_dict() == {7: True, 3: False, 9: True, 1: True}


def test_an_unknown_entity_is_not_the_same_as_another_unknown_one(looked_into: UseCase) -> None:
    labels = label_rows(("", 1, "2024-03-11T15:00Z")).assign(payer=pd.array([None], dtype="str"))
    events = pd.DataFrame({"day": ["2024-03-12"] * 2, "payer": pd.array([None, "p"], dtype="str")})

    assert news(events, labels, first="2024-03-11", case=looked_into).tolist() == [True, True]


def test_an_entity_that_is_a_feature_too_is_there_once(looked_into: UseCase) -> None:
    labels = label_rows(("p", 0, "2024-03-20T15:00Z")).assign(event_id="a")
    events = pd.DataFrame({"event_id": ["a", "b"], "day": ["2024-03-12"] * 2, "payer": ["p", "q"], "amount": [1.0, 2.0]})

    judged = to_judge(events, labels, first="2024-03-11", case=looked_into)

    assert judged.to_dict("records") == [{"event_id": "a", "day": "2024-03-12", "amount": 1.0, "label": 0, "payer": "p"}]


def test_without_an_investigation_everything_is_news(reported: UseCase) -> None:
    labels = label_rows(("p", 1, "2024-03-11T15:00Z"))
    events = pd.DataFrame({"day": ["2024-03-12"], "payer": ["p"]})

    assert news(events, labels, first="2024-03-11", case=reported).tolist() == [True]


def test_what_is_judged_is_what_the_handbook_tests_on(looked_into: UseCase) -> None:
    """`get_train_test_set` of the Fraud Detection Handbook (Le Borgne et al., 2022), as published, with seven days of delay.

    There, charge-backs of a day are known seven days later, and a model is tested on a week after a week of training and the delay.
    """
    case = replace(looked_into, timezone="UTC")
    random = np.random.default_rng(8)
    day = np.sort(random.integers(0, 40, 6000))
    payments_ = pd.DataFrame(
        {"TX_TIME_DAYS": day, "CUSTOMER_ID": random.integers(0, 300, 6000), "TX_FRAUD": (random.random(6000) < 0.03).astype(int)}
    )
    start, delta_train, delta_delay, delta_test = 10, 7, 7, 7
    train_df = payments_[(payments_["TX_TIME_DAYS"] >= start) & (payments_["TX_TIME_DAYS"] < start + delta_train)]
    known_defrauded_customers = set(train_df[train_df.TX_FRAUD == 1].CUSTOMER_ID)
    tested = []
    for each in range(delta_test):
        test_df_day = payments_[payments_["TX_TIME_DAYS"] == start + delta_train + delta_delay + each]
        test_df_day_delay_period = payments_[payments_["TX_TIME_DAYS"] == start + delta_train + each - 1]
        new_defrauded_customers = set(test_df_day_delay_period[test_df_day_delay_period.TX_FRAUD == 1].CUSTOMER_ID)
        known_defrauded_customers = known_defrauded_customers.union(new_defrauded_customers)
        tested += test_df_day[~test_df_day["CUSTOMER_ID"].isin(known_defrauded_customers)].index.tolist()

    paid_at = pd.Timestamp("2024-01-01T10:00Z") + pd.to_timedelta(day, unit="D")
    labels = pd.DataFrame({"payer": payments_.CUSTOMER_ID, "label": payments_.TX_FRAUD, "known_at": paid_at + pd.Timedelta(days=7)})
    first = start + delta_train + delta_delay
    events = pd.DataFrame({"day": paid_at.strftime("%Y-%m-%d"), "payer": payments_.CUSTOMER_ID})[
        (day >= first) & (day < first + delta_test)
    ]

    judged = news(events, labels, first=shift("2024-01-01", first), case=case)

    assert events.index[judged].tolist() == sorted(tested)
    assert 100 < len(tested) < len(events) - 100
