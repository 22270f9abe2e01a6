"""API keys: who may ask for what. Only their hashes are kept, so that a key is seen once, when it is made.

A key is 32 random bytes; nobody can guess one, and a slow hash, as passwords need it, would add nothing but time to every request.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger("ml_assets.serving")

SCOPES = ("score", "feedback", "admin")
"""`score`: scores and the model; `feedback`: events and labels; `admin`: everything, the feed and the metrics too."""
_FORM = re.compile(r"mla_([0-9a-f]{8})_([0-9A-Za-z_-]{43})")
_LOOK_SECONDS = 1.0
_PARTS = {"name": str, "scopes": list, "sha256": str, "created": str}
"""Of what is kept of a key."""


class UnknownKeyError(Exception):
    """There is no such key, or none was sent."""


class ForbiddenError(Exception):
    """The key does not have the scope."""


class TooManyRequestsError(Exception):
    """More requests than the key may send; `after` is in seconds."""

    def __init__(self, after: float) -> None:
        super().__init__(f"too many requests: try again in {after:.2g} s")
        self.after = after


@dataclass(kw_only=True)
class KeyRing:
    """The keys in a file, which all processes read again when it changes. Where there was never one, whoever reaches the service is let in.

    Nobody is, where keys were there and the file is empty or gone now, or where it cannot be read. To do without keys again, delete the
    folder with the file and its lock.
    """

    file: Path
    requests_a_second: float | None = None
    """How many requests a key may send to this process on average, and five times as many at once; None for any number."""
    _keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    _closed: bool = False
    """Whether a key is needed."""
    _stamp: tuple[int, int] = (0, 0)
    _looked_at: float = -1.0
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def admit(self, headers: Sequence[tuple[bytes, bytes]], scope: str) -> str:
        """The name of the key in `Authorization: Bearer …` or `X-API-Key`, if it has the scope.

        Raises:
            UnknownKeyError, ForbiddenError, TooManyRequestsError: it is not let in.
        """
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            self._read()
        name = self._who(headers, scope) if self._closed else "anyone"
        if self.requests_a_second is not None:
            self._take_a_turn(name, now, self.requests_a_second)
        return name

    @property
    def open(self) -> bool:
        """Whether nobody needs a key."""
        self._read()
        return not self._closed

    def _who(self, headers: Sequence[tuple[bytes, bytes]], scope: str) -> str:
        given = _key_in(headers)
        form = _FORM.fullmatch(given)
        known = self._keys.get(form[1]) if form else None
        # A key that does not exist takes as long as a wrong one.
        expected = known["sha256"] if known else "0" * 64
        if not hmac.compare_digest(_hash(given), expected) or known is None:
            raise UnknownKeyError("an API key is needed: send it as `Authorization: Bearer …` or `X-API-Key: …`")
        if scope not in known["scopes"] and "admin" not in known["scopes"]:
            raise ForbiddenError(f"this key may {' and '.join(known['scopes'])}; this needs {scope}")
        return str(known["name"])

    def _take_a_turn(self, name: str, now: float, rate: float) -> None:
        """A bucket that fills with `rate` tokens a second, of which a request takes one."""
        most = max(5 * rate, 1.0)
        tokens, before = self._buckets.get(name, (most, now))
        tokens = min(most, tokens + (now - before) * rate)
        if tokens < 1:
            self._buckets[name] = (tokens, now)
            raise TooManyRequestsError((1 - tokens) / rate)
        self._buckets[name] = (tokens - 1, now)

    def _read(self) -> None:
        try:
            status = self.file.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp != self._stamp:
                self._keys, self._stamp = _keys_in(self.file), stamp
                self._closed = self._closed or bool(self._keys)
        except FileNotFoundError:
            # A file that vanishes does not open the doors, not even to a process that begins without it: its lock is left.
            self._keys, self._stamp = {}, (0, 0)
            self._closed = self._closed or _lock(self.file).exists()
        except (OSError, ValueError) as error:
            self._keys, self._closed = {}, True
            log.error("%s cannot be read, so no key is known: %s", self.file, error)


def _key_in(headers: Sequence[tuple[bytes, bytes]]) -> str:
    bearer = ""
    for name, value in headers:
        if name == b"x-api-key":
            return value.decode("latin-1").strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = value[7:].decode("latin-1").strip()
    return bearer


def create_key(file: Path, *, name: str, scopes: Sequence[str]) -> str:
    """Makes a key and returns it: the only time that it can be seen.

    Raises:
        ValueError: the scopes are none or not ours, or the name is blank or taken.
    """
    if not name.strip() or not name.isprintable():
        raise ValueError(f"a key has a name that can be read in a list; got {name!r}")
    if not scopes or set(scopes) - set(SCOPES):
        raise ValueError(f"scopes are {', '.join(SCOPES)}; got {', '.join(scopes) or 'none'}")
    with _changing(file) as keys:
        if any(key["name"] == name for key in keys.values()):
            raise ValueError(f"there is a key {name!r} already: revoke it first, or choose another name")
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        key = f"mla_{id}_{secret}"
        created = datetime.now(UTC).isoformat(timespec="seconds")
        keys[id] = {"name": name, "scopes": list(dict.fromkeys(scopes)), "sha256": _hash(key), "created": created}
    return key


def revoke_key(file: Path, name: str) -> None:
    """Takes a key away; services notice within a second.

    Raises:
        KeyError: there is none of that name.
    """
    with _changing(file) if file.exists() else nullcontext(dict[str, dict[str, Any]]()) as keys:
        ids = [id for id, key in keys.items() if key["name"] == name]
        if not ids:
            raise KeyError(f"no key {name!r}; there are {', '.join(key['name'] for key in keys.values()) or 'none'}")
        if len(keys) == 1:
            raise KeyError(f"{name!r} is the last key: without any, everyone would be let in. Create another one first")
        for id in ids:
            del keys[id]


def list_keys(file: Path) -> list[dict[str, Any]]:
    """Name, scopes and day of creation of each key."""
    found = _keys_in(file) if file.exists() else {}
    return [{"name": key["name"], "scopes": key["scopes"], "created": key["created"]} for key in found.values()]


@contextmanager
def _changing(file: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The keys, to be changed by one process at a time, in files that only their owner can open."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(_lock(file), "w", opener=_for_the_owner) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = _keys_in(file) if file.exists() else {}
        yield keys
        beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        with open(beside, "x", opener=_for_the_owner) as written:
            json.dump(keys, written, indent=1)
        beside.replace(file)


def _lock(file: Path) -> Path:
    return file.with_suffix(".lock")


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _keys_in(file: Path) -> dict[str, dict[str, Any]]:
    """The keys by id.

    Raises:
        ValueError: there is something else in the file.
    """
    try:
        keys: dict[str, dict[str, Any]] = json.loads(file.read_bytes())
        if all(isinstance(key[part], kind) for key in keys.values() for part, kind in _PARTS.items()):
            return keys
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{file} holds no API keys: {error}") from error
    raise ValueError(f"{file} holds no API keys as they are written: {', '.join(_PARTS)}")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
