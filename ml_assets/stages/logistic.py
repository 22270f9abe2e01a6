"""Logistic regression: the baseline that needs imputing and scaling, kept as numbers."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ml_assets.stages.adapters import adapter_of
from ml_assets.stages.inputs import FloatArray, Frame, codes, numbers

MAX_ROWS = 60_000
MIN_CATEGORY_ROWS, MIN_CATEGORY_SHARE = 200, 0.02
"""A category has a weight from so many rows on, or from this share of fewer than 10,000 rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Numeric:
    """A number: missing is `median`, then `(value - mean) / scale` times `weight`; all from training rows only."""

    name: str
    median: float
    mean: float
    scale: float
    weight: float = 0.0

    def standardised(self, frame: Frame) -> FloatArray:
        """The imputed and scaled column, shape (rows,)."""
        values = numbers(frame, self.name)
        return (np.where(np.isnan(values), self.median, values) - self.mean) / self.scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Categorical:
    """A text: each frequent category has a weight; a rare, missing or new one adds nothing."""

    name: str
    known: tuple[str, ...]
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Logistic:
    """Sum of the terms, through the logistic function."""

    intercept: float
    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The feature columns that it reads."""
        return (*(number.name for number in self.numeric), *(text.name for text in self.categorical))

    def predict(self, frame: Frame) -> FloatArray:
        """Term after term, not as a matrix product, whose order of summation depends on the number of rows."""
        total = np.full(len(frame), self.intercept)
        for number in self.numeric:
            total += number.standardised(frame) * number.weight
        for text in self.categorical:
            total += np.array([*text.weights, 0.0])[codes(frame, text.name, text.known)]  # MISSING (-1) takes the last one, 0
        return np.asarray(expit(total), dtype=np.float64)

    def contributions(self, frame: Frame) -> FloatArray:
        """Each term, and last the intercept: exact, and 0 for a number at its training mean. Shape (rows, features + 1)."""
        numeric = [number.standardised(frame) * number.weight for number in self.numeric]
        texts = [np.array([*text.weights, 0.0])[codes(frame, text.name, text.known)] for text in self.categorical]
        return np.column_stack([*numeric, *texts, np.full(len(frame), self.intercept)])

    def importance(self) -> list[tuple[str, float]]:
        """None: weights are not shares of gain."""
        return []

    def to_json(self) -> dict[str, Any]:
        """All its numbers, as JSON can hold them."""
        return asdict(self)


def logistic_from_json(content: Mapping[str, Any]) -> Logistic:
    """Inverse of `Logistic.to_json`."""
    return adapter_of(Logistic).validate_python(content)


def fit_logistic(
    rows: pd.DataFrame, labels: FloatArray, *, names: Sequence[str], texts: Sequence[str], inverse_penalty: float = 1.0
) -> Logistic:
    """Logistic regression (L2, `inverse_penalty` is scikit-learn's C) on at most `MAX_ROWS` rows, evenly spaced from first to last.

    Args:
        names: the features to use; those in `texts` are categories.

    Raises:
        RuntimeError: when the solver does not converge.
    """
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.int64)
    sample, truth = rows.iloc[chosen], labels[chosen]
    numeric = [_numeric(sample, name) for name in names if name not in texts]
    categorical = [_categorical(sample, name) for name in texts]
    weights = _solve(_design(sample, numeric, categorical), truth, inverse_penalty)
    intercept, first = weights[0], len(numeric) + 1
    ends = first + np.cumsum([len(text.known) for text in categorical], dtype=np.int64)
    return Logistic(
        intercept=intercept,
        numeric=tuple(
            Numeric(name=term.name, median=term.median, mean=term.mean, scale=term.scale, weight=weight)
            for term, weight in zip(numeric, weights[1:first], strict=True)
        ),
        categorical=tuple(
            Categorical(name=text.name, known=text.known, weights=tuple(weights[end - len(text.known) : end]))
            for text, end in zip(categorical, ends, strict=True)
        ),
    )


def _numeric(sample: pd.DataFrame, name: str) -> Numeric:
    """A column without any value, or with a single one, becomes 0 for every row."""
    values = numbers(sample, name)
    there = values[~np.isnan(values)]
    median = float(np.median(there)) if len(there) else 0.0
    filled = np.where(np.isnan(values), median, values)
    return Numeric(name=name, median=median, mean=float(filled.mean()), scale=float(filled.std()) or 1.0)


def _categorical(sample: pd.DataFrame, name: str) -> Categorical:
    counts = sample[name].value_counts()
    least = min(MIN_CATEGORY_ROWS, MIN_CATEGORY_SHARE * len(sample))
    return Categorical(name=name, known=tuple(sorted(counts[counts >= least].index.tolist())))


def _design(sample: pd.DataFrame, numeric: list[Numeric], categorical: list[Categorical]) -> FloatArray:
    columns = [number.standardised(sample) for number in numeric]
    for text in categorical:
        coded = codes(sample, text.name, text.known)
        columns += [(coded == code).astype(np.float64) for code in range(len(text.known))]
    return np.column_stack(columns)


def _solve(design: FloatArray, labels: FloatArray, inverse_penalty: float) -> list[float]:
    """Intercept and weights. Newton's method: some 10 steps where L-BFGS takes hundreds, for many more rows than columns."""
    solver = LogisticRegression(C=inverse_penalty, solver="newton-cholesky", tol=1e-6, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            solver.fit(design, labels)
        except (ConvergenceWarning, RuntimeWarning) as error:
            raise RuntimeError(f"logistic regression on {design.shape[0]} rows x {design.shape[1]} columns: {error}") from error
    return [float(solver.intercept_[0]), *map(float, solver.coef_[0])]
