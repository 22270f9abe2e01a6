"""The script of the Glue job by itself: which rows are of a day, whatever the time looks like, and what it may need."""

import argparse
import ast
import io
import logging
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from ml_assets.jobs import glue_extract
from ml_assets.jobs.glue_extract import ExtractError
from ml_assets_tests.glue import BUCKET, Aws, running_aws
from ml_assets_tests.postgres import running_postgres

DAYS = ["2018-04-01", "2018-04-02"]
NEEDED = {"boto3", "dagster_pipes", "pandas", "pyarrow", "sqlalchemy"}


@dataclass
class Asked:
    """What Dagster asks for, and what it is told."""

    days: list[str]
    timezone: str = "UTC"
    to: str = f"s3://{BUCKET}/out/{{day}}.parquet"
    time: str = "at"
    first_day: str = DAYS[0]
    told: list[dict[str, Any]] = field(default_factory=list)
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("pipes"))

    def get_extra(self, name: str) -> Any:
        return getattr(self, name)

    def report_custom_message(self, message: dict[str, Any]) -> None:
        self.told.append(message)


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


def ids(aws: Aws, source: str, rows: str = "payments", timezone: str = "UTC") -> dict[str, list[str]]:
    """The payments of each day that the script wrote and reported."""
    asked = Asked(days=DAYS, timezone=timezone)
    glue_extract.extract(asked, argparse.Namespace(source=source, rows=rows, secret=""), aws.client("s3"), [])  # type: ignore[arg-type]
    objects = aws.objects()
    found = {day: pd.read_parquet(io.BytesIO(objects[f"out/{day}.parquet"])) for day in DAYS}
    assert [(message["day"], message["rows"]) for message in asked.told] == [(day, len(found[day])) for day in DAYS]
    return {day: frame["id"].tolist() for day, frame in found.items()}


def database(tmp_path: Path, times: list[Any]) -> str:
    with sqlite3.connect(tmp_path / "bank.db") as connection:
        connection.execute("CREATE TABLE payments (id TEXT, at)")
        rows = [(f"p{number}", time) for number, time in enumerate(times)]
        connection.executemany("INSERT INTO payments VALUES (?, ?)", rows)
    connection.close()
    return f"sqlite:///{tmp_path}/bank.db"


@pytest.mark.parametrize(
    ("timezone", "times"),
    [
        ("UTC", ["2018-03-31T23:59:59Z", "2018-04-01T00:00:00Z", "2018-04-01T23:59:59.9Z", "2018-04-02", "2018-04-03T00:00:00Z"]),
        (
            "Europe/Berlin",
            ["2018-03-31T21:59Z", "2018-03-31T22:00Z", "2018-04-01 23:59:59+02:00", "2018-04-01T22:00:00Z", "2018-04-03"],
        ),
        (
            "America/New_York",
            ["2018-04-01T03:59:59Z", "2018-04-01T00:00:00", "2018-04-02T03:59:59Z", "2018-04-02T04:00Z", "2018-04-03T04:00Z"],
        ),
    ],
)
def test_texts_are_of_the_day_that_they_say_in_the_time_zone(aws: Aws, tmp_path: Path, timezone: str, times: list[str]) -> None:
    assert ids(aws, database(tmp_path, times), timezone=timezone) == {DAYS[0]: ["p1", "p2"], DAYS[1]: ["p3"]}


def test_times_of_a_database_are_compared_as_times_and_a_jdbc_address_is_one(aws: Aws) -> None:
    with running_postgres() as postgres:
        engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE payments (id TEXT, at TIMESTAMPTZ, clock TIMESTAMP, date DATE, amount NUMERIC)"
            )
            for row in (
                "'p0', '2018-03-31T21:59Z', '2018-03-31 23:59', '2018-03-31', 1.5",
                "'p1', '2018-03-31T22:00Z', '2018-04-01 00:00', '2018-04-01', 1.5",
                "'p2', '2018-04-01T22:00Z', '2018-04-02 00:00', '2018-04-02', 2",
            ):
                connection.exec_driver_sql(f"INSERT INTO payments VALUES ({row})")
        jdbc = f"jdbc:{postgres.url}"
        wanted = {DAYS[0]: ["p1"], DAYS[1]: ["p2"]}
        assert ids(aws, jdbc, timezone="Europe/Berlin") == wanted
        assert ids(aws, postgres.url, "SELECT id, clock AS at FROM payments", "Europe/Berlin") == wanted
        assert (
            ids(aws, postgres.url, "WITH few AS (SELECT id, date::DATE AS at, amount, ' :x' AS b FROM payments) SELECT * FROM few")
            == wanted
        )


def test_a_table_without_rows_gives_days_without_rows(aws: Aws, tmp_path: Path) -> None:
    assert ids(aws, database(tmp_path, [])) == {DAYS[0]: [], DAYS[1]: []}


@pytest.mark.parametrize("time", [None, "01/04/2018", "", "soon"])
def test_a_row_of_no_day_is_delivered_with_the_first_and_takes_no_other_with_it(
    aws: Aws, tmp_path: Path, caplog: pytest.LogCaptureFixture, time: str | None
) -> None:
    assert ids(aws, database(tmp_path, [f"{DAYS[0]}T00:00:00Z", time, f"{DAYS[1]}T00:00:00Z"])) == {
        DAYS[0]: ["p0", "p1"] if time in (None, "soon") else ["p1", "p0"],
        DAYS[1]: ["p2"],
    }
    assert f"1 rows have no at such as 2018-04-01: they are with those of {DAYS[0]}" in caplog.text


def test_rows_without_any_time_are_delivered_with_the_first_day(aws: Aws, tmp_path: Path) -> None:
    assert ids(aws, database(tmp_path, [None, None])) == {DAYS[0]: ["p0", "p1"], DAYS[1]: []}


def test_a_time_that_is_a_number_is_refused(aws: Aws, tmp_path: Path) -> None:
    with pytest.raises(ExtractError, match="the time is of type int, expected a time, a date or text"):
        ids(aws, database(tmp_path, [1522540800]))


def test_files_are_read_whatever_day_they_hold(aws: Aws) -> None:
    s3 = aws.client("s3")
    late = pd.DataFrame({"id": ["late"], "at": pd.to_datetime(["2018-04-01T05:00Z"])})
    parquet = io.BytesIO()
    late.to_parquet(parquet, index=False)
    s3.put_object(
        Bucket=BUCKET, Key="in/1.csv", Body=b"id,at\n007,2018-04-01T10:00:00Z\n8,2018-04-02T10:00:00Z\n9,2018-04-03T10:00:00Z\n"
    )
    assert ids(aws, f"s3://{BUCKET}/in/") == {DAYS[0]: ["007"], DAYS[1]: ["8"]}
    s3.put_object(Bucket=BUCKET, Key="other/late.parquet", Body=parquet.getvalue())
    assert ids(aws, f"s3://{BUCKET}/other/") == {DAYS[0]: ["late"], DAYS[1]: []}
    s3.put_object(Bucket=BUCKET, Key="bad/1.csv", Body=b"id,at\n1,soon\n2,2018-04-02T10:00:00Z\n3,\n")
    assert ids(aws, f"s3://{BUCKET}/bad/") == {DAYS[0]: ["1", "3"], DAYS[1]: ["2"]}
    with pytest.raises(ExtractError, match="no file below"):
        ids(aws, f"s3://{BUCKET}/nothing/")


def test_the_same_rows_in_another_order_are_the_same_object(aws: Aws, tmp_path: Path) -> None:
    times = ["2018-04-01T10:00:00Z", "2018-04-01T09:00:00Z", "2018-04-01T10:00:00Z"]
    source = database(tmp_path, times)
    ids(aws, source)
    before = aws.objects()["out/2018-04-01.parquet"]
    with sqlite3.connect(tmp_path / "bank.db") as connection:
        connection.execute("CREATE TABLE other AS SELECT * FROM payments ORDER BY id DESC")
    connection.close()
    assert ids(aws, source, "other") == {DAYS[0]: ["p1", "p0", "p2"], DAYS[1]: []}
    assert aws.objects()["out/2018-04-01.parquet"] == before


def test_it_needs_what_a_job_can_install_and_runs_on_the_python_of_glue() -> None:
    tree = ast.parse(Path(glue_extract.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == NEEDED


def test_it_does_nothing_when_nobody_asks() -> None:
    with pytest.raises(ExtractError, match="nobody asks for days"):
        glue_extract.main(["--source", "sqlite://"])
