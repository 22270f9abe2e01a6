"""Stability over weeks: what each week's decision promised, and what came true; as a picture and as a page.

Belongs here: many weeks side by side. Does not: one week's report (`report`), where decisions and live figures come from.
"""

import math
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from ml_assets.escape import markdown
from ml_assets.stages.pictures import INK, STYLES, png, sheet
from ml_assets.stages.report import interval, number, table, template
from ml_assets.use_case import Day

UNKNOWN = "not known yet"
WIDTH_INCHES = 9.6
TICKS = 10
AVERAGE_PRECISION = "average_precision"


@dataclass(frozen=True, kw_only=True, slots=True)
class BacktestWeek:
    """A week: average precisions on its hold-out, the decision, and what was live from its first day on.

    `live` holds the figures of the model in force on the week's own events, None until their labels are known; `baseline_live` is the
    baseline's average precision on the same events.
    """

    week: Day
    promoted: bool
    candidate: float
    candidate_interval: tuple[float, float] | None = None
    champion: float | None = None
    champion_interval: tuple[float, float] | None = None
    model: str | None = None
    live: Mapping[str, float] | None = None
    baseline_live: float | None = None

    @property
    def live_average_precision(self) -> float | None:
        """Of the model in force; None while it is not known, or undefined."""
        return _defined((self.live or {}).get(AVERAGE_PRECISION))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure as text, and its interval in small print."""

    text: str
    small: str = ""


def draw_weeks(weeks: Sequence[BacktestWeek]) -> bytes:
    """One PNG of 960 by 420 pixels; the same weeks give the same bytes.

    The candidate's average precision on the hold-out with its interval, filled where it was promoted and hollow where refused; the
    live one of the model in force and of the baseline, with a gap where it is not known yet.
    """
    ordered = _in_order(weeks)
    figure, axes = sheet(headline(ordered), width_inches=WIDTH_INCHES)
    colour = STYLES["candidate"][0]
    for week in ordered:
        if week.candidate_interval:
            axes.vlines(_place(week), *week.candidate_interval, color=colour, alpha=0.35, linewidth=3, zorder=2)
    for promoted, face, label in ((True, colour, "candidate on its hold-out, promoted"), (False, "white", "refused")):
        found = [week for week in ordered if week.promoted == promoted]
        if found:
            across, up = [_place(week) for week in found], [week.candidate for week in found]
            axes.scatter(across, up, s=36, facecolors=face, edgecolors=colour, label=label, zorder=4)
    places = [_place(week) for week in ordered]
    for label, role, marker, values in (
        ("model in force, live", "champion", "s", [week.live_average_precision for week in ordered]),
        ("baseline, live", "baseline", "^", [_defined(week.baseline_live) for week in ordered]),
    ):
        if any(value is not None for value in values):
            line, dashes = STYLES[role]
            drawn = [math.nan if value is None else value for value in values]
            axes.plot(places, drawn, dashes, color=line, linewidth=1.8, marker=marker, markersize=4, label=label, zorder=3)
    shown = (
        [ordered[at] for at in np.unique(np.linspace(0, len(ordered) - 1, min(TICKS, len(ordered))).astype(int))] if ordered else []
    )
    axes.set_xticks([_place(week) for week in shown], [week.week for week in shown], fontsize=8.5)
    axes.set(xlabel="Week", ylabel="Average precision")
    axes.margins(y=0.1)
    if ordered:
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False, labelcolor=INK, handlelength=2.8)
    return png(figure)


def render_weeks(weeks: Sequence[BacktestWeek], png: bytes, *, title: str) -> str:
    """One HTML page with its style and picture inside, in the style of a week's report; everything variable is escaped.

    Args:
        png: what `draw_weeks` gave for the same weeks.
    """
    ordered = _in_order(weeks)
    metrics = list(dict.fromkeys(name for week in ordered for name in week.live or {}))
    metrics.sort(key=lambda name: name != AVERAGE_PRECISION)  # stable: the others stay in their order
    return template("backtest.html.jinja").render(
        title=title,
        headline=headline(ordered),
        good=True,
        picture=b64encode(png).decode("ascii"),
        metrics=metrics or [AVERAGE_PRECISION],
        weeks=[(week, list(_cells(week, metrics or [AVERAGE_PRECISION]))) for week in ordered],
    )


def weeks_markdown(weeks: Sequence[BacktestWeek]) -> str:
    """The figures of every week as a Markdown table."""
    names = list(dict.fromkeys(name for week in weeks for name in week.live or {}))
    head = [
        "week",
        "decision",
        "candidate",
        "champion",
        "in force",
        *(markdown(f"live {name.replace('_', ' ')}") for name in names),
        "live baseline",
    ]
    rows = [
        [
            week.week,
            "promoted" if week.promoted else "refused",
            number(week.candidate),
            number(week.champion),
            markdown(week.model or "none"),
            *(UNKNOWN if week.live is None else number(week.live.get(name)) for name in names),
            UNKNOWN if week.baseline_live is None else number(week.baseline_live),
        ]
        for week in _in_order(weeks)
    ]
    return table(head, rows)


def headline(weeks: Sequence[BacktestWeek]) -> str:
    """How often a candidate was promoted, and what the models in force were worth live against the baseline."""
    if not weeks:
        return "No week has been decided yet."
    promoted = sum(week.promoted for week in weeks)
    decided = f"{promoted} of {len(weeks)} candidates promoted"
    both = [
        (ours, theirs)
        for week in weeks
        if (ours := week.live_average_precision) is not None and (theirs := _defined(week.baseline_live)) is not None
    ]
    if not both:
        return f"{decided}; how the models did live is {UNKNOWN}."
    ours, theirs = (sum(values) / len(both) for values in zip(*both, strict=True))
    return f"{decided}; live average precision {ours:.3f}, baseline {theirs:.3f} (mean of {len(both)} weeks)."


def _cells(week: BacktestWeek, metrics: Sequence[str]) -> Iterator[Cell]:
    yield Cell(text=number(week.candidate), small=_small(week.candidate_interval))
    yield Cell(text="none" if week.champion is None else number(week.champion), small=_small(week.champion_interval))
    for name in metrics:
        yield Cell(text=UNKNOWN if week.live is None else number(week.live.get(name)))
    yield Cell(text=UNKNOWN if week.baseline_live is None else number(week.baseline_live))


def _small(ends: tuple[float, float] | None) -> str:
    return f"({interval(*ends)})" if ends else ""


def _in_order(weeks: Sequence[BacktestWeek]) -> list[BacktestWeek]:
    return sorted(weeks, key=lambda week: week.week)


def _place(week: BacktestWeek) -> int:
    """Days since year 1, so that a week without a decision leaves a gap."""
    return date.fromisoformat(week.week).toordinal()


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
