"""Assets without partitions that show what was made, on one page each.

Belongs here: how they become assets, and when there is something new to show. Does not: what they show (`backtest`, `overview`, `shadow`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ml_assets.orchestration.store import Store
from ml_assets.use_case import WHOLE, UseCase


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What became of a page."""

    said: str
    """In one line, for the log."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """An asset that is made again, whole, when something that it shows has changed."""

    name: str
    shows: Callable[[UseCase], Sequence[str]]
    """Assets of the case that it is made from."""
    description: str
    group: str
    inputs: Callable[[UseCase, Store], str]
    """Hash of everything that it would be made from now."""
    begun: Callable[[UseCase, Store], bool]
    """Whether there is anything to show yet."""
    make: Callable[[UseCase, Store], Shown]

    def is_stale(self, case: UseCase, store: Store) -> bool:
        """Whether there is something to show that it does not show."""
        noted = store.models.noted(case.name, self.name, WHOLE)
        return self.begun(case, store) and (noted or {}).get("inputs") != self.inputs(case, store)


def page_asset(case: UseCase, page: Page) -> dg.AssetsDefinition:
    """The page as an asset, which notes what it was made from."""
    key = dg.AssetKey([case.name, page.name])
    spec = dg.AssetSpec(
        key,
        deps=[[case.name, name] for name in page.shows(case)],
        description=page.description,
        group_name=f"{case.name}/{page.group}",
        kinds={"python"},
        owners=[case.owner],
    )

    @dg.multi_asset(name=f"{case.name}__{page.name}", specs=[spec])
    def step(context: dg.AssetExecutionContext, store: Store) -> Iterator[dg.MaterializeResult[None]]:
        inputs = page.inputs(case, store)  # before it reads: what comes meanwhile makes it stale again
        shown = page.make(case, store)
        store.models.note(case.name, page.name, WHOLE, {"inputs": inputs})
        context.log.info(shown.said)
        yield dg.MaterializeResult(asset_key=key, data_version=dg.DataVersion(inputs), metadata=shown.metadata)

    return step
