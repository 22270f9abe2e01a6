"""Features of single events, as a scorer computes them: from what is kept of clean rows, one event after the other."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.one_event import NEVER, OneEvent
from ml_assets.use_case import UseCase


def as_row(row: dict[Hashable, Any]) -> dict[str, Any]:
    """A row as it comes from outside: None for what is missing, instants in microseconds."""
    plain = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    return {name: value.value // 1000 if isinstance(value, pd.Timestamp) else value for name, value in plain.items()}


def one_by_one(case: UseCase, events: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    one = OneEvent(case)
    records = {name: kept.records(tables[name]) for name, kept in one.kept.items()}
    places = {
        (name, entity): tables[name].groupby(list(entity), dropna=True).indices
        for name, kept in one.kept.items()
        for entity in kept.entities
    }
    dimensions = {
        table.name: {row[table.key[0]]: row for row in map(as_row, tables[table.name].to_dict("records"))}
        for table in case.dimensions
    }
    made = []
    for event in map(as_row, events.to_dict("records")):

        def facts(table: str, entity: tuple[str, ...], event: dict[str, Any] = event) -> np.ndarray:
            parts = tuple(event[column] for column in entity)
            return records[table][places[table, entity].get(parts if len(parts) > 1 else parts[0], np.empty(0, dtype=np.int64))]

        made.append(one.features(event, facts, lambda table, value: dimensions[table].get(value)))
    head = events.set_index("event_id")[[case.event_time, "day"]].rename(columns={case.event_time: "event_time"})
    return pd.concat([head, pd.DataFrame(made, index=head.index)], axis=1)


@pytest.fixture(scope="session")
def from_what_is_kept() -> Callable[..., pd.DataFrame]:
    assert pd.NaT.value == NEVER
    return one_by_one
