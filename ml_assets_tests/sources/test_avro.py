"""Avro in Kafka. There is no schema registry in a wheel: a stand-in answers its one question, what schema has this number."""

import io
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import fastavro
import pytest

from ml_assets.folders import LocalFolder
from ml_assets.sources.canonical import NOT_READ
from ml_assets.sources.delivered import Delivered
from ml_assets.sources.kafka import Topic
from ml_assets.sources.landing import FeedError, LandedRows, Landing
from ml_assets_tests.brokers import Broker, running_noida

DELIVERED = Delivered(columns={"at": "when", "fare": "fare", "night": "night"}, day_column="at", timezone="UTC")
DAY = "2018-04-01"
FIELDS = [
    {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "fare", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    {"name": "night", "type": ["null", "boolean"], "default": None},
]
SCHEMAS = {
    7: {"type": "record", "name": "Payment", "fields": FIELDS},
    8: {"type": "record", "name": "Payment", "fields": [*FIELDS, {"name": "more", "type": "string"}]},
}
NOON = datetime(2018, 4, 1, 12, tzinfo=UTC)


class _Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked, _, number = self.path.split("?")[0].rpartition("/")
        found = SCHEMAS.get(int(number)) if asked == "/schemas/ids" else None
        if self.server.down:  # type: ignore[attr-defined]
            self._answer(503, {"error_code": 50003, "message": "no leader"})
        elif found is None:
            self._answer(404, {"error_code": 40403, "message": "Schema not found"})
        else:
            self._answer(200, {"schema": json.dumps(found), "schemaType": "AVRO"})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def running_registry() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Registry)
    server.daemon_threads = True
    server.down = False  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running_noida() as running:
        yield running


@pytest.fixture
def registry() -> Iterator[ThreadingHTTPServer]:
    with running_registry() as running:
        yield running


def avro(number: int, **values: Any) -> bytes:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, SCHEMAS[number], {"when": NOON, "fare": Decimal("12.50"), "night": None, **values})
    return struct.pack(">bI", 0, number) + body.getvalue()


def source(path: Path, broker: Broker, topic: str, registry: ThreadingHTTPServer) -> LandedRows:
    settings = {**broker.settings, "schema.registry.url": f"http://127.0.0.1:{registry.server_port}"}
    landing = Landing(root=LocalFolder(path), name="landing", feed=Topic(topic=topic, settings=settings), delivered=DELIVERED)
    return LandedRows(landing=landing, delivered=DELIVERED)


def test_avro_of_several_schemas_is_read_and_what_is_none_is_kept_aside(
    broker: Broker, registry: ThreadingHTTPServer, tmp_path: Path
) -> None:
    broker.make("avro", partitions=1)
    unknown = struct.pack(">bI", 0, 99) + b"whatever"
    cut = avro(8, more="a text that is cut")[:-8]
    sent = [avro(7), avro(8, more="x", night=True), b'{"fare": 1}', unknown, cut, b""]
    broker.send("avro", sent, partitions=1, at=int(NOON.timestamp()) * 1000)
    batch = source(tmp_path, broker, "avro", registry).read([DAY])
    assert batch.problems == {}
    rows = batch.rows
    assert rows["at"].head(2).tolist() == ["2018-04-01T12:00:00Z"] * 2
    assert rows["fare"].head(2).tolist() == ["12.50"] * 2
    assert (rows["night"].isna().iloc[0], rows["night"].iloc[1]) == (True, "true")
    assert len(rows) == len(sent), "nothing is lost"
    assert rows["at"].isna().tolist() == [False, False, True, True, True, True]
    assert rows[NOT_READ].notna().tolist() == [False, False, False, True, True, True]


def test_a_registry_that_is_down_stops_the_feed_and_nothing_is_rejected_for_it(
    broker: Broker, registry: ThreadingHTTPServer, tmp_path: Path
) -> None:
    broker.make("later", partitions=1)
    broker.send("later", [avro(7), avro(7)], partitions=1)
    registry.down = True  # type: ignore[attr-defined]
    found = source(tmp_path, broker, "later", registry)
    with pytest.raises(FeedError, match=r"the schema registry (answers 503|does not answer)"):
        found.landing.catch_up()
    registry.down = False  # type: ignore[attr-defined]
    assert found.landing.catch_up().messages == 2
    assert found.read([DAY]).rows["fare"].tolist() == ["12.50"] * 2


def test_a_registry_that_is_not_there_is_said(broker: Broker, tmp_path: Path) -> None:
    with running_registry() as gone:
        pass
    broker.make("nowhere", partitions=1)
    broker.send("nowhere", [avro(7)], partitions=1)
    assert "schema registry" in source(tmp_path, broker, "nowhere", gone).read([DAY]).problems[DAY]
