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
from ml_assets.sources.bounds import Bounds
from ml_assets.sources.mapped import MappedFiles
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
    earliest: str = "2008-04-01"
    latest: str = "2018-12-31"
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


def ids(aws: Aws, source: str, rows: str = "payments", timezone: str = "UTC", **given: Any) -> dict[str, list[str]]:
    """The payments of each day that the script wrote and reported."""
    asked = Asked(days=DAYS, timezone=timezone, **given)
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


@pytest.mark.parametrize(
    "time",
    [
        None,
        "01/04/2018",
        "",
        "soon",
        "2018-02-30T10:00:00Z",
        "2018-13-01 10:00:00+02:00",
        "1970-01-01",
        "2008-03-31T23:59:59Z",
        "2019-01-01T00:00:00Z",
        "2099-12-31",
        "9999-12-31T23:59:59+00:00",
        "0001-01-01T00:00:00Z",
    ],
)
def test_a_row_of_no_day_is_delivered_with_the_first_and_takes_no_other_with_it(
    aws: Aws, tmp_path: Path, caplog: pytest.LogCaptureFixture, time: str | None
) -> None:
    assert ids(aws, database(tmp_path, [f"{DAYS[0]}T00:00:00Z", time, f"{DAYS[1]}T00:00:00Z"])) == {
        DAYS[0]: ["p0", "p1"] if time is None or time > DAYS[0] else ["p1", "p0"],
        DAYS[1]: ["p2"],
    }
    told = f"1 rows have no at from 2008-04-01 to 2018-12-31, written as 2018-04-01: they are with those of {DAYS[0]}, to be quarantined"
    assert told in caplog.text


@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "TIMESTAMP", "DATE"])
def test_a_time_of_a_database_out_of_bounds_is_delivered_with_the_first_day_as_the_database_writes_it(
    aws: Aws, tmp_path: Path, kind: str
) -> None:
    times = [
        "2018-04-01",
        "2018-04-02",
        "1970-01-01",
        "2008-04-01",
        "2018-12-31",
        "2019-01-02",
        "infinity",
        "-infinity",
        "9999-12-31",
    ]
    with running_postgres() as postgres:
        engine = sa.create_engine(postgres.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE payments (id TEXT, at {kind}, amount NUMERIC)")
            for number, time in enumerate(times):
                connection.exec_driver_sql(f"INSERT INTO payments VALUES ('{time}', '{time}', {number}.25)")
            connection.exec_driver_sql("INSERT INTO payments VALUES ('none', NULL, 1)")
        found = ids(aws, postgres.url)
        assert sorted(found[DAYS[0]]) == sorted(
            ["2018-04-01", "1970-01-01", "2019-01-02", "infinity", "-infinity", "9999-12-31", "none"]
        )
        assert found[DAYS[1]] == ["2018-04-02"]
        (tmp_path / f"{DAYS[0]}.parquet").write_bytes(aws.objects()[f"out/{DAYS[0]}.parquet"])
        rows = pd.read_parquet(tmp_path / f"{DAYS[0]}.parquet").set_index("id")
        assert rows["at"].to_dict()["infinity"] == "infinity"
        assert rows["at"].to_dict()["2018-04-01"][:10] == "2018-04-01"
        assert rows["amount"].astype(float).to_dict()["9999-12-31"] == 8.25
        columns = {"id": "id", "at": "at", "amount": "amount"}
        bounds = Bounds(start=DAYS[0], earliest="2008-04-01", latest="2018-12-31")
        batch = MappedFiles(
            folder=tmp_path, pattern="{day}.parquet", columns=columns, day_column="at", timezone="UTC", bounds=bounds
        ).read(DAYS[:1])
        assert not batch.problems
        assert sorted(batch.rows["id"]) == sorted(found[DAYS[0]]), "for cleaning to quarantine"
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM payments WHERE id NOT IN ('infinity', 'none')")
        assert ids(aws, postgres.url) == {DAYS[0]: ["infinity", "none"], DAYS[1]: []}


def test_a_row_at_the_edge_of_the_bounds_is_written_once(aws: Aws, tmp_path: Path) -> None:
    times = [f"{DAYS[0]}T00:00:00Z", f"{DAYS[0]}T01:00:00+02:00", "2018-03-31T23:30:00-01:00", "2018-03-31", f"{DAYS[1]}T10:00:00Z"]
    found = ids(aws, database(tmp_path, times), earliest=DAYS[0])
    assert (sorted(found[DAYS[0]]), found[DAYS[1]]) == (["p0", "p1", "p2", "p3"], ["p4"])


def test_one_text_that_pandas_cannot_read_takes_no_other_with_it(aws: Aws) -> None:
    lines = ["1,2018-04-01T25:61:00+00:00", "2,2018-04-02T10:00:00+00:00", "3,2500-01-01T10:00:00+00:00", "4,2018-04-01T10:00:00Z"]
    aws.client("s3").put_object(Bucket=BUCKET, Key="odd/1.csv", Body="\n".join(["id,at", *lines, ""]).encode())
    found = ids(aws, f"s3://{BUCKET}/odd/")
    assert {day: sorted(each) for day, each in found.items()} == {DAYS[0]: ["1", "3", "4"], DAYS[1]: ["2"]}


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
