"""How processes listen on one port, so that connections are spread over them."""

import socket
import sys
from typing import Any, cast

from uvicorn import Config


def require_free(host: str, port: int) -> None:
    """Nobody listens there, not even another service whose processes share the port.

    Raises:
        ValueError: somebody does, or nobody may.
    """
    try:
        with socket.socket(_family(host)) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
    except OSError as error:
        raise ValueError(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port or --host") from error


def listener(config: Config) -> socket.socket:
    """What uvicorn hands to its processes: on Linux, each of them gets a socket of its own for the port.

    On one socket for all, the process that wakes first takes all connections that come at once, and the others have nothing to do.
    """
    if sys.platform != "linux":
        return config.bind_socket()
    return cast(socket.socket, _EachItsOwn(config.host, config.port))


class _EachItsOwn:
    """Becomes a socket in each process that it is sent to; here it holds the port."""

    def __init__(self, host: str, port: int) -> None:
        self._held = _shared(_family(host), (host, port))

    def close(self) -> None:
        self._held.close()

    def __reduce__(self) -> Any:
        return _shared, (self._held.family, self._held.getsockname()[:2])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _shared(family: int, address: tuple[str, int]) -> socket.socket:
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made
