"""The backtest: what each week's decision promised and what came true, as one picture and one page.

A backfill of the weekly and daily assets is the replay; this asset puts its weeks side by side.
"""

from collections.abc import Iterator

import dagster as dg

from ml_assets.orchestration import summary
from ml_assets.orchestration.planning import code_of
from ml_assets.orchestration.store import Store, shown_at, shown_picture
from ml_assets.orchestration.weeks import REPORT
from ml_assets.stages import backtest
from ml_assets.stages.backtest import AVERAGE_PRECISION, BacktestWeek
from ml_assets.stages.metrics import Performance
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import WHOLE, UseCase

BACKTEST, LIVE = "backtest", "live_performance"


def backtest_asset(case: UseCase) -> dg.AssetsDefinition:
    """All weeks side by side."""
    key = dg.AssetKey([case.name, BACKTEST])

    @dg.multi_asset(
        name=f"{case.name}__{BACKTEST}",
        specs=[
            dg.AssetSpec(
                key,
                deps=[[case.name, REPORT], [case.name, LIVE]],
                description="Each week's decision and what it promised, and how the model in force did on the week's own events.",
                group_name=f"{case.name}/monitoring",
                kinds={"python"},
                owners=[case.owner],
            )
        ],
    )
    def step(context: dg.AssetExecutionContext, store: Store) -> Iterator[dg.MaterializeResult[None]]:
        inputs, weeks = backtest_inputs(case, store), backtest_weeks(case, store)
        picture = backtest.draw_weeks(weeks)
        page = backtest.render_weeks(weeks, picture, title=f"{case.title}, week by week")
        place = store.models.save_page(case.name, "backtest", page, {"backtest.png": picture})
        store.models.note(case.name, BACKTEST, WHOLE, {"inputs": inputs})
        known = [week.live_average_precision for week in weeks if week.live_average_precision is not None]
        context.log.info(backtest.headline(weeks))
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(inputs),
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

    return step


def backtest_weeks(case: UseCase, store: Store) -> list[BacktestWeek]:
    """Every decided week; live figures once the live performance of each of its scored days is published."""
    settled = set(store.tables(case).ledger(LIVE))
    return [_week(case, each, settled) for each in summary.weeks(case, store)]


def backtest_inputs(case: UseCase, store: Store) -> str:
    """Hash of everything that it is made from."""
    live = {day: entry.content for day, entry in store.tables(case).ledger(LIVE).items()}
    in_force = [(period.first, period.version) for period in store.models.periods(case.name)]
    return fingerprint(code_of(backtest), store.models.reports(case.name), in_force, live)


def is_stale(case: UseCase, store: Store) -> bool:
    """Whether there are weeks to show that it does not show."""
    noted = store.models.noted(case.name, BACKTEST, WHOLE)
    return bool(store.models.reports(case.name)) and (noted or {}).get("inputs") != backtest_inputs(case, store)


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
