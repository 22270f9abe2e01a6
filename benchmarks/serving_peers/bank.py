"""The bank whose payments are scored: card_fraud with 25 of its features, 5,000 customers, 38 days of state, a model of 300 trees."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.folders import LocalFolder
from ml_assets.stages import online_state
from ml_assets.stages.features import columns_of, compute
from ml_assets.stages.kept import layout
from ml_assets.stages.model import Model
from ml_assets.stages.package import files_of, manifest_of
from ml_assets.stages.train import Candidate, Recipe, fit
from ml_assets.stages.windows import ratio
from ml_assets.storage.models import ModelStore
from ml_assets.storage.online import open_store
from ml_assets.use_case import Arrays, Trailing, UseCase, day_range, shift
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.card_fraud.features import BOOK, CUSTOMER, FEATURES, FRAUD, LATEST, PAYMENT, ROW_COLUMNS, SETTLED, TERMINAL
from ml_assets.use_cases.card_fraud.simulator import World

DAYS = 1, 7, 30
WINDOWS = tuple(timedelta(days=days) for days in DAYS)
TRAILING = (
    Trailing(fact=PAYMENT, entities=(CUSTOMER,), windows=WINDOWS, statistics=("count", "mean")),
    Trailing(fact=PAYMENT, entities=(CUSTOMER,), windows=WINDOWS[-1:], statistics=("span",)),
    Trailing(fact=SETTLED, entities=(TERMINAL,), windows=WINDOWS, statistics=("count",)),
    Trailing(fact=FRAUD, entities=(TERMINAL,), windows=WINDOWS, statistics=("count",)),
)
LATEST_FACTS = tuple(each for each in LATEST if each.name in ("customer_payment", "terminal_fraud"))
NAMES = (
    *BOOK,
    "hour",
    *(f"amount_to_{habit}_{days}d" for habit in ("customer", "earlier") for days in (7, 30)),
    "mean_1d_to_30d",
    "mean_7d_to_30d",
    "payment_span_30d_by_customer_id",
    "customer_payment_age_minutes",
    "terminal_fraud_age_minutes",
)
"""The fifteen features of the book and ten more."""
LOADED = day_range(CARD_FRAUD.start, shift(CARD_FRAUD.start, 37))
LEARNED = LOADED[14:]
SERVED = shift(LOADED[-1], 1)
WORLD = World(seed=1)
TREES = 300
ALERTS = 0.01
MADE = "made-of.txt"
SECONDS_BETWEEN = 0.2
"""Of event time: 432,000 events fit into the day that is served."""


def row(columns: Arrays) -> dict[str, npt.NDArray[Any]]:
    """As in `card_fraud.features`, of these features alone."""
    amount = columns["amount_cents"].astype(np.float64)
    seconds = columns["paid_at"].astype("datetime64[s]").astype(np.int64)
    hour = (seconds // 3600 % 24).astype(np.float64)
    window = {1: "24h", 7: "7d", 30: "30d"}
    mean = {days: columns[f"payment_mean_{window[days]}_by_customer_id"] for days in DAYS}
    found = {
        "amount": amount,
        "hour": hour,
        "during_night": (hour <= 6).astype(np.float64),
        "during_weekend": ((seconds // 86_400 + 3) % 7 >= 5).astype(np.float64),
    }
    for days in DAYS:
        frauds, settled = (columns[f"{fact}_count_{window[days]}_by_terminal_id"] for fact in ("fraud", "settled"))
        found[f"terminal_risk_{days}d"] = ratio(frauds, settled, of_nothing=0.0)
    for days in (7, 30):
        others = columns[f"payment_count_{days}d_by_customer_id"] - 1
        earlier = np.rint(mean[days] * (others + 1)) - amount
        found[f"amount_to_customer_{days}d"] = ratio(amount, mean[days])
        found[f"amount_to_earlier_{days}d"] = ratio(amount * others, np.where(others > 0, earlier, 0.0))
    return found | {f"mean_{days}d_to_30d": ratio(mean[days], mean[30]) for days in (1, 7)}


def case() -> UseCase:
    """card_fraud with these features."""
    columns = {column.name: column for column in (*ROW_COLUMNS, *columns_of(TRAILING, LATEST_FACTS, ()))}
    features = replace(FEATURES, trailing=TRAILING, latest=LATEST_FACTS, row=row, columns=tuple(columns[name] for name in NAMES))
    training = replace(
        CARD_FRAUD.training,
        trees=TREES,
        kept_negatives=1.0,
        parameters={**CARD_FRAUD.training.parameters, "min_data_in_leaf": 20, "num_threads": 2},
    )
    return replace(CARD_FRAUD, features=features, training=training)


@dataclass(frozen=True, kw_only=True)
class Bank:
    """A folder with the model, the loaded state, and what is asked."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.txt"

    @property
    def complete(self) -> bool:
        """Whether it was made whole, by this code, and the state is kept as it is now."""
        made = self.folder / MADE
        return made.exists() and made.read_text() == _made_of()

    @cached_property
    def rows(self) -> list[dict[str, float | None]]:
        """Features of some payments, by name."""
        rows: list[dict[str, float | None]] = json.loads((self.folder / "rows.json").read_bytes())
        return rows

    def events(self) -> Iterator[bytes]:
        """Bodies of payments that nobody has seen: of the customers, at the terminals and of the amounts of a day, again and again."""
        payments = json.loads((self.folder / "payments.json").read_bytes())
        start = np.datetime64(SERVED, "us")
        for number in count():
            at = start + np.timedelta64(int(1e6 * SECONDS_BETWEEN) * number, "us")
            head = b'{"transaction_id":"%d","paid_at":"%sZ",' % (10**11 + number, str(at).encode())
            yield head + payments[number % len(payments)].encode()


def make(folder: Path) -> Bank:
    """Simulates, trains, loads."""
    from features import clean_tables, simulated  # the benchmark beside this folder; servers do not need it

    folder.mkdir()
    of = case()
    made = simulated(WORLD, [*LOADED, SERVED])
    tables = clean_tables(made)
    events = tables[of.events]
    features = compute(of, events, tables)
    learned, served = features[features["day"].isin(LEARNED)], features[features["day"] == SERVED]
    frauds = set(made.loc[made["fraud"] == 1, "transaction_id"])
    _deploy(of, folder, learned, learned["event_id"].isin(frauds).to_numpy(dtype=np.float64))
    state = {name: rows[rows["day"].isin(LOADED)] for name, rows in tables.items()}
    with closing(open_store(str(folder / "online"), of.name, create=True)) as store:
        online_state.load_days(of, store, state, dict.fromkeys(LOADED, "loaded"))
        store.tidy()
    some = served[list(NAMES)].sample(1000, random_state=0).astype(object)
    (folder / "rows.json").write_text(some.where(some.notna(), None).to_json(orient="records", double_precision=15))
    asked = made[made["day"] == SERVED].sample(frac=1, random_state=0)
    rest = asked[["customer_id", "terminal_id", "amount", "terminal_x", "terminal_y"]].to_dict("records")
    (folder / "payments.json").write_text(json.dumps([json.dumps(each, separators=(",", ":"))[1:] for each in rest]))
    (folder / MADE).write_text(_made_of())
    return Bank(folder=folder)


def _made_of() -> str:
    return f"{layout(case())}\n{Path(__file__).read_text()}"


def _deploy(of: UseCase, folder: Path, rows: pd.DataFrame, labels: npt.NDArray[np.float64]) -> None:
    def fitted(family: Any) -> Model:
        return fit(family, rows, labels, features=of.features, training=of.training, climatology=of.climatology)

    model = fitted("lightgbm")
    climatology = fitted("climatology")
    candidate = Candidate(
        model=model,
        baseline=climatology,
        climatology=climatology,
        threshold=float(np.quantile(model.predict(rows), 1 - ALERTS)),
        training_rows=len(rows),
        positives=int(labels.sum()),
        recipe=Recipe(family="lightgbm", training=of.training),
    )
    days = {"training": (LEARNED[0], LEARNED[-1]), "holdout": (LEARNED[-1], LEARNED[-1])}
    models = ModelStore(root=LocalFolder(folder))
    manifest = manifest_of(of, candidate, week=SERVED, as_of=SERVED, days=days, contents={}, holdout=rows)
    models.deploy(of.name, SERVED, models.save(of.name, files_of(candidate), manifest), {"kind": "promoted"})
    (folder / "model.txt").write_bytes(model.to_files()["model.txt"])
