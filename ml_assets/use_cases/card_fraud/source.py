"""Where payments and charge-backs come from: a simulated bank, or files of your own.

Set `ML_ASSETS_CARD_FRAUD_FILES` to a TOML file that says where your Parquet or CSV files are and what their columns are called (README of
this folder). Without it a bank is simulated: it delivers a CSV file a day, and the pipeline sees nothing else of it.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from ml_assets.folders import LocalFolder
from ml_assets.sources.files import DailyFiles
from ml_assets.sources.mapping import read_mapping, source_of
from ml_assets.storage.places import local_folder, root_folder
from ml_assets.use_case import Batch, Day, DType, Source, shift
from ml_assets.use_cases.card_fraud.simulator import World, payments

FILES = "ML_ASSETS_CARD_FRAUD_FILES"
DELIVERIES = "ML_ASSETS_CARD_FRAUD_DELIVERIES"
"""Folder of the simulated bank's files; by default `deliveries/card_fraud` beside the tables."""
CUSTOMERS, TERMINALS, SEED = (f"ML_ASSETS_CARD_FRAUD_{name}" for name in ("CUSTOMERS", "TERMINALS", "SEED"))

START: Day = "2018-04-01"
REPORTED_AFTER = timedelta(days=7)
PLACES = ("terminal_x", "terminal_y")
PAYMENT = ("transaction_id", "paid_at", "customer_id", "terminal_id", "amount")
REPORT = ("reported_at", "scenario")
DTYPES = dict.fromkeys(("paid_at", "reported_at"), DType.TIMESTAMP) | dict.fromkeys(("amount", *PLACES, "scenario"), DType.FLOAT64)
"""Of delivered columns that are no text."""


def transactions(settings: Mapping[str, str]) -> Source:
    """One row for each payment."""
    if file := settings.get(FILES):
        mapping = read_mapping(Path(file), settings)
        return source_of(
            mapping,
            "transactions",
            settings,
            landings=root_folder(settings, "landing/card_fraud"),
            day_column="paid_at",
            known=(*PAYMENT, *PLACES),
            optional=PLACES,
            dtypes=DTYPES,
        )
    return _bank("transactions", settings)


def chargebacks(settings: Mapping[str, str]) -> Source:
    """One row for each payment that was reported as a fraud, under the day of the report."""
    if file := settings.get(FILES):
        mapping = read_mapping(Path(file), settings)
        return source_of(
            mapping,
            "chargebacks",
            settings,
            day_column="reported_at",
            known=(*PAYMENT, *REPORT),
            optional=("scenario",),
            dtypes=DTYPES,
        )
    return _bank("chargebacks", settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedBank:
    """Delivers `transactions/<day>.csv.gz` and, a week after the payments, `chargebacks/<day>.csv.gz`; each file is written once."""

    name: str
    world: World
    folder: Path

    @property
    def _files(self) -> DailyFiles:
        return DailyFiles(folder=self.folder, name=self.name)

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """The hash of each file."""
        self._deliver(days)
        return self._files.versions(days)

    def read(self, days: Sequence[Day]) -> Batch:
        """What was delivered."""
        self._deliver(days)
        return self._files.read(days)

    def _deliver(self, days: Sequence[Day]) -> None:
        for day in days:
            name = f"{self.name}/{day}.csv.gz"
            if not (self.folder / name).exists():
                LocalFolder(self.folder).put(name, _csv(_MADE[self.name](self.world, day)))


def _payments(world: World, day: Day) -> pd.DataFrame:
    made = payments(world, [day])
    return pd.DataFrame({**_payment(made), **{name: made[name].round(2) for name in PLACES}})


def _reports(world: World, day: Day) -> pd.DataFrame:
    paid = shift(day, -REPORTED_AFTER.days)
    made = payments(world, [paid] if paid >= world.first_day else [])
    made = made[made["fraud"] == 1]
    return pd.DataFrame({**_payment(made), "reported_at": _instant(made["paid_at"] + REPORTED_AFTER), "scenario": made["scenario"]})


_MADE: Mapping[str, Callable[[World, Day], pd.DataFrame]] = {"transactions": _payments, "chargebacks": _reports}


def _payment(made: pd.DataFrame) -> dict[str, pd.Series]:
    return {
        "transaction_id": made["event_id"],
        "paid_at": _instant(made["paid_at"]),
        "customer_id": made["customer_id"],
        "terminal_id": made["terminal_id"],
        "amount": made["amount_cents"] / 100,
    }


def _instant(times: pd.Series) -> pd.Series:
    text: pd.Series = times.dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return text


def _csv(rows: pd.DataFrame) -> bytes:
    written = BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pandas(rows, preserve_index=False), written)
    return gzip.compress(written.getvalue(), compresslevel=1, mtime=0)


def _bank(name: str, settings: Mapping[str, str]) -> SimulatedBank:
    world = World(
        customers=int(settings.get(CUSTOMERS, 5_000)),
        terminals=int(settings.get(TERMINALS, 10_000)),
        seed=int(settings.get(SEED, 2018)),
        first_day=START,
    )
    root = Path(settings.get(DELIVERIES) or local_folder(settings) / "deliveries" / "card_fraud")
    folder = root / f"{world.customers}-customers-{world.terminals}-terminals-seed-{world.seed}"
    return SimulatedBank(name=name, world=world, folder=folder)
