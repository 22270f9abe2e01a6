"""Use cases as `ml-assets new` makes them, for one test: written beside the others, imported, and gone."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_assets.use_cases
from ml_assets.scaffold.declaration import Answers, Inferred
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.write import texts
from ml_assets.use_case import UseCase

NAME = "generated_for_a_test"


def answers(**given: Any) -> Answers:
    """As given, and labels a day after their events unless something else is said."""
    return Answers(**({"known_after": timedelta(days=1)} | given if "known_at" not in given else given))


def lenient(case: UseCase) -> UseCase:
    """With a gate that lets all through, and a short search: what is tested is not whether so few rows make a good model."""
    gate = replace(case.gate, floors={}, baseline_margin=1.0, slices=(), max_row_milliseconds=1000)
    search = replace(case.training.search, trials=2) if case.training.search else None
    return replace(case, gate=gate, training=replace(case.training, search=search))


@contextmanager
def generated(file: Path, *, name: str = NAME, **given: Any) -> Iterator[tuple[UseCase, Inferred]]:
    """The case, as it is declared, and what was inferred."""
    inferred = infer(file, answers(**given))
    package = f"ml_assets.use_cases.{name}"
    with TemporaryDirectory() as folder:
        place = Path(folder) / name
        place.mkdir()
        project = Path(ml_assets.__file__).parents[1]
        for each, text in texts(name, inferred, project=project).items():
            (place / each).write_text(text, encoding="utf-8")
        ml_assets.use_cases.__path__.append(folder)
        try:
            importlib.invalidate_caches()
            yield getattr(importlib.import_module(package), name.upper()), inferred
        finally:
            ml_assets.use_cases.__path__.remove(folder)
            for module in [each for each in sys.modules if each.split(".")[:3] == package.split(".")]:
                del sys.modules[module]
            shutil.rmtree(place, ignore_errors=True)
