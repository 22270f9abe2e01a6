"""Decisions are written once, for good, one after the other; and what is in force follows from them."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.folders import LocalFolder
from ml_assets.storage.decisions import GATE, DamagedRecordError, Decision, DecisionLog, Manual, Period, periods, standing
from ml_assets.storage.models import ModelStore
from ml_assets.use_case import Day, day_range, shift

PROJECT = Path(__file__).parents[2]
AT = "2024-03-01T10:00:00+00:00"


class KilledError(BaseException):
    """What a process that is killed never gets past."""


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    return DecisionLog(root=LocalFolder(tmp_path))


def record(log: DecisionLog, evidence: str = "{}", case: str = "small", **changes: Any) -> Decision:
    """A promotion by the gate, but for what is given."""
    given: dict[str, Any] = {
        "kind": "promoted",
        "effective": "2024-03-04",
        "version": "v1",
        "candidate": "v1",
        "champion_before": None,
        "reason": "every condition holds",
        "decided_by": GATE,
        "decided_at": AT,
        "evidence": evidence,
    }
    return log.record(case, **{**given, **changes})


def file_of(log: DecisionLog, number: int, case: str = "small") -> Path:
    return log.root.path / "decisions" / case / f"{number:06d}.json"


# The record -------------------------------------------------------------------------------------------------------------------


def test_a_decision_comes_back_as_it_was_recorded(log: DecisionLog) -> None:
    made = record(
        log, kind="pin", version="v7", candidate=None, champion_before="v1", reason="“better” on Sundays", decided_by="ann"
    )

    (found,) = log.all("small")

    assert found == made
    assert (found.number, found.kind, found.version, found.champion_before) == (1, "pin", "v7", "v1")
    assert (found.reason, found.decided_by, found.decided_at) == ("“better” on Sundays", "ann", AT)
    assert found.previous == ""


def test_a_record_tells_all_its_fields(log: DecisionLog) -> None:
    """Whoever reads the files without this package finds what was decided, and can check the hash."""
    decision = record(log)

    content = json.loads(file_of(log, 1).read_text())

    assert content.pop("content_hash") == decision.content_hash
    assert content == asdict(decision)
    assert hashlib.sha256(json.dumps(content, sort_keys=True, indent=1).encode()).hexdigest() == decision.content_hash


def test_each_case_has_numbers_of_its_own(log: DecisionLog) -> None:
    for case in ("small", "other", "small"):
        record(log, case=case, kind="refused", reason=f"of {case}", evidence=f'"{len(log.all(case))}"')

    assert [decision.number for decision in log.all("small")] == [1, 2]
    assert [decision.number for decision in log.all("other")] == [1]
    assert log.all("nothing") == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": " \n"}, "needs a reason"),
        ({"effective": "2024-3-4"}, "2024-3-4"),
        ({"effective": "20240304"}, "written YYYY-MM-DD"),
        ({"effective": "2024-02-30"}, "day"),
        ({"decided_at": "2024-03-01T10:00:00"}, "must be in UTC"),
        ({"decided_at": "2024-03-01T10:00:00+01:00"}, "must be in UTC"),
    ],
)
def test_what_is_not_a_decision_is_not_recorded(changes: Mapping[str, str], said: str, log: DecisionLog) -> None:
    with pytest.raises(ValueError, match=said):
        record(log, **changes)

    assert log.all("small") == []


@pytest.mark.parametrize("text", ['{"ap": 0.30000000000000004}', "ü – “quoted”\r\n\ttabs \u2028\n", "", "x" * 100_000])
def test_evidence_is_read_back_byte_for_byte(text: str, log: DecisionLog) -> None:
    decision = record(log, evidence=text)
    record(log, evidence="later", effective="2024-03-11")

    assert log.evidence(log.all("small")[0]) == text
    assert decision.evidence == hashlib.sha256(text.encode()).hexdigest()
    assert Path(log.evidence_place(decision)).read_bytes() == text.encode()


def test_decisions_on_the_same_evidence_share_it(log: DecisionLog) -> None:
    record(log, evidence="same")
    record(log, evidence="same", effective="2024-03-11")

    assert len(list((log.root.path / "decisions" / "small" / "evidence").iterdir())) == 1
    assert [log.evidence(decision) for decision in log.all("small")] == ["same", "same"]


# The same decision, made again ------------------------------------------------------------------------------------------------


def test_a_gate_that_decides_the_same_again_is_not_recorded_twice(log: DecisionLog) -> None:
    first = record(log, evidence="report, 3 ms", basis="the same")

    again = record(log, evidence="report, 4 ms", basis="the same", decided_at="2024-03-02T10:00:00+00:00")

    assert again == first
    assert log.all("small") == [first]
    assert log.evidence(again) == "report, 3 ms"


@pytest.mark.parametrize(
    "changes",
    [
        {"basis": "other rows"},
        {"kind": "refused", "version": None},
        {"version": "v2"},
        {"effective": "2024-03-11"},
        {"kind": "pin", "decided_by": "ann"},
    ],
    ids=str,
)
def test_another_basis_outcome_or_week_is_another_decision(changes: Mapping[str, Any], log: DecisionLog) -> None:
    record(log, basis="the same")

    assert record(log, **{"basis": "the same", **changes}).number == 2


def test_without_a_basis_it_is_the_evidence(log: DecisionLog) -> None:
    record(log, evidence="a")

    assert record(log, evidence="a").number == 1
    assert record(log, evidence="b").number == 2


def test_a_gate_that_changes_its_mind_and_back_is_recorded_each_time(log: DecisionLog) -> None:
    outcomes = [("promoted", "one"), ("refused", "two"), ("promoted", "one")]

    for kind, basis in outcomes:
        record(log, kind=kind, basis=basis)

    assert [decision.kind for decision in log.all("small")] == ["promoted", "refused", "promoted"]


def test_what_others_decide_in_between_does_not_make_it_another(log: DecisionLog) -> None:
    first = record(log, basis="the same")
    record(log, effective="2024-03-11", basis="the same")
    record(log, kind="rollback", decided_by="ann", version="v0")

    assert record(log, basis="the same") == first


def test_a_person_who_says_the_same_twice_is_recorded_twice(log: DecisionLog) -> None:
    assert [record(log, kind="pin", decided_by="ann", basis="the same").number for _ in range(2)] == [1, 2]


# Damage -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(log: DecisionLog) -> DecisionLog:
    for number in range(1, 6):
        record(log, evidence=f"evidence {number}", effective=shift("2024-03-04", 7 * number), reason=f"reason {number}")
    return log


def change(file: Path, old: str, new: str, *, hashed: bool) -> None:
    """As somebody would who wants to hide it; `hashed`: who knows about the hash too."""
    content = json.loads(file.read_text().replace(old, new))
    if hashed:
        del content["content_hash"]
        content["content_hash"] = Decision(**content).content_hash
    file.write_text(json.dumps(content))


def exchange(log: DecisionLog, first: int, second: int) -> None:
    one, other = file_of(log, first).read_bytes(), file_of(log, second).read_bytes()
    file_of(log, first).write_bytes(other)
    file_of(log, second).write_bytes(one)


def renumber(log: DecisionLog, first: int, second: int) -> None:
    """Exchanged with numbers and hashes that fit each place."""
    exchange(log, first, second)
    for number in (first, second):
        content = json.loads(file_of(log, number).read_text())
        change(file_of(log, number), f'"number": {content["number"]}', f'"number": {number}', hashed=True)


DAMAGES: Mapping[str, tuple[Callable[[DecisionLog], Any], str]] = {
    "changed": (lambda log: change(file_of(log, 3), "reason 3", "no reason", hashed=False), "000003.json is damaged"),
    "changed with its hash": (
        lambda log: change(file_of(log, 3), "reason 3", "no reason", hashed=True),
        "000003.json is not the record that 000004.json followed",
    ),
    "the first one changed with its hash": (
        lambda log: change(file_of(log, 1), "2024-03-11", "2024-03-12", hashed=True),
        "000001.json is not the record that 000002.json followed",
    ),
    "the last one changed": (lambda log: change(file_of(log, 5), "reason 5", "no reason", hashed=False), "000005.json is damaged"),
    "exchanged": (lambda log: exchange(log, 2, 3), "000002.json holds decision 3 of small"),
    "exchanged with numbers and hashes": (
        lambda log: renumber(log, 2, 4),
        "000001.json is not the record that 000002.json followed",
    ),
    "missing": (lambda log: file_of(log, 3).unlink(), "000003.json is missing"),
    "the first one missing": (lambda log: file_of(log, 1).unlink(), "000001.json is missing"),
    "empty": (lambda log: file_of(log, 4).write_text(""), "000004.json is damaged"),
    "cut off": (lambda log: file_of(log, 4).write_text(file_of(log, 4).read_text()[:-40]), "000004.json is damaged"),
    "no record": (lambda log: file_of(log, 4).write_text("[]"), "000004.json is damaged"),
    "a field too few": (lambda log: change(file_of(log, 4), '"reason"', '"reasons"', hashed=False), "000004.json is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_by_every_reader_and_nothing_is_recorded_after_it(damage: str, five: DecisionLog) -> None:
    do, said = DAMAGES[damage]
    do(five)

    with pytest.raises(DamagedRecordError, match=re.escape(said)):
        five.all("small")
    with pytest.raises(DamagedRecordError, match=re.escape(said)):
        record(five, evidence="more")
    assert not file_of(five, 6).exists()


def test_a_record_of_another_case_is_noticed(five: DecisionLog) -> None:
    record(five, case="other")
    file_of(five, 1).write_bytes(file_of(five, 1, "other").read_bytes())

    with pytest.raises(DamagedRecordError, match=r"000001\.json holds decision 1 of other"):
        five.all("small")


@pytest.mark.parametrize("content", [None, b"evidence 3", b""])
def test_evidence_that_is_missing_or_another_is_named(content: bytes | None, five: DecisionLog) -> None:
    decision = five.all("small")[1]
    file = Path(five.evidence_place(decision))
    file.unlink() if content is None else file.write_bytes(content)

    with pytest.raises(DamagedRecordError, match=f"{decision.evidence}.json is .*decision 2"):
        five.evidence(decision)


def test_no_decision_is_recorded_on_damaged_evidence(five: DecisionLog) -> None:
    Path(five.evidence_place(five.all("small")[1])).write_text("evidence 3")

    with pytest.raises(DamagedRecordError, match="is damaged"):
        record(five, evidence="evidence 2", effective="2024-06-03")
    assert len(five.all("small")) == 5


def test_a_kill_before_the_record_leaves_its_number_to_the_next(five: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "hardlink_to", killed)
        with pytest.raises(KilledError):
            record(five, evidence="evidence 6")

    assert len(five.all("small")) == 5
    assert record(five, evidence="evidence 6").number == 6
    assert five.evidence(five.all("small")[-1]) == "evidence 6"


PROGRAM = """
import sys, time
from pathlib import Path
from ml_assets.folders import LocalFolder
from ml_assets.storage.decisions import DecisionLog

root, name, count = sys.argv[1:]
(Path(root) / f"{name} is ready").touch()
while not (Path(root) / "go").exists():
    time.sleep(0.001)
for number in range(int(count)):
    DecisionLog(root=LocalFolder(Path(root))).record(
        "small", kind="pin", effective="2024-03-04", version="v1", candidate=None, champion_before=None,
        reason=f"{name} {number}", decided_by=name, decided_at="2024-03-01T10:00:00+00:00", evidence=f"{name} {number}",
    )
"""


def test_two_processes_at_once_lose_no_decision_and_give_no_number_twice(log: DecisionLog) -> None:
    names, count = ("ann", "bob"), 30
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(log.root.path), name, str(count)], env={**os.environ, "PYTHONPATH": str(PROJECT)}
        )
        for name in names
    ]
    while not all((log.root.path / f"{name} is ready").exists() for name in names):
        assert all(process.poll() is None for process in processes)
    (log.root.path / "go").touch()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]

    found = log.all("small")

    assert [decision.number for decision in found] == list(range(1, 2 * count + 1))
    for name in names:
        assert [decision.reason for decision in found if decision.decided_by == name] == [
            f"{name} {number}" for number in range(count)
        ]
    assert [log.evidence(decision) for decision in found] == [decision.reason for decision in found]
    assert len({decision.decided_by for decision in found[: count + 5]}) == 2  # they did take turns


# What is in force -------------------------------------------------------------------------------------------------------------

WEEKS = ("2024-03-04", "2024-03-11", "2024-03-18", "2024-03-25")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(root=LocalFolder(tmp_path / "store"))


@pytest.fixture
def a(store: ModelStore) -> str:
    return store.save("small", {"model.json": b"a"}, {"week": WEEKS[0]})


@pytest.fixture
def b(store: ModelStore) -> str:
    return store.save("small", {"model.json": b"b"}, {"week": WEEKS[1]})


@pytest.fixture
def c(store: ModelStore) -> str:
    return store.save("small", {"model.json": b"c"}, {"week": WEEKS[2]})


def decide(store: ModelStore, kind: Manual, effective: Day, version: str | None = None, **changes: Any) -> Decision:
    given = {"reason": "because", "decided_by": "ann", "decided_at": AT, "evidence": "seen"}
    return store.decide("small", kind, version=version, effective=effective, **{**given, **changes})


def deployed(store: ModelStore, *versions: str) -> None:
    """One a week, from the first on."""
    for week, version in zip(WEEKS, versions, strict=False):
        store.deploy("small", week, version, {"promoted": True})


def in_force(store: ModelStore, *days: Day) -> list[str | None]:
    return [found.version if (found := store.standing("small", day)) else None for day in days]


def current(store: ModelStore) -> dict[str, Any] | None:
    file = store.root.path / "deployments" / "small" / "current.json"
    return {key: value for key, value in json.loads(file.read_text()).items() if key != "change"} if file.exists() else None


def test_a_rollback_holds_from_its_day_until_the_next_promotion(store: ModelStore, a: str, b: str, c: str) -> None:
    deployed(store, a, b)
    decision = decide(store, "rollback", "2024-03-14", a)

    assert in_force(store, "2024-03-13", "2024-03-14", "2024-03-17", "2024-04-30") == [b, a, a, a]
    assert (decision.version, decision.champion_before) == (a, b)

    deployed(store, a, b, c)

    assert in_force(store, "2024-03-13", "2024-03-14", "2024-03-17", "2024-03-18") == [b, a, a, c]
    assert store.periods("small") == [
        Period(first="2024-03-04", last="2024-03-10", version=a),
        Period(first="2024-03-11", last="2024-03-13", version=b),
        Period(first="2024-03-14", last="2024-03-17", version=a),
        Period(first="2024-03-18", last=None, version=c),
    ]


def test_a_rollback_on_the_day_of_a_deployment_comes_after_it(store: ModelStore, a: str, b: str) -> None:
    deployed(store, a, b)
    decide(store, "rollback", WEEKS[1], a)

    assert in_force(store, "2024-03-10", "2024-03-11", "2024-03-12") == [a, a, a]
    assert store.periods("small") == [Period(first="2024-03-04", last=None, version=a)]


def test_of_two_rollbacks_the_later_day_counts_and_on_one_day_the_later_decision(store: ModelStore, a: str, b: str, c: str) -> None:
    deployed(store, a, b, c)
    decide(store, "rollback", "2024-03-22", b)
    decide(store, "rollback", "2024-03-20", a)

    assert in_force(store, "2024-03-19", "2024-03-20", "2024-03-22") == [c, a, b]
    decide(store, "rollback", "2024-03-22", a)
    assert in_force(store, "2024-03-20", "2024-03-22") == [a, a]


def test_a_rollback_survives_that_weeks_before_it_are_withdrawn_and_deployed_again(
    store: ModelStore, a: str, b: str, c: str
) -> None:
    deployed(store, a, b)
    decide(store, "rollback", "2024-03-14", a)

    store.withdraw("small", WEEKS[1])
    assert in_force(store, "2024-03-13", "2024-03-14") == [a, a]
    assert current(store) == {
        "case": "small",
        "week": "2024-03-14",
        "version": a,
        "decision": {"kind": "rollback", "number": 1, "reason": "because", "decided_by": "ann"},
    }

    store.deploy("small", WEEKS[1], b, {"promoted": True})
    assert in_force(store, "2024-03-13", "2024-03-14") == [b, a]
    assert (current(store) or {})["version"] == a

    store.deploy("small", WEEKS[2], c, {"promoted": True})
    assert current(store) == {"case": "small", "week": WEEKS[2], "version": c, "decision": {"promoted": True}}


def test_a_pin_holds_whatever_is_promoted_until_it_is_unpinned(store: ModelStore, a: str, b: str, c: str) -> None:
    deployed(store, a)
    decide(store, "pin", "2024-03-06", a)
    deployed(store, a, b, c)

    assert in_force(store, "2024-03-11", "2024-03-18", "2024-05-01") == [a, a, a]
    assert store.deployments("small") == dict(zip(WEEKS, (a, b, c), strict=False))  # remembered all the same
    assert (current(store) or {})["decision"]["kind"] == "pin"

    unpin = decide(store, "unpin", "2024-03-20")

    assert (unpin.version, unpin.champion_before) == (c, a)
    assert in_force(store, "2024-03-19", "2024-03-20") == [a, c]
    found = store.standing("small", "2024-03-21")
    assert found is not None
    assert (found.since, found.decision) == ("2024-03-20", unpin)
    assert store.periods("small") == [
        Period(first="2024-03-04", last="2024-03-19", version=a),
        Period(first="2024-03-20", last=None, version=c),
    ]
    assert current(store) == {
        "case": "small",
        "week": "2024-03-20",
        "version": c,
        "decision": {"kind": "unpin", "number": 2, "reason": "because", "decided_by": "ann"},
    }


def test_after_an_unpin_the_gate_goes_on(store: ModelStore, a: str, b: str, c: str) -> None:
    deployed(store, a)
    decide(store, "pin", "2024-03-06", a)
    decide(store, "unpin", "2024-03-08")

    deployed(store, a, b, c)

    assert in_force(store, "2024-03-08", "2024-03-11", "2024-03-18") == [a, b, c]
    found = store.standing("small", "2024-03-18")
    assert found is not None
    assert found.decision is None


def test_a_pin_may_be_of_another_version_and_of_several_the_last_said_holds(store: ModelStore, a: str, b: str, c: str) -> None:
    deployed(store, a, b, c)
    decide(store, "pin", "2024-03-20", b)
    decide(store, "pin", "2024-03-19", a)

    assert in_force(store, "2024-03-18", "2024-03-19", "2024-03-20", "2024-05-01") == [c, a, a, a]


def test_an_unpin_brings_back_a_rollback_that_no_promotion_followed(store: ModelStore, a: str, b: str, c: str) -> None:
    deployed(store, a, b)
    decide(store, "rollback", "2024-03-13", a)
    decide(store, "pin", "2024-03-14", b)

    unpin = decide(store, "unpin", "2024-03-16")

    assert unpin.version == a
    assert in_force(store, "2024-03-12", "2024-03-13", "2024-03-14", "2024-03-16") == [b, a, b, a]
    deployed(store, a, b, c)
    assert in_force(store, "2024-03-17", "2024-03-18") == [a, c]


def test_a_first_model_may_be_put_in_force_by_a_person(store: ModelStore, a: str) -> None:
    decide(store, "pin", "2024-03-06", a)

    assert in_force(store, "2024-03-05", "2024-03-06") == [None, a]
    assert (current(store) or {})["version"] == a
    assert decide(store, "unpin", "2024-03-08").version is None
    assert in_force(store, "2024-03-07", "2024-03-08") == [a, None]
    assert current(store) is None
    assert store.periods("small") == [Period(first="2024-03-06", last="2024-03-07", version=a)]


def test_the_versions_of_many_days_are_those_of_each(store: ModelStore, a: str, b: str) -> None:
    deployed(store, a, b)
    decide(store, "rollback", "2024-03-14", a)
    days = day_range("2024-03-01", "2024-03-20")

    found = store.in_force_on("small", days)

    assert found == {day: each for day in days if (each := store.in_force("small", day)) is not None}
    assert found["2024-03-20"] == ("2024-03-14", a)
    assert "2024-03-03" not in found


@pytest.mark.parametrize(
    ("kind", "version", "said"),
    [
        ("rollback", "2024-03-04-00000000", "no model 2024-03-04-00000000 of small; there are 2024-03-04-"),
        ("pin", "nothing", "no model nothing of small; there are "),
        ("rollback", None, "a rollback names a version"),
        ("pin", None, "a pin names a version"),
        ("rollback", "b", "is in force on 2024-03-14 already, since 2024-03-11"),
        ("unpin", None, "no version is pinned on 2024-03-14"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    kind: Manual, version: str | None, said: str, store: ModelStore, a: str, b: str
) -> None:
    deployed(store, a, b)
    before = current(store)

    with pytest.raises((ValueError, FileNotFoundError), match=said):
        decide(store, kind, "2024-03-14", b if version == "b" else version)

    assert store.decisions.all("small") == []
    assert current(store) == before


def test_while_a_version_is_pinned_a_rollback_and_the_same_pin_are_refused(store: ModelStore, a: str, b: str) -> None:
    deployed(store, a, b)
    decide(store, "pin", "2024-03-12", b)

    with pytest.raises(ValueError, match=f"{b} is pinned by decision 1 since 2024-03-12: a rollback needs an unpin first"):
        decide(store, "rollback", "2024-03-14", a)
    with pytest.raises(ValueError, match=f"{b} is pinned on 2024-03-14 already"):
        decide(store, "pin", "2024-03-14", b)
    assert decide(store, "rollback", "2024-03-11", a).number == 2  # the day before the pin


def test_a_pin_of_the_version_in_force_is_no_nonsense(store: ModelStore, a: str, b: str) -> None:
    deployed(store, a)
    decide(store, "pin", "2024-03-05", a)
    deployed(store, a, b)

    assert in_force(store, "2024-03-12") == [a]


def test_a_kill_between_the_decision_and_current_is_mended_by_the_next(
    store: ModelStore, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KilledError

    deployed(store, a, b)
    with monkeypatch.context() as patched:
        patched.setattr(LocalFolder, "change", killed)
        with pytest.raises(KilledError):
            decide(store, "rollback", "2024-03-14", a)

    assert (current(store) or {})["version"] == b
    assert in_force(store, "2024-03-14") == [a]
    store.deploy("small", WEEKS[1], b, {"promoted": True})
    assert (current(store) or {})["version"] == a


@st.composite
def histories(draw: Any) -> tuple[dict[Day, str], list[Decision]]:
    """Deployments of some weeks and decisions of people, most of them in no order of days."""
    days = day_range("2024-03-01", "2024-03-28")
    weeks = draw(st.dictionaries(st.sampled_from(WEEKS), st.sampled_from("abc"), max_size=4))
    said = draw(
        st.lists(
            st.tuples(st.sampled_from(["rollback", "pin", "unpin", "promoted"]), st.sampled_from(days), st.sampled_from("abc"))
        )
    )
    decisions = [
        Decision(
            case="small",
            number=number,
            kind=kind,
            effective=day,
            version=version,
            candidate=None,
            champion_before=None,
            reason="because",
            decided_by="ann",
            decided_at=AT,
            evidence="",
            basis="",
            previous="",
        )
        for number, (kind, day, version) in enumerate(said, start=1)
    ]
    return weeks, decisions


def told_by_hand(weeks: Mapping[Day, str], decisions: Sequence[Decision], day: Day) -> str | None:
    """Pins and unpins as they were said; without a pin, the deployments and rollbacks in order of days, the last one last."""
    pinned: str | None = None
    base = [(week, 0, version) for week, version in weeks.items()]
    for decision in decisions:
        if decision.effective > day:
            continue
        if decision.kind == "pin":
            pinned = decision.version
        if decision.kind == "unpin":
            pinned = None
        if decision.kind == "rollback":
            base.append((decision.effective, decision.number, decision.version or ""))
    in_time = sorted(each for each in base if each[0] <= day)
    return pinned or (in_time[-1][2] if in_time else None)


@given(history=histories())
@settings(max_examples=200, deadline=None)
def test_any_history_has_on_each_day_the_version_that_it_has_by_hand_and_periods_say_the_same(
    history: tuple[dict[Day, str], list[Decision]],
) -> None:
    weeks, decisions = history
    days = day_range("2024-02-28", "2024-03-31")

    found = [standing(weeks, decisions, day) for day in days]
    stretches = periods(weeks, decisions)

    assert [each.version if each else None for each in found] == [told_by_hand(weeks, decisions, day) for day in days]
    within = [[each.version for each in stretches if each.first <= day <= (each.last or day)] for day in days]
    assert within == [[each.version] if each else [] for each in found]
    assert all(each.since <= day for day, each in zip(days, found, strict=True) if each)
    for one, other in pairwise(stretches):
        assert one.last is not None
        assert one.version != other.version or one.last < shift(other.first, -1)
