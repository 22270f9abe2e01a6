"""The weekly assets: a candidate, the decision about it, and the model that goes live.

Weeks are made in order, so that a backfill of 40 weeks is a replay of 40 decisions: each looks at the champion that the one before left.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ml_assets.orchestration.daily import HEAVY
from ml_assets.orchestration.decisions import champion_before, record_gate_decision
from ml_assets.orchestration.partitions import case_weeks, earlier_weeks
from ml_assets.orchestration.publish import Event, check_spec, evaluation, latest_materializations, outputs
from ml_assets.orchestration.staleness import observations_after
from ml_assets.orchestration.store import Store, shown_at, shown_picture
from ml_assets.orchestration.tracking import mirror
from ml_assets.orchestration.weeks import (
    CANDIDATE,
    DEPLOYED,
    REPORT,
    RETRAINING,
    MatureEvents,
    WeekPlan,
    evaluation_inputs,
    go_lives,
    plan,
)
from ml_assets.stages import evaluate, monitor, package, train
from ml_assets.stages.evaluate import Report
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.pictures import draw
from ml_assets.stages.reference import FILE as REFERENCE
from ml_assets.stages.reference import reference_of
from ml_assets.stages.report import render, summary_markdown, trials_markdown
from ml_assets.stages.train import Candidate
from ml_assets.use_case import Day, UseCase

LOADS, GATE, ANSWERS = "candidate_loads_and_predicts_the_same", "candidate_may_go_live", "package_answers_real_requests"


RETRAIN_TAG = "ml_assets/retrain"
"""On a run: the day on which its model goes live, within the week of its partition."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a model that would go live on a day (`week`, mostly the first of one).

    `content` is the data version of what was materialised, None when nothing was; the rest is the check's result.
    """

    week: Day
    passed: bool
    finding: str
    content: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


def candidate_asset(case: UseCase) -> dg.AssetsDefinition:
    """The model that would go live in a week, trained on what was known when the week began."""
    spec = check_spec(
        case, CANDIDATE, LOADS, "Read back from the store, the candidate gives the same finite scores.", case_weeks(case)
    )

    def make(context: dg.AssetExecutionContext, store: Store, weeks: Sequence[Day]) -> Iterator[Outcome]:
        plans = {week: plan(case, store, week) for week in weeks}
        mature = MatureEvents(case, store, weeks)
        for week, planned in plans.items():
            candidate = _trained(case, store, planned, mature)
            holdout = mature.to_judge(planned.holdout, before=planned.week)
            stretches = {"training": planned.training, "holdout": planned.holdout, "refit": planned.refit}
            days = {name: (stretch[0], stretch[-1]) for name, stretch in stretches.items() if stretch}
            manifest = package.manifest_of(
                case, candidate, week=week, as_of=planned.as_of.isoformat(), days=days, contents=planned.contents, holdout=holdout
            )
            watched = reference_of(candidate.model, mature.events(planned.holdout), holdout)
            version = store.models.save(case.name, {**package.files_of(candidate), REFERENCE: watched.to_file()}, manifest)
            wrong = package.wrong_answers(*store.models.load(case.name, version))
            context.log.info(f"{week}: candidate {version} from {candidate.training_rows:,} events of {len(planned.training)} days")
            if wrong:
                yield Outcome(week=week, passed=False, finding="; ".join(wrong))
                continue
            note = {"version": version, "inputs": planned.inputs, "delta_versions": planned.versions}
            store.models.note(case.name, CANDIDATE, week, note)
            metadata = _candidate_metadata(candidate, version, days, store, case)
            yield Outcome(week=week, passed=True, finding="loaded again, predicts the same", content=version, metadata=metadata)

    return _weekly(case, CANDIDATE, make, spec, deps=_before(case, "features", "labels"), kinds={"lightgbm"}, group="models")


def report_asset(case: UseCase) -> dg.AssetsDefinition:
    """Candidate against champion on the same mature rows, and the decision; carries the champion forward."""
    spec = check_spec(
        case, REPORT, GATE, "The gate: every condition for going live holds (the table says which).", case_weeks(case)
    )

    def make(context: dg.AssetExecutionContext, store: Store, weeks: Sequence[Day]) -> Iterator[Outcome]:
        plans = {week: plan(case, store, week) for week in weeks}
        mature = MatureEvents(case, store, weeks)
        for week, planned in plans.items():
            champion = champion_before(case, store, week)
            report = _decide(case, store, planned, champion, mature)
            pictures = draw(report)
            page = render(report, pictures, title=f"{case.title}, week of {week}")
            place = store.models.save_report(
                case.name, week, report.to_json(), page, {f"{name}.png": png for name, png in pictures.items()}
            )
            inputs = evaluation_inputs(case, planned, candidate=report.candidate.version, champion=champion)
            store.models.note(case.name, REPORT, week, {"version": report.candidate.version, "inputs": inputs})
            record_gate_decision(store, case, report, decided_at=datetime.now(UTC).isoformat(timespec="seconds"))
            decision = report.decision
            failed = [
                f"{reason.name}: {reason.observed}, wanted {reason.wanted}" for reason in decision.reasons if not reason.passed
            ]
            context.log.info(
                f"{week}: {'promoted' if decision.promoted else 'refused'} {report.candidate.version} {'; '.join(failed)}"
            )
            yield Outcome(
                week=week,
                passed=decision.promoted,
                finding="; ".join(failed) or "every condition holds",
                content=inputs,
                metadata=_report_metadata(report, pictures, f"{place}/report.html"),
                evidence={"reasons": dg.MarkdownMetadataValue(summary_markdown(report))},
            )

    deps = [
        dg.AssetDep([case.name, CANDIDATE]),
        dg.AssetDep([case.name, REPORT], partition_mapping=earlier_weeks()),
        *_before(case, "features", "labels"),
    ]
    return _weekly(case, REPORT, make, spec, deps=deps, kinds={"python"}, group="models")


def deployed_asset(case: UseCase) -> dg.AssetsDefinition:
    """The package that scorers use from a week on. A refused week has none: the model in force stays."""
    spec = check_spec(
        case,
        DEPLOYED,
        ANSWERS,
        "Loaded as a scorer loads it, the package gives the scores it was published with.",
        case_weeks(case),
    )

    def make(context: dg.AssetExecutionContext, store: Store, weeks: Sequence[Day]) -> Iterator[Outcome]:
        for week in weeks:
            text = store.models.report(case.name, week)
            if text is None:
                yield Outcome(week=week, passed=False, finding=f"not deployed: there is no {REPORT} of {week}")
                continue
            decision = Report.from_json(text).decision
            if not decision.promoted or decision.champion_after is None:
                store.models.withdraw(case.name, week)
                in_force = decision.champion_before or "no model"
                finding = f"not deployed: the gate refused the candidate, {in_force} stays in force"
                context.log.info(f"{week}: {finding}")
                yield Outcome(week=week, passed=False, finding=finding, severity=dg.AssetCheckSeverity.WARN)
                continue
            version = decision.champion_after
            wrong = package.wrong_answers(*store.models.load(case.name, version))
            if wrong:
                store.models.withdraw(case.name, week)
                yield Outcome(week=week, passed=False, finding="; ".join(wrong))
                continue
            store.models.deploy(
                case.name,
                week,
                version,
                {reason.name: f"{reason.observed} (wanted {reason.wanted})" for reason in decision.reasons},
            )
            metadata = {"model_version": version, "package": shown_at(store.models.package(case.name, version))}
            yield Outcome(week=week, passed=True, finding="every test event has its score", content=version, metadata=metadata)

    return _weekly(case, DEPLOYED, make, spec, deps=[dg.AssetDep([case.name, REPORT])], kinds={"lightgbm"}, group="models")


def _decide(case: UseCase, store: Store, planned: WeekPlan, champion: str | None, mature: MatureEvents) -> Report:
    week, note = planned.week, store.models.noted(case.name, CANDIDATE, planned.week)
    if note is None:
        raise FileNotFoundError(f"week {week} has no sound candidate: materialise {CANDIDATE} first")
    files, manifest = store.models.load(case.name, note["version"])
    holdout = mature.to_judge(planned.holdout, before=planned.week)
    champion_files, champion_manifest = store.models.load(case.name, champion) if champion else ({}, {})
    ours = package.candidate_in(files, manifest)
    return evaluate.compare(
        case,
        week=week,
        as_of=planned.as_of.isoformat(),
        holdout=holdout,
        labels=holdout["label"].to_numpy(),
        candidate=ours,
        candidate_version=note["version"],
        # The judged models of both: the champion's served one may have learned from days of this hold-out.
        champion=package.model_in(champion_files, "candidate") if champion else None,
        champion_version=champion,
        champion_threshold=champion_manifest.get("threshold"),
        candidate_bytes=sum(len(content) for name, content in files.items() if name.startswith("candidate/")),
        row_milliseconds=evaluate.measure_row_milliseconds(ours.model, holdout.head(1)),
        further=_own_metrics(case, holdout),
        trials=ours.recipe.trials,
    )


def _trained(case: UseCase, store: Store, planned: WeekPlan, mature: MatureEvents) -> Candidate:
    rows = mature.rows(planned.training, before=planned.holdout_begins)
    candidate = train.train_candidate(
        rows,
        rows["label"].to_numpy(),
        rows["day"],
        case=case,
        storage=store.searches(case),
        name=f"{planned.week} {planned.inputs}",
    )
    if not planned.refit:
        return candidate
    everything = mature.rows(planned.refit, before=planned.week)
    return replace(candidate, served=train.by_recipe(candidate.recipe, everything, everything["label"].to_numpy(), case=case))


def _own_metrics(case: UseCase, holdout: pd.DataFrame) -> dict[str, Callable[[FloatArray], float]]:
    """The case's own metric as a function of the scores of the hold-out."""
    investigation = case.investigation
    if investigation is None:
        return {}
    return {investigation.metric: lambda scores: monitor.precision_at_top(holdout, scores, investigation)}


def _weekly(
    case: UseCase,
    name: str,
    make: Callable[[dg.AssetExecutionContext, Store, Sequence[Day]], Iterator[Outcome]],
    check: dg.AssetCheckSpec,
    *,
    deps: Sequence[dg.AssetDep],
    kinds: set[str],
    group: str,
) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=f"{case.name}__{name}",
        specs=[
            dg.AssetSpec(
                [case.name, name],
                deps=deps,
                description=_DESCRIPTIONS[name],
                group_name=f"{case.name}/{group}",
                kinds=kinds,
                owners=[case.owner],
                partitions_def=case_weeks(case),
            )
        ],
        check_specs=[check],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=HEAVY if name == CANDIDATE else None,
    )
    def step(context: dg.AssetExecutionContext, store: Store) -> Iterator[Event]:
        tracked = mirror(case, store, warn=context.log.warning)
        for outcome in make(context, store, _go_lives(case, context, store)):
            partition = case.week_of(outcome.week)
            tracked.follow()
            if outcome.content is not None:
                tags = {DATA_VERSION_TAG: outcome.content}
                metadata = {"goes_live": outcome.week, **outcome.metadata}
                yield dg.AssetMaterialization(check.asset_key, partition=partition, metadata=metadata, tags=tags)
            yield evaluation(
                check,
                partition,
                latest_materializations(context, check.asset_key),
                passed=outcome.passed,
                severity=outcome.severity,
                description=outcome.finding,
                metadata=dict(outcome.evidence),
            )
        yield from observations_after(case, store, context.instance, name, context.partition_keys)
        yield from outputs(case.name, name, [check])

    return step


def _go_lives(case: UseCase, context: dg.AssetExecutionContext, store: Store) -> list[Day]:
    """The days on which the models of this run go live. A retraining makes its own, and leaves those that were decided as they are."""
    if (day := context.run.tags.get(RETRAIN_TAG)) is None:
        return go_lives(case, store, list(context.partition_keys))
    store.models.note(case.name, RETRAINING, day, {"why": context.run.tags.get("ml_assets/why", "")})
    return [day]


def _before(case: UseCase, *tables: str) -> list[dg.AssetDep]:
    return [dg.AssetDep([case.name, table], partition_mapping=earlier_weeks()) for table in tables]


def _candidate_metadata(
    candidate: Candidate, version: str, days: Mapping[str, tuple[Day, Day]], store: Store, case: UseCase
) -> dict[str, Any]:
    return {
        "model_version": version,
        "training_rows": candidate.training_rows,
        "positives": candidate.positives,
        "training_days": " to ".join(days["training"]),
        "holdout_days": " to ".join(days["holdout"]),
        "threshold": candidate.threshold,
        "family": candidate.recipe.family,
        "trees": candidate.recipe.training.trees,
        **({"trials": dg.MarkdownMetadataValue(trials_markdown(candidate.recipe.trials))} if candidate.recipe.trials else {}),
        "package": shown_at(store.models.package(case.name, version)),
    }


def _report_metadata(report: Report, pictures: Mapping[str, bytes], page: Any) -> dict[str, Any]:
    shown = {name: shown_picture(name, png) for name, png in pictures.items()}
    rivals: dict[str, evaluate.Performance | None] = {
        "champion": report.champion,
        "baseline": report.baseline,
        "climatology": report.climatology,
    }
    return {
        "summary": dg.MarkdownMetadataValue(summary_markdown(report)),
        "promoted": int(report.decision.promoted),
        **{name: report.candidate.metrics[name] for name in ("average_precision", "roc_auc", "f1", "log_loss")},
        **{f"{name}_average_precision": rival.metrics["average_precision"] for name, rival in rivals.items() if rival},
        "report": shown_at(page),
        **shown,
    }


_DESCRIPTIONS = {
    CANDIDATE: "The model that would go live in the week, trained on labels that were known when its hold-out began.",
    REPORT: "Candidate against champion, baseline and climatology on the same hold-out rows; the gate's decision and its reasons.",
    DEPLOYED: "The package that scorers use from this week on. A refused week has none, and the model in force stays.",
}
