"""The embedded online store: one SQLite file a use case, shared by all processes of a machine.

What a scorer keeps goes to the end of a journal, in one piece: to file facts under their entities at once would write a page for each. From
there it is folded into the tables now and then, ordered. Each process remembers the entities that it is asked about, and reads in the
journal what the others did (`storage.online_memory`), so that most requests read nothing else.

A commit is one write to the write-ahead log: it survives the death of the process. A power cut may take the last commits (the log is
synchronised when it is folded into the file, not at each commit), and never leaves a damaged file.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from ml_assets.storage.online import Answer, Fact, StoreDownError
from ml_assets.storage.online_memory import Entry, Memory, Place, decode_bodies, decode_entry, encode_bodies, encode_entry

Found = TypeVar("Found")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key BLOB, id BLOB, until INTEGER, record BLOB, PRIMARY KEY (key, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answered (id TEXT PRIMARY KEY, at INTEGER, sequence INTEGER, number INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (sequence INTEGER PRIMARY KEY, at INTEGER, facts INTEGER, answers INTEGER, entry BLOB, bodies BLOB);
CREATE TABLE IF NOT EXISTS folded (until INTEGER);
INSERT INTO folded SELECT 0 WHERE NOT EXISTS (SELECT * FROM folded);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
# Joined by SQLite: a row in Python costs more than to find it. What is joined is bytes, whatever they hold.
_JOINED = "SELECT key, CAST(group_concat(record, '') AS BLOB) FROM facts"
_WAIT_SECONDS = 2.0
_TURN_SECONDS = 0.0001
"""Between two looks whether it is one's turn: a commit takes some of these."""
_CACHE_KILOBYTES = 64_000
_LOOK_SECONDS = 0.1
"""How old what is read may be when the file is another one: to look takes as long as to read an entity."""
_MOST_AT_ONCE = 256
"""Parameters of one statement."""
_MOST_CHANGED = 64
"""Rows of one transaction that folds or drops: each may be on a page of its own, and writers wait for a millisecond."""
_MOST_KEYS_REPLACED = 1000
_MOST_IN_JOURNAL = 200_000
"""Facts that are not in the tables: so many are worth the pages that they touch there. Each process remembers them, in 60 MB."""
_BREATHS, _BREATHS_IN_HASTE = 4, 1
"""What folds or drops leaves writers so many times as long as it held them up; less when it does not keep up with them."""
_BEFORE_ALL = -(2**62)
_FOLD_SECONDS = 60.0
"""Another process needs for the whole journal at most so long."""
_FOR_GOOD = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN)
"""What stays so for a connection, although the file may be sound again."""
_MOST_CHECKPOINTS, _SHORT_SECONDS = 10, 0.01
_LOG_MEGABYTES = 256
"""Beyond that, writers wait until the log is folded into the file: it begins anew only when nothing of it is left."""


class SqliteStore:
    """Facts and answers in a file. Not for threads to share: each opens its own.

    Writers take turns by a lock on a file beside it; SQLite's own waits would sleep for milliseconds.
    """

    def __init__(self, file: Path, *, create: bool) -> None:
        self._file, self._inode, self._looked_at, self._forgot_at = file, 0, 0.0, 0.0
        self._memory: Memory | None = None
        self._unanswered: set[str] = set()
        """The ids that `answers` was asked for last, and did not find."""
        self._known_folded = 0
        """Up to which entry of the journal all is in the tables, or was dropped from there; perhaps more by now."""
        if create:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._open()
            except (sqlite3.Error, OSError) as error:
                raise StoreDownError(f"{file} cannot be opened: {error}") from error

    def _open(self) -> None:
        with ExitStack() as opened:
            self._turn = opened.enter_context(self._file.with_suffix(".lock").open("w"))
            with self._locked(self._turn, _WAIT_SECONDS):
                self._connection = opened.enter_context(closing(self._connected()))
                self._prepare()
            self._inode = self._file.stat().st_ino
            opened.pop_all()

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._file, timeout=_WAIT_SECONDS, isolation_level=None, cached_statements=256, check_same_thread=False
        )

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")  # `tidy` does it: a commit must not wait for a disk
        self._connection.execute(f"PRAGMA journal_size_limit = {_LOG_MEGABYTES << 20}")
        self._connection.executescript(_SCHEMA)

    def facts(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """See `OnlineStore`."""
        self._require_file()
        with self._plain_errors():
            found, unknown = self._caught_up().recall(dict.fromkeys(keys))
            if unknown:
                found |= self._remembered(unknown)
        return {key: records for key, records in found.items() if records}

    def answers(self, ids: Sequence[str]) -> dict[str, bytes]:
        """See `OnlineStore`."""
        self._require_file()
        with self._plain_errors():
            places = self._places(ids, self._caught_up())
            self._unanswered = {id for id in ids if id not in places}
            return self._bodies(places)

    def keep(self, facts: Iterable[Fact], answers: Sequence[Answer] = (), *, replace: bool) -> dict[str, bytes]:
        """See `OnlineStore`."""
        given = list(facts)

        def keep_now(connection: sqlite3.Connection) -> tuple[dict[str, bytes], Entry, bytes]:
            memory = self._caught_up()
            entry = Entry([], [], [])
            if replace:
                connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", given)
                keys = list({fact.key for fact in given})
                entry.replaced = keys if len(keys) <= _MOST_KEYS_REPLACED else None
            else:
                entry.facts = self._new(given, memory)
            said, bodies = self._said(answers, memory), list[bytes]()
            before: dict[str, bytes] = {}
            for answer in answers:
                body = said.setdefault(answer.id, answer.body)
                if body is answer.body:
                    entry.answered.append((answer.id, answer.at))
                    bodies.append(body)
                elif body != answer.body:
                    before[answer.id] = body
            if not entry.facts and entry.replaced == [] and not entry.answered:
                return before, entry, b""
            content = encode_entry(entry)
            at = max((at for _, at in entry.answered), default=_BEFORE_ALL)
            row = (memory.until + 1, at, len(entry.facts), len(bodies), content, encode_bodies(bodies))
            connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", row)
            return before, entry, content

        before, entry, content = self._writing(keep_now)
        if content and self._memory:
            self._memory.apply(content, entry)
        return before

    def read_ahead(self) -> None:
        """See `OnlineStore`: of a million facts in a fifth of a second."""
        self._require_file()
        with self._plain_errors(), self._at_one_moment() as (memory, folded):
            for key, records in self._connection.execute(f"{_JOINED} GROUP BY key"):
                if memory.full:
                    break
                memory.remember(key, records + self._only_in_journal(key, memory, folded))

    def follow(self) -> None:
        """See `OnlineStore`."""
        self._require_file()
        with self._plain_errors():
            self._forget_folded(self._caught_up())

    def recent(self, count: int) -> list[bytes]:
        """See `OnlineStore`."""
        self._require_file()
        found: list[bytes] = []
        with self._plain_errors():
            statement = "SELECT bodies FROM journal WHERE answers > 0 ORDER BY sequence DESC LIMIT ?"
            for (bodies,) in self._connection.execute(statement, (count,)):
                found += reversed(decode_bodies(bodies))
                if len(found) >= count:
                    break
        return found[:count]

    def notes(self, prefix: str) -> dict[str, str]:
        """See `OnlineStore`."""
        self._require_file()
        with self._plain_errors():
            rows = self._connection.execute("SELECT name, value FROM notes WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
            return dict(rows.fetchall())

    def note(self, notes: Mapping[str, str]) -> None:
        """See `OnlineStore`."""
        self._writing(lambda connection: connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items()))

    def drop(self, prefix: bytes, until: int) -> int:
        """See `OnlineStore`."""
        dropped, after = 0, (prefix, b"")
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        self._fold()
        while True:
            with self._plain_errors():
                rows = self._connection.execute(
                    "SELECT key, id, until FROM facts WHERE (key, id) > (?, ?) AND key < ? ORDER BY key, id LIMIT 20000",
                    (*after, end),
                ).fetchall()
            old = [(key, id) for key, id, last in rows if last < until]
            for start in range(0, len(old), _MOST_CHANGED):
                dropped += self._delete(old[start : start + _MOST_CHANGED], until)
            if not rows:
                break
            after = rows[-1][:2]
        if dropped:
            self._writing(self._let_all_forget)
        return dropped

    def drop_answers(self, before: int) -> int:
        """See `OnlineStore`."""
        self._fold()
        dropped = self._by_and_by("DELETE FROM answered WHERE id IN (SELECT id FROM answered WHERE at < ? LIMIT ?)", before)
        # The last entry stays: the next one follows it.
        self._by_and_by(
            "DELETE FROM journal WHERE sequence IN (SELECT sequence FROM journal WHERE at < ? AND sequence <= (SELECT until FROM folded)"
            " AND sequence < (SELECT max(sequence) FROM journal) LIMIT ?)",
            before,
        )
        return dropped

    def tidy(self) -> None:
        """Folds the journal into the tables where it is long, and the log of SQLite into the file.

        What readers of the log still need, and what is written meanwhile, stays for the next time.
        """
        self._require_file()
        with self._plain_errors():
            [(waiting,)] = self._connection.execute(
                "SELECT sum(facts) FROM journal WHERE sequence > (SELECT until FROM folded)"
            ).fetchall()
        if (waiting or 0) >= _MOST_IN_JOURNAL:
            self._fold()
        with self._plain_errors():
            log = self._file.with_name(f"{self._file.name}-wal")
            for _ in range(_MOST_CHECKPOINTS):  # each leaves what was written during the last one
                begin = time.monotonic()
                self._checkpoint()
                if log.stat().st_size <= _LOG_MEGABYTES << 20:
                    return
                if time.monotonic() - begin < _SHORT_SECONDS:
                    break
            with self._locked(self._turn, _WAIT_SECONDS):
                self._checkpoint()

    def close(self) -> None:
        """See `OnlineStore`."""
        if self._inode:
            self._inode, self._memory = 0, None
            self._connection.close()
            self._turn.close()

    # The journal ---------------------------------------------------------------------------------------------------------------

    def _caught_up(self) -> Memory:
        """What is remembered, as of now, or as of the beginning of a transaction."""
        while True:
            if self._memory is None:
                self._known_folded = self._folded()
                self._memory = Memory(self._known_folded)
            memory = self._memory
            rows = self._connection.execute(
                "SELECT sequence, entry FROM journal WHERE sequence > ? ORDER BY sequence", (memory.until,)
            ).fetchall()
            if rows and rows[-1][0] != memory.until + len(rows):  # some were dropped while this process slept
                self._memory = None
                continue
            for _, content in rows:
                memory.apply(content, decode_entry(content))
            return memory

    def _let_all_forget(self, connection: sqlite3.Connection) -> None:
        """Of whom something was dropped is not noted: it is done once a day."""
        row = (self._caught_up().until + 1, _BEFORE_ALL, 0, 0, encode_entry(Entry([], None, [])), encode_bodies([]))
        connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", row)

    def _folded(self) -> int:
        [(until,)] = self._connection.execute("SELECT until FROM folded").fetchall()
        return int(until)

    def _forget_folded(self, memory: Memory) -> None:
        if (now := time.monotonic()) - self._forgot_at > _LOOK_SECONDS:
            self._forgot_at, self._known_folded = now, self._folded()
            memory.forget_entries(self._known_folded)

    def _remembered(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The records of keys that were not remembered. Tables and journal are read as of one moment, so that nothing counts twice."""
        with self._at_one_moment() as (memory, folded):
            found = dict.fromkeys(keys, b"")
            for part in _parts(keys):
                found.update(self._read(f"{_JOINED} WHERE key IN ({{}}) GROUP BY key", part))
            for key in keys:
                found[key] += self._only_in_journal(key, memory, folded)
        for key, records in found.items():
            memory.remember(key, records)
        return found

    @contextmanager
    def _at_one_moment(self) -> Iterator[tuple[Memory, int]]:
        """What is remembered, and up to where the journal is folded, as everything that is read meanwhile."""
        self._connection.execute("BEGIN")
        try:
            yield self._caught_up(), self._folded()
        finally:
            self._connection.execute("COMMIT")

    def _only_in_journal(self, key: bytes, memory: Memory, folded: int) -> bytes:
        found = memory.in_journal(key, folded).items()
        return b"".join(record for id, record in found if not self._in_tables(key, id))

    def _new(self, facts: Sequence[Fact], memory: Memory) -> list[Fact]:
        """Those of which key and id are not there yet, each once."""
        distinct: dict[tuple[bytes, bytes], Fact] = {}
        for fact in facts:
            if not memory.has_in_journal(fact.key, fact.id, self._known_folded):
                distinct.setdefault((fact.key, fact.id), fact)
        return [fact for fact in distinct.values() if memory.is_new(fact) or not self._in_tables(fact.key, fact.id)]

    def _in_tables(self, key: bytes, id: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM facts WHERE key = ? AND id = ?", (key, id)).fetchone() is not None

    def _said(self, answers: Sequence[Answer], memory: Memory) -> dict[str, bytes]:
        """What was answered before about the same events. Since `answers` was asked, only the journal can have become longer."""
        ids = [answer.id for answer in answers]
        known_before = self._unanswered.issuperset(ids)
        return self._bodies(memory.answered_in_journal(ids, self._known_folded) if known_before else self._places(ids, memory))

    def _places(self, ids: Sequence[str], memory: Memory) -> dict[str, Place]:
        found = memory.answered_in_journal(ids, self._known_folded)
        others = [id for id in ids if id not in found]
        for part in _parts(others):
            for id, *place in self._read("SELECT id, sequence, number FROM answered WHERE id IN ({})", part):
                found[id] = Place(*place)
        return found

    def _bodies(self, places: Mapping[str, Place]) -> dict[str, bytes]:
        """The answers at these places; those that were dropped meanwhile are left out."""
        found = {}
        for id, (sequence, number) in places.items():
            for (bodies,) in self._connection.execute("SELECT bodies FROM journal WHERE sequence = ?", (sequence,)).fetchall():
                found[id] = decode_bodies(bodies)[number]
        return found

    def _fold(self) -> None:
        """Files what is in the journal in the tables, in their order, in small commits: they are all there before it is noted."""
        self._require_file()
        with self._plain_errors(), self._file.with_suffix(".fold").open("w") as lock, self._locked(lock, _FOLD_SECONDS):
            rows = self._connection.execute(
                "SELECT sequence, entry FROM journal WHERE sequence > ? ORDER BY sequence", (self._folded(),)
            ).fetchall()
            if not rows:
                return
            facts, answered = list[Fact](), list[tuple[str, int, int, int]]()
            for sequence, content in rows:
                entry = decode_entry(content)
                facts += entry.facts
                answered += [(id, at, sequence, number) for number, (id, at) in enumerate(entry.answered)]
            breaths = _BREATHS_IN_HASTE if len(facts) > 2 * _MOST_IN_JOURNAL else _BREATHS
            self._file_all("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?)", sorted(facts), breaths)
            self._file_all("INSERT OR REPLACE INTO answered VALUES (?, ?, ?, ?)", sorted(answered), breaths)
            self._write(lambda connection: connection.execute("UPDATE folded SET until = ?", (rows[-1][0],)))
            self._known_folded = rows[-1][0]

    def _file_all(self, statement: str, rows: Sequence[tuple[Any, ...]], breaths: int) -> None:
        for start in range(0, len(rows), _MOST_CHANGED):
            some, begin = rows[start : start + _MOST_CHANGED], time.monotonic()
            self._write(lambda connection, some=some: connection.executemany(statement, some))  # type: ignore[misc]
            time.sleep(breaths * (time.monotonic() - begin))

    def _checkpoint(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # The file ------------------------------------------------------------------------------------------------------------------

    def _by_and_by(self, statement: str, before: int) -> int:
        """Repeats a statement that takes an instant and how many rows it may change, until it changes none; how many they were."""
        dropped = 0
        while count := self._writing(lambda connection: connection.execute(statement, (before, _MOST_CHANGED)).rowcount):
            dropped += count
        return dropped

    def _delete(self, facts: Sequence[tuple[bytes, bytes]], until: int) -> int:
        statement = "DELETE FROM facts WHERE key = ? AND id = ? AND until < ?"  # it may have been replaced since it was read
        return self._writing(lambda connection: connection.executemany(statement, [(*each, until) for each in facts]).rowcount)

    def _read(self, statement: str, part: Sequence[bytes] | Sequence[str]) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement.format(",".join("?" * len(part))), part).fetchall()

    def _writing(self, change: Callable[[sqlite3.Connection], Found]) -> Found:
        self._require_file(writing=True)
        with self._plain_errors():
            return self._write(change)

    def _write(self, change: Callable[[sqlite3.Connection], Found]) -> Found:
        with self._locked(self._turn, _WAIT_SECONDS):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                found = change(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return found

    @staticmethod
    @contextmanager
    def _locked(lock: IO[str], seconds: float) -> Iterator[None]:
        """Not by waiting in the system, which would last for as long as another process hangs."""
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"it is locked: another process has been writing for {seconds:g} s") from None
                time.sleep(_TURN_SECONDS)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _require_file(self, *, writing: bool = False) -> None:
        """What is written to a file that was moved away or deleted would be lost; one that was put back is opened."""
        now = time.monotonic()
        if self._inode and not writing and now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            inode = os.stat(self._file).st_ino  # noqa: PTH116 (half the time of Path.stat, on the path of every request)
        except OSError as error:
            self._looked_at = 0.0
            raise StoreDownError(f"{self._file}: {error.strerror}; materialising online_state makes it") from error
        if inode != self._inode:
            with self._plain_errors():
                self.close()
                self._open()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _FOR_GOOD:
                self.close()
            raise StoreDownError(f"{self._file} does not answer: {error}") from error


def _parts(items: Sequence[Found]) -> Iterator[list[Found]]:
    """In parts of few different sizes, since every size is a statement: the last item is repeated."""
    for start in range(0, len(items), _MOST_AT_ONCE):
        part = items[start : start + _MOST_AT_ONCE]
        size = 1 << (len(part) - 1).bit_length()
        yield [*part, *[part[-1]] * (size - len(part))]
