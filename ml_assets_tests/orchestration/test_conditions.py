"""Automation conditions by ticking them: what is asked for, with what, how often, and above all what is not.

Tables hold one row a day, published as their assets would; nothing is computed, so that a tick is all that takes time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor

from ml_assets.clock import replay
from ml_assets.orchestration.conditions import pages_of
from ml_assets.orchestration.partitions import daily_tables_of
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.planning import expected_inputs, recipes
from ml_assets.orchestration.store import Store
from ml_assets.use_case import WHOLE, Day, Monitoring, UseCase, day_range, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

CASE = replace(FLIGHT_DELAYS, start="2013-10-01", end="2013-12-01")
DAYS = day_range("2013-10-05", "2013-10-20")
MODEL_FROM = "2013-10-14"
SCHEMA = pa.schema(
    [
        *(("event_id", pa.string()), ("event_day", pa.string()), ("known_at", pa.timestamp("us", "UTC"))),
        *(("label", pa.int64()), ("day", pa.string())),
    ]
)
DAILY = ("labels", "features", "scores", "estimated_performance", "drift_report", "shadow_scores", "live_performance")


@dataclass(kw_only=True)
class World:
    store: Store
    instance: dg.DagsterInstance
    case: UseCase = CASE
    cursor: AssetDaemonCursor | None = None
    _built: list[tuple[UseCase, dg.Definitions]] = field(default_factory=list)

    @property
    def definitions(self) -> dg.Definitions:
        """Built once for a case, as a code server holds them from tick to tick."""
        if not self._built or self._built[-1][0] is not self.case:
            self._built.append((self.case, build_defs([self.case], store=self.store)))
        return self._built[-1][1]

    def put(self, table: str, days: Iterable[Day], *, value: int = 0, inputs: str = "given") -> None:
        days = list(days)
        known_at = pd.to_datetime(pd.Series(days, dtype="str"), utc=True, errors="coerce").dt.as_unit("us")
        rows = pd.DataFrame({"event_id": days, "event_day": days, "known_at": known_at, "label": value, "day": days})
        made = dict.fromkeys(days, inputs)
        self.store.tables(self.case).publish(table, rows.astype({"label": "int64"}), schema=SCHEMA, inputs=made)

    def clean(self, days: Iterable[Day], *, value: int = 0) -> None:
        for name in ("flights", "weather"):
            self.put(name, days, value=value)

    def make(self, *tables: str, days: Iterable[Day] = DAYS) -> None:
        """Publishes days of tables from what is there, as their assets would."""
        for table in tables:
            inputs, _ = expected_inputs(self.case, self.store, recipes(self.case)[table], list(days))
            for day, made in inputs.items():
                self.put(table, [day], inputs=made)

    def deploy(self, day: Day) -> None:
        manifest = {"week": day, "threshold": 0.5, "test_events": []}
        version = self.store.models.save(self.case.name, {"candidate/model.json": b"{}"}, manifest)
        self.store.models.deploy(self.case.name, day, version, {})

    def tick(self) -> dict[str, list[Day]]:
        """What is asked for, by table; the cursor is kept."""
        names = [*DAILY, "performance_report", "prediction_log", *pages_of(self.case)]
        looked_at = dg.AssetSelection.assets(*([self.case.name, name] for name in names))
        found = dg.evaluate_automation_conditions(self.definitions, self.instance, asset_selection=looked_at, cursor=self.cursor)
        self.cursor = found.cursor
        asked = {name: found.get_requested_partitions(dg.AssetKey([self.case.name, name])) for name in names}
        return {name: sorted(day or WHOLE for day in days) for name, days in asked.items() if days}

    def start(self, table: str, first: Day, last: Day) -> None:
        """A run that does not end."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        self.instance.create_run_for_job(
            job,
            asset_selection=frozenset(dg.AssetKey([self.case.name, name]) for name in daily_tables_of(self.case, [table])),
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            status=dg.DagsterRunStatus.STARTED,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = World(store=Store(root=str(tmp_path)), instance=instance)
        made.put("planes", [WHOLE])
        yield made


def without_pages(asked: dict[str, list[Day]]) -> dict[str, list[Day]]:
    return {name: days for name, days in asked.items() if name not in pages_of(CASE)}


def test_nothing_is_asked_for_where_nothing_is_published(world: World) -> None:
    assert world.tick() == {}


def test_what_depends_on_published_days_is_asked_for_and_once(world: World) -> None:
    world.clean(DAYS)
    assert world.tick() == {"labels": DAYS, "features": DAYS}, "no model, no scores; pages wait for what is coming"
    assert without_pages(world.tick()) == {}, "it was asked for"
    world.make("labels", "features", days=DAYS[:10])
    assert without_pages(world.tick()) == {}, "the others failed, and nothing that they are made from has changed"


def test_what_failed_is_asked_for_again_when_something_that_it_is_made_from_changes(world: World) -> None:
    world.clean(DAYS)
    world.tick()
    world.make("labels", "features", days=DAYS[:-1])
    assert without_pages(world.tick()) == {}
    world.put("weather", [DAYS[-1]], value=1)
    assert without_pages(world.tick()) == {"features": [DAYS[-1]]}


def test_scores_and_monitoring_are_asked_for_together_with_the_features_once_a_model_is_in_force(world: World) -> None:
    world.clean(DAYS)
    world.deploy(MODEL_FROM)
    since = [day for day in DAYS if day >= MODEL_FROM]
    found = world.tick()
    assert found == {"labels": DAYS, "features": DAYS, **dict.fromkeys(("scores", "estimated_performance", "drift_report"), since)}
    world.make("labels", "features", "scores", "estimated_performance", "drift_report")
    settled = [day for day in since if day <= shift(DAYS[-1], -CASE.settled_days)]
    assert set(world.tick()) <= {"live_performance", "performance_report", *pages_of(CASE)}, settled


def test_a_new_day_is_asked_for_alone(world: World) -> None:
    world.clean(DAYS[:-1])
    world.deploy(MODEL_FROM)
    world.tick()
    world.make("labels", "features", "scores", "estimated_performance", "drift_report")
    world.tick()
    world.clean([DAYS[-1]])
    found = without_pages(world.tick())
    assert found.pop("labels") == [DAYS[-1]]
    assert found == {name: [DAYS[-1]] for name in ("features", "scores", "estimated_performance", "drift_report")}


def test_a_day_that_changes_makes_exactly_its_dependants_stale(world: World) -> None:
    world.clean(DAYS)
    world.make("labels", "features")
    assert without_pages(world.tick()) == {}
    world.put("weather", [DAYS[4]], value=1)
    back = CASE.lookback_days_of("weather")
    assert without_pages(world.tick()) == {"features": DAYS[4 : 4 + back + 1]}, "no earlier day, no later one, and no labels"


def test_a_day_that_comes_again_as_it_was_starts_nothing(world: World) -> None:
    world.clean(DAYS)
    world.make("labels", "features")
    world.tick()
    world.clean([DAYS[4]])
    assert without_pages(world.tick()) == {}


def test_late_days_are_left_where_the_case_says_so_and_only_what_is_missing_is_made(world: World) -> None:
    world.case = replace(CASE, monitoring=Monitoring(remake_late=False))
    world.clean([day for day in DAYS if day != DAYS[4]])
    world.make("labels", "features")
    world.tick()
    world.clean([DAYS[4]])
    assert without_pages(world.tick()) == {"labels": [DAYS[4]], "features": [DAYS[4]]}
    world.make("labels", "features", days=[DAYS[4]])
    assert recipes(world.case)["features"].table == "features"
    assert without_pages(world.tick()) == {}


def test_a_day_that_was_refused_holds_up_itself_and_no_later_one(world: World) -> None:
    refused = DAYS[4]
    world.clean([day for day in DAYS if day != refused])
    found = world.tick()
    assert found["features"] == [day for day in DAYS if day != refused], "days after it look back over it"
    world.make("labels", "features")
    assert without_pages(world.tick()) == {}


def test_nothing_is_asked_for_while_it_or_what_it_is_made_from_is_being_made(world: World) -> None:
    world.clean(DAYS)
    world.start("features", DAYS[0], DAYS[3])
    found = world.tick()
    assert found["features"] == DAYS[4:]
    assert found["labels"] == DAYS
    other = replace(world, cursor=None)
    other.start("flights", DAYS[-1], DAYS[-1])
    found = other.tick()
    assert DAYS[-1] not in found["labels"]
    assert DAYS[-1] not in found["features"]
    assert DAYS[5] in found["labels"]


def test_pages_are_asked_for_once_everything_else_is_made(world: World) -> None:
    world.clean(DAYS)
    assert "overview" not in world.tick()
    world.make("labels", "features")
    assert world.tick() == {"overview": [WHOLE]}
    assert world.tick() == {}


def test_a_restart_asks_for_nothing_twice(world: World) -> None:
    """The cursor is all that the daemon keeps; its memory survives being written and read."""
    from dagster._serdes import deserialize_value, serialize_value

    world.clean(DAYS)
    world.tick()
    assert world.cursor is not None
    world.cursor = deserialize_value(serialize_value(world.cursor), AssetDaemonCursor)
    assert without_pages(world.tick()) == {}


def test_assets_of_a_case_that_goes_on_have_to_be_fresh(world: World) -> None:
    def policies(case: UseCase) -> set[str]:
        assets = build_defs([case], store=world.store).resolve_asset_graph().asset_nodes
        return {node.key.path[-1] for node in assets if node.freshness_policy is not None}

    assert policies(CASE) == set(), "it has ended"
    assert policies(replace(CASE, end=None)) == {"features", "scores", "drift_report"}
    replay(world.store.local, CASE, first="2013-10-10", day_seconds=60)
    assert policies(CASE) == {"features", "scores", "drift_report"}, "not by the replayed clock"
