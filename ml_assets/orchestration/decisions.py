"""Decisions of the gate and of people: whom a candidate must beat, what is recorded, what a person changes, and what the record tells.

Belongs here: what the record means for a use case. Does not: the record itself (`storage.decisions`), printing (`console_models`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ml_assets.orchestration.planning import labels_about, versions_in_force
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.tracking import mirror
from ml_assets.stages import package
from ml_assets.stages.comparison import Comparison, paired_bootstrap
from ml_assets.stages.evaluate import Report
from ml_assets.stages.inputs import labels_of
from ml_assets.stages.labels import to_judge
from ml_assets.stages.metrics import Performance, measure
from ml_assets.stages.report import headline
from ml_assets.storage.decisions import GATE, MANUAL, Decision, Manual, Period, Standing, standing
from ml_assets.storage.models import AFTER_ALL
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import Day, UseCase, shift

CLOCKED = "milliseconds to score one row"
"""The reason that differs each time it is measured."""
LATEST_DAYS = 7
"""Days of live performance in the evidence of a person's decision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A person's decision, and what it makes stale: scored days, and weeks whose candidate was compared with another champion."""

    decision: Decision
    scores: list[Day]
    weeks: list[Day]
    warnings: tuple[str, ...] = ()
    """What did not hear of it: a tracking server that was down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A model: its manifest, the report that judged it (None: it was never judged), and when it was in force."""

    version: str
    manifest: Mapping[str, Any]
    report: Mapping[str, Any] | None
    periods: tuple[Period, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What is in force on a day, and why. `decision` is None for a deployment from before decisions were recorded."""

    standing: Standing
    decision: Decision | None
    evidence: Mapping[str, Any] | None
    package: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SameRows:
    """Two models on the same events, each at its own threshold; differences are second minus first."""

    days: tuple[Day, Day]
    rows: int
    positives: int
    performances: tuple[Performance, Performance]
    comparison: Comparison
    trained_on_them: tuple[str, ...]
    """The models that saw some of these days in training, and so look better than they are."""


def champion_before(case: UseCase, store: Store, week: Day) -> str | None:
    """The version that a candidate of a week must beat: what is in force on the day before, as far as it is decided.

    Reports say what the gate promoted, since a backfill decides many weeks before it deploys the first. People's decisions come on
    top as they do in `ModelStore.in_force`, so that a rollback or a pin survives every backfill.
    """
    return _champion(store.models.reports(case.name), store.models.decisions.all(case.name), week)


def record_gate_decision(store: Store, case: UseCase, report: Report, *, decided_at: str) -> Decision:
    """Records what the gate decided, with the report as evidence; the same decision made again is not recorded twice.

    Args:
        decided_at: UTC, ISO 8601.
    """
    decision = report.decision
    return store.models.decisions.record(
        case.name,
        kind="promoted" if decision.promoted else "refused",
        effective=report.week,
        version=decision.champion_after,
        candidate=report.candidate.version,
        champion_before=decision.champion_before,
        reason=headline(report),
        decided_by=GATE,
        decided_at=decided_at,
        evidence=report.to_json(),
        basis=_basis(report),
    )


def record_refusal(store: Store, case: UseCase, week: Day, reason: str, *, inputs: str, decided_at: str) -> Decision:
    """Records that a week could not be judged, and why: it has no candidate, and what was live stays.

    Args:
        inputs: hash of what the week was to be decided from.
        decided_at: UTC, ISO 8601.
    """
    champion = champion_before(case, store, week)
    return store.models.decisions.record(
        case.name,
        kind="refused",
        effective=week,
        version=champion,
        candidate=None,
        champion_before=champion,
        reason=f"No candidate: {reason}. {champion or 'No model'} stays in force.",
        decided_by=GATE,
        decided_at=decided_at,
        evidence=json.dumps({"case": case.name, "week": week, "reason": reason, "inputs": inputs}, sort_keys=True, indent=1),
        basis=fingerprint(reason),
    )


def decide(
    case: UseCase,
    store: Store,
    kind: Manual,
    *,
    version: str | None = None,
    effective: Day | None = None,
    reason: str,
    decided_by: str,
    decided_at: str,
) -> Change:
    """A person decides, and sees what is stale now.

    Args:
        version: what to pin or to roll back to; None for `unpin`, and for a rollback to the version in force before the present one.
        effective: the first day that it is about, by default `first_open_day`.
        decided_at: UTC, ISO 8601.

    Raises:
        FileNotFoundError, ValueError: as `ModelStore.decide`; or no other version was in force before.
    """
    warnings: list[str] = []
    tracked = mirror(case, store, warn=warnings.append)
    day = effective or first_open_day(case, store)
    scored = list(store.tables(case).ledger("scores"))
    before = versions_in_force(case, store, scored)
    decision = store.models.decide(
        case.name,
        kind,
        version=version_before(case, store, day) if kind == "rollback" and version is None else version,
        effective=day,
        reason=reason,
        decided_by=decided_by,
        decided_at=decided_at,
        evidence=_what_is_seen(case, store, day),
    )
    tracked.follow()
    after = versions_in_force(case, store, scored)
    reports, said = store.models.reports(case.name), store.models.decisions.all(case.name)
    return Change(
        decision=decision,
        scores=[scored_day for scored_day in scored if before.get(scored_day) != after.get(scored_day)],
        weeks=[
            week
            for week, text in reports.items()
            if json.loads(text)["decision"]["champion_before"] != _champion(reports, said, week)
        ],
        warnings=tuple(warnings),
    )


def first_open_day(case: UseCase, store: Store) -> Day:
    """The first day without scores, since what was scored is past; later if the version to come goes live later."""
    scored = store.tables(case).ledger("scores")
    open_day = shift(max(scored), 1) if scored else case.split.first_go_live
    latest = store.models.standing(case.name, AFTER_ALL)
    return max(open_day, latest.since) if latest else open_day


def version_before(case: UseCase, store: Store, day: Day) -> str:
    """The version that was in force before the one in force on a day.

    Raises:
        ValueError: there was none.
    """
    present = store.models.standing(case.name, day)
    earlier = [period.version for period in store.models.periods(case.name) if period.first <= day]
    others = [version for version in earlier if present is None or version != present.version]
    if not others:
        raise ValueError(
            f"no other version was in force before {day}: name one with --to; there are "
            f"{', '.join(store.models.versions(case.name)) or 'none'}"
        )
    return others[-1]


def versions(case: UseCase, store: Store) -> list[Version]:
    """Every model of a case, in the order of the weeks that they were made for."""
    return [find_version(case, store, version) for version in store.models.versions(case.name)]


def find_version(case: UseCase, store: Store, version: str) -> Version:
    """One model, after comparing every hash of its package.

    Raises:
        FileNotFoundError: there is no such version; the message lists those that there are.
    """
    if version not in (known := store.models.versions(case.name)):
        raise FileNotFoundError(f"no model {version} of {case.name}; there are {', '.join(known) or 'none'}")
    _, manifest = store.models.load(case.name, version)
    periods = tuple(period for period in store.models.periods(case.name) if period.version == version)
    return Version(version=version, manifest=manifest, report=_judgement(case, store, version, manifest["week"]), periods=periods)


def live(case: UseCase, store: Store, day: Day) -> Live | None:
    """What is in force on a day and on what grounds; None before the first model."""
    found = store.models.standing(case.name, day)
    if found is None:
        return None
    decision = found.decision or _promotion(case, store, found)
    evidence = evidence_of(store, decision) if decision else _judgement(case, store, found.version, found.since)
    place = store.models.package(case.name, found.version)
    return Live(standing=found, decision=decision, evidence=evidence, package=place)


def find_decision(case: UseCase, store: Store, number: int) -> Decision:
    """One decision; raises ValueError that says which there are."""
    known = store.models.decisions.all(case.name)
    if not 1 <= number <= len(known):
        raise ValueError(f"no decision {number} of {case.name}; there are {f'1 to {len(known)}' if known else 'none'}")
    return known[number - 1]


def evidence_of(store: Store, decision: Decision) -> dict[str, Any]:
    """What a decision rests on. Read as it was written, since a report of today may have other fields."""
    found: dict[str, Any] = json.loads(store.models.decisions.evidence(decision))
    return found


def failed_reasons(evidence: Mapping[str, Any]) -> list[str]:
    """Each condition of the gate that did not hold, with what was observed and wanted."""
    reasons = evidence.get("decision", {}).get("reasons", [])
    return [f"{each['name']}: {each['observed']}, wanted {each['wanted']}" for each in reasons if not each["passed"]]


def on_same_rows(case: UseCase, store: Store, first: Version, second: Version) -> SameRows:
    """Both models on the hold-out of the later one, with the labels known now: each as the gate judged it, before any second fit.

    Raises:
        FileNotFoundError: features or labels were never published.
        ValueError: no rows or only one class, or a feature that a model needs is no longer made.
    """
    begin, end = max(first, second, key=lambda each: str(each.manifest["week"])).manifest["days"]["holdout"]
    rows = _to_judge(case, store, begin, end)
    truth = labels_of(rows, rows["label"])
    scores, performances = [], []
    for each in (first, second):
        model = package.model_in(store.models.load(case.name, each.version)[0], "candidate")
        scores.append(model.predict(rows))
        threshold = each.manifest["threshold"]
        performances.append(measure(scores[-1], truth, version=each.version, family=model.family, threshold=threshold))
    return SameRows(
        days=(str(rows["day"].min()), str(rows["day"].max())),
        rows=len(rows),
        positives=int(truth.sum()),
        performances=(performances[0], performances[1]),
        comparison=paired_bootstrap(
            truth,
            rows["day"].to_numpy(dtype=str),
            scores[1],
            scores[0],
            resamples=case.gate.resamples,
            margin=case.gate.margin,
            seed=case.training.seed,
        ),
        trained_on_them=tuple(each.version for each in (first, second) if each.manifest["days"]["training"][1] >= begin),
    )


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two manifests say differently of parameters, features and libraries, by name; None where one says nothing.

    >>> differences({"training": {"seed": 1, "trees": 9}}, {"training": {"seed": 2, "trees": 9}})
    {'seed': (1, 2)}
    """
    ours, theirs = _said(first), _said(second)
    return {
        name: (ours.get(name), theirs.get(name)) for name in (*ours, *theirs.keys() - ours) if ours.get(name) != theirs.get(name)
    }


def _said(manifest: Mapping[str, Any]) -> dict[str, Any]:
    training = dict(manifest.get("training", {}))
    parameters = training.pop("parameters", {})
    features = {
        f"feature {each['name']}": f"{each['dtype']} {each.get('unit') or ''}".strip() for each in manifest.get("features", [])
    }
    libraries = {f"library {name}": version for name, version in manifest.get("libraries", {}).items()}
    return {**training, **parameters, **features, **libraries}


def _champion(reports: Mapping[Day, str], said: Sequence[Decision], week: Day) -> str | None:
    found = standing(_latest_promotion(reports, before=week), said, shift(week, -1))
    return found.version if found else None


def _latest_promotion(reports: Mapping[Day, str], *, before: Day) -> dict[Day, str]:
    for week in sorted((week for week in reports if week < before), reverse=True):
        decision = json.loads(reports[week])["decision"]
        if decision["promoted"]:
            return {week: decision["champion_after"]}
    return {}


def _basis(report: Report) -> str:
    """Hash of a report without what the clock said: after a kill the same week is judged again, in other milliseconds."""
    reasons = tuple(replace(each, observed="") if each.name == CLOCKED else each for each in report.decision.reasons)
    return fingerprint(replace(report, decision=replace(report.decision, reasons=reasons)).to_json())


def _what_is_seen(case: UseCase, store: Store, day: Day) -> str:
    """The evidence of a person's decision: what was in force, and how it did on its latest days."""
    present = store.models.standing(case.name, day)
    seen = {
        "in_force": {"since": present.since, "version": present.version} if present else None,
        "live": _live_figures(case, store, present.version) if present else [],
    }
    return json.dumps(seen, sort_keys=True, indent=1, allow_nan=False)


def _live_figures(case: UseCase, store: Store, version: str) -> list[dict[str, Any]]:
    """Its latest days with live performance, the last one last; a figure is None while it is undefined."""
    tables = store.tables(case)
    if not tables.ledger("live_performance"):
        return []
    days = tables.read("live_performance", where=[("model_version", "=", version)]).tail(LATEST_DAYS).astype(object)
    return [{str(name): value for name, value in day.items()} for day in days.where(days.notna(), None).to_dict("records")]


def _to_judge(case: UseCase, store: Store, first: Day, last: Day) -> pd.DataFrame:
    """Features of these days with the column `label`, of the events whose label is known now, as the gate judges by."""
    tables = store.tables(case)
    rows = tables.read("features", [day for day in tables.ledger("features") if first <= day <= last])
    return to_judge(rows, labels_about(case, store, first, last), first=first, case=case)


def _promotion(case: UseCase, store: Store, found: Standing) -> Decision | None:
    """The gate's decision behind a deployment."""
    known = store.models.decisions.all(case.name)
    return next((each for each in reversed(known) if _promoted(each, found)), None)


def _promoted(decision: Decision, found: Standing) -> bool:
    return (decision.kind, decision.effective, decision.version) == ("promoted", found.since, found.version)


def _judgement(case: UseCase, store: Store, version: str, week: Day) -> Mapping[str, Any] | None:
    """The report that judged a version: from the record, or, from before there was one, from the week's report."""
    known = store.models.decisions.all(case.name)
    judged = [each for each in known if each.kind not in MANUAL and each.candidate == version]
    if judged:
        return evidence_of(store, judged[-1])
    text = store.models.report(case.name, week)
    report: dict[str, Any] | None = json.loads(text) if text is not None else None
    return report if report and report["candidate"]["version"] == version else None
