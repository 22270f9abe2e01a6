"""Dagster's own *stale*, day for day the same as that of `planning`.

Dagster calls a partition stale when a partition that it depends on has another data version than it had when the partition was made. Our
data versions are content hashes, so that is right wherever a day looks at whole days. Where it does not (of 60 days of labels a day's
performance looks at its own; a score depends on the model in force, not on a week), the edge is marked as seen, and what decides is an
asset of its own, which nobody makes and which is observed: its data version of a day is what `Recipe.also` says of the day.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from ml_assets.orchestration.partitions import case_days, days_back
from ml_assets.orchestration.planning import Input, Recipe, recipes
from ml_assets.orchestration.store import Store
from ml_assets.storage.tables import fingerprint
from ml_assets.use_case import WHOLE, Day, UseCase, day_range, shift

_ALL_SEEN = str(2**62)
"""A pointer that no event of an edge lies after: the edge orders steps and shows where data comes from, and makes nothing stale."""


def observed_assets(case: UseCase) -> Iterator[dg.AssetSpec]:
    """For each recipe in which more decides than whole days of its inputs, an asset that stands for it."""
    extracts = {extract.name for extract in case.extracts}
    for recipe in _observing(case):
        deps = [
            *(
                dg.AssetDep([case.name, each.table], partition_mapping=days_back(each.back, ahead=each.ahead))
                for each in _unhashed(recipe)
                # What is delivered comes from outside; an extract that two tables look at differently would be one edge, says Dagster.
                if each.table not in extracts
            ),
            *(dg.AssetDep([case.name, name], partition_mapping=days_back(0)) for name in recipe.also_from),
        ]
        yield dg.AssetSpec(
            [case.name, recipe.also_named],
            deps=deps,
            description=_DESCRIPTIONS["delivered" if not deps else recipe.also_named],
            group_name=f"{case.name}/{_GROUPS.get(recipe.also_named, 'raw')}",
            kinds={"observed"},
            owners=[case.owner],
            partitions_def=None if recipe.table in case.undated else case_days(case),
        )


def observations(
    case: UseCase, store: Store, instance: dg.DagsterInstance, recipe: Recipe, days: Sequence[Day]
) -> Iterator[dg.AssetObservation]:
    """What `also` says of these days now, where it is not what was observed last."""
    if recipe.also is None or not days:
        return
    key = dg.AssetKey([case.name, recipe.also_named])
    before = _observed(instance, key, days)
    for day, version in recipe.also(store, days).items():
        if before.get(day) != version:
            yield dg.AssetObservation(key, partition=None if day == WHOLE else day, tags={DATA_VERSION_TAG: version})


def observations_after(
    case: UseCase, store: Store, instance: dg.DagsterInstance, changed: str, days: Sequence[Day]
) -> Iterator[dg.AssetObservation]:
    """What a table's new days change for days that were made before and do not depend on whole days of it."""
    for recipe in _observing(case):
        looking = {
            day
            for each in _unhashed(recipe)
            if each.table == changed
            for given in days
            for day in day_range(shift(given, -each.ahead), shift(given, each.back))
        }
        made = store.tables(case).ledger(recipe.table) if looking or changed in recipe.also_from else {}
        yield from observations(
            case, store, instance, recipe, [day for day in made if day in looking or changed in recipe.also_from]
        )


def look(case: UseCase, store: Store, instance: dg.DagsterInstance) -> int:
    """Observe everything that published days were made from, deliveries above all; how much of it is news."""
    news = 0
    for recipe in _observing(case):
        made = list(store.tables(case).ledger(recipe.table))
        for observation in observations(case, store, instance, recipe, made):
            instance.report_runless_asset_event(observation)
            news += 1
    return news


def seen_by_now(case: UseCase, instance: dg.DagsterInstance, recipe: Recipe) -> dict[str, str]:
    """For each asset that a recipe depends on, the latest event there is about it."""
    pointers = {}
    for each in recipe.inputs:
        pointers[each.table] = _latest(instance.fetch_materializations, case, each.table) if each.hashed else _ALL_SEEN
    if recipe.also:
        pointers |= dict.fromkeys(recipe.also_from, _ALL_SEEN)
        pointers[recipe.also_named] = _latest(instance.fetch_observations, case, recipe.also_named)
    return pointers


def provenance_tags(
    case: UseCase, store: Store, recipe: Recipe, days: Sequence[Day], seen: Mapping[str, str]
) -> dict[Day, dict[str, str]]:
    """For each day the tags in which Dagster keeps what a materialisation was made from."""
    ledgers = {each.table: store.tables(case).ledger(each.table) for each in recipe.inputs if each.hashed}
    also = recipe.also(store, days) if recipe.also else {}
    keys = {name: dg.AssetKey([case.name, name]) for name in seen}
    always = {CODE_VERSION_TAG: recipe.code, **{get_input_event_pointer_tag(keys[name]): at for name, at in seen.items()}}
    tags = {}
    for day in days:
        versions = dict.fromkeys(seen, "by what is observed")
        for each in (each for each in recipe.inputs if each.hashed):
            contents = [ledgers[each.table][key].content for key in each.days(day) if key in ledgers[each.table]]
            versions[each.table] = contents[0] if len(contents) == 1 else fingerprint(contents)
        if recipe.also:
            versions[recipe.also_named] = also[day]
        tags[day] = {**always, **{get_input_data_version_tag(keys[name]): version for name, version in versions.items()}}
    return tags


def _observing(case: UseCase) -> list[Recipe]:
    """A recipe for each observed asset: of several that look at one, the first, which knows most of its days."""
    named = {recipe.also_named: recipe for recipe in reversed(recipes(case).values()) if recipe.also is not None}
    return list(reversed(named.values()))


def _unhashed(recipe: Recipe) -> list[Input]:
    return [each for each in recipe.inputs if not each.hashed]


def _latest(fetch: Callable[..., dg.EventRecordsResult], case: UseCase, name: str) -> str:
    records = fetch(dg.AssetKey([case.name, name]), limit=1).records
    return str(records[0].storage_id) if records else NULL_EVENT_POINTER


def _observed(instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[Day]) -> dict[Day, str]:
    if list(days) == [WHOLE]:
        records = instance.fetch_observations(key, limit=1).records
        return {WHOLE: (records[0].event_log_entry.tags or {}).get(DATA_VERSION_TAG, "")} if records else {}
    log = instance.event_log_storage
    found = log.get_latest_tags_by_partition(
        key, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG], asset_partitions=list(days)
    )
    return {day: tags[DATA_VERSION_TAG] for day, tags in found.items()}


_GROUPS = {
    "deciding_reports": "labels",
    "model_in_force": "models",
    "model_in_shadow": "shadow",
    "outcomes": "monitoring",
    "logged_scores": "online",
}
"""Of what is observed, deliveries aside. A group of their own would depend on groups that depend on it, which the graph cannot draw."""
_DESCRIPTIONS = {
    "model_in_shadow": "Which model scores a day in shadow, beside the one in force: whichever lost the latest decision.",
    "delivered": "What the source could deliver of each day: the version of its file, object or query.",
    "deciding_reports": "Of the reports, those that decide what the labels of a day are.",
    "model_in_force": "The version of the model that scores a day: by the latest deployment, or by a person's decision.",
    "logged_scores": "What online scorers logged about the events of a day.",
    "outcomes": "The truth about the events of a day, and which of its entities were known as positive before.",
}
