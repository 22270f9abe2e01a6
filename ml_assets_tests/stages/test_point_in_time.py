"""The check finds features that look ahead, by whatever road, names them, and lets honest ones pass."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.features import columns_of, compute
from ml_assets.stages.point_in_time import known_by, look_ahead_findings
from ml_assets.use_case import Column, DType, Fact, Features, Latest, Lookup, Severity, Table, Trailing, UseCase

HOUR = timedelta(hours=1)
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]

EVENT_COLUMNS = (
    Column(name="event_id", dtype=DType.STRING),
    Column(name="time", dtype=DType.TIMESTAMP),
    Column(name="payer", dtype=DType.STRING),
    Column(name="amount", dtype=DType.FLOAT64),
    Column(name="delay", dtype=DType.FLOAT64, nullable=True, known_at="paid_at"),
    Column(name="label", dtype=DType.INT64, known_at="paid_at"),
    Column(name="paid_at", dtype=DType.TIMESTAMP, known_at="paid_at"),
)
HONEST = Trailing(
    fact=Fact(name="delay", table="events", value="delay", known_at="paid_at", unit="days"),
    entities=(("payer",),),
    windows=(24 * HOUR,),
    statistics=("count", "mean"),
)
LATEST = Latest(name="payment", table="events", entity=("payer",), known_at="paid_at", values=("delay",))
LOOKUP = Lookup(table="payers", by="payer", values=("limit",))


def own_columns(columns: Any) -> dict[str, Any]:
    return {"amount": columns["amount"]}


def declared(case: UseCase, trailing: Trailing = HONEST, latest: Latest = LATEST, **features: Any) -> UseCase:
    """The small case with one trailing statistic, one latest value, a lookup and the event's own amount."""
    events: Table = replace(case.event_table, columns=EVENT_COLUMNS)
    columns = (Column(name="payer", dtype=DType.STRING), Column(name="limit", dtype=DType.FLOAT64))
    payers = replace(events, name="payers", columns=columns, key=("payer",), daily=False)
    given = {"event_columns": ("payer", "amount"), "row": own_columns} | features
    made = Features(
        trailing=(trailing,),
        latest=(latest,),
        lookups=(LOOKUP,),
        columns=(*columns_of((trailing,), (latest,), (LOOKUP,)), Column(name="amount", dtype=DType.FLOAT64)),
        **given,
    )
    return replace(case, tables=(events, payers), features=made)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The findings of each day, and the features they are about."""

    case: UseCase
    tables: dict[str, pd.DataFrame]
    features: pd.DataFrame

    @property
    def findings(self) -> dict[str, Any]:
        found = look_ahead_findings(self.case, self.features, self.tables, DAYS)
        assert all(len(of_day) == 1 for of_day in found.values())
        return {day: of_day[0] for day, of_day in found.items()}


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    """40 payments a day of three payers, each paid ten hours later; the last day has none."""
    random = np.random.default_rng(3)
    day = np.repeat(DAYS[:3], 40)
    minutes = np.concatenate([np.sort(random.integers(0, 1440, 40)) for _ in range(3)])
    time = pd.Series(pd.to_datetime(day).tz_localize("UTC") + pd.to_timedelta(minutes, unit="min")).astype("datetime64[us, UTC]")
    events = pd.DataFrame(
        {
            "event_id": [f"e{number:03}" for number in range(120)],
            "time": time,
            "payer": pd.array(random.choice(["p", "q", "r"], 120), dtype="str"),
            "amount": random.random(120),
            "delay": random.integers(0, 50, 120).astype("float64"),
            "label": random.integers(0, 2, 120),
            "paid_at": time + pd.Timedelta(hours=10),
            "day": pd.array(day, dtype="str"),
        }
    )
    payers = pd.DataFrame({"payer": pd.array(["p", "q"], dtype="str"), "limit": [10.0, 20.0], "day": "all"})
    return {"events": events, "payers": payers}


@pytest.fixture
def judged(small_case: UseCase, tables: dict[str, pd.DataFrame]) -> Callable[..., Judged]:
    def made(**changed: Any) -> Judged:
        case = declared(small_case, **changed)
        return Judged(case=case, tables=tables, features=compute(case, tables["events"], tables))

    return made


def test_honest_features_pass(judged: Callable[..., Judged]) -> None:
    findings = judged().findings

    assert list(findings) == DAYS
    assert all(finding.passed and finding.severity is Severity.ERROR for finding in findings.values())
    assert "0 of 6 features differ" in findings[DAYS[1]].observed
    assert findings[DAYS[3]].observed == "no events"


def planted_time() -> dict[str, Any]:
    """A fact that claims to be known at the event, while its value is known when it is paid."""
    return {"trailing": replace(HONEST, fact=replace(HONEST.fact, known_at="time"))}


def planted_latest() -> dict[str, Any]:
    return {"latest": replace(LATEST, known_at="time")}


def planted_outcome() -> dict[str, Any]:
    """The event's own outcome among its columns."""
    return {"event_columns": ("payer", "amount", "delay"), "row": lambda columns: {"amount": columns["amount"] + columns["delay"]}}


def planted_label() -> dict[str, Any]:
    return {"event_columns": ("payer", "amount", "label"), "row": lambda columns: {"amount": columns["amount"] * columns["label"]}}


@pytest.mark.parametrize(
    ("planted", "feature"),
    [
        (planted_time, "delay_mean_24h_by_payer"),
        (planted_latest, "payment_delay"),
        (planted_outcome, "amount"),
        (planted_label, "amount"),
    ],
    ids=["trailing", "latest", "own outcome", "own label"],
)
def test_a_feature_that_looks_ahead_is_found_and_named(
    judged: Callable[..., Judged], planted: Callable[[], dict[str, Any]], feature: str
) -> None:
    seen = judged(**planted())

    for day in DAYS[:3]:
        finding = seen.findings[day]
        assert not finding.passed, day
        assert finding.severity is Severity.ERROR
        assert finding.unexpected > 0
        named = [example for example in finding.examples if example.startswith(f"{feature}: ")]
        assert len(named) == 1
        assert " stored, " in named[0]
        assert " from what was known (e" in named[0]
    others = {example.split(":")[0] for finding in seen.findings.values() for example in finding.examples} - {feature}
    assert others <= {"delay_count_24h_by_payer", "payment_age_minutes"}


def test_a_row_function_that_looks_at_other_rows_is_found(judged: Callable[..., Judged]) -> None:
    """The mean over all events of a range knows the events of the afternoon in the morning."""
    seen = judged(row=lambda columns: {"amount": columns["amount"] - columns["amount"].mean()})

    assert [seen.findings[day].passed for day in DAYS[:3]] == [False] * 3


def test_a_changed_stored_value_is_found_on_its_day_only(judged: Callable[..., Judged]) -> None:
    seen = judged()
    features = seen.features.copy()
    second = features["day"] == DAYS[1]
    features.loc[second, "payers_limit"] += 1e-9

    findings = replace(seen, features=features).findings

    assert [findings[day].passed for day in DAYS] == [True, False, True, True]
    assert findings[DAYS[1]].examples[0].startswith("payers_limit: ")


def test_the_world_of_a_moment_has_no_later_values(small_case: UseCase, tables: dict[str, pd.DataFrame]) -> None:
    table = declared(small_case).event_table
    moment = tables["events"]["paid_at"].iloc[50]

    world = known_by(tables["events"], table, moment)

    later = np.arange(120) > 50
    later &= (tables["events"]["paid_at"] > moment).to_numpy()
    for name in ("delay", "label", "paid_at"):
        assert world[name].isna().tolist() == later.tolist()
        assert (world[name][~later] == tables["events"][name][~later]).all()
    for name in ("event_id", "time", "payer", "amount", "day"):
        assert world[name].equals(tables["events"][name])


def test_the_world_at_the_end_is_the_world(small_case: UseCase, tables: dict[str, pd.DataFrame]) -> None:
    table = declared(small_case).event_table

    world = known_by(tables["events"], table, tables["events"]["paid_at"].max())

    pd.testing.assert_frame_equal(world, tables["events"][world.columns.tolist()])
