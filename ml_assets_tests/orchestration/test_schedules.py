"""Schedules, the replayed clock and retraining by ticking them: what is asked for at which time, and what is not.

As in `test_conditions`, tables hold one row a day and nothing is computed.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.clock import Clock
from ml_assets.orchestration import schedules
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.retraining import onsets
from ml_assets.orchestration.sensors import RANGE
from ml_assets.orchestration.store import Store
from ml_assets.stages import drift
from ml_assets.storage.tables import Tables
from ml_assets.use_case import Batch, Day, Monitoring, UseCase, day_range, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS
from ml_assets_tests.orchestration.test_conditions import World as Conditions

MONDAY = "2013-11-04"
DAYS = day_range("2013-10-01", "2013-12-01")


class Delivered:
    """A source that has what `days` says."""

    days: dict[Day, str]

    def __init__(self) -> None:
        self.days = {}

    def versions(self, days: list[Day]) -> dict[Day, str]:
        return {day: self.days[day] for day in days if day in self.days}

    def read(self, days: list[Day]) -> Batch:
        raise AssertionError("nothing is read in these tests")


class World(Conditions):
    """The same, with a source of its own and a clock that stands still."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.source = Delivered()
        tables = tuple(replace(table, source=lambda _: self.source) for table in FLIGHT_DELAYS.tables)
        case = replace(FLIGHT_DELAYS, start=DAYS[0], end="2013-12-02", tables=tables)
        super().__init__(
            store=Store(root=str(folder)),
            instance=instance,
            case=replace(case, split=replace(case.split, first_go_live="2013-10-28", minimum_training_days=2, holdout_days=2)),
        )
        self.cursors: dict[str, str | None] = {}

    def at(self, day: Day, hour: float = 6.0) -> None:
        """It is this time where the case lives, and an hour from now not yet another day."""
        shows = self.case.starts(day) + timedelta(hours=hour)
        clock = Clock(begun=datetime.now(UTC).isoformat(), shows=shows.isoformat(), day_seconds=86_400)
        file = Path(self.store.root) / "clock" / "flight_delays.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(asdict(clock)))

    @cached_property
    def repository(self) -> dg.RepositoryDefinition:
        return build_defs([self.case], store=self.store).get_repository_def()

    def sensor(self, name: str) -> list[dg.RunRequest]:
        repository = self.repository
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursors.get(name), repository_def=repository, resources={"store": self.store}
        )
        found = repository.get_sensor_def(f"flight_delays__{name}").evaluate_tick(context)
        self.skipped = found.skip_message
        self.cursors[name] = found.cursor or self.cursors.get(name)
        return list(found.run_requests or ())

    def schedule(self, name: str) -> list[dg.RunRequest]:
        repository = self.repository
        context = dg.build_schedule_context(self.instance, repository_def=repository, resources={"store": self.store})
        found = repository.get_schedule_def(f"flight_delays__{name}").evaluate_tick(context)
        self.skipped = found.skip_message
        return list(found.run_requests or ())

    def report(self, day: Day, *, version: str = "v", promoted: bool = False) -> None:
        content = {
            "decision": {"promoted": promoted, "champion_before": None, "champion_after": None},
            "candidate": {"version": version},
        }
        self.store.models.save_report(self.case.name, day, json.dumps(content), None, {})

    def drifted(self, days: list[Day], since: Day | None) -> None:
        rows = pd.DataFrame(
            {
                "feature": drift.SCORE,
                "drifted": [int(since is not None and day >= since) for day in days],
                "importance": 0.0,
                "day": days,
            }
        )
        schema = pa.schema([("feature", pa.string()), ("drifted", pa.int64()), ("importance", pa.float64()), ("day", pa.string())])
        self.tables.publish("drift_report", rows, schema=schema, inputs=dict.fromkeys(days, "given"))

    @property
    def tables(self) -> Tables:
        return self.store.tables(self.case)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(tmp_path, instance)


def days_of(requests: list[dg.RunRequest], table: str) -> list[Day]:
    ours = [request for request in requests if dg.AssetKey(["flight_delays", table]) in (request.asset_selection or ())]
    return [day for request in ours for day in day_range(*(request.tags[name] for name in RANGE))]


def asked(case: UseCase, name: str) -> Any:
    return next(due for due in schedules.due_of(case) if due.name == name)


# The night's ingest -----------------------------------------------------------------------------------------------------------


def test_a_day_that_did_not_come_is_tried_so_that_it_is_seen(world: World) -> None:
    world.at(MONDAY, 2)
    yesterday = shift(MONDAY, -1)
    world.source.days = {day: "1" for day in DAYS if day < yesterday}
    found = world.schedule("nightly_ingest")
    assert found == []
    assert "replayed" in (world.skipped or ""), "a replayed clock has a sensor of its own"
    requests = asked(world.case, "nightly_ingest").ask(world.case, world.store, world.instance)
    assert days_of(requests, "raw_flights")[-1] == yesterday
    assert MONDAY not in days_of(requests, "raw_flights"), "it is not over"


def test_the_night_asks_for_two_weeks_and_not_for_all_that_ever_failed(world: World) -> None:
    world.at(MONDAY, 2)
    requests = asked(world.case, "nightly_ingest").ask(world.case, world.store, world.instance)
    assert days_of(requests, "raw_flights") == day_range(shift(MONDAY, -14), shift(MONDAY, -1))
    assert {request.tags["ml_assets/why"].split(":")[0] for request in requests} == {"nightly ingest"}


def test_what_is_under_way_is_not_asked_for_again(world: World) -> None:
    world.at(MONDAY, 2)
    ask = asked(world.case, "nightly_ingest").ask
    (request,) = [each for each in ask(world.case, world.store, world.instance) if days_of([each], "raw_flights")]
    job = build_defs([world.case], store=world.store).resolve_implicit_global_asset_job_def()
    world.instance.create_run_for_job(
        job,
        asset_selection=frozenset(request.asset_selection or ()),
        tags={**request.tags, RANGE[0]: shift(MONDAY, -3), RANGE[1]: shift(MONDAY, -1)},
        status=dg.DagsterRunStatus.STARTED,
    )
    again = ask(world.case, world.store, world.instance)
    assert days_of(again, "raw_flights") == day_range(shift(MONDAY, -14), shift(MONDAY, -4))
    assert days_of(again, "raw_weather") == day_range(shift(MONDAY, -14), shift(MONDAY, -1)), "another table is"


def test_what_is_made_from_what_is_delivered_is_not_asked_for(world: World) -> None:
    world.at(MONDAY, 2)
    world.source.days = {day: "1" for day in DAYS if day < MONDAY}
    for table in ("raw_flights", "raw_weather", "flights", "weather"):
        world.make(table, days=[day for day in DAYS if day < MONDAY])
    requests = asked(world.case, "nightly_ingest").ask(world.case, world.store, world.instance)
    assert days_of(requests, "raw_flights") == days_of(requests, "raw_weather") == []


# Scores -----------------------------------------------------------------------------------------------------------------------


def test_the_scores_of_the_night_are_those_that_are_missing(world: World) -> None:
    world.at(MONDAY, 5)
    before = [day for day in DAYS if day < MONDAY]
    world.put("planes", ["all"])
    world.clean(before)
    world.make("labels", "features", days=before[:-2])
    requests = asked(world.case, "nightly_scores").ask(world.case, world.store, world.instance)
    assert days_of(requests, "features") == before[-2:]
    world.make("labels", "features", days=before)
    assert asked(world.case, "nightly_scores").ask(world.case, world.store, world.instance) == []


# The week's model -------------------------------------------------------------------------------------------------------------


def ready(world: World, *, until: Day) -> None:
    days = [day for day in DAYS if day <= until]
    world.put("planes", ["all"])
    world.clean(days)
    world.make("labels", "features", days=days)


def test_the_model_of_the_week_waits_for_the_day_before_it_until_noon(world: World) -> None:
    ask = asked(world.case, "weekly_training").ask
    ready(world, until=shift(MONDAY, -2))
    world.at(MONDAY, 4)
    assert ask(world.case, world.store, world.instance) == []
    world.at(MONDAY, 12.1)
    (late,) = ask(world.case, world.store, world.instance)
    assert late.partition_key == MONDAY
    world.at(MONDAY, 4)
    ready(world, until=shift(MONDAY, -1))
    (request,) = ask(world.case, world.store, world.instance)
    assert request.partition_key == MONDAY
    assert {key.path[-1] for key in request.asset_selection or ()} == {"candidate_model", "evaluation_report", "deployed_model"}
    assert request.run_key != late.run_key, "it is another model"
    assert [each.run_key for each in ask(world.case, world.store, world.instance)] == [request.run_key], "Dagster starts it once"


def test_no_model_is_asked_for_where_there_is_too_little(world: World) -> None:
    world.at(MONDAY, 13)
    assert asked(world.case, "weekly_training").ask(world.case, world.store, world.instance) == []


def test_by_the_real_time_a_case_that_has_ended_has_nothing_due(world: World) -> None:
    world.source.days = {}
    for name in ("nightly_ingest", "nightly_scores", "weekly_training"):
        requests = asked(world.case, name).ask(world.case, world.store, world.instance)
        assert [request for request in requests if RANGE[0] in request.tags or request.partition_key] == [], name


# The replayed clock -----------------------------------------------------------------------------------------------------------


def test_the_replayed_clock_asks_at_its_hours_and_once_a_day(world: World) -> None:
    assert world.sensor("replayed_schedules") == []
    assert "real time" in (world.skipped or "")
    world.at(MONDAY, 21)
    assert world.sensor("replayed_schedules") == [], "sensors come first"
    world.at(MONDAY, 22.1)
    assert days_of(world.sensor("replayed_schedules"), "raw_flights")[-1] == shift(MONDAY, -1)
    assert world.sensor("replayed_schedules") == []
    world.at(MONDAY, 23)
    assert world.sensor("replayed_schedules") == []
    world.at(shift(MONDAY, 1), 22.1)
    assert days_of(world.sensor("replayed_schedules"), "raw_flights")[-1] == MONDAY


def test_the_replayed_week_is_asked_for_when_it_is_ready_and_not_before(world: World) -> None:
    ready(world, until=shift(MONDAY, -2))
    world.at(MONDAY, 6)
    assert not [request for request in world.sensor("replayed_schedules") if request.partition_key]
    ready(world, until=shift(MONDAY, -1))
    assert [request.partition_key for request in world.sensor("replayed_schedules") if request.partition_key] == [MONDAY]
    assert world.sensor("replayed_schedules") == []


def test_in_a_replay_nothing_is_delivered_before_it_is_over(world: World) -> None:
    world.source.days = dict.fromkeys(DAYS, "1")
    world.at(MONDAY, 6)
    assert days_of(world.sensor("flights_delivered"), "raw_flights")[-1] < MONDAY
    while days_of(world.sensor("flights_delivered"), "raw_flights"):
        pass
    world.at(shift(MONDAY, 1), 0.1)
    assert days_of(world.sensor("flights_delivered"), "raw_flights") == [MONDAY]


# Retraining -------------------------------------------------------------------------------------------------------------------


def test_each_onset_starts_one_model_and_only_one(world: World) -> None:
    thursday = shift(MONDAY, 3)
    ready(world, until=shift(thursday, -1))
    world.report(MONDAY)
    world.at(thursday, 6)
    world.drifted(day_range(MONDAY, shift(thursday, -2)), None)
    assert world.sensor("retrain") == []
    world.drifted([shift(thursday, -1)], thursday[:-2] + "01")
    (request,) = world.sensor("retrain")
    assert request.partition_key == MONDAY
    assert request.tags["ml_assets/retrain"] == thursday
    assert request.tags["ml_assets/why"] == f"retraining: drift since {shift(thursday, -1)}"
    assert world.sensor("retrain") == [], "the same onset"
    world.drifted([thursday], thursday)
    world.at(shift(thursday, 1), 6)
    ready(world, until=thursday)
    assert world.sensor("retrain") == [], "it goes on, and is the same onset"


def test_an_onset_waits_for_the_features_of_yesterday(world: World) -> None:
    thursday = shift(MONDAY, 3)
    ready(world, until=shift(thursday, -2))
    world.report(MONDAY)
    world.at(thursday, 6)
    world.drifted(day_range(MONDAY, shift(thursday, -1)), shift(thursday, -1))
    assert world.sensor("retrain") == []
    assert "waiting for features and labels" in (world.skipped or "")
    ready(world, until=shift(thursday, -1))
    assert len(world.sensor("retrain")) == 1


@pytest.mark.parametrize(
    ("today", "report", "why"),
    [
        (shift(MONDAY, 7), None, "the week's own model is due today"),
        (shift(MONDAY, 9), shift(MONDAY, 7), "a model was decided on since"),
        (shift(MONDAY, 25), None, "it is history"),
    ],
)
def test_an_onset_that_something_else_takes_care_of_starts_nothing(world: World, today: Day, report: Day | None, why: str) -> None:
    ready(world, until=shift(today, -1))
    world.report(MONDAY)
    if report:
        world.report(report)
    world.drifted(day_range(MONDAY, shift(MONDAY, 6)), shift(MONDAY, 5))
    world.at(today, 6)
    assert world.sensor("retrain") == [], why


def test_a_case_may_do_without(world: World) -> None:
    world.case = replace(world.case, monitoring=Monitoring(retrain=False))
    names = {sensor.name for sensor in build_defs([world.case], store=world.store).get_repository_def().sensor_defs}
    assert "flight_delays__retrain" not in names


@pytest.mark.parametrize(
    ("alarms", "found"),
    [
        ([], []),
        (["2013-01-05"], ["2013-01-05"]),
        (["2013-01-05", "2013-01-06", "2013-01-12"], ["2013-01-05"]),
        (["2013-01-05", "2013-01-13"], ["2013-01-05", "2013-01-13"]),
    ],
)
def test_onsets(alarms: list[Day], found: list[Day]) -> None:
    assert onsets(alarms, quiet_days=7) == found
