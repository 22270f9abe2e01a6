"""The last day of a new case, whose labels nobody knows yet, from deliveries to scores; online, with a label or without."""

import os
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ml_assets.orchestration.rounds import Runner, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.stages.intake import RowIntake
from ml_assets_tests.cases.make_cases import CASES
from ml_assets_tests.generated_cases import NAME, generated, lenient

LAST = "2024-02-15"


def test_a_day_without_labels_is_scored_on_its_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CASES["label_not_known_yet"](tmp_path)
    monkeypatch.setenv(f"ML_ASSETS_{NAME.upper()}_FILES", str(tmp_path / "files.toml"))
    with generated(tmp_path / "orders.csv") as (declared, _):
        case = declared.configure(declared, dict(os.environ)) if declared.configure else declared
        case = lenient(case)
        with dg.DagsterInstance.ephemeral() as instance:
            store = Store(root=str(tmp_path / "root"))
            runner = Runner(case=case, store=store, instance=instance, heard=lambda _record: None)
            bring_up_to_date(runner)
            assert not any(result.failed for result in runner.results)
        tables = store.tables(case)
        delivered = pd.read_csv(tmp_path / "days" / f"{LAST}.csv", dtype=str)
        assert delivered["returned"].isna().all()
        scores = tables.read("scores", [LAST])
        assert sorted(scores["event_id"]) == sorted(delivered["order_id"])
        assert scores["score"].between(0, 1).all()
        assert not tables.read("labels")["event_id"].isin(delivered["order_id"]).any()

        intake = RowIntake(case.event_table, timezone=case.timezone)
        row = {name: None if pd.isna(value) else value for name, value in delivered.iloc[0].items()}
        bare = {name: value for name, value in row.items() if name != "returned"}
        assert intake.take(row).row == intake.take(bare).row == intake.take({**row, "returned": "1"}).row
