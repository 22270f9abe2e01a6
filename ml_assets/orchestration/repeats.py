"""Keys that are one row over all days: where rows of other days are looked up, and which days another day decides about.

A day of such a table is made from its own deliveries and from what earlier days have under its keys. So a day that comes later, or changes,
makes exactly those days stale that have a key of it.
"""

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache

import pandas as pd

from ml_assets.orchestration.store import Store
from ml_assets.stages.identity import Published, key_texts, repeats_by_day, row_hashes
from ml_assets.storage.tables import Tables, fingerprint
from ml_assets.use_case import Day, Table, UseCase

Repeats = Mapping[Day, Sequence[tuple[str, Day, int]]]


def published_elsewhere(tables: Tables, table: Table, days: Set[Day]) -> Published | None:
    """Looks up rows that are published of other days than these; None where keys are of one day."""
    if table.unique != "ever":
        return None
    others = sorted(set(tables.ledger(table.name)) - days)

    def look_up(keys: pd.DataFrame) -> pd.DataFrame:
        if not others:
            return keys.iloc[:0].reindex(columns=[*_columns(table)])
        there = tables.read(table.name, others, columns=[*table.key, "day"])
        shared = key_texts(there, table.key).isin(set(key_texts(keys, table.key)))
        return _rows_with(tables, table, there[shared.to_numpy(dtype=bool)])

    return look_up


def with_repeats(inputs: Mapping[Day, str], repeats: Repeats) -> dict[Day, str]:
    """The hash of what a day is made from, with what earlier days decide about it."""
    return {day: fingerprint(made_from, repeats[day]) if repeats.get(day) else made_from for day, made_from in inputs.items()}


def repeats_of(case: UseCase, store: Store, table: Table) -> Repeats:
    """For each published day its keys, clean or set aside, that an earlier day has."""
    tables = store.tables(case)
    if table.unique != "ever" or not tables.ledger(table.name):
        return {}
    return _repeats(tables, table, (tables.version(table.name), tables.version(table.rejected_name)))


@lru_cache(maxsize=64)
def _repeats(tables: Tables, table: Table, versions: tuple[int, int]) -> Repeats:
    """Once for each pair of versions of the two tables: a tick that finds nothing new reads nothing."""
    there = tables.read(table.name, columns=[*table.key, "day"])
    keys = pd.DataFrame({"key": key_texts(there, table.key), "day": there["day"]})
    aside = _set_aside(tables, table) if versions[1] >= 0 else keys.iloc[:0]
    first = keys.groupby("key", sort=False)["day"].min() if len(keys) else pd.Series(dtype="str")
    asked = pd.concat([keys[keys["key"].duplicated(keep=False)], aside], ignore_index=True)
    asked = asked.assign(first_day=asked["key"].map(first)).dropna(subset="first_day")
    if asked.empty or (asked := asked[asked["first_day"] < asked["day"]]).empty:
        return {}
    homes = keys[keys["key"].isin(set(asked["key"]))]
    rows = _rows_with(tables, table, there.loc[homes.index])
    hashes = pd.DataFrame({"key": key_texts(rows, table.key), "first_day": rows["day"], "first_hash": row_hashes(rows, table)})
    return repeats_by_day(asked.merge(hashes, on=["key", "first_day"]))


def _set_aside(tables: Tables, table: Table) -> pd.DataFrame:
    """Keys and days of the rows that are not clean because of another row; none in a table from before this was noted."""
    if "cause" not in (columns := tables.read(table.rejected_name, [])):
        return columns.iloc[:0].reindex(columns=["key", "day"])
    return tables.read(table.rejected_name, columns=["key", "day"], where=[("cause", "!=", "contract")]).dropna(subset="key")


def _rows_with(tables: Tables, table: Table, found: pd.DataFrame) -> pd.DataFrame:
    """The whole rows with these keys, on their days."""
    if found.empty:
        return tables.read(table.name, [], columns=_columns(table))
    rows = tables.read(table.name, sorted(set(found["day"])), columns=_columns(table))
    return rows[key_texts(rows, table.key).isin(set(key_texts(found, table.key))).to_numpy(dtype=bool)].reset_index(drop=True)


def _columns(table: Table) -> list[str]:
    return [*(column.name for column in table.columns), "day", "source_file", "source_row"]
