"""A job of AWS Glue, over Dagster Pipes: started for some days, and heard.

Belongs here: what passes between a run and its job. Does not: what is kept of it (`extracts`), or what the job does (`jobs.glue_extract`).

Context and messages go through S3, below `_pipes/` in the folder of the files, and are removed when the job has ended.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from dagster._core.pipes.context import PipesMessageHandler
from dagster_aws.pipes import PipesGlueClient, PipesS3ContextInjector, PipesS3MessageReader

from ml_assets.orchestration.daily import Days
from ml_assets.use_case import Day, Extract


def run_job(days: Days, extract: Extract) -> tuple[dict[Day, dict[str, Any]], Mapping[str, Any], str]:
    """What the job reported of each day, what AWS says about its run, and what went wrong."""
    session = boto3.Session(region_name=os.environ.get("AWS_REGION"))  # boto3 itself knows AWS_DEFAULT_REGION alone
    bucket, place = _between(extract, days.context.run.run_id)
    messages: _Messages | None = None
    run: Mapping[str, Any] = {}
    trouble = ""
    try:
        s3, glue = session.client("s3"), session.client("glue")
        messages = _Messages(bucket=bucket, client=s3, place=place)
        injector = PipesS3ContextInjector(bucket=bucket, client=s3, key_prefix=place)
        client = PipesGlueClient(context_injector=injector, message_reader=messages, client=glue)
        context = days.context.op_execution_context  # of the asset's own, Pipes asks what Dagster 1.13 has deprecated
        try:
            run = client.run(context=context, start_job_run_params=_start(extract), extras=_extras(days, extract)).metadata
        finally:
            _remove(s3, bucket, place)
    except (BotoCoreError, ClientError) as error:
        trouble = f"AWS says: {error}"
    except RuntimeError as error:
        trouble = str(error).removeprefix(f"Glue job {extract.job} ")
    said = messages.heard if messages else []
    told = next((message["error"] for message in said if "error" in message), "")
    return {message["day"]: message for message in said if message.get("day") in days.ready}, run, told or trouble


def _start(extract: Extract) -> Any:
    arguments = {f"--{name.removeprefix('--')}": text for name, text in extract.arguments.items()}
    return {"JobName": extract.job, "Arguments": arguments}


def _extras(days: Days, extract: Extract) -> dict[str, Any]:
    told = {name: getattr(extract, name) for name in ("table", "to", "time", "timezone")}
    earliest, latest = extract.span()
    return {**told, "days": days.ready, "first_day": days.case.start, "earliest": earliest, "latest": latest}


def _between(extract: Extract, run: str) -> tuple[str, str]:
    """Bucket and prefix of what passes between a run and its job."""
    bucket, _, prefix = extract.to.removeprefix("s3://").partition("/")
    return bucket, f"{prefix.partition('{day}')[0].rpartition('/')[0]}/_pipes/{run}-{extract.table}/".lstrip("/")


def _remove(s3: Any, bucket: str, place: str) -> None:
    with suppress(BotoCoreError, ClientError):  # who may not do it has been told, or leaves a few kilobytes
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=place):
            for each in page.get("Contents", ()):
                s3.delete_object(Bucket=bucket, Key=each["Key"])


class _Messages(PipesS3MessageReader):
    """Keeps what a job says about its days also when it fails."""

    def __init__(self, *, bucket: str, client: Any, place: str) -> None:
        super().__init__(bucket=bucket, client=client)
        self._place = place
        self._handler: PipesMessageHandler | None = None

    @property
    def expected_writer_count(self) -> int:
        """One job. Dagster's own says so, too, and warns that it is in preview."""
        return 1

    @property
    def heard(self) -> list[dict[str, Any]]:
        """What the job reported, in its order."""
        said = self._handler.get_custom_messages() if self._handler else ()
        return [message for message in said if isinstance(message, dict)]

    @contextmanager
    def get_params(self) -> Iterator[Any]:
        with super().get_params() as params:
            yield {**params, "key_prefix": f"{self._place}{params['key_prefix']}"}

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[Any]:
        self._handler = handler
        with super().read_messages(handler) as params:
            yield params
