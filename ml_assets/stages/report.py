"""An evaluation report for people: a page that stands alone, and a short Markdown for the Dagster UI.

Belongs here: words, order and escaping. Does not: the figures and the decision (`evaluate`), how curves are drawn (`pictures`).
"""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ml_assets.escape import markdown, visible
from ml_assets.stages.evaluate import Report
from ml_assets.stages.gate import Reason
from ml_assets.stages.pictures import models
from ml_assets.stages.screening import ScreeningResult
from ml_assets.stages.trials import Trial, best_first

NAMES = {
    "average_precision": "Average precision",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "brier": "Brier score",
    "alert_share": "Share of events flagged",
}
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "expected_calibration_error"})
NOT_COMPARED = frozenset({"alert_share"})
CAPTIONS = {
    "precision_recall": "Precision and recall at every threshold. Up and right is better; the grey line is what guessing reaches.",
    "roc": "True and false positive rate at every threshold. Up and left is better; the diagonal is guessing.",
    "calibration": "Predicted against observed rate. On the diagonal a predicted 10 % comes true in 10 % of cases.",
    "confusion_matrix": "The candidate at its operating threshold: rows of the hold-out, and shares of each true class.",
    "importance": "What the candidate's predictions rest on. It says nothing about causes.",
    "contributions": "How far each feature moves a score up or down, in log-odds, on average over rows of the hold-out (SHAP values).",
    "search_history": "What each trial of the search reached on the prequential folds. Hollow: pruned, a mean of the folds up to there.",
    "search_importance": "Hyperparameters of LightGBM: absolute rank correlation (Spearman's) with the average precision of the complete "
    "trials. It misses an optimum in the middle.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRow:
    """One metric of all models, as text; `best` marks the models whose text equals the best one's.

    `intervals` holds '0.70 – 0.78', or nothing for a model without one.
    """

    name: str
    note: str
    cells: tuple[str, ...]
    best: tuple[bool, ...]
    intervals: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """One trial of the search, as text."""

    name: str
    value: str
    folds: str
    trees: str
    state: str
    parameters: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureRow:
    """One feature alone, as text."""

    name: str
    auc: str
    average_precision: str
    positives: str
    negatives: str
    values: str


def render(report: Report, pictures: Mapping[str, bytes], *, title: str, notes: Mapping[str, str] | None = None) -> str:
    """One HTML page with its style and pictures inside: it asks no host for anything, and everything variable is escaped.

    Args:
        pictures: PNGs by name, in the order in which they are shown (`pictures.draw`).
        notes: facts that the report does not hold, such as the number of training rows or table versions.
    """
    return template("report.html.jinja").render(
        title=title,
        report=report,
        headline=headline(report),
        good=report.decision.promoted,
        roles=list(models(report)),
        metrics=metric_rows(report),
        comparison=comparison_in_words(report),
        pictures=[(name, CAPTIONS.get(name, ""), b64encode(png).decode("ascii")) for name, png in pictures.items()],
        trials=trial_rows(report.trials),
        alone=screening_rows(report.screening),
        facts={**facts(report), **(notes or {})},
    )


def summary_markdown(report: Report) -> str:
    """The decision, its reasons and the metrics as Markdown; under 4 kB for a usual report."""
    roles = list(models(report))
    reasons = [
        [_mark(reason.passed), *map(markdown, (_words(reason.name), reason.observed, reason.wanted))]
        for reason in report.decision.reasons
    ]
    metrics = [[markdown(row.name), *map(_cell, row.cells, row.best, row.intervals)] for row in metric_rows(report)]
    parts = [
        f"**{markdown(headline(report))}**",
        markdown(comparison_in_words(report)),
        table(["", "Reason", "Observed", "Wanted"], reasons),
        table(["Metric", *(role.capitalize() for role, _ in roles)], metrics),
        f"Hold-out {report.holdout_first} to {report.holdout_last}: {report.holdout_rows:,} rows, {report.positives:,} positives.",
    ]
    return "\n\n".join(parts) + "\n"


def trials_markdown(trials: Sequence[Trial]) -> str:
    """The trials of a search as a Markdown table, best first."""
    if not trials:
        return "No search: the recipe is the declared one.\n"
    rows = [list(map(markdown, astuple(row))) for row in trial_rows(trials)]
    return table(["Trial", "Average precision", "By fold", "Trees", "State", "Parameters"], rows) + "\n"


def screening_markdown(screening: ScreeningResult) -> str:
    """The features that separate the classes best by themselves, as a Markdown table."""
    if screening.not_judged:
        return f"Not judged: {markdown(screening.not_judged)}.\n"
    rows = [list(map(markdown, astuple(row))) for row in screening_rows(screening)]
    return table(["Feature", "ROC AUC", "Average precision", "Positives determined", "Negatives determined", "Values"], rows) + "\n"


def screening_rows(screening: ScreeningResult | None) -> list[FeatureRow]:
    """The first features, and all that determine a good share of a class."""
    shown = [each for each in screening.features if each.shown] if screening else []
    return [
        FeatureRow(
            name=each.feature,
            auc=number(each.auc),
            average_precision=number(each.average_precision),
            positives=f"{each.positives_determined:.0%}",
            negatives=f"{each.negatives_determined:.0%}",
            values=each.shown,
        )
        for each in shown
    ]


def trial_rows(trials: Sequence[Trial]) -> list[TrialRow]:
    """Best first, pruned ones last."""
    return [
        TrialRow(
            name=f"{trial.number} {trial.family}",
            value=number(trial.value),
            folds=" ".join(f"{fold:.3f}" for fold in trial.folds),
            trees="" if trial.trees is None else str(trial.trees),
            state=trial.state,
            parameters=", ".join(f"{name} {_brief(value)}" for name, value in trial.parameters.items() if name != "family"),
        )
        for trial in best_first(trials)
    ]


def headline(report: Report) -> str:
    """The decision in one sentence, with every reason that failed."""
    decision, candidate = report.decision, report.candidate.version
    if decision.promoted:
        place = f"replaces champion {decision.champion_before}" if decision.champion_before else "becomes the first champion"
        return f"Promoted: candidate {candidate} {place}."
    failed = "; ".join(_failure(reason) for reason in decision.reasons if not reason.passed)
    if decision.champion_before:
        return f"Kept the champion: {decision.champion_before} stays, because candidate {candidate} failed on {failed}."
    return f"Not promoted: no model is live yet, and candidate {candidate} failed on {failed}."


def comparison_in_words(report: Report) -> str:
    """The paired bootstrap in two sentences; says so where there is no champion to compare with."""
    found = report.comparison
    if found is None:
        return "There is no champion to compare with: the floors and the baseline decide."
    difference = found["mean_difference"]
    return (
        f"On the same rows the candidate's average precision is {abs(difference):.4f} {'lower' if difference < 0 else 'higher'} "
        f"than the champion's (mean of {found['resamples']:,.0f} resamples of whole days; 95 % interval "
        f"{signed(found['interval_low'])} to {signed(found['interval_high'])}). The chance that it is worse by more than the margin is "
        f"{100 * found['chance_worse_than_margin']:.1f} %."
    )


def metric_rows(report: Report) -> list[MetricRow]:
    """Every metric of the candidate beside the other models'; a metric that a model lacks or that is undefined is 'n/a'."""
    return [_metric_row(report, name) for name in report.candidate.metrics]


def facts(report: Report) -> dict[str, str]:
    """What was judged, on what, and as of when."""
    versions = {f"Version of the {role}": f"{model.version} ({model.family})" for role, model in models(report)}
    return {
        "Use case": report.case,
        "Week": str(report.week),
        "As of": str(report.as_of),
        "Hold-out": f"{report.holdout_first} to {report.holdout_last}",
        "Rows": f"{report.holdout_rows:,}",
        "Positives": f"{report.positives:,}",
        "Operating threshold": f"{report.candidate.threshold:.4g}",
        **versions,
    }


def number(value: float | None) -> str:
    """A figure as text, four digits after the point; missing (no champion) and undefined are 'n/a'.

    >>> number(0.5), number(None), number(float("nan"))
    ('0.5000', 'n/a', 'n/a')
    """
    return "n/a" if value is None or math.isnan(value) else f"{value:.4f}"


def interval(low: float, high: float) -> str:
    """An interval as text, with two more digits where two would not tell its ends apart well.

    >>> interval(0.7012, 0.7789), interval(0.0123, 0.0145)
    ('0.70 – 0.78', '0.0123 – 0.0145')
    """
    digits = 2 if high - low >= 0.02 else 4
    return f"{low:.{digits}f} – {high:.{digits}f}"


def signed(difference: float | None) -> str:
    """A difference as text, with its sign: '+0.0200'; without a champion there is none, hence 'n/a'."""
    return "n/a" if difference is None else f"{difference:+.4f}"


def _metric_row(report: Report, metric: str) -> MetricRow:
    values = [model.metrics.get(metric, math.nan) for _, model in models(report)]
    comparable = [value for value in values if not math.isnan(value)] if metric not in NOT_COMPARED else []
    choose = min if metric in LOWER_IS_BETTER else max
    best = number(choose(comparable)) if comparable else None
    cells = tuple(number(value) for value in values)
    ranges = [model.intervals.get(metric) for _, model in models(report)]
    return MetricRow(
        name=NAMES.get(metric, _words(metric).capitalize()),
        note="lower is better" if metric in LOWER_IS_BETTER else "",
        cells=cells,
        best=tuple(cell == best for cell in cells),
        intervals=tuple(interval(*ends) if ends else "" for ends in ranges),
    )


def _failure(reason: Reason) -> str:
    return f"{_words(reason.name)} ({reason.observed}, wanted {reason.wanted})"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _mark(passed: bool) -> str:
    return "✓ pass" if passed else "✗ fail"


def _cell(cell: str, best: bool, ends: str) -> str:
    shown = f"**{cell}**" if best else cell
    return f"{shown} ({ends})" if ends else shown


def _brief(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; what stands in it is escaped by who fills it."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _shown(value: object) -> object:
    """What is put into a page: a text with what cannot be seen written out, which no browser shows, and no file holds half of."""
    return visible(value) if type(value) is str else value


@cache
def template(name: str) -> Template:
    """A page of this package; everything put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("ml_assets.stages", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "words": _words, "mark": _mark}
    return environment.get_template(name)
