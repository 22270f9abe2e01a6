"""The weekly assets: a candidate, the decision about it, and the model that goes live.

Weeks are made in order, so that a backfill of 40 weeks is a replay of 40 decisions: each looks at the champion that the one before left.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import dagster as dg
import pandas as pd
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from ml_assets.orchestration.partitions import case_weeks, earlier_weeks
from ml_assets.orchestration.planning import code_of
from ml_assets.orchestration.publish import Event, check_spec, evaluation, latest_materializations, outputs
from ml_assets.orchestration.store import Store
from ml_assets.stages import evaluate, labels, package, train
from ml_assets.stages.evaluate import Report
from ml_assets.stages.pictures import draw
from ml_assets.stages.report import render, summary_markdown
from ml_assets.stages.train import Candidate
from ml_assets.storage.tables import Entry, fingerprint
from ml_assets.use_case import Day, UseCase, day_range, shift

CANDIDATE, REPORT, DEPLOYED = "candidate_model", "evaluation_report", "deployed_model"
LIBRARIES = tuple((name, version(name)) for name in package.LIBRARIES)
WEEKLY = (CANDIDATE, REPORT, DEPLOYED)
LOADS, GATE, ANSWERS = "candidate_loads_and_predicts_the_same", "candidate_may_go_live", "package_answers_real_requests"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a week: `content` is the data version of what was materialised, None when nothing was; and the check's result."""

    week: Day
    passed: bool
    finding: str
    content: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR


class TooFewDaysError(ValueError):
    """Too little is published to train or judge a candidate; the message says how much there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeekPlan:
    """Which days train and judge the model that goes live in a week, and what is published of them."""

    week: Day
    as_of: pd.Timestamp
    training: list[Day]
    holdout: list[Day]
    holdout_begins: Day
    published: Mapping[str, Mapping[Day, Entry]]
    code: str

    @property
    def inputs(self) -> str:
        """Hash of everything that the candidate is made from."""
        return fingerprint(self.code, self.week, self.contents)

    @property
    def contents(self) -> dict[str, dict[Day, str]]:
        """Content hash of each day, by table."""
        return {table: {day: entry.content for day, entry in days.items()} for table, days in self.published.items()}

    @property
    def versions(self) -> dict[str, dict[Day, int]]:
        """Delta version that holds each day, by table."""
        return {table: {day: entry.version for day, entry in days.items()} for table, days in self.published.items()}


def plan(case: UseCase, store: Store, week: Day) -> WeekPlan:
    """The days before a week, as far as features and labels of them are published.

    Raises:
        TooFewDaysError: too few days to train on or to be judged on.
    """
    tables = store.tables(case)
    published = {name: tables.ledger(name, day_range(case.start, shift(week, -1))) for name in ("features", "labels")}
    last_holdout = shift(week, -1 - case.split.embargo_days)
    first_holdout = shift(last_holdout, 1 - case.split.holdout_days)
    holdout = [day for day in published["features"] if first_holdout <= day <= last_holdout]
    training = [day for day in published["features"] if day < shift(first_holdout, -case.split.embargo_days)]
    if len(training) < case.split.minimum_training_days or 2 * len(holdout) < case.split.holdout_days:
        raise TooFewDaysError(
            f"week {week}: features of {len(training)} days before {first_holdout} and of {len(holdout)} days from it on are published; "
            f"a candidate needs {case.split.minimum_training_days} to train on and half of {case.split.holdout_days} to be judged on"
        )
    code = code_of(train, package, labels) + fingerprint(
        case.training, case.split, case.climatology, case.features.columns, LIBRARIES
    )
    return WeekPlan(
        week=week,
        as_of=case.starts(week),
        training=training,
        holdout=holdout,
        holdout_begins=first_holdout,
        published=published,
        code=code,
    )


def evaluation_inputs(case: UseCase, planned: WeekPlan, *, candidate: str, champion: str | None) -> str:
    """Hash of everything that a decision is made from."""
    code = code_of(evaluate, labels) + fingerprint(case.gate, case.training.seed)
    return fingerprint(code, candidate, champion, planned.holdout_begins, planned.contents)


def champion_before(case: UseCase, store: Store, week: Day) -> str | None:
    """The version that the latest decision before a week left in force."""
    earlier = [text for decided, text in store.models.reports(case.name).items() if decided < week]
    return Report.from_json(earlier[-1]).decision.champion_after if earlier else None


def stale_weeks(case: UseCase, store: Store, weeks: Sequence[Day]) -> list[Day]:
    """Weeks not made from what is there now, or whose decision was not carried out, and all weeks after the first of them."""
    for position, week in enumerate(weeks):
        if not _is_fresh(case, store, week):
            return list(weeks[position:])
    return []


def _is_fresh(case: UseCase, store: Store, week: Day) -> bool:
    planned = plan(case, store, week)
    candidate, note = (store.models.noted(case.name, kind, week) for kind in (CANDIDATE, REPORT))
    text = store.models.report(case.name, week)
    if candidate is None or note is None or text is None or candidate["inputs"] != planned.inputs:
        return False
    champion = champion_before(case, store, week)
    if note["inputs"] != evaluation_inputs(case, planned, candidate=candidate["version"], champion=champion):
        return False
    decision = Report.from_json(text).decision
    return store.models.deployments(case.name).get(week) == (decision.champion_after if decision.promoted else None)


def possible_weeks(case: UseCase, store: Store, weeks: Sequence[Day]) -> tuple[list[Day], list[str]]:
    """The weeks for which enough is published, and for the others what is missing."""
    possible, missing = [], []
    for week in weeks:
        try:
            plan(case, store, week)
        except TooFewDaysError as error:
            missing.append(str(error))
        else:
            possible.append(week)
    return possible, missing


def candidate_asset(case: UseCase) -> dg.AssetsDefinition:
    """The model that would go live in a week, trained on what was known when the week began."""
    spec = check_spec(
        case, CANDIDATE, LOADS, "Read back from the store, the candidate gives the same finite scores.", case_weeks(case)
    )

    def make(context: dg.AssetExecutionContext, store: Store, weeks: Sequence[Day]) -> Iterator[Outcome]:
        plans = {week: plan(case, store, week) for week in weeks}
        mature = _MatureEvents(case, store, weeks)
        for week, planned in plans.items():
            rows = mature.rows(planned.training, known_by=case.starts(planned.holdout_begins))
            candidate = train.train_candidate(rows, rows["label"].to_numpy(), rows["day"], case=case)
            holdout = mature.rows(planned.holdout, known_by=planned.as_of)
            days = {"training": (planned.training[0], planned.training[-1]), "holdout": (planned.holdout[0], planned.holdout[-1])}
            manifest = package.manifest_of(
                case, candidate, week=week, as_of=planned.as_of.isoformat(), days=days, contents=planned.contents, holdout=holdout
            )
            version = store.models.save(case.name, package.files_of(candidate), manifest)
            wrong = package.wrong_answers(*store.models.load(case.name, version))
            context.log.info(f"{week}: candidate {version} from {len(rows):,} events of {len(planned.training)} days")
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
        mature = _MatureEvents(case, store, weeks)
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
                metadata=_report_metadata(report, pictures, place / "report.html"),
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
            metadata = {"model_version": version, "package": _path(store.models.package(case.name, version))}
            yield Outcome(week=week, passed=True, finding="every test event has its score", content=version, metadata=metadata)

    return _weekly(case, DEPLOYED, make, spec, deps=[dg.AssetDep([case.name, REPORT])], kinds={"lightgbm"}, group="models")


class _MatureEvents:
    """Features joined with the labels known at a moment; the tables are read once for all weeks of a step."""

    def __init__(self, case: UseCase, store: Store, weeks: Sequence[Day]) -> None:
        tables, days = store.tables(case), day_range(case.start, shift(max(weeks), -1))
        self._features = tables.read("features", tables.ledger("features", days))
        self._labels = tables.read("labels", tables.ledger("labels", days), columns=["event_id", "known_at", "label", "day"])

    def rows(self, days: Sequence[Day], *, known_by: pd.Timestamp) -> pd.DataFrame:
        """Events of these days whose label was known by then, with the column `label`."""
        known = labels.latest_known(self._labels, known_by).set_index("event_id")["label"]
        label = self._features["event_id"].map(known)
        wanted = self._features["day"].between(min(days), max(days)) & label.notna()
        return self._features[wanted].assign(label=label[wanted])


def _decide(case: UseCase, store: Store, planned: WeekPlan, champion: str | None, mature: _MatureEvents) -> Report:
    week, note = planned.week, store.models.noted(case.name, CANDIDATE, planned.week)
    if note is None:
        raise FileNotFoundError(f"week {week} has no sound candidate: materialise {CANDIDATE} first")
    files, manifest = store.models.load(case.name, note["version"])
    holdout = mature.rows(planned.holdout, known_by=planned.as_of)
    champion_files, champion_manifest = store.models.load(case.name, champion) if champion else ({}, {})
    ours = Candidate(
        **{
            name: package.model_in(files, folder)
            for name, folder in zip(("model", "baseline", "climatology"), package.MODELS, strict=True)
        },
        threshold=manifest["threshold"],
        training_rows=manifest["training_rows"],
        positives=manifest["positives"],
    )
    return evaluate.compare(
        case,
        week=week,
        as_of=planned.as_of.isoformat(),
        holdout=holdout,
        labels=holdout["label"].to_numpy(),
        candidate=ours,
        candidate_version=note["version"],
        champion=package.model_in(champion_files, "candidate") if champion else None,
        champion_version=champion,
        champion_threshold=champion_manifest.get("threshold"),
        candidate_bytes=sum(len(content) for name, content in files.items() if name.startswith("candidate/")),
        row_milliseconds=evaluate.measure_row_milliseconds(ours.model, holdout.head(1)),
    )


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
    )
    def step(context: dg.AssetExecutionContext, store: Store) -> Iterator[Event]:
        for outcome in make(context, store, sorted(context.partition_keys)):
            if outcome.content is not None:
                tags = {DATA_VERSION_TAG: outcome.content}
                yield dg.AssetMaterialization(check.asset_key, partition=outcome.week, metadata=dict(outcome.metadata), tags=tags)
            yield evaluation(
                check,
                outcome.week,
                latest_materializations(context, check.asset_key),
                passed=outcome.passed,
                severity=outcome.severity,
                description=outcome.finding,
                metadata=dict(outcome.evidence),
            )
        yield from outputs(case.name, name, [check])

    return step


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
        "package": _path(store.models.package(case.name, version)),
    }


def _report_metadata(report: Report, pictures: Mapping[str, bytes], page: Any) -> dict[str, Any]:
    shown = {
        name: dg.MarkdownMetadataValue(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
        for name, png in pictures.items()
    }
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
        "report": _path(page),
        **shown,
    }


def _path(place: Any) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.path(str(place))


_DESCRIPTIONS = {
    CANDIDATE: "The model that would go live in the week, trained on labels that were known when its hold-out began.",
    REPORT: "Candidate against champion, baseline and climatology on the same hold-out rows; the gate's decision and its reasons.",
    DEPLOYED: "The package that scorers use from this week on. A refused week has none, and the model in force stays.",
}
