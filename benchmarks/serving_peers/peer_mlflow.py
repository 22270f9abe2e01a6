"""MLflow: the model saved in its LightGBM flavour, for `mlflow models serve`, which knows nothing of this file.

python peer_mlflow.py MODEL.txt FOLDER INPUTS
"""

import sys

import lightgbm as lgb
import mlflow.lightgbm
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

if __name__ == "__main__":
    model, folder, inputs = sys.argv[1:]
    # With its types declared, a missing number may be null.
    signature = ModelSignature(inputs=Schema([ColSpec("double", name) for name in inputs.split(",")]))
    mlflow.lightgbm.save_model(lgb.Booster(model_file=model), folder, signature=signature, pip_requirements=[])
