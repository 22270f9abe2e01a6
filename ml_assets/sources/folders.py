"""Where files lie: a folder of the file system, or the objects below a prefix of a bucket in S3 or Google Cloud Storage.

Belongs here: which files match a pattern, what tells one version of a file from another, and its bytes. Does not: what is in them
(`sources.mapped`).
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import obstore
from fsspec.utils import glob_translate
from obstore.exceptions import BaseError
from obstore.store import GCSStore, ObjectStore, S3Store

from ml_assets.sources.files import STATUS_HINTS

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig

Stamp = tuple[object, ...]
"""What changes with a file's content."""
SCHEMES = ("s3", "gs")
_READ_AHEAD = 2**20
_RETRY: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
_GENERIC = re.compile(r"Generic \w+ error: ")


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Objects below a prefix. The ETag names their version: an object that is replaced has another one."""

    url: str
    store: ObjectStore = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def find(self, pattern: str) -> list[Found]:
        """See `Folder`; always a complete listing, so that an object that came late or was replaced is found."""
        fits = re.compile(glob_translate(pattern)).match
        start = pattern[: re.search(r"[*?\[]|$", pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]  # $ is always there
        with self._plain_errors():
            pages = obstore.list(self.store, start or None)
            listed = [each for page in pages for each in page if fits(each["path"])]
        return sorted((Found(name=each["path"], stamp=_stamp(each)) for each in listed), key=lambda found: found.name)

    def stamp(self, name: str) -> Stamp:
        """See `Folder`."""
        with self._plain_errors():
            return _stamp(obstore.head(self.store, name))

    def version(self, found: Found) -> str:
        """See `Folder`."""
        return str(found.stamp[0])

    def open(self, name: str) -> BinaryIO:
        """See `Folder`."""
        with self._plain_errors():
            reader = obstore.open_reader(self.store, name, buffer_size=_READ_AHEAD)
        return cast("BinaryIO", io.BufferedReader(_Object(self, reader), _READ_AHEAD))

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise OSError(f"{self.url}: {_told(error)}") from None


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
        with self._bucket._plain_errors():
            content = memoryview(self._reader.read(len(buffer)))
        buffer[: len(content)] = content
        return len(content)


def folder_at(address: str, beside: Path, settings: Mapping[str, str]) -> Folder:
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
    store = _s3(bucket, prefix, settings) if scheme == "s3" else _gcs(bucket, prefix, settings)
    return Bucket(url=f"{scheme}://{bucket}/{prefix}".rstrip("/"), store=store)


def _s3(bucket: str, prefix: str, settings: Mapping[str, str]) -> S3Store:
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
    unsigned = settings.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
    return S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=endpoint,
        region=session.region_name or "us-east-1",
        skip_signature=unsigned,
        credential_provider=None if unsigned else Boto3CredentialProvider(session),
        client_options=_client(endpoint),
        retry_config=_RETRY,
    )


def _gcs(bucket: str, prefix: str, settings: Mapping[str, str]) -> GCSStore:
    emulator, key = settings.get("STORAGE_EMULATOR_HOST"), settings.get("GOOGLE_APPLICATION_CREDENTIALS")
    account: GCSConfig = {"service_account": key} if key else {}
    if emulator:
        nobody = {"gcs_base_url": emulator, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        account = {"service_account_key": json.dumps(nobody)}
    return GCSStore(bucket, prefix=prefix or None, config=account, client_options=_client(emulator), retry_config=_RETRY)


def _client(endpoint: str | None) -> "ClientConfig":
    return {"timeout": "20s", "connect_timeout": "5s", "allow_http": bool(endpoint and endpoint.startswith("http://"))}


def _stamp(meta: "obstore.ObjectMeta") -> Stamp:
    # Google's generation is not in a listing, the ETag is in everything that both stores say.
    return (meta["e_tag"] or "").strip('"') or str(meta["last_modified"]), meta["size"]


@lru_cache(maxsize=10_000)
def _hash(path: Path, _: Stamp) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _told(error: Exception) -> str:
    """What the store says, in one line, without the URL that it was asked for, which may be signed."""
    first = str(error).strip().split("\n")[0]
    if status := re.search(r"status code: (\d+ [A-Z][\w ]*)", first):
        return f"the store answers {status[1]}: {STATUS_HINTS.get(int(status[1][:3]), 'try again')}"
    return re.sub(r"\bhttps?://\S+ in \S+, |^Error performing \w+ request: |^Error performing \w+ ", "", _GENERIC.sub("", first))[
        :300
    ]
