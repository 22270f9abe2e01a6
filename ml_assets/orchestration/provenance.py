"""Where one score comes from: model, decision, training data, and the delivered rows behind the event."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import CANDIDATE
from ml_assets.stages.evaluate import Report
from ml_assets.storage.tables import Tables
from ml_assets.use_case import Day, UseCase


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Everything behind one score."""

    event: dict[str, Any]
    score: dict[str, Any]
    features: dict[str, Any]
    manifest: dict[str, Any]
    report: Report
    delta_versions: dict[str, dict[Day, int]]
    raw: dict[str, Any]
    published: dict[str, int]
    """Delta version in which the event's day is published, by table."""


def explain(case: UseCase, store: Store, event_id: str) -> Provenance:
    """Follows a score back to its source.

    Raises:
        LookupError: the event is unknown, was rejected, or has no score yet; the message says which.
    """
    tables = store.tables(case)
    event = _find(tables, case.events, event_id)
    if event is None:
        raise LookupError(_why_not(case, tables, event_id))
    day = event["day"]
    score, features = _find(tables, "scores", event_id, day), _find(tables, "features", event_id, day)
    if score is None or features is None:
        raise LookupError(f"event {event_id} of {day} has no score: {_missing_part(case, store, day, features is None)}")
    version = score["model_version"]
    _, manifest = store.models.load(case.name, version)
    report, note = store.models.report(case.name, manifest["week"]), store.models.noted(case.name, CANDIDATE, manifest["week"])
    if report is None or note is None:
        root = store.folder.place()
        raise LookupError(f"the decision about model {version} is not in {root}: was the folder reports/ or weeks/ removed?")
    origin = tables.ledger(case.events)[day].notes["raw_version"]
    raw = tables.read(case.event_table.raw_name, [day], version=origin)
    delivered = raw[(raw["source_file"] == event["source_file"]) & (raw["source_row"] == event["source_row"])]
    names = (case.events, "features", "scores")
    return Provenance(
        event=event,
        score=score,
        features=features,
        manifest=manifest,
        report=Report.from_json(report),
        delta_versions=note["delta_versions"],
        raw=delivered.iloc[0].to_dict(),
        published={case.event_table.raw_name: origin, **{name: tables.ledger(name)[day].version for name in names}},
    )


def _find(tables: Tables, name: str, event_id: str, day: Day | None = None) -> dict[str, Any] | None:
    try:
        rows = tables.read(name, None if day is None else [day], where=[("event_id", "=", event_id)])
    except FileNotFoundError:
        return None
    return None if rows.empty else {str(column): value for column, value in rows.iloc[0].items()}


def _why_not(case: UseCase, tables: Tables, event_id: str) -> str:
    example = ""
    ledger = tables.ledger(case.events)
    if ledger:
        example = (
            f"; an id looks like {tables.read(case.events, [next(iter(ledger))], columns=['event_id', 'day'])['event_id'].iloc[0]}"
        )
    hint = f"Was its row rejected? See {case.event_table.rejected_name}"
    return f"no event {event_id!r} in {case.events} ({len(ledger)} days published){example}. {hint}"


def _missing_part(case: UseCase, store: Store, day: Day, without_features: bool) -> str:
    if without_features:
        return f"features of {day} are not published"
    if store.models.in_force(case.name, day) is None:
        return f"no model was in force on {day}"
    return f"scores of {day} are not published: materialise them"


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
