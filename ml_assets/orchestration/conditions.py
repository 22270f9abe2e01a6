"""Declarative automation: the condition under which a partition is made by itself, for everything between raw rows and reports.

Belongs here: when Dagster asks for a partition. Does not: what is stale (`planning`), what sensors ask for (`sensors`), what is asked for
at a time of day (`schedules`).

Each asset is asked for where it *is not made from what is there now*, and neither it nor anything that it depends on is in progress. Why
an operand of our own, and not Dagster's `eager`, is in docs/adr/0019-automation.md: a day looks back over weeks, of which any may be
missing or refused, and that must not hold it up; content that comes again unchanged must not start anything.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.declarative_automation.automation_context import AutomationContext
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from ml_assets.clock import Clock, read_clock
from ml_assets.orchestration import backtest, overview, shadow
from ml_assets.orchestration.pages import Page
from ml_assets.orchestration.planning import Recipe, automatic_days, recipes, shadow_versions
from ml_assets.orchestration.sensors import CASE_TAG
from ml_assets.orchestration.store import Store
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import WHOLE, Day, UseCase

WITH_UPSTREAM = {
    "scores": "features",
    "estimated_performance": "features",
    "drift_report": "features",
    "shadow_scores": "features",
    "performance_report": "live_performance",
}
"""Tables that are asked for together with another one, in the same run, so that a payment has its score after one run and not two."""
BY_CONDITION: tuple[str, ...] = (
    *("labels", "features", "scores", "estimated_performance", "drift_report", "shadow_scores"),
    *("live_performance", "performance_report", "prediction_log"),
)
EVERY_DAY = ("features", "scores", "drift_report")
"""Assets that have a new day each day. Dagster's policy knows an asset and not its partitions: a backfill makes it fresh, too."""


def pages_of(case: UseCase) -> dict[str, Page]:
    """The assets without partitions that show what was made."""
    pages = [*([shadow.PAGE] if case.monitoring.shadow else []), backtest.PAGE, overview.PAGE]
    return {page.name: page for page in pages}


class Seen:
    """Versions and decisions of a case, read once a tick for all of its conditions: most ticks do nothing else."""

    def __init__(self, case: UseCase, store: Store) -> None:
        self._case, self._store = case, store
        self._by_tick: WeakKeyDictionary[AssetGraphView, dict[str, Any]] = WeakKeyDictionary()

    def version(self, tick: AssetGraphView, table: str) -> int:
        """The latest of a table."""
        return int(self._once(tick, table, lambda: self._store.tables(self._case).version(table)))

    def decided(self, tick: AssetGraphView) -> str:
        """Hash of what is deployed, decided and reported."""
        return str(self._once(tick, "", self._decided))

    def _decided(self) -> str:
        models, case = self._store.models, self._case.name
        return fingerprint(models.deployments(case), len(models.decisions.all(case)), sorted(models.reports(case)))

    def _once(self, tick: AssetGraphView, name: str, read: Callable[[], Any]) -> Any:
        of_tick = self._by_tick.setdefault(tick, {})
        if name not in of_tick:
            of_tick[name] = read()
        return of_tick[name]


@dataclass(frozen=True, eq=False)
class Stale(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that can be made, are not made from what is published now, and were not asked for from the very same before.

    What was asked for is forgotten once it is made: a day that fails is asked for once, until something that it is made from changes or
    the nightly schedule tries again.
    """

    case: UseCase
    table: str
    store: Store
    seen: Seen

    @property
    def name(self) -> str:
        return "not_made_from_what_is_there"

    @property
    def description(self) -> str:
        late = (
            ""
            if self.case.monitoring.remake_late
            else "Not made yet; what is made from an earlier delivery is left (remake_late). "
        )
        return late + "Can be made, is not made from what is published now, and was not asked for from the same before"

    def get_node_unique_id(self, *, parent_unique_id: str | None, index: int | None, target_key: Any) -> str:
        return fingerprint(parent_unique_id, index, self.name, self.case.name, self.table, str(target_key))

    def evaluate(self, context: AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        memory = json.loads(context.cursor or "{}")
        before = context.get_previous_requested_subset(context.key)
        requested = _keys(before) if before is not None else set()
        asked = {**memory.get("asked", {}), **{day: made for day, made in memory.get("wanted", {}).items() if day in requested}}
        state = self._state(context.asset_graph_view)
        stale = memory["stale"] if state is not None and state == memory.get("state") else self._stale(state)
        wanted = {day: made for day, made in stale.items() if asked.get(day) != made}
        kept = {day: made for day, made in asked.items() if day in stale}
        chosen = {*wanted, *self._that_follow(context)}
        partitions = {AssetKeyPartitionKey(context.key, None if day == WHOLE else day) for day in chosen}
        true = context.asset_graph_view.get_asset_subset_from_asset_partitions(context.key, partitions)
        cursor = {"state": state, "stale": stale, "wanted": wanted, "asked": kept}
        return dg.AutomationResult(
            context, true.compute_intersection(context.candidate_subset), cursor=json.dumps(cursor, sort_keys=True)
        )

    def _stale(self, state: str | None) -> dict[Day, str]:
        if (page := pages_of(self.case).get(self.table)) is not None:
            return {WHOLE: state or ""} if page.is_stale(self.case, self.store) else {}
        return stale_inputs(self.case, self.store, recipes(self.case)[self.table])

    def _that_follow(self, context: AutomationContext[dg.AssetKey]) -> set[Day]:
        """The days whose upstream is asked for at this tick and that can be made with it: where a model is in force, or in shadow."""
        upstream = WITH_UPSTREAM.get(self.table)
        coming = context.request_subsets_by_key.get(dg.AssetKey([self.case.name, upstream])) if upstream else None
        if coming is None or coming.is_empty:
            return set()
        days = sorted(_keys(coming))
        if self.table == "shadow_scores":
            return set(shadow_versions(self.case, self.store, days))
        return set(days) if upstream == "live_performance" else set(self.store.models.in_force_on(self.case.name, days))

    def _state(self, tick: AssetGraphView) -> str | None:
        """Changes whenever something may have become stale; None where only a look can tell."""
        if self.table == "prediction_log":
            return None
        known = recipes(self.case)
        own = known.get(self.table)
        inputs = {self.table, *(each.table for each in own.inputs)} if own else set(known)
        versions = {name: self.seen.version(tick, name) for name in sorted(inputs)}
        return fingerprint(versions, own.code if own else "", self.seen.decided(tick))


@dataclass(frozen=True, eq=False)
class Coming(dg.AutomationCondition[dg.AssetKey]):
    """True while something of the case is under way, or asked for at this tick: a page waits for it, and is not made twice."""

    case: str

    @property
    def name(self) -> str:
        return "something_is_coming"

    @property
    def description(self) -> str:
        return "A run of the case is under way, or something with partitions is asked for at this tick"

    def evaluate(self, context: AutomationContext[dg.AssetKey]) -> dg.AutomationResult[dg.AssetKey]:
        asked = any(not each.is_empty and each.is_partitioned for each in context.request_subsets_by_key.values())
        unfinished = dg.RunsFilter(statuses=list(IN_PROGRESS_RUN_STATUSES), tags={CASE_TAG: self.case})
        coming = asked or context.asset_graph_view.instance.get_runs_count(unfinished) > 0
        return dg.AutomationResult(context, context.candidate_subset if coming else context.get_empty_subset())


def stale_inputs(case: UseCase, store: Store, recipe: Recipe) -> dict[Day, str]:
    """Days of published events that automation makes of a table, with what they would be made from."""
    days: Sequence[Day] = list(store.tables(case).ledger(case.events))
    if recipe.table == "prediction_log":
        days = read_clock(store.local, case.name).over(case, list(days))
    return automatic_days(case, store, recipe, days)


def automated(case: UseCase, store: Store, assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The same assets, with the condition under which each is made by itself: raw, clean and weekly ones have none.

    Where the case goes on, some have to be fresh.
    """
    pages = pages_of(case)
    clock = read_clock(store.local, case.name)
    fresh = freshness(clock) if case.end is None or clock.now() < case.starts(case.end) else None
    seen = Seen(case, store)
    quiet = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.any_deps_in_progress()

    def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        table = spec.key.path[-1]
        if fresh is not None and table in EVERY_DAY:
            spec = spec.replace_attributes(freshness_policy=fresh)
        if table not in BY_CONDITION and table not in pages:
            return spec
        condition = Stale(case, table, store, seen) & quiet
        return spec.replace_attributes(automation_condition=condition & ~Coming(case.name) if table in pages else condition)

    return [asset for asset in dg.map_asset_specs(with_condition, assets) if isinstance(asset, dg.AssetsDefinition)]


def freshness(clock: Clock) -> dg.FreshnessPolicy:
    """A day's assets are late when the last one was made more than a day and a half ago, by the clock of the case."""
    day = max(clock.day_seconds, 60.0)
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(seconds=1.5 * day), warn_window=timedelta(seconds=1.25 * day))


def condition_sensor(case: UseCase, *, seconds: int) -> dg.AutomationConditionSensorDefinition:
    """Looks at the conditions of a case. On by default."""
    names = [*(name for name in BY_CONDITION if name in recipes(case)), *pages_of(case)]
    with warnings.catch_warnings():
        # In beta in Dagster 1.13: conditions of our own are evaluated where our code is loaded, and not in the daemon.
        warnings.simplefilter("ignore", category=dg.BetaWarning)
        return dg.AutomationConditionSensorDefinition(
            name=f"{case.name}__follow_up",
            description="Asks for whatever is not made from what is published now: labels, features, scores, monitoring, pages.",
            target=dg.AssetSelection.assets(*(dg.AssetKey([case.name, name]) for name in names)),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=seconds,
            run_tags={CASE_TAG: case.name, "ml_assets/why": "made from what is not there any more, or not made yet"},
            use_user_code_server=True,
        )


def _keys(subset: Any) -> set[Day]:
    if subset.is_partitioned:
        return set(subset.expensively_compute_partition_keys())
    return set() if subset.is_empty else {WHOLE}
