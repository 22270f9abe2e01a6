"""Training: a candidate, its baseline and its climatology from the same mature rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.climatology import fit_climatology
from ml_assets.stages.inputs import FloatArray, labels_of, require
from ml_assets.stages.logistic import fit_logistic
from ml_assets.stages.model import Family, Model
from ml_assets.stages.screening import ScreeningResult, screen
from ml_assets.stages.search import search_recipe
from ml_assets.stages.threshold import operating_threshold
from ml_assets.stages.trees import fit_trees
from ml_assets.stages.trials import Trial
from ml_assets.use_case import Day, Features, Training, UseCase

THRESHOLD_DAYS = 7
THRESHOLD_MINIMUM_DAYS = 28
THRESHOLD_TREES_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the model is fitted: the family, its parameters, and the trials that led there."""

    family: Family
    training: Training
    inverse_penalty: float = 1.0
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model to be judged, and what it must beat, all from the same rows; `served` is the same recipe on all mature rows."""

    model: Model
    baseline: Model
    climatology: Model
    threshold: float
    training_rows: int
    positives: int
    recipe: Recipe
    served: Model | None = None
    screening: ScreeningResult | None = None
    """How well each feature alone separates the classes of the rows; None of a package from before this was asked."""


def fit(
    family: Family,
    rows: pd.DataFrame,
    labels: npt.ArrayLike,
    *,
    features: Features,
    training: Training,
    climatology: tuple[str, ...],
    inverse_penalty: float = 1.0,
) -> Model:
    """A model of this family. Same rows, same seed: same bytes.

    Args:
        rows: the feature columns by name, others ignored, shape (n, …), in order of time.
        labels: 0 or 1, shape (n,).
        climatology: the features whose rate the climatology is.
        inverse_penalty: scikit-learn's C, of the logistic regression.

    Raises:
        ValueError: no rows, one class only, a label that is not 0 or 1, a feature column missing.
    """
    truth = labels_of(rows, labels)
    names = list(training.features or features.names)
    texts = [name for name in features.categorical if name in names]
    require(rows, climatology if family == "climatology" else names)
    match family:
        case "lightgbm":
            return Model(estimator=fit_trees(rows, truth, names=names, texts=texts, training=training))
        case "logistic":
            return Model(estimator=fit_logistic(rows, truth, names=names, texts=texts, inverse_penalty=inverse_penalty))
        case "climatology":
            return Model(estimator=fit_climatology(rows, truth, inputs=climatology))


def train_candidate(
    rows: pd.DataFrame,
    labels: npt.ArrayLike,
    days: Sequence[Day] | pd.Series,
    *,
    case: UseCase,
    storage: str | None = None,
    name: str = "search",
) -> Candidate:
    """Model, baseline and climatology on all rows, and the operating threshold; by the best recipe, where the case has one searched.

    Args:
        rows, labels, days: one an event, of equal length, in order of time; all mature and before the hold-out.
        storage, name: where a search keeps its trials, and under which name (see `search_recipe`).
    """
    truth = labels_of(rows, labels)
    require_order(days)
    screening = screen(rows, truth, days, case=case)
    recipe, threshold = Recipe(family="lightgbm", training=case.training), None
    if case.training.search:
        found = search_recipe(rows, truth, days, case=case, storage=storage, name=name)
        recipe = Recipe(
            family="logistic" if found.family == "logistic" else "lightgbm",
            training=found.training,
            inverse_penalty=found.inverse_penalty,
            trials=found.trials,
        )
        threshold = operating_threshold(found.scores, found.labels, found.days, case.training.operating)
    model = by_recipe(recipe, rows, truth, case=case)
    return Candidate(
        model=model,
        baseline=fit("logistic", rows, truth, features=case.features, training=case.training, climatology=()),
        climatology=fit("climatology", rows, truth, features=case.features, training=case.training, climatology=case.climatology),
        threshold=choose_threshold(model, rows, truth, days, case=case) if threshold is None else threshold,
        training_rows=len(rows),
        positives=int(truth.sum()),
        recipe=recipe,
        screening=screening,
    )


def by_recipe(recipe: Recipe, rows: pd.DataFrame, labels: npt.ArrayLike, *, case: UseCase) -> Model:
    """The recipe on these rows: those it was judged by, or, when it is fitted again, all mature ones."""
    return fit(
        recipe.family,
        rows,
        labels,
        features=case.features,
        training=recipe.training,
        climatology=(),
        inverse_penalty=recipe.inverse_penalty,
    )


def require_order(days: Sequence[Day] | pd.Series) -> None:
    """Raises ValueError when days go back."""
    day = np.asarray(days, dtype=str)
    if (day[1:] < day[:-1]).any():
        raise ValueError("rows must be in order of time: their days go back")


def choose_threshold(
    model: Model, rows: pd.DataFrame, labels: FloatArray, days: Sequence[Day] | pd.Series, *, case: UseCase
) -> float:
    """The operating threshold, from scores of the last days by a rehearsal that has not seen them.

    With fewer than `THRESHOLD_MINIMUM_DAYS` days, or one class before the last ones, it comes from the model's scores of its own
    training rows, which are too extreme, so that it flags less than the share.
    """
    day = np.asarray(days, dtype=str)
    distinct = np.unique(day)
    enough = len(distinct) >= THRESHOLD_MINIMUM_DAYS
    first = (
        int(np.searchsorted(day, distinct[-THRESHOLD_DAYS])) if enough else 0
    )  # a slice is a view: no second copy of all features
    if not enough or labels[:first].min() == labels[:first].max():
        return operating_threshold(model.predict(rows), labels, day, case.training.operating)
    earlier = fit(
        "lightgbm", rows.iloc[:first], labels[:first], features=case.features, training=_shortened(case.training), climatology=()
    )
    return operating_threshold(earlier.predict(rows.iloc[first:]), labels[first:], day[first:], case.training.operating)


def _shortened(training: Training) -> Training:
    """A quarter of the trees at four times the learning rate, so that scores spread as far as those of the full recipe.

    Of a wanted share of 10 %, such a threshold flagged 9.4 % of later days, one from all the trees 9.8 %, and one from a quarter of
    the trees at the same rate 16.4 %.
    """
    trees = max(1, round(THRESHOLD_TREES_SHARE * training.trees))
    rate = float(training.parameters.get("learning_rate", 0.1)) * training.trees / trees
    return replace(training, trees=trees, parameters={**training.parameters, "learning_rate": min(rate, 0.5)})
