"""A fitted model of any family: predicts, and is kept as text files without pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml_assets.stages.climatology import Climatology, climatology_from_json
from ml_assets.stages.inputs import FloatArray, Frame, require
from ml_assets.stages.logistic import Logistic, logistic_from_json
from ml_assets.stages.trees import Trees, trees_from_json

Family = Literal["lightgbm", "logistic", "climatology"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What turns features into the probability of a positive."""

    estimator: Trees | Logistic | Climatology

    @property
    def family(self) -> Family:
        """The name of the method."""
        match self.estimator:
            case Trees():
                return "lightgbm"
            case Logistic():
                return "logistic"
            case Climatology():
                return "climatology"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The feature columns that it reads."""
        return self.estimator.inputs

    def predict(self, frame: Frame) -> FloatArray:
        """The probability of a positive, shape (rows,): for a row alone, to the last bit, what it is within a batch.

        Columns are found by name and others ignored; no rows give no numbers.

        Raises:
            ValueError: naming the feature columns that the frame lacks.
        """
        require(frame, self.inputs)
        return self.estimator.predict(frame) if len(frame) else np.empty(0)

    def contributions(self, frame: Frame) -> FloatArray | None:
        """What each feature of `inputs` adds to each row's log-odds, shape (rows, features + 1); the last column is no feature's.

        A row's contributions sum to the log-odds of its score. None for climatology, which does not add anything up.

        Raises:
            ValueError: naming the feature columns that the frame lacks.
        """
        require(frame, self.inputs)
        if isinstance(self.estimator, Climatology):
            return None
        return self.estimator.contributions(frame) if len(frame) else np.empty((0, len(self.inputs) + 1))

    def importance(self) -> list[tuple[str, float]]:
        """Features with their share of the gain, largest first; empty for a family that has no gain."""
        return self.estimator.importance()

    def to_files(self) -> dict[str, bytes]:
        """`model.json`, and for LightGBM the booster as `model.txt`; the same model gives the same bytes."""
        content = {"family": self.family, **self.estimator.to_json()}
        files = {"model.json": json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode()}
        if isinstance(self.estimator, Trees):
            files["model.txt"] = self.estimator.text.encode()
        return files

    @staticmethod
    def from_files(files: Mapping[str, bytes]) -> "Model":
        """Inverse of `to_files`; other files are ignored.

        Raises:
            ValueError: when the family is not one of ours.
            KeyError: when a file is missing.
        """
        content = json.loads(files["model.json"])
        match content.pop("family"):
            case "lightgbm":
                return Model(estimator=trees_from_json(content, files["model.txt"].decode()))
            case "logistic":
                return Model(estimator=logistic_from_json(content))
            case "climatology":
                return Model(estimator=climatology_from_json(content))
            case family:
                raise ValueError(f"model.json is of family {family!r}; known are lightgbm, logistic and climatology")
