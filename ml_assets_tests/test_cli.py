"""The command says what is wrong, and what there is instead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ml_assets.cli import app

PROJECT = Path(__file__).parents[1]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "flights"], "no use case 'flights'; there are: flight_delays"),
        (["run", "flight_delays", "--to", "2013-02-30"], "no partition 2013-02-30; they go from 2013-01-01 to 2013-12-31"),
        (["materialize", "flight_delays", "--select", "feature"], "no asset feature in flight_delays; there are raw_flights"),
        (["materialize", "flight_delays", "--select", "features,candidate_model"], "one run has one kind of partitions"),
        (
            ["materialize", "flight_delays", "--select", "candidate_model", "--from", "2013-10-29"],
            "no partition 2013-10-29; they go from 2013-10-28 to 2013-12-23 by weeks",
        ),
    ],
)
def test_a_wrong_word_is_named_with_what_there_is(words: list[str], message: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_without_dagster_yaml_it_says_where_it_looked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    result = invoke("run", "flight_delays")
    assert result.exit_code == 1
    assert f"no dagster.yaml in {tmp_path}" in result.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ML_ASSETS_TICK_SECONDS", "often", "ML_ASSETS_TICK_SECONDS='often': expected a whole number of seconds from 1"),
        ("ML_ASSETS_ALERT_EMAIL", "mail.example.com", "ML_ASSETS_ALERT_EMAIL: no smtp:// or smtps:// address of a host"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_runs(
    setting: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, value)
    monkeypatch.setenv("ML_ASSETS_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DAGSTER_HOME", str(PROJECT))
    result = invoke("run", "flight_delays", "--to", "2013-01-01")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "root").exists()


def test_before_anything_is_built_summary_and_explain_say_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ML_ASSETS_ROOT", str(tmp_path))
    assert "nothing is published yet" in invoke("summary", "flight_delays").output
    explained = invoke("explain", "flight_delays", "20130101-UA1545-EWR")
    assert explained.exit_code == 1
    assert "no event '20130101-UA1545-EWR' in flights (0 days published)" in explained.stderr
    accounted = invoke("account", "flight_delays")
    assert accounted.exit_code == 1
    assert "nothing is published yet" in accounted.stderr


def test_what_the_next_run_would_make_is_listed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ML_ASSETS_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    listed = invoke("stale", "flight_delays")
    assert listed.exit_code == 0, listed.output
    lines = {line.split()[0]: line.split() for line in listed.output.splitlines() if line.strip()}
    assert lines["raw_flights"][1:] == ["365", "0", "2013-01-01", "to", "2013-12-31"]
    assert lines["raw_planes"][1:4] == ["1", "0", "all"]
    assert "scores" in listed.output.split("nothing to make now:")[1]


@pytest.mark.parametrize("command", ["run", "stale", "summary"])
def test_a_mapping_with_a_mistyped_column_stops_a_command_with_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = tmp_path / "payments.toml"
    mapping.write_text('start = "2018-04-01"\n[transactions]\nfiles = "*.csv"\ncolumns = {amonut = "A", paid_at = "T"}\n')
    monkeypatch.setenv("ML_ASSETS_CARD_FRAUD_FILES", str(mapping))
    monkeypatch.setenv("ML_ASSETS_ROOT", str(tmp_path / "root"))

    result = invoke(command, "card_fraud")

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    told = (
        f"error: {mapping}: [transactions] columns: unknown amonut, no transaction_id, no customer_id, no terminal_id, no amount;"
    )
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["summary", "card_fraud"], {"ML_ASSETS_ROOT": "s3://bucket/prefix"}, "s3://bucket/prefix: "),
        (["serve"], {"ML_ASSETS_SECRETS": "bank/reader"}, "ML_ASSETS_SECRETS: bank/reader cannot be read"),
    ],
)
def test_a_store_that_does_not_answer_is_one_line(words: list[str], settings: dict[str, str], said: str, tmp_path: Path) -> None:
    aws = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    environment = {
        **os.environ,
        **aws,
        **settings,
        "DAGSTER_HOME": str(PROJECT),
        "AWS_MAX_ATTEMPTS": "1",
        "PYTHONPATH": str(PROJECT),
    }
    command = [sys.executable, "-W", "ignore", "-m", "ml_assets", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr
