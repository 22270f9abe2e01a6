"""A feed of the pages of an HTTP interface, and one of the events of a stream.

Belongs here: how one page leads to the next, and what is done when the server is busy. Does not: where rows land (`sources.landing`).
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import httpx_sse
import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ml_assets.folders import STATUS_HINTS
from ml_assets.sources.bounded_events import events_of
from ml_assets.sources.landing import Arrived, FeedError, Piece, Position
from ml_assets.sources.limits import USUAL, Limits, shallow, unreadable_set_aside

AT_ONCE = 20_000
"""Rows in memory, and in one commit."""
_WAIT_SECONDS = (5.0, 30.0)
"""For a connection, and for what comes over it."""
_BUSY = (429, 500, 502, 503, 504)
_ATTEMPTS, _BACKOFF_SECONDS, _MOST_PATIENCE_SECONDS = 6, 0.5, 120
_GATHER_SECONDS = 1.0
"""What comes within it from a stream lands together."""
_PAUSE_SECONDS = 10.0
_CHUNK = 2**16

Paging = Literal["link", "cursor", "page"]


@dataclass(frozen=True, kw_only=True)
class Pages:
    """The rows of an interface that gives them in pages, new ones at the end: where it gives other rows later, nobody sees them.

    A server that is busy is asked again, later each time, or when it says (`Retry-After`). A position is the page to ask for next and how
    many of its rows are known, since the last page grows.

    Raises:
        ValueError: the declaration contradicts itself.
    """

    url: str
    """Of the first page."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of each request, such as `Authorization`; never told."""
    items: str = ""
    """Where in an answer the rows are, such as `data.payments`; "" when the answer is the list."""
    paging: Paging = "link"
    """By the `Link` header, by a cursor in the answer, or by numbers."""
    cursor: str = ""
    """Where in an answer the cursor of the next page is; nothing there, or null, on the last one."""
    parameter: str = ""
    """Of the URL: what carries the cursor, or the number of the page, which begins with 1."""
    page_size: int = 0
    """Rows of a full page, where pages are numbered."""
    requests_a_second: float = 10.0
    limits: Limits = USUAL
    """Of a page, and of the nesting of its rows."""

    def __post_init__(self) -> None:
        if self.paging != "link" and not self.parameter:
            raise ValueError(f"paging by {self.paging} needs the parameter that carries it")
        if self.paging == "cursor" and not self.cursor:
            raise ValueError("paging by cursor needs where in an answer the cursor is")
        if self.paging == "page" and self.page_size < 1:
            raise ValueError("paging by page needs the page_size, or nobody knows which page is full")

    @property
    def name(self) -> str:
        """See `landing.Feed`; without what the URL asks for, which may be a key."""
        return bare(self.url)

    def pieces(self, after: Position | None, *, live: bool = False) -> Iterator[Piece]:
        """See `landing.Feed`."""
        at = dict(after or {"page": without_parameters(self._first, self.url), "seen": 0, "rows": 0})
        with self._session() as session:
            while True:
                waiting: list[Arrived] = []
                more = True
                while more:
                    page = with_parameters(str(at["page"]), self.url)
                    rows, onwards = self._page(session, page)
                    new = rows[int(at["seen"]) :]
                    now, before = _now(), int(at["rows"])
                    waiting += [Arrived(content, self.name, before + number, now) for number, content in enumerate(new, 1)]
                    more = onwards is not None
                    at = {
                        "page": without_parameters(onwards or page, self.url),
                        "seen": 0 if more else len(rows),
                        "rows": int(at["rows"]) + len(new),
                    }
                    if waiting and (not more or len(waiting) >= AT_ONCE):
                        yield Piece(messages=waiting, position=at)
                        waiting = []
                if not live:
                    return
                yield Piece(messages=[], position={})
                time.sleep(_PAUSE_SECONDS)

    def _page(self, session: requests.Session, url: str) -> tuple[list[bytes], str | None]:
        """The rows of a page as they were written, and where the next one is."""
        begin = time.monotonic()
        try:
            answer, body = self._answer(session, url)
        except requests.HTTPError as error:
            raise FeedError(f"{self.name} answers {error.response.status_code} {error.response.reason}: {_hint(error)}") from None
        except requests.RequestException as error:
            raise FeedError(f"{self.name} does not answer ({type(error).__name__}): try again, or look whether it is up") from None
        try:
            content, rows = self._rows(body)
            onwards = self._onwards(url, answer, content, len(rows))
        except (msgspec.DecodeError, KeyError, TypeError, RecursionError) as error:
            where = f"a list at {self.items}" if self.items else "a list"
            got = body[:80].decode(errors="replace")
            raise FeedError(f"{self.name}: expected JSON with {where}, got {got!r} ({error})") from None
        time.sleep(max(0.0, begin + 1 / self.requests_a_second - time.monotonic()))
        return rows, onwards

    def _answer(self, session: requests.Session, url: str) -> tuple[requests.Response, bytes]:
        """What the server answers, and its body.

        Raises:
            FeedError: the body is longer than a page may be.
        """
        with session.get(url, timeout=_WAIT_SECONDS, stream=True) as answer:
            answer.raise_for_status()
            body = bytearray()
            for chunk in answer.iter_content(_CHUNK):
                body += chunk
                if len(body) > self.limits.page_bytes:
                    what = f"{self.name}: a page has more than {self.limits.page_bytes:,} bytes"
                    raise FeedError(f"{self.limits.exceeded(what, 'page_bytes', 0)}; or ask for smaller pages")
            return answer, bytes(body)

    def _rows(self, body: bytes) -> tuple[msgspec.Raw, list[bytes]]:
        """The answer, and its rows as they were written, also one that cannot be read: it is landed, and quarantined by cleaning.

        Of an answer that lies too deep to be taken apart, what lies above the limit.
        """
        try:
            return self._taken_apart(body)
        except RecursionError:
            body = shallow(body, self.limits.nesting + self._around)
        except msgspec.DecodeError:
            pass
        outer, set_aside = unreadable_set_aside(body, self._around)
        content, rows = self._taken_apart(outer)
        return content, [set_aside.get(row, row) for row in rows]

    def _taken_apart(self, body: bytes) -> tuple[msgspec.Raw, list[bytes]]:
        content = msgspec.json.decode(body, type=msgspec.Raw)
        return content, [bytes(row) for row in msgspec.json.decode(_inside(content, self.items), type=list[msgspec.Raw])]

    @property
    def _around(self) -> int:
        """Objects and lists around the members of a row."""
        return 2 + self.items.count(".") + bool(self.items)

    def _onwards(self, url: str, answer: requests.Response, content: msgspec.Raw, rows: int) -> str | None:
        match self.paging:
            case "link":
                following = answer.links.get("next", {}).get("url")
                return requests.compat.urljoin(url, following) if following else None
            case "cursor":
                try:
                    cursor = msgspec.json.decode(_inside(content, self.cursor))
                except KeyError:
                    return None
                return None if cursor is None or cursor == "" else with_parameter(url, self.parameter, str(cursor))
            case _:
                number = int(dict(parse_qsl(urlsplit(url).query))[self.parameter])
                return with_parameter(url, self.parameter, str(number + 1)) if rows >= self.page_size else None

    @property
    def _first(self) -> str:
        return with_parameter(self.url, self.parameter, "1") if self.paging == "page" else self.url

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.headers.update({"Accept": "application/json", **self.headers})
        retry = Retry(
            total=_ATTEMPTS,
            backoff_factor=_BACKOFF_SECONDS,
            backoff_jitter=_BACKOFF_SECONDS,
            status_forcelist=_BUSY,
            respect_retry_after_header=True,
            retry_after_max=_MOST_PATIENCE_SECONDS,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        return session


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Server-sent events. They are there only while one listens, so that they land by `ml-assets land` alone.

    After an interruption the server is told the last id that landed; what it sends again all the same, is known by its id.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of each request, such as `Authorization`; never told."""
    limits: Limits = USUAL
    """Of an event: what is longer lands cut, and cleaning quarantines it."""

    @property
    def name(self) -> str:
        """See `landing.Feed`."""
        return bare(self.url)

    def pieces(self, after: Position | None, *, live: bool = False) -> Iterator[Piece]:
        """See `landing.Feed`."""
        at = dict(after or {"id": "", "rows": 0})
        failures = 0
        while live:
            try:
                for piece in self._connected(at):
                    if piece.messages:
                        at, failures = dict(piece.position), 0
                    yield piece
            except httpx_sse.SSEError as error:
                raise FeedError(f"{self.name} sends no events: {error}") from None
            except httpx.HTTPError as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code not in _BUSY:
                    raise FeedError(f"{self.name} answers {error.response.status_code}: {_hint(error)}") from None
                failures += 1
                if failures > _ATTEMPTS:
                    raise FeedError(f"{self.name} does not answer ({type(error).__name__}): look whether it is up") from None
            yield Piece(messages=[], position={})
            time.sleep(min(_PAUSE_SECONDS, _BACKOFF_SECONDS * 2**failures))

    def _connected(self, at: Position) -> Iterator[Piece]:
        """What comes over one connection, some at a time."""
        resumed = {"Last-Event-ID": str(at["id"])} if at["id"] else {}
        waits = httpx.Timeout(_WAIT_SECONDS[1], connect=_WAIT_SECONDS[0])
        last, rows = str(at["id"]), int(at["rows"])
        with (
            httpx.Client(headers={**self.headers, **resumed}, timeout=waits, follow_redirects=True) as client,
            httpx_sse.connect_sse(client, "GET", self.url) as source,
            _Listening(source, self.limits) as heard,
        ):
            while (events := heard.some()) is not None:
                now = _now()
                messages = [
                    Arrived(content=event.data.encode(), file=self.name, row=rows + number, at=now, key=event.id or None)
                    for number, event in enumerate(events, 1)
                ]
                rows += len(events)
                last = next((event.id for event in reversed(events) if event.id), last)
                yield Piece(messages=messages, position={"id": last, "rows": rows})


class _Listening:
    """Reads a stream in a thread of its own, so that what came lands although nothing more comes."""

    def __init__(self, source: httpx_sse.EventSource, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._heard: queue.Queue[httpx_sse.ServerSentEvent] = queue.Queue(AT_ONCE)
        self._error: httpx.HTTPError | httpx_sse.SSEError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="stream", daemon=True)

    def __enter__(self) -> "_Listening":
        self._source.response.raise_for_status()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._source.response.close()

    def some(self) -> list[httpx_sse.ServerSentEvent] | None:
        """What came within a moment, None when nothing more can come.

        Raises:
            httpx.HTTPError, httpx_sse.SSEError: nothing more can come, because of this.
        """
        found: list[httpx_sse.ServerSentEvent] = []
        until = time.monotonic() + _GATHER_SECONDS
        ended = not self._thread.is_alive()
        while len(found) < AT_ONCE:
            try:
                found.append(self._heard.get(timeout=0 if ended else max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        if found or not ended:
            return found
        if self._error is not None:
            raise self._error
        return None

    def _listen(self) -> None:
        try:
            for event in events_of(self._source, self._limits):
                while not self._over.is_set():
                    try:
                        self._heard.put(event, timeout=1)
                        break
                    except queue.Full:
                        continue
        except (httpx.HTTPError, httpx_sse.SSEError) as error:
            self._error = error
        except (httpx.StreamError, OSError, ValueError):
            pass  # it was closed under its hands, which ends it


def bare(url: str) -> str:
    """Without what it asks for, and who asks."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def with_parameter(url: str, name: str, value: str) -> str:
    """The URL with this parameter, instead of the one that it has by that name."""
    parts = urlsplit(url)
    kept = [(key, given) for key, given in parse_qsl(parts.query, keep_blank_values=True) if key != name]
    return urlunsplit(parts._replace(query=urlencode([*kept, (name, value)])))


def without_parameters(url: str, of: str) -> str:
    """The URL without the parameters that another one has, since these may say who asks; a position is kept for good."""
    parts, others = urlsplit(url), parse_qsl(urlsplit(of).query, keep_blank_values=True)
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair not in others]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=urlencode(kept)))


def with_parameters(url: str, of: str) -> str:
    """The URL with the parameters that another one has and it has not; who asks is told to the same server only."""
    parts, others = urlsplit(url), urlsplit(of)
    if parts.netloc != others.netloc.rpartition("@")[2]:
        return url
    own = parse_qsl(parts.query, keep_blank_values=True)
    more = [pair for pair in parse_qsl(others.query, keep_blank_values=True) if pair[0] not in dict(own)]
    return urlunsplit(parts._replace(netloc=others.netloc, query=urlencode([*more, *own])))


def _inside(content: msgspec.Raw, path: str) -> msgspec.Raw:
    """What is in an answer at a path of names with dots."""
    for name in filter(None, path.split(".")):
        content = msgspec.json.decode(content, type=dict[str, msgspec.Raw])[name]
    return content


def _now() -> int:
    return time.time_ns() // 1000


def _hint(error: Any) -> str:
    return STATUS_HINTS.get(error.response.status_code, "try again later")
