"""The overview page of a use case."""

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ml_assets.orchestration import shadow
from ml_assets.orchestration.decisions import CLOCKED
from ml_assets.orchestration.pages import Page, Shown
from ml_assets.orchestration.planning import code_of, recipes
from ml_assets.orchestration.store import Store, shown_at, shown_picture
from ml_assets.stages import overview
from ml_assets.stages.overview import Overview, TableLine
from ml_assets.stages.reference import reference_in
from ml_assets.storage.models import AFTER_ALL
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import UseCase

OVERVIEW = "overview"
_SHOWN = ("features", "scores", "drift_report", "performance_report", "deployed_model")


def overview_of(case: UseCase, store: Store) -> Overview:
    """What there is to say about a case now."""
    tables, models = store.tables(case), store.models
    standing = models.standing(case.name, AFTER_ALL)
    decisions = [
        {"effective": each.effective, "kind": each.kind, "decided_by": each.decided_by, "reason": each.reason}
        for each in reversed(models.decisions.all(case.name))
    ]
    rejected = tables.ledger(case.event_table.rejected_name)
    reasons = tables.read(case.event_table.rejected_name, columns=["reason"])["reason"].value_counts() if rejected else pd.Series()
    clean = tables.ledger(case.events)
    latest = models.reports(case.name)
    return Overview(
        title=f"{case.title}: overview",
        tables=list(_lines(case, store)),
        events=case.events,
        delivered=sum(entry.notes.get("raw_rows", entry.rows) for entry in clean.values()),
        rejected=sum(entry.rows for entry in rejected.values()),
        reasons=[(str(reason), int(rows)) for reason, rows in reasons.items()],
        in_force=standing.version if standing else None,
        since=standing.since if standing else None,
        promised=_promised(case, store),
        latency=_latency(list(latest.values())[-1]) if latest else "",
        decisions=decisions,
        performance=_performance(case, store),
        drift=tables.read("drift_report")
        if tables.ledger("drift_report")
        else pd.DataFrame({"day": [], "feature": [], "psi": [], "watched": [], "drifted": []}),
        shadows=shadow.comparisons(case, store) if case.monitoring.shadow else [],
        monitoring=case.monitoring,
    )


def overview_inputs(case: UseCase, store: Store) -> str:
    """Hash of everything that it is made from."""
    tables, models = store.tables(case), store.models
    versions = {name: tables.version(name) for name in recipes(case)}
    return fingerprint(code_of(overview), versions, [each.number for each in models.decisions.all(case.name)])


def _make(case: UseCase, store: Store) -> Shown:
    found = overview_of(case, store)
    picture = overview.performance_picture(found)
    place = store.models.save_page(case.name, OVERVIEW, overview.render_overview(found), {"performance.png": picture})
    return Shown(
        said=found.headline,
        metadata={
            "summary": found.headline,
            "days_missing": sum(len(each.missing) for each in found.tables),
            "rejected_share": found.rejected / found.delivered if found.delivered else 0.0,
            "picture": shown_picture("performance", picture),
            "page": shown_at(place),
        },
    )


def _lines(case: UseCase, store: Store) -> Iterator[TableLine]:
    tables = store.tables(case)
    delivered = tables.ledger(case.event_table.raw_name)
    for name in (case.events, *(each.name for each in case.daily_tables if each.name != case.events), "features"):
        entries = tables.ledger(name)
        last = max(delivered, default=None) if name in (case.events, "features") else None
        yield TableLine(
            name=name,
            days=len(entries),
            rows=sum(entry.rows for entry in entries.values()),
            latest=max(entries, default=None),
            missing=overview.missing_days(list(entries), last),
        )
    if scored := tables.ledger("scores"):
        yield TableLine(
            name="scores",
            days=len(scored),
            rows=sum(entry.rows for entry in scored.values()),
            latest=max(scored),
            missing=[day for day in tables.ledger("features") if day >= min(scored) and day not in scored],
        )


def _performance(case: UseCase, store: Store) -> pd.DataFrame:
    """One row a scored day: what was estimated, and where it is known what was promised and what came true."""
    tables = store.tables(case)
    columns = ["promised", "estimated", "realised", "alerts", "events", "observed_over_expected"]
    if not tables.ledger("estimated_performance"):
        return pd.DataFrame(columns=columns)
    estimated = tables.read("estimated_performance").drop_duplicates("day", keep="last").set_index("day")
    figures = estimated[["roc_auc", "alerts", "events"]].rename(columns={"roc_auc": "estimated"})
    figures = figures.assign(promised=float("nan"), realised=float("nan"), observed_over_expected=float("nan"))
    if tables.ledger("performance_report"):
        kept = tables.read("performance_report").set_index("day")
        figures["promised"] = kept["promised_roc_auc"].reindex(figures.index)
        figures["observed_over_expected"] = kept["observed_over_expected"].reindex(figures.index)
    if tables.ledger("live_performance"):
        live = tables.read("live_performance").drop_duplicates("day", keep="last").set_index("day")
        figures["realised"] = live["roc_auc"].reindex(figures.index)
    return figures.sort_index()[columns]


def _promised(case: UseCase, store: Store) -> float | None:
    standing = store.models.standing(case.name, AFTER_ALL)
    if standing is None:
        return None
    reference = reference_in(store.models.load(case.name, standing.version)[0])
    return reference.average_precision if reference else None


def _latency(report: str) -> str:
    reasons: list[dict[str, Any]] = json.loads(report)["decision"]["reasons"]
    return next((f"{each['observed']} ms (limit {each['wanted']})" for each in reasons if each["name"] == CLOCKED), "")


PAGE = Page(
    name=OVERVIEW,
    shows=lambda case: (case.events, case.event_table.rejected_name, *_SHOWN),
    description="How the case stands, on one page: data, quality, model, decisions, performance, drift, shadow.",
    group="monitoring",
    inputs=overview_inputs,
    begun=lambda case, store: bool(store.tables(case).ledger(case.events)),
    make=_make,
)
