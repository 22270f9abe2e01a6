"""Decisions about models: numbered records that are written once and never changed, and what they put in force.

Belongs here: the record and the fold over it. Does not: why the gate decides (`stages.gate`), what a person may decide (`storage.models`).

    decisions/<case>/<NNNNNN>.json            one decision; holds the hash of the record before it
    decisions/<case>/evidence/<sha256>.json   what it rests on, named by its content: the gate's report, or what a person was shown

Since each record holds the hash of the one before, a record that was changed, exchanged or lost is noticed by the next one. Nothing
notices that the last records of all were removed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, Literal

from ml_assets.folders import Folder
from ml_assets.use_case import Day, shift

Manual = Literal["rollback", "pin", "unpin"]
Kind = Literal["promoted", "refused"] | Manual

MANUAL: tuple[Manual, ...] = ("rollback", "pin", "unpin")
GATE = "gate"
"""Who decided, when it was no person."""
RECORDS = "[0-9]" * 6 + ".json"
_ATTEMPTS = 100


class DamagedRecordError(ValueError):
    """A record or its evidence is not what was once written; the message names the file."""


class OvertakenError(RuntimeError):
    """Somebody else decided first."""


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
    """The decisions of all cases below one root."""

    root: Folder

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
        after: int | None = None,
    ) -> Decision:
        """Writes a decision under the next number.

        The gate's latest decision on a week is not written again while `basis` (by default the evidence) and outcome are the same.

        Args:
            decided_at: UTC, ISO 8601.
            after: the number of the decision that it was taken in knowledge of, None where that does not matter.

        Returns:
            The record: the new one, or the one that says the same.

        Raises:
            ValueError: no reason, not a day, not UTC.
            OvertakenError: there is a decision after `after`.
            DamagedRecordError: a record before it is damaged.
        """
        _require_sound(effective=effective, decided_at=decided_at, reason=reason)
        content = evidence.encode()
        for _ in range(_ATTEMPTS):
            known = self.all(case)
            if after is not None and len(known) > after:
                raise OvertakenError(f"{case}: decision {len(known)} was taken meanwhile")
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
            if not self.root.create(self._evidence(decision), content):
                self.evidence(decision)
            # Of several who decide at once one gets the number, and the others decide after it.
            if self.root.create(
                self._record(case, decision.number), _json({**asdict(decision), "content_hash": decision.content_hash})
            ):
                return decision
        raise OSError(f"{self.root.place(f'decisions/{case}')}: others decided first {_ATTEMPTS} times")

    def all(self, case: str) -> list[Decision]:
        """Every decision in order of numbers, after comparing every hash.

        Raises:
            DamagedRecordError: naming the file that is missing or differs.
        """
        listed = self.root.find(f"decisions/{case}/{RECORDS}")
        # A listing may miss a file that appears meanwhile, but the numbers up to one that it shows were there before that one.
        by_name = {each.name: each for each in listed}
        count = max((int(PurePosixPath(name).stem) for name in by_name), default=0)
        found: list[Decision] = []
        for number in range(1, count + 1):
            file = self._record(case, number)
            content = self.root.read(by_name[file]) if file in by_name else self.root.get(file)
            decision = _read(self.root.place(file), content)
            if (decision.case, decision.number) != (case, number):
                raise DamagedRecordError(f"{self.root.place(file)} holds decision {decision.number} of {decision.case}")
            if found and decision.previous != found[-1].content_hash:
                before = self.root.place(self._record(case, number - 1))
                raise DamagedRecordError(f"{before} is not the record that {number:06d}.json followed")
            found.append(decision)
        return found

    def evidence(self, decision: Decision) -> str:
        """What a decision rests on, as it was then.

        Raises:
            DamagedRecordError: naming the file that is missing or differs.
        """
        content, place = self.root.get(self._evidence(decision)), self.evidence_place(decision)
        if content is None:
            raise DamagedRecordError(f"{place} is missing: it is the evidence of decision {decision.number}")
        if _sha256(content) != decision.evidence:
            raise DamagedRecordError(f"{place} is damaged: it is not what decision {decision.number} was based on")
        return content.decode()

    def evidence_place(self, decision: Decision) -> str:
        """Where the evidence of a decision is."""
        return self.root.place(self._evidence(decision))

    @staticmethod
    def _evidence(decision: Decision) -> str:
        return f"decisions/{decision.case}/evidence/{decision.evidence}.json"

    @staticmethod
    def _record(case: str, number: int) -> str:
        return f"decisions/{case}/{number:06d}.json"


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


def _read(place: str, file: bytes | None) -> Decision:
    if file is None:
        raise DamagedRecordError(f"{place} is missing")
    try:
        content: dict[str, Any] = json.loads(file)
        expected = content.pop("content_hash")
        decision = Decision(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedRecordError(f"{place} is damaged: {error}") from error
    if decision.content_hash != expected:
        raise DamagedRecordError(f"{place} is damaged: its content is not what was written")
    return decision


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
