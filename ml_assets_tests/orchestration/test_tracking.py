"""What a tracking server of MLflow knows of models and decisions: a real server, and real weekly assets on features drawn at random.

Three weeks: promoted, promoted, and refused by a stricter gate.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import requests
from typer.testing import CliRunner, Result

from ml_assets.cli import app
from ml_assets.orchestration import decisions, tracking
from ml_assets.orchestration.publish import schema_of
from ml_assets.orchestration.rounds import Runner
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.tracking import CHAMPION, DECISION, PREVIOUS, URI, VERSION
from ml_assets.orchestration.weeks import CANDIDATE, DEPLOYED, REPORT, WEEKLY
from ml_assets.stages import package
from ml_assets.stages.inputs import matrix
from ml_assets.stages.labels import label_columns
from ml_assets.storage.decisions import Manual
from ml_assets.use_case import Column, Day, DType, UseCase, day_range
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

pytestmark = [
    # MLflow, at its import and in what it calls.
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]

DAYS = day_range("2013-09-30", "2013-11-10")
WEEKS = ("2013-10-28", "2013-11-04", "2013-11-11")
NUMBERS, TEXT = ("scheduled_speed_mph", "distance_miles"), "carrier"
CASE = replace(
    FLIGHT_DELAYS,
    start=DAYS[0],
    end="2013-11-18",
    split=replace(FLIGHT_DELAYS.split, holdout_days=7, minimum_training_days=10),
    gate=replace(
        FLIGHT_DELAYS.gate,
        floors={"average_precision": 0.3},
        margin=0.5,
        risk=0.9,
        resamples=20,
        slices=(),
        max_row_milliseconds=1e6,  # the machine's load is not what is tested here
    ),
    training=replace(FLIGHT_DELAYS.training, trees=4, parameters={"num_leaves": 4, "min_data_in_leaf": 20, "num_threads": 1}),
)
STRICT = replace(CASE, gate=replace(CASE.gate, floors={"average_precision": 0.9999}))
NOBODY = "http://127.0.0.1:9"
"""The port of `discard`, on which nothing listens."""
_START_SECONDS = 120


@dataclass(kw_only=True)
class MlflowServer:
    """`mlflow server` with SQLite, and artifacts in a folder."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def await_answer(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                assert requests.get(f"{self.uri}/health", timeout=5).ok
                return
            except requests.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.1)


@dataclass(kw_only=True)
class World:
    """A store of a case with its Dagster instance, and what its runs logged."""

    root: Path
    instance: dg.DagsterInstance
    name: str
    logged: list[logging.LogRecord] = field(default_factory=list)

    @property
    def case(self) -> UseCase:
        return replace(CASE, name=self.name)

    @property
    def store(self) -> Store:
        return Store(root=str(self.root))

    @property
    def versions(self) -> list[str]:
        return self.store.models.versions(self.name)

    def make(self, *names: str, weeks: tuple[Day, Day], case: UseCase = CASE) -> None:
        case = replace(case, name=self.name)
        runner = Runner(case=case, store=self.store, instance=self.instance, heard=self.logged.append)
        runner.run(names, *weeks, title="test")

    def decide(self, kind: Manual, version: str | None = None) -> decisions.Change:
        return decisions.decide(
            self.case,
            self.store,
            kind,
            version=version,
            effective="2013-11-11",
            reason="because",
            decided_by="ann",
            decided_at="2013-12-01T10:00:00+00:00",
        )

    @property
    def warnings(self) -> list[str]:
        lines = [(record.levelno, str(getattr(record, "dagster_meta", {}).get("orig_message"))) for record in self.logged]
        return [text for level, text in lines if level == logging.WARNING and "MLflow" in text]


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """It takes some ten seconds, in which the tables can be made."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **quiet}, start_new_session=True)
    yield MlflowServer(folder=folder, port=port, process=process)
    os.killpg(process.pid, signal.SIGKILL)  # with the worker that it started
    process.wait()


@pytest.fixture(scope="module")
def delivered(starting: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with features and labels: do not write here."""
    root, random, count = tmp_path_factory.mktemp("delivered"), np.random.default_rng(11), 30 * len(DAYS)
    columns: dict[str, Any] = {
        column.name: pd.array(random.choice(["x", "y", "z"], count), dtype="str")
        if column.dtype is DType.STRING
        else random.normal(size=count)
        for column in CASE.features.columns
    }
    day = np.repeat(DAYS, 30)
    late = (random.random(count) < 1 / (1 + np.exp(2 - 3 * np.abs(columns["scheduled_speed_mph"])))).astype(np.int64)
    head = {
        "event_id": pd.array([f"e{number:05d}" for number in range(count)], dtype="str"),
        "event_time": (pd.to_datetime(day, utc=True) + pd.Timedelta(hours=15)).as_unit("us"),
    }
    features = pd.DataFrame({**head, "day": pd.array(day, dtype="str"), **columns})
    labels = features[["event_id", "event_time", "day"]].assign(
        event_day=features["day"],
        known_at=features["event_time"] + pd.Timedelta(hours=4),
        label=late,
        **{name: pd.array(["x"] * count, dtype="str") for name in CASE.label.entities},
    )
    made = (Column(name="event_id", dtype=DType.STRING), Column(name="event_time", dtype=DType.TIMESTAMP))
    for name, rows, declared in (("features", features, (*made, *CASE.features.columns)), ("labels", labels, label_columns(CASE))):
        Store(root=str(root)).tables(CASE).publish(name, rows, schema=schema_of(declared), inputs=dict.fromkeys(DAYS, "made"))
    return root


@pytest.fixture(scope="module")
def server(starting: MlflowServer, delivered: Path) -> MlflowServer:
    starting.await_answer()
    return starting


def opened(root: Path, delivered: Path, name: str) -> World:
    shutil.copytree(delivered / "tables" / CASE.name, root / "tables" / name)
    return World(root=root, instance=dg.DagsterInstance.ephemeral(tempdir=str(root / "dagster")), name=name)


@pytest.fixture(scope="module")
def told(server: MlflowServer, delivered: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three weeks made while the server listened: do not write here."""
    world = opened(tmp_path_factory.mktemp("told"), delivered, CASE.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URI, server.uri)
        world.make(*WEEKLY, weeks=(WEEKS[0], WEEKS[1]))
        world.make(*WEEKLY, weeks=(WEEKS[2], WEEKS[2]), case=STRICT)
    assert list(world.store.models.deployments(world.name)) == [*WEEKS[:2]]
    return world


@pytest.fixture
def listening(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    monkeypatch.setenv(URI, server.uri)
    return server


@pytest.fixture
def own(told: World, listening: MlflowServer, tmp_path: Path) -> Iterator[World]:
    """The three weeks, to be decided about; afterwards the server is told what `told` says."""
    shutil.copytree(told.root, tmp_path / "own")
    yield replace(told, root=tmp_path / "own", logged=[])
    tracking.bring_up_to_date(told.case, told.store, listening.uri)


@pytest.fixture
def untold(delivered: Path, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """Features and labels, of a case that no server has heard of."""
    return opened(tmp_path / "untold", delivered, f"case_{request.node.name}")


@pytest.fixture
def client(listening: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=listening.uri)


def runs_of(client: Any, case: str) -> dict[str, Any]:
    """By version, of which none may have two."""
    found = client.search_runs([client.get_experiment_by_name(case).experiment_id])
    assert len({run.data.tags[VERSION] for run in found}) == len(found)
    return {run.data.tags[VERSION]: run for run in found}


def aliases_of(client: Any, case: str) -> dict[str, str]:
    """The version of the project, by alias."""
    named = client.get_registered_model(case).aliases
    return {alias: client.get_model_version(case, number).tags[VERSION] for alias, number in named.items()}


def invoked(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["models", CASE.name, *words], env={"COLUMNS": "200", "ML_ASSETS_ROOT": str(root)})


# What a server is told --------------------------------------------------------------------------------------------------------


def test_a_version_is_a_run(told: World, client: Any) -> None:
    runs = runs_of(client, told.name)

    assert sorted(runs) == told.versions
    assert {run.info.run_name for run in runs.values()} == {f"{version[:10]} {version}" for version in told.versions}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert told.warnings == []


def test_what_is_made_again_is_logged_once(told: World, client: Any) -> None:
    before = runs_of(client, told.name)

    told.make(CANDIDATE, weeks=(WEEKS[2], WEEKS[2]), case=STRICT)
    again = tracking.track(told.case, told.store)

    assert again == tracking.Mirrored(logged=(), judged=(), moved={})
    assert {run.info.run_id for run in runs_of(client, told.name).values()} == {run.info.run_id for run in before.values()}
    assert len(client.search_model_versions(f"name = '{told.name}'")) == len(WEEKS)


def test_a_run_says_how_the_model_was_made(told: World, client: Any) -> None:
    version = told.versions[1]
    _, manifest = told.store.models.load(told.name, version)
    data = runs_of(client, told.name)[version].data

    assert {name: data.params[name] for name in ("num_leaves", "min_data_in_leaf", "trees", "family")} == {
        "num_leaves": "4",
        "min_data_in_leaf": "20",
        "trees": "4",
        "family": "lightgbm",
    }
    assert float(data.params["threshold"]) == manifest["threshold"]
    assert data.params["training_days"] == " to ".join(manifest["days"]["training"])
    assert (data.metrics["training/rows"], data.metrics["training/positives"]) == (
        manifest["training_rows"],
        manifest["positives"],
    )


def test_a_run_says_what_the_gate_saw_and_decided(told: World, client: Any) -> None:
    first, second, third = (runs_of(client, told.name)[version].data for version in told.versions)
    report = json.loads(told.store.models.report(told.name, WEEKS[1]) or "")

    for prefix, who in (("", "candidate"), ("champion/", "champion"), ("baseline/", "baseline")):
        assert {name: second.metrics[f"{prefix}{name}"] for name in report[who]["metrics"]} == report[who]["metrics"]
    assert not [name for name in first.metrics if name.startswith("champion/")]
    assert [data.tags["ml_assets.decision"] for data in (first, second, third)] == ["promoted", "promoted", "refused"]
    assert third.tags["ml_assets.champion_before"] == told.versions[1]
    assert third.tags["ml_assets.failed"].startswith("average_precision")


def test_a_run_has_the_package_the_pictures_and_the_page(told: World, listening: MlflowServer, client: Any, tmp_path: Path) -> None:
    version = told.versions[2]
    client.download_artifacts(runs_of(client, told.name)[version].info.run_id, "", str(tmp_path))

    files, manifest = told.store.models.load(told.name, version)
    assert {name: (tmp_path / "package" / name).read_bytes() for name in files} == files
    assert json.loads((tmp_path / "package" / "manifest.json").read_text()) == manifest
    pages = told.store.models.pages(told.name, WEEKS[2])
    assert {name: (tmp_path / name).read_bytes() for name in pages} == pages
    assert (tmp_path / "report.html").read_text().startswith("<!")
    assert (tmp_path / "precision_recall.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("alias", [CHAMPION, PREVIOUS])
def test_a_registered_model_gives_the_same_scores(alias: str, told: World, listening: MlflowServer, client: Any) -> None:
    import mlflow.lightgbm

    booster = mlflow.lightgbm.load_model(f"models:/{told.name}@{alias}")

    files, manifest = told.store.models.load(told.name, aliases_of(client, told.name)[alias])
    saved = mlflow.models.get_model_info(f"models:/{told.name}@{alias}")
    assert saved.metadata["version"] == manifest["version"]
    assert saved.signature.inputs.input_names() == list(package.model_in(files, "candidate").inputs)
    events = manifest["test_events"]
    rows = matrix(pd.DataFrame([event["features"] for event in events]), saved.metadata["inputs"], saved.metadata["known"])
    assert booster.predict(rows).tolist() == [event["score"] for event in events]


# Aliases ----------------------------------------------------------------------------------------------------------------------


def test_a_promotion_moves_the_alias_and_a_refusal_does_not(told: World, client: Any) -> None:
    first, second, _ = told.versions

    assert aliases_of(client, told.name) == {CHAMPION: second, PREVIOUS: first}


def test_a_candidate_is_no_champion_before_it_is_deployed(own: World, client: Any) -> None:
    """The third week again, by a gate that lets it through."""
    _, second, third = own.versions

    own.make(REPORT, weeks=(WEEKS[2], WEEKS[2]))
    assert runs_of(client, own.name)[third].data.tags["ml_assets.decision"] == "promoted"
    assert aliases_of(client, own.name)[CHAMPION] == second

    own.make(DEPLOYED, weeks=(WEEKS[2], WEEKS[2]))
    assert aliases_of(client, own.name) == {CHAMPION: third, PREVIOUS: second}


def test_an_alias_follows_what_people_decide(own: World, client: Any) -> None:
    first, second, third = own.versions

    for kind, version, champion in (("rollback", first, first), ("pin", third, third), ("unpin", None, first)):
        change = own.decide(kind, version)

        assert change.warnings == ()
        assert aliases_of(client, own.name)[CHAMPION] == champion == own.store.models.current(own.name)["version"]
    assert aliases_of(client, own.name)[PREVIOUS] == second


def test_a_champion_of_another_family_has_the_alias_too(told: World, client: Any, tmp_path: Path) -> None:
    case, models = replace(told.case, name="logistic"), Store(root=str(tmp_path)).models
    files, manifest = told.store.models.load(told.name, told.versions[1])
    logistic = {name.replace("baseline/", "candidate/"): files[name] for name in files if not name.startswith("candidate/")}
    version = models.save(case.name, logistic, {**manifest, "family": "logistic"})
    models.deploy(case.name, WEEKS[1], version, {})

    tracking.track(case, Store(root=str(tmp_path)))

    assert aliases_of(client, case.name) == {CHAMPION: version}
    registered = client.get_model_version_by_alias(case.name, CHAMPION)
    assert registered.source == f"runs:/{registered.run_id}/package"
    assert {each.path for each in client.list_artifacts(registered.run_id)} == {"package"}


# Servers that are down, and other trouble -------------------------------------------------------------------------------------


def test_a_server_that_is_down_costs_a_warning_and_is_told_later(
    untold: World, client: Any, listening: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, NOBODY)
    untold.make(*WEEKLY, weeks=(WEEKS[0], WEEKS[1]))

    assert list(untold.store.models.deployments(untold.name)) == [*WEEKS[:2]]
    assert len(untold.warnings) == len(WEEKLY)  # one a step, however many weeks
    assert f"`ml-assets models {untold.name} track` makes up for it" in untold.warnings[0]
    assert f"`ml-assets models {untold.name} track`" in untold.decide("rollback", untold.versions[0]).warnings[0]

    monkeypatch.setenv(URI, listening.uri)
    assert client.get_experiment_by_name(untold.name) is None
    made = tracking.track(untold.case, untold.store)

    first, second = untold.versions
    assert made == tracking.Mirrored(logged=(first, second), judged=(first, second), moved={CHAMPION: first, PREVIOUS: second})
    assert sorted(runs_of(client, untold.name)) == untold.versions
    assert aliases_of(client, untold.name) == {CHAMPION: first, PREVIOUS: second}


def test_what_a_kill_left_half_done_is_finished(own: World, client: Any) -> None:
    version = own.versions[1]
    run = runs_of(client, own.name)[version].info.run_id
    client.delete_tag(run, DECISION)
    client.delete_tag(run, tracking.PACKAGE)
    [number] = [each.version for each in client.search_model_versions(f"name = '{own.name}'") if each.tags[VERSION] == version]
    client.delete_model_version(own.name, number)

    made = tracking.track(own.case, own.store)

    assert (made.logged, made.judged, made.moved) == ((version,), (version,), {CHAMPION: version})
    data = runs_of(client, own.name)[version].data  # of which there is one
    assert {DECISION, tracking.PACKAGE} <= data.tags.keys()
    assert aliases_of(client, own.name)[CHAMPION] == version


def test_a_week_decided_again_shows_the_latest_decision(own: World, client: Any) -> None:
    own.make(REPORT, weeks=(WEEKS[1], WEEKS[1]), case=STRICT)

    data = runs_of(client, own.name)[own.versions[1]].data
    assert (data.tags["ml_assets.decision"], data.tags[DECISION]) == ("refused", "4")


def test_the_command_says_what_was_told(told: World, listening: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "everything of flight_delays was there" in invoked(told.root, "track").output

    monkeypatch.setenv(URI, "http://ann:secret@127.0.0.1:9")
    down = invoked(told.root, "track")
    assert down.exit_code == 1
    assert "MLflow was not told: ConnectionError" in " ".join(down.stderr.split())
    assert "secret" not in down.output + down.stderr

    monkeypatch.delenv(URI)
    assert f"no tracking server is named: set {URI}" in invoked(told.root, "track").stderr


def test_without_mlflow_a_named_server_is_an_error_before_anything_is_made(
    untold: World, told: World, listening: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)

    with pytest.raises(tracking.TrackingError, match=r"pip install 'ml-assets\[mlflow\]'"):
        untold.make(CANDIDATE, weeks=(WEEKS[0], WEEKS[0]))
    assert untold.versions == []
    assert "pip install 'ml-assets[mlflow]'" in invoked(told.root, "track").stderr
    decided = len(told.store.models.decisions.all(told.name))
    assert "pip install 'ml-assets[mlflow]'" in invoked(told.root, "rollback", "--reason", "because").stderr
    assert len(told.store.models.decisions.all(told.name)) == decided


def test_where_no_server_is_named_mlflow_is_not_imported(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(URI)
    program = """
import sys
from dagster import DagsterInstance
from ml_assets_tests.orchestration.test_tracking import CASE, DEPLOYED, WEEKS, World
world = World(root=sys.argv[1], instance=DagsterInstance.ephemeral(tempdir=sys.argv[1]), name=CASE.name)
world.make(DEPLOYED, weeks=(WEEKS[1], WEEKS[1]))
world.decide("rollback", world.versions[0])
assert world.store.models.current(CASE.name)["version"] == world.versions[0]
print(sorted(name for name in sys.modules if name.partition(".")[0] == "mlflow"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(own.root)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[]"]), done.stderr
