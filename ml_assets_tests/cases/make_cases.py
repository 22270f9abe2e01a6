"""Writes the inputs of every case of README.md below a folder: python make_cases.py FOLDER [CASE ...]

Deterministic; needs numpy, pandas and pyarrow. Each case gets a folder of its own; a case of daily deliveries has `days/` and `files.toml`,
which names that folder relative to itself.
"""

import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = ("order_id", "ordered_at", "returned", "customer_id", "amount", "qty", "channel")
CASES: dict[str, Callable[[Path], None]] = {}


def case(build: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[build.__name__] = build
    return build


def orders(n: int = 2200, days: int = 46, seed: int = 4, customers: int = 100) -> pd.DataFrame:
    """2,200 orders from 2024-01-01 to 2024-02-15: what a shop exports, and whether each was returned."""
    r = np.random.default_rng(seed)
    at = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.sort(r.uniform(0, days * 86400, n)), unit="s").round("ms")
    customer = r.integers(1, customers + 1, n)
    risk = r.normal(0, 1, customers + 1)[customer]
    amount, qty = np.round(np.exp(r.normal(3.5, 0.8, n)), 2), r.integers(1, 9, n)
    channel = r.choice(["web", "app", "shop"], n, p=[0.5, 0.3, 0.2])
    chance = 1 / (1 + np.exp(-(-1.6 + 0.9 * risk + 0.02 * (qty - 4) + 0.5 * (channel == "web"))))
    return pd.DataFrame(
        {
            "order_id": np.arange(100_000, 100_000 + n),
            "ordered_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "customer_id": customer,
            "amount": amount,
            "qty": qty,
            "channel": channel,
            "returned": (r.uniform(size=n) < chance).astype(int),
        }
    )


def deliver(folder: Path, days: Mapping[str, pd.DataFrame], *, end: str = '"2024-02-16"', pattern: str = "{day}.csv") -> None:
    (folder / "days").mkdir()
    for day, rows in days.items():
        rows.to_csv(folder / "days" / f"{day}.csv", index=False)
    columns = ", ".join(f'{name} = "{name}"' for name in COLUMNS)
    text = f'start = "2024-01-01"\n{f"end = {end}" if end else ""}\nfolder = "days"\n\n[events]\nfiles = "{pattern}"\ncolumns = {{{columns}}}\n'
    (folder / "files.toml").write_text(text)


def by_day(rows: pd.DataFrame, day: pd.Series | None = None) -> dict[str, pd.DataFrame]:
    return {str(key): part.copy() for key, part in rows.groupby(rows["ordered_at"].str[:10] if day is None else day)}


@case
def large_integers(folder: Path) -> None:
    rows = orders()
    rows["loan"] = np.random.default_rng(1).integers(1_500_000_000, 2_900_000_000, len(rows))
    rows["signup_seconds"] = 1_600_000_000 + 86_400 * rows["customer_id"]
    rows.to_csv(folder / "orders.csv", index=False)
    rows.assign(signup_ms=1_600_000_000_000 + 86_400_000 * rows["customer_id"]).to_csv(folder / "milliseconds.csv", index=False)


@case
def headers_are_data(folder: Path) -> None:
    rows = orders()
    code = 'q"+open("ran","w").write("x").__class__.__name__[:0]+"'
    rows.rename(columns={"qty": code}).to_csv(folder / "code.csv", index=False)
    rows.rename(columns={"qty": '5" pipes'}).to_csv(folder / "inches.csv", index=False)
    rows.assign(returned=np.where(rows["returned"] == 1, "Y", r"\N")).to_csv(folder / "backslash.csv", index=False)
    rows.rename(columns={"qty": "{{ 7 * 7 }}"}).to_csv(folder / "braces.csv", index=False)


@case
def label_not_known_yet(folder: Path) -> None:
    rows = orders()
    rows.to_csv(folder / "orders.csv", index=False)
    rows["returned"] = rows["returned"].astype(object)
    deliver(folder, {day: part if day < "2024-02-15" else part.assign(returned=None) for day, part in by_day(rows).items()})


@case
def rows_days_late(folder: Path) -> None:
    rows = orders()
    rows.to_csv(folder / "orders.csv", index=False)
    at, late = pd.to_datetime(rows["ordered_at"]), np.random.default_rng(1).uniform(size=len(rows)) < 0.08
    day = (at + pd.to_timedelta(np.where(late, 3, 0), unit="D")).dt.strftime("%Y-%m-%d")
    deliver(folder, by_day(rows, day.where(day <= "2024-02-15", at.dt.strftime("%Y-%m-%d"))))


@case
def id_that_repeats(folder: Path) -> None:
    orders(n=1500, seed=11, customers=2500).drop(columns="order_id").to_csv(folder / "orders.csv", index=False)


@case
def two_spellings_of_an_id(folder: Path) -> None:
    rows = orders()
    text = rows["customer_id"].astype(str)
    rows["customer_id"] = text.where(rows["ordered_at"].str[:10] < "2024-01-25", text + ".0")
    rows.to_csv(folder / "orders.csv", index=False)


@case
def index_column(folder: Path) -> None:
    orders().to_csv(folder / "orders.csv")


@case
def column_called_event_id(folder: Path) -> None:
    rows = orders()
    rows.assign(event_id=4624 + rows["qty"]).to_csv(folder / "logons.csv", index=False)


@case
def missing_tokens(folder: Path) -> None:
    rows, r = orders(), np.random.default_rng(1)
    table = {name: rows[name].to_numpy() for name in rows if rows[name].dtype != object and name != "amount"}
    table |= {name: rows[name].tolist() for name in ("ordered_at", "channel")}
    holes = np.where(r.uniform(size=len(rows)) < 0.03, np.nan, rows["amount"].to_numpy())
    pq.write_table(pa.table(table | {"amount": holes}), folder / "nan.parquet")
    text = rows.astype({"amount": str})
    text.loc[::50, "amount"] = "NA"
    text.to_csv(folder / "na.csv", index=False)
    rows.assign(amount=[f"{1000 + value:,.2f}" for value in rows["amount"]]).to_csv(folder / "thousands.csv", index=False)
    rows.assign(amount=rows["amount"].map(lambda value: f"{value:.2f}".replace(".", ","))).to_csv(
        folder / "comma.csv", index=False, sep=";"
    )


@case
def too_good(folder: Path) -> None:
    rows, r = orders(), np.random.default_rng(2)
    rows["handling_days"] = np.where(rows["returned"] == 1, 3, r.choice([0, 1, 2, 4, 5, 6], len(rows)))
    rows.to_csv(folder / "orders.csv", index=False)


@case
def one_wrong_date(folder: Path) -> None:
    for name, time in (("1970", "1970-01-01T00:00:00Z"), ("2099", "2099-12-31T00:00:00Z"), ("9999", "9999-12-31T23:59:59Z")):
        rows = orders()
        rows.loc[1234, "ordered_at"] = time
        rows.to_csv(folder / f"{name}.csv", index=False)
    days = by_day(orders())
    days["2024-02-14"].iloc[3, 1] = "2099-01-01T00:00:00Z"
    deliver(folder, days, end="", pattern="*.csv")


@case
def a_row_delivered_twice(folder: Path) -> None:
    rows = orders()
    rows.to_csv(folder / "orders.csv", index=False)
    days = by_day(rows)
    days["2024-01-21"] = pd.concat([days["2024-01-21"], days["2024-01-20"].iloc[[5]]])
    deliver(folder, days)


@case
def a_row_without_a_time(folder: Path) -> None:
    rows = orders()
    rows.to_csv(folder / "orders.csv", index=False)
    days = by_day(rows)
    days["2024-02-14"] = days["2024-02-14"].astype({"ordered_at": object})
    days["2024-02-14"].iloc[3, 1] = None
    deliver(folder, days, pattern="*.csv")


@case
def dates_without_a_time(folder: Path) -> None:
    rows = orders()
    rows.to_csv(folder / "timed.csv", index=False)
    rows.assign(ordered_at=rows["ordered_at"].str[:10]).to_csv(folder / "dated.csv", index=False)


@case
def other_exports(folder: Path) -> None:
    rows = orders()
    at = pd.to_datetime(rows["ordered_at"])
    for name, form in (("postgres", "%Y-%m-%d %H:%M:%S.%f+00"), ("bigquery", "%Y-%m-%d %H:%M:%S UTC"), ("excel", "%d/%m/%Y %H:%M")):
        rows.assign(ordered_at=at.dt.strftime(form)).to_csv(folder / f"{name}.csv", index=False)
    rows.to_csv(folder / "semicolon.csv", index=False, sep=";")
    rows.assign(channel=rows["channel"].replace("shop", "café")).to_csv(folder / "cp1252.csv", index=False, encoding="cp1252")
    ids = pa.array([uuid.UUID(int=place + 1).bytes for place in range(len(rows))], pa.uuid())
    columns = {
        "order": ids,
        "ordered_at": rows["ordered_at"].tolist(),
        "amount": rows["amount"].to_numpy(),
        "returned": rows["returned"].to_numpy(),
    }
    pq.write_table(pa.table(columns), folder / "uuid.parquet")


@case
def stray_quotes(folder: Path) -> None:
    (folder / "days").mkdir()
    lines = [[str(place), f"2024-01-01T{place // 60:02d}:{place % 60:02d}:00Z", f"c{place}", "10.0"] for place in range(100)]
    lines[5][2], lines[25][2] = '"c5', 'c25"'
    text = "id,at,customer,amount\n" + "".join(",".join(line) + "\n" for line in lines)
    (folder / "days" / "2024-01-01.csv").write_text(text)


def main() -> None:
    root, names = Path(sys.argv[1]), sys.argv[2:] or list(CASES)
    for name in names:
        (root / name).mkdir(parents=True)
        CASES[name](root / name)
        print(name, *sorted(path.relative_to(root / name).as_posix() for path in (root / name).glob("*")))


if __name__ == "__main__":
    main()
