"""A feed of the messages of a Kafka topic: JSON, or Avro whose schemas are in a registry.

Belongs here: from which offset to which, what librdkafka says, and Avro as JSON. Does not: where messages land (`sources.landing`).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from ml_assets.sources.landing import Arrived, FeedError, Piece, Position

AT_ONCE = 20_000
"""Messages in memory, and in one commit."""
_WAIT_SECONDS = 10.0
_REGISTRY, _NOT_FOUND = "schema.registry.", 404
_PAUSE_SECONDS = 0.5
_SILENCE_SECONDS = 30.0
"""A broker that has messages and sends none for so long is given up."""
_SETTINGS = {"enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": False, "client.id": "ml_assets"}


@dataclass(frozen=True, kw_only=True)
class Topic:
    """All partitions of a topic, from where they were read last to what they hold when reading begins.

    A position is the next offset of each partition; what stands for the messages is topic, partition and offset.
    """

    topic: str
    settings: Mapping[str, str] = field(repr=False)
    """Of librdkafka, such as `bootstrap.servers`, `security.protocol` and `sasl.password`: they are passed on as they are. With
    `schema.registry.url` (and `schema.registry.basic.auth.user.info`) values are Avro, and land as JSON."""
    skip_lost: bool = False
    """Whether to go on behind messages that the broker deleted before they were read."""

    @property
    def name(self) -> str:
        """See `landing.Feed`."""
        return f"kafka://{self.settings.get('bootstrap.servers', '')}/{self.topic}"

    def pieces(self, after: Position | None, *, live: bool = False) -> Iterator[Piece]:
        """See `landing.Feed`. Offsets are also committed to the group `group.id`, if one is set: for those who watch its lag."""
        offsets = {int(partition): int(offset) for partition, offset in (after or {}).items()}
        heard = _Quiet()
        consumer = self._consumer(heard)
        try:
            while True:
                ends = self._ends(consumer, offsets)
                consumer.assign([TopicPartition(self.topic, each, offsets[each]) for each in ends])
                with self._reading() as content_of:
                    yield from self._read(consumer, ends, offsets, heard, content_of)
                self._commit(consumer, offsets)
                if not live:
                    break
                yield Piece(messages=[], position={})
                time.sleep(_PAUSE_SECONDS)
        except KafkaException as error:
            raise self._told(error.args[0]) from None
        finally:
            consumer.close()

    def lag(self, after: Position | None) -> int:
        """How many messages there are behind a position.

        Raises:
            FeedError: nobody can say.
        """
        offsets = {int(partition): int(offset) for partition, offset in (after or {}).items()}
        consumer = self._consumer()
        try:
            return sum(max(0, end - offsets.get(each, begin)) for each, (begin, end) in self._marks(consumer).items())
        except KafkaException as error:
            raise self._told(error.args[0]) from None
        finally:
            consumer.close()

    def _consumer(self, heard: "_Quiet | None" = None) -> Consumer:
        group = {"group.id": f"ml_assets.{self.topic}"}  # none is joined: partitions are assigned
        try:
            own = {name: value for name, value in self.settings.items() if not name.startswith(_REGISTRY)}
            return Consumer({**_SETTINGS, **group, **own, "logger": heard or _Quiet()})
        except (KafkaException, TypeError, ValueError) as error:
            raise FeedError(f"{self.name}: a setting of the broker is not as expected: {error}") from None

    def _marks(self, consumer: Consumer) -> dict[int, tuple[int, int]]:
        """For each partition the first offset that it has, and the one behind the last."""
        found = consumer.list_topics(self.topic, timeout=_WAIT_SECONDS).topics[self.topic]
        if found.error is not None:
            raise FeedError(f"{self.name}: {found.error.str()}")
        return {
            each: consumer.get_watermark_offsets(TopicPartition(self.topic, each), timeout=_WAIT_SECONDS)
            for each in sorted(found.partitions)
        }

    def _ends(self, consumer: Consumer, offsets: dict[int, int]) -> dict[int, int]:
        """Up to where each partition is read; `offsets` are put behind what is lost, if that is allowed.

        Raises:
            FeedError: messages were deleted before they were read.
        """
        ends = {}
        for each, (begin, end) in self._marks(consumer).items():
            place = f"{self.topic}, partition {each}"
            wanted = offsets.get(each, begin)
            if wanted < begin:
                if not self.skip_lost:
                    raise FeedError(
                        f"{self.name}: {place}: offsets {wanted} to {begin - 1} were deleted before they were read (retention); deliver "
                        f"them again, or go on without them: ml-assets land --skip-lost"
                    )
                wanted = begin
            offsets[each] = wanted
            if end != wanted:
                ends[each] = end  # one that ends before it was read up to is asked, too: the broker says what that means
        return ends

    def _read(
        self,
        consumer: Consumer,
        ends: Mapping[int, int],
        offsets: dict[int, int],
        heard: "_Quiet",
        content_of: Callable[[bytes], bytes],
    ) -> Iterator[Piece]:
        """Messages until every partition was read to its end, and what was fetched with them."""
        some: list[Arrived] = []
        files = {each: f"{self.topic}/{each}" for each in ends}
        begin, behind = time.monotonic(), any(offsets[each] > end for each, end in ends.items())
        while (unread := sum(max(0, end - offsets[each]) for each, end in ends.items())) or some or behind:
            room = AT_ONCE - len(some)
            found = consumer.consume(min(room, unread or room), timeout=1.0 if unread or behind else 0.0) if room else []
            behind = False
            for message in found:
                if (error := message.error()) is not None:
                    raise self._told(error)
                partition, offset = message.partition() or 0, message.offset() or 0
                some.append(Arrived(content_of(_value(message)), files[partition], offset, _moment(message)))
                offsets[partition] = offset + 1
            if found:
                begin = time.monotonic()
            elif unread and not some:
                self._skip_holes(consumer, ends, offsets)
                if time.monotonic() - begin > _SILENCE_SECONDS:
                    said = f" ({heard.said})" if heard.said else ""
                    raise FeedError(
                        f"{self.name}: the broker has messages, but sent none for {_SILENCE_SECONDS:g} s{said}: try again"
                    )
            if some and (len(some) >= AT_ONCE or not found):
                yield Piece(messages=some, position={str(each): offset for each, offset in sorted(offsets.items())})
                some = []

    def _skip_holes(self, consumer: Consumer, ends: Mapping[int, int], offsets: dict[int, int]) -> None:
        """Behind the last message there may be what is none, such as the mark of a transaction."""
        for at in consumer.position([TopicPartition(self.topic, each) for each in ends]):
            if at.offset >= ends[at.partition]:
                offsets[at.partition] = at.offset

    @contextmanager
    def _reading(self) -> Iterator[Callable[[bytes], bytes]]:
        """How a value becomes JSON. What is no Avro of the registry's stays as it came, and is rejected when it is cleaned."""
        registry = {name.removeprefix(_REGISTRY): value for name, value in self.settings.items() if name.startswith(_REGISTRY)}
        if not registry:
            yield lambda value: value
            return
        from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
        from confluent_kafka.schema_registry.avro import AvroDeserializer
        from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError

        try:
            client = SchemaRegistryClient({"max.retries": 2, **registry})
            decode = AvroDeserializer(client)
        except (ValueError, TypeError) as error:
            raise FeedError(f"{self.name}: a setting of the schema registry is not as expected: {error}") from None
        context = SerializationContext(self.topic, MessageField.VALUE)

        def content(value: bytes) -> bytes:
            try:
                return msgspec.json.encode(decode(value, context), enc_hook=str)
            except SchemaRegistryError as error:
                if error.http_status_code == _NOT_FOUND:
                    return value
                raise FeedError(
                    f"{self.name}: the schema registry answers {error.http_status_code}: {error.error_message}"
                ) from None
            except (SerializationError, ValueError, EOFError, IndexError, TypeError, KeyError):
                return value
            except Exception as error:  # of whatever it speaks HTTP with
                raise FeedError(f"{self.name}: the schema registry does not answer ({type(error).__name__})") from None

        with client:
            yield content

    def _commit(self, consumer: Consumer, offsets: Mapping[int, int]) -> None:
        if "group.id" in self.settings and offsets:
            parts = [TopicPartition(self.topic, each, offset) for each, offset in offsets.items()]
            consumer.commit(offsets=parts, asynchronous=False)

    def _told(self, error: KafkaError) -> FeedError:
        hints = {
            KafkaError._ALL_BROKERS_DOWN: "no broker answers",
            KafkaError._TRANSPORT: "no broker answers",
            KafkaError._TIMED_OUT: "the broker does not answer in time, or refuses the credentials",
            KafkaError._AUTHENTICATION: "the broker refuses the credentials",
            KafkaError._AUTO_OFFSET_RESET: "it ends before where it was read up to: was it made anew? Give it another name",
            KafkaError.TOPIC_AUTHORIZATION_FAILED: "the broker refuses this topic: check what the credentials may do",
        }
        return FeedError(f"{self.name}: {hints.get(error.code(), '')} ({error.str()})".replace(":  (", ": ("))


class _Quiet:
    """What librdkafka says of its attempts is said once, by the error that ends them."""

    said = ""

    def log(self, _level: int, text: str, *parts: object) -> None:
        self.said = (text % parts if parts else text).rpartition("]: ")[2]


def _moment(message: Message) -> int:
    kind, milliseconds = message.timestamp()
    return time.time_ns() // 1000 if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds * 1000


def _value(message: Message) -> bytes:
    value = message.value()
    return value if isinstance(value, bytes) else (value or "").encode()
