"""`ml-assets new`: a use case from a file of events."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Never

import typer
from rich.console import Console
from rich.markup import escape

from ml_assets.scaffold.infer import CannotInferError, Inferred, Wishes, infer
from ml_assets.scaffold.write import CannotWriteError, add, require_free

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console(highlight=False)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
Columns = list[str] | None


@app.callback()
def commands() -> None:
    """Makes `new` a command with a name, also while it is the only one."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the case, such as late_orders.", metavar="NAME")],
    file: Annotated[str, typer.Option("--from", help="Parquet, CSV or JSON lines with one row an event.", metavar="FILE")],
    known_after: Annotated[str, typer.Option(help="How long after an event its label is known, which no file says: 30m, 12h, 7d.")],
    time: Annotated[str | None, typer.Option(help="Column that says when an event happened.", metavar="COLUMN")] = None,
    label: Annotated[str | None, typer.Option(help="Column with two values: what is predicted.", metavar="COLUMN")] = None,
    id: Annotated[str | None, typer.Option(help="Column that identifies an event.", metavar="COLUMN")] = None,
    entity: Annotated[Columns, typer.Option(help="Column whose past features look at; may be repeated.", metavar="COLUMN")] = None,
    after: Annotated[
        Columns, typer.Option(help="Column that is known only with the label; may be repeated.", metavar="COLUMN")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The value of the label that is a positive.")] = None,
    timezone: Annotated[str, typer.Option(help="In which a day is a day, and clock times without an offset are.")] = "UTC",
) -> None:
    """Write a use case from a file of events: five files to read and correct, ready to run. What is not clear is asked for."""
    try:
        require_free(name)
        wishes = Wishes(
            time=time,
            label=label,
            id=id,
            entities=tuple(entity or ()),
            positive=positive,
            after=tuple(after or ()),
            known_after=_duration(known_after),
            timezone=timezone,
        )
        if "://" in file:
            raise CannotInferError(
                f"--from: {file}, expected a file on this machine: copy some weeks of events here; the case can read there later"
            )
        found = infer(Path(file), wishes)
        place = add(name, found)
    except (CannotInferError, CannotWriteError) as error:
        _fail(str(error))
    _tell(name, found, place)


def _tell(name: str, found: Inferred, place: Path) -> None:
    out.print(f"[bold]{place}[/]: {found.rows:,} events from {found.start} to the day before {found.end}", soft_wrap=True)
    for what, columns in (
        ("id", [found.id.source]),
        ("time", [f"{found.time.source} ({found.timezone})"]),
        ("label", [f"{found.label.source}: {found.positive} is a positive, {found.positive_share:.1%} of all"]),
        ("entities", [each.source for each in found.entities] or ["none: name columns that events have in common with --entity"]),
        ("numbers", [each.source for each in found.numbers]),
        ("categories", [each.source for each in found.categories]),
        ("known after", [_said(found.known_after)]),
        ("known later", [each.source for each in found.after]),
        ("left out", [f"{source} ({why})" for source, why in found.left_out.items()]),
    ):
        if columns:
            out.print(f"  {what:<12}{escape(', '.join(columns))}", soft_wrap=True)
    out.print(f"  {'live from':<12}{found.first_go_live}, a Monday: the first model learns from the days before it", soft_wrap=True)
    out.print(f"Read {place / 'README.md'}, then: ml-assets run {name}", soft_wrap=True)


def _said(time: timedelta) -> str:
    unit = next(unit for unit in ("d", "h", "m") if not time % _UNITS[unit])
    return f"{time // _UNITS[unit]}{unit}"


def _duration(text: str) -> timedelta:
    given = re.fullmatch(r"([0-9]+)([mhd])", text)
    if given is None:
        raise CannotInferError(f"--known-after: {text!r}, expected a time such as 30m, 12h or 7d")
    return int(given[1]) * _UNITS[given[2]]


def _fail(message: str) -> Never:
    out.print(f"[red]{escape(message)}[/]", soft_wrap=True)
    raise typer.Exit(1)
