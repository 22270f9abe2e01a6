"""What may be known at the moment of a payment, and what a model is told of it.

`BOOK` are the fifteen features of Le Borgne et al. (2022), with their values in cents. The others are ratios to the customer's own
habit, recency, frauds known at the terminal and of the customer, and the distance to where the customer usually pays.
"""

from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_assets.stages.features import columns_of
from ml_assets.stages.windows import ratio
from ml_assets.use_case import Arrays, Column, DType, Fact, Features, Latest, Trailing
from ml_assets.use_cases.card_fraud.schema import SETTLED_AFTER

DAYS = timedelta(days=1)
WINDOWS = (1 * DAYS, 3 * DAYS, 7 * DAYS, 30 * DAYS)
CUSTOMER, TERMINAL = ("customer_id",), ("terminal_id",)
NIGHT_UNTIL_HOUR = 6

AT_ONCE = 0 * DAYS
"""Rows are filed under the day of `paid_at` and of `reported_at` (`derive_…` rejects others): nothing is known after its day."""
PAYMENT = Fact(name="payment", table="transactions", value="amount_cents", known_at="paid_at", unit="cents", known_within=AT_ONCE)
SETTLED = Fact(
    name="settled", table="transactions", value="amount_cents", known_at="settled_at", unit="cents", known_within=SETTLED_AFTER
)
FRAUD = Fact(name="fraud", table="chargebacks", value="amount_cents", known_at="reported_at", unit="cents", known_within=AT_ONCE)
PLACE_X, PLACE_Y = (
    Fact(
        name=name,
        table="transactions",
        value=f"terminal_{name}_hundredths",
        known_at="paid_at",
        unit="hundredths of the grid",
        known_within=AT_ONCE,
    )
    for name in ("x", "y")
)

TRAILING = (
    Trailing(fact=PAYMENT, entities=(CUSTOMER, TERMINAL), windows=WINDOWS, statistics=("count", "mean", "std")),
    Trailing(fact=PAYMENT, entities=(CUSTOMER,), windows=(30 * DAYS,), statistics=("span",)),
    Trailing(fact=PAYMENT, entities=((*CUSTOMER, *TERMINAL),), windows=(30 * DAYS,), statistics=("count",)),
    Trailing(fact=SETTLED, entities=(CUSTOMER, TERMINAL), windows=WINDOWS, statistics=("count",)),
    Trailing(fact=FRAUD, entities=(CUSTOMER, TERMINAL), windows=WINDOWS, statistics=("count",)),
    # A terminal whose first known fraud is long ago is sound again: thieves do not stay for ever.
    Trailing(fact=FRAUD, entities=(CUSTOMER, TERMINAL), windows=(30 * DAYS,), statistics=("span",)),
    Trailing(fact=PLACE_X, entities=(CUSTOMER,), windows=(30 * DAYS,), statistics=("mean",)),
    Trailing(fact=PLACE_Y, entities=(CUSTOMER,), windows=(30 * DAYS,), statistics=("mean",)),
)


def _latest(name: str, table: str, entity: tuple[str, ...], known_at: str) -> Latest:
    return Latest(
        name=name,
        table=table,
        entity=entity,
        known_at=known_at,
        values=(),
        change_over=0 * DAYS,
        within=30 * DAYS,
        itself=False,
        known_within=AT_ONCE,
    )


LATEST = (
    _latest("customer_payment", "transactions", CUSTOMER, "paid_at"),
    _latest("customer_fraud", "chargebacks", CUSTOMER, "reported_at"),
    _latest("terminal_fraud", "chargebacks", TERMINAL, "reported_at"),
)


def _number(name: str, unit: str, description: str = "", *, nullable: bool = False) -> Column:
    return Column(name=name, dtype=DType.FLOAT64, unit=unit, description=description, nullable=nullable)


_RISKS = tuple(f"{entity}_risk_{days}d" for entity in ("terminal", "customer") for days in (1, 3, 7, 30))
ROW_COLUMNS = (
    _number("amount", "cents"),
    _number("hour", "hour in UTC"),
    _number("during_night", "0 or 1", "until 06:59"),
    _number("during_weekend", "0 or 1", "Saturday or Sunday"),
    *(_number(name, "share", "frauds known over payments settled in the window, 0 without any") for name in _RISKS),
    *(
        _number(f"amount_to_{habit}", "ratio", "of the amount to the mean", nullable=True)
        for habit in ("customer_7d", "customer_30d", "terminal_7d", "terminal_30d")
    ),
    *(
        _number(f"amount_to_earlier_{days}d", "ratio", "of the amount to the mean of the customer's other payments", nullable=True)
        for days in (7, 30)
    ),
    *(
        _number(f"variation_{days}d", "ratio", "standard deviation over mean of the customer's amounts", nullable=True)
        for days in (3, 7, 30)
    ),
    *(
        _number(f"deviation_{days}d", "standard deviations", "of the amount from the customer's mean", nullable=True)
        for days in (7, 30)
    ),
    *(_number(f"mean_{days}d_to_30d", "ratio", "of the customer's mean amounts", nullable=True) for days in (1, 3, 7)),
    _number("distance", "grid units", "to the mean place of the customer's payments of 30 days", nullable=True),
)


def row(columns: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Features of the payment itself, and ratios of what is known to each other."""
    amount = columns["amount_cents"].astype(np.float64)
    seconds = columns["paid_at"].astype("datetime64[s]").astype(np.int64)
    hour = (seconds // 3600 % 24).astype(np.float64)
    # 1 January 1970 was a Thursday.
    weekday = (seconds // 86_400 + 3) % 7

    def customer(statistic: str, days: int) -> npt.NDArray[Any]:
        return columns[f"payment_{statistic}_{_window(days)}_by_customer_id"]

    risks = {
        f"{entity}_risk_{days}d": ratio(
            columns[f"fraud_count_{_window(days)}_by_{entity}_id"],
            columns[f"settled_count_{_window(days)}_by_{entity}_id"],
            of_nothing=0.0,
        )
        for entity in ("terminal", "customer")
        for days in (1, 3, 7, 30)
    }
    return {
        "amount": amount,
        "hour": hour,
        "during_night": (hour <= NIGHT_UNTIL_HOUR).astype(np.float64),
        "during_weekend": (weekday >= 5).astype(np.float64),
        **risks,
        **{f"amount_to_customer_{days}d": ratio(amount, customer("mean", days)) for days in (7, 30)},
        **{f"amount_to_terminal_{days}d": ratio(amount, columns[f"payment_mean_{days}d_by_terminal_id"]) for days in (7, 30)},
        **{f"amount_to_earlier_{days}d": _to_earlier(amount, customer("count", days), customer("mean", days)) for days in (7, 30)},
        **{f"variation_{days}d": ratio(customer("std", days), customer("mean", days)) for days in (3, 7, 30)},
        # A cent more, so that the first payment of a customer deviates by nothing.
        **{f"deviation_{days}d": (amount - customer("mean", days)) / (customer("std", days) + 1.0) for days in (7, 30)},
        **{f"mean_{days}d_to_30d": ratio(customer("mean", days), customer("mean", 30)) for days in (1, 3, 7)},
        "distance": np.hypot(
            columns["terminal_x_hundredths"] - columns["x_mean_30d_by_customer_id"],
            columns["terminal_y_hundredths"] - columns["y_mean_30d_by_customer_id"],
        )
        / 100,
    }


def _to_earlier(amount: npt.NDArray[Any], count: npt.NDArray[Any], mean: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The amount over the mean of the others in the window, nan where there are none or they cost nothing."""
    earlier = np.rint(mean * count) - amount
    return ratio(amount * (count - 1), np.where(count > 1, earlier, 0.0))


def _window(days: int) -> str:
    return "24h" if days == 1 else f"{days}d"


FEATURES = Features(
    event_columns=("paid_at", "amount_cents", "customer_id", "terminal_id", "terminal_x_hundredths", "terminal_y_hundredths"),
    trailing=TRAILING,
    latest=LATEST,
    lookups=(),
    row=row,
    columns=(*ROW_COLUMNS, *columns_of(TRAILING, LATEST, ())),
)

BOOK = (
    "amount",
    "during_weekend",
    "during_night",
    *(f"payment_{statistic}_{window}_by_customer_id" for window in ("24h", "7d", "30d") for statistic in ("count", "mean")),
    *(name for days in (1, 7, 30) for name in (f"settled_count_{_window(days)}_by_terminal_id", f"terminal_risk_{days}d")),
)
"""The fifteen features of the book."""
