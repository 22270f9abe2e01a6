"""`ml-assets serve`, `replay` and `keys`: the commands that need no Dagster and start without it."""

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Annotated, Never

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ml_assets.escape import terminal
from ml_assets.serving.keys import SCOPES, create_key, list_keys, revoke_key
from ml_assets.settings import settings
from ml_assets.storage.models import ModelStore
from ml_assets.storage.online import StoreDownError
from ml_assets.storage.places import ONLINE_STORE, local_folder, online_address, root_folder
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases import USE_CASES, find

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="API keys of the service: create, list, revoke.")
app.add_typer(keys, name="keys")
out = Console(highlight=False)


@app.command()
def serve(
    cases: Annotated[list[str] | None, typer.Argument(help="By default all that have a deployed model.", metavar="CASE…")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than the loopback needs API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    store: Annotated[str | None, typer.Option(help=f"Online store: a folder or a URL; by default {ONLINE_STORE}.")] = None,
    requests_a_second: Annotated[float | None, typer.Option(min=0.1, help="The most that one API key may send on average.")] = None,
) -> None:
    """Score events over HTTP: POST /v1/CASE/score; /docs describes the rest, / shows what happens."""
    from ml_assets.serving.server import Settings, serve

    root = root_folder(settings())
    chosen = tuple(_case(name).name for name in cases or _deployed(ModelStore(root=root)))
    if not chosen:
        _fail(f"no model is deployed in {root.place()}: ml-assets run CASE, or set ML_ASSETS_ROOT to where one is")
    service = Settings(
        cases=chosen,
        root=root.place(),
        local=str(local_folder(settings())),
        store=store or online_address(settings()),
        host=host,
        port=port,
        workers=workers,
        requests_a_second=requests_a_second,
    )
    out.print(
        f"{', '.join(chosen)} at http://{host}:{port} (/docs, /readyz, /metrics); online store {_without_password(service.store)}"
    )
    try:
        serve(service)
    except (ValueError, StoreDownError) as error:
        _fail(str(error))


@app.command()
def replay(
    case: Annotated[str, typer.Argument(help="Name of a use case, such as card_fraud.", metavar="CASE")],
    day: Annotated[str, typer.Option(help="First day to send, YYYY-MM-DD.")],
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 1,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Times as fast as in life; without it as fast as it goes.")] = None,
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
    key: Annotated[str | None, typer.Option(envvar="ML_ASSETS_API_KEY", help="API key with the scopes score and feedback.")] = None,
    connections: Annotated[int, typer.Option(min=1, max=256, help="Requests under way at most.")] = 8,
    patience: Annotated[float, typer.Option(min=0, help="Seconds for which a service that is down is asked again.")] = 30,
    save: Annotated[Path | None, typer.Option(help="File for the answers with all features, a line each.")] = None,
) -> None:
    """Send days of a use case to the service as live traffic: events to be scored, labels when they become known."""
    from ml_assets.serving.replay import NoServiceError, calls_of, send

    chosen = _case(case)
    wanted = _days(chosen, day, days)
    try:
        calls, rejected = calls_of(chosen, wanted, dict(settings()))
    except (ValueError, OSError) as error:
        _fail(str(error))
    if not calls:
        _fail(f"there is nothing to send on {wanted[0]}")
    columns = (TextColumn(f"{wanted[0]} to {wanted[-1]}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, console=out, transient=True, disable=not out.is_terminal))
        file = stack.enter_context(save.open("wb")) if save else None
        task = bar.add_task("", total=len(calls))

        def heard(answer: bytes) -> None:
            if file is not None:
                file.write(answer + b"\n")

        try:
            traffic = send(
                calls,
                url=url.rstrip("/"),
                key=key,
                speed=speed,
                connections=connections,
                patience=patience,
                heard=heard,
                progress=lambda _: bar.advance(task),
                query="?features=true" if save else "",
            )
        except NoServiceError as error:
            _fail(f"{error}: is it running? ml-assets serve {case}")
    times = sorted(traffic.milliseconds) or [float("nan")]
    out.print(
        f"{traffic.scored:,} scored, {traffic.alerts:,} alerts, {traffic.observed:,} labels and other rows; "
        f"p50 {times[len(times) // 2]:.1f} ms, p99 {times[int(0.99 * (len(times) - 1))]:.1f} ms"
        + (f"; {traffic.degraded:,} degraded" if traffic.degraded else "")
        + "".join(f"; {count:,} rows of {table} cannot be taken in" for table, count in rejected.items() if count)
    )
    for text, count in sorted(traffic.refused.items(), key=lambda item: -item[1]):
        out.print(f"[red]✗[/] {count:,} times {terminal(text)}")
    if traffic.refused:
        raise typer.Exit(1)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.", metavar="NAME")],
    scope: Annotated[list[str], typer.Option(help=f"{', '.join(SCOPES)}; more than one by repeating it.")],
) -> None:
    """Make a key and print it: it cannot be seen again."""
    try:
        out.print(create_key(_keys_file(), name=name, scopes=scope), soft_wrap=True)
    except ValueError as error:
        _fail(str(error))


@keys.command(name="list")
def show() -> None:
    """Who has a key, for what, since when."""
    table = Table("name", "scopes", "created", box=None, header_style="bold")
    for key in list_keys(_keys_file()):
        table.add_row(terminal(key["name"]), ", ".join(key["scopes"]), key["created"])
    out.print(table if table.row_count else "no keys: on this machine everyone is let in")


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="Whose key.", metavar="NAME")]) -> None:
    """Take a key away, within a second."""
    try:
        revoke_key(_keys_file(), name)
    except KeyError as error:
        _fail(str(error.args[0]))


def _keys_file() -> Path:
    return local_folder(settings()) / "serving" / "keys.json"


def _deployed(models: ModelStore) -> Sequence[str]:
    return [case.name for case in USE_CASES if models.current(case.name) is not None]


def _case(name: str) -> UseCase:
    try:
        return find(name, settings())
    except (KeyError, ValueError) as error:
        _fail(str(error.args[0]))


def _days(case: UseCase, first: str, count: int) -> list[Day]:
    try:
        begin = date.fromisoformat(first).isoformat()
    except ValueError:
        _fail(f"{first!r} is not a day: expected one that exists, written YYYY-MM-DD")
    last = shift(begin, count - 1)
    if begin < case.start or (case.end and last >= case.end):
        _fail(f"{case.name} goes from {case.start} to {shift(case.end, -1) if case.end else 'today'}; asked for {begin} to {last}")
    return day_range(begin, last)


def _without_password(address: str) -> str:
    return address if "@" not in address else f"{address.split('://')[0]}://…@{address.rsplit('@', 1)[1]}"


def _fail(message: str) -> Never:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/] {terminal(message)}")
    raise typer.Exit(1)
