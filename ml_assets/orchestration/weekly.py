"""The weekly assets: a candidate, the decision about it, and the model that goes live.

Weeks are made in order, so that a backfill of 40 weeks is a replay of 40 decisions: each looks at the champion that the one before left.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pandas as pd
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ml_assets.orchestration.daily import HEAVY
from ml_assets.orchestration.decisions import champion_before, record_gate_decision, record_refusal
from ml_assets.orchestration.partitions import case_weeks, earlier_weeks
from ml_assets.orchestration.publish import Event, check_spec, evaluation, latest_materializations, outputs
from ml_assets.orchestration.staleness import observations_after
from ml_assets.orchestration.store import Store, shown_at, shown_picture
from ml_assets.orchestration.tracking import mirror
from ml_assets.orchestration.weeks import (
    CANDIDATE,
    DEPLOYED,
    FAILED,
    REFUSED,
    REPORT,
    RETRAINING,
    WEEKLY,
    MatureEvents,
    TooFewDaysError,
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
from ml_assets.stages.report import render, screening_markdown, summary_markdown, trials_markdown
from ml_assets.stages.sufficiency import CannotJudgeError
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


MakeWeek = Callable[[Day], Outcome]
"""Makes an asset for the model that would go live on a day."""


class WeekError(RuntimeError):
    """One week cannot go on; the message says all, without the name of the error."""


class UnsoundPackageError(WeekError):
    """A package, loaded again, does not give the scores that it was saved with."""


class EarlierStepError(WeekError):
    """What a week is made from ended in an error."""


class WeeksFailedError(RuntimeError):
    """Weeks ended in errors that nobody foresaw; all others were made."""


def candidate_asset(case: UseCase) -> dg.AssetsDefinition:
    """The model that would go live in a week, trained on what was known when the week began."""
    spec = check_spec(
        case, CANDIDATE, LOADS, "Read back from the store, the candidate gives the same finite scores.", case_weeks(case)
    )

    def prepare(context: dg.AssetExecutionContext, store: Store, weeks: Sequence[Day]) -> MakeWeek:
        plans, mature = _plans(case, store, weeks), MatureEvents(case, store, weeks)

        def make(week: Day) -> Outcome:
            planned = _require(plans[week])
            try:
                holdout = mature.holdout(planned)
                candidate = _trained(case, store, planned, mature)
            except CannotJudgeError as reason:
                return _without_candidate(store, case, planned, str(reason))
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
                raise UnsoundPackageError("; ".join(wrong))
            note = {"version": version, "inputs": planned.inputs, "delta_versions": planned.versions}
            store.models.note(case.name, CANDIDATE, week, note)
            metadata = _candidate_metadata(candidate, version, days, store, case)
            return Outcome(week=week, passed=True, finding=_candidate_finding(candidate, case), content=version, metadata=metadata)

        return make

    return _weekly(case, CANDIDATE, prepare, spec, deps=_before(case, "features", "labels"), kinds={"lightgbm"}, group="models")


def report_asset(case: UseCase) -> dg.AssetsDefinition:
    """Candidate against champion on the same mature rows, and the decision; carries the champion forward."""
    spec = check_spec(
        case, REPORT, GATE, "The gate: every condition for going live holds (the table says which).", case_weeks(case)
    )

    def prepare(context: dg.AssetExecutionContext, store: Store, weeks: Sequence[Day]) -> MakeWeek:
        plans, mature = _plans(case, store, weeks), MatureEvents(case, store, weeks)

        def make(week: Day) -> Outcome:
            planned = _require(plans[week])
            champion, candidate = champion_before(case, store, week), _noted_candidate(store, case, week)
            inputs = evaluation_inputs(case, planned, candidate=candidate["version"], champion=champion)
            try:
                if REFUSED in candidate:
                    raise CannotJudgeError(candidate[REFUSED])
                report = _decide(case, store, planned, candidate["version"], champion, mature)
            except CannotJudgeError as reason:
                store.models.withdraw_report(case.name, week)
                store.models.note(case.name, REPORT, week, {"version": None, REFUSED: str(reason), "inputs": inputs})
                record_refusal(store, case, week, str(reason), inputs=inputs, decided_at=_now())
                return _refused(week, f"no candidate: {reason}")
            pictures = draw(report)
            page = render(report, pictures, title=f"{case.title}, week of {week}")
            place = store.models.save_report(
                case.name, week, report.to_json(), page, {f"{name}.png": png for name, png in pictures.items()}
            )
            store.models.note(case.name, REPORT, week, {"version": report.candidate.version, "inputs": inputs})
            record_gate_decision(store, case, report, decided_at=_now())
            decision = report.decision
            failed = [
                f"{reason.name}: {reason.observed}, wanted {reason.wanted}" for reason in decision.reasons if not reason.passed
            ]
            if decision.promoted:
                context.log.info(f"{week}: promoted {report.candidate.version}")
            return Outcome(
                week=week,
                passed=decision.promoted,
                finding="; ".join(failed) or "every condition holds",
                content=inputs,
                metadata=_report_metadata(report, pictures, f"{place}/report.html"),
                evidence={"reasons": dg.MarkdownMetadataValue(summary_markdown(report))},
            )

        return make

    deps = [
        dg.AssetDep([case.name, CANDIDATE]),
        dg.AssetDep([case.name, REPORT], partition_mapping=earlier_weeks()),
        *_before(case, "features", "labels"),
    ]
    return _weekly(case, REPORT, prepare, spec, deps=deps, kinds={"python"}, group="models")


def deployed_asset(case: UseCase) -> dg.AssetsDefinition:
    """The package that scorers use from a week on. A refused week has none: the model in force stays."""
    spec = check_spec(
        case,
        DEPLOYED,
        ANSWERS,
        "Loaded as a scorer loads it, the package gives the scores it was published with.",
        case_weeks(case),
    )

    def prepare(_context: dg.AssetExecutionContext, store: Store, _weeks: Sequence[Day]) -> MakeWeek:
        def make(week: Day) -> Outcome:
            note = store.models.noted(case.name, REPORT, week) or {}
            if FAILED in note:
                raise EarlierStepError(f"not deployed: {REPORT} failed: {note[FAILED]}")
            text = store.models.report(case.name, week)
            if text is None and REFUSED in note:
                store.models.withdraw(case.name, week)
                return _refused(week, f"not deployed: no candidate: {note[REFUSED]}")
            if text is None:
                return Outcome(week=week, passed=False, finding=f"not deployed: there is no {REPORT} of {week}")
            decision = Report.from_json(text).decision
            if not decision.promoted or decision.champion_after is None:
                store.models.withdraw(case.name, week)
                in_force = decision.champion_before or "no model"
                return _refused(week, f"not deployed: the gate refused the candidate, {in_force} stays in force")
            version = decision.champion_after
            wrong = package.wrong_answers(*store.models.load(case.name, version))
            if wrong:
                store.models.withdraw(case.name, week)
                return Outcome(week=week, passed=False, finding="; ".join(wrong))
            store.models.deploy(
                case.name,
                week,
                version,
                {reason.name: f"{reason.observed} (wanted {reason.wanted})" for reason in decision.reasons},
            )
            metadata = {"model_version": version, "package": shown_at(store.models.package(case.name, version))}
            return Outcome(week=week, passed=True, finding="every test event has its score", content=version, metadata=metadata)

        return make

    return _weekly(case, DEPLOYED, prepare, spec, deps=[dg.AssetDep([case.name, REPORT])], kinds={"lightgbm"}, group="models")


def _plans(case: UseCase, store: Store, weeks: Sequence[Day]) -> dict[Day, WeekPlan | TooFewDaysError]:
    """Before the tables are read, so that a day that is published meanwhile leaves its weeks stale."""
    found: dict[Day, WeekPlan | TooFewDaysError] = {}
    for week in weeks:
        try:
            found[week] = plan(case, store, week)
        except TooFewDaysError as error:
            found[week] = error
    return found


def _require(planned: WeekPlan | TooFewDaysError) -> WeekPlan:
    if isinstance(planned, TooFewDaysError):
        raise planned
    return planned


def _noted_candidate(store: Store, case: UseCase, week: Day) -> dict[str, Any]:
    note = store.models.noted(case.name, CANDIDATE, week)
    if note is None:
        raise FileNotFoundError(f"week {week} has no sound candidate: materialise {CANDIDATE} first")
    if FAILED in note:
        raise EarlierStepError(f"{CANDIDATE} failed: {note[FAILED]}")
    return note


def _without_candidate(store: Store, case: UseCase, planned: WeekPlan, reason: str) -> Outcome:
    note = {"version": None, REFUSED: reason, "inputs": planned.inputs, "delta_versions": planned.versions}
    store.models.note(case.name, CANDIDATE, planned.week, note)
    return _refused(planned.week, f"no candidate: {reason}")


def _refused(week: Day, finding: str) -> Outcome:
    """Nothing is wrong with the run: the week stays as it is."""
    return Outcome(week=week, passed=False, finding=finding, severity=dg.AssetCheckSeverity.WARN)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _decide(case: UseCase, store: Store, planned: WeekPlan, version: str, champion: str | None, mature: MatureEvents) -> Report:
    week = planned.week
    files, manifest = store.models.load(case.name, version)
    holdout = mature.holdout(planned)
    champion_files, champion_manifest = store.models.load(case.name, champion) if champion else ({}, {})
    ours = package.candidate_in(files, manifest)
    return evaluate.compare(
        case,
        week=week,
        as_of=planned.as_of.isoformat(),
        holdout=holdout,
        labels=holdout["label"].to_numpy(),
        candidate=ours,
        candidate_version=version,
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
    rows = mature.to_train(planned)
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
    prepare: Callable[[dg.AssetExecutionContext, Store, Sequence[Day]], MakeWeek],
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
        errors: dict[Day, str] = {}
        for outcome in _each(case, name, prepare, context, store, errors):
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
        if errors and not _later_steps(context, name):
            raise WeeksFailedError("; ".join(f"week {week}: {error}" for week, error in errors.items()))
        yield from outputs(case.name, name, [check])

    return step


def _each(
    case: UseCase,
    name: str,
    prepare: Callable[[dg.AssetExecutionContext, Store, Sequence[Day]], MakeWeek],
    context: dg.AssetExecutionContext,
    store: Store,
    errors: dict[Day, str],
) -> Iterator[Outcome]:
    """The outcome of each week. What was foreseen is a refusal; an error is noted, and the weeks after it are made all the same."""
    weeks = _go_lives(case, context, store)
    make = prepare(context, store, weeks)
    for week in weeks:
        try:
            outcome = make(week)
        except CannotJudgeError as reason:
            outcome = _refused(week, str(reason))
        except Exception as error:  # the week is at fault, or all are: the run ends in it once every week was tried
            errors[week] = text = str(error) if isinstance(error, WeekError) else f"{type(error).__name__}: {error}"
            context.log.error(f"{week}: {text}\n{''.join(traceback.format_exception(error))}")
            if name != DEPLOYED:
                before = store.models.noted(case.name, name, week) or {"version": None, "inputs": ""}
                store.models.note(case.name, name, week, {**before, FAILED: text})
            outcome = Outcome(week=week, passed=False, finding=text)
        if not outcome.passed:
            context.log.info(f"{week}: {outcome.finding}")
        yield outcome


def _later_steps(context: dg.AssetExecutionContext, name: str) -> bool:
    """Whether a later weekly asset is made in this run: it is made for the weeks without an error, and ends the run after them."""
    later, selected = set(WEEKLY[WEEKLY.index(name) + 1 :]), context.run.asset_selection
    return bool(later if selected is None else later & {key.path[-1] for key in selected})


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
        **({"features_alone": dg.MarkdownMetadataValue(screening_markdown(candidate.screening))} if candidate.screening else {}),
        "package": shown_at(store.models.package(case.name, version)),
    }


def _candidate_finding(candidate: Candidate, case: UseCase) -> str:
    """The check in words, with the features that are too good to be true."""
    screening = candidate.screening
    suspects = screening.suspects(case.gate.screening) if screening else []
    alone = f"; separating the classes nearly alone: {'; '.join(map(str, suspects))}" if suspects else ""
    return f"loaded again, predicts the same{alone}"


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
