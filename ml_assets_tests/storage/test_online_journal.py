"""The journal of the online store in SQLite: whoever asks, and whenever it is folded, the same comes back as from a plain dictionary."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.storage import online_memory, online_sqlite
from ml_assets.storage.online import Answer, Fact, OnlineStore, open_store

KEYS = [b"t.a\x1f%d" % number for number in range(2)]
IDS = [b"%d" % number for number in range(3)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["score", "score", "score", "replace", "fold", "drop", "drop answers", "ask", "follow", "read ahead", "forget"]
        ),
        st.integers(0, 2),
        st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(IDS), st.integers(0, 9)), max_size=4),
    ),
    max_size=30,
)


class Plain:
    """What a store is to do, without any of its means."""

    def __init__(self) -> None:
        self.facts: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self.answers: dict[str, tuple[int, bytes]] = {}

    def of(self, key: bytes) -> set[bytes]:
        return {record for (of_key, _), (_, record) in self.facts.items() if of_key == key}


def pieces(found: bytes) -> set[bytes]:
    parts = [found[start : start + 8] for start in range(0, len(found), 8)]
    assert len(parts) == len(set(parts)), "a fact counts twice"
    return set(parts)


@pytest.fixture(scope="module", autouse=True)
def always_looking() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(online_sqlite, "_LOOK_SECONDS", 0.0)
        yield


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_three_processes_see_what_a_dictionary_holds(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    folder, plain = tmp_path_factory.mktemp("store"), Plain()
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(open_store(str(folder), "case", create=True))) for _ in range(3)]
        for number, (what, which, facts) in enumerate(steps):
            store = stores[which]
            store.follow()  # what others dropped is noticed then
            made = [Fact(key, id, until, b"%s:%06d" % (id, number)) for key, id, until in facts]
            {
                "score": _score,
                "replace": _replace,
                "fold": _fold,
                "drop": _drop,
                "drop answers": _drop_answers,
                "ask": lambda store, *_: store.facts(KEYS),
                "follow": lambda store, *_: store.follow(),
                "read ahead": lambda store, *_: store.read_ahead(),
                "forget": _forget,
            }[what](store, plain, made, number)
        for store in stores:
            store.follow()
            found = store.facts(KEYS)
            assert {key: pieces(found.get(key, b"")) for key in KEYS} == {key: plain.of(key) for key in KEYS}
            ids = [f"{number}-{part}" for number in range(len(steps)) for part in range(4)]
            assert store.answers(ids) == {id: body for id, (_, body) in plain.answers.items()}


def _score(store: OnlineStore, plain: Plain, facts: list[Fact], number: int) -> None:
    answers = [Answer(id=f"{number - number % 3}-{part}", at=fact.until, body=b"%d" % number) for part, fact in enumerate(facts)]
    before = store.keep(facts, answers, replace=False)
    assert before == {
        each.id: plain.answers[each.id][1]
        for each in answers
        if each.id in plain.answers and plain.answers[each.id][1] != each.body
    }
    for fact in facts:
        plain.facts.setdefault((fact.key, fact.id), (fact.until, fact.record))
    for answer in answers:
        plain.answers.setdefault(answer.id, (answer.at, answer.body))


def _replace(store: OnlineStore, plain: Plain, facts: list[Fact], number: int) -> None:
    store.keep(facts, replace=True)
    plain.facts |= {(fact.key, fact.id): (fact.until, fact.record) for fact in facts}


def _fold(store: OnlineStore, *_: object) -> None:
    store._fold()  # type: ignore[attr-defined]


def _drop(store: OnlineStore, plain: Plain, *_: object) -> None:
    old = [name for name, (until, _) in plain.facts.items() if until < 4]
    assert store.drop(b"t.a\x1f", 4) == len(old)
    for name in old:
        del plain.facts[name]
    found = store.facts(KEYS)
    assert {key: pieces(found.get(key, b"")) for key in KEYS} == {key: plain.of(key) for key in KEYS}


def _drop_answers(store: OnlineStore, plain: Plain, *_: object) -> None:
    old = [id for id, (at, _) in plain.answers.items() if at < 4]
    assert store.drop_answers(4) == len(old)
    for id in old:
        del plain.answers[id]


def _forget(store: OnlineStore, *_: object) -> None:
    store._memory = None  # type: ignore[attr-defined]


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_memory, "_MOST_BYTES", 20_000)
    facts = [Fact(b"%d" % number, b"id", 0, b"id".ljust(300)) for number in range(500)]
    with closing(open_store(str(tmp_path), "case", create=True)) as store:
        store.keep(facts, replace=True)
        for ask in (store.read_ahead, lambda: store.facts([fact.key for fact in facts])):
            ask()
            memory = store._memory  # type: ignore[attr-defined]
            assert 10 < len(memory._records) < 60
            assert memory._bytes == sum(len(key) + len(records) + 120 for key, records in memory._records.items())
        assert store.facts([fact.key for fact in facts]) == {fact.key: fact.record for fact in facts}


def test_what_is_folded_leaves_memory(tmp_path: Path) -> None:
    with (
        closing(open_store(str(tmp_path), "case", create=True)) as store,
        closing(open_store(str(tmp_path), "case")) as other,
    ):
        for number in range(300):
            store.keep([Fact(b"k", b"%d" % number, 0, b"%08d" % number)], [Answer(id=f"{number}", at=0, body=b"x")], replace=False)
        other.follow()
        other._fold()  # type: ignore[attr-defined]
        for each in (store, other):
            for _ in range(4):
                each.follow()
            memory = each._memory  # type: ignore[attr-defined]
            assert (memory._entries, memory._facts, memory._answered) == (type(memory._entries)(), {}, {})
            assert len(each.facts([b"k"])[b"k"]) == 2400
            assert each.answers(["0", "299"]) == {"0": b"x", "299": b"x"}


FOLDS = """
import sys
from ml_assets.storage.online import open_store
store = open_store(sys.argv[1], "case")
print("begins", flush=True)
store._fold()
"""


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_one_that_is_killed_while_it_folds_loses_nothing_and_doubles_nothing(tmp_path: Path, seconds: float) -> None:
    made = random.Random(0)
    facts = [Fact(b"%d" % made.randrange(2000), b"%d" % number, 0, b"%08d" % number) for number in range(5000)]
    with closing(open_store(str(tmp_path), "case", create=True)) as store:
        for start in range(0, len(facts), 50):
            some = facts[start : start + 50]
            store.keep(some, [Answer(id=fact.id.decode(), at=0, body=fact.id) for fact in some], replace=False)
        with subprocess.Popen([sys.executable, "-c", FOLDS, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                child.kill()
        _require_all(store, facts)
        store._fold()  # type: ignore[attr-defined]
        _require_all(store, facts)
    with closing(open_store(str(tmp_path), "case")) as again:
        _require_all(again, facts)
    with closing(sqlite3.connect(tmp_path / "case.db")) as connection:
        assert connection.execute("SELECT count(*) FROM facts").fetchone() == (5000,)
        assert connection.execute("SELECT count(*) FROM answered").fetchone() == (5000,)


def _require_all(store: OnlineStore, facts: list[Fact]) -> None:
    expected: dict[bytes, set[bytes]] = {}
    for fact in facts:
        expected.setdefault(fact.key, set()).add(fact.record)
    found = store.facts(list(expected))
    assert {key: pieces(records) for key, records in found.items()} == expected
    ids = [fact.id.decode() for fact in facts]
    assert store.answers(ids) == {id: id.encode() for id in ids}
