"""What goes to the online scorer and what comes back, by the command: made when asked for, judged, and red where it must be.

A bank of 60 customers over ten days, all of it made by Dagster; its scorer runs in this process.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from typer.testing import CliRunner, Result

from ml_assets.cli import app
from ml_assets.orchestration import summary
from ml_assets.orchestration.partitions import daily_tables_of
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.rounds import Runner, bring_up_to_date
from ml_assets.orchestration.staleness import look
from ml_assets.orchestration.store import Store
from ml_assets.stages.online_state import ANSWERS_FROM, SINCE_EVER
from ml_assets.storage.online import open_store
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases import find
from ml_assets_tests.end_to_end.conftest import open_instance
from ml_assets_tests.serving import conftest as serving

START, DAY = "2018-04-01", "2018-04-10"
LOADED = day_range(START, shift(DAY, -1))
DAYS = [*LOADED, DAY]
ON_DEMAND = ("online_state", "prediction_log")
UP_TO_FEATURES = ("raw_transactions", "transactions", "raw_chargebacks", "chargebacks", "features")


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Under one place: `root` with tables, model and log, `online` with the store, `dagster` with what Dagster knows."""

    place: Path
    case: UseCase
    instance: dg.DagsterInstance

    @property
    def store(self) -> Store:
        return Store(root=str(self.place / "root"))

    @property
    def served(self) -> serving.World:
        features = self.store.tables(self.case).read("features", DAYS)
        return serving.World(root=self.place / "root", settings=settings(self.place), case=self.case, tables={}, features=features)

    @property
    def events(self) -> int:
        return self.store.tables(self.case).ledger("features", [DAY])[DAY].rows

    def command(self, table: str, first: Day, last: Day) -> Result:
        words = ["materialize", self.case.name, "--select", table, "--from", first, "--to", last]
        return CliRunner().invoke(app, words, env={"COLUMNS": "500"})

    def replay(self, rows: Sequence[dict[str, Any]], case: UseCase | None = None) -> None:
        """Scores events one after the other, with the charge-backs of their day."""
        world = replace(self.served, case=case or self.case)
        scorer = serving.scorer_of(world, self.place / "root", str(self.place / "online"))
        scorer.observe("chargebacks", world.rows(DAY, "chargebacks"))
        for row in rows:
            scorer.score_now([scorer.take(row, "never")])
        scorer.stop()

    def materialization(self, table: str, day: Day) -> dg.AssetMaterialization:
        key = dg.AssetKey([self.case.name, table])
        records = self.instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1)
        found = records.records[0].asset_materialization
        assert found is not None
        return found

    def check(self, table: str, day: Day) -> dg.AssetCheckEvaluation:
        """The latest result about a day."""
        key = dg.AssetKey([self.case.name, table])
        [spec] = [each for each in self.graph.asset_check_keys if each.asset_key == key]
        history = self.instance.event_log_storage.get_asset_check_execution_history(spec, limit=50)
        found = [
            each.event.dagster_event.asset_check_evaluation_data for each in history if each.event and each.event.dagster_event
        ]
        return next(each for each in found if each.partition == day)

    @property
    def graph(self) -> Any:
        return build_defs([self.case], store=self.store).resolve_asset_graph()

    def called_stale(self, table: str, day: Day) -> bool:
        """By Dagster."""
        resolver = CachingStaleStatusResolver(self.instance, self.graph, LoadingContextForTest(self.instance))
        return resolver.get_status(dg.AssetKey([self.case.name, table]), day) is StaleStatus.STALE

    def published(self, table: str) -> list[Day]:
        return sorted(self.store.tables(self.case).ledger(table))

    def partitions(self, table: str) -> list[Day]:
        return sorted(self.instance.get_materialized_partitions(dg.AssetKey([self.case.name, table])))


def settings(place: Path) -> dict[str, str]:
    return {
        "ML_ASSETS_ROOT": str(place / "root"),
        "ML_ASSETS_ONLINE_STORE": str(place / "online"),
        "ML_ASSETS_CARD_FRAUD_CUSTOMERS": "60",
        "ML_ASSETS_CARD_FRAUD_TERMINALS": "120",
        "ML_ASSETS_CARD_FRAUD_SEED": "7",
        "ML_ASSETS_CARD_FRAUD_DELIVERIES": str(place.parent / "delivered"),
        "DAGSTER_HOME": str(place / "dagster"),
    }


def opened(place: Path) -> Bank:
    return Bank(place=place, case=find("card_fraud", settings(place)), instance=open_instance(place / "dagster"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For copying: tables up to features, a model, and the state of all days but the last in the online store."""
    place = tmp_path_factory.mktemp("bank") / "built"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings(place).items():
            patch.setenv(name, value)
        bank = opened(place)
        with bank.instance:
            runner = Runner(case=bank.case, store=bank.store, instance=bank.instance, heard=lambda _: None)
            runner.run(daily_tables_of(bank.case, UP_TO_FEATURES), DAYS[0], DAYS[-1], title="up to features")
            bank.served.deploy("2018-04-04", trees=20)
            assert bank.command("online_state", LOADED[0], LOADED[-1]).exit_code == 0
    return place


@pytest.fixture
def bank(built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bank]:
    place = built.parent / tmp_path.name
    shutil.copytree(built, place, symlinks=True)
    for name, value in settings(place).items():
        monkeypatch.setenv(name, value)
    found = opened(place)
    with found.instance:
        yield found
    shutil.rmtree(place)


def test_state_is_loaded_and_each_day_says_how_much(bank: Bank) -> None:
    assert bank.partitions("online_state") == LOADED == bank.published("online_state")
    for day in LOADED:
        rows = {name: len(bank.store.tables(bank.case).read(name, [day])) for name in ("transactions", "chargebacks")}
        counted = bank.store.tables(bank.case).read("online_state", [day])
        assert dict(zip(counted["table"], counted["rows"], strict=True)) == rows
        assert bank.check("online_state", day).passed
    made = bank.materialization("online_state", DAYS[0])
    assert made.metadata["dagster/row_count"].value == 2
    with closing(open_store(str(bank.place / "online"), bank.case.name)) as store:
        assert store.notes(ANSWERS_FROM) == {ANSWERS_FROM: str(SINCE_EVER)}, "nothing was before the first day"


def test_a_replayed_day_is_green(bank: Bank) -> None:
    bank.replay(bank.served.rows(DAY))

    told = bank.command("prediction_log", DAY, DAY)

    assert told.exit_code == 0, told.output
    check, made = bank.check("prediction_log", DAY), bank.materialization("prediction_log", DAY)
    assert check.passed, check.description
    shown = {name: made.metadata[name].value for name in ("logged", "degraded", "columns_that_differ", "dagster/row_count")}
    assert shown == {"logged": bank.events, "degraded": 0, "columns_that_differ": 0, "dagster/row_count": bank.events}
    assert f"the same on {bank.events} events" in Path(str(made.metadata["page"].value)).read_text()


@pytest.mark.parametrize("name", ["amount", "payment_mean_7d_by_customer_id"])
def test_a_day_with_a_feature_that_is_broken_online_is_kept_and_red_and_names_it_alone(bank: Bank, name: str) -> None:
    assert name in bank.case.features.names

    def broken(columns: Any) -> Any:
        made = bank.case.features.row(columns)
        return made | {name: (made[name] if name in made else columns[name]) + 0.25}

    bank.replay(bank.served.rows(DAY), replace(bank.case, features=replace(bank.case.features, row=broken)))

    told = bank.command("prediction_log", DAY, DAY)

    assert told.exit_code == 1
    assert bank.published("prediction_log") == [DAY] == bank.partitions("prediction_log")
    check = bank.check("prediction_log", DAY)
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    table = str(check.metadata["expectations"].value)
    named = {each for each in bank.case.features.names if f"| {each} is the same online and offline" in table}
    assert named == {name}
    assert f"{bank.events} of {bank.events} events differ, by 0.25 at most" in table
    assert f"✗ prediction_log {DAY}: online_and_offline_are_the_same" in told.output
    assert f"{name} is the same online and offline" in told.output


def test_the_command_run_does_not_make_them_and_they_are_not_stale(bank: Bank) -> None:
    bank.replay(bank.served.rows(DAY)[:20])
    runner = Runner(case=bank.case, store=bank.store, instance=bank.instance, heard=lambda _: None)

    bring_up_to_date(runner, last=DAY)

    assert bank.published("labels"), "something was made"
    assert bank.published("online_state") == LOADED
    assert bank.published("prediction_log") == []
    stale = {each.asset for each in summary.stale(bank.case, bank.store)}
    assert stale
    assert not stale & set(ON_DEMAND)


def test_dagster_calls_a_day_stale_when_its_log_has_grown(bank: Bank) -> None:
    rows = bank.served.rows(DAY)
    bank.replay(rows[:30])
    assert bank.command("prediction_log", DAY, DAY).exit_code == 0
    assert not bank.called_stale("prediction_log", DAY)
    assert look(bank.case, bank.store, bank.instance) == 0

    bank.replay(rows[30:40])

    assert look(bank.case, bank.store, bank.instance) == 1
    assert bank.called_stale("prediction_log", DAY)
    assert bank.command("prediction_log", DAY, DAY).exit_code == 0
    assert not bank.called_stale("prediction_log", DAY)
    assert bank.materialization("prediction_log", DAY).metadata["logged"].value == 40


def test_a_day_without_a_log_is_not_made_and_nothing_is_wrong(bank: Bank) -> None:
    told = bank.command("prediction_log", LOADED[-1], LOADED[-1])
    assert told.exit_code == 0, told.output
    check = bank.check("prediction_log", LOADED[-1])
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "not made: nothing was logged on this day"
    assert bank.published("prediction_log") == []


def test_state_that_cannot_be_filed_fails_the_run_and_marks_no_day(bank: Bank, break_store: Callable[[Bank], None]) -> None:
    break_store(bank)
    told = bank.command("online_state", DAY, DAY)
    assert told.exit_code == 1
    assert DAY not in bank.partitions("online_state")
    assert DAY not in bank.published("online_state")


@pytest.fixture(params=["other layout", "no folder"])
def break_store(request: pytest.FixtureRequest) -> Callable[[Bank], None]:
    def broken(bank: Bank) -> None:
        if request.param == "other layout":
            with closing(open_store(str(bank.place / "online"), bank.case.name)) as store:
                store.note({"layout": "of yesterday"})
        else:
            shutil.rmtree(bank.place / "online")
            (bank.place / "online").write_text("in the way")

    return broken
