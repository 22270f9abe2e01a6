"""Days of a use case as live traffic: every row is sent when it would have become known, faster than it did.

A row waits for the rows before it that are about the same entities, as it would in life. So a replay gives the same features as a
backfill, however many requests are under way.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pandas as pd
import urllib3

from ml_assets.sources.files import delivered_as
from ml_assets.stages.availability import microseconds
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import ingested
from ml_assets.stages.kept import kept_of
from ml_assets.use_case import Day, Label, Table, UseCase


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A row to be sent: at its time, to a path, after those about the same entities."""

    at: int
    order: tuple[int, str]
    path: str
    body: bytes
    entities: tuple[bytes, ...]


@dataclass(kw_only=True)
class Traffic:
    """What became of the calls."""

    scored: int = 0
    alerts: int = 0
    degraded: int = 0
    observed: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """How many rows were answered with another status than 200, by status and message."""
    milliseconds: list[float] = field(default_factory=list)
    """Of the scores, retries included."""


class NoServiceError(RuntimeError):
    """The service does not answer, and has not for as long as is waited for it."""


def calls_of(case: UseCase, days: Sequence[Day], settings: dict[str, str]) -> tuple[list[Call], dict[str, int]]:
    """Every row of these days that can be taken in, in the order in which they became known; and how many of each table cannot.

    Raises:
        ValueError: the source cannot deliver a day.
    """
    found: list[Call] = []
    rejected = {}
    for table in case.daily_tables:
        if table.intake is None:
            continue
        batch = table.source(settings).read(days)
        if batch.problems:
            raise ValueError("; ".join(batch.problems.values()))
        raw = ingested(batch, table, days)
        cleaned = clean(raw, table, timezone=case.timezone)
        rejected[table.name] = len(cleaned.rejected)
        found += _calls(case, table, raw, cleaned.rows)
    return sorted(found, key=lambda call: (call.at, *call.order)), rejected


def _calls(case: UseCase, table: Table, raw: pd.DataFrame, rows: pd.DataFrame) -> Iterator[Call]:
    names = {column.name: delivered_as(column.name) for column in table.delivered}
    there = {name: column for name, column in names.items() if column in raw}
    keyed = raw.set_index(["day", "source_file", "source_row"])
    delivered = keyed.loc[pd.MultiIndex.from_frame(rows[["day", "source_file", "source_row"]])]
    contents = delivered[list(there.values())].astype(object).where(delivered[list(there.values())].notna(), None)
    contents.columns = pd.Index(list(there))
    bodies = [json.dumps(content).encode() for content in contents.to_dict("records")]
    entities = _entities(case, table, rows)
    at = f"/v1/{case.name}"
    if table.name == case.events:
        ids = rows["event_id"].tolist()
        for instant, id, body, about in zip(_instants(rows[case.event_time]), ids, bodies, entities, strict=True):
            yield Call(at=instant, order=(1, id), path=f"{at}/score", body=body, entities=about)
    path = _path(case, table)
    if path is None:
        return
    for known, body, about in zip(_first_known(case, table, rows), bodies, entities, strict=True):
        if known is not None:
            yield Call(at=known, order=(0, ""), path=f"{at}/{path}", body=body, entities=about)


def _path(case: UseCase, table: Table) -> str | None:
    """Where rows of a table are observed; None for events whose truth is reported elsewhere: they are only scored."""
    if case.label_table != case.events:
        return {case.label_table: "labels", case.events: None}.get(table.name, f"events/{table.name}")
    return "labels" if table.name == case.events else f"events/{table.name}"


def _first_known(case: UseCase, table: Table, rows: pd.DataFrame) -> Iterator[int | None]:
    """When the first of what is kept of a row becomes known beyond the event itself."""
    kept = kept_of(case).get(table.name)
    times = list(kept.times) if kept else []
    if isinstance(case.label, Label) and table.name == case.label_table:
        times.append(case.label.known_at)
    if not times:
        return iter([None] * len(rows))
    earliest = rows[list(dict.fromkeys(times))].min(axis=1)
    return iter([None if pd.isna(each) else each.value // 1000 for each in earliest])


def _entities(case: UseCase, table: Table, rows: pd.DataFrame) -> list[tuple[bytes, ...]]:
    kept = kept_of(case)
    columns = {entity[0] for each in kept.values() for entity in each.entities}
    shared = [name for name in sorted(columns) if any(column.name == name for column in table.columns)]
    values = [[f"{name}={value}".encode() for value in rows[name].tolist()] for name in shared]
    return list(zip(*values, strict=True)) if values else [()] * len(rows)


def _instants(times: pd.Series) -> list[int]:
    return [int(each) for each in microseconds(times)]


def send(
    calls: Sequence[Call],
    *,
    url: str,
    key: str | None,
    speed: float | None,
    connections: int,
    patience: float,
    heard: Callable[[bytes], None] = lambda _answer: None,
    progress: Callable[[int], None] = lambda _at: None,
    query: str = "",
) -> Traffic:
    """Sends the calls and waits for all answers.

    Args:
        speed: how many times as fast as they became known; None for as fast as they are answered.
        patience: for how many seconds a service that does not answer, or answers 503, is asked again.
        heard: gets each score.
        progress: gets the time of each call that is sent.
        query: of the scores, such as `?features=true`.

    Raises:
        NoServiceError: it did not answer in that time.
    """
    traffic = Traffic()
    begin = time.monotonic()
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    with urllib3.PoolManager(maxsize=connections, retries=False, timeout=10.0) as pool, ThreadPoolExecutor(connections) as threads:

        def call(each: Call) -> tuple[Call, int, bytes, float]:
            sent = time.monotonic()
            target = f"{url}{each.path}{query if each.path.endswith('/score') else ''}"
            status, body = _patiently(pool, target, each.body, headers, patience)
            return each, status, body, 1000 * (time.monotonic() - sent)

        last: dict[bytes, Future[tuple[Call, int, bytes, float]]] = {}
        under_way: set[Future[tuple[Call, int, bytes, float]]] = set()
        for each in calls:
            if speed:
                time.sleep(max(0.0, begin + (each.at - calls[0].at) / 1e6 / speed - time.monotonic()))
            before = {last[entity] for entity in each.entities if entity in last}
            wait(before)
            while len(under_way) >= connections:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    _note(traffic, future.result(), heard)
            future = threads.submit(call, each)
            under_way.add(future)
            last.update(dict.fromkeys(each.entities, future))
            progress(each.at)
        for future in under_way:
            _note(traffic, future.result(), heard)
    return traffic


def _patiently(pool: urllib3.PoolManager, url: str, body: bytes, headers: dict[str, str], patience: float) -> tuple[int, bytes]:
    begin = time.monotonic()
    while True:
        try:
            response = pool.request("POST", url, body=body, headers=headers)
            if response.status != 503:
                return response.status, response.data
            trouble = response.data.decode(errors="replace")
        except urllib3.exceptions.HTTPError as error:
            trouble = str(error)
        if time.monotonic() - begin > patience:
            raise NoServiceError(f"{url}: {trouble}")
        time.sleep(0.1)


def _note(traffic: Traffic, answered: tuple[Call, int, bytes, float], heard: Callable[[bytes], None]) -> None:
    each, status, body, took = answered
    if status != 200:
        error = json.loads(body)["error"]
        text = f"{status} {error['message']}" + "".join(
            f"; {each['field']} {each['rule']}" for each in error.get("problems", [])[:1]
        )
        traffic.refused[text] = traffic.refused.get(text, 0) + 1
    elif each.path.endswith("/score"):
        answer = json.loads(body)
        traffic.scored += 1
        traffic.alerts += answer["alert"]
        traffic.degraded += answer["degraded"]
        traffic.milliseconds.append(took)
        heard(body)
    else:
        traffic.observed += 1
