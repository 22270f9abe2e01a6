"""The assets of a model in shadow: its scores by day, and how it compares with the one in force once labels are known."""

from collections.abc import Iterator

import dagster as dg
import pandas as pd

from ml_assets.orchestration.daily import Days, stage
from ml_assets.orchestration.pages import Page, Shown
from ml_assets.orchestration.planning import code_of, shadow_versions
from ml_assets.orchestration.publish import Made
from ml_assets.orchestration.store import Store
from ml_assets.stages import package, shadow
from ml_assets.stages.labels import latest_known
from ml_assets.stages.quality import audit
from ml_assets.stages.score import scoring_findings
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import UseCase

SCORES, COMPARISON = "shadow_scores", "shadow_comparison"


def shadow_scores_asset(case: UseCase) -> dg.AssetsDefinition:
    """What the model that lost the week's decision says about each event of a day."""
    check = "every_event_is_scored_in_shadow"
    columns = shadow.SHADOW_COLUMNS

    def make(days: Days) -> Iterator[Made]:
        chosen = shadow_versions(case, days.store, days.ready)
        features = days.tables.read("features", days.ready)
        scored = []
        for in_force, version in dict.fromkeys(chosen.values()):
            of_pair = [day for day, pair in chosen.items() if pair == (in_force, version)]
            files, manifest = days.store.models.load(case.name, version)
            scored.append(
                shadow.shadow_scores(
                    features[features["day"].isin(of_pair)],
                    version=version,
                    in_force=in_force,
                    threshold=manifest["threshold"],
                    model=package.model_in(files, package.served_by(files)),
                )
            )
        rows = pd.concat(scored, ignore_index=True)
        events = {day: entry.rows for day, entry in days.tables.ledger("features", days.ready).items()}
        verdicts = audit(rows, days=days.ready, columns=columns, key=["event_id"], also=scoring_findings(events, rows, days.ready))
        yield Made(table=SCORES, rows=rows, columns=columns, inputs=days.inputs, checks={check: verdicts})

    specs = {SCORES: {check: "One finite score for each event that has features, by the model that lost the week's decision."}}
    return stage(
        case,
        make,
        specs,
        recipe=SCORES,
        kinds={"lightgbm", "deltalake"},
        schemas={SCORES: columns},
        group="shadow",
        bound=("features", 0),
    )


def comparisons(case: UseCase, store: Store) -> list[shadow.Compared]:
    """All pairs, in the order of their days, over the days of which the performance is known."""
    tables = store.tables(case)
    days = [day for day in tables.ledger(SCORES) if day in tables.ledger("live_performance")]
    if not days:
        return []
    columns = ["event_id", "score", "model_version", "day"]
    in_force = tables.read("scores", days, columns=columns)
    theirs = tables.read(SCORES, days, columns=columns).drop(columns="day")
    known = latest_known(tables.read("labels", tables.ledger("labels")))[["event_id", "label"]]
    rows = in_force.merge(theirs.rename(columns={"score": "shadow_score", "model_version": "shadow_version"}), on="event_id").merge(
        known, on="event_id"
    )
    return shadow.compared(rows, gate=case.gate, seed=case.training.seed)


def comparison_inputs(case: UseCase, store: Store) -> str:
    """Hash of everything that it is made from."""
    tables = store.tables(case)
    contents = {name: {day: entry.content for day, entry in tables.ledger(name).items()} for name in (SCORES, "live_performance")}
    return fingerprint(code_of(shadow), contents)


def _compare(case: UseCase, store: Store) -> Shown:
    found = comparisons(case, store)
    better = sum(each.difference[0] > 0 for each in found)
    return Shown(
        said=f"{len(found)} pairs of models; the one in shadow was better in {better}",
        metadata={
            "pairs": len(found),
            "shadow_was_better": better,
            "pairs_compared": dg.MetadataValue.md(shadow.compared_markdown(found)),
        },
    )


PAGE = Page(
    name=COMPARISON,
    shows=lambda _: (SCORES, "scores", "labels"),
    description="For each week, whether the model that lost the decision would have been the better one, on its live events.",
    group="shadow",
    inputs=comparison_inputs,
    begun=lambda case, store: bool(store.tables(case).ledger(SCORES)),
    make=_compare,
)
