"""One page about a use case: data, quality, the model and the decisions about it, performance, drift, shadow.

Belongs here: what the page says and how. Does not: where the figures come from (`orchestration.overview`).
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ml_assets.stages import monitor_pictures
from ml_assets.stages.drift import drift_figures
from ml_assets.stages.report import template
from ml_assets.stages.shadow import Compared
from ml_assets.use_case import Day, Monitoring, day_range

MOST_DECISIONS, MOST_REASONS = 12, 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TableLine:
    """A daily table: how much is published, and which days between its first and the last wanted one are not."""

    name: str
    days: int
    rows: int
    latest: Day | None
    missing: list[Day]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """PNG in base64, and what stands under it."""

    png: str
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """Everything on the page."""

    title: str
    tables: Sequence[TableLine]
    events: str
    delivered: int
    rejected: int
    reasons: Sequence[tuple[str, int]]
    in_force: str | None
    since: Day | None
    promised: float | None
    latency: str
    decisions: Sequence[Mapping[str, Any]]
    """Latest first."""
    performance: pd.DataFrame
    """By day: `promised`, `estimated`, `realised` of ROC AUC, `alerts`, `events`, `observed_over_expected`; nan where not known."""
    drift: pd.DataFrame
    """Rows of `drift_report`, of all days."""
    shadows: Sequence[Compared]
    monitoring: Monitoring

    @property
    def headline(self) -> str:
        """What somebody with one second reads."""
        if not self.in_force:
            return "No model is in force yet"
        said = [f"{self.in_force} is in force"]
        if (missing := sum(len(each.missing) for each in self.tables[:1])) > 0:
            said.append(f"{missing} days of {self.tables[0].name} are missing")
        realised = self.performance["realised"].dropna()
        if len(realised):
            said.append(f"ROC AUC of its latest known days {realised.tail(self.monitoring.window_days).mean():.3f}")
        drifted = self._drifted
        said.append(f"{drifted} distributions drifted" if drifted else "no drift")
        return "; ".join(said)

    @property
    def good(self) -> bool:
        """Whether nothing asks for a look."""
        return bool(self.in_force) and not any(each.missing for each in self.tables) and not self._drifted

    @property
    def _drifted(self) -> int:
        """How many distributions drifted on the latest day."""
        return int(self.drift.loc[self.drift["day"] == self.drift["day"].max(), "drifted"].sum())


def missing_days(published: Sequence[Day], last: Day | None) -> list[Day]:
    """The days from the first published one to the last wanted one that are not published.

    >>> missing_days(["2013-01-01", "2013-01-03"], "2013-01-04")
    ['2013-01-02', '2013-01-04']
    """
    if not published:
        return []
    return [day for day in day_range(min(published), last or max(published)) if day not in set(published)]


def performance_picture(found: Overview) -> bytes:
    """Promised, estimated and realised on one picture."""
    rows = found.performance.reset_index(names="day")
    return monitor_pictures.performance_lines(rows, metric="ROC AUC", name="Promised, estimated, realised")


def render_overview(found: Overview) -> str:
    """One HTML page with style and pictures inside; everything variable is escaped."""
    return template("overview.html.jinja").render(
        title=found.title,
        headline=found.headline,
        good=found.good,
        tables=found.tables,
        events=found.events,
        delivered=found.delivered,
        rejected=found.rejected,
        reasons=found.reasons[:MOST_REASONS],
        in_force=found.in_force,
        since=found.since,
        promised=found.promised,
        latency=found.latency,
        decisions=found.decisions[:MOST_DECISIONS],
        performance=list(_performance(found)),
        drift=list(_drift(found)),
        shadows=found.shadows,
    )


def _performance(found: Overview) -> list[Picture]:
    figures = found.performance
    if figures.empty:
        return []
    shares = pd.DataFrame({"share of events flagged": figures["alerts"] / figures["events"]})
    ratio = figures[["observed_over_expected"]].rename(columns={"observed_over_expected": "observed over expected positives"})
    return [
        _picture(
            performance_picture(found),
            "Estimated from the model's confidence as soon as a day is scored; realised when its labels are known.",
        ),
        _picture(
            monitor_pictures.lines(shares, title="Alert volume", unit="share of events"), "Alerts a day, as a share of its events."
        ),
        _picture(
            monitor_pictures.lines(ratio, title="Calibration", unit="ratio", limit=1.0, limit_named="calibrated:"),
            "Positives over those that the scores promised, over the days before; 1 for a calibrated model.",
        ),
    ]


def _drift(found: Overview) -> list[Picture]:
    if found.drift.empty:
        return []
    figures = pd.DataFrame.from_dict(drift_figures(found.drift), orient="index").sort_index()
    both = figures.reindex(columns=["score_psi", "largest_psi"]).set_axis(["score", "worst watched feature"], axis="columns")
    latest = found.drift["day"].max()
    bars = monitor_pictures.drift_bars(found.drift[found.drift["day"] == latest], limit=found.monitoring.max_psi)
    return [
        _picture(
            monitor_pictures.lines(both, title="Drift against the hold-out", unit="PSI", limit=found.monitoring.max_psi),
            f"Population stability index over {found.monitoring.window_days} days: 0.1 to 0.25 changed, above that another population.",
        ),
        _picture(bars, f"The watched features that moved furthest, on {latest}."),
    ]


def _picture(png: bytes, caption: str) -> Picture:
    return Picture(png=b64encode(png).decode("ascii"), caption=caption)
