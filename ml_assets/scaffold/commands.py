"""`ml-assets new` and `ml-assets remove`: a use case from a file of events, and its end."""

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Never

import typer
from rich.console import Console
from rich.prompt import Prompt

from ml_assets.escape import terminal
from ml_assets.folders import LocalFolder
from ml_assets.scaffold import project
from ml_assets.scaffold.declaration import Answers, CaseColumn, Inferred
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.literals import toml
from ml_assets.scaffold.project import CannotWriteError
from ml_assets.scaffold.roles import CannotInferError, QuestionError
from ml_assets.scaffold.write import texts
from ml_assets.settings import settings
from ml_assets.storage.places import local_folder, root_folder

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console(highlight=False)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
Columns = list[str] | None
CaseName = Annotated[str, typer.Argument(help="Of the case, such as late_orders.", metavar="NAME")]


@app.callback()
def commands() -> None:
    """Makes each command one with a name."""


@app.command()
def new(
    name: CaseName,
    file: Annotated[
        str | None, typer.Option("--from", help="Parquet, CSV or JSON lines with one row an event.", metavar="FILE")
    ] = None,
    known_after: Annotated[
        str | None, typer.Option(help="How long after an event its label is known, which no file says: 30m, 12h, 7d.")
    ] = None,
    known_at: Annotated[
        str | None, typer.Option(help="Column that says when the label was known, instead of --known-after.", metavar="COLUMN")
    ] = None,
    known_within: Annotated[
        str | None, typer.Option(help="How long after an event its label comes at the latest; 30d, if nobody says.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column that says when an event happened.", metavar="COLUMN")] = None,
    label: Annotated[str | None, typer.Option(help="Column with two values: what is predicted.", metavar="COLUMN")] = None,
    id: Annotated[
        Columns, typer.Option(help="Column that identifies an event; repeated: several together.", metavar="COLUMN")
    ] = None,
    generate_id: Annotated[bool, typer.Option("--generate-id", help="Make an id of all that is known with the event.")] = False,
    entity: Annotated[
        Columns, typer.Option(help="Column whose past features look at, besides the obvious; may be repeated.", metavar="COLUMN")
    ] = None,
    no_entity: Annotated[Columns, typer.Option(help="Column that is none; may be repeated.", metavar="COLUMN")] = None,
    after: Annotated[
        Columns, typer.Option(help="Column that is known only with the label; may be repeated.", metavar="COLUMN")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The value of the label that is a positive.")] = None,
    timezone: Annotated[str | None, typer.Option(help="In which a day is a day, and clock times without an offset are.")] = None,
    dialect: Annotated[
        Columns,
        typer.Option(help='How the file is written, a line of TOML: decimal = ",". May be repeated.', metavar="SETTING"),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write a case again with other answers; those given before and your edits stay.")
    ] = False,
) -> None:
    """Write a use case from a file of events: files to read and correct, ready to run. What is not clear is asked for."""
    given: dict[str, Any] = {
        "time": time,
        "label": label,
        "id": tuple(id or ()),
        "generate_id": generate_id,
        "entities": tuple(entity or ()),
        "no_entities": tuple(no_entity or ()),
        "positive": positive,
        "after": tuple(after or ()),
        "known_at": known_at,
        "timezone": timezone,
        "dialect": tuple(dialect or ()),
    }
    try:
        given["known_after"] = None if known_after is None else _duration(known_after)
        given["known_within"] = None if known_within is None else _duration(known_within, "--known-within")
        given = {field: value for field, value in given.items() if value}
        if update:
            record = project.record_of(name)
            source, answers = _file(file or _sample(name)), _again(record.answers, given)
        else:
            project.require_free(name)
            source, answers = _file(file), Answers(**given)
        inferred, answers = _asking(source, answers)
        written = texts(name, inferred, project=project.USE_CASES.parents[1])
        changes = project.update(name, written, _plain(answers)) if update else project.add(name, written, _plain(answers))
    except (CannotInferError, CannotWriteError) as error:
        _fail(str(error))
    place = project.USE_CASES / name
    _describe(name, inferred, place)
    if isinstance(changes, Mapping):
        _describe_changes(changes)


@app.command()
def remove(name: CaseName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Take away a use case that `new` wrote: its files and its name. Data that were made of it stay, and it is said where."""
    try:
        project.record_of(name)
        if not yes:
            _confirm(name)
        place = project.remove(name)
    except CannotWriteError as error:
        _fail(str(error))
    out.print(f"{terminal(str(place))} is gone, and {name} in NAMES", soft_wrap=True)
    for line in _data_left(name):
        out.print(f"  {terminal(line)}", soft_wrap=True)


# Questions --------------------------------------------------------------------------------------------------------------------


def _asking(file: Path, answers: Answers) -> tuple[Inferred, Answers]:
    """What the file and the answers say; who sits at a terminal is asked for what is not clear, another gets the question as an error."""
    while True:
        try:
            return infer(file, answers), answers
        except QuestionError as question:
            if not sys.stdin.isatty():
                raise
            answers = replace(answers, **{question.field: _answer(question)})


def _answer(question: QuestionError) -> Any:
    out.print(terminal(str(question)), soft_wrap=True)
    choices = list(question.choices) or None
    text = Prompt.ask(terminal(question.field.replace("_", " ")), console=out, choices=choices)
    return _duration(text) if question.field == "known_after" else (text,) if question.field == "id" else text


def _confirm(name: str) -> None:
    if not sys.stdin.isatty():
        _fail(f"{project.USE_CASES / name} and everything in it would be gone, your edits too: say --yes")
    if not typer.confirm(f"Remove {project.USE_CASES / name} and everything in it?"):
        raise typer.Exit(1)


def _again(before: Mapping[str, Any], given: Mapping[str, Any]) -> Answers:
    """The answers given before, with those given now in their place: columns are added to columns."""
    known = {field.name for field in fields(Answers)}
    answers: dict[str, Any] = {field: value for field, value in before.items() if field in known}
    answers |= {field: tuple(value) for field, value in answers.items() if isinstance(value, list)}
    for field in ("known_after", "known_within"):
        if (seconds := answers.get(field)) is not None:
            answers[field] = timedelta(seconds=seconds)
    for field, value in given.items():
        added = field in ("entities", "no_entities", "after", "dialect")
        answers[field] = tuple(dict.fromkeys((*answers.get(field, ()), *value))) if added else value
    for one, other in (("id", "generate_id"), ("generate_id", "id"), ("known_at", "known_after"), ("known_after", "known_at")):
        if one in given:
            answers.pop(other, None)
    for one, other in (("entities", "no_entities"), ("no_entities", "entities")):
        answers[other] = tuple(each for each in answers.get(other, ()) if each not in given.get(one, ()))
    return Answers(**answers)


def _plain(answers: Answers) -> dict[str, Any]:
    """What was answered, as JSON can hold it."""
    given = {field.name: getattr(answers, field.name) for field in fields(answers)}
    plain = {field: value.total_seconds() if isinstance(value, timedelta) else value for field, value in given.items()}
    return {field: value for field, value in plain.items() if value}


def _sample(name: str) -> str:
    """The file from which a case was made."""
    place = project.USE_CASES / name / "files.toml"
    try:
        content = tomllib.loads(place.read_text(encoding="utf-8"))
        file = re.sub(r"\[(.)\]", r"\1", content["events"]["files"])
        return str((place.parent / content["folder"] / file).resolve())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotInferError(f"--from: {place} does not say from which file the case was made ({error!r}): name it") from error


def _file(name: str | None) -> Path:
    if name is None:
        raise CannotInferError("--from: name a file of events: Parquet, CSV or JSON lines with one row an event")
    if "://" in name:
        raise CannotInferError(
            f"--from: {name}, expected a file on this machine: copy some weeks of events here; the case can read there later"
        )
    return Path(name)


def _duration(text: str, option: str = "--known-after") -> timedelta:
    given = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if given is None:
        raise CannotInferError(f"{option}: {text!r}, expected a time such as 30m, 12h or 7d")
    return int(given[1]) * _UNITS[given[2]]


# Answers ----------------------------------------------------------------------------------------------------------------------


def _describe(name: str, found: Inferred, place: Path) -> None:
    windows = found.windows
    rows = f"{windows.rows:,} events on {windows.filled_days:,} of {windows.days:,} days"
    out.print(f"[bold]{terminal(str(place))}[/]: {rows}, {found.start} to the day before {found.end}", soft_wrap=True)
    later = f"{found.known_at.source} says when" if found.known_at else _shown(found.known_after)
    for what, columns in (
        ("id", _listed(found.ids)),
        ("time", [f"{_name(found.time)} ({found.timezone})"]),
        (
            "label",
            [f"{_name(found.label)}: {found.positive} is a positive, {found.positive_share:.1%} of {found.labelled:,} known"],
        ),
        ("entities", _listed(found.entities) or ["none: name columns that events have in common with --entity"]),
        ("numbers", _listed(found.numbers)),
        ("categories", _listed(found.categories)),
        ("known after", [later]),
        ("known later", _listed(found.after)),
        ("dialect", [f"{setting} = {toml(value)}" for setting, value in found.dialect_settings.items()]),
        ("left out", [f"{source!r} ({why})" for source, why in found.left_out.items()]),
    ):
        if columns:
            out.print(f"  {what:<12}{terminal(', '.join(columns))}", soft_wrap=True)
    learnt = f"{windows.training_days} days or more ({windows.rows_to_learn:,} known labels at first)"
    judged = f"{windows.holdout_days} days ({windows.rows_to_judge:,} known labels)"
    out.print(f"  {'windows':<12}learns from {learnt}, is judged on {judged}", soft_wrap=True)
    out.print(f"  {'live from':<12}{found.first_go_live}, a Monday: the first model learns from the days before it", soft_wrap=True)
    out.print("Inferred, since nobody said it:")
    for line in found.dialect.explanations():
        out.print(f"  {'dialect':<12}{terminal(line)}", soft_wrap=True)
    for line in found.dialect.questions:
        out.print(f"  {'not clear':<12}{terminal(line)}", soft_wrap=True)
    for each in found.inferences:
        answer = "" if each.what != "no entity" else "; otherwise --entity"
        out.print(f"  {each.what:<12}{terminal(f'{each.column}: {each.why}{answer}'.removeprefix(': '))}", soft_wrap=True)
    out.print(f"Read {terminal(str(place / 'README.md'))}, then: ml-assets run {name}", soft_wrap=True)


def _describe_changes(changes: Mapping[str, project.Change]) -> None:
    words = {
        "written": "written again",
        "merged": "written again, with your edits in it",
        "unchanged": "as it was",
        "beside": "as you edited it; what is new could not be put into it and stands in {}.new",
    }
    for file, change in changes.items():
        out.print(f"  {file:<12}{words[change].format(file)}", soft_wrap=True)


def _data_left(name: str) -> list[str]:
    """Where data of a case are, and how to delete them."""
    root = root_folder(settings())
    parts = [f"{kind}/{name}" for kind in ("tables", "models", "reports", "deployments", "decisions", "landing")]
    if isinstance(root, LocalFolder):
        there = [place for part in parts if (place := root.path / part).exists()]
        there += [place for part in ("searches", "serving") if (place := local_folder(settings()) / part / name).exists()]
        if not there:
            return [f"no data of it lie below {root}"]
        return ["its data stay; to delete them: rm -r " + " ".join(quote(str(place.resolve())) for place in there)]
    return [f"its data stay below {root.place(part)}" for part in parts]


def _listed(columns: Sequence[CaseColumn]) -> list[str]:
    return [_name(each) for each in columns]


def _name(column: CaseColumn) -> str:
    """Of the column in the case, with that in the file where it is another one."""
    return column.name if column.name == column.source else f"{column.name} (in the file {column.source!r})"


def _shown(time: timedelta | None) -> str:
    if time is None:
        return "nobody said"
    unit = next(unit for unit in ("d", "h", "m") if not time % _UNITS[unit])
    return f"{time // _UNITS[unit]}{unit}"


def _fail(message: str) -> Never:
    out.print(f"[red]{terminal(message)}[/]", soft_wrap=True)
    raise typer.Exit(1)
