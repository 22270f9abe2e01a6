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


def _judged(rows: pd.DataFrame, together: pd.DataFrame, home: npt.NDArray[np.int64], table: Table) -> Resolved:
    """What each row is to the first one with its key, `home`, by its place in `together`."""
    names = [column.name for column in table.columns]
    at = together["_at"].to_numpy()
    again = np.flatnonzero((home != np.arange(len(home))) & (at >= 0))
    same = _equal(together, again, home[again], names)
    causes: dict[int, Cause] = dict.fromkeys(at[again[same]].tolist(), Cause.DUPLICATE)
    reasons = dict(zip(at[again[same]].tolist(), ("duplicate of " + _named(together, again[same], home)), strict=True))
    winners: dict[int, int] = {}
    different = again[~same]
    if table.corrections is not None:
        winners, corrected = _corrected(together, different, home, table.corrections)
        causes |= {int(at[place]): cause for place, (cause, _) in corrected.items()}
        reasons |= {int(at[place]): reason for place, (_, reason) in corrected.items()}
        different = np.array([place for place in different.tolist() if place not in corrected], dtype=np.int64)
    for place, name in zip(different.tolist(), _named(together, different, home), strict=True):
        causes[int(at[place])] = Cause.CONTRADICTION
        reasons[int(at[place])] = f"contradicts {name}: {_difference(together, place, int(home[place]), names)}"
    staying = rows[~rows.index.isin(list(causes))]
    replaced = {int(at[first]): winner for first, winner in winners.items() if at[first] >= 0}
    if replaced:
        staying = _with_winners(staying, together, replaced, names)
    return Resolved(rows=staying, causes=causes, reasons=reasons, repeats=_repeats(together, again, home, table, winners))


def _equal(
    rows: pd.DataFrame, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], names: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Whether two rows have the same values; a missing value equals a missing one."""
    same = np.ones(len(left), dtype=bool)
    for name in names:
        one, other = rows[name].iloc[left].reset_index(drop=True), rows[name].iloc[right].reset_index(drop=True)
        same &= ((one == other) | (one.isna() & other.isna())).fillna(False).to_numpy(dtype=bool)
    return same


def _named(rows: pd.DataFrame, places: npt.NDArray[np.int64], home: npt.NDArray[np.int64]) -> pd.Series:
    """What the first row of each place is called; with its day where that is another."""
    first = rows.iloc[home[places]].reset_index(drop=True)
    name = "row " + first["source_row"].astype("str") + " of " + first["source_file"].astype("str")
    other_day = first["day"].to_numpy() != rows["day"].iloc[places].to_numpy()
    return name.where(~other_day, name + " (" + first["day"].astype("str") + ")")


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


def _corrected(
    rows: pd.DataFrame, places: npt.NDArray[np.int64], home: npt.NDArray[np.int64], declared: Corrections
) -> tuple[dict[int, int], dict[int, tuple[Cause, str]]]:
    """For each first row the correction that counts in its place, and what became of every correction that came in time."""
    order = rows[declared.by]
    within = {day: shift(day, declared.within_days) for day in set(rows["day"].iloc[home[places]])}
    counts: dict[int, int] = {}
    in_time = [place for place in places.tolist() if rows["day"].iloc[place] <= within[rows["day"].iloc[home[place]]]]
    for place in in_time:
        first = int(home[place])
        best = counts.get(first, first)
        if pd.notna(order.iloc[place]) and not order.iloc[place] <= order.iloc[best]:
            counts[first] = place
    fates = {}
    for place, name in zip(in_time, _named(rows, np.array(in_time, dtype=np.int64), home), strict=True):
        counted = counts.get(int(home[place])) == place
        fate = "counts in its place" if counted else f"is older by {declared.by} than what counts in its place"
        fates[place] = (Cause.CORRECTION, f"correction of {name}: it {fate}")
    return counts, fates


def _with_winners(staying: pd.DataFrame, together: pd.DataFrame, replaced: Mapping[int, int], names: Sequence[str]) -> pd.DataFrame:
    """The first rows with the values and the provenance of their corrections; they keep their day and place."""
    columns = [*names, "source_file", "source_row"]
    new = together.iloc[list(replaced.values())][columns].set_axis(list(replaced), axis=0)
    untouched = staying[~staying.index.isin(list(replaced))]
    changed = new.join(staying.loc[list(replaced), [name for name in staying if name not in columns]])[list(staying.columns)]
    return pd.concat([untouched, changed.astype(staying.dtypes.to_dict())]).sort_index()


def _repeats(
    together: pd.DataFrame,
    again: npt.NDArray[np.int64],
    home: npt.NDArray[np.int64],
    table: Table,
    winners: Mapping[int, int],
) -> pd.DataFrame | None:
    elsewhere = again[together["day"].iloc[again].to_numpy() != together["day"].iloc[home[again]].to_numpy()]
    if not len(elsewhere):
        return None
    counted = np.array([winners.get(first, first) for first in home[elsewhere].tolist()], dtype=np.int64)
    return pd.DataFrame(
        {
            "key": key_texts(together, table.key).iloc[elsewhere].to_numpy(),
            "day": together["day"].iloc[elsewhere].to_numpy(),
            "first_day": together["day"].iloc[home[elsewhere]].to_numpy(),
            "first_hash": row_hashes(together.iloc[counted], table),
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
