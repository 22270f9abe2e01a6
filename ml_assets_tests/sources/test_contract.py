"""One contract for all sources: the same seven days of payments, with late and repeated rows, a replaced object and poison, clean alike.

Every source reads from its own real server; what is compared is the clean table, row for row, and what was rejected.
"""

import gzip
import io
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from ml_assets.sources.landing import LandedRows
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import delivery_findings, ingested
from ml_assets.use_case import day_range, shift
from ml_assets.use_cases import find
from ml_assets.use_cases.card_fraud.simulator import World, payments
from ml_assets_tests.brokers import running_noida, running_tansu
from ml_assets_tests.buckets import ObjectServer, put, running_gcs, running_s3
from ml_assets_tests.feeds import Api, running_api
from ml_assets_tests.glue import BUCKET, Aws, extracted, running_aws
from ml_assets_tests.postgres import running_postgres

START = "2018-04-01"
DAYS = day_range(START, shift(START, 6))
COLUMNS = '{transaction_id = "id", paid_at = "at", customer_id = "customer", terminal_id = "terminal", amount = "amount"}'
NAMES = ["id", "at", "customer", "terminal", "amount"]
CASE = find("card_fraud", {})
TABLE = CASE.table("transactions")
Deliver = Callable[[], None]


def _rows() -> pd.DataFrame:
    """Some 70,000 payments as text, in the order in which they become known: 200 of them late, 100 twice, one whose amount is none."""
    made = payments(World(seed=11, customers=5_000, terminals=10_000, first_day=START), DAYS)
    rows = pd.DataFrame(
        {
            "day": made["day"],
            "id": made["event_id"],
            "at": made["paid_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "customer": made["customer_id"],
            "terminal": made["terminal_id"],
            "amount": (made["amount_cents"] / 100).map("{:.2f}".format),
        }
    )
    rows.loc[1_234, "amount"] = "twelve"
    late = rows[rows["day"] == DAYS[2]].sample(200, random_state=1)
    again = rows.sample(100, random_state=2)
    return pd.concat([rows.drop(late.index), again, late], ignore_index=True)


ROWS = _rows()
FIRST_TRY = ROWS[ROWS["day"] == DAYS[4]].assign(amount="1.00").iloc[:100]
"""What was delivered of a day before it was replaced."""


class Sources:
    """Fills each source, and says in TOML where it is."""

    def __init__(self, folder: Path, held: ExitStack) -> None:
        self.folder, self.held, self.settings = folder, held, {"ML_ASSETS_ROOT": str(folder / "root")}
        self.bucket_server: ObjectServer | None = None
        self.send: Callable[[list[dict[str, Any]]], None] = lambda _: None

    def files(self, suffix: str) -> tuple[str, str, Deliver]:
        place = self.folder / "files"
        place.mkdir()

        def deliver() -> None:
            for name, content in objects(suffix):
                (place / name).write_bytes(content)

        (place / f"2018-04-05{suffix}").write_bytes(as_bytes(FIRST_TRY, suffix))
        return 'folder = "files"', f'files = "*{suffix}"', deliver

    def bucket(self, server: ObjectServer, suffix: str) -> tuple[str, str, Deliver]:
        self.settings |= server.settings
        self.bucket_server = server
        put(server, f"bank/2018-04-05{suffix}", as_bytes(FIRST_TRY, suffix))

        def deliver() -> None:
            for name, content in objects(suffix):
                put(server, f"bank/{name}", content)

        return f'folder = "{server.address("bank")}"', f'files = "*{suffix}"', deliver

    def database(self, url: str) -> tuple[str, str, Deliver]:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        FIRST_TRY[NAMES].to_sql("payments", engine, index=False)

        def deliver() -> None:
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM payments")
                ROWS[NAMES].to_sql("payments", connection, index=False, if_exists="append", chunksize=10_000)

        return f'database = "{url}"', 'rows = "payments"', deliver

    def glue(self, aws: Aws, url: str) -> tuple[str, str, Deliver]:
        """Rows of a database that a job extracts into S3, over what it wrote of a day before."""
        _, _, fill = self.database(url)
        aws.make_job("extract-payments")
        aws.make_secret("bank/reader", "a-password")
        aws.client("s3").put_object(Bucket=BUCKET, Key="bank/2018-04-05/part.parquet", Body=as_bytes(FIRST_TRY, ".parquet"))
        self.settings |= aws.settings
        environment = self.held.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**self.settings, "ML_ASSETS_CARD_FRAUD_FILES": str(self.folder / "bank.toml")}.items():
            environment.setenv(name, value)

        def deliver() -> None:
            fill()
            extracted(find("card_fraud", os.environ), "extract_transactions", DAYS)

        arguments = f'{{source = "{url}", rows = "payments", secret = "bank/reader"}}'
        job = f'glue = {{job = "extract-payments", arguments = {arguments}}}'
        return f'folder = "s3://{BUCKET}/bank"', f'files = "{{day}}/*.parquet"\n{job}', deliver

    def broker(self, broker: Any) -> tuple[str, str, Deliver]:
        broker.make("bank", partitions=3)
        self.send = lambda rows: broker.send("bank", rows, partitions=3)
        top = f'[kafka]\n"bootstrap.servers" = "{broker.settings["bootstrap.servers"]}"'
        noon = 1_000 * int(pd.Timestamp(f"{DAYS[3]}T12:00:00Z").timestamp())

        def deliver() -> None:
            broker.send("bank", [*messages(), b"this is no JSON"], partitions=3, at=noon)

        return top, 'topic = "bank"', deliver

    def http(self, kind: str) -> tuple[str, str, Deliver]:
        api = self.held.enter_context(running_api(Api(page_size=5_000)))
        self.settings["TOKEN"] = "right"
        self.send = api.rows.extend

        def deliver() -> None:
            api.rows = list(messages())

        headers = 'headers = {Authorization = "Bearer ${TOKEN}"}'
        if kind == "pages":
            return "", f'pages = {{url = "{api.url}/linked", {headers}}}', deliver
        return "", f'stream = {{url = "{api.url}/events", {headers}}}', deliver


def messages() -> Iterator[dict[str, str]]:
    for row in ROWS[NAMES].itertuples(index=False):
        yield dict(zip(NAMES, row, strict=True))


def objects(suffix: str) -> Iterator[tuple[str, bytes]]:
    """One for each day, the late rows in one of their own, and again those that come twice."""
    whole = len(ROWS) - 300
    for day, rows in ROWS.iloc[:whole].groupby("day"):
        yield f"{day}{suffix}", as_bytes(rows, suffix)
    yield f"again{suffix}", as_bytes(ROWS.iloc[whole : whole + 100], suffix)
    yield f"late{suffix}", as_bytes(ROWS.iloc[whole + 100 :], suffix)


def as_bytes(rows: pd.DataFrame, suffix: str) -> bytes:
    rows = rows[NAMES]
    if suffix == ".parquet":
        sink = io.BytesIO()
        rows.to_parquet(sink, index=False)
        return sink.getvalue()
    text = rows.to_json(orient="records", lines=True) if "jsonl" in suffix else rows.to_csv(index=False)
    return gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode()


@pytest.fixture(scope="module")
def wanted() -> tuple[pd.DataFrame, list[str]]:
    """The clean rows as they should be, straight from the payments, and what is rejected."""
    raw = ROWS[["day"]].copy()
    columns = {"transaction_id": "id", "paid_at": "at", "customer_id": "customer", "terminal_id": "terminal", "amount": "amount"}
    for name, column in columns.items():
        raw[name] = ROWS[column]
    raw["source_file"], raw["source_row"], raw["source_version"] = "truth", range(1, len(ROWS) + 1), ""
    cleaned = clean(raw, TABLE)
    assert len(cleaned.rows) == len(ROWS) - 101, "without the repeated, and the one without an amount"
    return comparable(cleaned.rows), reasons(cleaned.rejected)


def comparable(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns=["source_file", "source_row"]).sort_values("event_id", ignore_index=True)


def reasons(rejected: pd.DataFrame) -> list[str]:
    texts = rejected["reason"].where(~rejected["reason"].str.startswith("duplicate of"), "duplicate")
    kept: list[str] = sorted(texts[~texts.str.contains("transaction_id: missing")])
    return kept


def opened(sources: Sources, top: str, place: str) -> Any:
    file = sources.folder / "bank.toml"
    file.write_text(f'start = "{START}"\n{top}\n\n[transactions]\n{place}\ncolumns = {COLUMNS}\n')
    return TABLE.source({**sources.settings, "ML_ASSETS_CARD_FRAUD_FILES": str(file)})


def landed_live(source: LandedRows, count: int) -> None:
    """What a service does that lands it."""
    until = time.monotonic() + 60
    following = source.landing.follow()
    while sum(source.landing.counts().values()) < count:
        next(following)
        assert time.monotonic() < until


WAYS: dict[str, Callable[[Sources], tuple[str, str, Deliver]]] = {
    "files, CSV": lambda to: to.files(".csv"),
    "files, JSON": lambda to: to.files(".jsonl.gz"),
    "files, Parquet": lambda to: to.files(".parquet"),
    "S3": lambda to: to.bucket(to.held.enter_context(running_s3()), ".csv.gz"),
    "GCS": lambda to: to.bucket(to.held.enter_context(running_gcs()), ".parquet"),
    "PostgreSQL": lambda to: to.database(to.held.enter_context(running_postgres()).url),
    "SQLite": lambda to: to.database(f"sqlite:///{to.folder}/bank.db"),
    "Glue": lambda to: to.glue(to.held.enter_context(running_aws()), to.held.enter_context(running_postgres()).url),
    "Kafka, noida": lambda to: to.broker(to.held.enter_context(running_noida())),
    "Kafka, Tansu": lambda to: to.broker(to.held.enter_context(running_tansu(to.held.enter_context(running_s3())))),
    "HTTP": lambda to: to.http("pages"),
    "stream": lambda to: to.http("stream"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_clean_table_is_the_same_whatever_it_came_through(
    way: str, tmp_path: Path, wanted: tuple[pd.DataFrame, list[str]]
) -> None:
    with ExitStack() as held:
        sources = Sources(tmp_path, held)
        top, place, deliver = WAYS[way](sources)
        source = opened(sources, top, place)
        before = {} if way == "stream" else source.versions(DAYS)
        deliver()
        if way == "stream":
            landed_live(source, len(ROWS))
        while way == "Kafka, Tansu" and source.landing.catch_up().messages:  # it says too early that a topic ends
            pass
        versions = source.versions(DAYS)
        assert set(versions) == set(DAYS)
        assert all(before.get(day) != versions[day] for day in DAYS)
        batch = source.read(DAYS)
        assert (batch.problems, dict(batch.versions)) == ({}, versions)
        raw = ingested(batch, TABLE, DAYS)
        findings = list(itertools.chain.from_iterable(delivery_findings(batch, TABLE, DAYS).values()))
        assert [finding.observed for finding in findings if not finding.passed and finding.severity.name == "ERROR"] == []
        cleaned = clean(raw, TABLE)
        pd.testing.assert_frame_equal(comparable(cleaned.rows), wanted[0])
        assert reasons(cleaned.rejected) == wanted[1]
        poison = cleaned.rejected[cleaned.rejected["content"].str.contains("this is no JSON")]
        assert len(poison) == ("Kafka" in way)
        assert source.versions(DAYS) == versions, "nothing new, nothing changed"


@pytest.mark.parametrize("way", ["files, Parquet", "GCS", "SQLite", "PostgreSQL", "Kafka, noida", "HTTP"])
def test_rows_that_change_type_are_read_as_what_they_became(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An amount is a number, a text and nothing that is one: the first two are the same, the third is rejected with the reason."""
    first = ROWS[ROWS["day"] == DAYS[0]].head(3).assign(amount=[1.5, 2.0, 3.25])
    later = ROWS[ROWS["day"] == DAYS[1]].head(3).assign(amount=["1.50", "2", "much"])
    with ExitStack() as held:
        sources = Sources(tmp_path, held)
        monkeypatch.setitem(globals(), "FIRST_TRY", first)
        top, place, _ = WAYS[way](sources)
        if way in ("files, Parquet", "GCS"):
            (tmp_path / "files").mkdir(exist_ok=True)
            for name, rows in (("2018-04-05.parquet", first), ("later.parquet", later)):
                (tmp_path / "files" / name).write_bytes(as_bytes(rows, ".parquet"))
                if sources.bucket_server is not None:
                    put(sources.bucket_server, f"bank/{name}", as_bytes(rows, ".parquet"))
        elif way in ("SQLite", "PostgreSQL"):
            url = top.split('"')[1]
            with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
                connection.exec_driver_sql("DROP TABLE payments")
                pd.concat([first.assign(amount=first["amount"].astype(str)), later])[NAMES].to_sql(
                    "payments", connection, index=False
                )
        else:
            sources.send(
                [dict(zip(NAMES, row, strict=True)) for rows in (first, later) for row in rows[NAMES].itertuples(index=False)]
            )
        batch = opened(sources, top, place).read(DAYS[:2])
    assert batch.problems == {}
    cleaned = clean(ingested(batch, TABLE, DAYS[:2]), TABLE)
    assert cleaned.rows.sort_values("event_id")["amount_cents"].tolist() == [150, 200, 325, 150, 200]
    assert reasons(cleaned.rejected) == ["amount: 'much' is not a number"]
