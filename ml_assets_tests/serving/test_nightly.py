"""State that is loaded night by night goes on from what the scorer saw; after a gap it does not."""

from contextlib import closing
from typing import Any

from ml_assets.stages import online_state
from ml_assets.storage.online import open_store
from ml_assets.use_case import day_range

FIRST = day_range("2018-04-03", "2018-05-15")
"""Not from the first day of the case on: what can be answered begins a look-back later."""


def loaded(world: Any, address: str, days: list[str]) -> dict[str, str]:
    world.load(address, days)
    with closing(open_store(address, world.case.name)) as store:
        return store.notes("")


def test_a_night_later_it_goes_on(world: Any, tmp_path: Any) -> None:
    before = loaded(world, str(tmp_path), FIRST)
    assert before[online_state.ANSWERS_FROM] == str(world.case.starts("2018-05-10").value // 1000)
    with closing(open_store(str(tmp_path), world.case.name)) as store:
        store.note({online_state.SEEN_UNTIL: str(world.case.starts("2018-05-17").value // 1000)})

    after = loaded(world, str(tmp_path), ["2018-05-17"])

    assert after[online_state.ANSWERS_FROM] == before[online_state.ANSWERS_FROM]
    assert after[online_state.SEEN_UNTIL] == str(world.case.starts("2018-05-18").value // 1000)


def test_after_a_gap_it_begins_anew(world: Any, tmp_path: Any) -> None:
    before = loaded(world, str(tmp_path), FIRST)
    assert before[online_state.SEEN_UNTIL] == str(world.case.starts("2018-05-16").value // 1000)

    after = loaded(world, str(tmp_path), ["2018-05-18"])

    assert after[online_state.ANSWERS_FROM] == str(world.case.starts("2018-06-24").value // 1000)
