"""What a case computes and what it declares are the same features, for a range and for one event, or it is an error that names them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.features import UndeclaredFeatureError, compute
from ml_assets.stages.online_features import OnlineFeatures
from ml_assets.use_case import Arrays, Column, DType, Features, UseCase
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

ONE = {"event_id": "f1", "day": "2024-01-01", "distance": 7}


def case_of(row: Callable[[Arrays], dict[str, Any]], *declared: str) -> UseCase:
    """An event has a distance, and features are what `row` makes of it."""
    columns = tuple(Column(name=name, dtype=DType.FLOAT64) for name in declared)
    features = Features(event_columns=("distance",), trailing=(), latest=(), lookups=(), row=row, columns=columns)
    distance = Column(name="distance", dtype=DType.INT64)
    table = replace(FLIGHT_DELAYS.event_table, columns=(*FLIGHT_DELAYS.event_table.columns[:1], distance))
    others = tuple(each for each in FLIGHT_DELAYS.tables if each.name != table.name)
    return replace(FLIGHT_DELAYS, name="short", features=features, tables=(table, *others))


def in_a_range(case: UseCase) -> Any:
    at = pd.Timestamp("2024-01-01", tz="UTC").as_unit("us")
    return compute(case, pd.DataFrame([{**ONE, case.event_time: at}]), {})


def alone(case: UseCase) -> Any:
    return OnlineFeatures(case).compute([{**ONE, case.event_time: 1_704_067_200_000_000}], {})


every_way = pytest.mark.parametrize("computed", [in_a_range, alone])


def doubled(columns: Arrays) -> dict[str, Any]:
    return {"double": columns["distance"] * 2.0, "half": columns["distance"] / 2.0}


@every_way
def test_what_is_declared_is_computed(computed: Callable[[UseCase], Any]) -> None:
    features = computed(case_of(doubled, "half", "double", "distance"))
    assert [float(np.asarray(features[name])[0]) for name in ("half", "double", "distance")] == [3.5, 14.0, 7.0]


@every_way
def test_a_feature_that_nobody_declared_is_named(computed: Callable[[UseCase], Any]) -> None:
    with pytest.raises(UndeclaredFeatureError, match=r"features of short: `row` gives half, not declared: add Column"):
        computed(case_of(doubled, "double"))


@every_way
def test_a_declared_feature_that_nothing_computes_is_named(computed: Callable[[UseCase], Any]) -> None:
    with pytest.raises(UndeclaredFeatureError, match=r"features of short: third is declared, but `row` does not give it"):
        computed(case_of(doubled, "double", "half", "third"))
