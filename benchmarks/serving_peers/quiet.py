"""Whether the machine is doing anything else, and what a server costs it, from `/proc`: Linux only, elsewhere nothing is known.

A figure taken while other programs wanted the same cores says little, so such runs are repeated.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
MOST_ELSEWHERE = 0.1
"""Of a core, taken by other programs during a run that counts."""
AGAIN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Seconds of processor time during a run, by who took them; 0 where nothing is known."""

    seconds: float
    server: float
    elsewhere: float

    @property
    def disturbed(self) -> bool:
        return self.elsewhere > MOST_ELSEWHERE * self.seconds


def quietly(run: Callable[[], Found], process: int, *, patience: float) -> tuple[Found, Cost]:
    """A run with what it cost, while nobody else works; of several disturbed ones the one that was disturbed least.

    Args:
        process: of the server; what it has started counts as well.
        patience: seconds to wait for others before each run.
    """
    found: tuple[Found, Cost] | None = None
    for _ in range(AGAIN):
        _wait(patience)
        begin, server, all, own = time.monotonic(), _of_server(process), _of_all(), _own()
        done = run()
        seconds, server, own = time.monotonic() - begin, _of_server(process) - server, _own() - own
        cost = Cost(seconds=seconds, server=server, elsewhere=max(0.0, _of_all() - all - server - own))
        if found is None or cost.elsewhere < found[1].elsewhere:
            found = done, cost
        if not found[1].disturbed:
            break
    assert found is not None
    return found


def _wait(patience: float) -> None:
    until, quiet = time.monotonic() + patience, 0
    while quiet < 2 and time.monotonic() < until:
        begin, all, own = time.monotonic(), _of_all(), _own()
        time.sleep(0.5)
        quiet = quiet + 1 if _of_all() - all - (_own() - own) <= MOST_ELSEWHERE * (time.monotonic() - begin) else 0


def _own() -> float:
    times = os.times()
    return times.user + times.system


def _of_all() -> float:
    """Of the whole machine: everything but idle and waiting for disks."""
    if not (PROC / "stat").exists():
        return 0.0
    user, nice, system, _idle, _waiting, *others = map(int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(others)) / TICKS


def _of_server(process: int) -> float:
    """Of a process and everything that it started."""
    parents, ticks = {}, {}
    for place in PROC.glob("[0-9]*/stat"):
        try:
            parts = place.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        parents[int(place.parent.name)], ticks[int(place.parent.name)] = int(parts[1]), int(parts[11]) + int(parts[12])
    ours = {process}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(ticks.get(each, 0) for each in ours) / TICKS
