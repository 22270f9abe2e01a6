"""Models and what is said about them: packages written once, reports, and which version is in force since when.

Belongs here: what is where, and in which order it appears. Does not: what is inside a model (`stages.model`) or whether it is good.

    models/<case>/<version>/         the files of a package and, last, manifest.json, with which it is there; never changes
    reports/<case>/<week>/           the latest report of the week: pictures, page and, last, report.json
    reports/<case>/backtest/         ditto of all weeks
    deployments/<case>/<week>.json   what went live that week; a week in which the candidate was refused has none
    deployments/<case>/current.json  what is in force after all of them and all decisions of people: all that a scorer needs to read
    weeks/<case>/<kind>/<week>.json  what was made in a week and from what: the candidate, the evaluation
    decisions/<case>/                every decision of the gate and of people, for good (`storage.decisions`)
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ml_assets.folders import Folder
from ml_assets.storage.decisions import Decision, DecisionLog, Manual, OvertakenError, Period, Standing, periods, standing
from ml_assets.use_case import Day

MANIFEST = "manifest.json"
CURRENT = "current.json"
WEEKS = "[0-9]" * 4 + "-[0-9][0-9]-[0-9][0-9]"
AFTER_ALL: Day = "9999-12-31"


class DamagedPackageError(ValueError):
    """A package is not what was once saved; the message names the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStore:
    """Packages, reports, deployments and decisions of all cases below one root."""

    root: Folder

    def save(self, case: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
        """Writes a package once and returns its version: the manifest's `week` and a hash of files and manifest.

        Same content, same version; saving it again changes nothing. So the manifest must not hold clock readings or anything else
        that differs from one run to the next.

        Raises:
            ValueError: for a file name that leaves the package or is the manifest's.
            DamagedPackageError: when another content is already there under this version.
        """
        for name in files:
            _require_inside(name)
        full = _identified(files, json.loads(_json(manifest)))  # as it will be read: text keys, lists for tuples
        version: str = full["version"]
        place = f"models/{case}/{version}"
        if self.root.get(f"{place}/{MANIFEST}") is None:
            for name, content in files.items():
                self.root.put(f"{place}/{name}", content)
            self.root.create(f"{place}/{MANIFEST}", _json(full))
        if self.load(case, version)[1]["content_hash"] != full["content_hash"]:
            raise DamagedPackageError(f"{self.package(case, version)} already holds another content; packages are written once")
        return version

    def load(self, case: str, version: str) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files of a package and its manifest, after comparing every hash.

        Raises:
            FileNotFoundError: when there is no such version.
            DamagedPackageError: naming the file that is missing or differs.
        """
        place = f"models/{case}/{version}"
        if (written := self.root.get(f"{place}/{MANIFEST}")) is None:
            raise FileNotFoundError(f"no model {version} of {case} in {self.root.place(f'models/{case}')}")
        file = self.root.place(f"{place}/{MANIFEST}")
        manifest = _read_manifest(written, file)
        files = {name: self._verified(f"{place}/{name}", expected) for name, expected in manifest["files"].items()}
        again = _identified(files, manifest)
        if again != manifest or again["version"] != version:
            raise DamagedPackageError(f"{file} is damaged: its content belongs to version {again['version']}")
        return files, manifest

    def _verified(self, name: str, expected: str) -> bytes:
        content = self.root.get(name)
        if content is None:
            raise DamagedPackageError(f"{self.root.place(name)} is missing")
        if hashlib.sha256(content).hexdigest() != expected:
            raise DamagedPackageError(f"{self.root.place(name)} is damaged: its content is not what was saved")
        return content

    def holds(self, case: str, version: str, name: str) -> bool:
        """Whether a package has a file of this name."""
        return self.root.get(f"models/{case}/{version}/{name}") is not None

    def package(self, case: str, version: str) -> str:
        """Where the files of a version are."""
        return self.root.place(f"models/{case}/{version}")

    def versions(self, case: str) -> list[str]:
        """Every version there is, in the order of the weeks that they were made for."""
        found = self.root.find(f"models/{case}/{WEEKS}-*/{MANIFEST}")
        return sorted(PurePosixPath(each.name).parent.name for each in found)

    def save_report(self, case: str, week: Day, json: str, html: str | None, pictures: Mapping[str, bytes]) -> str:
        """Writes or replaces the report of a week: `report.json`, `report.html` and the pictures. Returns where they are."""
        page = {"report.html": html.encode()} if html is not None else {}
        return self._save_pages(case, week, {**pictures, **page, "report.json": json.encode()})

    def save_page(self, case: str, name: str, html: str, pictures: Mapping[str, bytes]) -> str:
        """Writes or replaces a page about all weeks and its pictures. Returns where the page is."""
        return self._save_pages(case, name, {**pictures, f"{name}.html": html.encode()}) + f"/{name}.html"

    def _save_pages(self, case: str, name: str, pages: Mapping[str, bytes]) -> str:
        place = f"reports/{case}/{name}"
        for page in pages:
            _require_inside(page)
        for page, content in pages.items():
            self.root.put(f"{place}/{page}", content)
        for found in self.root.find(f"{place}/*"):
            if PurePosixPath(found.name).name not in pages:
                self.root.remove(found.name)
        return self.root.place(place)

    def withdraw_report(self, case: str, week: Day) -> None:
        """Takes back the report of a week, as when it cannot be judged any more; the record of decisions keeps it as evidence."""
        place = f"reports/{case}/{week}"
        self.root.remove(f"{place}/report.json")
        for found in self.root.find(f"{place}/*"):
            self.root.remove(found.name)

    def report(self, case: str, week: Day) -> str | None:
        """The JSON of a week's report; None when the week was not evaluated."""
        content = self.root.get(f"reports/{case}/{week}/report.json")
        return None if content is None else content.decode()

    def pages(self, case: str, week: Day) -> dict[str, bytes]:
        """Everything in a week's report by name: `report.json`, page and pictures; empty when the week was not evaluated."""
        read = ((PurePosixPath(each.name).name, self.root.read(each)) for each in self.root.find(f"reports/{case}/{week}/*"))
        return {name: content for name, content in read if content is not None}

    def reports(self, case: str) -> dict[Day, str]:
        """The JSON of every report by week, earliest first."""
        found = self.root.find(f"reports/{case}/{WEEKS}/report.json")
        read = ((PurePosixPath(each.name).parent.name, self.root.read(each)) for each in found)
        return {week: content.decode() for week, content in read if content is not None}

    def deploy(self, case: str, week: Day, version: str, decision: Mapping[str, Any]) -> None:
        """Puts a version in force from `week` on, until the next deployment or a person's decision; `decision` says why.

        A process killed between the two files leaves an older `current.json`; doing it again mends it.

        Raises:
            FileNotFoundError: when there is no such version.
        """
        if self.root.get(f"models/{case}/{version}/{MANIFEST}") is None:
            raise FileNotFoundError(f"model {version} of {case} cannot go live: it is not in {self.root.place()}")
        content = {"case": case, "week": week, "version": version, "decision": dict(decision)}
        self.root.put(f"deployments/{case}/{week}.json", _json(content))
        self._follow(case)

    def withdraw(self, case: str, week: Day) -> None:
        """Takes back the deployment of a week, as when a second evaluation refuses; nothing to do when there is none."""
        self.root.remove(f"deployments/{case}/{week}.json")
        self._follow(case)

    def deployments(self, case: str) -> dict[Day, str]:
        """The version that went live in each week, earliest first; weeks of a refusal are not in it."""
        return {week: content["version"] for week, content in self._deployments(case).items()}

    def _deployments(self, case: str) -> dict[Day, dict[str, Any]]:
        read = ((found, self.root.read(found)) for found in self.root.find(f"deployments/{case}/{WEEKS}.json"))
        return {PurePosixPath(found.name).stem: json.loads(content) for found, content in read if content is not None}

    def current(self, case: str) -> dict[str, Any] | None:
        """What is in force after everything: `version`, `week` and `decision`; None before the first deployment."""
        content = self.root.get(f"deployments/{case}/{CURRENT}")
        return json.loads(content) if content else None

    @property
    def decisions(self) -> DecisionLog:
        """What the gate and people decided, and why."""
        return DecisionLog(root=self.root)

    def decide(
        self,
        case: str,
        kind: Manual,
        *,
        version: str | None = None,
        effective: Day,
        reason: str,
        decided_by: str,
        decided_at: str,
        evidence: str,
    ) -> Decision:
        """Records a person's decision and lets `current.json` follow it. It holds from `effective` on, whatever the gate decided by then.

        A process killed in between leaves an older `current.json`, which the next deployment or decision mends.

        Args:
            version: what to roll back to or to pin; None for `unpin`.
            decided_at: UTC, ISO 8601.

        Raises:
            FileNotFoundError: there is no such version; the message lists those that there are.
            ValueError: it would change nothing, or not what it says: a rollback while a version is pinned, an unpin while none is.
        """
        if version is not None:
            self._require_version(case, version)
        while True:
            known = self.decisions.all(case)
            before = standing(self.deployments(case), known, effective)
            if kind == "unpin":
                said = [decision for decision in known if decision.kind == "rollback"]
                without_pins = standing(self.deployments(case), said, effective)
                version = without_pins.version if without_pins else None
            _require_sense(kind, version, before, effective)
            try:
                decision = self.decisions.record(
                    case,
                    kind=kind,
                    effective=effective,
                    version=version,
                    candidate=None,
                    champion_before=before.version if before else None,
                    reason=reason,
                    decided_by=decided_by,
                    decided_at=decided_at,
                    evidence=evidence,
                    after=len(known),
                )
            except OvertakenError:
                continue
            self._follow(case)
            return decision

    def in_force(self, case: str, day: Day) -> tuple[Day, str] | None:
        """The version in force on a day, as (since when, version); None before the first."""
        return self.in_force_on(case, [day]).get(day)

    def in_force_on(self, case: str, days: Iterable[Day]) -> dict[Day, tuple[Day, str]]:
        """The same for many days, reading once; days before the first version are left out."""
        deployments, said = self.deployments(case), self.decisions.all(case)
        found = {day: standing(deployments, said, day) for day in days}
        return {day: (each.since, each.version) for day, each in found.items() if each is not None}

    def standing(self, case: str, day: Day) -> Standing | None:
        """The version in force on a day, and which decision put it there."""
        return standing(self.deployments(case), self.decisions.all(case), day)

    def periods(self, case: str) -> list[Period]:
        """Which version was in force from when to when."""
        return periods(self.deployments(case), self.decisions.all(case))

    def note(self, case: str, kind: str, week: Day, content: Mapping[str, Any]) -> None:
        """Writes or replaces what is noted of a week, such as the version of its candidate and what it was made from."""
        self.root.put(f"weeks/{case}/{kind}/{week}.json", _json(content))

    def noted(self, case: str, kind: str, week: Day) -> dict[str, Any] | None:
        """What is noted of a week; None when nothing is."""
        content = self.root.get(f"weeks/{case}/{kind}/{week}.json")
        return None if content is None else json.loads(content)

    def days_noted(self, case: str, kind: str) -> list[Day]:
        """The days of which something of this kind is noted, earliest first."""
        return sorted(PurePosixPath(found.name).stem for found in self.root.find(f"weeks/{case}/{kind}/{WEEKS}.json"))

    def _follow(self, case: str) -> None:
        """Points `current.json` to what is the latest now. Of several who do, the last one sees what all of them wrote before.

        It is numbered, so that a bucket tells every two contents apart, and nobody replaces what was not looked at.
        """

        def latest(before: bytes | None) -> bytes | None:
            change = json.loads(before).get("change", 0) + 1 if before else 1
            deployments, decisions = self._deployments(case), self.decisions.all(case)
            found = standing({week: content["version"] for week, content in deployments.items()}, decisions, AFTER_ALL)
            if found is None:
                return None
            if found.decision is None:
                return _json({**deployments[found.since], "change": change})
            said = {name: getattr(found.decision, name) for name in ("kind", "number", "reason", "decided_by")}
            return _json({"case": case, "week": found.since, "version": found.version, "decision": said, "change": change})

        self.root.change(f"deployments/{case}/{CURRENT}", latest)

    def _require_version(self, case: str, version: str) -> None:
        if version not in (known := self.versions(case)):
            raise FileNotFoundError(f"no model {version} of {case}; there are {', '.join(known) or 'none'}")


def _require_sense(kind: Manual, version: str | None, before: Standing | None, day: Day) -> None:
    """What a person decides must change something, and what they think it does."""
    pin = before.decision if before and before.decision and before.decision.kind == "pin" else None
    if kind == "unpin":
        if pin is None:
            raise ValueError(f"no version is pinned on {day}")
        return
    if version is None:
        raise ValueError(f"a {kind} names a version")
    if kind == "rollback" and pin is not None:
        raise ValueError(f"{pin.version} is pinned by decision {pin.number} since {pin.effective}: a rollback needs an unpin first")
    if before and before.version == version and (kind == "rollback" or pin is not None):
        raise ValueError(f"{version} is {'pinned' if pin else 'in force'} on {day} already, since {before.since}")


def _identified(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of each file, of everything, and the version."""
    own = {key: value for key, value in manifest.items() if key not in ("version", "content_hash")}
    own["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    content_hash = hashlib.sha256(_json(own)).hexdigest()
    return {**own, "content_hash": content_hash, "version": f"{manifest['week']}-{content_hash[:8]}"}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()


def _read_manifest(written: bytes, file: str) -> dict[str, Any]:
    try:
        manifest = json.loads(written)
        if {"week", "files", "content_hash", "version"} <= manifest.keys():
            return dict(manifest)
    except (ValueError, AttributeError) as error:
        raise DamagedPackageError(f"{file} is damaged: {error}") from error
    raise DamagedPackageError(f"{file} is damaged: an entry is missing")


def _require_inside(name: str) -> None:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or name == MANIFEST:
        raise ValueError(f"{name!r} cannot be a file of a package")
