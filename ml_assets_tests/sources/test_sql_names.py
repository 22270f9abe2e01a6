"""Names of tables and columns, and queries, that SQL, SQLAlchemy or a driver could read as something else: real PostgreSQL and SQLite."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_assets.sources.delivered import Delivered
from ml_assets.sources.sql import SqlRows
from ml_assets_tests.postgres import Postgres, running_postgres

DAY = "2024-01-01"
COLUMNS = [
    *(
        "order",
        "select",
        "from",
        "user",
        "null",
        "Day",
        "DAY",
        "day",
        "event_id",
        "label",
        "%",
        "%s",
        "%(x)s",
        ":from_then",
        ":a",
        "::b",
    ),
    *(
        '5" pipes',
        "it's",
        "back`tick",
        "a.b",
        ".",
        "*",
        "a b",
        " a",
        "x;--",
        "/* c",
        "{{ 7*7 }}",
        "${HOME}",
        "\\",
        "\\:c",
        "<b>",
        "größe",
    ),
    *("$1", "?", "1", "count(*)", "two\nlines", "q" * 60),
]
TABLES = ["order", "select", "my table", "My Table", "a.b", 'quote"d', ":t", "%s", "x; DROP TABLE y", "SELECT", "with", "ünï"]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as started:
        yield started


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("server").url if request.param == "postgresql" else f"sqlite:///{tmp_path / 'bank.db'}"


def run(url: str, *statements: str, values: list[str] | None = None) -> None:
    """By the driver, which is given values for the last statement only, and so takes the others as they are written."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        for statement in statements[: None if values is None else -1]:
            cursor.execute(statement)
        if values is not None:
            cursor.execute(statements[-1], values)
        connection.commit()


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def create(url: str, name: str, columns: dict[str, str], *, schema: str = "") -> None:
    """A table with one row."""
    table = f"{schema}{quoted(name)}"
    names = ", ".join(f"{quoted(column)} TEXT" for column in columns)
    insert = f"INSERT INTO {table} VALUES ({', '.join(['?'] * len(columns))})"
    if url.startswith("postgresql"):
        insert = insert.replace("%", "%%").replace(" VALUES (?", " VALUES (%s").replace(", ?", ", %s")
    run(url, f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} ({names})", insert, values=list(columns.values()))


def source(url: str, rows: str, columns: dict[str, str], time: str = "At") -> SqlRows:
    return SqlRows(
        url=url,
        rows=rows,
        delivered=Delivered(columns={"at": time, **columns}, day_column="at", timezone="UTC"),
        complete_to="2024-01-03",
    )


def test_columns_of_any_name_are_read(url: str) -> None:
    names = [name for name in COLUMNS if url.startswith("postgresql") or name not in ("DAY", "day")]  # to SQLite all three are one
    create(url, "events", {"At": f"{DAY}T10:00:00Z"} | {name: f"value of {name}" for name in names})
    reader = source(url, "events", {f"d{place}": name for place, name in enumerate(names)})

    batch = reader.read([DAY])

    assert batch.problems == {}
    [row] = batch.rows.to_dict("records")
    assert {name: row[f"d{place}"] for place, name in enumerate(names)} == {name: f"value of {name}" for name in names}
    assert reader.versions([DAY]) == batch.versions
    assert (reader.trouble(), list(reader.watched([DAY]))) == ("", [DAY])


@pytest.mark.parametrize("name", ["order", ":at", "%", "a.b", 'q"', "two words"])
def test_the_time_may_have_any_name(url: str, name: str) -> None:
    create(url, "events", {name: f"{DAY}T10:00:00Z", "x": "1"})
    batch = source(url, "events", {"x": "x"}, time=name).read([DAY])
    assert batch.problems == {}
    assert batch.rows[["at", "x"]].to_numpy().tolist() == [[f"{DAY}T10:00:00Z", "1"]]


def test_an_empty_name_is_read_where_a_database_has_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bank.db'}"
    run(url, 'CREATE TABLE events ("At" TEXT, "" TEXT)', f"INSERT INTO events VALUES ('{DAY}', 'v')")
    assert source(url, "events", {"x": ""}).read([DAY]).rows["x"].isna().all()  # "" says that there is no column
    assert source(url, 'SELECT "At", "" AS "nameless" FROM events', {"x": "nameless"}).read([DAY]).rows["x"].tolist() == ["v"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_may_have_any_name(url: str, name: str) -> None:
    create(url, name, {"At": f"{DAY}T10:00:00Z", "x": "1"})
    reader = source(url, name, {"x": "x"})

    batch = reader.read([DAY])

    assert batch.problems == {}
    assert batch.rows["x"].tolist() == ["1"]
    assert reader.versions([DAY]) == batch.versions


def test_a_schema_may_have_any_name(server: Postgres) -> None:
    run(server.url, 'DROP SCHEMA IF EXISTS "order" CASCADE', 'CREATE SCHEMA "order"')
    create(server.url, "select", {"At": f"{DAY}T10:00:00Z", "x": "1"}, schema='"order".')
    for written in ("order.select", '"order"."select"'):
        batch = source(server.url, written, {"x": "x"}).read([DAY])
        assert (batch.problems, batch.rows["x"].tolist()) == ({}, ["1"])


def test_names_that_a_database_folds_are_still_found(url: str) -> None:
    create(url, "payments", {"At": f"{DAY}T10:00:00Z", "x": "1"})
    assert source(url, "PAYMENTS", {"x": "x"}).read([DAY]).rows["x"].tolist() == ["1"]


def test_a_query_stays_as_it_is_written(url: str) -> None:
    create(url, "payments", {"At": f"{DAY}T10:00:00Z", "x": "1"})
    query = """SELECT "At", 'it is 10:30 :now %s %(x)s \\: ' || x AS x FROM payments WHERE x LIKE '%1%'"""
    query = query if url.startswith("sqlite") else query.replace("|| x", "|| x::text")
    assert source(url, query, {"x": "x"}).read([DAY]).rows["x"].tolist() == ["it is 10:30 :now %s %(x)s \\: 1"]


def test_what_is_no_table_is_a_problem_that_names_it(url: str) -> None:
    batch = source(url, "x; DROP TABLE payments", {"x": "x"}).read([DAY])
    assert "x; DROP TABLE payments in " in batch.problems[DAY]
