"""This service, as `ml-assets serve` starts it, for the case of `bank`.

    python ours.py ROOT STORE PORT WORKERS

Worker processes import this script again, and so replace the case as well.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent)]

from ml_assets import use_cases  # noqa: E402
from ml_assets.serving.server import Settings, serve  # noqa: E402
from serving_peers.bank import case  # noqa: E402

use_cases.USE_CASES = (case(),)

if __name__ == "__main__":
    root, store, port, workers = sys.argv[1:]
    serve(Settings(cases=("card_fraud",), root=root, store=store, port=int(port), workers=int(workers)))
