"""Load over HTTP/1.1: as many requests as connections take, or so many a second whatever the answers take.

Plain sockets in one process, requests made before they are sent. An answer counts when its status is 200; whatever else happens is an
error. With a rate, a request is due at its time, waits for a free connection if there is none, and its latency counts from when it was due:
a server that stalls cannot slow down what is asked of it.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What came back within the time."""

    requests: int
    errors: dict[str, int]
    seconds: float
    latencies: list[float]  # seconds, ascending

    @property
    def a_second(self) -> float:
        return self.requests / self.seconds

    def milliseconds(self, share: float) -> float:
        """The quantile of the latencies."""
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


@dataclass(slots=True)
class Connection:
    """One request at a time."""

    socket: socket.socket
    due: float = 0.0
    received: bytes = b""
    _lengths: dict[bytes, int] = field(default_factory=dict)

    def send(self, request: bytes, due: float) -> None:
        self.due, self.received = due, b""
        self.socket.sendall(request)

    def read(self) -> str | None:
        """What the answer is, "200" or an error; None while it is not whole."""
        data = self.socket.recv(65_536)
        if not data:
            return "closed"
        self.received = data = self.received + data if self.received else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        head = data[:end]
        length = self._lengths.get(head)
        if length is None:
            length = self._lengths[head] = _length(head)
        if len(data) < end + length:
            return None
        return "200" if head.startswith(b"HTTP/1.1 200") else head[9:12].decode()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise ValueError(f"an answer without a length: {head!r}")


def load(address: tuple[str, int], requests: Iterator[bytes], *, connections: int, seconds: float, rate: float | None) -> Answered:
    """Asks for some seconds, and waits for what was asked then."""
    clock = time.perf_counter
    all = [Connection(socket.create_connection(address)) for _ in range(connections)]
    for each in all:
        each.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    busy: dict[socket.socket, Connection] = {}
    free = deque(all)
    latencies: list[float] = []
    errors: dict[str, int] = {}
    interval = 1 / rate if rate else 0.0
    begin = clock()
    due, end, now = begin, begin + seconds, begin
    while due < end or busy:
        if now > end + PATIENCE_SECONDS:
            errors["no answer"] = len(busy)
            break
        while free and due <= now and due < end:
            connection = free.popleft()
            connection.send(next(requests), due)
            busy[connection.socket] = connection
            due = due + interval if rate else now
        wait = max(0.0, due - now) if rate and free and due < end else PATIENCE_SECONDS
        ready = select.select(list(busy), (), (), wait)[0]
        now = clock()
        if not rate:
            due = now
        for readable in ready:
            connection = busy[readable]
            if (answer := connection.read()) is None:
                continue
            del busy[readable]
            if answer == "200":
                latencies.append(now - connection.due)
            else:
                errors[answer] = errors.get(answer, 0) + 1
            if answer == "closed":
                connection.socket.close()
                connection = Connection(socket.create_connection(address))
            free.append(connection)
    taken = clock() - begin
    for each in all:
        each.socket.close()
    return Answered(requests=len(latencies), errors=errors, seconds=taken, latencies=sorted(latencies))
