"""A year of a case that `ml-assets new` makes, whose labels come 1 to 20 days late: in a column that fills up, and in a table of their own.

    python benchmarks/year_of_labels.py [--days 365] [--orders 60] [--step 1]

Each simulated day brings a file of its orders, without their labels, and those orders again whose label came that day (or, in the other
world, a file of labels). After each day everything up to it is made by the very command, `bring_up_to_date`, as a user would every night.

It stops with an error unless every day was scored on its day, no label counted before it arrived, and both worlds have the same tables,
decisions and models to the last bit.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.orchestration.rounds import Runner, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.storage.tables import content_hashes
from ml_assets.use_case import UseCase, day_range, shift
from ml_assets_tests.generated_cases import NAME, generated

START, SAMPLE_DAYS = "2023-01-01", 60
SAME = ("events", "labels", "features", "scores", "live_performance")


def orders(days: int, a_day: int) -> pd.DataFrame:
    """What a shop exports, whether each order was returned, and on which day that became known."""
    r = np.random.default_rng(7)
    count = days * a_day
    at = pd.Timestamp(START, tz="UTC") + pd.to_timedelta(np.sort(r.uniform(0, days * 86400, count)), unit="s").round("s")
    customer = r.integers(1, 201, count)
    risk = r.normal(0, 1.3, 201)[customer]
    qty, channel = r.integers(1, 9, count), r.choice(["web", "app", "shop"], count, p=[0.5, 0.3, 0.2])
    chance = 1 / (1 + np.exp(-(-1.6 + risk + 0.15 * (qty - 4) + 0.7 * (channel == "web"))))
    day = at.strftime("%Y-%m-%d")
    return pd.DataFrame(
        {
            "order_id": np.arange(100_000, 100_000 + count),
            "ordered_at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "customer_id": customer,
            "amount": np.round(np.exp(r.normal(3.5, 0.8, count)), 2),
            "qty": qty,
            "channel": channel,
            "returned": (r.uniform(size=count) < chance).astype(int),
            "day": day,
            "labelled": [shift(each, int(late)) for each, late in zip(day, r.integers(1, 21, count), strict=True)],
        }
    )


def deliver(rows: pd.DataFrame, day: str, folder: Path, *, own_table: bool) -> None:
    """The files that come at the end of a day."""
    columns = ["order_id", "ordered_at", "customer_id", "amount", "qty", "channel", "returned"]
    new = rows[rows["day"] == day].assign(returned=pd.NA)[columns]
    known = rows[rows["labelled"] == day][columns]
    for name in ("days", "labels"):
        (folder / name).mkdir(exist_ok=True)
    (new if own_table else pd.concat([new, known])).to_csv(folder / "days" / f"{day}.csv", index=False)
    if own_table:
        known[["order_id", "ordered_at", "customer_id", "returned"]].to_csv(folder / "labels" / f"{day}.csv", index=False)


def settings_of(folder: Path, end: str, *, own_table: bool) -> Path:
    mapped = ("order_id", "ordered_at", "customer_id", "amount", "qty", "channel", "returned")
    columns = ", ".join(f'{name} = "{name}"' for name in mapped)
    text = f'start = "{START}"\nend = "{end}"\nfolder = "."\n\n[events]\nfiles = "days/{{day}}.csv"\ncolumns = {{{columns}}}\n'
    if own_table:
        own = ", ".join(f'{name} = "{name}"' for name in ("order_id", "ordered_at", "customer_id", "returned"))
        text += f'\n[ground_truth]\nfiles = "labels/{{day}}.csv"\ncolumns = {{{own}}}\n'
    (folder / "files.toml").write_text(text)
    return folder / "files.toml"


@contextmanager
def world(case: UseCase, end: str, *, own_table: bool) -> Iterator[tuple[UseCase, Runner, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        setting = f"ML_ASSETS_{NAME.upper()}_FILES"
        os.environ[setting] = str(settings_of(Path(folder), end, own_table=own_table))
        configured = case.configure(case, dict(os.environ)) if case.configure else case
        runner = Runner(
            case=configured, store=Store(root=f"{folder}/root"), instance=dg.DagsterInstance.ephemeral(), heard=lambda _record: None
        )
        yield configured, runner, Path(folder)


def live_year(case: UseCase, rows: pd.DataFrame, days: list[str], *, step: int, own_table: bool, name: str) -> dict[str, Any]:
    """What is there after the last day; what must hold on each day is asked on that day."""
    with world(case, shift(days[-1], 1), own_table=own_table) as (configured, runner, folder):
        tables, models = runner.store.tables(configured), runner.store.models
        began = time.monotonic()
        for first in range(0, len(days), step):
            new = days[first : first + step]
            for day in new:
                deliver(rows, day, folder, own_table=own_table)
            bring_up_to_date(runner, last=new[-1])
            events, scores = tables.ledger("features"), tables.ledger("scores")
            for day in new:
                count = int((rows["day"] == day).sum())
                require(day in events and events[day].rows == count, f"{day}: every order has features on its day")
                if models.in_force_on(configured.name, [day]):
                    require(day in scores and scores[day].rows == count, f"{day}: every order is scored on its day")
            known = tables.read("labels", columns=["event_id", "day", "known_at"])
            arrived = known["event_id"].astype(int).map(rows.set_index("order_id")["labelled"])
            require(bool((known["day"] >= arrived).all()), f"{new[-1]}: no label counts before it arrived")
            require(len(known) == (rows["labelled"] <= new[-1]).sum(), f"{new[-1]}: every label that arrived is there")
            if new[-1].endswith("-01") or new[-1] == days[-1]:
                print(
                    f"{name}, {new[-1]}: {len(known):,} labels, {len(runner.results)} runs, {time.monotonic() - began:.0f} s",
                    flush=True,
                )
        decisions = [(each.effective, each.kind, each.candidate, each.version) for each in models.decisions.all(configured.name)]
        contents = {}
        for name in SAME:
            content = tables.read(name).drop(columns=["source_file", "source_row"], errors="ignore")
            contents[name] = content_hashes(content, sorted(content["day"].unique()))
        return {"decisions": decisions, **contents}


def require(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"does not hold: {what}")


def lived(options: argparse.Namespace, name: str, *, own_table: bool) -> dict[str, Any]:
    """What is there after the year, of the case that `new` makes of its first weeks."""
    logging.disable(logging.WARNING)
    sampled, days = orders(max(options.days, SAMPLE_DAYS), options.orders), day_range(START, shift(START, options.days - 1))
    rows = sampled[sampled["day"] <= days[-1]]
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "orders.csv"
        sampled[sampled["day"] < shift(START, SAMPLE_DAYS)].drop(columns=["day", "labelled"]).to_csv(sample, index=False)
        with generated(sample) as (case, _):
            return live_year(case, rows, days, step=options.step, own_table=own_table, name=name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--orders", type=int, default=60, help="a day")
    parser.add_argument("--step", type=int, default=1, help="after how many days everything is made; 1 as every night")
    options = parser.parse_args()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        ways = {"a column that fills up": False, "a table of its own": True}
        running = {name: processes.submit(lived, options, name, own_table=own_table) for name, own_table in ways.items()}
        worlds = {name: each.result() for name, each in running.items()}
    one, other = worlds.values()
    for name in one:
        require(one[name] == other[name], f"both worlds have the same {name}")
    kinds = pd.Series([kind for _, kind, *_ in one["decisions"]]).value_counts().to_dict()
    print(f"the same to the last bit: {', '.join(SAME)} and {len(one['decisions'])} decisions ({json.dumps(kinds)})")


if __name__ == "__main__":
    main()
