"""BentoML: a service with one method on arrays, as its guide for XGBoost has it. It is told MODEL and WORKERS by the environment."""

import os

import bentoml
import lightgbm as lgb
import numpy as np


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Scorer:
    def __init__(self) -> None:
        self.booster = lgb.Booster(model_file=os.environ["MODEL"])

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.booster.predict(rows, num_threads=1)
