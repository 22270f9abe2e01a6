"""Scores events of one use case: takes them in, looks up what is known, computes features, predicts, keeps, logs.

Events that arrive together go together: one look-up, one computation and one commit for all of them. So each sees the others that came
before it by event time, exactly as in a backfill.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from ml_assets.serving import metrics
from ml_assets.serving.live import InForce, Live
from ml_assets.stages.inputs import Columns
from ml_assets.stages.intake import EPOCH, MICROSECOND, InvalidRowError, Problem, RowIntake, Taken
from ml_assets.stages.kept import ID_BYTES, Place
from ml_assets.stages.online_features import OnlineFeatures
from ml_assets.stages.online_state import (
    ANSWERS_FROM,
    SEEN_UNTIL,
    SILENCE,
    SINCE_EVER,
    OtherLayoutError,
    dimension_key,
    require_layout,
)
from ml_assets.storage.online import Answer, Fact, OnlineStore, StoreDownError
from ml_assets.storage.predictions import LogWriter
from ml_assets.use_case import DType, UseCase

log = logging.getLogger("ml_assets.serving")

Reasons = Literal["alerts", "always", "never"]
MOST_AT_ONCE = 64
REASONS = 5
AHEAD = timedelta(days=1)
"""How far after now an event may lie: clocks differ, but not by more."""
FAIL_FAST_SECONDS = 0.5
NOTHING_LOADED = 2**62
DECISIONS = 12
MARK = b',"features":{'


class NotReadyError(RuntimeError):
    """No score is given now; the message says why and what to do."""


class Reason(msgspec.Struct):
    """What a feature adds to the log-odds of a score."""

    feature: str
    value: float | str | None
    contribution: float


class Score(msgspec.Struct):
    """The answer about an event."""

    event_id: str
    event_time: str
    score: float
    alert: bool
    threshold: float
    model_version: str
    unknown_entities: list[str]
    reasons: list[Reason] | None
    degraded: bool
    scored_at: str


class Asked(NamedTuple):
    """An event to be scored."""

    id: str
    at: int
    taken: Taken
    reasons: Reasons


@dataclass(kw_only=True)
class Scorer:
    """One use case in one process; everything but `watch` runs in the thread of the event loop."""

    case: UseCase
    store: OnlineStore
    in_force: InForce
    writer: LogWriter
    scored: Counter[str] = field(default_factory=Counter)
    """How many answers of which kind were given."""

    def __post_init__(self) -> None:
        self.features = OnlineFeatures(self.case)
        self.intakes = {table.name: RowIntake(table, timezone=self.case.timezone) for table in self.case.tables if table.intake}
        self.label_table = self.case.label_table
        self._numeric = [column.name for column in self.case.features.columns if column.dtype is not DType.STRING]
        self._encode = msgspec.json.Encoder().encode
        self._waiting: list[tuple[Asked, Callable[[bytes | Exception], None]]] = []
        self._waited_for = 0
        self._down_until, self._down = 0.0, ""
        self._kept = self.features.kept.get(self.case.events)
        self._own_places = [(table, entity) for table, entity in self.features.places if table == self.case.events]
        self._since, self._seen_until = NOTHING_LOADED, SINCE_EVER

    def start(self) -> None:
        """Loads what is deployed, and looks at what the store has seen; where that fails, requests say so until it does not."""
        self.in_force.look()
        try:
            self.look_at_state()
            self.store.read_ahead()
            answered = [msgspec.json.decode(entry)["event_time"] for entry in self.store.recent(MOST_AT_ONCE)]
            for moment in answered:
                self._see((datetime.fromisoformat(moment) - EPOCH) // MICROSECOND)
        except (StoreDownError, NotReadyError) as error:
            log.warning("%s: %s", self.case.name, error)

    def stop(self) -> None:
        """Writes what was not written yet, and lets go of everything.

        Raises:
            OSError: not all scores could be logged.
        """
        try:
            self._note_seen()
        except StoreDownError as error:
            log.warning("%s: %s", self.case.name, error)
        self.store.close()
        self.writer.close()

    # What comes in -----------------------------------------------------------------------------------------------------------

    def take(self, content: Mapping[str, Any], reasons: Reasons) -> Asked:
        """An event, valid and in a time of which the store knows enough.

        Raises:
            InvalidRowError: it is not.
            NotReadyError: nothing is loaded, or nothing was seen of the time before it.
        """
        taken = self.intakes[self.case.events].take(content)
        at = taken.row[self.case.event_time]
        if self._kept is not None:
            try:
                self._kept.id(taken.row)
            except ValueError as error:
                raise InvalidRowError([Problem(field="event_id", value=taken.row["event_id"], rule=str(error))]) from error
        if not self._since <= at <= self._seen_until + SILENCE // MICROSECOND:
            self._require_state(at)
        return Asked(id=str(taken.row["event_id"]), at=at, taken=taken, reasons=reasons)

    def observe(self, table: str, contents: Sequence[Mapping[str, Any]]) -> int:
        """Files rows of a table that features look back on; a row with the same id is replaced. How many they were.

        Raises:
            InvalidRowError: naming the fields that break a rule; of several rows, with their number.
            StoreDownError: nothing was filed.
        """
        rows = list(take_all(self.intakes[table], contents))
        kept = self.features.kept.get(table)
        if kept is None:
            return 0
        facts = []
        for taken in rows:
            try:
                row = kept.counted(taken.row, taken.day)
                id, record, until = kept.id(row), kept.record(row), kept.last_known(row)
            except ValueError as error:
                raise InvalidRowError([Problem(field="id", value=None, rule=str(error))]) from error
            facts += [Fact(key, id, until, record) for key in kept.keys(taken.row)]
        self.store.keep(facts, replace=True)
        if table == self.case.events:
            self._see(max((taken.row[self.case.event_time] for taken in rows), default=SINCE_EVER))
        return len(rows)

    async def score(self, asked: Asked) -> bytes:
        """The entry of an event: what was answered, and the features.

        Raises:
            NotReadyError, StoreDownError, LogFullError: no score was given, and nothing was kept.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(result: bytes | Exception) -> None:
            if not future.done():
                future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)

        self.score_soon(asked, done)
        return await future

    def score_soon(self, asked: Asked, done: Callable[[bytes | Exception], None]) -> None:
        """The same for one who wants to be called."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append((asked, done))

    def score_now(self, asked: Sequence[Asked]) -> list[bytes]:
        """The same for many events at once, in the order of their times, as far as they fit in batches."""
        order = sorted(range(len(asked)), key=lambda place: (asked[place].at, asked[place].id))
        entries: dict[int, bytes] = {}
        for start in range(0, len(order), MOST_AT_ONCE):
            some = order[start : start + MOST_AT_ONCE]
            entries.update(zip(some, self._score([asked[place] for place in some]), strict=True))
        return [entries[place] for place in range(len(asked))]

    def _flush(self) -> None:
        """Everything that waits, once nothing more comes with it; what comes meanwhile waits for the next time."""
        if self._waited_for < len(self._waiting) < MOST_AT_ONCE:
            self._waited_for = len(self._waiting)
            asyncio.get_running_loop().call_soon(self._flush)
            return
        self._waited_for = 0
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), MOST_AT_ONCE):
            some = waiting[start : start + MOST_AT_ONCE]
            results: Sequence[bytes | Exception]
            try:
                results = self._score([asked for asked, _ in some])
            except Exception as error:  # whatever it is, everyone who waits has to hear of it
                results = [error] * len(some)
            for (_, done), result in zip(some, results, strict=True):
                done(result)

    # What is answered ----------------------------------------------------------------------------------------------------------

    def _score(self, asked: Sequence[Asked]) -> list[bytes]:
        live = self.require_live()
        self.writer.require_room()
        distinct = {each.id: each for each in reversed(asked)}
        try:
            self._require_up()
            known = self.store.answers(list(distinct))
            new = sorted((each for id, each in distinct.items() if id not in known), key=lambda each: (each.at, each.id))
            own, before = self._answer(live, new) if new else ({}, {})
            known |= before
            entries = own | known
        except StoreDownError as error:
            if time.monotonic() >= self._down_until:  # else it was not asked
                self._down_until, self._down = time.monotonic() + FAIL_FAST_SECONDS, str(error)
            if not self.case.scores_without_state:
                raise
            entries = self._answer_blindly(live, list(distinct.values()))
            known, new = {}, list(distinct.values())
        logged = [(each.taken.day, entries[each.id]) for each in new if each.id not in known]
        self.scored["again"] += len(asked) - len(logged)
        self.writer.add(logged)
        return [entries[each.id] for each in asked]

    def _answer(self, live: Live, asked: Sequence[Asked]) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What these events are answered, and what another process answered to some of them a moment before, which counts."""
        kept = self._kept
        events = [kept.known(kept.counted(each.taken.row, each.taken.day), each.at) if kept else each.taken.row for each in asked]
        keys = [self.features.keys(event) for event in events]
        own: list[Fact] = []
        if kept:
            for each, event, of_event in zip(asked, events, keys, strict=True):
                id, until, record = each.id.encode(), kept.last_known(event), kept.record(event)
                own += [Fact(key, id, until, record) for place in self._own_places if (key := of_event[place]) is not None]
        wanted = list(dict.fromkeys(key for of_event in keys for key in of_event.values() if key is not None))
        dimensions = [
            dimension_key(lookup.table, str(event[lookup.by])) for lookup in self.case.features.lookups for event in events
        ]
        found = self.store.facts([*wanted, *dimensions]) if wanted or dimensions else {}
        unknown = [self._unknown(of_event, found, each.id) for of_event, each in zip(keys, asked, strict=True)]
        records = self._with_own(found, own)
        looked_up = {key: msgspec.json.decode(found[key]) for key in dimensions if key in found}
        columns = self.features.compute(
            events, records, lambda table, value: looked_up.get(dimension_key(table, str(value))), keys=keys
        )
        entries = self._entries(live, asked, columns, unknown, degraded=False)
        before = self.store.keep(own, [Answer(id=each.id, at=each.at, body=entries[each.id]) for each in asked], replace=False)
        self._see(asked[-1].at)
        return entries, before

    def _answer_blindly(self, live: Live, asked: Sequence[Asked]) -> dict[str, bytes]:
        columns = self.features.compute([each.taken.row for each in asked], None)
        return self._entries(live, asked, columns, [[] for _ in asked], degraded=True)

    def _entries(
        self, live: Live, asked: Sequence[Asked], columns: dict[str, Any], unknown: list[list[str]], *, degraded: bool
    ) -> dict[str, bytes]:
        rows = Columns(columns)
        scores = live.model.predict(rows).tolist()
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        values = {name: column.tolist() for name, column in columns.items()}
        entries = {}
        for place, each in enumerate(asked):
            alert = scores[place] >= live.threshold
            wanted = each.reasons == "always" or (alert and each.reasons == "alerts")
            answer = Score(
                event_id=each.id,
                event_time=(EPOCH + each.at * MICROSECOND).isoformat(),
                score=scores[place],
                alert=alert,
                threshold=live.threshold,
                model_version=live.version,
                unknown_entities=unknown[place],
                reasons=reasons_of(live, columns, place) if wanted else None,
                degraded=degraded,
                scored_at=now,
            )
            features = self._encode({name: column[place] for name, column in values.items()})
            entries[each.id] = self._encode(answer)[:-1] + b',"features":' + features + b"}"
            self.scored["degraded" if degraded else "alert" if alert else "quiet"] += 1
        return entries

    @staticmethod
    def _with_own(found: Mapping[bytes, bytes], own: Sequence[Fact]) -> Mapping[bytes, bytes]:
        """The records by key, with those of the events themselves unless they are there."""
        joined = dict(found)
        for fact in own:
            there = joined.get(fact.key, b"")
            if not _holds(there, fact.id, len(fact.record)):
                joined[fact.key] = there + fact.record
        return joined

    def _unknown(self, keys: Mapping[Place, bytes | None], found: Mapping[bytes, bytes], id: str) -> list[str]:
        """The entities of an event of which nothing is known but the event."""
        known: dict[str, bool] = {}
        for (table, entity), key in keys.items():
            if len(entity) == 1 and key is not None:
                size = self.features.kept[table].dtype.itemsize
                content = found.get(key, b"")
                alone = len(content) == size and table == self.case.events and _holds(content, id.encode(), size)
                known[entity[0]] = known.get(entity[0], False) or (bool(content) and not alone)
        return [name for name, seen in known.items() if not seen]

    # What is told about it ------------------------------------------------------------------------------------------------------

    def require_live(self) -> Live:
        """The model in force.

        Raises:
            NotReadyError: there is none.
        """
        if self.in_force.live is None:
            refused = "; ".join(f"{version}: {why}" for version, why in self.in_force.refused.items())
            raise NotReadyError(refused or f"no model of {self.case.name} is deployed: ml-assets run {self.case.name}")
        return self.in_force.live

    def readiness(self) -> dict[str, Any]:
        """Whether events can be scored, and if not, why."""
        problems = []
        try:
            self.require_live()
        except NotReadyError as error:
            problems.append(str(error))
        try:
            self.look_at_state()
            if self._since == NOTHING_LOADED:
                problems.append(self._nothing_loaded())
        except NotReadyError as error:
            problems.append(str(error))
        except StoreDownError as error:
            problems.append(f"the online store does not answer: {error}")
        live = self.in_force.live
        return {
            "ready": not problems,
            "problems": problems,
            "model_version": live.version if live else None,
            "answers_from": None if self._since in (NOTHING_LOADED, SINCE_EVER) else _moment(self._since),
            "seen_until": None if self._seen_until == SINCE_EVER else _moment(self._seen_until),
        }

    def history(self) -> list[dict[str, Any]]:
        """The latest decisions about models, newest first."""
        names = ("number", "kind", "effective", "version", "candidate", "champion_before", "reason", "decided_by", "decided_at")
        decisions = self.in_force.models.decisions.all(self.case.name)
        return [{name: getattr(decision, name) for name in names} for decision in reversed(decisions[-DECISIONS:])]

    async def keep_up(self) -> None:
        """Swaps the model if another is deployed, tells the metrics, and notes what was seen.

        Raises:
            StoreDownError: the store does not answer.
            NotReadyError: it was filled for other features.
        """
        if await asyncio.to_thread(self.in_force.look):
            metrics.SWAPS.labels(self.case.name).inc()
        for kind, count in self.scored.items():
            metrics.SCORES.labels(self.case.name, kind).inc(count)
        self.scored.clear()
        metrics.STATE.labels(self.case.name).set(max(0, self._seen_until // 1_000_000))
        metrics.WAITING.labels(self.case.name).set(self.writer.waiting)
        self.look_at_state()  # from when on events are answered may be another time now
        self._note_seen()

    def follow(self) -> None:
        """Takes note of what other processes scored."""
        with suppress(StoreDownError):  # requests will say so
            self.store.follow()

    def _note_seen(self) -> None:
        if self._seen_until > int(self.store.notes(SEEN_UNTIL).get(SEEN_UNTIL, SINCE_EVER)):
            self.store.note({SEEN_UNTIL: str(self._seen_until)})

    # Whether it may be answered -----------------------------------------------------------------------------------------------

    def _require_up(self) -> None:
        if time.monotonic() < self._down_until:
            raise StoreDownError(self._down)

    def _require_state(self, at: int) -> None:
        """The store knows enough of the time before an event, as far as its notes tell."""
        event_time = self.case.event_time
        if at > (time.time() + AHEAD.total_seconds()) * 1e6:
            raise InvalidRowError([Problem(field=event_time, value=_moment(at), rule="is after tomorrow")])
        try:
            self._require_up()
            self.look_at_state()
        except StoreDownError:
            if self.case.scores_without_state:
                return
            raise
        if self._since == NOTHING_LOADED:
            raise NotReadyError(self._nothing_loaded())
        if at < self._since:
            rule = f"is before {_moment(self._since)}: the online store knows enough only of events from then on"
            raise InvalidRowError([Problem(field=event_time, value=_moment(at), rule=rule)])
        if at > self._seen_until + SILENCE // MICROSECOND:
            raise NotReadyError(
                f"the online store has seen nothing after {_moment(self._seen_until)}, and an event at {_moment(at)} cannot be scored "
                f"without what happened in between: load the days since then into online_state"
            )

    def _nothing_loaded(self) -> str:
        return f"nothing is loaded into the online store: ml-assets materialize {self.case.name} --select online_state"

    def look_at_state(self) -> dict[str, str]:
        """Reads what the store notes of itself."""
        notes = self.store.notes("")
        try:
            require_layout(self.case, notes)
        except OtherLayoutError as error:
            raise NotReadyError(str(error)) from error
        self._since = int(notes.get(ANSWERS_FROM, NOTHING_LOADED))
        self._seen_until = max(self._seen_until, int(notes.get(SEEN_UNTIL, SINCE_EVER)))
        return notes

    @property
    def seen_until(self) -> int:
        """The latest event time that this process knows to have been seen."""
        return self._seen_until

    def _see(self, at: int) -> None:
        self._seen_until = max(self._seen_until, at)


def take_all(intake: RowIntake, contents: Sequence[Mapping[str, Any]]) -> list[Taken]:
    """All rows, or one error that names every field of every row that breaks a rule."""
    taken, problems = [], []
    for place, content in enumerate(contents):
        try:
            taken.append(intake.take(content))
        except InvalidRowError as error:
            prefix = f"{place}." if len(contents) > 1 else ""
            problems += [Problem(field=f"{prefix}{each.field}", value=each.value, rule=each.rule) for each in error.problems]
    if problems:
        raise InvalidRowError(problems)
    return taken


def reasons_of(live: Live, columns: Mapping[str, Any], place: int) -> list[Reason] | None:
    """The features that move a score most, largest first; None for a family that has no contributions."""
    row = Columns({name: columns[name][place : place + 1] for name in live.model.inputs})
    parts = live.model.contributions(row)
    if parts is None:
        return None
    values = parts[0, :-1]
    largest = np.argsort(-np.abs(values), kind="stable")[:REASONS].tolist()
    names = live.model.inputs
    return [
        Reason(feature=names[at], value=columns[names[at]][place : place + 1].tolist()[0], contribution=float(values[at]))
        for at in largest
    ]


def answer_in(entry: bytes) -> bytes:
    """What of an entry is answered: all but the features. The mark cannot stand in a text, whose quotes are escaped."""
    return entry[: entry.rindex(MARK)] + b"}"


def _holds(records: bytes, id: bytes, size: int) -> bool:
    """Whether there is a record with an id, which stands at its beginning, padded with zeros."""
    start = records.find(id)
    while start >= 0:
        if start % size == 0 and not records[start + len(id) : start + ID_BYTES].strip(b"\0"):
            return True
        start = records.find(id, start + 1)
    return False


def _moment(instant: int) -> str:
    return "ever" if instant <= SINCE_EVER else (EPOCH + instant * MICROSECOND).isoformat(timespec="seconds")
