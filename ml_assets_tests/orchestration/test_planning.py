"""Exactly the right days are stale: those that looked at what changed, and no others. And Dagster is told the same dependencies."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.orchestration import planning
from ml_assets.orchestration.partitions import case_days, case_weeks, days_back, earlier_weeks
from ml_assets.orchestration.planning import Recipe, code_of, expected_inputs, recipes, stale_days
from ml_assets.orchestration.store import Store
from ml_assets.use_case import WHOLE, UseCase, day_range, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS
from ml_assets.use_cases.flight_delays.source import FOLDER

CASE: UseCase = FLIGHT_DELAYS
RECIPES = recipes(CASE)
DAYS = day_range("2013-10-20", "2013-12-20")
CHANGED = "2013-11-10"
SCHEMA = pa.schema(
    [
        *(("event_id", pa.string()), ("event_day", pa.string()), ("known_at", pa.timestamp("us", "UTC"))),
        *(("label", pa.int64()), ("day", pa.string())),
    ]
)


def one_row_a_day(days: list[str], value: int) -> pd.DataFrame:
    """What labels look like; of other tables only the content matters."""
    known_at = pd.to_datetime(pd.Series(days, dtype="str"), utc=True, errors="coerce").dt.as_unit("us")
    return pd.DataFrame({"event_id": days, "event_day": days, "known_at": known_at, "label": value, "day": days}).astype(
        {"label": "int64"}
    )


class World:
    """Tables of one row a day under a folder. `make` publishes days of a table from what is there, as its asset would."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root=str(root))

    def put(self, table: str, days: Iterable[str], *, value: int = 0, inputs: str = "given") -> None:
        days = list(days)
        self.store.tables(CASE).publish(table, one_row_a_day(days, value), schema=SCHEMA, inputs=dict.fromkeys(days, inputs))

    def make(self, table: str, days: list[str] = DAYS) -> None:
        inputs, _ = expected_inputs(CASE, self.store, RECIPES[table], days)
        self.store.tables(CASE).publish(table, one_row_a_day(list(inputs), 0), schema=SCHEMA, inputs=inputs)

    def stale(self, table: str, days: list[str] = DAYS, recipe: Recipe | None = None) -> list[str]:
        return stale_days(CASE, self.store, recipe or RECIPES[table], days)

    def held_back(self, table: str, days: list[str]) -> dict[str, tuple[str, bool]]:
        _, reasons = expected_inputs(CASE, self.store, RECIPES[table], days)
        return {day: (why.reason, why.expected) for day, why in reasons.items()}

    def deploy(self, week: str, threshold: float) -> str:
        version = self.store.models.save(CASE.name, {"model.json": b"{}"}, {"week": week, "threshold": threshold})
        self.store.models.deploy(CASE.name, week, version, {})
        return version


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Clean tables of two months."""
    made = World(tmp_path)
    for table in CASE.daily_tables:
        made.put(table.name, DAYS)
    for table in CASE.dimensions:
        made.put(table.name, [WHOLE])
    return made


@pytest.fixture
def scored(world: World) -> World:
    """Everything up to live performance, with a model in force since 28 October."""
    world.deploy("2013-10-28", 0.1)
    for table in ("labels", "features", "scores", "live_performance"):
        world.make(table)
    return world


def around(day: str, back: int = 0, ahead: int = 0) -> list[str]:
    return [each for each in day_range(shift(day, -back), shift(day, ahead)) if each in DAYS]


# What is stale ----------------------------------------------------------------------------------------------------------------


def test_what_was_never_made_is_stale_and_what_was_made_is_not(world: World) -> None:
    assert world.stale("features") == DAYS

    world.make("features")

    assert world.stale("features") == []
    assert world.stale("labels") == DAYS


@pytest.mark.parametrize(
    ("upstream", "downstream", "ahead"),
    [
        ("flights", "features", CASE.lookback_days),
        ("weather", "features", CASE.lookback_days_of("weather")),
        ("flights", "labels", CASE.label_lookback_days),
    ],
)
def test_a_changed_day_makes_the_days_stale_that_look_back_at_it(upstream: str, downstream: str, ahead: int, world: World) -> None:
    world.make(downstream)

    world.put(upstream, [CHANGED], value=1)

    assert world.stale(downstream) == around(CHANGED, ahead=ahead)
    assert len(world.stale(downstream)) == ahead + 1
    world.make(downstream, world.stale(downstream))
    assert world.stale(downstream) == []


def test_other_days_of_the_labels_are_not_touched_by_the_weather(world: World) -> None:
    world.make("labels")

    world.put("weather", [CHANGED], value=1)

    assert world.stale("labels") == []


def test_a_changed_dimension_makes_all_days_stale(world: World) -> None:
    world.make("features")

    world.put("planes", [WHOLE], value=1)

    assert world.stale("features") == DAYS


def test_the_same_content_made_from_something_else_makes_nothing_stale(world: World) -> None:
    world.make("features")

    world.put("flights", DAYS, inputs="another delivery")

    assert world.stale("features") == []


def test_a_day_of_the_look_back_that_appears_makes_the_days_after_it_stale(world: World) -> None:
    world.make("features")
    before = shift(DAYS[0], -1)

    world.put("flights", [before])

    assert world.stale("features") == DAYS[: CASE.lookback_days]


def test_changed_scores_and_changed_labels_make_performance_stale(scored: World) -> None:
    live = [day for day in DAYS if day >= "2013-10-28"]
    assert scored.stale("live_performance") == []
    assert set(scored.store.tables(CASE).ledger("live_performance")) == set(live)

    scored.put("scores", [CHANGED], value=1)
    assert scored.stale("live_performance") == [CHANGED]
    scored.put("labels", ["2013-11-20"], value=1)

    assert scored.stale("live_performance") == [CHANGED, "2013-11-20"]


def test_another_model_in_force_makes_the_scores_of_its_days_stale(scored: World) -> None:
    scored.deploy("2013-11-18", 0.2)
    assert scored.stale("scores") == [day for day in DAYS if day >= "2013-11-18"]
    scored.make("scores")

    scored.deploy("2013-11-25", 0.3)
    assert scored.stale("scores") == [day for day in DAYS if day >= "2013-11-25"]
    scored.store.models.withdraw(CASE.name, "2013-11-25")

    assert scored.stale("scores") == []


def test_other_code_makes_everything_stale(world: World) -> None:
    world.make("features")

    assert world.stale("features", recipe=replace(RECIPES["features"], code="other")) == DAYS


def test_a_day_of_other_features_is_scored_again(scored: World) -> None:
    scored.put("features", [CHANGED], value=1)

    assert scored.stale("scores") == [CHANGED]


# What is held back ------------------------------------------------------------------------------------------------------------


def test_a_day_that_is_not_published_holds_back_itself_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("flights", [day for day in DAYS if day != CHANGED])
    world.put("weather", [day for day in DAYS if day != "2013-12-01"])
    assert world.held_back("features", DAYS[:1]) == {DAYS[0]: (f"planes {WHOLE} is not published", False)}
    world.put("planes", [WHOLE])

    assert world.held_back("features", DAYS) == {
        CHANGED: (f"flights {CHANGED} is not published", False),
        "2013-12-01": ("weather 2013-12-01 is not published", False),
    }
    assert world.stale("features") == [day for day in DAYS if day not in (CHANGED, "2013-12-01")]
    assert world.held_back("labels", [CHANGED]) == {CHANGED: (f"flights {CHANGED} is not published", False)}


def test_before_the_first_model_nothing_is_wrong(scored: World) -> None:
    reason = "no model was in force on this day"

    assert scored.held_back("scores", ["2013-10-26", "2013-10-27", "2013-10-28"]) == {
        "2013-10-26": (reason, True),
        "2013-10-27": (reason, True),
    }


def test_a_model_without_features_waits_for_them(world: World) -> None:
    world.deploy("2013-10-28", 0.1)

    assert world.held_back("scores", [CHANGED]) == {CHANGED: (f"features {CHANGED} is not published", False)}


def test_performance_waits_for_the_labels(scored: World) -> None:
    scored.store.tables(CASE).publish("labels", one_row_a_day([], 0), schema=SCHEMA, inputs={CHANGED: "y"})

    assert list(scored.held_back("live_performance", around(CHANGED, back=2, ahead=2))) == [CHANGED]
    assert scored.held_back("live_performance", [CHANGED])[CHANGED][1]


# Deliveries and code ----------------------------------------------------------------------------------------------------------


def test_a_new_delivery_makes_its_day_stale_and_a_missing_one_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, files = World(tmp_path / "store"), tmp_path / "files" / "flights"
    files.mkdir(parents=True)
    monkeypatch.setenv(FOLDER, str(files.parent))
    days = ["2013-11-01", "2013-11-02", "2013-11-03"]
    for day in days[:2]:
        (files / f"{day}.csv").write_text("a\n1\n")
    assert world.stale("raw_flights", days) == days
    world.make("raw_flights", days)
    assert world.stale("raw_flights", days) == []

    (files / f"{days[1]}.csv").write_text("a\n2\n")
    (files / f"{days[2]}.csv").write_text("a\n1\n")

    assert world.stale("raw_flights", days) == days[1:]


@pytest.fixture
def module(tmp_path: Path) -> Iterable[ModuleType]:
    file = tmp_path / "made_for_a_test.py"
    file.write_text("def derive(rows):\n    return rows\n")
    spec = importlib.util.spec_from_file_location("made_for_a_test", file)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    yield made
    del sys.modules[spec.name]


def in_a_new_process(hashing: Callable[[], Any]) -> Any:
    """Files are read once a process."""
    for remembered in (planning._hash_of_files, planning._with_imports, planning._imports):
        remembered.cache_clear()
    return hashing()


def test_the_hash_of_code_follows_the_file(module: ModuleType) -> None:
    before = in_a_new_process(lambda: code_of(module))
    assert in_a_new_process(lambda: code_of(module.derive)) == before
    assert in_a_new_process(lambda: code_of(planning, module)) != before
    assert in_a_new_process(lambda: code_of(module, planning)) == in_a_new_process(lambda: code_of(planning, module))

    file = Path(str(module.__file__))
    file.write_text(file.read_text() + "\n")

    assert in_a_new_process(lambda: code_of(module)) != before


def test_the_hash_of_code_follows_what_the_code_imports(module: ModuleType) -> None:
    file = Path(str(module.__file__))
    file.write_text("from ml_assets.stages import windows\n")
    with_windows = in_a_new_process(lambda: planning._with_imports(frozenset({file})))

    assert {path.name for path in with_windows} == {file.name, "windows.py", "__init__.py"}
    assert "windows.py" in {path.name for path in planning._with_imports(frozenset({Path(planning.__file__)}))}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"label": replace(CASE.label, latest_after=2 * CASE.label.latest_after)}, {"labels"}),
        ({"features": replace(CASE.features, columns=CASE.features.columns[::-1])}, {"features", "prediction_log"}),
        ({"tables": (replace(CASE.tables[0], max_rejected_share=0.5), *CASE.tables[1:])}, {CASE.tables[0].name}),
    ],
    ids=["label", "features", "table"],
)
def test_a_changed_declaration_is_other_code(changed: dict[str, Any], wanted: set[str]) -> None:
    before, after = recipes(CASE), recipes(replace(CASE, **changed))

    assert {name for name in before if before[name].code != after[name].code} == wanted


def test_the_derivation_of_a_table_is_part_of_its_code_alone(module: ModuleType) -> None:
    """Whoever looks at the table is made again when its content changes, and not before."""

    def changed() -> dict[str, str]:
        tables = tuple(replace(table, derive=module.derive) if table.name == "weather" else table for table in CASE.tables)
        return {name: recipe.code for name, recipe in recipes(replace(CASE, tables=tables)).items()}

    before = in_a_new_process(changed)
    file = Path(str(module.__file__))
    file.write_text(file.read_text() + "# other\n")
    after = in_a_new_process(changed)

    assert {name for name in before if before[name] != after[name]} == {"weather"}


# Partitions -------------------------------------------------------------------------------------------------------------------


def test_weeks_that_are_not_whole_have_no_model() -> None:
    """Not even the only one, whose key Dagster lists, and whose run it then refuses."""
    first = CASE.split.first_go_live
    weeks = {days: case_weeks(replace(CASE, end=shift(first, days))).get_partition_keys() for days in (1, 6, 7, 13, 14)}
    assert weeks == {1: [], 6: [], 7: [first], 13: [first], 14: [first, shift(first, 7)]}
    assert case_weeks(replace(CASE, end=None)).get_partition_keys()[0] == first


@pytest.mark.parametrize(("weekday", "first"), [(0, "2013-10-28"), (2, "2013-10-30"), (5, "2013-11-02"), (6, "2013-11-03")])
def test_weeks_are_keyed_by_the_day_on_which_a_model_goes_live(weekday: int, first: str) -> None:
    case = replace(CASE, split=replace(CASE.split, weekday=weekday, first_go_live=first))

    keys = case_weeks(case).get_partition_keys()

    assert keys[0] == first
    assert {date.fromisoformat(key).weekday() for key in keys} == {weekday}
    assert [shift(key, 7) for key in keys[:-1]] == keys[1:]
    for day in day_range(first, shift(first, 20)):
        held = case_weeks(case).get_partition_key_for_timestamp(case.starts(day).timestamp())
        assert held == max(key for key in keys if key <= day)


def upstream(mapping: dg.PartitionMapping, *keys: str, of: dg.PartitionsDefinition, on: dg.PartitionsDefinition) -> list[str]:
    asked = of.empty_subset().with_partition_keys(keys)
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(asked, of, on)
    assert not found.required_but_nonexistent_subset.get_partition_keys()
    return sorted(found.partitions_subset.get_partition_keys())


@pytest.mark.parametrize(
    ("day", "back", "ahead", "first", "last"),
    [
        ("2013-01-01", 30, 0, "2013-01-01", "2013-01-01"),
        ("2013-01-03", 30, 0, "2013-01-01", "2013-01-03"),
        ("2013-03-15", 30, 0, "2013-02-13", "2013-03-15"),  # over the change of the clock
        ("2013-11-04", 4, 0, "2013-10-31", "2013-11-04"),
        ("2013-12-30", 0, 4, "2013-12-30", "2013-12-31"),
        ("2013-06-15", 0, 4, "2013-06-15", "2013-06-19"),
        ("2013-06-15", 0, 0, "2013-06-15", "2013-06-15"),
    ],
)
def test_a_day_depends_on_the_days_around_it_that_exist(day: str, back: int, ahead: int, first: str, last: str) -> None:
    days = case_days(CASE)

    assert upstream(days_back(back, ahead=ahead), day, of=days, on=days) == day_range(first, last)


@pytest.mark.parametrize("day", ["2013-01-01", "2013-01-02", "2013-02-01", "2013-03-11", "2013-11-04", "2013-12-31"])
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES.values() if recipe.inputs], ids=lambda recipe: recipe.table)
def test_dagster_is_told_the_days_that_are_looked_at(recipe: Recipe, day: str) -> None:
    days = case_days(CASE)
    existing = set(days.get_partition_keys())

    for each in (each for each in recipe.inputs if not each.whole):
        told = upstream(days_back(each.back, ahead=each.ahead), day, of=days, on=days)
        assert told == [key for key in each.days(day) if key in existing], each.table


def test_a_week_depends_on_the_days_and_weeks_before_it_only() -> None:
    days, weeks = case_days(CASE), case_weeks(CASE)

    assert upstream(earlier_weeks(), "2013-11-11", of=weeks, on=weeks) == ["2013-10-28", "2013-11-04"]
    assert upstream(earlier_weeks(), "2013-10-28", of=weeks, on=weeks) == []
    assert upstream(earlier_weeks(), "2013-11-11", of=weeks, on=days) == day_range("2013-01-01", "2013-11-10")


def test_every_table_of_a_case_has_its_recipe_after_its_inputs() -> None:
    seen: set[str] = set()
    for name, recipe in RECIPES.items():
        assert {each.table for each in recipe.inputs} <= seen, name
        seen.add(name)
    assert json.dumps(sorted(seen)) == json.dumps(
        sorted(
            [
                *(name for table in CASE.tables for name in (table.raw_name, table.name)),
                *("labels", "features", "scores", "live_performance", "online_state", "prediction_log"),
                *("estimated_performance", "drift_report", "performance_report", "shadow_scores"),
            ]
        )
    )
