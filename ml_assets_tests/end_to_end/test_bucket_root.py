"""Everything in a bucket instead of a folder: what is built is equal, and of writers at the same time none loses what another wrote."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_assets.folders import Bucket
from ml_assets.storage.models import ModelStore
from ml_assets.use_cases.flight_delays.source import FOLDER
from ml_assets_tests.buckets import SECRET, ObjectServer, running_s3

PROJECT = Path(__file__).parents[2]
RUNS_A_DAY = """
import importlib.util, sys
from dataclasses import replace
from pathlib import Path

conftest, place, folder, root, day = sys.argv[1:]
spec = importlib.util.spec_from_file_location("end_to_end_conftest", conftest)
here = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = here
spec.loader.exec_module(here)

world = replace(here.open_world(Path(place), folder=Path(folder)), root=root)
print("ready", flush=True)
sys.stdin.readline()
with world.instance:
    for tables in (["raw_flights"], ["flights", "rejected_flights"]):
        assert not world.runner().run(tables, day, day, title="a day").failed
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with running_s3() as server:
        yield server


@pytest.fixture
def in_bucket(server: ObjectServer, make_world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ML_ASSETS_LOCAL", str(tmp_path / "local"))
    return lambda prefix: replace(make_world(name=prefix), root=server.address(prefix))


def decided(models: ModelStore, case: str) -> list[tuple[Any, ...]]:
    """Every decision, without when it was written down and how many milliseconds a row took."""
    found = models.decisions.all(case)
    return [(each.number, each.kind, each.effective, each.version, each.candidate, each.champion_before) for each in found]


def test_the_whole_pipeline_in_a_bucket_is_equal_to_that_in_a_folder(in_bucket: Any, undisturbed: Any, tmp_path: Path) -> None:
    world = in_bucket("whole")
    world.bring_up_to_date()

    assert isinstance(world.store.folder, Bucket)
    assert world.contents() == undisturbed.contents()
    assert world.contents_of_rows() == undisturbed.contents_of_rows()
    ours, theirs = world.store.models, undisturbed.store.models
    name = world.case.name
    assert ours.deployments(name) == theirs.deployments(name)
    in_force, expected = ours.current(name), theirs.current(name)
    assert in_force is not None
    assert expected is not None
    assert (in_force["version"], in_force["week"]) == (expected["version"], expected["week"])
    assert ours.versions(name) == theirs.versions(name)
    for version in ours.versions(name):
        assert ours.load(name, version) == theirs.load(name, version)
    assert decided(ours, name) == decided(theirs, name)
    assert set(ours.reports(name)) == set(theirs.reports(name))
    kept = {found.name.split("/")[0] for found in world.store.folder.find("**/*")}
    assert {"tables", "models", "reports", "deployments", "weeks", "decisions"} <= kept
    assert not [path for path in (tmp_path / "whole").rglob("*") if path.name in kept], "nothing of it is on this machine"
    assert world.bring_up_to_date().results == [], "nothing is stale"
    assert SECRET not in "".join(path.read_text(errors="ignore") for path in (tmp_path / "whole").rglob("*") if path.is_file())


def test_of_ten_runs_at_once_none_loses_what_another_wrote(
    in_bucket: Any, undisturbed: Any, delivery: Path, server: ObjectServer, tmp_path: Path
) -> None:
    world = in_bucket("many")
    days = [f"2013-01-{day:02d}" for day in range(1, 10)]
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-c", RUNS_A_DAY, str(Path(__file__).with_name("conftest.py"))),
                *(str(tmp_path / f"process-{number}"), str(delivery), world.root, day),
            ],
            env={**os.environ, FOLDER: str(delivery), "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, day in enumerate([*days, days[0]])
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    assert [process.returncode for process in processes] == [0] * len(processes), told
    for name in ("raw_flights", "flights", "rejected_flights"):
        expected = {day: found for day, found in undisturbed.contents(name)[name].items() if day in days}
        assert world.contents(name)[name] == expected
        rows = {day: found for day, found in undisturbed.contents_of_rows(name)[name].items() if day in days}
        assert world.contents_of_rows(name)[name] == rows
