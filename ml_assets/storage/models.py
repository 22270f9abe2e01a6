"""Models on disk: packages written once, reports, and which version is in force since when.

Belongs here: files that appear whole or not at all. Does not: what is inside a model (`stages.model`) or whether it is good.

    models/<case>/<version>/         the files of a package and manifest.json; never changes
    reports/<case>/<week>            a link to the latest report of the week; replaced when a week is evaluated again
    reports/<case>/backtest          ditto of all weeks
    deployments/<case>/<week>.json   what went live that week; a week in which the candidate was refused has none
    deployments/<case>/current.json  what is in force after all of them and all decisions of people: all that a scorer needs to read
    weeks/<case>/<kind>/<week>.json  what was made in a week and from what: the candidate, the evaluation
    decisions/<case>/                every decision of the gate and of people, for good (`storage.decisions`)
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from ml_assets.storage.atomic import publish, replace, switch
from ml_assets.storage.decisions import Decision, DecisionLog, Manual, Period, Standing, periods, standing
from ml_assets.use_case import Day

MANIFEST = "manifest.json"
CURRENT = "current.json"
WEEKS = "[0-9]" * 4 + "-[0-9][0-9]-[0-9][0-9]"
AFTER_ALL: Day = "9999-12-31"


class DamagedPackageError(ValueError):
    """A package is not what was once saved; the message names the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStore:
    """Packages, reports, deployments and decisions of all cases under one directory of a local file system."""

    root: Path

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
        place = self.package(case, version)
        if not place.exists():
            publish({**files, MANIFEST: _json(full)}, place)
        if self.load(case, version)[1]["content_hash"] != full["content_hash"]:
            raise DamagedPackageError(f"{place} already holds another content; packages are written once")
        return version

    def load(self, case: str, version: str) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files of a package and its manifest, after comparing every hash.

        Raises:
            FileNotFoundError: when there is no such version.
            DamagedPackageError: naming the file that is missing or differs.
        """
        place = self.package(case, version)
        if not place.is_dir():
            raise FileNotFoundError(f"no model {version} of {case} in {place.parent}")
        manifest = _read_manifest(place / MANIFEST)
        files = {name: _verified(place / name, expected) for name, expected in manifest["files"].items()}
        again = _identified(files, manifest)
        if again != manifest or again["version"] != version:
            raise DamagedPackageError(f"{place / MANIFEST} is damaged: its content belongs to version {again['version']}")
        return files, manifest

    def package(self, case: str, version: str) -> Path:
        """The directory of a version."""
        return self.root / "models" / case / version

    def versions(self, case: str) -> list[str]:
        """Every version there is, in the order of the weeks that they were made for."""
        return sorted(place.name for place in (self.root / "models" / case).glob(f"{WEEKS}-*"))

    def save_report(self, case: str, week: Day, json: str, html: str | None, pictures: Mapping[str, bytes]) -> Path:
        """Writes or replaces the report of a week: `report.json`, `report.html` and the pictures, all at once."""
        return self._save_pages(
            case, week, {"report.json": json.encode(), **({"report.html": html.encode()} if html is not None else {}), **pictures}
        )

    def save_page(self, case: str, name: str, html: str, pictures: Mapping[str, bytes]) -> Path:
        """Writes or replaces a page about all weeks, `<name>.html`, and its pictures, all at once."""
        return self._save_pages(case, name, {f"{name}.html": html.encode(), **pictures})

    def _save_pages(self, case: str, place: str, pages: Mapping[str, bytes]) -> Path:
        link = self.root / "reports" / case / place
        for name in pages:
            _require_inside(name)
        before = link.readlink() if link.is_symlink() else None
        content = link.with_name(f".{place}-{uuid4().hex}")
        publish(pages, content)
        # A directory that is not empty cannot be replaced in one step; a link to it can.
        switch(link, content.name)
        if before is not None:
            shutil.rmtree(link.parent / before, ignore_errors=True)
        return link

    def report(self, case: str, week: Day) -> str | None:
        """The JSON of a week's report; None when the week was not evaluated."""
        link = self.root / "reports" / case / week
        while link.is_symlink():
            target = link.readlink()
            try:
                return (link.parent / target / "report.json").read_text(encoding="utf-8")
            except FileNotFoundError:
                if link.readlink() == target:
                    raise
                # Replaced between the two readings: the new one is there.
        return None

    def reports(self, case: str) -> dict[Day, str]:
        """The JSON of every report by week, earliest first."""
        found = ((link.name, self.report(case, link.name)) for link in sorted((self.root / "reports" / case).glob(WEEKS)))
        return {week: text for week, text in found if text is not None}

    def deploy(self, case: str, week: Day, version: str, decision: Mapping[str, Any]) -> None:
        """Puts a version in force from `week` on, until the next deployment or a person's decision; `decision` says why.

        A process killed between the two files leaves an older `current.json`; doing it again mends it.

        Raises:
            FileNotFoundError: when there is no such version.
        """
        if not self.package(case, version).is_dir():
            raise FileNotFoundError(f"model {version} of {case} cannot go live: it is not in {self.root}")
        content = {"case": case, "week": week, "version": version, "decision": dict(decision)}
        with self._deploying(case) as place:
            replace(place / f"{week}.json", _json(content))

    def withdraw(self, case: str, week: Day) -> None:
        """Takes back the deployment of a week, as when a second evaluation refuses; nothing to do when there is none."""
        with self._deploying(case) as place:
            (place / f"{week}.json").unlink(missing_ok=True)

    def deployments(self, case: str) -> dict[Day, str]:
        """The version that went live in each week, earliest first; weeks of a refusal are not in it."""
        files = sorted((self.root / "deployments" / case).glob(f"{WEEKS}.json"))
        return {file.stem: json.loads(file.read_text(encoding="utf-8"))["version"] for file in files}

    def current(self, case: str) -> dict[str, Any] | None:
        """What is in force after everything: `version`, `week` and `decision`; None before the first deployment."""
        try:
            content: dict[str, Any] = json.loads((self.root / "deployments" / case / CURRENT).read_bytes())
        except FileNotFoundError:
            return None
        return content

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
        with self._deploying(case):
            before = self.standing(case, effective)
            if kind == "unpin":
                said = [decision for decision in self.decisions.all(case) if decision.kind == "rollback"]
                without_pins = standing(self.deployments(case), said, effective)
                version = without_pins.version if without_pins else None
            _require_sense(kind, version, before, effective)
            return self.decisions.record(
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
            )

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
        place = self.root / "weeks" / case / kind
        place.mkdir(parents=True, exist_ok=True)
        replace(place / f"{week}.json", _json(content))

    def noted(self, case: str, kind: str, week: Day) -> dict[str, Any] | None:
        """What is noted of a week; None when nothing is."""
        try:
            content: dict[str, Any] = json.loads((self.root / "weeks" / case / kind / f"{week}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return content

    @contextmanager
    def _deploying(self, case: str) -> Iterator[Path]:
        """One process at a time, so that the last to leave points `current.json` to what is the latest then."""
        place = self.root / "deployments" / case
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield place
            latest = self.standing(case, AFTER_ALL)
            if latest is None:
                (place / CURRENT).unlink(missing_ok=True)
            elif latest.decision is None:
                replace(place / CURRENT, (place / f"{latest.since}.json").read_bytes())
            else:
                said = {name: getattr(latest.decision, name) for name in ("kind", "number", "reason", "decided_by")}
                content = {"case": case, "week": latest.since, "version": latest.version, "decision": said}
                replace(place / CURRENT, _json(content))

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


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_bytes())
        if {"week", "files", "content_hash", "version"} <= manifest.keys():
            return dict(manifest)
    except (FileNotFoundError, ValueError, AttributeError) as error:
        raise DamagedPackageError(f"{file} is damaged: {error}") from error
    raise DamagedPackageError(f"{file} is damaged: an entry is missing")


def _verified(file: Path, expected: str) -> bytes:
    if not file.is_file():
        raise DamagedPackageError(f"{file} is missing")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise DamagedPackageError(f"{file} is damaged: its content is not what was saved")
    return content


def _require_inside(name: str) -> None:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or name == MANIFEST:
        raise ValueError(f"{name!r} cannot be a file of a package")
