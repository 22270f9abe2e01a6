"""What every use case must declare. A fault names the declaration, the column that it refers to, and where to add it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg
import pytest

from ml_assets.orchestration.pipeline import build_defs
from ml_assets.sources.files import PROVENANCE
from ml_assets.stages.features import columns_of
from ml_assets.use_case import Column, DType, Table, UseCase, day_range
from ml_assets.use_cases import USE_CASES, find

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
    used += [("a slice of the gate", each.column) for each in case.gate.slices]
    for where, name in used:
        if name not in case.features.names:
            yield f"{where} is {name!r}: add it to `columns` of the features, which has {', '.join(case.features.names[:15])}, …"
    if not case.climatology:
        yield "`climatology` of the case is empty: name the features whose rate is the simplest forecast"


def label_is_sound(case: UseCase) -> Faults:
    events, label = tables_named(case, case.events, "`events` of the case")[0], case.label
    for table in events:
        yield from missing(table, [label.column, label.known_at, *label.entities], "the label")
        yield from of_type(table, label.known_at, DType.TIMESTAMP, "`known_at` of the label")
        yield from of_type(table, label.column, DType.INT64, "the label")
        yield from known_in_time(table, label.column, label.known_at, "the label")
        found = column(table, label.column)
        if found is not None and found.known_at is None:
            yield f"the label {label.column!r} is declared as known from the start: set its `known_at` to {label.known_at!r}"
        if found is not None and (found.minimum, found.maximum) != (0, 1):
            yield f"the label {label.column!r} must be 0 or 1: set its `minimum` to 0 and its `maximum` to 1"
    if label.latest_after.days < 1:
        yield "`latest_after` of the label is less than a day: labels of late events would be lost"


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
    label_is_sound,
    calendar_is_sound,
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
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    wanted = [name for table in case.tables for name in (table.raw_name, table.name, table.rejected_name)]
    wanted += ["labels", "features", "candidate_model", "evaluation_report", "deployed_model", "scores", "live_performance"]
    assert keys == {f"{case.name}/{name}" for name in wanted}


@every_case
def test_the_case_is_found_by_its_name(case: UseCase) -> None:
    assert find(case.name) is case
    assert [each.name for each in USE_CASES].count(case.name) == 1
    assert case.name.isidentifier()
    assert case.name == case.name.lower()


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


CASE = USE_CASES[0]


@pytest.mark.parametrize(
    ("broken", "rule", "words"),
    [
        (without(CASE, CASE.events, CASE.event_time), events_are_sound, [repr(CASE.event_time), "add it to `columns` of table"]),
        (without(CASE, CASE.events, CASE.label.column), label_is_sound, ["the label refers to", repr(CASE.label.column)]),
        (without(CASE, CASE.events, CASE.event_table.key[0]), tables_are_sound, ["`key` of table", "add it to `columns`"]),
        (early(CASE), facts_are_sound, ["looks ahead", repr(CASE.event_time)]),
        (
            changed(CASE, "features", event_columns=(*CASE.features.event_columns, CASE.label.column)),
            events_are_sound,
            [repr(CASE.label.column), "is known only at"],
        ),
        (changed(CASE, "features", event_columns=()), facts_are_sound, ["add it to `event_columns`"]),
        (replace(CASE, climatology=("nobody",)), features_are_referred_to, ["'nobody'", "add it to `columns` of the features"]),
        (replace(CASE, events="nothing"), events_are_sound, ["'nothing'", "add it to `tables`"]),
        (changed(CASE, "split", weekday=(CASE.split.weekday + 1) % 7), calendar_is_sound, ["is a", "Monday is 0"]),
        (changed(CASE, "split", first_go_live=CASE.start), calendar_is_sound, ["days lie before `first_go_live`"]),
        (changed(CASE, "features", columns=CASE.features.columns * 2), columns_are_declared_once, ["more than once"]),
        (changed(CASE, "features", columns=CASE.features.columns[:5]), features_are_declared, ["not declared", "columns_of"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else "",
)
def test_a_fault_says_what_is_missing_and_where(broken: UseCase, rule: Callable[[UseCase], Faults], words: list[str]) -> None:
    faults = list(rule(broken))

    assert any(all(word in fault for word in words) for fault in faults), faults
