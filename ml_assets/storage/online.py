"""Where an online scorer keeps what it must remember: facts about entities, and the answers that it gave.

Belongs here: the protocol that stores keep, and which one an address means. Does not: what a record holds (`stages.kept`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit


class Fact(NamedTuple):
    """A record filed under a key, one for each id. `until` is when the last of it becomes known.

    Of the records of a key, all have their id in them or none has: then a store need not look for one that cannot be there.
    """

    key: bytes
    id: bytes
    until: int
    record: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What was answered about an event, under its id; it is never replaced."""

    id: str
    at: int
    """Of the event, in microseconds."""
    body: bytes


class StoreDownError(RuntimeError):
    """The store does not answer, or not now; nothing of what was asked for has happened, or all of it."""


class OnlineStore(Protocol):
    """What is kept for one use case. Every method raises `StoreDownError` where the store cannot be reached."""

    def facts(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """For each key with records, all of them one after the other, in any order."""

    def answers(self, ids: Sequence[str]) -> dict[str, bytes]:
        """What was answered about these events; one that was never scored is left out."""

    def keep(self, facts: Iterable[Fact], answers: Sequence[Answer] = (), *, replace: bool) -> dict[str, bytes]:
        """Files facts and answers, all or nothing. Answers that were there before stay, and those that say something else are returned.

        Args:
            replace: whether a fact takes the place of one with the same key and id, or leaves it.
        """

    def read_ahead(self) -> None:
        """Reads, before the first request, what fits into memory."""

    def follow(self) -> None:
        """Takes note of what other processes wrote, many times a second, so that the next request need not take note of all of it."""

    def recent(self, count: int) -> list[bytes]:
        """The latest answers, newest first."""

    def notes(self, prefix: str) -> dict[str, str]:
        """Everything noted under names that begin so."""

    def note(self, notes: Mapping[str, str]) -> None:
        """Notes what shall be remembered beside the facts, such as what was loaded."""

    def drop(self, prefix: bytes, until: int) -> int:
        """Drops facts under keys that begin so, of which the last became known before an instant; how many they were."""

    def drop_answers(self, before: int) -> int:
        """Drops answers about events before an instant; how many they were."""

    def tidy(self) -> None:
        """What a store has to do now and then, off the path of requests."""

    def close(self) -> None:
        """Lets go of files and connections."""


def open_store(address: str, case: str, *, create: bool = False) -> OnlineStore:
    """The store at an address: a folder (SQLite, one file a use case), or `redis://…`, `rediss://…`, `valkey://…`, `unix://…`.

    Args:
        create: whether a store that is not there is made. Else it is down until it is there: a scorer must not begin a new one.

    Raises:
        ValueError: the address is of none of these kinds.
        StoreDownError: it cannot be made.
    """
    scheme = urlsplit(address).scheme if "://" in address else ""
    if scheme in ("redis", "rediss", "valkey", "valkeys", "unix"):
        from ml_assets.storage.online_valkey import ValkeyStore

        return ValkeyStore(address, case)
    if scheme:
        raise ValueError(f"{scheme}:// is no online store: expected a folder, redis://, rediss://, valkey:// or unix://")
    from ml_assets.storage.online_sqlite import SqliteStore

    return SqliteStore(Path(address) / f"{case}.db", create=create)
