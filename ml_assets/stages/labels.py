"""Labels: the truth about events, filed under the day on which it became known."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ml_assets.stages.availability import instants, known_times
from ml_assets.stages.quality import Finding
from ml_assets.use_case import Column, Day, DType, Investigation, Label, Reported, Severity, UseCase, shift


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


def label_days(case: UseCase, events: pd.DataFrame, reports: pd.DataFrame | None, days: Sequence[Day]) -> pd.DataFrame:
    """Labels that became known on these days.

    Args:
        events: clean events of these days and of the `settled_days` before each of them. Others do no harm: a day sees its own.
        reports: where labels stand in a table of their own, its rows of the same days.

    Returns:
        The columns of `label_columns` and `day`, ordered by day, `known_at` and event id.
    """
    label = case.label
    if case.label_table != case.events and reports is None:
        raise ValueError(f"labels of {case.name} are reported in {case.label_table}: hand over its rows")
    if isinstance(label, Reported):
        known = pd.concat(_reported(case, label, events, pd.DataFrame(reports)), ignore_index=True)
    else:
        known = _delivered(case, label, events, reports)
    return known[known["day"].isin(days)].sort_values(["day", "known_at", "event_id"], ignore_index=True)


def _delivered(case: UseCase, label: Label, events: pd.DataFrame, own: pd.DataFrame | None) -> pd.DataFrame:
    """Labels out of a column. One is known when it says so, and not before both it and its event were delivered.

    A label whose event is delivered later waits for it; one that lies more than `settled_days` from the day on which it counts is left
    out, whatever range is made: that is what `latest_after` promises.
    """
    rows = events if own is None else own
    rows = rows[rows[label.known_at].notna() & rows[label.column].notna()].reset_index(drop=True)
    known_at = known_times(case, case.table(case.label_table), rows, label.known_at)
    rows = rows.assign(**{label.known_at: instants(known_at)})
    delivered = rows["day"]
    if own is not None:
        about = events[["event_id", "day", case.event_time, *label.entities]]
        rows = rows[["event_id", "day", label.column, label.known_at]].merge(about, on="event_id", suffixes=("_of_label", ""))
        delivered = rows["day_of_label"]
        begins = rows["day"].map({day: case.starts(day) for day in rows["day"].unique()}).astype(rows[label.known_at].dtype)
        rows[label.known_at] = rows[label.known_at].where(rows[label.known_at] >= begins, begins)
    known = _as_labels(case, rows, rows["day"], rows[label.column].astype("int64"), rows[label.known_at])
    earliest = known["day"].map({day: shift(day, -case.settled_days) for day in known["day"].unique()})
    within = (rows["day"] >= earliest) & (delivered >= earliest) & (known["day"] >= delivered)
    kept = known[within.to_numpy(dtype=bool)]
    # A late event can find more than one label that waited for it: the last one counts.
    return (
        kept.assign(_of_label=delivered[within])
        .sort_values(["_of_label", "known_at"], kind="stable")
        .drop(columns="_of_label")
        .drop_duplicates(["event_id", "day"], keep="last")
    )


def _reported(case: UseCase, label: Reported, events: pd.DataFrame, reports: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Reports when they come, and negatives when no report has come in time.

    A report that is repeated on another day is a label of that day too: whether there was one before may lie outside these days, and a
    day must be the same however many are made with it.
    """
    told = reports.sort_values([label.known_at, "event_id"], kind="stable")
    positives = _as_labels(
        case, told, case.days_of(told[case.event_time]), pd.Series(1, index=told.index, dtype="int64"), told[label.known_at]
    )
    yield positives.drop_duplicates(["event_id", "day"])
    settled = events[case.event_time] + label.settled_after
    # Not `map`, which takes reports without a row for numbers.
    reported_at = told.drop_duplicates("event_id").set_index("event_id")[label.known_at].reindex(events["event_id"])
    silent = ~(reported_at.set_axis(events.index) <= settled)
    negatives = events[silent]
    yield _as_labels(case, negatives, negatives["day"], pd.Series(0, index=negatives.index, dtype="int64"), settled[silent])


def deciding_reports(case: UseCase, label: Reported, reports: pd.DataFrame) -> pd.DataFrame:
    """What of the reports decides the labels of each `day`: those that became known on it, and those that an event which would have
    settled on it was reported by. A report that comes after its event has settled decides the day of the report alone.

    Args:
        reports: rows of its table for some days, and for the `settled_days` before each of them.
    """
    told = reports[["event_id", case.event_time, label.known_at, *label.entities]].sort_values([label.known_at, "event_id"])
    settled = told[case.event_time] + label.settled_after
    in_time = told[label.known_at] <= settled
    parts = [
        told.assign(day=case.days_of(told[label.known_at])),
        told[in_time].assign(day=case.days_of(settled[in_time])),
    ]
    return pd.concat(parts).drop_duplicates().sort_values(["day", label.known_at, "event_id"], ignore_index=True)


def _as_labels(case: UseCase, rows: pd.DataFrame, event_day: pd.Series, label: pd.Series, known_at: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "event_id": rows["event_id"],
            "event_day": event_day,
            "event_time": rows[case.event_time],
            "known_at": known_at,
            "label": label,
            **{name: rows[name] for name in case.label.entities},
            "day": case.days_of(known_at),
        }
    )


def label_findings(rows: pd.DataFrame, days: Sequence[Day]) -> dict[Day, list[Finding]]:
    """No label is known before its event, or with it, where its features would see it: the day on which one is, with the event's name."""
    early = rows[rows["known_at"] <= rows["event_time"]]
    found = {}
    for day in days:
        bad = early[early["day"] == day]
        examples = tuple(f"{row.event_id}: known at {row.known_at}, event at {row.event_time}" for row in bad.head(5).itertuples())
        observed = f"{len(bad)} of {int((rows['day'] == day).sum())} labels" if len(early) else "none earlier"
        found[day] = [
            Finding(
                expectation="a label is known after its event",
                passed=bad.empty,
                severity=Severity.ERROR,
                observed=observed,
                unexpected=len(bad),
                examples=examples,
            )
        ]
    return found


def unmatched_findings(case: UseCase, events: pd.DataFrame, reports: pd.DataFrame, days: Sequence[Day]) -> dict[Day, list[Finding]]:
    """Labels of a table of their own that are about no event that is there. One whose event comes late counts when it comes."""
    findings = {}
    for day in days:
        there = events.loc[events["day"].between(shift(day, -case.settled_days), day), "event_id"]
        of_day = reports.loc[reports["day"] == day, "event_id"]
        unknown = of_day[~of_day.isin(there)]
        findings[day] = [
            Finding(
                expectation=f"a label is about an event of the {case.settled_days} days before",
                passed=unknown.empty,
                severity=Severity.WARN,
                observed=f"{len(unknown)} of {len(of_day)} labels delivered are about no event that is there",
                unexpected=len(unknown),
                examples=tuple(unknown.head(5)),
            )
        ]
    return findings


def latest_known(labels: pd.DataFrame) -> pd.DataFrame:
    """The label in force for each event, the last one that became known: of those that a caller may know.

    Where a label was only repeated, `known_at` and `day` are those of the first time.
    """
    known = labels.sort_values("known_at", kind="stable")
    repeated = known["event_id"].duplicated(keep=False).to_numpy(copy=True)
    several = known[repeated]  # few: grouping all labels would take a second a million
    repeated[repeated] = (several["label"] == several.groupby("event_id")["label"].shift()).to_numpy()
    return known[~repeated].drop_duplicates("event_id", keep="last")


def labelled(events: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The events that have one of these labels, with the column `label`."""
    label = events["event_id"].map(latest_known(labels).set_index("event_id")["label"])
    return _beside(events, label.rename("label"))[label.notna()]


def to_judge(events: pd.DataFrame, labels: pd.DataFrame, *, first: Day, case: UseCase) -> pd.DataFrame:
    """The same, without the events that are no `news`, and with the entity that is looked into."""
    rows = labelled(events, labels)
    if case.investigation is None:
        return rows
    entity = case.investigation.entity
    of_event = labels.drop_duplicates("event_id").set_index("event_id")[entity]
    rows = _beside(rows.drop(columns=entity, errors="ignore"), rows["event_id"].map(of_event).rename(entity))
    return rows[news(rows, labels, first=first, case=case)]


def _beside(rows: pd.DataFrame, column: pd.Series) -> pd.DataFrame:
    """Side by side, since pandas warns of columns inserted into a wide frame."""
    return pd.concat([rows, column], axis=1)


def already_known(labels: pd.DataFrame, investigation: Investigation, *, day: Day, first: Day, case: UseCase) -> set[str]:
    """The entities that are known as positive when a day begins: by a label that became known since `known_for` before `first`.

    Args:
        labels: all labels known so far, repeated ones too, with the entity's column. So it does not matter how far back they go.
        first: the first day that is judged together with this one, such as the day on which the model went live.
    """
    since, until = case.starts(shift(first, -investigation.known_for.days)), case.starts(day)
    bad = (labels["label"] == 1) & (labels["known_at"] >= since) & (labels["known_at"] < until)
    return set(labels.loc[bad, investigation.entity].dropna())


def news(events: pd.DataFrame, labels: pd.DataFrame, *, first: Day, case: UseCase) -> pd.Series:
    """Which events count when a model is judged, True or False: all, or those whose entity is not known as positive by then.

    Args:
        events: `day` and the entity's column, one row an event.
    """
    judged = np.ones(len(events), dtype=bool)
    if case.investigation is not None:
        entity = events[case.investigation.entity]
        for day, places in events.groupby("day", sort=False).indices.items():
            known = already_known(labels, case.investigation, day=str(day), first=first, case=case)
            judged[places] = ~entity.iloc[places].isin(known)
    return pd.Series(judged, index=events.index)
