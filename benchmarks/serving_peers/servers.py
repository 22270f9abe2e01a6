"""What is compared: how each server is started, what it is asked, and where in its answer the score is."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from serving_peers.bank import NAMES, Bank

HERE = Path(__file__).parent
LOOK_UP, GIVEN, BARE = "ml_assets, look-up", "ml_assets, features given", "bare HTTP stack"
MLFLOW, BENTOML, LITSERVE = "mlflow", "bentoml", "litserve"
STACKS = {
    "FastAPI, uvicorn": "fastapi",
    "Starlette, msgspec, uvicorn": "starlette",
    "Litestar, msgspec, uvicorn": "litestar",
    "Litestar, msgspec, granian": "litestar_granian",
    "robyn, msgspec": "robyn",
    "plain ASGI, msgspec, granian": "plain_granian",
    "plain ASGI, msgspec, uvicorn": "plain",
}
"""How they are called, and as what `stacks.py` knows them."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that listens on a port of this machine, and the requests for it."""

    command: Callable[[int, int], Sequence[str]]
    """Of a port and a number of workers."""
    path: str
    bodies: Callable[[], Iterator[bytes]]
    environment: Mapping[str, str] = field(default_factory=dict)
    score: Callable[[Any], float] | None = None
    """Where in an answer the score of one of the bank's rows is; None where there is none to compare."""


def servers(bank: Bank, folder: Path) -> dict[str, Server]:
    """This service, the others and the bare stack, by name."""
    by_name = _bodies([{"features": row} for row in bank.rows])
    in_order = [[row[name] for name in NAMES] for row in bank.rows]
    mlflow, bentoml, litserve = (environment(folder, name) / "bin" for name in (MLFLOW, BENTOML, LITSERVE))
    saved = folder / "mlflow-model"
    shutil.rmtree(saved, ignore_errors=True)
    subprocess.run([mlflow / "python", HERE / "peer_mlflow.py", bank.model, saved], check=True, stderr=subprocess.DEVNULL)
    ours = partial(_ours, bank, folder / "work")
    return {
        LOOK_UP: Server(command=ours, path="/v1/card_fraud/score", bodies=bank.events),
        GIVEN: Server(command=ours, path="/v1/card_fraud/score:features", bodies=by_name, score=lambda answer: answer["score"]),
        BARE: Server(command=partial(_python, Path(sys.executable), "bare.py"), path="/", bodies=by_name),
        MLFLOW: Server(
            command=lambda port, workers: [
                *(f"{mlflow}/mlflow", "models", "serve", "--model-uri", f"{saved}", "--env-manager", "local"),
                *("--host", "127.0.0.1", "--port", f"{port}", "--workers", f"{workers}"),
            ],
            path="/invocations",
            bodies=_bodies([{"inputs": [values]} for values in in_order]),
            environment={"PATH": f"{mlflow}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"},
            score=lambda answer: answer["predictions"][0],
        ),
        BENTOML: Server(
            command=lambda port, workers: [
                *("/usr/bin/env", f"WORKERS={workers}", f"{bentoml}/bentoml", "serve", "peer_bentoml:Scorer"),
                *("--working-dir", f"{HERE}", "--host", "127.0.0.1", "--port", f"{port}"),
            ],
            path="/predict",
            bodies=_bodies([{"rows": [values]} for values in in_order]),
            environment={
                "MODEL": f"{bank.model}",
                "PATH": f"{bentoml}:{os.environ['PATH']}",
                "BENTOML_DO_NOT_TRACK": "true",
                "BENTOML_HOME": f"{folder / 'bentoml-home'}",
            },
            score=lambda answer: answer[0],
        ),
        LITSERVE: Server(
            command=partial(_python, litserve / "python", "peer_litserve.py", f"{bank.model}"),
            path="/predict",
            bodies=_bodies([{"row": values} for values in in_order]),
            score=lambda answer: answer["score"],
        ),
    }


def stacks(bank: Bank, folder: Path) -> dict[str, Server]:
    """Other HTTP stacks that do what this service does with features given."""
    python = environment(folder, "stacks") / "bin" / "python"
    return {
        name: Server(
            command=partial(_python, python, "stacks.py", known_as, f"{bank.model}"),
            path="/",
            bodies=_bodies([{"features": row} for row in bank.rows]),
            score=lambda answer: answer["score"],
        )
        for name, known_as in STACKS.items()
    }


def environment(folder: Path, name: str) -> Path:
    """The virtual environment with the pinned requirements of a peer, made once for each content of them."""
    place, wanted = folder / "environments" / name, HERE / f"requirements-{name}.txt"
    made = place / "requirements.txt"
    if not made.exists() or made.read_text() != wanted.read_text():
        print(f"installing {name} into {place}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        uv = Path(sys.executable).with_name("uv")
        pip = [uv, "pip", "install", "--python", place / "bin" / "python"] if uv.exists() else [place / "bin" / "pip", "install"]
        subprocess.run([*pip, "-q", "-r", wanted], check=True)
        shutil.copyfile(wanted, made)
    return place


def _ours(bank: Bank, work: Path, port: int, workers: int) -> list[str]:
    """On a copy of the state: what was scored before would be known."""
    shutil.rmtree(work, ignore_errors=True)
    for name in ("models", "deployments", "online"):
        shutil.copytree(bank.folder / name, work / name)
    return _python(Path(sys.executable), "ours.py", f"{work}", f"{work / 'online'}", port, workers)


def _python(python: Path, script: str, *arguments: str | int) -> list[str]:
    return [f"{python}", f"{HERE / script}", *map(str, arguments)]


def _bodies(contents: Sequence[Any]) -> Callable[[], Iterator[bytes]]:
    encoded = [json.dumps(content, separators=(",", ":")).encode() for content in contents]
    return lambda: cycle(encoded)
