"""Runs as processes on this machine, which are missed when they die.

Dagster's own launcher does not look after them: a run whose process was killed, as with the daemon or by a power cut, stays *started* for
ever, and whatever waits for it (conditions, the pool `heavy`) waits for ever, too. With this one Dagster's run monitoring marks it failed,
and run retries start it again.
"""

from collections.abc import Iterable

import dagster as dg
import psutil
from dagster._core.events import EngineEventData
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

_CLOCKS_AGREE_SECONDS = 5.0


class LocalRunLauncher(DefaultRunLauncher):
    """`run_launcher` of dagster.yaml."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Unlike Dagster's own."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process that last said that it works on a run is still there; of a run that never said so, nothing is known yet."""
        logs = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        found = last_process(logs)
        if found is None or is_alive(*found):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"process {found[0]} is gone: it was killed, or the machine was")


def last_process(logs: Iterable[dg.EventLogEntry]) -> tuple[int, float] | None:
    """The id of the process that a run was last worked on by, and when it said so, in seconds since the epoch."""
    found = None
    for entry in logs:
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        pid = data.metadata.get("pid") if isinstance(data, EngineEventData) else None
        if pid is not None and str(pid.value).isdecimal():
            found = (int(str(pid.value)), entry.timestamp)
    return found


def is_alive(pid: int, seen_at: float) -> bool:
    """Whether a process that was there at a time still is; another one that has its number since is not it."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= seen_at + _CLOCKS_AGREE_SECONDS
    except psutil.NoSuchProcess:
        return False
