"""One key is one row: what becomes of the others, with the words in which it is said."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.clean import Cleaned, accounting_findings, clean
from ml_assets.stages.spelling import canonical
from ml_assets.use_case import Column, Corrections, DType, Spelling, Table

MONDAY, TUESDAY, FRIDAY = "2024-01-01", "2024-01-02", "2024-01-05"


def table(**changes: Any) -> Table:
    columns = (
        Column(name="id", dtype=DType.STRING, spelling=Spelling.WHOLE),
        Column(name="amount", dtype=DType.FLOAT64, nullable=True),
        Column(name="revision", dtype=DType.INT64),
    )
    of: dict[str, Any] = {
        "name": "orders",
        "source": None,
        "delivered": columns,
        "columns": columns,
        "key": ("id",),
        "derive": lambda rows: rows,
        "unique": "ever",
    }
    return Table(**{**of, **changes})


def raw(*rows: tuple[str, str, str | None, str]) -> pd.DataFrame:
    """Day, id, amount and revision; each day is a file."""
    frame = pd.DataFrame(rows, columns=["day", "id", "amount", "revision"]).astype("str")
    frame["amount"] = pd.Series([amount for _, _, amount, _ in rows], dtype="str")
    numbers = frame.groupby("day").cumcount() + 1
    return frame.assign(source_file=frame["day"] + ".csv", source_row=numbers.astype("int64"), source_version="v")


def fates(cleaned: Cleaned) -> list[tuple[str, str, str]]:
    return list(zip(cleaned.rejected["day"], cleaned.rejected["cause"], cleaned.rejected["reason"], strict=True))


def test_a_row_delivered_again_on_another_day_is_set_aside_and_no_fault() -> None:
    delivered = raw((MONDAY, "17", None, "1"), (TUESDAY, "17.0", None, "1"), (TUESDAY, "18", "2", "1"))
    cleaned = clean(delivered, table())
    assert cleaned.rows[["day", "id"]].to_numpy().tolist() == [[MONDAY, "17"], [TUESDAY, "18"]]
    assert fates(cleaned) == [(TUESDAY, "duplicate", f"duplicate of row 1 of {MONDAY}.csv ({MONDAY})")]
    balance, limit, none_rejected = accounting_findings(delivered, cleaned, table(), [TUESDAY])[TUESDAY]
    assert balance.passed
    assert limit.passed
    assert none_rejected.passed
    assert balance.observed == "2 rows in, 1 out + 0 rejected + 1 set aside as duplicates or corrections"


def test_a_row_that_is_twice_in_one_delivery_is_noted() -> None:
    delivered = raw((MONDAY, "17", None, "1"), (MONDAY, "17.0", None, "1"))
    cleaned = clean(delivered, table())
    _, limit, none_rejected = accounting_findings(delivered, cleaned, table(), [MONDAY])[MONDAY]
    assert limit.passed
    assert not none_rejected.passed
    assert none_rejected.observed == "0 of 2 rows (0 %), 1 are there twice"
    assert none_rejected.examples == (f"row 2: duplicate of row 1 of {MONDAY}.csv",)


def test_a_row_that_contradicts_is_quarantined_with_what_differs() -> None:
    cleaned = clean(raw((MONDAY, "17", "2.5", "1"), (TUESDAY, "17", None, "2")), table())
    assert fates(cleaned) == [
        (
            TUESDAY,
            "contradiction",
            f"contradicts row 1 of {MONDAY}.csv ({MONDAY}): amount is missing and was 2.5, revision is 2 and was 1",
        )
    ]


def test_a_table_whose_keys_are_of_a_day_keeps_both() -> None:
    assert len(clean(raw((MONDAY, "17", "1", "1"), (TUESDAY, "17", "2", "1")), table(unique="day")).rows) == 2


@pytest.mark.parametrize(
    ("day", "revision", "amount", "cause"),
    [
        (TUESDAY, "2", 9.0, "correction"),
        (TUESDAY, "0", 2.0, "correction"),
        (TUESDAY, "1", 2.0, "correction"),
        (FRIDAY, "2", 2.0, "contradiction"),
    ],
)
def test_a_correction_counts_where_the_first_row_stood(day: str, revision: str, amount: float, cause: str) -> None:
    declared = table(corrections=Corrections(by="revision", within_days=2))
    cleaned = clean(raw((MONDAY, "17", "2", "1"), (day, "17", "9", revision)), declared)
    assert cleaned.rows[["day", "amount"]].to_numpy().tolist() == [[MONDAY, amount]]
    assert [(at, why) for at, why, _ in fates(cleaned)] == [(day, cause)]
    if amount == 9:
        assert cleaned.rows[["source_file", "source_row"]].to_numpy().tolist() == [[f"{TUESDAY}.csv", 1]]


def test_rows_of_days_published_before_count_as_first() -> None:
    before = pd.DataFrame(
        {"id": ["17"], "amount": [2.0], "revision": [1], "day": [MONDAY], "source_file": ["m"], "source_row": [4]}
    )

    def published(keys: pd.DataFrame) -> pd.DataFrame:
        assert keys["id"].tolist() == ["17", "18"]
        return before

    cleaned = clean(raw((TUESDAY, "17", "2", "1"), (TUESDAY, "18", "2", "1")), table(), published=published)
    assert cleaned.rows["id"].tolist() == ["18"]
    assert fates(cleaned) == [(TUESDAY, "duplicate", f"duplicate of row 4 of m ({MONDAY})")]
    [(key, day, _)] = cleaned.repeats[TUESDAY]
    assert (key, day) == ("17", MONDAY)


def test_a_later_day_that_is_published_takes_nothing_from_an_earlier_one() -> None:
    later = pd.DataFrame({"id": ["17"], "amount": [2.0], "revision": [1], "day": [FRIDAY], "source_file": ["f"], "source_row": [1]})
    cleaned = clean(raw((TUESDAY, "17", "2", "1")), table(), published=lambda _: later)
    assert cleaned.rows["id"].tolist() == ["17"]
    assert not cleaned.repeats


SPELLINGS = [
    (Spelling.WHOLE, ["17", "17.0", "17.", "1.7e1", "+17"], "17"),
    (Spelling.WHOLE, ["017", "17.5", "x", "1e9999", "٣", "1_7", "9" * 300 + "x"], None),
    (Spelling.WHOLE, ["-0", "0.0", "0"], "0"),
    (Spelling.BOOLEAN, ["True", "true", "T", "1", "yes"], "true"),
    (Spelling.BOOLEAN, ["maybe", "2"], None),
    (
        Spelling.UUID,
        ["6F9619FF-8B86-D011-B42D-00CF4FC964FF", "6f9619ff8b86d011b42d00cf4fc964ff"],
        "6f9619ff-8b86-d011-b42d-00cf4fc964ff",
    ),
    (Spelling.UUID, ["6f9619ff"], None),
    (Spelling.TEXT, ["017"], "017"),
]


@pytest.mark.parametrize(("spelling", "texts", "expected"), SPELLINGS)
def test_every_way_to_write_a_value_is_one_spelling(spelling: Spelling, texts: Sequence[str], expected: str | None) -> None:
    assert [canonical(text, spelling) for text in texts] == [expected] * len(texts)


def test_a_value_that_cannot_be_spelled_so_is_quarantined_by_name() -> None:
    cleaned = clean(raw((MONDAY, "017", "1", "1"), (MONDAY, "17", "1", "1")), table())
    assert cleaned.rows["id"].tolist() == ["17"]
    assert fates(cleaned) == [
        (MONDAY, "contract", "id: '017' is not written as a whole number without leading zeros (spelling WHOLE)")
    ]


def test_a_million_duplicates_take_no_loop_of_their_own() -> None:
    count = 20_000
    first = pd.DataFrame({"day": MONDAY, "id": np.arange(count).astype(str), "amount": "1", "revision": "1"}).astype("str")
    both = pd.concat([first, first.assign(day=TUESDAY)], ignore_index=True)
    both = both.assign(source_file="f", source_row=np.arange(2 * count), source_version="v")
    cleaned = clean(both, table())
    assert len(cleaned.rows) == count
    assert (cleaned.rejected["cause"] == "duplicate").all()
