"""Where everything is kept, by the settings of the process."""

from collections.abc import Mapping
from pathlib import Path

ROOT = "ML_ASSETS_ROOT"
ONLINE_STORE = "ML_ASSETS_ONLINE_STORE"


def root_folder(settings: Mapping[str, str]) -> Path:
    """The folder of tables, models, reports and logs: the setting `ML_ASSETS_ROOT`, else `.ml_assets`."""
    return Path(settings.get(ROOT) or ".ml_assets")


def online_address(settings: Mapping[str, str], root: Path) -> str:
    """Of the online store: the setting `ML_ASSETS_ONLINE_STORE`, else a folder below the root."""
    return settings.get(ONLINE_STORE) or str(root / "online")
