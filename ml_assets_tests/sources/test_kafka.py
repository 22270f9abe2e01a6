"""Messages of real brokers: read up to where they end, once; what is lost, killed or refused is said."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from ml_assets.folders import LocalFolder
from ml_assets.sources import kafka
from ml_assets.sources.canonical import NOT_READ
from ml_assets.sources.delivered import Delivered
from ml_assets.sources.kafka import Topic
from ml_assets.sources.landing import FeedError, LandedRows, Landing
from ml_assets_tests.brokers import Broker, running_noida, running_tansu
from ml_assets_tests.buckets import running_s3

DELIVERED = Delivered(columns={"at": "when", "fare": "fare"}, day_column="at", timezone="UTC")
DAYS = ["2018-04-01", "2018-04-02", "2018-04-03"]
APRIL_2 = 1_522_670_400_000


@pytest.fixture(scope="module")
def brokers() -> Iterator[dict[str, Broker]]:
    with running_s3() as s3, running_noida() as noida, running_tansu(s3) as tansu:
        yield {"noida": noida, "tansu": tansu}


@pytest.fixture(params=["noida", "tansu"])
def broker(request: pytest.FixtureRequest, brokers: dict[str, Broker]) -> Broker:
    return brokers[request.param]


@pytest.fixture
def noida(brokers: dict[str, Broker]) -> Broker:
    return brokers["noida"]


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"payments-{abs(hash(request.node.name))}"


def payments(*fares: int) -> list[dict[str, Any]]:
    return [{"when": f"{DAYS[fare % 3]}T12:00:00Z", "fare": fare} for fare in fares]


def source(path: Path, topic: str, settings: dict[str, str], **changes: Any) -> LandedRows:
    feed = Topic(topic=topic, settings=settings, **changes)
    return LandedRows(landing=Landing(root=LocalFolder(path), name=topic, feed=feed, delivered=DELIVERED), delivered=DELIVERED)


def done(admin: AdminClient, what: str, of: list[Any]) -> None:
    """Futures are never done when nobody holds the client."""
    for future in getattr(admin, what)(of).values():
        future.result(10)


def fares(found: LandedRows) -> list[int]:
    batch = found.read(DAYS)
    assert all("not delivered yet" in problem for problem in batch.problems.values())
    return sorted(map(int, batch.rows["fare"].dropna()))


def test_what_is_there_is_read_once_and_what_comes_later_follows(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.make(topic)
    broker.send(topic, payments(*range(1_000)))
    found = source(tmp_path, topic, broker.settings)
    assert fares(found) == list(range(1_000))
    assert found.landing.position() == {"0": 500, "1": 500}
    assert found.landing.catch_up().messages == 0
    broker.send(topic, payments(1_000, 1_001, 1_002))
    before = found.versions([])
    assert before == {}
    assert fares(found) == list(range(1_003))
    rows = found.read(DAYS).rows
    assert set(rows["source_file"]) == {f"{topic}/0", f"{topic}/1"}
    last = rows[rows["fare"] == "1001"].iloc[0]
    assert (last["source_file"], last["source_row"], last["day"]) == (f"{topic}/1", 500, DAYS[2])


def test_a_message_that_is_no_json_is_kept_under_the_day_on_which_it_was_sent(broker: Broker, topic: str, tmp_path: Path) -> None:
    broker.make(topic)
    broker.send(topic, [*payments(1), b"soon", None], at=APRIL_2)
    rows = source(tmp_path, topic, broker.settings).read(DAYS).rows
    poison = rows[rows["fare"].isna()]
    assert (list(poison["day"]), sorted(poison[NOT_READ])) == ([DAYS[1]] * 2, ["", "soon"])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_messages_are_read(noida: Broker, topic: str, tmp_path: Path, codec: str) -> None:
    noida.make(topic)
    producer = Producer({**noida.settings, "compression.type": codec, "linger.ms": 50})
    for number in range(200):
        when = f"{DAYS[number % 3]}T12:00:00Z"
        producer.produce(topic, value=f'{{"when": "{when}", "fare": {number}}}'.encode(), partition=number % 2)
    producer.flush(10)
    assert fares(source(tmp_path, topic, noida.settings)) == list(range(200))


def test_reading_ends_although_messages_go_on_coming(
    noida: Broker, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "AT_ONCE", 50)
    noida.make(topic)
    noida.send(topic, payments(*range(10)))
    found = source(tmp_path, topic, noida.settings)
    over, sent = threading.Event(), threading.Event()

    def send() -> None:
        number = 10
        while not over.is_set():
            noida.send(topic, payments(*range(number, number + 100)))
            number += 100
            sent.set()

    sending = threading.Thread(target=send)
    sending.start()
    try:
        sent.wait(10)
        found.landing.catch_up()
        assert sending.is_alive()
    finally:
        over.set()
        sending.join()
    last = found.landing.catch_up()
    assert last.messages > 0, "what came later is left for the next time"
    assert fares(found) == list(range(sum(found.landing.counts().values())))


def test_many_messages_land_some_at_a_time(noida: Broker, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "AT_ONCE", 300)
    noida.make(topic, partitions=3)
    noida.send(topic, payments(*range(1_000)), partitions=3)
    found = source(tmp_path, topic, noida.settings)
    sizes = [len(piece.messages) for piece in found.landing.feed.pieces(None, live=False)]
    assert (max(sizes), sum(sizes)) == (300, 1_000)
    assert fares(found) == list(range(1_000))


def test_a_partition_that_is_added_is_read_from_its_beginning(noida: Broker, topic: str, tmp_path: Path) -> None:
    from confluent_kafka.admin import NewPartitions

    noida.make(topic)
    noida.send(topic, payments(1, 2))
    found = source(tmp_path, topic, noida.settings)
    assert fares(found) == [1, 2]
    done(AdminClient(noida.settings), "create_partitions", [NewPartitions(topic, 3)])
    noida.send(topic, payments(3, 4, 5), partitions=3)
    assert fares(found) == [1, 2, 3, 4, 5]


def test_what_was_deleted_before_it_was_read_is_an_error_that_says_so(noida: Broker, topic: str, tmp_path: Path) -> None:
    noida.make(topic)
    noida.send(topic, payments(*range(10)))
    found = source(tmp_path, topic, noida.settings)
    assert found.landing.catch_up().messages == 10
    noida.send(topic, payments(*range(10, 20)))
    done(AdminClient(noida.settings), "delete_records", [TopicPartition(topic, 0, 8)])
    told = r"partition 0: offsets 5 to 7 were deleted before they were read \(retention\).* ml-assets land --skip-lost"
    with pytest.raises(FeedError, match=told):
        found.landing.catch_up()
    assert "were deleted" in found.read(DAYS).problems[DAYS[0]]
    assert fares(source(tmp_path, topic, noida.settings, skip_lost=True)) == [*range(10), 11, 13, 15, *range(16, 20)]


def test_a_topic_that_was_made_anew_is_an_error_that_says_so(noida: Broker, topic: str, tmp_path: Path) -> None:
    noida.make(topic)
    noida.send(topic, payments(*range(10)))
    found = source(tmp_path, topic, noida.settings)
    found.landing.catch_up()
    done(AdminClient(noida.settings), "delete_topics", [topic])
    noida.make(topic)
    noida.send(topic, payments(1, 2))
    with pytest.raises(FeedError, match="it ends before where it was read up to: was it made anew"):
        found.landing.catch_up()


def test_a_topic_that_is_not_there_is_an_error(noida: Broker, tmp_path: Path) -> None:
    problem = source(tmp_path, "no-such-topic", noida.settings).read(DAYS).problems[DAYS[0]]
    assert problem.startswith(f"kafka://{noida.settings['bootstrap.servers']}/no-such-topic: ")
    assert "nknown topic" in problem


def test_no_broker_and_wrong_settings_are_said_without_the_password(
    noida: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kafka, "_WAIT_SECONDS", 1.0)
    nobody = source(tmp_path, "payments", {"bootstrap.servers": "127.0.0.1:9"})
    assert "no broker answers" in nobody.read(DAYS).problems[DAYS[0]]
    secret = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": "me", "sasl.password": "hush"}
    refused = source(tmp_path, "payments", {**noida.settings, **secret})
    problem = refused.read(DAYS).problems[DAYS[0]]
    wrong = source(tmp_path, "payments", {**noida.settings, "no.such.setting": "hush"}).read(DAYS).problems[DAYS[0]]
    assert "no.such.setting" in wrong
    assert "hush" not in f"{problem} {wrong} {refused} {capfd.readouterr()}"


def test_lag_is_what_was_not_read_and_offsets_are_those_of_the_group(noida: Broker, topic: str, tmp_path: Path) -> None:
    noida.make(topic)
    noida.send(topic, payments(*range(10)))
    settings = {**noida.settings, "group.id": "watched"}
    found = source(tmp_path, topic, settings)
    feed = Topic(topic=topic, settings=settings)
    assert feed.lag(found.landing.position()) == 10
    found.landing.catch_up()
    noida.send(topic, payments(10, 11, 12))
    assert feed.lag(found.landing.position()) == 3
    consumer = Consumer(settings)
    committed = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
    consumer.close()
    assert [part.offset for part in committed] == [5, 5]


def test_a_broker_that_is_killed_while_it_is_read_and_comes_back(
    tmp_path: Path, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "AT_ONCE", 100)
    monkeypatch.setattr(kafka, "_SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(kafka, "_WAIT_SECONDS", 2.0)
    with running_s3() as s3, running_tansu(s3) as broker:
        broker.make(topic)
        for start in range(0, 600, 200):
            broker.send(topic, payments(*range(start, start + 200)))
        found = source(tmp_path, topic, broker.settings)
        original = Topic._ends

        def killed(self: Topic, consumer: Consumer, offsets: dict[int, int]) -> dict[int, int]:
            ends = original(self, consumer, offsets)
            broker.stop(signal.SIGKILL)
            return ends

        with monkeypatch.context() as patch:
            patch.setattr(Topic, "_ends", killed)
            with pytest.raises(FeedError, match=r"no broker answers|sent none for"):
                found.landing.catch_up()
        assert "no broker answers" in found.read(DAYS).problems[DAYS[0]]
        broker.start()
        until = time.monotonic() + 20
        while found.read(DAYS).problems and time.monotonic() < until:
            time.sleep(0.2)
        found.landing.catch_up()
        assert fares(found) == list(range(600))
