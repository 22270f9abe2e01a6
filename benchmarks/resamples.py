"""A thousand resamples of whole days, of one model's figures and of the difference of two, beside scikit-learn on repeated rows.

    python benchmarks/resamples.py [--resamples 1000] [--runs 3]

scikit-learn gets a hundredth of the resamples, and its time is multiplied. Both give the same average precisions, which is compared
before any time is shown.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from sklearn import metrics

from ml_assets.stages.comparison import average_precisions, multiplicities, paired_bootstrap
from ml_assets.stages.inputs import FloatArray, IntArray
from ml_assets.stages.intervals import intervals

PART = 100
THRESHOLD = 0.4
SEED = 1


def drawn(rows: int, days: int, rate: float) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Labels, the scores of two models, and days."""
    random = np.random.default_rng(rows)
    labels = (random.random(rows) < rate).astype(float)
    first, second = (1 / (1 + np.exp(2 - labels - random.normal(size=rows))) for _ in range(2))
    return labels, first, second, random.integers(0, days, rows)


def figures_of_one(labels: FloatArray, scores: FloatArray, _: FloatArray) -> None:
    """By scikit-learn, every metric that has an interval."""
    flagged = scores >= THRESHOLD
    for of_decisions in (metrics.accuracy_score, metrics.precision_score, metrics.recall_score, metrics.f1_score):
        of_decisions(labels, flagged)
    for of_scores in (metrics.roc_auc_score, metrics.average_precision_score, metrics.log_loss, metrics.brier_score_loss):
        of_scores(labels, scores)


def difference_of_two(labels: FloatArray, first: FloatArray, second: FloatArray) -> None:
    """By scikit-learn, what the gate compares."""
    for scores in (first, second):
        metrics.average_precision_score(labels, scores)


def median_seconds(work: Callable[[], object], runs: int) -> float:
    found = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def main(resamples: Annotated[int, typer.Option(min=PART)] = 1000, runs: int = 3) -> None:
    out = Console()
    shown = Table(title=f"{resamples:,} resamples by day")
    for head in ("", "rows", "days", "ours", "scikit-learn", "ratio"):
        shown.add_column(head, justify="right" if head else "left")

    def compare(
        what: str,
        rows: int,
        days: int,
        rate: float,
        ours: Callable[..., object],
        theirs: Callable[[FloatArray, FloatArray, FloatArray], None],
    ) -> None:
        labels, first, second, day = drawn(rows, days, rate)
        times = multiplicities(days, resamples=resamples // PART, seed=SEED)
        repeated = [np.repeat(np.arange(rows), row[day].astype(int)) for row in times]
        known = [metrics.average_precision_score(labels[kept], first[kept]) for kept in repeated]
        if not np.allclose(average_precisions(labels, first, day, times), known):
            out.print("[red]the average precisions differ: no time is worth anything[/]")
            sys.exit(1)
        our_seconds = median_seconds(lambda: ours(labels, first, second, day), runs)
        of_part = median_seconds(lambda: [theirs(labels[kept], first[kept], second[kept]) for kept in repeated], 1)
        seconds = of_part * resamples / len(repeated)
        shown.add_row(what, f"{rows:,}", f"{days}", f"{our_seconds:.2f} s", f"{seconds:.0f} s", f"{seconds / our_seconds:.0f} x")

    compare(
        "intervals of all figures",
        130_000,
        14,
        0.03,
        lambda labels, first, _, day: intervals(first, labels, day, threshold=THRESHOLD, resamples=resamples, seed=SEED),
        figures_of_one,
    )
    compare(
        "difference of two models",
        6_500,
        7,
        0.2,
        lambda labels, first, second, day: paired_bootstrap(
            labels, day, first, second, resamples=resamples, margin=0.01, seed=SEED
        ),
        difference_of_two,
    )
    out.print(shown)


if __name__ == "__main__":
    typer.run(main)
