"""The prediction problems that the platform serves. A new one is a folder here and its name in `USE_CASES`."""

from ml_assets.use_case import UseCase
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

USE_CASES: tuple[UseCase, ...] = (FLIGHT_DELAYS,)


def find(name: str) -> UseCase:
    """The use case of that name.

    Raises:
        KeyError: there is none; the message lists those that exist.
    """
    for case in USE_CASES:
        if case.name == name:
            return case
    raise KeyError(f"no use case {name!r}; there are: {', '.join(case.name for case in USE_CASES)}")
