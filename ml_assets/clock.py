"""What time it is: the real time, or a replayed one, so that a year of deliveries can be watched in an hour.

Belongs here: the clock. Does not: what happens when (`orchestration`).

A replay of a case is a file `clock/<case>.json` in the local folder: the moment at which it began, the moment that it shows for it, and
how many real seconds a day takes. Every process reads the same time from it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from ml_assets.use_case import Day, UseCase

TICK = "ML_ASSETS_TICK_SECONDS"
SHORTEST_DAY_SECONDS, LONGEST_DAY_SECONDS = 5.0, 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """A clock; `begun` and `shows` are ISO 8601 in UTC, and empty for the real time."""

    begun: str = ""
    shows: str = ""
    day_seconds: float = LONGEST_DAY_SECONDS

    @property
    def replays(self) -> bool:
        """Whether it shows another time than the real one."""
        return bool(self.begun)

    def now(self) -> datetime:
        """The time it shows, in UTC."""
        real = datetime.now(UTC)
        if not self.replays:
            return real
        passed = (real - datetime.fromisoformat(self.begun)).total_seconds()
        return datetime.fromisoformat(self.shows) + timedelta(days=passed / self.day_seconds)

    def today(self, case: UseCase) -> Day:
        """The day it shows where the case lives."""
        return self.now().astimezone(ZoneInfo(case.timezone)).date().isoformat()

    def over(self, case: UseCase, days: list[Day]) -> list[Day]:
        """Of these days those that are over."""
        today = self.today(case)
        return [day for day in days if day < today]


def read_clock(folder: Path, case: str) -> Clock:
    """The clock of a case, by its local folder.

    Raises:
        ValueError: its file is damaged; the message names it and says what to do.
    """
    file = _file(folder, case)
    try:
        return Clock(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Clock()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no clock ({error}): remove it, or write it again with `ml-assets clock`") from error


def replay(folder: Path, case: UseCase, *, first: Day, day_seconds: float) -> Clock:
    """Begins a replay: from now on it is the first moment of `first`, and a day takes so many seconds.

    Raises:
        ValueError: a day would be too short for a tick of any sensor, or longer than a day.
    """
    if not SHORTEST_DAY_SECONDS <= day_seconds <= LONGEST_DAY_SECONDS:
        raise ValueError(
            f"a day of {day_seconds:g} seconds: expected {SHORTEST_DAY_SECONDS:g} to {LONGEST_DAY_SECONDS:g}, since sensors look every few"
        )
    clock = Clock(begun=datetime.now(UTC).isoformat(), shows=case.starts(first).isoformat(), day_seconds=day_seconds)
    file = _file(folder, case.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(asdict(clock), indent=1), encoding="utf-8")
    beside.replace(file)
    return clock


def stop(folder: Path, case: str) -> None:
    """Back to the real time."""
    _file(folder, case).unlink(missing_ok=True)


def interval_seconds(settings: Mapping[str, str], clock: Clock) -> int:
    """How often sensors look: every 30 seconds, oftener in a replay, and as `ML_ASSETS_TICK_SECONDS` says.

    Raises:
        ValueError: the setting is no whole number from 1.
    """
    if said := settings.get(TICK):
        if not said.isdecimal() or int(said) < 1:
            raise ValueError(f"{TICK}={said!r}: expected a whole number of seconds from 1")
        return int(said)
    return max(5, min(30, round(clock.day_seconds / 6)))


def _file(folder: Path, case: str) -> Path:
    return folder / "clock" / f"{case}.json"
