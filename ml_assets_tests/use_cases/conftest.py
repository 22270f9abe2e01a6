"""Features of single events, as a scorer computes them: from what is kept of clean rows, one event after the other."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import pandas as pd
import pytest

from ml_assets.stages.kept import NEVER
from ml_assets.stages.online_features import OnlineFeatures
from ml_assets.use_case import UseCase


def as_row(row: dict[Hashable, Any]) -> dict[str, Any]:
    """A row as it comes from outside: None for what is missing, instants in microseconds."""
    plain = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    return {name: value.value // 1000 if isinstance(value, pd.Timestamp) else value for name, value in plain.items()}


def in_batches(
    case: UseCase, events: pd.DataFrame, tables: dict[str, pd.DataFrame], *, sizes: Sequence[int]
) -> Iterator[pd.DataFrame]:
    """What is kept takes longer to file than features to compute, so it is filed once."""
    online = OnlineFeatures(case)
    filed: dict[bytes, list[bytes]] = {}
    for name, kept in online.kept.items():
        records = kept.records(tables[name])
        for record, row in zip(records, map(as_row, tables[name].to_dict("records")), strict=True):
            assert record.tobytes() == kept.record(kept.counted(row, row["day"])), (
                "one by one and in a frame, the same is kept of a row"
            )
            for key in kept.keys(row):
                filed.setdefault(key, []).append(record.tobytes())
    dimensions = {
        table.name: {row[table.key[0]]: row for row in map(as_row, tables[table.name].to_dict("records"))}
        for table in case.dimensions
    }
    rows = list(map(as_row, events.to_dict("records")))
    head = events.set_index("event_id")[[case.event_time, "day"]].rename(columns={case.event_time: "event_time"})
    for size in sizes:
        made = []
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            asked = {key for event in batch for key in online.keys(event).values() if key in filed}
            facts = {key: b"".join(filed[key]) for key in asked}
            made.append(pd.DataFrame(online.compute(batch, facts, lambda table, value: dimensions[table].get(value))))
        yield pd.concat([head, pd.concat(made).set_index(head.index)], axis=1)


@pytest.fixture(scope="session")
def from_what_is_kept() -> Callable[..., Iterator[pd.DataFrame]]:
    """Of the same events, one by one and in sevens."""
    assert pd.NaT.value == NEVER
    return partial(in_batches, sizes=(1, 7))
