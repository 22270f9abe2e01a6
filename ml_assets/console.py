"""What the command prints: tables for people."""

from collections.abc import Sequence

import dagster as dg
import pandas as pd
from rich.console import Console
from rich.table import Table

from ml_assets.escape import terminal
from ml_assets.orchestration import provenance, summary
from ml_assets.orchestration.rounds import RunResult
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import refusals
from ml_assets.sources.files import PROVENANCE, delivered_name
from ml_assets.use_case import UseCase

out = Console(soft_wrap=True, highlight=False)
if not out.is_terminal:
    out.width = 160


def print_account(found: pd.DataFrame) -> None:
    """What became of every delivered event, a line a day."""
    table = Table("day", *found.columns, box=None, header_style="bold")
    for day, row in found.iterrows():
        table.add_row(str(day), *(f"{value:,}" for value in row))
    table.add_section()
    table.add_row("all", *(f"{value:,}" for value in found.sum()))
    out.print(table)


def checks_in_words(results: Sequence[RunResult]) -> str:
    """How many checks there were, and how many failed or warned."""
    checks = [check for result in results for check in result.checks]
    failed = sum(len(result.failed) for result in results)
    warned = sum(not check.passed and check.severity is dg.AssetCheckSeverity.WARN for check in checks)
    return f"{len(checks):,} checks, {failed:,} failed, {warned:,} warned"


def print_stale(found: Sequence[summary.Staleness], news: int) -> None:
    """A line an asset of which partitions are missing or changed; the others in one line."""
    table = Table("asset", "not there", "made from what has changed", "which", box=None, header_style="bold")
    waiting = [each for each in found if each.missing or each.changed]
    for each in waiting:
        which = each.changed or each.missing
        table.add_row(each.asset, f"{len(each.missing):,}", f"{len(each.changed):,}", f"{which[0]} to {which[-1]}")
    if waiting:
        out.print(table)
    fresh = [each.asset for each in found if each not in waiting]
    out.print(f"nothing to make now: {', '.join(fresh) or 'nothing'}")
    out.print(f"{news:,} new observations told to Dagster, which shows the same days as unsynced")


def print_summary(case: UseCase, store: Store, results: Sequence[RunResult], seconds: float | None) -> None:
    """Rows, the account of events, a line a week, live metrics, and where to look next."""
    tables = store.tables(case)
    out.rule(f"[bold]{case.title}", align="left")
    if seconds is not None:
        done = (
            f"{sum(result.materialized for result in results):,} partitions materialised in {len(results)} runs"
            if results
            else "nothing was stale"
        )
        out.print(f"{done}, {seconds:.0f} s; {checks_in_words(results)}")
    rows = Table("table", "days", "rows", box=None, header_style="bold")
    names = [name for table in case.tables for name in table.assets]
    for name in (*names, "labels", "features", "scores", "live_performance"):
        ledger = tables.ledger(name)
        rows.add_row(name, f"{len(ledger):,}", f"{sum(entry.rows for entry in ledger.values()):,}")
    out.print(rows)
    if not tables.ledger("features"):
        out.print("nothing is published yet")
        return
    counts = summary.account(case, store).sum()
    out.print(
        f"{counts['delivered']:,} delivered = {counts['scorable']:,} scorable + {counts['rejected']:,} rejected"
        f" + {counts['waiting']:,} waiting; the truth is known for {counts['labelled']:,}"
    )
    _decisions(summary.weeks(case, store))
    for week, reason in refusals(case, store).items():
        out.print(f"[yellow]{week} refused[/]: no candidate: {terminal(reason)}")
    if figures := summary.live(case, store):
        out.print(
            f"live, {figures['labelled']:,.0f} labelled events: average precision [bold]{figures['average_precision']:.4f}[/]"
            f" (logistic baseline {figures['baseline_average_precision']:.4f}, climatology {figures['climatology_average_precision']:.4f}),"
            f" ROC AUC {figures['roc_auc']:.4f}, precision {figures['precision']:.3f} and recall {figures['recall']:.3f} at the threshold"
        )
    out.print(f"reports: {store.folder.place(f'reports/{case.name}')}/<week>/report.html")
    out.print("[bold]make ui[/] opens the asset graph on what was built: http://localhost:3000")


def _decisions(weeks: list[summary.Week]) -> None:
    """One line a week; average precision (AP) on the hold-out, and live."""
    table = Table("week", "candidate", "AP", "champion", "AP", "baseline AP", "decision", "live AP", box=None, header_style="bold")
    for week in weeks:
        report, champion = week.report, week.report.champion
        table.add_row(
            week.week,
            report.candidate.version[-8:],
            f"{report.candidate.metrics['average_precision']:.4f}",
            champion.version if champion else "none yet",
            f"{champion.metrics['average_precision']:.4f}" if champion else "",
            f"{report.baseline.metrics['average_precision']:.4f}",
            "[green]promoted[/]" if report.decision.promoted else "[yellow]refused[/]",
            f"{week.live['average_precision']:.4f}" if week.live and week.live["positives"] else "not yet",
        )
    out.print(table)
    for week in weeks:
        for reason in week.report.decision.reasons:
            if not reason.passed:
                out.print(
                    f"[yellow]{week.week} refused[/]: {terminal(reason.name)} is {terminal(f'{reason.observed}, wanted {reason.wanted}')}"
                )


def print_provenance(case: UseCase, found: provenance.Provenance) -> None:
    """Everything behind one score."""
    score, manifest, report = found.score, found.manifest, found.report
    out.rule(f"[bold]{terminal(score['event_id'])}", align="left")
    alert = "alert" if score["alert"] else "no alert"
    out.print(
        f"score     {score['score']:.6f}, threshold {score['threshold']:.6f}: {alert} ({case.event_time} {score['event_time']})"
    )
    out.print(f"model     {score['model_version']} ({manifest['family']}, as of {manifest['as_of']})")
    out.print(f"          content hash {manifest['content_hash']}")
    decided = "promoted" if report.decision.promoted else "refused"
    out.print(f"decision  {decided} for the week of {report.week}, before it: {report.decision.champion_before or 'no model'}")
    for reason in report.decision.reasons:
        out.print(terminal(f"          {'✓' if reason.passed else '✗'} {reason.name}: {reason.observed}, wanted {reason.wanted}"))
    first, last = manifest["days"]["training"]
    out.print(
        f"training  {manifest['training_rows']:,} events of {first} to {last}, hold-out {' to '.join(manifest['days']['holdout'])}"
    )
    for table, versions in found.delta_versions.items():
        by_version: dict[int, list[str]] = {}
        for day, version in sorted(versions.items()):
            by_version.setdefault(version, []).append(day)
        for version, days in by_version.items():
            out.print(f"          {table} Delta version {version}: {len(days)} partitions, {days[0]} to {days[-1]}")
    day = found.event["day"]
    out.print(f"tables    {', '.join(f'{table} {day} at Delta version {version}' for table, version in found.published.items())}")
    source = f"{found.raw['source_file']}, row {found.raw['source_row']}, version {found.raw['source_version']}"
    out.print(f"source    {terminal(source)}")
    for name in (column for column in found.raw if column not in PROVENANCE):
        out.print(terminal(f"          {delivered_name(name)}: {provenance.shown(found.raw[name])}"))
    top = [name for name, _ in report.importance[:12]]
    out.print("features  (the model's most important ones)")
    for name in top:
        out.print(terminal(f"          {name}: {provenance.shown(found.features[name])}"))
