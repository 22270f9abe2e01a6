"""Gradient-boosted trees: LightGBM, kept as its text model."""

import ctypes
import re
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import lightgbm as lgb
import numpy as np
import pandas as pd
from lightgbm.basic import _LIB  # type: ignore[attr-defined]  # the C library: Python's own way takes 22 us a row, this 4

from ml_assets.stages.inputs import FloatArray, Frame, IntArray, categories, matrix
from ml_assets.use_case import Training

_FLOAT64 = 1
_PLAIN_NAME = re.compile(r"[^\s\x00-\x1f\"\[\]{}:,]+")
"""What LightGBM can write into its text model; columns are known by their place, so that others are numbered there."""
_LIB.LGBM_BoosterPredictForMatSingleRowFast.argtypes = [ctypes.c_void_p] * 4
REPRODUCIBLE = {"objective": "binary", "deterministic": True, "force_row_wise": True, "verbosity": -1}
"""Row-wise, because that is stable for any number of threads and, without it, LightGBM times both ways and takes the faster."""


FEW_ROWS = 64
"""Up to so many rows one after the other are faster than LightGBM's way for many: of 220 trees one takes 4 us alone and 22 us there."""


class SingleRow:
    """LightGBM's fast path for one row: parameters are parsed once. It keeps a buffer, so that each thread has its own."""

    def __init__(self, booster: lgb.Booster) -> None:
        self._booster, self._of_thread = booster, threading.local()

    def __call__(self, values: FloatArray | Sequence[float]) -> float:
        try:
            row, pack, arguments, result = self._of_thread.kept
        except AttributeError:
            row, pack, arguments, result = self._of_thread.kept = self._prepared()
        if len(values) != len(row):
            raise ValueError(f"{len(values)} values for a model of {len(row)} features")
        if isinstance(values, np.ndarray):
            row[:] = values
        else:
            pack(row, 0, *values)  # in a third of the time
        if _LIB.LGBM_BoosterPredictForMatSingleRowFast(*arguments):
            _raise()
        return float(result.value)

    def _prepared(self) -> tuple[FloatArray, Callable[..., None], tuple[object, ...], ctypes.c_double]:
        """A row to be filled, how, what is handed over for it, and where the result will be."""
        config, result = _FastConfig(self._booster), ctypes.c_double()
        row = np.empty(config.inputs)
        handle = ctypes.c_void_p(config.handle.value)
        handle.config = config  # type: ignore[attr-defined]  # it lives as long
        return (
            row,
            struct.Struct(f"{config.inputs}d").pack_into,
            (handle, row.ctypes.data, ctypes.byref(ctypes.c_int64()), ctypes.byref(result)),
            result,
        )


class _FastConfig:
    """What LightGBM has to know of a prediction before it; freed with the thread."""

    def __init__(self, booster: lgb.Booster) -> None:
        self._booster = booster  # its handle must outlive this one
        self.handle, self.inputs = ctypes.c_void_p(), booster.num_feature()
        made = _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle, 0, 0, -1, _FLOAT64, ctypes.c_int32(self.inputs), b"num_threads=1", ctypes.byref(self.handle)
        )
        if made:
            _raise()

    def __del__(self) -> None:
        _LIB.LGBM_FastConfigFree(self.handle)


def _raise() -> NoReturn:
    raise RuntimeError(f"LightGBM: {_LIB.LGBM_GetLastError().decode()}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """A booster with its inputs; `known` holds the categories of each text feature, in the order of their codes."""

    inputs: tuple[str, ...]
    known: Mapping[str, tuple[str, ...]]
    text: str
    booster: lgb.Booster = field(init=False, repr=False, compare=False)
    _single: "SingleRow" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Made from the text also right after training, so that the model judged is the model that will be loaded.
        object.__setattr__(self, "booster", lgb.Booster(model_str=self.text))
        object.__setattr__(self, "_single", SingleRow(self.booster))

    def predict(self, frame: Frame) -> FloatArray:
        """Each row's probability of a positive, shape (rows,)."""
        rows = matrix(frame, self.inputs, self.known)
        if len(rows) <= FEW_ROWS:
            return np.array([self._single(row) for row in rows], dtype=np.float64)
        return np.asarray(self.booster.predict(rows), dtype=np.float64)

    def predict_row(self, values: FloatArray | Sequence[float]) -> float:
        """The probability for one row of numbers and codes, in the order of `inputs`, nan where missing."""
        return self._single(values)

    def contributions(self, frame: Frame) -> FloatArray:
        """What each feature adds to each row's log-odds, shape (rows, features + 1); the last column is the mean of the training rows.

        SHAP values of the trees (Lundberg et al., 2020, https://doi.org/10.1038/s42256-019-0138-9), by LightGBM itself: they sum to the
        log-odds of the score.
        """
        rows = matrix(frame, self.inputs, self.known)
        found = self.booster.predict(rows, pred_contrib=True, num_threads=1 if len(rows) == 1 else 0)
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
        feature_name=list(names) if all(map(_PLAIN_NAME.fullmatch, names)) else [f"feature_{place}" for place in range(len(names))],
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
