"""A stand-in for AWS: moto's server of S3, Glue and Secrets Manager, whose Glue is made to run the script of a job in a process of its own.

moto itself calls every run of a job a success and runs nothing. What is not AWS here: who may do what, how long a job takes to start, and
what a job has installed.
"""

import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import boto3
import dagster as dg
import dagster._core.pipes.utils
import dagster_aws.pipes.clients.glue
import obstore
import pytest
from moto.glue.models import FakeJob, FakeJobRun
from moto.s3.models import S3Backend
from moto.server import ThreadedMotoServer

from ml_assets.folders import Bucket, folder_at
from ml_assets.jobs import glue_extract
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.use_case import Day, UseCase

BUCKET = "lake"
SCRIPT = Path(glue_extract.__file__)
_STOCK_DESCRIPTION = FakeJobRun.as_dict


@dataclass(kw_only=True)
class Aws:
    """A server, and the settings with which it is reached."""

    settings: Mapping[str, str]
    scripts: list["subprocess.Popen[str]"] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """What each script that has ended wrote to its terminal."""
    before_put: Callable[[str], None] = lambda _key: None
    """Is called when an object has arrived, before it is there."""

    def client(self, service: str) -> Any:
        settings = self.settings
        return boto3.client(
            service,
            endpoint_url=settings["AWS_ENDPOINT_URL"],
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
            region_name=settings["AWS_REGION"],
        )

    def let_nobody_in(self) -> None:
        """As if nobody knew the key."""
        self.post("/moto-api/reset-auth", b"0")

    def begin_anew(self) -> None:
        """One empty bucket and a key that is known, as when the server has just been started."""
        for script in self.scripts:
            script.kill()
            script.wait()
        self.scripts.clear()
        self.said.clear()
        self.before_put = lambda _key: None
        self.post("/moto-api/reset")  # what it holds is the process's
        self.post("/moto-api/reset-auth", b"inf")
        self.client("s3").create_bucket(Bucket=BUCKET)

    def post(self, path: str, content: bytes = b"") -> None:
        url, kind = self.settings["AWS_ENDPOINT_URL"] + path, {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, data=content, headers=kind, method="POST")).close()

    def objects(self) -> dict[str, bytes]:
        folder = folder_at(f"s3://{BUCKET}", Path(), self.settings)
        assert isinstance(folder, Bucket)
        return {found.name: bytes(obstore.get(folder.store, found.name).bytes()) for found in folder.find("**/*")}

    def make_job(self, name: str, script: str = "") -> None:
        """A job of our script, or of another."""
        self.client("s3").put_object(Bucket=BUCKET, Key=f"scripts/{name}.py", Body=script.encode() or SCRIPT.read_bytes())
        command = {"Name": "pythonshell", "ScriptLocation": f"s3://{BUCKET}/scripts/{name}.py"}
        self.client("glue").create_job(Name=name, Role="nobody", Command=command)

    def make_secret(self, name: str, text: str) -> None:
        self.client("secretsmanager").create_secret(Name=name, SecretString=text)


@contextmanager
def running_aws() -> Iterator[Aws]:
    """A server with one bucket. Its settings have to be in the environment, for those that read them there and for the jobs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-is-told",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    aws = Aws(settings=settings)
    with TemporaryDirectory(prefix="glue-") as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeJob, "start_job_run", _start(aws, Path(folder)))
        patched.setattr(FakeJobRun, "advance", lambda _: None)
        patched.setattr(FakeJobRun, "as_dict", _described)
        patched.setattr(S3Backend, "put_object", _put(aws))
        # The client asks every five seconds how the job is, and every second whether it has said something.
        patched.setattr(dagster_aws.pipes.clients.glue, "time", SimpleNamespace(sleep=lambda _: time.sleep(0.1)))
        patched.setattr(dagster._core.pipes.utils, "DEFAULT_SLEEP_INTERVAL", 0.1)
        # For more than so many whole seconds it waits for what a job that was killed might still say.
        patched.setattr(dagster._core.pipes.utils, "WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 0)
        try:
            aws.begin_anew()
            yield aws
        finally:
            for script in aws.scripts:
                script.kill()
                script.wait()
            aws.post("/moto-api/reset-auth", b"inf")
            server.stop()


def extracted(case: UseCase, name: str, days: Sequence[Day]) -> None:
    """Materialises an extract, with the store and the AWS that the environment names."""
    instance = dg.DagsterInstance.ephemeral()
    build_defs([case]).resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey([case.name, name])],
        tags={"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]},
    )
    instance.dispose()


def _start(aws: Aws, folder: Path) -> Callable[..., str]:
    """Glue's start of a run, with the script run on this machine."""
    stock = FakeJob.start_job_run

    def start(job: FakeJob, *args: Any, **kwargs: Any) -> str:
        id = stock(job, *args, **kwargs)
        run = next(run for run in job.job_runs if run.job_run_id == id)
        run._status, run._transitions = "RUNNING", [("none", "none")]
        bucket, _, key = job.command["ScriptLocation"].removeprefix("s3://").partition("/")
        file = folder / f"{id}.py"
        file.write_bytes(aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
        words = [word for pair in (run.arguments or {}).items() for word in pair]
        command = [sys.executable, str(file), "--JOB_NAME", job.name, *words]
        # As on AWS nothing of this project is there but the script.
        environment = {**os.environ, **aws.settings, "PYTHONPATH": ""}
        script = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment)
        aws.scripts.append(script)
        threading.Thread(target=_wait, args=(aws, script, run), daemon=True).start()
        return id

    return start


def _wait(aws: Aws, script: "subprocess.Popen[str]", run: FakeJobRun) -> None:
    said = script.communicate()[0]
    aws.said.append(said)
    run.error_message = said.strip().rpartition("\n")[2]
    run._status = "FAILED" if script.returncode else "SUCCEEDED"


def _described(run: FakeJobRun) -> dict[str, Any]:
    """AWS says of a failed run what its last line was."""
    failed = run.status == "FAILED"
    return _STOCK_DESCRIPTION(run) | ({"ErrorMessage": run.error_message} if failed else {})


def _put(aws: Aws) -> Callable[..., Any]:
    stock = S3Backend.put_object

    def put(backend: S3Backend, bucket_name: str, key_name: str, *args: Any, **kwargs: Any) -> Any:
        aws.before_put(key_name)
        return stock(backend, bucket_name, key_name, *args, **kwargs)

    return put
