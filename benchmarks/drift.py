"""Drift reports of a year: sketches of every day and every feature, windows, indices, warnings; beside a plain pandas way to do it.

    python benchmarks/drift.py [--days 365] [--features 30] [--events 1000] [--runs 3]

Rows are drawn; a fifth of the features are texts. `plain pandas` cuts each day's window by `pandas.cut` and adds up the index with
`value_counts`, feature by feature and day by day, which is what people write; it gets a tenth of the days, and its time is multiplied.
Both give the same indices, which is compared before any time is shown. Ends with status 1 when a year of 30 features takes over 5 s.
"""

import statistics
import sys
import time
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from ml_assets.stages.drift import SCORE, drift_figures, drift_findings, drift_of_days
from ml_assets.stages.reference import Calibration, Reference
from ml_assets.stages.sketch import sketch
from ml_assets.use_case import Day, Monitoring, day_range, shift

LIMIT_SECONDS = 5.0
MONITORING = Monitoring(minimum_rows=100)
PART = 10


def drawn(days: list[Day], features: int, events: int) -> tuple[pd.DataFrame, list[str]]:
    random = np.random.default_rng(1)
    rows = len(days) * events
    names = [f"feature_{at:03}" for at in range(features)]
    columns: dict[str, object] = {
        name: random.choice(list("abcdefgh"), size=rows) if at % 5 == 4 else random.normal(size=rows)
        for at, name in enumerate(names)
    }
    frame = pd.DataFrame({**columns, SCORE: random.random(rows), "day": np.repeat(days, events)})
    return frame.astype(dict.fromkeys((*names[4::5], "day"), "str")), names


def reference_to(rows: pd.DataFrame, names: list[str]) -> Reference:
    return Reference(
        features={name: sketch(rows, name, text=rows[name].dtype.kind not in "fiub") for name in names},
        score=sketch(rows, SCORE, text=False),
        importance=dict.fromkeys(names, 1 / len(names)),
        calibration=Calibration(scores=np.array([0.0, 1.0]), rates=np.array([0.0, 1.0])),
        average_precision=0.5,
        roc_auc=0.7,
        positive_rate=0.1,
    )


def ours(rows: pd.DataFrame, days: list[Day], reference: Reference) -> pd.DataFrame:
    found = drift_of_days(rows, rows, days, version="v1", reference=reference, monitoring=MONITORING)
    drift_findings(found, days, MONITORING)
    drift_figures(found)
    return found


def plain(rows: pd.DataFrame, days: list[Day], reference: Reference) -> pd.DataFrame:
    found = []
    for day in days:
        window = rows[rows["day"].between(shift(day, 1 - MONITORING.window_days), day)]
        for name, of_feature in {**reference.features, SCORE: reference.score}.items():
            if of_feature.categories:
                codes = pd.Categorical(window[name], categories=of_feature.categories).codes
                places = pd.Series(np.where(codes < 0, len(of_feature.categories), codes))
            else:
                edges = [-np.inf, *of_feature.edges, np.inf]
                places = pd.Series(pd.cut(window[name], edges, labels=False))
            counts = places.value_counts().reindex(range(len(of_feature.counts)), fill_value=0).to_numpy()
            p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (counts, of_feature.counts))
            found.append({"day": day, "feature": name, "psi": float(((p - q) * np.log(p / q)).sum())})
    return pd.DataFrame(found)


def main(
    days: Annotated[int, typer.Option(min=2 * PART)] = 365,
    features: int = 30,
    events: int = 1000,
    runs: int = 3,
) -> None:
    out = Console()
    all_days = day_range("2024-01-01", shift("2024-01-01", days - 1))
    rows, names = drawn(all_days, features, events)
    reference = reference_to(rows.head(14 * events), names)
    part = all_days[-(days // PART) :]
    begin = time.perf_counter()
    theirs = plain(rows, part, reference)
    pandas_seconds = (time.perf_counter() - begin) * len(all_days) / len(part)

    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        found = ours(rows, all_days, reference)
        seconds.append(time.perf_counter() - begin)
    both = theirs.merge(found, on=["day", "feature"], suffixes=("_plain", ""))
    if len(both) != len(theirs) or not np.allclose(both["psi"], both["psi_plain"]):
        out.print("[red]the indices differ: no time is worth anything[/]")
        sys.exit(1)

    median = statistics.median(seconds)
    shown = Table(title=f"{days} days x {features} features x {events:,} events a day")
    for head in ("", "seconds", "ratio"):
        shown.add_column(head, justify="left" if not head else "right")
    shown.add_row("ours", f"{median:.2f}", "1")
    shown.add_row(f"plain pandas (from {len(part)} days)", f"{pandas_seconds:.1f}", f"{pandas_seconds / median:.0f} x")
    shown.add_row("limit", f"{LIMIT_SECONDS:.0f}", f"{LIMIT_SECONDS / median:.1f} x")
    out.print(shown)
    if (days, features) == (365, 30) and median > LIMIT_SECONDS:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
