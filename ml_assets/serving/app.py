"""The service: which request is answered by what.

Two requests have traffic, `score` of an event and of features given; they come first and are written for speed.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from operator import itemgetter
from typing import Any, cast

import msgspec
import numpy as np

from ml_assets.serving import metrics
from ml_assets.serving.docs import docs_page, docs_script, docs_style
from ml_assets.serving.http import (
    Answer,
    Direct,
    HttpError,
    Receive,
    Response,
    Scope,
    Send,
    cancel_late_bodies,
    encode,
    error_response,
    invalid,
    json_of,
    query,
    read_body,
    refuse_upload,
    respond,
)
from ml_assets.serving.keys import ForbiddenError, KeyRing, TooManyRequestsError, UnknownKeyError
from ml_assets.serving.live import Live
from ml_assets.serving.openapi import document
from ml_assets.serving.scorer import AHEAD, Asked, NotReadyError, Reasons, Scorer, answer_in
from ml_assets.stages.inputs import Columns
from ml_assets.stages.intake import EPOCH, MICROSECOND, InvalidRowError, Problem, RowIntake, Taken, numbered
from ml_assets.stages.online_state import SILENCE, SINCE_EVER
from ml_assets.stages.trees import Trees
from ml_assets.storage.online import StoreDownError
from ml_assets.storage.predictions import LogFullError

log = logging.getLogger("ml_assets.serving")

MOST_ROWS = 1000
FEED_ROWS = 50
FOLLOWED = 20
"""How many times between two looks at everything else the online stores are followed."""
REASONS = {"reasons": ("alerts", "always", "never"), "features": ("false", "true")}
RETRY = (b"retry-after", b"1")
OWN_PAGE = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""The page asks nobody but this service for anything."""
_NAN = float("nan")

Handler = Callable[[Scope, Receive], Awaitable[Response]]
Begin = Callable[[bytes, Callable[[Response | Exception], None]], None]
"""Begins to answer a body; it raises, or calls once it is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A handler, the scope that a key needs for it, and the labels under which it is counted."""

    method: str
    handler: Handler
    scope: str | None
    case: str
    name: str


@dataclass(kw_only=True)
class App:
    """An ASGI application for some use cases. `started` and `stopped` are called around its life."""

    scorers: Mapping[str, Scorer]
    keys: KeyRing
    started: Callable[[], Awaitable[None]]
    stopped: Callable[[], Awaitable[None]]
    direct: dict[bytes, Direct] = field(default_factory=dict)
    """The two requests with traffic, by path, for a connection that answers them without ASGI."""
    _routes: dict[str, Route] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, scorer in self.scorers.items():
            at = f"/v1/{name}"
            endpoints = _Endpoints(scorer)
            self._add(f"{at}/score", "POST", endpoints.score, "score", name)
            for name_of, begin in (("score", endpoints.score_soon), ("score:features", endpoints.score_features_soon)):
                self.direct[f"{at}/{name_of}".encode()] = partial(self._answer_directly, name, name_of, begin)
            self._add(f"{at}/score:batch", "POST", endpoints.score_batch, "score", name)
            self._add(f"{at}/score:features", "POST", endpoints.score_features, "score", name)
            self._add(f"{at}/events", "POST", endpoints.events, "feedback", name)
            for table in scorer.intakes:
                if table not in (scorer.case.events, scorer.label_table):
                    self._add(f"{at}/events/{table}", "POST", endpoints.observe(table), "feedback", name)
            self._add(f"{at}/labels", "POST", endpoints.labels, "feedback", name)
            self._add(f"{at}/model", "GET", endpoints.model, "score", name)
            self._add(f"{at}/feed", "GET", endpoints.feed, "admin", name)
        self._add("/healthz", "GET", self._healthz, None, "")
        self._add("/readyz", "GET", self._readyz, None, "")
        self._add("/metrics", "GET", self._metrics, "admin", "")
        self._add("/openapi.json", "GET", self._openapi, None, "")
        page = files("ml_assets.serving").joinpath("page.html").read_bytes()
        cases = [{"name": scorer.case.name, "title": scorer.case.title} for scorer in self.scorers.values()]
        page = page.replace(b"/*CASES*/[]", encode(cases).replace(b"<", rb"\u003c"))  # a title could end the script
        for path, content, kind in (
            ("/", page, b"text/html; charset=utf-8"),
            ("/docs", docs_page(), b"text/html; charset=utf-8"),
            ("/docs/swagger-ui.js", docs_script(), b"text/javascript; charset=utf-8"),
            ("/docs/swagger-ui.css", docs_style(), b"text/css; charset=utf-8"),
        ):
            self._add(path, "GET", _constant(content, kind, OWN_PAGE if path == "/" else ()), None, "")

    def _add(self, path: str, method: str, handler: Handler, scope: str | None, case: str) -> None:
        self._routes[path] = Route(method=method, handler=handler, scope=scope, case=case, name=path.removeprefix(f"/v1/{case}/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # before it is accepted: answered with 403
            return
        begin = time.perf_counter()
        route = self._routes.get(scope["path"])
        try:
            if route is None:
                raise self._not_found(scope["path"])
            if scope["method"] != route.method and not (scope["method"] == "HEAD" and route.method == "GET"):
                allowed = [(b"allow", b"GET, HEAD" if route.method == "GET" else route.method.encode())]
                raise HttpError(405, "wrong_method", f"{scope['path']} takes {route.method}", headers=allowed)
            if route.scope:
                self.keys.admit(scope["headers"], route.scope)
            response = await route.handler(scope, receive)
        except Exception as error:
            response = error_response(_as_http(error, route.case if route else "", scope["path"]))
        if response.status == 413:
            await refuse_upload(receive, send, response)
        else:
            await respond(send, response)
        if route is not None and route.case:
            metrics.answered(route.case, route.name, response.status, time.perf_counter() - begin)

    def _answer_directly(
        self, case: str, name: str, begin: Begin, headers: Sequence[tuple[bytes, bytes]], body: bytes, answer: Answer
    ) -> None:
        since = time.perf_counter()

        def done(result: Response | Exception) -> None:
            response = result if isinstance(result, Response) else error_response(_as_http(result, case, name))
            answer(response)
            metrics.answered(case, name, response.status, time.perf_counter() - since)

        try:
            self.keys.admit(headers, "score")
            begin(body, done)
        except Exception as error:
            done(error)

    def _not_found(self, path: str) -> HttpError:
        parts = path.split("/")
        if len(parts) > 2 and parts[1] == "v1" and parts[2] not in self.scorers:
            known = ", ".join(self.scorers)
            return HttpError(404, "unknown_use_case", f"no use case {parts[2][:100]!r} is served here; there are {known}")
        return HttpError(404, "not_found", f"nothing is at {path[:200]}; /docs lists what there is")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.started()
                await send({"type": "lifespan.startup.complete"})
            else:
                try:
                    await self.stopped()
                except OSError as error:
                    log.error("%s", error)
                    await send({"type": "lifespan.shutdown.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _healthz(self, scope: Scope, _receive: Receive) -> Response:
        query(scope, {})
        return Response(b'{"status":"alive"}')

    async def _readyz(self, scope: Scope, _receive: Receive) -> Response:
        """Ready when every case can score: a model, a store that answers, and state in it."""
        query(scope, {})
        found = {name: scorer.readiness() for name, scorer in self.scorers.items()}
        ready = all(each["ready"] for each in found.values())
        return Response(encode({"ready": ready, "use_cases": found}), status=200 if ready else 503)

    async def _openapi(self, scope: Scope, _receive: Receive) -> Response:
        """Made anew each time: its examples are events of now, as far as the store is concerned."""
        query(scope, {})
        return Response(encode(document(list(self.scorers.values()))))

    async def _metrics(self, scope: Scope, _receive: Receive) -> Response:
        query(scope, {})
        return Response(metrics.exposition(), content_type=b"text/plain; version=0.0.4; charset=utf-8")


class _Endpoints:
    """What is asked of one use case."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._case = scorer, scorer.case
        self._intakes: dict[str, RowIntake] = scorer.intakes
        self._given: list[tuple[bytes, Callable[[Response | Exception], None]]] = []

    async def score(self, scope: Scope, receive: Receive) -> Response:
        reasons, features = _options(scope)
        content = _object(json_of(await read_body(scope, receive)))
        entry = await self._scorer.score(self._take(content, reasons))
        return Response(entry if features else answer_in(entry))

    def score_soon(self, body: bytes, done: Callable[[Response | Exception], None]) -> None:
        """The same without options."""

        def scored(entry: bytes | Exception) -> None:
            done(entry if isinstance(entry, Exception) else Response(answer_in(entry)))

        self._scorer.score_soon(self._take(_object(json_of(body)), "alerts"), scored)

    async def score_features(self, scope: Scope, receive: Receive) -> Response:
        """Score of features that the caller has computed: nothing is looked up, kept or logged."""
        query(scope, {})
        return self._score_of(await read_body(scope, receive))

    def score_features_soon(self, body: bytes, done: Callable[[Response | Exception], None]) -> None:
        """The same of all that come together, one after the other: the nodes of the trees are then in the cache."""
        if not self._given:
            asyncio.get_running_loop().call_soon(self._score_given)
        self._given.append((body, done))

    def _score_given(self) -> None:
        given, self._given = self._given, []
        results: list[tuple[Callable[[Response | Exception], None], Response | Exception]] = []
        for body, done in given:
            try:
                results.append((done, self._score_of(body)))
            except Exception as error:
                results.append((done, error))
        for done, result in results:
            done(result)

    def _score_of(self, body: bytes) -> Response:
        live = self._scorer.require_live()
        try:
            values = live.given(body)
        except msgspec.ValidationError:
            raise InvalidRowError(_what_is_wrong(_object(json_of(body)), live)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            json_of(body)  # says what is wrong with it
            raise
        if live.texts or not isinstance(live.model.estimator, Trees):
            columns = {
                name: np.array([value], dtype=object if name in live.texts else np.float64)
                for name, value in zip(live.model.inputs, values, strict=True)
            }
            score = live.model.predict(Columns(columns)).tolist()[0]
        else:
            score = live.model.estimator.predict_row(
                values if None not in values else [_NAN if each is None else each for each in values]
            )
        alert = score >= live.threshold
        self._scorer.scored["alert" if alert else "quiet"] += 1
        return Response(encode({"score": score, "alert": alert, "threshold": live.threshold, "model_version": live.version}))

    async def score_batch(self, scope: Scope, receive: Receive) -> Response:
        """Events in any order; each sees those that came before it by its time. One that is invalid refuses all."""
        reasons, features = _options(scope)
        rows = self._intakes[self._case.events].take_all(_rows(json_of(await read_body(scope, receive))))
        asked, problems = [], []
        for place, row in enumerate(rows):
            try:
                asked.append(self._take(row, reasons))
            except InvalidRowError as error:
                problems += [numbered(each, place) for each in error.problems]
        if problems:
            raise InvalidRowError(problems)
        entries = self._scorer.score_now(asked)
        return Response(b'{"scores":[' + b",".join(entries if features else map(answer_in, entries)) + b"]}")

    async def events(self, scope: Scope, receive: Receive) -> Response:
        return await self._observe(self._case.events, scope, receive)

    async def labels(self, scope: Scope, receive: Receive) -> Response:
        return await self._observe(self._scorer.label_table, scope, receive)

    def observe(self, table: str) -> Handler:
        async def handler(scope: Scope, receive: Receive) -> Response:
            return await self._observe(table, scope, receive)

        return handler

    async def _observe(self, table: str, scope: Scope, receive: Receive) -> Response:
        query(scope, {})
        content = json_of(await read_body(scope, receive))
        intake = self._intakes[table]
        rows = intake.take_all(_rows(content)) if isinstance(content, list) else [intake.take(_object(content))]
        problems = sorted([*self._too_long_ids(table, rows), *self._too_far_ahead(table, rows)], key=itemgetter(0))
        if problems:
            raise InvalidRowError([numbered(each, place) if isinstance(content, list) else each for place, each in problems])
        count = self._scorer.observe(table, cast(Any, rows))  # taken already, which the intake leaves as it is
        metrics.ROWS.labels(self._case.name, table).inc(count)
        return Response(encode({"observed": count}))

    def _take(self, content: Mapping[str, Any] | Taken, reasons: Reasons) -> Asked:
        """An event to be scored."""
        try:
            return self._scorer.take(cast(Any, content), reasons)
        except NotReadyError:
            row = self._intakes[self._case.events].take(content)
            if problems := [each for _, each in self._too_far_ahead(self._case.events, [row])]:
                raise InvalidRowError(problems) from None
            raise

    def _too_long_ids(self, table: str, rows: Sequence[Taken]) -> Iterator[tuple[int, Problem]]:
        kept = self._scorer.features.kept.get(table)
        for place, (row, _) in enumerate(rows):
            try:
                if kept is not None:
                    kept.id(row)
            except ValueError as error:
                key = kept.table.key if kept else ()
                yield (
                    place,
                    Problem(field=key[0] if len(key) == 1 else "row", value=" ".join(str(row[n]) for n in key), rule=str(error)),
                )

    def _too_far_ahead(self, table: str, rows: Sequence[Taken]) -> Iterator[tuple[int, Problem]]:
        """Events so long after everything seen that what happened in between is not there: the store would look whole, and forget.

        Raises:
            NotReadyError: it is the store that is late, since they are of now.
        """
        if table != self._case.events:
            return
        now, seen = int(time.time() * 1e6), self._scorer.seen_until
        day = SILENCE // MICROSECOND
        instants = [row[self._case.event_time] for row, _ in rows]
        if seen > SINCE_EVER and max(instants, default=seen) > seen + day:
            self._scorer.look_at_state()  # another process may have seen more
            seen = self._scorer.seen_until
        for place in sorted(range(len(rows)), key=instants.__getitem__):
            at = instants[place]
            if at > now + AHEAD // MICROSECOND:
                yield place, Problem(field=self._case.event_time, value=_moment(at), rule="is after tomorrow")
            elif SINCE_EVER < seen < at - day:
                rule = (
                    f"is more than a day after {_moment(seen)}, the latest that the online store has seen: load the days in between"
                )
                if at > now - day:
                    raise NotReadyError(f"the event of {_moment(at)} {rule} into online_state")
                yield place, Problem(field=self._case.event_time, value=_moment(at), rule=rule)
            else:
                seen = max(seen, at)

    async def model(self, scope: Scope, _receive: Receive) -> Response:
        query(scope, {})
        live = self._scorer.require_live()
        features = [{"name": each["name"], "dtype": each["dtype"], "unit": each["unit"]} for each in live.features]
        return Response(
            encode(
                {
                    "model_version": live.version,
                    "in_force_since": live.week,
                    "threshold": live.threshold,
                    "decision": live.decision,
                    "refused": self._scorer.in_force.refused,
                    "features": features,
                }
            )
        )

    async def feed(self, scope: Scope, _receive: Receive) -> Response:
        """What the page shows: the latest answers, newest first, latency, the model and its history."""
        query(scope, {})
        latency = metrics.latency_of(self._case.name, "score")
        live = self._scorer.in_force.live
        recent = [answer_in(entry) for entry in self._scorer.store.recent(FEED_ROWS)]
        head = {
            "requests": latency.requests,
            "p50_ms": latency.p50,
            "p99_ms": latency.p99,
            "model_version": live.version if live else None,
            "threshold": live.threshold if live else None,
            "refused": self._scorer.in_force.refused,
            "decisions": self._scorer.history(),
        }
        return Response(encode(head)[:-1] + b',"recent":[' + b",".join(recent) + b"]}")


def _options(scope: Scope) -> tuple[Reasons, bool]:
    if not scope["query_string"]:
        return "alerts", False
    asked = query(scope, REASONS)
    return cast(Reasons, asked["reasons"]), asked["features"] == "true"


def _moment(instant: int) -> str:
    return (EPOCH + instant * MICROSECOND).isoformat()


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InvalidRowError([Problem(field="body", value=content, rule="is not an object with the fields of one row")])
    return content


def _rows(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise InvalidRowError([Problem(field="body", value=content, rule="is not a list of rows")])
    if not 0 < len(content) <= MOST_ROWS:
        raise InvalidRowError([Problem(field="body", value=content, rule=f"has {len(content):,} rows: from 1 to {MOST_ROWS:,}")])
    if problems := [
        Problem(field=str(place), value=row, rule="is not an object with the fields of one row")
        for place, row in enumerate(content)
        if not isinstance(row, dict)
    ]:
        raise InvalidRowError(problems)
    return content


def _what_is_wrong(content: dict[str, Any], live: Live) -> list[Problem]:
    """Of features that a caller gives, every one that breaks a rule."""
    given = content.get("features")
    if not isinstance(given, dict) or len(content) != 1:
        return [Problem(field="features", value=given, rule="is an object with the features by name, and all there is")]
    problems = [
        Problem(field=name, value=None, rule="is missing: null says that it is not known") for name in live.names - given.keys()
    ]
    for name, value in given.items():
        if name not in live.names:
            problems.append(Problem(field=name, value=value, rule="is no feature of the model"))
        elif name in live.texts and not isinstance(value, str | None):
            problems.append(Problem(field=name, value=value, rule="is neither a text nor null"))
        elif name not in live.texts and (isinstance(value, bool) or not isinstance(value, int | float | None)):
            problems.append(Problem(field=name, value=value, rule="is neither a number nor null"))
    return problems or [Problem(field="features", value=None, rule="holds a number that does not fit into 64 bits")]


def _constant(content: bytes, kind: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> Handler:
    async def handler(_scope: Scope, _receive: Receive) -> Response:
        return Response(content, content_type=kind, headers=headers)

    return handler


def _as_http(error: Exception, case: str, path: str) -> HttpError:
    """What an error means to the caller; what nobody thought of is logged whole, and answered without details."""
    match error:
        case HttpError():
            return error
        case InvalidRowError():
            return invalid(error.problems)
        case UnknownKeyError():
            return HttpError(401, "unknown_key", str(error), headers=[(b"www-authenticate", b"Bearer")])
        case ForbiddenError():
            return HttpError(403, "forbidden", str(error))
        case TooManyRequestsError():
            after = str(max(1, math.ceil(error.after))).encode()
            return HttpError(429, "too_many_requests", str(error), headers=[(b"retry-after", after)])
        case StoreDownError():
            metrics.STORE_FAILURES.labels(case).inc()
            log.warning("%s: %s", case, error)
            return HttpError(
                503, "store_down", "the online store does not answer; sent again, an event counts once", headers=[RETRY]
            )
        case NotReadyError():
            return HttpError(503, "not_ready", str(error), headers=[RETRY])
        case LogFullError():
            log.error("%s: %s", case, error)
            return HttpError(503, "log_full", "scores cannot be logged as fast as they are asked for", headers=[RETRY])
        case _:
            log.exception("%s", path, exc_info=error)
            return HttpError(500, "internal", "an error of the service; its log says more")


async def keep_up(scorers: Sequence[Scorer], *, every: float) -> None:
    """What has to be done now and then: swap models, tell the metrics, remember what was seen."""
    while True:
        for _ in range(FOLLOWED):
            await asyncio.sleep(every / FOLLOWED)
            for scorer in scorers:
                scorer.follow()
        cancel_late_bodies()
        metrics.tell()
        for scorer in scorers:
            try:
                await scorer.keep_up()
            except Exception as error:  # the next time may be better; until then scores go on
                log.warning("%s: %s", scorer.case.name, error)
