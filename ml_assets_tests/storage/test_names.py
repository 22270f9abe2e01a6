"""Columns of any name in a table on disk, and entities of any value in the keys of an online store."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.folders import LocalFolder
from ml_assets.sources.files import PROVENANCE, delivered_as, delivered_name
from ml_assets.sources.json_lines import members_of
from ml_assets.stages.kept import key_of
from ml_assets.storage.tables import Tables, name_of, stored_names

NAMES = [
    *(
        "",
        " ",
        "a",
        "A",
        "a.b",
        "a b",
        'a"b',
        "a'b",
        "a`b",
        "a/b",
        "a\\b",
        "select",
        "Day",
        "DAY",
        "order",
        "{{ 7*7 }}",
        "*",
        "null",
    ),
    *("a,b;c=d(e){f}[g]:h", "größe", "日本", "x\ny", "x\ty", "%s", ":p", "$x$", "_x", "x" * 300, "\0nul", "<b>", "_position", "0"),
    *("__index_level_0__", "_change_type", "event_id", "label", "a#12345678", "%00"),
]
DAYS = ["2024-01-01", "2024-01-02"]
TEXT = st.text(alphabet=st.one_of(st.sampled_from("aAbB%#0\x1e\x1f\0"), st.characters(codec="utf-8")), max_size=8)


def frame(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame({**{name: [f"{name!r} 1", f"{name!r} 2"] for name in names}, "day": DAYS}).astype("str")


def publish(tables: Tables, rows: pd.DataFrame, inputs: str) -> None:
    schema = pa.schema([(str(name), pa.string()) for name in rows.columns])
    tables.publish("t", rows, schema=schema, inputs=dict.fromkeys(rows["day"], inputs))


def test_a_table_has_columns_of_any_name(tmp_path: Path) -> None:
    tables, rows = Tables(root=LocalFolder(tmp_path), case="case"), frame(NAMES)
    publish(tables, rows, "first")
    publish(tables, rows[:1], "again")
    pd.testing.assert_frame_equal(tables.read("t")[list(rows.columns)], rows)
    for name in NAMES:
        assert tables.read("t", DAYS[1:], columns=[name])[name].tolist() == [f"{name!r} 2"]
        assert tables.read("t", where=[(name, "=", f"{name!r} 2")])["day"].tolist() == DAYS[1:]


def test_a_column_that_differs_in_case_may_come_later(tmp_path: Path) -> None:
    tables = Tables(root=LocalFolder(tmp_path), case="case")
    publish(tables, frame(["amount"])[:1], "first")
    publish(tables, frame(["Amount", "AMOUNT"])[1:], "second")
    publish(tables, frame(["AMOUNT", "amount"])[1:], "third")
    rows = tables.read("t")
    assert set(rows.columns) == {"amount", "Amount", "AMOUNT", "day"}
    assert rows["amount"].tolist() == ["'amount' 1", "'amount' 2"]
    assert rows["AMOUNT"].dropna().tolist() == ["'AMOUNT' 2"]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(TEXT, unique=True, max_size=6), st.lists(TEXT, unique=True, max_size=6))
def test_stored_names_are_told_apart_and_read_back(first: list[str], second: list[str]) -> None:
    before = stored_names(first)
    after = stored_names(second, before)
    assert list(map(name_of, before)) == first
    assert list(map(name_of, after)) == second
    stored = [name.lower() for name in {*before, *after, "_position"}]
    assert len(set(stored)) == len(stored)
    assert all("\0" not in name for name in stored)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.tuples(TEXT, TEXT), st.tuples(TEXT, TEXT))
def test_two_entities_never_have_one_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = [key_of(b"t.a+b", ("a", "b"), dict(zip("ab", entity, strict=True))) for entity in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


def test_an_end_of_one_part_is_no_beginning_of_the_next() -> None:
    first, second = (key_of(b"t", ("a", "b"), {"a": a, "b": b}) for a, b in (("x\x1f", "y"), ("x", "\x1fy")))
    assert first != second


@pytest.mark.parametrize(
    "name", [*PROVENANCE, *(f"delivered_{name}" for name in PROVENANCE), "delivered_delivered_day", "delivered_at"]
)
def test_no_delivered_column_takes_the_place_of_another(name: str) -> None:
    assert delivered_as(name) not in PROVENANCE
    assert delivered_name(delivered_as(name)) == name


def test_members_of_any_name_are_read() -> None:
    names = ['5" pipes', "back\\slash", "a\nb", "\0", "", "größe"]
    rows = members_of(
        ['{"5\\" pipes": 1.50, "back\\\\slash": "b", "a\\nb": true, "\\u0000": "n", "": "e", "größe": null}'.encode()],
        names,
        otherwise="?",
    )
    assert rows.to_pylist() == [
        {'5" pipes': "1.50", "back\\slash": "b", "a\nb": "true", "\0": "n", "": "e", "größe": None, "?": None}
    ]
