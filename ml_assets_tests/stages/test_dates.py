"""Dates without a time of day: the same instants for a frame and a row, in every time zone."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_assets.sources.as_text import time_text
from ml_assets.stages.dates import instant_of, known_from
from ml_assets.use_case import Column, DType

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = sorted(available_timezones())


def column(dates: str, zone: str) -> Column:
    return Column(name="t", dtype=DType.TIMESTAMP, dates=dates, timezone=zone)  # type: ignore[arg-type]


def at(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


@settings(max_examples=300, deadline=None)
@given(day=st.dates(date(1960, 1, 1), date(2035, 12, 31)), zone=st.sampled_from(ZONES))
@example(day=date(2018, 11, 4), zone="America/Sao_Paulo")
@example(day=date(2011, 12, 30), zone="Pacific/Apia")
@example(day=date(2020, 11, 1), zone="America/Havana")
@example(day=date(2018, 3, 25), zone="Atlantic/Azores")
def test_a_day_begins_behind_the_day_before_and_all_of_it_is_between(day: date, zone: str) -> None:
    first, last = (instant_of(day.isoformat(), column(dates, zone)) for dates in ("start", "end"))
    following = instant_of((day + timedelta(days=1)).isoformat(), column("start", zone))
    assert last + 1 == following, "a fact of a date counts before any event of the next one is asked about"
    if first < following:  # clocks that leave out a day have none of it
        shown = [at(each).astimezone(ZoneInfo(zone)).date() for each in (first, last)]
        assert shown == [day, day], "both lie on the day under which they are delivered"
    known = known_from(pd.Series(pd.to_datetime([at(first), at(last), None], utc=True)).dt.as_unit("us"), zone)
    assert known.tolist()[:2] == ([at(last)] * 2 if first < following else [at(first + 86_400_000_000 - 1), at(last)])
    assert known.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kolkata"])
def test_what_has_a_time_of_day_counts_from_it(zone: str) -> None:
    times = pd.Series(
        pd.to_datetime(["2024-01-05T14:30:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"], utc=True, format="ISO8601")
    )
    times.index = [7, 3, 5]
    pd.testing.assert_series_equal(known_from(times, zone), times.dt.as_unit("us"))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia"])
@pytest.mark.parametrize("dates", ["start", "end"])
def test_a_source_that_says_which_instant_a_date_is_says_what_a_contract_would(zone: str, dates: str) -> None:
    import pyarrow as pa

    days = [(date(2018, 1, 1) + timedelta(days=number)).isoformat() for number in range(400)]
    for values in (pa.array(days), pa.array(map(date.fromisoformat, days))):
        texts = time_text(values, zone, timedelta(0), dates).to_pylist()  # type: ignore[arg-type]
        assert [datetime.fromisoformat(text) for text in texts] == [at(instant_of(day, column(dates, zone))) for day in days]
