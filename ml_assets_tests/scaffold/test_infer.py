"""What a file of events says of itself, and what it is asked about instead of guessed."""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_assets.scaffold.declaration import Answers, CaseColumn, Inferred
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.roles import CannotInferError, QuestionError
from ml_assets.use_case import Spelling

DAYS = 60
A_DAY = 8
ROWS = A_DAY * DAYS


def orders(**changes: Any) -> pd.DataFrame:
    """Eight a day; a column of None is left out."""
    at = pd.date_range("2024-01-01T01:00:00Z", periods=ROWS, freq="3h").strftime("%Y-%m-%dT%H:%M:%SZ")
    columns: Mapping[str, Any] = {
        "orderNo": [f"o{number}" for number in range(ROWS)],
        "at": at,
        "shopId": [number % 7 for number in range(ROWS)],
        "price": [number / 4 for number in range(ROWS)],
        "items": [number % 9 for number in range(ROWS)],
        "weight": [number / 7 for number in range(ROWS)],
        "channel": ["web", "app", "phone", None] * (ROWS // 4),
        "late": ["yes", "no", "no", "no"] * (ROWS // 4),
        **changes,
    }
    return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def inferred(tmp_path: Path, rows: pd.DataFrame, **answers: Any) -> Inferred:
    rows.to_parquet(tmp_path / "orders.parquet", index=False)
    return infer(tmp_path / "orders.parquet", Answers(**{"known_after": timedelta(days=1), **answers}))


def reason(found: Inferred, what: str, column: str) -> str:
    return "; ".join(each.why for each in found.inferences if (each.what, each.column) == (what, column))


def test_a_plain_file_says_everything(tmp_path: Path) -> None:
    found = inferred(tmp_path, orders())
    assert (found.time.source, [each.source for each in found.ids], found.label.source) == ("at", ["orderNo"], "late")
    assert (found.positive, found.negative, found.positive_share, found.labelled) == ("yes", "no", 0.25, ROWS)
    shop = CaseColumn(name="shop_id", source="shopId", dtype="STRING", nullable=False, spelling=Spelling.WHOLE)
    assert found.entities == (shop,)
    assert [(each.name, each.dtype, each.whole, each.hundredths) for each in found.numbers] == [
        ("price", "FLOAT64", False, True),
        ("items", "INT64", True, False),
        ("weight", "FLOAT64", False, False),
    ]
    assert [(each.name, each.nullable) for each in found.categories] == [("channel", True)]
    assert [each.name for each in found.facts] == ["price", "items"]
    assert (found.start, found.end, found.rows) == ("2024-01-01", "2024-03-01", ROWS)
    assert (found.training_days, found.holdout_days, found.embargo_days) == (21, 7, 1)
    assert found.first_go_live == "2024-02-05", "a Monday with 21 + 7 + 2 days before it"
    assert (found.windows.rows_to_learn, found.windows.rows_to_judge) == (A_DAY * (35 - 9), A_DAY * 7)
    assert reason(found, "entity", "shopId") == f"is called an id, and values repeat (7 values, {ROWS / 7:.1f} rows each)"
    assert {each.what for each in found.inferences} == {"time", "id", "label", "labels", "entity"}, "each with its reason"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_text_says_the_same_as_parquet(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"orders{suffix}"
    rows = orders()
    rows.to_json(file, orient="records", lines=True) if suffix == ".jsonl" else rows.to_csv(file, index=False)
    found, expected = infer(file, Answers(known_after=timedelta(days=1))), inferred(tmp_path, rows)
    for name in ("time", "ids", "label", "positive", "entities", "categories", "windows"):
        assert getattr(found, name) == getattr(expected, name)
    assert [(each.name, each.hundredths) for each in found.numbers] == [(each.name, each.hundredths) for each in expected.numbers]


@pytest.mark.parametrize(
    ("changes", "answers", "words", "field"),
    [
        ({"at": None}, {}, "no column has a time in each row", "time"),
        ({"due": orders()["at"]}, {}, "it could be at, due; name it with --time", "time"),
        ({"late": None}, {}, "no column has two values", "label"),
        ({"gift": ["1", "0"] * (ROWS // 2)}, {}, "it could be late, gift; name it with --label", "label"),
        ({"late": ["a", "b"] * (ROWS // 2)}, {}, "which value of late is a positive, a or b", "positive"),
        ({}, {"positive": "always"}, "Say it with --positive", "positive"),
        ({"orderNo": ["same"] * ROWS}, {}, "no column has another value in each row; .* --id A --id B, or --generate-id", "id"),
        ({"other": [f"x{n}" for n in range(ROWS)]}, {}, "it could be orderNo, other; name it with --id", "id"),
        ({}, {"known_after": None}, "when is a label known.*--known-after.*--known-at", "known_after"),
    ],
)
def test_what_is_not_clear_is_asked(
    tmp_path: Path, changes: Mapping[str, Any], answers: Mapping[str, Any], words: str, field: str
) -> None:
    with pytest.raises(QuestionError, match=words) as asked:
        inferred(tmp_path, orders(**changes), **answers)
    assert asked.value.field == field


@pytest.mark.parametrize(
    ("changes", "answers", "words"),
    [
        ({"late": ["yes", "no", "maybe", "no"] * (ROWS // 4)}, {"label": "late"}, "late has 3 values .'maybe', 'no', 'yes'."),
        (
            {"late": ["yes", None] * (ROWS // 2)},
            {"label": "late"},
            "1 values .*a label that is missing is not known yet, and no negative",
        ),
        ({}, {"time": "when"}, "--time: .*orders.parquet has no column 'when'; it has orderNo, at, "),
        ({}, {"entities": ("shop",)}, "--entity: .* no column 'shop'"),
        ({}, {"time": "channel"}, "channel has no time in row 1, but 'web', and in"),
        ({}, {"time": "price"}, "--time: column price is double, expected timestamps, dates or text"),
        ({}, {"known_after": timedelta(0)}, "known with its event cannot be predicted"),
        ({}, {"timezone": "Berlin"}, "'Berlin' is no time zone"),
        (
            {},
            {"known_after": timedelta(days=30)},
            "60 of 60 days .2024-01-01 to 2024-02-29. have events, 8 a day: expected 95 days or more",
        ),
        ({}, {"id": ("channel",)}, "--id: column channel has no value in row 4"),
        (
            {"orderNo": ["x" * 30 + f"{n:020}" for n in range(ROWS)]},
            {"id": ("orderNo",)},
            "50 bytes, expected 40 at most: .*--generate-id",
        ),
        ({}, {"known_at": "channel"}, "--known-at: column channel has no times"),
        (
            {},
            {"time": "at", "after": ("at",)},
            "--time and --after both name column at: it cannot be known with an event and later",
        ),
        ({}, {"time": "at", "known_at": "at"}, "--time and --known-at both name column at"),
        ({}, {"id": ("orderNo",), "after": ("orderNo",)}, "--id and --after both name column orderNo"),
        ({}, {"label": "late", "entities": ("late",)}, "--entity and --label both name column late"),
        ({}, {"label": "late", "after": ("late",)}, "--label and --after both name column late: a label is one already"),
        ({}, {"dialect": ("decimals = 1",)}, "no setting of a dialect: decimals; expected separator, encoding"),
        ({}, {"dialect": ("decimal",)}, "--dialect: expected lines of TOML"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, changes: Mapping[str, Any], answers: Mapping[str, Any], words: str) -> None:
    with pytest.raises(CannotInferError, match=words):
        inferred(tmp_path, orders(**changes), **answers)


def test_what_is_no_feature_is_left_out_and_said_why(tmp_path: Path) -> None:
    rows = orders(
        note=["x"] * ROWS,
        tags=[["a"], ["b"]] * (ROWS // 2),
        comment=[f"text {number}" for number in range(ROWS)],
        paid=pd.date_range("2024-01-01", periods=ROWS),
        size=[10**18 + number for number in range(ROWS)],
    )
    found = inferred(tmp_path, rows, time="at", id=("orderNo",), after=("weight",))
    assert dict(found.left_out) == {
        "note": "is the same in each row",
        "tags": "is list<element: string>",
        "comment": f"is a text with {ROWS} values: name it with --entity if events have it in common",
        "paid": "is a time: name it with --after if it is known only later",
        "size": "has whole numbers as large as 1,000,000,000,000,000,512, which a number cannot hold exactly",
    }
    assert [(each.name, each.dtype, each.nullable) for each in found.after] == [("weight", "FLOAT64", True)]
    assert "weight" not in [each.name for each in found.numbers]


# Names ------------------------------------------------------------------------------------------------------------------------


def test_any_name_is_a_column_like_others(tmp_path: Path) -> None:
    """Of the platform, of provenance, of what is generated, of Python and SQL; that differ in case only; of any script; none at all."""
    values = [number % 5 for number in range(ROWS)]
    headers = [
        *(
            "event_id",
            "label",
            "day",
            "hour",
            "source_row",
            "rejected",
            "select",
            "class",
            "Price",
            "PRICE",
            "two words",
            "two_words",
        ),
        *(
            "名前",
            "имя",
            "ß",
            "",
            "1st",
            "self",
            "events_count_24h_by_shop_id",
            "price_hundredths",
            "previous_of_shop_id_age_minutes",
        ),
    ]
    found = inferred(tmp_path, orders(**dict.fromkeys(headers, values)), id=("orderNo",), label="late")
    names = {each.source: each.name for each in (*found.numbers, *found.entities)}
    assert {header: names.get(header) for header in headers} == {
        **{name: name for name in ("rejected", "select", "class", "two_words", "名前", "имя", "ß", "self")},
        "event_id": "given_event_id",
        "label": "given_label",
        "day": "given_day",
        "hour": "given_hour",
        "source_row": "given_source_row",
        "Price": "price_2",
        "PRICE": "price_3",
        "two words": "two_words",
        "two_words": "two_words_2",
        "": "column_24",
        "1st": "column_1st",
        "events_count_24h_by_shop_id": "events_count_24h_by_shop_id_2",
        "price_hundredths": "price_hundredths_2",
        "previous_of_shop_id_age_minutes": "previous_of_shop_id_age_minutes_2",
    }
    every = [each.name for each in (*found.known_with_event, *found.known_later)]
    assert len(set(every)) == len(every)


def test_a_column_that_is_what_its_name_says_has_it(tmp_path: Path) -> None:
    rows = orders().rename(columns={"orderNo": "event_id", "late": "label", "at": "event_time"})
    found = inferred(tmp_path, rows)
    assert [each.name for each in (*found.ids, found.label, found.time)] == ["event_id", "label", "event_time"]


# Which column is what -------------------------------------------------------------------------------------------------------------


def test_a_column_is_an_entity_by_how_its_values_repeat_and_not_by_its_name_alone(tmp_path: Path) -> None:
    rows = orders(
        flight_number=[number % 90 for number in range(ROWS)],
        house_no=[number % 70 for number in range(ROWS)],
        zip=[f"0{number % 60:04}" for number in range(ROWS)],
        session_id=[f"s{number // 1.1:.0f}" for number in range(ROWS)],
        kind_id=[number % 3 for number in range(ROWS)],
        seller=[f"seller {number % 80}" for number in range(ROWS)],
    )
    found = inferred(tmp_path, rows, id=("orderNo",))
    assert [each.source for each in found.entities] == ["shopId"]
    unclear = {each.column: each.why for each in found.inferences if each.what == "no entity"}
    assert unclear.keys() == {"flight_number", "house_no", "zip", "session_id", "kind_id", "seller"}
    assert unclear["kind_id"] == "a category: 3 values, 160.0 rows each"
    assert unclear["session_id"].startswith("hardly a value repeats")
    assert [each.name for each in found.numbers if each.name in unclear] == ["flight_number", "house_no", "kind_id"]

    found = inferred(tmp_path, rows, id=("orderNo",), entities=("zip", "seller"), no_entities=("shopId",))
    assert [(each.source, each.spelling) for each in found.entities] == [("zip", Spelling.TEXT), ("seller", Spelling.TEXT)]
    assert "shop_id" in [each.name for each in found.numbers]


@pytest.mark.parametrize(
    ("values", "spelling"),
    [
        (["17", "17.0", "18"], Spelling.WHOLE),
        (["017", "17", "18"], Spelling.TEXT),
        (["True", "true", "FALSE"], Spelling.BOOLEAN),
        (["0" * 8 + "-0000-0000-0000-" + "a" * 12, "1" * 8 + "-0000-0000-0000-" + "A" * 12], Spelling.UUID),
        (["a", "A", "b"], Spelling.TEXT),
    ],
)
def test_keys_have_one_spelling(tmp_path: Path, values: list[str], spelling: Spelling) -> None:
    texts = [values[number % len(values)] for number in range(ROWS)]
    found = inferred(tmp_path, orders(key=texts), entities=("key",))
    assert next(each.spelling for each in found.entities if each.source == "key") is spelling


def test_a_label_spelled_as_a_number_or_a_truth_is_one(tmp_path: Path) -> None:
    found = inferred(tmp_path, orders(late=["1.0", "0.0", "1", None] * (ROWS // 4)))
    assert (found.positive, found.negative, found.label.spelling) == ("1", "0", Spelling.WHOLE)
    assert inferred(tmp_path, orders(late=["1.0", "0.0", "0.0", "0.0"] * (ROWS // 4)), positive="0.0").positive == "0"
    assert inferred(tmp_path, orders(late=["True", "false", "FALSE", "False"] * (ROWS // 4))).positive == "true"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 2], "which value of late is a positive, 1 or 2. Say it with --positive$"),
        (
            ["Y", "NULL"],
            """NULL or Y. Say it with --positive, or with --dialect 'missing = {"late" = \\["NULL"\\]}' that NULL is no label""",
        ),
        (["yes", "perhaps"], "a positive, perhaps or yes"),
    ],
)
def test_a_value_is_a_negative_only_if_it_says_so(tmp_path: Path, values: list[Any], words: str) -> None:
    rows = orders(late=values * (ROWS // 2))
    with pytest.raises(QuestionError, match=words):
        inferred(tmp_path, rows, label="late")
    found = inferred(tmp_path, rows, label="late", positive=str(values[0]))
    assert (found.positive, found.negative) == tuple(map(str, values))


def test_a_label_that_is_missing_is_not_known_yet(tmp_path: Path) -> None:
    late = [*["yes", "no", "no", "no"] * ((ROWS - 40) // 4), *[None] * 40]
    found = inferred(tmp_path, orders(late=late))
    assert (found.labelled, found.positive_share, found.label.nullable) == (ROWS - 40, 0.25, True)
    assert reason(found, "labels", "late").startswith(
        "is missing in 40 of 480 rows: these are not known yet, and scored all the same"
    )
    found = inferred(tmp_path, orders())
    assert "events whose label is not known yet are scored all the same" in reason(found, "labels", "late")


def test_the_time_of_a_label_of_its_own(tmp_path: Path) -> None:
    rows = orders()
    told = pd.to_datetime(rows["at"]) + pd.to_timedelta([1 + number % 10 for number in range(ROWS)], unit="D")
    told[3] = pd.NaT
    found = inferred(tmp_path, rows.assign(told_at=told), known_after=None, known_at="told_at")
    assert found.known_at is not None
    assert (found.known_at.name, found.known_after, found.embargo_days, found.arrival.latest_days) == ("told_at", None, 10, 12)
    assert "told_at" not in found.left_out
    for hours in (0, 1):
        early = rows.assign(told_at=(pd.to_datetime(rows["at"]) - pd.Timedelta(hours=hours)))
        with pytest.raises(CannotInferError, match="in 480 rows told_at is not after the event, first in row 1"):
            inferred(tmp_path, early, time="at", known_at="told_at")


@pytest.mark.parametrize(("later", "embargo"), [(0, 1), (3, 4)])
def test_a_label_of_a_date_is_known_at_the_end_of_it(tmp_path: Path, later: int, embargo: int) -> None:
    rows = orders()
    at = pd.to_datetime(rows["at"])
    dates = (at + pd.Timedelta(days=later)).dt.strftime("%Y-%m-%d")
    found = inferred(tmp_path, rows.assign(told_at=dates), time="at", known_after=None, known_at="told_at")
    assert found.arrival.known_at_dates
    assert found.embargo_days == embargo


def test_a_role_that_a_column_has_already_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotInferError, match="--entity: column at is the event time"):
        inferred(tmp_path, orders(), entities=("at",))
    with pytest.raises(CannotInferError, match="--id: column late is the label"):
        inferred(tmp_path, orders(), id=("orderNo", "late"))


# Ids ------------------------------------------------------------------------------------------------------------------------------


def test_an_id_that_two_events_have_is_refused_with_both(tmp_path: Path) -> None:
    rows = orders(orderNo=[f"o{number % 400}" for number in range(ROWS)])
    with pytest.raises(
        QuestionError, match=r"--id: rows 1 and 401 are different events with the same orderNo 'o0'; 80 of 480 rows repeat"
    ):
        inferred(tmp_path, rows, id=("orderNo",))
    assert [each.name for each in inferred(tmp_path, rows, id=("orderNo", "at")).ids] == ["order_no", "at"], "together"


def test_a_row_that_repeats_as_it_is_takes_no_id_away(tmp_path: Path) -> None:
    rows = orders()
    found = inferred(tmp_path, pd.concat([rows, rows.iloc[[5]]]))
    assert [each.source for each in found.ids] == ["orderNo"]
    assert reason(found, "id", "orderNo") == "has another value in each row but 1 that repeat a row as it is"


def test_an_id_is_made_of_what_is_known_with_the_event(tmp_path: Path) -> None:
    rows = orders(orderNo=None, comment=[f"text {number}" for number in range(ROWS)])
    found = inferred(tmp_path, rows, generate_id=True, after=("weight",))
    assert found.generated_id
    assert [each.source for each in found.ids] == ["at", "shopId", "price", "items", "channel", "comment"], (
        "and of nothing that comes later"
    )
    assert "comment" not in found.left_out


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_events_that_differ_in_the_label_alone_are_no_events_of_their_own(tmp_path: Path, share: float) -> None:
    """They get one generated id: told where they are few, and refused where days would be red for it."""
    rows = orders(orderNo=None)
    twice = rows.head(int(share * ROWS))
    both = pd.concat([rows, twice.assign(late=twice["late"].map({"yes": "no", "no": "yes"}))], ignore_index=True)
    said = rf"rows 1 and {ROWS + 1} are alike in all that is known with the event, and differ in late; so do {2 * len(twice)} of"
    if share > 0.05:
        with pytest.raises(CannotInferError, match=rf"--generate-id: {said} .*give the file a column .* name it with --id"):
            inferred(tmp_path, both, generate_id=True)
    else:
        found = inferred(tmp_path, both, generate_id=True)
        assert [each.why for each in found.inferences if re.match(said, each.why)]


@pytest.mark.parametrize("name", ["Unnamed: 0", "rownames", "__index_level_0__", "X"])
def test_the_number_of_a_row_identifies_no_event(tmp_path: Path, name: str) -> None:
    rows = orders()
    rows.insert(0, name, range(1, ROWS + 1))
    found = inferred(tmp_path, rows)
    assert [each.source for each in found.ids] == ["orderNo"]
    assert found.left_out[name].startswith("counts the rows of the file")


@pytest.mark.parametrize("name", ["Unnamed: 0", "rownames", "__index_level_0__", "row.names"])
def test_the_number_of_a_row_of_which_others_are_left_out_identifies_no_event(tmp_path: Path, name: str) -> None:
    rows = orders()
    rows.insert(0, name, range(7, 7 + 3 * ROWS, 3))
    found = inferred(tmp_path, rows)
    assert [each.source for each in found.ids] == ["orderNo"]
    assert found.left_out[name].startswith("counts the rows of the file")


def test_a_column_of_another_name_that_goes_up_may_identify_an_event(tmp_path: Path) -> None:
    rows = orders().drop(columns="orderNo")
    rows.insert(0, "row_no", range(7, 7 + 3 * ROWS, 3))
    assert [each.source for each in inferred(tmp_path, rows).ids] == ["row_no"]


# Days -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["1970-01-01T00:00:00Z", "2099-12-31T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_wrong_date_makes_no_calendar(tmp_path: Path, wrong: str) -> None:
    rows = orders()
    rows.loc[123, "at"] = wrong
    found = inferred(tmp_path, rows)
    assert (found.start, found.end, found.windows.rows) == ("2024-01-01", "2024-03-01", ROWS - 1)
    assert found.times.outside == [(124, wrong)]
    assert (found.earliest, found.latest) == (("2024-01-01", None) if wrong < "2024" else (None, "2024-02-29"))
    assert f"1 of 480 rows lie outside 2024-01-01 to 2024-02-29, first row 124 ({wrong}): they are quarantined" in reason(
        found, "time", "at"
    )


def test_a_few_rows_without_a_time_are_quarantined_and_said(tmp_path: Path) -> None:
    rows = orders()
    rows.loc[[3, 77], "at"] = None
    assert "2 of 480 rows have no time, first row 4 (None)" in reason(inferred(tmp_path, rows), "time", "at")
    rows.loc[:40, "at"] = "soon"
    with pytest.raises(CannotInferError, match="column at has no time in row 1, but 'soon', and in 42 of 480 rows"):
        inferred(tmp_path, rows, time="at")


@pytest.mark.parametrize(
    ("times", "dates", "only"),
    [
        (lambda at: at.str[:10], True, True),
        (lambda at: at.str[:10] + "T00:00:00Z", True, True),
        (lambda at: at.where(at.index % 2 == 0, at.str[:10]), True, False),
        (lambda at: at, False, False),
        (lambda at: at.str.replace("T", " ").str.replace("Z", " UTC"), False, False),
    ],
)
def test_dates_without_a_time_of_day_are_said(tmp_path: Path, times: Any, dates: bool, only: bool) -> None:
    rows = orders()
    found = inferred(tmp_path, rows.assign(at=times(rows["at"])))
    assert (found.times.dates, found.times.only_dates) == (dates, only)
    assert ("dates without a time of day" in reason(found, "time", "at")) == dates


def test_times_that_are_numbers_since_1970(tmp_path: Path) -> None:
    rows = orders()
    seconds = (pd.to_datetime(rows["at"]) - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    for at, form in (
        (seconds, "epoch seconds"),
        (1000 * seconds, "epoch milliseconds"),
        (seconds + 0.25, "epoch seconds"),
        (seconds.where(seconds.index != 7), "epoch seconds"),
        ((seconds + 0.25).astype(str), "epoch seconds"),
    ):
        found = inferred(tmp_path, rows.assign(at=at), time="at")
        assert (found.start, found.end) == ("2024-01-01", "2024-03-01")
        assert found.dialect_settings == {"time": {"at": form}}


def test_a_file_without_names_of_columns_is_refused(tmp_path: Path) -> None:
    orders().drop(columns=["weight", "items", "price"]).to_csv(tmp_path / "orders.csv", index=False, header=False)
    with pytest.raises(
        CannotInferError, match="has no names of columns: its first row has '2024-01-01T01:00:00Z' where the others have"
    ):
        infer(tmp_path / "orders.csv", Answers(known_after=timedelta(days=1)))


@pytest.mark.parametrize("column", ["price", "items"])
def test_a_column_of_numbers_but_for_a_value_is_said(tmp_path: Path, column: str) -> None:
    rows = orders()
    rows[column] = rows[column].astype(str).where(rows.index != 7, "see note")
    found = inferred(tmp_path, rows, id=("orderNo",))
    why = found.left_out[column] if column == "price" else reason(found, "category", column)
    assert why.startswith("is a text, though most values are numbers: row 8 has 'see note'. Correct the file, or declare")
    missing = f'missing = {{"{column}" = ["see note"]}}'
    assert missing in why
    [number] = [each for each in inferred(tmp_path, rows, id=("orderNo",), dialect=(missing,)).numbers if each.source == column]
    assert number.nullable


def test_how_full_the_days_are_is_said_and_decides_the_windows(tmp_path: Path) -> None:
    """Forty events on every tenth day."""
    days = pd.date_range("2023-01-01", periods=40, freq="10D", tz="UTC")
    at = [day + pd.Timedelta(minutes=minute) for day in days for minute in range(12)]
    rows = orders().assign(at=pd.Series(at).dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    found = inferred(tmp_path, rows)
    assert "40 of 391 days have events, 12 a day: windows are longer than usual" in reason(found, "time", "at")
    assert (found.training_days, found.holdout_days, found.window_days) == (14, 28, (7, 30, 90))
    assert found.windows.rows_to_learn >= 100
    assert found.windows.rows_to_judge >= 30


def test_too_few_events_are_refused_with_the_numbers(tmp_path: Path) -> None:
    days = pd.date_range("2023-01-01", periods=20, freq="30D", tz="UTC")
    at = [day + pd.Timedelta(minutes=minute) for day in days for minute in range(3)]
    rows = orders().head(60).assign(at=pd.Series(at).dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    words = r"20 of 571 days \(2023-01-01 to 2024-07-24\) have events, 3 a day, 60 with a known label: no windows hold 100 events"
    with pytest.raises(CannotInferError, match=words):
        inferred(tmp_path, rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [("gone.csv", None), ("orders.xlsx", b""), ("orders.parquet", b"no"), ("e.csv", b"a,b\n"), ("empty.csv", b"")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CannotInferError, match=f"{name} is empty" if name == "empty.csv" else name):
        infer(tmp_path / name, Answers())
