"""Labels among the rows of events, or in a table of their own: only rows that have one, whatever the source lacks."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.sources.mapping import mapping_of, read_mapping, source_of
from ml_assets.use_case import Source

EVENTS = ("order_id", "ordered_at", "qty", "returned")
LABELS = ("order_id", "ordered_at", "returned", "known_at")
COLUMNS = '{order_id = "id", ordered_at = "at", qty = "qty", returned = "came back"}'
ROWS = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "at": ["2024-01-01T09:00:00Z", "2024-01-01T10:00:00Z", "2024-01-02T09:00:00Z", "2024-01-02T10:00:00Z"],
        "qty": [1, 2, 3, 4],
        "came back": ["1", None, " ", "0"],
    }
)


def source(file: Path, table: str) -> Source:
    mapping = read_mapping(file)
    if table == "events":
        return source_of(mapping, table, day_column="ordered_at", known=EVENTS, optional=("returned",), may_lack=("returned",))
    own = mapping.maps("ground_truth", "known_at")
    return source_of(
        mapping,
        table,
        day_column="known_at" if own else "ordered_at",
        known=LABELS,
        optional=("known_at", "ordered_at") if own else ("known_at",),
        may_lack=("returned", "known_at"),
        present="returned",
        otherwise="events",
    )


def in_files(folder: Path, rows: pd.DataFrame) -> str:
    rows.to_csv(folder / "orders.csv", index=False)
    return 'files = "orders.csv"'


def in_parquet(folder: Path, rows: pd.DataFrame) -> str:
    rows.to_parquet(folder / "orders.parquet", index=False)
    return 'files = "orders.parquet"'


def in_files_a_day(folder: Path, rows: pd.DataFrame) -> str:
    for day, of_day in rows.groupby(rows["at"].str[:10]):
        of_day.to_json(folder / f"{day}.jsonl", orient="records", lines=True)
    return 'files = "{day}.jsonl"'


def in_a_database(folder: Path, rows: pd.DataFrame) -> str:
    with sqlite3.connect(folder / "shop.db") as connection:
        rows.to_sql("orders", connection, index=False)
    return 'rows = "orders"'


Deliver = Callable[[Path, pd.DataFrame], str]
every_source = pytest.mark.parametrize("deliver", [in_files, in_parquet, in_files_a_day, in_a_database])


def declare(folder: Path, deliver: Deliver, rows: pd.DataFrame = ROWS, more: str = "", columns: str = COLUMNS) -> Path:
    place = deliver(folder, rows)
    file = folder / "files.toml"
    database = f'database = "sqlite:///{folder}/shop.db"\n' if place.startswith("rows") else ""
    file.write_text(f'start = "2024-01-01"\nend = "2024-01-03"\n{database}\n[events]\n{place}\ncolumns = {columns}\n{more}')
    return file


@every_source
def test_rows_with_a_label_are_rows_of_labels(tmp_path: Path, deliver: Deliver) -> None:
    file = declare(tmp_path, deliver)
    days = ["2024-01-01", "2024-01-02"]
    events, labels = (source(file, table).read(days) for table in ("events", "ground_truth"))
    assert events.rows["order_id"].tolist() == ["a", "b", "c", "d"]
    assert events.rows["returned"].str.strip().replace("", None).dropna().tolist() == ["1", "0"]
    assert labels.rows[["order_id", "returned", "day"]].values.tolist() == [["a", "1", "2024-01-01"], ["d", "0", "2024-01-02"]]
    assert labels.counted == {"2024-01-01": 1, "2024-01-02": 1}
    assert labels.rows["source_row"].tolist()[0] == 1
    assert labels.rows["known_at"].isna().all()
    assert source(file, "ground_truth").versions(days).keys() == set(days)


@every_source
def test_a_source_without_labels_has_events_and_no_label(tmp_path: Path, deliver: Deliver) -> None:
    file = declare(tmp_path, deliver, ROWS.drop(columns="came back"))
    events, labels = (source(file, table).read(["2024-01-02"]) for table in ("events", "ground_truth"))
    assert events.problems == labels.problems == {}
    assert events.rows["order_id"].tolist() == ["c", "d"]
    assert events.rows["returned"].isna().all()
    assert (len(labels.rows), labels.counted) == (0, {"2024-01-02": 0})


def test_a_column_that_may_not_be_lacking_is_named(tmp_path: Path) -> None:
    file = declare(tmp_path, in_files, ROWS.drop(columns="qty"))
    assert "has no column qty" in source(file, "events").read(["2024-01-02"]).problems["2024-01-02"]
    assert source(file, "ground_truth").read(["2024-01-02"]).problems == {}, "labels do not ask for it"


def test_labels_in_a_table_of_their_own(tmp_path: Path) -> None:
    told = pd.DataFrame({"order": ["a", "b", "c"], "then": ["2024-01-02T08:00:00Z"] * 3, "truth": ["1", "0", None]})
    told.to_csv(tmp_path / "told.csv", index=False)
    more = '[ground_truth]\nfiles = "told.csv"\ncolumns = {order_id = "order", known_at = "then", returned = "truth"}\n'
    file = declare(tmp_path, in_files, more=more, columns='{order_id = "id", ordered_at = "at", qty = "qty"}')
    assert source(file, "events").read(["2024-01-01"]).rows["returned"].isna().all()
    rows = source(file, "ground_truth").read(["2024-01-02"]).rows
    assert rows[["order_id", "returned"]].values.tolist() == [["a", "1"], ["b", "0"]], "under the day on which they are known"


def test_labels_that_are_nowhere_are_asked_for(tmp_path: Path) -> None:
    file = declare(tmp_path, in_files, columns='{order_id = "id", ordered_at = "at", qty = "qty"}')
    with pytest.raises(
        ValueError, match=r"no column returned of \[events\]: expected columns.returned there, or a table \[ground_truth\]"
    ):
        source(file, "ground_truth")
    with pytest.raises(ValueError, match=r"no file .*gone.toml, which says where the rows are: name one in SHOP"):
        mapping_of({}, "SHOP", otherwise=tmp_path / "gone.toml")
    assert mapping_of({"SHOP": str(file)}, "SHOP", otherwise=tmp_path / "gone.toml").file == file


def test_names_of_columns_are_no_settings(tmp_path: Path) -> None:
    rows = ROWS.rename(columns={"qty": "${HOME}"})
    file = declare(tmp_path, in_files, rows, columns=COLUMNS.replace('"qty"', '"${HOME}"'))
    assert source(file, "events").read(["2024-01-02"]).rows["qty"].tolist() == ["3", "4"]


def test_a_column_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    rows = ROWS.rename(columns={"qty": ""})
    file = declare(tmp_path, in_files, rows, columns=COLUMNS.replace('qty = "qty"', 'qty = "unnamed 3"'))
    assert source(file, "events").read(["2024-01-02"]).rows["qty"].tolist() == ["3", "4"]
