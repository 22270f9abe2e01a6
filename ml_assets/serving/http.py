"""Requests and answers over ASGI: heads and bodies with a limit and a deadline, JSON, errors in one form.

Plain ASGI, since a framework costs as much time as a score (docs/adr/0011-how-scores-are-served.md).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ml_assets.stages.intake import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST_BYTES = 1_000_000
MOST_BYTES_OF_HEAD = 65_536
MOST_BYTES_REFUSED = 100_000_000
"""So much of a body that is too large is taken in and forgotten."""
MOST_SECONDS = 10.0
"""For the head of a request, and again for its body."""
MOST_PROBLEMS = 1000
MOST_DIGITS = 20
JSON = b"application/json"
_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class HttpError(Exception):
    """An answer other than 200."""

    def __init__(
        self, status: int, code: str, message: str, *, problems: Sequence[Problem] = (), headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.problems, self.headers = status, code, problems, headers


@dataclass(slots=True)
class Response:
    """What is sent back."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()


def error_response(error: HttpError) -> Response:
    """`{"error": {"code": …, "message": …, "problems": [{"field": …, "value": …, "rule": …}]}}`, with 422 the only one to have problems."""
    content: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.problems:
        told = error.problems[:MOST_PROBLEMS]
        content["problems"] = [{"field": _short(each.field), "value": _short(each.value), "rule": each.rule} for each in told]
    return Response(encode({"error": content}), status=error.status, headers=error.headers)


def invalid(problems: Sequence[Problem]) -> HttpError:
    """The answer to a request that breaks rules."""
    more = f", of which these are the first {MOST_PROBLEMS:,}" if len(problems) > MOST_PROBLEMS else ""
    rules = f"{len(problems):,} rules{more}" if len(problems) > 1 else "a rule"
    return HttpError(422, "invalid", f"the request breaks {rules}: problems says which", problems=problems)


_READING: dict[asyncio.Task[Any] | None, float] = {}
"""Since when whose body is awaited. A timer for each would cost more than to read most of them."""
_LATE: set[asyncio.Task[Any] | None] = set()


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        HttpError: it is too large, too slow, or broke off.
    """
    task = asyncio.current_task()
    _READING[task] = time.monotonic()
    try:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            announced = header(scope, b"content-length")
            if announced.isdigit() and int(announced) > MOST_BYTES:
                raise _too_large()
            body = await _rest(body, receive)
        elif message["type"] == "http.disconnect":
            raise HttpError(400, "broken_off", "the body broke off")
        elif not body and header(scope, b"upgrade"):
            raise HttpError(400, "no_upgrade", "HTTP/1.1 is all there is: without Upgrade, the body would have been read")
    except asyncio.CancelledError:
        if task is None or task not in _LATE:
            raise
        task.uncancel()
        message_text = f"the body did not come within {MOST_SECONDS:g} s"
        raise HttpError(408, "too_slow", message_text, headers=[(b"connection", b"close")]) from None
    finally:
        del _READING[task]
        _LATE.discard(task)
    if len(body) > MOST_BYTES:
        raise _too_large()
    return body


async def _rest(begun: bytes, receive: Receive) -> bytes:
    parts, size, more = [begun], len(begun), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "broken_off", "the body broke off")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            raise _too_large()
        more = message.get("more_body", False)
    return b"".join(parts)


def cancel_late_bodies() -> None:
    """To be called now and then: who has waited for a body for too long is told so."""
    due = time.monotonic() - MOST_SECONDS
    for task, since in _READING.items():
        if since < due and task is not None:
            _LATE.add(task)
            task.cancel()


def json_of(body: bytes) -> Any:
    """What a body says.

    Raises:
        HttpError: it is not JSON in UTF-8.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "not_json", f"the body is not JSON in UTF-8: {error}") from None


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header, b"" where it is not sent."""
    for given, value in scope["headers"]:
        if given == name:
            return bytes(value)
    return b""


def query(scope: Scope, known: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The parameters behind the question mark, by name; the first of their values is the default.

    Raises:
        HttpError: one is unknown, comes twice, or has another value.
    """
    found = {name: values[0] for name, values in known.items()}
    if not scope["query_string"]:
        return found
    given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    problems = []
    for place, (name, value) in enumerate(given):
        if name not in known:
            problems.append(Problem(field=name, value=value, rule=f"is no parameter; there are {', '.join(known) or 'none'}"))
        elif value not in known[name]:
            problems.append(Problem(field=name, value=value, rule=f"is not one of {', '.join(known[name])}"))
        elif any(other == name for other, _ in given[:place]):
            problems.append(Problem(field=name, value=value, rule="is given twice"))
        found[name] = value
    if problems:
        raise invalid(problems)
    return found


async def respond(send: Send, response: Response) -> None:
    """Sends an answer."""
    length = str(len(response.body)).encode()
    headers = [(b"content-type", response.content_type), (b"content-length", length), *response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def refuse_upload(receive: Receive, send: Send, response: Response) -> None:
    """Sends an answer, and takes in what the client still sends: on a connection that is closed at once it would not see the answer."""
    length = str(len(response.body)).encode()
    headers = [(b"content-type", response.content_type), (b"content-length", length), *response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    left = MOST_BYTES_REFUSED
    with suppress(TimeoutError):
        async with asyncio.timeout(MOST_SECONDS):
            while left > 0 and (message := await receive()).get("more_body"):
                left -= len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b""})


Answer = Callable[[Response], None]
Direct = Callable[[Sequence[tuple[bytes, bytes]], bytes, Answer], None]
"""Answers a request of which headers and body are there, at once or later, once."""


class _Exchange:
    """A request that is answered without ASGI, in the place that uvicorn has for one of its own: a third of what it costs otherwise."""

    disconnected = waiting_for_100_continue = response_complete = False
    more_body = keep_alive = True
    body = b""
    _asked = False

    def __init__(self, connection: "Connection", direct: Direct, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._connection, self._direct, self._headers = connection, direct, headers

    @property
    def message_event(self) -> "_Exchange":
        """What uvicorn tells its news. Not an attribute: an object that has itself is left to the garbage collector."""
        return self

    def set(self) -> None:
        """Uvicorn has news: more of the body, its end, or that of the connection, which comes after the answer, too."""
        if self.more_body:
            self._connection.flow.resume_reading()  # uvicorn pauses it, for those who take a body in parts
        elif not self._asked and not self.disconnected:
            self._asked = True
            self._direct(self._headers, self.body, self._answer)

    def _answer(self, response: Response) -> None:
        self.response_complete = True
        if not self.disconnected:
            self._connection.write(response, close=not self.keep_alive)


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it, which alone would wait for the head of a request for ever, and take in one of any length.

    A request that is answered before its body has come has as much time for the rest of it as a head has. What the application has in
    `direct`, by path, is answered by that, if it comes in the form in which clients send it; every other request by ASGI.
    """

    _in_head = False
    _bytes_of_head = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection on which nothing comes is as idle as one on which nothing comes any more."""
        super().connection_made(transport)
        self._directs: Mapping[bytes, Direct] = getattr(self.app, "direct", {})
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        direct = self._directs.get(self.url)
        if direct is not None and (self.cycle is None or self.cycle.response_complete) and self._as_clients_send_it():
            self.cycle = cast(RequestResponseCycle, _Exchange(self, direct, self.headers))
        else:
            super().on_headers_complete()

    def _as_clients_send_it(self) -> bool:
        """By POST, on a connection that stays, with a body of a length that may be, and without any agreement on how."""
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        length = b""
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name in (b"transfer-encoding", b"expect", b"upgrade"):
                return False
        return length.isdigit() and 0 < int(length) <= MOST_BYTES

    def write(self, response: Response, *, close: bool) -> None:
        """Sends the answer to a request that is whole."""
        if self.transport.is_closing():
            return
        self.transport.write(_written(response, close=close))
        if close:
            self.transport.close()
        self.on_response_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        is_asked = self.cycle is not None and not self.cycle.response_complete and not self._lacks_body
        if self.transport.is_closing() or is_asked or self._is_idle:
            self._stop_waiting()
            return
        self._bytes_of_head += len(data)
        if self._in_head and self._bytes_of_head > MOST_BYTES_OF_HEAD:
            self._refuse(431, "too_large", f"the head of a request has at most {MOST_BYTES_OF_HEAD:,} bytes")
        else:
            self._wait()

    @property
    def _is_idle(self) -> bool:
        """Whether all that came is answered, and nothing of the next has come."""
        return self.timeout_keep_alive_task is not None and not self._in_head

    @property
    def _lacks_body(self) -> bool:
        """Whether nobody but this connection waits for the rest of a body."""
        cycle: Any = self.cycle
        return isinstance(cycle, _Exchange) and cycle.more_body

    def on_response_complete(self) -> None:
        """Deadline and size of a head end with the request: the next one has its own."""
        super().on_response_complete()
        self._stop_waiting()
        if self._in_head and not self.transport.is_closing():  # a part of the next one came with the last
            self._wait()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (logged already)
        """What is not HTTP. A whole request before it gets its answer first: it counts."""
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        else:
            self._refuse(400, "not_http", "this is no request in HTTP/1.1, or its body is not as long as it says")

    def timeout_keep_alive_handler(self) -> None:
        """A client that has not taken its answer by now will not."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(MOST_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        self._bytes_of_head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._in_head or self._lacks_body:
            what = "head of the request" if self._in_head else "body"
            self._refuse(408, "too_slow", f"the {what} did not come within {MOST_SECONDS:g} s")
        self.transport.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.transport.write(_written(error_response(HttpError(status, code, message)), close=True))
        self.transport.close()


def _written(response: Response, *, close: bool) -> bytes:
    """An answer as it goes over the wire."""
    head = _HEADS.get(response.status) or f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n".encode()
    headers = b"".join(b"%s: %s\r\n" % header for header in response.headers)
    closing = b"connection: close\r\n" if close else b""
    length = len(response.body)
    return b"%scontent-type: %s\r\ncontent-length: %d\r\n%s%s\r\n%s" % (
        head,
        response.content_type,
        length,
        headers,
        closing,
        response.body,
    )


_HEADS = {200: b"HTTP/1.1 200 OK\r\n"}


def _too_large() -> HttpError:
    return HttpError(413, "too_large", f"a body has at most {MOST_BYTES:,} bytes", headers=[(b"connection", b"close")])


def _short(value: Any) -> Any:
    """A value as it came, cut where it is long or deep."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**MOST_DIGITS:
        value = str(value)
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:199] + "…"
    if isinstance(value, list | dict):
        return "(a list)" if isinstance(value, list) else "(an object)"
    return value
