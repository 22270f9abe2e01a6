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
from ml_assets.stages.trees import fit_trees
from ml_assets.use_case import Day, Features, Training, UseCase

THRESHOLD_DAYS = 7
THRESHOLD_MINIMUM_DAYS = 28
THRESHOLD_TREES_SHARE = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model to be judged, and what it must beat, all from the same rows."""

    model: Model
    baseline: Model
    climatology: Model
    threshold: float
    training_rows: int
    positives: int


def fit(
    family: Family,
    rows: pd.DataFrame,
    labels: npt.ArrayLike,
    *,
    features: Features,
    training: Training,
    climatology: tuple[str, ...],
) -> Model:
    """A model of this family. Same rows, same seed: same bytes.

    Args:
        rows: the feature columns by name, others ignored, shape (n, …), in order of time.
        labels: 0 or 1, shape (n,).
        climatology: the features whose rate the climatology is.

    Raises:
        ValueError: no rows, one class only, a label that is not 0 or 1, a feature column missing.
    """
    truth = labels_of(rows, labels)
    require(rows, climatology if family == "climatology" else features.names)
    match family:
        case "lightgbm":
            return Model(estimator=fit_trees(rows, truth, features=features, training=training))
        case "logistic":
            return Model(estimator=fit_logistic(rows, truth, features=features))
        case "climatology":
            return Model(estimator=fit_climatology(rows, truth, inputs=climatology))


def train_candidate(rows: pd.DataFrame, labels: npt.ArrayLike, days: Sequence[Day] | pd.Series, *, case: UseCase) -> Candidate:
    """Model, baseline and climatology on all rows, and the operating threshold.

    Args:
        rows, labels, days: one an event, of equal length, in order of time; all mature and before the hold-out.
    """
    truth = labels_of(rows, labels)

    def fitted(family: Family) -> Model:
        return fit(family, rows, truth, features=case.features, training=case.training, climatology=case.climatology)

    model = fitted("lightgbm")
    return Candidate(
        model=model,
        baseline=fitted("logistic"),
        climatology=fitted("climatology"),
        threshold=choose_threshold(model, rows, truth, days, case=case),
        training_rows=len(rows),
        positives=int(truth.sum()),
    )


def choose_threshold(
    model: Model, rows: pd.DataFrame, labels: FloatArray, days: Sequence[Day] | pd.Series, *, case: UseCase
) -> float:
    """The operating threshold, from scores of the last days by a rehearsal that has not seen them.

    With fewer than `THRESHOLD_MINIMUM_DAYS` days it comes from the model's scores of its own training rows, which are too
    extreme, so that it flags less than the share.
    """
    day = np.asarray(days, dtype=str)
    distinct = np.unique(day)
    if len(distinct) < THRESHOLD_MINIMUM_DAYS:
        return operating_threshold(model.predict(rows), case.training.alert_share)
    if (day[1:] < day[:-1]).any():
        raise ValueError("rows must be in order of time: their days go back")
    first = int(np.searchsorted(day, distinct[-THRESHOLD_DAYS]))  # a slice is a view: no second copy of all features
    earlier = fit(
        "lightgbm", rows.iloc[:first], labels[:first], features=case.features, training=_shortened(case.training), climatology=()
    )
    return operating_threshold(earlier.predict(rows.iloc[first:]), case.training.alert_share)


def operating_threshold(scores: FloatArray, alert_share: float) -> float:
    """The score at or above which this share of rows is flagged, one row at least; ties at it are flagged too.

    >>> operating_threshold(np.array([0.1, 0.4, 0.2, 0.3]), 0.5)
    0.3

    Raises:
        ValueError: no scores, or one that is not finite.
    """
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"a threshold needs finite scores; {int(np.isfinite(scores).sum())} of {len(scores)} are")
    flagged = min(max(round(alert_share * len(scores)), 1), len(scores))
    return float(np.sort(scores)[-flagged])


def _shortened(training: Training) -> Training:
    """A quarter of the trees at four times the learning rate, so that scores spread as far as those of the full recipe.

    Of a wanted share of 10 %, such a threshold flagged 9.4 % of later days, one from all the trees 9.8 %, and one from a quarter of
    the trees at the same rate 16.4 %.
    """
    trees = max(1, round(THRESHOLD_TREES_SHARE * training.trees))
    rate = float(training.parameters.get("learning_rate", 0.1)) * training.trees / trees
    return replace(training, trees=trees, parameters={**training.parameters, "learning_rate": min(rate, 0.5)})
