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
_MOST_AT_ONCE = 100
_SEQUENCE_BYTES = 8
_NUMBER_BITS = 20
_MOST_NUMBER = (1 << _NUMBER_BITS) - 1


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
    """Of one process. `until` is the last entry of the journal that it knows; it holds what the file holds as of then.

    It is made of numbers and bytes in dictionaries, which the garbage collector passes by: a hundred thousand objects would take it 50 ms,
    for which requests wait.
    """

    def __init__(self, until: int) -> None:
        self.until = until
        self._answered: dict[str, int] = {}
        """Of answers in the journal, the number of the entry and, in the lowest bits, that within it."""
        self._facts: dict[bytes, dict[bytes, bytes]] = {}
        """Of facts in the journal, by key and id, the number of the entry and the record."""
        self._entries: deque[bytes] = deque()
        """The entries of these two, up to `until`."""
        self._records: dict[bytes, bytes] = {}
        self._bytes = 0

    def apply(self, content: bytes, entry: Entry) -> None:
        """The next entry of the journal, as it is kept and what it says."""
        self.until += 1
        for key in list(self._records) if entry.replaced is None else entry.replaced:
            if (records := self._records.pop(key, None)) is not None:
                self._bytes -= _size(key, records)
        sequence = self.until.to_bytes(_SEQUENCE_BYTES)
        for fact in entry.facts:
            self._facts.setdefault(fact.key, {})[fact.id] = sequence + fact.record
            if (records := self._records.get(fact.key)) is not None:
                self._records[fact.key] = records + fact.record
                self._bytes += len(fact.record)
        for number, (id, _at) in enumerate(entry.answered):
            self._answered[id] = self.until << _NUMBER_BITS | number
        self._entries.append(content)

    def in_journal(self, key: bytes, folded: int) -> dict[bytes, bytes]:
        """By id, the records of a key that are in the journal after an entry, up to which they are in the tables."""
        return {id: filed[_SEQUENCE_BYTES:] for id, filed in self._facts.get(key, {}).items() if _sequence(filed) > folded}

    def has_in_journal(self, key: bytes, id: bytes, folded: int) -> bool:
        """Whether one of these has an id."""
        filed = self._facts.get(key, {}).get(id)
        return filed is not None and _sequence(filed) > folded

    def answered_in_journal(self, ids: Iterable[str], folded: int) -> dict[str, Place]:
        """The same for answers."""
        places = ((id, self._answered.get(id, 0)) for id in ids)
        return {id: Place(place >> _NUMBER_BITS, place & _MOST_NUMBER) for id, place in places if place >> _NUMBER_BITS > folded}

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
        self._bytes += _size(key, records) - (_size(key, self._records[key]) if key in self._records else 0)
        self._records[key] = records
        while self._bytes > _MOST_BYTES:
            first = next(iter(self._records))
            self._bytes -= _size(first, self._records.pop(first))

    @property
    def full(self) -> bool:
        """Whether for every key that is remembered another one will soon be forgotten."""
        return self._bytes > 0.9 * _MOST_BYTES

    def forget_entries(self, folded: int) -> None:
        """Entries up to this one are in the tables by now. Not all at once: requests wait meanwhile."""
        for sequence in range(self.until - len(self._entries) + 1, folded + 1)[:_MOST_AT_ONCE]:
            entry = decode_entry(self._entries.popleft())
            for fact in entry.facts:
                of_key = self._facts.get(fact.key, {})
                if fact.id in of_key and _sequence(of_key[fact.id]) == sequence:  # else it was dropped, and filed anew
                    del of_key[fact.id]
                    if not of_key:
                        del self._facts[fact.key]
            for id, _at in entry.answered:
                if self._answered.get(id, 0) >> _NUMBER_BITS == sequence:
                    del self._answered[id]


def _sequence(filed: bytes) -> int:
    return int.from_bytes(filed[:_SEQUENCE_BYTES])


def encode_bodies(bodies: Sequence[bytes]) -> bytes:
    """The bodies of the answers of an entry, one after the other."""
    return msgspec.msgpack.encode(bodies)


def decode_bodies(content: bytes) -> list[bytes]:
    """Inverse of `encode_bodies`."""
    return msgspec.msgpack.decode(content, type=list[bytes])


def _size(key: bytes, records: bytes) -> int:
    return len(key) + len(records) + _OVERHEAD
