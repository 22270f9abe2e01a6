"""What Dagster loads."""

from ml_assets.orchestration.pipeline import build_defs
from ml_assets.settings import settings
from ml_assets.use_cases import configured

defs = build_defs(configured(settings()))
