"""What a process remembers of an online store in SQLite: the records of entities it asked about, and the end of the journal.

The journal is what all processes write, in one order. Whoever has applied it up to its last entry knows what the file says, without
reading it.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ml_assets.storage.online import Fact

_MOST_BYTES = 256 << 20
_OVERHEAD = 120
"""Bytes that an entity takes beside its key and records."""
_MOST_AT_ONCE = 500


class Entry(msgspec.Struct, array_like=True):
    """What a commit did, apart from the bodies of its answers."""

    facts: list[Fact]
    """They are new: no other has their key and id."""
    replaced: list[bytes] | None
    """Keys of which a fact was filed in the tables at once, None where they are many: what is remembered of them does not hold any more."""
    answered: list[tuple[str, int]]
    """The id of each answer and the instant of its event, in the order of their bodies."""


class Place(NamedTuple):
    """Where the body of an answer stands."""

    sequence: int
    number: int


encode_entry = msgspec.msgpack.Encoder().encode
decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Memory:
    """Of one process. `until` is the last entry of the journal that it knows; it holds what the file holds as of then."""

    def __init__(self, until: int) -> None:
        self.until = until
        self._answered: dict[str, Place] = {}
        self._facts: dict[bytes, dict[bytes, tuple[int, bytes]]] = {}
        self._entries: deque[tuple[int, Entry]] = deque()
        self._records: dict[bytes, bytes] = {}
        self._bytes = 0

    def apply(self, sequence: int, entry: Entry) -> None:
        """The next entry of the journal."""
        for key in list(self._records) if entry.replaced is None else entry.replaced:
            if (records := self._records.pop(key, None)) is not None:
                self._bytes -= _size(key, records)
        for fact in entry.facts:
            self._facts.setdefault(fact.key, {})[fact.id] = sequence, fact.record
            if (records := self._records.get(fact.key)) is not None:
                self._records[fact.key] = records + fact.record
                self._bytes += len(fact.record)
        for number, (id, _at) in enumerate(entry.answered):
            self._answered[id] = Place(sequence, number)
        self._entries.append((sequence, entry))
        self.until = sequence

    def in_journal(self, key: bytes, folded: int) -> dict[bytes, bytes]:
        """By id, the records of a key that are in the journal after an entry, up to which they are in the tables."""
        return {id: record for id, (sequence, record) in self._facts.get(key, {}).items() if sequence > folded}

    def answered_in_journal(self, ids: Iterable[str], folded: int) -> dict[str, Place]:
        """The same for answers."""
        places = ((id, self._answered.get(id)) for id in ids)
        return {id: place for id, place in places if place and place.sequence > folded}

    def recall(self, keys: Iterable[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
        """All records of each key that is remembered, and the keys that are not."""
        found: dict[bytes, bytes] = {}
        unknown = []
        for key in keys:
            records = self._records.pop(key, None)
            if records is None:
                unknown.append(key)
            else:
                self._records[key] = found[key] = records  # as the latest: the first ones are forgotten first
        return found, unknown

    def is_new(self, fact: Fact) -> bool:
        """Whether what is remembered of its key says that there is no fact with its id; False where it does not tell."""
        records = self._records.get(fact.key)
        return records is not None and fact.id not in records and fact.id in fact.record

    def remember(self, key: bytes, records: bytes) -> None:
        """All records of a key, as of `until`; b"" is an entity of which nothing is known."""
        self._records[key] = records
        self._bytes += _size(key, records)
        while self._bytes > _MOST_BYTES:
            first = next(iter(self._records))
            self._bytes -= _size(first, self._records.pop(first))

    def forget_entries(self, folded: int) -> None:
        """Entries up to this one are in the tables by now. Not all at once: requests wait meanwhile."""
        for _ in range(_MOST_AT_ONCE):
            if not self._entries or self._entries[0][0] > folded:
                return
            sequence, entry = self._entries.popleft()
            for fact in entry.facts:
                of_key = self._facts.get(fact.key, {})
                if of_key.get(fact.id, (0,))[0] == sequence:  # else it was dropped, and filed anew
                    del of_key[fact.id]
                    if not of_key:
                        del self._facts[fact.key]
            for id, _at in entry.answered:
                if id in self._answered and self._answered[id].sequence == sequence:  # else it was dropped, and answered anew
                    del self._answered[id]


def encode_bodies(bodies: Sequence[bytes]) -> bytes:
    """The bodies of the answers of an entry, one after the other."""
    return msgspec.msgpack.encode(bodies)


def decode_bodies(content: bytes) -> list[bytes]:
    """Inverse of `encode_bodies`."""
    return msgspec.msgpack.decode(content, type=list[bytes])


def _size(key: bytes, records: bytes) -> int:
    return len(key) + len(records) + _OVERHEAD
