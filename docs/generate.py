"""Writes `docs/reference.md` from docstrings and declarations: `make docs`.

Belongs here: what the code already says, put in order. Does not: anything that is not said there. The test
`ml_assets_tests/test_docs.py` fails when the committed file is not what this gives.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import typer.main

from ml_assets import cli, use_case
from ml_assets.orchestration.monitoring import WARNINGS
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.use_case import UseCase
from ml_assets.use_cases import USE_CASES

TOP = Path(__file__).parents[1]
TARGET = TOP / "docs" / "reference.md"
SETTING_TABLES = ("README.md", "docs/deployment.md", "ml_assets/use_cases/card_fraud/README.md")
"""Where settings are described, in tables whose first column is called `setting`; of two descriptions the first one counts."""
MANY_COLUMNS = 12
"""A longer schema is folded."""
_UNIT = re.compile(r" ?\[([^\[\]]+)\]$")
_NAME = re.compile(r"`(ML_ASSETS_[A-Z<>_]+|…[A-Z_]+)`")


def reference() -> str:
    """The whole page."""
    parts = (
        ["# Reference"],
        [
            "Written by `make docs` ([`docs/generate.py`](generate.py)) from docstrings, declarations and Dagster's definitions: change it "
            "there. What the words mean is in [concepts](concepts.md), what to do when in [operations](operations.md)."
        ],
        [
            "[Commands](#commands) · [Settings](#settings) · [Vocabulary](#vocabulary) · [Assets](#assets) · [Automation](#automation)"
        ],
        ["## Commands"],
        _commands(),
        ["## Settings"],
        _settings(),
        ["## Vocabulary"],
        _vocabulary(),
        ["## Assets"],
        _assets(),
        ["## Automation"],
        _automation(),
    )
    return "\n\n".join(text for part in parts for text in part) + "\n"


# Commands -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command of `ml-assets`, with what stands before its name on the line."""

    words: tuple[str, ...]
    command: Any


def commands() -> list[Command]:
    """Every command, groups that do something by themselves included, by name."""
    return list(_commands_below(typer.main.get_command(cli.app), ("ml-assets",)))


def _commands_below(group: Any, words: tuple[str, ...]) -> Iterator[Command]:
    arguments = [_metavar(each) for each in group.params if not _is_option(each)]
    for name, command in sorted(group.commands.items()):
        below = (*words, *arguments, name)
        inner = hasattr(command, "commands")
        if not inner or command.invoke_without_command:
            yield Command(words=below, command=command)
        if inner:
            yield from _commands_below(command, below)


def _commands() -> Iterator[str]:
    for each in commands():
        arguments = [each_of for each_of in each.command.params if not _is_option(each_of)]
        line = " ".join([*each.words, *(_metavar(argument) for argument in arguments)])
        yield f"### `{' '.join(each.words)}`"
        yield f"`{line}{' [OPTIONS]' if len(arguments) < len(each.command.params) else ''}`"
        yield _plain(each.command.help)
        rows = [[_said(param), _plain(param.help), _default(param)] for param in each.command.params]
        if rows:
            yield _table(["", "", "default"], rows)


_KINDS = {"str": "TEXT", "list": "TEXT", "int": "NUMBER", "float": "NUMBER"}


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _metavar(param: Any) -> str:
    return param.metavar or param.name.upper()


def _said(param: Any) -> str:
    if not _is_option(param):
        return f"`{_metavar(param)}`"
    kind = param.type_descriptor.annotation.__name__
    value = "" if param.is_flag else f" {param.metavar or _KINDS.get(kind, kind.upper())}"
    return f"`{param.opts[0]}{value}`" + (", repeatable" if param.multiple else "")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    shown = "" if param.default in (None, "", False) else f"`{param.default}`"
    return ", or ".join(filter(None, (shown, f"`{param.envvar}`" if param.envvar else "")))


# Settings -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A setting, as the table of a page describes it."""

    name: str
    default: str
    text: str
    page: str


def settings() -> dict[str, Setting]:
    """Every `ML_ASSETS_…` that a table describes, by name."""
    found: dict[str, Setting] = {}
    for page in SETTING_TABLES:
        for cells in _rows_of_settings((TOP / page).read_text(encoding="utf-8")):
            names, default = list(_names(cells[0])), cells[1] if len(cells) > 2 else ""
            several = default.split(", ")
            for name, own in zip(names, several if len(several) == len(names) else [default] * len(names), strict=True):
                found.setdefault(name, Setting(name=name, default=own, text=cells[-1], page=page))
    return dict(sorted(found.items()))


def _rows_of_settings(text: str) -> Iterator[list[str]]:
    inside = False
    for before, line in pairwise(["", *text.splitlines(), ""]):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if not line.startswith("|"):
            inside = False
        elif not before.startswith("|"):
            inside = cells[0] == "setting"
        elif inside and not set(line) <= set("|-: "):
            yield cells


def _names(cell: str) -> Iterator[str]:
    """`ML_ASSETS_A_B`, `…_C` are ML_ASSETS_A_B and ML_ASSETS_A_C."""
    before = ""
    for name in _NAME.findall(cell):
        before = f"{before.rpartition('_')[0]}{name[1:]}" if name.startswith("…") else name
        yield before


def _settings() -> Iterator[str]:
    yield (
        "From the environment, or from a secret that `ML_ASSETS_SECRETS` names. Those of Dagster, AWS, Google and MLflow keep their usual "
        "names."
    )
    rows = []
    for each in settings().values():
        prefix = _relative(each.page)
        text = re.sub(r"\]\((?!https?:|#)([^)]+)\)", lambda link, page=each.page: f"]({_moved(page, link[1])})", each.text)
        text = text.replace("](#", f"]({prefix}#")
        rows.append([f"`{each.name}`", each.default, text, f"[{Path(each.page).parent.name or 'README'}]({prefix})"])
    yield _table(["setting", "default", "", "from"], rows)


def _relative(page: str) -> str:
    return page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"


def _moved(page: str, link: str) -> str:
    place, _, anchor = link.partition("#")
    moved = _relative((Path(page).parent / place).as_posix())
    return f"{moved}#{anchor}" if anchor else moved


# Vocabulary ---------------------------------------------------------------------------------------------------------------


def _vocabulary() -> Iterator[str]:
    tree = ast.parse(Path(use_case.__file__).read_text(encoding="utf-8"))
    yield _plain(ast.get_docstring(tree) or "")
    names = [
        [f"`{name}`", f"`{ast.unparse(value)}`", _plain(text)]
        for (name, _, value), text in _with_text(tree.body)
        if value is not None and text
    ]
    yield _table(["name", "is", ""], names)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield f"### `{node.name}`"
            yield _plain(ast.get_docstring(node) or "")
            yield from _members(node)


def _members(node: ast.ClassDef) -> Iterator[str]:
    bases = {ast.unparse(base) for base in node.bases}
    if "Protocol" in bases:
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
        inherited = ", ".join(f"`{base}`" for base in sorted(bases - {"Protocol"}))
        if inherited:
            yield f"Keeps {inherited}, and:"
        yield _table(["method", ""], [[f"`{_signature(each)}`", _plain(ast.get_docstring(each) or "")] for each in methods])
        return
    fields = list(_with_text(node.body))
    if "StrEnum" in bases:
        yield _table(["member", "value"], [[f"`{name}`", f"`{ast.unparse(value)}`"] for (name, _, value), _ in fields if value])
        return
    rows = [
        [f"`{name}`", f"`{ast.unparse(kind)}`" if kind else "", _default_of(value), _plain(text)]
        for (name, kind, value), text in fields
    ]
    if rows:
        yield _table(["field", "type", "default", ""], rows)


Assigned = tuple[str, ast.expr | None, ast.expr | None]


def _with_text(body: Sequence[ast.stmt]) -> Iterator[tuple[Assigned, str]]:
    """Each assignment with its name, annotation and value, and the text under it."""
    for node, after in pairwise([*body, ast.Pass()]):
        said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        text = str(after.value.value) if said else ""  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield (node.target.id, node.annotation, node.value), text
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield (node.targets[0].id, None, node.value), text


def _default_of(value: ast.expr | None) -> str:
    if value is None:
        return "required"
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        return f"`{ast.unparse(value.keywords[0].value)}()`"
    return f"`{ast.unparse(value)}`"


def _signature(node: ast.FunctionDef) -> str:
    arguments = ", ".join(ast.unparse(each) for each in node.args.args[1:])
    return f"{node.name}({arguments}) -> {ast.unparse(node.returns) if node.returns else 'None'}"


# Assets -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What Dagster is told of an asset, without the name of its case."""

    name: str
    group: str
    description: str
    partition: str
    asked_by: tuple[str, ...]
    checks: tuple[tuple[str, str, str], ...]
    """Name, what it says, and what follows where that is not so."""
    columns: tuple[tuple[str, str, str, str, str], ...]

    def texts(self) -> Iterator[str]:
        """Its section."""
        yield f"#### `{self.name}`"
        yield self.description
        if self.checks:
            yield _table(["check", "says", ""], [[f"`{name}`", says, effect] for name, says, effect in self.checks])
        if self.columns:
            rows = [[f"`{name}`", kind, null, unit, text] for name, kind, null, unit, text in self.columns]
            schema = _table(["column", "type", "null", "unit", ""], rows)
            many = len(rows) > MANY_COLUMNS
            yield f"<details><summary>{len(rows)} columns</summary>\n\n{schema}\n\n</details>" if many else schema


@cache
def _definitions() -> dg.Definitions:
    return build_defs(USE_CASES)


def described(case: UseCase) -> dict[str, Described]:
    """Every asset of a case but those that are only observed, in the order of the groups."""
    definitions = _definitions()
    graph, asked = definitions.resolve_asset_graph(), _asked_by(case)
    checks = [graph.get_check_spec(key) for key in sorted(graph.asset_check_keys)]
    found = {}
    for spec in definitions.resolve_all_asset_specs():
        of_case, name = spec.key.path
        group = (spec.group_name or "").rpartition("/")[2]
        if of_case != case.name or group == "observed":
            continue
        schema = spec.metadata.get("dagster/column_schema")
        found[name] = Described(
            name=name,
            group=group,
            description=spec.description or "",
            partition=_partition(spec.partitions_def),
            asked_by=tuple(asked.get(name, ())),
            checks=tuple((each.name, each.description or "", _effect(each)) for each in checks if each.asset_key == spec.key),
            columns=tuple(_columns(schema)) if isinstance(schema, dg.TableSchema) else (),
        )
    order = [node.path[-1] for level in graph.toposorted_asset_keys_by_level for node in sorted(level)]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def _assets() -> Iterator[str]:
    cases = [(case, described(case)) for case in USE_CASES]
    first, *others = (assets for _, assets in cases)
    shared = {name: each for name, each in first.items() if all(theirs.get(name) == each for theirs in others)}
    yield (
        "A check that fails *stops* the day or week, which is not published (of an evaluation report: the candidate does not go live), or "
        "only *warns* or *is red*. A daily asset has a partition a day, a weekly one a week, whose key is the day on which its model may "
        "go live. Assets that are only observed, in the group `observed`, stand for what decides beside whole days (`delivered_…`, "
        "`model_in_force`, …)."
    )
    for case, assets in cases:
        yield f"### The assets of `{case.name}`"
        rows = [
            [
                f"[`{name}`](#{name if name in shared else _anchor(case, name)})",
                each.partition,
                each.group,
                ", ".join(each.asked_by),
            ]
            for name, each in assets.items()
        ]
        yield _table(["asset", "partition", "group", "may be asked for by"], rows)
    yield "### In every case"
    for each in shared.values():
        yield from each.texts()
    for case, assets in cases:
        yield f"### Of `{case.name}`"
        for name, each in assets.items():
            if name not in shared:
                yield f'<a id="{_anchor(case, name)}"></a>'
                yield from each.texts()


def _anchor(case: UseCase, name: str) -> str:
    return f"{case.name}-{name}"


def _effect(check: dg.AssetCheckSpec) -> str:
    if check.name in WARNINGS:
        return "warns"
    return "stops" if check.blocking else "is red"


def _partition(partitions: dg.PartitionsDefinition[Any] | None) -> str:
    if partitions is None:
        return ""
    return "week" if isinstance(partitions, dg.WeeklyPartitionsDefinition) else "day"


def _columns(schema: dg.TableSchema) -> Iterator[tuple[str, str, str, str, str]]:
    for column in schema.columns:
        text = column.description or ""
        unit = _UNIT.search(text)
        null = "yes" if column.constraints.nullable else ""
        yield column.name, column.type, null, unit[1] if unit else "", _UNIT.sub("", text)


# Automation ---------------------------------------------------------------------------------------------------------------


def _asked_by(case: UseCase) -> dict[str, list[str]]:
    """For each asset the sensors and schedules that ask for it; what replays the schedules is left out."""
    definitions, found = _definitions(), dict[str, list[str]]()
    for each in [*(definitions.sensors or ()), *(definitions.schedules or ())]:
        if each.name.startswith(f"{case.name}__") and not each.name.endswith("__replayed_schedules"):
            for name in _targets(each):
                found.setdefault(name, []).append(f"`{_short(case, each.name)}`")
    return found


def _targets(each: Any) -> list[str]:
    graph = _definitions().resolve_asset_graph()
    if getattr(each, "asset_selection", None) is not None:
        selection = each.asset_selection
    else:
        target = each.target if isinstance(each, dg.ScheduleDefinition) else each.targets[0]
        selection = target.resolvable_to_job.selection
    return sorted(key.path[-1] for key in selection.resolve(graph))


def _automation() -> Iterator[str]:
    yield (
        "All of it is on by default, wherever Dagster's daemon runs (`make ui`). In Dagster the names have the case before them: "
        "`flight_delays__follow_up`. A sensor looks every 30 seconds, oftener while a clock is replayed."
    )
    definitions = _definitions()
    for case in USE_CASES:
        mine = [
            each
            for each in [*(definitions.sensors or ()), *(definitions.schedules or ())]
            if each.name.startswith(f"{case.name}__")
        ]
        rows = [[f"`{_short(case, each.name)}`", *_when(each), _plain(each.description or "")] for each in mine]
        yield f"### What asks in `{case.name}`"
        yield _table(["name", "kind", "when", ""], rows)
    told = [each for each in definitions.sensors or () if "__" not in each.name]
    yield "### Messages to people"
    yield _table(["name", ""], [[f"`{each.name}`", _plain(each.description or "")] for each in told])


def _when(each: Any) -> tuple[str, str]:
    if isinstance(each, dg.ScheduleDefinition):
        return "schedule", f"`{each.cron_schedule}` {each.execution_timezone}"
    return ("conditions" if isinstance(each, dg.AutomationConditionSensorDefinition) else "sensor"), ""


def _short(case: UseCase, name: str) -> str:
    return name.removeprefix(f"{case.name}__")


# Markdown -----------------------------------------------------------------------------------------------------------------


def _plain(text: str | None) -> str:
    """A docstring as Markdown: paragraphs of one line each."""
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") for cells in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text.replace("\n\n", "<br>"))


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
