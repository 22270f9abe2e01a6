"""Training-serving skew: what the online scorer answered about a day's events, against the same events computed offline."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.quality import Finding
from ml_assets.stages.report import template
from ml_assets.use_case import Column, Day, DType, Severity, UseCase, nullable_dtype

HEAD_COLUMNS = (
    Column(name="event_id", dtype=DType.STRING),
    Column(name="event_time", dtype=DType.TIMESTAMP),
    Column(name="scored_at", dtype=DType.TIMESTAMP, description="when the online scorer answered"),
    Column(name="score", dtype=DType.FLOAT64, unit="probability", minimum=0, maximum=1),
    Column(name="alert", dtype=DType.BOOL),
    Column(name="threshold", dtype=DType.FLOAT64, unit="probability"),
    Column(name="model_version", dtype=DType.STRING),
    Column(name="degraded", dtype=DType.BOOL, description="scored while the online store was down"),
)
EXAMPLES = 3
SCORE = "score"


def log_columns(case: UseCase) -> tuple[Column, ...]:
    """Contract of the table `prediction_log`; features may be missing, as they are in a degraded score: whole numbers become floats."""
    as_numbers = {DType.INT64: DType.FLOAT64, DType.BOOL: DType.FLOAT64}
    features = (
        Column(name=f"feature_{column.name}", dtype=as_numbers.get(column.dtype, column.dtype), unit=column.unit, nullable=True)
        for column in case.features.columns
    )
    return (*HEAD_COLUMNS, *features)


def logged_frame(case: UseCase, entries: Mapping[Day, Iterable[Mapping[str, Any]]]) -> pd.DataFrame:
    """Entries of the log as the rows of `log_columns` and `day`; of one event the first answer, one with state before a degraded one.

    A feature that was not declared yet when an event was scored is missing.
    """
    rows = [
        {name: entry[name] for name in (column.name for column in HEAD_COLUMNS)}
        | {f"feature_{name}": entry["features"].get(name) for name in case.features.names}
        | {"day": day}
        for day, of_day in entries.items()
        for entry in of_day
    ]
    columns = log_columns(case)
    frame = pd.DataFrame(rows, columns=[*(column.name for column in columns), "day"])
    for name in ("event_time", "scored_at"):
        frame[name] = pd.to_datetime(frame[name], format="ISO8601", utc=True).dt.as_unit("us")
    frame = frame.astype({column.name: nullable_dtype(column.dtype) for column in columns} | {"day": "str"})
    frame = frame.sort_values(["day", "degraded", "scored_at", "event_id"], kind="stable")
    return frame.drop_duplicates(["day", "event_id"]).sort_values(["day", "event_time", "event_id"], ignore_index=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A column in which online and offline are not the same, on how many of how many events, by how much, with examples."""

    column: str
    events: int
    compared: int
    largest: float | None
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Skew:
    """What was compared on a day."""

    day: Day
    logged: int
    degraded: int
    offline: int
    """Events of the day that have features offline."""
    unknown: tuple[str, ...]
    """Ids that were scored online and are not there offline."""
    differences: tuple[Difference, ...]


def compare(
    case: UseCase,
    logged: pd.DataFrame,
    features: pd.DataFrame,
    days: Sequence[Day],
    *,
    scored: Callable[[str, pd.DataFrame], FloatArray],
) -> dict[Day, Skew]:
    """Every feature and the score of every event scored with state, to the last bit.

    Args:
        logged: as `logged_frame` gives it.
        features: the table `features` of these days.
        scored: scores of offline features by a version of the model.
    """
    return {day: _of_day(case, day, logged[logged["day"] == day], features[features["day"] == day], scored) for day in days}


def _of_day(
    case: UseCase, day: Day, logged: pd.DataFrame, features: pd.DataFrame, scored: Callable[[str, pd.DataFrame], FloatArray]
) -> Skew:
    whole = logged[~logged["degraded"]]
    here = whole["event_id"].isin(features["event_id"])
    online = whole[here].reset_index(drop=True)
    offline = features.set_index("event_id").loc[online["event_id"]].reset_index()
    differences = [_difference(name, online["event_id"], online[f"feature_{name}"], offline[name]) for name in case.features.names]
    again = np.full(len(online), np.nan)
    for version, places in online.groupby("model_version", sort=False).indices.items():
        again[places] = scored(str(version), offline.iloc[places])
    differences.append(_difference(SCORE, online["event_id"], online["score"], pd.Series(again)))
    return Skew(
        day=day,
        logged=len(logged),
        degraded=int(logged["degraded"].sum()),
        offline=len(features),
        unknown=tuple(whole.loc[~here, "event_id"]),
        differences=tuple(each for each in differences if each is not None),
    )


def _difference(name: str, ids: pd.Series, online: pd.Series, offline: pd.Series) -> Difference | None:
    same = ((online == offline) | (online.isna() & offline.isna())).to_numpy(dtype=bool)
    if same.all():
        return None
    differs = np.flatnonzero(~same)
    numeric = pd.api.types.is_numeric_dtype(online)
    gaps = (online.iloc[differs] - offline.iloc[differs].astype("float64")).abs() if numeric else pd.Series(dtype="float64")
    return Difference(
        column=name,
        events=len(differs),
        compared=len(same),
        largest=None if not numeric or gaps.isna().all() else float(gaps.max()),
        examples=tuple(
            f"{ids.iloc[at]}: {_shown(online.iloc[at])} online, {_shown(offline.iloc[at])} offline"
            for at in differs[:EXAMPLES].tolist()
        ),
    )


def skew_findings(skews: Mapping[Day, Skew], columns: int) -> dict[Day, list[Finding]]:
    """What the check says: all the same, every event known, none degraded (WARN); one more for each column that differs."""
    return {day: list(_findings(skew, columns)) for day, skew in skews.items()}


def _findings(skew: Skew, columns: int) -> Sequence[Finding]:
    compared = skew.logged - skew.degraded - len(skew.unknown)
    return [
        Finding(
            expectation="features and scores are the same online and offline",
            passed=not skew.differences,
            severity=Severity.ERROR,
            observed=f"{len(skew.differences)} of {columns + 1} columns differ on {compared} events"
            + (": " + ", ".join(each.column for each in skew.differences[:10]) if skew.differences else ""),
            unexpected=max((each.events for each in skew.differences), default=0),
        ),
        *(
            Finding(
                expectation=f"{each.column} is the same online and offline",
                passed=False,
                severity=Severity.ERROR,
                observed=f"{each.events} of {each.compared} events differ"
                + ("" if each.largest is None else f", by {each.largest:.6g} at most"),
                unexpected=each.events,
                examples=each.examples,
            )
            for each in skew.differences
        ),
        Finding(
            expectation="every event that was scored online is there offline",
            passed=not skew.unknown,
            severity=Severity.WARN,
            observed=f"{len(skew.unknown)} of {skew.logged} are not",
            unexpected=len(skew.unknown),
            examples=skew.unknown[:EXAMPLES],
        ),
        Finding(
            expectation="no event is scored without state",
            passed=not skew.degraded,
            severity=Severity.WARN,
            observed=f"{skew.degraded} of {skew.logged} were",
            unexpected=skew.degraded,
        ),
    ]


def skew_html(case: UseCase, skew: Skew) -> str:
    """The differences of a day by column, as a page of its own."""
    compared = skew.logged - skew.degraded - len(skew.unknown)
    same = f"All {len(case.features.names)} features and the score are the same on {compared:,} events."
    return template("skew.html.jinja").render(
        title=f"{case.title}: online against offline, {skew.day}",
        headline=f"{len(skew.differences)} of {len(case.features.names) + 1} columns differ." if skew.differences else same,
        good=not skew.differences,
        skew=skew,
        compared=compared,
    )


def _shown(value: Any) -> str:
    return "missing" if pd.isna(value) else repr(value.item() if hasattr(value, "item") else value)
