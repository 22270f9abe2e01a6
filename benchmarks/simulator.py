"""Seconds and memory that the payments of card_fraud take to make.

    python benchmarks/simulator.py

Each world is made in a process of its own, places and habits included; memory is the process's peak, with the libraries it imports.
Ends with status 1 where a limit is exceeded.
"""

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.table import Table

from ml_assets.use_case import day_range, shift
from ml_assets.use_cases.card_fraud.simulator import World, payments

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; macOS counts them singly


@dataclass(frozen=True, kw_only=True)
class Task:
    world: World
    days: int
    limit_seconds: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    payments: int
    seconds: float
    peak_megabytes: float


TASKS = (
    Task(world=World(seed=1), days=183, limit_seconds=6),
    Task(world=World(seed=1), days=1, limit_seconds=1),
    Task(world=World(customers=50_000, terminals=100_000, seed=1), days=1, limit_seconds=20),
)


def measured(task: Task) -> Cost:
    days = day_range(task.world.first_day, shift(task.world.first_day, task.days - 1))
    started = time.perf_counter()
    rows = len(payments(task.world, days))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1_000_000
    return Cost(payments=rows, seconds=seconds, peak_megabytes=peak)


def show(out: Console, costs: dict[Task, Cost]) -> None:
    table = Table(title="payments of card_fraud", title_justify="left")
    for heading in ("customers", "terminals", "days", "payments", "seconds", "limit", "peak MB"):
        table.add_column(heading, justify="right")
    for task, cost in costs.items():
        numbers = (task.world.customers, task.world.terminals, task.days, cost.payments)
        style = "red" if cost.seconds > task.limit_seconds else ""
        shown = (f"{cost.seconds:.2f}", f"{task.limit_seconds:g}", f"{cost.peak_megabytes:,.0f}")
        table.add_row(*(f"{number:,}" for number in numbers), *shown, style=style)
    out.print(table)


def main() -> None:
    """Time the simulator against its limits."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh, max_tasks_per_child=1) as processes:
        costs = dict(zip(TASKS, processes.map(measured, TASKS), strict=True))
    show(Console(width=100), costs)
    if any(cost.seconds > task.limit_seconds for task, cost in costs.items()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
