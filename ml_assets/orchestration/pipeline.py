"""The table of contents: the assets of a use case in the order in which data moves."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from ml_assets.orchestration import alerts, backtest, daily, extracts, online, sensors, staleness, weekly
from ml_assets.orchestration.store import Store
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
    yield daily.live_performance_asset(case)
    yield backtest.backtest_asset(case)
    yield online.online_state_asset(case)
    yield online.prediction_log_asset(case)


def build_defs(
    cases: Sequence[UseCase], *, store: Store | None = None, loggers: Mapping[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """Definitions for these use cases, everything under one store."""
    return dg.Definitions(
        assets=[
            *(asset for case in cases for asset in pipeline(case)),
            *(spec for case in cases for spec in staleness.observed_assets(case)),
        ],
        sensors=[*(sensor for case in cases for sensor in sensors.sensors(case)), *alerts.sensors(cases)],
        resources={"store": store or Store()},
        executor=dg.in_process_executor,
        loggers=dict(loggers) if loggers else None,
    )
