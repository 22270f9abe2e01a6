"""Servers of HTTP for tests: pages and events, with the faults that real ones have."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(kw_only=True)
class Api:
    """Rows, in pages by link, cursor or number, and as events; what it was asked is kept."""

    rows: list[Any] = field(default_factory=list)
    page_size: int = 100
    token: str = "right"
    busy: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers to the next requests, instead of pages: a status and headers."""
    delay: float = 0.0
    breaks_after: int = 0
    """Events after which a connection breaks; 0 for never."""
    forgets: bool = False
    """Whether events begin anew whatever id was heard last."""
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: "_Handler") -> None:
        parts = urlsplit(handler.path)
        self.asked.append(handler.path)
        time.sleep(self.delay)
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            handler.respond(401, b"{}")
        elif self.busy:
            status, headers = self.busy.pop(0)
            handler.respond(status, b"{}", headers)
        elif parts.path == "/events":
            self._events(handler)
        elif parts.path == "/broken":
            handler.respond(200, b"<html>down for maintenance</html>")
        else:
            self._page(handler, parts.path, parse_qs(parts.query))

    def _page(self, handler: "_Handler", path: str, query: dict[str, list[str]]) -> None:
        number = int(query.get("page", query.get("cursor", ["1"]))[0])
        some = self.rows[(number - 1) * self.page_size : number * self.page_size]
        more = len(self.rows) > number * self.page_size
        texts = [row if isinstance(row, str) else json.dumps(row) for row in some]
        listed = f"[{','.join(texts)}]"
        headers = {}
        if path == "/linked":
            headers = {"Link": f'</linked?page={number + 1}>; rel="next"'} if more else {}
        elif path == "/cursors":
            listed = f'{{"data": {{"items": {listed}}}, "next": {json.dumps(str(number + 1) if more else None)}}}'
        handler.respond(200, listed.encode(), headers)

    def _events(self, handler: "_Handler") -> None:
        last = handler.headers.get("Last-Event-ID", "0")
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        sent = 0 if self.forgets else int(last)
        begin = sent
        while not handler.server.over.is_set():  # type: ignore[attr-defined]
            while sent < len(self.rows):
                row = self.rows[sent]
                text = row if isinstance(row, str) else json.dumps(row)
                sent += 1
                handler.wfile.write(f"id: {sent}\ndata: {text}\n\n".encode())
                if self.breaks_after and sent - begin >= self.breaks_after:
                    return
            handler.wfile.write(b": nothing new\n\n")
            time.sleep(0.05)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = urlsplit(self.path).path == "/events"
        try:
            self.server.api.answer(self)  # type: ignore[attr-defined]
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def respond(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def running_api(api: Api, *, port: int = 0) -> Iterator[Api]:
    """The server, on a port of its own unless one is named."""
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    server.api, server.over = api, threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()
