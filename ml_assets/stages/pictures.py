"""The pictures of an evaluation report, as PNG bytes.

Belongs here: how a figure is drawn. Does not: what the figures are (`evaluate`), the page around them (`report`).

Matplotlib costs 0.3 s to import, so that functions import it; figures are made without pyplot, which keeps state for the whole
process and is not safe in threads.
"""

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from ml_assets.stages.evaluate import Performance, Report
from ml_assets.stages.trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 6.4, 4.2, 100
INK, FAINT, SHADE = "#222222", "#8a8a8a", "#e4e4e4"
# Okabe and Ito's palette, told apart with any kind of colour vision; the dashes tell them apart in print.
STYLES = {
    "candidate": ("#0072B2", "-"),
    "champion": ("#D55E00", "--"),
    "baseline": ("#009E73", "-."),
    "climatology": ("#CC79A7", ":"),
}
FAMILIES = {"lightgbm": ("#0072B2", "o"), "logistic": ("#D55E00", "s")}
FEWEST_TRIALS = 4
COLOURS = 128
LARGEST_MARKER = 110.0  # points², of the calibration bin with most rows
IMPORTANT_FEATURES = 15
LONGEST_LABEL = 40


def draw(report: Report) -> dict[str, bytes]:
    """PNGs of 640 by 420 pixels, under 40 kB each; the same report gives the same bytes.

    Five of every report; `contributions`, `search_history` and `search_importance` where it has contributions, trials and enough of
    them. A model that the report lacks (no champion yet) and a curve without points (undefined, as the hold-out has one class) are
    left out of their pictures.
    """
    found = {
        "precision_recall": precision_recall(report),
        "roc": roc(report),
        "calibration": calibration(report),
        "confusion_matrix": confusion_matrix(report),
        "importance": importance(report),
    }
    if report.contributions:
        found["contributions"] = contributions(report)
    if report.trials:
        found["search_history"] = search_history(report)
    if correlations := rank_correlations(report.trials):
        found["search_importance"] = search_importance(correlations)
    return found


def precision_recall(report: Report) -> bytes:
    """Precision over recall; the grey line is the share of positives, the precision of guessing."""
    figure, axes = sheet(_versus(report, "average_precision", "Average precision"))
    for role, model in models(report):
        _line(axes, role, model.curves.precision_recall, model.metrics["average_precision"])
    prevalence = report.positives / report.holdout_rows if report.holdout_rows else math.nan
    axes.axhline(prevalence, color=FAINT, linewidth=1, label=f"share of positives {prevalence:.3f}", zorder=1)
    _unit_square(axes, "Recall (share of positives found)", "Precision (share of alerts that are right)")
    _legend(axes, "upper right")
    return png(figure)


def roc(report: Report) -> bytes:
    """True over false positive rate; the grey diagonal is guessing."""
    figure, axes = sheet(_versus(report, "roc_auc", "ROC AUC"))
    for role, model in models(report):
        _line(axes, role, model.curves.roc, model.metrics["roc_auc"])
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, label="guessing 0.500", zorder=1)
    _unit_square(axes, "False positive rate (share of negatives flagged)", "True positive rate (share of positives found)")
    _legend(axes, "lower right")
    return png(figure)


def calibration(report: Report) -> bytes:
    """Observed over predicted rate in bins; a marker's area is its share of the rows."""
    figure, axes = sheet(_calibration_title(report))
    bins = {role: [point for point in model.curves.calibration if point[2] > 0] for role, model in models(report)}
    points = [point for found in bins.values() for point in found]
    largest = max((point[2] for point in points), default=1)
    for role, found in bins.items():
        colour, dashes = STYLES[role]
        predicted, observed = [point[0] for point in found], [point[1] for point in found]
        areas = [max(6.0, LARGEST_MARKER * point[2] / largest) for point in found]
        axes.plot(predicted, observed, dashes, color=colour, linewidth=1.6, label=role, zorder=_order(role))
        axes.scatter(predicted, observed, s=areas, color=colour, alpha=0.55, linewidths=0, zorder=_order(role))
    limit = min(1.0, 1.08 * max((max(point[:2]) for point in points), default=1.0)) or 1.0
    axes.plot([0, limit], [0, limit], color=FAINT, linewidth=1, label="perfect", zorder=1)
    axes.set(xlim=(-0.02 * limit, 1.02 * limit), ylim=(-0.02 * limit, 1.05 * limit))
    axes.set_xlabel(f"Mean predicted probability (marker area: rows, largest {largest:,.0f})")
    axes.set_ylabel("Observed rate of positives")
    _legend(axes, "best")
    return png(figure)


def confusion_matrix(report: Report) -> bytes:
    """The candidate's counts at its operating threshold, and the shares of each true class."""
    found = report.candidate.confusion
    counts = [[found["tp"], found["fn"]], [found["fp"], found["tn"]]]
    shares = [[count / sum(row) if sum(row) else math.nan for count in row] for row in counts]
    figure, axes = sheet(
        f"Candidate: {found['tp']:,} of {found['tp'] + found['fp']:,} alerts are right,\n"
        f"{found['tp']:,} of {found['tp'] + found['fn']:,} positives are found"
    )
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")  # up to 1.25, so that the darkest blue stays readable
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = shares[row][column]
        colour = "white" if share > 0.55 else INK
        kind = (("found", "missed"), ("false alerts", "rightly passed"))[row][column]
        axes.text(column, row - 0.1, f"{counts[row][column]:,}", ha="center", va="center", fontsize=19, color=colour)
        axes.text(column, row + 0.17, f"{kind}, {_percent(share)} of row", ha="center", va="center", fontsize=10.5, color=colour)
    axes.grid(visible=False)
    axes.set_xticks([0, 1], ["alert", "no alert"])
    axes.set_yticks([0, 1], [f"positive\n({sum(counts[0]):,} rows)", f"negative\n({sum(counts[1]):,} rows)"])
    axes.tick_params(length=0)
    axes.set(xlabel=f"Predicted (alert from probability {report.candidate.threshold:.4g} up)", ylabel="True class")
    return png(figure)


def importance(report: Report) -> bytes:
    """The candidate's most important features, as shares of the importance of all its features."""
    top = report.importance[:IMPORTANT_FEATURES]
    covered = _percent(sum(share for _, share in top))
    figure, axes = sheet(f"The first {len(top)} features carry {covered} of the importance")
    _bars(axes, [(name, 100 * share) for name, share in top], "{:.1f}")
    axes.set_xlabel("Share of total importance (%)")
    return png(figure)


def contributions(report: Report) -> bytes:
    """Mean absolute contribution of the features that move the candidate's scores most."""
    top = report.contributions[:IMPORTANT_FEATURES]
    figure, axes = sheet(f"{short(top[0].feature)} moves scores most")
    _bars(axes, [(each.feature, each.mean_absolute) for each in top], "{:.2f}")
    axes.set_xlabel("Mean absolute contribution (log-odds)")
    return png(figure)


def search_history(report: Report) -> bytes:
    """Average precision of each trial, and the best complete one so far; pruned trials are hollow."""
    from matplotlib.ticker import MaxNLocator

    tried = [(trial, trial.value) for trial in report.trials if trial.value is not None]
    complete = [(trial, value) for trial, value in tried if trial.state == "complete"]
    figure, axes = sheet(_search_title(complete))
    best = list(accumulate((value for _, value in complete), max))
    axes.step(
        [trial.number for trial, _ in complete], best, where="post", color=FAINT, linewidth=1.6, label="best so far", zorder=1
    )
    for family in sorted({trial.family for trial, _ in tried}):
        colour, marker = FAMILIES.get(family, (INK, "D"))
        for state, face in (("complete", colour), ("pruned", "none")):
            points = [(trial.number, value) for trial, value in tried if (trial.family, trial.state) == (family, state)]
            if points:
                label = family if state == "complete" else f"{family}, pruned"
                across, up = zip(*points, strict=True)
                axes.scatter(across, up, s=34, marker=marker, facecolors=face, edgecolors=colour, label=label, zorder=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="Trial", ylabel="Average precision, mean of folds")
    _legend(axes, "best")
    return png(figure)


def search_importance(correlations: list[tuple[str, float]]) -> bytes:
    """How closely each hyperparameter and the average precision go together."""
    figure, axes = sheet(f"{short(correlations[0][0])} goes with average precision most")
    _bars(axes, correlations[:IMPORTANT_FEATURES], "{:.2f}")
    axes.set_xlabel("Absolute rank correlation with average precision (Spearman)")
    return png(figure)


def rank_correlations(trials: Sequence[Trial]) -> list[tuple[str, float]]:
    """Absolute Spearman correlation of each number among the parameters with the value, over complete LightGBM trials, largest first.

    Empty with fewer than `FEWEST_TRIALS` of these, or where all have one value; a parameter that does not vary, or that a trial
    lacks, is left out.
    """
    from scipy.stats import spearmanr

    complete = [trial for trial in trials if trial.state == "complete" and trial.family == "lightgbm" and trial.value is not None]
    values = [trial.value for trial in complete]
    if len(complete) < FEWEST_TRIALS or len(set(values)) == 1:
        return []
    found = []
    for name in complete[0].parameters:
        tried = [trial.parameters.get(name) for trial in complete]
        if all(isinstance(each, int | float) for each in tried) and len(set(tried)) > 1:
            found.append((name, abs(float(spearmanr(tried, values).statistic))))
    return sorted(found, key=lambda each: (-each[1], each[0]))


def models(report: Report) -> Iterator[tuple[str, Performance]]:
    """The models of a report under the names of their roles; without a champion there are three."""
    yield "candidate", report.candidate
    if report.champion is not None:
        yield "champion", report.champion
    yield "baseline", report.baseline
    yield "climatology", report.climatology


def sheet(title: str, *, width_inches: float = WIDTH_INCHES) -> tuple["Figure", "Axes"]:
    """An empty figure in the common style: no box, a faint grid, the title at the left."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(
        figsize=(width_inches, HEIGHT_INCHES),
        dpi=DOTS_PER_INCH,
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08),
        facecolor="white",
    )
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.015, ha="left", fontsize=12, fontweight="bold", color=INK, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(visible=True, color=SHADE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.xaxis.label.set(fontsize=10.5, color=INK)
    axes.yaxis.label.set(fontsize=10.5, color=INK)
    return figure, axes


def png(figure: "Figure") -> bytes:
    """The figure in 128 colours (a third of the size in true colour), without date or software version in it."""
    from PIL import Image

    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def _bars(axes: "Axes", figures: list[tuple[str, float]], written: str) -> None:
    """Lying bars, the first on top, each with its figure."""
    places = list(range(len(figures)))
    bars = axes.barh(places, [figure for _, figure in figures], height=0.68, color=STYLES["candidate"][0])
    axes.bar_label(bars, [written.format(figure) for _, figure in figures], padding=3, fontsize=8.5, color=INK)
    labels = axes.set_yticks(places, [short(name) for name, _ in figures], fontsize=8.5)
    for tick in labels:
        tick.label1.set_parse_math(False)  # a name may hold a dollar sign
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.09, y=0.02)


def _line(axes: "Axes", role: str, points: list[list[float]], figure: float) -> None:
    colour, dashes = STYLES[role]
    across, up = [point[0] for point in points], [point[1] for point in points]
    axes.plot(across, up, dashes, color=colour, linewidth=2, label=f"{role} {figure:.3f}", zorder=_order(role))


def _order(role: str) -> int:
    """The candidate is drawn last, over the others."""
    return 10 - list(STYLES).index(role)


def _unit_square(axes: "Axes", across: str, up: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), xlabel=across, ylabel=up)


def _search_title(complete: list[tuple[Trial, float]]) -> str:
    if not complete:
        return "No trial of the search is complete"
    best, value = max(complete, key=lambda found: (found[1], -found[0].number))
    return f"Search: trial {best.number} is best, average precision {value:.3f}"


def _legend(axes: "Axes", place: Literal["upper right", "lower right", "best"]) -> None:
    axes.legend(loc=place, fontsize=9.5, frameon=True, framealpha=0.85, edgecolor="none", labelcolor=INK, handlelength=2.8)


def _versus(report: Report, metric: str, name: str) -> str:
    ours = report.candidate.metrics[metric]
    if report.champion is None:
        return f"{name}: candidate {ours:.3f}, baseline {report.baseline.metrics[metric]:.3f}"
    return f"{name}: candidate {ours:.3f}, champion {report.champion.metrics[metric]:.3f}"


def _calibration_title(report: Report) -> str:
    error = report.candidate.metrics["expected_calibration_error"]
    if math.isnan(error):
        return "Calibration is undefined on this hold-out"
    return f"The candidate's probabilities are off by {error:.3f} on average"


def _percent(share: float) -> str:
    """A share as text: '12.3 %'; undefined, hence 'n/a', for the rows of a class that does not occur."""
    return "n/a" if math.isnan(share) else f"{100 * share:.1f} %"


def short(name: str) -> str:
    """A name that fits beside a bar: its middle goes, since features of one family differ at both ends."""
    half = (LONGEST_LABEL - 1) // 2
    return name if len(name) <= LONGEST_LABEL else f"{name[:half]}…{name[-half:]}"
