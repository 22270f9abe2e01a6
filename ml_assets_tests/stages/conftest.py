"""A small use case: four numbers and a category, with a signal that trees find and that days do not change.

`test_search` loads this file by its path in a process of its own, so that a search runs there on the same rows.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.use_case import AlertShare, Column, DType, Features, Gate, Label, Slice, Split, Table, Training, UseCase, day_range

Rows = tuple[pd.DataFrame, np.ndarray]


def no_source(settings: Any) -> Any:
    raise AssertionError("nothing is read in these tests")


def made_case() -> UseCase:
    columns = (
        Column(name="amount", dtype=DType.FLOAT64, nullable=True),
        Column(name="hour", dtype=DType.INT64),
        Column(name="risk", dtype=DType.FLOAT64),
        Column(name="noise", dtype=DType.FLOAT64),
        Column(name="kind", dtype=DType.STRING, nullable=True),
    )
    events = Table(name="events", source=no_source, delivered=(), columns=columns, key=("event_id",), derive=lambda rows: rows)
    return UseCase(
        name="small",
        title="Small",
        owner="nobody",
        timezone="UTC",
        start="2024-01-01",
        end=None,
        tables=(events,),
        events="events",
        event_time="time",
        climatology=("kind", "hour"),
        label=Label(column="label", known_at="known_at", entities=(), latest_after=timedelta(days=1)),
        features=Features(
            event_columns=("amount",), trailing=(), latest=(), lookups=(), row=lambda arrays: dict(arrays), columns=columns
        ),
        split=Split(weekday=0, first_go_live="2024-03-01", holdout_days=7, embargo_days=0, minimum_training_days=14),
        gate=Gate(
            floors={"roc_auc": 0.6, "average_precision": 0.2},
            margin=0.01,
            risk=0.05,
            resamples=200,
            slices=(Slice(column="kind", minimum_rows=100),),
            slice_margin=0.05,
            max_model_megabytes=5,
            max_row_milliseconds=50,
        ),
        training=Training(
            parameters={
                "num_leaves": 7,
                "learning_rate": 0.1,
                "min_data_in_leaf": 20,
                "bagging_fraction": 0.8,
                "bagging_freq": 1,
                "num_threads": 1,
            },
            trees=60,
            operating=AlertShare(share=0.1),
            seed=7,
        ),
    )


def made_events(first: str, last: str, seed: int = 0, per_day: int = 150) -> Rows:
    """150 events a day with `day`, and their labels; a third is positive."""
    days = day_range(first, last)
    random = np.random.default_rng(seed)
    count = per_day * len(days)
    frame = pd.DataFrame(
        {
            "amount": np.where(random.random(count) < 0.1, np.nan, random.lognormal(3, 1, count)),
            "hour": random.integers(0, 24, count),
            "risk": random.normal(size=count),
            "noise": random.normal(size=count),
            "kind": pd.array(random.choice(["a", "b", "c"], count, p=[0.5, 0.3, 0.2]), dtype="str"),
            "day": np.repeat(days, per_day),
        }
    )
    frame.loc[random.random(count) < 0.05, "kind"] = None
    # A valley in `risk`, which a linear baseline cannot follow.
    logit = 2.2 * (frame["risk"].abs() - 1.1) + 0.8 * (frame["kind"] == "a") + 0.05 * (frame["hour"] - 12)
    return frame, (random.random(count) < 1 / (1 + np.exp(-logit))).astype(np.int64).to_numpy()


@pytest.fixture(scope="session")
def small_case() -> UseCase:
    return made_case()


@pytest.fixture(scope="session")
def events() -> Callable[..., Rows]:
    return made_events
