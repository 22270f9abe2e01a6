"""Reads of a table that grew by a day every night for a year, beside deltalake's own `to_pyarrow_table` with the same filter.

    python benchmarks/reads.py [--days 365] [--columns 30] [--rows 60] [--repeats 9]

Both give the same rows, which is asked for. Medians, in milliseconds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable

from ml_assets.folders import LocalFolder
from ml_assets.storage.tables import Tables
from ml_assets.use_case import Day, day_range, shift

START = "2023-01-01"


def grown(tables: Tables, days: Sequence[Day], *, columns: int, rows: int) -> None:
    """One commit a day."""
    names = [f"f{number}" for number in range(columns)]
    schema = pa.schema([*((name, pa.float64()) for name in names), ("day", pa.string())])
    random = np.random.default_rng(7)
    for day in days:
        frame = pd.DataFrame(random.normal(size=(rows, columns)), columns=names).assign(day=day)
        tables.publish("features", frame, schema=schema, inputs={day: "x"})


def median_milliseconds(call: Callable[[], object], repeats: int) -> float:
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--columns", type=int, default=30)
    parser.add_argument("--rows", type=int, default=60, help="a day")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    days = day_range(START, shift(START, options.days - 1))
    with TemporaryDirectory() as folder:
        tables = Tables(root=LocalFolder(Path(folder)), case="shop")
        grown(tables, days, columns=options.columns, rows=options.rows)
        place = tables.place("features")
        print(f"{'read':>10} {'ours':>8} {'deltalake':>10} {'ratio':>6}")
        for what, wanted in (("a day", days[-1:]), ("30 days", days[-30:]), ("all", days)):

            def ours(wanted: Sequence[Day] = wanted) -> pd.DataFrame:
                return tables.read("features", wanted)

            def theirs(wanted: Sequence[Day] = wanted) -> pd.DataFrame:
                frame: pd.DataFrame = DeltaTable(place).to_pyarrow_table(filters=[("day", "in", list(wanted))]).to_pandas()
                return frame.sort_values(["day", "_position"], kind="stable").drop(columns="_position")

            assert np.array_equal(ours()["f0"], theirs()["f0"])
            own, peer = median_milliseconds(ours, options.repeats), median_milliseconds(theirs, options.repeats)
            print(f"{what:>10} {own:>8.0f} {peer:>10.0f} {peer / own:>6.1f}")


if __name__ == "__main__":
    main()
