"""One key is one row: of rows that share a key the first stays, and each other one is a duplicate, a contradiction or a correction.

Belongs here: which rows share a key, over the days that are cleaned together and those published before. Does not: the rules of a column
(`stages.clean`), or when a day has to be made again because another day changed (`orchestration.planning`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.values import shown
from ml_assets.use_case import Corrections, Day, Table, shift

IntArray = npt.NDArray[np.int64]
Published = Callable[[pd.DataFrame], pd.DataFrame]
"""Keys (the key columns and `day`) → the rows with one of them that are published of other days, with their provenance."""
ORDER = ["day", "source_file", "source_row"]
_COLUMNS_SHOWN = 3


class Cause(StrEnum):
    """Why a row is quarantined."""

    CONTRACT = "contract"
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"
    CORRECTION = "correction"


SET_ASIDE = (Cause.DUPLICATE, Cause.CORRECTION)
"""Causes of rows that are sound, and count once: no fault of the delivery."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The rows that stay, one a key, and what became of the others, by their position."""

    rows: pd.DataFrame
    causes: Mapping[int, Cause] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    repeats: pd.DataFrame | None = None
    """`key`, `day`, `first_day`, `first_hash` of rows whose key is that of a row of an earlier day; None for no such row."""


def resolve(rows: pd.DataFrame, table: Table, published: Published | None) -> Resolved:
    """One row a key: over all days where the table is `unique="ever"`, else within each day.

    Args:
        rows: clean rows with `ORDER`, one index value each; several days, in any order.
        published: where rows of other days are looked up; None when there are none.
    """
    by = list(table.key) if table.unique == "ever" else ["day", *table.key]
    others = published(rows[[*table.key, "day"]]) if published and table.unique == "ever" and len(rows) else rows.iloc[:0]
    others = others if len(others) else rows.iloc[:0]  # an empty table has other types, which would decide those of all rows
    if others.empty and not rows.duplicated(by).any():
        return Resolved(rows=rows)
    shared = rows[rows.duplicated(by, keep=False) | _among(rows, others, table.key)]
    together = pd.concat([others.assign(_at=-1), shared.assign(_at=shared.index)]).sort_values(ORDER, kind="stable")
    together = together.reset_index(drop=True)
    codes = together.groupby(by, sort=False, dropna=False).ngroup().to_numpy()
    first = np.full(codes.max(initial=-1) + 1, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    home = first[codes]
    return _judged(rows, together, home, table)


def key_texts(rows: pd.DataFrame, key: Sequence[str]) -> pd.Series:
    """The key of each row as one text."""
    parts = [rows[name].astype("str") for name in key]
    text = parts[0]
    for part in parts[1:]:
        text = text.str.cat(part, sep=" ")
    return text


def row_hashes(rows: pd.DataFrame, table: Table) -> npt.NDArray[np.uint64]:
    """A hash of the columns of each row."""
    columns = rows[[column.name for column in table.columns]]
    return pd.util.hash_pandas_object(columns, index=False).to_numpy().astype(np.uint64)


def _among(rows: pd.DataFrame, others: pd.DataFrame, key: Sequence[str]) -> npt.NDArray[np.bool_]:
    if others.empty:
        return np.zeros(len(rows), dtype=bool)
    found: npt.NDArray[np.bool_] = key_texts(rows, key).isin(key_texts(others, key)).to_numpy(dtype=bool)
    return found


def _judged(rows: pd.DataFrame, together: pd.DataFrame, home: IntArray, table: Table) -> Resolved:
    """What each row is to the one that counts for its key; `home` is the first row of each key, by its place in `together`."""
    names = [column.name for column in table.columns]
    at = together["_at"].to_numpy()
    again = np.flatnonzero((home != np.arange(len(home))) & (at >= 0))
    in_time = _in_time(together, again, home, table.corrections)
    winners = _winners(together, again[in_time], home, table.corrections) if table.corrections else {}
    counting = np.array([winners.get(first, first) for first in home.tolist()], dtype=np.int64)
    same = _equal(together, again, counting[again], names)
    itself = _is_same_row(together, again, counting[again])
    causes: dict[int, Cause] = {}
    reasons: dict[int, str] = {}
    for place, is_same, is_itself, came, name in zip(
        again.tolist(), same, itself, in_time, _named(together, again, counting, home), strict=True
    ):
        position = int(at[place])
        if is_itself:
            causes[position], reasons[position] = Cause.CORRECTION, f"correction of an event of {together['day'].iloc[home[place]]}"
        elif is_same:
            causes[position], reasons[position] = Cause.DUPLICATE, f"duplicate of {name}"
        elif came and table.corrections:
            causes[position] = Cause.CORRECTION
            reasons[position] = f"older by {table.corrections.by} than {name}, which counts"
        else:
            causes[position] = Cause.CONTRADICTION
            reasons[position] = f"contradicts {name}: {_difference(together, place, int(counting[place]), names)}"
            if table.corrections:
                reasons[position] += f"; a correction counts up to {table.corrections.within_days} days later (within_days)"
    staying = rows[~rows.index.isin(list(causes))]
    replaced = {int(at[first]): winner for first, winner in winners.items() if at[first] >= 0}
    if replaced:
        staying = _with_winners(staying, together, replaced, names)
    return Resolved(rows=staying, causes=causes, reasons=reasons, repeats=_repeats(together, again, home, counting, table))


def _in_time(rows: pd.DataFrame, places: IntArray, home: IntArray, declared: Corrections | None) -> npt.NDArray[np.bool_]:
    """Whether each row comes soon enough after the first of its key to correct it."""
    if declared is None:
        return np.zeros(len(places), dtype=bool)
    first = rows["day"].iloc[home[places]].reset_index(drop=True)
    last = first.map({day: shift(day, declared.within_days) for day in first.unique()})
    in_time: npt.NDArray[np.bool_] = (rows["day"].iloc[places].reset_index(drop=True) <= last).to_numpy(dtype=bool)
    return in_time


def _winners(rows: pd.DataFrame, places: IntArray, home: IntArray, declared: Corrections) -> dict[int, int]:
    """For each first row that is corrected the row that counts in its place, the greatest and of these the first.

    A first row that is published of a day which is not made now counts as it is: what corrects it makes that day stale, and is in it then.
    """
    order = rows[declared.by]
    counting: dict[int, int] = {}
    for place in places[rows["_at"].to_numpy()[home[places]] >= 0].tolist():
        first = int(home[place])
        best = order.iloc[counting.get(first, first)]
        if pd.notna(order.iloc[place]) and not order.iloc[place] <= best:
            counting[first] = place
    return counting


def _is_same_row(rows: pd.DataFrame, left: IntArray, right: IntArray) -> npt.NDArray[np.bool_]:
    """Whether a row is the very one that counts: a correction counts on the day of the row that it corrects."""
    same = np.ones(len(left), dtype=bool)
    for name in ("source_file", "source_row"):
        same &= rows[name].iloc[left].to_numpy() == rows[name].iloc[right].to_numpy()
    return same


def _equal(rows: pd.DataFrame, left: IntArray, right: IntArray, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Whether two rows have the same values; a missing value equals a missing one."""
    same = np.ones(len(left), dtype=bool)
    for name in names:
        one, other = rows[name].iloc[left].reset_index(drop=True), rows[name].iloc[right].reset_index(drop=True)
        same &= ((one == other) | (one.isna() & other.isna())).fillna(False).to_numpy(dtype=bool)
    return same


def _named(rows: pd.DataFrame, places: IntArray, counting: IntArray, home: IntArray) -> pd.Series:
    """What the row that counts for each place is called; with the day on which it counts where that is another."""
    row, day = rows.iloc[counting[places]].reset_index(drop=True), rows["day"].iloc[home[places]].reset_index(drop=True)
    name = "row " + row["source_row"].astype("str") + " of " + row["source_file"].astype("str")
    return name.where(day.to_numpy() == rows["day"].iloc[places].to_numpy(), name + " (" + day.astype("str") + ")")


def _difference(rows: pd.DataFrame, place: int, first: int, names: Sequence[str]) -> str:
    differing = []
    for name in names:
        one, other = rows[name].iloc[place], rows[name].iloc[first]
        if not (one == other or (pd.isna(one) and pd.isna(other))):
            differing.append(f"{name} is {_value(one)} and was {_value(other)}")
    more = f" and {len(differing) - _COLUMNS_SHOWN} more" if len(differing) > _COLUMNS_SHOWN else ""
    return ", ".join(differing[:_COLUMNS_SHOWN]) + more


def _value(value: Any) -> str:
    return "missing" if pd.isna(value) else shown(value)


def _with_winners(staying: pd.DataFrame, together: pd.DataFrame, replaced: Mapping[int, int], names: Sequence[str]) -> pd.DataFrame:
    """The first rows with the values and the provenance of their corrections; they keep their day and place."""
    columns = [*names, "source_file", "source_row"]
    new = together.iloc[list(replaced.values())][columns].set_axis(list(replaced), axis=0)
    untouched = staying[~staying.index.isin(list(replaced))]
    changed = new.join(staying.loc[list(replaced), [name for name in staying if name not in columns]])[list(staying.columns)]
    return pd.concat([untouched, changed.astype(staying.dtypes.to_dict())]).sort_index()


def _repeats(together: pd.DataFrame, again: IntArray, home: IntArray, counting: IntArray, table: Table) -> pd.DataFrame | None:
    elsewhere = again[together["day"].iloc[again].to_numpy() != together["day"].iloc[home[again]].to_numpy()]
    if not len(elsewhere):
        return None
    return pd.DataFrame(
        {
            "key": key_texts(together, table.key).iloc[elsewhere].to_numpy(),
            "day": together["day"].iloc[elsewhere].to_numpy(),
            "first_day": together["day"].iloc[home[elsewhere]].to_numpy(),
            "first_hash": row_hashes(together.iloc[counting[elsewhere]], table),
        }
    )


def repeats_by_day(repeats: pd.DataFrame | None) -> dict[Day, list[tuple[str, Day, int]]]:
    """For each day its keys that an earlier day has: key, that day and a hash of the row that counts there, in order."""
    if repeats is None or repeats.empty:
        return {}
    ordered = repeats.drop_duplicates().sort_values(["key", "first_day"])
    return {
        str(day): list(zip(rows["key"].tolist(), rows["first_day"].tolist(), rows["first_hash"].tolist(), strict=True))
        for day, rows in ordered.groupby("day")
    }
