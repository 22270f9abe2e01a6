"""What an online store is filled with, from when on it answers truly, and what it may forget: on a small bank, with all its features."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages import online_state
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import ingested
from ml_assets.stages.kept import kept_of
from ml_assets.stages.online_features import OnlineFeatures
from ml_assets.stages.online_state import ANSWERS_FROM, LATE, LAYOUT, SEEN_UNTIL, SINCE_EVER, OtherLayoutError, answers_from
from ml_assets.storage.online import Answer, Fact, OnlineStore, open_store
from ml_assets.use_case import Day, UseCase, day_range, shift
from ml_assets.use_cases import find

FIRST, LAST = "2018-04-01", "2018-05-16"
DAYS = day_range(FIRST, LAST)
DAY_OF_MICROSECONDS = 24 * 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Bank:
    case: UseCase
    tables: dict[str, pd.DataFrame]

    def rows(self, days: list[Day]) -> dict[str, pd.DataFrame]:
        return {name: rows[rows["day"].isin(days)] for name, rows in self.tables.items()}

    def load(self, store: OnlineStore, days: list[Day], content: str = "content") -> dict[str, int]:
        return online_state.load_days(self.case, store, self.rows(days), dict.fromkeys(days, content))

    def start(self, day: Day) -> int:
        return self.case.starts(day).value // 1000


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """40 customers in six and a half weeks."""
    settings = {
        "ML_ASSETS_ROOT": str(tmp_path_factory.mktemp("bank")),
        "ML_ASSETS_CARD_FRAUD_CUSTOMERS": "40",
        "ML_ASSETS_CARD_FRAUD_TERMINALS": "80",
        "ML_ASSETS_CARD_FRAUD_SEED": "7",
    }
    case = find("card_fraud", settings)
    found = {table.name: clean(ingested(table.source(settings).read(DAYS), table, DAYS), table).rows for table in case.tables}
    return Bank(case=case, tables=found)


@pytest.fixture(scope="module")
def filled(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything. For copying."""
    place = tmp_path_factory.mktemp("filled")
    with closing(open_store(str(place), "case", create=True)) as store:
        bank.load(store, DAYS)
    return place


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    with closing(open_store(str(tmp_path / "empty"), "case", create=True)) as opened:
        yield opened


@pytest.fixture
def full(filled: Path, tmp_path: Path) -> Iterator[OnlineStore]:
    with closing(open_store(str(shutil.copytree(filled, tmp_path / "full")), "case")) as opened:
        yield opened


def content(folder: Path) -> tuple[list[Any], dict[str, str]]:
    """Everything that is in a store of SQLite."""
    with closing(sqlite3.connect(folder / "case.db")) as connection:
        facts = connection.execute("SELECT key, id, until, record FROM facts ORDER BY key, id").fetchall()
        return facts, dict(connection.execute("SELECT name, value FROM notes").fetchall())


# What is filed ------------------------------------------------------------------------------------------------------------------


def test_each_row_is_filed_once_under_each_of_its_entities(bank: Bank, filled: Path) -> None:
    facts, notes = content(filled)
    expected = [
        Fact(key, kept.id(row), kept.last_known(row), kept.record(row))
        for name, kept in kept_of(bank.case).items()
        for row in map(plain, bank.tables[name].to_dict("records"))
        for key in kept.keys(row)
    ]
    assert len(expected) > 5000
    assert facts == sorted(tuple(fact) for fact in expected)
    assert notes[ANSWERS_FROM] == str(SINCE_EVER)
    assert notes[SEEN_UNTIL] == str(bank.start(shift(LAST, 1)))
    assert {name for name in notes if name.startswith("loaded:")} == {f"loaded:{day}" for day in DAYS}


def plain(row: dict[Any, Any]) -> dict[str, Any]:
    values = {name: None if pd.isna(value) else value for name, value in row.items()}
    return {name: value.value // 1000 if isinstance(value, pd.Timestamp) else value for name, value in values.items()}


def test_to_load_twice_or_in_halves_is_to_load_once(bank: Bank, filled: Path, store: OnlineStore, tmp_path: Path) -> None:
    counted = [bank.load(store, DAYS[:20]), bank.load(store, DAYS[20:]), bank.load(store, DAYS[10:30])]
    assert content(tmp_path / "empty") == content(filled)
    once = bank.load(store, DAYS)
    assert {name: counted[0][name] + counted[1][name] for name in once} == once


def test_a_row_that_was_delivered_again_takes_the_place_of_the_old_one(bank: Bank, full: OnlineStore, tmp_path: Path) -> None:
    rows = bank.rows(DAYS[-1:])
    changed = rows["transactions"].assign(amount_cents=rows["transactions"]["amount_cents"] + 1)
    before, _ = content(tmp_path / "full")

    online_state.load_days(bank.case, full, rows | {"transactions": changed}, {LAST: "other"})

    after, notes = content(tmp_path / "full")
    assert [fact[:3] for fact in after] == [fact[:3] for fact in before]
    different = sum(one != other for one, other in zip(before, after, strict=True))
    assert different == len(changed) * len(kept_of(bank.case)["transactions"].entities)
    assert notes[f"loaded:{LAST}"] == "other"


def test_days_without_rows_are_loaded_too(bank: Bank, store: OnlineStore) -> None:
    nothing = {name: rows.head(0) for name, rows in bank.tables.items()}
    filed = online_state.load_days(bank.case, store, nothing, {FIRST: "nothing"})
    assert filed == dict.fromkeys(kept_of(bank.case), 0)
    assert store.notes(ANSWERS_FROM) == {ANSWERS_FROM: str(SINCE_EVER)}
    assert {day: len(found) for day, found in online_state.loading_findings(bank.case, store, nothing, [FIRST]).items()} == {
        FIRST: 0
    }


def test_a_store_of_another_layout_is_left_alone(bank: Bank, full: OnlineStore, tmp_path: Path) -> None:
    before = content(tmp_path / "full")
    features = bank.case.features
    fewer = replace(bank.case, features=replace(features, trailing=features.trailing[:-1]))
    with pytest.raises(OtherLayoutError, match="materialise online_state again"):
        online_state.load_days(fewer, full, bank.rows(DAYS), dict.fromkeys(DAYS, "content"))
    assert content(tmp_path / "full") == before
    online_state.require_layout(bank.case, full.notes(LAYOUT))
    online_state.require_layout(bank.case, {})


@pytest.mark.parametrize("missing", ["customer_id", "terminal_id", "everything"])
def test_records_that_are_missing_are_found(bank: Bank, full: OnlineStore, tmp_path: Path, missing: str) -> None:
    def failed() -> dict[Day, list[str]]:
        with closing(open_store(str(tmp_path / "full"), "case")) as again:  # one that does not remember what it wrote
            found = online_state.loading_findings(bank.case, again, bank.rows(DAYS), DAYS)
        return {day: [str(each) for each in of_day if not each.passed] for day, of_day in found.items()}

    assert failed() == {day: [] for day in DAYS}
    full.close()
    day = DAYS[12]
    ids = bank.rows([day])["transactions"]["event_id"].tolist()
    prefix = b"" if missing == "everything" else f"transactions.{missing}\x1f".encode()
    with closing(sqlite3.connect(tmp_path / "full" / "case.db")) as other, other:
        marks = ",".join("?" * len(ids))
        statement = f"DELETE FROM facts WHERE substr(key, 1, ?) = ? AND id IN ({marks})"
        other.execute(statement, (len(prefix), prefix, *(id.encode() for id in ids)))

    found = failed()

    assert [each for each in DAYS if found[each]] == ([day] if missing != "everything" else [day, *told_of(bank, ids)])
    assert "rows of transactions are read back" in found[day][0]
    sampled = min(20, len(ids)) * (3 if missing == "everything" else 1)
    assert f"{sampled} of {min(20, len(ids)) * 3} records are not there" in found[day][0]


def test_a_record_that_is_not_as_the_row_says_is_found(bank: Bank, full: OnlineStore) -> None:
    rows = bank.rows(DAYS[20:22])
    other = rows["transactions"]["amount_cents"].where(rows["transactions"]["day"] == DAYS[20], 1)
    changed = rows | {"transactions": rows["transactions"].assign(amount_cents=other)}
    found = online_state.loading_findings(bank.case, full, changed, DAYS[20:22])
    assert {day: [each.passed for each in of_day] for day, of_day in found.items()} == {
        DAYS[20]: [True, True],
        DAYS[21]: [False, True],
    }


def told_of(bank: Bank, ids: list[str]) -> list[Day]:
    """The days on which payments were reported, whose records went, too."""
    rows = bank.tables["chargebacks"]
    return sorted(set(rows.loc[rows["event_id"].isin(ids), "day"]))


# From when on it answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loaded", "since"),
    [
        (["2018-04-01"], None),
        (day_range("2018-04-01", "2018-05-01"), None),
        (["2018-04-02"], "2018-04-02"),
        (day_range("2018-04-05", "2018-04-30"), "2018-04-05"),
        ([*day_range("2018-04-01", "2018-04-10"), *day_range("2018-04-12", "2018-04-20")], "2018-04-12"),
        ([*day_range("2018-04-01", "2018-04-10"), "2018-04-12", "2018-04-14"], "2018-04-14"),
    ],
)
def test_windows_are_whole_a_look_back_after_the_first_of_the_days_that_follow_each_other(
    bank: Bank, loaded: list[Day], since: Day | None
) -> None:
    wanted = SINCE_EVER if since is None else bank.start(shift(since, bank.case.lookback_days))
    assert answers_from(bank.case, loaded) == wanted


def since(store: OnlineStore) -> int:
    return int(store.notes(ANSWERS_FROM)[ANSWERS_FROM])


def test_a_gap_is_told_until_it_is_filled(bank: Bank, store: OnlineStore) -> None:
    whole = bank.case.lookback_days
    bank.load(store, DAYS[5:10])
    assert since(store) == bank.start(shift(DAYS[5], whole))
    bank.load(store, DAYS[12:14])
    assert since(store) == bank.start(shift(DAYS[12], whole)), "two days lie between"
    bank.load(store, DAYS[10:12])
    assert since(store) == bank.start(shift(DAYS[5], whole))
    bank.load(store, DAYS[:5])
    assert since(store) == SINCE_EVER


def test_what_was_seen_as_it_happened_is_no_gap(bank: Bank, store: OnlineStore) -> None:
    bank.load(store, DAYS[:10])
    store.note({SEEN_UNTIL: str(bank.start(DAYS[14]))})
    bank.load(store, DAYS[15:17])
    assert since(store) == SINCE_EVER
    bank.load(store, DAYS[19:20])
    assert since(store) == bank.start(shift(DAYS[19], bank.case.lookback_days))


# What is forgotten --------------------------------------------------------------------------------------------------------------


def features_of(bank: Bank, store: OnlineStore, events: list[dict[str, Any]]) -> dict[str, Any]:
    """Of events that come now, each by itself."""
    online = OnlineFeatures(bank.case)
    made = []
    for event in events:
        keys = online.keys(event)
        facts = dict(store.facts([key for key in keys.values() if key is not None]))
        kept = online.kept["transactions"]
        for key in kept.keys(event):
            facts[key] = facts.get(key, b"") + kept.record(kept.known(event, event["paid_at"]))
        made.append(pd.DataFrame(online.compute([event], facts)))
    return pd.concat(made, ignore_index=True)


@pytest.mark.parametrize("late", [0, LATE // timedelta(microseconds=1)], ids=["newest", "late"])
def test_what_is_dropped_is_out_of_reach(bank: Bank, full: OnlineStore, tmp_path: Path, late: int) -> None:
    now = bank.start(shift(LAST, 1))
    rows = map(plain, bank.tables["transactions"].groupby("customer_id").tail(1).to_dict("records"))
    moved = {"paid_at": now - late, "settled_at": now - late + 7 * DAY_OF_MICROSECONDS}
    events = [row | moved | {"event_id": f"zz-{place}"} for place, row in enumerate(rows)]
    before, there = features_of(bank, full, events), content(tmp_path / "full")[0]
    full.keep(
        [], [Answer(id="old", at=now - 8 * DAY_OF_MICROSECONDS, body=b"x"), Answer(id="new", at=now, body=b"x")], replace=False
    )

    online_state.refuse_old(bank.case, full, now)
    dropped = online_state.drop_old(bank.case, full, now)

    pd.testing.assert_frame_equal(features_of(bank, full, events), before, check_exact=True)
    left = content(tmp_path / "full")[0]
    assert dropped == len(there) - len(left) > 500
    longest = {name: bank.case.features.longest_window(name) + LATE for name in kept_of(bank.case)}
    limit = {name.encode(): now - reach // timedelta(microseconds=1) for name, reach in longest.items()}
    assert left == [fact for fact in there if fact[2] >= limit[fact[0].split(b".")[0]]]
    assert full.answers(["old", "new"]) == {"new": b"x"}
    assert since(full) == now - LATE // timedelta(microseconds=1)
    assert online_state.drop_old(bank.case, full, now) == 0
    if late:
        online_state.drop_old(bank.case, full, now + 3 * DAY_OF_MICROSECONDS)
        with pytest.raises(AssertionError, match="are different"):
            pd.testing.assert_frame_equal(features_of(bank, full, events), before, check_exact=True)


def test_after_dropping_the_next_days_can_be_loaded(bank: Bank, store: OnlineStore) -> None:
    bank.load(store, DAYS[:-2])
    now = bank.start(DAYS[-2])
    online_state.refuse_old(bank.case, store, now)
    online_state.drop_old(bank.case, store, now)
    assert since(store) == now - LATE // timedelta(microseconds=1)
    bank.load(store, DAYS[-2:])
    assert since(store) == now - LATE // timedelta(microseconds=1)
    assert np.all([notes == "" for name, notes in store.notes("loaded:").items() if name < f"loaded:{DAYS[5]}"])
