"""`ml-assets land` as a process: it lands what comes, is killed, goes on where it was, and says what keeps it from it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ml_assets.cli import app
from ml_assets.sources.landing import LandedRows
from ml_assets.use_cases import find
from ml_assets_tests.feeds import Api, running_api

TOML = """
start = "2018-04-01"

[transactions]
stream = {url = "%s/events", headers = {Authorization = "Bearer ${TOKEN}"}}
columns = {transaction_id = "id", paid_at = "at", customer_id = "customer", terminal_id = "terminal", amount = "amount"}

[chargebacks]
of = "transactions"
flag = "fraud"
delay_days = 7
delayed = {reported_at = "at"}
"""
DAYS = ["2018-04-01", "2018-04-02"]


def payment(number: int) -> dict[str, Any]:
    at = f"{DAYS[number % 2]}T12:00:{number % 60:02}Z"
    return {"id": number, "at": at, "customer": f"C{number % 5}", "terminal": "T1", "amount": 1.5, "fraud": int(number % 10 == 0)}


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api(Api(rows=[payment(number) for number in range(300)])) as running:
        yield running


@pytest.fixture
def settings(api: Api, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bank.toml").write_text(TOML % api.url)
    files = {"ML_ASSETS_CARD_FRAUD_FILES": str(tmp_path / "bank.toml"), "ML_ASSETS_ROOT": str(tmp_path / "root")}
    return {**os.environ, **files, "TOKEN": "right", "COLUMNS": "200"}


@contextmanager
def landing(settings: dict[str, str], *words: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "ml_assets", "land", "card_fraud", *words]
    process = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def typed(settings: dict[str, str], *words: str) -> Result:
    """The same in this process, of what ends by itself."""
    return CliRunner().invoke(app, ["land", "card_fraud", *words], env=settings)


def source(settings: dict[str, str], table: str) -> LandedRows:
    found = find("card_fraud", settings).table(table).source(settings)
    assert isinstance(found, LandedRows)
    return found


def wait_for(settings: dict[str, str], table: str, count: int) -> None:
    until = time.monotonic() + 60
    while sum(source(settings, table).landing.counts().values()) < count:
        assert time.monotonic() < until, source(settings, table).landing.counts()
        time.sleep(0.1)


def test_a_service_that_is_killed_goes_on_where_it_was(api: Api, settings: dict[str, str]) -> None:
    for count in (300, 700, 1_000):
        api.rows += [payment(number) for number in range(len(api.rows), count)]
        with landing(settings) as process:
            wait_for(settings, "transactions", count)
            wait_for(settings, "chargebacks", count // 10)
            process.send_signal(signal.SIGKILL)
    rows = source(settings, "transactions").read(DAYS).rows
    assert sorted(map(int, rows["transaction_id"])) == list(range(1_000))
    reported = source(settings, "chargebacks").read(["2018-04-08", "2018-04-09"]).rows
    assert sorted(map(int, reported["transaction_id"])) == list(range(0, 1_000, 10))


def test_a_service_says_what_landed_and_ends_when_it_is_interrupted(settings: dict[str, str]) -> None:
    with landing(settings, "--select", "transactions") as process:
        wait_for(settings, "transactions", 300)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=20)
    assert "transactions: 300 messages of 2018-04-01, 2018-04-02" in told
    assert "Traceback" not in told
    assert process.returncode == 130


def test_what_keeps_it_from_landing_is_said_in_one_line(settings: dict[str, str], api: Api) -> None:
    told = typed({**settings, "TOKEN": "wrong"})
    assert (told.exit_code, told.output.strip()) == (1, f"error: {api.url}/events answers 401: check the credentials")


def test_a_table_that_arrives_in_no_feed_is_said(settings: dict[str, str]) -> None:
    told = typed(settings, "--select", "labels")
    wanted = "error: no table labels of card_fraud arrives in a feed; those that do: transactions, chargebacks"
    assert (told.exit_code, told.output.strip()) == (1, wanted)
