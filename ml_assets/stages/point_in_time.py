"""Does any feature see the future? Features are computed again in a world that ends at the time of the event.

In that world, values whose `known_at` (declared in the schema) lies later are missing. A feature that differs has looked ahead: by a fact
with a wrong time, a column of the outcome, a join. Rows stay, with what is known of them from the start: a flight is on the schedule.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ml_assets.stages.features import compute
from ml_assets.stages.quality import Finding
from ml_assets.use_case import Day, Severity, Table, UseCase, shift


def known_by(frame: pd.DataFrame, table: Table, moment: pd.Timestamp) -> pd.DataFrame:
    """The table as it could be known at a moment: values that were not known yet are missing."""
    known = {name: frame[name] <= moment for name in {column.known_at for column in table.columns} if name is not None}
    seen = {column.name: frame[column.name] for column in table.columns} | {"day": frame["day"]}
    for column in table.columns:
        if column.known_at is not None and not known[column.known_at].all():
            values = seen[column.name]
            seen[column.name] = (values.astype("float64") if values.dtype == np.int64 else values).where(known[column.known_at])
    return pd.DataFrame(seen)


def look_ahead_findings(
    case: UseCase, features: pd.DataFrame, tables: Mapping[str, pd.DataFrame], days: Sequence[Day]
) -> dict[Day, list[Finding]]:
    """For each day, the events at one moment of it (the median event's) are computed again from what was known by then.

    That world has the rows about entities of these events alone: a fact about another entity answers none of their questions.
    """
    about = {name: _About(frame, _entity_columns(case, name)) for name, frame in tables.items() if case.table(name).daily}
    found: dict[Day, list[Finding]] = {}
    for day, stored in features[features["day"].isin(days)].groupby("day", sort=False):
        moment = stored["event_time"].sort_values().iloc[len(stored) // 2]
        at_moment = stored[stored["event_time"] == moment]
        asked = about[case.events].events(at_moment["event_id"], str(day))
        first = {name: shift(str(day), -case.lookback_days_of(name)) for name in about}
        world = {
            name: known_by(about[name].rows(asked, first[name], str(day)) if name in about else frame, case.table(name), moment)
            for name, frame in tables.items()
        }
        again = compute(case, known_by(asked, case.event_table, moment), world)
        found[str(day)] = [_finding(case, at_moment, again)]
    nothing = Finding(expectation=_SENTENCE, passed=True, severity=Severity.ERROR, observed="no events")
    return {day: found.get(day, [nothing]) for day in days}


_SENTENCE = "features are the same without anything known after the event"


def _finding(case: UseCase, stored: pd.DataFrame, again: pd.DataFrame) -> Finding:
    left, right = stored.set_index("event_id"), again.set_index("event_id").reindex(stored["event_id"])
    differing = [name for name in case.features.names if not left[name].equals(right[name])]
    examples = tuple(
        f"{name}: {left[name].iloc[at]!r} stored, {right[name].iloc[at]!r} from what was known ({left.index[at]})"
        for name in differing[:5]
        for at in [_first_difference(left[name], right[name])]
    )
    return Finding(
        expectation=_SENTENCE,
        passed=not differing,
        severity=Severity.ERROR,
        observed=f"{len(differing)} of {len(case.features.names)} features differ on {len(stored)} events",
        unexpected=len(stored) if differing else 0,
        examples=examples,
    )


def _first_difference(left: pd.Series, right: pd.Series) -> int:
    same = (left == right) | (left.isna() & right.isna())
    return int(np.argmin(same.to_numpy()))


def _entity_columns(case: UseCase, table: str) -> list[str]:
    """By which columns of a table features ask; of an entity of several columns the first is enough to leave few rows."""
    declared = case.features
    entities = [entity for each in declared.trailing if each.fact.table == table for entity in each.entities]
    entities += [each.entity for each in declared.latest if each.table == table]
    return list(dict.fromkeys(entity[0] for entity in entities))


class _About:
    """A table, from which rows about some entities are taken many times."""

    def __init__(self, frame: pd.DataFrame, columns: Sequence[str]) -> None:
        day = frame["day"].to_numpy(dtype="U10")
        if (day[1:] < day[:-1]).any():
            frame, day = frame.iloc[np.argsort(day, kind="stable")], np.sort(day)
        self._frame, self._day = frame, day
        self._of_day = frame.groupby("day", sort=False).indices
        self._about = {column: frame.groupby(column, sort=False).indices for column in columns}

    def events(self, ids: pd.Series, day: Day) -> pd.DataFrame:
        """The events of a day with these ids."""
        of_day = self._frame.iloc[self._of_day[day]]
        return of_day[of_day["event_id"].isin(ids)]

    def rows(self, asked: pd.DataFrame, first: Day, last: Day) -> pd.DataFrame:
        """Rows of some days about any entity of the events asked for, by day and in the table's order."""
        begin, end = np.searchsorted(self._day, first, side="left"), np.searchsorted(self._day, last, side="right")
        nothing = np.empty(0, dtype=np.int64)
        found = [places.get(value, nothing) for column, places in self._about.items() for value in asked[column].unique()]
        within = [places[slice(*np.searchsorted(places, (begin, end)))] for places in found]  # a year of an airport has many rows
        kept = np.unique(np.concatenate([nothing, *within]))
        found_rows: pd.DataFrame = self._frame.iloc[kept].reset_index(drop=True)
        return found_rows
