"""Rows of databases: a real PostgreSQL, and SQLite, deliver what the same rows in a file deliver."""

import gc
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from ml_assets.sources.bounds import Bounds
from ml_assets.sources.delivered import Delivered
from ml_assets.sources.files import PROVENANCE
from ml_assets.sources.mapped import MappedFiles
from ml_assets.sources.mapping import read_mapping, source_of
from ml_assets.sources.sql import SqlRows
from ml_assets.stages.clean import KEPT_PROVENANCE, clean
from ml_assets.stages.ingest import ingested
from ml_assets.use_case import day_range
from ml_assets.use_cases import find
from ml_assets.use_cases.card_fraud.simulator import World
from ml_assets.use_cases.card_fraud.simulator import payments as simulated
from ml_assets_tests.postgres import Postgres, running_postgres

DAYS = ["2018-03-24", "2018-03-25", "2018-03-26"]
"""In the night of the second, clocks go forward in Berlin."""
COLUMNS = {"id": "ID", "paid_at": "At", "customer": "Customer No", "amount": "amount"}


def payments() -> pd.DataFrame:
    times = pd.to_datetime(
        [
            *("2018-03-23T22:59:59.999999Z", "2018-03-23T23:00:00Z", "2018-03-24T12:30:00.25Z", "2018-03-24T12:30:00.25Z"),
            *(
                "2018-03-24T22:59:59Z",
                "2018-03-24T23:00:00Z",
                "2018-03-25T21:59:59Z",
                "2018-03-25T22:00:00Z",
                "2018-03-26T12:00:00Z",
            ),
        ],
        format="ISO8601",
    )
    return pd.DataFrame(
        {
            "ID": range(1, 10),
            "At": times.as_unit("us"),
            "Customer No": ["a", None, "ü\n", "ü\n", "", "b", "c", "d", "e"],
            "amount": [1.5, 0.1, 3.0, 3.0, None, 1e-7, 12345678.9, -1.0, 2.0],
        }
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as started:
        yield started


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the payments."""
    if request.param == "postgresql":
        found: str = request.getfixturevalue("server").url
    else:
        found = f"sqlite:///{tmp_path / 'bank.db'}"
    fill(found, payments())
    return found


def fill(url: str, rows: pd.DataFrame, *, table: str = "payments") -> None:
    stored = rows
    if url.startswith("sqlite"):  # it has no type for times
        stored = rows.assign(At=rows["At"].dt.tz_convert("Europe/Berlin").dt.tz_localize(None).astype("str").str.replace(" ", "T"))
    with closing_engine(url) as engine, engine.begin() as connection:
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
        stored.to_sql(table, connection, index=False)


class closing_engine:  # noqa: N801 (reads like contextlib.closing)
    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)

    def __enter__(self) -> sa.Engine:
        return self.engine

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()


def change(url: str, statement: str) -> None:
    with closing_engine(url) as engine, engine.begin() as connection:
        connection.execute(sa.text(statement))


def source(url: str, *, rows: str = "payments", **changed: Any) -> SqlRows:
    delivered = Delivered(columns=COLUMNS, day_column="paid_at", timezone="Europe/Berlin")
    return SqlRows(url=url, rows=rows, delivered=replace(delivered, **changed), complete_to="2018-03-28")


def content(rows: pd.DataFrame) -> pd.DataFrame:
    """All but the provenance, and instants however they are written."""
    at = pd.to_datetime(rows["paid_at"], utc=True, format="ISO8601")
    return rows.drop(columns=["source_file", "source_version"]).assign(paid_at=at).reset_index(drop=True)


def test_a_database_delivers_what_a_file_delivers(url: str, tmp_path: Path) -> None:
    payments().to_parquet(tmp_path / "payments.parquet")
    files = MappedFiles(
        folder=tmp_path,
        pattern="*.parquet",
        columns=COLUMNS,
        day_column="paid_at",
        timezone="Europe/Berlin",
        complete_to="2018-03-28",
    )
    expected, found = files.read(DAYS), source(url).read(DAYS)
    assert found.counted == expected.counted == {DAYS[0]: 4, DAYS[1]: 2, DAYS[2]: 2}
    assert found.problems == {}
    assert found.versions == source(url).versions(DAYS)
    by_day = [expected.rows[expected.rows["day"] == day].assign(source_row=lambda rows: range(1, len(rows) + 1)) for day in DAYS]
    pd.testing.assert_frame_equal(content(found.rows), content(pd.concat(by_day)))
    assert set(found.rows.columns) == {*COLUMNS, *PROVENANCE}
    assert found.rows["source_file"].str.match(r"payments in (postgresql|sqlite)://").all()


def test_a_day_is_alike_alone_and_among_others(url: str) -> None:
    together = source(url).read(DAYS)
    for day in DAYS:
        alone = source(url).read([day])
        assert alone.versions[day] == together.versions[day]
        among = together.rows[together.rows["day"] == day].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone.rows, among, check_dtype=len(among) > 0)


@pytest.mark.parametrize(
    ("statement", "touched"),
    [
        ('UPDATE payments SET amount = 4 WHERE "ID" = 3', {DAYS[0]}),
        ('DELETE FROM payments WHERE "ID" = 6', {DAYS[1]}),
        ('UPDATE payments SET "At" = (SELECT "At" FROM payments WHERE "ID" = 9) WHERE "ID" = 2', {DAYS[0], DAYS[2]}),
        ('UPDATE payments SET "Customer No" = \'\' WHERE "ID" = 2', {DAYS[0]}),
        ('INSERT INTO payments SELECT 10, "At", \'late\', 1 FROM payments WHERE "ID" = 7', {DAYS[1]}),
        ('UPDATE payments SET "ID" = 4 WHERE "ID" = 3', {DAYS[0]}),
        ("UPDATE payments SET amount = amount", set()),
    ],
    ids=["update", "delete", "another day", "null to blank", "late row", "twice", "nothing"],
)
def test_exactly_the_days_that_changed_have_another_version(url: str, statement: str, touched: set[str]) -> None:
    before = source(url).versions(DAYS)
    change(url, statement)
    after = source(url).versions(DAYS)
    assert {day for day in DAYS if before[day] != after[day]} == touched


def test_a_version_does_not_depend_on_who_asks(server: Postgres) -> None:
    fill(server.url, payments())
    expected = source(server.url).read(DAYS)
    for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'German'", "extra_float_digits = -5"):
        change(server.url, f"ALTER ROLE postgres SET {setting}")
        found = source(server.url).read(DAYS)
        change(server.url, "ALTER ROLE postgres RESET ALL")
        assert found.versions == expected.versions, setting
        pd.testing.assert_frame_equal(found.rows, expected.rows)


def test_a_query_with_a_flag_and_a_delay(server: Postgres) -> None:
    fill(server.url, payments())
    rows = 'SELECT p.*, CASE WHEN "ID" % 2 = 0 THEN 1 ELSE 0 END AS fraud FROM payments p'
    changed = {
        "columns": {"id": "ID"},
        "day_column": "reported_at",
        "delayed": {"reported_at": ("At", timedelta(days=1))},
        "where": ("fraud", "1"),
    }
    found = source(server.url, rows=rows, **changed).read(DAYS)
    assert found.rows[["day", "id", "reported_at"]].values.tolist() == [
        [DAYS[1], "2", "2018-03-24T23:00:00Z"],
        [DAYS[1], "4", "2018-03-25T12:30:00.25Z"],
        [DAYS[2], "6", "2018-03-25T23:00:00Z"],
    ]


def test_days_that_the_database_does_not_have_yet(url: str) -> None:
    open_end = SqlRows(url=url, rows="payments", delivered=source(url).delivered)
    found = open_end.read(["2018-03-20", DAYS[2], "2018-03-27"])
    assert found.counted == {"2018-03-20": 0, DAYS[2]: 2}
    assert found.problems["2018-03-27"].startswith("not delivered yet: the last row of payments in ")
    assert open_end.versions(["2018-03-20", "2018-03-27"]).keys() == {"2018-03-20"}
    late = source(url).read(["2018-03-28"])
    assert late.problems["2018-03-28"].endswith("is complete before 2018-03-28")
    change(url, "DELETE FROM payments")
    assert open_end.read([DAYS[0]]).problems[DAYS[0]].endswith("is of no day")


def test_rows_without_a_time(url: str) -> None:
    change(url, 'UPDATE payments SET "At" = NULL WHERE "ID" = 3')
    with pytest.raises(ValueError, match=r"payments in .*: 1 rows have no At, so nobody knows their day"):
        source(url).read(DAYS)


BOUNDS = Bounds(start=DAYS[0], end="2018-03-28", earliest="2018-03-20", now=lambda: datetime(2018, 3, 26, tzinfo=UTC))


def bounded(url: str, **changed: Any) -> SqlRows:
    """With the stray rows below the first day, and without an end."""
    return replace(source(url, bounds=replace(BOUNDS, end=None), **changed), complete_to=None)


@pytest.mark.parametrize(
    "wrong", ["NULL", "'0044-01-01T00:00:00'", "'1970-01-01T00:00:00'", "'2018-03-28T00:00:00'", "'9999-12-31T23:59:59'"]
)
def test_a_row_of_no_day_is_of_the_first_and_changes_no_other(url: str, wrong: str) -> None:
    sound = bounded(url)
    before, last = sound.read(DAYS), "2018-03-27"
    assert before.counted == {DAYS[0]: 4, DAYS[1]: 2, DAYS[2]: 2}
    change(url, f"INSERT INTO payments SELECT 10, {wrong}{'' if url.startswith('sqlite') else '::timestamptz'}, 'x', 1")
    batch = sound.read(DAYS)
    assert batch.counted == {DAYS[0]: 5, DAYS[1]: 2, DAYS[2]: 2}
    stray = batch.rows.iloc[4]
    assert (stray["id"], stray["day"], stray["source_row"], pd.isna(stray["paid_at"])) == ("10", DAYS[0], 5, wrong == "NULL")
    assert wrong == "NULL" or stray["paid_at"].startswith(wrong[1:17]), "as it was"
    assert [batch.versions[day] == before.versions[day] for day in DAYS] == [False, True, True]
    assert sound.versions(DAYS) == batch.versions
    for day in DAYS:
        alone = sound.read([day])
        assert alone.versions[day] == batch.versions[day]
        among = batch.rows[batch.rows["day"] == day].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone.rows, among, check_dtype=False)
    assert sound.read([last]).problems[last].endswith("is of 2018-03-26"), "it completes nothing"
    assert sound.watched([*DAYS, last]) == DAYS
    assert sound.trouble() == ""


def test_where_no_row_has_a_time_no_day_is_delivered(url: str) -> None:
    change(url, 'UPDATE payments SET "At" = NULL')
    for complete_to in (None, "2018-03-28"):
        empty = replace(bounded(url), complete_to=complete_to)
        [told] = set(empty.read(DAYS).problems.values())
        assert told.endswith("none of its 9 rows has a At from 2018-03-20 to 2018-03-27")
        assert (empty.trouble(), empty.versions(DAYS)) == (told, {})
    change(url, "DELETE FROM payments")
    assert bounded(url).read(DAYS).problems[DAYS[0]].endswith("is of no day")
    assert replace(bounded(url), complete_to="2018-03-28").read(DAYS).counted == dict.fromkeys(DAYS, 0)


def test_times_that_python_does_not_have(server: Postgres) -> None:
    fill(server.url, payments())
    for number, at in enumerate(["infinity", "-infinity", "0044-03-15 12:00:00 BC", "20000-01-01"]):
        change(server.url, f"INSERT INTO payments SELECT {20 + number}, '{at}'::timestamptz, 'x', 1")
    batch = bounded(server.url).read(DAYS)
    assert batch.counted == {DAYS[0]: 8, DAYS[1]: 2, DAYS[2]: 2}
    assert batch.rows["paid_at"].tolist()[4:8] == ["-infinity", "0044-03-15 12:00:00+00 BC", "20000-01-01 00:00:00+00", "infinity"]


def test_texts_that_are_no_times_are_of_the_day_behind_which_texts_put_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bank.db'}"
    fill(url, payments())
    for number, at in enumerate(
        ["'2018-03-25 soon'", "'2018-03-26T99:00:00'", "'soon'", "''", "7", "2.5", "x'00'", "'2018-03-25X'"]
    ):
        change(url, f"INSERT INTO payments SELECT {20 + number}, {at}, 'x', 1")
    rows = bounded(url)
    batch = rows.read(DAYS)
    assert batch.counted == {DAYS[0]: 4 + 5, DAYS[1]: 2 + 2, DAYS[2]: 2 + 1}
    assert rows.versions(DAYS) == batch.versions
    assert rows.read(["2018-03-27"]).problems["2018-03-27"].endswith("is of 2018-03-26")
    change(url, "DELETE FROM payments WHERE \"At\" >= '2018-03-26T00' AND \"At\" <> '2018-03-26T99:00:00'")
    change(url, "INSERT INTO payments SELECT 40, 'soon', 'x', 1")
    assert rows.read([DAYS[2]]).problems[DAYS[2]].endswith("is of 2018-03-25"), "what is no time does not complete its day"


@pytest.mark.parametrize("dates", [None, "start", "end"])
@pytest.mark.parametrize("hours", [0, 24, 12])
def test_dates_of_a_database_are_those_of_a_file(server: Postgres, tmp_path: Path, dates: Any, hours: int) -> None:
    days = ["2018-03-24", "2018-03-25", "2018-03-25", "9999-12-31", None, "2018-03-26"]
    frame = pd.DataFrame({"id": range(6), "on": pd.to_datetime(pd.Series(days), errors="coerce").dt.date})
    with closing_engine(server.url) as engine, engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS dated"))
        connection.execute(sa.text('CREATE TABLE dated (id int, "on" date)'))
        for number, day in enumerate(days):
            connection.execute(sa.text("INSERT INTO dated VALUES (:id, :day)"), {"id": number, "day": day})
    pd.DataFrame({"id": frame["id"], "on": days}).to_csv(tmp_path / "dated.csv", index=False)
    bounds = replace(BOUNDS, end=None)
    declared: dict[str, Any] = {
        "columns": {"id": "id"},
        "delayed": {"at": ("on", timedelta(hours=hours))},
        "day_column": "at",
        "timezone": "UTC",
    }
    declared |= {"bounds": bounds, "dates": dates}
    rows = SqlRows(url=server.url, rows="dated", delivered=Delivered(**declared), complete_to="2018-03-28")
    files = MappedFiles(folder=tmp_path, pattern="*.csv", complete_to="2018-03-28", **declared)
    asked = day_range("2018-03-24", "2018-03-27")
    found, expected = rows.read(asked), files.read(asked)
    stray = ["3", "4"]  # which a file has under the day of the row before
    columns = ["day", "id", "at"]
    assert sorted(found.rows.loc[found.rows["id"].isin(stray), "day"]) == [DAYS[0]] * 2
    kept = [batch.rows.loc[~batch.rows["id"].isin(stray), columns].values.tolist() for batch in (found, expected)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 4


@pytest.mark.parametrize(
    ("rows", "columns", "match"),
    [
        ("nothing", COLUMNS, "nothing"),
        ("payments", COLUMNS | {"id": "Number"}, "has no column Number (id); it has ID, At, Customer No, amount"),
        ("SELECT 1 FROM", COLUMNS, "syntax"),
    ],
)
def test_what_is_not_there_is_a_problem_of_every_day(url: str, rows: str, columns: dict[str, str], match: str) -> None:
    broken = source(url, rows=rows, columns=columns)
    found = broken.read(DAYS)
    assert found.counted == {}
    assert set(found.problems) == set(DAYS)
    assert all(match in problem and "\n" not in problem for problem in found.problems.values())
    assert broken.versions(DAYS) == {}


def test_times_that_cannot_be_compared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bank.db'}"
    for at, match in (
        (1521900000, "holds int, expected a time"),
        ("24.03.2018", "is text such as '24.03.2018', expected ISO 8601"),
    ):
        with closing(sqlite3.connect(tmp_path / "bank.db")) as connection, connection:
            connection.execute("DROP TABLE IF EXISTS payments")
            connection.execute('CREATE TABLE payments ("ID", "At", "Customer No", amount)')
            connection.execute("INSERT INTO payments VALUES (1, ?, 'a', 1)", (at,))
        with pytest.raises(ValueError, match=match):
            source(url).read(DAYS)
        with pytest.raises(ValueError, match=match):
            source(url).versions(DAYS)


# What can go wrong on the way ----------------------------------------------------------------------------------------------------


def test_wrong_credentials_are_said_without_the_password() -> None:
    with running_postgres() as server:
        change(server.url, "CREATE ROLE reader LOGIN PASSWORD 'right'")
        (server.folder / "data" / "pg_hba.conf").write_text("host all postgres all trust\nhost all all all scram-sha-256\n")
        change(server.url, "SELECT pg_reload_conf()")
        time.sleep(0.2)
        wrong = source(server.url.replace("postgres@", "reader:hunter2@"))
        [problem] = set(wrong.read(DAYS).problems.values())
        assert 'password authentication failed for user "reader"' in problem
        assert "hunter2" not in problem + repr(wrong.versions(DAYS))
        right = source(server.url.replace("postgres@", "reader:right@"))
        assert 'relation "payments" does not exist' in right.read(DAYS).problems[DAYS[0]]
        assert "right" not in "".join(right.read(DAYS).problems.values())


@pytest.mark.filterwarnings("ignore:<psycopg.ServerCursor:ResourceWarning")  # nothing can close one whose server is gone
def test_a_server_that_is_killed_while_it_is_read_and_comes_back() -> None:
    with running_postgres() as server:
        many = pd.concat([payments()] * 5_000, ignore_index=True)
        fill(server.url, many)
        reader = source(server.url)
        expected = reader.read([DAYS[0]])
        assert expected.counted == {DAYS[0]: 20_000}
        killed = 0
        for seconds in (0.02, 0.08, 0.15):
            code = "import os, signal, sys, time; time.sleep(float(sys.argv[1])); os.kill(int(sys.argv[2]), signal.SIGKILL)"
            assert server.process is not None
            with subprocess.Popen([sys.executable, "-c", code, str(seconds), str(server.process.pid)]):
                found = reader.read(DAYS)
            killed += bool(found.problems)
            if found.problems:
                assert (found.counted, len(found.rows)) == ({}, 0), "nothing of it is taken"
            server.stop(signal.SIGKILL)
            assert reader.read(DAYS).problems.keys() == set(DAYS)
            server.start()
            again = reader.read([DAYS[0]])
            assert again.versions == expected.versions
            pd.testing.assert_frame_equal(again.rows, expected.rows)
            gc.collect()
        assert killed


def test_what_is_written_while_it_is_read_is_not_seen(server: Postgres) -> None:
    fill(server.url, payments())
    reader = source(server.url)
    plain = reader._of_day
    seen = []

    def writing_first(*arguments: Any) -> Any:
        change(server.url, 'DELETE FROM payments WHERE "ID" IN (2, 6)')
        seen.append(arguments)
        return plain(*arguments)

    expected = reader.read(DAYS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SqlRows, "_of_day", lambda _self, *arguments: writing_first(*arguments))
        found = reader.read(DAYS)
    assert len(seen) == 3
    assert found.versions == expected.versions
    pd.testing.assert_frame_equal(found.rows, expected.rows)
    assert reader.read(DAYS).counted == {DAYS[0]: 3, DAYS[1]: 1, DAYS[2]: 2}


# How it is written down ----------------------------------------------------------------------------------------------------------

TOML = """
start = "2018-03-24"
end = "2018-03-28"
timezone = "UTC"
database = "postgresql+psycopg://${BANK_USER}:${BANK_PASSWORD}@127.0.0.1:%d/postgres"

[transactions]
rows = "payments"
columns = {transaction_id = "ID", paid_at = "At"}

[chargebacks]
of = "transactions"
flag = "Customer No"
flag_is = "d"
delay_days = 1
delayed = {reported_at = "At"}
"""


def test_a_database_in_toml(server: Postgres, tmp_path: Path) -> None:
    fill(server.url, payments())
    file = tmp_path / "bank.toml"
    file.write_text(TOML % server.port)
    with pytest.raises(ValueError, match=r"bank.toml: database needs BANK_PASSWORD, BANK_USER in the environment"):
        read_mapping(file)
    mapping = read_mapping(file, {"BANK_USER": "postgres", "BANK_PASSWORD": "a b/@:%"})
    found = source_of(mapping, "transactions", day_column="paid_at").read(["2018-03-25"])
    assert found.rows["transaction_id"].tolist() == ["7", "8"]
    assert "a b" not in found.rows.to_csv()
    reported = source_of(mapping, "chargebacks", day_column="reported_at").read(["2018-03-26"])
    assert reported.rows[["transaction_id", "reported_at"]].values.tolist() == [["8", "2018-03-26T22:00:00Z"]]


OWN = """
start = "2018-04-01"
end = "2018-04-08"
timezone = "UTC"
%s

[transactions]
%s
columns = {transaction_id = "event_id", paid_at = "paid_at", customer_id = "customer_id", terminal_id = "terminal_id", amount = "amount"}

[chargebacks]
of = "transactions"
flag = "fraud"
delay_days = 7
delayed = {reported_at = "paid_at"}
"""


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_bank_in_a_database_is_the_bank_in_files(server: Postgres, tmp_path: Path, kind: str) -> None:
    days = day_range("2018-04-01", "2018-04-07")
    rows = simulated(World(customers=50, terminals=80, seed=3, first_day=days[0]), days)
    rows = rows.assign(amount=rows["amount_cents"] / 100)
    rows = pd.concat([rows, rows.tail(3)], ignore_index=True)  # three come twice
    rows.to_parquet(tmp_path / "payments.parquet")
    url = server.url if kind == "postgresql" else f"sqlite:///{tmp_path / 'bank.db'}"
    with closing_engine(url) as engine, engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS bank"))
        stored = rows if kind == "postgresql" else rows.assign(paid_at=rows["paid_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        stored.to_sql("bank", connection, index=False)
    cleaned = []
    for name, place, what in (("files", 'folder = "."', 'files = "*.parquet"'), ("rows", f'database = "{url}"', 'rows = "bank"')):
        (tmp_path / f"{name}.toml").write_text(OWN % (place, what))
        settings = {"ML_ASSETS_CARD_FRAUD_FILES": str(tmp_path / f"{name}.toml")}
        case = find("card_fraud", settings)
        for table in ("transactions", "chargebacks"):
            batch = case.table(table).source(settings).read(days)
            found = clean(ingested(batch, case.table(table), days), case.table(table))
            cleaned.append(found.rows.sort_values("event_id", ignore_index=True).drop(columns=list(KEPT_PROVENANCE)))
            assert len(found.rejected) == (3 if table == "transactions" else 0)
    assert len(cleaned[0]) == len(rows) - 3 > 200
    pd.testing.assert_frame_equal(cleaned[0], cleaned[2])
    pd.testing.assert_frame_equal(cleaned[1], cleaned[3])


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("database =", "data_base =", "unknown data_base"),
        (
            'rows = "payments"',
            'rows = "payments"\nfiles = "*.csv"',
            "transactions: expected one of `files`, `rows`, `topic`, `pages`, `stream` and `of`",
        ),
        ("postgresql+psycopg://", "mongodb://", r"\[transactions\] no database that can be reached: "),
        ("postgresql+psycopg://", "", r"\[transactions\] no database that can be reached: expected a URL such as"),
    ],
)
def test_mistakes_in_toml(tmp_path: Path, old: str, new: str, match: str) -> None:
    file = tmp_path / "bank.toml"
    file.write_text((TOML % 1).replace(old, new, 1))
    with pytest.raises(ValueError, match=match) as raised:
        source_of(read_mapping(file, {"BANK_USER": "u", "BANK_PASSWORD": "hunter2"}), "transactions", day_column="paid_at")
    assert "hunter2" not in str(raised.value)
