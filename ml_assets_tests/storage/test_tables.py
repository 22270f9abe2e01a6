"""Tables on a real disk: days appear whole, others stay as they are, and rows come back as they were written."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.fs import DeltaStorageHandler

from ml_assets.folders import LocalFolder
from ml_assets.storage import tables as module
from ml_assets.storage.tables import Entry, Tables, content_hashes
from ml_assets.use_case import day_range

SCHEMA = pa.schema(
    [
        ("event_id", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
        ("amount", pa.float64()),
        ("count", pa.int64()),
        ("kind", pa.string()),
        ("day", pa.string()),
    ]
)
A, B, C = "2024-01-01", "2024-01-02", "2024-01-03"


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(root=LocalFolder(tmp_path), case="small")


def rows_of(*days: str, count: int = 5, seed: int = 0) -> pd.DataFrame:
    """Rows of these days, day after day as given, some values missing; a day's rows depend on the day and the seed alone."""
    return pd.concat([_rows_of_day(day, count, seed) for day in days], ignore_index=True) if days else _rows_of_day(A, 0, 0)


def _rows_of_day(day: str, count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng([seed, int(day.replace("-", ""))])
    amounts = random.normal(size=count)
    kinds = pd.Series(random.choice(["a", "b", "ü"], count), dtype="str")
    return pd.DataFrame(
        {
            "event_id": pd.Series([f"{day}-{random.integers(10**9)}" for _ in range(count)], dtype="str"),
            "time": pd.Series(pd.Timestamp(day, tz="UTC") + pd.to_timedelta(random.integers(0, 10**10, count), unit="us")).astype(
                "datetime64[us, UTC]"
            ),
            "amount": np.where(amounts > 1, np.nan, amounts),
            "count": random.integers(-(2**60), 2**60, count),
            "kind": kinds.mask(random.random(count) < 0.2),
            "day": pd.Series([day] * count, dtype="str"),
        }
    )


def publish(tables: Tables, rows: pd.DataFrame, *days: str, made_from: str = "x") -> dict[str, Entry]:
    return tables.publish("events", rows, schema=SCHEMA, inputs=dict.fromkeys(days, made_from))


def version_of(tables: Tables) -> int:
    return DeltaTable(str(Path(tables.place("events")))).version()


def assert_same(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(got, wanted.reset_index(drop=True), check_exact=True)


# Publishing -------------------------------------------------------------------------------------------------------------------


def test_days_are_replaced_whole_and_others_stay(tables: Tables) -> None:
    first = publish(tables, rows_of(A, B, C), A, B, C)[A].version

    entries = publish(tables, rows_of(B, count=2, seed=1), B, made_from="y")

    assert_same(tables.read("events"), pd.concat([rows_of(A), rows_of(B, count=2, seed=1), rows_of(C)]))
    assert (entries[B].rows, entries[B].inputs, entries[B].version) == (2, "y", first + 1)
    ledger = tables.ledger("events")
    assert {day: (entry.rows, entry.inputs, entry.version) for day, entry in ledger.items()} == {
        A: (5, "x", first),
        B: (2, "y", first + 1),
        C: (5, "x", first),
    }
    assert tables.ledger("events", [C, "2024-09-09"]) == {C: ledger[C]}


def test_a_day_without_rows_is_published_and_takes_the_place_of_one_with_rows(tables: Tables) -> None:
    publish(tables, rows_of(A), A, B)

    assert tables.ledger("events")[B].rows == 0
    assert_same(tables.read("events", [B]), rows_of())
    publish(tables, rows_of(), A)
    assert tables.ledger("events")[A].rows == 0
    assert_same(tables.read("events"), rows_of())


def test_a_table_can_begin_with_an_empty_day(tables: Tables) -> None:
    publish(tables, rows_of(), A)

    assert_same(tables.read("events"), rows_of())
    publish(tables, rows_of(B), B)
    assert_same(tables.read("events"), rows_of(B))


def test_what_a_writer_notes_of_a_day_is_remembered(tables: Tables) -> None:
    notes = {A: {"delivered": ["a", "b"]}}

    tables.publish("events", rows_of(A, B), schema=SCHEMA, inputs={A: "x", B: "x"}, notes=notes)

    assert {day: entry.notes for day, entry in tables.ledger("events").items()} == {**notes, B: {}}


def test_an_unchanged_day_makes_no_commit(tables: Tables) -> None:
    first = publish(tables, rows_of(A, B), A, B)
    version = version_of(tables)

    assert publish(tables, rows_of(A, B), A, B) == first
    assert publish(tables, rows_of(B), B) == {B: first[B]}
    assert publish(tables, rows_of()) == {}
    assert version_of(tables) == version == first[A].version


def test_only_the_changed_days_of_a_range_are_committed(tables: Tables) -> None:
    first = publish(tables, rows_of(A, B, C), A, B, C)[A].version
    files = {path.name for path in Path(tables.place("events")).rglob("*.parquet")}

    entries = publish(tables, pd.concat([rows_of(A), rows_of(B, seed=1), rows_of(C)]), A, B, C)

    assert {day: entry.version for day, entry in entries.items()} == {A: first, B: first + 1, C: first}
    added = {path for path in Path(tables.place("events")).rglob("*.parquet") if path.name not in files}
    assert [path.parent.name for path in added] == [f"day={B}"]


def test_other_inputs_of_the_same_content_are_noted(tables: Tables) -> None:
    before = publish(tables, rows_of(A), A)[A]

    after = publish(tables, rows_of(A), A, made_from="y")[A]

    assert (after.content, after.inputs, after.version) == (before.content, "y", before.version + 1)


def test_rows_of_a_day_that_is_not_published_are_refused(tables: Tables) -> None:
    publish(tables, rows_of(A), A)

    with pytest.raises(ValueError, match=f"table events: rows of {B}, {C} were handed over"):
        publish(tables, rows_of(A, C, B, seed=1), A)

    assert_same(tables.read("events"), rows_of(A))
    assert list(tables.ledger("events")) == [A]


def test_a_write_that_fails_leaves_everything_as_it_was(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tables, rows_of(A), A)

    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        publish(tables, rows_of(A, B, seed=1).assign(count="many"), A, B)

    assert_same(tables.read("events"), rows_of(A))
    assert list(tables.ledger("events")) == [A]


# The content hash -------------------------------------------------------------------------------------------------------------


def test_the_content_of_a_day_does_not_depend_on_what_else_is_written(tables: Tables, tmp_path: Path) -> None:
    alone = publish(tables, rows_of(B), B)[B]

    among = publish(Tables(root=LocalFolder(tmp_path / "other"), case="else"), rows_of(C, B, A), A, B, C)[B]
    shuffled = rows_of(C, B, A).sample(frac=1, random_state=1).sort_values("day", kind="stable")
    in_another_order = rows_of(C, B, A).iloc[::-1][sorted(SCHEMA.names)].iloc[::-1]

    assert among.content == alone.content
    assert content_hashes(in_another_order, [B])[B] == (5, alone.content)
    assert content_hashes(shuffled, [B])[B][1] != alone.content, "the order of a day's rows belongs to its content"


def test_rows_read_back_have_the_content_that_was_published(tables: Tables) -> None:
    entries = publish(tables, rows_of(A, B, count=200), A, B)

    again = content_hashes(tables.read("events"), [A, B])

    assert again == {day: (200, entry.content) for day, entry in entries.items()}


@pytest.mark.parametrize(
    ("column", "value"), [("amount", 1e-300), ("count", 2**60 + 1), ("kind", ""), ("time", pd.Timestamp("2024-01-01", tz="UTC"))]
)
def test_any_changed_value_is_another_content(column: str, value: object) -> None:
    rows = rows_of(A)
    changed = rows.copy()
    changed.loc[3, column] = value

    assert content_hashes(rows, [A]) != content_hashes(changed, [A])


def test_another_name_or_type_of_a_column_is_another_content() -> None:
    rows = rows_of(A)

    assert content_hashes(rows, [A]) != content_hashes(rows.rename(columns={"kind": "sort"}), [A])
    assert content_hashes(rows.iloc[:0], [A]) != content_hashes(rows.iloc[:0].astype({"count": "float64"}), [A])


def test_the_content_is_known_once_and_for_all() -> None:
    """A hash that differs between machines or versions would make every day stale."""
    rows = pd.DataFrame(
        {
            "a": [1.5, float("nan")],
            "b": pd.Series(["x", None], dtype="str"),
            "c": [1, 2],
            "t": pd.to_datetime(["2024-01-01", "2024-01-02"]).tz_localize("UTC").as_unit("us"),
            "day": [A, A],
        }
    )

    assert content_hashes(rows, [A, B]) == {A: (2, "607c3a6df4b2157e"), B: (0, "c79633242dfe245d")}


# Reading ----------------------------------------------------------------------------------------------------------------------


def test_rows_come_back_in_the_order_in_which_they_were_written(tables: Tables) -> None:
    """Many rows, days in no order and mixed, published in several commits."""
    days = day_range("2024-01-01", "2024-01-12")
    rows = rows_of(*days, count=3000)
    mixed = rows.sample(frac=1, random_state=5)
    for part in (days[6:], days[:3], days[3:6]):
        publish(tables, mixed[mixed["day"].isin(part)], *part)

    got = tables.read("events")

    assert_same(got, mixed.sort_values("day", kind="stable"))
    chosen = [days[9], days[2], days[5]]
    assert_same(tables.read("events", chosen), mixed[mixed["day"].isin(chosen)].sort_values("day", kind="stable"))


def test_only_what_is_asked_for_is_read(tables: Tables) -> None:
    rows = rows_of(A, B, C, count=50)
    publish(tables, rows, A, B, C)

    assert_same(tables.read("events", [C, A]), rows[rows["day"] != B])
    assert_same(tables.read("events", {B}, columns=["amount"]), rows.loc[rows["day"] == B, ["amount"]])
    assert list(tables.read("events", columns=["kind", "day", "amount"]).columns) == ["kind", "day", "amount"]
    assert_same(tables.read("events", []), rows.iloc[:0])
    assert_same(tables.read("events", ["2030-01-01"]), rows.iloc[:0])
    id = rows["event_id"].iloc[77]
    assert_same(tables.read("events", where=[("event_id", "=", id)]), rows.iloc[[77]])
    assert tables.read("events", [A], where=[("event_id", "=", id)]).empty
    positive = tables.read("events", [B], columns=["amount"], where=[("count", ">", 0), ("kind", "=", "a")])
    wanted = rows[(rows["day"] == B) & (rows["count"] > 0) & (rows["kind"] == "a")]
    assert_same(positive, wanted[["amount"]])


def test_other_days_files_are_not_even_looked_at(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of 30 columns took a second for each read of a day: of every file every column's bounds were stated."""
    for day in (A, B, C):
        publish(tables, rows_of(day), day)
    made = list[tuple[str, list[str]]]()
    whole = DeltaTable.to_pyarrow_dataset

    def watched(table: DeltaTable, **given: Any) -> Any:
        files = whole(table, **given)
        made.extend((file, given["schema"].names) for file in files.files)
        return files

    monkeypatch.setattr(DeltaTable, "to_pyarrow_dataset", watched)
    rows = tables.read("events", [B])
    assert rows.equals(rows_of(B)[list(rows)])
    [(file, bounded)] = made
    assert f"day={B}" in file
    assert bounded == ["day"]


@pytest.mark.parametrize("folder", ["plain", "with a space", "100% ü"])
def test_no_thread_of_arrow_needs_python_to_read_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """One that does when the process ends aborts it, after all is done (delta-io/delta-rs#2184)."""
    tables = Tables(root=LocalFolder(tmp_path / folder), case="small")
    publish(tables, rows_of(A, B), A, B)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("in Python")

    monkeypatch.setattr(DeltaStorageHandler, "open_input_file", never)
    rows = tables.read("events")
    assert rows.equals(rows_of(A, B)[list(rows)])


def test_an_old_version_can_be_read_back(tables: Tables) -> None:
    old = publish(tables, rows_of(A, B), A, B)[A]
    publish(tables, rows_of(A, seed=1), A)
    publish(tables, rows_of(), B)

    assert_same(tables.read("events", version=old.version), rows_of(A, B))
    assert_same(tables.read("events", [A], version=old.version + 1), rows_of(A, seed=1))
    assert_same(tables.read("events", [B], version=old.version + 1), rows_of(B))
    assert_same(tables.read("events"), rows_of(A, seed=1))


def test_a_table_that_does_not_exist_has_nothing_and_says_so(tables: Tables) -> None:
    assert tables.ledger("events") == {}
    assert tables.ledger("events", [A]) == {}
    with pytest.raises(FileNotFoundError, match=r"table events of small does not exist at .*small/events: materialise it first"):
        tables.read("events")


def test_what_others_wrote_since_is_in_the_ledger(tables: Tables) -> None:
    """A ledger is folded on from where it was last read."""
    publish(tables, rows_of(A), A)
    first = tables.ledger("events")
    with get_context("spawn").Pool(1) as other:
        other.apply(publish, (tables, rows_of(A, B, seed=1), A, B))

    assert tables.ledger("events") == {day: Entry(**{**_plain(tables, day), "version": first[A].version + 1}) for day in (A, B)}


def _plain(tables: Tables, day: str) -> dict[str, Any]:
    rows, content = content_hashes(rows_of(A, B, seed=1), [day])[day]
    return {"day": day, "rows": rows, "content": content, "inputs": "x"}


@pytest.mark.parametrize("later", [0, 1, 3])
def test_a_table_that_was_put_back_has_the_ledger_of_what_is_there(tables: Tables, tmp_path: Path, later: int) -> None:
    """Another history stands where one was read, shorter, as long and longer than that: nothing of the old one is remembered."""
    for seed in (1, 2):
        publish(tables, rows_of(A, seed=seed), A)
    tables.ledger("events")
    elsewhere = Tables(root=LocalFolder(tmp_path / "elsewhere"), case="small")
    for seed in range(later + 1):
        publish(elsewhere, rows_of(B, seed=seed), B)
    wanted = elsewhere.ledger("events")
    shutil.rmtree(tables.place("events"))
    shutil.copytree(elsewhere.place("events"), tables.place("events"))

    assert tables.ledger("events") == wanted


def test_a_ledger_reads_no_commit_twice(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        publish(tables, rows_of(A, seed=seed), A)
    read: list[Any] = []
    history = DeltaTable.history

    def counted(table: DeltaTable, limit: int | None = None) -> list[dict[str, Any]]:
        read.append(history(table, limit))
        return read[-1]

    monkeypatch.setattr(DeltaTable, "history", counted)
    publish(tables, rows_of(A, seed=9), A)
    tables.ledger("events")

    assert [len(commits) for commits in read] == [1, 2, 1]


# Several at once --------------------------------------------------------------------------------------------------------------


def test_a_reader_sees_whole_days_while_they_are_replaced(tables: Tables) -> None:
    versions = {seed: rows_of(A, B, count=300, seed=seed) for seed in range(6)}
    wanted = {content_hashes(rows, [A, B])[A][1]: content_hashes(rows, [A, B])[B][1] for rows in versions.values()}
    publish(tables, versions[0], A, B)
    done = threading.Event()

    def write() -> None:
        try:
            for _ in range(2):
                for rows in versions.values():
                    publish(tables, rows, A, B)
        finally:
            done.set()

    seen: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set():
            hashes = content_hashes(tables.read("events"), [A, B])
            assert wanted[hashes[A][1]] == hashes[B][1], "both days are of one commit"
            seen.append(hashes[A][1])
        writing.result()
    assert len(set(seen)) > 1, "the reader read while the writer wrote"


def _publish_in_a_process(root: Path, days: list[str], barrier: threading.Barrier) -> None:
    tables = Tables(root=LocalFolder(root), case="small")
    for day in days:
        barrier.wait(30)
        publish(tables, rows_of(day), day)


def test_two_processes_that_write_different_days_lose_nothing(tables: Tables) -> None:
    days = day_range("2024-01-01", "2024-01-12")
    publish(tables, rows_of("2023-12-31"), "2023-12-31")
    # Spawned: a forked process inherits the threads of the reader's runtime as they are.
    spawning = get_context("spawn")
    barrier = spawning.Barrier(2)
    processes = [
        spawning.Process(target=_publish_in_a_process, args=(tables.root.path, part, barrier)) for part in (days[::2], days[1::2])
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0]
    assert list(tables.ledger("events")) == ["2023-12-31", *days]
    assert_same(tables.read("events"), rows_of("2023-12-31", *days))


@pytest.mark.parametrize("exists", [True, False], ids=["a table", "a new table"])
def test_two_threads_that_write_different_days_at_once_lose_nothing(
    exists: bool, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked at the table before either writes."""
    barrier = threading.Barrier(2)
    write = module.write_deltalake

    def together(*arguments: Any, **options: Any) -> None:
        barrier.wait(10)
        write(*arguments, **options)

    if exists:
        publish(tables, rows_of(C), C)
    monkeypatch.setattr(module, "write_deltalake", together)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda day: publish(tables, rows_of(day), day), (A, B)))

    days = [A, B, C] if exists else [A, B]
    assert list(tables.ledger("events")) == days
    assert_same(tables.read("events"), rows_of(*days))


def test_of_two_writers_of_one_day_one_wins_whole(tables: Tables) -> None:
    versions = [rows_of(A, count=200, seed=seed) for seed in range(4)]
    publish(tables, rows_of(A, B), A, B)

    def write(rows: pd.DataFrame) -> None:
        with suppress(CommitFailedError):
            publish(tables, rows, A)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, versions))

    got = tables.read("events", [A])
    assert content_hashes(got, [A])[A] in [content_hashes(rows, [A])[A] for rows in versions]
    assert tables.ledger("events")[A].content == content_hashes(got, [A])[A][1]
    assert_same(tables.read("events", [B]), rows_of(B))


def test_a_column_that_comes_later_is_missing_in_earlier_days(tables: Tables) -> None:
    publish(tables, rows_of(A), A)
    wider = pa.schema([*SCHEMA, ("note", pa.string())])

    tables.publish("events", rows_of(B).assign(note="new"), schema=wider, inputs={B: "x"})

    assert tables.read("events", columns=["note"])["note"].fillna("missing").tolist() == ["missing"] * 5 + ["new"] * 5
    assert tables.read("events", [A], columns=SCHEMA.names)["event_id"].tolist() == rows_of(A)["event_id"].tolist()
