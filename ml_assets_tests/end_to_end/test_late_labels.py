"""A charge-back that is reported late re-opens the days that look at it, and no others; Dagster calls the same days stale."""

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from ml_assets.orchestration.partitions import contiguous, daily_tables_of
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.planning import recipes, stale_days
from ml_assets.orchestration.staleness import look
from ml_assets.orchestration.weeks import CANDIDATE
from ml_assets.use_case import day_range, shift
from ml_assets.use_cases.card_fraud import CARD_FRAUD

PAID, REPORTED = "2018-04-26", "2018-05-06"
"""The payment counts as genuine from 3 May on; the charge-back comes on the tenth day."""
WINDOW = 30
WEEK = "2018-04-25"
CASE = replace(
    CARD_FRAUD,
    end="2018-06-08",
    split=replace(CARD_FRAUD.split, first_go_live=WEEK, holdout_days=3, embargo_days=7, minimum_training_days=5),
    investigation=replace(CARD_FRAUD.investigation, top=5),
    training=replace(
        CARD_FRAUD.training,
        trees=5,
        search=None,
        parameters={**CARD_FRAUD.training.parameters, "num_leaves": 4, "min_data_in_leaf": 10, "num_threads": 1},
    ),
)
DAYS = day_range(CASE.start, "2018-06-07")
MADE = ("raw_transactions", "transactions", "raw_chargebacks", "chargebacks", "labels", "features")
CHAIN = ("raw_chargebacks", "chargebacks", "labels", "features", "scores", "live_performance")

NOTHING: dict[str, list[str]] = {table: [] for table in CHAIN}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, opened: Callable[..., Any]) -> Iterator[Any]:
    """Everything of a small bank, built once."""
    place = tmp_path_factory.mktemp("bank")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CUSTOMERS", "120"), ("TERMINALS", "240"), ("SEED", "7"), ("DELIVERIES", str(place / "delivered"))):
            patch.setenv(f"ML_ASSETS_CARD_FRAUD_{name}", value)
        folder = place / "delivered" / "120-customers-240-terminals-seed-7"
        world = opened(place, folder=folder, case=CASE)
        with world.instance:
            run = world.runner().run
            run(daily_tables_of(CASE, MADE), DAYS[0], DAYS[-1], title="up to features")
            run((CANDIDATE,), WEEK, WEEK, title="a model")
            noted = world.store.models.noted(CASE.name, CANDIDATE, WEEK)
            assert noted is not None
            world.store.models.deploy(CASE.name, WEEK, noted["version"], {})  # whether the gate would promote it is not asked here
            run(("scores", "live_performance"), WEEK, DAYS[-1], title="scores")
            yield world


def report_late(world: Any) -> pd.Series:
    """One more row in the file of `REPORTED`: a payment of `PAID` between a customer and a terminal without any charge-back so far."""
    known, paid = world.tables.read("chargebacks"), world.tables.read("transactions", [PAID])
    quiet = paid[~paid["customer_id"].isin(known["customer_id"]) & ~paid["terminal_id"].isin(known["terminal_id"])]
    payment = quiet.iloc[0]
    file = world.folder / "chargebacks" / f"{REPORTED}.csv.gz"
    header, *rows = gzip.decompress(file.read_bytes()).decode().splitlines()
    delivered = {
        "transaction_id": payment["event_id"],
        "paid_at": payment["paid_at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "customer_id": payment["customer_id"],
        "terminal_id": payment["terminal_id"],
        "amount": str(payment["amount_cents"] / 100),
        "reported_at": f"{REPORTED}T12:00:00Z",
        "scenario": "2",
    }
    row = ",".join(delivered[name.strip('"')] for name in header.split(","))
    file.write_bytes(gzip.compress("\n".join([header, *rows, row, ""]).encode()))
    return payment


def called_stale(world: Any, table: str, days: Sequence[str]) -> list[str]:
    """By Dagster: what its UI shows as *Unsynced* on the page of a partition."""
    graph = build_defs([CASE], store=world.store).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(world.instance, graph, LoadingContextForTest(world.instance))
    key = dg.AssetKey([CASE.name, table])
    return [day for day in days if resolver.get_status(key, day) is StaleStatus.STALE]


def planned(world: Any, table: str) -> list[str]:
    published = world.tables.ledger(table)
    return [day for day in stale_days(CASE, world.store, recipes(CASE)[table], DAYS) if day in published]


def paying_days(world: Any, payment: pd.Series, first: str, last: str) -> list[str]:
    rows = world.tables.read("transactions", day_range(first, last))
    return sorted(set(rows.loc[rows["customer_id"] == payment["customer_id"], "day"]))


def test_a_late_charge_back_reopens_the_days_that_look_at_it_and_no_others(bank: Any) -> None:
    edges = [shift(REPORTED, offset) for offset in (-1, 0, 1, WINDOW, WINDOW + 1)]
    near = sorted({*day_range(shift(PAID, -1), shift(PAID, 1)), *day_range(shift(REPORTED, -2), shift(REPORTED, 10))})
    # Dagster asks about each of the up to 76 days that one of these looks at: not all are asked about.
    looked_at = {**dict.fromkeys(CHAIN, DAYS), "labels": near, "live_performance": near, "features": [PAID, *edges]}
    assert {table: planned(bank, table) for table in CHAIN} == NOTHING
    assert {table: called_stale(bank, table, looked_at[table]) for table in CHAIN} == NOTHING
    assert look(CASE, bank.store, bank.instance) == 0

    payment = report_late(bank)
    assert look(CASE, bank.store, bank.instance) == 1

    # A customer known as bad is no news until the week after next begins; the last days wait for their labels.
    performed = set(bank.tables.ledger("live_performance"))
    no_news = [day for day in paying_days(bank, payment, shift(REPORTED, 1), "2018-05-15") if day in performed]
    assert no_news
    before = bank.contents(*CHAIN)
    expected = {
        "raw_chargebacks": [REPORTED],
        "chargebacks": [REPORTED],
        "labels": [REPORTED],
        "features": day_range(REPORTED, shift(REPORTED, WINDOW)),
    }
    for table in CHAIN:
        match table:
            case "scores":
                after = bank.contents("features")["features"]
                wanted = [day for day in bank.tables.ledger("scores") if after[day] != before["features"][day]]
                assert REPORTED <= min(wanted) <= max(wanted) <= shift(REPORTED, WINDOW)
            case "live_performance":
                after = bank.contents("scores")["scores"]
                scored_anew = {day for day in performed if after[day] != before["scores"][day]}
                wanted = sorted({PAID, *no_news, *scored_anew})
            case _:
                wanted = expected[table]
        assert planned(bank, table) == wanted, table
        assert called_stale(bank, table, looked_at[table]) == [day for day in wanted if day in looked_at[table]], table
        for first, last in contiguous(wanted):
            bank.runner().run(daily_tables_of(CASE, [table]), first, last, title=table)
        assert planned(bank, table) == [] == called_stale(bank, table, looked_at[table]), table

    changed = {table: {day for day, entry in bank.contents(table)[table].items() if entry != before[table][day]} for table in CHAIN}
    assert changed["labels"] == {REPORTED}
    assert changed["live_performance"] >= {PAID}
    assert {table: planned(bank, table) for table in CHAIN} == NOTHING
    assert look(CASE, bank.store, bank.instance) == 0
