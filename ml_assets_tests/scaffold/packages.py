"""Generated use cases as packages that can be imported, outside the project."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import ml_assets.use_cases


@contextmanager
def case_in(folder: Path, written: Mapping[str, str]) -> Iterator[ModuleType]:
    """The package that these files are, imported as a use case, and gone again."""
    name = "hostile_case"
    (folder / name).mkdir(parents=True)
    for file, text in written.items():
        (folder / name / file).write_text(text, encoding="utf-8")
    ml_assets.use_cases.__path__.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(f"ml_assets.use_cases.{name}")
    finally:
        ml_assets.use_cases.__path__.remove(str(folder))
        for module in [each for each in sys.modules if each.startswith(f"ml_assets.use_cases.{name}")]:
            del sys.modules[module]
        vars(ml_assets.use_cases).pop(name, None)
