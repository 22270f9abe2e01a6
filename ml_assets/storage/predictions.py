"""The log of online scores: JSON lines, a folder for each day of the events, a file for each process that scored.

A line is one event: what was answered and all its features. Lines are written by one thread, off the path of requests. A process that is
killed loses what it had not yet written, at most `MOST_WAITING` events and in practice those of the last `GATHER_SECONDS`; one that is
stopped loses nothing. Where the root is a bucket, lines are written to this machine, and sent on a piece at a time.
"""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ml_assets.folders import Folder, LocalFolder
from ml_assets.use_case import Day

MOST_WAITING = 10_000
GATHER_SECONDS = 0.02
"""Between two writes: each wakes a thread, for which requests wait."""
SEND_SECONDS = 30.0
"""Between two pieces that are sent to a bucket."""
_LEFT_SECONDS = 10 * SEND_SECONDS
"""A file to which nobody wrote for so long is of a process that ended."""
_CLOSED = ".closed"


class LogFullError(RuntimeError):
    """The disk does not keep up, or does not take anything: an event that cannot be logged is not scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionLog:
    """Reads what all processes logged about a use case."""

    root: Folder
    case: str

    def folder(self, day: Day) -> str:
        """Where the lines of a day are, below the root."""
        return f"predictions/{self.case}/{day}"

    def days(self) -> list[Day]:
        """The days of which something was logged."""
        return sorted({PurePosixPath(found.name).parent.name for found in self.root.find(self.folder("[0-9]*") + "/*.jsonl")})

    def version(self, day: Day) -> str | None:
        """Another one whenever something was added; None for a day without a log."""
        files = self.root.find(f"{self.folder(day)}/*.jsonl")
        return ";".join(f"{PurePosixPath(found.name).name}:{found.stamp[0]}" for found in files) or None

    def read(self, day: Day) -> Iterator[dict[str, Any]]:
        """The entries of a day, file by file. The last line of a killed process may be cut off: it is left out.

        Raises:
            ValueError: another line is damaged; the message names it.
        """
        for found in self.root.find(f"{self.folder(day)}/*.jsonl"):
            lines = (self.root.get(found.name) or b"").split(b"\n")
            for number, line in enumerate(lines[:-1], start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{self.root.place(found.name)}, line {number} is damaged: {error}") from error


@dataclass(kw_only=True)
class LogWriter:
    """Appends lines to the files of this process; `add` is for one thread, the file system for another."""

    log: PredictionLog
    name: str
    """Of the process: no other one writes under it."""
    local: Path = field(default_factory=Path)
    """Where lines wait to be sent on, if the log is in a bucket."""
    _waiting: dict[Day, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    _count: int = 0
    _failed: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _news: threading.Event = field(default_factory=threading.Event)
    _ends: bool = False

    def __post_init__(self) -> None:
        root = self.log.root
        self._sent = time.monotonic()
        self._place = root.path if isinstance(root, LocalFolder) else self.local
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def require_room(self) -> None:
        """To be asked before an event is scored.

        Raises:
            LogFullError: as many lines wait as may.
        """
        if self._count >= MOST_WAITING:
            raise LogFullError(f"{self._count} scores wait to be logged in {self._place}: {self._failed or 'the disk is slow'}")

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return self._count

    def add(self, entries: Sequence[tuple[Day, bytes]]) -> None:
        """Hands lines over, each JSON without a line break."""
        with self._lock:
            for day, line in entries:
                self._waiting[day].append(line)
            self._count += len(entries)
        self._news.set()

    def close(self) -> None:
        """Writes everything that waits.

        Raises:
            OSError: not all of it could be written.
        """
        self._ends = True
        self._news.set()
        self._thread.join()
        self._write(last=True)
        self._send(all_of_it=True)

    def _run(self) -> None:
        while not self._ends:
            self._news.wait(SEND_SECONDS)
            if not self._ends:
                time.sleep(GATHER_SECONDS)
            self._news.clear()
            try:
                self._write()
                self._send()
                self._failed = ""
            except OSError as error:
                self._failed = str(error)
                time.sleep(0.2)
                self._news.set()

    def _write(self, *, last: bool = False) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, defaultdict(list)
        for day in list(taken):
            try:
                self._append(day, b"".join(line + b"\n" for line in taken[day]), last=last)
            except OSError:
                with self._lock:
                    for again in taken:
                        self._waiting[again] = taken[again] + self._waiting[again]
                raise
            with self._lock:
                self._count -= len(taken.pop(day))

    def _append(self, day: Day, lines: bytes, *, last: bool) -> None:
        """All lines or none: what a full disk took of them is cut off again."""
        file = self._place / self.log.folder(day) / f"{self.name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as opened:
            begin, left = opened.seek(0, os.SEEK_END), memoryview(lines)
            try:
                while left:
                    left = left[opened.write(left) :]
                if last:
                    os.fsync(opened.fileno())
            except OSError:
                opened.truncate(begin)
                raise

    def _send(self, *, all_of_it: bool = False) -> None:
        """Sends what was written to the bucket, also what processes of this machine left that were killed, each file under its own name.

        Raises:
            OSError: the bucket does not take it; it stays where it is, and is sent the next time.
        """
        if isinstance(self.log.root, LocalFolder) or not (all_of_it or time.monotonic() - self._sent >= SEND_SECONDS):
            return
        now = time.time()
        self._sent = time.monotonic()
        for file in self._place.glob(f"{self.log.folder('*')}/*.jsonl"):
            if file.stem == self.name or now - file.stat().st_mtime > _LEFT_SECONDS:
                file.rename(file.with_name(f"{file.stem}-{time.time_ns()}{_CLOSED}"))
        for file in self._place.glob(f"{self.log.folder('*')}/*{_CLOSED}"):
            day = file.parent.name
            with suppress(FileNotFoundError):  # another process of this machine sent it
                self.log.root.put(f"{self.log.folder(day)}/{file.stem}.jsonl", file.read_bytes())
                file.unlink()
