"""Deliveries with one hostile row each, through every kind of source; what became of the row is told in words.

Each delivery has a sound row of the day before, the hostile row, and a sound row of its day: whatever the row does, these are to be clean.
"""

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from ml_assets.folders import LocalFolder
from ml_assets.sources.landing import FeedError, LandedRows
from ml_assets.sources.mapping import read_mapping, source_of
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import ingested
from ml_assets.use_case import Column, DType, Table, day_range
from ml_assets_tests.brokers import Broker, running_noida
from ml_assets_tests.buckets import ObjectServer, put, running_gcs, running_s3
from ml_assets_tests.feeds import Api, running_api
from ml_assets_tests.postgres import running_postgres

DAYS = day_range("2024-01-01", "2024-01-04")
DAY = DAYS[1]
END = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()
"""After the day on which a test runs: a feed without a clock of its own has rows arrive on it."""
AT = f"{DAY}T12:00:00Z"
BEFORE, AFTER = ("sound 1", f"{DAYS[0]}T12:00:00Z", "a", "1.5"), ("sound 2", f"{DAY}T13:00:00Z", "b", "2.5")
TABLE = Table(
    name="events",
    source=lambda _: None,  # type: ignore[arg-type,return-value]
    delivered=(
        Column(name="id", dtype=DType.STRING),
        Column(name="at", dtype=DType.TIMESTAMP),
        Column(name="text", dtype=DType.STRING, nullable=True),
        Column(name="number", dtype=DType.FLOAT64, nullable=True),
    ),
    columns=(
        Column(name="event_id", dtype=DType.STRING),
        Column(name="at", dtype=DType.TIMESTAMP),
        Column(name="text", dtype=DType.STRING, nullable=True),
        Column(name="number", dtype=DType.FLOAT64, nullable=True),
    ),
    key=("event_id",),
    time="at",
    derive=lambda rows: rows.rename(columns={"id": "event_id"}),
)
NAMES = ("id", "at", "text", "number")


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A row, as values by delivered column; `json` and `csv` are its line where no writer would write such a one."""

    row: Mapping[str, str | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Delivered column → column of the source, where it is not of the same name."""
    json: bytes | None = None
    csv: bytes | None = None
    binary: bytes | None = None
    """The text as bytes, where these are no UTF-8."""

    @property
    def lines_of(self) -> set[str]:
        """The sources that have such lines; empty for all."""
        return (set(TEXT) if self.csv is not None else set()) | (set(JSON) if self.json is not None else set())

    @property
    def values(self) -> dict[str, str | None]:
        return {"id": "hostile", "at": AT, "text": "x", "number": "3.5"} | dict(self.row)

    @property
    def columns(self) -> dict[str, str]:
        return {name: name for name in NAMES} | dict(self.headers)

    @property
    def rows(self) -> list[dict[str, str | None]]:
        sound = [dict(zip(NAMES, row, strict=True)) for row in (BEFORE, AFTER)]
        return [{self.columns[name]: value for name, value in row.items()} for row in (sound[0], self.values, sound[1])]

    @property
    def before(self) -> "Hostile":
        """The delivery of the day before, of which the row is sound."""
        return Hostile(row=dict(zip(NAMES, BEFORE, strict=True)), headers=self.headers)

    @property
    def json_lines(self) -> list[bytes]:
        lines = [json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") for row in self.rows]
        if self.json is not None:
            lines[1] = self.json
        elif self.binary is not None:
            lines[1] = json.dumps({**self.rows[1], self.columns["text"]: "@@"}).encode().replace(b"@@", self.binary)
        return lines

    @property
    def csv_lines(self) -> list[bytes]:
        lines = [_line(row.values()) for row in self.rows]
        if self.csv is not None:
            lines[1] = self.csv
        elif self.binary is not None:
            lines[1] = _line({**self.rows[1], self.columns["text"]: "@@"}.values()).replace(b"@@", self.binary)
        return lines

    def parquet_bytes(self, rows: slice) -> bytes:
        columns = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        if self.binary is not None:
            given = [b"a", self.binary, b"b"]
            table = table.set_column(2, table.column_names[2], pa.array(given, pa.binary()).view(pa.string()))
        sink = io.BytesIO()
        first, last, _ = rows.indices(table.num_rows)
        pq.write_table(table.slice(first, last - first), sink)
        return sink.getvalue()


def _line(values: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue().encode(errors="surrogatepass")


TEXT, JSON = ("CSV", "S3"), ("JSON lines", "Kafka", "HTTP pages", "SSE")
NOT_CARRIED = "–"


class CannotCarryError(Exception):
    """The medium has no such value."""


class Servers:
    """Real servers, each started when it is first needed."""

    def __init__(self, held: ExitStack) -> None:
        self._held, self._started = held, dict[str, Any]()

    def __call__(self, name: str) -> Any:
        starters: dict[str, Callable[[], Any]] = {
            "s3": running_s3,
            "gcs": running_gcs,
            "postgres": running_postgres,
            "noida": running_noida,
        }
        if name not in self._started:
            self._started[name] = self._held.enter_context(starters[name]())
        return self._started[name]

    def api(self) -> Api:
        return self._held.enter_context(running_api(Api()))


Delivery = tuple[str, str, dict[str, str]]
"""The top of the TOML file, the place of the table, and settings."""


def _file(suffix: str) -> Callable[..., Delivery]:
    def deliver(hostile: Hostile, folder: Path, servers: Servers, number: int) -> Delivery:
        for day, content in _files(hostile, suffix):
            (folder / f"{day}{suffix}").write_bytes(content)
        return 'folder = "."', f'files = "{{day}}{suffix}"', {}

    return deliver


def _bucket(name: str, suffix: str) -> Callable[..., Delivery]:
    def deliver(hostile: Hostile, folder: Path, servers: Servers, number: int) -> Delivery:
        server: ObjectServer = servers(name)
        for day, content in _files(hostile, suffix):
            put(server, f"hostile{number}/{day}{suffix}", content)
        return f'folder = "{server.address(f"hostile{number}")}"', f'files = "{{day}}{suffix}"', dict(server.settings)

    return deliver


def _files(hostile: Hostile, suffix: str) -> Iterator[tuple[str, bytes]]:
    """One for each day: of the first the first row alone."""
    for day, delivery, rows in ((DAYS[0], hostile.before, slice(1)), (DAY, hostile, slice(1, None))):
        if suffix == ".parquet":
            yield day, delivery.parquet_bytes(rows)
        elif suffix == ".csv":
            yield day, b"".join([_line(list(delivery.rows[0])), *delivery.csv_lines[rows]])
        else:
            yield day, b"".join(line + b"\n" for line in delivery.json_lines[rows])


def _database(name: str) -> Callable[..., Delivery]:
    def deliver(hostile: Hostile, folder: Path, servers: Servers, number: int) -> Delivery:
        url = servers("postgres").url if name == "postgres" else f"sqlite:///{folder / 'bank.db'}"
        table, mark = f"hostile{number}", "%s" if name == "postgres" else "?"
        columns = ", ".join('"' + column.replace('"', '""') + '" TEXT' for column in hostile.rows[0])
        rows = [list(row.values()) for row in hostile.rows]
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        try:
            with closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(f"CREATE TABLE {table} ({columns})")
                cursor.executemany(f"INSERT INTO {table} VALUES ({mark}, {mark}, {mark}, {mark})", rows)
                if hostile.binary is not None:
                    if name == "postgres":
                        raise CannotCarryError("UTF-8 only")
                    cursor.execute(f"UPDATE {table} SET text = CAST(? AS TEXT) WHERE id = 'hostile'", [hostile.binary])
                connection.commit()
        except (UnicodeEncodeError, ValueError, sa.exc.DBAPIError) as error:
            raise CannotCarryError(str(error)) from error
        except Exception as error:
            if type(error).__name__ in ("DataError", "OperationalError"):
                raise CannotCarryError(str(error)) from error
            raise
        return f'database = "{url}"', f'rows = "{table}"', {}

    return deliver


def _kafka(hostile: Hostile, folder: Path, servers: Servers, number: int) -> Delivery:
    broker: Broker = servers("noida")
    broker.make(f"hostile{number}", partitions=1)
    noon = 1000 * int(datetime.fromisoformat(AT).timestamp())
    broker.send(f"hostile{number}", hostile.json_lines, partitions=1, at=noon)
    return f'[kafka]\n"bootstrap.servers" = "{broker.settings["bootstrap.servers"]}"', f'topic = "hostile{number}"', {}


def _http(path: str, key: str) -> Callable[..., Delivery]:
    def deliver(hostile: Hostile, folder: Path, servers: Servers, number: int) -> Delivery:
        try:
            lines: list[Any] = [line.decode() for line in hostile.json_lines]
        except UnicodeDecodeError as error:
            raise CannotCarryError("UTF-8 only") from error
        api = servers.api()
        api.rows = lines
        headers = 'headers = {Authorization = "Bearer right"}'
        return "", f'{key} = {{url = "{api.url}/{path}", {headers}}}', {}

    return deliver


SOURCES: dict[str, Callable[..., Delivery]] = {
    "CSV": _file(".csv"),
    "JSON lines": _file(".jsonl"),
    "Parquet": _file(".parquet"),
    "S3": _bucket("s3", ".csv"),
    "GCS": _bucket("gcs", ".parquet"),
    "PostgreSQL": _database("postgres"),
    "SQLite": _database("sqlite"),
    "Kafka": _kafka,
    "HTTP pages": _http("linked", "pages"),
    "SSE": _http("events", "stream"),
}


def outcome(hostile: Hostile, source: str, folder: Path, servers: Servers, number: int) -> str:
    """What became of the hostile row: read as, quarantined because, day or range refused because, or that the medium has no such row."""
    if hostile.lines_of and not hostile.lines_of & {source}:
        return NOT_CARRIED
    try:
        top, place, settings = SOURCES[source](hostile, folder, servers, number)
    except CannotCarryError:
        return NOT_CARRIED
    columns = ", ".join(f"{json.dumps(name)} = {json.dumps(column)}" for name, column in hostile.columns.items())
    file = folder / "case.toml"
    # JSON writes a text as TOML reads it, but for what is not in the plane of most letters.
    file.write_text(f'start = "{DAYS[0]}"\nend = "{END}"\n{top}\n\n[events]\n{place}\ncolumns = {{{columns}}}\n', encoding="utf-8")
    try:
        opened = source_of(read_mapping(file, settings), "events", settings, landings=LocalFolder(folder), day_column="at")
        if source == "SSE":
            _follow(opened)
        days = DAYS[:3]
        if isinstance(opened, LandedRows):  # what has no day lands on that of its arrival
            opened.landing.catch_up() if source != "SSE" else None
            days = sorted({*days, *(day for day in opened.landing.counts() if day < END)})
        batch = opened.read(days)
    except (ValueError, FeedError) as error:
        return f"range refused: {error}"
    if refused := [day for day in days if day in batch.problems]:
        what = "range" if len(refused) == len(days) else "day"
        return f"{what} refused: {batch.problems[refused[-1]]}"
    cleaned = clean(ingested(batch, TABLE, days), TABLE)
    rows = {row["event_id"]: row for row in cleaned.rows.to_dict("records")}
    if missing := {"sound 1", "sound 2"} - rows.keys():
        return f"LOST {', '.join(sorted(missing))}"
    quarantined = cleaned.rejected["reason"].tolist()
    if "hostile" in rows:
        row = rows["hostile"]
        return f"read as {row['text']!r}, {row['number']!r}" + (f"; quarantined: {quarantined}" if quarantined else "")
    return f"quarantined: {quarantined[0]}" if quarantined else "left out"


def _follow(source: Any) -> None:
    assert isinstance(source, LandedRows)
    until = time.monotonic() + 20
    following = source.landing.follow()
    while sum(source.landing.counts().values()) < 3 and time.monotonic() < until:
        next(following)
