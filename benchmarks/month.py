"""A simulated month, operated by Dagster's daemon and web server alone: what ran and why, and whether every asset ends right.

    python benchmarks/month.py [--kills] [--week]

Thirty days of a small shop: one comes three days late, one is poisoned and repaired two days later, the source is down for two days, and
from the 15th on customers buy other things in another way. The clock goes on when what can be made of a day is made. With `--kills` the
daemon is killed (SIGKILL, with its runs) nine times and the web server five times at random moments. In the end tables are compared with
those that `ml-assets run` makes of the same deliveries in one go. Ends with status 1 when something is not right, or when there were
more than twelve runs a day.

Takes half an hour on two idle cores.
"""

import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ml_assets_tests.end_to_end.month import MONTH, WEEK, Month, counted, judge

MOST_RUNS_A_DAY = 12


def main(
    kills: Annotated[bool, typer.Option(help="Kill the daemon and the web server at random moments.")] = False,
    week: Annotated[bool, typer.Option(help="Seven days instead of thirty.")] = False,
    seed: int = 1,
) -> None:
    out = Console(width=200, soft_wrap=True)
    plan = replace(WEEK if week else MONTH, kills={})
    if kills:
        drawn = random.Random(seed)
        days = [drawn.randrange(plan.days) for _ in range(14)]
        plan = replace(
            plan,
            kills={
                day: tuple(who for at, who in zip(days, ["daemon"] * 9 + ["webserver"] * 5, strict=True) if at == day)
                for day in days
            },
        )
    with tempfile.TemporaryDirectory() as folder:
        month = Month(place=Path(folder) / "month", plan=plan, told=out.print)
        month.place.mkdir()
        month.prepare()
        begin = time.monotonic()
        month.play()
        with month.instance() as instance:
            runs = month.runs(instance)
        shown = Table(title=f"{plan.days} days in {time.monotonic() - begin:.0f} s: {len(runs)} runs")
        for name in runs[0]:
            shown.add_column(name)
        for run in runs:
            shown.add_row(*run.values())
        out.print(shown)
        for reason, count in counted(runs).most_common():
            out.print(f"{count:4} {reason}")
        out.print(f"killed: {', '.join(month.kills) or 'nobody'}")
        for decision in month.models.decisions.all("shop"):
            out.print(f"{decision.effective}: {decision.kind} {decision.candidate}: {decision.reason}")
        wrong = judge(month, month.reference(Path(folder) / "reference"))
        if len(runs) > MOST_RUNS_A_DAY * plan.days:
            wrong.append(f"{len(runs)} runs in {plan.days} days are a storm")
        for each in wrong:
            out.print(f"[red]✗[/] {each}")
        out.print("every asset ended right" if not wrong else f"{len(wrong)} things are wrong")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
