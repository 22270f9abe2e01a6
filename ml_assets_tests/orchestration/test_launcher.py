"""Runs whose process is gone are missed, and those that work are not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus

from ml_assets.orchestration.launcher import LocalRunLauncher, is_alive
from ml_assets_tests.end_to_end.conftest import open_instance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with open_instance(tmp_path / "dagster") as opened:
        yield opened


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield started
    started.kill()
    started.wait()


@dg.op
def nothing() -> None: ...


@dg.job
def idle() -> None:
    nothing()


def run_of(instance: dg.DagsterInstance, pid: int | None) -> dg.DagsterRun:
    run = instance.create_run_for_job(idle, status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
    return run


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    return instance.run_launcher.check_run_worker_health(run).status


def test_the_launcher_is_that_of_the_project(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_launcher, LocalRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    assert instance.run_monitoring_enabled
    assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)


def test_a_run_is_healthy_while_its_process_is_there(instance: dg.DagsterInstance, process: subprocess.Popen[bytes]) -> None:
    run = run_of(instance, process.pid)
    assert health(instance, run) is WorkerStatus.RUNNING
    process.kill()
    process.wait()
    assert health(instance, run) is WorkerStatus.FAILED
    assert "is gone" in (instance.run_launcher.check_run_worker_health(run).msg or "")


def test_a_run_that_has_not_said_who_works_on_it_is_waited_for(instance: dg.DagsterInstance) -> None:
    assert health(instance, run_of(instance, None)) is WorkerStatus.RUNNING


def test_the_latest_process_counts(instance: dg.DagsterInstance, process: subprocess.Popen[bytes]) -> None:
    run = run_of(instance, process.pid)
    instance.report_engine_event("Executing steps in process", run, EngineEventData.in_process(os.getpid()))
    process.kill()
    process.wait()
    assert health(instance, run) is WorkerStatus.RUNNING


def test_a_dead_child_that_nobody_waited_for_is_dead(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not is_alive(process.pid, time.time())


def test_another_process_with_the_number_of_the_dead_one_is_not_it(process: subprocess.Popen[bytes]) -> None:
    assert is_alive(process.pid, time.time())
    assert not is_alive(process.pid, time.time() - 3600), "it was not there then"
