"""What Dagster loads."""

from ml_assets.orchestration.pipeline import build_defs
from ml_assets.use_cases import USE_CASES

defs = build_defs(USE_CASES)
