"""Drift: how far the events of a week are from those that the model in force was judged on, by effect size.

The population stability index of two distributions `p` and `q` over bins is the sum of `(p - q) ln(p / q)`. Read as usual in credit
scoring: below 0.1 the same, 0.1 to 0.25 changed, above 0.25 another population (Siddiqi, *Credit Risk Scorecards*, 2006). Beside it
the Jensen-Shannon divergence in bits, 0 to 1. No p-value: with enough rows every difference is significant, whether it matters or not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import rel_entr

from ml_assets.escape import markdown
from ml_assets.stages.bounds import as_declared, bounded
from ml_assets.stages.inputs import FloatArray, IntArray
from ml_assets.stages.quality import Finding
from ml_assets.stages.reference import Reference
from ml_assets.stages.sketch import Sketch, count_days, trailing_sum
from ml_assets.use_case import Column, Day, DType, Monitoring, Severity

SCORE = "(score)"
"""Stands among the features; none of them can have this name."""
DRIFT_COLUMNS = (
    Column(
        name="model_version", dtype=DType.STRING, description="in force on the day: it is compared with what this one was judged on"
    ),
    Column(name="feature", dtype=DType.STRING, description="name of a feature of the model, or `(score)`"),
    Column(name="window_rows", dtype=DType.INT64, unit="events", description="of the days that end with this one", minimum=0),
    Column(
        name="psi",
        dtype=DType.FLOAT64,
        nullable=True,
        description="population stability index of the window; missing with too few events",
        minimum=0,
    ),
    Column(
        name="jensen_shannon",
        dtype=DType.FLOAT64,
        nullable=True,
        unit="bits",
        description="Jensen-Shannon divergence of the window",
        minimum=0,
        maximum=1,
    ),
    Column(name="null_share", dtype=DType.FLOAT64, nullable=True, description="of the window", minimum=0, maximum=1),
    Column(
        name="reference_null_share",
        dtype=DType.FLOAT64,
        nullable=True,
        description="of what is compared with",
        minimum=0,
        maximum=1,
    ),
    Column(
        name="importance", dtype=DType.FLOAT64, description="share of the model's gain that the feature has", minimum=0, maximum=1
    ),
    Column(name="watched", dtype=DType.INT64, description="1 unless the case expects the feature to drift"),
    Column(name="drifted", dtype=DType.INT64, description="1 where the index is over its limit and the feature is watched"),
    Column(name="moved", dtype=DType.STRING, description="the bin whose share changed most, and from what to what"),
)


def population_stability(counts: IntArray, reference: IntArray) -> FloatArray:
    """The index of each row of counts against one reference; nan for a row without counts.

    Half a row is added to each bin, so that an empty one counts as rare and not as impossible.

    Args:
        counts: shape (n, bins).
        reference: shape (bins,).

    >>> population_stability(np.array([[50, 50], [90, 10]]), np.array([500, 500])).round(2).tolist()
    [0.0, 0.85]
    """
    ours, theirs = _shares(counts), _shares(reference[None, :])
    index = (rel_entr(ours, theirs) + rel_entr(theirs, ours)).sum(axis=1)
    return bounded(index, name="a population stability index", maximum=None)


def jensen_shannon(counts: IntArray, reference: IntArray) -> FloatArray:
    """The divergence, in bits, of each row of counts from one reference; nan for a row without counts.

    >>> jensen_shannon(np.array([[50, 50], [0, 1000]]), np.array([1000, 0])).round(1).tolist()
    [0.3, 1.0]
    """
    ours, theirs = _shares(counts), _shares(reference[None, :])
    middle = (ours + theirs) / 2
    divergence = (rel_entr(ours, middle) + rel_entr(theirs, middle)).sum(axis=1) / 2 / np.log(2)
    return bounded(divergence, name="a Jensen-Shannon divergence")


def drift_of_days(
    features: pd.DataFrame, scores: pd.DataFrame, days: Sequence[Day], *, version: str, reference: Reference, monitoring: Monitoring
) -> pd.DataFrame:
    """`DRIFT_COLUMNS` and `day`: a row for the score and for each feature of the model, for each of `days`.

    Args:
        features, scores: rows of the tables, of these days and of those before that belong to their windows.
        days: those that have one model in force.
        version, reference: that model, and what it was judged on.
    """
    found = [
        _of_column(name, sketch, rows, calendar, days, reference, monitoring)
        for rows, sketches in ((features, reference.features), (scores, {SCORE: reference.score}))
        for calendar in [_Calendar.of(rows, days)]
        for name, sketch in sketches.items()
    ]
    rows = pd.concat(found).sort_values(["day", "feature"], kind="stable").assign(model_version=version)
    return as_declared(rows, DRIFT_COLUMNS).reset_index(drop=True)


def drift_findings(rows: pd.DataFrame, days: Sequence[Day], monitoring: Monitoring) -> dict[Day, list[Finding]]:
    """A warning for each feature that drifted, the score first, with how far and where to."""
    found: dict[Day, list[Finding]] = {day: [] for day in days}
    ordered = rows.assign(is_score=rows["feature"] == SCORE).sort_values(["is_score", "importance"], ascending=False, kind="stable")
    for row in ordered[(ordered["drifted"] == 1) | ordered["is_score"]].to_dict("records"):
        limit = monitoring.max_psi_of_score if row["is_score"] else monitoring.max_psi
        psi = "undefined: too few events" if math.isnan(row["psi"]) else f"{row['psi']:.3f}, {row['moved']}"
        found[row["day"]].append(
            Finding(
                expectation=f"{row['feature']}: population stability index up to {limit:g} over {monitoring.window_days} days",
                passed=row["drifted"] == 0,
                severity=Severity.WARN,
                observed=psi,
            )
        )
    features = rows[rows["feature"] != SCORE]
    calm = (features["drifted"] == 0).groupby(features["day"]).agg(["sum", "size"])
    for day, counted in calm.to_dict("index").items():
        found[str(day)].append(
            Finding(
                expectation="features of the model that are as they were",
                passed=True,
                severity=Severity.WARN,
                observed=f"{counted['sum']} of {counted['size']}",
            )
        )
    return found


def drift_figures(rows: pd.DataFrame) -> dict[Day, dict[str, float | int | str]]:
    """For each day what a plot over days tells: the index of the score and the worst watched one, how many drifted, their share of gain."""
    is_score, drifted = rows["feature"] == SCORE, rows["drifted"] == 1
    carried = rows["importance"].where(drifted & ~is_score, 0.0).groupby(rows["day"]).sum().to_dict()
    many = (drifted & ~is_score).groupby(rows["day"]).sum().to_dict()
    of_score = rows[is_score].set_index("day")
    known = rows[~is_score & (rows["watched"] == 1) & rows["psi"].notna()].sort_values("psi", kind="stable")
    worst = known.drop_duplicates("day", keep="last").set_index("day")[["psi", "feature"]].to_dict("index")
    found = {}
    for day, score in of_score.to_dict("index").items():
        figures: dict[str, float | int | str] = {
            "features_drifted": int(many[day]),
            "drifted_importance": float(carried[day]),
            "window_rows": int(score["window_rows"]),
        }
        if not math.isnan(score["psi"]):
            figures["score_psi"] = float(score["psi"])
        if day in worst:
            figures |= {"largest_psi": float(worst[day]["psi"]), "largest_psi_feature": str(worst[day]["feature"])}
        found[str(day)] = figures
    return found


def drift_markdown(rows: pd.DataFrame, *, most: int = 15) -> str:
    """The features of a day that moved furthest, those that are watched first, as a Markdown table."""
    ordered = rows.sort_values(["watched", "psi"], ascending=False, kind="stable").head(most)
    lines = ["| feature | PSI | JS bits | share of gain | missing | moved most |", "|---|---|---|---|---|---|"]
    for row in ordered.to_dict("records"):
        mark = " **drifted**" if row["drifted"] else "" if row["watched"] else " (expected to)"
        psi, js = ("undefined" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in ("psi", "jensen_shannon"))
        nulls = "" if math.isnan(row["null_share"]) else f"{row['null_share']:.1%} (was {row['reference_null_share']:.1%})"
        feature, moved = markdown(row["feature"]), markdown(row["moved"])
        lines.append(f"| {feature}{mark} | {psi} | {js} | {row['importance']:.1%} | {nulls} | {moved} |")
    return "\n".join(lines)


def alarms(rows: pd.DataFrame, monitoring: Monitoring) -> list[Day]:
    """The days on which drift calls for a new model: the score drifted, or features that carry enough of the gain did."""
    drifted = rows[rows["drifted"] == 1]
    by_score = set(drifted.loc[drifted["feature"] == SCORE, "day"])
    carried = drifted[drifted["feature"] != SCORE].groupby("day")["importance"].sum()
    return sorted(by_score | set(carried.index[carried >= monitoring.min_drifted_importance]))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Calendar:
    """The days of a frame, and those that are asked about, ascending; and for each row the place of its own."""

    days: list[Day]
    of_row: IntArray

    @staticmethod
    def of(rows: pd.DataFrame, days: Sequence[Day]) -> "_Calendar":
        known = sorted({*map(str, rows["day"].unique()), *days})  # a day may have no rows
        return _Calendar(days=known, of_row=pd.Index(known, dtype="str").get_indexer(pd.Index(rows["day"])).astype(np.int64))


def _of_column(
    name: str,
    sketch: Sketch,
    rows: pd.DataFrame,
    calendar: _Calendar,
    days: Sequence[Day],
    reference: Reference,
    monitoring: Monitoring,
) -> pd.DataFrame:
    there = calendar.days
    summed = trailing_sum(count_days(rows, name, sketch, there, calendar.of_row), there, window=monitoring.window_days)
    place = {day: position for position, day in enumerate(there)}
    counts = np.stack([summed[place[day]] for day in days])
    totals = counts.sum(axis=1)
    enough = totals >= monitoring.minimum_rows
    psi = np.where(enough, population_stability(counts, sketch.counts), np.nan)
    limit = monitoring.max_psi_of_score if name == SCORE else monitoring.max_psi
    watched = name not in monitoring.expected_to_drift
    with np.errstate(invalid="ignore"):
        nulls = counts[:, -1] / np.where(totals, totals, 1)
        drifted = watched & (psi > limit)
    return pd.DataFrame(
        {
            "feature": name,
            "window_rows": totals,
            "psi": psi,
            "jensen_shannon": np.where(enough, jensen_shannon(counts, sketch.counts), np.nan),
            "null_share": np.where(totals > 0, nulls, np.nan),
            "reference_null_share": sketch.null_share,
            "importance": reference.importance.get(name, 0.0),
            "watched": int(watched),
            "drifted": drifted.astype(np.int64),
            "moved": _moved(counts, sketch),
            "day": list(days),
        }
    )


def _moved(counts: IntArray, sketch: Sketch) -> list[str]:
    ours = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    theirs = sketch.counts / max(1, int(sketch.counts.sum()))
    most = np.abs(ours - theirs).argmax(axis=1)
    labels = sketch.labels
    return [f"{labels[bin]}: {theirs[bin]:.1%} → {share[bin]:.1%}" for bin, share in zip(most, ours, strict=True)]


def _shares(counts: npt.NDArray[np.int64]) -> FloatArray:
    total = counts.sum(axis=1, keepdims=True)
    smoothed = (counts + 0.5) / (total + 0.5 * counts.shape[1])
    return np.asarray(np.where(total > 0, smoothed, np.nan))
