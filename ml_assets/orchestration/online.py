"""What goes to the online scorer, and what comes back from it, as daily assets."""

from collections.abc import Iterator
from contextlib import closing
from functools import cache

import dagster as dg
import pandas as pd

from ml_assets.orchestration.daily import Days, stage
from ml_assets.orchestration.publish import Made
from ml_assets.orchestration.store import shown_at
from ml_assets.stages import online_state, package, skew
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.kept import kept_of
from ml_assets.stages.model import Model
from ml_assets.stages.quality import audit
from ml_assets.storage.online import open_store
from ml_assets.use_case import WHOLE, UseCase


def online_state_asset(case: UseCase) -> dg.AssetsDefinition:
    """What the online scorer must remember of each day: filed in the online store, and counted here."""
    check = "every_fact_is_in_the_online_store"
    columns = online_state.COUNT_COLUMNS

    def make(days: Days) -> Iterator[Made]:
        rows = {name: days.tables.read(name, days.ready) for name in kept_of(case)}
        with closing(open_store(days.store.online, case.name, create=True)) as store:
            for lookup in case.features.lookups:
                online_state.load_dimension(store, lookup, days.tables.read(lookup.table, [WHOLE]))
            filed = online_state.load_days(case, store, rows, days.inputs)
            found = online_state.loading_findings(case, store, rows, days.ready)
            store.tidy()
        days.log(f"{', '.join(f'{count:,} records of {name}' for name, count in filed.items())} are in the online store")
        counted = online_state.counted(rows, days.ready)
        verdicts = audit(counted, days=days.ready, columns=columns, key=["table"], also=found)
        yield Made(table="online_state", rows=counted, columns=columns, inputs=days.inputs, checks={check: verdicts})

    text = "Read back from the online store, a sample of each table's rows is there under all its entities."
    return stage(
        case,
        make,
        {"online_state": {check: text}},
        recipe="online_state",
        kinds={"pandas"},
        schemas={"online_state": columns},
        group="online",
    )


def prediction_log_asset(case: UseCase) -> dg.AssetsDefinition:
    """What the online scorer answered, compared with the backfill of the same events."""
    check = "online_and_offline_are_the_same"
    columns = skew.log_columns(case)

    def make(days: Days) -> Iterator[Made]:
        log = days.store.predictions(case)
        rows = skew.logged_frame(case, {day: log.read(day) for day in days.ready})

        @cache
        def model(version: str) -> Model:
            files, _ = days.store.models.load(case.name, version)
            return package.model_in(files, package.served_by(files))

        def scored(version: str, features: pd.DataFrame) -> FloatArray:
            return model(version).predict(features)

        skews = skew.compare(case, rows, days.tables.read("features", days.ready), days.ready, scored=scored)
        pages = {}
        for day, found in skews.items():
            name = f"skew-{day}"
            pages[day] = days.store.models.save_page(case.name, name, skew.skew_html(case, found), {})
        days.log(f"{len(rows):,} online scores, of which {sum(bool(found.differences) for found in skews.values())} days differ")
        findings = skew.skew_findings(skews, len(case.features.columns))
        verdicts = audit(rows, days=days.ready, columns=columns, key=["event_id"], also=findings)
        yield Made(
            table="prediction_log",
            rows=rows,
            columns=columns,
            inputs=days.inputs,
            checks={check: verdicts},
            shown={
                day: {
                    "logged": found.logged,
                    "degraded": found.degraded,
                    "columns_that_differ": len(found.differences),
                    "page": shown_at(pages[day]),
                }
                for day, found in skews.items()
            },
            blocks=False,
        )

    text = "Every feature and score that the online scorer logged is, to the last bit, what a backfill gives: no training-serving skew."
    return stage(
        case,
        make,
        {"prediction_log": {check: text}},
        recipe="prediction_log",
        kinds={"pandas", "deltalake"},
        schemas={"prediction_log": columns},
        group="online",
        blocks=False,
    )
