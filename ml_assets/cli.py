"""The command `ml-assets`: the same assets as in the Dagster UI, with a progress bar and a summary."""

import getpass
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Never
from zoneinfo import ZoneInfo

import dagster as dg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ml_assets import clock as clocks
from ml_assets.console import checks_in_words, out, print_account, print_provenance, print_stale, print_summary
from ml_assets.console_models import (
    print_change,
    print_decision,
    print_live,
    print_mirrored,
    print_models,
    print_same_rows,
    print_versions_side_by_side,
)
from ml_assets.escape import terminal
from ml_assets.orchestration import decisions, provenance, staleness, summary, tracking
from ml_assets.orchestration.extracts import ExtractError
from ml_assets.orchestration.partitions import case_days, case_weeks, daily_tables_of
from ml_assets.orchestration.planning import recipes
from ml_assets.orchestration.publish import described
from ml_assets.orchestration.rounds import AFTER_DEPLOYMENT, Runner, RunResult, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weekly import WeeksFailedError
from ml_assets.orchestration.weeks import WEEKLY
from ml_assets.scaffold import commands as scaffold
from ml_assets.serving import commands as serving
from ml_assets.settings import settings
from ml_assets.sources import landing
from ml_assets.sources.landing import LandedRows
from ml_assets.storage.decisions import Manual
from ml_assets.use_case import WHOLE, Day, UseCase, shift
from ml_assets.use_cases import find

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
models = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(models, name="models")
app.registered_commands += [*serving.app.registered_commands, *scaffold.app.registered_commands]
app.registered_groups += serving.app.registered_groups

DAILY = "the daily assets, in the order in which they depend on each other"
CaseName = Annotated[str, typer.Argument(help="Name of a use case, such as flight_delays.", metavar="CASE")]
VersionName = Annotated[str, typer.Argument(help="A version, as the list shows it.", metavar="VERSION")]
Reason = Annotated[str, typer.Option(help="Why; it is kept for good.")]
Effective = Annotated[
    str | None, typer.Option("--from", help="First day that it is about, YYYY-MM-DD; by default the first day without scores.")
]
Person = Annotated[str | None, typer.Option("--by", help="Who decides; by default who is logged in.")]


@app.command()
def run(
    case: CaseName, to: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD; all days when left out.")] = None
) -> None:
    """Bring everything up to date: ingest, clean, features, weekly models and decisions, scores, live performance."""
    chosen, store = _case(case), Store()
    if to is not None:
        _key(to, case_days(chosen).get_partition_keys(), to)
    started = time.monotonic()
    with _running(chosen, store) as runner:
        bring_up_to_date(runner, last=to)
    print_summary(chosen, store, runner.results, time.monotonic() - started)
    _exit_on_failed(runner.results)


@app.command()
def materialize(
    case: CaseName,
    select: Annotated[str, typer.Option(help=f"Assets, separated by commas; by default {DAILY}.")] = "",
    first: Annotated[str | None, typer.Option("--from", help="First partition, YYYY-MM-DD.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last partition, YYYY-MM-DD.")] = None,
) -> None:
    """Materialise a range of partitions of some assets in one run, whether they are stale or not."""
    chosen, store = _case(case), Store()
    lines = [name for table in chosen.daily_tables for name in (table.raw_name, table.name)]
    tables = [name.strip() for name in select.split(",") if name.strip()] or [
        *lines,
        "labels",
        "features",
        *(name for name in chain.from_iterable(AFTER_DEPLOYMENT) if name in recipes(chosen)),
    ]
    keys = _partitions(chosen, tables)
    start, end = _key(first, keys, keys[0]), _key(last, keys, first or keys[-1])
    if start > end:
        _fail(f"--from {start} is after --to {end}")
    with _running(chosen, store) as runner:
        result = runner.run(daily_tables_of(chosen, tables), start, end, title="materialize")
    out.print(f"{result.materialized:,} partitions materialised; {checks_in_words([result])}; run {result.run_id}")
    _exit_on_failed([result])


@app.command()
def explain(case: CaseName, event_id: Annotated[str, typer.Argument(help="The event, such as 20131223-UA374-EWR.")]) -> None:
    """Where a score comes from: model, decision, training data, Delta versions, delivered rows."""
    chosen = _case(case)
    try:
        found = provenance.explain(chosen, Store(), event_id)
    except LookupError as error:
        _fail(str(error.args[0]))
    print_provenance(chosen, found)


@app.command()
def account(case: CaseName) -> None:
    """What became of every delivered event, day by day: scorable + rejected + waiting, no remainder."""
    found = summary.account(_case(case), Store())
    if found.empty:
        _fail(f"nothing is published yet: ml-assets run {case}")
    print_account(found)
    if found["remainder"].any():
        _fail("some delivered events are not accounted for")


@app.command(name="summary")
def show_summary(case: CaseName) -> None:
    """Rows, checks, decisions and live performance of what was built so far."""
    print_summary(_case(case), Store(), [], None)


@app.command()
def stale(case: CaseName) -> None:
    """What the next run would make again, a late delivery or label included; Dagster is told, too, and shows it."""
    chosen, store = _case(case), Store()
    news = staleness.look(chosen, store, _instance())
    print_stale(summary.stale(chosen, store), news)


@app.command()
def land(
    case: CaseName,
    select: Annotated[str, typer.Option(help="Tables, separated by commas; by default all that arrive in a feed.")] = "",
    once: Annotated[bool, typer.Option(help="End with what is there now.")] = False,
    skip_lost: Annotated[bool, typer.Option(help="Go on behind messages that a broker deleted before they were read.")] = False,
) -> None:
    """Land what arrives in feeds (Kafka, HTTP pages, event streams) until it is interrupted; it goes on where it was."""
    chosen = _case(case)
    sources = {table.name: table.source(settings()) for table in chosen.daily_tables}
    feeds = {name: source.landing for name, source in sources.items() if isinstance(source, LandedRows)}
    wanted = [name.strip() for name in select.split(",") if name.strip()] or list(feeds)
    if not wanted or set(wanted) - set(feeds):
        unknown = ", ".join(sorted(set(wanted) - set(feeds)))
        _fail(f"no table {unknown} of {case} arrives in a feed; those that do: {', '.join(feeds) or 'none'}")
    try:
        with _plain_errors():
            landing.land({name: feeds[name] for name in wanted}, once=once, skip_lost=skip_lost, told=out.print)
    except landing.FeedError as error:
        _fail(str(error))


@app.command()
def clock(
    case: CaseName,
    first: Annotated[str | None, typer.Option("--from", help="Replay from this day on, YYYY-MM-DD.")] = None,
    day_seconds: Annotated[float, typer.Option(help="Real seconds that a replayed day takes.")] = 30.0,
    real: Annotated[bool, typer.Option("--real", help="Back to the real time.")] = False,
) -> None:
    """What time it is for schedules and sensors: the real time, or a replayed one, in which days are delivered as they end."""
    chosen, folder = _case(case), Store().local
    with _plain_errors():
        if first is not None:
            _key(first, case_days(chosen).get_partition_keys(), first)
            clocks.replay(folder, chosen, first=first, day_seconds=day_seconds)
            out.print("sensors look oftener while a clock is replayed: start `make ui` now, or reload its code location")
        elif real:
            clocks.stop(folder, chosen.name)
        found = clocks.read_clock(folder, chosen.name)
    there = found.now().astimezone(ZoneInfo(chosen.timezone))
    said = f"replayed, a day in {found.day_seconds:g} seconds" if found.replays else "the real time"
    out.print(f"{chosen.name}: {there:%Y-%m-%d %H:%M} {chosen.timezone}, {said}")


@models.callback(invoke_without_command=True)
def list_models(context: typer.Context, case: CaseName) -> None:
    """Which models there are, what was in force when, who decided it and why; and the decisions that a person may take."""
    context.obj = _case(case)
    if context.invoked_subcommand is None:
        store = Store()
        with _plain_errors():
            print_models(context.obj, store, decisions.versions(context.obj, store), store.models.decisions.all(context.obj.name))


@models.command()
def live(
    context: typer.Context,
    at: Annotated[str | None, typer.Option(help="The day, YYYY-MM-DD; by default the last day of the case.")] = None,
) -> None:
    """What was in force on a day, since when, by which decision and on what grounds."""
    case: UseCase = context.obj
    day = _day(at) or case_days(case).get_partition_keys()[-1]
    with _plain_errors():
        print_live(case, day, decisions.live(case, Store(), day))


@models.command()
def rollback(
    context: typer.Context,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="A version; by default the one in force before the present one.")] = None,
    effective: Effective = None,
    by: Person = None,
) -> None:
    """Put an earlier version in force until the gate next promotes a candidate, which has to beat it."""
    _decide(context.obj, "rollback", version=to, effective=effective, reason=reason, by=by)


@models.command()
def pin(context: typer.Context, version: VersionName, reason: Reason, effective: Effective = None, by: Person = None) -> None:
    """Keep a version in force, whatever the gate promotes, until it is unpinned."""
    _decide(context.obj, "pin", version=version, effective=effective, reason=reason, by=by)


@models.command()
def unpin(context: typer.Context, reason: Reason, effective: Effective = None, by: Person = None) -> None:
    """Let the gate's latest promotion, or the latest rollback, be in force again."""
    _decide(context.obj, "unpin", version=None, effective=effective, reason=reason, by=by)


@models.command()
def show(context: typer.Context, number: Annotated[int, typer.Argument(help="Number of a decision.", metavar="NUMBER")]) -> None:
    """A decision with its whole evidence, as it was when it was taken."""
    store = Store()
    with _plain_errors():
        decision = decisions.find_decision(context.obj, store, number)
        evidence = decisions.evidence_of(store, decision)
        print_decision(decision, evidence, store.models.decisions.evidence_place(decision))


@models.command()
def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(help="A version.", metavar="A")],
    second: Annotated[str, typer.Argument(help="Another version.", metavar="B")],
) -> None:
    """Two versions side by side: how they were made, what the gate saw, and both on the same events."""
    case, store = context.obj, Store()
    with _plain_errors():
        pair = [decisions.find_version(case, store, version) for version in (first, second)]
        print_versions_side_by_side(*pair)
        print_same_rows(decisions.on_same_rows(case, store, *pair))


@models.command()
def track(context: typer.Context) -> None:
    """Tell the MLflow server that MLFLOW_TRACKING_URI names everything that it does not have yet, and set its aliases."""
    with _plain_errors():
        print_mirrored(context.obj, tracking.track(context.obj, Store()))


def _decide(case: UseCase, kind: Manual, *, version: str | None, effective: str | None, reason: str, by: str | None) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with _plain_errors():
        change = decisions.decide(
            case,
            Store(),
            kind,
            version=version,
            effective=_day(effective),
            reason=reason,
            decided_by=by or _user(),
            decided_at=now,
        )
    print_change(case, change)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError up to Python 3.12
        _fail("nobody is logged in: say with --by who decides")


def _day(given: str | None) -> Day | None:
    try:
        return given and date.fromisoformat(given).isoformat()
    except ValueError:
        _fail(f"{given!r} is not a day: expected one that exists, written YYYY-MM-DD")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What is not there, makes no sense or is damaged is said in the words of the error."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        _fail(str(error))


def _case(name: str) -> UseCase:
    """The use case, with sources that can be opened: a wrong setting is said before anything runs."""
    try:
        found = find(name, settings())
        for table in found.tables:
            table.source(settings())
        return found
    except (KeyError, ValueError) as error:
        _fail(str(error.args[0]))


def _partitions(case: UseCase, tables: list[str]) -> list[str]:
    """The partition keys that these assets have in common."""
    kinds = {
        "days": [name for name in recipes(case) if name not in case.undated],
        "weeks": list(WEEKLY),
        "no partitions": [name for name in recipes(case) if name in case.undated],
    }
    known = [name for names in kinds.values() for name in names]
    if unknown := [name for name in tables if name not in known]:
        _fail(f"no asset {', '.join(unknown)} in {case.name}; there are {', '.join(known)}")
    of_kind = {kind for kind, names in kinds.items() if set(names) & set(tables)}
    if len(of_kind) != 1:
        _fail(
            f"one run has one kind of partitions; {', '.join(tables)} have {' and '.join(sorted(of_kind))}: materialise them one by one"
        )
    partitions = {
        "days": case_days(case).get_partition_keys(),
        "weeks": case_weeks(case).get_partition_keys(),
        "no partitions": [WHOLE],
    }
    return list(partitions[of_kind.pop()])


def _key(given: str | None, keys: Sequence[str], default: str) -> str:
    chosen = given or default
    if chosen not in keys:
        _fail(
            f"no partition {chosen}; they go from {keys[0]} to {keys[-1]}"
            + (" by weeks" if len(keys) > 1 and keys[1] != shift(keys[0], 1) else "")
        )
    return chosen


def _fail(message: str) -> Never:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/] {terminal(message)}")
    raise typer.Exit(1)


def _instance() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME, by default the current folder, which holds dagster.yaml."""
    os.environ.setdefault("DAGSTER_HOME", str(Path.cwd()))
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    if not (Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml").is_file():
        _fail(f"no dagster.yaml in {os.environ['DAGSTER_HOME']}: run this in the project's folder, or set DAGSTER_HOME to it")
    return dg.DagsterInstance.get()


class _Listener:
    """Turns what a run logs into a bar (partitions published) and the latest line of its steps; plain lines where there is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("starting", total=None)

    def __call__(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is not None:
            self._event(event)
        elif record.levelno >= logging.INFO:
            self._say(str(meta.get("orig_message", record.getMessage())), failed=record.levelno >= logging.ERROR)

    def begin(self, title: str, partitions: int) -> None:
        """A new run starts: a new bar."""
        self.progress.update(self.task, description=title, completed=0, total=partitions)

    def _event(self, event: dg.DagsterEvent) -> None:
        match event.event_type:
            case dg.DagsterEventType.ASSET_MATERIALIZATION:
                self.progress.advance(self.task)
            case dg.DagsterEventType.STEP_START:
                self.progress.update(self.task, description=str(event.step_key).split("__", 1)[-1])

    def _say(self, text: str, *, failed: bool) -> None:
        stamp, text = time.strftime("%H:%M:%S"), terminal(text)
        self.progress.console.print(f"[dim]{stamp}[/] [red]{text}[/]" if failed else f"[dim]{stamp}[/] {text}", soft_wrap=True)


@contextmanager
def _running(case: UseCase, store: Store) -> Iterator[Runner]:
    """Runs whose progress is shown; a wrong setting is said before the first."""
    with _listening() as heard:
        runner = Runner(case=case, store=store, instance=_instance(), heard=heard, begun=heard.begin)
        with _plain_errors():
            _ = runner.definitions
        yield runner


@contextmanager
def _listening() -> Iterator[_Listener]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("partitions"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=out, transient=True, disable=not sys.stdout.isatty()) as progress:
            yield _Listener(progress)
    except (ExtractError, WeeksFailedError) as error:
        _fail(str(error))


def _exit_on_failed(results: list[RunResult]) -> None:
    failed = [check for result in results for check in result.failed]
    for check in failed[:20]:
        out.print(f"[red]✗[/] {check.asset_key.path[-1]} {check.partition}: {check.check_name}: {terminal(described(check))}")
    if len(failed) > 20:
        out.print(f"[red]✗[/] and {len(failed) - 20:,} more")
    if failed:
        raise typer.Exit(1)
