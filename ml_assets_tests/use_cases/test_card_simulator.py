"""The simulated payments: the same from day to day, by the rules of the book, and distributed like the book's published data.

Statistical tests use the level `ALPHA`. Whole numbers and rounded ones are made continuous by adding a uniform part (the randomised
probability integral transform), after which the hypothesis is exactly uniform and Kolmogorov-Smirnov holds.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ml_assets.use_case import day_range, shift
from ml_assets.use_cases.card_fraud.simulator import (
    Profile,
    World,
    newly_compromised_customers,
    newly_compromised_terminals,
    payments,
    profile,
)

ALPHA = 0.001
REACH = 5
REFERENCE = "ML_ASSETS_REFERENCE_DATA"
WORLD = World(customers=1_000, terminals=2_000, seed=7)
DAYS = day_range("2018-04-01", "2018-05-30")
SCENARIOS = (0, 1, 2, 3)
REFERENCE_DAYS = day_range("2018-04-01", "2018-07-31")[::3]
"""Compromises last 14 and 28 days, so every third day sees all of them at a third of the cost."""

TIME = stats.norm(43_200, 20_000)
KEPT = TIME.cdf(86_400) - TIME.cdf(1)


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    return payments(WORLD, DAYS)


@pytest.fixture(scope="module")
def static() -> Profile:
    return profile(WORLD)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def number(ids: pd.Series) -> np.ndarray:
    """`C00042` → 42."""
    return ids.str[1:].astype(np.int64).to_numpy()


def bare(amounts: pd.DataFrame) -> np.ndarray:
    """Cents before a thief multiplied them."""
    cents = amounts["amount_cents"].to_numpy()
    return np.where(amounts["scenario"] == 3, cents // 5, cents)


def second_of_day(made: pd.DataFrame) -> np.ndarray:
    return ((made["paid_at"] - made["paid_at"].dt.floor("D")) // pd.Timedelta(seconds=1)).to_numpy()


def p_uniform(values: np.ndarray) -> float:
    return float(stats.kstest(values, "uniform").pvalue)


def p_variance(observed: np.ndarray, expected: np.ndarray) -> float:
    """Two-sided p of Poisson counts with known means, each at least 5: Pearson's sum is chi-square with as many degrees of freedom."""
    assert expected.min() >= 5
    below = stats.chi2(len(observed)).cdf(((observed - expected) ** 2 / expected).sum())
    return float(2 * min(below, 1 - below))


# One day and many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", [DAYS[0], DAYS[13], DAYS[40], DAYS[-1]])
def test_a_day_alone_equals_the_same_day_in_any_range(made: pd.DataFrame, day: str) -> None:
    alone = payments(WORLD, [day])
    among_others = payments(WORLD, [shift(day, 3), day, DAYS[1]])
    for frame in (made, among_others):
        pd.testing.assert_frame_equal(alone, frame[frame["day"] == day].reset_index(drop=True), check_exact=True)


def test_a_day_does_not_depend_on_what_was_made_before(made: pd.DataFrame) -> None:
    profile.cache_clear()
    pd.testing.assert_frame_equal(payments(WORLD, DAYS[:3]), made[made["day"] <= DAYS[2]], check_exact=True)


def test_seeds_differ(made: pd.DataFrame) -> None:
    other = payments(replace(WORLD, seed=8), DAYS[:1])
    here = made[made["day"] == DAYS[0]]
    assert not set(zip(here["paid_at"], here["customer_id"], strict=True)) & set(
        zip(other["paid_at"], other["customer_id"], strict=True)
    )
    assert not set(here["terminal_x"]) & set(other["terminal_x"])


def test_days_differ(made: pd.DataFrame) -> None:
    first, second = (made[made["day"] == day] for day in DAYS[:2])
    shared = set(zip(second_of_day(first), first["customer_id"], strict=True)) & set(
        zip(second_of_day(second), second["customer_id"], strict=True)
    )
    # 1,000 customers make about 16/3 pairs each, of which one in 70,000 falls on the same second.
    assert len(shared) <= 3


def test_days_come_in_the_order_asked_for() -> None:
    assert payments(WORLD, [DAYS[5], DAYS[2]])["day"].unique().tolist() == [DAYS[5], DAYS[2]]


def test_a_compromise_changes_no_other_payment() -> None:
    """A world that begins a month later has the same payments, without the frauds of those compromised before."""
    day = "2018-05-15"
    old, new = payments(WORLD, [day]), payments(replace(WORLD, first_day=day), [day])
    identity = ["event_id", "paid_at", "customer_id", "terminal_id"]
    pd.testing.assert_frame_equal(old[identity], new[identity], check_exact=True)
    np.testing.assert_array_equal(bare(old), bare(new))
    assert old["fraud"].sum() > new["fraud"].sum()


# Shape --------------------------------------------------------------------------------------------------------------------


def test_types_are_declared_ones(made: pd.DataFrame) -> None:
    text, whole, real = "str", "int64", "float64"
    wanted = {"day": text, "event_id": text, "paid_at": "datetime64[us, UTC]", "customer_id": text, "terminal_id": text}
    wanted |= {"amount_cents": whole, "terminal_x": real, "terminal_y": real, "fraud": whole, "scenario": whole}
    assert {name: str(dtype) for name, dtype in made.dtypes.items()} == wanted
    assert not made.isna().any().any()


def test_ids_are_unique_and_sort_in_time(made: pd.DataFrame) -> None:
    assert made["event_id"].is_unique
    assert made["event_id"].is_monotonic_increasing
    assert made["paid_at"].is_monotonic_increasing
    day, rank = DAYS[1].replace("-", ""), np.arange((made["day"] == DAYS[1]).sum())
    assert made.loc[made["day"] == DAYS[1], "event_id"].tolist() == [f"{day}-{n:06d}" for n in rank]


def test_customers_and_terminals_have_ids_of_at_least_five_digits(made: pd.DataFrame) -> None:
    assert made["customer_id"].str.fullmatch(r"C00\d{3}").all()
    assert made["terminal_id"].str.fullmatch(r"T0\d{4}").all()
    assert profile(replace(WORLD, customers=100_001, terminals=1)).customer_id[42].as_py() == "C000042"


def test_a_payment_lies_in_its_day(made: pd.DataFrame) -> None:
    assert (made["paid_at"].dt.strftime("%Y-%m-%d") == made["day"]).all()
    assert (made["paid_at"].dt.microsecond == 0).all()
    assert second_of_day(made).min() > 0


@pytest.mark.parametrize(
    ("world", "days"), [(WORLD, []), (replace(WORLD, customers=0), DAYS[:2]), (replace(WORLD, terminals=0), DAYS[:2])]
)
def test_nothing_to_make_is_an_empty_frame_with_its_columns(made: pd.DataFrame, world: World, days: list[str]) -> None:
    pd.testing.assert_frame_equal(payments(world, days), made.iloc[:0], check_index_type=False)


def test_no_payments_before_the_first_day() -> None:
    with pytest.raises(ValueError, match="no payments on 2018-03-31: this world begins on 2018-04-01"):
        payments(WORLD, ["2018-04-01", "2018-03-31"])


# Places -------------------------------------------------------------------------------------------------------------------


def distances(static: Profile) -> np.ndarray:
    """All distances, shape (customers, terminals): what a small world can afford."""
    return np.hypot(*(static.customer_xy[:, None, axis] - static.terminal_xy[None, :, axis] for axis in (0, 1)))


def test_a_terminal_stands_in_reach_and_where_it_says(made: pd.DataFrame, static: Profile) -> None:
    customer, terminal = number(made["customer_id"]), number(made["terminal_id"])
    np.testing.assert_array_equal(made[["terminal_x", "terminal_y"]].to_numpy(), static.terminal_xy[terminal])
    assert distances(static)[customer, terminal].max() <= REACH


@pytest.mark.parametrize("world", [WORLD, World(customers=4_500, terminals=40, seed=3)])
def test_all_terminals_in_reach_are_found(world: World) -> None:
    static = profile(world)
    near = distances(static) <= REACH
    customer, terminal = np.nonzero(near)
    np.testing.assert_array_equal(static.within_reach, terminal)
    np.testing.assert_array_equal(np.repeat(np.arange(world.customers), np.diff(static.start)), customer)


def test_a_customer_without_a_terminal_in_reach_never_pays() -> None:
    world = World(customers=4_500, terminals=40, seed=3)
    near = (distances(profile(world)) <= REACH).any(axis=1)
    assert 0 < near.sum() < world.customers
    assert near[number(payments(world, DAYS[:5])["customer_id"])].all()


def test_terminals_in_reach_are_equally_likely(made: pd.DataFrame, static: Profile, rng: np.random.Generator) -> None:
    """Kolmogorov-Smirnov of (position among those in reach + uniform) / number in reach."""
    customer = number(made["customer_id"])
    in_reach = distances(static) <= REACH
    position = (np.cumsum(in_reach, axis=1) - 1)[customer, number(made["terminal_id"])]
    assert p_uniform((position + rng.random(len(made))) / in_reach.sum(axis=1)[customer]) > ALPHA


def test_places_and_habits_are_uniform() -> None:
    """Kolmogorov-Smirnov, six samples of 5,000 and 10,000."""
    static = profile(World(seed=7))
    samples = [*static.customer_xy.T / 100, *static.terminal_xy.T / 100]
    samples += [(static.mean_amount_cents - 500) / 9_500, static.payments_a_day / 4]
    assert [len(sample) for sample in samples] == [5_000, 5_000, 10_000, 10_000, 5_000, 5_000]
    assert min(map(p_uniform, samples)) > ALPHA / len(samples)


# Times, counts, amounts ---------------------------------------------------------------------------------------------------


def test_times_of_day_are_normal_within_the_day(made: pd.DataFrame, rng: np.random.Generator) -> None:
    """Kolmogorov-Smirnov on 115,000 seconds, each moved into its second, against the normal truncated to [1, 86400)."""
    moved = second_of_day(made) + rng.random(len(made))
    assert p_uniform((TIME.cdf(moved) - TIME.cdf(1)) / KEPT) > ALPHA


def test_payments_of_a_customer_on_a_day_are_poisson(made: pd.DataFrame, static: Profile, rng: np.random.Generator) -> None:
    """Kolmogorov-Smirnov on 60,000 counts, moved into their step of the Poisson distribution with the customer's own mean."""
    counts = np.zeros((WORLD.customers, len(DAYS)), dtype=np.int64)
    np.add.at(counts, (number(made["customer_id"]), pd.Index(DAYS).get_indexer(made["day"])), 1)
    poisson = stats.poisson((static.payments_a_day * KEPT)[:, None])
    below, step = poisson.cdf(counts - 1), poisson.pmf(counts)
    assert p_uniform((below + rng.random(counts.shape) * step).ravel()) > ALPHA


def test_payments_of_a_customer_add_up(made: pd.DataFrame, static: Profile) -> None:
    """Pearson's chi-square of the customers' counts in 60 days, two-sided: neither more nor less variable than Poisson."""
    expected = static.payments_a_day * KEPT * len(DAYS)
    frequent = expected >= 5
    counts = np.bincount(number(made["customer_id"]), minlength=WORLD.customers)
    assert frequent.sum() > 900
    assert p_variance(counts[frequent], expected[frequent]) > ALPHA


def test_payments_of_a_day_add_up(made: pd.DataFrame, static: Profile) -> None:
    """Pearson's chi-square of 60 daily counts, two-sided: no day depends on another, and none is special."""
    counts = made.groupby("day").size().to_numpy()
    assert p_variance(counts, np.full(len(DAYS), static.payments_a_day.sum() * KEPT)) > ALPHA


def test_amounts_are_normal_with_negative_ones_drawn_again(made: pd.DataFrame, static: Profile, rng: np.random.Generator) -> None:
    """Kolmogorov-Smirnov on 115,000 amounts, moved within half a cent, in units of the customer's mean.

    With P(negative) = Φ(-2), the distribution at r ≥ 0 is Φ(2r - 2) - Φ(-2) + Φ(-2) min(r / 2, 1).
    """
    cents = np.abs(bare(made) + rng.uniform(-0.5, 0.5, len(made)))
    relative = cents / static.mean_amount_cents[number(made["customer_id"])]
    negative = stats.norm.cdf(-2)
    assert p_uniform(stats.norm.cdf(2 * relative - 2) - negative + negative * np.minimum(relative / 2, 1)) > ALPHA


# Frauds -------------------------------------------------------------------------------------------------------------------


def test_frauds_are_those_with_a_scenario(made: pd.DataFrame) -> None:
    assert set(made["scenario"]) == set(SCENARIOS)
    np.testing.assert_array_equal(made["fraud"], made["scenario"] > 0)


def test_every_payment_above_the_limit_is_fraud(made: pd.DataFrame) -> None:
    large = made["amount_cents"] > 22_000
    assert large.sum() > 100
    assert (made.loc[large, "fraud"] == 1).all()
    assert made.loc[made["scenario"] == 0, "amount_cents"].max() > 21_000
    assert (made.loc[made["scenario"] == 1, "amount_cents"] > 22_000).all()


def compromised(made: pd.DataFrame, entity: str, drawn: dict[str, np.ndarray], days: int) -> np.ndarray:
    """Which payments are those of an entity in the days after it was drawn, one draw after the other as in the book."""
    found, entities = np.zeros(len(made), dtype=bool), number(made[entity])
    for day, those in drawn.items():
        found |= made["day"].between(day, shift(day, days - 1)).to_numpy() & np.isin(entities, those)
    return found


@pytest.fixture(scope="module")
def at_bad_terminal(made: pd.DataFrame) -> np.ndarray:
    return compromised(made, "terminal_id", {day: newly_compromised_terminals(WORLD, day) for day in DAYS}, 28)


@pytest.fixture(scope="module")
def of_bad_customer(made: pd.DataFrame) -> np.ndarray:
    return compromised(made, "customer_id", {day: newly_compromised_customers(WORLD, day) for day in DAYS}, 14)


def test_all_payments_at_a_compromised_terminal_are_fraud_and_no_others(made: pd.DataFrame, at_bad_terminal: np.ndarray) -> None:
    stolen = made["scenario"] == 3
    assert at_bad_terminal.sum() > 500
    np.testing.assert_array_equal(made.loc[~stolen, "scenario"] == 2, at_bad_terminal[~stolen])


def test_a_third_of_a_compromised_customers_payments_is_fraud(made: pd.DataFrame, of_bad_customer: np.ndarray) -> None:
    """Binomial, two-sided."""
    stolen = (made["scenario"] == 3).to_numpy()
    assert not stolen[~of_bad_customer].any()
    assert stats.binomtest(int(stolen.sum()), int(of_bad_customer.sum()), 1 / 3).pvalue > ALPHA
    assert (made.loc[stolen, "amount_cents"] % 5 == 0).all()


def test_two_terminals_and_three_customers_are_drawn_each_day() -> None:
    drawn = [(newly_compromised_terminals(WORLD, day), newly_compromised_customers(WORLD, day)) for day in DAYS]
    assert {(len(set(terminals)), len(set(customers))) for terminals, customers in drawn} == {(2, 3)}


@pytest.mark.parametrize("newly_compromised", [newly_compromised_terminals, newly_compromised_customers])
def test_all_are_equally_likely_to_be_drawn(newly_compromised: Callable[[World, str], np.ndarray]) -> None:
    """Chi-square against equal chances on 2,000 days; draws without replacement vary less, so the level is below `ALPHA`."""
    world, days = World(customers=10, terminals=10, seed=7), day_range("2018-04-01", shift("2018-04-01", 1_999))
    counts = np.bincount(np.concatenate([newly_compromised(world, day) for day in days]), minlength=10)
    assert stats.chisquare(counts).pvalue > ALPHA


def test_a_customer_is_compromised_to_the_same_degree_for_fourteen_days(made: pd.DataFrame) -> None:
    """Binomial, two-sided, for each day since the customer was drawn."""
    customer, pvalues = number(made["customer_id"]), []
    for age in range(14):
        drawn = {shift(day, age): newly_compromised_customers(WORLD, day) for day in DAYS}
        theirs = np.concatenate([np.flatnonzero((made["day"] == day) & np.isin(customer, those)) for day, those in drawn.items()])
        pvalues.append(stats.binomtest(int((made["scenario"].iloc[theirs] == 3).sum()), len(theirs), 1 / 3).pvalue)
    assert min(pvalues) > ALPHA / len(pvalues)


def test_a_world_with_two_terminals_has_frauds_only() -> None:
    made = payments(World(customers=2_000, terminals=2, seed=7), DAYS[:3])
    assert len(made) > 10
    assert (made["fraud"] == 1).all()


# The published data -------------------------------------------------------------------------------------------------------


BOOK = {"TX_DATETIME": "paid_at", "CUSTOMER_ID": "customer_id", "TX_FRAUD_SCENARIO": "scenario"}
FIGURES = ("payments_a_day", "customers", "mean_amount_cents", "before_six", "fraud", "scenario_1", "scenario_2", "scenario_3")


def figures(made: pd.DataFrame) -> dict[str, float]:
    """What is compared: payments a day, customers who paid, what, and, in 1,000 payments, those before six and the frauds."""
    scenario = made["scenario"]
    return {
        "payments_a_day": len(made) / made["day"].nunique(),
        "customers": made["customer_id"].nunique(),
        "mean_amount_cents": made["amount_cents"].mean(),
        "before_six": 1_000 * (made["paid_at"].dt.hour < 6).mean(),
        "fraud": 1_000 * (scenario > 0).mean(),
        **{f"scenario_{kind}": 1_000 * (scenario == kind).mean() for kind in SCENARIOS[1:]},
    }


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    folder = os.environ.get(REFERENCE)
    if not folder:
        pytest.skip(f"{REFERENCE} is not set: the folder that holds card_transactions/*.parquet, which is not part of the project")
    frame = pd.read_parquet(Path(folder) / "card_transactions").rename(columns=BOOK)
    frame = frame.assign(day=frame["paid_at"].dt.strftime("%Y-%m-%d"), amount_cents=(frame["TX_AMOUNT"] * 100).round())
    return frame[frame["day"].isin(REFERENCE_DAYS)]


@pytest.fixture(scope="module")
def worlds() -> pd.DataFrame:
    """The figures of 20 worlds of the published size."""
    return pd.DataFrame([figures(payments(World(seed=seed), REFERENCE_DAYS)) for seed in range(20)])


@pytest.mark.parametrize("figure", FIGURES)
def test_the_published_data_could_be_one_of_these_worlds(published: pd.DataFrame, worlds: pd.DataFrame, figure: str) -> None:
    """At most 3 standard errors between the published figure and the mean of 20 worlds, all on the same 41 days of four months.

    The standard error is that of a difference between one world and the mean of n: s √(1 + 1/n), with s the standard deviation
    between the n = 20 worlds. So it holds all that differs between worlds: above all the customers' habits for the counts
    (√5000 · 4/√12 · 0.97 = 79 payments a day) and who was compromised for the frauds, besides the chance of each payment.
    """
    error = worlds[figure].std(ddof=1) * np.sqrt(1 + 1 / len(worlds))
    assert abs(figures(published)[figure] - worlds[figure].mean()) <= 3 * error


def test_the_standard_error_of_the_counts_is_that_of_the_habits(worlds: pd.DataFrame) -> None:
    """Variance between 20 worlds against the one computed from the process: chi-square with 19 degrees of freedom, two-sided."""
    of_habits, of_poisson = 5_000 * 16 / 12 * KEPT**2, 10_000 * KEPT / len(REFERENCE_DAYS)
    ratio = worlds["payments_a_day"].var(ddof=1) / (of_habits + of_poisson)
    below = stats.chi2(19).cdf(19 * ratio)
    assert 2 * min(below, 1 - below) > ALPHA
