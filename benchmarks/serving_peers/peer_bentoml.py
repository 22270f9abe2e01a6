"""BentoML: a service with one method, as its guide for tabular models has it. Told by the environment: MODEL, WORKERS, INPUTS."""

import os
from typing import Any

import bentoml
import lightgbm as lgb
import numpy as np

INPUTS = os.environ["INPUTS"].split(",")


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Scorer:
    def __init__(self) -> None:
        self.booster = lgb.Booster(model_file=os.environ["MODEL"])

    @bentoml.api
    def predict(self, features: dict[str, Any]) -> dict[str, float]:
        row = np.array([[features[name] for name in INPUTS]], dtype=np.float64)
        return {"score": float(self.booster.predict(row, num_threads=1)[0])}
