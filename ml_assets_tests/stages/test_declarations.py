"""What cannot be computed is refused when a case is loaded, by the name of its column; what can be is not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from ml_assets.orchestration.pipeline import build_defs
from ml_assets.stages.declarations import LARGEST_TO_SUM, faults_of, require_computable
from ml_assets.use_case import Column, DType, Fact, Latest, Lookup, Share, Trailing, UseCase
from ml_assets.use_cases import USE_CASES
from ml_assets.use_cases.card_fraud import CARD_FRAUD

DAY = timedelta(days=1)
COLUMN = Column(name="value", dtype=DType.INT64)


def declaring(column: Column, *statistics: object, value: str = "value", known_at: str = "paid_at") -> UseCase:
    """A case with one fact, of a column of payments."""
    fact = Fact(name="fact", table="transactions", value=value, known_at=known_at, unit="")
    trailing = Trailing(fact=fact, entities=(("customer_id",),), windows=(DAY,), statistics=statistics)  # type: ignore[arg-type]
    payments = CARD_FRAUD.table("transactions")
    tables = (replace(payments, columns=(*payments.columns, column)), CARD_FRAUD.table("chargebacks"))
    return replace(CARD_FRAUD, tables=tables, features=replace(CARD_FRAUD.features, trailing=(trailing,), latest=()))


@pytest.mark.parametrize("case", USE_CASES, ids=lambda case: case.name)
def test_the_cases_that_ship_are_computable(case: UseCase) -> None:
    require_computable(case)


@pytest.mark.parametrize(
    "case",
    [
        declaring(COLUMN, "count", "sum", "mean", "std", "span", Share(name="high", at_least=2**60)),
        declaring(replace(COLUMN, dtype=DType.BOOL), "sum"),
        declaring(replace(COLUMN, dtype=DType.FLOAT64), "mean", "std"),
        declaring(replace(COLUMN, dtype=DType.FLOAT64, minimum=-LARGEST_TO_SUM, maximum=8e298), "sum"),
    ],
)
def test_numbers_of_any_size_are_computable(case: UseCase) -> None:
    assert list(faults_of(case)) == []


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (
            declaring(replace(COLUMN, dtype=DType.STRING), "count"),
            "trailing fact 'fact': transactions.value is string, which cannot be",
        ),
        (
            declaring(replace(COLUMN, dtype=DType.TIMESTAMP), "mean"),
            "transactions.value is timestamp[us, UTC], which cannot be computed",
        ),
        (
            declaring(COLUMN, "mean", value="worth"),
            "trailing fact 'fact' refers to transactions.worth, which is not declared: add it to",
        ),
        (
            declaring(COLUMN, "mean", known_at="value"),
            "trailing fact 'fact' is known at transactions.value, which is int64: it must be",
        ),
        (declaring(COLUMN, "mean", known_at="then"), "trailing fact 'fact' is known at transactions.then, which is not declared"),
        (
            declaring(COLUMN, "median"),
            "trailing fact 'fact': no statistic 'median'; there are count, span, sum, mean, std and Share",
        ),
        (
            declaring(replace(COLUMN, dtype=DType.FLOAT64, minimum=0), "sum"),
            "a sum of transactions.value could be greater than any float: declare a `minimum` and a `maximum` of the column, "
            "from -8.37e+298 to 8.37e+298; they are 0 and None",
        ),
        (declaring(replace(COLUMN, dtype=DType.FLOAT64, minimum=0, maximum=1e300), "sum"), "they are 0 and 1e+300"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_its_column(case: UseCase, fault: str) -> None:
    assert [fault in each for each in faults_of(case)] == [True]
    with pytest.raises(ValueError, match="use case card_fraud: trailing fact 'fact'"):
        build_defs([case])


def test_latest_values_and_look_ups_are_of_numbers_that_are_declared() -> None:
    latest = Latest(
        name="last", table="transactions", entity=("customer_id",), known_at="paid_at", values=("customer_id",), changes=("amount",)
    )
    lookup = Lookup(table="terminals", by="terminal_id", values=("seats",))
    case = replace(CARD_FRAUD, features=replace(CARD_FRAUD.features, trailing=(), latest=(latest,), lookups=(lookup,)))

    texts, undeclared, unknown = faults_of(case)

    assert "latest 'last': transactions.customer_id is string" in texts
    assert "latest 'last' refers to transactions.amount, which is not declared" in undeclared
    assert "lookup in 'terminals' refers to terminals.seats, which is not declared" in unknown
