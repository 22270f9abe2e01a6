"""Names that a generated case makes itself from those of its columns: no column of the file may have one of them.

Belongs here: what `templates/features.py.j2` and `schema.py.j2` declare, by name. Does not: the names of columns (`scaffold.names`).
"""

from collections.abc import Sequence
from datetime import timedelta

from ml_assets.stages.features import columns_of
from ml_assets.use_case import Fact, Latest, Trailing


def generated_names(
    *, time: str, entities: Sequence[str], facts: Sequence[str], money: Sequence[str], window_days: Sequence[int]
) -> set[str]:
    """Derived columns and features.

    Args:
        time: the event time; `entities`, `facts` and, of the latter, `money`: columns of the case.
        window_days: of trailing windows.
    """
    windows = tuple(timedelta(days=days) for days in window_days)
    each_entity = tuple((name,) for name in entities)

    def fact(name: str) -> Fact:
        return Fact(name=name, table="", value=name, known_at=time, unit="")

    trailing = (
        Trailing(fact=fact("events"), entities=each_entity, windows=windows, statistics=("count",)),
        Trailing(fact=fact("label"), entities=each_entity, windows=windows, statistics=("count", "mean")),
        *(Trailing(fact=fact(name), entities=each_entity, windows=windows, statistics=("mean", "std")) for name in facts),
    )
    latest = tuple(
        Latest(name=f"previous_of_{name}", table="", entity=(name,), known_at=time, values=(), change_over=timedelta(0))
        for name in entities
    )
    features = {column.name for column in columns_of(trailing, latest, ())}
    return features | {f"{name}_hundredths" for name in money} | {known_from_name(time)}


def known_from_name(time: str) -> str:
    """The column that says from when on an event of a date counts."""
    return f"{time}_known_at"
