"""Requests a second and latency of this service, of three others, and of the bare HTTP stack: same model, same 25 features, same cores.

    python benchmarks/serving.py [--seconds 4] [--rounds 3] [--folder .bench]
    python benchmarks/serving.py --stacks

The model has 300 trees; the bank 5,000 customers and 10,000 terminals, with 38 days of state in SQLite. With look-up the service is given
raw payments, each a new one: it looks up the entities, computes the features, scores, keeps facts and answer in a commit, and logs. All
others are given the features. In each round every server is started anew and alone, with one worker and with two; 32 connections ask as
fast as they are answered, and then half as often at a constant rate, of which the latencies are. The load comes from one process on the
same cores, so that two workers do not have two. Medians of the rounds. A run is repeated when other programs took a tenth of a core.

The others live in environments of their own below `--folder`, made with the requirements in `serving_peers/`, and are written as their
guides have it; of the ways that these show, the one that is fastest here (ADR 11). What comes back is compared with the model's own scores
first. Ends with status 1 where a required ratio is missed.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import lightgbm as lgb
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from serving_peers import bank
from serving_peers.load import load
from serving_peers.quiet import quietly
from serving_peers.servers import BARE, BENTOML, GIVEN, LITSERVE, LOOK_UP, MLFLOW, Server, servers, stacks

CONNECTIONS = 32
COMPARED = 20
WORKERS = (1, 2)
MOST_MILLISECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Of one server in one round."""

    a_second: float
    processor: float  # microseconds of processor time a request, of all processes of the server
    p50: float  # milliseconds at half load
    p99: float
    elsewhere: float  # cores that other programs took


@contextmanager
def started(server: Server, workers: int, log: Path) -> Iterator[tuple[int, int]]:
    """The port of a server that answers, and its process.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    # One thread for each prediction, as everywhere here: waking others costs more than a row.
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **server.environment}
    with log.open("ab") as written:
        process = subprocess.Popen(
            server.command(port, workers), env=settings, stdout=written, stderr=written, start_new_session=True
        )
    try:
        _wait_for(server, port, process, log)
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(server: Server, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it has answered twenty requests in a row: of several workers some start later."""
    until, answered = time.monotonic() + 120, 0
    bodies = server.bodies()
    while answered < 20:
        try:
            _ask(server, port, next(bodies))
            answered += 1
        except OSError:
            answered = 0
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no answer from {server.path} of process {process.pid}; {log} says more") from None
            time.sleep(0.1)


def _ask(server: Server, port: int, body: bytes) -> Any:
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{server.path}", data=body, headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as response:
        return json.loads(response.read())


def compare(server: Server, port: int, made: bank.Bank) -> None:
    """The first scores are the model's own.

    Raises:
        ValueError: one is not.
    """
    if server.score is None:
        return
    rows = np.array([[row[name] for name in bank.NAMES] for row in made.rows[:COMPARED]], dtype=np.float64)
    expected = lgb.Booster(model_file=str(made.model)).predict(rows)
    got = [server.score(_ask(server, port, body)) for body, _ in zip(server.bodies(), rows, strict=False)]
    if not np.allclose(got, expected, rtol=1e-6, atol=0):
        raise ValueError(f"scores {got} instead of {expected}")


def measured(server: Server, workers: int, *, made: bank.Bank, seconds: float, patience: float, log: Path) -> Run:
    """Starts it, compares, warms up, and measures.

    Raises:
        RuntimeError: it does not start, or an answer is not 200.
        ValueError: a score is not the model's.
    """
    with started(server, workers, log) as (port, process):
        compare(server, port, made)
        requests = (_request(server.path, body) for body in server.bodies())
        asked = partial(load, ("127.0.0.1", port), requests, connections=CONNECTIONS)
        asked(seconds=seconds / 2, rate=None)
        full, cost = quietly(lambda: asked(seconds=seconds, rate=None), process, patience=patience)
        half, other = quietly(lambda: asked(seconds=seconds, rate=full.a_second / 2), process, patience=patience)
    if full.errors or half.errors:
        raise RuntimeError(f"answers other than 200: {full.errors | half.errors}")
    return Run(
        a_second=full.a_second,
        processor=1e6 * cost.server / full.requests,
        p50=half.milliseconds(0.50),
        p99=half.milliseconds(0.99),
        elsewhere=max(cost.elsewhere / cost.seconds, other.elsewhere / other.seconds),
    )


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


Runs = Mapping[tuple[str, int], Sequence[Run]]


def median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    return statistics.median(map(of, runs))


def show(out: Console, found: Runs) -> None:
    table = Table()
    for heading in ("server", "workers", "requests/s", "from", "to", "processor µs", "p50 ms", "p99 ms", "elsewhere"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    for (name, workers), runs in found.items():
        rates = [run.a_second for run in runs]
        table.add_row(
            name,
            str(workers),
            *(f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))),
            f"{median(runs, lambda run: run.processor):,.0f}",
            f"{median(runs, lambda run: run.p50):.2f}",
            f"{median(runs, lambda run: run.p99):.2f}",
            f"{max(run.elsewhere for run in runs):.2f}",
        )
    out.print(table)
    out.print(
        "processor µs: of all processes of the server, for a request. p50, p99: at half load. elsewhere: cores of other programs."
    )


def verdicts(found: Runs) -> Iterator[tuple[str, bool]]:
    """What was found of what is required, and whether it holds."""
    for workers in WORKERS:
        rate = {name: median(runs, lambda run: run.a_second) for (name, many), runs in found.items() if many == workers}
        best = max((MLFLOW, BENTOML, LITSERVE), key=lambda name: rate[name])
        many = f"{workers} worker{'s' if workers > 1 else ''}"
        for ours, other, least in ((GIVEN, best, 12.0), (LOOK_UP, best, 4.0), (GIVEN, BARE, 0.5)):
            ratio = rate[ours] / rate[other]
            yield f"{many}: {ours}, over {other}: {ratio:.2f}, required at least {least:g}", ratio >= least
        p99 = median(found[LOOK_UP, workers], lambda run: run.p99)
        yield (
            f"{many}: {LOOK_UP}, p99 at half load: {p99:.2f} ms, required less than {MOST_MILLISECONDS:g}",
            p99 < MOST_MILLISECONDS,
        )


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each run.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="In each of them, every server is started once.")] = 3,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to wait before each run for other programs to rest.")] = 30.0,
    folder: Annotated[Path, typer.Option(help="Where environments and data are kept.")] = Path(".bench"),
    other_stacks: Annotated[bool, typer.Option("--stacks", help="The same small job on other HTTP stacks instead.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A server of the table, by name; several times for several.")] = None,
) -> None:
    """Start, compare, ask, tabulate."""
    out = Console(width=132)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    made = bank.Bank(folder=folder / "bank")
    if not made.complete:
        shutil.rmtree(made.folder, ignore_errors=True)
        bank.make(made.folder)
    compared = (stacks if other_stacks else servers)(made, folder)
    if unknown := set(only or ()) - set(compared):
        raise typer.BadParameter(
            f"no server is called {', '.join(sorted(unknown))}; there are: {'; '.join(compared)}", param_hint="--only"
        )
    asked = [(name, workers) for name in only or compared for workers in ((1,) if other_stacks else WORKERS)]
    found: dict[tuple[str, int], list[Run]] = {each: [] for each in asked}
    for number in range(1, rounds + 1):
        for name, workers in asked:
            run = measured(compared[name], workers, made=made, seconds=seconds, patience=patience, log=folder / "servers.log")
            found[name, workers].append(run)
            out.print(f"{number}/{rounds} {name}, {workers}: {run.a_second:,.0f}/s", style="dim")
    show(out, found)
    if other_stacks or only:
        return
    missed = False
    for what, holds in verdicts(found):
        missed |= not holds
        out.print(f"{'✓' if holds else '✗'} {what}", style="" if holds else "red")
    raise typer.Exit(int(missed))


if __name__ == "__main__":
    typer.run(main)
