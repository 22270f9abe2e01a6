"""A million payments through each source, beside the plain client that reads the same rows from the same server into a data frame.

    python benchmarks/sources.py [--rows 1000000] [--rounds 3] [--only s3,kafka]

Each reading is a process of its own, so that its peak of memory is its own: what it takes beyond a process that only imported the same. The
plain client does what its documentation shows first: pandas for files and databases (over the driver), boto3 and pandas for S3,
confluent-kafka and requests with a list of dictionaries for messages and pages. Ours also writes each value as text, finds the day of each
row and keeps where it came from; a feed lands on disk first. Medians of the rounds. Ends with status 1 where a source has less than 70 % of
its client, or takes more than 1 GB.
"""

import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

START, DAYS = "2018-04-01", 7
WANTED_SHARE, MOST_MEGABYTES = 0.7, 1024
COLUMNS = '{transaction_id = "id", paid_at = "at", customer_id = "customer", terminal_id = "terminal", amount = "amount"}'
PAGE = 10_000
MOST_AT_ONCE = 1_000_000_000


def payments(count: int) -> pd.DataFrame:
    """Payments of a week, in order, all values as a bank would deliver them."""
    random = np.random.default_rng(0)
    seconds = np.sort(random.integers(0, DAYS * 86_400, count))
    at = pd.Timestamp(START) + pd.to_timedelta(seconds, unit="s")
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "customer": random.integers(0, 5_000, count).astype(str),
            "terminal": random.integers(0, 10_000, count).astype(str),
            "amount": random.integers(100, 50_000, count) / 100,
        }
    )


def days() -> list[str]:
    """Of the payments."""
    return [str(day.date()) for day in pd.date_range(START, periods=DAYS)]


Filled = tuple[str, str, dict[str, str]]
"""What of a TOML file says where a source is, and what its plain client has to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class To:
    """Where a source is made."""

    held: ExitStack
    folder: Path


# Filling each source --------------------------------------------------------------------------------------------------------------


def csv(to: To, rows: pd.DataFrame) -> Filled:
    """A file a day."""
    for day, of_day in rows.groupby(rows["at"].str[:10]):
        of_day.to_csv(to.folder / f"{day}.csv", index=False)
    return "", 'files = "{day}.csv"', {"FOLDER": str(to.folder)}


def parquet(to: To, rows: pd.DataFrame) -> Filled:
    """One file."""
    rows.to_parquet(to.folder / "all.parquet", row_group_size=100_000)
    return "", 'files = "*.parquet"', {"FOLDER": str(to.folder)}


def s3(to: To, rows: pd.DataFrame) -> Filled:
    """An object a day, packed, in SeaweedFS."""
    from ml_assets_tests.buckets import BUCKET, put, running_s3

    server = to.held.enter_context(running_s3())
    for day, of_day in rows.groupby(rows["at"].str[:10]):
        put(server, f"{day}.csv.gz", gzip.compress(of_day.to_csv(index=False).encode(), 1))
    return f'folder = "{server.address()}"', 'files = "{day}.csv.gz"', {**server.settings, "BUCKET": BUCKET}


def postgresql(to: To, rows: pd.DataFrame) -> Filled:
    """A table with an index by time."""
    import psycopg

    from ml_assets_tests.postgres import running_postgres

    server = to.held.enter_context(running_postgres())
    plain = server.url.replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        connection.execute("CREATE TABLE payments (id bigint, at timestamptz, customer text, terminal text, amount numeric(10, 2))")
        with connection.cursor().copy("COPY payments FROM STDIN") as copy:
            for row in rows.itertuples(index=False):
                copy.write_row(row)
        connection.execute("CREATE INDEX ON payments (at)")
    return f'database = "{server.url}"', 'rows = "payments"', {"URL": server.url}


def sqlite(to: To, rows: pd.DataFrame) -> Filled:
    """A table with an index by time."""
    import sqlalchemy as sa

    url = f"sqlite:///{to.folder}/bank.db"
    with sa.create_engine(url).begin() as connection:
        rows.to_sql("payments", connection, index=False, chunksize=50_000)
        connection.exec_driver_sql("CREATE INDEX by_time ON payments (at)")
    return f'database = "{url}"', 'rows = "payments"', {"URL": url}


def kafka(to: To, rows: pd.DataFrame) -> Filled:
    """A topic of three partitions in noida-db."""
    from ml_assets_tests.brokers import running_noida

    broker = to.held.enter_context(running_noida())
    broker.make("bank", partitions=3)
    broker.send("bank", rows.to_dict("records"), partitions=3)
    servers = broker.settings["bootstrap.servers"]
    # It sends all that it has at once, however little it is asked for.
    top = f'[kafka]\n"bootstrap.servers" = "{servers}"\n"receive.message.max.bytes" = "{MOST_AT_ONCE}"'
    return top, 'topic = "bank"', {"SERVERS": servers}


def http(to: To, rows: pd.DataFrame) -> Filled:
    """Pages of 10,000 rows, made before they are asked for."""
    from ml_assets_tests.feeds import Api, running_api

    texts = [json.dumps(row) for row in rows.to_dict("records")]
    api = to.held.enter_context(running_api(Api(rows=texts, page_size=PAGE)))
    url = f"{api.url}/linked"
    pages = f'pages = {{url = "{url}", headers = {{Authorization = "Bearer right"}}, requests_a_second = 1000}}'
    return "", pages, {"URL": url}


# The plain clients ---------------------------------------------------------------------------------------------------------------


def plain_csv(settings: dict[str, str]) -> int:
    """pandas."""
    return len(pd.concat([pd.read_csv(Path(settings["FOLDER"]) / f"{day}.csv") for day in days()]))


def plain_parquet(settings: dict[str, str]) -> int:
    """pandas."""
    return len(pd.read_parquet(Path(settings["FOLDER"]) / "all.parquet"))


def plain_s3(settings: dict[str, str]) -> int:
    """boto3 and pandas."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_REGION"],
    )
    bodies = [client.get_object(Bucket=settings["BUCKET"], Key=f"{day}.csv.gz")["Body"] for day in days()]
    return len(pd.concat([pd.read_csv(body, compression="gzip") for body in bodies]))


def plain_sql(settings: dict[str, str]) -> int:
    """pandas over SQLAlchemy."""
    import sqlalchemy as sa

    with sa.create_engine(settings["URL"]).connect() as connection:
        return len(pd.read_sql("SELECT * FROM payments ORDER BY at", connection))


def plain_kafka(settings: dict[str, str]) -> int:
    """confluent-kafka and json."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    size = {"receive.message.max.bytes": MOST_AT_ONCE}
    consumer = Consumer({"bootstrap.servers": settings["SERVERS"], "group.id": "plain", "enable.auto.commit": False, **size})
    wanted = int(settings["ROWS"])
    consumer.assign([TopicPartition("bank", partition, OFFSET_BEGINNING) for partition in range(3)])
    rows: list[Any] = []
    while len(rows) < wanted:
        rows += [json.loads(message.value() or b"") for message in consumer.consume(10_000, timeout=0.2)]
    consumer.close()
    return len(pd.DataFrame(rows))


def plain_http(settings: dict[str, str]) -> int:
    """requests."""
    import requests

    rows: list[Any] = []
    url: str | None = settings["URL"]
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer right"
        while url:
            answer = session.get(url, timeout=30)
            rows += answer.json()
            following = answer.links.get("next", {}).get("url")
            url = requests.compat.urljoin(url, following) if following else None
    return len(pd.DataFrame(rows))


def ours(settings: dict[str, str]) -> int:
    """The source of card_fraud, a day at a time, as a backfill in stretches reads it."""
    from ml_assets.use_cases import find

    source = find("card_fraud", settings).table("transactions").source(settings)
    found = 0
    for day in days():
        batch = source.read([day])
        if batch.problems:
            raise RuntimeError(str(batch.problems))
        found += len(batch.rows)
    return found


SOURCES: dict[str, tuple[Callable[[To, pd.DataFrame], Filled], Callable[[dict[str, str]], int]]] = {
    "csv": (csv, plain_csv),
    "parquet": (parquet, plain_parquet),
    "s3": (s3, plain_s3),
    "postgresql": (postgresql, plain_sql),
    "sqlite": (sqlite, plain_sql),
    "kafka": (kafka, plain_kafka),
    "http": (http, plain_http),
}
READ = "ML_ASSETS_BENCHMARK_READ"


def read_here(name: str) -> None:
    """In a process of its own: reads, and prints rows, seconds and the peak of memory beyond what importing took."""
    who, _, source = name.partition(" ")
    settings = dict(os.environ)
    read = ours if who == "ours" else SOURCES[source][1]
    import boto3  # noqa: F401  # both have the same in memory
    import confluent_kafka  # noqa: F401
    import sqlalchemy  # noqa: F401

    import ml_assets.use_cases  # noqa: F401

    before = peak()
    begin = time.perf_counter()
    rows = read(settings)
    seconds = time.perf_counter() - begin
    print(json.dumps([rows, seconds, peak() - before]))


def peak() -> float:
    """Megabytes of this process at most so far. What the system counts for a child begins with what its parent had, so Linux is asked."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(name: str, settings: dict[str, str], rows: int, root: Path) -> tuple[float, float]:
    """Rows a second, and megabytes."""
    environment = {**os.environ, **settings, READ: name, "ML_ASSETS_ROOT": tempfile.mkdtemp(dir=root)}
    told = subprocess.run([sys.executable, __file__], env=environment, check=False, stdout=subprocess.PIPE, text=True)
    if told.returncode:
        raise RuntimeError(f"{name} cannot be read: see above")
    found, seconds, megabytes = json.loads(told.stdout.strip().splitlines()[-1])
    if found != rows:
        raise RuntimeError(f"{name} read {found:,} rows of {rows:,}")
    return rows / seconds, megabytes


def main(
    rows: Annotated[int, typer.Option(help="How many.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="How often each.")] = 3,
    only: Annotated[str, typer.Option(help="Names of sources, separated by commas.")] = "",
) -> None:
    """Fills each source, and reads it both ways in turn."""
    shown = Table("source", "ours, rows/s", "plain, rows/s", "ours / plain", "ours, MB", "plain, MB")
    made, missed = payments(rows), []
    for name in [each.strip() for each in only.split(",") if each.strip()] or list(SOURCES):
        with ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            top, place, settings = SOURCES[name][0](To(held=held, folder=folder), made)
            file = folder / "bank.toml"
            file.write_text(f'start = "{START}"\n{top}\n[transactions]\n{place}\ncolumns = {COLUMNS}\n')
            settings |= {"ML_ASSETS_CARD_FRAUD_FILES": str(file), "ROWS": str(rows)}
            found: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
            for _ in range(rounds):
                for who, results in found.items():
                    results.append(measured(f"{who} {name}", settings, rows, folder))
        (speed, memory), (plain_speed, plain_memory) = (
            tuple(statistics.median(each) for each in zip(*results, strict=True)) for results in found.values()
        )
        share = speed / plain_speed
        print(f"{name}: {speed:,.0f}/s, {share:.2f} of its client, {memory:,.0f} MB", flush=True)
        shown.add_row(name, f"{speed:,.0f}", f"{plain_speed:,.0f}", f"{share:.2f}", f"{memory:,.0f}", f"{plain_memory:,.0f}")
        if share < WANTED_SHARE or memory > MOST_MEGABYTES:
            missed.append(name)
    Console(width=120).print(shown)
    if missed:
        print(f"less than {WANTED_SHARE:.0%} of the client, or more than {MOST_MEGABYTES} MB: {', '.join(missed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    read_here(os.environ[READ]) if READ in os.environ else typer.run(main)
