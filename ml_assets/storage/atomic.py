"""Files that appear whole or not at all, on a local file system.

Everything is written beside its place, under a name that starts with a dot, and renamed. Readers skip names with a dot, so that a
process killed in between leaves the old state whole, and a dead file that nobody reads.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4


def publish(files: Mapping[str, bytes], directory: Path) -> None:
    """Makes a directory with these files; where another writer came first, its directory stays."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(directory)
    try:
        for name, content in files.items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_bytes(content)
        beside.rename(directory)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        if not directory.is_dir():
            raise


def replace(file: Path, content: bytes) -> None:
    """Writes or replaces one file."""
    beside = _beside(file)
    beside.write_bytes(content)
    beside.replace(file)


def switch(link: Path, target: str) -> None:
    """Points a symbolic link, new or old, to a neighbour of it."""
    beside = _beside(link)
    beside.symlink_to(target)
    beside.replace(link)


def _beside(place: Path) -> Path:
    return place.with_name(f".{uuid4().hex}")
