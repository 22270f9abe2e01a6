"""What may be known two hours before a scheduled departure, and what a model is told of it."""

from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_assets.stages.features import columns_of
from ml_assets.use_case import Arrays, Column, DType, Fact, Features, Latest, Lookup, Trailing

HOURS = timedelta(hours=1)
WINDOWS = (1 * HOURS, 3 * HOURS, 24 * HOURS, 7 * 24 * HOURS, 28 * 24 * HOURS)
ENTITIES = (("origin",), ("carrier",), ("destination",), ("tail_number",), ("origin", "destination"))

DEPARTURE_DELAY = Fact(
    name="departure_delay", table="flights", value="departure_delay_minutes", known_at="departure", unit="minutes"
)
ARRIVAL_DELAY = Fact(name="arrival_delay", table="flights", value="arrival_delay_minutes", known_at="arrival", unit="minutes")
LATE = Fact(name="late", table="flights", value="late", known_at="late_known_at", unit="share")

TRAILING = (
    Trailing(fact=DEPARTURE_DELAY, entities=ENTITIES, windows=WINDOWS, statistics=("count", "mean")),
    Trailing(fact=ARRIVAL_DELAY, entities=ENTITIES, windows=WINDOWS, statistics=("mean",)),
    Trailing(fact=LATE, entities=ENTITIES, windows=WINDOWS, statistics=("mean",)),
)
LATEST = (
    Latest(
        name="weather",
        table="weather",
        entity=("origin",),
        known_at="known_at",
        values=(
            "temperature_f",
            "dew_point_f",
            "humidity_percent",
            "wind_speed_mph",
            "wind_gust_mph",
            "precipitation_inches",
            "pressure_millibars",
            "visibility_miles",
        ),
        changes=("temperature_f", "wind_speed_mph", "pressure_millibars", "visibility_miles"),
        within=6 * HOURS,
    ),
    Latest(
        name="plane_departure",
        table="flights",
        entity=("tail_number",),
        known_at="departure",
        values=("departure_delay_minutes", "distance_miles"),
    ),
    Latest(name="plane_arrival", table="flights", entity=("tail_number",), known_at="arrival", values=("arrival_delay_minutes",)),
)
LOOKUPS = (Lookup(table="planes", by="tail_number", values=("built", "seats", "engines")),)

_FLOAT, _STRING = DType.FLOAT64, DType.STRING
ROW_COLUMNS = (
    Column(name="carrier", dtype=_STRING),
    Column(name="origin", dtype=_STRING),
    Column(name="destination", dtype=_STRING),
    Column(name="departure_hour", dtype=_FLOAT, unit="hour in New York", minimum=0, maximum=23),
    Column(name="departure_minute", dtype=_FLOAT, unit="minutes since midnight in New York", minimum=0, maximum=1439),
    Column(name="day_of_week", dtype=_FLOAT, unit="Monday is 0", minimum=0, maximum=6),
    Column(name="month", dtype=_FLOAT, minimum=1, maximum=12),
    Column(name="is_holiday", dtype=_FLOAT, description="federal holiday of the United States", minimum=0, maximum=1),
    Column(name="days_to_holiday", dtype=_FLOAT, unit="days to the nearest holiday, negative after it", minimum=-366, maximum=366),
    Column(name="distance_miles", dtype=_FLOAT, unit="miles"),
    Column(name="scheduled_minutes", dtype=_FLOAT, unit="minutes"),
    Column(name="scheduled_speed_mph", dtype=_FLOAT, unit="miles per hour"),
    Column(name="plane_age_years", dtype=_FLOAT, unit="years", nullable=True),
)


def row(columns: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Features of the event itself: calendar, flight, age of the plane."""
    date = columns["local_date"].astype("datetime64[D]")
    minute = columns["local_minute"].astype(np.float64)
    year = date.astype("datetime64[Y]").astype(np.int64) + 1970
    days_to_holiday = _days_to_holiday(date)
    hours = columns["scheduled_minutes"] / 60
    return {
        "departure_hour": minute // 60,
        "departure_minute": minute,
        "day_of_week": ((date.astype(np.int64) + 3) % 7).astype(np.float64),
        "month": (date.astype("datetime64[M]").astype(np.int64) % 12 + 1).astype(np.float64),
        "is_holiday": (days_to_holiday == 0).astype(np.float64),
        "days_to_holiday": days_to_holiday,
        "scheduled_speed_mph": columns["distance_miles"] / hours,
        "plane_age_years": year - columns["planes_built"],
    }


def _days_to_holiday(date: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    """Signed distance to the nearest holiday; of two equally near ones the coming one."""
    if not len(date):
        return np.empty(0)
    days = date.astype(np.int64)
    holidays = _holidays(int(days.min()), int(days.max()))
    coming = np.searchsorted(holidays, days)
    ahead, behind = holidays[coming] - days, days - holidays[coming - 1]
    return np.where(ahead <= behind, ahead, -behind).astype(np.float64)


@cache
def _holidays(first: int, last: int) -> npt.NDArray[np.int64]:
    """Days since the epoch of federal holidays, from the year before the first day to the year after the last."""
    import holidays

    years = range(1970 + first // 366 - 1, 1970 + last // 365 + 2)
    return np.sort(np.array(list(holidays.country_holidays("US", years=years)), dtype="datetime64[D]").astype(np.int64))


FEATURES = Features(
    event_columns=(
        "carrier",
        "origin",
        "destination",
        "tail_number",
        "local_date",
        "local_minute",
        "distance_miles",
        "scheduled_minutes",
    ),
    trailing=TRAILING,
    latest=LATEST,
    lookups=LOOKUPS,
    row=row,
    columns=(*ROW_COLUMNS, *columns_of(TRAILING, LATEST, LOOKUPS)),
)
