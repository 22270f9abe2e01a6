"""LitServe: an API of its four steps.

    python peer_litserve.py MODEL.txt PORT WORKERS

As many processes that speak HTTP as processes that score, which is the default.
"""

import sys
from typing import Any

import lightgbm as lgb
import litserve as ls
import numpy as np

MODEL, PORT, WORKERS = sys.argv[1:]


class Scorer(ls.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002
        self.booster = lgb.Booster(model_file=MODEL)

    def decode_request(self, request: dict[str, Any]) -> Any:
        return np.array([request["row"]], dtype=np.float64)

    def predict(self, row: Any) -> float:
        return float(self.booster.predict(row, num_threads=1)[0])

    def encode_response(self, score: float) -> dict[str, float]:
        return {"score": score}


if __name__ == "__main__":
    server = ls.LitServer(Scorer(), accelerator="cpu", workers_per_device=int(WORKERS))
    server.run(port=int(PORT), host="127.0.0.1", generate_client_file=False, num_api_servers=int(WORKERS), log_level="warning")
