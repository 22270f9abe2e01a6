"""Labels: the truth about events, filed under the day on which it became known."""

from collections.abc import Sequence

import pandas as pd

from ml_assets.stages.quality import Finding
from ml_assets.use_case import Column, Day, DType, Severity, UseCase


def label_columns(case: UseCase) -> tuple[Column, ...]:
    """Contract of the table `labels`, `day` (of knowledge) aside."""
    event_table = {column.name: column for column in case.event_table.columns}
    return (
        Column(name="event_id", dtype=DType.STRING),
        Column(name="event_day", dtype=DType.STRING, description="day of the event"),
        Column(name="event_time", dtype=DType.TIMESTAMP),
        Column(name="known_at", dtype=DType.TIMESTAMP, description="when the label became known"),
        Column(name="label", dtype=DType.INT64, minimum=0, maximum=1),
        *(event_table[name] for name in case.label.entities),
    )


def label_days(case: UseCase, events: pd.DataFrame, days: Sequence[Day]) -> pd.DataFrame:
    """Labels that became known on these days.

    Args:
        events: clean events of these days and of `case.label_lookback_days` days before.

    Returns:
        The columns of `label_columns` and `day`, ordered by day, `known_at` and event id.
    """
    label = case.label
    known = events[events[label.known_at].notna() & events[label.column].notna()]
    rows = pd.DataFrame(
        {
            "event_id": known["event_id"],
            "event_day": known["day"],
            "event_time": known[case.event_time],
            "known_at": known[label.known_at],
            "label": known[label.column].astype("int64"),
            **{name: known[name] for name in label.entities},
            "day": case.days_of(known[label.known_at]),
        }
    )
    return rows[rows["day"].isin(days)].sort_values(["day", "known_at", "event_id"], ignore_index=True)


def label_findings(rows: pd.DataFrame, days: Sequence[Day]) -> dict[Day, list[Finding]]:
    """No label is known before its event: the day on which one is, with the event's name."""
    early = rows[rows["known_at"] < rows["event_time"]]
    found = {}
    for day in days:
        bad = early[early["day"] == day]
        examples = tuple(f"{row.event_id}: known at {row.known_at}, event at {row.event_time}" for row in bad.head(5).itertuples())
        observed = f"{len(bad)} of {int((rows['day'] == day).sum())} labels" if len(early) else "none earlier"
        found[day] = [
            Finding(
                expectation="a label is known at its event or later",
                passed=bad.empty,
                severity=Severity.ERROR,
                observed=observed,
                unexpected=len(bad),
                examples=examples,
            )
        ]
    return found


def latest_known(labels: pd.DataFrame, as_of: pd.Timestamp | None) -> pd.DataFrame:
    """The label in force for each event at a moment: the last one known by then; by now when the moment is None."""
    by_then = labels if as_of is None else labels[labels["known_at"] <= as_of]
    known = by_then.sort_values(["known_at", "event_id"], kind="stable")
    return known.drop_duplicates("event_id", keep="last")
