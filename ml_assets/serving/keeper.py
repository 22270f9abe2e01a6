"""Keeps the online stores of a service in order, in a process of its own: what is done in Python there would make requests wait.

Once a day of event time, what no window reaches any more is dropped. From when on events are answered is noted well before: until every
worker has read it, an old event could be scored without what was dropped.
"""

import logging
import logging.config
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ml_assets.settings import settings
from ml_assets.stages.kept import MICROSECOND
from ml_assets.stages.online_state import SEEN_UNTIL, SINCE_EVER, drop_old, refuse_old
from ml_assets.storage.online import OnlineStore, StoreDownError, open_store
from ml_assets.use_case import UseCase
from ml_assets.use_cases import find

log = logging.getLogger("ml_assets.serving")

DROPPED_UNTIL = "dropped_until"
EVERY_SECONDS = 1.0
NOTICE_SECONDS = 10.0
"""Workers look at the notes of a store each second."""


@dataclass(kw_only=True)
class Keeper:
    """Of the store of one use case."""

    case: UseCase
    store: OnlineStore
    _refused: tuple[int, float] | None = None
    """What was seen, and when, at the time since which older events are refused."""

    def tidy(self) -> None:
        """What has to be done now.

        Raises:
            StoreDownError: some of it was not; it will be the next time.
        """
        notes = self.store.notes("")
        seen_until = int(notes.get(SEEN_UNTIL, SINCE_EVER))
        if DROPPED_UNTIL not in notes:  # what was just loaded is not old
            self.store.note({DROPPED_UNTIL: str(seen_until)})
        dropped = int(notes.get(DROPPED_UNTIL, seen_until))
        if self._refused and time.monotonic() - self._refused[1] > NOTICE_SECONDS:
            drop_old(self.case, self.store, self._refused[0])
            self.store.note({DROPPED_UNTIL: str(self._refused[0])})
            self._refused = None
        elif self._refused is None and seen_until - dropped > timedelta(days=1) // MICROSECOND:
            refuse_old(self.case, self.store, seen_until)
            self._refused = seen_until, time.monotonic()
        self.store.tidy()


@contextmanager
def keeping(cases: Sequence[str], address: str, log_config: Mapping[str, Any]) -> Iterator[None]:
    """Keeps the stores of these cases in order meanwhile; a process that ends by itself is replaced."""
    over = threading.Event()
    processes = multiprocessing.get_context("spawn")

    def start() -> Any:
        started = processes.Process(target=_run, args=(cases, address, log_config, os.getpid()), daemon=True, name="keeper")
        started.start()
        return started

    process = start()

    def watch() -> None:
        nonlocal process
        while not over.wait(EVERY_SECONDS):
            if not process.is_alive() and process.exitcode != -signal.SIGTERM:
                log.error("the process that keeps online stores in order ended with %s; another one begins", process.exitcode)
                process = start()

    watching = threading.Thread(target=watch, name="watch-keeper", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        process.terminate()
        process.join()


def _run(cases: Sequence[str], address: str, log_config: Mapping[str, Any], parent: int) -> None:
    """Until the service ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the service, which ends this process
    os.nice(19)
    logging.config.dictConfig(dict(log_config))
    keepers = [Keeper(case=case, store=open_store(address, case.name)) for case in (find(each, settings()) for each in cases)]
    told: dict[str, str] = {}
    while os.getppid() == parent:
        for keeper in keepers:
            name = keeper.case.name
            try:
                keeper.tidy()
                told.pop(name, None)
            except StoreDownError as error:
                if told.get(name) != str(error):  # once, not each second
                    log.warning("%s: %s", name, error)
                told[name] = str(error)
        time.sleep(EVERY_SECONDS)
