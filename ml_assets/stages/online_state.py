"""From when on an online store answers truly: what was loaded of which days, and what may be dropped.

Belongs here: the meaning of the store's notes. Does not: the store (`storage.online`), what is kept (`stages.kept`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter

import numpy as np
import pandas as pd

from ml_assets.stages.kept import MICROSECOND, SEPARATOR, Kept, kept_of, layout
from ml_assets.stages.quality import Finding
from ml_assets.storage.online import Fact, OnlineStore
from ml_assets.use_case import Column, Day, DType, Lookup, Severity, UseCase, shift

LAYOUT, ANSWERS_FROM, SEEN_UNTIL, LOADED = "layout", "answers_from", "seen_until", "loaded:"
LATE = timedelta(days=1)
"""How much later than the newest an event may come: facts are kept that much longer than the longest window."""
SILENCE = timedelta(days=1)
"""So long after everything that a store has seen, it cannot be relied upon: what happened in between is not there."""
ANSWERS_KEPT = timedelta(days=7)
"""How long an event that is sent again gets the answer that it got."""
SINCE_EVER = -(2**62)
_AT_ONCE = 20_000


class OtherLayoutError(ValueError):
    """The store was filled for other features than those declared now."""


def load_days(case: UseCase, store: OnlineStore, rows: Mapping[str, pd.DataFrame], days: Mapping[Day, str]) -> dict[str, int]:
    """Files what features need of clean rows; rows filed before are replaced, so that loading twice is loading once.

    Args:
        rows: for each table that features look back on, the rows of these days.
        days: what was loaded, with a hash of its content.

    Returns:
        How many records were filed, by table.
    """
    require_layout(case, store.notes(LAYOUT))
    store.note({LAYOUT: layout(case)})
    filed = {}
    for name, kept in kept_of(case).items():
        facts = sorted(_facts(kept, rows[name]), key=itemgetter(0, 1))  # a store takes neighbours in half the time
        for start in range(0, len(facts), _AT_ONCE):
            store.keep(facts[start : start + _AT_ONCE], replace=True)
        filed[name] = len(facts)
    store.note({f"{LOADED}{day}": content for day, content in days.items()})
    notes = store.notes("")
    loaded = sorted(name.removeprefix(LOADED) for name, content in notes.items() if name.startswith(LOADED) and content)
    since, seen_until = answers_from(case, loaded), int(notes.get(SEEN_UNTIL, SINCE_EVER))
    if ANSWERS_FROM in notes and _start_of(case, min(days)) <= seen_until + SILENCE // MICROSECOND:
        # What lies between the days loaded before and these was seen as it happened.
        since = min(since, int(notes[ANSWERS_FROM]))
    store.note({ANSWERS_FROM: str(since), SEEN_UNTIL: str(max(seen_until, _start_of(case, shift(loaded[-1], 1))))})
    return filed


def load_dimension(store: OnlineStore, lookup: Lookup, rows: pd.DataFrame) -> None:
    """Files what features look up in a table that is not delivered by day."""
    values = rows[list(lookup.values)].astype(object)
    contents = values.where(values.notna(), None).to_dict("records")
    store.keep(
        [
            Fact(dimension_key(lookup.table, str(key)), b"-", SINCE_EVER * -1, json.dumps(content).encode())
            for key, content in zip(rows[lookup.by], contents, strict=True)
        ],
        replace=True,
    )


COUNT_COLUMNS = (
    Column(name="table", dtype=DType.STRING),
    Column(name="rows", dtype=DType.INT64, minimum=0, description="rows that features look back on"),
)
SAMPLE = 20


def counted(rows: Mapping[str, pd.DataFrame], days: Sequence[Day]) -> pd.DataFrame:
    """How many rows of each table were loaded for each day: `table`, `rows`, `day`."""
    counts = {name: frame["day"].value_counts() for name, frame in rows.items()}
    found = [(name, int(count.get(day, 0)), day) for day in days for name, count in counts.items()]
    return pd.DataFrame(found, columns=["table", "rows", "day"]).astype({"table": "str", "rows": "int64", "day": "str"})


def loading_findings(
    case: UseCase, store: OnlineStore, rows: Mapping[str, pd.DataFrame], days: Sequence[Day]
) -> dict[Day, list[Finding]]:
    """Of each table and day, `SAMPLE` rows spread over the day are read back from under all their entities."""
    found: dict[Day, list[Finding]] = {day: [] for day in days}
    for name, kept in kept_of(case).items():
        for day, of_day in rows[name].groupby("day", sort=False):
            sample = of_day.iloc[np.linspace(0, len(of_day) - 1, min(SAMPLE, len(of_day))).astype(np.int64)]
            facts = list(_facts(kept, sample))
            there = store.facts([fact.key for fact in facts])
            missing = [fact for fact in facts if fact.record not in there.get(fact.key, b"")]
            found[str(day)].append(
                Finding(
                    expectation=f"rows of {name} are read back from the online store as they were filed",
                    passed=not missing,
                    severity=Severity.ERROR,
                    observed=f"{len(missing)} of {len(facts)} records are not there",
                    unexpected=len(missing),
                    examples=tuple(fact.id.decode() for fact in missing[:3]),
                )
            )
    return found


def dimension_key(table: str, key: str) -> bytes:
    """Where a row of a table that is not delivered by day is filed."""
    return SEPARATOR.join([table.encode(), key.encode()])


def answers_from(case: UseCase, loaded: list[Day]) -> int:
    """The instant from which on the windows of an event are whole: of the loaded days, the latest that follow each other count."""
    first = loaded[-1]
    while shift(first, -1) in loaded:
        first = shift(first, -1)
    return SINCE_EVER if first <= case.start else _start_of(case, shift(first, case.lookback_days))


def require_layout(case: UseCase, notes: Mapping[str, str]) -> None:
    """What is in the store was kept for the features that are declared now, or nothing is in it.

    Raises:
        OtherLayoutError: it was not.
    """
    noted = notes.get(LAYOUT)
    if noted is not None and noted != layout(case):
        raise OtherLayoutError(
            f"the online store of {case.name} was filled for features as they were declared before: "
            f"take its content away and materialise online_state again"
        )


def refuse_old(case: UseCase, store: OnlineStore, seen_until: int) -> None:
    """Notes that events are answered only from `LATE` before an instant on: what reaches further back may be dropped once that is known."""
    notes = store.notes("")
    if ANSWERS_FROM in notes:
        oldest = seen_until - LATE // MICROSECOND
        store.note({ANSWERS_FROM: str(max(int(notes[ANSWERS_FROM]), oldest))})
        gone = datetime.fromtimestamp(oldest // 1_000_000, tz=case.starts(case.start).tz) - timedelta(days=case.lookback_days)
        days = [name for name in notes if name.startswith(LOADED) and name.removeprefix(LOADED) < gone.date().isoformat()]
        store.note(dict.fromkeys(days, ""))


def drop_old(case: UseCase, store: OnlineStore, seen_until: int) -> int:
    """Drops facts that no window of an event can reach which is not refused, and old answers; how many facts they were."""
    dropped = 0
    for name, kept in kept_of(case).items():
        before = seen_until - (case.features.longest_window(name) + LATE) // MICROSECOND
        dropped += sum(store.drop(prefix + SEPARATOR, before) for prefix in kept.prefixes)
    store.drop_answers(seen_until - ANSWERS_KEPT // MICROSECOND)
    return dropped


def _facts(kept: Kept, rows: pd.DataFrame) -> Iterator[Fact]:
    records = kept.records(rows)
    until = records[kept.times[0]]
    for name in kept.times[1:]:
        until = pd.Series(until).clip(lower=records[name]).to_numpy()
    ids, packed = records[kept.id_field].tolist(), [record.tobytes() for record in records]
    for keys in kept.keys_of(rows):
        for key, id, last, record in zip(keys, ids, until.tolist(), packed, strict=True):
            if key is not None:
                yield Fact(key, id, last, record)


def _start_of(case: UseCase, day: Day) -> int:
    return case.starts(day).value // 1000
