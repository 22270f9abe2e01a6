"""A shop whose labels come 1 to 20 days late, in a column that fills up or in a table of their own, played night after night.

Belongs here: what comes on each day, and what must hold after each night. Does not: how many nights (`test_two_ways_of_labels`,
`benchmarks/year_of_labels.py`).
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.orchestration.rounds import Runner, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.storage.tables import content_hashes
from ml_assets.use_case import Day, UseCase, shift
from ml_assets_tests.generated_cases import NAME, generated

SETTING = f"ML_ASSETS_{NAME.upper()}_FILES"
START, SAMPLE_DAYS = "2023-01-01", 60
SAME = ("events", "labels", "features", "scores", "live_performance")
"""Tables that do not tell the two ways apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What must not depend on how labels arrive."""

    decisions: tuple[tuple[Any, ...], ...]
    contents: Mapping[str, Mapping[Day, str]]

    @property
    def digest(self) -> str:
        return sha256(repr((self.decisions, sorted(self.contents.items()))).encode()).hexdigest()[:12]

    @property
    def scored(self) -> set[Day]:
        return set(self.contents.get("scores", ()))


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
def shop(case: UseCase, end: Day, *, own_table: bool) -> Iterator[tuple[Runner, Path]]:
    """Of a case that `new` made, and where its files come, until the day before `end`."""
    with TemporaryDirectory() as name, dg.DagsterInstance.ephemeral() as instance:
        folder = Path(name)
        file = settings_of(folder, end, own_table=own_table)
        with patch.dict(os.environ, {SETTING: str(file)}):
            configured = case.configure(case, dict(os.environ)) if case.configure else case
            store = Store(root=str(folder / "root"))
            yield Runner(case=configured, store=store, instance=instance, heard=lambda _record: None), folder


def live(
    case: UseCase, rows: pd.DataFrame, nights: Sequence[Sequence[Day]], *, own_table: bool, told: Callable[[str], object]
) -> State:
    """What is there after the last night; what must hold after each is asked after each.

    Args:
        nights: the days whose files came since the night before.
        told: gets a line after the last night and after each on the first of a month.
    """
    last = nights[-1][-1]
    with shop(case, shift(last, 7), own_table=own_table) as (runner, folder):
        began = time.monotonic()
        for days in nights:
            for day in days:
                deliver(rows, day, folder, own_table=own_table)
            bring_up_to_date(runner, last=days[-1])
            labels = require_a_good_night(runner, rows, days)
            if days[-1].endswith("-01") or days[-1] == last:
                seconds, state = time.monotonic() - began, state_of(runner)
                told(f"{days[-1]}: {labels:,} labels, {len(runner.results)} runs, {seconds:.0f} s, state {state.digest}")
    return state


def require_a_good_night(runner: Runner, rows: pd.DataFrame, days: Sequence[Day]) -> int:
    """How many labels there are.

    Raises:
        AssertionError: a day was not scored on its day, or a label counts before it arrived, or is not there although it did.
    """
    tables, models = runner.store.tables(runner.case), runner.store.models
    features, scores = ({day: each.rows for day, each in tables.ledger(name).items()} for name in ("features", "scores"))
    for day in days:
        count = int((rows["day"] == day).sum())
        assert features.get(day) == count, f"{day}: not every order has features on its day"
        if models.in_force_on(runner.case.name, [day]):
            assert scores.get(day) == count, f"{day}: not every order is scored on its day"
    known = tables.read("labels", columns=["event_id", "day"])
    arrived = known["event_id"].astype(int).map(rows.set_index("order_id")["labelled"])
    assert bool((known["day"] >= arrived).all()), f"{days[-1]}: a label counts before it arrived"
    assert len(known) == (rows["labelled"] <= days[-1]).sum(), f"{days[-1]}: not every label that arrived is there"
    return len(known)


def state_of(runner: Runner) -> State:
    """As of now."""
    tables, log = runner.store.tables(runner.case), runner.store.models.decisions
    decisions = tuple((each.effective, each.kind, each.candidate, each.version) for each in log.all(runner.case.name))
    contents = {}
    for name in filter(tables.ledger, SAME):
        content = tables.read(name).drop(columns=["source_file", "source_row"], errors="ignore")
        contents[name] = dict(sorted(content_hashes(content, sorted(content["day"].unique())).items()))
    return State(decisions=decisions, contents=contents)


@contextmanager
def opened(rows: pd.DataFrame) -> Iterator[UseCase]:
    """The case that `new` makes of the first weeks, when all of their labels are there."""
    with TemporaryDirectory() as folder:
        sample = Path(folder) / "orders.csv"
        first = rows[rows["day"] < shift(START, SAMPLE_DAYS)]
        first.drop(columns=["day", "labelled"]).to_csv(sample, index=False)
        with generated(sample) as (case, _):
            yield case
