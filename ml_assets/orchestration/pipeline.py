"""The table of contents: the assets of a use case in the order in which data moves."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from ml_assets.clock import interval_seconds, read_clock
from ml_assets.orchestration import (
    alerts,
    conditions,
    daily,
    extracts,
    monitoring,
    online,
    pages,
    retraining,
    schedules,
    sensors,
    shadow,
    staleness,
    weekly,
)
from ml_assets.orchestration.store import Store
from ml_assets.settings import settings
from ml_assets.stages.declarations import require_computable
from ml_assets.use_case import UseCase


def pipeline(case: UseCase) -> Iterator[dg.AssetsDefinition]:
    """Every asset of a case, from source to score."""
    for extract in case.extracts:
        yield extracts.extract_asset(case, extract)
    for table in case.tables:
        yield daily.raw_asset(case, table)
        yield daily.clean_asset(case, table)
    yield daily.labels_asset(case)
    yield daily.features_asset(case)
    yield weekly.candidate_asset(case)
    yield weekly.report_asset(case)
    yield weekly.deployed_asset(case)
    yield daily.scores_asset(case)
    yield monitoring.estimated_performance_asset(case)
    yield monitoring.drift_report_asset(case)
    yield monitoring.live_performance_asset(case)
    yield monitoring.performance_report_asset(case)
    if case.monitoring.shadow:
        yield shadow.shadow_scores_asset(case)
    for page in conditions.pages_of(case).values():
        yield pages.page_asset(case, page)
    yield online.online_state_asset(case)
    yield online.prediction_log_asset(case)


def build_defs(
    cases: Sequence[UseCase], *, store: Store | None = None, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """Definitions for these use cases, everything under one store.

    Raises:
        ValueError: a case declares what cannot be computed.
    """
    for case in cases:
        require_computable(case)
    kept = store or Store()
    told = settings()
    seconds = {case.name: interval_seconds(told, read_clock(kept.local, case.name)) for case in cases}
    return dg.Definitions(
        assets=[
            *(asset for case in cases for asset in conditions.automated(case, kept, list(pipeline(case)))),
            *(spec for case in cases for spec in staleness.observed_assets(case)),
        ],
        sensors=[
            *(sensor for case in cases for sensor in automation(case, seconds=seconds[case.name])),
            *alerts.sensors(cases, warnings=monitoring.WARNINGS),
        ],
        schedules=[schedule for case in cases for schedule in schedules.schedules(case)],
        resources={"store": kept},
        executor=dg.in_process_executor,
        loggers=dict(loggers) if loggers else None,
    )


def automation(case: UseCase, *, seconds: int) -> Iterator[dg.SensorDefinition]:
    """Everything that looks, every so many seconds, whether there is something to do."""
    yield from sensors.sensors(case, seconds=seconds)
    yield conditions.condition_sensor(case, seconds=seconds)
    if case.monitoring.retrain:
        yield retraining.retraining_sensor(case, seconds=seconds)
    yield schedules.replay_sensor(case, seconds=seconds)
