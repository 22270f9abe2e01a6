"""Where everything is kept: one root for tables, models and reports."""

import os
from pathlib import Path

import dagster as dg

from ml_assets.storage.models import ModelStore
from ml_assets.storage.places import online_address, root_folder
from ml_assets.storage.predictions import PredictionLog
from ml_assets.storage.tables import Tables
from ml_assets.use_case import UseCase


class Store(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Tables, models and reports under one folder: `root`, else the setting `ML_ASSETS_ROOT`, else `.ml_assets`."""

    root: str = ""

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.root) if self.root else root_folder(os.environ)

    @property
    def online(self) -> str:
        """The address of the online store."""
        return online_address(os.environ, self.path)

    def tables(self, case: UseCase) -> Tables:
        """The tables of a use case."""
        return Tables(root=self.path, case=case.name)

    def searches(self, case: UseCase) -> str:
        """Where searches of a use case keep their trials, as an SQLAlchemy URL."""
        folder = self.path / "searches"
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / case.name}.db"

    def predictions(self, case: UseCase) -> PredictionLog:
        """What online scorers logged about a use case."""
        return PredictionLog(root=self.path, case=case.name)

    @property
    def models(self) -> ModelStore:
        """Models, reports and deployments of all use cases."""
        return ModelStore(root=self.path)
