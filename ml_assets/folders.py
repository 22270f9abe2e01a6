"""Where files lie: a folder of the file system, or the objects below a prefix of a bucket in S3 or Google Cloud Storage.

Belongs here: which files match a pattern, what tells one version of a file from another, its bytes, and files that appear whole or not at
all. Does not: what is in them (`sources.mapped`, `storage`).

On a file system everything is written beside its place, under a name that starts with a dot, and renamed. Readers skip names with a dot, so
that a process killed in between leaves the old state whole, and a dead file that nobody reads. In a bucket an object is whole by itself.
"""

import fcntl
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast
from uuid import uuid4

import obstore
from fsspec.utils import glob_translate
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import GCSStore, ObjectStore, S3Store

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ClientConfig, GCSConfig, RetryConfig
    from pyarrow.fs import FileSystem

Stamp = tuple[int, object, *tuple[object, ...]]
"""The size of a file and what else changes with its content."""
SCHEMES = ("s3", "gs")
STATUS_HINTS = {401: "check the credentials", 403: "check the credentials, and what they may do", 404: "nothing is there"}
"""What to do about an answer over HTTP."""
_READ_AHEAD = 2**20
_MOST_KNOWN = 2_000
_CHANGES = 100
"""So many others may change a file first."""
_RETRY: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
_PATIENCE = {"max_retries": "5", "retry_timeout": "30s", "timeout": "20s", "connect_timeout": "5s"}
"""The same for delta-rs."""
_SETTINGS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_SKIP_SIGNATURE",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
"""What changes how a bucket is reached."""
_MARKS = re.compile(r"\x1b\[[0-9;]*m|↳|^Kernel error -> |(?<=\n) +")
"""What delta-rs paints around its words."""
_GENERIC = re.compile(r"Generic \w+ error: ")


class BucketError(OSError):
    """A bucket cannot be read or written; the message names it, and says why in one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A file, as it was when it was looked for."""

    name: str
    """Below the folder, with slashes."""
    stamp: Stamp


class Folder(Protocol):
    """Files below a place; its text is that place. All errors are `OSError`s."""

    def __hash__(self) -> int: ...

    def find(self, pattern: str) -> list[Found]:
        """Files whose name matches a glob, by name: all of them, however many there are."""

    def stamp(self, name: str) -> Stamp:
        """Of a file as it is now."""

    def version(self, found: Found) -> str:
        """What names the content of a file: its hash, or what the store names it by."""

    def open(self, name: str) -> BinaryIO:
        """Its bytes, from anywhere in it."""

    def get(self, name: str) -> bytes | None:
        """All its bytes; None when there is no such file."""

    def read(self, found: Found) -> bytes | None:
        """As `get`, of a file that is written once or seldom: a bucket is asked once for each version of it."""

    def put(self, name: str, content: bytes) -> None:
        """Writes or replaces a file, whole."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file that is not there yet; whether it was not. Of several that try, one does."""

    def change(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Replaces what a file holds by what `change` makes of it (None: no file), which is called again when another was faster."""

    def remove(self, name: str) -> None:
        """A file that is not there is removed already."""

    def place(self, name: str = "") -> str:
        """The path or URL of a file, for people."""

    def delta(self, name: str) -> dict[str, Any]:
        """Where a Delta table is, as arguments of `deltalake.DeltaTable`."""

    def arrow(self, name: str) -> "FileSystem | None":
        """What reads the files of a Delta table for Arrow; None: what deltalake has for it.

        That is in Python, and its files are closed by threads of Arrow, some of them after a read has returned: a process that ends then is
        aborted ("terminate called without an active exception", delta-io/delta-rs#2184), 2 of 40 times where nothing follows a read.
        """

    def plain_errors(self) -> AbstractContextManager[None]:
        """What a store says when it refuses, in one line: a `BucketError`. For what reads it by other means."""


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder of the file system."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def find(self, pattern: str) -> list[Found]:
        """See `Folder`."""
        files = [path for path in self.path.glob(pattern) if path.is_file()]
        names = sorted(path.relative_to(self.path).as_posix() for path in files)
        return [Found(name=name, stamp=self.stamp(name)) for name in names]

    def stamp(self, name: str) -> Stamp:
        """Size and times. The last is of the inode: a copy that keeps the times of its original changes it."""
        status = (self.path / name).stat()
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def version(self, found: Found) -> str:
        """The first 16 hexadecimal digits of its SHA-256; a file is read for it once."""
        return _hash(self.path / found.name, found.stamp)

    def open(self, name: str) -> BinaryIO:
        """See `Folder`."""
        return (self.path / name).open("rb")

    def get(self, name: str) -> bytes | None:
        """See `Folder`."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, found: Found) -> bytes | None:
        """See `Folder`."""
        return self.get(found.name)

    def put(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        self._beside(name, content).replace(self.path / name)

    def create(self, name: str, content: bytes) -> bool:
        """See `Folder`."""
        beside = self._beside(name, content)
        try:
            (self.path / name).hardlink_to(beside)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
        return True

    def change(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """See `Folder`. Processes wait for each other at a lock beside the file."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with (place.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            changed = change(self.get(name))
            if changed is None:
                self.remove(name)
            else:
                self.put(name, changed)

    def remove(self, name: str) -> None:
        """See `Folder`."""
        (self.path / name).unlink(missing_ok=True)

    def place(self, name: str = "") -> str:
        """See `Folder`."""
        return str(self.path / name)

    def delta(self, name: str) -> dict[str, Any]:
        """See `Folder`."""
        return {"table_uri": str(self.path / name)}

    def arrow(self, name: str) -> "FileSystem | None":
        """See `Folder`."""
        from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

        return SubTreeFileSystem(str((self.path / name).absolute()), LocalFileSystem())

    def plain_errors(self) -> AbstractContextManager[None]:
        """See `Folder`: those of a file system are plain."""
        return nullcontext()

    def _beside(self, name: str, content: bytes) -> Path:
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{uuid4().hex}")
        beside.write_bytes(content)
        return beside


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Objects below a prefix. The ETag names their version: an object that is replaced has another one."""

    url: str
    store: ObjectStore = field(compare=False, repr=False)
    options: Callable[[], dict[str, str]] = field(compare=False, repr=False)
    """What delta-rs must be told to get there, with credentials that hold now."""
    known: dict[Found, bytes] = field(compare=False, repr=False, default_factory=dict)
    """Content that was read of small files, by their version."""

    def __str__(self) -> str:
        return self.url

    def find(self, pattern: str) -> list[Found]:
        """See `Folder`; always a complete listing, so that an object that came late or was replaced is found."""
        fits = re.compile(glob_translate(pattern)).match
        start = pattern[: re.search(r"[*?\[]|$", pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]  # $ is always there
        with self.plain_errors():
            pages = obstore.list(self.store, start or None)
            listed = [each for page in pages for each in page if fits(each["path"])]
        return sorted((Found(name=each["path"], stamp=_stamp(each)) for each in listed), key=lambda found: found.name)

    def stamp(self, name: str) -> Stamp:
        """See `Folder`."""
        with self.plain_errors():
            return _stamp(obstore.head(self.store, name))

    def version(self, found: Found) -> str:
        """See `Folder`."""
        return str(found.stamp[1])

    def open(self, name: str) -> BinaryIO:
        """See `Folder`."""
        with self.plain_errors():
            reader = obstore.open_reader(self.store, name, buffer_size=_READ_AHEAD)
        return cast("BinaryIO", io.BufferedReader(_Object(self, reader), _READ_AHEAD))

    def get(self, name: str) -> bytes | None:
        """See `Folder`."""
        return self._get(name)[0]

    def read(self, found: Found) -> bytes | None:
        """See `Folder`."""
        if (known := self.known.get(found)) is None and (known := self.get(found.name)) is not None:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[found] = known
        return known

    def put(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        with self.plain_errors():
            obstore.put(self.store, name, content)

    def create(self, name: str, content: bytes) -> bool:
        """See `Folder`."""
        # A request whose answer was lost is sent again, and finds what it wrote itself.
        return self._put_if(name, content, "create") or self.get(name) == content

    def change(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """See `Folder`. The store takes the new content only while it holds the one that was changed.

        A bucket does not delete on a condition: what is empty stands for what is not there.
        """
        for _ in range(_CHANGES):
            before, mode = self._get(name)
            if self._put_if(name, change(before or None) or b"", mode):
                return
        raise BucketError(f"{self.place(name)}: others changed it first {_CHANGES} times")

    def remove(self, name: str) -> None:
        """See `Folder`."""
        with self.plain_errors(), suppress(FileNotFoundError):
            obstore.delete(self.store, name)

    def place(self, name: str = "") -> str:
        """See `Folder`."""
        return f"{self.url}/{name}" if name else self.url

    def delta(self, name: str) -> dict[str, Any]:
        """See `Folder`."""
        return {"table_uri": self.place(name), "storage_options": self.options()}

    def arrow(self, name: str) -> "FileSystem | None":  # noqa: ARG002  # of a `Folder`
        """See `Folder`."""
        return None

    def _get(self, name: str) -> tuple[bytes | None, "PutMode"]:
        """The content, and what tells the store to replace exactly that."""
        with self.plain_errors():
            try:
                found = obstore.get(self.store, name)
                content = bytes(found.bytes())
            except FileNotFoundError:
                return None, "create"
        named = {key: value for key in ("e_tag", "version") if (value := found.meta.get(key)) is not None}
        return content, cast("PutMode", named)

    def _put_if(self, name: str, content: bytes, mode: "PutMode") -> bool:
        with self.plain_errors():
            try:
                obstore.put(self.store, name, content, mode=mode)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    @contextmanager
    def plain_errors(self) -> Iterator[None]:
        """See `Folder`."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise BucketError(f"{self.url}: {_told(error)}") from None


class _Object(io.RawIOBase):
    """An object as Python reads files."""

    def __init__(self, bucket: Bucket, reader: "obstore.ReadableFile") -> None:
        self._bucket, self._reader = bucket, reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what RawIOBase calls it
        with self._bucket.plain_errors():
            content = memoryview(self._reader.read(len(buffer)))
        buffer[: len(content)] = content
        return len(content)


def folder_at(address: str, beside: Path, settings: Mapping[str, str]) -> "LocalFolder | Bucket":
    """The place that an address names: `s3://bucket/prefix`, `gs://bucket/prefix`, or a path, which may be relative.

    Args:
        beside: what a relative path is relative to.
        settings: credentials and endpoints under the names that the AWS and Google libraries use themselves.

    Raises:
        ValueError: the address names no bucket, or no store of this kind.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return LocalFolder(beside / address)
    bucket, _, prefix = rest.partition("/")
    if scheme not in SCHEMES or not bucket:
        raise ValueError(f"{address!r}, expected a path, or {' or '.join(f'{each}://bucket/prefix' for each in SCHEMES)}")
    prefix = str(PurePosixPath(prefix)) if prefix.strip("/") else ""
    return _bucket(scheme, bucket, prefix, tuple((name, settings[name]) for name in _SETTINGS if settings.get(name)))


@lru_cache(maxsize=100)
def _bucket(scheme: str, bucket: str, prefix: str, said: tuple[tuple[str, str], ...]) -> Bucket:
    store, options = (_s3 if scheme == "s3" else _gcs)(bucket, prefix, dict(said))
    return Bucket(url=f"{scheme}://{bucket}/{prefix}".rstrip("/"), store=store, options=options)


def _s3(bucket: str, prefix: str, settings: Mapping[str, str]) -> tuple[S3Store, Callable[[], dict[str, str]]]:
    import boto3  # takes a quarter of a second
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session(
        aws_access_key_id=settings.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=settings.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=settings.get("AWS_SESSION_TOKEN"),
        region_name=settings.get("AWS_REGION") or settings.get("AWS_DEFAULT_REGION"),
        profile_name=settings.get("AWS_PROFILE"),
    )
    endpoint = settings.get("AWS_ENDPOINT_URL_S3") or settings.get("AWS_ENDPOINT_URL")
    region = session.region_name or "us-east-1"
    unsigned = settings.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
    store = S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=endpoint,
        region=region,
        skip_signature=unsigned,
        credential_provider=None if unsigned else Boto3CredentialProvider(session),
        client_options=_client(endpoint),
        retry_config=_RETRY,
    )

    def options() -> dict[str, str]:
        held = None if unsigned else session.get_credentials()
        keys = held.get_frozen_credentials() if held else None
        said = {
            "aws_region": region,
            "aws_endpoint": endpoint,
            "aws_skip_signature": str(unsigned).lower(),
            "aws_access_key_id": keys and keys.access_key,
            "aws_secret_access_key": keys and keys.secret_key,
            "aws_session_token": keys and keys.token,
            "allow_http": _allowed_http(endpoint),
        }
        return _PATIENCE | {name: value for name, value in said.items() if value}

    return store, options


def _gcs(bucket: str, prefix: str, settings: Mapping[str, str]) -> tuple[GCSStore, Callable[[], dict[str, str]]]:
    emulator, key = settings.get("STORAGE_EMULATOR_HOST"), settings.get("GOOGLE_APPLICATION_CREDENTIALS")
    account: GCSConfig = {"service_account": key} if key else {}
    if emulator:
        nobody = {"gcs_base_url": emulator, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        account = {"service_account_key": json.dumps(nobody)}
    store = GCSStore(bucket, prefix=prefix or None, config=account, client_options=_client(emulator), retry_config=_RETRY)
    told = {f"google_{name}": str(value) for name, value in account.items()}
    return store, lambda: {**_PATIENCE, **told, "allow_http": _allowed_http(emulator)}


def _client(endpoint: str | None) -> "ClientConfig":
    return {"timeout": "20s", "connect_timeout": "5s", "allow_http": _allowed_http(endpoint) == "true"}


def _allowed_http(endpoint: str | None) -> str:
    return str(bool(endpoint and endpoint.startswith("http://"))).lower()


def _stamp(meta: "obstore.ObjectMeta") -> Stamp:
    # Google's generation is not in a listing, the ETag is in everything that both stores say.
    return meta["size"], (meta["e_tag"] or "").strip('"') or str(meta["last_modified"])


@lru_cache(maxsize=10_000)
def _hash(path: Path, _: Stamp) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _told(error: Exception) -> str:
    """What the store says, in one line, without the URL that it was asked for, which may be signed."""
    said = str(error).strip()
    lines = _MARKS.sub("", said)
    # obstore says where in its code below the first line, delta-rs why.
    first = " ".join(lines.split()) if "↳" in said else lines.split("\n")[0]
    if status := re.search(r"status code:? *\n? *(\d{3} [A-Z][\w ]*)", lines):
        return f"the store answers {status[1]}: {STATUS_HINTS.get(int(status[1][:3]), 'try again')}"
    return re.sub(r"\bhttps?://\S+ in \S+, |^Error performing \w+ request: |^Error performing \w+ ", "", _GENERIC.sub("", first))[
        :300
    ]
