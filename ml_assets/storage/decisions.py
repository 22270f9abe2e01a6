"""Decisions about models: numbered records that are written once and never changed, and what they put in force.

Belongs here: the record and the fold over it. Does not: why the gate decides (`stages.gate`), what a person may decide (`storage.models`).

    decisions/<case>/<NNNNNN>.json            one decision; holds the hash of the record before it
    decisions/<case>/evidence/<sha256>.json   what it rests on, named by its content: the gate's report, or what a person was shown

Since each record holds the hash of the one before, a record that was changed, exchanged or lost is noticed by the next one. Nothing
notices that the last records of all were removed.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from ml_assets.storage import atomic
from ml_assets.use_case import Day, shift

Manual = Literal["rollback", "pin", "unpin"]
Kind = Literal["promoted", "refused"] | Manual

MANUAL: tuple[Manual, ...] = ("rollback", "pin", "unpin")
GATE = "gate"
"""Who decided, when it was no person."""
RECORDS = "[0-9]" * 6 + ".json"


class DamagedRecordError(ValueError):
    """A record or its evidence is not what was once written; the message names the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One decision. `effective` is the first day it is about: the week that the gate decides, or the day that a person names."""

    case: str
    number: int
    kind: Kind
    effective: Day
    version: str | None
    """What is in force after it; of a promotion while another version is pinned, what would be without the pin."""
    candidate: str | None
    champion_before: str | None
    reason: str
    decided_by: str
    decided_at: str
    """UTC, ISO 8601."""
    evidence: str
    """SHA-256 of the evidence."""
    basis: str
    """Hash of what the gate decided on: with the same basis and outcome it is the same decision, made again."""
    previous: str
    """`content_hash` of the record before; empty for the first."""

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything in the record."""
        return _sha256(_json(asdict(self)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A version in force: since when, and by which person's decision; `decision` is None for a deployment by the gate."""

    since: Day
    version: str
    decision: Decision | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """Days on which one version was in force; `last` is None for the version that still is."""

    first: Day
    last: Day | None
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionLog:
    """The decisions of all cases under one directory of a local file system."""

    root: Path

    def record(
        self,
        case: str,
        *,
        kind: Kind,
        effective: Day,
        version: str | None,
        candidate: str | None,
        champion_before: str | None,
        reason: str,
        decided_by: str,
        decided_at: str,
        evidence: str,
        basis: str | None = None,
    ) -> Decision:
        """Writes a decision under the next number.

        The gate's latest decision on a week is not written again while `basis` (by default the evidence) and outcome are the same.

        Args:
            decided_at: UTC, ISO 8601.

        Returns:
            The record: the new one, or the one that says the same.

        Raises:
            ValueError: no reason, not a day, not UTC.
            DamagedRecordError: a record before it is damaged.
        """
        _require_sound(effective=effective, decided_at=decided_at, reason=reason)
        with self._recording(case) as place:
            known = self.all(case)
            content = evidence.encode()
            decision = Decision(
                case=case,
                number=len(known) + 1,
                kind=kind,
                effective=effective,
                version=version,
                candidate=candidate,
                champion_before=champion_before,
                reason=reason,
                decided_by=decided_by,
                decided_at=decided_at,
                evidence=_sha256(content),
                basis=basis or _sha256(content),
                previous=known[-1].content_hash if known else "",
            )
            if (same := _made_before(known, decision)) is not None:
                return same
            file = self.evidence_file(decision)
            file.parent.mkdir(exist_ok=True)
            if file.exists():
                self.evidence(decision)
            else:
                atomic.replace(file, content)
            _create(place / _name(decision.number), _json({**asdict(decision), "content_hash": decision.content_hash}))
        return decision

    def all(self, case: str) -> list[Decision]:
        """Every decision in order of numbers, after comparing every hash.

        Raises:
            DamagedRecordError: naming the file that is missing or differs.
        """
        place = self.root / "decisions" / case
        # A listing may miss a file that appears meanwhile, but the numbers up to one that it shows were there before that one.
        count = max((int(file.stem) for file in place.glob(RECORDS)), default=0)
        found: list[Decision] = []
        for number in range(1, count + 1):
            decision = _read(place / _name(number))
            if (decision.case, decision.number) != (case, number):
                raise DamagedRecordError(f"{place / _name(number)} holds decision {decision.number} of {decision.case}")
            if found and decision.previous != found[-1].content_hash:
                raise DamagedRecordError(f"{place / _name(number - 1)} is not the record that {_name(number)} followed")
            found.append(decision)
        return found

    def evidence(self, decision: Decision) -> str:
        """What a decision rests on, as it was then.

        Raises:
            DamagedRecordError: naming the file that is missing or differs.
        """
        file = self.evidence_file(decision)
        try:
            content = file.read_bytes()
        except FileNotFoundError as error:
            raise DamagedRecordError(f"{file} is missing: it is the evidence of decision {decision.number}") from error
        if _sha256(content) != decision.evidence:
            raise DamagedRecordError(f"{file} is damaged: it is not what decision {decision.number} was based on")
        return content.decode()

    def evidence_file(self, decision: Decision) -> Path:
        """Where the evidence of a decision is."""
        return self.root / "decisions" / decision.case / "evidence" / f"{decision.evidence}.json"

    @contextmanager
    def _recording(self, case: str) -> Iterator[Path]:
        """One process at a time, so that no number is given twice."""
        place = self.root / "decisions" / case
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield place


def standing(deployments: Mapping[Day, str], decisions: Sequence[Decision], day: Day) -> Standing | None:
    """What is in force on a day; None before the first deployment.

    The latest deployment or rollback; on one day a rollback comes after the deployment, and of several the one with the highest number
    last. But a pin holds, whatever is deployed, until a later unpin; of several pins the one with the highest number.

    Args:
        deployments: the version that the gate let go live, by week.
        decisions: in order of numbers; those of the gate are ignored, since its deployments speak for it.
    """
    said = [decision for decision in decisions if decision.kind in MANUAL and decision.effective <= day]
    unpin = next((decision for decision in reversed(said) if decision.kind == "unpin"), None)
    latest_pin = next((decision for decision in reversed(said) if decision.kind == "pin"), None)
    if latest_pin is not None and (unpin is None or latest_pin.number > unpin.number):
        return _by(latest_pin)
    deployed = [Standing(since=week, version=version, decision=None) for week, version in deployments.items() if week <= day]
    rolled_back = [_by(decision) for decision in said if decision.kind == "rollback"]
    latest = max([*deployed, *rolled_back], key=lambda found: (found.since, _number(found)), default=None)
    if latest is not None and unpin is not None and unpin.effective > latest.since:
        return replace(latest, since=unpin.effective, decision=unpin)
    return latest


def periods(deployments: Mapping[Day, str], decisions: Sequence[Decision]) -> list[Period]:
    """Which version was in force from when to when, earliest first."""
    changes = sorted({*deployments, *(decision.effective for decision in decisions if decision.kind in MANUAL)})
    found: list[Period] = []
    for day in changes:
        now = standing(deployments, decisions, day)
        going_on = found[-1] if found and found[-1].last is None else None
        if going_on and now and going_on.version == now.version:
            continue
        if going_on:
            found[-1] = replace(going_on, last=shift(day, -1))
        if now:
            found.append(Period(first=day, last=None, version=now.version))
    return found


def _by(decision: Decision) -> Standing:
    if decision.version is None:
        raise DamagedRecordError(f"decision {decision.number} of {decision.case}, a {decision.kind}, names no version")
    return Standing(since=decision.effective, version=decision.version, decision=decision)


def _number(found: Standing) -> int:
    return found.decision.number if found.decision else 0


def _made_before(known: Sequence[Decision], decision: Decision) -> Decision | None:
    """The gate's latest decision on the week, if it is this one."""
    if decision.kind in MANUAL:
        return None
    of_week = [each for each in known if each.kind not in MANUAL and each.effective == decision.effective]
    same = of_week and all(getattr(of_week[-1], name) == getattr(decision, name) for name in ("kind", "version", "basis"))
    return of_week[-1] if same else None


def _require_sound(*, effective: Day, decided_at: str, reason: str) -> None:
    if not reason.strip():
        raise ValueError("a decision needs a reason")
    if date.fromisoformat(effective).isoformat() != effective:
        raise ValueError(f"{effective!r} is not a day: it is written YYYY-MM-DD")
    if datetime.fromisoformat(decided_at).utcoffset() != timedelta(0):
        raise ValueError(f"decided_at is {decided_at!r}; it must be in UTC and say so")


def _read(file: Path) -> Decision:
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        expected = content.pop("content_hash")
        decision = Decision(**content)
    except FileNotFoundError as error:
        raise DamagedRecordError(f"{file} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError(f"{file} is damaged: {error}") from error
    if decision.content_hash != expected:
        raise DamagedRecordError(f"{file} is damaged: its content is not what was written")
    return decision


def _create(file: Path, content: bytes) -> None:
    """Writes a new file whole; raises FileExistsError instead of writing over one."""
    beside = file.with_name(f".{uuid4().hex}")
    beside.write_bytes(content)
    try:
        file.hardlink_to(beside)
    finally:
        beside.unlink()


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
