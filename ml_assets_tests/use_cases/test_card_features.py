"""Features of payments: the book's on its own data, one by one as in a range, the same without the future, and as computed by hand."""

import math
import os
import statistics
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages import questions
from ml_assets.stages.clean import clean
from ml_assets.stages.features import compute
from ml_assets.stages.ingest import ingested
from ml_assets.use_case import day_range, shift
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.card_fraud.features import BOOK
from ml_assets.use_cases.card_fraud.schema import derive_chargebacks, derive_transactions
from ml_assets.use_cases.card_fraud.simulator import World, payments
from ml_assets.use_cases.card_fraud.source import FILES

CASE = CARD_FRAUD
REFERENCE = "ML_ASSETS_REFERENCE_DATA"
WORLD = World(customers=120, terminals=200, seed=5)
DAYS = day_range("2018-04-01", "2018-06-09")
ASKED_FROM = "2018-05-20"
ALONE, BY_HAND = 500, 200

Frames = dict[str, pd.DataFrame]


def different(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Features that are not the same bits in both frames (nan equals nan); both have the same events in the same order."""
    assert one.index.equals(other.index)
    assert len(one)
    assert list(one.columns) == list(other.columns) == ["event_time", "day", *CASE.features.names]
    assert set(one[CASE.features.names].dtypes) | set(other[CASE.features.names].dtypes) == {np.dtype(np.float64)}
    return [
        name
        for name in CASE.features.names
        if not (
            (one[name].isna() & other[name].isna()) | (one[name].to_numpy().view("i8") == other[name].to_numpy().view("i8"))
        ).all()
    ]


# A small world ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables() -> Frames:
    """Clean tables of 70 days that are harder than the simulator's.

    Times are cut to a quarter of an hour: payments coincide, and lie exactly where windows begin and end. A tenth of the terminals
    have no place. Charge-backs come 2 to 30 days after the payment, half of them after 7, some at the moment of the payment itself.
    """
    made, rng = payments(WORLD, DAYS), np.random.default_rng(1)
    placeless = made["terminal_id"].str.endswith("3")
    rows = made.assign(
        transaction_id=made["event_id"],
        paid_at=made["paid_at"].dt.floor("15min"),
        partition_day=made["day"],
        amount=made["amount_cents"] / 100,
        terminal_x=made["terminal_x"].mask(placeless),
        terminal_y=made["terminal_y"].mask(placeless),
    )
    late = np.where(rng.random(len(rows)) < 0.5, 7, rng.integers(2, 31, len(rows)))
    late[rng.random(len(rows)) < 0.1] = 0
    reports = rows.assign(
        scenario=rows["scenario"].astype("float64"), reported_at=rows["paid_at"] + pd.to_timedelta(late, unit="D")
    )
    reports = reports[reports["fraud"] == 1]
    reports["partition_day"] = reports["reported_at"].dt.strftime("%Y-%m-%d")
    return {
        "transactions": derive_transactions(rows).assign(day=rows["partition_day"]),
        "chargebacks": derive_chargebacks(reports).assign(day=reports["partition_day"]),
    }


@pytest.fixture(scope="module")
def asked(tables: Frames) -> pd.DataFrame:
    rows = tables["transactions"]
    return rows[rows["day"] >= ASKED_FROM]


@pytest.fixture(scope="module")
def together(tables: Frames, asked: pd.DataFrame) -> pd.DataFrame:
    return compute(CASE, asked, tables).set_index("event_id")


@pytest.fixture(scope="module")
def chosen(asked: pd.DataFrame) -> pd.DataFrame:
    """Payments, a hundred of which coincide with another of the same customer or at the same terminal."""
    at_once = asked.duplicated(["customer_id", "paid_at"], keep=False) | asked.duplicated(["terminal_id", "paid_at"], keep=False)
    assert asked[at_once].duplicated(["customer_id", "paid_at"]).any()
    return pd.concat([asked[at_once].sample(100, random_state=1), asked[~at_once].sample(ALONE - 100, random_state=2)])


def test_the_world_holds_what_it_is_to_test(tables: Frames, asked: pd.DataFrame, together: pd.DataFrame) -> None:
    assert tables["chargebacks"]["reject_reason"].isna().all()
    assert len(tables["chargebacks"]) > 500
    assert asked["terminal_x_hundredths"].isna().any()
    assert [name for name in CASE.features.names if together[name].nunique() < 2] == []
    assert [name for name in CASE.features.names if together[name].isna().mean() > 0.9] == []


# One by one -------------------------------------------------------------------------------------------------------------------


def test_payments_one_by_one_have_the_features_of_the_range_to_the_last_bit(
    tables: Frames, chosen: pd.DataFrame, together: pd.DataFrame
) -> None:
    alone = [compute(CASE, chosen.iloc[[at]], tables) for at in range(len(chosen))]

    one_by_one = pd.concat(alone).set_index("event_id")
    assert len(one_by_one) == ALONE
    assert different(one_by_one, together.loc[chosen["event_id"]]) == []


def test_payments_one_by_one_from_what_is_kept_of_rows_have_the_same_features(
    tables: Frames, chosen: pd.DataFrame, together: pd.DataFrame, from_what_is_kept: Callable[..., Iterator[pd.DataFrame]]
) -> None:
    for alone in from_what_is_kept(CASE, chosen, {name: rows.sample(frac=1, random_state=6) for name, rows in tables.items()}):
        assert different(alone, together.loc[chosen["event_id"]]) == []


def test_the_order_of_payments_and_of_rows_does_not_matter(tables: Frames, asked: pd.DataFrame, together: pd.DataFrame) -> None:
    shuffled = {name: frame.sample(frac=1, random_state=3) for name, frame in tables.items()}

    turned = compute(CASE, asked.sample(frac=1, random_state=4), shuffled).set_index("event_id")

    assert different(turned.loc[together.index], together) == []


def test_threads_find_the_same(
    tables: Frames, asked: pd.DataFrame, together: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(asked) < questions.MANY_EVENTS
    names = set()

    def used(self: questions.Questions, *args: object, of: Callable[..., object] = questions.Questions.known) -> object:
        names.add(threading.current_thread().name)
        return of(self, *args)

    monkeypatch.setattr(questions, "MANY_EVENTS", 0)
    monkeypatch.setattr(questions.Questions, "known", used)
    in_threads = compute(CASE, asked, tables).set_index("event_id")

    assert different(in_threads, together) == []
    assert threading.main_thread().name not in names


# Without the future -----------------------------------------------------------------------------------------------------------


KNOWN_AT = {"transactions": "paid_at", "chargebacks": "reported_at"}
World_ = Callable[[Frames, pd.Timestamp], Frames]


def ended(tables: Frames, moment: pd.Timestamp) -> Frames:
    """A world that ends at a moment: later payments and charge-backs do not exist."""
    return {name: frame[frame[KNOWN_AT[name]] <= moment] for name, frame in tables.items()}


def corrupted(tables: Frames, moment: pd.Timestamp) -> Frames:
    """A world in which everything after a moment is wrong, and twice as much."""
    found = {}
    for name, frame in tables.items():
        later = frame[frame[KNOWN_AT[name]] > moment].assign(amount_cents=1_000_000)
        found[name] = pd.concat([ended(tables, moment)[name], later, later.assign(event_id="0-" + later["event_id"])])
    return found


@pytest.mark.parametrize("world", [ended, corrupted])
def test_the_features_of_a_day_do_not_change_without_later_payments_and_charge_backs(
    world: World_, tables: Frames, asked: pd.DataFrame, together: pd.DataFrame
) -> None:
    for day in asked["day"].unique()[:20:4]:
        events = asked[asked["day"] == day]
        midnight = CASE.starts(shift(day, 1)) - timedelta(microseconds=1)
        cut = world(tables, midnight)
        assert all(len(cut[name]) != len(tables[name]) for name in tables)
        assert different(compute(CASE, events, cut).set_index("event_id"), together.loc[events["event_id"]]) == [], day


@pytest.mark.parametrize("world", [ended, corrupted])
def test_nothing_after_the_very_moment_changes_a_feature(
    world: World_, tables: Frames, asked: pd.DataFrame, together: pd.DataFrame
) -> None:
    for moment in asked["paid_at"].drop_duplicates().sample(12, random_state=5):
        events = asked[asked["paid_at"] == moment]
        again = compute(CASE, events, world(tables, moment)).set_index("event_id")
        assert different(again, together.loc[events["event_id"]]) == [], moment


def test_the_declared_look_back_is_enough(tables: Frames, asked: pd.DataFrame, together: pd.DataFrame) -> None:
    for day in asked["day"].unique()[:20:4]:
        events = asked[asked["day"] == day]
        near = {name: frame[frame["day"].between(shift(day, -CASE.lookback_days_of(name)), day)] for name, frame in tables.items()}
        assert different(compute(CASE, events, near).set_index("event_id"), together.loc[events["event_id"]]) == [], day


def test_what_was_known_does_change_features(tables: Frames, asked: pd.DataFrame, together: pd.DataFrame) -> None:
    """The tests above compare something: without the charge-backs of a month, what is known of frauds differs, and nothing else."""
    reports = tables["chargebacks"]

    again = compute(CASE, asked, {**tables, "chargebacks": reports[reports["reported_at"] < asked["paid_at"].min()]})

    found = different(again.set_index("event_id"), together)
    assert {"terminal_risk_3d", "fraud_count_24h_by_customer_id", "terminal_fraud_age_minutes"} <= set(found)
    assert all("risk" in name or "fraud" in name for name in found)


# By hand ----------------------------------------------------------------------------------------------------------------------


class Payment(NamedTuple):
    at: datetime
    id: str
    customer: str
    terminal: str
    cents: int
    x: float
    y: float


class Report(NamedTuple):
    at: datetime
    customer: str
    terminal: str


DAY = timedelta(days=1)
WINDOWS = {1: "24h", 3: "3d", 7: "7d", 30: "30d"}


def mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else math.nan


def share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def of_entity(event: Payment, entity: str, facts: list[Payment], reports: list[Report]) -> dict[str, float]:
    """What is asked of customers and terminals alike; `facts` and `reports` are those of the one or the other."""
    found: dict[str, float] = {}
    now = (event.at, event.id)
    for days, window in WINDOWS.items():
        begin = event.at - days * DAY
        cents = [fact.cents for fact in facts if (fact.at, fact.id) <= now and fact.at > begin]
        settled = sum((fact.at + 7 * DAY, fact.id) <= now and fact.at + 7 * DAY > begin for fact in facts)
        frauds = sum(begin < report.at <= event.at for report in reports)
        found |= {
            f"payment_count_{window}_by_{entity}_id": len(cents),
            f"payment_mean_{window}_by_{entity}_id": mean(cents),
            f"payment_std_{window}_by_{entity}_id": statistics.pstdev(cents),
            f"settled_count_{window}_by_{entity}_id": settled,
            f"fraud_count_{window}_by_{entity}_id": frauds,
            f"{entity}_risk_{days}d": frauds / settled if settled else 0.0,
        }
    known = [report.at for report in reports if event.at - 30 * DAY < report.at <= event.at]
    # A window leaves out its first moment, the latest fact may be exactly as old.
    latest = [report.at for report in reports if event.at - 30 * DAY <= report.at <= event.at]
    return found | {
        f"fraud_span_30d_by_{entity}_id": (event.at - min(known)) / DAY if known else math.nan,
        f"{entity}_fraud_age_minutes": (event.at - max(latest)) / timedelta(minutes=1) if latest else math.nan,
    }


def by_hand(event: Payment, facts: list[Payment], reports: list[Report]) -> dict[str, float]:
    """Every feature of a payment, fact by fact."""
    mine = [fact for fact in facts if fact.customer == event.customer]
    there = [fact for fact in facts if fact.terminal == event.terminal]
    found = of_entity(event, "customer", mine, [report for report in reports if report.customer == event.customer])
    found |= of_entity(event, "terminal", there, [report for report in reports if report.terminal == event.terminal])
    now = (event.at, event.id)
    month = [fact for fact in mine if (fact.at, fact.id) <= now and fact.at > event.at - 30 * DAY]
    before = [fact for fact in mine if (fact.at, fact.id) < now and fact.at >= event.at - 30 * DAY]
    x, y = (mean([int(value) for fact in month if not math.isnan(value := place(fact))]) for place in (_x, _y))
    found |= {
        "amount": event.cents,
        "hour": event.at.hour,
        "during_night": float(event.at.hour <= 6),
        "during_weekend": float(event.at.isoweekday() in (6, 7)),
        "payment_count_30d_by_customer_id_terminal_id": sum(fact.terminal == event.terminal for fact in month),
        "payment_span_30d_by_customer_id": (event.at - month_start(month)) / DAY,
        "customer_payment_age_minutes": (event.at - max(before).at) / timedelta(minutes=1) if before else math.nan,
        "x_mean_30d_by_customer_id": x,
        "y_mean_30d_by_customer_id": y,
        "distance": math.dist((event.x, event.y), (x, y)) / 100,
    }
    for days, window in WINDOWS.items():
        count, usual, deviation = (found[f"payment_{what}_{window}_by_customer_id"] for what in ("count", "mean", "std"))
        others = [fact.cents for fact in mine if (fact.at, fact.id) < now and fact.at > event.at - days * DAY]
        assert len(others) == count - 1
        if days != 1:
            found[f"variation_{days}d"] = share(deviation, usual)
        if days != 30:
            found[f"mean_{days}d_to_30d"] = share(usual, found["payment_mean_30d_by_customer_id"])
        if days in (7, 30):
            found[f"amount_to_customer_{days}d"] = share(event.cents, usual)
            found[f"amount_to_terminal_{days}d"] = share(event.cents, found[f"payment_mean_{window}_by_terminal_id"])
            found[f"amount_to_earlier_{days}d"] = share(event.cents, mean(others)) if others else math.nan
            found[f"deviation_{days}d"] = (event.cents - usual) / (deviation + 1)
    return found


def _x(payment: Payment) -> float:
    return payment.x


def _y(payment: Payment) -> float:
    return payment.y


def month_start(month: list[Payment]) -> datetime:
    return min(fact.at for fact in month)


@pytest.fixture(scope="module")
def facts(tables: Frames) -> list[Payment]:
    names = ["paid_at", "event_id", "customer_id", "terminal_id", "amount_cents", "terminal_x_hundredths", "terminal_y_hundredths"]
    rows = tables["transactions"][names].itertuples(index=False)
    return [Payment(at.to_pydatetime(), *rest) for at, *rest in rows]


@pytest.fixture(scope="module")
def reports(tables: Frames) -> list[Report]:
    rows = tables["chargebacks"][["reported_at", "customer_id", "terminal_id"]].itertuples(index=False)
    return [Report(at.to_pydatetime(), *rest) for at, *rest in rows]


def test_every_feature_by_hand(facts: list[Payment], reports: list[Report], chosen: pd.DataFrame, together: pd.DataFrame) -> None:
    """Means, counts and ages to the last bit; what has a root or a further division in it to the last digits."""
    inexact = ("std", "variation", "amount_to_", "deviation", "distance")
    wrong: dict[str, str] = {}
    some = set(chosen.iloc[:: ALONE // BY_HAND]["event_id"])
    events = [fact for fact in facts if fact.id in some]
    assert len(events) >= BY_HAND
    for event in events:
        got, wanted = together.loc[event.id], by_hand(event, facts, reports)
        assert set(wanted) == set(CASE.features.names)
        for name, value in wanted.items():
            tolerance = {"rel": 1e-9, "abs": 1e-5} if any(part in name for part in inexact) else {"rel": 0, "abs": 0}
            if got[name] != pytest.approx(value, **tolerance, nan_ok=True):
                wrong[name] = f"{got[name]!r}, by hand {value!r} ({event.id})"
    assert wrong == {}


# The book ---------------------------------------------------------------------------------------------------------------------


MAPPING = """
start = "2018-04-01"
end = "2018-08-09"
folder = "{folder}"

[transactions]
files = "card_transactions/*.parquet"
columns = {{transaction_id = "TRANSACTION_ID", paid_at = "TX_DATETIME", customer_id = "CUSTOMER_ID", terminal_id = "TERMINAL_ID", amount = "TX_AMOUNT"}}

[chargebacks]
of = "transactions"
flag = "TX_FRAUD"
delay_days = 7
columns = {{scenario = "TX_FRAUD_SCENARIO"}}
delayed = {{reported_at = "TX_DATETIME"}}
"""  # noqa: E501
BOOK_DAYS = ["2018-05-15", "2018-05-16", "2018-06-30", "2018-07-30", "2018-07-31"]
MEANS_DIFFER = 1e-11
AT_ONCE = ["000000866817", "000000866818"]
"""All payments of the five days that a customer made in one second. The book counts them in some order; of these two, in ours, by id."""


@pytest.fixture(scope="module")
def folder() -> Path:
    if not os.environ.get(REFERENCE):
        pytest.skip(
            f"{REFERENCE} is not set: the folder that holds card_transactions/*.parquet and card_features_reference.parquet, "
            "which are not part of the project"
        )
    return Path(os.environ[REFERENCE])


@pytest.fixture(scope="module")
def published(folder: Path) -> pd.DataFrame:
    """The book's features, under our names; amounts in its currency."""
    reference = pd.read_parquet(folder / "card_features_reference.parquet")
    paid = pd.read_parquet(folder / "card_transactions", columns=["TRANSACTION_ID", "TX_AMOUNT", "CUSTOMER_ID"])
    rows = reference.merge(paid, on="TRANSACTION_ID", validate="one_to_one")
    assert len(rows) == len(reference)
    names = {"TX_AMOUNT": "amount", "TX_DURING_WEEKEND": "during_weekend", "TX_DURING_NIGHT": "during_night"}
    for days, window in WINDOWS.items():
        names |= {
            f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW": f"payment_count_{window}_by_customer_id",
            f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW": f"payment_mean_{window}_by_customer_id",
            f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW": f"settled_count_{window}_by_terminal_id",
            f"TERMINAL_ID_RISK_{days}DAY_WINDOW": f"terminal_risk_{days}d",
        }
    rows = rows.rename(columns=names)
    return rows.set_index(rows["TRANSACTION_ID"].astype("str").str.pad(12, fillchar="0").rename("event_id")).sort_index()


@pytest.fixture(scope="module")
def book(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Our features of the same payments, from the files as the pipeline reads and cleans them."""
    settings = tmp_path_factory.mktemp("mapping") / "card_fraud.toml"
    settings.write_text(MAPPING.format(folder=folder), encoding="utf-8")
    made = []
    for days in (BOOK_DAYS[:2], BOOK_DAYS[2:3], BOOK_DAYS[3:]):
        around = day_range(shift(days[0], -CASE.lookback_days), days[-1])
        tables = {}
        for table in CASE.tables:
            cleaned = clean(ingested(table.source({FILES: str(settings)}).read(around), table, around), table)
            assert cleaned.rejected.empty
            tables[table.name] = cleaned.rows
        events = tables["transactions"]
        made.append(compute(CASE, events[events["day"].isin(days)], tables))
    return pd.concat(made).set_index("event_id").sort_index()


def test_the_book_has_the_same_payments(book: pd.DataFrame, published: pd.DataFrame) -> None:
    assert book.index.equals(published.index)
    assert len(book) == 48_343
    assert (book["event_time"].dt.tz_localize(None) == published["TX_DATETIME"]).all()
    assert sorted(book["day"].unique()) == BOOK_DAYS
    assert len(BOOK) == 15
    assert set(BOOK) <= set(published.columns)


@pytest.mark.parametrize("name", [name for name in BOOK if "customer" not in name])
def test_what_the_book_says_of_payments_and_terminals_is_the_same_on_every_row(
    name: str, book: pd.DataFrame, published: pd.DataFrame
) -> None:
    wanted = (100 * published[name]).round() if name == "amount" else published[name].astype("float64")

    assert wanted.nunique() > 1
    np.testing.assert_array_equal(book[name], wanted)


@pytest.mark.parametrize("name", [name for name in BOOK if "customer" in name])
def test_what_the_book_says_of_customers_is_the_same_on_every_row_too(
    name: str, book: pd.DataFrame, published: pd.DataFrame
) -> None:
    """Counts are equal; the book's means are running sums of floats, in currency, ours whole cents over a count."""
    if "count" in name:
        np.testing.assert_array_equal(book[name], published[name])
    else:
        np.testing.assert_allclose(book[name] / 100, published[name], rtol=MEANS_DIFFER, atol=0)


def test_payments_of_a_customer_in_one_second_are_told_apart(book: pd.DataFrame, published: pd.DataFrame) -> None:
    """A window that holds all payments of the second, or none, would differ from the book in the two rows, and in no other."""
    at_once = published.duplicated(["CUSTOMER_ID", "TX_DATETIME"], keep=False)

    assert published.index[at_once].tolist() == AT_ONCE
    assert book.loc[AT_ONCE, "payment_count_24h_by_customer_id"].tolist() == [4, 5]
