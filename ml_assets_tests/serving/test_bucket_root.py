"""A service whose models come from a bucket, and whose log goes there."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from ml_assets.folders import LocalFolder, folder_at
from ml_assets.storage.models import ModelStore
from ml_assets.storage.predictions import PredictionLog
from ml_assets_tests.buckets import SECRET, running_s3
from ml_assets_tests.serving.conftest import Service, free_port, packed


def test_models_come_from_a_bucket_are_swapped_and_scores_are_logged_there(
    world: Any, loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_s3() as server:
        root, here = folder_at(server.address("root"), Path(), server.settings), LocalFolder(world.root)
        for found in (*here.find("models/**/*"), *here.find("deployments/**/*.json")):
            root.put(found.name, here.get(found.name) or b"")
        models = ModelStore(root=root)
        second = models.save(world.case.name, *packed(world, "2018-05-16", 7))
        shutil.copytree(loaded, tmp_path / "online")
        for name, value in {**server.settings, "ML_ASSETS_LOCAL": str(tmp_path / "local")}.items():
            monkeypatch.setenv(name, value)
        service = Service(
            world=world,
            store=str(tmp_path / "online"),
            port=free_port(),
            log=tmp_path / "service.log",
            root=server.address("root"),  # type: ignore[arg-type]
        ).start()
        try:
            events = [event for _, event in zip(range(40), world.rows(), strict=False)]
            first = requests.get(f"{service.case_url}/model", timeout=5).json()["model_version"]
            answers = [requests.post(f"{service.case_url}/score", json=event, timeout=5).json() for event in events[:20]]
            assert {answer["model_version"] for answer in answers} == {first}
            models.deploy(world.case.name, "2018-05-16", second, {"kind": "promoted"})
            until = time.monotonic() + 10
            while requests.get(f"{service.case_url}/model", timeout=5).json()["model_version"] != second:
                assert time.monotonic() < until
            answers += [requests.post(f"{service.case_url}/score", json=event, timeout=5).json() for event in events[20:]]
            assert {answer["model_version"] for answer in answers[20:]} == {second}
        finally:
            assert service.stop() == 0
        log = PredictionLog(root=root, case=world.case.name)
        logged = [line["event_id"] for day in log.days() for line in log.read(day)]
        assert sorted(logged) == sorted(answer["event_id"] for answer in answers)
        assert SECRET not in service.log.read_text()
