"""Training-serving skew through Dagster: green for a replayed day, red for a feature that is broken online, which it names."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from ml_assets.folders import LocalFolder
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.store import Store
from ml_assets.storage.predictions import PredictionLog
from ml_assets_tests.serving import conftest

DAY = conftest.SERVED[0]


@pytest.fixture
def root(world: Any, tmp_path: Path) -> Path:
    for name in ("tables", "models", "deployments"):
        shutil.copytree(world.root / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def replayed(world: Any, root: Path, loaded: Path) -> Callable[..., None]:
    """Scores the events of a day in order, with their charge-backs, in this process."""

    def replay(case: Any, events: int = 200) -> None:
        shutil.copytree(loaded, root / "online")
        scorer = conftest.scorer_of(replace(world, case=case), root, str(root / "online"))
        scorer.observe("chargebacks", world.rows(DAY, "chargebacks"))
        for row in world.rows(DAY)[:events]:
            scorer.score_now([scorer.take(row, "never")])
        scorer.stop()

    return replay


def materialised(world: Any, root: Path, monkeypatch: pytest.MonkeyPatch, name: str = "prediction_log") -> Any:
    for setting, value in world.settings.items():
        monkeypatch.setenv(setting, value)
    monkeypatch.setenv("ML_ASSETS_ONLINE_STORE", str(root / "online"))
    job = build_defs([world.case], store=Store(root=str(root))).resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        done = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([world.case.name, name])],
            tags={"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": DAY},
        )
    assert done.success
    [check] = done.get_asset_check_evaluations()
    materializations = [event for event in done.all_events if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION]
    return check, [event.step_materialization_data.materialization for event in materializations]


def test_a_replayed_day_is_green(world: Any, root: Path, replayed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    replayed(world.case)

    check, [made] = materialised(world, root, monkeypatch)

    assert check.passed, check.description
    assert made.partition == DAY
    assert made.metadata["logged"].value == 200
    page = Path(made.metadata["page"].value)
    assert "the same on 200 events" in page.read_text()


def test_a_feature_that_is_broken_online_is_named_and_no_other(
    world: Any, root: Path, replayed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(columns: Any) -> Any:
        made = world.case.features.row(columns)
        return made | {"distance": np.where(made["amount"] > 5000, made["distance"] + 0.001, made["distance"])}

    replayed(replace(world.case, features=replace(world.case.features, row=broken)))

    check, [made] = materialised(world, root, monkeypatch)

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    large = int((world.features.head(200)["amount"] > 5000).sum())
    assert 0 < large < 200
    assert made.metadata["columns_that_differ"].value in (1, 2)  # the score, where a tree asks for the distance
    table = check.metadata["expectations"].value
    assert f"{large} of 200 events differ, by 0.001" in table
    named = {name for name in world.case.features.names if f"{name} is the same online and offline" in table}
    assert named == {"distance"}
    page = Path(made.metadata["page"].value).read_text()
    assert "distance" in page
    assert "payment_count_24h_by_customer_id" not in page


def test_what_was_scored_without_state_is_told_and_not_compared(
    world: Any, root: Path, replayed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed(world.case, events=20)
    [file] = (root / PredictionLog(root=LocalFolder(root), case=world.case.name).folder(DAY)).glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0] |= {"degraded": True, "features": dict.fromkeys(lines[0]["features"])}
    lines[1] |= {"event_id": "never-delivered"}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event_id": "cut o')

    check, [made] = materialised(world, root, monkeypatch)

    assert (made.metadata["logged"].value, made.metadata["degraded"].value) == (20, 1)
    assert made.metadata["columns_that_differ"].value == 0
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert "1 of 20 were" in check.metadata["expectations"].value
    assert "never-delivered" in check.metadata["expectations"].value


def test_state_is_loaded_by_an_asset(world: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, [made] = materialised(world, root, monkeypatch, name="online_state")

    assert check.passed, check.description
    assert made.metadata["dagster/row_count"].value == 2
    scorer = conftest.scorer_of(world, root, str(root / "online"))
    assert scorer.readiness()["answers_from"] == "2018-06-26T00:00:00+00:00", "37 days after the only one that is loaded"
    row = world.rows(DAY)[5]
    found = scorer.store.facts([f"transactions.customer_id\x1f{row['customer_id']}".encode()])
    assert row["transaction_id"].encode() in next(iter(found.values()))
    scorer.stop()
