"""Sensors, by ticking: which days they ask for, and which not; and a payment on its way from Kafka to its score with no hand.

The payments of 60 simulated customers lie in the reader's own files, one a day, or are messages of a real broker.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from ml_assets.orchestration import sensors as module
from ml_assets.orchestration.conditions import pages_of
from ml_assets.orchestration.partitions import contiguous
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.planning import recipes
from ml_assets.orchestration.store import Store
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases import find
from ml_assets.use_cases.card_fraud.simulator import World, payments
from ml_assets_tests.brokers import Broker, running_noida
from ml_assets_tests.end_to_end.conftest import open_instance
from ml_assets_tests.serving import conftest as serving

PROJECT = Path(__file__).parents[2]
DAGSTER = (sys.executable, "-W", "ignore", "-m")
START = "2018-04-01"
DAYS = day_range(START, shift(START, 9))
DELIVERED, REPORTED, FOLLOW_UP = "transactions_delivered", "chargebacks_delivered", "follow_up"
TOML = """
start = "2018-04-01"
first_go_live = "2018-06-06"
%s

[transactions]
%s
columns = {transaction_id = "id", paid_at = "at", customer_id = "customer", terminal_id = "terminal", amount = "amount"}

[chargebacks]
of = "transactions"
flag = "fraud"
delay_days = 7
delayed = {reported_at = "at"}
"""


def own_payments() -> pd.DataFrame:
    made = payments(World(seed=7, customers=60, terminals=120, first_day=START), DAYS)
    return pd.DataFrame(
        {
            "day": made["day"],
            "id": made["event_id"],
            "at": made["paid_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "customer": made["customer_id"],
            "terminal": made["terminal_id"],
            "amount": (made["amount_cents"] / 100).map("{:.2f}".format),
            "fraud": made["fraud"].where(made.index % 40 != 0, 1).astype(str),
        }
    )


@dataclass(kw_only=True)
class Team:
    """A case, a store and an instance, with the cursors of its sensors."""

    place: Path
    settings: dict[str, str]
    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict)

    @property
    def case(self) -> UseCase:
        return find("card_fraud", self.settings)

    @property
    def store(self) -> Store:
        return Store(root=self.settings["ML_ASSETS_ROOT"])

    @property
    def definitions(self) -> dg.Definitions:
        return build_defs([self.case], store=self.store)

    def tick(self, name: str) -> list[dg.RunRequest]:
        """What a sensor asks for; its cursor is kept."""
        repository = self.definitions.get_repository_def()
        sensor = repository.get_sensor_def(f"card_fraud__{name}")
        resources = {} if name == FOLLOW_UP else {"store": self.store}
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursors.get(name), repository_def=repository, resources=resources
        )
        found = sensor.evaluate_tick(context)
        self.cursors[name] = found.cursor
        return list(found.run_requests or ())

    def run(self, requests: list[dg.RunRequest]) -> list[bool]:
        """Runs what was asked for; whether each succeeded. Of a backfill, each asset over its days, as Dagster's daemon does in the end."""
        return [self._run(*part) for request in requests for part in parts_of(request)]

    def _run(self, keys: list[dg.AssetKey], tags: dict[str, str]) -> bool:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=self.instance, asset_selection=keys, tags=tags, raise_on_error=False)
        return bool(done.success)

    def settle(self, name: str) -> list[Day]:
        """Ticks and runs until nothing more is asked for; all the days that were."""
        found = list[Day]()
        while requests := self.tick(name):
            found += days_of(requests)
            self.run(requests)
        return found

    def published(self, table: str) -> list[Day]:
        return sorted(self.store.tables(self.case).ledger(table))

    def deliver(self, day: Day, rows: pd.DataFrame) -> None:
        folder = self.place / "delivered"
        folder.mkdir(exist_ok=True)
        rows.drop(columns="day").to_csv(folder / f"{day}.csv", index=False)

    def deploy(self) -> str:
        """A model that is in force from the fourth day on."""
        features = self.store.tables(self.case).read("features")
        world = serving.World(
            root=Path(self.settings["ML_ASSETS_ROOT"]), settings=self.settings, case=self.case, tables={}, features=features
        )
        return world.deploy(DAYS[3], trees=20)


RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def parts_of(request: dg.RunRequest) -> list[tuple[list[dg.AssetKey], dict[str, str]]]:
    """The runs of a request: which assets, and tags with the days."""
    tags = dict(request.tags)
    if request.asset_graph_subset is not None:
        asked = request.asset_graph_subset
        order = [dg.AssetKey(["card_fraud", name]) for name in recipes(find("card_fraud", os.environ))]
        return [
            ([key], {**tags, RANGE[0]: first, RANGE[1]: last})
            for key in sorted(asked.asset_keys, key=lambda key: order.index(key) if key in order else len(order))
            if key in asked.partitions_subsets_by_asset_key
            for first, last in contiguous(list(asked.partitions_subsets_by_asset_key[key].get_partition_keys()))
        ]
    if request.partition_key is not None:
        tags = {
            **{name: text for name, text in tags.items() if name != "dagster/partition"},
            **dict.fromkeys(RANGE, request.partition_key),
        }
    return [(list(request.asset_selection or ()), tags)]


def days_of(requests: list[dg.RunRequest]) -> list[Day]:
    ranges = [[tags[name] for name in RANGE] for request in requests for _, tags in parts_of(request) if RANGE[0] in tags]
    return [day for first, last in ranges for day in day_range(first, last)]


@pytest.fixture
def make_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    instances = []

    def made(top: str, place: str, **more: str) -> Team:
        file = tmp_path / "bank.toml"
        file.write_text(TOML % (top, place))
        root, home = str(tmp_path / "root"), str(tmp_path / "dagster")
        settings = {"ML_ASSETS_CARD_FRAUD_FILES": str(file), "ML_ASSETS_ROOT": root, "DAGSTER_HOME": home, **more}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        instance = open_instance(tmp_path / "dagster")
        instances.append(instance)
        return Team(place=tmp_path, settings=settings, instance=instance)

    yield made
    for instance in instances:
        instance.dispose()


@pytest.fixture
def team(make_team: Any, tmp_path: Path) -> Team:
    (tmp_path / "delivered").mkdir()
    found: Team = make_team('folder = "delivered"', 'files = "{day}.csv"')
    return found


ROWS = own_payments()


def rows_of(day: Day) -> pd.DataFrame:
    return ROWS[ROWS["day"] == day]


def test_exactly_the_days_that_came_are_asked_for_and_once(team: Team) -> None:
    for day in (DAYS[0], DAYS[1], DAYS[3]):
        team.deliver(day, rows_of(day))
    requests = team.tick(DELIVERED)
    assert days_of(requests) == [*DAYS[:2], DAYS[2], DAYS[3]], "a day before the last that has no file had no payments"
    names = {key.path[-1] for request in requests for key in request.asset_selection or ()}
    assert names == {"raw_transactions", "transactions", "rejected_transactions"}
    assert team.tick(DELIVERED) == [], "it is under way"
    assert team.run(requests) == [True]
    assert team.tick(DELIVERED) == []
    assert json.loads(team.cursors[DELIVERED] or "") == {}, "what is done is forgotten"
    assert team.published("transactions") == DAYS[:4]


def test_a_day_that_is_late_or_replaced_is_asked_for_however_old_it_is(team: Team) -> None:
    for day in DAYS:
        team.deliver(day, rows_of(day) if day != DAYS[1] else rows_of(day).head(0))
    team.settle(DELIVERED)
    team.deliver(DAYS[1], rows_of(DAYS[1]))
    team.deliver(DAYS[8], rows_of(DAYS[8]).iloc[1:])
    requests = team.tick(DELIVERED)
    assert days_of(requests) == [DAYS[1], DAYS[8]]
    assert [request.tags["ml_assets/why"] for request in requests] == [
        f"delivered: raw_transactions {DAYS[1]}",
        f"delivered: raw_transactions {DAYS[8]}",
    ]
    team.run(requests)
    assert len(team.store.tables(team.case).read("transactions", [DAYS[1]])) == len(rows_of(DAYS[1]))


def test_many_days_are_asked_for_some_at_a_tick_and_a_restart_loses_none(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DAYS", 4)
    for day in DAYS:
        team.deliver(day, rows_of(day))
    first, second = team.tick(DELIVERED), team.tick(DELIVERED)
    assert (days_of(first), days_of(second)) == (DAYS[:4], DAYS[4:8])
    again = Team(place=team.place, settings=team.settings, instance=team.instance, cursors=dict(team.cursors))
    assert days_of(again.tick(DELIVERED)) == DAYS[8:]
    assert again.tick(DELIVERED) == []
    lost = Team(place=team.place, settings=team.settings, instance=team.instance)
    keys = [request.run_key for request in lost.tick(DELIVERED)]
    assert keys == [request.run_key for request in first], "the daemon knows a run by its key"


def test_a_day_that_cannot_be_made_is_asked_for_again_only_when_its_delivery_changes(team: Team) -> None:
    team.deliver(DAYS[0], rows_of(DAYS[0]))
    (team.place / "delivered" / f"{DAYS[1]}.csv").write_text("nothing,of,ours\n1,2,3\n")
    requests = team.tick(DELIVERED)
    assert days_of(requests) == DAYS[:2]
    team.run(requests)
    assert team.published("raw_transactions") == DAYS[:1]
    assert team.tick(DELIVERED) == []
    assert team.tick(DELIVERED) == []
    team.deliver(DAYS[1], rows_of(DAYS[1]))
    assert days_of(team.tick(DELIVERED)) == [DAYS[1]]


def test_a_source_that_is_down_is_a_failed_tick_and_keeps_no_other_from_being_read(team: Team) -> None:
    team.deliver(DAYS[0], rows_of(DAYS[0]))
    team.settle(DELIVERED)
    team.settle(REPORTED)
    shutil.move(team.place / "delivered", team.place / "away")
    (team.place / "delivered").mkdir()
    with pytest.raises(module.SourceError, match=r"transactions of card_fraud: no file matches \{day\}.csv in .*delivered"):
        team.tick(DELIVERED)
    assert team.settle(FOLLOW_UP), "what is published goes on its way"
    shutil.rmtree(team.place / "delivered")
    shutil.move(team.place / "away", team.place / "delivered")
    assert team.tick(DELIVERED) == []


def test_what_depends_on_a_day_follows_and_nothing_else(team: Team) -> None:
    for day in DAYS:
        team.deliver(day, rows_of(day))
    team.settle(DELIVERED)
    team.settle(REPORTED)
    assert sorted(set(team.settle(FOLLOW_UP))) == DAYS
    assert team.published("features") == DAYS
    assert team.published("scores") == []
    team.deploy()
    assert sorted(set(team.settle(FOLLOW_UP))) == DAYS[3:]
    assert team.published("scores") == DAYS[3:]
    before = {day: entry.version for day, entry in team.store.tables(team.case).ledger("features").items()}
    team.deliver(DAYS[7], rows_of(DAYS[7]).iloc[1:])
    team.settle(DELIVERED)
    assert sorted(set(team.settle(FOLLOW_UP))) == DAYS[7:], "earlier days do not look at it"
    after = {day: entry.version for day, entry in team.store.tables(team.case).ledger("features").items()}
    assert [day for day in DAYS if after[day] != before[day]] == DAYS[7:]
    assert team.tick(FOLLOW_UP) == []


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running_noida() as running:
        yield running


def test_a_payment_in_kafka_is_scored_with_no_hand_and_known_by_its_offset(make_team: Any, broker: Broker) -> None:
    kafka = f'[kafka]\n"bootstrap.servers" = "{broker.settings["bootstrap.servers"]}"'
    team = make_team(kafka, 'topic = "payments"')
    broker.make("payments")
    messages = ROWS.drop(columns="day").to_dict("records")
    broker.send("payments", messages)
    for name in (DELIVERED, REPORTED, FOLLOW_UP):
        team.settle(name)
    team.deploy()
    team.settle(FOLLOW_UP)
    new = {**messages[-1], "id": "the-new-one", "at": f"{DAYS[-1]}T23:59:59Z"}
    begin = time.monotonic()
    broker.send("payments", [new], partitions=1)
    asked = {name: team.settle(name) for name in (DELIVERED, REPORTED, FOLLOW_UP)}
    seconds = time.monotonic() - begin
    assert asked[DELIVERED] == [DAYS[-1]]
    assert set(asked[FOLLOW_UP]) == {DAYS[-1]}
    scores = team.store.tables(team.case).read("scores", [DAYS[-1]])
    assert "the-new-one" in set(scores["event_id"])
    assert seconds < 60
    rows = team.store.tables(team.case).read("transactions", [DAYS[-1]]).set_index("event_id")
    row = rows.loc["the-new-one"]
    assert (row["source_file"], row["source_row"]) == ("payments/0", -(-len(messages) // 2)), "topic, partition and offset"


@contextmanager
def daemon(environment: dict[str, str], log: Path) -> Iterator[None]:
    """Dagster's own, with the project's workspace."""
    command = [*DAGSTER, "dagster._daemon", "run", "-w", str(PROJECT / "workspace.yaml")]
    with log.open("wb") as opened:
        process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=opened, stderr=opened, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def until(true: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.5)


def test_the_daemon_alone_takes_a_payment_from_kafka_to_its_score(
    make_team: Any, broker: Broker, record_property: Callable[[str, object], None]
) -> None:
    kafka = f'[kafka]\n"bootstrap.servers" = "{broker.settings["bootstrap.servers"]}"'
    team = make_team(kafka, 'topic = "by-daemon"')
    broker.make("by-daemon")
    messages = ROWS.drop(columns="day").to_dict("records")
    broker.send("by-daemon", messages)
    for name in (DELIVERED, REPORTED, FOLLOW_UP):
        team.settle(name)
    team.deploy()
    team.settle(FOLLOW_UP)
    runs_before = team.instance.get_runs_count()

    environment = {**os.environ, **team.settings, "DAGSTER_HOME": str(team.instance.root_directory), "PYTHONPATH": str(PROJECT)}
    environment["ML_ASSETS_CASES"] = "card_fraud"
    new = {**messages[-1], "id": "the-new-one", "at": f"{DAYS[-1]}T23:59:59Z"}
    log = team.place / "daemon.log"
    with daemon(environment, log):
        until(lambda: b"SensorDaemon" in log.read_bytes(), seconds=60)
        begin = time.monotonic()
        broker.send("by-daemon", [new], partitions=1)
        until(lambda: "the-new-one" in set(team.store.tables(team.case).read("scores", [DAYS[-1]])["event_id"]), seconds=240)
        record_property("seconds from Kafka to the score", round(time.monotonic() - begin))
        until(lambda: not team.instance.get_runs_count(dg.RunsFilter(statuses=list(IN_PROGRESS_RUN_STATUSES))), seconds=60)
        time.sleep(40)  # a tick, in which nothing more is asked for than pages

    row = team.store.tables(team.case).read("transactions", [DAYS[-1]]).set_index("event_id").loc["the-new-one"]
    assert (row["source_file"], row["source_row"]) == ("by-daemon/0", -(-len(messages) // 2)), "topic, partition and offset"
    runs = team.instance.get_runs()[: team.instance.get_runs_count() - runs_before]
    assert all(run.is_success for run in runs), [run.tags for run in runs]
    of_days = [run for run in runs if not {key.path[-1] for key in run.asset_selection or ()} <= set(pages_of(team.case))]
    assert {run.tags.get(RANGE[0], run.tags.get("dagster/partition")) for run in of_days} == {DAYS[-1]}
    assert sorted(run.tags["dagster/sensor_name"] for run in of_days) == [f"card_fraud__{name}" for name in (FOLLOW_UP, DELIVERED)]
