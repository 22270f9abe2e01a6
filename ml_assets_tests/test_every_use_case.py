"""What every use case must declare. A fault names the declaration, the column that it refers to, and where to add it."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import astuple, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.orchestration.pipeline import build_defs
from ml_assets.sources.files import PROVENANCE
from ml_assets.stages.clean import clean
from ml_assets.stages.declarations import faults_of
from ml_assets.stages.features import columns_of
from ml_assets.stages.ingest import ingested
from ml_assets.stages.intake import InvalidRowError, RowIntake, Taken
from ml_assets.stages.kept import ID_BYTES, kept_of
from ml_assets.stages.search import DEFAULTS
from ml_assets.use_case import AlertShare, Column, DType, Label, Range, Reported, Slice, Table, UseCase, day_range, shift
from ml_assets.use_cases import USE_CASES, configured, find

every_case = pytest.mark.parametrize("case", USE_CASES, ids=lambda case: case.name)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
GIVEN_TO_FEATURES = ("event_id", "event_time", "day")
"""Columns that the platform adds to the features of a case."""

Faults = Iterator[str]


def column(table: Table, name: str) -> Column | None:
    return next((column for column in table.columns if column.name == name), None)


def tables_named(case: UseCase, name: str, where: str) -> tuple[list[Table], list[str]]:
    found = [table for table in case.tables if table.name == name]
    names = ", ".join(table.name for table in case.tables)
    return found, [] if found else [f"{where} refers to table {name!r}: add it to `tables` of the case, which has {names}"]


def missing(table: Table, names: Sequence[str], where: str) -> Faults:
    """Columns that something refers to and the table does not have."""
    for name in names:
        if column(table, name) is None:
            have = ", ".join(column.name for column in table.columns)
            yield f"{where} refers to column {name!r}: add it to `columns` of table {table.name!r}, which has {have}"


def of_type(table: Table, name: str, wanted: DType, where: str) -> Faults:
    found = column(table, name)
    if found is not None and found.dtype is not wanted:
        yield f"{where}: column {name!r} of table {table.name!r} is {found.dtype.value}, it must be {wanted.value}"


def known_in_time(table: Table, name: str, known_at: str, where: str) -> Faults:
    """A value used from `known_at` on must be declared to be known then, or from the start."""
    found = column(table, name)
    if found is not None and found.known_at not in (None, known_at):
        yield (
            f"{where} takes {name!r} as known at {known_at!r}, but table {table.name!r} declares that it is known at "
            f"{found.known_at!r}: a fact with the wrong time looks ahead; use {found.known_at!r}"
        )


def columns_are_declared_once(case: UseCase) -> Faults:
    named = [(f"`delivered` of table {table.name!r}", [each.name for each in table.delivered]) for table in case.tables]
    named += [(f"`columns` of table {table.name!r}", [each.name for each in table.columns]) for table in case.tables]
    named += [("`columns` of the features", [*GIVEN_TO_FEATURES, *case.features.names])]
    named += [
        ("`tables` of the case", [name for table in case.tables for name in (table.name, table.raw_name, table.rejected_name)])
    ]
    for where, names in named:
        for name in (name for name, count in Counter(names).items() if count > 1):
            yield f"{where} has {name!r} more than once (the platform itself adds {', '.join(GIVEN_TO_FEATURES)} to features)"


def tables_are_sound(case: UseCase) -> Faults:
    for table in case.tables:
        where = f"`key` of table {table.name!r}"
        if not table.key:
            yield f"{where} is empty: name the columns that identify a row"
        yield from missing(table, table.key, where)
        for each in table.columns:
            if each.known_at is not None:
                yield from missing(table, [each.known_at], f"`known_at` of column {table.name}.{each.name}")
                yield from of_type(table, each.known_at, DType.TIMESTAMP, f"`known_at` of column {table.name}.{each.name}")
            if each.name in PROVENANCE:
                yield f"column {table.name}.{each.name} has a name that provenance has: rename it"
        for figure in (expected.figure for expected in table.expectations):
            kind, _, name = figure.partition(":")
            if figure != "rows" and kind not in ("null_share", "mean"):
                yield f"expectation {figure!r} of table {table.name!r}: write rows, null_share:<column> or mean:<column>"
            yield from missing(table, [name] if name else [], f"expectation {figure!r}")


def events_are_sound(case: UseCase) -> Faults:
    events, faults = tables_named(case, case.events, "`events` of the case")
    yield from faults
    for table in events:
        if not table.daily:
            yield f"table {table.name!r} holds the events, so it must be `daily`"
        yield from missing(table, ["event_id", case.event_time], "an event")
        yield from of_type(table, "event_id", DType.STRING, "an event")
        yield from of_type(table, case.event_time, DType.TIMESTAMP, "`event_time` of the case")
        yield from missing(table, case.features.event_columns, "`event_columns` of the features")
        for name in (*case.features.event_columns, case.event_time, "event_id"):
            found = column(table, name)
            if found is not None and found.known_at is not None:
                yield (
                    f"`event_columns` of the features has {name!r}, which is known only at {found.known_at!r}: "
                    "make a `Trailing` or `Latest` fact of it, for what an event's own row says may not be known yet"
                )


def facts_are_sound(case: UseCase) -> Faults:
    for each in case.features.trailing:
        fact, where = each.fact, f"trailing fact {each.fact.name!r}"
        found, faults = tables_named(case, fact.table, where)
        yield from faults
        for table in found:
            yield from missing(table, [fact.value, fact.known_at, fact.id], where)
            yield from of_type(table, fact.known_at, DType.TIMESTAMP, where)
            yield from known_in_time(table, fact.value, fact.known_at, where)
            for entity in each.entities:
                yield from entity_is_sound(case, table, entity, fact.known_at, where)


def rows_are_taken_in(case: UseCase) -> Faults:
    """By the online scorer: events, and what features look back on."""
    for name in (case.events, *kept_of(case)):
        table = case.table(name)
        if table.daily and table.intake is None:
            yield f"table {name!r} takes no single rows, but features look back on it: add `intake=Intake(day=…)` to it"


def latest_are_sound(case: UseCase) -> Faults:
    for each in case.features.latest:
        where = f"latest {each.name!r}"
        found, faults = tables_named(case, each.table, where)
        yield from faults
        for table in found:
            names = [*each.values, *each.changes]
            yield from missing(table, [*names, each.known_at, each.id], where)
            yield from of_type(table, each.known_at, DType.TIMESTAMP, where)
            for name in names:
                yield from known_in_time(table, name, each.known_at, where)
            yield from entity_is_sound(case, table, each.entity, each.known_at, where)


def entity_is_sound(case: UseCase, table: Table, entity: Sequence[str], known_at: str, where: str) -> Faults:
    yield from missing(table, entity, f"an entity of {where}")
    for name in entity:
        yield from known_in_time(table, name, known_at, f"an entity of {where}")
        if name not in case.features.event_columns:
            yield f"an entity of {where} is {name!r}: add it to `event_columns` of the features, or the event cannot ask about it"


def lookups_are_sound(case: UseCase) -> Faults:
    for each in case.features.lookups:
        where = f"lookup in {each.table!r}"
        found, faults = tables_named(case, each.table, where)
        yield from faults
        for table in found:
            yield from missing(table, [each.by, *each.values], where)
            if table.daily:
                yield f"{where}: table {each.table!r} is daily; a lookup needs a table with `daily=False`"
            if table.key != (each.by,):
                yield f"{where} is by {each.by!r}, but the key of table {each.table!r} is {table.key}: a lookup needs one row a key"
        if each.by not in case.features.event_columns:
            yield f"{where} is by {each.by!r}: add it to `event_columns` of the features"


def features_are_declared(case: UseCase) -> Faults:
    features = case.features
    for each in columns_of(features.trailing, features.latest, features.lookups):
        if each.name not in features.names:
            yield f"feature {each.name!r} is computed but not declared: add `*columns_of(…)` to `columns` of the features"
    for each in features.columns:
        if each.dtype not in (DType.FLOAT64, DType.STRING):
            yield f"feature {each.name!r} is {each.dtype.value}: features are float64 or string"


def features_are_referred_to(case: UseCase) -> Faults:
    used = [("`climatology` of the case", name) for name in case.climatology]
    used += [("`features` of the training", name) for name in case.training.features or ()]
    used += [("a slice of the gate", each.column) for each in case.gate.slices if not each.of_positives]
    for where, name in used:
        if name not in case.features.names:
            yield f"{where} is {name!r}: add it to `columns` of the features, which has {', '.join(case.features.names[:15])}, …"
    if not case.climatology:
        yield "`climatology` of the case is empty: name the features whose rate is the simplest forecast"


def slices_are_sound(case: UseCase) -> Faults:
    for each in case.gate.slices:
        where = f"the slice by {each.column!r}"
        declared = next((column for column in case.features.columns if column.name == each.column), None)
        if each.of_positives and not isinstance(case.label, Reported):
            yield f"{where} is `of_positives`, a kind that reports tell, but the label of the case is no `Reported`"
        if each.of_positives and isinstance(case.label, Reported):
            for table in tables_named(case, case.label.table, "the label")[0]:
                yield from missing(table, [each.column], where)
        if declared is not None and (declared.dtype is DType.STRING) == bool(each.edges):
            yield f"{where}: a number needs `edges` and a text has none; {each.column!r} is {declared.dtype.value}"
        if any(low >= high for low, high in pairwise(each.edges)):
            yield f"{where}: `edges` {each.edges} must rise"


def label_is_sound(case: UseCase) -> Faults:
    yield from (
        reported_label_is_sound(case, case.label) if isinstance(case.label, Reported) else own_label_is_sound(case, case.label)
    )
    if case.label.latest_after.days < 1:
        yield "`latest_after` of the label is less than a day: labels of late events would be lost"


def own_label_is_sound(case: UseCase, label: Label) -> Faults:
    """The label is a column of the event, or of a table of its own whose rows name it."""
    tables, faults = tables_named(case, case.label_table, "the label")
    yield from faults if label.table else ()
    if label.table:
        yield from label_table_is_sound(case, label)
    for table in tables:
        yield from missing(table, [label.column, label.known_at, *label.entities], "the label")
        yield from of_type(table, label.known_at, DType.TIMESTAMP, "`known_at` of the label")
        yield from of_type(table, label.column, DType.INT64, "the label")
        yield from known_in_time(table, label.column, label.known_at, "the label")
        found = column(table, label.column)
        if found is not None and found.known_at is None:
            yield f"the label {label.column!r} is declared as known from the start: set its `known_at` to {label.known_at!r}"
        if found is not None and (found.minimum, found.maximum) != (0, 1):
            yield f"the label {label.column!r} must be 0 or 1: set its `minimum` to 0 and its `maximum` to 1"


def label_table_is_sound(case: UseCase, label: Label) -> Faults:
    for table in tables_named(case, case.events, "`events` of the case")[0]:
        yield from missing(table, label.entities, "an entity of the label")
        if column(table, label.column) is not None:
            yield f"the label {label.column!r} stands in {table.name!r}, too, where it is known with the event: take it out of `columns`"
    for table in tables_named(case, case.label_table, "the label")[0]:
        yield from missing(table, ["event_id"], "the label")
        yield from of_type(table, "event_id", DType.STRING, "the label")
        if not table.daily or table.key != ("event_id",):
            yield f"table {table.name!r} holds the labels, so it must be `daily`, with the key ('event_id',): its key is {table.key}"


def reported_label_is_sound(case: UseCase, label: Reported) -> Faults:
    """Positives are rows of a table of reports, negatives are events without one: both tell the entities."""
    reports, faults = tables_named(case, label.table, "the label")
    yield from faults
    for table in tables_named(case, case.events, "`events` of the case")[0]:
        yield from missing(table, label.entities, "an entity of the label")
    for table in reports:
        yield from missing(table, ["event_id", case.event_time, *label.entities, label.known_at], "the label")
        yield from of_type(table, "event_id", DType.STRING, "the label")
        for name in (case.event_time, label.known_at):
            yield from of_type(table, name, DType.TIMESTAMP, "the label")
        for name in label.entities:
            for of_event in filter(None, [column(case.event_table, name)] if case.events != label.table else []):
                yield from of_type(table, name, of_event.dtype, "an entity of the label")
        if not table.daily or table.name == case.events:
            yield f"the label is reported in table {table.name!r}: it must be `daily`, and not that of the events"
        if table.key != ("event_id",):
            yield f"the key of table {table.name!r} is {table.key}: a day has one report of an event, so make it ('event_id',)"
        for each in table.columns:
            if each.name not in table.key and each.known_at is None:
                yield (
                    f"column {table.name}.{each.name} is declared as known from the start, but a report is known at {label.known_at!r}: "
                    f"set its `known_at` to {label.known_at!r}"
                )
            yield from known_in_time(table, each.name, label.known_at, "the label")
    if not timedelta(0) < label.settled_after <= label.latest_after:
        yield f"`settled_after` of the label is {label.settled_after}: it must be more than nothing and at most `latest_after`"
    if case.split.embargo_days < label.settled_after.days:
        yield (
            f"`embargo_days` of the split is {case.split.embargo_days}, but negatives are settled after {label.settled_after.days} days: "
            "the last days of the hold-out would be judged by their positives alone"
        )


def training_is_sound(case: UseCase) -> Faults:
    told = case.training.features
    if told is not None and len(set(told)) < max(1, len(told)):
        yield "`features` of the training is empty or has a name twice: leave it out for all features"
    if not 0 < case.training.kept_negatives <= 1:
        yield f"`kept_negatives` of the training is {case.training.kept_negatives}: it is a share"
    wanted = astuple(case.training.operating)
    if min(wanted) < 0 or (isinstance(case.training.operating, AlertShare) and max(wanted) > 1):
        yield f"`operating` of the training is {case.training.operating}: alerts and costs are not negative, and a share is at most 1"


def search_is_sound(case: UseCase) -> Faults:
    search, split = case.training.search, case.split
    if search is None:
        return
    if isinstance(case.label, Reported) and search.gap_days + 1 < case.settled_days:
        yield (
            f"`gap_days` of the search is {search.gap_days}, but labels are settled {case.settled_days} days after their event's day: a "
            "fold would learn from what nobody knew yet"
        )
    needed = search.folds * search.fold_days + search.gap_days + 1
    if needed > split.minimum_training_days:
        yield f"the folds of the search need {needed} days, but `minimum_training_days` of the split is {split.minimum_training_days}"
    for family in search.families:
        ranges = search.lightgbm if family == "lightgbm" else search.logistic
        if not ranges:
            yield f"the search has the family {family!r} but nothing to look for in it"
        for each in ranges:
            yield from range_is_sound(case, each, first=family == search.families[0])


def range_is_sound(case: UseCase, searched: Range, *, first: bool) -> Faults:
    where = f"the range of {searched.name!r}"
    if not searched.low < searched.high or (searched.log and searched.low <= 0):
        yield f"{where} goes from {searched.low} to {searched.high}: it must rise, and from above 0 where it is `log`"
    declared = {**DEFAULTS, **case.training.parameters}.get(searched.name)
    if first and (declared is None or not searched.low <= declared <= searched.high):
        yield f"{where} goes from {searched.low} to {searched.high}, but the search begins with {declared}: see `parameters`"


def investigation_is_sound(case: UseCase) -> Faults:
    if case.investigation is None:
        return
    if case.investigation.entity not in case.label.entities:
        yield f"the investigation is into {case.investigation.entity!r}: add it to `entities` of the label"
    if case.investigation.top < 1 or case.investigation.known_for < timedelta(0):
        yield "the investigation must be into one entity a day at least, and `known_for` not negative"


def calendar_is_sound(case: UseCase) -> Faults:
    split = case.split
    weekday = date.fromisoformat(split.first_go_live).weekday()
    if weekday != split.weekday:
        yield (
            f"`first_go_live` {split.first_go_live} is a {WEEKDAYS[weekday]}, but `weekday` of the split is {split.weekday} "
            f"({WEEKDAYS[split.weekday]}; Monday is 0): Dagster would have no week of that key"
        )
    if case.end is not None and not case.start < split.first_go_live < case.end:
        yield f"`first_go_live` {split.first_go_live} lies outside {case.start} … {case.end}"
    before, needed = (
        len(day_range(case.start, split.first_go_live)) - 1,
        split.minimum_training_days + split.holdout_days + 2 * split.embargo_days,
    )
    if before < needed:
        yield f"only {before} days lie before `first_go_live`, {needed} are needed: to train, a hold-out and two embargos"


RULES: tuple[Callable[[UseCase], Faults], ...] = (
    columns_are_declared_once,
    tables_are_sound,
    events_are_sound,
    facts_are_sound,
    latest_are_sound,
    lookups_are_sound,
    features_are_declared,
    features_are_referred_to,
    slices_are_sound,
    label_is_sound,
    training_is_sound,
    search_is_sound,
    investigation_is_sound,
    calendar_is_sound,
    rows_are_taken_in,
    faults_of,
)


@every_case
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_declaration(case: UseCase, rule: Callable[[UseCase], Faults]) -> None:
    faults = list(dict.fromkeys(rule(case)))

    assert not faults, f"use case {case.name}:\n" + "\n".join(f"  * {fault}" for fault in faults)


@every_case
def test_definitions_load(case: UseCase) -> None:
    defs = build_defs([case])

    dg.Definitions.validate_loadable(defs)
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys}
    wanted = [name for table in case.tables for name in (table.raw_name, table.name, table.rejected_name)]
    wanted += [
        "labels",
        "features",
        "candidate_model",
        "evaluation_report",
        "deployed_model",
        "scores",
        "estimated_performance",
        "drift_report",
        "live_performance",
        "performance_report",
        "shadow_scores",
        "shadow_comparison",
        "backtest",
        "overview",
        "online_state",
        "prediction_log",
    ]
    assert keys == {f"{case.name}/{name}" for name in wanted}


@every_case
def test_the_case_is_found_by_its_name(case: UseCase) -> None:
    """No setting, no change."""
    assert find(case.name, {}) is case
    assert [each.name for each in USE_CASES].count(case.name) == 1
    assert case.name.isidentifier()
    assert case.name == case.name.lower()


@every_case
def test_rows_of_a_real_day_are_taken_in_one_by_one_as_they_are_cleaned_together(case: UseCase, tmp_path: Path) -> None:
    """Those of tables with a `derive` for one row, and the ids of everything that is kept of a table."""
    settings = {"ML_ASSETS_ROOT": str(tmp_path), "ML_ASSETS_CARD_FRAUD_CUSTOMERS": "300", "ML_ASSETS_CARD_FRAUD_TERMINALS": "600"}
    kept = kept_of(case)
    for table in find(case.name, settings).daily_tables:
        source, later = table.source(settings), day_range(shift(case.start, 30), shift(case.start, 60))
        day, batch = next((day, batch) for day in later if len((batch := source.read([day])).rows) > 1)
        raw = ingested(batch, table, [day])
        cleaned = clean(raw, table)
        if table.name in kept:
            ids = kept[table.name].records(cleaned.rows)["id"].tolist()
            assert len(set(ids)) == len(cleaned.rows)
            assert all(0 < len(id) <= ID_BYTES for id in ids)
        if table.intake is not None and table.intake.derive is not None:
            names = [column.name for column in table.columns]
            together = [as_taken(row) for row in cleaned.rows[names].to_dict("records")]
            taken, refused = taken_one_by_one(RowIntake(table), raw)
            assert {found.day for found in taken} == {day}
            assert [found.row for found in taken] == together
            assert refused == len(cleaned.rejected)


def taken_one_by_one(intake: RowIntake, raw: pd.DataFrame) -> tuple[list[Taken], int]:
    """The first row of each key, and how many there are of the others."""
    names = [column.name for column in intake.table.delivered if column.name in raw]
    found: dict[Any, Taken] = {}
    for content in raw[names].to_dict("records"):
        try:
            taken = intake.take({str(name): None if pd.isna(value) else value for name, value in content.items()})
        except InvalidRowError:
            continue
        found.setdefault(tuple(taken.row[name] for name in intake.table.key), taken)
    return list(found.values()), len(raw) - len(found)


def as_taken(row: dict[Hashable, Any]) -> dict[str, Any]:
    """Instants in microseconds, None for what is missing."""
    plain = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    return {name: value.value // 1000 if isinstance(value, pd.Timestamp) else value for name, value in plain.items()}


def test_settings_make_all_cases_at_once_as_they_make_each() -> None:
    assert configured({}) == USE_CASES
    with pytest.raises(KeyError, match=", ".join(case.name for case in USE_CASES)):
        find("nothing", {})


def test_all_definitions_load_together() -> None:
    dg.Definitions.validate_loadable(build_defs(USE_CASES))


# The rules themselves ---------------------------------------------------------------------------------------------------------


def without(case: UseCase, table: str, name: str) -> UseCase:
    """The case without a column of a table."""
    return replace(
        case,
        tables=tuple(
            replace(each, columns=tuple(column for column in each.columns if column.name != name)) if each.name == table else each
            for each in case.tables
        ),
    )


def changed(case: UseCase, part: str, **fields: Any) -> UseCase:
    return replace(case, **{part: replace(getattr(case, part), **fields)})


def early(case: UseCase) -> UseCase:
    """The first fact claims to be known at the event."""
    first = case.features.trailing[0]
    fact = replace(first.fact, known_at=case.event_time)
    return changed(case, "features", trailing=(replace(first, fact=fact), *case.features.trailing[1:]))


def with_column(case: UseCase, table: str, name: str, **fields: Any) -> UseCase:
    """The case with a column of a table declared otherwise."""
    columns = tuple(replace(each, **fields) if each.name == name else each for each in case.table(table).columns)
    return replace(case, tables=tuple(replace(each, columns=columns) if each.name == table else each for each in case.tables))


def with_table(case: UseCase, table: str, **fields: Any) -> UseCase:
    return replace(case, tables=tuple(replace(each, **fields) if each.name == table else each for each in case.tables))


def searching(case: UseCase, **fields: Any) -> UseCase:
    assert case.training.search is not None
    return changed(case, "training", search=replace(case.training.search, **fields))


CASE = next(case for case in USE_CASES if isinstance(case.label, Label))
LABEL: Any = CASE.label
REPORTED = next(case for case in USE_CASES if isinstance(case.label, Reported) and case.training.search and case.investigation)
TOLD: Any = REPORTED.label
UNKNOWN = Slice(column="nobody", minimum_rows=1)


@pytest.mark.parametrize(
    ("broken", "rule", "words"),
    [
        (without(CASE, CASE.events, CASE.event_time), events_are_sound, [repr(CASE.event_time), "add it to `columns` of table"]),
        (without(CASE, CASE.events, LABEL.column), label_is_sound, ["the label refers to", repr(LABEL.column)]),
        (without(CASE, CASE.events, CASE.event_table.key[0]), tables_are_sound, ["`key` of table", "add it to `columns`"]),
        (early(CASE), facts_are_sound, ["looks ahead", repr(CASE.event_time)]),
        (
            changed(CASE, "features", event_columns=(*CASE.features.event_columns, LABEL.column)),
            events_are_sound,
            [repr(LABEL.column), "is known only at"],
        ),
        (changed(CASE, "features", event_columns=()), facts_are_sound, ["add it to `event_columns`"]),
        (replace(CASE, climatology=("nobody",)), features_are_referred_to, ["'nobody'", "add it to `columns` of the features"]),
        (replace(CASE, events="nothing"), events_are_sound, ["'nothing'", "add it to `tables`"]),
        (changed(CASE, "split", weekday=(CASE.split.weekday + 1) % 7), calendar_is_sound, ["is a", "Monday is 0"]),
        (changed(CASE, "split", first_go_live=CASE.start), calendar_is_sound, ["days lie before `first_go_live`"]),
        (changed(CASE, "features", columns=CASE.features.columns * 2), columns_are_declared_once, ["more than once"]),
        (changed(CASE, "features", columns=CASE.features.columns[:5]), features_are_declared, ["not declared", "columns_of"]),
        (changed(CASE, "training", features=("nobody",)), features_are_referred_to, ["`features` of the training", "'nobody'"]),
        (changed(CASE, "training", features=()), training_is_sound, ["`features` of the training is empty"]),
        (changed(CASE, "training", kept_negatives=0.0), training_is_sound, ["it is a share"]),
        (changed(CASE, "training", operating=AlertShare(share=20)), training_is_sound, ["a share is at most 1"]),
        (changed(CASE, "gate", slices=(UNKNOWN,)), features_are_referred_to, ["a slice of the gate is 'nobody'"]),
        (changed(CASE, "gate", slices=(replace(UNKNOWN, of_positives=True),)), slices_are_sound, ["is no `Reported`"]),
        (with_column(CASE, CASE.events, LABEL.column, known_at=None), label_is_sound, ["known from the start", LABEL.known_at]),
        (with_column(CASE, CASE.events, LABEL.column, maximum=2), label_is_sound, ["must be 0 or 1"]),
        (
            changed(REPORTED, "label", table="nothing"),
            label_is_sound,
            ["the label refers to table 'nothing'", "add it to `tables`"],
        ),
        *(
            (without(REPORTED, TOLD.table, name), label_is_sound, ["the label refers to column", repr(name), repr(TOLD.table)])
            for name in ("event_id", REPORTED.event_time, TOLD.known_at, *TOLD.entities)
        ),
        (without(REPORTED, REPORTED.events, TOLD.entities[0]), label_is_sound, ["an entity of the label", repr(REPORTED.events)]),
        (with_column(REPORTED, TOLD.table, TOLD.known_at, dtype=DType.STRING), label_is_sound, ["must be timestamp"]),
        (with_column(REPORTED, TOLD.table, TOLD.entities[0], dtype=DType.INT64), label_is_sound, ["must be string"]),
        (
            with_column(REPORTED, TOLD.table, TOLD.entities[0], known_at=None),
            label_is_sound,
            [f"{TOLD.table}.{TOLD.entities[0]} is declared as known from the start", f"set its `known_at` to {TOLD.known_at!r}"],
        ),
        (
            with_column(REPORTED, TOLD.table, TOLD.entities[0], known_at=REPORTED.event_time),
            label_is_sound,
            [f"is known at {REPORTED.event_time!r}"],
        ),
        (with_table(REPORTED, TOLD.table, daily=False), label_is_sound, ["must be `daily`"]),
        (with_table(REPORTED, TOLD.table, key=(TOLD.known_at,)), label_is_sound, ["one report of an event"]),
        (
            changed(REPORTED, "label", settled_after=timedelta(days=90)),
            label_is_sound,
            ["`settled_after`", "at most `latest_after`"],
        ),
        (changed(REPORTED, "label", latest_after=timedelta(hours=1)), label_is_sound, ["less than a day"]),
        (changed(REPORTED, "split", embargo_days=1), label_is_sound, ["`embargo_days`", "by their positives alone"]),
        (changed(REPORTED, "gate", slices=(replace(UNKNOWN, of_positives=True),)), slices_are_sound, ["'nobody'", TOLD.table]),
        (changed(REPORTED, "gate", slices=(replace(UNKNOWN, edges=(2, 1)),)), slices_are_sound, ["must rise"]),
        (
            changed(CASE, "gate", slices=(Slice(column=CASE.climatology[0], minimum_rows=1, edges=(1,)),)),
            slices_are_sound,
            ["`edges`"],
        ),
        (searching(REPORTED, gap_days=1), search_is_sound, ["`gap_days`", "nobody knew yet"]),
        (searching(REPORTED, folds=99), search_is_sound, ["`minimum_training_days`"]),
        (searching(REPORTED, logistic=()), search_is_sound, ["nothing to look for"]),
        (
            searching(REPORTED, lightgbm=(Range(name="num_leaves", low=900, high=999),)),
            search_is_sound,
            ["begins with", "num_leaves"],
        ),
        (searching(REPORTED, lightgbm=(Range(name="nobody", low=1, high=2),)), search_is_sound, ["begins with None"]),
        (searching(REPORTED, logistic=(Range(name="inverse_penalty", low=0, high=9, log=True),)), search_is_sound, ["above 0"]),
        (changed(REPORTED, "investigation", entity="nobody"), investigation_is_sound, ["'nobody'", "`entities` of the label"]),
        *(
            (with_table(case, name, intake=None), rows_are_taken_in, [repr(name), "add `intake=Intake(day=…)`"])
            for case, name in [(CASE, CASE.events), (REPORTED, REPORTED.events), (REPORTED, TOLD.table)]
        ),
        (changed(REPORTED, "investigation", top=0), investigation_is_sound, ["one entity a day"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else "",
)
def test_a_fault_says_what_is_missing_and_where(broken: UseCase, rule: Callable[[UseCase], Faults], words: list[str]) -> None:
    faults = list(rule(broken))

    assert any(all(word in fault for word in words) for fault in faults), faults
