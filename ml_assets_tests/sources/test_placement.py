"""Rows without a time, or of another age: delivered once, under the day of their neighbour, and nothing else changes."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.sources import mapped
from ml_assets.sources.bounds import Bounds, bulk_of
from ml_assets.sources.canonical import MARK
from ml_assets.sources.delivered import OUT_OF_BOUNDS
from ml_assets.sources.mapped import MappedFiles
from ml_assets.sources.placement import day_in
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import delivery_findings, ingested
from ml_assets.use_case import Batch, Column, Day, DType, Table, day_range

NOW = datetime(2024, 1, 10, 12, tzinfo=UTC)
BOUNDS = Bounds(start="2024-01-01", earliest="2024-01-01", now=lambda: NOW)
DAYS = day_range("2024-01-01", "2024-01-11")
OTHER_AGES = [
    "0001-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "2023-12-31T23:59:59Z",
    "2024-01-12T00:00:00Z",
    "2099-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
]
UNREADABLE = [None, "soon", "2024-02-30T00:00:00Z", "01/02/2024", "2024-01-05T25:00:00Z", "20240105"]
Files = Mapping[str, Sequence[str | None]]
"""Times, by the name of a file."""


def write(folder: Path, files: Files, suffix: str) -> None:
    for path in folder.iterdir():
        path.unlink()
    for name, times in files.items():
        rows = pd.DataFrame({"at": pd.Series(times, dtype="str"), "name": [f"{name}{row}" for row in range(len(times))]})
        path = folder / f"{name}{suffix}"
        if suffix == ".csv":
            rows.to_csv(path, index=False)
        elif suffix == ".parquet":
            pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), path, row_group_size=3)
        else:
            rows.to_json(path, orient="records", lines=True)


def source(folder: Path, suffix: str = ".csv", **changes: Any) -> MappedFiles:
    declared = {"columns": {"at": "at", "name": "name"}, "day_column": "at", "timezone": "UTC", "bounds": BOUNDS}
    return MappedFiles(folder=folder, **({"pattern": f"*{suffix}"} | declared | changes))


def names(batch: Batch) -> dict[Day, list[str]]:
    return {str(day): rows["name"].tolist() for day, rows in batch.rows.groupby("day")}


# All rows, once ---------------------------------------------------------------------------------------------------------------

SOUND = st.tuples(st.sampled_from(DAYS), st.integers(0, 23)).map(lambda parts: f"{parts[0]}T{parts[1]:02d}:00:00Z")
TIMES = st.lists(SOUND | SOUND | st.sampled_from([*OTHER_AGES, *UNREADABLE]), max_size=8)
FILES = st.dictionaries(st.sampled_from(["a", "b", "c_2024-01-03", "d_20240109", "e2024-01"]), TIMES, min_size=1, max_size=4)


def expected(files: Files) -> tuple[dict[Day, list[str]], dict[str, Day | None]]:
    """Under which day each row belongs, and of files without a sound row the day that they get."""
    days: dict[Day, list[str]] = {}
    others: dict[str, Day | None] = {}
    for name, times in sorted(files.items()):
        known = sound_of(times)
        if times and not known:
            before = [max(of) for other in sorted(files) if other < name and (of := sound_of(files[other]))]
            after = [min(of) for other in sorted(files) if other > name and (of := sound_of(files[other]))]
            others[name] = day_in(name) or next(iter([*before[-1:], *after]), None)
        current = known[0] if known else others.get(name)
        for row, time in enumerate(times):
            current = time[:10] if time is not None and is_sound(time) else current
            if current is not None:
                days.setdefault(current, []).append(f"{name}{row}")
    return days, others


def is_sound(time: str | None) -> bool:
    return time not in UNREADABLE and time is not None and DAYS[0] <= time[:10] <= DAYS[-1]


def sound_of(times: Sequence[str | None]) -> list[Day]:
    return [time[:10] for time in times if time is not None and is_sound(time)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(suffix=st.sampled_from([".csv", ".parquet", ".jsonl"]), files=FILES)
def test_every_row_is_delivered_once_and_a_stray_one_changes_no_day_but_its_own(suffix: str, files: Files) -> None:
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        patched.setattr(mapped, "AT_ONCE", 2)
        folder = Path(place)
        write(folder, files, suffix)
        of_files = source(folder, suffix)
        batch, versions = of_files.read(DAYS), of_files.versions(DAYS)
        days, others = expected(files)
        every = [each for of in files.values() for each in sound_of(of)]
        last = max(every, default="")

        # Each row once, under its own day or its neighbour's; days behind the last sound one are not delivered.
        assert names(batch) == ({day: rows for day, rows in days.items() if day <= last} if every else {})
        assert {day for day in DAYS if day > last} <= set(batch.problems)
        lost = any(day_in(name) is None for name in others)
        assert set(batch.problems) == {day for day in DAYS if day > last or (lost and day not in days)}
        assert batch.counted == {day: len(days.get(day, [])) for day in DAYS if day not in batch.problems}
        assert batch.versions == versions

        # A range is its days one by one.
        for day in DAYS:
            alone = of_files.read([day])
            assert names(alone) == {each: rows for each, rows in names(batch).items() if each == day}
            assert (alone.problems.get(day), alone.versions.get(day)) == (batch.problems.get(day), versions.get(day))

        # Of a file without its stray rows, only its own days are others.
        for name, times in files.items():
            write(folder, {**files, name: [time for time in times if is_sound(time)]}, suffix)
            without = of_files.read(DAYS)
            held = {day for other, of in files.items() if other != name for day in sound_of(of)}
            touched = {*sound_of(times), *([others[name]] if others.get(name) else []), *following(files, others)}
            for day in held - touched:
                assert without.versions[day] == versions[day], (name, day)
                assert names(without)[day] == names(batch)[day]


def following(files: Files, others: Mapping[str, Day | None]) -> set[Day | None]:
    """Where rows of files without a sound row are: they follow the files around them."""
    return {others[name] for name in files if name in others and day_in(name) is None}


def test_a_stray_row_has_the_day_of_the_sound_one_before_it(tmp_path: Path) -> None:
    times = [None, "2024-01-02T10:00:00Z", "soon", "2099-01-01T00:00:00Z", "2024-01-01T10:00:00Z", "1970-01-01T00:00:00Z"]
    for suffix in (".csv", ".parquet", ".jsonl"):
        write(tmp_path, {"a": times}, suffix)
        assert names(source(tmp_path, suffix).read(DAYS)) == {"2024-01-01": ["a4", "a5"], "2024-01-02": ["a0", "a1", "a2", "a3"]}
        assert source(tmp_path, suffix).read(DAYS).rows["at"].isna().sum() == 1
        [told] = [text for text in source(tmp_path, suffix).read(["2024-01-02"]).rows["at"].dropna() if text.startswith("2099")]
        assert told == f"2099-01-01T00:00:00Z{MARK}{OUT_OF_BOUNDS}", "as it was, and why it is refused"


# What is complete -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [time for time in OTHER_AGES if time > "2024"])
def test_a_row_of_the_future_makes_no_day_one_that_came(tmp_path: Path, time: str) -> None:
    write(tmp_path, {"a": ["2024-01-02T10:00:00Z", time]}, ".csv")
    batch = source(tmp_path).read([*DAYS, time[:10]])
    assert batch.counted == {"2024-01-01": 0, "2024-01-02": 2}
    assert source(tmp_path).versions(DAYS).keys() == {"2024-01-01", "2024-01-02"}
    assert "the last row in *.csv" in batch.problems["2024-01-03"]
    assert "is of 2024-01-02" in batch.problems["2024-01-03"]


def test_what_is_out_of_bounds_today_may_come_tomorrow(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["2024-01-02T10:00:00Z", "2024-01-13T10:00:00Z"]}, ".csv")
    days = ["2024-01-02", "2024-01-13"]
    before = source(tmp_path)
    after = source(tmp_path, bounds=Bounds(start="2024-01-01", now=lambda: NOW + timedelta(days=3)))
    assert names(before.read(days)) == {"2024-01-02": ["a0", "a1"]}
    assert names(after.read(days)) == {"2024-01-02": ["a0"], "2024-01-13": ["a1"]}
    assert before.versions(days)["2024-01-02"] != after.versions(days)["2024-01-02"], "so that the day is made again"


def test_a_file_that_is_named_by_its_day_keeps_it_whatever_its_times_say(tmp_path: Path) -> None:
    times = ["2024-01-02T10:00:00Z", None, "2099-01-01T00:00:00Z"]
    write(tmp_path, {"2024-01-02": times, "2024-01-03": times, "2099-01-01": times}, ".csv")
    batch = source(tmp_path, pattern="{day}.csv").read(DAYS)
    assert {day: len(rows) for day, rows in names(batch).items()} == {"2024-01-02": 3, "2024-01-03": 6}
    told = f"no row is of the day for sure: {tmp_path}/2099-01-01.csv has no row whose day is known, its name says 2099-01-01, which is out"
    assert batch.problems["2024-01-01"].startswith(told)
    assert "is of 2024-01-03" in batch.problems["2024-01-04"], "a wrong name completes nothing"


def test_a_file_without_a_sound_row_takes_down_no_day_of_another(tmp_path: Path) -> None:
    files = {"a": ["2024-01-02T10:00:00Z"], "b": ["02/01/2024", None], "c": ["2024-01-05T10:00:00Z"], "d_2024-01-06": ["soon"]}
    write(tmp_path, files, ".csv")
    of_files = source(tmp_path)
    batch = of_files.read(DAYS)
    assert names(batch) == {"2024-01-02": ["a0", "b0", "b1"], "2024-01-05": ["c0"]}
    told = f"{tmp_path}/b.csv has no row whose day is known, row 1: at is '02/01/2024', expected a time such as 2018-04-01T09:30:00"
    assert batch.problems["2024-01-03"].startswith(f"no row is of the day for sure: {told}"), "never green and empty"
    late = (
        f"not delivered yet: the last row in *.csv in {tmp_path} is of 2024-01-05; {tmp_path}/d_2024-01-06.csv, row 1: at is 'soon'"
    )
    assert batch.problems["2024-01-06"].startswith(late)
    whole = source(tmp_path, complete_to="2024-01-11").read(DAYS)
    assert names(whole)["2024-01-06"] == ["d_2024-01-060"]
    assert of_files.trouble() == ""


def test_a_column_without_any_time_is_one_without_a_sound_row(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["2024-01-02T10:00:00Z"]}, ".parquet")
    pq.write_table(pa.table({"at": pa.nulls(2), "name": ["b0", "b1"]}), tmp_path / "b.parquet")
    assert names(source(tmp_path, ".parquet").read(["2024-01-02"])) == {"2024-01-02": ["a0", "b0", "b1"]}


def test_a_file_without_rows_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["2024-01-02T10:00:00Z"], "b": []}, ".jsonl")
    assert (tmp_path / "b.jsonl").read_text().strip() == ""
    batch = source(tmp_path, ".jsonl").read(["2024-01-01", "2024-01-02"])
    assert batch.counted == {"2024-01-01": 0, "2024-01-02": 1}


def test_where_no_row_of_any_file_has_a_time_no_day_is_delivered(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["02/01/2024"], "b": [None]}, ".csv")
    for complete_to in (None, "2024-01-11"):
        of_files = source(tmp_path, complete_to=complete_to)
        told = f"{tmp_path}/a.csv, row 1: at is '02/01/2024', expected a time such as 2018-04-01T09:30:00 or 2018-04-01T09:30:00Z"
        problems = of_files.read(DAYS).problems
        [problem] = set(problems.values())
        assert problem.startswith(told)
        assert (list(problems), of_files.trouble(), of_files.versions(DAYS)) == (DAYS, problem, {})


def test_a_delayed_time_is_in_bounds_if_it_was_before(tmp_path: Path) -> None:
    """A report a week after a payment of today is none of the future that cannot be."""
    write(tmp_path, {"a": ["2024-01-10T10:00:00Z", "2024-02-01T10:00:00Z", "1970-01-01T00:00:00Z"]}, ".csv")
    reports = source(tmp_path, columns={"name": "name"}, delayed={"at": ("at", timedelta(days=7))})
    batch = reports.read(["2024-01-17", "2024-01-18"])
    assert names(batch) == {"2024-01-17": ["a0", "a1", "a2"]}
    assert list(batch.problems) == ["2024-01-18"]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/Sao_Paulo"])
@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.date32(), pa.date64()]
)
def test_no_time_of_any_type_is_a_traceback(tmp_path: Path, zone: str, kind: pa.DataType) -> None:
    days = [
        -719_163,
        -719_162,
        -719_161,
        0,
        19_724,
        2_932_896,
        2_932_897,
        100_000_000 if not pa.types.is_date32(kind) else 2**31 - 1,
    ]
    unit = {pa.timestamp("s"): 86_400, pa.date32(): 1}.get(kind, 86_400_000_000 if "us" in str(kind) else 86_400_000)
    values = pa.array([day * unit for day in days], pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)
    pq.write_table(pa.table({"at": values, "name": [f"a{row}" for row in range(len(days))]}), tmp_path / "a.parquet")
    for dates in (None, "start", "end"):
        for delay in (timedelta(0), timedelta(days=1), timedelta(hours=5)):
            changes = {"columns": {"name": "name"}, "delayed": {"at": ("at", delay)}, "dates": dates, "complete_to": "2024-02-01"}
            batch = source(tmp_path, ".parquet", timezone=zone, **changes).read(day_range("2024-01-01", "2024-01-05"))
            [rows] = names(batch).values()
            assert sorted(rows) == [f"a{row}" for row in range(len(days))], (dates, delay)
            assert batch.problems == {}


def test_cleaning_rejects_what_has_no_time_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["2024-01-02T10:00:00Z"] * 30 + [None, "soon", "2099-01-01T00:00:00Z"]}, ".csv")
    columns = (Column(name="at", dtype=DType.TIMESTAMP), Column(name="name", dtype=DType.STRING))
    table = Table(
        name="things",
        source=lambda _: source(tmp_path),
        delivered=columns,
        columns=columns,
        key=("name",),
        derive=lambda rows: rows,
    )
    batch = table.source({}).read(["2024-01-02"])
    assert all(finding.passed for finding in delivery_findings(batch, table, ["2024-01-02"])["2024-01-02"])
    cleaned = clean(ingested(batch, table, ["2024-01-02"]), table)
    assert len(cleaned.rows) == 30
    reasons = ["at: missing", "at: 'soon' is not a time", f"at: '2099-01-01T00:00:00Z' {OUT_OF_BOUNDS}"]
    assert [told.startswith(reason) for told, reason in zip(cleaned.rejected["reason"], reasons, strict=True)] == [True] * 3


# Bounds -----------------------------------------------------------------------------------------------------------------------


def test_bounds_are_ten_years_before_the_start_to_tomorrow() -> None:
    assert Bounds(start="2024-02-29", now=lambda: NOW).days("UTC") == ("2014-02-28", "2024-01-11")
    late = datetime(2024, 1, 10, 23, 30, tzinfo=UTC)
    assert Bounds(start="2024-01-01", now=lambda: late).days("Europe/Berlin")[1] == "2024-01-12"
    assert Bounds(start="2024-01-01", end="2030-01-01", now=lambda: late).days("UTC")[1] == "2030-01-01"
    assert Bounds(start="2024-01-01", end="2023-01-01", now=lambda: late).days("UTC")[1] == "2024-01-11"
    assert Bounds(start="0005-01-01", latest="9999-12-31").days("UTC") == ("0002-01-01", "9998-12-31")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    first=st.dates(date(1990, 1, 1), date(2030, 1, 1)),
    days=st.lists(st.integers(0, 200), min_size=5, max_size=60, unique=True),
    wrong=st.lists(
        st.sampled_from(["0001-01-01", "1900-01-01", "1970-01-01", "2099-12-31", "9999-12-31"]), max_size=3, unique=True
    ),
)
def test_few_rows_of_another_age_are_not_what_a_file_is_about(first: date, days: list[int], wrong: list[Day]) -> None:
    counts = {(first + timedelta(days=day)).isoformat(): 100 for day in days}
    assert bulk_of(counts | dict.fromkeys(wrong, 1)) == (min(counts), max(counts))


def test_sparse_days_are_what_a_file_is_about() -> None:
    sparse = {(date(2022, 1, 1) + timedelta(days=29 * number)).isoformat(): 3 for number in range(20)}
    assert bulk_of(sparse) == (min(sparse), max(sparse))
    assert bulk_of({"2024-01-01": 1}) == ("2024-01-01", "2024-01-01")
    assert bulk_of({"2024-01-01": 9, "2099-01-01": 9}, latest="2026-01-01") == ("2024-01-01", "2024-01-01")
    assert bulk_of({"2099-01-01": 9}, latest="2026-01-01") == ("2099-01-01", "2099-01-01")
