"""Single rows are taken in as `clean` would take them: the same rows, with the same values, whatever is delivered."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.sources.files import delivered_as
from ml_assets.stages.availability import microseconds
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import ingested
from ml_assets.stages.intake import MOST_TEXT, InvalidRowError, RowIntake, Taken
from ml_assets.use_case import Column, Day, DType, Intake, Table
from ml_assets.use_cases import find

Row = dict[str, Any]
PROPERTY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

PAYMENT: Row = {
    "transaction_id": "20180520-000000",
    "paid_at": "2018-05-20T00:06:43Z",
    "customer_id": "C00062",
    "terminal_id": "T00577",
    "amount": "17.29",
    "terminal_x": "65.28",
    "terminal_y": None,
}
CHARGEBACK: Row = {**{name: PAYMENT[name] for name in list(PAYMENT)[:5]}, "reported_at": "2018-05-27T00:06:43Z", "scenario": "2"}


def any_kind_of(**changes: Any) -> Table:
    """A table of every dtype and rule that neither case has: blanks, fills, whole numbers and flags."""
    columns = (
        Column(name="id", dtype=DType.STRING),
        Column(name="at", dtype=DType.TIMESTAMP),
        Column(name="count", dtype=DType.INT64, minimum=-3, maximum=10**12),
        Column(name="flag", dtype=DType.BOOL),
        Column(name="share", dtype=DType.FLOAT64, nullable=True, minimum=0, maximum=1, impossible="blank"),
        Column(name="level", dtype=DType.FLOAT64, fill=0.5, minimum=0, impossible="blank"),
        Column(name="kind", dtype=DType.STRING, fill="other", allowed=("one", "two", "other"), impossible="blank"),
        Column(name="note", dtype=DType.STRING, nullable=True),
        Column(name="until", dtype=DType.TIMESTAMP, nullable=True),
        Column(name="on", dtype=DType.TIMESTAMP, nullable=True, dates="start", timezone="America/Sao_Paulo"),
        Column(name="seen", dtype=DType.TIMESTAMP, nullable=True, dates="end", timezone="Europe/Berlin"),
        Column(name="day", dtype=DType.INT64, nullable=False),
    )
    columns_of = columns[:-1]
    of = {
        "name": "things",
        "source": no_source,
        "delivered": columns,
        "columns": columns_of,
        "key": ("id",),
        "derive": lambda rows: rows,
        "intake": Intake(day=lambda row: "2018-05-20", derive=dict),
    }
    return Table(**{**of, **changes})


THING: Row = {"id": "a", "at": "2018-05-20T00:00:00Z", "count": 1, "flag": True, "day": "20"}


def no_source(settings: Any) -> Any:
    raise AssertionError("nothing is read")


def framed(table: Table) -> Table:
    """The same table, whose single rows go through its own `derive`."""
    assert table.intake
    return replace(table, intake=replace(table.intake, derive=None))


def tables() -> dict[str, tuple[Table, Row]]:
    """Every table that takes single rows, with a row that it takes; each also without its `derive` for one row."""
    fraud, flights = find("card_fraud", {}), find("flight_delays", {})
    found = {"transactions": (fraud.table("transactions"), PAYMENT), "chargebacks": (fraud.table("chargebacks"), CHARGEBACK)}
    found["things"] = (any_kind_of(), THING)
    found |= {f"{name}, framed": (framed(table), row) for name, (table, row) in found.items()}
    return found | {name: (flights.table(name), real_rows(name)[0]) for name in ("flights", "weather")}


@cache
def real_rows(name: str) -> list[Row]:
    """Flights and weather as they are delivered, the days among them on which clocks were set."""
    days = ["2013-03-10", "2013-05-24", "2013-07-01", "2013-11-03"]
    table = find("flight_delays", {}).table(name)
    raw = ingested(table.source({}).read(days), table, days)
    names = {delivered_as(column.name): column.name for column in table.delivered}
    delivered = raw[list(names)].rename(columns=names).astype(object)
    return delivered.where(delivered.notna(), None).to_dict("records")


# What `clean` says ------------------------------------------------------------------------------------------------------------


def delivered_text(value: Any) -> str | None:
    """A value as a file would have it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def day_of(row: Row) -> Day:
    """In which day a source would deliver a row; any where it has no date that exists."""
    if "year" in row:
        parts = [str(row.get(name) or "").strip() for name in ("year", "month", "day")]
        try:
            return datetime(*map(int, parts), tzinfo=UTC).date().isoformat()
        except (ValueError, OverflowError):
            return "2013-07-04"
    at = row.get("reported_at") if "scenario" in row or "reported_at" in row else row.get("paid_at")
    if not isinstance(at, str):
        return "2018-05-20"
    instant = pd.to_datetime(pd.Series([at.strip()], dtype="str"), utc=True, format="ISO8601", errors="coerce").dt.as_unit("us")
    return str(instant.dt.strftime("%Y-%m-%d").fillna("2018-05-20")[0])


def cleaned(table: Table, rows: Sequence[Row]) -> list[Row | None]:
    """What `clean` keeps of each row, None for one that it rejects."""
    texts = {
        delivered_as(column.name): pd.Series([delivered_text(row.get(column.name)) for row in rows], dtype="str")
        for column in table.delivered
    }
    days = pd.Series([day_of(row) for row in rows], dtype="str")
    raw = pd.DataFrame(texts).assign(day=days, source_file="f", source_row=range(len(rows)), source_version="v")
    try:
        kept = clean(raw, table)
    except (ValueError, OverflowError):  # of a row that the table's `derive` cannot compute with
        half = len(rows) // 2
        return cleaned(table, rows[:half]) + cleaned(table, rows[half:]) if half else [None]
    found: list[Row | None] = [None] * len(rows)
    values = {column.name: plain(kept.rows[column.name], column) for column in table.columns}
    for at, place in enumerate(kept.rows["source_row"].tolist()):
        found[place] = {name: column[at] for name, column in values.items()}
    for place, cause in zip(kept.rejected["source_row"].tolist(), kept.rejected["cause"].tolist(), strict=True):
        if cause in ("duplicate", "contradiction"):
            found[place] = cleaned(table, [rows[place]])[0]
    return found


def plain(values: pd.Series, column: Column) -> list[Any]:
    missing = values.isna().tolist()
    found = microseconds(values) if column.dtype is DType.TIMESTAMP else values
    return [None if gone else value for value, gone in zip(found.tolist(), missing, strict=True)]


def taken(intake: RowIntake, row: Row) -> Taken | None:
    with suppress(InvalidRowError):
        return intake.take(row)
    return None


def require_equal(table: Table, rows: Sequence[Row]) -> None:
    """Each row is taken in exactly when `clean` keeps it, as the same values of the same types; and many rows as each alone."""
    intake = RowIntake(table)
    expected, found = cleaned(table, rows), [taken(intake, row) for row in rows]
    for row, kept, one in zip(rows, expected, found, strict=True):
        assert (one and one.row) == kept, row
        if one and kept:
            assert list(map(type, one.row.values())) == list(map(type, kept.values())), row
            if table.name != "things":
                assert one.day == day_of(row)
    accepted = [row for row, one in zip(rows, found, strict=True) if one]
    assert intake.take_all(accepted) == [one for one in found if one]
    if len(accepted) < len(rows):
        with pytest.raises(InvalidRowError) as refused:
            intake.take_all(rows)
        numbers = {int(problem.field.partition(".")[0]) for problem in refused.value.problems}
        assert numbers == {place for place, one in enumerate(found) if one is None}


# What is delivered ------------------------------------------------------------------------------------------------------------

SPACE = st.sampled_from(["", "", "", " ", "\t", "\n", "\x1c", "\x85", "\xa0", "\u2003", "\ufeff"])
FLOATS = (
    st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1000, 1000) | st.integers(-(10**9), 10**9).map(lambda n: n / 1000)
)
WHOLES = st.integers(-5, 2500) | st.integers(-(10**20), 10**20) | st.integers(10**300, 10**301)
# fmt: off
ODD_NUMBERS = [
    None, True, 0, 1, -1, 2.5, -0.0, 1e308, 10**17, 10**18, 10**400, "", "0", "-0", "-0.0", "+1.5", ".5", "1.", ".", "+", "1e3", "1E+05",
    "1e400", "-1e400", "1e-400", "1.7976931348623159e308", "nan", "NaN", "inf", "-Infinity", "1_0", "0x10", "１２", "²", "1,5", "--1",
    "+5", "++5", "007", "12.0", "999999999999999999", "9999999999999999999", "-999999999999999999", "17.295", "0.125", "2.675",
    "true", "TRUE", "falſe",
]
ODD_TIMES = [
    None, 0, 1527000000, "", "now", " 2018-05-20T00:00:00Z\n", "2018-05-20", "2018-05-20T00:00:00", "2018-05-20T24:00:00Z",
    "2018-05-20T23:59:60Z", "2018-02-30T00:00:00Z", "10000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "0000-12-31T23:30:00-01:00",
    "0000-02-29T00:00:00-23:59", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.9999999-00:01",
    "2018-05-20T00:00:00+24:00", "2018-05-20T00:00:00+99:99", "2018-05-20T00:00:00+00:60", "2018-05-20T00:00:00-01:75",
    "2018-05-20T00:00Z", "2018-05-20 00:00+0530", "2018-05-20t00:00:00z", "2018-05-20T00:00:00.123456789Z",
    "2018-11-04", "\t2018-03-25 ", "0001-01-01", "9999-12-31", "2018-02-30", "0000-01-01", "2018-5-20", "２018-05-20", "2018-05-20Z",
    "2018-05-20T00:00:00.1+01:00", "2018-05-20T00:00:00,5Z", "２018-05-20T00:00:00Z",
]
ODD_TEXTS = [
    None, 0, 12, 10**400, "", " ", "0", "000000000042", "NA", "é" * 21, "x" * 41, "a\0", "\0", "EWR", " JFK\n", "A B", "\ufeff", "\x1c",
]
# fmt: on
ODD = {DType.TIMESTAMP: ODD_TIMES, DType.STRING: ODD_TEXTS}
"""Of the other dtypes, all of them numbers: `ODD_NUMBERS`."""


@st.composite
def times(draw: st.DrawFn) -> str:
    offset = timezone(timedelta(minutes=draw(st.sampled_from([0, 0, 0, 60, -300, 330, 1439, -1439]))))
    near = st.datetimes(datetime(2018, 5, 19), datetime(2018, 5, 22))  # noqa: DTZ001
    moment = draw(near | st.datetimes()).replace(tzinfo=offset)
    text = moment.isoformat(sep=draw(st.sampled_from(["T", " "])))
    return text.replace("+00:00", draw(st.sampled_from(["Z", "+00:00", "-00:00", "+0000"])))


def values(column: Column) -> st.SearchStrategy[Any]:
    """What may be delivered for a column, good or bad, as text or as a number."""
    allowed = [st.sampled_from(column.allowed)] if column.allowed else []
    low, high = column.minimum, column.maximum
    inside = (
        [st.floats(low if low is not None else -1e6, high if high is not None else 1e6)]
        if low is not None or high is not None
        else []
    )
    match column.dtype:
        case DType.STRING:
            found = st.one_of(*allowed, st.text(max_size=12), st.sampled_from(ODD_TEXTS), WHOLES)
        case DType.INT64:
            found = st.one_of(WHOLES, WHOLES.map(str), st.sampled_from(ODD_NUMBERS), FLOATS, st.booleans())
        case DType.FLOAT64:
            found = st.one_of(
                *inside, FLOATS, FLOATS.map(repr), WHOLES, WHOLES.map(str), st.sampled_from(ODD_NUMBERS), st.booleans()
            )
        case DType.BOOL:
            found = st.booleans() | st.sampled_from(
                ["TRUE", "False", "tRuE", "1", "0", "falſe", "yes", "t", "2", "İ", 0, 1, 2, 1.0]
            )
        case _:
            found = times() | st.sampled_from(ODD_TIMES) | st.integers(0, 10**10)
    around = st.tuples(SPACE, found, SPACE).map(
        lambda parts: parts[0] + parts[1] + parts[2] if isinstance(parts[1], str) else parts[1]
    )
    return st.none() | around


@st.composite
def rows_of(draw: st.DrawFn, table: Table, sound: Sequence[Row]) -> Row:
    """A row that is taken, with some fields changed: with all of them at random none would ever be."""
    row = dict(sound[draw(st.integers(0, len(sound) - 1))])
    for column in draw(st.lists(st.sampled_from(table.delivered), max_size=3)):
        row[column.name] = draw(values(column))
    if draw(st.booleans()):
        row = {name: value for name, value in row.items() if value is not None}
    return row


@pytest.mark.parametrize(
    "name", ["transactions", "chargebacks", "things", "transactions, framed", "chargebacks, framed", "things, framed"]
)
@PROPERTY
@given(data=st.data())
def test_a_row_is_taken_exactly_when_clean_keeps_it(name: str, data: st.DataObject) -> None:
    table, sound = tables()[name]
    require_equal(table, data.draw(st.lists(rows_of(table, [sound]), min_size=1, max_size=20)))


@pytest.mark.parametrize("name", ["flights", "weather"])
@PROPERTY
@given(data=st.data())
def test_so_is_one_of_a_table_without_a_derive_for_single_rows(name: str, data: st.DataObject) -> None:
    table = find("flight_delays", {}).table(name)
    require_equal(table, data.draw(st.lists(rows_of(table, real_rows(name)[::11]), min_size=1, max_size=6)))


@pytest.mark.parametrize("name", tables())
def test_an_odd_value_in_any_field_is_judged_as_clean_judges_it(name: str) -> None:
    table, sound = tables()[name]
    columns = [column for column in table.delivered if column.name not in LIKE_TEMP]
    rows = [{**sound, column.name: value} for column in columns for value in ODD.get(column.dtype, ODD_NUMBERS)]
    require_equal(table, [sound, *rows])


LIKE_TEMP = ("dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure")
"""What the weather has declared, and computed, as `temp` is: a row of the weather takes twenty milliseconds."""


def test_what_is_like_temp_is_declared_like_it() -> None:
    columns = {column.name: column for column in find("flight_delays", {}).table("weather").delivered}
    like = [replace(columns[name], name="", description="", unit=None) for name in ("temp", *LIKE_TEMP)]
    assert like == like[:1] * len(like)


@pytest.mark.parametrize("name", ["flights", "weather"])
def test_real_rows_are_taken_as_clean_takes_them(name: str) -> None:
    table, rows = find("flight_delays", {}).table(name), real_rows(name)
    kept = cleaned(table, rows)
    assert None not in kept
    assert [one.row for one in RowIntake(table).take_all(rows)] == kept


# What is told --------------------------------------------------------------------------------------------------------------------


def problems(intake: RowIntake, *rows: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    with pytest.raises(InvalidRowError) as refused:
        intake.take_all(rows) if len(rows) > 1 else intake.take(rows[0])
    return [(each.field, each.value, each.rule) for each in refused.value.problems]


def test_every_field_that_breaks_a_rule_is_named_at_once() -> None:
    row = {"transaction_id": 7.5, "paid_at": "noon", "terminal_id": " ", "amount": -1, "colour": "red"}
    assert problems(RowIntake(tables()["transactions"][0]), row) == [
        (
            "colour",
            "red",
            "is not a field; there are transaction_id, paid_at, customer_id, terminal_id, amount, terminal_x, terminal_y",
        ),
        ("transaction_id", 7.5, "is not a text"),
        ("paid_at", "noon", "is not a time with its offset from UTC (ISO 8601, such as 2013-07-04T09:30:00Z)"),
        ("customer_id", None, "is missing"),
        ("terminal_id", " ", "is missing"),
        ("amount", -1, "is below 0"),
    ]


@pytest.mark.parametrize("name", ["chargebacks", "chargebacks, framed"])
def test_of_many_rows_each_is_named_by_its_number_whatever_step_it_fails_at(name: str) -> None:
    early = {**CHARGEBACK, "reported_at": "2018-05-19T00:00:00Z"}
    infinite = {**CHARGEBACK, "amount": None, "scenario": "two"}
    assert problems(RowIntake(tables()[name][0]), CHARGEBACK, early, infinite, CHARGEBACK) == [
        ("1.row", None, "reported_at is before paid_at"),
        ("2.amount", None, "is missing"),
        ("2.scenario", "two", "is not a number"),
    ]


def test_a_text_may_be_as_long_as_a_key_of_a_store() -> None:
    intake = RowIntake(tables()["transactions"][0])
    assert intake.take({**PAYMENT, "customer_id": "x" * MOST_TEXT}).row["customer_id"] == "x" * MOST_TEXT
    assert problems(intake, {**PAYMENT, "customer_id": "x" * (MOST_TEXT + 1)}) == [
        ("customer_id", "x" * (MOST_TEXT + 1), "is longer than 1,000 characters")
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["count", "share", "level"])
def test_what_is_no_number_is_not_blanked(field: str, value: float) -> None:
    [(name, _, rule)] = problems(RowIntake(any_kind_of()), {**THING, field: value})
    assert (name, rule) == (field, "is not a whole number" if field == "count" else "is not a number")


def test_a_row_that_was_taken_is_not_judged_again() -> None:
    intake = RowIntake(tables()["transactions"][0])
    row = intake.take(PAYMENT)
    assert intake.take(row) is row


def test_a_table_that_takes_no_rows_says_so() -> None:
    with pytest.raises(ValueError, match="planes takes no single rows"):
        RowIntake(find("flight_delays", {}).table("planes"))
