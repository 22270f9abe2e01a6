"""Trees that learn from all positives and some negatives give the chances of all rows; one row alone gets what it gets among many."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ml_assets.stages.inputs import Columns, matrix
from ml_assets.stages.trees import FEW_ROWS, Trees, fit_trees, thinned
from ml_assets.use_case import UseCase

Events = Callable[..., Any]


@given(
    labels=st.lists(st.integers(0, 1), min_size=1, max_size=60).filter(lambda labels: 0 in labels),
    share=st.floats(0.0, 0.999),
    first=st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_every_positive_stays_and_negatives_are_evenly_spread_and_stand_for_all(
    labels: list[int], share: float, first: int
) -> None:
    truth = np.array(labels, dtype=float)
    rows = np.arange(first, len(truth))
    negatives = rows[truth[rows] == 0]
    if not len(negatives):
        return

    chosen, weight = thinned(rows, truth, share)

    assert weight is not None
    assert (np.diff(chosen) > 0).all()
    assert chosen[truth[chosen] == 1].tolist() == rows[truth[rows] == 1].tolist()
    kept = np.searchsorted(negatives, chosen[truth[chosen] == 0])
    assert len(kept) == max(1, round(share * len(negatives)))
    assert weight.sum() == pytest.approx(len(rows))
    assert (weight[truth[chosen] == 1] == 1).all()
    assert np.ptp(np.diff(kept)) <= 1 if len(kept) > 2 else True


def test_with_all_negatives_there_is_no_weight() -> None:
    rows = np.array([3, 5, 8])

    chosen, weight = thinned(rows, np.zeros(9), 1.0)

    assert chosen is rows
    assert weight is None


def fitted(rows: Any, labels: Any, case: UseCase, kept_negatives: float) -> Trees:
    training = replace(case.training, kept_negatives=kept_negatives)
    return fit_trees(rows, labels.astype(float), names=case.features.names, texts=case.features.categorical, training=training)


def test_scores_stay_chances_however_many_negatives_are_left_out(small_case: UseCase, events: Events) -> None:
    """A fifth of the negatives without their weight would give scores about twice as high."""
    rows, labels = events("2024-01-01", "2024-02-09")
    later, truth = events("2024-03-01", "2024-03-14", seed=5)

    thin, whole = (fitted(rows, labels, small_case, share).predict(later) for share in (0.2, 1.0))

    assert thin.mean() == pytest.approx(truth.mean(), abs=0.03)
    assert average_precision_score(truth, thin) > average_precision_score(truth, whole) - 0.03
    assert thin.tobytes() != whole.tobytes()


def test_what_is_left_out_is_not_learned_from(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    kept, _ = thinned(np.arange(len(rows)), labels.astype(float), 0.3)
    nonsense = rows.copy()
    left_out = np.setdiff1d(np.arange(len(rows)), kept)
    nonsense.loc[left_out, ["risk", "hour"]] = 99
    nonsense.loc[left_out, "kind"] = "unheard of"

    assert fitted(nonsense, labels, small_case, 0.3) == fitted(rows, labels, small_case, 0.3)
    assert fitted(nonsense, labels, small_case, 1.0) != fitted(rows, labels, small_case, 1.0)


# One row --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trees(small_case: UseCase, events: Events) -> Trees:
    rows, labels = events("2024-01-01", "2024-01-20")
    return fitted(rows, labels, small_case, 1.0)


@pytest.fixture(scope="module")
def odd(events: Events) -> pd.DataFrame:
    """Rows with every kind of gap, categories that are not known, and numbers far away."""
    rows: pd.DataFrame = events("2024-03-01", "2024-03-04", seed=3)[0]
    rows.loc[0:9, "risk"] = np.nan
    rows.loc[5:14, "kind"] = "unheard of"
    rows.loc[10:19, ["amount", "noise"]] = [1e300, -1e300]
    rows.loc[20, ["amount", "risk", "noise", "kind"]] = [np.nan, np.nan, np.nan, None]
    return rows


def test_one_row_alone_gets_to_the_last_bit_what_it_gets_among_many(trees: Trees, odd: pd.DataFrame) -> None:
    rows = matrix(odd, trees.inputs, trees.known)
    assert np.isnan(rows).any(axis=0).tolist() == [name in ("amount", "risk", "noise", "kind") for name in trees.inputs]
    many = np.asarray(trees.booster.predict(rows))
    assert len(np.unique(many)) > 100

    assert [trees.predict_row(row) for row in rows] == many.tolist()
    assert [trees.predict_row(row.tolist()) for row in rows[:50]] == many[:50].tolist()
    assert trees.predict(odd).tobytes() == many.tobytes()
    for count in (1, 2, FEW_ROWS, FEW_ROWS + 1):
        assert trees.predict(odd.head(count)).tobytes() == many[:count].tobytes()
        columns = Columns({name: odd[name].head(count).to_numpy(dtype=object if name == "kind" else None) for name in trees.inputs})
        assert trees.predict(columns).tobytes() == many[:count].tobytes()


def test_threads_do_not_disturb_each_other(trees: Trees, odd: pd.DataFrame) -> None:
    rows = matrix(odd, trees.inputs, trees.known)
    expected = np.asarray(trees.booster.predict(rows)).tolist()

    def scored(thread: int) -> list[float]:
        start = 37 * thread
        found = [trees.predict_row(row) for row in np.roll(rows, -start, axis=0)]
        return found[len(rows) - start :] + found[: len(rows) - start]

    with ThreadPoolExecutor(8) as threads:
        assert all(found == expected for found in threads.map(scored, range(16)))


def test_models_side_by_side_do_not_disturb_each_other(
    trees: Trees, small_case: UseCase, events: Events, odd: pd.DataFrame
) -> None:
    rows, labels = events("2024-01-01", "2024-01-05", seed=9)
    other = fitted(rows, labels, small_case, 1.0)
    row = matrix(odd, trees.inputs, trees.known)[30]
    expected = [float(model.booster.predict(row[np.newaxis])[0]) for model in (trees, other)]
    assert expected[0] != expected[1]
    for _ in range(3):
        assert [model.predict_row(row) for model in (trees, other)] == expected
    del other
    assert trees.predict_row(row) == expected[0]


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_a_wrong_number_of_values_is_refused(trees: Trees, count: int) -> None:
    with pytest.raises(ValueError, match=f"^{count} values for a model of 5 features$"):
        trees.predict_row([0.0] * count)
    assert trees.predict_row([0.0] * 5) == float(trees.booster.predict(np.zeros((1, 5)))[0])
