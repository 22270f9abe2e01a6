"""What the models of card_fraud are worth live, week by week, on the reference payments, beside the recipe of the book.

    python benchmarks/card_fraud.py [--root FOLDER]

The first goes through the whole pipeline: features, search, evaluation, gate, deployment, scores, live performance; a refused week is
scored by the model in force, as it would be live. "The book" is its fifteen features and one week of training without a search. The
gate refuses it in some weeks, since the logistic baseline is better; here every week is scored by its own candidate. Needs the payments
that `ML_ASSETS_REFERENCE_DATA` names (folder with `card_transactions/*.parquet`). With `--root`, tables and models stay there, and what is
there and fresh is not made again.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import dagster as dg
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ml_assets.orchestration import summary
from ml_assets.orchestration.partitions import case_weeks
from ml_assets.orchestration.rounds import AFTER_DEPLOYMENT, Runner, bring_up_to_date
from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import CANDIDATE, REPORT
from ml_assets.use_case import UseCase, shift
from ml_assets.use_cases import find
from ml_assets.use_cases.card_fraud.features import BOOK
from ml_assets.use_cases.card_fraud.source import FILES

WEEKS = 4
SHARED = ("raw_transactions", "raw_chargebacks", "transactions", "chargebacks", "labels", "features")
FIGURES = {"average precision": "average_precision", "ROC AUC": "roc_auc", "card precision@100": "precision_at_top"}
MAPPING = """
start = "2018-04-01"
end = "2018-08-09"
first_go_live = "2018-07-04"
folder = "{folder}"

[transactions]
files = "card_transactions/*.parquet"
[transactions.columns]
transaction_id = "TRANSACTION_ID"
paid_at = "TX_DATETIME"
customer_id = "CUSTOMER_ID"
terminal_id = "TERMINAL_ID"
amount = "TX_AMOUNT"

[chargebacks]
of = "transactions"
flag = "TX_FRAUD"
delay_days = 7
columns = {{scenario = "TX_FRAUD_SCENARIO"}}
delayed = {{reported_at = "TX_DATETIME"}}
"""


def by_the_book(case: UseCase) -> UseCase:
    """The fifteen features; a model learns from the last week whose labels are known."""
    return replace(
        case,
        training=replace(case.training, features=BOOK, search=None, kept_negatives=1.0, trees=100),
        split=replace(case.split, training_days=7, minimum_training_days=7),
    )


@contextmanager
def runner(case: UseCase, root: Path, out: Console) -> Iterator[Runner]:
    home = root / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    storage = (
        f"{{module: ml_assets.orchestration.event_log, class: BatchedSqliteStorage, config: {{base_dir: {home / 'storage'}}}}}"
    )
    (home / "dagster.yaml").write_text(f"storage:\n  custom: {storage}\ntelemetry: {{enabled: false}}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Runner(
            case=case,
            store=Store(root=str(root)),
            instance=instance,
            heard=lambda _: None,
            begun=lambda what, _: out.print(f"  {what}"),
        )


def live_weeks(case: UseCase, root: Path, out: Console) -> list[summary.Week]:
    started = time.perf_counter()
    with runner(case, root, out) as begun:
        bring_up_to_date(begun)
    out.print(f"  {time.perf_counter() - started:.0f} s")
    return summary.weeks(case, Store(root=str(root)))[:WEEKS]


def ungated_weeks(case: UseCase, root: Path, out: Console) -> list[summary.Week]:
    """Every candidate goes live, whatever the gate says of it; the tables up to features are there."""
    started = time.perf_counter()
    with runner(case, root, out) as begun:
        weeks, models = case_weeks(case).get_partition_keys()[:WEEKS], begun.store.models
        begun.run((CANDIDATE, REPORT), weeks[0], weeks[-1], title="models")
        for week in weeks:
            noted = models.noted(case.name, CANDIDATE, week)
            if noted is None:
                raise RuntimeError(f"no candidate of {week}")
            models.deploy(case.name, week, noted["version"], {"why": "a benchmark: the gate is not asked"})
        begun.run(AFTER_DEPLOYMENT, weeks[0], shift(weeks[-1], 6), title="scores and live performance")
    out.print(f"  {time.perf_counter() - started:.0f} s")
    return summary.weeks(case, Store(root=str(root)))


def show(out: Console, title: str, weeks: list[summary.Week]) -> None:
    table = Table("week", "model in force", "decision", title=title, title_justify="left")
    for name in FIGURES:
        table.add_column(f"live {name}", justify="right")
    figures = np.array([[(week.live or {}).get(figure, np.nan) for figure in FIGURES.values()] for week in weeks])
    for week, row in zip(weeks, figures, strict=True):
        decision = "promoted" if week.report.decision.promoted else "refused"
        table.add_row(week.week, week.in_force or "none", f"by the gate {decision}", *(f"{value:.4f}" for value in row))
    table.add_section()
    table.add_row("mean", "", "", *(f"{value:.4f}" for value in figures.mean(axis=0)), style="bold")
    out.print(table)


def main(root: Annotated[Path | None, typer.Option(help="Keep tables and models here.")] = None) -> None:
    """Run both recipes through the pipeline and compare them live."""
    reference = os.environ.get("ML_ASSETS_REFERENCE_DATA")
    out = Console(width=140)
    if not reference:
        out.print("skipped: set ML_ASSETS_REFERENCE_DATA to the folder that holds card_transactions/*.parquet")
        return
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    with tempfile.TemporaryDirectory(prefix="card-fraud-") as folder:
        place = (root or Path(folder)).resolve()
        mapping = place / "reference.toml"
        place.mkdir(parents=True, exist_ok=True)
        mapping.write_text(MAPPING.format(folder=Path(reference).resolve()), encoding="utf-8")
        os.environ[FILES] = str(mapping)
        case = find("card_fraud", os.environ)
        out.print("the shipped recipe")
        show(out, "The shipped recipe, tuned each week without the week", live_weeks(case, place / "ours", out))
        tables = place / "book" / "tables" / case.name
        tables.mkdir(parents=True, exist_ok=True)
        for name in SHARED:
            if not (tables / name).exists():
                (tables / name).symlink_to(place / "ours" / "tables" / case.name / name)
        out.print("the book's recipe")
        show(
            out,
            "The book's fifteen features, one week of training, no search",
            ungated_weeks(by_the_book(case), place / "book", out),
        )


if __name__ == "__main__":
    typer.run(main)
