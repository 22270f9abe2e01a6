"""The two tables of the case: payments as they happen, and charge-backs when the bank reports them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pandas as pd

from ml_assets.use_case import Column, DayRange, DType, Intake, Table
from ml_assets.use_cases.card_fraud import source

TIMEZONE = "UTC"
SETTLED_AFTER = timedelta(days=7)
"""A payment that nobody has reported by then counts as genuine."""
ID_DIGITS = 12
MICROSECOND = timedelta(microseconds=1)

INT, FLOAT, STRING, TIME = DType.INT64, DType.FLOAT64, DType.STRING, DType.TIMESTAMP


def derive_transactions(rows: pd.DataFrame) -> pd.DataFrame:
    """Clean payments: ids that sort like numbers, money in cents, places in hundredths of the grid."""
    return pd.DataFrame(
        {
            "event_id": _sortable(rows["transaction_id"]),
            "paid_at": rows["paid_at"],
            "settled_at": rows["paid_at"] + SETTLED_AFTER,
            "customer_id": rows["customer_id"],
            "terminal_id": rows["terminal_id"],
            "amount_cents": _cents(rows["amount"]),
            "terminal_x_hundredths": (100 * rows["terminal_x"]).round(),
            "terminal_y_hundredths": (100 * rows["terminal_y"]).round(),
        }
    )


def derive_chargebacks(rows: pd.DataFrame) -> pd.DataFrame:
    """Clean charge-backs; one reported before its payment is no charge-back."""
    nothing = pd.Series(pd.NA, index=rows.index, dtype="str")
    return pd.DataFrame(
        {
            "event_id": _sortable(rows["transaction_id"]),
            "paid_at": rows["paid_at"],
            "reported_at": rows["reported_at"],
            "customer_id": rows["customer_id"],
            "terminal_id": rows["terminal_id"],
            "amount_cents": _cents(rows["amount"]),
            "scenario": rows["scenario"],
            "reject_reason": nothing.mask(rows["reported_at"] < rows["paid_at"], "reported_at is before paid_at"),
        }
    )


def derive_transaction(row: Mapping[str, Any]) -> dict[str, Any]:
    """`derive_transactions` of one payment, as it happens."""
    return {
        "event_id": _sortable_one(row["transaction_id"]),
        "paid_at": row["paid_at"],
        "settled_at": row["paid_at"] + SETTLED_AFTER // MICROSECOND,
        "customer_id": row["customer_id"],
        "terminal_id": row["terminal_id"],
        "amount_cents": round(100 * row["amount"]),
        "terminal_x_hundredths": _hundredths(row["terminal_x"]),
        "terminal_y_hundredths": _hundredths(row["terminal_y"]),
    }


def derive_chargeback(row: Mapping[str, Any]) -> dict[str, Any]:
    """`derive_chargebacks` of one report."""
    return {
        "event_id": _sortable_one(row["transaction_id"]),
        "paid_at": row["paid_at"],
        "reported_at": row["reported_at"],
        "customer_id": row["customer_id"],
        "terminal_id": row["terminal_id"],
        "amount_cents": round(100 * row["amount"]),
        "scenario": row["scenario"],
        "reject_reason": "reported_at is before paid_at" if row["reported_at"] < row["paid_at"] else None,
    }


def _sortable_one(id: str) -> str:
    return id.rjust(ID_DIGITS, "0") if id.isascii() and id.isdigit() else id


def _hundredths(place: float | None) -> float | None:
    return None if place is None else float(round(100 * place))


def _sortable(ids: pd.Series) -> pd.Series:
    """Numbers padded, so that as text they sort as they count; other texts as they are."""
    return ids.where(~ids.str.fullmatch(r"[0-9]+"), ids.str.pad(ID_DIGITS, fillchar="0"))


def _cents(amount: pd.Series) -> pd.Series:
    return (100 * amount).round().astype("int64")


_PAYMENT = (
    Column(name="transaction_id", dtype=STRING),
    Column(name="paid_at", dtype=TIME),
    Column(name="customer_id", dtype=STRING),
    Column(name="terminal_id", dtype=STRING),
    Column(name="amount", dtype=FLOAT, unit="currency", minimum=0, maximum=1e7),
)

TRANSACTIONS = Table(
    name="transactions",
    source=source.transactions,
    key=("event_id",),
    derive=derive_transactions,
    intake=Intake(derive=derive_transaction),
    time="paid_at",
    delivered=(
        *_PAYMENT,
        Column(name="terminal_x", dtype=FLOAT, nullable=True, description="place of the terminal, where it is delivered"),
        Column(name="terminal_y", dtype=FLOAT, nullable=True),
    ),
    columns=(
        Column(name="event_id", dtype=STRING, description="id of the payment; of two in one second the smaller came first"),
        Column(name="paid_at", dtype=TIME, description="event time"),
        Column(name="settled_at", dtype=TIME, description="genuine from then on, unless it was reported"),
        Column(name="customer_id", dtype=STRING),
        Column(name="terminal_id", dtype=STRING),
        Column(name="amount_cents", dtype=INT, unit="cents", minimum=0),
        Column(name="terminal_x_hundredths", dtype=FLOAT, unit="hundredths of the grid", nullable=True),
        Column(name="terminal_y_hundredths", dtype=FLOAT, unit="hundredths of the grid", nullable=True),
    ),
    expectations=(DayRange(figure="rows", minimum=1), DayRange(figure="mean:amount_cents", minimum=1000, maximum=20000)),
)

CHARGEBACKS = Table(
    name="chargebacks",
    source=source.chargebacks,
    key=("event_id",),
    derive=derive_chargebacks,
    intake=Intake(derive=derive_chargeback),
    time="reported_at",
    delivered=(
        *_PAYMENT,
        Column(name="reported_at", dtype=TIME),
        Column(name="scenario", dtype=FLOAT, nullable=True, description="kind of fraud, where it is known"),
    ),
    columns=(
        Column(name="event_id", dtype=STRING, description="id of the payment"),
        Column(name="paid_at", dtype=TIME, known_at="reported_at"),
        Column(name="reported_at", dtype=TIME, known_at="reported_at", description="when the fraud became known"),
        Column(name="customer_id", dtype=STRING, known_at="reported_at"),
        Column(name="terminal_id", dtype=STRING, known_at="reported_at"),
        Column(name="amount_cents", dtype=INT, unit="cents", minimum=0, known_at="reported_at"),
        Column(name="scenario", dtype=FLOAT, nullable=True, known_at="reported_at"),
    ),
)
