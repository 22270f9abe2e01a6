"""Dagster's SQLite storage, writing what one step reports in one transaction.

A range of 365 days reports thousands of materialisations and check results. Stock storage opens, commits and closes two databases for
each: 9 to 19 ms an event here, longer than the computation. Together they cost about 2 ms each (`benchmarks/backfill.py`).

Materialisations and check results wait until the next event of any other kind, and the step's own output event is one. So a step that
Dagster calls finished has all of its events on disk. A process killed before that may have committed days that Dagster was not told of:
`rounds` finds them and makes them again.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Self

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

_WAITING = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}
_MOST_WAITING = 2000


class BatchedEventLog(SqliteEventLogStorage):
    """Stock SQLite event log, one transaction a batch. All SQL stays Dagster's own."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()  # type: ignore[assignment]  # a batch holds it while each event asks for it again
        self._held: dict[str, Any] = {}
        self._waiting: list[dg.EventLogEntry] = []

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event now, or together with the next one that does not wait; outside a run nothing waits."""
        with self._db_lock:
            if self._held:
                super().store_event(event)
            elif event.run_id and event.dagster_event is not None and event.dagster_event.event_type in _WAITING:
                self._waiting.append(event)
                if len(self._waiting) >= _MOST_WAITING:
                    self._flush()
            else:
                self._flush()
                super().store_event(event)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store all of them, or on any error none."""
        with self._db_lock:
            self._flush()
            self._store_together(events)

    def _store_together(self, events: Sequence[dg.EventLogEntry]) -> None:
        with ExitStack() as transactions:
            self._held = {
                shard: transactions.enter_context(super(BatchedEventLog, self)._connect(shard))
                for shard in [*sorted({event.run_id for event in events}), INDEX_SHARD_NAME]
            }
            try:
                for event in events:
                    super().store_event(event)
            finally:
                self._held = {}

    def _flush(self) -> None:
        if self._waiting:
            self._store_together(self._waiting)
            self._waiting = []

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Any]:
        with self._db_lock:
            if shard in self._held:
                yield self._held[shard]
            else:
                self._flush()  # whoever reads sees everything that was reported
                with super()._connect(shard) as connection:
                    yield connection

    def index_transaction(self) -> AbstractContextManager[Any]:  # type: ignore[override]
        """The transaction of the batch, or one of its own."""
        return self._connect(INDEX_SHARD_NAME)

    def dispose(self) -> None:
        """Write what waits, then let go."""
        with self._db_lock:
            self._flush()
        super().dispose()


class BatchedSqliteStorage(DagsterSqliteStorage):
    """`storage: custom` of dagster.yaml: SQLite for runs, schedules and the batched event log, under one folder."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = BatchedEventLog(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Made by Dagster from dagster.yaml."""
        return cls.from_local(inst_data=inst_data, **config_value)
