"""Requests a second and latency of this service, of three others, and of the bare HTTP stack: same model, same 25 features, same cores.

    python benchmarks/serving.py [--seconds 4] [--runs 3] [--folder .bench]
    python benchmarks/serving.py --stacks

The model has 300 trees; the bank 5,000 customers and 10,000 terminals, with 38 days of state in SQLite. With look-up the service is given
raw payments, each a new one: it looks up the entities, computes the features, scores, keeps facts and answer in a commit, and logs. All
others are given the features. Each server is started alone, with one worker and with two; 32 connections ask as fast as they are
answered, and then half as often at a constant rate, of which the latencies are. The load comes from one process on the same cores.
Medians of the runs.

The others live in environments of their own below `--folder`, made with the pinned requirements in `serving_peers/`. MLflow is `mlflow
models serve` of the LightGBM flavour; BentoML and LitServe call `Booster.predict` with one thread, as their guides do. What comes back
is compared with the model's own scores first. Ends with status 1 where a required ratio is missed.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import lightgbm as lgb
import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from serving_peers import bank
from serving_peers.load import Answered, load

PEERS = Path(__file__).parent / "serving_peers"
CONNECTIONS = 32
LOOK_UP, GIVEN, BARE = "ml_assets, look-up", "ml_assets, features given", "bare HTTP stack"
OTHERS = ("mlflow", "bentoml", "litserve")
out = Console(width=132)


@dataclass(frozen=True, kw_only=True)
class Server:
    """How one is started, and what it is asked."""

    name: str
    command: Callable[[int, int], Sequence[str]]
    """Port and workers to command."""
    path: str
    bodies: Callable[[], Iterator[bytes]]
    environment: Callable[[int], dict[str, str]] = lambda _workers: {}
    score: Callable[[Any], float] | None = None
    """Where in an answer the score is; None where there is none to compare."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one server with some workers: medians of the runs."""

    a_second: float
    p50: float
    p99: float


def servers(made: bank.Bank, folder: Path) -> Iterator[Server]:
    """All that are compared."""
    here = [sys.executable, str(PEERS / "ours.py")]
    inputs = ",".join(bank.NAMES)
    given = [json.dumps({"features": row}, separators=(",", ":")).encode() for row in made.rows]
    split = [
        json.dumps({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}, separators=(",", ":")).encode()
        for row in made.rows
    ]

    def ours(port: int, workers: int) -> list[str]:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        for name in ("models", "deployments", "online"):
            shutil.copytree(made.folder / name, work / name)
        return [*here, str(work), str(work / "online"), str(port), str(workers)]

    def score(answer: Any) -> float:
        found: float = answer["score"]
        return found

    def python(name: str) -> str:
        return str(environment(folder, name) / "bin" / "python")

    saved = folder / "mlflow-model"
    yield Server(name=LOOK_UP, command=ours, path="/v1/card_fraud/score", bodies=made.events)
    yield Server(name=GIVEN, command=ours, path="/v1/card_fraud/score:features", bodies=lambda: cycle(given), score=score)
    yield Server(
        name=BARE,
        command=lambda port, workers: [sys.executable, str(PEERS / "bare.py"), str(port), str(workers)],
        path="/",
        bodies=lambda: cycle(given),
    )
    if not saved.exists():
        subprocess.run([python("mlflow"), str(PEERS / "peer_mlflow.py"), str(made.model), str(saved), inputs], check=True)
    yield Server(
        name="mlflow",
        command=lambda port, workers: [
            *(python("mlflow"), "-m", "mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local"),
            *("-h", "127.0.0.1", "-p", str(port), "-w", str(workers)),
        ],
        path="/invocations",
        bodies=lambda: cycle(split),
        environment=lambda _: {"PATH": f"{environment(folder, 'mlflow') / 'bin'}:{os.environ['PATH']}"},
        score=lambda answer: float(answer["predictions"][0]),
    )
    yield Server(
        name="bentoml",
        command=lambda port, _: [
            *(str(environment(folder, "bentoml") / "bin" / "bentoml"), "serve", "peer_bentoml:Scorer"),
            *("--port", str(port), "--host", "127.0.0.1", "--working-dir", str(PEERS)),
        ],
        path="/predict",
        bodies=lambda: cycle(given),
        environment=lambda workers: {
            "MODEL": str(made.model),
            "WORKERS": str(workers),
            "INPUTS": inputs,
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": str(folder / "bentoml-home"),
        },
        score=score,
    )
    yield Server(
        name="litserve",
        command=lambda port, workers: [
            python("litserve"),
            str(PEERS / "peer_litserve.py"),
            str(made.model),
            str(port),
            str(workers),
            inputs,
        ],
        path="/predict",
        bodies=lambda: cycle(given),
        score=score,
    )


def stacks(made: bank.Bank, folder: Path) -> Iterator[Server]:
    """The same small job on other HTTP stacks, one worker."""
    inputs = ",".join(bank.NAMES)
    given = [json.dumps({"features": row}, separators=(",", ":")).encode() for row in made.rows]
    python = str(environment(folder, "stacks") / "bin" / "python")
    names = (PEERS / "stacks.py").read_text().split("STACKS = {")[1].split("}")[0]
    for name in (line.split('"')[1] for line in names.strip().splitlines()):
        yield Server(
            name=name,
            command=lambda port, _, name=name: [python, str(PEERS / "stacks.py"), name, str(made.model), str(port), inputs],
            path="/",
            bodies=lambda: cycle(given),
            score=lambda answer: float(answer["score"]),
        )


def environment(folder: Path, name: str) -> Path:
    """The virtual environment with the pinned requirements of a peer, made once."""
    place = folder / "environments" / name
    if not (place / "made").exists():
        out.print(f"installing {name} into {place}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        wanted = ["-r", str(PEERS / f"requirements-{name}.txt")]
        uv = Path(sys.executable).with_name("uv")
        pip = [str(uv), "pip", "install", "-q", "--python", str(place / "bin" / "python")]
        pip = pip if uv.exists() else [str(place / "bin" / "pip"), "install", "-q"]
        subprocess.run([*pip, *wanted], check=True)
        (place / "made").touch()
    return place


def measured(server: Server, workers: int, *, made: bank.Bank, seconds: float, runs: int, log: Path) -> Figures:
    """Starts it, compares some scores, warms up, and measures.

    Raises:
        RuntimeError: it does not start, or an answer is not 200.
        ValueError: a score is not the model's.
    """
    port = free_port()
    # One thread for each prediction, as everywhere here: waking others costs more than a row.
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **server.environment(workers)}
    command = server.command(port, workers)
    with log.open("ab") as written:
        process = subprocess.Popen(command, env=settings, stdout=written, stderr=written, start_new_session=True)
    try:
        wait_for(server, port, process, log)
        if server.score:
            compare(server, port, made)
        requests = (request(server.path, body) for body in server.bodies())
        address = ("127.0.0.1", port)
        load(address, requests, connections=CONNECTIONS, seconds=seconds / 2, rate=None)
        full: list[Answered] = []
        half: list[Answered] = []
        for _ in range(runs):
            full.append(load(address, requests, connections=CONNECTIONS, seconds=seconds, rate=None))
            half.append(load(address, requests, connections=CONNECTIONS, seconds=seconds, rate=full[-1].a_second / 2))
        if errors := [each.errors for each in (*full, *half) if each.errors]:
            raise RuntimeError(f"{server.name}: answers other than 200: {errors}")
        return Figures(
            a_second=statistics.median(each.a_second for each in full),
            p50=statistics.median(each.milliseconds(0.50) for each in half),
            p99=statistics.median(each.milliseconds(0.99) for each in half),
        )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(server: Server, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it has answered twenty requests in a row with 200: of several workers some start later."""
    until, answered = time.monotonic() + 120, 0
    bodies = server.bodies()
    while answered < 20:
        try:
            ask(server, port, next(bodies))
            answered += 1
        except OSError:
            answered = 0
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{server.name} does not answer; {log} says more") from None
            time.sleep(0.1)


def compare(server: Server, port: int, made: bank.Bank) -> None:
    booster = lgb.Booster(model_file=str(made.model))
    bodies = server.bodies()
    for row in made.rows[:20]:
        values = [np.nan if row[name] is None else row[name] for name in bank.NAMES]
        expected = float(np.asarray(booster.predict(np.array([values])))[0])
        assert server.score is not None
        got = server.score(ask(server, port, next(bodies)))
        if not np.isclose(got, expected, rtol=1e-6):
            raise ValueError(f"{server.name} scores {got} instead of {expected}")


def ask(server: Server, port: int, body: bytes) -> Any:
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{server.path}", data=body, headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as response:
        return json.loads(response.read())


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def verdicts(found: dict[tuple[str, int], Figures]) -> Iterator[tuple[str, float, float, bool]]:
    """What is required: its name, what was found, the bound, and whether it holds."""
    for workers in (1, 2):
        best = max(found[name, workers].a_second for name in OTHERS)
        look_up, given, bare = (found[name, workers] for name in (LOOK_UP, GIVEN, BARE))
        many = f"{workers} worker{'s' if workers > 1 else ''}"
        for what, value, least in (
            (f"features given / best of the others, {many}", given.a_second / best, 12.0),
            (f"look-up / best of the others, {many}", look_up.a_second / best, 4.0),
            (f"features given / bare stack, {many}", given.a_second / bare.a_second, 0.5),
        ):
            yield what, value, least, value >= least
        yield f"p99 of look-up at half load, ms, {many}", look_up.p99, 5.0, look_up.p99 < 5.0


def main(
    seconds: Annotated[float, typer.Option(help="Of each run.")] = 4.0,
    runs: int = 3,
    folder: Annotated[Path, typer.Option(help="Where environments and data are kept.")] = Path(".bench"),
    other_stacks: Annotated[bool, typer.Option("--stacks", help="Other HTTP stacks instead.")] = False,
    only: Annotated[str, typer.Option(help="Names of servers, separated by commas: a part of the table.")] = "",
) -> None:
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    made = bank.Bank(folder=folder / "bank")
    if not (made.folder / "payments.json").exists():
        shutil.rmtree(made.folder, ignore_errors=True)
        made.folder.mkdir()
        bank.make(made.folder)
    table = Table("server", "workers", "requests/s", "p50 ms at half load", "p99 ms at half load")
    found: dict[tuple[str, int], Figures] = {}
    for server in (stacks if other_stacks else servers)(made, folder):
        if only and server.name not in only.split(","):
            continue
        for workers in (1,) if other_stacks else (1, 2):
            figures = measured(server, workers, made=made, seconds=seconds, runs=runs, log=folder / "servers.log")
            found[server.name, workers] = figures
            table.add_row(server.name, str(workers), f"{figures.a_second:,.0f}", f"{figures.p50:.2f}", f"{figures.p99:.2f}")
            out.print(f"{server.name}, {workers}: {figures.a_second:,.0f}/s", style="dim")
    out.print(table)
    if other_stacks or only:
        return
    missed = False
    for what, value, bound, holds in verdicts(found):
        missed |= not holds
        out.print(f"{'✓' if holds else '✗'} {what}: {value:.3g} (required {'<' if 'p99' in what else '≥'} {bound:g})")
    if missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
