"""The files of a use case, as text: templates filled with what was inferred.

Belongs here: what the files say. Does not: what the file of events says (`scaffold.infer`), how files get into the project
(`scaffold.project`). Nothing that comes out of a file is put into Python, TOML or Markdown but as a quoted value.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ml_assets.escape import markdown
from ml_assets.scaffold import literals
from ml_assets.scaffold.declaration import CaseColumn, Inferred
from ml_assets.scaffold.generated import known_from_name
from ml_assets.use_case import Spelling, day_range

FILES = ("__init__.py", "source.py", "schema.py", "features.py", "README.md", "files.toml")
TYPES = {"STRING": "STRING", "INT64": "INT", "FLOAT64": "FLOAT", "TIMESTAMP": "TIMESTAMP"}
_MORE = (
    *("start", "end", "first_go_live", "training_days", "holdout_days", "window_days", "earliest", "latest"),
    *("known_with_event", "known_later", "facts"),
)
_LATER = "known_at=" + literals.python("known_at")


def texts(name: str, found: Inferred, *, project: Path) -> dict[str, str]:
    """What each file says, by its name.

    Args:
        project: the folder of the project: a file of events below it is named from the case's folder, another by its whole path.
    """
    templates = Environment(
        loader=PackageLoader("ml_assets.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # it is no HTML: each value goes through the filter of the language that it stands in
    )
    templates.filters |= {
        "py": literals.python,
        "assigned": literals.assigned,
        "names": _names,
        "toml": literals.toml,
        "key": literals.toml_key,
        "md": markdown,
    }
    said = _said(name, found) | _columns(found) | _files(found, project / "ml_assets" / "use_cases" / name, project)
    return {file: templates.get_template(f"{file}.j2").render(said) for file in FILES}


def _names(columns: Sequence[CaseColumn | str], indent: int = 0, *, of_tuples: bool = False) -> str:
    names = [each if isinstance(each, str) else each.name for each in columns]
    return literals.lines([(name,) if of_tuples else name for name in names], indent=indent)


def _column(each: CaseColumn, *rest: str, dtype: str | None = None, nullable: bool | None = None, spelled: bool = True) -> str:
    """The declaration of a column, with a comma behind it."""
    missing = each.nullable if nullable is None else nullable
    spelling = [f"spelling=Spelling.{each.spelling.name}"] if spelled and each.spelling is not Spelling.TEXT else []
    words = [f"name={literals.python(each.name)}", f"dtype={TYPES[dtype or each.dtype]}", *(["nullable=True"] if missing else [])]
    return literals.call("Column", [*words, *spelling, *rest], indent=8)


def _columns(found: Inferred) -> dict[str, Any]:
    """Declarations of columns, as Python."""
    label, time = found.label, found.time
    of_date = [literals.python("start")] if found.times.dates else []
    dated = [f"dates={each}" for each in of_date] + ["timezone=TIMEZONE" for _ in of_date]
    ids = [each for each in found.ids if each.source != time.source]
    if_there = [each for each in (*found.entities, *found.after) if each.source not in {each.source for each in ids}]
    known_at = found.known_at or CaseColumn(name="known_at", source="", dtype="TIMESTAMP", nullable=True)
    ends = ['dates="end"', "timezone=TIMEZONE"] if found.times.dates or found.arrival.known_at_dates else []
    clean = (*found.entities, *found.numbers, *found.categories)
    later = [
        _column(label, spelled=False),
        *(_column(each, *(ends if each is found.known_at else [])) for each in found.known_later[1:]),
    ]
    return {
        "events_delivered": [_column(each, *(dated if each is time or each == time else [])) for each in found.known_with_event],
        "events_delivered_later": later,
        "events_columns": [_column(time, 'description="event time"'), *(_column(each, spelled=False) for each in clean)],
        "events_known_from": literals.call(
            "Column",
            [
                f"name={literals.python(known_from_name(time.name))}",
                "dtype=TIMESTAMP",
                'description="from when on the event counts for others: it has no time of day"',
            ],
            indent=8,
        ),
        "events_money": [
            literals.call(
                "Column", [f"name={literals.python(f'{each.name}_hundredths')}", "dtype=FLOAT", "nullable=True"], indent=8
            )
            for each in found.facts
            if each.hundredths
        ],
        "truth_delivered": [
            *(_column(each) for each in ids),
            _column(time, *dated, nullable=True),
            _column(label, "allowed=(NEGATIVE, POSITIVE)", nullable=False),
            *(_column(each, nullable=True) for each in if_there),
            _column(known_at, *ends, nullable=True),
        ],
        "truth_columns": [
            _column(time, _LATER, nullable=True),
            literals.call(
                "Column", [f"name={literals.python(label.name)}", "dtype=INT", "minimum=0", "maximum=1", _LATER], indent=8
            ),
            *(_column(each, _LATER, nullable=True, spelled=False) for each in (*found.entities, *found.after)),
        ],
        "of_label": [*ids, label],
        "of_label_if_there": [*if_there, known_at],
        "known_at_name": known_at.name,
        "known_at_dtype": f"{{{literals.python(known_at.name)}: DType.TIMESTAMP}}",
        "numeric": [each for each in (*found.numbers, *found.after) if each.dtype != "STRING"],
        "spelled": any(each.spelling is not Spelling.TEXT for each in (*found.known_with_event, label)),
    }


def _files(found: Inferred, case: Path, project: Path) -> dict[str, Any]:
    """Where the file of events is, seen from the case's folder."""
    folder = found.file.parent
    inside = folder.is_relative_to(project)
    return {
        "folder": _relative(folder, case, project) if inside else str(folder),
        "inside": inside,
        "pattern": literals.glob(found.file.name),
        "mapped": {each.name: each.source for each in (*found.known_with_event, *found.known_later)},
        "dialect": found.dialect_settings,
    }


def _relative(folder: Path, case: Path, project: Path) -> str:
    up = "/".join([".."] * len(case.relative_to(project).parts))
    return f"{up}/{folder.relative_to(project).as_posix()}".removesuffix("/.")


def _folds(days_to_learn: int, gap_days: int) -> tuple[int, int]:
    """How many folds a search has within the first training days, and of how many days each.

    A third of the days is learnt from by the first fold, as far as the gap leaves so many.
    """
    fold_days = max(2, days_to_learn // 7)
    left = days_to_learn - gap_days - days_to_learn // 3
    return max(1, min(3, left // fold_days)), fold_days


def _search(found: Inferred) -> dict[str, Any]:
    """Sizes of models that the rows of the first training can fill, and what a holdout of so many positives can tell apart."""
    rows_a_day = found.rows / len(day_range(found.start, found.end)[:-1])
    learnt = found.windows.rows_to_learn
    judged = rows_a_day * found.holdout_days * found.positive_share
    folds, fold_days = _folds(found.windows.days_to_learn, found.embargo_days)
    most_leaves = int(min(31, max(4, learnt // 200)))
    least_in_leaf = int(min(100, max(5, learnt // 200)))
    return {
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


def _said(name: str, found: Inferred) -> dict[str, Any]:
    sliced = [each.name for each in found.categories if not each.nullable]
    clock = () if found.times.only_dates else ("hour",)
    return {
        **{field: getattr(found, field) for field in (*found.__slots__, *_MORE)},
        "name": name,
        "constant": name.upper(),
        "title": name.replace("_", " ").capitalize(),
        "setting": f"ML_ASSETS_{name.upper()}_FILES",
        "money": [each for each in found.facts if each.hundredths],
        "dates": found.times.dates,
        "only_dates": found.times.only_dates,
        "known_at_dates": found.arrival.known_at_dates,
        "known_from": known_from_name(found.time.name),
        "number_names": [*clock, "weekday", *found.numbers],
        "nullable": [each for each in (*found.numbers, *found.categories) if each.nullable],
        "climatology": sliced[0] if sliced else "weekday" if found.times.only_dates else "hour",
        "slices": sliced[0] if sliced else "",
        "embargo_days": found.embargo_days,
        "known_after_seconds": int(found.known_after.total_seconds()) if found.known_after else 0,
        "floor": max(0.01, round(found.positive_share, 2)),
        "alert_share": min(0.99, max(0.01, round(found.positive_share, 2))),
        **_search(found),
    }
