"""What is kept with a model to watch it by: sketches of the events that judged it, its calibration, and what it promised."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression

from ml_assets.stages.bounds import bounded
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.model import Model
from ml_assets.stages.ranking import average_precision, roc_auc
from ml_assets.stages.sketch import Sketch, sketch, sketch_from_json

FILE = "reference.json"
"""In the package of a model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """From scores to the rates that were observed on the hold-out: a line through `scores` and `rates`, both ascending."""

    scores: FloatArray
    rates: FloatArray

    def rate(self, scores: FloatArray) -> FloatArray:
        """The probability of a positive, shape (n,), between 0 and 1."""
        return bounded(np.interp(scores, self.scores, self.rates), name="a calibrated probability")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The judged model on its hold-out: all events of these days for the sketches, those with a known label for the rest."""

    features: Mapping[str, Sketch]
    score: Sketch
    importance: Mapping[str, float]
    """Share of the gain, by feature; empty for a family that has none."""
    calibration: Calibration
    average_precision: float
    """On the hold-out: what the model promised, as is `roc_auc`."""
    roc_auc: float
    positive_rate: float

    def to_file(self) -> bytes:
        """JSON; the same reference gives the same bytes."""
        content = {
            "features": {name: each.to_json() for name, each in self.features.items()},
            "score": self.score.to_json(),
            "importance": dict(self.importance),
            "calibration": {"scores": self.calibration.scores.tolist(), "rates": self.calibration.rates.tolist()},
            "average_precision": self.average_precision,
            "roc_auc": self.roc_auc,
            "positive_rate": self.positive_rate,
        }
        return json.dumps(content, indent=1, allow_nan=False).encode()


def reference_of(model: Model, events: pd.DataFrame, judged: pd.DataFrame) -> Reference:
    """What a model is watched by.

    Args:
        model: the one that was judged, and not one fitted again on the hold-out, whose scores of it are too sure.
        events: features of all events of the hold-out's days.
        judged: those of them whose label is known, with the column `label`, both classes.
    """
    texts = {name for name in model.inputs if events[name].dtype.kind not in "fiub"}
    scores, truth = model.predict(judged), judged["label"].to_numpy(dtype=np.float64)
    line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, truth)
    return Reference(
        features={name: sketch(events, name, text=name in texts) for name in model.inputs},
        score=sketch(pd.DataFrame({"score": model.predict(events)}), "score", text=False),
        importance=dict(model.importance()),
        calibration=Calibration(scores=np.asarray(line.X_thresholds_), rates=np.asarray(line.y_thresholds_)),
        average_precision=average_precision(truth, scores),
        roc_auc=roc_auc(truth, scores),
        positive_rate=float(truth.mean()),
    )


def reference_in(files: Mapping[str, bytes]) -> Reference | None:
    """What a package is watched by; None for one from before there was such a thing."""
    if (written := files.get(FILE)) is None:
        return None
    content = json.loads(written)
    return Reference(
        features={name: sketch_from_json(each) for name, each in content["features"].items()},
        score=sketch_from_json(content["score"]),
        importance=content["importance"],
        calibration=Calibration(
            scores=np.asarray(content["calibration"]["scores"], dtype=np.float64),
            rates=np.asarray(content["calibration"]["rates"], dtype=np.float64),
        ),
        average_precision=content["average_precision"],
        roc_auc=content["roc_auc"],
        positive_rate=content["positive_rate"],
    )
