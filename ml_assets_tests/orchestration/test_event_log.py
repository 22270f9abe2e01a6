"""The batched event log keeps what Dagster's own keeps, shows it while a run goes on, and stays whole when a process is killed."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ml_assets.orchestration.event_log import BatchedEventLog
from ml_assets.orchestration.publish import check_spec, outputs
from ml_assets.use_case import UseCase, day_range
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

CASE: UseCase = FLIGHT_DELAYS
DAYS = day_range("2013-01-01", "2013-04-10")
KEY = dg.AssetKey([CASE.name, "rows"])
PARTITIONS = dg.DailyPartitionsDefinition(start_date=DAYS[0])
CHECK = check_spec(CASE, "rows", "rows_are_good", "", PARTITIONS)
OURS = {"storage": {"custom": {"module": "ml_assets.orchestration.event_log", "class": "BatchedSqliteStorage"}}}

PLANNED = AssetCheckExecutionRecordStatus.PLANNED

Step = Callable[[int], None]


@contextmanager
def instance_in(folder: Path, *, batched: bool = True) -> Iterator[dg.DagsterInstance]:
    """An instance that keeps everything under a folder, with our storage or Dagster's."""
    folder.mkdir(exist_ok=True)
    ours = {"storage": {"custom": {**OURS["storage"]["custom"], "config": {"base_dir": str(folder)}}}}
    with dg.DagsterInstance.local_temp(str(folder), overrides=ours if batched else {}) as instance:
        assert isinstance(instance.event_log_storage, BatchedEventLog) is batched
        yield instance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_in(tmp_path / "home") as made:
        yield made


def run(instance: dg.DagsterInstance, *, halfway: Step = lambda _: None, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    """One step over a hundred days that reports a materialisation and a check result of each; every third check fails."""

    @dg.multi_asset(
        specs=[dg.AssetSpec(KEY, partitions_def=PARTITIONS)], check_specs=[CHECK], backfill_policy=dg.BackfillPolicy.single_run()
    )
    def rows(context: dg.AssetExecutionContext) -> Iterator[Any]:
        for number, day in enumerate(context.partition_keys):
            yield dg.AssetCheckEvaluation(
                asset_key=KEY,
                check_name=CHECK.name,
                partition=day,
                passed=number % 3 != 0,
                metadata={"rows": number},
                blocking=False,
            )
            yield dg.AssetMaterialization(
                KEY, partition=day, metadata={"rows": number}, tags={"dagster/data_version": f"v{number}"}
            )
            halfway(number)
        yield from outputs(CASE.name, "rows", [CHECK])

    tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    return dg.materialize([rows], instance=instance, tags=tags, raise_on_error=raise_on_error)


def kept(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Everything about the asset and its runs that does not depend on the clock or on chance."""
    (run_record,) = instance.get_run_records()
    logs = instance.all_logs(run_record.dagster_run.run_id)
    materialised = instance.fetch_materializations(KEY, limit=1000).records
    checks = instance.event_log_storage.get_asset_check_execution_history(CHECK.key, limit=1000)
    evaluations = [record.event.dagster_event.event_specific_data for record in checks if record.event is not None]
    return {
        "status": run_record.dagster_run.status,
        "types": Counter(str(entry.dagster_event_type) for entry in logs),
        "order": [str(entry.dagster_event_type) for entry in logs],
        "partitions": instance.get_materialized_partitions(KEY),
        "materialised": [
            (record.partition_key, record.asset_materialization.metadata["rows"].value, record.asset_materialization.tags)
            for record in materialised
        ],
        "counted": dict(
            instance.event_log_storage.get_materialized_partitions(KEY) and Counter(r.partition_key for r in materialised)
        ),
        "checks": [(record.status, record.partition) for record in checks],
        "evaluations": [(data.partition, data.passed, data.metadata["rows"].value) for data in evaluations],
        "latest": instance.get_latest_materialization_event(KEY).asset_materialization.partition,
        "versions": instance.event_log_storage.get_latest_tags_by_partition(
            KEY, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
        ),
    }


def test_it_keeps_what_the_stock_event_log_keeps(tmp_path: Path) -> None:
    with instance_in(tmp_path / "ours") as ours, instance_in(tmp_path / "stock", batched=False) as stock:
        run(ours)
        run(stock)
        got, wanted = kept(ours), kept(stock)

    assert got == wanted
    assert got["partitions"] == set(DAYS)
    assert got["types"]["DagsterEventType.ASSET_CHECK_EVALUATION"] == got["types"]["DagsterEventType.ASSET_MATERIALIZATION"] == 100
    assert sorted(got["evaluations"]) == [(day, number % 3 != 0, number) for number, day in enumerate(DAYS)]


def test_another_process_finds_everything_after_the_run(tmp_path: Path) -> None:
    with instance_in(tmp_path / "home") as instance:
        run(instance)
        before = kept(instance)
    with instance_in(tmp_path / "home") as again:
        assert kept(again) == before


def test_a_reader_of_the_same_process_sees_the_step_grow(instance: dg.DagsterInstance) -> None:
    seen: dict[int, tuple[int, int]] = {}

    def look(number: int) -> None:
        if number in (0, 49, 98):
            with ThreadPoolExecutor(1) as pool:
                days = pool.submit(instance.get_materialized_partitions, KEY).result()
            checks = instance.event_log_storage.get_asset_check_execution_history(CHECK.key, limit=1000)
            seen[number] = len(days), len([check for check in checks if check.status is not PLANNED])

    run(instance, halfway=look)

    assert seen == {0: (1, 1), 49: (50, 50), 98: (99, 99)}


def test_nothing_is_stored_one_by_one(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    store = BatchedEventLog._store_together

    def counted(log: BatchedEventLog, events: Any) -> None:
        batches.append(len(events))
        store(log, events)

    monkeypatch.setattr(BatchedEventLog, "_store_together", counted)

    run(instance)

    assert max(batches) == 200


def entry(run_id: str, number: int, *, day: str = DAYS[0]) -> dg.EventLogEntry:
    """An event as a step reports it: a materialisation of a day."""
    from dagster._core.events import DagsterEvent, StepMaterializationData

    event = DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name="job",
        event_specific_data=StepMaterializationData(dg.AssetMaterialization(KEY, partition=day, metadata={"rows": number})),
    )
    return dg.EventLogEntry(
        error_info=None,
        level=20,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key="step",
        job_name="job",
        dagster_event=event,
    )


def numbers(instance: dg.DagsterInstance, run_id: str) -> list[int]:
    logs = instance.event_log_storage.get_logs_for_run(run_id)
    return [log.asset_materialization.metadata["rows"].value for log in logs if log.asset_materialization is not None]


def test_two_threads_store_at_once_and_nothing_is_lost(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage

    def store(run_id: str) -> None:
        for number in range(150):
            storage.store_event(entry(run_id, number, day=DAYS[number % 100]))
            if number % 40 == 0:
                assert instance.get_materialized_partitions(KEY)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(store, ["one", "two", "three"]))

    assert [numbers(instance, run_id) for run_id in ("one", "two", "three")] == [list(range(150))] * 3
    assert len(instance.fetch_materializations(KEY, limit=1000).records) == 450


def test_an_error_in_a_batch_leaves_none_of_it_and_is_raised(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = instance.event_log_storage
    storage.store_event_batch([entry("earlier", 0)])
    prepare = type(storage).prepare_insert_event

    def fails_on_seven(log: Any, event: dg.EventLogEntry) -> Any:
        if event.asset_materialization and event.asset_materialization.metadata["rows"].value == 7:
            raise OSError("disk full")
        return prepare(log, event)

    monkeypatch.setattr(type(storage), "prepare_insert_event", fails_on_seven)

    with pytest.raises(OSError, match="disk full"):
        storage.store_event_batch([entry("failing", number, day=DAYS[number]) for number in range(10)])

    assert numbers(instance, "failing") == []
    assert instance.get_materialized_partitions(KEY) == {DAYS[0]}
    storage.store_event_batch([entry("failing", number, day=DAYS[number]) for number in range(5)])
    assert numbers(instance, "failing") == list(range(5))


def test_a_run_whose_events_cannot_be_stored_does_not_succeed(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BatchedEventLog._store_together

    def fails(log: BatchedEventLog, events: Any) -> None:
        if len(events) > 100:
            raise OSError("disk full")
        store(log, events)

    with monkeypatch.context() as full:
        full.setattr(BatchedEventLog, "_store_together", fails)
        with pytest.raises(OSError, match="disk full"):
            run(instance)

    (failed,) = instance.get_run_records()
    types = {log.dagster_event_type for log in instance.all_logs(failed.dagster_run.run_id)}
    assert failed.dagster_run.status is not dg.DagsterRunStatus.SUCCESS
    assert not types & {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.RUN_SUCCESS}


def test_events_survive_a_reader_who_could_not_store_them(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader writes what waits. When that fails, the step that reported it must not end as if all were well."""
    storage = instance.event_log_storage

    def fails(log: BatchedEventLog, events: Any) -> None:
        raise OSError("database is locked")

    storage.store_event(entry("run", 1))
    with monkeypatch.context() as broken:
        broken.setattr(BatchedEventLog, "_store_together", fails)
        with pytest.raises(OSError, match="locked"):
            instance.get_materialized_partitions(KEY)

    storage.store_event(entry("run", 2))

    assert numbers(instance, "run") == [1, 2]


def test_what_waits_is_written_when_the_instance_is_given_up(tmp_path: Path) -> None:
    with instance_in(tmp_path / "home") as instance:
        instance.event_log_storage.store_event(entry("run", 1))
        with instance_in(tmp_path / "home") as other:
            assert numbers(other, "run") == []
    with instance_in(tmp_path / "home") as again:
        assert numbers(again, "run") == [1]


def test_what_is_reported_outside_a_run_is_there_for_other_processes_at_once(tmp_path: Path) -> None:
    """As by "report materialization" in the UI, or by a script that ends without disposing of its instance."""
    with instance_in(tmp_path / "home") as instance, instance_in(tmp_path / "home") as other:
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition=DAYS[0]))

        assert other.get_materialized_partitions(KEY) == {DAYS[0]}


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("event_log_of_a_killed_process", {file!r})
module = module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)

def die(number):
    if number == {looked}:
        instance.get_materialized_partitions(module.KEY)
    if number == 60:
        os.kill(os.getpid(), signal.SIGKILL)

with module.instance_in(Path({folder!r})) as instance:
    module.run(instance, halfway=die)
"""


@pytest.mark.parametrize("looked", [-1, 30], ids=["nothing stored yet", "a part stored"])
def test_a_step_that_was_killed_can_be_done_again(looked: int, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    script = KILLED.format(file=__file__, folder=str(folder), path=[str(Path(__file__).parents[2])], looked=looked)

    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with instance_in(folder) as instance:
        (dead,) = instance.get_run_records()
        assert dead.dagster_run.status is dg.DagsterRunStatus.STARTED
        types = {log.dagster_event_type for log in instance.all_logs(dead.dagster_run.run_id)}
        assert dg.DagsterEventType.STEP_START in types
        assert not types & {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_OUTPUT}
        assert len(instance.get_materialized_partitions(KEY)) in ((0,) if looked < 0 else (30, 31))
        assert run(instance).success
        assert instance.get_materialized_partitions(KEY) == set(DAYS)
        checks = instance.event_log_storage.get_asset_check_execution_history(CHECK.key, limit=1000)
        assert {check.partition for check in checks if check.status is not PLANNED} == set(DAYS)
