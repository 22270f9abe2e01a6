"""The five files of a use case, as text, and how they get into the project: all of them and its name, or nothing.

Belongs here: templates and places. Does not: what the file of events says (`scaffold.infer`).
"""

import keyword
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from jinja2 import Environment, PackageLoader, StrictUndefined

import ml_assets.use_cases
from ml_assets.scaffold.infer import Found, Inferred
from ml_assets.use_case import day_range

FILES = ("__init__.py", "source.py", "schema.py", "features.py", "README.md")
USE_CASES = Path(ml_assets.use_cases.__file__).parent
_NAMES = re.compile(r"(?<=^NAMES = \(\n)(    \"\w+\",\n)+(?=\))", re.MULTILINE)


class CannotWriteError(ValueError):
    """The case cannot be added; the message says why, and nothing was changed."""


def texts(name: str, found: Inferred) -> dict[str, str]:
    """What each file says, by its name."""
    templates = Environment(
        loader=PackageLoader("ml_assets.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # it is no HTML
    )
    templates.filters["tuples"] = _tuple
    said = _said(name, found)
    return {file: templates.get_template(f"{file}.j2").render(said) for file in FILES}


def add(name: str, found: Inferred, *, folder: Path = USE_CASES) -> Path:
    """Writes the case and adds its name to `NAMES` of the use cases; returns its folder.

    Raises:
        CannotWriteError: the name cannot be used, or the case does not load.
    """
    require_free(name, folder)
    register = folder / "__init__.py"
    before = register.read_text(encoding="utf-8")
    after, changed = _NAMES.subn(lambda names: f'{names[0]}    "{name}",\n', before)
    if changed != 1:
        raise CannotWriteError(f"{register} has no list NAMES = (…) with a name a line: add {name!r} by hand")
    beside, place = folder / f".{uuid4().hex}", folder / name
    beside.mkdir()
    try:
        for file, text in texts(name, found).items():
            (beside / file).write_text(text, encoding="utf-8")
        beside.rename(place)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    written = register.with_name(f".{uuid4().hex}")
    written.write_text(after, encoding="utf-8")
    written.replace(register)
    if fault := _fault(folder.parents[1]):
        register.write_text(before, encoding="utf-8")
        shutil.rmtree(place)
        raise CannotWriteError(f"{name} was written, but does not load, and was taken away again: {fault}")
    return place


def require_free(name: str, folder: Path = USE_CASES) -> None:
    """Raises CannotWriteError unless a case of that name can be added."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise CannotWriteError(f"{name!r} cannot be the name of a case: expected small letters, digits and _, such as late_orders")
    if (folder / name).exists() or (folder / f"{name}.py").exists():
        raise CannotWriteError(f"{folder / name} is there already: choose another name, or remove it")


def _fault(project: Path) -> str:
    """Why the use cases do not load, "" when they do."""
    command = [sys.executable, "-c", "import ml_assets.use_cases"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().rpartition("\n")[2]


def _tuple(columns: Sequence[Found], indent: int = 0, *, of_tuples: bool = False) -> str:
    """Names as Python writes them: a few in a line each, one beside its brackets."""
    names = [f'("{each.name}",)' if of_tuples else f'"{each.name}"' for each in columns]
    if len(names) < 2:
        return f"({names[0]},)" if names else "()"
    lines = "".join(f"{' ' * (indent + 4)}{name},\n" for name in names)
    return f"(\n{lines}{' ' * indent})"


def _folds(training_days: int, gap_days: int) -> tuple[int, int]:
    """How many folds a search has within the first training days, and of how many days each.

    A third of the days is learnt from by the first fold, as far as the gap leaves so many.
    """
    fold_days = max(2, training_days // 7)
    left = training_days - gap_days - training_days // 3
    return max(1, min(3, left // fold_days)), fold_days


def _said(name: str, found: Inferred) -> dict[str, Any]:
    kept = (*found.entities, *found.numbers, *found.categories, *found.after)
    label_column = found.label.name if found.label.name not in {each.name for each in kept} else "label"
    rows_a_day = found.rows / len(day_range(found.start, found.end)[:-1])
    learnt = rows_a_day * found.training_days
    judged = rows_a_day * found.holdout_days * found.positive_share
    folds, fold_days = _folds(found.training_days, found.embargo_days)
    most_leaves = int(min(31, max(4, learnt // 200)))
    least_in_leaf = int(min(100, max(5, learnt // 200)))
    sliced = [each.name for each in found.categories if not each.nullable]
    return {
        **{field: getattr(found, field) for field in found.__slots__},
        "name": name,
        "constant": name.upper(),
        "title": name.replace("_", " ").capitalize(),
        "setting": f"ML_ASSETS_{name.upper()}_FILES",
        "label_column": label_column,
        "delivered": (found.id, found.time, found.label, *kept),
        "kept": kept,
        "facts": found.facts if found.entities else (),
        "nullable": [each for each in (*found.numbers, *found.categories) if each.nullable],
        "types": {"STRING": "STRING", "INT64": "INT", "FLOAT64": "FLOAT"},
        "climatology": sliced[0] if sliced else "hour",
        "slices": sliced[0] if sliced else "",
        "embargo_days": found.embargo_days,
        "known_after_seconds": int(found.known_after.total_seconds()),
        "floor": max(0.01, round(found.positive_share, 2)),
        "alert_share": min(0.99, max(0.01, round(found.positive_share, 2))),
        "baseline_margin": round(min(0.05, 0.25 / math.sqrt(max(1.0, judged))), 3),
        "trials": 12,
        "folds": folds,
        "fold_days": fold_days,
        "few_rows": learnt < 50_000,
        "num_leaves": int(min(15, most_leaves)),
        "most_leaves": most_leaves,
        "min_data_in_leaf": 2 * least_in_leaf,
        "least_in_leaf": least_in_leaf,
        "most_in_leaf": 10 * least_in_leaf,
    }
