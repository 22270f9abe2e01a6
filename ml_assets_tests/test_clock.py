"""A clock that is replayed: every process reads the same time from it, and a damaged one is named."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.clock import Clock, interval_seconds, read_clock, replay, stop
from ml_assets.use_case import day_range
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS


def test_without_a_replay_it_is_the_real_time(tmp_path: Path) -> None:
    clock = read_clock(tmp_path, "flight_delays")
    assert not clock.replays
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_replay_begins_at_midnight_where_the_case_lives_and_takes_its_seconds(tmp_path: Path) -> None:
    replay(tmp_path, FLIGHT_DELAYS, first="2013-11-04", day_seconds=5)
    clock = read_clock(tmp_path, "flight_delays")
    begun = clock.now()
    assert timedelta(0) <= begun - datetime(2013, 11, 4, 5, tzinfo=UTC) < timedelta(days=1), "New York is five hours behind"
    time.sleep(0.5)
    assert timedelta(hours=2) < clock.now() - begun < timedelta(days=1)
    assert not read_clock(tmp_path, "card_fraud").replays, "each case has its own"
    assert read_clock(tmp_path, "flight_delays") == clock, "whoever reads it"


def test_days_are_over_when_they_have_ended(tmp_path: Path) -> None:
    days = day_range("2013-11-01", "2013-11-08")
    shows = datetime(2013, 11, 5, 4, 59, tzinfo=UTC)  # a minute to midnight in New York
    clock = Clock(begun=datetime.now(UTC).isoformat(), shows=shows.isoformat(), day_seconds=86_400)
    assert clock.today(FLIGHT_DELAYS) == "2013-11-04"
    assert clock.over(FLIGHT_DELAYS, days) == days[:3]
    assert clock.today(CARD_FRAUD) in ("2013-11-05", "2013-11-04")


def test_the_real_time_comes_back(tmp_path: Path) -> None:
    replay(tmp_path, FLIGHT_DELAYS, first="2013-11-04", day_seconds=5)
    stop(tmp_path, "flight_delays")
    stop(tmp_path, "flight_delays")
    assert not read_clock(tmp_path, "flight_delays").replays


@pytest.mark.parametrize("content", ["", "[1]", '{"begun": "now", "more": 1}'])
def test_a_damaged_clock_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "clock" / "flight_delays.json"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ValueError, match=r"flight_delays\.json is no clock .*: remove it"):
        read_clock(tmp_path, "flight_delays")


@pytest.mark.parametrize("seconds", [0, 4.9, 86_401])
def test_a_day_is_no_shorter_than_sensors_can_see(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="expected 5 to 86400"):
        replay(tmp_path, FLIGHT_DELAYS, first="2013-11-04", day_seconds=seconds)
    assert not read_clock(tmp_path, "flight_delays").replays


def test_sensors_look_oftener_in_a_replay() -> None:
    assert interval_seconds({}, Clock()) == 30
    assert interval_seconds({}, Clock(begun="now", shows="then", day_seconds=60)) == 10
    assert interval_seconds({}, Clock(begun="now", shows="then", day_seconds=5)) == 5
    assert interval_seconds({"ML_ASSETS_TICK_SECONDS": "2"}, Clock()) == 2
    for wrong in ("0", "-1", "often"):
        with pytest.raises(ValueError, match="ML_ASSETS_TICK_SECONDS="):
            interval_seconds({"ML_ASSETS_TICK_SECONDS": wrong}, Clock())
