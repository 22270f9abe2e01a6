"""Requests and answers over ASGI: bodies with a limit and a deadline, JSON, errors in one form.

Plain ASGI, since a framework costs as much time as a score (docs/adr/0011-how-scores-are-served.md).
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST_BYTES = 1_000_000
MOST_SECONDS = 10.0
JSON = b"application/json"
_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class HttpError(Exception):
    """An answer other than 200."""

    def __init__(
        self, status: int, code: str, message: str, *, problems: Sequence[Any] = (), headers: Sequence[tuple[bytes, bytes]] = ()
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
    """`{"error": {"code": …, "message": …, "problems": [{"field": …, "value": …, "rule": …}]}}`."""
    problems = [{"field": each.field, "value": _short(each.value), "rule": each.rule} for each in error.problems]
    content: dict[str, Any] = {"code": error.code, "message": str(error)} | ({"problems": problems} if problems else {})
    return Response(encode({"error": content}), status=error.status, headers=error.headers)


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        HttpError: it is too large, too slow, or broke off.
    """
    announced = header(scope, b"content-length")
    if announced and (not announced.isdigit() or int(announced) > MOST_BYTES):
        raise _too_large()
    try:
        async with asyncio.timeout(MOST_SECONDS):
            message = await receive()
            if not message.get("more_body"):
                body: bytes = message.get("body", b"")
                if len(body) > MOST_BYTES:
                    raise _too_large()
                return body
            parts = [message.get("body", b"")]
            size = len(parts[0])
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HttpError(400, "broken_off", "the body broke off")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BYTES:
                    raise _too_large()
            return b"".join(parts)
    except TimeoutError:
        message_text = f"the body did not come within {MOST_SECONDS:g} s"
        raise HttpError(408, "too_slow", message_text, headers=[(b"connection", b"close")]) from None


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
    given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True) if scope["query_string"] else []
    for name, value in given:
        if name not in known:
            raise HttpError(422, "invalid", f"no parameter {name!r}; there are {', '.join(known) or 'none'}")
        if value not in known[name] or sum(other == name for other, _ in given) > 1:
            raise HttpError(422, "invalid", f"parameter {name} is one of {', '.join(known[name])}, once; got {value!r}")
        found[name] = value
    return found


async def respond(send: Send, response: Response) -> None:
    """Sends an answer."""
    length = str(len(response.body)).encode()
    headers = [(b"content-type", response.content_type), (b"content-length", length), *response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def _too_large() -> HttpError:
    return HttpError(413, "too_large", f"a body has at most {MOST_BYTES:,} bytes", headers=[(b"connection", b"close")])


def _short(value: Any) -> Any:
    """A value as it came, cut where it is long or deep."""
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:199] + "…"
    return value if value is None or isinstance(value, bool | int | float) else f"({type(value).__name__})"
