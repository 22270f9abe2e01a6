"""The online store in Valkey or Redis, for scorers on several machines.

How durable it is, is up to the server: with `appendonly yes` and `appendfsync everysec` it may lose a second when its machine dies.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ml_assets.storage.online import Answer, Fact, StoreDownError

_WAIT_SECONDS = 1.0
_UNTIL_BYTES = 8
_RECENT = 200
_AT_ONCE = 500
_PATTERN = re.compile(rb"[\\*?\[\]^]")
"""What means something else in a pattern of keys."""


class ValkeyStore:
    """A hash of records for each key, a string for each answer, everything under `ml_assets:<case>:`."""

    def __init__(self, address: str, case: str) -> None:
        self._prefix = f"ml_assets:{case}:".encode()
        self._ids, self._recent, self._notes = (self._prefix + name for name in (b"answered", b"recent", b"notes"))
        url = address.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
        self._address = url.rsplit("@", 1)[-1].split("?", 1)[0]  # without a password, which may stand in either place
        # Whatever is sent again has the same effect: the first attempt of a connection that the server has closed is lost.
        # One that waited in vain is not made again: it would wait twice.
        retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
        try:
            self._server: Any = redis.Redis.from_url(  # its types know nothing of bytes alone
                url, socket_timeout=_WAIT_SECONDS, socket_connect_timeout=_WAIT_SECONDS, retry=retry
            )
        except ValueError:  # it cites what it takes for a port, and that may be a password
            raise ValueError(
                "the address of the online store cannot be understood: expected redis://:password@host:6379/0, where / ? # @ and % of a "
                "password are written %2F %3F %23 %40 and %25"
            ) from None

    def facts(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """See `OnlineStore`."""
        distinct = list(dict.fromkeys(keys))
        with self._plain_errors(), self._server.pipeline(transaction=False) as pipeline:
            for key in distinct:
                pipeline.hvals(self._key(key))
            found = pipeline.execute()
        return {
            key: b"".join(each[_UNTIL_BYTES:] for each in records) for key, records in zip(distinct, found, strict=True) if records
        }

    def answers(self, ids: Sequence[str]) -> dict[str, bytes]:
        """See `OnlineStore`."""
        if not ids:
            return {}
        with self._plain_errors():
            found = self._server.mget([self._answer(id) for id in ids])
        return {id: body for id, body in zip(ids, found, strict=True) if body is not None}

    def keep(self, facts: Iterable[Fact], answers: Sequence[Answer] = (), *, replace: bool) -> dict[str, bytes]:
        """See `OnlineStore`."""
        with self._plain_errors(), self._server.pipeline(transaction=True) as pipeline:
            for answer in answers:
                pipeline.set(self._answer(answer.id), answer.body, nx=True, get=True)
            if answers:
                pipeline.zadd(self._ids, {answer.id: answer.at for answer in answers})
                pipeline.lpush(self._recent, *(answer.id for answer in answers))
                pipeline.ltrim(self._recent, 0, _RECENT - 1)
            for fact in facts:
                file = pipeline.hset if replace else pipeline.hsetnx
                file(self._key(fact.key), fact.id, fact.until.to_bytes(_UNTIL_BYTES, "big", signed=True) + fact.record)
            before = pipeline.execute()[: len(answers)]
        return {answer.id: body for answer, body in zip(answers, before, strict=True) if body not in (None, answer.body)}

    def read_ahead(self) -> None:
        """See `OnlineStore`: nothing is remembered here."""

    def follow(self) -> None:
        """See `OnlineStore`: nothing is remembered here."""

    def recent(self, count: int) -> list[bytes]:
        """See `OnlineStore`."""
        with self._plain_errors():
            ids = [id.decode() for id in dict.fromkeys(self._server.lrange(self._recent, 0, _RECENT))][:count]
        return list(self.answers(ids).values())

    def notes(self, prefix: str) -> dict[str, str]:
        """See `OnlineStore`."""
        with self._plain_errors():
            found: dict[bytes, bytes] = self._server.hgetall(self._notes)
        decoded = {name.decode(): value.decode() for name, value in found.items()}
        return {name: value for name, value in decoded.items() if name.startswith(prefix)}

    def note(self, notes: Mapping[str, str]) -> None:
        """See `OnlineStore`."""
        with self._plain_errors():
            if notes:
                self._server.hset(self._notes, mapping=dict(notes))

    def drop(self, prefix: bytes, until: int) -> int:
        """See `OnlineStore`."""
        dropped = 0
        with self._plain_errors():
            for key in self._server.scan_iter(match=_PATTERN.sub(rb"\\\g<0>", self._key(prefix)) + b"*", count=_AT_ONCE):
                old = [
                    id
                    for id, value in self._server.hgetall(key).items()
                    if int.from_bytes(value[:_UNTIL_BYTES], "big", signed=True) < until
                ]
                dropped += self._server.hdel(key, *old) if old else 0
        return dropped

    def drop_answers(self, before: int) -> int:
        """See `OnlineStore`."""
        dropped = 0
        with self._plain_errors():
            while ids := self._server.zrangebyscore(self._ids, "-inf", f"({before}", start=0, num=_AT_ONCE):
                with self._server.pipeline(transaction=True) as pipeline:
                    pipeline.delete(*(self._answer(id.decode()) for id in ids))
                    pipeline.zrem(self._ids, *ids)
                    dropped += pipeline.execute()[1]
        return dropped

    def tidy(self) -> None:
        """Nothing to do: the server tidies itself."""

    def close(self) -> None:
        """See `OnlineStore`."""
        self._server.close()

    def _key(self, key: bytes) -> bytes:
        return self._prefix + b"facts:" + key

    def _answer(self, id: str) -> bytes:
        return self._prefix + b"answer:" + id.encode()

    @contextmanager
    def _plain_errors(self) -> Iterator[Any]:
        try:
            yield
        except redis.RedisError as error:
            raise StoreDownError(f"the store at {self._address} does not answer: {error}") from error
