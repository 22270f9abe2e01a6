"""Trees that learn from all positives and some negatives give the chances of all rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ml_assets.stages.trees import Trees, fit_trees, thinned
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
