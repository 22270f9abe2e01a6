"""What a feed brought, landed in a table: each piece and the position behind it in one commit, so that a rerun neither loses nor doubles.

Belongs here: landing, and the source that reads what landed. Does not: how a feed is read (`sources.kafka`), what becomes of columns
(`sources.delivered`).
"""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ml_assets.delta import files_of_days
from ml_assets.folders import Folder
from ml_assets.sources.as_text import days_of
from ml_assets.sources.canonical import REFUSED
from ml_assets.sources.delivered import Delivered, not_delivered, within
from ml_assets.sources.files import digest, united, with_provenance
from ml_assets.sources.json_lines import members_of
from ml_assets.use_case import Batch, Day

Position = Mapping[str, Any]
"""How far a feed was read, in its own terms; JSON."""
_NOTE = "ml_assets.landed"
_SCHEMA = pa.schema(
    {
        "day": pa.string(),
        "source_file": pa.string(),
        "source_row": pa.int64(),
        "arrived": pa.timestamp("us", "UTC"),
        "key": pa.string(),
        "content": pa.binary(),
    }
)
_FILES_A_DAY = 200
"""So many small files of a day are made one."""
_ATTEMPTS = 5


class FeedError(RuntimeError):
    """A feed cannot be read; the message says what to do."""


class Arrived(NamedTuple):
    """One message, as it came."""

    content: bytes
    file: str
    row: int
    """`file` and `row` name it for good, such as topic and partition, and offset."""
    at: int
    """When it was sent or came, microseconds since the epoch, for those that say no time themselves."""
    key: str | None = None
    """Its id, where the feed may bring the same message again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Some messages, and the position behind the last of them."""

    messages: Sequence[Arrived]
    position: Position


class Feed(Protocol):
    """Brings messages in an order in which one can go on from anywhere."""

    @property
    def name(self) -> str:
        """What a position belongs to: another feed begins at its own beginning."""

    def pieces(self, after: Position | None, *, live: bool) -> Iterator[Piece]:
        """What came after a position, or from the beginning on.

        Args:
            live: whether to go on with what comes, for good; else with what was there at the beginning it ends. A piece without messages
                says that nothing came for a while.

        Raises:
            FeedError: it cannot be read.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Landed:
    """What became of one call of `Landing.catch_up`."""

    messages: int
    days: frozenset[Day]


@dataclass(frozen=True, kw_only=True)
class Landing:
    """The table in which a feed lands. Of two processes that land the same, one commits, and the other goes on behind it."""

    root: Folder
    name: str
    """Of the table, below the root."""
    feed: Feed
    delivered: Delivered

    def catch_up(self) -> Landed:
        """Lands what came since the last time.

        Raises:
            FeedError: the feed cannot be read, or others land the same all the time.
        """
        count, days = 0, set[Day]()
        for _ in range(_ATTEMPTS):
            try:
                for landed in self._landed(live=False):
                    count += landed.messages
                    days |= landed.days
            except CommitFailedError:
                continue
            self._compact(days)
            return Landed(messages=count, days=frozenset(days))
        raise FeedError(f"{self.feed.name}: other processes land it, too, and were faster {_ATTEMPTS} times: let one do it")

    def follow(self) -> Iterator[Landed]:
        """Lands what comes, for good; each time something landed, and each time that nothing came for a while.

        Raises:
            FeedError: the feed cannot be read (any more).
        """
        while True:
            try:
                for landed in self._landed(live=True):
                    self._compact(landed.days)
                    yield landed
            except CommitFailedError:
                continue

    @property
    def place(self) -> str:
        """The path or URL of the table."""
        return self.root.place(self.name)

    @property
    def _at(self) -> dict[str, Any]:
        return self.root.delta(self.name)

    def position(self) -> Position | None:
        """Behind the last message that landed."""
        position: Position | None = _noted(self.table()).get("position")
        return position

    @property
    def last(self) -> Day | None:
        """The latest day of the times of all messages, also of those that the table does not keep: not one on which a stray one came."""
        last: Day | None = _noted(self.table()).get("last")
        return last

    def _landed(self, *, live: bool) -> Iterator[Landed]:
        """Lands piece after piece, each in one commit.

        Raises:
            CommitFailedError: another process landed something since the position was read, or last.
        """
        table = self.table()
        if table is None:
            table = DeltaTable.create(**self._at, schema=_SCHEMA, mode="ignore", partition_by=["day"])
        noted, number = _noted(table), table.transaction_version(self.feed.name) or 0
        last: Day | None = noted.get("last")
        for piece in self.feed.pieces(noted.get("position"), live=live):
            if not piece.messages:
                yield Landed(messages=0, days=frozenset())
                continue
            rows = self._rows(piece.messages)
            last = max(filter(None, [last, pc.max(rows["sound"]).as_py()]), default=None)
            kept = self._new(table, rows.filter(rows["kept"]).drop_columns(["kept", "sound"]))
            self._commit(table, number, kept, {"position": piece.position, "last": last})
            number += 1
            yield Landed(messages=kept.num_rows, days=frozenset(pc.unique(kept["day"]).to_pylist()))

    def _commit(self, table: DeltaTable, number: int, rows: pa.Table, note: Mapping[str, Any]) -> None:
        """Appends rows unless the table, as it was read, or since, has another number of commits of this feed."""
        if (table.transaction_version(self.feed.name) or 0) != number:
            raise CommitFailedError("another process landed the same")
        properties = CommitProperties(
            custom_metadata={_NOTE: json.dumps(note)}, app_transactions=[Transaction(self.feed.name, number + 1)]
        )
        write_deltalake(table, rows, mode="append", commit_properties=properties)

    def counts(self) -> dict[Day, int]:
        """How many messages of each day landed."""
        table = self.table()
        if table is None:
            return {}
        files = pa.table(table.get_add_actions(flatten=True))
        sums = files.group_by("partition.day").aggregate([("num_records", "sum")])
        return dict(zip(sums["partition.day"].to_pylist(), sums["num_records_sum"].to_pylist(), strict=True))

    def messages(self, days: Sequence[Day]) -> pa.Table:
        """What landed of these days, each by `source_file` and `source_row`."""
        table = self.table()
        if table is None or not days:
            return _SCHEMA.empty_table()
        found = files_of_days(table, self.root, self.name, days).to_table()
        return found.sort_by([("day", "ascending"), ("source_file", "ascending"), ("source_row", "ascending")])

    def table(self) -> DeltaTable | None:
        """The table, None before anything landed."""
        try:
            return DeltaTable(**self._at)
        except TableNotFoundError:
            return None

    def _rows(self, messages: Sequence[Arrived]) -> pa.Table:
        """With `kept`: whether the table keeps them; and `sound`: the day of their own time, where it can be read and is in bounds."""
        time = self.delivered.time
        batch = batch_of([each.content for each in messages], time.needed, self.delivered)
        arrived = pa.array([each.at for each in messages], pa.timestamp("us", "UTC"))
        sound = within(time.days(batch), self.delivered.span())
        columns = {
            "day": self._with_arrival(sound, arrived) if sound.null_count else sound,
            "source_file": pa.array([each.file for each in messages], pa.string()),
            "source_row": pa.array([each.row for each in messages], pa.int64()),
            "arrived": arrived,
            "key": pa.array([each.key for each in messages], pa.string()),
            "content": pa.array([each.content for each in messages], pa.binary()),
        }
        return pa.table(columns, schema=_SCHEMA).append_column("kept", time.kept(batch)).append_column("sound", sound)

    def _with_arrival(self, sound: pa.Array, arrived: pa.Array) -> pa.Array:
        """In place of each null the day on which the message came, or the day of the case that is nearest to it."""
        zone, bounds = self.delivered.timezone, self.delivered.bounds
        days = days_of(arrived, zone, timedelta(0))
        if bounds is not None:
            first, last = bounds.arrival_days(zone)
            days = pc.min_element_wise(pc.max_element_wise(days, first), last)
        return pc.coalesce(sound, days)

    def _new(self, table: DeltaTable, rows: pa.Table) -> pa.Table:
        """Without those whose key landed before, or is there twice."""
        keys = rows["key"].to_pylist()
        if not any(keys):
            return rows
        days = pc.unique(rows["day"]).to_pylist()
        known = set(files_of_days(table, self.root, self.name, days).to_table(columns=["key"])["key"].to_pylist()) - {None}
        new = [key is None or not (key in known or known.add(key)) for key in keys]  # type: ignore[func-returns-value]
        return rows.filter(pa.array(new))

    def _compact(self, days: Set[Day]) -> None:
        """Makes one file of many small ones."""
        table = self.table() if days else None
        if table is None:
            return
        files = pa.table(table.get_add_actions(flatten=True))["partition.day"]
        for each in pc.value_counts(files.combine_chunks()).to_pylist():
            if each["values"] in days and each["counts"] > _FILES_A_DAY:
                table.optimize.compact(partition_filters=[("day", "=", each["values"])])


@dataclass(frozen=True, kw_only=True)
class LandedRows:
    """The rows of a table that arrive in a feed, as `Delivered` says: everything that is there is landed before it is read.

    A message that is no JSON object, says no time, or one out of bounds, is of the day on which it came, and cleaning rejects it.
    """

    landing: Landing
    delivered: Delivered
    complete_to: Day | None = None
    """First day of which the feed says nothing: a day before it without a row had none. None: that after the last row's."""

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """For each day a hash over how many messages landed and how they are read: what landed stays as it is."""
        try:
            self.landing.catch_up()
        except FeedError:
            return {}
        counts, last = self.landing.counts(), self.landing.last
        return {day: self._version(counts, day) for day in days if self._problem(last, day) is None}

    def read(self, days: Sequence[Day]) -> Batch:
        """Rows of these days, by file and row."""
        try:
            self.landing.catch_up()
        except FeedError as error:
            return Batch(rows=united([self._no_rows]), counted={}, versions={}, problems=dict.fromkeys(days, str(error)))
        counts, last = self.landing.counts(), self.landing.last
        problems = {day: problem for day in days if (problem := self._problem(last, day)) is not None}
        ready = [day for day in days if day not in problems]
        try:
            tables = [self._of_day(self.landing.messages([day]), day, self._version(counts, day)) for day in ready]
        except DeltaError as error:
            raise OSError(f"{self.landing.place} cannot be read: {error}") from error
        counted = {day: table.num_rows for day, table in zip(ready, tables, strict=True)}
        versions = {day: self._version(counts, day) for day in ready}
        return Batch(rows=united([self._no_rows, *tables]), counted=counted, versions=versions, problems=problems)

    def trouble(self) -> str:
        """See `WatchedSource`."""
        try:
            self.landing.catch_up()
        except FeedError as error:
            return str(error)
        return ""

    def watched(self, days: Sequence[Day]) -> Sequence[Day]:
        """All: what landed is counted by day."""
        return days

    def _of_day(self, messages: pa.Table, day: Day, version: str) -> pa.Table:
        batch = batch_of(messages["content"].to_pylist(), list(self.delivered.needed), self.delivered)
        values = self.delivered.values(batch)
        file, row = messages["source_file"].combine_chunks(), messages["source_row"].combine_chunks()
        return with_provenance(values, day, file, version, rows=row)

    @property
    def _no_rows(self) -> pa.Table:
        return self._of_day(_SCHEMA.empty_table(), "", "")

    def _problem(self, last: Day | None, day: Day) -> str | None:
        name = self.landing.feed.name
        return not_delivered(day, complete_to=self.complete_to, last=last, whole=name, latest=f"message of {name}")

    def _version(self, counts: Mapping[Day, int], day: Day) -> str:
        count = counts.get(day, 0)
        return digest(repr((count, self.landing.feed.name, self.delivered.meaning)).encode() if count else b"")


def land(landings: Mapping[str, Landing], *, once: bool, skip_lost: bool, told: Callable[[str], None]) -> None:
    """Lands some feeds side by side, each in a thread of its own, for good or once.

    Raises:
        FeedError: one of them cannot be read; the others end, too, and all go on where they were the next time.
    """
    failed: queue.Queue[FeedError | None] = queue.Queue()

    def follow(name: str, landing: Landing) -> None:
        try:
            for landed in [landing.catch_up()] if once else landing.follow():
                if landed.messages:
                    told(f"{name}: {landed.messages:,} messages of {', '.join(sorted(landed.days))}")
            failed.put(None)
        except FeedError as error:
            failed.put(error)

    for name, each in landings.items():
        feed = replace(each.feed, skip_lost=True) if skip_lost and hasattr(each.feed, "skip_lost") else each.feed  # type: ignore[type-var]
        threading.Thread(target=follow, args=(name, replace(each, feed=feed)), name=f"land-{name}", daemon=True).start()
    for _ in landings:
        if (error := failed.get()) is not None:
            raise error


def _noted(table: DeltaTable | None) -> dict[str, Any]:
    """What was noted with the last piece, as of the version of the table at hand."""
    for limit in (10, None):
        for commit in table.history(limit) if table is not None else ():
            if _NOTE in commit:
                noted: dict[str, Any] = json.loads(commit[_NOTE])
                return noted
    return {}


def batch_of(contents: Sequence[bytes], names: Sequence[str], delivered: Delivered) -> pa.RecordBatch:
    """These members of the messages, as text; `REFUSED` is what is no JSON object, or exceeds a limit."""
    columns = list(dict.fromkeys(names))
    return members_of(contents, columns, otherwise=REFUSED, limits=delivered.limits, marks=delivered.dialect.writes_numbers)
