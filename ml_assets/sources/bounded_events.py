"""Server-sent events of bounded length: one that never ends is cut, and those behind it come.

Belongs here: where an event ends, and what is left of one that is too long. Does not: what becomes of events (`sources.http`).
"""

import re
from collections.abc import Iterable, Iterator

import httpx
import httpx_sse

from ml_assets.sources.limits import Limits

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)?")


def events_of(source: httpx_sse.EventSource, limits: Limits) -> Iterator[httpx_sse.ServerSentEvent]:
    """The events, of which none has more than `limits.event_bytes` characters by much: what would be longer is no JSON any more.

    Raises:
        httpx.HTTPError, httpx_sse.SSEError: the stream breaks, or is none.
    """
    return httpx_sse.EventSource(_Bounded(source.response, limits)).iter_sse()  # type: ignore[arg-type]


class _Bounded:
    """What of a response `EventSource` reads."""

    def __init__(self, response: httpx.Response, limits: Limits) -> None:
        self.headers = response.headers
        self._response, self._limits = response, limits

    def iter_text(self) -> Iterator[str]:
        limit = self._limits.event_bytes
        end = f"\ndata: … {self._limits.exceeded(f'an event has more than {limit:,} bytes', 'event_bytes', 0)}\n\n"
        length, begins = 0, True
        for line in _lines(self._response.iter_text()):
            ends_event = begins and not line.strip("\r\n")
            before, length = length, 0 if ends_event else length + len(line)
            begins = line.endswith(("\r", "\n"))
            if before > limit:
                continue  # until the event ends, which was said already
            yield line if length <= limit else line[: limit - before] + end


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines with their ends, long ones in parts; none is cut between the two characters of an end."""
    left = ""
    for text in texts:
        whole = left + text
        left = "\r" if whole.endswith("\r") else ""
        yield from (part for part in _LINE.findall(whole.removesuffix(left) if left else whole) if part)
    if left:
        yield left
