"""How the files of a use case get into the project, change there and leave it: all of them and its name, or nothing.

Belongs here: folders and the list of names. Does not: what the files say (`scaffold.write`).

What was generated is kept beside the files, in `generated.json`, so that a later `--update` tells edits from what it wrote itself.
"""

import json
import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from uuid import uuid4

import ml_assets.use_cases

USE_CASES = Path(ml_assets.use_cases.__file__).parent
RECORD = "generated.json"
_NAMES = re.compile(r"(?<=^NAMES = \(\n)(    \"\w+\",\n)+(?=\))", re.MULTILINE)

Change = Literal["unchanged", "written", "merged", "beside"]


class CannotWriteError(ValueError):
    """The case cannot be added, changed or removed; the message says why, and nothing was changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What `new` wrote, and from which answers."""

    answers: Mapping[str, Any]
    files: Mapping[str, str]

    def text(self) -> str:
        return json.dumps({"answers": self.answers, "files": self.files}, indent=1, ensure_ascii=False) + "\n"


def record_of(name: str, folder: Path = USE_CASES) -> Record:
    """What `new` wrote of a case.

    Raises:
        CannotWriteError: there is no such case, or `new` did not write it.
    """
    file = folder / name / RECORD
    if not (folder / name).is_dir():
        raise CannotWriteError(f"there is no case {name!r} in {folder}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Record(answers=content["answers"], files=content["files"])
    except FileNotFoundError:
        raise CannotWriteError(f"`ml-assets new` did not write {folder / name}, which has no {RECORD}: change it by hand") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotWriteError(f"{file} cannot be read: {error!r}") from error


def add(name: str, texts: Mapping[str, str], answers: Mapping[str, Any], *, folder: Path = USE_CASES) -> Path:
    """Writes the case and adds its name to `NAMES` of the use cases; returns its folder.

    Args:
        texts: what each file says, by its name.
        answers: to be kept for `update`, as plain data.

    Raises:
        CannotWriteError: the name cannot be used, or the case does not load.
    """
    require_free(name, folder)
    before, after = _registers(name, folder, adds=True)
    beside, place = folder / f".{uuid4().hex}", folder / name
    beside.mkdir()
    try:
        for file, text in {**texts, RECORD: Record(answers=answers, files=texts).text()}.items():
            (beside / file).write_text(text, encoding="utf-8")
        beside.rename(place)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    _replace(folder / "__init__.py", after)
    if fault := _fault(folder.parents[1]):
        _replace(folder / "__init__.py", before)
        shutil.rmtree(place)
        raise CannotWriteError(f"{name} was written, but does not load, and was taken away again: {fault}")
    return place


def update(name: str, texts: Mapping[str, str], answers: Mapping[str, Any], *, folder: Path = USE_CASES) -> dict[str, Change]:
    """Writes the files of a case again: edits stay, in one file with what is new where both can be, else with the new file beside.

    Returns:
        For each file whether it is unchanged, written, merged with edits, or left as it was with the new one beside, as `FILE.new`.

    Raises:
        CannotWriteError: `new` did not write the case, or it does not load any more; then everything is as before.
    """
    place, record = folder / name, record_of(name, folder)
    current = {file: _read(place / file) for file in (*texts, RECORD)}
    wanted, changes = dict[str, str](), dict[str, Change]()
    for file, new in texts.items():
        there, base = current[file], record.files.get(file)
        if there in (None, base) or there == new:
            changes[file], wanted[file] = ("unchanged" if there == new else "written"), new
        elif base is not None and (merged := _merged(there or "", base, new)) is not None:
            changes[file], wanted[file] = ("unchanged" if merged == there else "merged"), merged
        else:
            changes[file], wanted[f"{file}.new"] = "beside", new
    wanted[RECORD] = Record(answers=answers, files=texts).text()
    for file, text in wanted.items():
        _replace(place / file, text)
    if fault := _fault(folder.parents[1]):
        for file in wanted:
            _restore(place / file, current.get(file))
        raise CannotWriteError(f"{name} does not load with what would be written, and is as it was: {fault}")
    return changes


def remove(name: str, *, folder: Path = USE_CASES) -> Path:
    """Takes away the files of a case that `new` wrote and its name; returns the folder that is gone.

    Raises:
        CannotWriteError: `new` did not write the case, or something needs it.
    """
    record_of(name, folder)
    before, after = _registers(name, folder, adds=False)
    aside = folder / f".{uuid4().hex}"
    (folder / name).rename(aside)
    _replace(folder / "__init__.py", after)
    if fault := _fault(folder.parents[1]):
        aside.rename(folder / name)
        _replace(folder / "__init__.py", before)
        raise CannotWriteError(f"without {name} the other cases do not load, and it is still there: {fault}")
    shutil.rmtree(aside)
    return folder / name


def require_free(name: str, folder: Path = USE_CASES) -> None:
    """Raises CannotWriteError unless a case of that name can be added."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise CannotWriteError(f"{name!r} cannot be the name of a case: expected small letters, digits and _, such as late_orders")
    if (folder / name).exists() or (folder / f"{name}.py").exists():
        raise CannotWriteError(
            f"{folder / name} is there already: choose another name, change it with --update, or remove it with ml-assets remove {name}"
        )
    if name in vars(ml_assets.use_cases):
        raise CannotWriteError(f"{name!r} cannot be the name of a case: ml_assets.use_cases has something of that name")


def _registers(name: str, folder: Path, *, adds: bool) -> tuple[str, str]:
    """The module with `NAMES`, before and after."""
    register, line = folder / "__init__.py", f'    "{name}",\n'
    before = register.read_text(encoding="utf-8")
    after, changed = _NAMES.subn(lambda names: names[0] + line if adds else names[0].replace(line, ""), before)
    if changed != 1 or after == before:
        do = f"add {name!r}" if adds else f"take {name!r} out"
        raise CannotWriteError(
            f"{register} has no list NAMES = (…) with a name a line{'' if adds else f' and {name!r} in it'}: {do} by hand"
        )
    return before, after


def _replace(file: Path, text: str) -> None:
    written = file.with_name(f".{uuid4().hex}")
    written.write_text(text, encoding="utf-8")
    written.replace(file)


def _restore(file: Path, text: str | None) -> None:
    if text is None:
        file.unlink(missing_ok=True)
    else:
        _replace(file, text)


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _merged(edited: str, base: str, new: str) -> str | None:
    """All edits and all that is new, None where both change the same lines, or without git."""
    with TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("edited", "base", "new")]
        for file, text in zip(files, (edited, base, new), strict=True):
            file.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(["git", "merge-file", "-p", *map(str, files)], capture_output=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.decode() if done.returncode == 0 else None


def _fault(project: Path) -> str:
    """Why the use cases do not load, "" when they do."""
    command = [sys.executable, "-c", "import ml_assets.use_cases"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]
