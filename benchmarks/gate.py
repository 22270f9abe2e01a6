"""How often the gate promotes a candidate that is truly worse, equal or better than the champion, on hold-outs like card fraud's.

    python benchmarks/gate.py [--pairs 200] [--resamples 500]

Worse and better mean by exactly the gate's margin. The pairs are simulated, so that the truth is known: see `Population`.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score

from ml_assets.stages.comparison import Comparison, paired_bootstrap
from ml_assets.stages.gate import champion_reasons
from ml_assets.use_case import Gate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RISK = 0.05
TRUTHS = {"worse": -1, "equal": 0, "better": 1}
# Share of the variance of the score errors that both models have in common, and the margins tried. Two LightGBM models of one
# recipe, trained a week apart on 66 to 87 days of the reference payments (200 trees, average precision 0.78 and 0.80), had a
# bootstrap standard error of their difference of 0.0010 and 0.0006 on 14 days: 0.997 has about that. 0.90 stands for models that
# agree much less, such as two recipes; it was not measured.
TRIED = ((0.997, (0.02, 0.01, 0.005, 0.003, 0.002)), (0.90, (0.02, 0.015, 0.01, 0.005)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Population:
    """Days of payments without end, and how models score them.

    A score is 0, or `seen` for a fraud that leaves traces, plus noise that both models share, plus noise of the model's own.
    Noise of the day makes the rows of a day dependent: its spread and the share of frauds differ by day, and the day's visible frauds
    move together, for both models and for each of them. All of it is normal, so that the average precision of the population is
    an integral and not an estimate.
    """

    alike: float
    average_precision: float = 0.72
    rate: float = 0.0085
    days: int = 14
    payments: int = 9_600
    hidden: float = 0.20  # of the frauds: those that score like genuine payments
    rate_spread: float = 0.12  # log scale; the reference payments have 0.12 from day to day
    noise_spread: float = 0.10  # log scale
    shift: float = 0.30  # of a day's visible frauds, for both models
    own_shift: float = 0.30  # ditto, for one model, in units of its own noise

    @property
    def shared(self) -> float:
        return float(np.sqrt(self.alike))

    @property
    def own(self) -> float:
        """The noise of a good model's own."""
        return float(np.sqrt(1 - self.alike))

    @property
    def seen(self) -> float:
        """Where visible frauds score, so that a good model has the declared average precision."""
        return float(brentq(lambda seen: self.precision_of(self.own, seen) - self.average_precision, 0.5, 10))

    def own_of_worse(self, margin: float) -> float:
        """The noise of its own with which a model is worse by exactly the margin."""
        wanted, seen = self.average_precision - margin, self.seen
        return float(brentq(lambda own: self.precision_of(own, seen) - wanted, self.own, 10))

    def precision_of(self, own: float, seen: float) -> float:
        """Average precision over infinitely many days: precision integrated over recall, the day's spread by Gauss and Hermite."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(15)
        threshold = np.linspace(16, -8, 8_001)[:, None]
        deviation = np.exp(self.noise_spread * nodes) * np.hypot(self.shared, own)
        visible = np.sqrt(deviation**2 + self.shift**2 + (self.own_shift * own) ** 2)
        genuine = ndtr(-threshold / deviation) @ (weights / weights.sum())
        found = self.hidden * genuine + (1 - self.hidden) * (ndtr((seen - threshold) / visible) @ (weights / weights.sum()))
        precision = self.rate * found / (self.rate * found + (1 - self.rate) * genuine)
        return float((np.diff(found) * (precision[1:] + precision[:-1]) / 2).sum())

    def draw(
        self, owns: Sequence[float], seen: float, *, days: int, seed: Sequence[int]
    ) -> tuple[FloatArray, IntArray, list[FloatArray]]:
        """Labels, days, and the scores of one model for each noise of its own."""
        random = np.random.default_rng(seed)
        day = np.repeat(np.arange(days), self.payments)
        rate = self.rate * np.exp(self.rate_spread * random.normal(size=days) - self.rate_spread**2 / 2)
        fraud = random.random(len(day)) < rate[day]
        visible = fraud & (random.random(len(day)) >= self.hidden)
        spread = np.exp(self.noise_spread * random.normal(size=days))[day]
        shared = visible * (seen + self.shift * random.normal(size=days)[day]) + spread * self.shared * random.normal(size=len(day))
        scores = [
            shared + own * (spread * random.normal(size=len(day)) + visible * self.own_shift * random.normal(size=days)[day])
            for own in owns
        ]
        return fraud.astype(np.float64), day, scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What the gate did with pairs of one kind."""

    truth: str
    margin: float
    promoted: int
    pairs: int
    standard_error: float  # of the estimated difference, from pair to pair
    bootstrap_error: float  # what the bootstrap takes it for: a quarter of the 95 % interval, on average
    bias: float  # mean of the estimated difference less the true one
    covered: float  # share of the 95 % intervals that hold the true difference

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson, 95 %."""
        low, high = binomtest(self.promoted, self.pairs).proportion_ci(method="wilson")
        return float(low), float(high)


def promoted(comparison: Comparison, *, margin: float) -> bool:
    """The part of the gate that looks at the champion, without slices."""
    gate = Gate(
        floors={},
        margin=margin,
        risk=RISK,
        resamples=int(comparison["resamples"]),
        slices=(),
        slice_margin=1,
        max_model_megabytes=1,
        max_row_milliseconds=1,
    )
    return all(reason.passed for reason in champion_reasons(comparison, [], gate))


def compared(
    pair: int, population: Population, *, owns: tuple[float, float], seen: float, margin: float, resamples: int
) -> Comparison:
    """The gate's comparison of one drawn pair; `owns` of the candidate and of the champion."""
    labels, days, (candidate, champion) = population.draw(owns, seen, days=population.days, seed=[pair, round(margin * 1e6)])
    return paired_bootstrap(labels, days, candidate, champion, resamples=resamples, margin=margin, seed=pair)


def rates(population: Population, margin: float, *, pairs: int, resamples: int, pool: Executor | None = None) -> Iterator[Rate]:
    """Worse, equal, better: the same seeds give each its own pairs."""
    seen, good, bad = population.seen, population.own, population.own_of_worse(margin)
    owns = {"worse": (bad, good), "equal": (good, good), "better": (good, bad)}
    for place, (truth, sign) in enumerate(TRUTHS.items()):
        work = partial(compared, population=population, owns=owns[truth], seen=seen, margin=margin, resamples=resamples)
        seeds = range(place * pairs, (place + 1) * pairs)
        found = list(pool.map(work, seeds, chunksize=5) if pool else map(work, seeds))
        means = np.array([one["mean_difference"] for one in found])
        lows, highs = (np.array([one[end] for one in found]) for end in ("interval_low", "interval_high"))
        yield Rate(
            truth=truth,
            margin=margin,
            promoted=sum(promoted(one, margin=margin) for one in found),
            pairs=pairs,
            standard_error=float(means.std(ddof=1)),
            bootstrap_error=float((highs - lows).mean() / (2 * 1.96)),
            bias=float(means.mean() - sign * margin),
            covered=float(((lows <= sign * margin) & (sign * margin <= highs)).mean()),
        )


def sampled_difference(batch: int, population: Population, *, days: int, owns: tuple[float, float], seen: float) -> float:
    """Of average precision, on many days at once."""
    labels, _, (first, second) = population.draw(owns, seen, days=days, seed=[batch, 99])
    return float(average_precision_score(labels, first) - average_precision_score(labels, second))


def checked_difference(
    population: Population, margin: float, *, batches: int, days: int, pool: Executor | None = None
) -> tuple[float, float]:
    """The true difference once more, from `batches` samples of `days` days: mean and its Monte Carlo error."""
    owns = (population.own_of_worse(margin), population.own)
    work = partial(sampled_difference, population=population, days=days, owns=owns, seen=population.seen)
    found = np.array(list(pool.map(work, range(batches)) if pool else map(work, range(batches))))
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(batches))


def supported(found: Sequence[Rate]) -> float | None:
    """The smallest margin from which on, upwards, the worse are promoted in under 5 % and the better in over 80 %; None without one."""
    smallest = None
    for margin in sorted({rate.margin for rate in found}, reverse=True):
        share = {rate.truth: rate.promoted / rate.pairs for rate in found if rate.margin == margin}
        if share["worse"] >= 0.05 or share["better"] <= 0.80:
            break
        smallest = margin
    return smallest


def show(out: Console, population: Population, found: Sequence[Rate]) -> None:
    table = Table(title=f"{population.alike:.1%} of the variance of the score errors in common", title_justify="left")
    for heading in ("margin", "candidate is", "promoted", "95 % (Wilson)", "error", "bootstrap's", "bias", "covered"):
        table.add_column(heading, justify="left" if heading == "candidate is" else "right")
    for rate in found:
        low, high = rate.interval
        table.add_row(
            f"{rate.margin:g}" if rate.truth == "worse" else "",
            rate.truth,
            f"{rate.promoted / rate.pairs:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{rate.standard_error:.4f}",
            f"{rate.bootstrap_error:.4f}",
            f"{rate.bias:+.4f}",
            f"{rate.covered:.1%}",
            end_section=rate.truth == "better",
        )
    out.print(table)


def main(
    pairs: Annotated[int, typer.Option(min=2, help="Simulated pairs of each kind and margin.")] = 200,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap, for each pair.")] = 500,
    workers: Annotated[int, typer.Option(min=1)] = os.cpu_count() or 1,
) -> None:
    """Simulate, decide, count."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the workers, which start afresh, are as many as the cores
    out, started = Console(width=110), time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for alike, margins in TRIED:
            population = Population(alike=alike)
            found: list[Rate] = []
            for margin in margins:
                mean, error = checked_difference(population, margin, batches=20, days=100, pool=pool)
                out.print(f"true difference {-margin:+.4f}; on 20 samples of 100 days {mean:+.5f} ± {error:.5f}")
                found += rates(population, margin, pairs=pairs, resamples=resamples, pool=pool)
            show(out, population, found)
            smallest = supported(found)
            out.print("supported: " + (f"a margin of {smallest:g}\n" if smallest else "none of these margins\n"))
    out.print(
        f"{population.days} days x {population.payments:,} payments, {population.rate:.2%} frauds, average precision "
        f"{population.average_precision}; {pairs} pairs a row, {resamples} resamples, risk {RISK:g}; {time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    typer.run(main)
