"""The daily assets that watch the model in force: its estimated and its realised performance, drift, and whether it keeps its promise.

Their checks that may be red only warn: what they say is true of the day, which is published with it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from ml_assets.orchestration.daily import Days, Stage, by_model, stage
from ml_assets.orchestration.planning import known_back
from ml_assets.orchestration.publish import Made
from ml_assets.orchestration.store import shown_picture
from ml_assets.stages import drift, estimate, monitor, monitor_pictures, package, promise
from ml_assets.stages.quality import audit
from ml_assets.stages.reference import Reference, reference_in
from ml_assets.use_case import Column, Day, UseCase, shift

DRIFT_CHECK, PROMISE_CHECK = "events_are_like_those_that_judged_the_model", "the_model_keeps_its_promise"
WARNINGS = (DRIFT_CHECK, PROMISE_CHECK)
"""Checks that warn, and of which people are told."""


class NoReferenceError(LookupError):
    """A model cannot be watched; the message says why, and what to do."""


def live_performance_asset(case: UseCase) -> dg.AssetsDefinition:
    """How the model in force did on a day, once every label of the day is known."""
    check = "performance_is_of_labelled_events"
    columns = monitor.PERFORMANCE_COLUMNS

    def make(days: Days) -> Iterator[Made]:
        known = days.around("labels", back=known_back(case), ahead=case.label_lookback_days)
        first = {day: case.week_of(day) for day in days.ready}
        scores = days.tables.read("scores", days.ready)
        rows = monitor.daily_performance(scores.assign(rate=_rates(days, scores)), known, first, case=case)
        verdicts = audit(rows, days=days.ready, columns=columns, key=["model_version"])
        yield Made(
            table="live_performance",
            rows=rows,
            columns=columns,
            inputs=days.inputs,
            checks={check: verdicts},
            shown=_figures(rows),
        )

    specs = {"live_performance": {check: "Every event of the day has its label; metrics lie between 0 and 1."}}
    return _watching(case, make, specs, schema={"live_performance": columns})


def estimated_performance_asset(case: UseCase) -> dg.AssetsDefinition:
    """How the model in force does on a day, before any label is known."""
    check = "estimates_are_of_scored_events"
    columns = estimate.ESTIMATE_COLUMNS

    def make(days: Days) -> Iterator[Made]:
        scores = days.tables.read("scores", days.ready)
        rows = estimate.estimated_days(scores, references_of(days, scores["model_version"].unique()))
        verdicts = audit(rows, days=days.ready, columns=columns, key=["model_version"])
        yield Made(
            table="estimated_performance",
            rows=rows,
            columns=columns,
            inputs=days.inputs,
            checks={check: verdicts},
            shown=_figures(rows),
        )

    specs = {"estimated_performance": {check: "Shares and metrics lie between 0 and 1, for each model that scored on the day."}}
    return _watching(case, make, specs, schema={"estimated_performance": columns}, bound=("scores", 0))


def drift_report_asset(case: UseCase) -> dg.AssetsDefinition:
    """How far the events of the last days are from those that judged the model in force."""
    columns, back = drift.DRIFT_COLUMNS, case.monitoring.window_days - 1

    def make(days: Days) -> Iterator[Made]:
        features, scores = days.around("features", back=back), days.around("scores", back=back)
        found = [_drift_under(days, version, chosen, features, scores) for version, chosen in by_model(days).items()]
        rows = pd.concat(found, ignore_index=True)
        findings = drift.drift_findings(rows, days.ready, case.monitoring)
        verdicts = audit(rows, days=days.ready, columns=columns, key=["feature"], also=findings)
        of_day = dict(list(rows.groupby("day")))
        shown: dict[Day, dict[str, Any]] = {
            day: {**figures, "moved_most": dg.MetadataValue.md(drift.drift_markdown(of_day[day]))}
            for day, figures in drift.drift_figures(rows).items()
        }
        bars = monitor_pictures.drift_bars(of_day[days.ready[-1]], limit=case.monitoring.max_psi)
        shown[days.ready[-1]]["picture"] = shown_picture("drift", bars)  # of each of 365 days it would be 7 MB
        yield Made(
            table="drift_report", rows=rows, columns=columns, inputs=days.inputs, checks={DRIFT_CHECK: verdicts}, shown=shown
        )

    text = (
        "Of the score and of each feature, the distribution over the last days is that of the hold-out, by effect size (population "
        "stability index). A warning; an onset starts a new model, which has to pass the gate."
    )
    return _watching(case, make, {"drift_report": {DRIFT_CHECK: text}}, schema={"drift_report": columns}, bound=("features", back))


def performance_report_asset(case: UseCase) -> dg.AssetsDefinition:
    """Whether the model in force keeps over the last days what it promised."""
    columns, back = promise.PROMISE_COLUMNS, case.monitoring.window_days - 1

    def make(days: Days) -> Iterator[Made]:
        live, estimates = (days.around(name, back=back) for name in ("live_performance", "estimated_performance"))
        references = references_of(days, live["model_version"].unique())
        rows = promise.promises(live, estimates, days.ready, references=references, monitoring=case.monitoring)
        findings = promise.promise_findings(rows, case.monitoring)
        verdicts = audit(rows, days=days.ready, columns=columns, key=["model_version"], also=findings)
        yield Made(
            table="performance_report",
            rows=rows,
            columns=columns,
            inputs=days.inputs,
            checks={PROMISE_CHECK: verdicts},
            shown=_figures(rows),
        )

    text = (
        "Over the last days with known labels, ROC AUC is near what the hold-out promised, and there are about as many positives as the "
        "scores say. A warning; an onset starts a new model, which has to pass the gate."
    )
    return _watching(case, make, {"performance_report": {PROMISE_CHECK: text}}, schema={"performance_report": columns})


def references_of(days: Days, versions: Iterable[str]) -> dict[str, Reference]:
    """What each of these models is watched by.

    Raises:
        NoReferenceError: one was packaged before references were kept.
    """
    return {version: _required(days, version, days.store.models.load(days.case.name, version)[0]) for version in map(str, versions)}


def _required(days: Days, version: str, files: Mapping[str, bytes]) -> Reference:
    reference = reference_in(files)
    if reference is None:
        raise NoReferenceError(
            f"model {version} of {days.case.name} was packaged without the sketches that it is watched by: "
            f"ml-assets run {days.case.name} makes it again"
        )
    return reference


def _rates(days: Days, scores: pd.DataFrame) -> pd.Series:
    """The calibrated probability of each score; nan of a model that was packaged without a calibration."""
    rates = pd.Series(float("nan"), index=scores.index)
    for version, theirs in scores.groupby("model_version"):
        if reference := reference_in(days.store.models.load(days.case.name, str(version))[0]):
            rates.loc[theirs.index] = reference.calibration.rate(theirs["score"].to_numpy())
    return rates


def _drift_under(days: Days, version: str, chosen: list[Day], features: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Drift on days with one model in force. What the window holds of another model's days is scored by this one."""
    monitoring = days.case.monitoring
    back = shift(chosen[0], 1 - monitoring.window_days)
    events = features[features["day"].between(back, chosen[-1])]
    own = scores[(scores["model_version"] == version) & scores["day"].between(back, chosen[-1])][["day", "score"]]
    foreign = events[~events["day"].isin(own["day"].unique())]
    files, _ = days.store.models.load(days.case.name, version)
    if len(foreign):
        model = package.model_in(files, package.served_by(files))
        own = pd.concat([pd.DataFrame({"day": foreign["day"], "score": model.predict(foreign)}), own])
    return drift.drift_of_days(
        events,
        own.rename(columns={"score": drift.SCORE}),
        chosen,
        version=version,
        reference=_required(days, version, files),
        monitoring=monitoring,
    )


def _figures(rows: pd.DataFrame) -> dict[Day, dict[str, float]]:
    """Of each day the figures of its last model that are defined: numbers, so that Dagster plots them over partitions."""
    numbers = rows.drop_duplicates("day", keep="last").set_index("day").drop(columns="model_version").to_dict("index")
    return {str(day): {str(name): float(value) for name, value in row.items() if value == value} for day, row in numbers.items()}


def _watching(
    case: UseCase,
    make: Stage,
    specs: Mapping[str, Mapping[str, str]],
    *,
    schema: Mapping[str, Sequence[Column]],
    bound: tuple[str, int] | None = None,
) -> dg.AssetsDefinition:
    (table,) = specs
    return stage(case, make, specs, recipe=table, kinds={"pandas", "deltalake"}, schemas=schema, group="monitoring", bound=bound)
