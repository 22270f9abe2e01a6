"""What people are told: of runs that failed, of days that a check kept from being published, of what the gate decided.

Belongs here: what is worth a message, what it says, and that it arrives. Does not: how it is sent (`notices`).

When the function of a run status sensor raises, Dagster fails the tick and moves its cursor on all the same: the run is not looked at
again. So what a way did not take is noted as a tag of the run, and a sensor of its own sends it later, by that way alone.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_assets.notices import NotSentError, RefusedError, Way, run_link, ways
from ml_assets.orchestration.run_notices import RETRY, notice_of
from ml_assets.settings import settings
from ml_assets.use_case import UseCase

FAILED, SUCCEEDED, WAITING = "run_failed", "run_succeeded", "messages_waiting"
"""The sensors."""
EVERY_SECONDS = 10
WAITS, TOLD = "waits", "ml_assets/told"
"""Tags of runs. `ml_assets/webhook` and `ml_assets/email` say that a message waits for that way, or of which run it took one;
`ml_assets/told` is the same of the logs. They name the run since a retry inherits the tags of the run that it tries again."""
_AWAITED = "awaited"
_RETRY_PATIENCE, _PATIENCE = timedelta(minutes=10), timedelta(days=7)
"""So long Dagster may take to start a retry, and so long a message waits for a way that is down."""
_MOST_SECONDS = 20.0
"""Of one tick of the sensor that sends again; Dagster stops a tick after 60."""
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE)
_log = logging.getLogger("ml_assets.alerts")


class AlertError(RuntimeError):
    """A message did not reach everybody yet; the tick fails, and says why. It is sent again."""


def sensors(cases: Sequence[UseCase], *, warnings: Collection[str] = ()) -> Iterator[dg.SensorDefinition]:
    """The sensors of a code location: for runs that failed, for runs that succeeded, for messages that wait.

    They also look at runs of commands, which belong to no code location, and at none without assets of these cases.

    Args:
        warnings: names of checks of which failures of severity WARN are told too.

    Raises:
        ValueError: a setting of a way is not what it should be; the message names it.
    """
    # A wrong setting is said when definitions are loaded, not at the first failure.
    ways(settings())
    run_link(settings(), "")
    teller = _Teller(cases={case.name: case for case in cases}, warnings=frozenset(warnings))

    @dg.run_failure_sensor(
        name=FAILED,
        description="Tells of each run that failed for good: why, what is published and what is not, what to do.",
        monitor_all_code_locations=True,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def failed(context: dg.RunFailureSensorContext) -> None:
        teller.tell(context.instance, context.dagster_run, context.log)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=SUCCEEDED,
        description="Tells of partitions that a check kept from being published, of refusals by the gate, and of promotions.",
        monitor_all_code_locations=True,
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def succeeded(context: dg.RunStatusSensorContext) -> None:
        teller.tell(context.instance, context.dagster_run, context.log)

    @dg.sensor(
        name=WAITING,
        description="Sends again what a way did not take, and tells of failed runs of which the announced retry did not come.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def waiting(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(teller.tell_again(context.instance, context.log))

    yield from (failed, succeeded, waiting)


@dataclass(frozen=True, kw_only=True)
class _Teller:
    cases: Mapping[str, UseCase]
    warnings: frozenset[str]

    def tell(self, instance: dg.DagsterInstance, run: dg.DagsterRun, log: logging.Logger) -> None:
        """Tells what there is to tell of a run, by every way that was not told of it yet.

        Raises:
            AlertError: some way did not take it.
        """
        if _retry_comes(instance, run):
            log.info(f"{run.run_id} failed, and will be tried again")
            instance.add_run_tags(run.run_id, {RETRY: _AWAITED})
            return
        self._tell(instance, run, log)

    def tell_again(self, instance: dg.DagsterInstance, log: logging.Logger) -> str:
        """Sends what waits, the oldest first; what is left to say of a tick that did.

        Raises:
            AlertError: some way is still down.
        """
        sent, failures = 0, list[str]()
        for way in ways(settings()):
            until = time.monotonic() + _MOST_SECONDS
            for run in _waiting(instance, way):
                try:
                    sent += self._once_more(way, instance, run)
                except RefusedError as error:
                    failures.append(_waits(error, run))
                except NotSentError as error:
                    failures.append(_waits(error, run))
                    break
                except Exception as error:  # about one run, which must not hold up the messages about others
                    failures.append(_waits(error, run))
                if time.monotonic() > until:
                    break
        for run in _without_their_retry(instance):
            instance.add_run_tags(run.run_id, {RETRY: run.run_id})
            self._tell(instance, instance.get_run_by_id(run.run_id) or run, log)
        if failures:
            raise AlertError("; ".join(failures))
        return f"{sent} messages sent that waited" if sent else "nothing waits"

    def _tell(self, instance: dg.DagsterInstance, run: dg.DagsterRun, log: logging.Logger) -> None:
        told = ways(settings())
        try:
            notice = notice_of(instance, run, self.cases, self.warnings)
        except Exception:  # whatever it was: Dagster does not come back to this run
            instance.add_run_tags(run.run_id, {_tag(way): WAITS for way in told})
            raise
        if notice is None:
            return
        for each in (log, _log):
            each.log(notice.severity.level, notice.text)
        instance.add_run_tags(run.run_id, {TOLD: run.run_id})
        failures = []
        for way in told:
            if run.tags.get(_tag(way)) == run.run_id:  # it took it in a tick that did not come to its end
                continue
            try:
                # Of many messages one finds out that a way is down: Dagster stops a tick after 60 s.
                if before := len(_waiting(instance, way)):
                    raise NotSentError(f"{way.name}: {before} earlier messages wait too")
                way.send(notice)
            except Exception as error:  # whatever it was, ditto
                instance.add_run_tags(run.run_id, {_tag(way): WAITS})
                failures.append(_waits(error, run))
            else:
                instance.add_run_tags(run.run_id, {_tag(way): run.run_id})
        if failures:
            raise AlertError("; ".join(failures))

    def _once_more(self, way: Way, instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
        """Whether a message that waited was sent; it may be that there is none, or not yet."""
        if _retry_comes(instance, run):
            return False
        notice = notice_of(instance, run, self.cases, self.warnings) if run.status in _ENDED else None
        if notice is not None:
            way.send(notice)
        instance.add_run_tags(run.run_id, {_tag(way): run.run_id})
        return notice is not None


def _waits(error: Exception, run: dg.DagsterRun) -> str:
    said = str(error) if isinstance(error, NotSentError) else f"{type(error).__name__}: {error}"
    return f"{said}. The message about run {run.run_id} waits and is sent again, for {_PATIENCE.days} days"


def _retry_comes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether Dagster will try the run again by itself. Of what a command ran it says so, but does not."""
    if run.status is not dg.DagsterRunStatus.FAILURE or run.remote_job_origin is None:
        return False
    for _ in range(10 if instance.run_retries_enabled else 0):
        if "dagster/will_retry" in run.tags:
            break
        time.sleep(0.1)  # the tag comes just after the event that the sensor heard of
        run = instance.get_run_by_id(run.run_id) or run
    return run.tags.get("dagster/will_retry") == "true"


def _waiting(instance: dg.DagsterInstance, way: Way) -> list[dg.DagsterRun]:
    """Runs of which a way is to be told, the oldest first. A run that goes on inherited the tag from one that it tries again."""
    since = datetime.now(UTC) - _PATIENCE
    runs = instance.get_runs(dg.RunsFilter(tags={_tag(way): WAITS}, created_after=since), ascending=True)
    return [run for run in runs if run.is_finished]


def _without_their_retry(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    now = datetime.now(UTC)
    awaiting = dg.RunsFilter(tags={RETRY: _AWAITED}, statuses=[dg.DagsterRunStatus.FAILURE], created_after=now - _PATIENCE)
    return [
        record.dagster_run
        for record in instance.get_run_records(awaiting)
        if "dagster/auto_retry_run_id" not in record.dagster_run.tags
        and record.dagster_run.tags.get(TOLD) != record.dagster_run.run_id
        and record.end_time is not None
        and record.end_time < (now - _RETRY_PATIENCE).timestamp()
    ]


def _tag(way: Way) -> str:
    return f"ml_assets/{way.name}"
