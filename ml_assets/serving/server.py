"""The processes of the service: what each opens and closes, and how they are started."""

import asyncio
import contextlib
import gc
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from ml_assets.serving.listening import listener, require_free
from ml_assets.serving.metrics_folder import FOLDER

SETTINGS = "ML_ASSETS_SERVE"
"""How the processes are told what to serve."""
LOOK_EVERY_SECONDS = 1.0
MOST_FILES = 65_536
_COUNTS = "ml-assets-metrics-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What is served, from where, to how many."""

    cases: tuple[str, ...]
    root: str
    store: str
    local: str = ""
    """Folder of what belongs to this machine, by default the root."""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    requests_a_second: float | None = None
    """Of one API key, over all workers."""

    @property
    def keys(self) -> Path:
        """The file of API keys."""
        return Path(self.local or self.root) / "serving" / "keys.json"


def serve(settings: Settings) -> None:
    """Serves until it is told to stop.

    Raises:
        ValueError: it would let everybody in from other machines, or somebody else listens there.
    """
    from ml_assets.serving.keeper import keeping
    from ml_assets.serving.keys import list_keys

    if settings.host not in ("127.0.0.1", "::1", "localhost") and not list_keys(settings.keys):
        raise ValueError(
            f"--host {settings.host} can be reached from other machines, and there is no API key: "
            f"ml-assets keys create NAME --scope score"
        )
    require_free(settings.host, settings.port)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(MOST_FILES, hard) if hard > 0 else MOST_FILES, hard))
    # uvicorn raises the signal that stopped it once more: by then everything is closed, and the exit code is 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _counting_in_a_folder(), keeping(settings.cases, settings.store, _LOGGING):
        os.environ[SETTINGS] = json.dumps(asdict(settings))
        config = uvicorn.Config(
            "ml_assets.serving.server:application",
            factory=True,
            http="ml_assets.serving.http:Connection",
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            access_log=False,
            proxy_headers=False,
            log_config=_LOGGING,
            timeout_graceful_shutdown=10,
            timeout_keep_alive=75,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=64_000,
            backlog=4096,
        )
        with contextlib.suppress(KeyboardInterrupt):
            if settings.workers > 1:
                with contextlib.closing(listener(config)) as listening:
                    Multiprocess(config, sockets=[listening]).run()
            else:
                server = uvicorn.Server(config)
                server.run()
                if not server.started:
                    sys.exit(STARTUP_FAILURE)


@contextmanager
def _counting_in_a_folder() -> Iterator[None]:
    """Where the processes count for Prometheus, gone when all have ended; what services left that were killed goes before."""
    for left in Path(tempfile.gettempdir()).glob(f"{_COUNTS}*-*"):
        number = left.name.removeprefix(_COUNTS).split("-")[0]
        if number.isdigit() and not _is_alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{_COUNTS}{os.getpid()}-")
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def application() -> Any:
    """The application of one process, as the settings in the environment describe it."""
    content = json.loads(os.environ[SETTINGS])
    return build(Settings(**{**content, "cases": tuple(content["cases"])}))


def build(settings: Settings) -> Any:
    """The application of one process. Its parts are imported here: prometheus_client asks for its folder when it is imported."""
    from ml_assets.folders import folder_at
    from ml_assets.serving.app import App, keep_up
    from ml_assets.serving.keys import KeyRing
    from ml_assets.serving.live import InForce
    from ml_assets.serving.scorer import Scorer
    from ml_assets.settings import settings as known_settings
    from ml_assets.storage.models import ModelStore
    from ml_assets.storage.online import open_store
    from ml_assets.storage.predictions import LogWriter, PredictionLog
    from ml_assets.use_cases import find

    told = known_settings()
    root, local = folder_at(settings.root, Path(), told), Path(settings.local or settings.root)
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    scorers = {}
    for case in (find(each, told) for each in settings.cases):
        scorers[case.name] = Scorer(
            case=case,
            store=open_store(settings.store, case.name),
            in_force=InForce(case=case, models=ModelStore(root=root)),
            writer=LogWriter(log=PredictionLog(root=root, case=case.name), name=name, local=local),
        )
    tasks: list[asyncio.Task[None]] = []

    async def started() -> None:
        for scorer in scorers.values():
            scorer.start()
        _leave_alone_what_stays()
        tasks.append(asyncio.create_task(keep_up(list(scorers.values()), every=LOOK_EVERY_SECONDS)))

    async def stopped() -> None:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for scorer in scorers.values():
            scorer.stop()

    share = settings.requests_a_second and settings.requests_a_second / settings.workers
    return App(scorers=scorers, keys=KeyRing(file=settings.keys, requests_a_second=share), started=started, stopped=stopped)


def _leave_alone_what_stays() -> None:
    """Modules and models are no garbage: to look through them takes 50 ms each time. What requests leave is looked through often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000, 50, 1000)


_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("uvicorn", "ml_assets")},
}
