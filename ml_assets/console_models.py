"""What `ml-assets models` prints: versions, decisions, and what they rest on, for people and auditors."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from ml_assets.console import out
from ml_assets.escape import terminal
from ml_assets.orchestration import decisions
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.tracking import Mirrored
from ml_assets.stages.metrics import Performance
from ml_assets.storage.decisions import Decision
from ml_assets.use_case import Day, UseCase

COLOURS = {"promoted": "green", "refused": "yellow", "rollback": "red", "pin": "magenta", "unpin": "magenta"}


def print_models(case: UseCase, store: Store, versions: Sequence[decisions.Version], record: Sequence[Decision]) -> None:
    """A line a version, and a line a decision."""
    out.rule(f"[bold]{case.title}: models", align="left")
    table = Table("version", "week", "family", "training days", "rows", "AP on hold-out", "state", box=None, header_style="bold")
    for each in versions:
        manifest = each.manifest
        table.add_row(
            each.version,
            manifest["week"],
            manifest["family"],
            " to ".join(manifest["days"]["training"]),
            f"{manifest['training_rows']:,}",
            f"{each.report['candidate']['metrics']['average_precision']:.4f}" if each.report else "not judged",
            _state(each),
        )
    out.print(table)
    if not record:
        out.print("no decision is recorded yet")
        return
    table = Table("no.", "from", "decision", "in force after it", "by", "at (UTC)", "reason", box=None, header_style="bold")
    for decision in record:
        table.add_row(
            str(decision.number),
            decision.effective,
            _kind(decision),
            decision.version or "no model",
            terminal(decision.decided_by),
            decision.decided_at[:16].replace("T", " "),
            terminal(_in_short(store, decision)),
        )
    out.print(table)


def print_live(case: UseCase, day: Day, found: decisions.Live | None) -> None:
    """What is in force on a day, since when, by which decision, on what grounds, and where its package is."""
    if found is None:
        out.print(f"no model of {case.name} was in force on {day}")
        return
    out.print(f"in force on {day}: [bold]{found.standing.version}[/], since {found.standing.since}")
    if found.decision is None:
        out.print(f"decision   not recorded: it was made before decisions were; the grounds are those of {found.standing.version}")
    else:
        _print_decision(found.decision)
    if found.evidence is not None:
        _print_grounds(found.evidence)
    out.print(f"package    {terminal(str(found.package))}")


def print_decision(decision: Decision, evidence: Mapping[str, Any], place: str) -> None:
    """The auditor's page: a decision with its whole evidence."""
    out.rule(f"[bold]{decision.case}: decision {decision.number}", align="left")
    _print_decision(decision)
    out.print(f"in force   {decision.version or 'no model'} after it, {decision.champion_before or 'no model'} before it")
    if decision.candidate:
        out.print(f"candidate  {decision.candidate}")
    if "holdout_rows" in evidence:
        out.print(
            f"hold-out   {evidence['holdout_rows']:,} events of {evidence['holdout_first']} to {evidence['holdout_last']},"
            f" {evidence['positives']:,} positive; as of {evidence['as_of']}"
        )
    _print_grounds(evidence)
    models = {name: evidence.get(name) for name in ("candidate", "champion", "baseline", "climatology")}
    there = {name: model["metrics"] for name, model in models.items() if model}
    if there:
        out.print(_metrics(there))
    if comparison := evidence.get("comparison"):
        out.print("candidate minus champion, paired bootstrap by day:")
        for name, value in comparison.items():
            out.print(f"           {name}: {value:,.4f}")
    out.print(f"record     {decision.content_hash}")
    out.print(f"evidence   {decision.evidence} ({terminal(place)})")


def print_change(case: UseCase, change: decisions.Change) -> None:
    """What a person changed, and what is stale now."""
    decision = change.decision
    _print_decision(decision)
    out.print(
        f"in force   {decision.version or 'no model'} from {decision.effective} on, {decision.champion_before or 'no model'} before it"
    )
    stale = []
    if change.scores:
        stale.append(f"the scores of {_counted(len(change.scores), 'day')} ({change.scores[0]} to {change.scores[-1]})")
    if change.weeks:
        stale.append(f"{_counted(len(change.weeks), 'week')} from {change.weeks[0]} on, with another champion to beat")
    if stale:
        out.print(f"stale      {' and '.join(stale)}: [bold]ml-assets run {case.name}[/] makes them again")
    else:
        out.print(f"stale      nothing: no day from {decision.effective} on has scores of another version")
    for warning in change.warnings:
        out.print(f"[yellow]warning[/]    {terminal(warning)}")


def print_mirrored(case: UseCase, told: Mirrored) -> None:
    """What a tracking server was told just now."""
    for what, versions in (("models", told.logged), ("decisions", told.judged)):
        out.print(f"{what:10} {len(versions)} logged{': ' if versions else ''}{', '.join(versions)}")
    for alias, version in told.moved.items():
        out.print(f"{alias:10} is {version or 'no model'} now")
    if not (told.logged or told.judged or told.moved):
        out.print(f"everything of {case.name} was there")


def print_versions_side_by_side(first: decisions.Version, second: decisions.Version) -> None:
    """What two models were made from, and what the gate saw of each on its own hold-out."""
    table = Table("", first.version, second.version, box=None, header_style="bold")
    pair = (first, second)
    table.add_row("state", *map(_state, pair))
    for name in ("family", "threshold"):
        table.add_row(name, *(str(each.manifest[name]) for each in pair))
    table.add_row("training days", *(" to ".join(each.manifest["days"]["training"]) for each in pair))
    table.add_row("hold-out days", *(" to ".join(each.manifest["days"]["holdout"]) for each in pair))
    table.add_row("training rows", *(f"{each.manifest['training_rows']:,}" for each in pair))
    different = decisions.differences(first.manifest, second.manifest)
    for name, values in different.items():
        table.add_row(terminal(name), *("not there" if value is None else terminal(str(value)) for value in values))
    if not different:
        table.add_row("parameters, features", "the same", "the same")
    out.print(table)
    reports = {each.version: each.report["candidate"]["metrics"] for each in pair if each.report}
    if reports:
        out.print("as the gate saw them, each on its own hold-out:")
        out.print(_metrics(reports))


def print_same_rows(found: decisions.SameRows) -> None:
    """Two models on the same events."""
    first, second = found.performances
    out.print(
        f"on the same {found.rows:,} events of {' to '.join(found.days)}, {found.positives:,} positive, with the labels known now:"
    )
    out.print(_metrics({each.version: _metrics_of(each) for each in found.performances}))
    comparison = found.comparison
    out.print(
        f"average precision of {second.version} minus that of {first.version}: [bold]{comparison['mean_difference']:+.4f}[/]"
        f" ({comparison['interval_low']:+.4f} to {comparison['interval_high']:+.4f} in 95 % of"
        f" {comparison['resamples']:,.0f} resamples of whole days)"
    )
    for version in found.trained_on_them:
        out.print(f"[yellow]{version} was trained on some of these days[/], and looks better on them than it is")


def _print_decision(decision: Decision) -> None:
    out.print(
        f"decision   {decision.number}, {_kind(decision)} from {decision.effective} on,"
        f" by {terminal(decision.decided_by)} at {decision.decided_at}"
    )
    out.print(f"reason     {terminal(decision.reason)}")


def _print_grounds(evidence: Mapping[str, Any]) -> None:
    """The gate's conditions, or what a person was shown."""
    if reasons := evidence.get("decision", {}).get("reasons"):
        table = Table("", "condition", "observed", "wanted", box=None, header_style="bold")
        for each in reasons:
            mark = "[green]✓[/]" if each["passed"] else "[yellow]✗[/]"
            table.add_row(mark, *(terminal(each[name]) for name in ("name", "observed", "wanted")))
        out.print(table)
    if "in_force" in evidence:
        before = evidence["in_force"] or {"version": "no model", "since": "the start"}
        out.print(f"seen       {before['version']} in force since {before['since']}")
    if days := evidence.get("live"):
        shown = ("day", "events", "labelled", "positives", "alerts", "precision", "recall", "roc_auc", "average_precision")
        table = Table(*shown, box=None, header_style="bold")
        for day in days:
            table.add_row(*(_figure(day.get(name)) for name in shown))
        out.print(table)


def _metrics(of: Mapping[str, Mapping[str, float]]) -> Table:
    """Metrics down, models across."""
    table = Table("metric", *of, box=None, header_style="bold")
    for name in dict.fromkeys(name for metrics in of.values() for name in metrics):
        table.add_row(name, *(_figure(metrics.get(name)) for metrics in of.values()))
    return table


def _metrics_of(performance: Performance) -> dict[str, float]:
    return {**performance.metrics, "threshold": performance.threshold}


def _figure(value: str | float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _state(version: decisions.Version) -> str:
    """When it was in force; a version can come back."""
    if not version.periods:
        return "never in force"
    return ", ".join(
        f"[green]in force since {each.first}[/]" if each.last is None else f"{each.first} to {each.last}"
        for each in version.periods
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _kind(decision: Decision) -> str:
    return f"[{COLOURS[decision.kind]}]{decision.kind}[/]"


def _in_short(store: Store, decision: Decision) -> str:
    """Of a refusal, what failed."""
    if decision.kind != "refused":
        return decision.reason
    return "; ".join(decisions.failed_reasons(decisions.evidence_of(store, decision))) or decision.reason
