"""A partition is a function of its declared inputs alone: in a range, one by one, in any split and order, and made again.

The stages are those of the assets, put together with the planner and files of deliveries. Tables are in memory and Great Expectations stays
out: neither changes what is computed, and a hundred deliveries would take an hour. One delivery goes through both, and tables on disk.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from ml_assets.orchestration import daily
from ml_assets.orchestration.store import Store
from ml_assets.sources.mapped import MappedFiles
from ml_assets.stages.features import columns_of
from ml_assets.use_case import (
    Column,
    Corrections,
    Day,
    DType,
    Fact,
    Features,
    Intake,
    Label,
    Latest,
    Spelling,
    Table,
    Trailing,
    UseCase,
    day_range,
    shift,
)
from ml_assets_tests.pipelines import Pipeline, without_expectations
from ml_assets_tests.stages.conftest import made_case

START, COUNT = "2024-01-01", 8
DAYS = day_range(START, shift(START, COUNT - 1))
ONE_DAY = timedelta(days=1)
EVENT = ("order_id", "ordered_at", "customer", "amount", "revision")
LABEL = ("order_id", "ordered_at", "customer", "returned")
# A delivery that fails is small already, and to shrink one takes minutes.
PHASES = (Phase.explicit, Phase.generate)
ROWS = settings(
    max_examples=int(os.environ.get("ML_ASSETS_TEST_DELIVERIES", "10")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=PHASES,
)


def derive_events(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.rename(columns={"order_id": "event_id"})


def derive_labels(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.rename(columns={"order_id": "event_id"}).assign(known_at=rows["ordered_at"] + ONE_DAY)


def no_day(row: Mapping[str, Any]) -> Day:
    raise AssertionError(row)


def case_of(folder: Path, corrections: Corrections | None, most_rejected: float = 1.0) -> UseCase:
    """Orders, of which some are returned: files of events and of labels, each under the day of its name."""
    text, time, number = DType.STRING, DType.TIMESTAMP, DType.INT64

    def files(name: str, columns: Sequence[str]) -> MappedFiles:
        named = {column: column for column in columns}
        return MappedFiles(folder=folder / name, pattern="{day}.csv", columns=named, day_column="ordered_at", timezone="UTC")

    key = Column(name="order_id", dtype=text, spelling=Spelling.WHOLE)
    common = (Column(name="ordered_at", dtype=time), Column(name="customer", dtype=text))
    event_id = Column(name="event_id", dtype=text)
    own = (Column(name="amount", dtype=number), Column(name="revision", dtype=number))
    truth = Column(name="returned", dtype=number, minimum=0, maximum=1)
    events = Table(
        name="events",
        source=lambda _: files("events", EVENT),
        delivered=(key, *common, *own),
        columns=(event_id, *common, *own),
        key=("event_id",),
        derive=derive_events,
        intake=Intake(day=no_day),
        time="ordered_at",
        late_days=3,
        corrections=corrections,
        max_rejected_share=most_rejected,
    )
    labels = Table(
        name="ground_truth",
        source=lambda _: files("labels", LABEL),
        delivered=(key, *common, truth),
        columns=(event_id, *common, replace(truth, known_at="known_at"), Column(name="known_at", dtype=time)),
        key=("event_id",),
        derive=derive_labels,
        time="ordered_at",
        late_days=4,
        unique="ever",
        max_rejected_share=1.0,
    )
    entity = (("customer",),)
    at_once, windows = timedelta(0), (ONE_DAY, 3 * ONE_DAY)
    amount = Fact(name="amount", table="events", value="amount", known_at="ordered_at", unit="euros", known_within=at_once)
    returned = Fact(
        name="returned", table="ground_truth", value="returned", known_at="known_at", unit="share", known_within=4 * ONE_DAY
    )
    trailing = (
        Trailing(fact=amount, entities=entity, windows=windows, statistics=("count", "sum", "mean", "std", "span")),
        Trailing(fact=returned, entities=entity, windows=windows, statistics=("count", "mean")),
    )
    latest = (
        Latest(
            name="previous",
            table="events",
            entity=("customer",),
            known_at="ordered_at",
            values=("amount",),
            changes=("amount",),
            within=2 * ONE_DAY,
            itself=False,
            known_within=at_once,
        ),
    )
    features = Features(
        event_columns=("customer", "amount"),
        trailing=trailing,
        latest=latest,
        lookups=(),
        row=lambda columns: {"amount": columns["amount"].astype(np.float64)},
        columns=(Column(name="amount", dtype=DType.FLOAT64), *columns_of(trailing, latest, ())),
    )
    label = Label(table="ground_truth", column="returned", known_at="known_at", entities=("customer",), latest_after=5 * ONE_DAY)
    return replace(
        made_case(),
        start=START,
        end=shift(START, COUNT),
        tables=(events, labels),
        events="events",
        event_time="ordered_at",
        label=label,
        features=features,
        climatology=(),
    )


# Deliveries -------------------------------------------------------------------------------------------------------------------


def order(draw: Any, number: int, files: dict[str, dict[Day, list[tuple[Any, ...]]]]) -> None:
    """One order and all that is delivered of it: late, early, again, corrected or contradicted, and its label."""
    happened = draw(st.integers(0, COUNT - 1))
    at = f"{DAYS[happened]}T{draw(st.integers(0, 23)):02d}:{draw(st.sampled_from([0, 0, 30])):02d}:00Z"
    customer, amount = draw(st.sampled_from("abc")), draw(st.integers(-3, 9))
    first = (number, at, customer, amount, 1)
    delays = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, -1]), min_size=1, max_size=3))
    changes = [(0, 0), *draw(st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 2)), min_size=2, max_size=2))]
    for delay, (change, revision) in zip(delays, changes, strict=False):
        place = happened + delay
        if 0 <= place < COUNT:
            spelled = draw(st.sampled_from([str(number), f"{number}.0"]))
            files["events"][DAYS[place]].append((spelled, *first[1:3], amount + change, 1 + revision))
    for delay, label in draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=2)):
        if happened + delay < COUNT:
            files["labels"][DAYS[happened + delay]].append((number, at, customer, label))


@st.composite
def deliveries(draw: Any) -> dict[str, dict[Day, list[tuple[Any, ...]]]]:
    files: dict[str, dict[Day, list[tuple[Any, ...]]]] = {name: {day: [] for day in DAYS} for name in ("events", "labels")}
    for number in range(draw(st.integers(1, 12))):
        order(draw, number, files)
    return files


@contextmanager
def world(files: Mapping[str, Mapping[Day, Sequence[tuple[Any, ...]]]], *declared: Any) -> Iterator["World"]:
    with TemporaryDirectory() as folder:
        for name, columns in (("events", EVENT), ("labels", LABEL)):
            (Path(folder) / name).mkdir()
            for day, rows in files[name].items():
                pd.DataFrame(rows, columns=list(columns)).to_csv(Path(folder) / name / f"{day}.csv", index=False)
        yield World(Path(folder), *declared)


class World(Pipeline):
    """Deliveries, and what is made of them in each way."""

    def __init__(self, folder: Path, corrections: Corrections | None = None, most_rejected: float = 1.0) -> None:
        super().__init__(case_of(folder, corrections, most_rejected))
        self.folder = folder


LATE = {
    "events": {
        **{day: [] for day in DAYS},
        DAYS[4]: [("1", f"{DAYS[1]}T10:00:00Z", "a", 5, 1), ("2", f"{DAYS[4]}T09:00:00Z", "a", 7, 1)],
        DAYS[2]: [("3", f"{DAYS[2]}T10:00:00Z", "a", 2, 1), ("1.0", f"{DAYS[1]}T10:00:00Z", "a", 5, 1)],
    },
    "labels": {**{day: [] for day in DAYS}, DAYS[3]: [(1, f"{DAYS[1]}T10:00:00Z", "a", 1), (2, f"{DAYS[4]}T09:00:00Z", "a", 0)]},
}


@pytest.mark.parametrize(
    ("corrections", "most_rejected"),
    [(None, 1.0), (Corrections(by="revision", within_days=2), 1.0), (None, 0.3)],
    ids=["the first stays", "corrections", "bad days"],
)
@ROWS
@given(files=deliveries(), order=st.permutations(DAYS), cut=st.integers(1, COUNT - 1))
@example(files=LATE, order=DAYS[::-1], cut=4)
def test_a_range_its_days_in_any_order_and_a_split_give_the_same_tables(
    corrections: Corrections | None, most_rejected: float, files: Any, order: list[Day], cut: int
) -> None:
    with world(files, corrections, most_rejected) as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(daily, "audit", without_expectations)
        if most_rejected < 1:
            order = DAYS  # a day that was good and is made again, badly, stays published as it was: what came first counts there
        together = made.made([DAYS])
        ways = {"days": [[day] for day in order], "split": [sorted(order[:cut]), sorted(order[cut:]), DAYS[:2]]}
        for name, parts in ways.items():
            other = made.made(parts)
            assert other.keys() == together.keys()
            for table, rows in together.items():
                pd.testing.assert_frame_equal(other[table], rows, obj=f"{table}, {name}")
        if most_rejected == 1:
            assert all(together[f"days of {each}"]["day"].tolist() == DAYS for each in made.names)
            every_row_is_somewhere(together)


def test_with_tables_on_disk_and_every_expectation_it_is_the_same() -> None:
    with world(LATE) as made:
        together = made.made([DAYS], store=Store(root=str(made.folder / "together")))
        every_row_is_somewhere(together)
        in_pieces = made.made([DAYS[4:], DAYS[:2], DAYS[2:4]], store=Store(root=str(made.folder / "in_pieces")))
        for table, rows in together.items():
            pd.testing.assert_frame_equal(in_pieces[table], rows, obj=table)


def every_row_is_somewhere(tables: Mapping[str, pd.DataFrame]) -> None:
    for name in ("events", "ground_truth"):
        clean = tables[name]
        assert len(tables[f"raw_{name}"]) == len(clean) + len(tables[f"rejected_{name}"])
        assert clean["event_id"].is_unique
    assert tables["features"]["event_id"].tolist() == tables["events"]["event_id"].tolist()
    labels, events = tables["labels"], tables["events"].set_index("event_id")
    truth = tables["ground_truth"].set_index("event_id")
    known = truth["known_at"].dt.strftime("%Y-%m-%d")
    counts_from = {each: max(known[each], truth["day"][each], events["day"][each]) for each in truth.index if each in events.index}
    assert dict(zip(labels["event_id"], labels["day"], strict=True)) == {
        each: day for each, day in counts_from.items() if day <= DAYS[-1]
    }, "once it is known and delivered, and its event is"
    assert labels["event_id"].is_unique
    assert labels["label"].tolist() == truth["returned"].loc[labels["event_id"]].tolist()


def test_an_event_has_features_on_its_day_though_no_label_was_ever_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "audit", without_expectations)
    with world(LATE) as made:
        for file in (made.folder / "labels").iterdir():
            file.unlink()
        tables = made.made()
    assert tables["days of features"]["day"].tolist() == DAYS
    assert tables["days of ground_truth"].empty
    assert tables["features"]["returned_count_24h_by_customer"].eq(0).all()
