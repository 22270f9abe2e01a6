"""Payments by card as a simulated world makes them, with three kinds of fraud.

The process of *Reproducible Machine Learning for Credit Card Fraud Detection* (Le Borgne, Siblini, Lebichot, Bontempi, 2022), with one
difference: the book marks exactly a third, rounded down, of a compromised customer's payments in 14 days; here each is drawn with
probability 1/3, so that a day needs no other day's payments.

Belongs here: a day's payments from the seed and the day alone. Does not: files, delivery, when a fraud is noticed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree

from ml_assets.use_case import Day, day_range, shift

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

GRID_SIDE = 100.0  # grid units
REACH = 5.0  # grid units
MEAN_AMOUNT_CENTS = (500.0, 10_000.0)
AMOUNT_DEVIATION = 0.5  # of the customer's mean
PAYMENTS_A_DAY = (0.0, 4.0)
SECONDS_A_DAY = 86_400
TIME_DEVIATION = 20_000.0  # seconds, around noon
LARGEST_GENUINE_CENTS = 22_000
TERMINALS_A_DAY, TERMINAL_DAYS = 2, 28
CUSTOMERS_A_DAY, CUSTOMER_DAYS = 3, 14
STOLEN_SHARE, STOLEN_FACTOR = 1 / 3, 5

_EPOCH = date(1970, 1, 1).toordinal()
_QUERIES_AT_ONCE = 2_000  # the search returns lists of Python integers: 39 million for 50,000 customers and 100,000 terminals


class Scenario(IntEnum):
    """Why a payment is fraudulent; where several hold, the highest number stands."""

    GENUINE = 0
    LARGE_AMOUNT = 1
    COMPROMISED_TERMINAL = 2
    COMPROMISED_CUSTOMER = 3


class _Stream(IntEnum):
    """What random numbers are drawn for; a stream never depends on how many were drawn from another."""

    PROFILE = 0
    PAYMENTS = 1
    TERMINALS = 2
    CUSTOMERS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The parameters: equal worlds make equal payments, as long as numpy keeps its streams (it may change them between versions).

    `seed` is not negative. Nobody is compromised before `first_day`, so the share of frauds grows during the first 28 days.
    As many terminals and customers are compromised a day in a small world as in a large one, so its share of frauds is larger.
    """

    customers: int = 5_000
    terminals: int = 10_000
    seed: int
    first_day: Day = "2018-04-01"


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What stays the same in a world from day to day, for c customers and t terminals."""

    customer_id: pa.LargeStringArray  # (c,)
    terminal_id: pa.LargeStringArray  # (t,)
    customer_xy: Float64Array  # (c, 2) grid units
    terminal_xy: Float64Array  # (t, 2) grid units
    mean_amount_cents: Float64Array  # (c,)
    payments_a_day: Float64Array  # (c,) mean, before times outside the day are dropped; 0 without a terminal in reach
    within_reach: npt.NDArray[np.int32]  # terminals of customer i: within_reach[start[i]:start[i + 1]], ascending
    start: Int64Array  # (c + 1,)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawn:
    """Payments of one day as numbers, each of shape (n,), ordered by (second, customer)."""

    event_id: pa.LargeStringArray
    microseconds: Int64Array  # since the epoch, UTC
    customer: Int64Array
    terminal: Int64Array
    amount_cents: Int64Array
    scenario: Int64Array


def payments(world: World, days: Sequence[Day]) -> pd.DataFrame:
    """All payments of some days, which are days in UTC; a day is the same made alone or with others.

    Returns:
        Days in the order asked for, payments of a day ordered by time. Columns: `day`, `event_id` (day and rank in it, sorts like time),
        `customer_id`, `terminal_id` (str); `paid_at` (datetime64[us, UTC], whole seconds); `amount_cents`, `fraud` (0 or 1),
        `scenario` (int64); `terminal_x`, `terminal_y` (float64, grid units). No rows, but all columns, without days, customers or
        terminals.

    Raises:
        ValueError: a day before the world's first, or not a day at all.
    """
    if early := [day for day in days if day < world.first_day]:
        raise ValueError(f"no payments on {min(early)}: this world begins on {world.first_day}; ask for that day or later ones")
    return _frame(profile(world), days, [_drawn(world, day) for day in days])


@lru_cache(maxsize=4)
def profile(world: World) -> Profile:
    """Places and habits. A customer without a terminal in reach never pays."""
    rng = _generator(world, _Stream.PROFILE)
    customer_xy = rng.uniform(0, GRID_SIDE, (world.customers, 2))
    terminal_xy = rng.uniform(0, GRID_SIDE, (world.terminals, 2))
    mean_amount_cents = rng.uniform(*MEAN_AMOUNT_CENTS, world.customers)
    payments_a_day = rng.uniform(*PAYMENTS_A_DAY, world.customers)
    within_reach, start = _within_reach(customer_xy, terminal_xy)
    return Profile(
        customer_id=_ids("C", world.customers, digits=5),
        terminal_id=_ids("T", world.terminals, digits=5),
        customer_xy=customer_xy,
        terminal_xy=terminal_xy,
        mean_amount_cents=mean_amount_cents,
        payments_a_day=np.where(np.diff(start) > 0, payments_a_day, 0),
        within_reach=within_reach,
        start=start,
    )


def newly_compromised_terminals(world: World, day: Day) -> Int64Array:
    """Those drawn on a day: every payment there from that day on, for `TERMINAL_DAYS`, is fraud. All, in a world with fewer."""
    drawn = min(TERMINALS_A_DAY, world.terminals)
    return _generator(world, _Stream.TERMINALS, day).choice(world.terminals, drawn, replace=False)


def newly_compromised_customers(world: World, day: Day) -> Int64Array:
    """Those drawn on a day: of their payments from that day on, for `CUSTOMER_DAYS`, a third is fraud. All, in a world with fewer."""
    drawn = min(CUSTOMERS_A_DAY, world.customers)
    return _generator(world, _Stream.CUSTOMERS, day).choice(world.customers, drawn, replace=False)


def _generator(world: World, stream: _Stream, day: Day | None = None) -> np.random.Generator:
    key = (stream, date.fromisoformat(day).toordinal() if day else 0)
    return np.random.default_rng(np.random.SeedSequence(world.seed, spawn_key=key))


def _within_reach(customer_xy: Float64Array, terminal_xy: Float64Array) -> tuple[npt.NDArray[np.int32], Int64Array]:
    """Terminals at most `REACH` from each customer, and where each customer's begin: (k,) and (c + 1,)."""
    tree = cKDTree(terminal_xy)
    found, counts = [np.empty(0, dtype=np.int32)], [np.zeros(1, dtype=np.int64)]
    for begin in range(0, len(customer_xy), _QUERIES_AT_ONCE):
        lists = tree.query_ball_point(customer_xy[begin : begin + _QUERIES_AT_ONCE], REACH, return_sorted=True)
        counts.append(np.fromiter(map(len, lists), dtype=np.int64))
        found.append(np.fromiter(chain.from_iterable(lists), dtype=np.int32))
    return np.concatenate(found), np.cumsum(np.concatenate(counts))


def _drawn(world: World, day: Day) -> _Drawn:
    static, rng = profile(world), _generator(world, _Stream.PAYMENTS, day)
    customer = np.repeat(np.arange(world.customers), rng.poisson(static.payments_a_day))
    terminal = _terminals(static, customer, rng)
    amount = _amounts(static.mean_amount_cents[customer], rng)
    second = rng.normal(SECONDS_A_DAY / 2, TIME_DEVIATION, len(customer)).astype(np.int64)
    bad_terminal, bad_customer = _compromised(world, day)
    stolen = bad_customer[customer] & (rng.random(len(customer)) < STOLEN_SHARE)
    scenario = np.select(
        [stolen, bad_terminal[terminal], amount > LARGEST_GENUINE_CENTS],
        [Scenario.COMPROMISED_CUSTOMER, Scenario.COMPROMISED_TERMINAL, Scenario.LARGE_AMOUNT],
        Scenario.GENUINE,
    ).astype(np.int64)
    kept = np.flatnonzero((second > 0) & (second < SECONDS_A_DAY))
    order = kept[np.argsort(second[kept], kind="stable")]
    midnight = (date.fromisoformat(day).toordinal() - _EPOCH) * SECONDS_A_DAY
    return _Drawn(
        event_id=_ids(day.replace("-", "") + "-", len(order), digits=6),
        microseconds=(midnight + second[order]) * 1_000_000,
        customer=customer[order],
        terminal=terminal[order],
        amount_cents=np.where(stolen, STOLEN_FACTOR * amount, amount)[order],
        scenario=scenario[order],
    )


def _terminals(static: Profile, customer: Int64Array, rng: np.random.Generator) -> Int64Array:
    """For each payment one of the terminals in reach, each as likely as the others."""
    begin, end = static.start[customer], static.start[customer + 1]
    return static.within_reach[rng.integers(begin, end)].astype(np.int64)


def _amounts(mean: Float64Array, rng: np.random.Generator) -> Int64Array:
    """Cents: normal, a negative amount drawn again between 0 and twice the mean."""
    amount = rng.normal(mean, AMOUNT_DEVIATION * mean)
    return np.rint(np.where(amount < 0, rng.uniform(0, 2 * mean), amount)).astype(np.int64)


def _compromised(world: World, day: Day) -> tuple[BoolArray, BoolArray]:
    """Which terminals and which customers are compromised on a day, shapes (t,) and (c,)."""
    terminals, customers = np.zeros(world.terminals, dtype=np.bool_), np.zeros(world.customers, dtype=np.bool_)
    for earlier in _last_days(world, day, TERMINAL_DAYS):
        terminals[newly_compromised_terminals(world, earlier)] = True
    for earlier in _last_days(world, day, CUSTOMER_DAYS):
        customers[newly_compromised_customers(world, earlier)] = True
    return terminals, customers


def _last_days(world: World, day: Day, count: int) -> list[Day]:
    return day_range(max(world.first_day, shift(day, 1 - count)), day)


def _frame(static: Profile, days: Sequence[Day], drawn: Sequence[_Drawn]) -> pd.DataFrame:
    day_number = np.repeat(np.arange(len(days)), [len(part.customer) for part in drawn])
    customer, terminal = _joined([part.customer for part in drawn]), _joined([part.terminal for part in drawn])
    microseconds, scenario = _joined([part.microseconds for part in drawn]), _joined([part.scenario for part in drawn])
    return pd.DataFrame(
        {
            "day": _text(pa.array(days, pa.large_string()).take(day_number)),
            "event_id": _text(pa.chunked_array([part.event_id for part in drawn], pa.large_string()).combine_chunks()),
            "paid_at": pd.DatetimeIndex(microseconds.view("datetime64[us]")).tz_localize("UTC"),
            "customer_id": _text(static.customer_id.take(customer)),
            "terminal_id": _text(static.terminal_id.take(terminal)),
            "amount_cents": _joined([part.amount_cents for part in drawn]),
            "terminal_x": static.terminal_xy[terminal, 0],
            "terminal_y": static.terminal_xy[terminal, 1],
            "fraud": (scenario != Scenario.GENUINE).astype(np.int64),
            "scenario": scenario,
        }
    )


def _joined(parts: Sequence[Int64Array]) -> Int64Array:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _ids(prefix: str, count: int, *, digits: int) -> pa.LargeStringArray:
    """`prefix` and 0, 1, … in at least so many digits, in all ids the same number of them, so that text sorts like numbers."""
    numbers = pc.cast(pa.array(np.arange(count)), pa.large_string())
    padded = pc.utf8_lpad(numbers, max(digits, len(str(count - 1))), "0")
    return pc.binary_join_element_wise(pa.scalar(prefix, pa.large_string()), padded, pa.scalar("", pa.large_string()))


def _text(values: pa.LargeStringArray) -> pd.Series:
    return pd.Series(values, dtype="str")
