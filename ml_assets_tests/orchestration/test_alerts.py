"""What people are told, by ticking the sensors over real runs, with a real webhook and a real mail server; and what they are not told.

One run is of the real pipeline. The others are of stand-ins that report as its assets do, so that a test takes no second.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from ml_assets import notices
from ml_assets.notices import EMAIL, UI_URL, WEBHOOK
from ml_assets.orchestration import alerts
from ml_assets.orchestration.alerts import FAILED, SUCCEEDED, WAITING, AlertError
from ml_assets.orchestration.partitions import case_days, case_weeks
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.publish import check_spec, evaluation, outputs
from ml_assets.orchestration.rounds import Runner
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weekly import GATE
from ml_assets.orchestration.weeks import DEPLOYED, REPORT
from ml_assets.use_case import UseCase, day_range
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS
from ml_assets.use_cases.flight_delays.source import FOLDER
from ml_assets_tests.end_to_end.conftest import open_instance, write_delivery
from ml_assets_tests.receivers import Mails, Posts, running_mail, running_webhook

CASE = replace(FLIGHT_DELAYS, start="2013-01-01", end="2013-02-18", split=replace(FLIGHT_DELAYS.split, first_go_live="2013-01-28"))
DAYS = day_range("2013-01-01", "2013-01-05")
CHECK, WEEK = "values_are_sound", "2013-01-28"
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
Body = Callable[[dg.AssetExecutionContext], Iterator[Any]]


def stand_in(name: str, body: Body, *, check: str = CHECK, case: UseCase = CASE, deps: Sequence[str] = ()) -> dg.AssetsDefinition:
    """An asset of a case that reports what `body` yields."""
    partitions = case_weeks(case) if name in (REPORT, DEPLOYED) else case_days(case)
    spec = check_spec(case, name, check, "Stands in.", partitions)

    @dg.multi_asset(
        name=f"{case.name}__{name}",
        specs=[
            dg.AssetSpec([case.name, name], partitions_def=partitions, skippable=True, deps=[[case.name, each] for each in deps])
        ],
        check_specs=[spec],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from body(context)

    return step


def made(name: str, *partitions: str, case: UseCase = CASE, **metadata: Any) -> Iterator[dg.AssetMaterialization]:
    for each in partitions:
        yield dg.AssetMaterialization([case.name, name], partition=each, metadata=metadata)


def checked(
    name: str, partition: str, says: str, *, severity: dg.AssetCheckSeverity = ERROR, check: str = CHECK, case: UseCase = CASE
) -> dg.AssetCheckEvaluation:
    spec = check_spec(case, name, check, "", None)
    return evaluation(spec, partition, {}, passed=says == "", severity=severity, description=says, metadata={})


def ended(name: str, check: str = CHECK, case: UseCase = CASE) -> Iterator[dg.Output[None]]:
    yield from outputs(case.name, name, [check_spec(case, name, check, "", None)])


def good(name: str, *, days: Sequence[str] = DAYS, case: UseCase = CASE) -> dg.AssetsDefinition:
    def body(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made(name, *days, case=case)
        yield from (checked(name, day, "", case=case) for day in days)
        yield from ended(name, case=case)

    return stand_in(name, body, case=case)


def red(name: str, day: str, says: str = "9 rows of 10 are gone") -> dg.AssetsDefinition:
    def body(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made(name, *(each for each in DAYS if each != day))
        yield checked(name, day, says)
        yield from ended(name)

    return stand_in(name, body)


def failing(name: str, *, deps: Sequence[str] = ()) -> dg.AssetsDefinition:
    def body(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made(name, *DAYS[:2])
        try:
            raise KeyError("tail_number")
        except KeyError as error:
            raise RuntimeError("weather cannot be joined") from error

    return stand_in(name, body, deps=deps)


@dataclass(kw_only=True)
class Office:
    """An instance whose sensors are ticked as the daemon ticks them, and who hears of it."""

    instance: dg.DagsterInstance
    posts: Posts
    mails: Mails
    cases: Sequence[UseCase] = (CASE,)
    warnings: Sequence[str] = ()
    cursors: dict[str, str | None] = field(default_factory=dict)

    @property
    def sensors(self) -> Mapping[str, dg.SensorDefinition]:
        return {sensor.name: sensor for sensor in alerts.sensors(self.cases, warnings=self.warnings)}

    def tick(self, name: str) -> list[str]:
        """Errors of a tick. The cursor moves as in Dagster's daemon, which keeps it though the function raised."""
        context = dg.build_sensor_context(self.instance, cursor=self.cursors.get(name))
        found = self.sensors[name].evaluate_tick(context)
        self.cursors[name] = found.cursor
        return [reaction.error.message for reaction in found.dagster_run_reactions or () if reaction.error]

    def begin(self) -> None:
        """The first tick of a run status sensor looks at nothing before it."""
        for name in (FAILED, SUCCEEDED):
            self.tick(name)

    def tell(self) -> list[str]:
        return [error for name in (FAILED, SUCCEEDED) for error in self.tick(name)]

    def run(self, *assets: dg.AssetsDefinition, first: str = DAYS[0], last: str = DAYS[-1], **tags: str) -> dg.DagsterRun:
        """A run as commands and sensors of the project start it."""
        job = dg.Definitions(assets=assets, executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
        bounds = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        done = job.execute_in_process(
            instance=self.instance,
            asset_selection=[key for asset in assets for key in asset.keys],
            tags={**bounds, "ml_assets/why": "a test", **{name.replace("__", "/"): value for name, value in tags.items()}},
            raise_on_error=False,
        )
        return self.again(done.dagster_run)

    def daemon_run(self, *assets: dg.AssetsDefinition, retries: dg.DagsterRun | None = None) -> dg.DagsterRun:
        """A run as the daemon launches it, which knows where its code is; `retries`: as its automatic retry."""
        job = dg.Definitions(assets=assets, executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
        tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
        root = retries and (retries.root_run_id or retries.run_id)
        if retries and root:
            group = self.instance.get_run_group(root)
            number = str(len(list(group[1]))) if group else "1"
            kept = {
                name: value for name, value in retries.tags.items() if name not in ("dagster/will_retry", "dagster/failure_reason")
            }
            tags = kept | {
                "dagster/retry_number": number,
                "dagster/root_run_id": root,
                "dagster/parent_run_id": retries.run_id,
            }
        target = LoadableTargetOrigin(executable_path="python", module_name="ml_assets.definitions")
        repository = RemoteRepositoryOrigin(InProcessCodeLocationOrigin(target, location_name="ml_assets"), "__repository__")
        code = RepositoryPythonOrigin("python", ModuleCodePointer("ml_assets.definitions", "defs", None))
        run = self.instance.create_run_for_job(
            job_def=job,
            tags=tags,
            asset_selection=frozenset(key for asset in assets for key in asset.keys),
            remote_job_origin=RemoteJobOrigin(repository, job.name),
            job_code_origin=JobPythonOrigin(job.name, code),
            parent_run_id=retries.run_id if retries else None,
            root_run_id=root,
        )
        if retries:
            self.instance.add_run_tags(retries.run_id, {"dagster/auto_retry_run_id": run.run_id})
        execute_run(InMemoryJob(job), run, self.instance)
        return self.again(run)

    def again(self, run: dg.DagsterRun) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(notices, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(notices, "_WAIT_SECONDS", 2.0)
    retries = {"run_retries": {"enabled": True, "max_retries": 2}}
    with running_webhook() as posts, running_mail() as mails, dg.DagsterInstance.ephemeral(settings=retries) as instance:
        monkeypatch.setenv(WEBHOOK, posts.url)
        monkeypatch.setenv(EMAIL, f"smtp://127.0.0.1:{mails.port}/?from=a@b.org&to=c@d.org")
        monkeypatch.delenv(UI_URL, raising=False)
        found = Office(instance=instance, posts=posts, mails=mails)
        found.begin()
        yield found


def lines_of(post: Mapping[str, Any]) -> list[str]:
    return str(post["text"]).splitlines()


# What is told. --------------------------------------------------------------------------------------------------------------


def test_a_failed_run_says_what_where_why_and_what_now(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UI_URL, "https://dagster.b.org/")
    run = office.run(good("flights"), failing("features", deps=["flights"]), ml_assets__why="flights: all of them")
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert office.tell() == []

    (post,) = office.posts.got
    assert lines_of(post) == [
        "flight_delays: a run failed, 2013-01-01 to 2013-01-05",
        f"run: https://dagster.b.org/runs/{run.run_id}",
        "started by: flights: all of them",
        "failed at flight_delays__features",
        "RuntimeError: weather cannot be joined",
        "because of KeyError: 'tail_number'",
        "published by this run: flights (2013-01-01 to 2013-01-05)",
        "published by this run: features (2013-01-01 to 2013-01-02)",
        "not published by this run: features (2013-01-03 to 2013-01-05)",
        "what to do: look at the run; once the cause is gone, `ml-assets run flight_delays` makes what is missing",
    ]
    assert (post["case"], post["severity"], post["run_id"]) == ("flight_delays", "error", run.run_id)
    assert post["partitions"] == DAYS
    assert post["failed_steps"] == ["flight_delays__features"]
    assert post["not_published"] == {"flight_delays/features": ["2013-01-03 to 2013-01-05"]}
    (mail,) = office.mails.got
    assert mail.get_content().strip().splitlines() == lines_of(post)

    assert office.tell() == []
    assert len(office.posts.got) == len(office.mails.got) == 1


def test_a_failed_run_says_of_its_red_days_too(office: Office) -> None:
    office.run(red("flights", DAYS[2]), failing("features", deps=["flights"]))
    office.tell()
    (post,) = office.posts.got
    assert "not published: flights 2013-01-03: values_are_sound: 9 rows of 10 are gone" in lines_of(post)


def test_a_run_that_fails_outside_of_its_steps_says_why(office: Office) -> None:
    job = dg.Definitions(assets=[good("flights")]).resolve_implicit_global_asset_job_def()
    run = office.instance.create_run_for_job(job, asset_selection=frozenset({dg.AssetKey([CASE.name, "flights"])}))
    office.instance.report_run_failed(run, message="The machine was taken away.")
    office.tell()
    (post,) = office.posts.got
    assert lines_of(post)[2:5] == [
        "started by: a person, or a command",
        "failed outside of its steps",
        "The machine was taken away.",
    ]
    assert "not published by this run: flights" in lines_of(post)


def test_a_red_day_of_the_real_pipeline_is_one_message(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_delivery(tmp_path / "delivery", DAYS[:3])
    (tmp_path / "delivery" / "flights" / f"{DAYS[1]}.csv").unlink()
    monkeypatch.setenv(FOLDER, str(tmp_path / "delivery"))
    with open_instance(tmp_path / "dagster") as office.instance:
        office.cursors = {}
        office.begin()
        runner = Runner(case=CASE, store=Store(root=str(tmp_path / "root")), instance=office.instance, heard=lambda record: None)
        result = runner.run(("raw_flights", "flights", "rejected_flights", "labels"), DAYS[0], DAYS[2], title="three days")
        assert {check.partition for check in result.failed} == {DAYS[1]}
        assert office.tell() == []
        again = runner.run(("raw_flights",), DAYS[0], DAYS[0], title="a good day")
        assert again.failed == []
        assert office.tell() == []

    (post,) = office.posts.got
    title, run, cause, *rest = lines_of(post)
    assert title == "flight_delays: not published: 2013-01-02"
    assert run == f"run: {result.run_id}"
    assert cause.startswith("not published: raw_flights 2013-01-02: every_delivered_row_arrived: 1 of ")
    assert f"no file {tmp_path}/delivery/flights/2013-01-02.csv" in cause
    assert rest[:2] == [
        "not made: flights 2013-01-02: raw_flights 2013-01-02 is not published",
        "not made: labels 2013-01-02: flights 2013-01-02 is not published",
    ]
    assert rest[2].startswith("what to do: mend what was delivered")
    assert rest[3:] == ["started by: three days"]
    assert (post["severity"], post["partitions"]) == ("error", ["2013-01-02"])
    assert {(check["asset"], check["published"]) for check in post["checks"]} >= {("flight_delays/raw_flights", False)}
    assert len(office.mails.got) == 1


def test_days_that_are_not_made_for_the_same_reason_are_one_line(office: Office) -> None:
    def body(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from (checked("features", day, "not made: planes all is not published") for day in DAYS[:4])
        yield from ended("features")

    office.run(stand_in("features", body))
    office.tell()
    (post,) = office.posts.got
    assert lines_of(post)[0] == "flight_delays: not published: 2013-01-01 to 2013-01-04"
    assert "not made: features 2013-01-01 to 2013-01-04: planes all is not published" in lines_of(post)


def test_a_check_that_does_not_block_is_not_said_to(office: Office) -> None:
    def body(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made("prediction_log", *DAYS)
        yield checked("prediction_log", DAYS[1], "2 scores differ")
        yield from ended("prediction_log")

    office.run(stand_in("prediction_log", body))
    office.tell()
    (post,) = office.posts.got
    assert lines_of(post)[0] == "flight_delays: 1 failed check of what is published"
    assert "published all the same: prediction_log 2013-01-02: values_are_sound: 2 scores differ" in lines_of(post)


def test_the_gate_is_told_as_information(office: Office) -> None:
    def judged(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made(REPORT, WEEK, "2013-02-04")
        yield checked(REPORT, WEEK, "", check=GATE)
        yield checked(REPORT, "2013-02-04", "roc_auc floor: 0.51, wanted at least 0.55", check=GATE)
        yield from ended(REPORT, GATE)

    def deployed(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made(DEPLOYED, WEEK, model_version="20130128-77ab")
        yield checked(DEPLOYED, "2013-02-04", "not deployed: the gate refused the candidate", severity=WARN)
        yield from ended(DEPLOYED)

    office.run(stand_in(REPORT, judged, check=GATE), stand_in(DEPLOYED, deployed), first=WEEK, last="2013-02-04")
    office.tell()
    (post,) = office.posts.got
    assert lines_of(post)[0] == "flight_delays: 1 candidate refused; 1 model goes live"
    assert lines_of(post)[2:4] == [
        "refused: the candidate of 2013-02-04 does not go live: roc_auc floor: 0.51, wanted at least 0.55",
        "promoted: model 20130128-77ab goes live on 2013-01-28",
    ]
    assert (post["severity"], post["promoted"]) == ("info", {WEEK: "20130128-77ab"})
    assert not any("what to do" in line for line in lines_of(post))


def warned(says: str) -> dg.AssetsDefinition:
    def body(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield from made("features", *DAYS)
        yield checked("features", DAYS[0], says, severity=WARN)
        yield from ended("features")

    return stand_in("features", body)


def test_a_warning_is_told_of_the_named_checks_alone(office: Office) -> None:
    office.run(warned("amount has drifted"))
    office.tell()
    assert office.posts.asked == 0

    office.warnings = [CHECK]
    office.run(warned("amount has drifted"))
    office.tell()
    (post,) = office.posts.got
    assert (post["severity"], lines_of(post)[0]) == ("warning", "flight_delays: 1 warning")
    assert "warning: features 2013-01-01: values_are_sound: amount has drifted" in lines_of(post)


def test_a_run_of_two_cases_names_both(office: Office) -> None:
    office.cases = (CASE, CARD_FRAUD)
    office.run(red("flights", DAYS[0]), good("transactions", case=CARD_FRAUD, days=()))
    office.tell()
    (post,) = office.posts.got
    assert post["case"] == "card_fraud, flight_delays"
    assert any(line.startswith("not published: flight_delays/flights 2013-01-01") for line in lines_of(post))


# What is not told. ----------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_when_there_is_nothing_to_tell(office: Office) -> None:
    run = office.run(good("flights"), good("features"))
    office.run(warned("not made: labels of 2013-01-01 are awaited"))
    assert office.tell() == []
    office.tick(WAITING)
    assert (office.posts.asked, office.mails.got) == (0, [])
    assert not {name for name in office.again(run).tags if name in ("ml_assets/told", "ml_assets/webhook", "ml_assets/email")}


def test_runs_before_the_first_tick_and_runs_of_others_are_not_told(office: Office) -> None:
    office.cases = (CARD_FRAUD,)
    office.run(failing("features"))
    office.tell()
    office.cases, office.cursors = (CASE,), {}
    office.begin()
    office.tell()
    assert (office.posts.asked, office.mails.got) == (0, [])


def test_without_ways_it_is_in_the_logs(office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv(WEBHOOK)
    monkeypatch.delenv(EMAIL)
    office.run(failing("features"))
    with caplog.at_level(logging.INFO, "ml_assets"):
        assert office.tell() == []
    (said,) = [record for record in caplog.records if record.name == "ml_assets.alerts"]
    assert said.levelno == logging.ERROR
    assert "RuntimeError: weather cannot be joined" in said.getMessage()
    assert office.posts.asked == 0


# That it arrives. -----------------------------------------------------------------------------------------------------------


def test_what_one_way_did_not_take_waits_and_comes_by_that_way_alone(office: Office) -> None:
    office.posts.answers = [503] * 6
    run = office.run(failing("features"))
    (error,) = office.tell()
    assert "AlertError: the webhook at 127.0.0.1 (ML_ASSETS_ALERT_WEBHOOK) answers 503" in error
    assert f"run {run.run_id} waits and is sent again, for 7 days" in error
    assert (office.posts.got, len(office.mails.got)) == ([], 1)

    assert office.tell() == [], "Dagster moved the cursor on, though the function raised"
    with pytest.raises(AlertError, match="answers 503"):
        office.tick(WAITING)
    office.tick(WAITING)
    assert [post["run_id"] for post in office.posts.got] == [run.run_id]
    office.tick(WAITING)
    office.tell()
    assert (len(office.posts.got), len(office.mails.got)) == (1, 1)


def test_while_one_message_waits_others_queue_behind_it(office: Office) -> None:
    office.posts.answers = [503] * 3
    runs = [office.run(failing("features")), office.run(red("flights", DAYS[0])), office.run(failing("labels"))]
    errors = office.tell()
    assert len(errors) == 3
    assert any("2 earlier messages wait too" in error for error in errors)
    assert office.posts.asked == 3, "one message found out that the webhook is down"
    assert len(office.mails.got) == 3
    office.tick(WAITING)
    assert [post["run_id"] for post in office.posts.got] == [run.run_id for run in runs]
    assert len(office.mails.got) == 3


def test_a_message_that_is_refused_does_not_hold_up_others(office: Office) -> None:
    office.posts.answers = [413, 413]
    runs = [office.run(failing("features")), office.run(failing("labels"))]
    assert len(office.tell()) == 2
    assert office.posts.got == []
    with pytest.raises(AlertError, match=f"answers 413.*run {runs[0].run_id} waits"):
        office.tick(WAITING)
    assert [post["run_id"] for post in office.posts.got] == [runs[1].run_id]


def test_a_run_whose_log_cannot_be_read_is_told_later(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> None:
        raise OSError("the database does not answer")

    run = office.run(failing("features"))
    with monkeypatch.context() as patch:
        patch.setattr(alerts, "notice_of", down)
        (error,) = office.tell()
        assert "the database does not answer" in error
        with pytest.raises(AlertError, match="OSError: the database does not answer"):
            office.tick(WAITING)
    office.tick(WAITING)
    assert [post["run_id"] for post in office.posts.got] == [run.run_id]
    assert len(office.mails.got) == 1


def test_a_tick_that_died_after_it_sent_sends_nothing_twice(office: Office) -> None:
    before = dict(office.cursors)
    office.run(failing("features"))
    office.tell()
    office.cursors = before
    assert office.tell() == []
    assert len(office.posts.got) == len(office.mails.got) == 1


def test_a_run_that_a_person_tries_again_is_told_again(office: Office) -> None:
    first = office.run(failing("features"))
    office.tell()
    inherited = {name: value for name, value in office.again(first).tags.items() if name.startswith("ml_assets/")}
    assert inherited["ml_assets/webhook"] == first.run_id
    second = office.run(failing("features"), **{name.replace("/", "__"): value for name, value in inherited.items()})
    office.tell()
    assert [post["run_id"] for post in office.posts.got] == [first.run_id, second.run_id]


def test_a_retry_that_inherits_a_waiting_message_and_goes_well_ends_it(office: Office) -> None:
    office.run(good("features"), ml_assets__webhook="waits")
    office.tell()
    office.tick(WAITING)
    assert office.posts.asked == 0
    assert office.instance.get_runs(dg.RunsFilter(tags={"ml_assets/webhook": "waits"})) == []


# Retries. -------------------------------------------------------------------------------------------------------------------


def test_of_a_run_and_its_retries_the_last_failure_is_told(office: Office) -> None:
    first = office.daemon_run(good("flights"), failing("features", deps=["flights"]))
    assert first.tags["dagster/will_retry"] == "true"
    assert office.tell() == []
    second = office.daemon_run(failing("features"), retries=office.again(first))
    assert office.tell() == []
    assert (office.posts.asked, office.mails.got) == (0, [])
    last = office.daemon_run(failing("features"), retries=office.again(second))
    assert last.tags["dagster/will_retry"] == "false"
    assert office.tell() == []

    (post,) = office.posts.got
    assert post["run_id"] == last.run_id
    assert "tried 3 times" in lines_of(post)
    office.tick(WAITING)
    assert len(office.posts.got) == len(office.mails.got) == 1


def test_a_retry_that_goes_well_tells_what_the_first_try_found(office: Office) -> None:
    first = office.daemon_run(red("flights", DAYS[2]), failing("features", deps=["flights"]))
    office.tell()
    office.daemon_run(good("features"), retries=office.again(first))
    office.tell()
    (post,) = office.posts.got
    assert lines_of(post)[0] == "flight_delays: not published: 2013-01-03"


def test_a_retry_that_does_not_come_is_told(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    run = office.daemon_run(failing("features"))
    office.tell()
    office.tick(WAITING)
    assert office.posts.asked == 0, "there is time yet"

    monkeypatch.setattr(alerts, "_RETRY_PATIENCE", timedelta(0))
    office.tick(WAITING)
    (post,) = office.posts.got
    assert post["run_id"] == run.run_id
    assert "Dagster was to try it again, and has not" in lines_of(post)
    office.tick(WAITING)
    assert len(office.posts.got) == 1


def test_what_a_command_ran_is_told_at_once_since_nobody_tries_it_again(office: Office) -> None:
    run = office.run(failing("features"))
    assert run.tags["dagster/will_retry"] == "true"
    office.tell()
    assert len(office.posts.got) == 1


# As Dagster loads it. -------------------------------------------------------------------------------------------------------


def test_a_code_location_has_the_three_sensors_and_they_run_by_themselves() -> None:
    definitions = build_defs([CASE, CARD_FRAUD])
    found = [sensor for sensor in definitions.sensors or () if isinstance(sensor, dg.SensorDefinition)]
    ours = [sensor for sensor in found if sensor.name in (FAILED, SUCCEEDED, WAITING)]
    assert [sensor.name for sensor in ours] == [FAILED, SUCCEEDED, WAITING]
    assert {sensor.default_status for sensor in ours} == {dg.DefaultSensorStatus.RUNNING}


@pytest.mark.parametrize(
    ("name", "value"),
    [(WEBHOOK, "hooks/hunter2"), (EMAIL, "smtp://user:hunter2@host/?from=a@b.org"), (UI_URL, "here")],
)
def test_a_wrong_setting_is_said_when_definitions_are_loaded(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name}: ") as failed:
        build_defs([CASE])
    assert "hunter2" not in str(failed.value)
