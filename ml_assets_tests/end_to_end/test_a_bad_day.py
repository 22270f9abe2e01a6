"""One bad day in a range: it is stopped and named, the others go on, and once it is repaired nothing of it remains.

Also guards the private constant of Dagster on which this rests (docs/adr/0002-a-bad-day-blocks-itself.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import dagster as dg
import pandas as pd
import pytest

from ml_assets.orchestration.conditions import pages_of
from ml_assets.orchestration.publish import described, outputs
from ml_assets.orchestration.rounds import AFTER_DEPLOYMENT, Runner, bring_up_to_date
from ml_assets.orchestration.weeks import WEEKLY
from ml_assets.use_case import day_range, shift

BAD = "2013-02-06"
EARLIER = "2013-02-03"
"""Up to then `make_world(since="earlier")` has everything."""
FIRST, LAST = "2013-02-04", "2013-02-17"
"""What is made in one run; all before is there already."""
DAYS = day_range(FIRST, LAST)
WEATHER = ("raw_weather", "weather", "rejected_weather")
RAW, CLEAN = ("raw_flights",), ("flights", "rejected_flights")
LATER = ("labels", "features", "scores")
DAILY = (*RAW, *CLEAN, *WEATHER, *LATER, "live_performance")
MODELS = ("models", "reports", "weeks", "deployments")
ARRIVED, ACCOUNTED = "every_delivered_row_arrived", "every_row_is_accounted_for"


def edited(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[bytes], bytes]:
    """Does something to the rows of a file, as text."""

    def edit_file(content: bytes) -> bytes:
        header, *lines = content.decode().splitlines()
        rows = pd.DataFrame([line.split(",") for line in lines], columns=header.split(","))
        return edit(rows).to_csv(index=False).encode()

    return edit_file


def some(column: str, value: str) -> Callable[[bytes], bytes]:
    """That value in the third and in the fifth row."""
    return edited(lambda rows: rows.assign(**{column: rows[column].where(~rows.index.isin([2, 4]), value)}))


def truncated(content: bytes) -> bytes:
    """The last row ends after its third field."""
    start = content.rstrip().rindex(b"\n") + 1
    return content[:start] + b",".join(content[start:].split(b",")[:3])


@dataclass(frozen=True)
class Rejects:
    """Two rows are rejected for this reason; the day goes on without them."""

    poison: Callable[[bytes], bytes]
    reason: str
    rows: tuple[int, ...] = (3, 5)
    good_rows_are_missing: bool = True
    repaired: bool = False
    """Whether the test goes on to the repair, which is alike for some."""


@dataclass(frozen=True)
class Blocks:
    """The day stops at this table, for a reason of which these are parts."""

    poison: Callable[[bytes], bytes] | None
    table: str
    check: str
    says: tuple[str, ...]
    repaired: bool = False


REJECTS = {
    "nulls in two rows": Rejects(some("carrier", ""), "carrier: missing", repaired=True),
    "two rows twice": Rejects(
        edited(lambda rows: pd.concat([rows, rows.iloc[[2, 4]]])), f"duplicate of row 3 of flights/{BAD}.csv", (-2, -1), False, True
    ),
    "a negative distance": Rejects(some("distance", "-17"), "distance: -17 is below 1"),
    "a text for a number": Rejects(some("flight", "first"), "flight: 'first' is not a whole number"),
}
BLOCKS = {
    "nulls in all rows": Blocks(
        edited(lambda rows: rows.assign(carrier="")),
        "flights",
        ACCOUNTED,
        ("rejected", "at most 5", "row 1: carrier: missing"),
        True,
    ),
    "a missing file": Blocks(None, "raw_flights", ARRIVED, ("no file", f"{BAD}.csv", "deliver it"), True),
    "a truncated file": Blocks(truncated, "raw_flights", ARRIVED, ("row ", "expected 19 fields, got 3")),
    "not even text": Blocks(lambda content: content[:500] + b"\xff" + content[501:], "raw_flights", ARRIVED, ("row ", "not UTF-8")),
}


def bad_world(make_world, poison):
    """A world with models, and a delivery in which one day is poisoned; the good bytes of that day."""
    world = make_world(own_delivery=True, since="earlier", given=MODELS)
    for week in (FIRST, "2013-02-11"):
        for name in WEEKLY:
            told = dg.AssetMaterialization([world.case.name, name], partition=week)
            world.instance.report_runless_asset_event(told)
    file = world.file(BAD)
    good = file.read_bytes()
    if poison is None:
        file.unlink()
    else:
        assert poison(good) != good
        file.write_bytes(poison(good))
    return world, good


def red(result, *names: str) -> set[tuple[str, str | None]]:
    """Tables and partitions with a failed check of severity ERROR."""
    found = {(check.asset_key.path[-1], check.partition) for check in result.checks if not check.passed and is_error(check)}
    return {(name, day) for name, day in found if not names or name in names}


def is_error(check: dg.AssetCheckEvaluation) -> bool:
    return check.severity is dg.AssetCheckSeverity.ERROR


def published(world, name: str) -> set[str]:
    """Days of the range that are published, which are those that Dagster calls materialised."""
    days = set(world.tables.ledger(name, DAYS))
    assert world.partitions(name) & set(DAYS) == days, name
    return days


def seen_by(world, back: int) -> set[str]:
    """The bad day and the days that look back at it."""
    return {day for day in day_range(BAD, shift(BAD, back)) if day <= LAST}


def materialized_by(world, run_ids: list[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for run_id in run_ids:
        for entry in world.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            found.setdefault(entry.dagster_event.asset_key.path[-1], set()).add(entry.dagster_event.partition)
    return found


def repair(world, good: bytes, undisturbed, *, changes_flights: bool) -> None:
    """Delivers the good file and brings all up to date: made again is what saw the bad day, and all is as if nothing had been."""
    before = {name: world.tables.ledger(name) for name in DAILY}
    # The run over the bad day made `DAILY`; what else watches the model is made now, and a run makes the same days of its whole line.
    not_watched = set(before["scores"]) - set(world.tables.ledger("estimated_performance"))
    world.file(BAD).write_bytes(good)
    runner = world.bring_up_to_date()
    after = {name: world.tables.ledger(name) for name in DAILY}
    changed = {name: {day for day, entry in after[name].items() if before[name].get(day) != entry} for name in DAILY}
    new_content = {
        name: {day for day in changed[name] if day not in before[name] or before[name][day].content != after[name][day].content}
        for name in DAILY
    }
    labels_back, features_back = (world.case.label_lookback_days, world.case.lookback_days) if changes_flights else (-1, -1)
    assert {name: changed[name] for name in DAILY if name != "live_performance"} == {
        **{name: {BAD} for name in (*RAW, *CLEAN)},
        **{name: set() for name in WEATHER},
        "labels": seen_by(world, labels_back),
        "features": seen_by(world, features_back),
        "scores": new_content["features"],
    }
    # A run makes the same days of all of its tables, so some are made that did not have to be; none lies outside of what saw the day.
    made = materialized_by(world, [result.run_id for result in runner.results])
    assert made.pop("raw_flights") == made.pop("flights") == made.pop("rejected_flights") == {BAD}
    assert all(made.pop(name, set()) <= {BAD} for name in WEATHER)
    assert made.pop("features") <= seen_by(world, max(features_back, 0))
    assert made.pop("labels") <= seen_by(world, max(features_back, 0))
    # Live performance waits for labels, those of the days just before the range too.
    awaited = set(day_range(shift(FIRST, -world.case.label_lookback_days), BAD))
    assert all(made.pop(name, {None}) == {None} for name in pages_of(world.case))
    assert made.keys() <= set(chain.from_iterable(AFTER_DEPLOYMENT))
    # What looks at windows is made in a run of its own, for all days of them.
    windows = day_range(min(awaited), shift(max(seen_by(world, features_back) | {BAD}), world.case.monitoring.window_days))
    assert all(made.pop(name, set()) <= {*windows, *not_watched} for name in ("drift_report", "performance_report"))
    made.pop("shadow_scores", None)  # by the candidates of later weeks, which learned from other days now
    allowed = awaited | seen_by(world, features_back) | not_watched
    assert {name: days - allowed for name, days in made.items()} == {name: set() for name in made}
    assert not any(result.failed for result in runner.results)
    assert world.contents() == undisturbed.contents()
    assert {name: world.partitions(name) for name in DAILY} == {name: undisturbed.partitions(name) for name in DAILY}


@pytest.mark.parametrize("bad", REJECTS.values(), ids=REJECTS)
def test_bad_rows_are_rejected_by_name_and_their_day_goes_on(make_world, undisturbed, bad: Rejects):
    world, good = bad_world(make_world, bad.poison)
    result = world.runner().run(DAILY, FIRST, LAST, title="a range with bad rows")

    rejected = world.tables.read("rejected_flights")
    count = world.tables.ledger("raw_flights")[BAD].rows
    rows = [row if row > 0 else count + row + 1 for row in bad.rows]
    assert rejected["day"].tolist() == [BAD, BAD]
    assert rejected["source_row"].tolist() == rows
    assert rejected["reason"].iloc[0] == bad.reason
    (said,) = [check for check in result.checks if check.check_name == ACCOUNTED and check.partition == BAD and not check.passed]
    assert not is_error(said)
    assert f"row {rows[0]}: {bad.reason}" in described(said)

    assert red(result, *RAW, *CLEAN, *WEATHER, "labels", "features") == set()
    for name in (*RAW, *CLEAN, *WEATHER, *LATER):
        assert published(world, name) == set(DAYS), name
    all_rows = undisturbed.tables.ledger("flights")
    left = {day: entry.rows + (-2 if day == BAD and bad.good_rows_are_missing else 0) for day, entry in all_rows.items()}
    for name in ("flights", "features"):
        assert {day: entry.rows for day, entry in world.tables.ledger(name).items()} == left, name

    if bad.repaired:
        repair(world, good, undisturbed, changes_flights=bad.good_rows_are_missing)


@pytest.mark.parametrize("bad", BLOCKS.values(), ids=BLOCKS)
def test_a_bad_day_blocks_itself_and_no_other(make_world, undisturbed, bad: Blocks):
    world, good = bad_world(make_world, bad.poison)
    result = world.runner().run(DAILY, FIRST, LAST, title="a range with a bad day")

    failed = [check for check in result.checks if check.asset_key.path[-1] == bad.table and check.check_name == bad.check]
    (said,) = [check for check in failed if not check.passed and is_error(check)]
    assert said.partition == BAD
    for part in bad.says:
        assert part in described(said)
    stopped = (*(RAW if bad.table == "raw_flights" else ()), "flights", *LATER)
    assert red(result, *RAW, *CLEAN, *WEATHER, *LATER) >= {(name, BAD) for name in stopped}
    assert {day for _, day in red(result, *RAW, *CLEAN, *WEATHER, *LATER)} == {BAD}

    for name in stopped:
        assert published(world, name) == set(DAYS) - {BAD}, name
        assert BAD not in set(world.tables.read(name)["day"]), name
    for name in WEATHER:
        assert published(world, name) == set(DAYS), name
    assert BAD not in world.partitions("live_performance")
    assert BAD not in world.tables.ledger("live_performance")
    for name in ("flights", *LATER):
        assert not world.tables.read(name)["event_id"].str.startswith(BAD.replace("-", "")).any(), name
    untouched = day_range(FIRST, shift(BAD, -1))
    assert {day: world.contents("features")["features"][day] for day in untouched} == {
        day: undisturbed.contents("features")["features"][day] for day in untouched
    }

    if bad.repaired:
        repair(world, good, undisturbed, changes_flights=True)


def test_a_bad_day_does_not_stop_training_and_ends_well(make_world):
    """The same by `bring_up_to_date` alone, with a bad day that the first model is trained on."""
    undisturbed, world = make_world(name="undisturbed", since="earlier"), make_world(own_delivery=True)
    file = world.file("2013-01-20")
    good = file.read_bytes()
    file.unlink()
    runner = brought_up_to(EARLIER, world)
    assert {check.partition for result in runner.results for check in result.failed} == {"2013-01-20"}
    assert world.partitions("features") == undisturbed.partitions("features") - {"2013-01-20"}
    assert world.partitions("evaluation_report") == undisturbed.partitions("evaluation_report") != set()
    assert world.partitions("scores") == undisturbed.partitions("scores") != set()
    assert world.store.models.deployments(world.case.name) != undisturbed.store.models.deployments(world.case.name)

    file.write_bytes(good)
    runner = brought_up_to(EARLIER, world)
    assert not any(result.failed for result in runner.results)
    assert world.contents() == undisturbed.contents()
    assert world.store.models.deployments(world.case.name) == undisturbed.store.models.deployments(world.case.name)
    assert brought_up_to(EARLIER, world).results == []


def brought_up_to(last: str, world) -> Runner:
    runner = world.runner()
    bring_up_to_date(runner, last=last)
    return runner


def test_an_output_reported_elsewhere_releases_what_comes_next_and_materialises_nothing():
    """Guards SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: if this fails after an upgrade of Dagster, read ADR 2."""
    days = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-04")

    def asset(name: str, deps: list[dg.AssetDep], good: set[str]) -> dg.AssetsDefinition:
        spec = dg.AssetSpec(["case", name], deps=deps, partitions_def=days)

        @dg.multi_asset(name=name, specs=[spec], backfill_policy=dg.BackfillPolicy.single_run())
        def step(context: dg.AssetExecutionContext):
            ran.append(name)
            for day in sorted(good & set(context.partition_keys)):
                yield dg.AssetMaterialization(["case", name], partition=day)
            yield from outputs("case", name, [])

        return step

    ran: list[str] = []
    first = asset("first", [], {"2024-01-01", "2024-01-03"})
    second = asset("second", [dg.AssetDep(["case", "first"])], {"2024-01-01"})
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[first, second]).resolve_implicit_global_asset_job_def()
        bounds = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-03"}
        outcome = job.execute_in_process(instance=instance, tags=bounds)
        materialized = {name: instance.get_materialized_partitions(dg.AssetKey(["case", name])) for name in ("first", "second")}
    assert outcome.success
    assert ran == ["first", "second"]
    assert materialized == {"first": {"2024-01-01", "2024-01-03"}, "second": {"2024-01-01"}}
    events = [event for event in outcome.all_events if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION]
    assert len(events) == 3
    assert not [event for event in outcome.all_events if event.event_type is dg.DagsterEventType.STEP_SKIPPED]
