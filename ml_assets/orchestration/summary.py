"""What there is, in a few lines: rows by table, the account of every delivered row, decisions by week, live performance."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ml_assets.orchestration.partitions import case_days, case_weeks
from ml_assets.orchestration.planning import labels_about, recipes, stale_days
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import go_lives, possible_weeks, stale_weeks
from ml_assets.stages.evaluate import Report
from ml_assets.stages.labels import latest_known
from ml_assets.stages.monitor import performance
from ml_assets.use_case import WHOLE, Day, UseCase, shift


@dataclass(frozen=True, kw_only=True, slots=True)
class Week:
    """One decision, and how the model in force did in the week (over the events whose truth is known by now)."""

    week: Day
    report: Report
    in_force: str | None
    days: tuple[Day, ...]
    """Those that are scored."""
    live: dict[str, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Staleness:
    """The partitions of an asset that the next run makes: those that are not there, and those made from what has changed since."""

    asset: str
    missing: list[Day]
    changed: list[Day]


def stale(case: UseCase, store: Store) -> list[Staleness]:
    """What the next run would begin with; what comes after it may turn out to be unchanged."""
    tables, found = store.tables(case), []
    days = list(case_days(case).get_partition_keys())
    for name, recipe in recipes(case).items():
        if recipe.on_demand:
            continue
        published = tables.ledger(name)
        wanted = stale_days(case, store, recipe, [WHOLE] if name in case.undated else days)
        found.append(
            Staleness(
                asset=name,
                missing=[day for day in wanted if day not in published],
                changed=[day for day in wanted if day in published],
            )
        )
    possible, _ = possible_weeks(case, store, go_lives(case, store, case_weeks(case).get_partition_keys()))
    decided = store.models.reports(case.name)
    weeks = stale_weeks(case, store, possible)
    return [
        *found,
        Staleness(
            asset="weekly models",
            missing=[week for week in weeks if week not in decided],
            changed=[week for week in weeks if week in decided],
        ),
    ]


def account(case: UseCase, store: Store) -> pd.DataFrame:
    """What became of every delivered event, one row a day: `delivered` = `scorable` + `rejected` + `waiting`.

    Of a day that is published, `delivered` is the delivery that it was made from: a later one may have been refused.
    `scorable` events have features, `waiting` ones were delivered but are held up by a check; of the scorable, `labelled` ones have a
    known truth.
    """
    tables, events = store.tables(case), case.event_table
    rows = {
        name: pd.Series({day: entry.rows for day, entry in tables.ledger(name).items()}, dtype="int64") for name in _counted(case)
    }
    published = {day: entry.notes["raw_rows"] for day, entry in tables.ledger(events.name).items()}
    found = pd.DataFrame({"delivered": rows[events.raw_name]})
    found["delivered"] = pd.Series(published, dtype="int64").reindex(found.index).fillna(found["delivered"]).astype("int64")
    for name, table in (("scorable", "features"), ("rejected", events.rejected_name)):
        found[name] = rows[table].reindex(found.index, fill_value=0)
    held_up = ~found.index.isin(rows["features"].index)
    found["waiting"] = (found["delivered"] - found["rejected"]).where(held_up, 0)
    labels = (
        tables.read("labels", columns=["event_id", "event_day", "day"])
        if rows["labels"].size
        else pd.DataFrame({"event_id": [], "event_day": []})
    )
    found["labelled"] = labels.groupby("event_day")["event_id"].nunique().reindex(found.index, fill_value=0)
    found["remainder"] = found["delivered"] - found["scorable"] - found["rejected"] - found["waiting"]
    return found


def weeks(case: UseCase, store: Store) -> list[Week]:
    """Every decision so far, in order."""
    tables = store.tables(case)
    reports = {week: Report.from_json(text) for week, text in store.models.reports(case.name).items()}
    scored = list(tables.ledger("scores"))
    reported = labels_about(case, store, min(scored), max(scored)) if scored else pd.DataFrame()
    known = latest_known(reported) if scored else reported
    found = []
    for (week, report), following in zip(reports.items(), [*reports, ""][1:], strict=True):
        last = min(shift(week, 6), shift(following, -1)) if following else shift(week, 6)
        days = [day for day in scored if week <= day <= last]
        deployed = store.models.in_force(case.name, week)
        found.append(
            Week(
                week=week,
                report=report,
                in_force=deployed and deployed[1],
                days=tuple(days),
                live=_live(case, store, days, known, reported) if days else None,
            )
        )
    return found


def live(case: UseCase, store: Store) -> dict[str, float] | None:
    """Performance over all scored days together; None before any."""
    days = list(store.tables(case).ledger("scores"))
    if not days:
        return None
    reported = labels_about(case, store, min(days), max(days))
    return _live(case, store, days, latest_known(reported), reported)


def _live(case: UseCase, store: Store, days: Sequence[Day], known: pd.DataFrame, reported: pd.DataFrame) -> dict[str, float]:
    theirs = known[known["event_day"].between(min(days), max(days))]
    return performance(store.tables(case).read("scores", days), theirs, reported=reported, first=min(days), case=case)


def _counted(case: UseCase) -> list[str]:
    return [case.event_table.raw_name, case.event_table.rejected_name, "features", "labels"]
