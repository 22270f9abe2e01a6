"""Days that a Glue job extracts before they are read: what is started, what is kept of a job that fails, and what is never told.

The job runs our own script in a process of its own, against moto's server (`ml_assets_tests.glue`).
"""

import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.orchestration.extracts import ExtractError
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.planning import recipes, stale_days
from ml_assets.orchestration.rounds import Runner, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases import find
from ml_assets_tests.end_to_end.conftest import open_instance
from ml_assets_tests.glue import BUCKET, Aws, running_aws

START = "2018-04-01"
DAYS = day_range(START, shift(START, 4))
LINE = ("extract_transactions", "raw_transactions", "transactions", "rejected_transactions")
TOML = """
start = "2018-04-01"
folder = "s3://%s/bank"

[transactions]
files = "payments/{day}/*.parquet"
columns = {transaction_id = "id", paid_at = "at", customer_id = "customer", terminal_id = "terminal", amount = "amount"}
glue = {job = "%s", arguments = {source = "%s", rows = "payments"%s}}

[chargebacks]
of = "transactions"
flag = "fraud"
delay_days = 7
delayed = {reported_at = "at"}
"""


@dataclass(kw_only=True)
class Bank:
    """A database of payments, a job that extracts them, and a case that reads what it wrote."""

    folder: Path
    aws: Aws
    patch: pytest.MonkeyPatch
    instance: dg.DagsterInstance
    lines: list[str] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "bank.db"

    @property
    def case(self) -> UseCase:
        return find("card_fraud", {"ML_ASSETS_CARD_FRAUD_FILES": str(self.folder / "bank.toml")})

    @property
    def store(self) -> Store:
        return Store(root=str(self.folder / "root"))

    def declare(self, *, job: str = "extract", source: str = "", more: str = "") -> None:
        text = TOML % (BUCKET, job, source or f"sqlite:///{self.database}", more)
        (self.folder / "bank.toml").write_text(text)
        self.patch.setenv("ML_ASSETS_CARD_FRAUD_FILES", str(self.folder / "bank.toml"))

    def pay(self, day: Day, count: int, amount: str = "1.00") -> None:
        with sqlite3.connect(self.database) as database:
            database.execute("CREATE TABLE IF NOT EXISTS payments (id, at, customer, terminal, amount, fraud)")
            rows = [(f"{day}-{n}", f"{day}T10:{n:02}:00Z", "c", "t", amount, "0") for n in range(count)]
            database.executemany("INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.close()

    def run(self, first: Day, last: Day, tables: tuple[str, ...] = LINE) -> Any:
        definitions = build_defs([self.case], store=self.store)
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(["card_fraud", table]) for table in tables],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )

    def bring_up_to_date(self, last: Day) -> Runner:
        heard = self.lines
        runner = Runner(
            case=self.case, store=self.store, instance=self.instance, heard=lambda record: heard.append(record.getMessage())
        )
        bring_up_to_date(runner, last=last)
        return runner

    def stale(self, table: str) -> list[Day]:
        return stale_days(self.case, self.store, recipes(self.case)[table], DAYS[:2])

    def published(self, table: str) -> dict[Day, int]:
        return {day: entry.rows for day, entry in sorted(self.store.tables(self.case).ledger(table).items())}

    def written(self) -> list[str]:
        return [name for name in self.aws.objects() if not name.startswith("scripts/")]

    def everything_told(self) -> str:
        """All that is in Dagster's event log, metadata included."""
        records = [self.instance.all_logs(run.run_id) for run in self.instance.get_runs()]
        return "\n".join(
            f"{entry.user_message} {entry.message} {entry.dagster_event!r}" for entries in records for entry in entries
        )


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


@pytest.fixture
def bank(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bank]:
    aws.begin_anew()
    for name, value in aws.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with open_instance(tmp_path / "dagster") as instance:
        made = Bank(folder=tmp_path, aws=aws, patch=monkeypatch, instance=instance)
        for day, count in zip(DAYS, (3, 2, 0, 4, 1), strict=True):
            made.pay(day, count)
        made.declare()
        aws.make_job("extract")
        yield made


def test_run_extracts_the_days_that_are_asked_for_and_not_there_and_no_others(bank: Bank) -> None:
    first = bank.bring_up_to_date(DAYS[2])
    assert [check for result in first.results for check in result.failed] == []
    assert bank.published("transactions") == {DAYS[0]: 3, DAYS[1]: 2, DAYS[2]: 0}
    assert bank.written() == [f"bank/payments/{day}/part.parquet" for day in DAYS[:3]], "and nothing that passed through S3 is left"
    assert len(bank.aws.scripts) == 1
    assert set(bank.published("chargebacks")) == set(DAYS[:3])
    assert not [check for check in bank.bring_up_to_date(DAYS[2]).results if check.materialized], "nothing is left to do"
    bank.bring_up_to_date(DAYS[4])
    assert len(bank.aws.scripts) == 2
    assert bank.published("transactions") == {DAYS[0]: 3, DAYS[1]: 2, DAYS[2]: 0, DAYS[3]: 4, DAYS[4]: 1}


@pytest.mark.parametrize("table", ["raw_transactions", "raw_chargebacks"])
def test_what_is_in_files_of_a_job_is_not_read_before_these_are_there(bank: Bank, table: str) -> None:
    graph = build_defs([bank.case], store=bank.store).resolve_asset_graph()
    assert dg.AssetKey(["card_fraud", "extract_transactions"]) in graph.get(dg.AssetKey(["card_fraud", table])).parent_keys


def test_a_day_that_is_extracted_again_is_read_again_where_it_changed(bank: Bank) -> None:
    bank.run(DAYS[0], DAYS[1], LINE[:2])
    bank.pay(DAYS[1], 1, amount="9.00")
    assert bank.stale("raw_transactions") == [], "nobody has asked yet"
    bank.run(DAYS[0], DAYS[1], LINE[:1])
    assert (bank.stale("extract_transactions"), bank.stale("raw_transactions")) == ([], [DAYS[1]])
    bank.run(DAYS[1], DAYS[1], LINE[1:2])
    assert bank.published("raw_transactions") == {DAYS[0]: 3, DAYS[1]: 3}


def test_each_day_says_what_was_written_and_by_which_run_of_the_job(bank: Bank) -> None:
    bank.run(DAYS[0], DAYS[1])
    key = dg.AssetKey(["card_fraud", "extract_transactions"])
    records = bank.instance.fetch_materializations(key, limit=10).records
    told = {record.partition_key: record.asset_materialization.metadata for record in records if record.asset_materialization}
    assert {day: metadata["rows"].value for day, metadata in told.items()} == {DAYS[0]: 3, DAYS[1]: 2}
    assert told[DAYS[0]]["file"].value == f"s3://{BUCKET}/bank/payments/{DAYS[0]}/part.parquet"
    assert str(told[DAYS[0]]["AWS Glue Job Run ID"].value).startswith("jr_")
    assert f"{DAYS[0]}: 3 rows of payments are in" in bank.everything_told()


def test_a_script_that_fails_says_why_and_nothing_is_ingested(bank: Bank) -> None:
    bank.declare(source=f"sqlite:///{bank.folder}/nothing.db")
    with pytest.raises(ExtractError, match="Glue job extract: OperationalError: no such table: payments"):
        bank.run(DAYS[0], DAYS[1])
    assert "OperationalError: no such table: payments" in bank.everything_told()
    assert (bank.published("extract_transactions"), bank.published("raw_transactions")) == ({}, {})
    assert bank.written() == []


def test_a_command_says_in_one_line_why_a_job_failed(bank: Bank) -> None:
    bank.declare(source=f"sqlite:///{bank.folder}/nothing.db")
    bank.patch.setenv("ML_ASSETS_ROOT", str(bank.folder / "root"))
    words = ["materialize", "card_fraud", "--select", "extract_transactions", "--from", DAYS[0], "--to", DAYS[0]]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "error: Glue job extract: OperationalError: no such table: payments" in result.output
    assert "Traceback" not in result.output


def test_a_script_that_cannot_even_begin_says_why(bank: Bank) -> None:
    bank.aws.make_job("broken", "import a_module_that_nobody_installed\n")
    bank.declare(job="broken")
    with pytest.raises(
        ExtractError, match=r"Glue job broken: run jr_.* FAILED :\nModuleNotFoundError: No module named 'a_module_that"
    ):
        bank.run(DAYS[0], DAYS[1])
    assert bank.published("raw_transactions") == {}


def test_a_job_that_nobody_made_is_named(bank: Bank) -> None:
    bank.declare(job="unheard-of")
    with pytest.raises(ExtractError, match=r"Glue job unheard-of: AWS says: .*EntityNotFoundException.*unheard-of"):
        bank.run(DAYS[0], DAYS[0])
    assert bank.written() == []


def test_a_key_that_nobody_knows_is_said(bank: Bank) -> None:
    bank.aws.let_nobody_in()
    with pytest.raises(ExtractError, match=r"Glue job extract: AWS says: .*InvalidAccessKeyId"):
        bank.run(DAYS[0], DAYS[0])
    assert bank.aws.settings["AWS_SECRET_ACCESS_KEY"] not in bank.everything_told()


def test_no_key_at_all_is_said(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ExtractError, match="Glue job extract: AWS says: Unable to locate credentials"):
        bank.run(DAYS[0], DAYS[0])


def test_a_job_that_keeps_quiet_about_a_day_fails_and_the_others_are_kept(bank: Bank) -> None:
    script = bank.aws.objects()["scripts/extract.py"].decode()
    quiet = script.replace("        pipes.report_custom_message({", f'        day == "{DAYS[1]}" or pipes.report_custom_message({{')
    assert quiet != script
    bank.aws.make_job("quiet", quiet)
    bank.declare(job="quiet")
    with pytest.raises(ExtractError, match=f"Glue job quiet: it said nothing about {DAYS[1]}"):
        bank.run(DAYS[0], DAYS[2])
    assert set(bank.published("extract_transactions")) == {DAYS[0], DAYS[2]}
    assert bank.published("raw_transactions") == {}


def test_a_script_that_is_killed_while_it_writes_loses_nothing_and_doubles_nothing(bank: Bank) -> None:
    bank.run(DAYS[0], DAYS[1])
    before = bank.aws.objects()
    bank.pay(DAYS[1], 1, amount="9.00")

    def kill(key: str) -> None:
        if key == f"bank/payments/{DAYS[1]}/part.parquet":
            bank.aws.scripts[-1].kill()
            raise ConnectionAbortedError

    bank.aws.before_put = kill
    with pytest.raises(ExtractError, match=r"run jr_.* FAILED"):
        bank.run(DAYS[0], DAYS[3])
    assert {name: content for name, content in bank.aws.objects().items() if name in before} == before, "a day is as it was"
    assert sum(bank.published("transactions").values()) == 5
    bank.aws.before_put = lambda _: None
    bank.run(DAYS[0], DAYS[3])
    assert bank.published("extract_transactions").keys() == set(DAYS[:4])
    assert sum(bank.published("raw_transactions").values()) == 3 + 3 + 0 + 4
    assert len(bank.written()) == 4


def test_days_that_were_reported_before_a_failure_are_not_extracted_again(bank: Bank) -> None:
    script = bank.aws.objects()["scripts/extract.py"].decode()
    failing = script.replace(
        "        version = _write(", f'        assert day != "{DAYS[3]}", "the disk is full"\n        version = _write('
    )
    bank.aws.make_job("failing", failing)
    bank.declare(job="failing")
    with pytest.raises(ExtractError, match="Glue job failing: AssertionError: the disk is full"):
        bank.bring_up_to_date(DAYS[4])
    assert set(bank.published("extract_transactions")) == set(DAYS[:3])
    bank.aws.client("s3").put_object(Bucket=BUCKET, Key="scripts/failing.py", Body=script.encode())
    bank.aws.client("s3").delete_object(Bucket=BUCKET, Key=f"bank/payments/{DAYS[0]}/part.parquet")
    bank.bring_up_to_date(DAYS[4])
    assert f"bank/payments/{DAYS[0]}/part.parquet" not in bank.written(), "it was not asked for again"


def test_rows_that_are_missing_of_those_that_the_job_wrote_are_a_problem_of_their_day(bank: Bank) -> None:
    bank.run(DAYS[0], DAYS[3], LINE[:1])
    folder = f"bank/payments/{DAYS[1]}"
    s3 = bank.aws.client("s3")
    short = bank.folder / "short.parquet"
    pd.read_parquet(io.BytesIO(bank.aws.objects()[f"{folder}/part.parquet"])).head(1).to_parquet(short, index=False)
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/part.parquet", Body=short.read_bytes())
    s3.delete_object(Bucket=BUCKET, Key=f"bank/payments/{DAYS[0]}/part.parquet")
    outcome = bank.run(DAYS[0], DAYS[3], LINE[1:])
    assert bank.published("raw_transactions") == {DAYS[2]: 0, DAYS[3]: 4}
    checks = [check for check in outcome.get_asset_check_evaluations() if check.check_name == "every_delivered_row_arrived"]
    found = {check.partition: check.description for check in checks}
    assert "1 rows arrived, the job says that it wrote 2" in str(found[DAYS[1]])
    assert "0 rows arrived, the job says that it wrote 3" in str(found[DAYS[0]])


def test_a_day_that_was_not_extracted_is_not_read(bank: Bank) -> None:
    outcome = bank.run(DAYS[0], DAYS[0], LINE[1:2])
    [check] = outcome.get_asset_check_evaluations()
    assert (check.passed, check.description) == (False, f"not made: extract_transactions {DAYS[0]} is not published")


def test_a_sensor_asks_for_days_that_are_over_once_and_the_delivery_follows(bank: Bank) -> None:
    repository = build_defs([bank.case], store=bank.store).get_repository_def()

    def tick(name: str, cursor: str | None) -> Any:
        context = dg.build_sensor_context(bank.instance, cursor=cursor, resources={"store": bank.store})
        return repository.get_sensor_def(f"card_fraud__{name}").evaluate_tick(context)

    first = tick("extract_transactions_due", None)
    [request] = first.run_requests
    assert request.tags["dagster/asset_partition_range_start"] == START
    assert [key.path[-1] for key in request.asset_selection] == ["extract_transactions"]
    [second] = tick("extract_transactions_due", first.cursor).run_requests
    assert second.tags["dagster/asset_partition_range_start"] == shift(START, 31)
    bank.run(DAYS[0], DAYS[1], LINE[:1])
    [delivered] = tick("transactions_delivered", None).run_requests
    assert delivered.tags["dagster/asset_partition_range_end"] == DAYS[1]


@pytest.mark.parametrize("form", ["json", "plain"])
def test_a_password_is_read_from_secrets_manager_and_never_told(bank: Bank, form: str, capfd: pytest.CaptureFixture[str]) -> None:
    password = "p@ss word/with:signs"
    text = json.dumps({"username": "reader", "password": password}) if form == "json" else password
    bank.aws.make_secret("bank/reader", text)
    # A database that refuses, and quotes the address that it was given.
    script = bank.aws.objects()["scripts/extract.py"].decode()
    quoting = script.replace(
        "    engine = sa.create_engine(url",
        '    raise RuntimeError(f"refused {url.render_as_string(hide_password=False)} {url.password}")\n    engine = sa.create_engine(url',
    )
    assert quoting != script
    bank.aws.make_job("quoting", quoting)
    bank.declare(job="quoting", more=', secret = "bank/reader"')
    with pytest.raises(ExtractError, match=r"refused .*\*\*\*") as failed:
        bank.run(DAYS[0], DAYS[0])
    told = "\n".join([bank.everything_told(), str(failed.value), *capfd.readouterr(), *bank.aws.said])
    assert "refused" in told
    for each in (password, "p%40ss", "p@ss"):
        assert each not in told


def test_a_secret_that_is_not_there_is_named(bank: Bank) -> None:
    bank.declare(more=', secret = "bank/nobody"')
    with pytest.raises(ExtractError, match=r"Glue job extract: secret bank/nobody: .*ResourceNotFoundException"):
        bank.run(DAYS[0], DAYS[0])


def test_a_password_in_an_argument_is_refused_and_not_repeated(bank: Bank) -> None:
    bank.declare(source="postgresql+psycopg://reader:hunter2@127.0.0.1/bank")
    with pytest.raises(ExtractError, match="--source has a password"):
        bank.run(DAYS[0], DAYS[0])
    assert "hunter2" not in bank.everything_told()
