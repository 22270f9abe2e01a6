"""The pictures of monitoring, as PNG bytes: what drifted, and what was promised, estimated and came true, over days.

Belongs here: how a figure is drawn. Does not: what the figures are (`drift`, `promise`, `estimate`).
"""

import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ml_assets.stages.drift import SCORE
from ml_assets.stages.pictures import FAINT, INK, STYLES, png, sheet, short
from ml_assets.use_case import Day

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_FEATURES = 15
WIDE_INCHES = 9.6
TICKS = 10
DRIFTED, CALM = "#D55E00", "#0072B2"


def drift_bars(of_day: pd.DataFrame, *, limit: float) -> bytes:
    """The population stability index of the watched features that moved furthest on a day, and of the score; 640 by 420 pixels.

    Args:
        of_day: `DRIFT_COLUMNS` of one day.
        limit: of a feature, drawn as a line.
    """
    watched = of_day[of_day["watched"] == 1]
    known = watched[watched["psi"].notna()]
    is_score = known["feature"] == SCORE
    furthest = known[~is_score].sort_values("psi", ascending=False, kind="stable").head(MOST_FEATURES - 1)
    shown = pd.concat([known[is_score], furthest]).iloc[::-1]
    drifted = int(watched["drifted"].sum())
    figure, axes = sheet(
        f"{drifted} of {len(watched)} watched distributions drifted" if len(known) else "Too few events to say anything about drift"
    )
    axes.barh(range(len(shown)), shown["psi"], color=np.where(shown["drifted"] == 1, DRIFTED, CALM).tolist(), height=0.7)
    for tick in axes.set_yticks(range(len(shown)), [short(name) for name in shown["feature"]], fontsize=8.5):
        tick.label1.set_parse_math(False)  # a name may hold a dollar sign
    axes.axvline(limit, color=FAINT, linewidth=1, linestyle="--")
    axes.set_xlabel(f"PSI against the hold-out (line: {limit:g})")
    return png(figure)


def performance_lines(rows: pd.DataFrame, *, metric: str, name: str) -> bytes:
    """What was promised, estimated and realised of a metric over days; 960 by 420 pixels. A gap is a day of which it is not known.

    Args:
        rows: columns `day`, `promised`, `estimated` and `realised`, ordered by day; nan where a figure is not known.
        metric: in words, for the axis.
        name: for the title.
    """
    figure, axes = sheet(name, width_inches=WIDE_INCHES)
    places = [_place(day) for day in rows["day"]]
    for column, role, label in (
        ("promised", "baseline", "promised by the hold-out"),
        ("estimated", "champion", "estimated, before labels"),
        ("realised", "candidate", "realised, with labels"),
    ):
        colour, dashes = STYLES[role]
        if rows[column].notna().any():
            axes.plot(places, rows[column], dashes, color=colour, linewidth=1.7, marker="o", markersize=2.5, label=label)
    _days(axes, list(rows["day"]))
    axes.set_ylabel(metric)
    axes.margins(y=0.1)
    if len(rows):
        figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False, labelcolor=INK, handlelength=2.8)
    return png(figure)


def lines(series: pd.DataFrame, *, title: str, unit: str, limit: float | None = None, limit_named: str = "limit") -> bytes:
    """Figures over days, one line a column; 960 by 420 pixels.

    Args:
        series: indexed by day, ordered; nan leaves a gap.
        limit: drawn as a dashed line.
    """
    figure, axes = sheet(title, width_inches=WIDE_INCHES)
    places = [_place(str(day)) for day in series.index]
    for column, (colour, dashes) in zip(series.columns, STYLES.values(), strict=False):
        axes.plot(places, series[column], dashes, color=colour, linewidth=1.7, label=str(column))
    if limit is not None and not math.isnan(limit):
        axes.axhline(limit, color=FAINT, linewidth=1, linestyle="--", label=f"{limit_named} {limit:g}")
    _days(axes, [str(day) for day in series.index])
    axes.set_ylabel(unit)
    axes.margins(y=0.1)
    if len(series):
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False, labelcolor=INK, handlelength=2.8)
    return png(figure)


def _days(axes: "Axes", days: Sequence[Day]) -> None:
    chosen = sorted({days[at] for at in np.linspace(0, len(days) - 1, min(TICKS, len(days))).astype(int)}) if days else []
    axes.set_xticks([_place(day) for day in chosen], chosen, fontsize=8.5)
    axes.set_xlabel("Day")


def _place(day: Day) -> int:
    """Days since year 1, so that a day without figures leaves a gap."""
    return date.fromisoformat(day).toordinal()
