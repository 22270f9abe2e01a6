"""Dialects: the same rows whatever they came through, everything that is refused, and what a file says of its dialect."""

import csv
import io
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ml_assets.sources.as_text import days_of
from ml_assets.sources.dialect import Dialect, infer_columns, infer_csv, toml_text
from ml_assets.sources.files import text_columns
from ml_assets.sources.landing import LandedRows
from ml_assets.sources.mapped import MappedFiles
from ml_assets.sources.mapping import read_mapping, source_of
from ml_assets.sources.sql import NoOrderError
from ml_assets.stages.clean import Cleaned, clean
from ml_assets.stages.ingest import ingested
from ml_assets.stages.intake import RowIntake
from ml_assets.use_case import Column, DType, Intake, Table
from ml_assets_tests.brokers import running_noida
from ml_assets_tests.buckets import put, running_s3
from ml_assets_tests.feeds import Api, running_api
from ml_assets_tests.postgres import running_postgres

DAY = "2024-01-31"
DTYPES = {"id": DType.STRING, "at": DType.TIMESTAMP, "amount": DType.FLOAT64, "night": DType.BOOL, "seen_at": DType.TIMESTAMP}
COLUMNS = {name: name for name in (*DTYPES, "place")}
WRITTEN = [
    {"id": "1", "at": f"{DAY} 10:00:00+00", "amount": "1.234,56", "night": "Ja", "seen_at": "31/01/2024 11:00", "place": "café"},
    {"id": "2", "at": f"{DAY} 10:01:00 UTC", "amount": "-,5", "night": "nein", "seen_at": r"\N", "place": "NA, and more"},
    {"id": "3", "at": f"{DAY}T10:02:00+01", "amount": "NA", "night": "JA", "seen_at": "1/2/2024 9:05", "place": 'a "b"'},
    {"id": "4", "at": f"{DAY}T10:03:00Z", "amount": "1234.56", "night": "ja", "seen_at": f"{DAY}T10:00:00Z", "place": "x"},
]
READ = [
    {"id": "1", "amount": 1234.56, "night": True, "seen_at": "2024-01-31 11:00", "place": "café"},
    {"id": "2", "amount": -0.5, "night": False, "seen_at": None, "place": "NA, and more"},
    {"id": "3", "amount": None, "night": True, "seen_at": "2024-02-01 09:05", "place": 'a "b"'},
]
DIALECT = r"""
[events.dialect]
decimal = ","
thousands = "."
missing = ["NA", "\\N"]
time = {seen_at = "%d/%m/%Y %H:%M"}
true = ["ja"]
false = ["nein"]
"""
OF_CSV = 'separator = ";"\nencoding = "cp1252"\n'


def table() -> Table:
    columns = tuple(
        Column(name=name, dtype=DTYPES.get(name, DType.STRING), nullable=name in ("amount", "seen_at")) for name in COLUMNS
    )
    return Table(
        name="events",
        source=lambda _: None,  # type: ignore[arg-type, return-value]
        delivered=columns,
        columns=columns,
        key=("id",),
        derive=lambda rows: rows,
        max_rejected_share=1.0,
    )


def as_csv(rows: list[dict[str, str]], **form: Any) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n", **form)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Places:
    """Delivers the rows to each source, and says in TOML where it is."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self.folder, self.held, self.settings = folder, held, dict[str, str]()

    def file(self, name: str, content: bytes, more: str = "") -> tuple[str, str, str]:
        (self.folder / name).write_bytes(content)
        return "", f'files = "*{Path(name).suffix}"', more

    def csv(self) -> tuple[str, str, str]:
        return self.file("one.csv", as_csv(WRITTEN, delimiter=";").encode("cp1252"), OF_CSV)

    def utf_16(self) -> tuple[str, str, str]:
        content = as_csv(WRITTEN, delimiter="\t", quoting=csv.QUOTE_ALL).encode("utf-16")
        return self.file("one.csv", content, 'separator = "\\t"\nencoding = "utf-16"\n')

    def lines(self) -> tuple[str, str, str]:
        return self.file("one.jsonl", b"\xef\xbb\xbf" + "\n".join(json.dumps(row) for row in WRITTEN).encode())

    def parquet(self) -> tuple[str, str, str]:
        pq.write_table(pa.Table.from_pylist(WRITTEN), self.folder / "one.parquet")
        return "", 'files = "*.parquet"', ""

    def bucket(self) -> tuple[str, str, str]:
        server = self.held.enter_context(running_s3())
        self.settings |= server.settings
        put(server, "shop/one.csv", as_csv(WRITTEN, delimiter=";").encode("cp1252"))
        return f'folder = "{server.address("shop")}"', 'files = "*.csv"', OF_CSV

    def database(self, url: str) -> tuple[str, str, str]:
        pd.DataFrame(WRITTEN).to_sql("payments", sa.create_engine(url, poolclass=sa.NullPool), index=False)
        return f'database = "{url}"', 'rows = "payments"', ""

    def kafka(self) -> tuple[str, str, str]:
        broker = self.held.enter_context(running_noida())
        broker.make("events", partitions=1)
        broker.send("events", WRITTEN, partitions=1)
        return f'[kafka]\n"bootstrap.servers" = "{broker.settings["bootstrap.servers"]}"', 'topic = "events"', ""

    def http(self, kind: str) -> tuple[str, str, str]:
        api = self.held.enter_context(running_api(Api(rows=list(WRITTEN))))
        url = f"{api.url}/{'events' if kind == 'stream' else 'linked'}"
        return "", f'{kind} = {{url = "{url}", headers = {{Authorization = "Bearer right"}}}}', ""


WAYS: dict[str, Callable[[Places], tuple[str, str, str]]] = {
    "CSV": Places.csv,
    "CSV in UTF-16": Places.utf_16,
    "JSON lines": Places.lines,
    "Parquet": Places.parquet,
    "S3": Places.bucket,
    "SQLite": lambda to: to.database(f"sqlite:///{to.folder}/shop.db"),
    "PostgreSQL": lambda to: to.database(to.held.enter_context(running_postgres()).url),
    "Kafka": Places.kafka,
    "HTTP": lambda to: to.http("pages"),
    "stream": lambda to: to.http("stream"),
}


def cleaned(source: Any, days: list[str] | None = None) -> Cleaned:
    batch = source.read(days or [DAY])
    assert batch.problems == {}
    return clean(ingested(batch, table(), days or [DAY]), table())


@pytest.mark.parametrize("way", WAYS)
def test_a_dialect_is_read_alike_from_each_source(way: str, tmp_path: Path) -> None:
    with ExitStack() as held:
        places = Places(tmp_path, held)
        top, place, more = WAYS[way](places)
        columns = f"columns = {toml_text(COLUMNS)}"
        file = tmp_path / "shop.toml"
        file.write_text(f'start = "2024-01-01"\nend = "2024-02-02"\n{top}\n[events]\n{place}\n{columns}\n{DIALECT}{more}')
        source = source_of(read_mapping(file), "events", places.settings, day_column="at", dtypes=DTYPES)
        if isinstance(source, LandedRows) and way == "stream":
            following = source.landing.follow()
            while sum(source.landing.counts().values()) < len(WRITTEN):
                next(following)
        result = cleaned(source)
    rows = result.rows
    seen = [None if pd.isna(each) else f"{each:%Y-%m-%d %H:%M}" for each in rows["seen_at"]]
    assert seen == [row["seen_at"] for row in READ]
    for name in ("id", "amount", "night", "place"):
        assert rows[name].astype(object).where(rows[name].notna(), None).tolist() == [row[name] for row in READ], name
    assert rows["at"].dt.strftime("%H:%M").tolist() == ["10:00", "10:01", "09:02"]
    [refused] = result.rejected["reason"]
    assert refused == (
        "amount: '1234.56' is not a number with decimal = ',' and thousands = '.'; "
        "seen_at: '2024-01-31T10:00:00Z' is not a time in the form '%d/%m/%Y %H:%M'"
    )
    assert json.loads(result.rejected["content"].iloc[0])["amount"] == "1234.56", "as it was delivered"


def files(folder: Path, content: bytes, name: str = "one.csv", **changes: Any) -> MappedFiles:
    (folder / name).write_bytes(content)
    pattern = f"*.{name.partition('.')[2]}"
    declared = {"columns": {"at": "at", "amount": "amount"}, "day_column": "at", "timezone": "UTC", "dtypes": DTYPES}
    return MappedFiles(folder=folder, pattern=pattern, **(declared | changes))


def values(source: Any, column: str = "amount") -> list[Any]:
    batch = source.read([DAY])
    assert batch.problems == {}
    return list(batch.rows[column].astype(object).where(batch.rows[column].notna(), None))


@pytest.mark.parametrize("name", ["one.csv", "one.jsonl", "one.parquet"])
@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d/%m/%Y %H:%M", "31/01/2024 10:00"),
        ("%m/%d/%Y %I:%M:%S %p", "01/31/2024 10:00:00 AM"),
        ("%d.%m.%Y %H:%M:%S,%f", "31.1.2024 10:00:00,000"),
        ("%Y%m%dT%H%M%SZ", "20240131T100000Z"),
        ("%b %d, %Y %H:%M %z", "Jan 31, 2024 11:00 +0100"),
        ("epoch seconds", "1706695200"),
        ("epoch seconds", "1706695200.0"),
        ("epoch milliseconds", "1706695200000"),
        ("epoch microseconds", "1.7066952e15"),
    ],
)
def test_a_form_of_times_says_the_day_and_the_instant(tmp_path: Path, name: str, form: str, text: str) -> None:
    rows = [{"at": text, "amount": "1"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one.parquet")
    content = {"one.csv": as_csv(rows).encode(), "one.jsonl": json.dumps(rows[0]).encode()}
    source = files(tmp_path, content.get(name) or (tmp_path / name).read_bytes(), name, dialect=Dialect(time=form))
    [at] = values(source, "at")
    assert pd.Timestamp(at) == pd.Timestamp("2024-01-31T10:00:00Z")


def test_numbers_since_1970_say_a_day_whatever_type_they_are_of(tmp_path: Path) -> None:
    moments = [int(datetime(2024, 1, 31, hour, tzinfo=UTC).timestamp()) for hour in (0, 23)]
    dialect = Dialect(time="epoch seconds")
    pq.write_table(pa.table({"at": moments, "amount": [1, 2]}), tmp_path / "one.parquet")
    source = files(tmp_path, (tmp_path / "one.parquet").read_bytes(), "one.parquet", dialect=dialect)
    assert values(source, "at") == ["2024-01-31T00:00:00Z", "2024-01-31T23:00:00Z"]
    problem = replace(source, dialect=Dialect()).read([DAY]).problems[DAY]
    assert 'declare [events.dialect] time = {"at" = "epoch seconds"}' in problem


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_a_database_finds_the_rows_of_a_day_by_numbers_since_1970(tmp_path: Path, place: str) -> None:
    with ExitStack() as held:
        url = held.enter_context(running_postgres()).url if place == "postgresql" else f"sqlite:///{tmp_path}/shop.db"
        moments = [int(datetime(2024, 1, day, 23, tzinfo=UTC).timestamp() * 1000) for day in (30, 31)]
        rows = pd.DataFrame({"at": moments, "amount": ["1,5", "2,5"], "form": ["30/01/2024", "31/01/2024"]})
        rows.to_sql("payments", sa.create_engine(url, poolclass=sa.NullPool), index=False)
        file = tmp_path / "shop.toml"
        top = f'start = "2024-01-01"\ndatabase = "{url}"\n[events]\nrows = "payments"\n'
        dialect = '[events.dialect]\ndecimal = ","\ntime = {at = "epoch milliseconds", form = "%d/%m/%Y"}\n'
        file.write_text(f'{top}columns = {{at = "at", amount = "amount"}}\n{dialect}')
        source = source_of(read_mapping(file), "events", day_column="at", dtypes=DTYPES)
        assert (values(source), values(source, "at")) == (["2.5"], ["2024-01-31T23:00:00Z"])
        assert "not delivered yet" in source.read(["2024-02-01"]).problems["2024-02-01"]
        file.write_text(f'{top}columns = {{at = "form", amount = "amount"}}\n{dialect}')
        with pytest.raises(NoOrderError, match=r"by which a database cannot find the rows of a day.*as a query that converts it"):
            source_of(read_mapping(file), "events", day_column="at", dtypes=DTYPES).read([DAY])


def test_numbers_of_json_stay_what_they_are_beside_texts_with_a_comma(tmp_path: Path) -> None:
    lines = [f'{{"at": "{DAY}T10:00:00Z", "amount": {amount}}}' for amount in ("1.234", '"1.234"', '"1,5"', "2", "true", "null")]
    source = files(tmp_path, "\n".join(lines).encode(), "one.jsonl", dialect=Dialect(decimal=",", thousands="."))
    assert values(source)[:4] == ["1.234", "1234", "1.5", "2"]
    assert values(source)[5] is None


def test_types_of_parquet_are_text_that_says_the_same(tmp_path: Path) -> None:
    ids = [UUID(int=1), UUID(int=2**127)]
    columns = {
        "at": [f"{DAY}T10:00:00Z"] * 2,
        "uuid": pa.array([each.bytes for each in ids], pa.uuid()),
        "bytes": pa.array([each.bytes for each in ids], pa.binary(16)),
        "exact": pa.array([Decimal("0.0000000001"), Decimal("12345678901234567890.5")], pa.decimal128(38, 10)),
        "float": [float("nan"), 0.5],
        "part": pa.array(["a", "b"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "one.parquet")
    assert infer_columns(pq.read_table(tmp_path / "one.parquet")).uuid == ("bytes",)
    names = {name: name for name in columns}
    source = files(
        tmp_path, (tmp_path / "one.parquet").read_bytes(), "one.parquet", columns=names, dialect=Dialect(uuid=("bytes",))
    )
    assert values(source, "uuid") == values(source, "bytes") == [str(each) for each in ids]
    assert values(source, "exact") == ["0.0000000001", "12345678901234567890.5000000000"]
    assert values(source, "float") == [None, "0.5"]
    assert "column bytes" in replace(source, dialect=Dialect()).read([DAY]).problems[DAY]


def test_only_what_is_declared_means_missing_and_only_where(tmp_path: Path) -> None:
    content = as_csv([{"at": f"{DAY}T10:00:00Z", "amount": text, "place": text} for text in ("NA", "NULL", "", " NA ")]).encode()
    names = {"at": "at", "amount": "amount", "place": "place"}
    assert values(files(tmp_path, content, columns=names)) == ["NA", "NULL", None, " NA "]
    everywhere = files(tmp_path, content, columns=names, dialect=Dialect(missing=("NA",)))
    assert values(everywhere, "place") == [None, "NULL", None, None]
    there = files(tmp_path, content, columns=names, dialect=Dialect(missing=(("amount", ("NA", "NULL")),)))
    assert (values(there), values(there, "place")) == ([None] * 4, ["NA", "NULL", None, " NA "])


def test_another_dialect_is_another_version(tmp_path: Path) -> None:
    source = files(tmp_path, as_csv([{"at": f"{DAY}T10:00:00Z", "amount": "1,5"}]).encode())
    others = [replace(source, dialect=dialect) for dialect in (Dialect(decimal=","), Dialect(missing=("NA",)))]
    assert len({each.versions([DAY])[DAY] for each in (source, *others)}) == 3


# Refusals ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b"at;amount\n2024-01-31;1\n2024-01-31;2\n",
            "header: one column, 'at;amount', and ';' in each row: declare [events.dialect] separator = \";\"",
        ),
        (
            b"at|amount\n2024-01-31|1,5\n2024-01-31|2\n",
            'expected 1 fields, got 2: 2024-01-31|1,5: declare [events.dialect] separator = "|"',
        ),
        (
            "at,amount\n2024-01-31,é\n".encode("cp1252"),
            'row 1: not UTF-8 (invalid continuation byte): declare [events.dialect] encoding = "cp1252"',
        ),
        ("at,amount\n2024-01-31,1\n".encode("utf-16"), 'declare [events.dialect] encoding = "utf-16"'),
        ("at,amount\n2024-01-31,1\n".encode("utf-16-le"), 'declare [events.dialect] encoding = "utf-16-le"'),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_line_to_declare(tmp_path: Path, content: bytes, told: str) -> None:
    source = files(tmp_path, content.replace(b"continuation", b"continuation"))
    assert told in source.read([DAY]).problems[DAY]
    line = told.rpartition("] ")[2]
    (tmp_path / "shop.toml").write_text(
        f'start = "2024-01-01"\n[events]\nfiles = "*.csv"\ncolumns = {{at = "at"}}\n[events.dialect]\n{line}\n'
    )
    read = source_of(read_mapping(tmp_path / "shop.toml"), "events", day_column="at").read([DAY])
    assert read.problems == {}, "what is said helps"
    assert read.counted[DAY] > 0


@pytest.mark.parametrize(
    ("dtype", "text", "line"),
    [
        (DType.FLOAT64, "31,94", 'decimal = ","'),
        (DType.FLOAT64, "1,234.56", 'thousands = ","'),
        (DType.INT64, "NA", 'missing = ["NA"]'),
        (DType.TIMESTAMP, "31/01/2024 10:00", 'time = "%d/%m/%Y %H:%M"'),
        (DType.TIMESTAMP, "01/02/2024", 'time = "%d/%m/%Y" or time = "%m/%d/%Y"'),
        (DType.BOOL, "Nein", 'true = ["ja"] false = ["nein"]'),
    ],
)
def test_a_quarantined_value_comes_with_the_line_to_declare(dtype: DType, text: str, line: str) -> None:
    columns = (Column(name="x", dtype=dtype),)
    of_one = replace(table(), delivered=columns, columns=columns, key=("x",))
    raw = pd.DataFrame({"x": [text], "day": DAY, "source_file": "one", "source_row": 1, "source_version": ""})
    [reason] = clean(raw.astype({"x": "str"}), of_one).rejected["reason"]
    assert reason.startswith(f"x: {text!r} is ")
    assert reason.endswith(f"(if the source writes it so, declare [events.dialect] {line})")


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ('separator = ";;"', "separator is ';;', expected one character"),
        ('encoding = "klingon"', "encoding is 'klingon', expected one that Python knows"),
        ('decimal = ";"', "decimal is ';', expected '.' or ','"),
        ('thousands = "."', "thousands is '.' beside the decimal '.'"),
        ('time = "%d/%m"', "expected a format with year, month and day"),
        ('time = "%d/%m/%Y %Q"', "%Q cannot be read"),
        ('true = ["x"]\nfalse = ["X"]', "x would mean both true and false"),
        ("decimals = 1", "unknown, expected separator, encoding, decimal"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused(tmp_path: Path, declared: str, told: str) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(f'start = "2024-01-01"\n[events]\nfiles = "*.csv"\n[events.dialect]\n{declared}\n')
    with pytest.raises(ValueError, match=r"events\.dialect") as caught:
        read_mapping(file)
    assert told in str(caught.value)


def test_numbers_are_read_only_where_it_is_known_which_are_some(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected `dtypes`"):
        files(tmp_path, b"", dtypes={}, dialect=Dialect(decimal=","))


# Inference --------------------------------------------------------------------------------------------------------------------


def inferred(rows: list[list[str]], encoding: str = "utf-8", separator: str = ",") -> Dialect:
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([["a", "b", "c"][: len(rows[0])], *rows])
    return infer_csv(text.getvalue().encode(encoding))


@pytest.mark.parametrize(
    ("rows", "form", "settings_found"),
    [
        ([["1", "2.5"], ["2", "3"]], {}, {}),
        ([["1", "2,5"], ["2", "3"]], {"separator": ";"}, {"separator": ";", "decimal": ","}),
        ([["1", "1.234,5"], ["2", "3"]], {"separator": "\t"}, {"separator": "\t", "decimal": ",", "thousands": "."}),
        ([["1", "1 234,5"], ["2", "3"]], {}, {"decimal": ",", "thousands": " "}),
        ([["1", "1'234.5"], ["2", "3"]], {}, {"thousands": "'"}),
        ([["1", "é"], ["2", "x"]], {"encoding": "cp1252"}, {"encoding": "cp1252"}),
        ([["1", "é"], ["2", "x"]], {"encoding": "utf-16"}, {"encoding": "utf-16"}),
        ([["1", "é"], ["2", "x"]], {"encoding": "utf-8-sig"}, {}),
        ([["1", "NA"], ["2", "3"]], {}, {"missing": ["NA"]}),
        ([["1", r"\N", "NA"], ["2", "3", "NB"]], {}, {"missing": [r"\N"]}),
        ([["NA", "NA"], ["NB", "3"]], {}, {"missing": {"b": ["NA"]}}),
        ([["31/01/2024 10:00", "x"], ["01/02/2024 9:00", "y"]], {}, {"time": {"a": "%d/%m/%Y %H:%M"}}),
        ([["1/31/2024", "x"], ["2/1/2024", "y"]], {}, {"time": {"a": "%m/%d/%Y"}}),
        ([["2024-01-31 10:00:00 UTC", "Y"], ["2024-01-31 10:00:00+00", "N"]], {}, {"true": ["Y"], "false": ["N"]}),
    ],
)
def test_a_file_says_its_dialect_and_why(rows: list[list[str]], form: dict[str, Any], settings_found: dict[str, Any]) -> None:
    dialect = inferred(rows, **form)
    assert dialect.settings() == settings_found
    assert len(dialect.explanations()) >= (1 if settings_found else 0)
    assert all(any(name in line for line in dialect.explanations()) for name in settings_found)


def test_an_index_is_left_out_and_said() -> None:
    content = pd.DataFrame({"x": ["a", "b"], "y": [5, 6]}).to_csv().encode()
    dialect = infer_csv(content)
    assert dialect.settings() == {"index": True}
    assert "numbers the rows, and is left out" in dialect.explanations()[0]
    assert text_columns(content, dialect).to_pydict() == {"x": ["a", "b"], "y": ["5", "6"]}
    assert not infer_csv(b",y\nq,1\nr,2\n").index
    with pytest.raises(ValueError, match="expected one without a name"):
        text_columns(b"x,y\n1,2\n", dialect)


def test_what_can_be_read_in_two_ways_is_asked() -> None:
    times = inferred([["03/04/2024", "x"], ["05/06/2024", "y"]])
    assert (times.settings(), times.questions[0].partition(": ")[0]) == ({}, "a is '03/04/2024'")
    assert 'time = {"a" = "%d/%m/%Y"} or time = {"a" = "%m/%d/%Y"}' in times.questions[0]
    numbers = inferred([["1,234", "x"], ["2,345", "y"]])
    assert numbers.settings() == {}
    assert 'declare thousands = "," or decimal = ","' in numbers.questions[0]


# Round trip -------------------------------------------------------------------------------------------------------------------

STYLES = [(".", ""), (",", ""), (",", "."), (".", ","), (",", " "), (".", "'"), (".", " "), (",", "'")]
PLACE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc", "Zs"]), max_size=8)


def in_style(number: Decimal, decimal: str, thousands: str) -> str:
    whole, _, part = f"{abs(number):.2f}".partition(".")
    grouped = f"{int(whole):,}".replace(",", thousands)
    return f"{'-' if number < 0 else ''}{grouped}{decimal}{part}"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.decimals(-(10**9), 10**9, places=2, allow_nan=False),
            st.integers(0, 86_399),
            st.booleans(),
            PLACE,
        ),
        min_size=1,
        max_size=6,
    ),
    style=st.sampled_from(STYLES),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"]),
    form=st.sampled_from(["ISO", "%d/%m/%Y %H:%M:%S", "%m-%d-%Y %I:%M:%S %p", "%Y%m%d%H%M%S", "epoch seconds"]),
    words=st.sampled_from([("true", "false"), ("ja", "nein"), ("Y", "N")]),
    token=st.sampled_from(["NA", r"\N", "null"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_table_is_read_back_equal_in_any_dialect(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[Decimal | None, int, bool, str]],
    style: tuple[str, str],
    separator: str,
    encoding: str,
    form: str,
    words: tuple[str, str],
    token: str,
    quoting: Any,
) -> None:
    for *_, place in rows:
        try:
            place.encode(encoding)
        except UnicodeEncodeError:
            assume(False)
    midnight = datetime(2024, 1, 31, tzinfo=UTC)
    moments = [midnight + timedelta(seconds=second) for _, second, _, _ in rows]
    texts = {
        "ISO": [f"{each:%Y-%m-%d %H:%M:%S}+00" for each in moments],
        "epoch seconds": [str(int(each.timestamp())) for each in moments],
    }
    at = texts.get(form) or [each.strftime(form) for each in moments]
    written = [
        {
            "at": at[place],
            "amount": token if amount is None else in_style(amount, *style),
            "night": words[0] if night else words[1],
            "place": text,
        }
        for place, (amount, _, night, text) in enumerate(rows)
    ]
    dialect = Dialect(
        separator=separator,
        encoding=encoding,
        decimal=style[0],
        thousands=style[1],
        missing=(("amount", (token,)),),
        time=(("at", form),),
        true=(words[0],),
        false=(words[1],),
    )
    content = as_csv(written, delimiter=separator, quoting=quoting).encode(encoding)
    folder = tmp_path_factory.mktemp("dialect")
    names = {name: name for name in ("at", "amount", "night", "place")}
    read = files(folder, content, columns=names, dialect=dialect).read([DAY])
    assert read.problems == {}
    assert [pd.Timestamp(each) for each in read.rows["at"]] == moments
    amounts = [None if pd.isna(each) else Decimal(each) for each in read.rows["amount"]]
    assert amounts == [amount for amount, *_ in rows]
    assert read.rows["night"].tolist() == [str(night).lower() for _, _, night, _ in rows]
    assert [each if isinstance(each, str) else "" for each in read.rows["place"]] == [place for *_, place in rows]


# ISO 8601 as programs write it --------------------------------------------------------------------------------------------------

OFFSETS = ["Z", "z", "+00", "+0000", "+00:00", "+00:00:00", " UTC", " GMT", " Z", " +0000", "-05", "+0530", "+05:30"]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("clock", ["T10:00", " 10:00:00", "t10:00:00", "T10:00:00.5", "T10:00:00,5", " 10:00:00.123456789"])
def test_a_time_of_iso_8601_is_the_same_instant_in_a_range_in_a_row_and_for_its_day(clock: str, offset: str) -> None:
    text = f"{DAY}{clock}{offset}"
    hours = {"-05": 15, "+0530": 4.5, "+05:30": 4.5}.get(offset, 10)
    fraction = {"T10:00:00.5": 500_000, "T10:00:00,5": 500_000, " 10:00:00.123456789": 123_456}.get(clock, 0)
    expected = datetime(2024, 1, 31, tzinfo=UTC) + timedelta(hours=hours, microseconds=fraction)
    columns = (Column(name="x", dtype=DType.TIMESTAMP),)
    raw = pd.DataFrame({"x": [text], "day": DAY, "source_file": "one", "source_row": 1, "source_version": ""})
    of_one = replace(table(), delivered=columns, columns=columns, key=("x",))
    assert clean(raw.astype({"x": "str"}), of_one).rows["x"].tolist() == [pd.Timestamp(expected)]
    taken = RowIntake(replace(of_one, intake=Intake(day=lambda _: DAY, derive=dict))).take({"x": text})
    assert taken.row["x"] == (expected - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert days_of(pa.array([text]), "UTC", timedelta(0)).to_pylist() == [DAY]


def test_a_file_of_which_no_time_can_be_read_says_the_line_to_declare(tmp_path: Path) -> None:
    source = files(tmp_path, as_csv([{"at": "31/01/2024 10:00", "amount": "1"}]).encode())
    problem = source.read([DAY]).problems[DAY]
    assert "one.csv, row 1: at is '31/01/2024 10:00'" in problem
    assert 'declare [events.dialect] time = "%d/%m/%Y %H:%M"' in problem
    assert source.trouble() == problem
