"""Trailing statistics of any numbers against fractions: exact or correctly rounded, and the same in a range, of one event, and online.

Everything goes through `features.compute` and `OnlineFeatures.compute`; what is expected is worked out in `fractions`, window by window.
"""

import math
import statistics
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.stages import moments
from ml_assets.stages.exact import RunningSums
from ml_assets.stages.features import columns_of, compute, trailing_name
from ml_assets.stages.kept import kept_of
from ml_assets.stages.online_features import OnlineFeatures
from ml_assets.use_case import Column, DType, Fact, Latest, Share, Trailing, UseCase
from ml_assets.use_cases.card_fraud import CARD_FRAUD

HOURS = timedelta(hours=1)
WINDOWS = (1 * HOURS, 30 * HOURS)
ENTITY = ("customer_id",)
START = pd.Timestamp("2018-05-10", tz="UTC")
STATISTICS = ("count", "sum", "mean", "std", "span")
BOUND = 8e298  # so large can values be of which sums are asked
EXAMPLES = settings(max_examples=200, deadline=None, derandomize=True)


# Facts ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class World:
    """Payments `(hour, customer, whole number, number)`, each a fact about its customer; their ids are their places."""

    payments: list[tuple[int, str, int, float | None]]
    at_least: int = 0

    @property
    def rows(self) -> pd.DataFrame:
        hours, customers, wholes, numbers = zip(*self.payments, strict=True)
        times = pd.Series(START + pd.to_timedelta(np.array(hours), unit="h")).dt.as_unit("us")
        return pd.DataFrame(
            {
                "event_id": pd.array([f"e{place:04}" for place in range(len(hours))], dtype="str"),
                "paid_at": times,
                "settled_at": times,
                "customer_id": pd.array(customers, dtype="str"),
                "whole": np.array(wholes, dtype=np.int64),
                "number": np.array([math.nan if value is None else value for value in numbers], dtype=np.float64),
                "day": times.dt.strftime("%Y-%m-%d").astype("str"),
            }
        )

    @property
    def case(self) -> UseCase:
        facts = [
            Fact(name=name, table="transactions", value=name, known_at="paid_at", unit="", known_within=timedelta(0))
            for name in ("whole", "number")
        ]
        asked = tuple(
            Trailing(
                fact=fact,
                entities=(ENTITY,),
                windows=WINDOWS,
                statistics=(*STATISTICS, Share(name="share", at_least=self.at_least)),
            )
            for fact in facts
        )
        latest = Latest(
            name="latest",
            table="transactions",
            entity=ENTITY,
            known_at="paid_at",
            values=("whole", "number"),
            changes=("whole", "number"),
            change_over=2 * HOURS,
            known_within=timedelta(0),
        )
        transactions = CARD_FRAUD.table("transactions")
        kept = [column for column in transactions.columns if column.name in ("event_id", "paid_at", "settled_at", "customer_id")]
        columns = (
            *kept,
            Column(name="whole", dtype=DType.INT64),
            Column(name="number", dtype=DType.FLOAT64, nullable=True, minimum=-BOUND, maximum=BOUND),
        )
        features = replace(
            CARD_FRAUD.features,
            event_columns=(),
            trailing=asked,
            latest=(latest,),
            row=lambda _: {},
            columns=columns_of(asked, (latest,), ()),
        )
        return replace(CARD_FRAUD, tables=(replace(transactions, columns=columns),), features=features)


def magnitudes(largest: int) -> st.SearchStrategy[int]:
    """Whole numbers of all lengths, either sign."""
    sized = st.integers(0, largest.bit_length()).flatmap(lambda bits: st.integers(0, min(largest, (1 << bits) - 1)))
    return st.builds(lambda value, sign: value * sign, sized, st.sampled_from([1, 1, -1]))


WHOLES = [
    magnitudes(2**62),
    st.integers(1_500_000_000, 2_900_000_000),
    st.integers(1_600_000_000, 1_700_000_000).map(lambda second: second * 1_000_000),  # epoch microseconds
    st.integers(2**53 - 4, 2**53 + 5),
    st.integers(-3, 3),
    magnitudes(2**62) | st.integers(-3, 3),
]
NUMBERS = [
    st.floats(-BOUND, BOUND, allow_subnormal=True),
    st.floats(-1e-300, 1e-300, allow_subnormal=True),
    st.floats(-1e15, 1e15).filter(lambda value: not 0 < abs(value) < 1e-9),
    st.integers(0, 10**7).map(lambda cents: cents / 100),
    st.integers(-(10**6), 10**6).map(lambda thousandth: 37 + thousandth / 1000),
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e-300, 0.1, 1.0, 2.0**53, 1e16, 1e22, 1e298, -1e298]),
    st.integers(-3, 3).map(float),
]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Few hours and two customers, so that windows hold several facts; each world draws its values from one or two kinds."""
    whole = draw(st.sampled_from(WHOLES))
    number = draw(st.sampled_from(NUMBERS) | st.just(st.one_of(NUMBERS)))
    payment = st.tuples(st.integers(0, 6), st.sampled_from("ab"), whole, number | st.none() if draw(st.booleans()) else number)
    payments = draw(st.lists(payment, min_size=1, max_size=14))
    return World(payments=payments, at_least=draw(st.sampled_from([0, 1, 2**53 + 1]) | magnitudes(2**62)))


# What is right ----------------------------------------------------------------------------------------------------------------


def inside(world: World, place: int, window: timedelta, column: int) -> list[tuple[int, int | float]]:
    """Hour and value of the facts in the window of a payment."""
    at, customer, *_ = world.payments[place]
    return [
        (hour, payment[column])  # type: ignore[misc]
        for other, payment in enumerate(world.payments)
        if (hour := payment[0]) > at - window / HOURS
        and (hour, other) <= (at, place)
        and payment[1] == customer
        and payment[column] is not None
    ]


def is_nearest_root(answer: float, square: Fraction) -> bool:
    """Whether no float is nearer to the root, by comparing squares: exact; of two that are as near, the even one."""
    below, above = (Fraction(math.nextafter(answer, end)) for end in (-math.inf, math.inf))
    low, high = (below + Fraction(answer)) / 2, (above + Fraction(answer)) / 2
    even = struct.unpack("<q", struct.pack("<d", answer))[0] % 2 == 0
    return max(low, 0) ** 2 < square < high**2 or (even and square in (max(low, 0) ** 2, high**2))


def is_right(statistic: str, answer: float, facts: Sequence[tuple[int, int | float]], at: int, at_least: int) -> bool:
    values = [Fraction(value) for _, value in facts]
    match statistic:
        case "count":
            return answer == len(values)
        case "sum":
            return answer == float(sum(values))
        case _ if not values:
            return math.isnan(answer)
        case "mean":
            return answer == float(sum(values) / len(values))
        case "std":
            mean = sum(values) / len(values)
            return is_nearest_root(answer, sum((value - mean) ** 2 for value in values) / len(values))
        case "span":
            return answer == float(Fraction(at - min(hour for hour, _ in facts), 24))
        case _:
            return answer == float(Fraction(sum(value >= at_least for value in values), len(values)))


def wrong(world: World, features: pd.DataFrame) -> list[str]:
    found = []
    for fact, column in (("whole", 2), ("number", 3)):
        for statistic in (*STATISTICS, "share"):
            for window in WINDOWS:
                name = f"{fact}_{statistic}_{window // HOURS}h_by_customer_id".replace("30h", "1d")
                for place, answer in enumerate(features[name].tolist()):
                    facts = inside(world, place, window, column)
                    if not is_right(statistic, answer, facts, world.payments[place][0], world.at_least):
                        found.append(f"{name} of {[value for _, value in facts]}: {answer!r}")
    return found


# Properties -------------------------------------------------------------------------------------------------------------------


@given(worlds())
@EXAMPLES
def test_every_statistic_is_correctly_rounded(world: World) -> None:
    assert wrong(world, compute(world.case, world.rows, {"transactions": world.rows})) == []


def bits(features: pd.DataFrame) -> list[list[int]]:
    return features.to_numpy(dtype=np.float64).view(np.int64).tolist()


def from_what_is_kept(world: World, *, size: int) -> pd.DataFrame:
    """As the online scorer computes them, so many events at a time."""
    [kept], online, rows = kept_of(world.case).values(), OnlineFeatures(world.case), world.rows
    plain = [_plain(row) for row in rows.to_dict("records")]
    filed: dict[bytes, bytes] = {}
    for row, record in zip(plain, kept.records(rows), strict=True):
        assert kept.record(row) == record.tobytes()
        for key in kept.keys(row):
            filed[key] = filed.get(key, b"") + record.tobytes()
    batches = [plain[start : start + size] for start in range(0, len(plain), size)]
    return pd.concat([pd.DataFrame(online.compute(batch, filed)) for batch in batches], ignore_index=True)


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    values = {name: None if pd.isna(value) else value for name, value in row.items()}
    return {name: value.value // 1000 if isinstance(value, pd.Timestamp) else value for name, value in values.items()}


@given(worlds())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_range_its_single_events_and_the_online_scorer_agree_to_the_last_bit(world: World) -> None:
    case, rows = world.case, world.rows
    together = compute(case, rows, {"transactions": rows})[case.features.names]

    alone = [compute(case, rows.iloc[[place]], {"transactions": rows}) for place in range(len(rows))]
    assert bits(pd.concat(alone)[case.features.names]) == bits(together)
    customer = rows[rows["customer_id"] == "a"]  # the facts of others are not even there
    assert bits(compute(case, customer, {"transactions": customer})[case.features.names]) == bits(together.loc[customer.index])
    for size in (1, 5):
        assert bits(from_what_is_kept(world, size=size)[case.features.names]) == bits(together)


@given(worlds())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_changes_of_the_latest_values_are_correctly_rounded(world: World) -> None:
    features = compute(world.case, world.rows, {"transactions": world.rows})

    for place, (at, customer, *_) in enumerate(world.payments):
        own = [(payment[0], other) for other, payment in enumerate(world.payments) if payment[1] == customer]
        now = max(moment for moment in own if moment <= (at, place))
        before = max((moment for moment in own if moment[0] <= at - 2), default=None)
        for column, name in ((2, "whole"), (3, "number")):
            answer, last = features[f"latest_{name}_change"][place], world.payments[now[1]][column]
            first = None if before is None else world.payments[before[1]][column]
            if last is None or first is None:
                assert math.isnan(answer)
            else:
                assert answer == float(Fraction(last) - Fraction(first))


# Many facts at once, as arrays -------------------------------------------------------------------------------------------------


def _draws(kind: str, rng: np.random.Generator, count: int) -> tuple[list[int], list[float]]:
    nothing: list[Any] = [0] * count
    match kind:
        case "cents":
            return nothing, (rng.integers(0, 10**7, count) / 100).tolist()
        case "seconds":
            return (1_600_000_000 + 86_400 * rng.integers(0, 100, count)).tolist(), nothing
        case "microseconds":
            return (1_600_000_000_000_000 + rng.integers(0, 10**13, count)).tolist(), nothing
        case "62 bits":
            return (rng.integers(-(2**62), 2**62, count)).tolist(), nothing
        case "odd numbers above 2**53":
            return (2**53 + 2 * rng.integers(-8, 8, count) + 1).tolist(), nothing
        case "nearly equal":
            return nothing, (1e9 + rng.integers(0, 3, count) * 2.0**-23).tolist()
        case "subnormal":  # a quotient that is rounded to 53 bits first, and then to those that are left, is wrong
            return nothing, (rng.integers(2**50, 2**51, count) * 5e-324).tolist()
        case "scores":
            return nothing, rng.random(count).tolist()
        case "twenty orders of magnitude":
            return nothing, (rng.normal(size=count) * 10.0 ** rng.integers(-10, 10, count)).tolist()
        case _:
            return nothing, (rng.normal(size=count) * 10.0 ** rng.integers(-320, 290, count)).tolist()


KINDS = (
    "cents",
    "seconds",
    "microseconds",
    "62 bits",
    "odd numbers above 2**53",
    "nearly equal",
    "scores",
    "subnormal",
    "twenty orders of magnitude",
    "all magnitudes",
)


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_are_correctly_rounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 events: answers are computed as arrays, of 1 to some 30 facts each."""
    monkeypatch.setattr(moments, "CHUNK", 64)
    rng = np.random.default_rng(7)
    wholes, numbers = _draws(kind, rng, 150)
    hours, customers = rng.integers(0, 60, 150).tolist(), rng.choice(list("abc"), 150).tolist()
    world = World(payments=list(zip(hours, customers, wholes, numbers, strict=True)))

    features = compute(world.case, world.rows, {"transactions": world.rows})

    assert features["number_count_1d_by_customer_id"].max() > 20
    assert wrong(world, features) == []
    assert bits(from_what_is_kept(world, size=7)[world.case.features.names]) == bits(features[world.case.features.names])


def test_answers_next_to_a_tie_are_rounded_to_the_nearer_side() -> None:
    """Further from it than a float of the remainder can show: 2**120 + 2**67 is a tie of sums, and of half of what it is for deviations."""
    values = [2.0**120, 2.0**67, 1.0, 0.0], [2.0**120, -(2.0**67 + 2.0**15)], [2.0**120, -(2.0**67 - 2.0**15)]
    payments: list[tuple[int, str, int, float | None]] = [
        (0, f"{scale}/{place}", 0, value * 2.0**scale) for scale in range(8) for place, each in enumerate(values) for value in each
    ]
    world = World(payments=payments)

    assert wrong(world, compute(world.case, world.rows, {"transactions": world.rows})) == []


def test_a_share_compares_numbers_and_not_the_floats_next_to_them() -> None:
    world = World(payments=[(0, "a", 2**53, 2.0**53), (0, "a", 2**53 + 1, 2.0**53 + 2)], at_least=2**53 + 1)

    features = compute(world.case, world.rows, {"transactions": world.rows})

    for online in (features, from_what_is_kept(world, size=2)):
        assert online["number_share_1d_by_customer_id"].tolist() == [0.0, 0.5]
        assert online["whole_share_1d_by_customer_id"].tolist() == [0.0, 0.5]


def test_a_value_in_the_range_changes_no_answer_that_it_is_not_part_of() -> None:
    """1e298 and 5e-324 elsewhere: sums are formed in another way, and are the same."""
    rng = np.random.default_rng(3)
    payments: list[tuple[int, str, int, float | None]] = [
        (int(hour), "a", 2**40 + int(hour), float(amount)) for hour, amount in zip(range(100), rng.normal(size=100), strict=True)
    ]
    alone, beside = World(payments=payments), World(payments=[*payments, (3, "b", 2**62, 1e298), (3, "b", -(2**62), 5e-324)])

    features = [compute(world.case, world.rows, {"transactions": world.rows}) for world in (alone, beside)]

    names = alone.case.features.names
    assert bits(features[0][names]) == bits(features[1][names].iloc[:100])


def orders() -> Iterator[tuple[str, list[int]]]:
    """Whole columns as shops have them: loans, the day of signing up in seconds, in milliseconds and in microseconds since the epoch."""
    rng = np.random.default_rng(1)
    yield "loan", rng.integers(1_500_000_000, 2_900_000_000, 500).tolist()
    days = rng.integers(1, 101, 500)
    for unit, per_second in (("seconds", 1), ("milliseconds", 1000), ("microseconds", 1_000_000)):
        yield unit, (per_second * (1_600_000_000 + 86_400 * days)).tolist()


@pytest.mark.parametrize(("column", "values"), list(orders()), ids=lambda value: value if isinstance(value, str) else "")
def test_the_deviation_of_large_whole_numbers_is_that_of_the_standard_library(column: str, values: list[int]) -> None:
    world = World(payments=[(place // 20, "a", value, 0.0) for place, value in enumerate(values)])

    features = compute(world.case, world.rows, {"transactions": world.rows})

    expected = [statistics.pstdev([value for _, value in inside(world, place, WINDOWS[1], 2)]) for place in range(len(values))]
    assert features["whole_std_1d_by_customer_id"].tolist() == expected
    assert max(expected) > 1e6


def test_large_whole_numbers_that_are_known_later_keep_their_digits_online() -> None:
    """Until then they are missing, for which a float has nan and a whole number the least of all."""
    world = World(payments=[(0, "a", 2**53 + 1, 0.0), (2, "a", 2**53 + 3, 0.0), (4, "a", 2**60 + 1, 0.0)])
    whole = Column(name="whole", dtype=DType.INT64, known_at="settled_at")
    [payments], features = world.case.tables, world.case.features
    columns = tuple(whole if column.name == "whole" else column for column in payments.columns)
    case = replace(world.case, tables=(replace(payments, columns=columns),))
    facts = (replace(features.trailing[0], fact=replace(features.trailing[0].fact, known_at="settled_at")),)
    latest = (replace(features.latest[0], known_at="settled_at", values=("whole",), changes=("whole",)),)
    case = replace(case, features=replace(features, trailing=facts, latest=latest, columns=columns_of(facts, latest, ())))
    rows = world.rows.assign(settled_at=world.rows["paid_at"] + pd.Timedelta(hours=1))
    [kept] = kept_of(case).values()
    plain = [_plain(row) for row in rows.to_dict("records")]
    # As they come in: what is not known at its own event is filled in later; the last one never is.
    records = [kept.record(row) for row in plain[:-1]] + [kept.record(plain[-1], known_by=plain[-1]["paid_at"])]
    filed = {key: b"".join(records) for key in kept.keys(plain[0])}

    together = compute(case, rows, {"transactions": rows})[case.features.names]
    online = pd.DataFrame(OnlineFeatures(case).compute(plain, filed))

    assert kept.dtype["whole"] == np.int64
    assert together["whole_sum_1d_by_customer_id"].tolist() == [0.0, float(2**53 + 1), float(2**54 + 4)]
    assert together["whole_std_1d_by_customer_id"].tolist()[2] == 1.0
    assert together["latest_whole_change"].tolist()[2] == 2.0
    assert bits(online[case.features.names]) == bits(together)
    later = OnlineFeatures(case).compute([{**plain[-1], "event_id": "e0009", "paid_at": plain[-1]["settled_at"]}], filed)
    assert later["whole_count_1d_by_customer_id"].tolist() == [2.0]  # what the third was has not come in
    assert np.isnan(later["latest_whole"]).all()


# What is refused ---------------------------------------------------------------------------------------------------------------


def test_a_sum_that_is_no_float_names_its_column() -> None:
    """Where nobody declared how large values are; a declaration of such a sum is refused."""
    world = World(payments=[(0, "a", 0, 1.7e308), (0, "a", 0, 1.7e308)])

    for computed in (
        lambda: compute(world.case, world.rows, {"transactions": world.rows}),
        lambda: from_what_is_kept(world, size=2),
    ):
        with pytest.raises(
            OverflowError, match=r"a sum of transactions\.number is greater than any float: declare a `minimum` and"
        ):
            computed()


def test_a_change_that_is_no_float_names_its_column() -> None:
    world = World(payments=[(0, "a", 0, -1.7e308), (5, "a", 0, 1.7e308)])
    case = replace(world.case, features=replace(world.case.features, trailing=()))

    with pytest.raises(OverflowError, match=r"a change of transactions\.number is greater than any float: declare a `minimum` and"):
        compute(case, world.rows, {"transactions": world.rows})


def test_names_are_those_of_the_declaration() -> None:
    [fact, *_] = [each.fact for each in World(payments=[]).case.features.trailing]

    assert trailing_name(fact, "std", WINDOWS[1], ENTITY) == "whole_std_1d_by_customer_id"


def test_small_numbers_among_sums_of_whole_numbers_of_python_are_floats_like_any() -> None:
    """One value of 2**62 in a series has all of its sums kept as Python's whole numbers, those of other windows, too."""
    sums = RunningSums.of(np.array([2**62, 3, 4])).between(np.array([1, 1]), np.array([3, 1]))
    for answer in (sums.total(), sums.mean(), sums.std()):
        assert answer.dtype == np.float64
    assert sums.mean()[0] == 3.5
    assert math.isnan(sums.mean()[1])
