"""Requests that are answered without ASGI: which, in which order, and that nothing else changes for the client."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import uvicorn

from ml_assets.serving.http import MOST_BYTES, MOST_BYTES_OF_HEAD, Answer, HttpError, Receive, Response, Scope, Send, error_response
from ml_assets_tests.serving.conftest import free_port


class Both:
    """Says by which way it was asked. What is asked of /later is answered when /now is asked."""

    def __init__(self) -> None:
        self.direct = {b"/now": self.now, b"/later": self.later, b"/wrong": self.wrong}
        self._waiting: list[Answer] = []
        self.asked: list[bytes] = []

    def now(self, _headers: Sequence[tuple[bytes, bytes]], body: bytes, answer: Answer) -> None:
        self.asked.append(body)
        answer(Response(b"direct " + body))
        while self._waiting:
            self._waiting.pop()(Response(b"late"))

    def later(self, _headers: Sequence[tuple[bytes, bytes]], _body: bytes, answer: Answer) -> None:
        self._waiting.append(answer)

    def wrong(self, _headers: Sequence[tuple[bytes, bytes]], _body: bytes, answer: Answer) -> None:
        answer(error_response(HttpError(429, "too_many_requests", "later", headers=[(b"retry-after", b"7")])))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": f"{message['type']}.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = b"asgi " + body
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture(scope="module")
def both() -> Both:
    return Both()


@pytest.fixture(scope="module")
def port(both: Both) -> Iterator[int]:
    config = uvicorn.Config(
        both, http="ml_assets.serving.http:Connection", port=free_port(), proxy_headers=False, log_level="warning", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    yield config.port
    server.should_exit = True
    thread.join()


def request(path: str = "/now", body: bytes = b"x", *, head: str = "", method: str = "POST", version: str = "1.1") -> bytes:
    length = "" if "Transfer-Encoding" in head else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n{head}{length}\r\n".encode() + body


def said(port: int, *parts: bytes, count: int, pause: float = 0.0) -> list[bytes]:
    """The bodies of so many answers on one connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause)
        answers = client.makefile("rb")
        return [_next(answers)[1] for _ in range(count)]


def _next(answers: Any) -> tuple[bytes, bytes]:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = answers.readline()
        assert line, f"the connection was closed after {head!r}"
        head += line
        if head == b"HTTP/1.1 100 Continue\r\n\r\n":
            head = b""
    [length] = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head, answers.read(length)


@pytest.mark.parametrize(
    ("sent", "way"),
    [
        (request(), b"direct x"),
        (request(head="Connection: keep-alive\r\n"), b"direct x"),
        (request(body=b"y" * MOST_BYTES), b"direct " + b"y" * MOST_BYTES),
        (request(path="/now?x=1"), b"asgi x"),
        (request(path="/other"), b"asgi x"),
        (request(method="PUT"), b"asgi x"),
        (request(body=b""), b"asgi "),
        (request(version="1.0", head="Connection: keep-alive\r\n"), b"asgi x"),
        (request(head="Connection: close\r\n"), b"asgi x"),
        (request(head="Expect: 100-continue\r\n"), b"asgi x"),
        (request(body=b"1\r\nx\r\n0\r\n\r\n", head="Transfer-Encoding: chunked\r\n"), b"asgi x"),
        (request(body=b"z" * (MOST_BYTES + 1)), b"asgi " + b"z" * (MOST_BYTES + 1)),
    ],
    ids=["plain", "kept", "long", "query", "path", "method", "empty", "1.0", "close", "expect", "chunked", "too long"],
)
def test_what_comes_as_clients_send_it_is_answered_directly(port: int, sent: bytes, way: bytes) -> None:
    assert said(port, sent, count=1) == [way]
    third = len(sent) // 3
    assert said(port, sent[:third], sent[third : 2 * third], sent[2 * third :], count=1, pause=0.02) == [way]


def test_answers_come_in_the_order_of_the_requests(port: int) -> None:
    kinds = [request(body=b"%d" % number, path=("/now", "/other")[number % 3 == 1]) for number in range(9)]
    expected = [b"%s %d" % ((b"direct", b"asgi")[number % 3 == 1], number) for number in range(9)]
    for parts in ([b"".join(kinds)], kinds, [b"".join(kinds)[start : start + 7] for start in range(0, 900, 7)]):
        found = said(port, *parts, count=9)
        # Behind one that waits for ASGI, also those are answered by it that would not be.
        assert [each.split()[1] for each in found] == [each.split()[1] for each in expected]
    assert said(port, *kinds, count=9, pause=0.02) == expected


def test_a_request_is_asked_once_however_its_connection_ends(port: int, both: Both) -> None:
    """Uvicorn tells of the end of a connection as it tells of that of a body: what was answered 503 would be scored after all."""
    before = len(both.asked)
    assert said(port, request(body=b"once"), count=1) == [b"direct once"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request(body=b"unread"))
    assert said(port, request(body=b"end"), count=1) == [b"direct end"]
    time.sleep(0.2)  # the ends of the connections are seen
    assert sorted(both.asked[before:]) == [b"end", b"once", b"unread"]


def test_a_connection_in_use_is_not_closed(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is one of each request, and so is the limit of its head: both begin anew after an answer that is there at once."""
    many = [request(body=b"y" * 1000)] * (MOST_BYTES_OF_HEAD // 1000 + 1)
    assert said(port, *many, request()[:20], request()[20:], count=len(many) + 1, pause=0.005)[-1] == b"direct x"
    monkeypatch.setattr("ml_assets.serving.http.MOST_SECONDS", 0.5)
    assert said(port, *[request()] * 15, count=15, pause=0.1) == [b"direct x"] * 15
    assert said(port, *[request()] * 2, count=2, pause=1.0) == [b"direct x"] * 2


def test_a_connection_on_which_always_some_of_the_next_request_has_come_is_not_closed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, count = request(body=b"y" * 3000), 30
    starts = range(20, len(one) * count, len(one))
    parts = [one[:20], *((one * count)[start : start + len(one)] for start in starts)]
    assert len(one) * count > MOST_BYTES_OF_HEAD
    monkeypatch.setattr("ml_assets.serving.http.MOST_SECONDS", 1.5)
    assert said(port, *parts, count=count, pause=0.1) == [b"direct " + b"y" * 3000] * count


def test_one_that_is_answered_later_holds_up_its_connection_alone(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request("/later") + request(body=b"behind"))
        time.sleep(0.05)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(10)
        assert said(port, request(), count=1) == [b"direct x"]
        answers = client.makefile("rb")
        assert _next(answers)[1] == b"late"
        assert _next(answers)[1] in (b"direct behind", b"asgi behind")


def test_one_whose_client_has_gone_is_answered_to_nobody(port: int) -> None:
    for part in (request("/later"), request("/later")[:-1], request()[:-1]):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(part)
            time.sleep(0.05)
    assert said(port, request(), request(), count=2) == [b"direct x"] * 2


def test_errors_have_their_headers(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request("/wrong"))
        head, body = _next(client.makefile("rb"))
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nretry-after: 7\r\n" in head
    assert b'"too_many_requests"' in body
