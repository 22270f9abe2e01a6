"""What a file of events says of itself, and what it is asked about instead of guessed."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_assets.scaffold.infer import Answers, CannotInferError, CaseColumn, infer

DAYS = 60


def orders(**changes: Any) -> pd.DataFrame:
    """Two a day; a column of None is left out."""
    count = 2 * DAYS
    at = pd.date_range("2024-01-01T09:00:00Z", periods=count, freq="12h").strftime("%Y-%m-%dT%H:%M:%SZ")
    columns: Mapping[str, Any] = {
        "orderNo": [f"o{number}" for number in range(count)],
        "at": at,
        "shopId": [number % 7 for number in range(count)],
        "price": [number / 4 for number in range(count)],
        "items": [number % 9 for number in range(count)],
        "weight": [number / 7 for number in range(count)],
        "channel": ["web", "app", "phone", None] * (count // 4),
        "late": ["yes", "no", "no", "no"] * (count // 4),
        **changes,
    }
    return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def inferred(tmp_path: Path, rows: pd.DataFrame, **wishes: Any) -> Any:
    rows.to_parquet(tmp_path / "orders.parquet", index=False)
    return infer(tmp_path / "orders.parquet", Wishes(**wishes))


def test_a_plain_file_says_everything(tmp_path: Path) -> None:
    found = inferred(tmp_path, orders())
    assert (found.time.source, found.id.source, found.label.source) == ("at", "orderNo", "late")
    assert (found.positive, found.negative, found.positive_share) == ("yes", "no", 0.25)
    assert found.entities == (Found(name="shop_id", source="shopId", dtype="STRING", nullable=False),)
    assert [(each.name, each.dtype, each.whole, each.hundredths) for each in found.numbers] == [
        ("price", "FLOAT64", False, True),
        ("items", "INT64", True, False),
        ("weight", "FLOAT64", False, False),
    ]
    assert [(each.name, each.nullable) for each in found.categories] == [("channel", True)]
    assert [each.name for each in found.facts] == ["price", "items"]
    assert (found.start, found.end, found.rows) == ("2024-01-01", "2024-03-01", 2 * DAYS)
    assert (found.training_days, found.holdout_days, found.embargo_days) == (21, 7, 1)
    assert found.first_go_live == "2024-02-05", "a Monday with 21 + 7 + 2 days before it"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_text_says_the_same_as_parquet(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"orders{suffix}"
    rows = orders()
    rows.to_json(file, orient="records", lines=True) if suffix == ".jsonl" else rows.to_csv(file, index=False)
    found, expected = infer(file, Wishes()), inferred(tmp_path, rows)
    for name in ("time", "id", "label", "positive", "entities", "categories", "start", "end", "first_go_live"):
        assert getattr(found, name) == getattr(expected, name)
    assert [(each.name, each.hundredths) for each in found.numbers] == [(each.name, each.hundredths) for each in expected.numbers]


@pytest.mark.parametrize(
    ("changes", "wishes", "said"),
    [
        ({"at": None}, {}, "no column has a time in each row"),
        ({"due": orders()["at"]}, {}, "it could be at, due; name it with --time"),
        ({"late": None}, {}, "no column has two values"),
        ({"gift": ["1", "0"] * DAYS}, {}, "it could be late, gift; name it with --label"),
        ({"late": ["a", "b"] * DAYS}, {}, "which value of late is a positive, a or b"),
        ({"late": ["yes", "no", None, "no"] * (DAYS // 2)}, {}, "late is missing in 30 rows"),
        ({"late": ["yes", "no", "maybe", "no"] * (DAYS // 2)}, {"label": "late"}, "late has 3 values .maybe, no, yes."),
        ({"orderNo": ["same"] * 2 * DAYS, "weight": None, "price": None}, {}, "no column has another value in each row"),
        ({"orderNo": None}, {}, "it could be price, weight; name it with --id"),
        ({}, {"time": "when"}, "--time: .*orders.parquet has no column 'when'; it has orderNo, at, "),
        ({}, {"entities": ("shop",)}, "--entity: .* no column 'shop'"),
        ({}, {"time": "channel"}, "channel has no time in row 1"),
        ({}, {"time": "price"}, "--time: column price is double, expected timestamps, dates or text"),
        ({}, {"positive": "always"}, "Say it with --positive"),
        ({}, {"known_after": timedelta(0)}, "known with its event cannot be predicted"),
        ({}, {"timezone": "Berlin"}, "'Berlin' is no time zone"),
        ({}, {"known_after": timedelta(days=30)}, "the file holds 60 days .*, expected 95 or more"),
    ],
)
def test_what_is_not_clear_is_asked(tmp_path: Path, changes: Mapping[str, Any], wishes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(CannotInferError, match=said):
        inferred(tmp_path, orders(**changes), **wishes)


def test_what_is_no_feature_is_left_out_and_said_why(tmp_path: Path) -> None:
    rows = orders(
        note=["x"] * 2 * DAYS,
        tags=[["a"], ["b"]] * DAYS,
        comment=[f"text {number}" for number in range(2 * DAYS)],
        paid=pd.date_range("2024-01-01", periods=2 * DAYS),
    )
    found = inferred(tmp_path, rows, time="at", after=("weight",))
    assert dict(found.left_out) == {
        "note": "is the same in each row",
        "tags": "is list<element: string>",
        "comment": "is a text with 120 values: name it with --entity if events have it in common",
        "paid": "is a time",
    }
    assert [each.name for each in found.after] == ["weight"]
    assert "weight" not in [each.name for each in found.numbers]


def test_names_of_the_platform_are_given_others(tmp_path: Path) -> None:
    found = inferred(
        tmp_path, orders(day=[number % 5 for number in range(2 * DAYS)], hour=[number % 5 for number in range(2 * DAYS)])
    )
    assert {each.source: each.name for each in found.numbers} == {
        **{name: name for name in ("price", "items", "weight")},
        "day": "given_day",
        "hour": "given_hour",
    }


@pytest.mark.parametrize(
    ("name", "content"), [("gone.csv", None), ("orders.xlsx", b""), ("orders.parquet", b"no"), ("e.csv", b"a,b\n")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CannotInferError, match=name):
        infer(tmp_path / name, Wishes())
