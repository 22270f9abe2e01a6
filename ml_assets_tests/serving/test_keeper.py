"""The process that keeps online stores in order."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ml_assets.serving import keeper
from ml_assets.serving.keeper import DROPPED_UNTIL, Keeper, keeping
from ml_assets.serving.server import _LOGGING
from ml_assets.stages.online_state import ANSWERS_FROM, LATE, SEEN_UNTIL
from ml_assets.storage.online import Fact, OnlineStore, open_store
from ml_assets.use_cases import find

CASE = find("card_fraud", {})
DAY = 86_400_000_000
NOW = 18_000 * DAY
OLD, NEW = (Fact(b"transactions.customer_id\x1f1", id, until, id) for id, until in ((b"old", NOW - 60 * DAY), (b"new", NOW)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    with closing(open_store(str(tmp_path), CASE.name, create=True)) as opened:
        opened.note({ANSWERS_FROM: str(NOW - 9 * DAY), SEEN_UNTIL: str(NOW)})
        opened.keep([OLD, NEW], replace=True)
        yield opened


def facts(store: OnlineStore) -> set[bytes]:
    records = store.facts([OLD.key])[OLD.key]
    return {records[start : start + 3] for start in range(0, len(records), 3)}


def test_old_events_are_refused_before_what_they_need_is_dropped(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Keeper(case=CASE, store=store)
    for _ in range(3):
        kept.tidy()
    assert store.notes("")[ANSWERS_FROM] == str(NOW - 9 * DAY), "what was just loaded is not old"
    later = NOW + DAY + 1
    store.note({SEEN_UNTIL: str(later)})
    for _ in range(3):
        kept.tidy()
    assert store.notes("")[ANSWERS_FROM] == str(later - LATE // keeper.MICROSECOND)
    assert facts(store) == {b"old", b"new"}, "workers have not had the time to read it"
    monkeypatch.setattr(keeper, "NOTICE_SECONDS", 0.0)
    kept.tidy()
    assert facts(store) == {b"new"}
    assert store.notes("")[DROPPED_UNTIL] == str(later)


def test_one_that_died_after_its_notice_is_followed_by_one_that_gives_notice_again(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    Keeper(case=CASE, store=store).tidy()
    store.note({SEEN_UNTIL: str(NOW + 2 * DAY)})
    Keeper(case=CASE, store=store).tidy()
    monkeypatch.setattr(keeper, "NOTICE_SECONDS", 0.0)
    after = Keeper(case=CASE, store=store)
    after.tidy()
    assert facts(store) == {b"old", b"new"}
    after.tidy()
    assert facts(store) == {b"new"}


def children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def keepers() -> list[int]:
    return [pid for pid in children() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until(holds: Any, *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_it_folds_what_the_service_wrote_and_is_replaced_when_it_dies(store: OnlineStore, tmp_path: Path) -> None:
    def noted() -> bool:
        return DROPPED_UNTIL in store.notes("")

    with keeping([CASE.name], str(tmp_path), _LOGGING):
        until(noted)
        [first] = keepers()
        os.kill(first, signal.SIGKILL)
        store.note({DROPPED_UNTIL: "0", SEEN_UNTIL: str(NOW)})
        until(lambda: store.notes("")[ANSWERS_FROM] != str(NOW - 9 * DAY))
        [second] = keepers()
        assert second != first
    assert keepers() == []
