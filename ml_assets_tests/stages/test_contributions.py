"""Contributions add up to the score, and the report tells the largest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from ml_assets.stages.contributions import FEATURES, contributions_of, examples_of
from ml_assets.stages.model import Family, Model
from ml_assets.stages.train import fit
from ml_assets.use_case import UseCase

Events = Callable[..., Any]


def fitted(family: Family, case: UseCase, events: Events) -> Model:
    rows, labels = events("2024-01-01", "2024-01-14")
    return fit(family, rows, labels, features=case.features, training=case.training, climatology=case.climatology)


@pytest.mark.parametrize("family", ["lightgbm", "logistic"])
def test_contributions_sum_to_the_log_odds_of_the_score(family: Family, small_case: UseCase, events: Events) -> None:
    model = fitted(family, small_case, events)
    rows, _ = events("2024-02-01", "2024-02-03", seed=1)

    found = model.contributions(rows)

    assert found is not None
    assert found.shape == (len(rows), len(model.inputs) + 1)
    np.testing.assert_allclose(found.sum(axis=1), logit(model.predict(rows)), atol=1e-9)
    assert len(np.unique(found[:, -1])) == 1
    assert np.abs(found[:, model.inputs.index("risk")]).mean() > 0.001


def test_a_term_of_the_logistic_regression_is_its_feature_s(small_case: UseCase, events: Events) -> None:
    model = fitted("logistic", small_case, events)
    rows, _ = events("2024-02-01", "2024-02-01", seed=1)

    moved = model.contributions(rows.assign(kind="a"))
    still = model.contributions(rows.assign(kind="never seen"))

    assert moved is not None
    assert still is not None
    kind = model.inputs.index("kind")
    assert (still[:, kind] == 0).all()
    assert (moved[:, kind] > 0).all()
    np.testing.assert_array_equal(np.delete(moved, kind, axis=1), np.delete(still, kind, axis=1))


def test_climatology_has_none(small_case: UseCase, events: Events) -> None:
    model = fitted("climatology", small_case, events)
    rows, labels = events("2024-02-01", "2024-02-01")

    assert model.contributions(rows) is None
    assert contributions_of(model, rows, labels) == examples_of(model, rows, labels, model.predict(rows)) == ()


@pytest.mark.parametrize("family", ["lightgbm", "logistic"])
def test_no_rows_have_no_contributions_and_a_missing_column_is_named(family: Family, small_case: UseCase, events: Events) -> None:
    model = fitted(family, small_case, events)
    rows, _ = events("2024-02-01", "2024-02-01")
    empty = model.contributions(rows.iloc[:0])

    assert empty is not None
    assert empty.shape == (0, len(model.inputs) + 1)
    with pytest.raises(ValueError, match="hour"):
        model.contributions(rows.drop(columns="hour"))


def test_what_moves_scores_most_comes_first(small_case: UseCase, events: Events) -> None:
    model = fitted("lightgbm", small_case, events)
    rows, labels = events("2024-02-01", "2024-02-20", seed=1)
    values = model.contributions(rows.iloc[np.linspace(0, len(rows) - 1, 2000).astype(int)])

    found = contributions_of(model, rows, labels)

    assert values is not None
    assert found[0].feature == "risk"
    assert len(found) == min(FEATURES, len(model.inputs))
    assert found[0].mean_absolute == pytest.approx(np.abs(values[:, model.inputs.index("risk")]).mean())
    assert found[0].mean_positives is not None
    assert found[0].mean_negatives is not None
    assert found[0].mean_positives > found[0].mean_negatives
    assert [each.mean_absolute for each in found] == sorted((each.mean_absolute for each in found), reverse=True)


def test_a_mean_over_a_class_that_is_not_there_is_none(small_case: UseCase, events: Events) -> None:
    model = fitted("lightgbm", small_case, events)
    rows, labels = events("2024-02-01", "2024-02-01")

    assert {each.mean_positives for each in contributions_of(model, rows, np.zeros_like(labels))} == {None}


def test_examples_are_the_highest_scores_with_their_values(small_case: UseCase, events: Events) -> None:
    model = fitted("lightgbm", small_case, events)
    rows, labels = events("2024-02-01", "2024-02-03", seed=1)
    rows = rows.assign(event_id=[f"e{place}" for place in range(len(rows))])
    scores = model.predict(rows)
    best = int(np.argmax(scores))
    values = model.contributions(rows.iloc[[best]])

    found = examples_of(model, rows, labels, scores)

    assert values is not None
    assert [example.score for example in found] == sorted(scores, reverse=True)[:3]
    assert (found[0].event, found[0].day, found[0].label) == (f"e{best}", rows["day"].iloc[best], labels[best])
    first = found[0].reasons[0]
    assert first.contribution == values[0, :-1][np.argmax(np.abs(values[0, :-1]))]
    assert (first.feature, first.value) == ("risk", f"{rows['risk'].iloc[best]:.4g}")
    assert [abs(why.contribution) for why in found[0].reasons] == sorted(
        (abs(why.contribution) for why in found[0].reasons), reverse=True
    )


def test_values_are_text_that_a_person_reads(small_case: UseCase, events: Events) -> None:
    model = fitted("lightgbm", small_case, events)
    rows = pd.DataFrame(
        {"amount": [1234567.0], "hour": [5], "risk": [2.34567], "noise": [np.nan], "kind": [None], "day": ["2024-02-01"]}
    )

    found = examples_of(model, rows, np.ones(1), model.predict(rows))

    assert found[0].event == "0"
    assert {why.feature: why.value for why in found[0].reasons} == {
        "amount": "1,234,567",
        "hour": "5",
        "risk": "2.346",
        "noise": "missing",
        "kind": "missing",
    }
