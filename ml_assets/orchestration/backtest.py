"""The backtest: what each week's decision promised and what came true, as one picture and one page.

A backfill of the weekly and daily assets is the replay; this asset puts its weeks side by side.
"""

import dagster as dg

from ml_assets.orchestration import summary
from ml_assets.orchestration.pages import Page, Shown
from ml_assets.orchestration.planning import code_of
from ml_assets.orchestration.store import Store, shown_at, shown_picture
from ml_assets.orchestration.weeks import REPORT
from ml_assets.stages import backtest
from ml_assets.stages.backtest import AVERAGE_PRECISION, BacktestWeek
from ml_assets.stages.metrics import Performance
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import UseCase

BACKTEST, LIVE = "backtest", "live_performance"


def backtest_weeks(case: UseCase, store: Store) -> list[BacktestWeek]:
    """Every decided week; live figures once the live performance of each of its scored days is published."""
    settled = set(store.tables(case).ledger(LIVE))
    return [_week(case, each, settled) for each in summary.weeks(case, store)]


def backtest_inputs(case: UseCase, store: Store) -> str:
    """Hash of everything that it is made from."""
    live = {day: entry.content for day, entry in store.tables(case).ledger(LIVE).items()}
    in_force = [(period.first, period.version) for period in store.models.periods(case.name)]
    return fingerprint(code_of(backtest), store.models.reports(case.name), in_force, live)


def _make(case: UseCase, store: Store) -> Shown:
    weeks = backtest_weeks(case, store)
    picture = backtest.draw_weeks(weeks)
    page = backtest.render_weeks(weeks, picture, title=f"{case.title}, week by week")
    place = store.models.save_page(case.name, BACKTEST, page, {"backtest.png": picture})
    known = [week.live_average_precision for week in weeks if week.live_average_precision is not None]
    return Shown(
        said=backtest.headline(weeks),
        metadata={
            "weeks": len(weeks),
            "promoted": sum(week.promoted for week in weeks),
            **({"live_average_precision": sum(known) / len(known)} if known else {}),
            "summary": backtest.headline(weeks),
            "picture": shown_picture("weeks", picture),
            "figures": dg.MetadataValue.md(backtest.weeks_markdown(weeks)),
            "page": shown_at(place),
        },
    )


def _week(case: UseCase, week: summary.Week, settled: set[str]) -> BacktestWeek:
    report, known = week.report, week.live if week.days and settled.issuperset(week.days) else None
    shown = {name: known[name] for name in (AVERAGE_PRECISION, "roc_auc", "precision", "recall")} if known else None
    if shown and known and case.investigation:
        shown[case.investigation.metric] = known["precision_at_top"]
    return BacktestWeek(
        week=week.week,
        promoted=report.decision.promoted,
        candidate=report.candidate.metrics[AVERAGE_PRECISION],
        candidate_interval=_interval(report.candidate),
        champion=report.champion.metrics[AVERAGE_PRECISION] if report.champion else None,
        champion_interval=_interval(report.champion) if report.champion else None,
        model=week.in_force,
        live=shown,
        baseline_live=known["baseline_average_precision"] if known else None,
    )


def _interval(performance: Performance) -> tuple[float, float] | None:
    ends = performance.intervals.get(AVERAGE_PRECISION)
    return (ends[0], ends[1]) if ends else None


PAGE = Page(
    name=BACKTEST,
    shows=lambda _: (REPORT, LIVE),
    description="Each week's decision and what it promised, and how the model in force did on the week's own events.",
    group="monitoring",
    inputs=backtest_inputs,
    begun=lambda case, store: bool(store.models.reports(case.name)),
    make=_make,
)
