"""Training is reproducible, refuses what cannot be learned from, and chooses an honest threshold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ml_assets.stages import logistic
from ml_assets.stages.model import Family, Model
from ml_assets.stages.search import search_recipe
from ml_assets.stages.threshold import operating_threshold
from ml_assets.stages.train import by_recipe, fit, train_candidate
from ml_assets.use_case import AlertShare, AlertsPerDay, Range, Search, UseCase

FAMILIES: tuple[Family, ...] = ("lightgbm", "logistic", "climatology")
Events = Callable[..., Any]


def fitted(family: Family, rows: Any, labels: Any, case: UseCase) -> Model:
    return fit(family, rows, labels, features=case.features, training=case.training, climatology=case.climatology)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_rows_and_seed_give_the_same_bytes(family: Family, small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")

    assert fitted(family, rows, labels, small_case).to_files() == fitted(family, rows.copy(), labels, small_case).to_files()


def test_another_seed_gives_another_booster(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    other = replace(small_case, training=replace(small_case.training, seed=8))

    assert fitted("lightgbm", rows, labels, small_case).to_files() != fitted("lightgbm", rows, labels, other).to_files()


def test_the_number_of_threads_does_not_change_the_booster(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14", per_day=1000)
    parameters = small_case.training.parameters

    scores = [
        fitted(
            "lightgbm",
            rows,
            labels,
            replace(small_case, training=replace(small_case.training, parameters={**parameters, "num_threads": threads})),
        ).predict(rows)
        for threads in (1, 3)
    ]

    assert scores[0].tobytes() == scores[1].tobytes()


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0, 0], "all 3 labels are 0"), ([0, 1, np.nan], "not finite"), ([0, 1, 2], "0 or 1"), ([0, 1], "shape")],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_that_teach_nothing_are_refused(
    family: Family, labels: list[float], message: str, small_case: UseCase, events: Events
) -> None:
    rows, _ = events("2024-01-01", "2024-01-01")

    with pytest.raises(ValueError, match=message):
        fitted(family, rows.head(3), labels, small_case)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_rows_are_refused(family: Family, small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-01")

    with pytest.raises(ValueError, match="no rows"):
        fitted(family, rows.iloc[:0], labels[:0], small_case)


def test_the_baseline_imputes_scales_and_survives_empty_and_constant_columns(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    odd = rows.assign(amount=np.nan, noise=3.0)
    model = fitted("logistic", odd, labels, small_case)

    assert np.isfinite(model.predict(odd)).all()
    assert model.predict(odd).mean() == pytest.approx(labels.mean(), abs=0.01)


def test_the_baseline_is_the_regression_of_sklearn(small_case: UseCase, events: Events) -> None:
    """The numbers that are kept, term by term, are the solution of the design matrix."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows, labels = events("2024-01-01", "2024-01-14")
    rows = rows.assign(kind=rows["kind"].fillna("b"))
    numeric = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    design = make_column_transformer((numeric, ["amount", "hour", "risk", "noise"]), (OneHotEncoder(), ["kind"]))
    theirs = make_pipeline(design, LogisticRegression(tol=1e-8, max_iter=1000)).fit(rows, labels)

    ours = fitted("logistic", rows, labels, small_case)

    assert ours.predict(rows) == pytest.approx(theirs.predict_proba(rows)[:, 1], abs=1e-5)


def test_rare_categories_have_no_weight_in_the_baseline(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    least = logistic.MIN_CATEGORY_SHARE * len(rows)
    assert least < logistic.MIN_CATEGORY_ROWS, "of few rows, fewer are enough"
    rows.loc[: least - 2, "kind"] = "rare"
    model = fitted("logistic", rows, labels, small_case)

    np.testing.assert_array_equal(model.predict(rows.assign(kind="rare")), model.predict(rows.assign(kind=None)))


def test_the_baseline_says_when_it_does_not_converge(small_case: UseCase, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    solver = logistic.LogisticRegression
    monkeypatch.setattr(logistic, "LogisticRegression", lambda **options: solver(**{**options, "max_iter": 1}))

    with pytest.raises(RuntimeError, match="2100 rows"):
        fitted("logistic", rows, labels, small_case)


def test_the_baseline_sees_an_even_sample_of_many_rows(
    small_case: UseCase, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    monkeypatch.setattr(logistic, "MAX_ROWS", 1050)
    evenly = np.linspace(0, len(rows) - 1, 1050).astype(int)

    assert fitted("logistic", rows, labels, small_case).to_files() == (
        fitted("logistic", rows.iloc[evenly], labels[evenly], small_case).to_files()
    )


def test_a_candidate_learns_and_flags_about_its_share_of_days_it_has_not_seen(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-02-09")
    later, truth = events("2024-02-10", "2024-02-23", seed=5)

    found = train_candidate(rows, labels, rows["day"], case=small_case)

    assert (found.training_rows, found.positives) == (len(rows), labels.sum())
    assert [found.model.family, found.baseline.family, found.climatology.family] == list(FAMILIES)
    assert average_precision_score(truth, found.model.predict(later)) > average_precision_score(
        truth, found.baseline.predict(later)
    )
    assert (found.model.predict(later) >= found.threshold).mean() == pytest.approx(0.1, abs=0.035)


def test_the_threshold_comes_from_days_the_rehearsal_has_not_seen(small_case: UseCase, events: Events) -> None:
    """A model that knows its rows by heart is sure of them, and only of them: in-sample scores would put the threshold too high."""
    rows, labels = events("2024-01-01", "2024-01-28", per_day=60)
    later, _ = events("2024-03-01", "2024-03-20", seed=5)
    training = replace(
        small_case.training,
        parameters={"num_leaves": 63, "min_data_in_leaf": 2, "num_threads": 1},
        trees=200,
        operating=AlertShare(share=0.3),
    )
    overfitted = replace(small_case, training=training)

    honest = train_candidate(rows, labels, rows["day"], case=overfitted)
    few_days = train_candidate(rows, labels, np.maximum(rows["day"], "2024-01-02").tolist(), case=overfitted)

    shares = [(found.model.predict(later) >= found.threshold).mean() for found in (honest, few_days)]
    assert shares[0] == pytest.approx(0.3, abs=0.06)
    assert shares[1] < shares[0] - 0.05


def test_days_that_go_back_are_refused(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    turned = rows.iloc[::-1]

    with pytest.raises(ValueError, match="their days go back"):
        train_candidate(turned, labels[::-1], turned["day"], case=small_case)


@pytest.mark.parametrize("family", ["lightgbm", "logistic"])
def test_a_model_is_told_the_features_of_the_training_and_no_others(family: Family, small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    told = ("risk", "kind")
    case = replace(small_case, training=replace(small_case.training, features=told))

    model = fitted(family, rows.drop(columns=["amount", "noise"]), labels, case)

    assert model.inputs == told
    assert model.predict(rows).tolist() == model.predict(rows[list(told)].iloc[::-1]).tolist()[::-1]


SEARCH = Search(
    trials=5,
    folds=2,
    fold_days=5,
    gap_days=1,
    lightgbm=(Range(name="learning_rate", low=0.03, high=0.3, log=True),),
    logistic=(Range(name="inverse_penalty", low=1e-4, high=1.0, log=True),),
    most_trees=30,
    patience=5,
)


@pytest.mark.parametrize("family", ["lightgbm", "logistic"])
def test_a_searched_candidate_is_the_best_recipe_on_all_rows_and_its_threshold_is_of_the_folds(
    family: Any, small_case: UseCase, events: Events
) -> None:
    """So few rows that the logistic regression needs more penalty than the declared one."""
    rows, labels = events("2024-01-01", "2024-01-28", per_day=6, seed=3)
    training = replace(small_case.training, search=replace(SEARCH, families=(family,)), operating=AlertsPerDay(alerts=2))
    case = replace(small_case, training=training)
    found = search_recipe(rows, labels.astype(float), rows["day"], case=case, storage=None, name="a search")

    candidate = train_candidate(rows, labels, rows["day"], case=case)

    assert candidate.recipe.family == candidate.model.family == family
    assert candidate.recipe.trials == found.trials
    assert len(found.trials) == 5
    alone = fit(
        family,
        rows,
        labels,
        features=case.features,
        training=found.training,
        climatology=(),
        inverse_penalty=found.inverse_penalty,
    )
    assert candidate.model.to_files() == alone.to_files() != fitted(family, rows, labels, case).to_files()
    assert candidate.threshold == operating_threshold(found.scores, found.labels, found.days, AlertsPerDay(alerts=2))


def test_a_recipe_on_more_rows_is_another_model_by_the_same_parameters(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-02-09")
    candidate = train_candidate(rows.iloc[:-750], labels[:-750], rows["day"].iloc[:-750], case=small_case)

    again, served = (
        by_recipe(candidate.recipe, *part, case=small_case) for part in ((rows.iloc[:-750], labels[:-750]), (rows, labels))
    )

    assert again.to_files() == candidate.model.to_files()
    assert served.to_files() == fitted("lightgbm", rows, labels, small_case).to_files()
