"""Average precision and ROC AUC: those of scikit-learn but for rounding, and never outside 0 to 1."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ml_assets.stages.ranking import average_precision, roc_auc

SCORES = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0]) | st.floats(0, 1)
LABELLED = st.lists(st.tuples(st.integers(0, 1), SCORES), min_size=2, max_size=60).filter(
    lambda rows: len({row[0] for row in rows}) == 2
)
LIKELY = st.lists(st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.1]), SCORES), min_size=1, max_size=60)
MANY = settings(max_examples=300, deadline=None, derandomize=True)


def test_a_perfect_ranking_is_worth_1_however_many_rows_there_are() -> None:
    """Of scikit-learn's average precision, rounding makes 1.0000000000000002 for some of these."""
    counts = range(1, 300)
    labels = {positives: np.repeat([0.0, 1.0], [20, positives]) for positives in counts}
    scores = {positives: np.concatenate([np.zeros(20), np.linspace(0.5, 1, positives)]) for positives in counts}

    assert {average_precision(labels[positives], scores[positives]) for positives in counts} == {1.0}
    assert {roc_auc(labels[positives], scores[positives]) for positives in counts} == {1.0}
    assert max(average_precision_score(labels[positives], scores[positives]) for positives in counts) > 1


@given(LABELLED)
@MANY
def test_both_are_those_of_scikit_learn(rows: list[tuple[int, float]]) -> None:
    labels, scores = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))

    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), rel=1e-13)
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), rel=1e-13)
    assert 0 <= average_precision(labels, scores) <= 1


@given(LABELLED)
@MANY
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order_correctly_rounded(rows: list[tuple[int, float]]) -> None:
    positives, negatives = ([score for label, score in rows if label == wanted] for wanted in (1, 0))
    halves = sum((above > below) * 2 + (above == below) for above in positives for below in negatives)

    assert roc_auc(*zip(*rows, strict=True)) == float(Fraction(halves, 2 * len(positives) * len(negatives)))


@given(LIKELY)
@MANY
def test_probabilities_as_labels_are_rows_of_both_classes_that_weigh_as_much(rows: list[tuple[float, float]]) -> None:
    rates, scores = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    truth, twice = np.repeat([1, 0], len(rates)), np.concatenate([scores, scores])
    weights = np.concatenate([rates, 1 - rates])
    found = average_precision(rates, scores)

    if rates.sum() < 1e-6:
        assert np.isnan(found) or 0 <= found <= 1
    else:
        assert 0 <= found <= 1
        assert found == pytest.approx(average_precision_score(truth, twice, sample_weight=weights), rel=1e-9)
        if (1 - rates).sum() > 1e-6:
            assert roc_auc(rates, scores) == pytest.approx(roc_auc_score(truth, twice, sample_weight=weights), abs=1e-9)


def test_without_both_classes_they_are_undefined() -> None:
    assert np.isnan(average_precision([0, 0], [0.1, 0.2]))
    assert average_precision([1, 1], [0.1, 0.2]) == 1
    assert np.isnan(roc_auc([0, 0], [0.1, 0.2]))
    assert np.isnan(roc_auc([1, 1], [0.1, 0.2]))
    assert np.isnan(average_precision([], []))
    assert np.isnan(roc_auc([], []))
