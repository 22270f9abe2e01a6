"""Where everything is kept: one root for tables, models and reports."""

import base64
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ml_assets.folders import Folder
from ml_assets.settings import settings
from ml_assets.storage.models import ModelStore
from ml_assets.storage.places import ROOT, local_folder, online_address, root_folder
from ml_assets.storage.predictions import PredictionLog
from ml_assets.storage.tables import Tables
from ml_assets.use_case import UseCase


class Store(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Tables, models and reports below one root: `root`, else the setting `ML_ASSETS_ROOT`, else the folder `.ml_assets`."""

    root: str = ""

    @property
    def _settings(self) -> Mapping[str, str]:
        return {**settings(), ROOT: self.root} if self.root else settings()

    @property
    def folder(self) -> Folder:
        """The root."""
        return root_folder(self._settings)

    @property
    def online(self) -> str:
        """The address of the online store."""
        return online_address(self._settings)

    @property
    def local(self) -> Path:
        """The folder of what belongs to this machine."""
        return local_folder(self._settings)

    def tables(self, case: UseCase) -> Tables:
        """The tables of a use case."""
        return Tables(root=self.folder, case=case.name)

    def searches(self, case: UseCase) -> str:
        """Where searches of a use case keep their trials, as an SQLAlchemy URL."""
        folder = self.local / "searches"
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / case.name}.db"

    def predictions(self, case: UseCase) -> PredictionLog:
        """What online scorers logged about a use case."""
        return PredictionLog(root=self.folder, case=case.name)

    @property
    def models(self) -> ModelStore:
        """Models, reports and deployments of all use cases."""
        return ModelStore(root=self.folder)


def shown_picture(name: str, png: bytes) -> dg.MarkdownMetadataValue:
    """A picture, as the web interface shows it."""
    return dg.MarkdownMetadataValue(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")


def shown_at(place: str) -> dg.MetadataValue[str]:
    """The place of a page or package, as the web interface shows it."""
    return dg.MetadataValue.path(place if "://" in place else str(Path(place).resolve()))
