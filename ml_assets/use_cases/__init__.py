"""The prediction problems that the platform serves. A new one is a folder here and its name in `NAMES`."""

from collections.abc import Mapping
from importlib import import_module

from ml_assets.stages.declarations import require_computable
from ml_assets.use_case import UseCase

NAMES = (
    "flight_delays",
    "card_fraud",
)
"""Of folders here. Each declares a `UseCase` under its own name in capital letters."""


def _declared(name: str) -> UseCase:
    found: UseCase = getattr(import_module(f"{__name__}.{name}"), name.upper())
    require_computable(found)
    return found


USE_CASES: tuple[UseCase, ...] = tuple(_declared(name) for name in NAMES)


CASES = "ML_ASSETS_CASES"


def configured(settings: Mapping[str, str]) -> tuple[UseCase, ...]:
    """The use cases as the settings (the environment of the process) make them: all, or those that `ML_ASSETS_CASES` names.

    Raises:
        ValueError: a setting is not what it should be; the message names it.
    """
    wanted = [name.strip() for name in settings.get(CASES, "").split(",") if name.strip()] or list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        raise ValueError(f"{CASES}: no use case {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    return tuple(case.configure(case, settings) if case.configure else case for case in USE_CASES if case.name in wanted)


def find(name: str, settings: Mapping[str, str]) -> UseCase:
    """The use case of that name, as the settings make it.

    Raises:
        KeyError: there is none; the message lists those that exist.
        ValueError: a setting is not what it should be.
    """
    for case in USE_CASES:
        if case.name == name:
            return case.configure(case, settings) if case.configure else case
    raise KeyError(f"no use case {name!r}; there are: {', '.join(case.name for case in USE_CASES)}")
