"""Gradient-boosted trees: LightGBM, kept as its text model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from ml_assets.stages.inputs import FloatArray, IntArray, categories, matrix
from ml_assets.use_case import Training

REPRODUCIBLE = {"objective": "binary", "deterministic": True, "force_row_wise": True, "verbosity": -1}
"""Row-wise, because that is stable for any number of threads and, without it, LightGBM times both ways and takes the faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """A booster with its inputs; `known` holds the categories of each text feature, in the order of their codes."""

    inputs: tuple[str, ...]
    known: Mapping[str, tuple[str, ...]]
    text: str
    booster: lgb.Booster = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made from the text also right after training, so that the model judged is the model that will be loaded.
        object.__setattr__(self, "booster", lgb.Booster(model_str=self.text))

    def predict(self, frame: pd.DataFrame) -> FloatArray:
        """Each row's probability of a positive, shape (rows,)."""
        rows = matrix(frame, self.inputs, self.known)
        # Waking threads costs a single row twice the time of the prediction; their number does not touch the result.
        return np.asarray(self.booster.predict(rows, num_threads=1 if len(rows) == 1 else 0), dtype=np.float64)

    def contributions(self, frame: pd.DataFrame) -> FloatArray:
        """What each feature adds to each row's log-odds, shape (rows, features + 1); the last column is the mean of the training rows.

        SHAP values of the trees (Lundberg et al., 2020, https://doi.org/10.1038/s42256-019-0138-9), by LightGBM itself: they sum to the
        log-odds of the score.
        """
        found = self.booster.predict(matrix(frame, self.inputs, self.known), pred_contrib=True)
        return np.asarray(found, dtype=np.float64)

    def importance(self) -> list[tuple[str, float]]:
        """Each feature's share of the gain of all splits, largest first; all 0 for trees without a split."""
        gain = np.asarray(self.booster.feature_importance("gain"), dtype=np.float64)
        shares = gain / (gain.sum() or 1.0)
        return sorted(zip(self.inputs, shares.tolist(), strict=True), key=lambda found: (-found[1], found[0]))

    def to_json(self) -> dict[str, Any]:
        """Everything but the booster, as JSON can hold it."""
        return {"inputs": list(self.inputs), "known": {name: list(texts) for name, texts in self.known.items()}}


def trees_from_json(content: Mapping[str, Any], text: str) -> Trees:
    """Inverse of `Trees.to_json`, given the text of the booster."""
    return Trees(inputs=tuple(content["inputs"]), known={name: tuple(texts) for name, texts in content["known"].items()}, text=text)


def fit_trees(rows: pd.DataFrame, labels: FloatArray, *, names: Sequence[str], texts: Sequence[str], training: Training) -> Trees:
    """The recipe's booster on these rows: same rows and same seed, same text, whatever the number of processors.

    Args:
        names: the features to use; those in `texts` are categories.
    """
    kept, weight = thinned(np.arange(len(rows)), labels, training.kept_negatives)
    chosen = rows if weight is None else rows.iloc[kept]
    known = {name: categories(chosen, name) for name in texts}
    parameters = {**training.parameters, **REPRODUCIBLE, "seed": training.seed}
    learned = dataset(chosen, labels[kept], names=names, known=known, parameters=parameters, weight=weight)
    booster = lgb.train(parameters, learned, num_boost_round=training.trees)
    return Trees(inputs=tuple(names), known=known, text=booster.model_to_string())


def dataset(
    rows: pd.DataFrame,
    labels: FloatArray,
    *,
    names: Sequence[str],
    known: Mapping[str, Sequence[str]],
    parameters: Mapping[str, Any],
    weight: FloatArray | None = None,
    reference: lgb.Dataset | None = None,
) -> lgb.Dataset:
    """Rows as LightGBM learns from them, or, with the training rows as `reference`, is validated on."""
    return lgb.Dataset(
        matrix(rows, names, known),
        labels,
        weight=weight,
        reference=reference,
        feature_name=list(names),
        categorical_feature=[list(names).index(name) for name in known],
        params=dict(parameters),
    )


def thinned(rows: IntArray, labels: FloatArray, kept_negatives: float) -> tuple[IntArray, FloatArray | None]:
    """All positives and evenly spaced negatives, which stand for the others by their weight.

    Returns:
        Positions, ascending, and a weight for each; None for the weights where all rows are kept.
    """
    if kept_negatives >= 1:
        return rows, None
    negatives = rows[labels[rows] == 0]
    kept = negatives[np.linspace(0, len(negatives) - 1, max(1, round(kept_negatives * len(negatives)))).astype(np.int64)]
    chosen = np.sort(np.concatenate([rows[labels[rows] == 1], kept]))
    return chosen, np.where(labels[chosen] == 1, 1.0, len(negatives) / len(kept))
