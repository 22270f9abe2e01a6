"""Features that separate the classes by themselves are named, however they do it, and honest ones are not."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ml_assets.stages.screening import FeatureAlone, ScreeningResult, screen, screening_from_json
from ml_assets.use_case import Column, DType, Screening, UseCase

Events = Callable[..., Any]
LIMITS = Screening()
ROWS = 2000


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A quarter is positive."""
    return (np.random.default_rng(3).random(ROWS) < 0.25).astype(float)


def alone(small_case: UseCase, labels: np.ndarray, values: Any, *, text: bool = False, a_day: int = 50) -> FeatureAlone:
    """A feature by itself, of so many rows a day."""
    column = Column(name="planted", dtype=DType.STRING if text else DType.FLOAT64, nullable=True)
    case = replace(small_case, features=replace(small_case.features, columns=(column,)))
    rows = pd.DataFrame({"planted": pd.array(values, dtype="str") if text else np.asarray(values, dtype=float)})
    days = pd.Series(pd.to_datetime("2024-01-01") + pd.to_timedelta(np.arange(len(rows)) // a_day, unit="D")).dt.strftime(
        "%Y-%m-%d"
    )
    (found,) = screen(rows, labels, days, case=case).features
    return found


def leaks(truth: np.ndarray) -> dict[str, tuple[Any, bool]]:
    """Values of a column that is filled in afterwards, and whether they are texts."""
    random, positive = np.random.default_rng(4), truth == 1
    return {
        "three for positives, around it for the others": (np.where(positive, 3, random.choice([0, 1, 2, 4, 5, 6], ROWS)), False),
        "one value among thousands": (np.where(positive, 0.37, random.random(ROWS)), False),
        "above a limit": (random.random(ROWS) + 5 * positive, False),
        "below a limit": (random.random(ROWS) - 5 * positive, False),
        "beyond single precision": (np.where(positive, 1e300, 1e299), False),
        "missing for positives": (np.where(positive, np.nan, random.random(ROWS)), False),
        "there for positives alone": (np.where(positive, random.random(ROWS), np.nan), False),
        "there for six in ten positives": (np.where(positive & (random.random(ROWS) < 0.6), random.random(ROWS), np.nan), False),
        "there for six in ten negatives": (np.where(~positive & (random.random(ROWS) < 0.6), random.random(ROWS), np.nan), False),
        "a status": (np.where(positive, "refunded", random.choice(["open", "closed"], ROWS)), True),
        "spellings of the label": (
            np.where(positive, random.choice(["True", "true", "1", "yes"], ROWS), random.choice(["False", "0"], ROWS)),
            True,
        ),
        "the label itself": (truth, False),
        "its opposite": (1 - truth, False),
    }


LEAKS = tuple(leaks(np.zeros(ROWS)))


@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_named(small_case: UseCase, truth: np.ndarray, name: str) -> None:
    values, text = leaks(truth)[name]
    found = alone(small_case, truth, values, text=text)

    assert found.exceeds(LIMITS)
    if "six in ten" not in name:
        assert min(found.auc, found.average_precision, found.positives_determined, found.negatives_determined) > 0.99


def test_what_it_says_of_a_leak(small_case: UseCase, truth: np.ndarray) -> None:
    values, _ = leaks(truth)["three for positives, around it for the others"]
    assert 0.45 < roc_auc_score(truth, values) < 0.55, "as it stands, the number shows nothing"
    text = str(alone(small_case, truth, values))
    assert text.startswith("planted: AUC 1.000, average precision 1.000, determines 100% of the positives")
    assert "positive where 3; negative where " in text

    half, _ = leaks(truth)["there for six in ten positives"]
    found = alone(small_case, truth, half)
    filled = np.isfinite(half[truth == 1]).mean()
    assert found.positives_determined == pytest.approx(filled, abs=0.02)
    assert found.auc == pytest.approx(0.5 + filled / 2, abs=0.02)
    assert found.missing_auc == pytest.approx(0.5 + filled / 2, abs=1e-9)
    assert found.negatives_determined == 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros(ROWS), False),
        (np.full(ROWS, np.nan), False),
        (["a"] * ROWS, True),
        ([None] * ROWS, True),
    ],
)
def test_a_column_without_two_values_says_nothing(small_case: UseCase, truth: np.ndarray, values: Any, text: bool) -> None:
    found = alone(small_case, truth, values, text=text)
    assert (found.auc, found.missing_auc, found.determined) == (0.5, 0.5, 0.0)
    assert found.average_precision == pytest.approx(truth.mean(), abs=0.03)


def test_an_identifier_is_no_leak(small_case: UseCase, truth: np.ndarray) -> None:
    """Each value determines its own row, and none is seen again."""
    by_text = alone(small_case, truth, [f"order {place}" for place in range(ROWS)], text=True)
    by_number = alone(small_case, truth, np.random.default_rng(0).permutation(ROWS))
    for found in (by_text, by_number):
        assert 0.4 < found.auc < 0.6
        assert not found.exceeds(LIMITS)
    assert by_text.shown == "no value is of one class alone"


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.01, 0.1, 0.5, 0.9]), rows=st.integers(400, 3000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_noise_is_never_named(small_case: UseCase, seed: int, share: float, rows: int) -> None:
    """30 examples: any share of positives, any number of rows, numbers and texts."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < share).astype(float)
    if min(labels.sum(), rows - labels.sum()) < LIMITS.minimum_rows:
        labels[:20], labels[20:40] = 0.0, 1.0
    for values, text in ((random.normal(size=rows), False), (random.choice(list("abcdefgh"), rows), True)):
        assert not alone(small_case, labels, values, text=text).exceeds(LIMITS)


@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.01, 0.1, 0.5, 0.9]),
    rows=st.integers(2500, 4000),
    filled=st.floats(0.7, 1),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_value_of_most_positives_alone_is_always_named(
    small_case: UseCase, seed: int, share: float, rows: int, filled: float
) -> None:
    """30 examples: a value that seven in ten positives have, or more, and no negative."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < share).astype(float)
    labels[:25], labels[25:50] = 0.0, 1.0
    has = (labels == 1) & (random.random(rows) < filled)
    number = np.where(has, -1.0, random.random(rows))
    for values, text in ((number, False), (np.where(has, "x", random.choice(["y", "z"], rows)), True)):
        found = alone(small_case, labels, values, text=text)
        if share < 0.9:
            assert found.exceeds(LIMITS)
        for figure in (found.auc, found.average_precision, found.positives_determined, found.negatives_determined):
            assert 0 <= figure <= 1


def test_a_strong_and_honest_feature_is_not_named(small_case: UseCase, truth: np.ndarray) -> None:
    """An AUC of 0.95, which is more than any feature of the shipped cases has (0.73)."""
    values = np.random.default_rng(1).normal(size=ROWS) + 2.33 * truth
    found = alone(small_case, truth, values)
    assert found.auc == pytest.approx(0.95, abs=0.02)
    assert not found.exceeds(LIMITS)


def test_too_few_rows_of_a_class_are_not_judged(small_case: UseCase, events: Events) -> None:
    rows, _ = events("2024-01-01", "2024-01-02")
    few = np.zeros(len(rows))
    few[:19] = 1
    found = screen(rows, few, rows["day"], case=small_case)
    assert found == ScreeningResult(
        rows=300, positives=19, features=(), not_judged="19 positives and 281 negatives, 20 of each are needed"
    )
    few[19] = 1
    assert screen(rows, few, rows["day"], case=small_case).not_judged == ""


def test_one_day_alone_is_judged_by_rows(small_case: UseCase) -> None:
    labels = np.tile([0.0, 0.0, 0.0, 1.0], 30)
    assert alone(small_case, labels, labels, a_day=1000).auc == 1.0


def test_all_features_are_judged_alike_each_time_and_kept_as_json(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-02-09")
    first, second = (screen(rows, labels.astype(float), rows["day"], case=small_case) for _ in range(2))
    assert first == second
    assert {each.feature for each in first.features} == set(small_case.model_features)
    assert first.features[0].feature == "risk", "a valley: neither low nor high values alone are positive"
    assert 0.7 < first.features[0].auc < 0.8
    assert first.suspects(LIMITS) == []
    assert screening_from_json(json.loads(json.dumps(first.to_json()))) == first
    lenient = Screening(max_auc=0.7)
    assert [each.feature for each in first.suspects(lenient)] == ["risk"]
