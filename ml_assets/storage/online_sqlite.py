"""The embedded online store: one SQLite file a use case, shared by all processes of a machine.

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
from typing import Any, TypeVar

from ml_assets.storage.online import Answer, Fact, StoreDownError

Found = TypeVar("Found")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key BLOB, id BLOB, until INTEGER, record BLOB, PRIMARY KEY (key, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (sequence INTEGER PRIMARY KEY, id TEXT UNIQUE, at INTEGER, body BLOB);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_WAIT_SECONDS = 2.0
_TURN_SECONDS = 0.0001
"""Between two looks whether it is one's turn: a commit takes some of these."""
_CACHE_KILOBYTES = 64_000
_LOOK_SECONDS = 0.1
"""How old what is read may be when the file is another one: to look takes as long as to read an entity."""
_MOST_AT_ONCE = 256
"""Parameters of one statement; and rows of one transaction that drops, so that writers wait for milliseconds."""
_FOR_GOOD = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN)
"""What stays so for a connection, although the file may be sound again."""
_LOG_MEGABYTES = 32
"""Beyond that, writers wait until the log is folded into the file: it begins anew only when nothing of it is left."""


class SqliteStore:
    """Facts and answers in a file. Not for threads to share: each opens its own.

    Writers take turns by a lock on a file beside it; SQLite's own waits would sleep for milliseconds.
    """

    def __init__(self, file: Path, *, create: bool) -> None:
        self._file, self._inode, self._looked_at = file, 0, 0.0
        if create:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._open()
            except (sqlite3.Error, OSError) as error:
                raise StoreDownError(f"{file} cannot be opened: {error}") from error

    def _open(self) -> None:
        with ExitStack() as opened:
            self._turn = opened.enter_context(self._file.with_suffix(".lock").open("w"))
            with self._taking_turns():
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
        # Joined by SQLite: a row in Python costs more than to find it. What is joined is bytes, whatever they hold.
        statement = "SELECT key, CAST(group_concat(record, '') AS BLOB) FROM facts WHERE key IN ({}) GROUP BY key"
        return {key: records for part in _parts(keys) for key, records in self._reading(statement, part)}

    def answers(self, ids: Sequence[str]) -> dict[str, bytes]:
        """See `OnlineStore`."""
        return {
            id: body for part in _parts(ids) for id, body in self._reading("SELECT id, body FROM answers WHERE id IN ({})", part)
        }

    def keep(self, facts: Iterable[Fact], answers: Sequence[Answer] = (), *, replace: bool) -> dict[str, bytes]:
        """See `OnlineStore`."""

        def kept(connection: sqlite3.Connection) -> dict[str, bytes]:
            before: dict[str, bytes] = {}
            connection.executemany(f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO facts VALUES (?, ?, ?, ?)", facts)
            rows = [(answer.id, answer.at, answer.body) for answer in answers]
            if connection.executemany("INSERT OR IGNORE INTO answers (id, at, body) VALUES (?, ?, ?)", rows).rowcount < len(rows):
                for answer in answers:
                    [(body,)] = connection.execute("SELECT body FROM answers WHERE id = ?", (answer.id,))
                    if body != answer.body:
                        before[answer.id] = body
            return before

        return self._writing(kept)

    def recent(self, count: int) -> list[bytes]:
        """See `OnlineStore`."""
        self._require_file()
        with self._plain_errors():
            rows = self._connection.execute("SELECT body FROM answers ORDER BY sequence DESC LIMIT ?", (count,))
            return [body for (body,) in rows.fetchall()]

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
        self._require_file()
        while True:
            with self._plain_errors():
                rows = self._connection.execute(
                    "SELECT key, id, until FROM facts WHERE (key, id) > (?, ?) AND key < ? ORDER BY key, id LIMIT 20000",
                    (*after, end),
                ).fetchall()
            old = [(key, id) for key, id, last in rows if last < until]
            for start in range(0, len(old), _MOST_AT_ONCE):
                dropped += self._delete(old[start : start + _MOST_AT_ONCE], until)
            if not rows:
                return dropped
            after = rows[-1][:2]

    def drop_answers(self, before: int) -> int:
        """See `OnlineStore`."""
        statement = "DELETE FROM answers WHERE sequence IN (SELECT sequence FROM answers WHERE at < ? LIMIT ?)"
        dropped = 0
        while count := self._writing(lambda connection: connection.execute(statement, (before, _MOST_AT_ONCE)).rowcount):
            dropped += count
        return dropped

    def tidy(self) -> None:
        """Folds the log into the file; what readers still need, and what is written meanwhile, stays for the next time."""
        self._require_file()
        with self._plain_errors():
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if self._file.with_name(f"{self._file.name}-wal").stat().st_size > _LOG_MEGABYTES << 20:
                with self._taking_turns():
                    self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """See `OnlineStore`."""
        if self._inode:
            self._inode = 0
            self._connection.close()
            self._turn.close()

    def _delete(self, facts: Sequence[tuple[bytes, bytes]], until: int) -> int:
        statement = "DELETE FROM facts WHERE key = ? AND id = ? AND until < ?"  # it may have been replaced since it was read
        return self._writing(lambda connection: connection.executemany(statement, [(*each, until) for each in facts]).rowcount)

    def _reading(self, statement: str, part: Sequence[bytes] | Sequence[str]) -> list[tuple[Any, bytes]]:
        self._require_file()
        marks = ",".join("?" * len(part))
        with self._plain_errors():
            return self._connection.execute(statement.format(marks), part).fetchall()

    def _writing(self, change: Callable[[sqlite3.Connection], Found]) -> Found:
        self._require_file(writing=True)
        with self._plain_errors(), self._taking_turns():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                found = change(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return found

    @contextmanager
    def _taking_turns(self) -> Iterator[None]:
        """Not by waiting in the system, which would last for as long as another process hangs."""
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"it is locked: another process has been writing for {_WAIT_SECONDS:g} s") from None
                time.sleep(_TURN_SECONDS)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

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
