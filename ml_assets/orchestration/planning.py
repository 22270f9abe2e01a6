"""What each day of a table is made from, and so which days have to be made again.

A day is fresh when it was published from exactly the inputs that are there now: the published content of the days it looks at, the version
of the model in force, and the source code that makes it.
"""

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

import ml_assets
from ml_assets.orchestration.repeats import Repeats, repeats_of, with_repeats
from ml_assets.orchestration.store import Store
from ml_assets.settings import settings
from ml_assets.stages import (
    clean,
    drift,
    estimate,
    features,
    ingest,
    kept,
    labels,
    model,
    monitor,
    online_state,
    package,
    point_in_time,
    promise,
    quality,
    reference,
    respelling,
    score,
    shadow,
    skew,
    windows,
)
from ml_assets.stages.evaluate import Report
from ml_assets.storage.tables import Entry, content_hashes, fingerprint
from ml_assets.use_case import WHOLE, Day, Extract, Reported, Table, UseCase, shift

LONGEST_WEEK = 7
_PACKAGE = Path(inspect.getsourcefile(ml_assets) or "").parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """Days of an upstream table that a day looks at: from `back` days before to `ahead` days after; or all of an undated table."""

    table: str
    back: int = 0
    ahead: int = 0
    whole: bool = False
    required: bool = True
    """The day itself must be published; days around it may be missing."""
    hashed: bool = True
    """Whether the content of its days decides; where not, `Recipe.also` says what of them does."""

    def days(self, day: Day) -> list[Day]:
        """The partition keys looked at."""
        return [WHOLE] if self.whole else [shift(day, offset) for offset in range(-self.back, self.ahead + 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class NotMade:
    """Why a day is not made; `expected` when nothing is wrong, as before the first model or while labels are awaited."""

    reason: str
    expected: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the days of a table are made: from which inputs, by which code, and what else decides (a source's version, a model's)."""

    table: str
    inputs: tuple[Input, ...]
    code: str
    also: Callable[[Store, Sequence[Day]], Mapping[Day, str]] | None = None
    also_named: str = ""
    """What `also` looks at, in a word: Dagster knows it as an asset of its own (`staleness`)."""
    also_from: tuple[str, ...] = ()
    """Further assets that decide through `also`, beside the inputs that are not hashed."""
    missing: str = ""
    """Why a day cannot be made when `also` says nothing about it."""
    awaits: bool = False
    """Whether nothing is wrong with a day that lacks an input, nor to be said about it: it waits for it."""
    on_demand: bool = False
    """Whether it is made when somebody asks for it, and not by `run`."""
    repeats: Callable[[Store], Repeats] | None = None
    """What earlier days of the table itself decide about a day, where a key is one row over all days."""


def expected_inputs(case: UseCase, store: Store, recipe: Recipe, days: Sequence[Day]) -> tuple[dict[Day, str], dict[Day, NotMade]]:
    """For each day a hash of what it would be made from now; for a day that cannot be made, why not."""
    ledgers = {each.table: store.tables(case).ledger(each.table) for each in recipe.inputs}
    also = recipe.also(store, days) if recipe.also else dict.fromkeys(days, "")
    made_from, held_back = {}, {}
    for day in days:
        if day in also and (reason := _not_published(recipe, ledgers, day)):
            held_back[day] = NotMade(reason=reason, expected=recipe.awaits)
        elif day not in also:
            held_back[day] = NotMade(reason=recipe.missing, expected=True)
        else:
            contents = [[_content(ledgers[each.table], key) for key in each.days(day)] for each in recipe.inputs if each.hashed]
            made_from[day] = fingerprint(recipe.code, also[day], contents)
    return with_repeats(made_from, recipe.repeats(store)) if recipe.repeats else made_from, held_back


def stale_days(case: UseCase, store: Store, recipe: Recipe, days: Sequence[Day]) -> list[Day]:
    """The days that can be made, and are not published from what is there now."""
    made_from, _ = expected_inputs(case, store, recipe, days)
    return not_made_from(case, store, recipe, made_from)


def not_made_from(case: UseCase, store: Store, recipe: Recipe, made_from: Mapping[Day, str]) -> list[Day]:
    """Of days with a hash of what they would be made from, those that are not published from it."""
    ledger = store.tables(case).ledger(recipe.table)
    return [day for day, inputs in made_from.items() if day not in ledger or ledger[day].inputs != inputs]


def automatic_days(case: UseCase, store: Store, recipe: Recipe, days: Sequence[Day]) -> dict[Day, str]:
    """Of these days those that automation makes, with a hash of what they would be made from.

    All that are stale; where the case leaves late data to a person (`remake_late`), only those that are not made yet. What is delivered is
    always taken in again.
    """
    made_from, _ = expected_inputs(case, store, recipe, days)
    stale = {day: made_from[day] for day in not_made_from(case, store, recipe, made_from)}
    if case.monitoring.remake_late or recipe.table in delivered_tables(case):
        return stale
    made = store.tables(case).ledger(recipe.table)
    return {day: inputs for day, inputs in stale.items() if day not in made}


def delivered_tables(case: UseCase) -> list[str]:
    """What comes from outside: each table raw, and clean."""
    return [name for table in case.tables for name in (table.raw_name, table.name)]


def _meaning_of(extract: Extract) -> str:
    """A job is not started again for who reads it, nor because time goes on."""
    told = {name: text for name, text in asdict(extract).items() if name != "span"}
    return fingerprint({**told, "readers": ""})


def recipes(case: UseCase) -> dict[str, Recipe]:
    """How every table of a case is made, in the order of the data's way."""
    found = [Recipe(table=extract.name, inputs=(), code=_meaning_of(extract)) for extract in case.extracts]
    for table in case.tables:
        delivered, columns = (
            fingerprint(table.delivered),
            fingerprint(table.columns, table.key, table.expectations, table.max_rejected_share, *_rows_of(table)),
        )
        code = code_of(ingest, quality, table.source) + delivered
        versions = _source_versions(case, table.name)
        extracted, named = tuple(_extracted(case, table.name)), f"delivered_{table.name}"
        found.append(Recipe(table=table.raw_name, inputs=extracted, code=code, also=versions, also_named=named))
        ahead = table.corrections.within_days if table.corrections else 0
        raw = Input(table=table.raw_name, whole=not table.daily, ahead=ahead)
        cleaning = code_of(clean, quality, respelling, table.derive) + delivered + columns
        repeats = partial(_repeats_in, case, table) if table.unique == "ever" else None
        found.append(Recipe(table=table.name, inputs=(raw,), code=cleaning, repeats=repeats))
    settling, code = Input(table=case.events, back=case.settled_days), code_of(labels, quality) + fingerprint(case.label)
    if case.label_table != case.events and not isinstance(case.label, Reported):
        known = Input(table=case.label_table, back=case.settled_days)
        found.append(Recipe(table="labels", inputs=(settling, known), code=code))
    elif isinstance(case.label, Reported):
        told = Input(table=case.label.table, back=case.settled_days, hashed=False)
        decides = _deciding_reports(case, case.label)
        found.append(Recipe(table="labels", inputs=(settling, told), code=code, also=decides, also_named="deciding_reports"))
    else:
        found.append(Recipe(table="labels", inputs=(settling,), code=code))
    # An event is scored on its day, whether or not a label was delivered on it.
    of_labels = case.label_table if case.label_table != case.events and not isinstance(case.label, Reported) else None
    seen = tuple(
        Input(table=table.name, back=case.lookback_days_of(table.name), required=table.name != of_labels)
        for table in case.daily_tables
    )
    dimensions = tuple(Input(table=table.name, whole=True) for table in case.dimensions)
    code = code_of(features, windows, point_in_time, quality, case.features.row) + fingerprint(case.features.columns)
    found.append(Recipe(table="features", inputs=(*seen, *dimensions), code=code))
    found.append(
        Recipe(
            table="scores",
            inputs=(Input(table="features"),),
            code=code_of(score, model, package, quality),
            also=_model_in_force(case),
            also_named="model_in_force",
            also_from=("deployed_model",),
            missing="no model was in force on this day",
        )
    )
    found.append(
        Recipe(
            table="live_performance",
            inputs=(
                Input(table="scores"),
                Input(table="labels", back=known_back(case), ahead=case.label_lookback_days, required=False, hashed=False),
            ),
            code=code_of(monitor, labels, quality) + fingerprint(case.investigation),
            also=_settled_labels(case),
            also_named="outcomes",
            missing="no model was in force on this day, or some of its labels are not known yet",
        )
    )
    found += _watching_recipes(case)
    if case.monitoring.shadow:
        found.append(
            Recipe(
                table="shadow_scores",
                inputs=(Input(table="features"),),
                code=code_of(shadow, model, package, quality),
                also=_in_shadow(case),
                also_named="model_in_shadow",
                also_from=("evaluation_report", "deployed_model"),
                missing="no model is compared with the one in force on this day",
                awaits=True,
            )
        )
    found += _online_recipes(case, dimensions)
    return {recipe.table: recipe for recipe in found}


def _rows_of(table: Table) -> tuple[object, ...]:
    """What else decides which rows stay; nothing where all is as it was before there was a choice."""
    return (
        ()
        if table.time is None and table.unique == "day" and table.corrections is None
        else (table.time, table.late_days, table.unique, table.corrections)
    )


def _repeats_in(case: UseCase, table: Table, store: Store) -> Repeats:
    return repeats_of(case, store, table)


def _watching_recipes(case: UseCase) -> Iterator[Recipe]:
    """What watches the model in force. What the model is compared with is in its package, and so told by the version in the scores."""
    window = case.monitoring.window_days - 1
    watched = fingerprint(case.monitoring)
    by_model: dict[str, Any] = {
        "also": _watched_model(case),
        "also_named": "model_in_force",
        "also_from": ("deployed_model",),
        "missing": "no model was in force on this day, or one packaged without what it is watched by (run makes it again)",
        "awaits": True,
    }
    estimating = code_of(estimate, reference, quality)
    yield Recipe(table="estimated_performance", inputs=(Input(table="scores"),), code=estimating, **by_model)
    yield Recipe(
        table="drift_report",
        inputs=(Input(table="features", back=window), Input(table="scores", back=window)),
        code=code_of(drift, reference, model, package, quality) + watched,
        **by_model,
    )
    yield Recipe(
        table="performance_report",
        inputs=(Input(table="live_performance", back=window), Input(table="estimated_performance", back=window)),
        code=code_of(promise, reference, quality) + watched,
        awaits=True,
    )


def _extracted(case: UseCase, table: str) -> Iterator[Input]:
    """The days that a job has to write before a table is read. The version of its files decides, not what the job says about them."""
    if extract := case.extract_read_by(table):
        yield Input(table=extract.name, back=extract.readers[table], required=extract.table == table, hashed=False)


def _online_recipes(case: UseCase, dimensions: tuple[Input, ...]) -> Iterator[Recipe]:
    """What goes to the online scorer, and what comes back from it."""
    looked_at = tuple(Input(table=name) for name in kept.kept_of(case))
    code = code_of(kept, online_state, quality) + fingerprint(kept.layout(case))
    yield Recipe(table="online_state", inputs=(*looked_at, *dimensions), code=code, on_demand=True)
    yield Recipe(
        table="prediction_log",
        inputs=(Input(table="features"),),
        code=code_of(skew, model, package, quality) + fingerprint(case.features.columns),
        also=_logged(case),
        also_named="logged_scores",
        missing="nothing was logged on this day",
        on_demand=True,
    )


def _logged(case: UseCase) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    def versions(store: Store, days: Sequence[Day]) -> Mapping[Day, str]:
        log = store.predictions(case)
        return {day: fingerprint(version) for day in days if (version := log.version(day)) is not None}

    return versions


def _source_versions(case: UseCase, table: str) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    def versions(_: Store, days: Sequence[Day]) -> Mapping[Day, str]:
        known = case.table(table).source(settings()).versions(days)
        return {day: known.get(day, "not there") for day in days}  # a missing file must be tried, so that its check says so

    return versions


def versions_in_force(case: UseCase, store: Store, days: Iterable[Day]) -> dict[Day, str]:
    """The version in force on each of these days; days before the first model are left out."""
    return {day: version for day, (_, version) in store.models.in_force_on(case.name, days).items()}


def _model_in_force(case: UseCase) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    return lambda store, days: versions_in_force(case, store, days)


def shadow_versions(case: UseCase, store: Store, days: Sequence[Day]) -> dict[Day, tuple[str, str]]:
    """For each day with a model in force and one in shadow, both versions."""
    reports = {first: Report.from_json(text) for first, text in store.models.reports(case.name).items()}
    found = {}
    for day, (_, in_force) in store.models.in_force_on(case.name, days).items():
        decided = max((first for first in reports if first <= day), default=None)
        if decided is not None and (version := shadow.shadow_of(reports[decided], in_force)) is not None:
            found[day] = (in_force, version)
    return found


def _in_shadow(case: UseCase) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    def versions(store: Store, days: Sequence[Day]) -> Mapping[Day, str]:
        return {day: fingerprint(*pair) for day, pair in shadow_versions(case, store, days).items()}

    return versions


def _watched_model(case: UseCase) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    def versions(store: Store, days: Sequence[Day]) -> Mapping[Day, str]:
        found = versions_in_force(case, store, days)
        watched = {version for version in set(found.values()) if store.models.holds(case.name, version, reference.FILE)}
        return {day: version for day, version in found.items() if version in watched}

    return versions


def _deciding_reports(case: UseCase, label: Reported) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    """For each day a hash of the reports that decide what its labels are."""

    def decided(store: Store, days: Sequence[Day]) -> Mapping[Day, str]:
        tables = store.tables(case)
        around = {shift(day, -offset) for day in days for offset in range(case.settled_days + 1)}
        published = sorted(set(tables.ledger(label.table)) & around)
        if not published:
            return dict.fromkeys(days, "no reports")
        found = labels.deciding_reports(case, label, tables.read(label.table, published))
        return {day: content for day, (_, content) in content_hashes(found, days).items()}

    return decided


def labels_about(case: UseCase, store: Store, first: Day, last: Day) -> pd.DataFrame:
    """Labels of the events of these days, known by now, and those that tell which entities were known as positive before."""
    tables, back = store.tables(case), case.investigation.known_for.days if case.investigation else 0
    begin, end = shift(first, -back), shift(last, case.label_lookback_days)
    return tables.read("labels", [day for day in tables.ledger("labels") if begin <= day <= end])


def known_back(case: UseCase) -> int:
    """Days before an event's day on which the labels became known that tell whether its entity was known as positive."""
    return case.investigation.known_for.days + LONGEST_WEEK if case.investigation else 0


def _settled_labels(case: UseCase) -> Callable[[Store, Sequence[Day]], Mapping[Day, str]]:
    """For each scored day whose events all have a label, a hash of these labels and of the entities known as positive before."""

    def settled(store: Store, days: Sequence[Day]) -> Mapping[Day, str]:
        tables = store.tables(case)
        scored, live = tables.ledger("scores", days), _model_in_force(case)(store, days)
        around = {shift(day, offset) for day in scored for offset in range(-known_back(case), case.label_lookback_days + 1)}
        known_days = tables.ledger("labels")
        published = sorted(set(known_days) & around)
        if not published:
            return {}
        reported = tables.read("labels", published)
        known = labels.latest_known(reported)
        contents = content_hashes(known.drop(columns="day").assign(day=known["event_day"]).sort_values("event_id"), scored)
        news = {day: _known_positives(case, reported, day) for day in scored}
        # A label that is not known by then is not expected any more: the day is judged by the others.
        over = shift(max(known_days), -case.label_lookback_days)
        return {
            day: fingerprint(contents[day][1], news[day])
            for day, entry in scored.items()
            if day in live and (contents[day][0] >= entry.rows or (contents[day][0] and day <= over))
        }

    return settled


def _known_positives(case: UseCase, reported: pd.DataFrame, day: Day) -> list[str]:
    """Of the entities that have events on a day, those known as positive before it."""
    if case.investigation is None:
        return []
    here = set(reported.loc[reported["event_day"] == day, case.investigation.entity])
    return sorted(here & labels.already_known(reported, case.investigation, day=day, first=case.week_of(day), case=case))


def _not_published(recipe: Recipe, ledgers: Mapping[str, Mapping[Day, Entry]], day: Day) -> str | None:
    for each in recipe.inputs:
        key = WHOLE if each.whole else day
        if each.required and key not in ledgers[each.table]:
            return f"{each.table} {key} is not published"
    return None


def _content(ledger: Mapping[Day, Entry], day: Day) -> str:
    return ledger[day].content if day in ledger else "not published"


def code_of(*parts: ModuleType | Callable[..., Any]) -> str:
    """Hash of the source of modules (or of the modules of functions), and of everything of ours that they import."""
    files = {Path(file) for part in parts if (file := inspect.getsourcefile(part))}
    return _hash_of_files(tuple(sorted(_with_imports(frozenset(files)))))


@cache
def _with_imports(files: frozenset[Path]) -> frozenset[Path]:
    found, new = set(files), set(files)
    while new:
        new = {imported for file in new for imported in _imports(file)} - found
        found |= new
    return frozenset(found)


@cache
def _imports(file: Path) -> frozenset[Path]:
    """The modules of this package that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = [_PACKAGE.parent.joinpath(*name.split(".")) for name in names if name.split(".")[0] == _PACKAGE.name]
    return frozenset(file for place in ours for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


@cache
def _hash_of_files(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
