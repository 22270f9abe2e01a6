"""A use case whose columns, ids, categories, files and labels are markup, code and queries, and what a reader of its pages may see."""

import csv
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.sources.mapped import MappedFiles
from ml_assets.stages.features import columns_of
from ml_assets.use_case import (
    AlertShare,
    Column,
    Day,
    DType,
    Fact,
    Features,
    Gate,
    Intake,
    Label,
    Latest,
    Slice,
    Split,
    Table,
    Trailing,
    Training,
    UseCase,
    day_range,
)

START, END, GO_LIVE = "2024-01-01", "2024-02-13", "2024-01-29"
DAYS = day_range(START, "2024-02-12")
KNOWN_AFTER = timedelta(hours=6)
CUSTOMER, KIND = 'customer "no" <img src=x onerror=hacked=1>', "kind | **x** <script>hacked=1</script> $x$"
PIPES, UPPER, LOWER = '5" pipes, [a]{b}: c%s', "Amount", "amount"
DAY, LABEL, PLACE = "Day", "label", "select :p FROM `x`; --"
HEADERS = {
    "id": "event_id",
    "at": "day",
    CUSTOMER: "reject_reason",
    KIND: 'kind"; DROP TABLE x; -- {{ 7 * 7 }}',
    PIPES: "{% raw %}",
    UPPER: "AMOUNT",
    LOWER: "amount",
    PLACE: "=HYPERLINK(1)",
    "truth": "label",
}
"""Delivered column → header of the files."""
POSITIVE, NEGATIVE = r"\N<b>'", "{{ no }}"
HOSTILE = (
    "<script>hacked=1</script>",
    "<img src=https://evil.example/x.png onerror=hacked=1>",
    "![x](https://evil.example/x.png) [click](javascript:hacked=1)",
    "https://evil.example www.evil.example me@evil.example",
    "| a | **b** `c` ~~d~~ $e^2$ _f_",
    '=HYPERLINK("https://evil.example")',
    "'; DROP TABLE events; --",
    "{{ 7 * 7 }} {% raw %} ${HOME} %s :at",
    "[red]x[/] [/] \\",
    "</td></table><h1>x</h1>",
    "日本 <b>é</b> ‮abc",
    "null",
)
FILE = "a & b <i> '$x$ {day}.csv"
TIMESTAMP, TEXT, WHOLE, NUMBER = DType.TIMESTAMP, DType.STRING, DType.INT64, DType.FLOAT64

CLEAN = (
    Column(name="event_id", dtype=TEXT),
    Column(name="at", dtype=TIMESTAMP, description="when <b>it</b> happened"),
    Column(name="known at", dtype=TIMESTAMP),
    Column(name=LABEL, dtype=WHOLE, minimum=0, maximum=1, known_at="known at"),
    Column(name=CUSTOMER, dtype=TEXT, nullable=True),
    Column(name=KIND, dtype=TEXT, description=HOSTILE[2], unit="<b>"),
    Column(name=PIPES, dtype=NUMBER, minimum=0),
    Column(name=UPPER, dtype=WHOLE),
    Column(name=LOWER, dtype=NUMBER, nullable=True),
    Column(name=PLACE, dtype=TEXT, nullable=True),
)


def source(settings: Mapping[str, str]) -> MappedFiles:
    return MappedFiles(
        folder=Path(settings["HOSTILE_FILES"]), pattern=FILE, columns=HEADERS, day_column="at", timezone="UTC", complete_to=END
    )


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    same = {name: rows[name] for name in (CUSTOMER, KIND, PIPES, UPPER, LOWER, PLACE)}
    truth = (rows["truth"] == POSITIVE).astype("int64")
    return pd.DataFrame({"event_id": rows["id"], "at": rows["at"], "known at": rows["at"] + KNOWN_AFTER, LABEL: truth, **same})


def day_of(row: Mapping[str, Any]) -> Day:
    return datetime.fromtimestamp(row["at"] // 1_000_000, tz=UTC).date().isoformat()


EVENTS = Table(
    name="events",
    source=source,
    delivered=(
        Column(name="id", dtype=TEXT),
        Column(name="at", dtype=TIMESTAMP),
        Column(name=CUSTOMER, dtype=TEXT, nullable=True),
        Column(name=KIND, dtype=TEXT),
        Column(name=PIPES, dtype=NUMBER),
        Column(name=UPPER, dtype=WHOLE),
        Column(name=LOWER, dtype=NUMBER, nullable=True),
        Column(name=PLACE, dtype=TEXT, nullable=True),
        Column(name="truth", dtype=TEXT, allowed=(POSITIVE, NEGATIVE)),
    ),
    columns=CLEAN,
    key=("event_id",),
    derive=derive,
    intake=Intake(day=day_of),
    max_rejected_share=0.2,
)
_FACT = Fact(name=f"x {UPPER} <b>", table="events", value=UPPER, known_at="at", unit="<i>", known_within=timedelta(0))
TRAILING = (
    Trailing(
        fact=_FACT, entities=((CUSTOMER,), (CUSTOMER, PLACE)), windows=(timedelta(days=3),), statistics=("count", "mean", "std")
    ),
)
LATEST = (
    Latest(
        name="previous`",
        table="events",
        entity=(CUSTOMER,),
        known_at="at",
        values=(PIPES,),
        itself=False,
        known_within=timedelta(0),
    ),
)
NUMBERS = (PIPES, UPPER, LOWER)
CASE = UseCase(
    name="hostile",
    title="Hostile </script><script>hacked=1</script>",
    owner="team:nobody",
    timezone="UTC",
    start=START,
    end=END,
    tables=(EVENTS,),
    events="events",
    event_time="at",
    climatology=(KIND,),
    label=Label(column=LABEL, known_at="known at", entities=(CUSTOMER,), latest_after=timedelta(days=2)),
    features=Features(
        event_columns=(*NUMBERS, KIND, CUSTOMER, PLACE),
        trailing=TRAILING,
        latest=LATEST,
        lookups=(),
        row=lambda columns: {name: columns[name].astype(np.float64) for name in NUMBERS},
        columns=(
            *(Column(name=name, dtype=NUMBER, nullable=True) for name in NUMBERS),
            Column(name=KIND, dtype=TEXT, nullable=True),
            *columns_of(TRAILING, LATEST, ()),
        ),
    ),
    split=Split(weekday=0, first_go_live=GO_LIVE, holdout_days=7, embargo_days=1, minimum_training_days=14),
    gate=Gate(
        floors={"average_precision": 0.05, "roc_auc": 0.5},
        margin=0.05,
        risk=0.9,
        resamples=50,
        slices=(
            Slice(column=KIND, minimum_rows=5, required=False),
            Slice(column=PIPES, minimum_rows=5, edges=(2.0,), required=False),
        ),
        slice_margin=0.5,
        max_model_megabytes=5,
        max_row_milliseconds=1000,
        baseline_margin=0.3,  # a line describes these data as well as trees do
    ),
    training=Training(
        parameters={"num_leaves": 7, "learning_rate": 0.1, "min_data_in_leaf": 10, "num_threads": 1},
        trees=30,
        operating=AlertShare(share=0.2),
        seed=7,
    ),
)


def write_deliveries(folder: Path, per_day: int = 80) -> None:
    """A file a day. Each day has a row whose number is none, and one whose label is neither of the two."""
    random = np.random.default_rng(5)
    folder.mkdir()
    for number, day in enumerate(DAYS):
        lines = []
        for place in range(per_day):
            kind = HOSTILE[random.integers(len(HOSTILE))]
            pipes, amount = round(float(random.gamma(2, 1)), 3), int(random.integers(0, 1000))
            chance = 1 / (1 + np.exp(2.5 - pipes + (0 if len(kind) % 2 else 1)))
            lines.append(
                [
                    f"<b>{number}|{place}</b>",
                    f"{day}T{place * 18 // 60 % 24:02d}:{place * 18 % 60:02d}:00Z",
                    HOSTILE[random.integers(6)] if place % 7 else "",
                    kind,
                    pipes,
                    amount,
                    round(float(random.normal()), 3) if place % 5 else "",
                    HOSTILE[random.integers(len(HOSTILE))],
                    POSITIVE if random.random() < chance else NEGATIVE,
                ]
            )
        lines[3][4] = HOSTILE[number % 2]
        lines[4][8] = HOSTILE[2 + number % 2]
        with (folder / FILE.format(day=day)).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(HEADERS.values()), *lines])


class Seen(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._in_style = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.text += data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def strange(self) -> list[tuple[str, dict[str, str | None]]]:
        """Elements that do something, ask somebody or lead somewhere."""
        return [
            (tag, attributes)
            for tag, attributes in self.elements
            if tag in ("script", "iframe", "object", "embed", "form", "base", "svg", "a")
            or any(name.startswith("on") for name in attributes)
            or not str(attributes.get("src", "data:")).startswith("data:")
            or (tag == "link" and attributes.get("href") != "data:,")
        ]
