"""How processes listen on one port, so that connections are spread over them."""

import socket
import sys
from typing import Any, cast

from uvicorn import Config


def listener(config: Config) -> socket.socket:
    """What uvicorn hands to its processes: on Linux, each of them gets a socket of its own for the port.

    On one socket for all, the process that wakes first takes all connections that come at once, and the others have nothing to do.

    Raises:
        OSError: somebody listens there already.
    """
    if sys.platform != "linux":
        return config.bind_socket()
    return cast(socket.socket, _EachItsOwn(config.host, config.port))


class _EachItsOwn:
    """Becomes a socket in each process that it is sent to; here it holds the port."""

    def __init__(self, host: str, port: int) -> None:
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(self._family) as alone:  # nobody else is there, not even another service whose processes share the port
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
            self._address = alone.getsockname()[:2]
        self._held = _shared(self._family, self._address)

    def __reduce__(self) -> Any:
        return _shared, (self._family, self._address)


def _shared(family: int, address: tuple[str, int]) -> socket.socket:
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    return made
