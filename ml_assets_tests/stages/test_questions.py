"""Entities are numbers that mean the same in events and facts, whatever they are made of."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.features import columns_of, compute
from ml_assets.use_case import Trailing, UseCase
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.card_fraud.features import PAYMENT

WINDOW = timedelta(days=30)
COUNT = "payment_count_30d_by_"


def counting(*entity: str, statistic: str = "count") -> UseCase:
    asked = (Trailing(fact=PAYMENT, entities=(entity,), windows=(WINDOW,), statistics=(statistic,)),)
    return replace(
        CARD_FRAUD,
        features=replace(
            CARD_FRAUD.features, trailing=asked, latest=(), columns=columns_of(asked, (), ()), row=lambda _: {}, event_columns=()
        ),
    )


def payments(count: int, **columns: object) -> pd.DataFrame:
    ids = pd.Series(np.arange(count)).astype("str").astype("str")
    made = {
        "event_id": "e" + ids,
        "customer_id": "c" + ids,
        "terminal_id": "t" + ids,
        "paid_at": (pd.Timestamp("2018-05-10", tz="UTC") + pd.to_timedelta(np.arange(count), unit="s")).as_unit("us"),
        "amount_cents": 1,
        "day": "2018-05-10",
    }
    return pd.DataFrame(made | columns)


def test_an_entity_of_many_columns_with_many_values_has_its_own_facts() -> None:
    """As plain products of the numbers of its parts, these entities would not fit in 64 bits."""
    rows = payments(60_000)
    case = counting("customer_id", "terminal_id", "event_id")

    counts = compute(case, rows, {"transactions": rows})[case.features.names[0]]

    assert counts.unique().tolist() == [1.0]


def test_an_entity_of_several_columns_is_known_by_all_of_them() -> None:
    rows = payments(6, customer_id=["a", "a", "b", "b", None, "a"], terminal_id=["x", "y", "x", "x", "x", "x"])

    counts = compute(counting("customer_id", "terminal_id"), rows.iloc[2:], {"transactions": rows})

    assert counts[f"{COUNT}customer_id_terminal_id"].tolist() == [1.0, 2.0, 0.0, 2.0]


def test_no_events_have_no_entities() -> None:
    rows = payments(3)

    found = compute(counting("customer_id", "terminal_id"), rows.iloc[:0], {"transactions": rows})

    assert found.empty
    assert found[f"{COUNT}customer_id_terminal_id"].dtype == np.float64


@pytest.mark.parametrize("nothing", [pd.array([None] * 3, dtype="object"), pd.array([None] * 3, dtype="str")])
def test_events_without_any_entity_have_no_facts(nothing: pd.api.extensions.ExtensionArray) -> None:
    rows = payments(3)

    counts = compute(counting("customer_id"), rows.assign(customer_id=nothing), {"transactions": rows})

    assert counts[f"{COUNT}customer_id"].tolist() == [0.0] * 3


def test_text_of_either_kind_is_text() -> None:
    rows = payments(3)

    counts = compute(counting("customer_id"), rows.astype({"customer_id": "object"}), {"transactions": rows})

    assert counts[f"{COUNT}customer_id"].tolist() == [1.0] * 3


def test_numbers_are_not_compared_with_text() -> None:
    """`07` and `7` would both be 7."""
    rows = payments(2)

    with pytest.raises(TypeError, match="customer_id is int64 in transactions and large_string in transactions: declare one type"):
        compute(counting("customer_id"), rows, {"transactions": rows.assign(customer_id=[7, 8])})


def test_a_value_whose_square_does_not_fit_in_64_bits_is_computed_with() -> None:
    rows = payments(2, amount_cents=[100, 4_000_000_000], customer_id="c")

    assert compute(counting("customer_id", statistic="mean"), rows, {"transactions": rows}).iloc[1, -1] == 2_000_000_050
    assert compute(counting("customer_id", statistic="std"), rows, {"transactions": rows}).iloc[1, -1] == 1_999_999_950
