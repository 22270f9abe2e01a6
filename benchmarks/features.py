"""The windows of card_fraud's features: ours, DuckDB's window functions and pandas' rolling windows on the same rows, and what scale costs.

    python benchmarks/features.py [--runs 3] [--pandas-customers 500]
    python benchmarks/features.py --scale [--most 10]

The rows are the reference payments where `ML_ASSETS_REFERENCE_DATA` says where they lie, else simulated ones. Everything is computed by the
pure function `features.compute`, without Dagster; nothing is checked or published.

Compared are the counts, means and standard deviations of payments, and the counts of settled payments and of known frauds, by customer and
by terminal, for all windows that the case declares, and the sums that the means are made of. The other two are given what is not
theirs to find: the payments in order of time, with a flag for those charged back, as if every charge-back came seven days later (they all
do in these data; ours looks each up). Of payments in one second the one with the smaller id came first. pandas takes rows in the order in
which they lie; for DuckDB payments of a second are a microsecond apart, and a window is half a second shorter, so that its first second
is left out whole.

Each run is a process of its own, which loads the rows and warms up before the clock starts. DuckDB may use two threads and hands over an
Arrow table, unsorted; pandas gets one run. Answers are compared before any time is shown: counts and sums to the last bit, the others as
`agree` says. Ends with status 1 where an answer or a required ratio is missed.
"""

import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from ml_assets.stages import features
from ml_assets.stages.stretches import stretches
from ml_assets.use_case import Day, Trailing, UseCase, day_range, shift
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.card_fraud.features import FRAUD, PAYMENT, SETTLED
from ml_assets.use_cases.card_fraud.schema import derive_chargebacks, derive_transactions
from ml_assets.use_cases.card_fraud.simulator import World, payments
from ml_assets.use_cases.card_fraud.source import REPORTED_AFTER

REFERENCE = "ML_ASSETS_REFERENCE_DATA"
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; macOS counts them singly
THREADS = 2
WARM_UP_ROWS = 2_000
DAYS = day_range("2018-04-01", "2018-07-31")
AT_LEAST = {"DuckDB": 1.5, "pandas, group by group": 20.0}
"""How many times as long as ours the others have to take (ADR 10)."""
SIZES = ((1, 122), (3, 122), (10, 122), (10, 183))
"""Times 5,000 customers and 10,000 terminals, and days; the last makes 17 million payments."""
MOST_GIGABYTES = 16

Frames = dict[str, pd.DataFrame]


# What is asked ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistic:
    """One column: `what` of a value over the payments of an entity in `(t - delay - days, t - delay]`."""

    name: str
    what: str
    entity: str
    value: str
    days: int
    delay: int


VALUES = {PAYMENT: ("amount_cents", 0), SETTLED: ("amount_cents", REPORTED_AFTER.days), FRAUD: ("fraud", REPORTED_AFTER.days)}


def common() -> tuple[Trailing, ...]:
    """What all can express. Not: the age of the oldest known fraud, since pandas has no window that ends a week ago, only differences."""
    return tuple(
        replace(each, entities=alone, statistics=("count", "sum", "mean", "std") if "std" in each.statistics else ("count",))
        for each in CARD_FRAUD.features.trailing
        if each.fact in VALUES and "count" in each.statistics
        if (alone := tuple(entity for entity in each.entities if len(entity) == 1))
    )


def asked() -> list[Statistic]:
    return [
        Statistic(
            name=f"{each.fact.name}_{what}_{_window(window)}_by_{entity}",
            what="sum" if each.fact is FRAUD else str(what),
            entity=entity,
            value=VALUES[each.fact][0],
            days=window.days,
            delay=VALUES[each.fact][1],
        )
        for each in common()
        for (entity,) in each.entities
        for what in each.statistics
        for window in each.windows
    ]


def _window(window: timedelta) -> str:
    return "24h" if window.days == 1 else f"{window.days}d"


def common_case() -> UseCase:
    """The case with these features alone."""
    trailing = common()
    columns = features.columns_of(trailing, (), ())
    return replace(
        CARD_FRAUD, features=replace(CARD_FRAUD.features, trailing=trailing, latest=(), columns=columns, row=lambda _: {})
    )


# Rows -------------------------------------------------------------------------------------------------------------------------


def clean_tables(made: pd.DataFrame) -> Frames:
    """Payments with `fraud`, as the case derives its tables from them: in order of time and id, charge-backs when they are reported."""
    rows = made.assign(partition_day=made["paid_at"].dt.strftime("%Y-%m-%d"), reported_at=made["paid_at"] + REPORTED_AFTER)
    reported = rows[rows["fraud"] == 1]
    reported = reported.assign(partition_day=reported["reported_at"].dt.strftime("%Y-%m-%d"))
    transactions = (
        derive_transactions(rows).assign(day=rows["partition_day"]).sort_values(["paid_at", "event_id"], ignore_index=True)
    )
    chargebacks = derive_chargebacks(reported).assign(day=reported["partition_day"]).reset_index(drop=True)
    assert transactions["reject_reason"].isna().all()
    return {name: table.drop(columns="reject_reason") for name, table in zip(FILES, (transactions, chargebacks), strict=True)}


FILES = ("transactions", "chargebacks")


def simulated(world: World, days: Sequence[Day]) -> pd.DataFrame:
    made = payments(world, days)
    return made.rename(columns={"event_id": "transaction_id"}).assign(amount=made["amount_cents"] / 100)


def published(folder: Path) -> pd.DataFrame:
    rows = pd.read_parquet(folder / "card_transactions")
    return pd.DataFrame(
        {
            "transaction_id": rows["TRANSACTION_ID"].astype("str"),
            "paid_at": rows["TX_DATETIME"].dt.as_unit("us").dt.tz_localize("UTC"),
            "customer_id": rows["CUSTOMER_ID"].astype("str"),
            "terminal_id": rows["TERMINAL_ID"].astype("str"),
            "amount": rows["TX_AMOUNT"],
            "terminal_x": np.nan,
            "terminal_y": np.nan,
            "fraud": rows["TX_FRAUD"],
            "scenario": rows["TX_FRAUD_SCENARIO"].astype("float64"),
        }
    )


def prepare(folder: Path, customers: int | None) -> str:
    """Write the tables, and for the others one frame of all that they need, in order of time; says where the rows are from."""
    reference = os.environ.get(REFERENCE)
    made = published(Path(reference)) if reference else simulated(World(seed=1), DAYS)
    if customers is not None:
        made = made[made["customer_id"].isin(np.sort(made["customer_id"].unique())[:customers])].reset_index(drop=True)
    tables = clean_tables(made)
    for name in FILES:
        tables[name].to_parquet(folder / f"{name}.parquet")
    rows = tables["transactions"]
    pd.DataFrame(
        {
            "row": np.arange(len(rows)),
            "paid_at": rows["paid_at"].dt.tz_localize(None),
            "place_in_second": rows.groupby("paid_at").cumcount(),
            "customer_id": rows["customer_id"],
            "terminal_id": rows["terminal_id"],
            "amount_cents": rows["amount_cents"],
            "fraud": rows["event_id"].isin(tables["chargebacks"]["event_id"]).astype("int64"),
        }
    ).to_parquet(folder / "wide.parquet")
    origin = "the reference payments" if reference else f"simulated payments, since {REFERENCE} is not set"
    chosen = "" if customers is None else f" of the first {customers:,} customers"
    return f"{len(rows):,} rows: {origin}{chosen}, {len(tables['chargebacks']):,} of them frauds"


# Four ways to answer ----------------------------------------------------------------------------------------------------------

Answer = Callable[[], Any]
"""What is timed."""


def ours(folder: Path, case: UseCase) -> tuple[Answer, Callable[[Any], np.ndarray]]:
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in FILES}
    features.compute(
        case, tables["transactions"].iloc[:WARM_UP_ROWS], {name: table.iloc[:WARM_UP_ROWS] for name, table in tables.items()}
    )
    names = [each.name for each in asked()]
    return lambda: features.compute(case, tables["transactions"], tables), lambda answer: answer[names].to_numpy()


def in_duckdb(folder: Path) -> tuple[Answer, Callable[[Any], np.ndarray]]:
    connection = duckdb.connect(config={"threads": THREADS, "preserve_insertion_order": False})
    connection.execute("SET enable_progress_bar = false")
    moment = "paid_at + to_microseconds(place_in_second)"
    connection.execute(f"CREATE TABLE payments AS SELECT * REPLACE ({moment} AS paid_at) FROM '{folder / 'wide.parquet'}'")
    connection.execute(sql(f"(FROM payments LIMIT {WARM_UP_ROWS})")).fetchall()
    names = [each.name for each in asked()]

    def in_order(answer: Any) -> np.ndarray:
        return answer.to_pandas().sort_values("row")[names].to_numpy(dtype=np.float64)

    return lambda: connection.sql(sql("payments")).to_arrow_table(), in_order


def sql(source: str) -> str:
    expressions, windows = [], {}
    for each in asked():
        window = f"{each.entity}_{each.days}_{each.delay}"
        first, last = (
            (timedelta(days=days) - timedelta(seconds=0.5)).total_seconds() for days in (each.delay + each.days, each.delay)
        )
        until = f"INTERVAL '{last} seconds' PRECEDING" if each.delay else "CURRENT ROW"
        windows[window] = (
            f"PARTITION BY {each.entity} ORDER BY paid_at RANGE BETWEEN INTERVAL '{first} seconds' PRECEDING AND {until}"
        )
        answer = {
            "count": f"count(*) OVER {window}",
            "sum": f"coalesce(sum({each.value}) OVER {window}, 0)",
            "mean": f"sum({each.value}) OVER {window} / count(*) OVER {window}",
            "std": f"stddev_pop({each.value}) OVER {window}",
        }[each.what]
        expressions.append(f"{answer} AS {each.name}")
    named = ", ".join(f"{name} AS ({window})" for name, window in windows.items())
    return f"SELECT row, {', '.join(expressions)} FROM {source} WINDOW {named}"


def pandas_at_once(folder: Path) -> tuple[Answer, Callable[[Any], np.ndarray]]:
    """`groupby(…)[…].rolling(…)`."""

    def answered(rows: pd.DataFrame) -> np.ndarray:
        found = np.empty((len(rows), len(asked())))
        for entity in dict.fromkeys(each.entity for each in asked()):
            groups = rows.groupby(entity)
            places = np.concatenate(list(groups.indices.values()))
            for name, values in rolled(groups, entity).items():
                found[places, COLUMN_OF[name]] = values
        return found

    return _in_pandas(folder, answered)


def pandas_by_group(folder: Path) -> tuple[Answer, Callable[[Any], np.ndarray]]:
    """`groupby(…).apply(…)`, which rolls over one customer or terminal after the other, as the handbook of Le Borgne et al. does."""

    def answered(rows: pd.DataFrame) -> np.ndarray:
        found = np.empty((len(rows), len(asked())))
        for entity in dict.fromkeys(each.entity for each in asked()):
            made = rows.groupby(entity).apply(
                lambda group, entity=entity: pd.DataFrame(rolled(group, entity)).set_axis(group["row"])
            )
            found[np.ix_(made.index.get_level_values("row"), [COLUMN_OF[name] for name in made.columns])] = made.to_numpy()
        return found

    return _in_pandas(folder, answered)


COLUMN_OF = {each.name: column for column, each in enumerate(asked())}


def _in_pandas(folder: Path, answered: Callable[[pd.DataFrame], np.ndarray]) -> tuple[Answer, Callable[[Any], np.ndarray]]:
    rows = pd.read_parquet(folder / "wide.parquet").set_index("paid_at")
    answered(rows.iloc[:WARM_UP_ROWS].assign(row=np.arange(min(len(rows), WARM_UP_ROWS))))
    return lambda: answered(rows), lambda answer: answer


def rolled(rows: Any, entity: str) -> dict[str, np.ndarray]:
    """All statistics of an entity, by a frame of one group or by a group-by of all; each rolling window is computed once."""
    made: dict[tuple[str, str, int], np.ndarray] = {}

    def window(what: str, value: str, days: int) -> np.ndarray:
        key = (what, value, days)
        if key not in made:
            rolling = rows[value].rolling(f"{days}D")
            made[key] = (rolling.std(ddof=0) if what == "std" else getattr(rolling, what)()).to_numpy()
        return made[key]

    found = {}
    for each in asked():
        if each.entity != entity:
            continue
        if each.delay:
            found[each.name] = window(each.what, each.value, each.delay + each.days) - window(each.what, each.value, each.delay)
        elif each.what == "mean":
            found[each.name] = window("sum", each.value, each.days) / window("count", each.value, each.days)
        else:
            found[each.name] = window(each.what, each.value, each.days)
    return found


OURS, ALL = "ours", f"ours, all {len(CARD_FRAUD.features.columns)} features"
WAYS: Mapping[str, Callable[[Path], tuple[Answer, Callable[[Any], np.ndarray]]]] = {
    OURS: lambda folder: ours(folder, common_case()),
    ALL: lambda folder: ours(folder, CARD_FRAUD),
    "DuckDB": in_duckdb,
    "pandas, rolling at once": pandas_at_once,
    "pandas, group by group": pandas_by_group,
}


# Measured ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    seconds: float
    processor_seconds: float
    rows_megabytes: float
    peak_megabytes: float


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1_000_000


def measured(way: str, folder: Path) -> Cost:
    """One run; its answer is left in the folder."""
    answer, in_order = WAYS[way](folder)
    rows_megabytes = _peak()
    started, processor = time.perf_counter(), time.process_time()
    answered = answer()
    cost = Cost(
        seconds=time.perf_counter() - started,
        processor_seconds=time.process_time() - processor,
        rows_megabytes=rows_megabytes,
        peak_megabytes=_peak(),
    )
    if way != ALL:
        np.save(folder / f"{way}.npy", in_order(answered))
    return cost


def alone(task: Callable[[], Any]) -> Any:
    """In a process of its own."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(task).result()


def agree(folder: Path, ways: Sequence[str]) -> list[str]:
    """Where another way's answers differ from ours: counts and sums at all, means by more than 1e-9 of them.

    A standard deviation is the root of a small difference of large numbers, however it is computed, so what may differ is the variance: by
    1e-9 of the mean square.
    """
    found = []
    mine = np.load(folder / f"{OURS}.npy", mmap_mode="r")
    for way in ways:
        theirs = np.load(folder / f"{way}.npy", mmap_mode="r")
        for each, column in zip(asked(), range(mine.shape[1]), strict=True):
            left, right = mine[:, column], theirs[:, column]
            if each.what in ("count", "sum"):
                same = left == right
            elif each.what == "mean":
                same = np.abs(left - right) <= 1e-9 * np.abs(left)
            else:
                mean = mine[:, COLUMN_OF[each.name.replace("_std_", "_mean_")]]
                same = np.abs(left**2 - right**2) <= 1e-9 * (left**2 + mean**2)
            if differing := np.count_nonzero(~same & ~(np.isnan(left) & np.isnan(right))):
                at = int(np.argmin(same))
                found.append(
                    f"{way}, {each.name}: {differing:,} answers differ, the first in row {at}: {right[at]!r}, ours {left[at]!r}"
                )
    return found


def compared(out: Console, folder: Path, ways: Mapping[str, int], customers: int | None = None) -> bool:
    """A table of the ways, each with its number of runs; whether they agree and ours is as much faster as is required."""
    told = alone(partial(prepare, folder, customers))
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    for turn in range(max(ways.values())):
        for way, runs in ways.items():
            if turn < runs:
                costs[way].append(alone(partial(measured, way, folder)))
    others = [way for way in ways if way not in (OURS, ALL)]
    faults = alone(partial(agree, folder, others))  # here, it would count as memory of the processes to come
    for fault in faults:
        out.print(fault, style="red")
    if not faults:
        out.print(f"{', '.join(others)} and ours agree on {len(asked())} statistics of each row")
    medians = {way: statistics.median(cost.seconds for cost in of_way) for way, of_way in costs.items()}
    table = Table(title=told, title_justify="left")
    for heading in ("", "runs", "seconds", "processor seconds", "times ours", "required", "rows MB", "peak MB"):
        table.add_column(heading, justify="right" if heading else "left")
    slow = [way for way in others if medians[way] < AT_LEAST.get(way, 0) * medians[OURS]]
    for way, of_way in costs.items():
        table.add_row(
            way,
            str(len(of_way)),
            f"{medians[way]:.2f}",
            f"{statistics.median(cost.processor_seconds for cost in of_way):.2f}",
            f"{medians[way] / medians[OURS]:.1f}",
            f"{AT_LEAST[way]:g}" if way in AT_LEAST else "",
            f"{max(cost.rows_megabytes for cost in of_way):,.0f}",
            f"{max(cost.peak_megabytes for cost in of_way):,.0f}",
            style="red" if way in slow else "",
        )
    out.print(table)
    return not faults and not slow


# Scale ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    payments: int
    parts: int
    facts_read: int
    reading_seconds: float
    seconds: float
    peak_megabytes: float


def write_days(folder: Path, times: int, days: int) -> None:
    """A file a day and table, as an orchestrator would have them published."""
    world = World(customers=5_000 * times, terminals=10_000 * times, seed=1)
    made = {day: folder / day for day in day_range(DAYS[0], shift(DAYS[0], days - 1 + REPORTED_AFTER.days))}
    for day, path in list(made.items())[:days]:
        path.mkdir(exist_ok=True)
        tables = clean_tables(simulated(world, [day]))
        made[shift(day, REPORTED_AFTER.days)].mkdir(exist_ok=True)
        tables["transactions"].to_parquet(path / "transactions.parquet")
        tables["chargebacks"].to_parquet(made[shift(day, REPORTED_AFTER.days)] / "chargebacks.parquet")


def in_parts(folder: Path, days: int) -> Scale:
    """All days as the pipeline takes them: `stretches`, each with its look-back."""
    case = CARD_FRAUD
    asked_days = day_range(DAYS[0], shift(DAYS[0], days - 1))
    counted = {day: len(pd.read_parquet(folder / day / "transactions.parquet", columns=["day"])) for day in asked_days}
    parts = stretches(counted, columns=len(case.features.columns), look_back=case.lookback_days)
    facts = rows = 0
    reading = computing = 0.0
    for part in parts:
        started = time.perf_counter()
        tables = {name: _read(folder, name, day_range(shift(part[0], -case.lookback_days_of(name)), part[-1])) for name in FILES}
        read = time.perf_counter()
        events = tables["transactions"]
        made = features.compute(case, events[events["day"] >= part[0]], tables)
        reading, computing = reading + read - started, computing + time.perf_counter() - read
        facts, rows = facts + sum(map(len, tables.values())), rows + len(made)
    assert rows == sum(counted.values())
    return Scale(
        payments=rows, parts=len(parts), facts_read=facts, reading_seconds=reading, seconds=computing, peak_megabytes=_peak()
    )


def _read(folder: Path, name: str, days: Sequence[Day]) -> pd.DataFrame:
    files = [file for day in days if (file := folder / day / f"{name}.parquet").exists()]
    found: pd.DataFrame = pd.read_parquet(files) if files else clean_tables(simulated(World(seed=1), []))[name]
    return found


def scaled(out: Console, most: int) -> bool:
    """A line for each size as soon as it is known, since the largest takes a while; whether all fit."""
    headings = ("payments", "days", "stretches", "facts read", "reading s", "computing s", "µs a payment", "peak MB")
    out.print(f"all {len(CARD_FRAUD.features.columns)} features in stretches of days", style="italic")
    out.print("".join(f"{heading:>14}" for heading in headings), style="bold")
    fits = True
    for times, days in SIZES:
        if times > most:
            continue
        with tempfile.TemporaryDirectory(prefix="features-") as folder:
            alone(partial(write_days, Path(folder), times, days))
            cost = alone(partial(in_parts, Path(folder), days))
        fits &= cost.peak_megabytes <= 1000 * MOST_GIGABYTES
        cells = (
            f"{cost.payments:,}",
            f"{days}",
            f"{cost.parts}",
            f"{cost.facts_read:,}",
            f"{cost.reading_seconds:.1f}",
            f"{cost.seconds:.1f}",
            f"{1e6 * cost.seconds / cost.payments:.1f}",
            f"{cost.peak_megabytes:,.0f}",
        )
        out.print("".join(f"{cell:>14}" for cell in cells), style="" if cost.peak_megabytes <= 1000 * MOST_GIGABYTES else "red")
    out.print(f"A stretch reads up to {CARD_FRAUD.lookback_days} days before it again; where days are large it is half as long.")
    return fits


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs of ours and of DuckDB, in turn; the median counts.")] = 3,
    pandas_customers: Annotated[
        int, typer.Option(min=0, help="So many customers for pandas, and for all it is compared with; 0: all.")
    ] = 0,
    scale: Annotated[bool, typer.Option("--scale", help="Time 1, 3 and 10 times the payments instead.")] = False,
    most: Annotated[int, typer.Option(help="The largest scale.")] = 10,
) -> None:
    """Time the windows of card_fraud against DuckDB and pandas, or what scale costs."""
    out = Console(width=120)
    if scale:
        raise typer.Exit(0 if scaled(out, most) else 1)
    once = dict.fromkeys((way for way in WAYS if way.startswith("pandas")), 1)
    often = dict.fromkeys((OURS, "DuckDB", ALL), runs)
    with tempfile.TemporaryDirectory(prefix="features-") as folder:
        if pandas_customers:
            verdicts = [compared(out, Path(folder), often), compared(out, Path(folder), often | once, pandas_customers)]
        else:
            verdicts = [compared(out, Path(folder), often | once)]
    raise typer.Exit(0 if all(verdicts) else 1)


if __name__ == "__main__":
    typer.run(main)
