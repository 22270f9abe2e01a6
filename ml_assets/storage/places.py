"""Where everything is kept, by the settings of the process."""

from collections.abc import Mapping
from pathlib import Path

from ml_assets.folders import Folder, LocalFolder, folder_at

ROOT = "ML_ASSETS_ROOT"
LOCAL = "ML_ASSETS_LOCAL"
ONLINE_STORE = "ML_ASSETS_ONLINE_STORE"
_HERE = ".ml_assets"


def root_folder(settings: Mapping[str, str], below: str = "") -> Folder:
    """Of tables, models, reports and logs: the setting `ML_ASSETS_ROOT`, a path or `s3://…` or `gs://…`, else `.ml_assets`.

    Args:
        below: a folder in it, instead of itself.
    """
    root = (settings.get(ROOT) or _HERE).rstrip("/")
    return folder_at(f"{root}/{below}" if below else root, Path(), settings)


def local_folder(settings: Mapping[str, str]) -> Path:
    """Of what belongs to this machine (API keys, searches, the online store): the root, or, beside a bucket, `ML_ASSETS_LOCAL`."""
    root = root_folder(settings)
    return root.path if isinstance(root, LocalFolder) else Path(settings.get(LOCAL) or _HERE)


def online_address(settings: Mapping[str, str]) -> str:
    """Of the online store: the setting `ML_ASSETS_ONLINE_STORE`, else a folder on this machine."""
    return settings.get(ONLINE_STORE) or str(local_folder(settings) / "online")
