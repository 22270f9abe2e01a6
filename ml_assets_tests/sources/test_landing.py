"""What lands of a feed: everything, once, whatever is killed; and the source that reads it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ml_assets.folders import Folder, LocalFolder, folder_at
from ml_assets.sources import landing as module
from ml_assets.sources.bounds import Bounds
from ml_assets.sources.canonical import MARK, NOT_READ
from ml_assets.sources.delivered import OUT_OF_BOUNDS, Delivered
from ml_assets.sources.landing import Arrived, FeedError, LandedRows, Landing, Piece, Position
from ml_assets_tests.buckets import running_s3

DELIVERED = Delivered(columns={"at": "when", "fare": "fare"}, day_column="at", timezone="Europe/Berlin")
DAYS = ["2018-04-01", "2018-04-02", "2018-04-03"]
NOON = int(datetime(2018, 4, 2, 12, tzinfo=UTC).timestamp()) * 1_000_000


@dataclass(kw_only=True)
class Listed:
    """A feed of messages in a list, some at a time."""

    messages: list[bytes] = field(default_factory=list)
    at_once: int = 2
    keys: Sequence[str] = ()
    fails_at: int | None = None
    name: str = "listed"

    def pieces(self, after: Position | None, *, live: bool) -> Iterator[Piece]:
        assert not live
        at = (after or {"next": 0})["next"]
        end = len(self.messages)
        while at < end:
            some = self.messages[at : min(end, at + self.at_once)]
            arrived = [
                Arrived(content=content, file="listed", row=at + row, at=NOON, key=self.keys[at + row] if self.keys else None)
                for row, content in enumerate(some)
            ]
            at += len(some)
            if self.fails_at is not None and at > self.fails_at:
                raise FeedError("listed: it is down: try again")
            yield Piece(messages=arrived, position={"next": at})


def message(when: str, fare: object = 1) -> bytes:
    return f'{{"when": "{when}", "fare": {fare}, "more": true}}'.encode()


def landing(path: Path, feed: Any, **changes: Any) -> Landing:
    return Landing(root=LocalFolder(path), name="landing", feed=feed, delivered=replace(DELIVERED, **changes))


def rows(source: LandedRows, days: Sequence[str] = DAYS) -> list[tuple[Any, ...]]:
    batch = source.read(days)
    assert not batch.problems
    return [tuple(row) for row in batch.rows[["day", "fare", "source_row"]].to_numpy().tolist()]


def test_all_that_came_lands_and_what_came_later_follows(tmp_path: Path) -> None:
    feed = Listed(messages=[message(f"{day}T12:00:00Z", fare) for fare, day in enumerate(DAYS)])
    place = landing(tmp_path, feed)
    first = place.catch_up()
    assert (first.messages, first.days, place.position()) == (3, frozenset(DAYS), {"next": 3})
    assert place.catch_up().messages == 0
    feed.messages.append(message(f"{DAYS[0]}T13:00:00Z", "12.50"))
    source = LandedRows(landing=place, delivered=place.delivered)
    before = source.versions(DAYS)  # it catches up
    assert place.counts() == {DAYS[0]: 2, DAYS[1]: 1, DAYS[2]: 1}
    assert rows(source) == [(DAYS[0], "0", 0), (DAYS[0], "12.50", 3), (DAYS[1], "1", 1), (DAYS[2], "2", 2)]
    feed.messages.append(message(f"{DAYS[1]}T13:00:00Z"))
    after = source.versions(DAYS)
    assert [after[day] != before[day] for day in DAYS] == [False, True, False]
    assert source.read(DAYS).versions == after


def test_a_row_is_of_the_day_that_clocks_show(tmp_path: Path) -> None:
    place = landing(tmp_path, Listed(messages=[message("2018-04-01T22:30:00Z"), message("2018-04-01 23:30:00")]))
    place.catch_up()
    assert place.counts() == {"2018-04-02": 1, "2018-04-01": 1}


@pytest.mark.parametrize("content", [b"soon", b"[1]", b"\xff\xfe", b"", b'{"when": "soon", "fare": 1}', b'{"fare": 1}'])
def test_a_message_that_says_no_time_is_of_the_day_on_which_it_came(tmp_path: Path, content: bytes) -> None:
    place = landing(tmp_path, Listed(messages=[content, message(f"{DAYS[0]}T12:00:00Z")]))
    source = LandedRows(landing=place, delivered=place.delivered)
    batch = source.read(DAYS)
    assert batch.counted == {DAYS[0]: 1}
    assert "the last message of listed is of 2018-04-01" in batch.problems[DAYS[1]], "that it came does not show that others did"
    found = replace(source, complete_to="2018-04-04").read(DAYS).rows
    assert list(found["day"]) == [DAYS[0], DAYS[1]]
    kept = found.iloc[1]
    told = kept["fare"] == "1" if content.startswith(b"{") else kept[NOT_READ] == content.decode(errors="backslashreplace")
    assert told, "nothing of it is lost"


@pytest.mark.parametrize("year", ["0001", "1970", "2099", "9999"])
def test_a_message_of_another_age_is_of_the_day_on_which_it_came_and_completes_nothing(tmp_path: Path, year: str) -> None:
    wrong = message(f"{year}-06-01T12:00:00Z", 7)
    feed = Listed(messages=[wrong, message(f"{DAYS[0]}T12:00:00Z")], at_once=1)
    bounds = Bounds(start=DAYS[0], now=lambda: datetime(2018, 4, 2, 13, tzinfo=UTC))
    place = landing(tmp_path, feed, bounds=bounds)
    assert place.catch_up().days == {DAYS[0], DAYS[1]}
    assert place.last == DAYS[0], "and a piece with nothing but it leaves the last day as it was"
    source = LandedRows(landing=place, delivered=place.delivered)
    assert source.read(DAYS).counted == {DAYS[0]: 1}
    assert source.versions(DAYS).keys() == {DAYS[0]}
    feed.messages.append(message(f"{DAYS[1]}T23:00:00+02:00"))
    batch = source.read(DAYS)
    assert batch.counted == {DAYS[0]: 1, DAYS[1]: 2}
    assert batch.rows["at"].tolist()[1] == f"{year}-06-01T12:00:00Z{MARK}{OUT_OF_BOUNDS}", "as it came, for cleaning to reject"


@pytest.mark.parametrize(
    ("now", "end", "day"), [("2018-03-20", None, DAYS[0]), ("2018-04-01", None, DAYS[0]), ("2018-06-01", DAYS[1], DAYS[0])]
)
def test_a_message_came_within_the_case_whatever_the_clock_of_its_sender_says(
    tmp_path: Path, now: str, end: str | None, day: str
) -> None:
    bounds = Bounds(start=DAYS[0], end=end, now=lambda: datetime.fromisoformat(f"{now}T13:00:00+00:00"))
    place = landing(tmp_path, Listed(messages=[b"soon"]), bounds=bounds)
    assert place.catch_up().days == {day}


def test_a_feed_that_breaks_off_goes_on_behind_what_landed(tmp_path: Path) -> None:
    feed = Listed(messages=[message(f"{DAYS[0]}T12:00:00Z", fare) for fare in range(7)], fails_at=5)
    place = landing(tmp_path, feed)
    source = LandedRows(landing=place, delivered=place.delivered)
    broken = source.read(DAYS[:1])
    assert (broken.problems, len(broken.rows), source.versions(DAYS)) == ({DAYS[0]: "listed: it is down: try again"}, 0, {})
    assert place.position() == {"next": 4}
    feed.fails_at = None
    assert [fare for _, fare, _ in rows(source, DAYS[:1])] == [str(fare) for fare in range(7)]


def test_rows_that_a_table_does_not_keep_do_not_land_but_show_how_far_the_feed_came(tmp_path: Path) -> None:
    feed = Listed(messages=[message(f"{DAYS[0]}T12:00:00Z", 1), message(f"{DAYS[2]}T12:00:00Z", 2)], at_once=1)
    place = landing(tmp_path, feed, where=("fare", "1"))
    source = LandedRows(landing=place, delivered=place.delivered)
    assert rows(source) == [(DAYS[0], "1", 0)]
    assert dict(source.read(DAYS).counted) == {DAYS[0]: 1, DAYS[1]: 0, DAYS[2]: 0}
    assert "the last message of listed is of 2018-04-03" in source.read(["2018-04-04"]).problems["2018-04-04"]


def test_a_message_that_comes_again_lands_once(tmp_path: Path) -> None:
    again = [message(f"{DAYS[0]}T12:00:00Z", fare) for fare in (1, 2, 1, 3, 2, 2)]
    place = landing(tmp_path, Listed(messages=again, keys=["a", "b", "a", "c", "b", "b"]))
    assert place.catch_up().messages == 3
    assert [fare for _, fare, _ in rows(LandedRows(landing=place, delivered=place.delivered), DAYS[:1])] == ["1", "2", "3"]


def test_many_small_files_of_a_day_become_one_and_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FILES_A_DAY", 5)
    feed = Listed(messages=[message(f"{DAYS[0]}T12:00:00Z", fare) for fare in range(8)], at_once=1)
    place = landing(tmp_path, feed)
    source = LandedRows(landing=place, delivered=place.delivered)
    feed.messages, rest = feed.messages[:5], feed.messages[5:]
    before = rows(source, DAYS[:1])
    feed.messages = feed.messages + rest
    place.catch_up()
    table = place.table()
    assert table is not None
    assert len(table.file_uris()) == 1
    assert (rows(source, DAYS[:1])[:5], place.position(), place.counts()) == (before, {"next": 8}, {DAYS[0]: 8})
    assert place.last == DAYS[0]


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_of_two_that_land_the_same_each_message_lands_once(kind: str, tmp_path: Path) -> None:
    with ExitStack() as held:
        root: Folder = LocalFolder(tmp_path)
        if kind == "bucket":
            server = held.enter_context(running_s3())
            root = folder_at(server.address("landing"), tmp_path, server.settings)
        each_lands_once(root)


def each_lands_once(root: Folder) -> None:
    messages = [message(f"{DAYS[number % 3]}T12:00:00Z", number) for number in range(60)]
    places = [Landing(root=root, name="raced", feed=Listed(messages=messages, at_once=7), delivered=DELIVERED) for _ in range(3)]

    def land(place: Landing) -> bool:
        while True:
            try:
                return place.catch_up().messages >= 0
            except FeedError:  # the others were faster each time
                continue

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(land, places))
    found = rows(LandedRows(landing=places[0], delivered=places[0].delivered))
    assert sorted(row for _, _, row in found) == list(range(60))


def test_a_process_that_is_killed_while_it_lands_neither_loses_nor_doubles(tmp_path: Path) -> None:
    messages = [message(f"{DAYS[number % 3]}T12:00:00Z", number) for number in range(400)]
    program = f"""
        from pathlib import Path
        from ml_assets_tests.sources.test_landing import *
        messages = [message(f"{{DAYS[number % 3]}}T12:00:00Z", number) for number in range(400)]
        place = landing(Path({str(tmp_path)!r}), Listed(messages=messages, at_once=5))
        print("begins", flush=True)
        place.catch_up()
    """
    place = landing(tmp_path, Listed(messages=messages, at_once=50))
    kills = 0
    for wait in (0.05, 0.15, 0.3, 0.1):
        command = [sys.executable, "-c", textwrap.dedent(program)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert kills >= 2
    reached = (place.position() or {"next": 0})["next"]
    assert sum(place.counts().values()) == reached
    place.catch_up()
    found = rows(LandedRows(landing=place, delivered=place.delivered))
    assert sorted(row for _, _, row in found) == list(range(400))


def test_settings_of_a_mapping_decide_where_a_feed_lands(tmp_path: Path) -> None:
    from ml_assets.sources.mapping import read_mapping, source_of

    file = tmp_path / "bank.toml"
    settings: Mapping[str, str] = {}
    places = []
    for zone, topic, more in (
        ("UTC", "payments", ""),
        ("Europe/Berlin", "payments", ""),
        ("UTC", "others", ""),
        ("UTC", "payments", 'latest = "2019-01-01"'),
        ("UTC", "payments", ""),
    ):
        file.write_text(
            f'start = "2018-04-01"\ntimezone = "{zone}"\n{more}\n[kafka]\nbootstrap.servers = "nowhere:9092"\n'
            f'[transactions]\ntopic = "{topic}"\ncolumns = {{at = "when"}}\n'
        )
        source = source_of(read_mapping(file, settings), "transactions", landings=LocalFolder(tmp_path), day_column="at")
        assert isinstance(source, LandedRows)
        places.append(source.landing.place)
    assert len(set(places)) == 4
    assert places[0] == places[4]
    assert places[0].endswith("transactions-041c0138"), "where it has landed so far"
