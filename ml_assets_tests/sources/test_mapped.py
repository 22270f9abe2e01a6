"""Files of the reader's own: real Parquet and CSV on disk, their days, their values as text, and all that is wrong with them."""

import gzip
import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.sources import mapped
from ml_assets.sources.as_text import text_of
from ml_assets.sources.dialect import Dialect
from ml_assets.sources.files import PROVENANCE
from ml_assets.sources.mapped import MappedFiles
from ml_assets.use_case import Batch, Day, day_range

COLUMNS = {"payment_id": "ID", "paid_at": "AT", "amount": "SUM"}
SPRING = day_range("2018-03-30", "2018-06-02")
MONTHS = ("2018-04", "2018-05")
clock_time = datetime.fromisoformat


def payments(month: str, *, count: int = 400) -> pd.DataFrame:
    """A month of payments at random seconds, in order; none on the 13th."""
    random = np.random.default_rng(int(month.replace("-", "")))
    seconds = np.sort(random.integers(0, pd.Period(month).days_in_month * 86_400, count))
    at = (pd.Timestamp(month) + pd.to_timedelta(seconds, unit="s")).astype("datetime64[ms]")
    rows = pd.DataFrame({"ID": np.arange(count, dtype="int32"), "AT": at, "SUM": random.integers(1, 9999, count) / 100})
    rows["FRAUD"] = (random.random(count) < 0.1).astype("int8")
    return rows[rows["AT"].dt.day != 13].reset_index(drop=True)


def write_parquet(path: Path, rows: pd.DataFrame | Mapping[str, pa.Array], *, group: int = 100) -> Path:
    path.parent.mkdir(exist_ok=True)
    table = pa.Table.from_pandas(rows, preserve_index=False) if isinstance(rows, pd.DataFrame) else pa.table(dict(rows))
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for month in MONTHS:
        write_parquet(tmp_path / "pay" / f"{month}.parquet", payments(month))
    return tmp_path


@pytest.fixture
def source(folder: Path) -> MappedFiles:
    return MappedFiles(folder=folder, pattern="pay/*.parquet", columns=COLUMNS, day_column="paid_at", timezone="UTC")


def csv_source(folder: Path, **changes: Any) -> MappedFiles:
    declared = {"columns": {"at": "when", "fare": "fare"}, "day_column": "at", "timezone": "UTC", "pattern": "*.csv"}
    return MappedFiles(folder=folder, **(declared | changes))


def parquet_times(folder: Path, times: pa.Array, **changes: Any) -> MappedFiles:
    write_parquet(folder / "one.parquet", {"AT": times})
    declared = {"pattern": "*.parquet", "columns": {"at": "AT"}, "day_column": "at", "timezone": "UTC"}
    return MappedFiles(folder=folder, **(declared | changes))


def value_of(batch: Batch, column: str) -> list[Any]:
    return list(batch.rows[column].astype(object).where(batch.rows[column].notna(), None))


# Rows -------------------------------------------------------------------------------------------------------------------------


def by_pandas(rows: pd.DataFrame, file: str) -> pd.DataFrame:
    """What the source has to deliver, by Python's own texts."""
    path = Path(file)
    return pd.DataFrame(
        {
            "payment_id": [str(value) for value in rows["ID"]],
            "paid_at": [value.isoformat() + "Z" for value in rows["AT"]],
            "amount": [repr(value).removesuffix(".0") for value in rows["SUM"].tolist()],
            "day": [value.date().isoformat() for value in rows["AT"]],
            "source_file": f"{path.parent.name}/{path.name}",
            "source_row": range(1, len(rows) + 1),
            "source_version": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        }
    )


def test_every_row_is_delivered_in_the_order_of_files_and_rows(source: MappedFiles) -> None:
    batch = source.read(day_range("2018-04-01", "2018-05-31"))
    wanted = pd.concat([by_pandas(payments(month), str(source.folder / "pay" / f"{month}.parquet")) for month in MONTHS])
    pd.testing.assert_frame_equal(batch.rows, wanted.reset_index(drop=True), check_dtype=False)
    assert set(batch.rows.drop(columns="source_row").dtypes.astype(str)) == {"str"}
    assert batch.rows["source_row"].dtype == "int64"
    assert batch.problems == {}


def test_days_asked_in_part_equal_those_of_the_whole(source: MappedFiles) -> None:
    some = ["2018-04-30", "2018-04-02", "2018-05-01", "2018-04-13"]
    whole = source.read(day_range("2018-04-01", "2018-05-31")).rows
    batch = source.read(some)
    pd.testing.assert_frame_equal(batch.rows, whole[whole["day"].isin(some)].reset_index(drop=True))
    assert dict(batch.counted) == {day: int((whole["day"] == day).sum()) for day in some}
    assert batch.counted["2018-04-13"] == 0 < batch.counted["2018-04-02"]


def test_rows_are_numbered_through_pieces_and_groups(source: MappedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = source.read(SPRING).rows
    monkeypatch.setattr(mapped, "AT_ONCE", 7)
    pd.testing.assert_frame_equal(source.read(SPRING).rows, whole)


def test_only_files_and_row_groups_of_the_days_asked_are_opened(source: MappedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    source.versions(SPRING)
    read: list[tuple[list[int], list[str]]] = []
    of_file = pq.ParquetFile.iter_batches

    def noted(file: pq.ParquetFile, size: int, *, row_groups: list[int], columns: list[str]) -> Any:
        read.append((row_groups, sorted(columns)))
        return of_file(file, size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    assert source.read(["2018-04-02"]).counted["2018-04-02"] > 0
    assert read == [([0], ["AT", "ID", "SUM"])]


def test_rows_of_one_day_in_several_files_stand_by_name_of_the_file(tmp_path: Path) -> None:
    for name in "hbdagfec":
        (tmp_path / f"{name}.csv").write_text(f"when,fare\n2018-04-02,{name}1\n2018-04-01,{name}2\n2018-04-02,{name}3\n")
    rows = csv_source(tmp_path).read(["2018-04-02"]).rows
    assert rows["fare"].tolist() == [f"{name}{row}" for name in "abcdefgh" for row in (1, 3)]
    assert rows["source_row"].tolist() == [1, 3] * 8


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_gives_what_parquet_gives(source: MappedFiles, suffix: str) -> None:
    for month in MONTHS:
        payments(month).to_csv(source.folder / f"{month}{suffix}", index=False)
    days = day_range("2018-04-01", "2018-05-31")
    delivered = [*COLUMNS, "day", "source_row"]
    batch = replace(source, pattern=f"*{suffix}").read(days)
    wanted = source.read(days)
    # pandas writes 12.0 where the shortest is 12; a text stays as it is.
    amounts = batch.rows["amount"].str.removesuffix(".0")
    pd.testing.assert_frame_equal(batch.rows.assign(amount=amounts)[delivered], wanted.rows[delivered])
    assert batch.counted == wanted.counted
    assert batch.rows["source_file"].iloc[0] == f"2018-04{suffix}"


def test_a_delivered_column_of_a_provenance_name_is_kept_beside_it(source: MappedFiles) -> None:
    row = replace(source, columns=COLUMNS | {"day": "FRAUD", "source_row": "ID"}).read(["2018-05-01"]).rows.iloc[0]
    assert (row["day"], row["source_row"], row["delivered_day"], row["delivered_source_row"]) == ("2018-05-01", 1, "0", "0")


def test_a_column_without_a_name_is_delivered_without_values(source: MappedFiles) -> None:
    rows = replace(source, columns=COLUMNS | {"country": ""}).read(["2018-05-01"]).rows
    assert rows["country"].isna().all()
    assert (len(rows) > 0, rows["country"].dtype) == (True, "str")


def test_columns_are_there_when_no_row_is(source: MappedFiles) -> None:
    rows = replace(source, columns=COLUMNS | {"day": "FRAUD"}).read([]).rows
    assert list(rows) == [*COLUMNS, "delivered_day", *PROVENANCE]
    assert rows.empty


def test_only_rows_of_a_flag_are_kept_with_their_row_in_the_file(source: MappedFiles) -> None:
    flagged = replace(source, where=("FRAUD", "1"))
    batch = flagged.read(SPRING[2:-2])
    rows = payments("2018-04")
    wanted = [index + 1 for index, fraud in enumerate(rows["FRAUD"]) if fraud]
    april = batch.rows[batch.rows["source_file"] == "pay/2018-04.parquet"]
    assert april["source_row"].tolist() == wanted
    assert sum(batch.counted.values()) == len(batch.rows) == sum(int(payments(month)["FRAUD"].sum()) for month in MONTHS)


def test_a_flag_is_compared_as_text(tmp_path: Path) -> None:
    at = pa.array([clock_time("2018-04-01")] * 3)
    for column, text in [
        (pa.array([True, False, None]), "true"),
        (pa.array([1.0, 0.0, None]), "1"),
        (pa.array(["x", "", None]), "x"),
    ]:
        source = parquet_times(tmp_path, at, where=("FLAG", text))
        write_parquet(tmp_path / "one.parquet", {"AT": at, "FLAG": column})
        assert source.read(["2018-04-01"]).rows["source_row"].tolist() == [1]


# Times ------------------------------------------------------------------------------------------------------------------------


def test_what_becomes_known_later_is_of_the_day_on_which_it_does(source: MappedFiles) -> None:
    week = timedelta(days=7)
    later = MappedFiles(
        folder=source.folder,
        pattern=source.pattern,
        columns={"payment_id": "ID", "paid_at": "AT"},
        delayed={"reported_at": ("AT", week)},
        day_column="reported_at",
        timezone="UTC",
        where=("FRAUD", "1"),
    )
    days = day_range("2018-04-01", "2018-06-07")
    rows = later.read(days).rows
    frauds = pd.concat([payments(month).query("FRAUD == 1") for month in MONTHS])
    assert rows["reported_at"].tolist() == [(value + week).isoformat() + "Z" for value in frauds["AT"]]
    assert rows["paid_at"].tolist() == [value.isoformat() + "Z" for value in frauds["AT"]]
    assert rows["day"].tolist() == [(value + week).date().isoformat() for value in frauds["AT"]]
    assert list(rows)[:3] == ["payment_id", "paid_at", "reported_at"]
    assert later.read(["2018-06-07"]).problems == {}, "the last payment is of 31 May, so reports reach until 7 June"
    assert "is of 2018-06-07" in later.read(["2018-06-08"]).problems["2018-06-08"]


@pytest.mark.parametrize(
    ("zone", "clock", "text", "day"),
    [
        ("UTC", clock_time("2018-04-01T23:59:59"), "2018-04-01T23:59:59Z", "2018-04-01"),
        ("Europe/Berlin", clock_time("2018-04-01T00:30:00"), "2018-04-01T00:30:00+02:00", "2018-04-01"),
        ("Europe/Berlin", clock_time("2018-12-01T00:30:00.000050"), "2018-12-01T00:30:00.00005+01:00", "2018-12-01"),
        ("America/New_York", clock_time("2018-04-01T23:30:00"), "2018-04-01T23:30:00-04:00", "2018-04-01"),
        ("Asia/Kolkata", clock_time("2018-04-01T23:30:00.500000"), "2018-04-01T23:30:00.5+05:30", "2018-04-01"),
    ],
)
def test_a_time_without_a_zone_is_clock_time(tmp_path: Path, zone: str, clock: datetime, text: str, day: Day) -> None:
    for unit in ("us", "ns"):
        batch = parquet_times(tmp_path, pa.array([clock], pa.timestamp(unit)), timezone=zone).read([day])
        assert (value_of(batch, "at"), dict(batch.counted)) == ([text], {day: 1})
    (tmp_path / "one.csv").write_text(f"when,fare\n{clock},1\n{clock.isoformat()},2\n")
    rows = csv_source(tmp_path, timezone=zone).read([day]).rows
    assert [pd.Timestamp(value) for value in rows["at"]] == [pd.Timestamp(text)] * 2
    assert rows["at"].str.contains("T").all()


def test_a_time_with_a_zone_is_delivered_in_utc_and_is_of_the_day_of_the_case(tmp_path: Path) -> None:
    instant = datetime(2018, 4, 2, 1, 30, tzinfo=UTC)
    times = pa.array([instant], pa.timestamp("ms", "Europe/Berlin"))
    batch = parquet_times(tmp_path, times, timezone="America/New_York").read(["2018-04-01", "2018-04-02"])
    assert value_of(batch, "at") == ["2018-04-02T01:30:00Z"]
    assert batch.counted["2018-04-01"] == 1
    assert list(batch.problems) == ["2018-04-02"]


def test_text_with_an_offset_stays_as_it_is(tmp_path: Path) -> None:
    texts = ["2018-04-01 23:30:00.10+0000", "2018-04-01T23:30:00.123456789Z", "2018-04-02T01:30+02:00"]
    (tmp_path / "one.csv").write_text("when,fare\n" + "".join(f"{text},1\n" for text in texts))
    batch = csv_source(tmp_path, timezone="Europe/Berlin").read(["2018-04-02"])
    assert value_of(batch, "at") == texts
    later = csv_source(tmp_path, columns={}, delayed={"at": ("when", timedelta(days=1))}).read(["2018-04-02"])
    assert value_of(later, "at") == ["2018-04-02T23:30:00.1Z", "2018-04-02T23:30:00.123456Z", "2018-04-02T23:30:00Z"]


def test_text_without_an_offset_keeps_all_its_digits(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("when,fare\n2018-04-01 23:30:00.123456789,1\n2018-04-01,1\n2018-04-01T07:00,1\n")
    batch = csv_source(tmp_path, timezone="Europe/Berlin").read(["2018-04-01"])
    assert value_of(batch, "at") == [
        "2018-04-01T23:30:00.123456789+02:00",
        "2018-04-01",
        "2018-04-01T07:00+02:00",
    ]


def test_a_delay_of_nothing_reads_a_further_text_as_a_time(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("when,seen\n2018-04-01,2018-04-03 10:00\n2018-04-01,soon\n2018-04-01,\n")
    source = csv_source(tmp_path, columns={"at": "when"}, delayed={"seen_at": ("seen", timedelta(0))})
    assert value_of(source.read(["2018-04-01"]), "seen_at") == ["2018-04-03T10:00Z", "soon", None]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_date_stays_one_unless_it_is_declared_which_instant_it_is(tmp_path: Path, kind: pa.DataType) -> None:
    source = parquet_times(tmp_path, pa.array([date(2018, 4, 1)], kind), timezone="Europe/Berlin")
    meanings = {None: "2018-04-01", "start": "2018-04-01T00:00:00+02:00", "end": "2018-04-01T23:59:59.999999+02:00"}
    for dates, text in meanings.items():
        assert value_of(replace(source, dates=dates).read(["2018-04-01"]), "at") == [text]
    assert len({replace(source, dates=dates).versions(["2018-04-01"])["2018-04-01"] for dates in meanings}) == 3


def test_a_midnight_is_a_date_where_dates_count_from_their_end(tmp_path: Path) -> None:
    """As of a spreadsheet, which has no dates without a time of day."""
    texts = [
        "2018-04-01 00:00:00",
        "2018-04-01T00:00:00+02:00",
        "2018-04-01 00:00:01",
        "2018-03-31T22:00:00Z",
        "2018-04-01T00:00:00Z",
    ]
    (tmp_path / "one.csv").write_text("when,fare\n" + "".join(f"{text},1\n" for text in texts))
    batch = csv_source(tmp_path, timezone="Europe/Berlin", dates="end").read(["2018-04-01"])
    last = "2018-04-01T21:59:59.999999Z"
    expected = ["2018-04-01T23:59:59.999999+02:00", last, "2018-04-01T00:00:01+02:00", last, "2018-04-01T00:00:00Z"]
    assert value_of(batch, "at") == expected


@pytest.mark.parametrize(
    ("dates", "hours", "text"),
    [
        (None, 48, "2018-04-03"),
        (None, 12, "2018-04-02T11:59:59.999999Z"),
        ("end", 12, "2018-04-02T11:59:59.999999Z"),
        ("start", 12, "2018-04-01T12:00:00Z"),
    ],
)
def test_a_date_that_is_delayed_counts_no_earlier_than_is_certain(tmp_path: Path, dates: Any, hours: int, text: str) -> None:
    (tmp_path / "one.csv").write_text("when\n2018-04-01\n")
    source = csv_source(tmp_path, columns={}, delayed={"at": ("when", timedelta(hours=hours))}, dates=dates)
    batch = source.read([text[:10]])
    assert (value_of(batch, "at"), dict(batch.counted)) == ([text], {text[:10]: 1})


def test_the_end_of_time_is_a_time(tmp_path: Path) -> None:
    """9999-12-31 often means never; neither a zone nor the nanoseconds of another row may lose it."""
    never = pa.array([clock_time("9999-12-31T23:59:59")])
    columns = {"at": "AT", "until": "UNTIL"}
    texts = {}
    for zone in ("UTC", "America/New_York"):
        source = parquet_times(tmp_path, never, timezone=zone, columns=columns)
        write_parquet(tmp_path / "one.parquet", {"AT": pa.array([clock_time("2018-04-01")]), "UNTIL": never})
        texts[zone] = value_of(source.read(["2018-04-01"]), "until")
    assert texts == {"UTC": ["9999-12-31T23:59:59Z"], "America/New_York": ["9999-12-31T23:59:59"]}
    (tmp_path / "one.csv").write_text("when,fare\n2018-04-01T00:00:00.123456789,1\n9999-12-31,2\n")
    assert dict(csv_source(tmp_path).read(["2018-04-01", "9999-12-31"]).counted) == {"2018-04-01": 1, "9999-12-31": 1}


@pytest.mark.parametrize("clock", ["2018-11-04 01:30:00", "2018-03-11 02:30:00"], ids=["shown twice", "never shown"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_clock_time_that_is_no_instant_keeps_its_day_and_gets_no_offset(tmp_path: Path, clock: str, kind: str) -> None:
    if kind == "csv":
        (tmp_path / "one.csv").write_text(f"when,fare\n{clock},1\n{clock[:10]} 09:00:00,2\n")
        source = csv_source(tmp_path, timezone="America/New_York")
    else:
        times = pa.array([datetime.fromisoformat(clock), datetime.fromisoformat(clock[:10] + " 09:00")])
        source = parquet_times(tmp_path, times, timezone="America/New_York")
    first, second = value_of(source.read([clock[:10]]), "at")
    assert first == clock.replace(" ", "T")
    assert second.startswith(f"{clock[:10]}T09:00:00-0")


def test_a_clock_time_that_is_no_instant_is_delayed_on_the_clock(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("when,fare\n2018-11-04 01:30:00,1\n")
    source = csv_source(tmp_path, columns={}, delayed={"at": ("when", timedelta(days=7))}, timezone="America/New_York")
    assert value_of(source.read(["2018-11-11"]), "at") == ["2018-11-11T01:30:00"]


def test_a_row_that_is_not_kept_needs_no_time(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("when,fare,kind\n2018-04-01,1,a\n,2,b\n2018-04-02,3,b\n")
    source = csv_source(tmp_path, where=("kind", "a"))
    batch = source.read(["2018-04-01", "2018-04-02"])
    assert (value_of(batch, "fare"), dict(batch.counted)) == (["1"], {"2018-04-01": 1, "2018-04-02": 0})
    kept = replace(source, where=("kind", "b")).read(["2018-04-01"])
    assert (value_of(kept, "fare"), dict(kept.counted)) == (["2"], {"2018-04-01": 1})


def test_a_time_that_a_delay_carries_beyond_the_calendar_is_none(tmp_path: Path) -> None:
    source = parquet_times(
        tmp_path, pa.array([clock_time("9999-12-31T23:00:00")]), columns={}, delayed={"at": ("AT", timedelta(days=7))}
    )
    assert "row 1: AT is '9999-12-31T23:00:00Z', expected a time" in source.read(["2018-04-01"]).problems["2018-04-01"]


@given(
    instant=st.datetimes(clock_time("1950-01-01"), clock_time("2100-01-01")),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
)
@settings(max_examples=200, deadline=None)
def test_an_instant_reads_back_the_same_from_its_clock_time(instant: datetime, zone: str) -> None:
    clock = instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    (text,) = text_of(pa.array([clock.replace(tzinfo=None)], pa.timestamp("us")), zone).to_pylist()
    read = datetime.fromisoformat(text)
    assert read.replace(tzinfo=None) == clock.replace(tzinfo=None)
    one_meaning = clock.utcoffset() == clock.replace(fold=1 - clock.fold).utcoffset()
    assert (read.tzinfo is not None) == one_meaning
    assert not one_meaning or read == clock


# Values -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([42, -1, None], pa.int16()), ["42", "-1", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([0.1, 57.16, 3.0, 1e-7, float("nan"), None]), ["0.1", "57.16", "3", "1e-7", None, None]),
        (pa.array([0.1, 16777216.0], pa.float32()), ["0.1", "16777216"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([Decimal("1.50"), None]), ["1.50", None]),
        (pa.array(["007", " a ", "", None]), ["007", " a ", "", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), ["a", "b", None, "a"]),
        (pa.array(["é".encode()]), ["é"]),
        (pa.array([date(2018, 4, 1)]), ["2018-04-01"]),
        (pa.array([time(9, 30)]), ["09:30:00.000000"]),
        (pa.array([clock_time("2018-04-01T00:00:31")], pa.timestamp("ns")), ["2018-04-01T00:00:31Z"]),
        (pa.array([1522540831123456789], pa.timestamp("ns", "UTC")), ["2018-04-01T00:00:31.123456789Z"]),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_value_is_delivered_as_text_that_reads_back_the_same(tmp_path: Path, values: pa.Array, texts: list[str | None]) -> None:
    source = parquet_times(tmp_path, pa.nulls(0, pa.timestamp("us")), columns={"at": "AT", "value": "V"})
    write_parquet(tmp_path / "one.parquet", {"AT": pa.array([clock_time("2018-04-01")] * len(values)), "V": values})
    assert value_of(source.read(["2018-04-01"]), "value") == texts


@given(st.lists(st.floats(allow_nan=False), min_size=1))
@settings(max_examples=100, deadline=None)
def test_a_float_reads_back_the_same(values: list[float]) -> None:
    assert [float(text).hex() for text in text_of(pa.array(values), "UTC").to_pylist()] == [value.hex() for value in values]


def test_text_of_csv_is_neither_typed_nor_trimmed_and_may_mean_missing(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(
        'when,fare\n2018-04-01,007\n2018-04-01, 1.50 \n2018-04-01,NA\n2018-04-01,"a, ""b"""\n2018-04-01,\n'
    )
    assert value_of(csv_source(tmp_path).read(["2018-04-01"]), "fare") == ["007", " 1.50 ", "NA", 'a, "b"', None]
    assert value_of(csv_source(tmp_path, dialect=Dialect(missing=("NA",))).read(["2018-04-01"]), "fare")[2] is None


# Days -------------------------------------------------------------------------------------------------------------------------


def test_after_the_last_row_a_day_is_not_delivered_yet(source: MappedFiles) -> None:
    batch = source.read(["2018-03-31", "2018-05-31", "2018-06-01"])
    assert batch.problems == {
        "2018-06-01": f"not delivered yet: the last row in pay/*.parquet in {source.folder} is of 2018-05-31",
    }
    assert batch.counted["2018-03-31"] == 0 < batch.counted["2018-05-31"]
    assert list(source.versions(["2018-05-31", "2018-06-01"])) == ["2018-05-31"]


def test_the_files_may_be_complete_for_longer_or_shorter_than_their_rows_reach(source: MappedFiles) -> None:
    longer = replace(source, complete_to="2018-06-02").read(["2018-06-01", "2018-06-02"])
    assert dict(longer.counted) == {"2018-06-01": 0}
    assert longer.problems == {
        "2018-06-02": f"not delivered yet: pay/*.parquet in {source.folder} is complete before 2018-06-02",
    }
    shorter = replace(source, complete_to="2018-05-31").read(["2018-05-30", "2018-05-31"])
    assert list(shorter.problems) == ["2018-05-31"]
    assert set(shorter.rows["day"]) == {"2018-05-30"}


def test_files_without_rows_have_delivered_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("when,fare\n")
    batch = csv_source(tmp_path).read(["2018-04-01"])
    assert batch.problems == {"2018-04-01": f"not delivered yet: the last row in *.csv in {tmp_path} is of no day"}
    assert dict(csv_source(tmp_path, complete_to="2018-04-02").read(["2018-04-01"]).counted) == {"2018-04-01": 0}


def test_a_version_changes_with_the_files_of_its_day_only(source: MappedFiles) -> None:
    before = source.versions(SPRING)
    changed = payments("2018-05")
    changed.loc[changed.index[-1], "SUM"] += 1
    path = write_parquet(source.folder / "pay" / "2018-05.parquet", changed)
    after = source.versions(SPRING)
    differing = {day for day in before if before[day] != after[day]}
    assert differing == set(changed["AT"].dt.strftime("%Y-%m-%d"))
    assert before.keys() == after.keys()
    write_parquet(path, payments("2018-05"))
    assert source.versions(SPRING) == before
    path.rename(path.with_stem("may"))
    assert source.versions(["2018-05-01"])["2018-05-01"] != before["2018-05-01"], "its rows say from which file they are"


def test_a_version_changes_with_the_reading(source: MappedFiles) -> None:
    day = ["2018-05-01"]
    others = (
        replace(source, columns=COLUMNS | {"amount": "ID"}),
        replace(source, where=("FRAUD", "1")),
        replace(source, timezone="Europe/Berlin"),
        replace(source, delayed={"later": ("AT", timedelta(hours=1))}),
    )
    assert len({each.versions(day)["2018-05-01"] for each in (source, *others)}) == 5
    assert replace(source, complete_to="2018-06-09").versions(day) == source.versions(day)


def test_all_days_without_rows_have_one_version(source: MappedFiles) -> None:
    versions = replace(source, complete_to="2018-07-01").versions(["2018-03-31", "2018-04-13", "2018-06-03", "2018-05-01"])
    assert len({versions[day] for day in ("2018-03-31", "2018-04-13", "2018-06-03")}) == 1
    assert versions["2018-05-01"] != versions["2018-04-13"]
    assert replace(source, where=("FRAUD", "1")).versions(["2018-03-31"])["2018-03-31"] == versions["2018-03-31"]


def test_versions_of_a_batch_are_those_that_were_told(source: MappedFiles) -> None:
    assert source.read(SPRING).versions == source.versions(SPRING)


def test_a_file_is_read_for_its_version_once(source: MappedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source.versions(SPRING)

    def opened(*_: object) -> None:
        raise AssertionError("opened again")

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(pq, "ParquetFile", opened)
    assert replace(source).versions(SPRING) == before


def test_tables_that_are_read_from_one_file_share_its_hash(source: MappedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    source.versions(SPRING)

    def opened(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", opened)
    assert replace(source, where=("FRAUD", "1")).versions(["2018-05-01"])


def test_a_copy_with_the_times_and_size_of_the_old_file_is_another_content(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("when,fare\n2018-04-01,1\n")
    status = path.stat()
    before = csv_source(tmp_path).versions(["2018-04-01"])
    path.write_text("when,fare\n2018-04-01,2\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert csv_source(tmp_path).versions(["2018-04-01"]) != before


# Faults -----------------------------------------------------------------------------------------------------------------------


def assert_problem(source: MappedFiles, days: list[Day], problem: str) -> None:
    batch = source.read(days)
    assert dict(batch.problems) == dict.fromkeys(days, problem)
    assert (dict(batch.counted), dict(batch.versions), len(batch.rows)) == ({}, {}, 0)
    assert source.versions(days) == {}


def test_no_file_is_a_problem_of_each_day(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    told = f"no file matches *.csv in {tmp_path}: deliver one and materialise the day again"
    assert_problem(csv_source(tmp_path, complete_to="2019-01-01"), ["2018-04-01", "2018-04-02"], told)
    assert_problem(csv_source(tmp_path / "absent"), ["2018-04-01"], told.replace(str(tmp_path), f"{tmp_path}/absent"))


def test_a_file_that_lacks_a_column_is_a_problem_of_its_days(source: MappedFiles) -> None:
    path = write_parquet(source.folder / "pay" / "2018-05.parquet", payments("2018-05").drop(columns=["SUM", "FRAUD"]))
    batch = replace(source, where=("FRAUD", "0")).read(["2018-04-30", "2018-05-01", "2018-05-13"])
    assert batch.problems == {
        "2018-05-01": f"{path} has no column FRAUD (which rows to keep), SUM (amount); it has ID, AT",
    }
    assert set(batch.rows["day"]) == {"2018-04-30"}
    assert (batch.counted["2018-05-13"], "2018-05-01" in source.versions(SPRING)) == (0, False)


def test_a_file_that_lacks_the_time_is_a_problem_of_every_day(source: MappedFiles) -> None:
    path = write_parquet(source.folder / "pay" / "2018-05.parquet", payments("2018-05").drop(columns="AT"))
    assert_problem(
        source, ["2018-04-30", "2018-05-01"], f"{path}: no column AT, which says the day; it has ID, SUM, FRAUD{mapped.ANY_DAY}"
    )


def test_a_time_of_another_type_is_a_problem_of_every_day(tmp_path: Path) -> None:
    source = parquet_times(tmp_path, pa.array([1522540831]))
    told = f"{tmp_path}/one.parquet: column AT is int64, expected timestamps, dates or text; of numbers since 1970 declare [events.dialect]"
    told += ' time = {"AT" = "epoch seconds"} (or milliseconds, microseconds)'
    assert_problem(source, ["2018-04-01"], told + mapped.ANY_DAY)


@pytest.mark.parametrize("name", ["2018-05.parquet", "2018-09.parquet"])
def test_a_truncated_file_is_a_problem_of_every_day(source: MappedFiles, name: str) -> None:
    path = source.folder / "pay" / name
    path.write_bytes((source.folder / "pay" / "2018-04.parquet").read_bytes()[:-9])
    batch = source.read(["2018-04-30", "2018-05-01"])
    assert list(batch.problems) == ["2018-04-30", "2018-05-01"]
    assert all(problem.startswith(f"{path}: ") for problem in batch.problems.values())
    assert source.versions(["2018-04-30"]) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty, expected a header"),
        (b"when,fare\n2018-04-01\n", "row 1: expected 2 fields, got 1: 2018-04-01"),
        (b"when,fare\n2018-04-01,\xff\n", 'row 1: not UTF-8 (invalid start byte): declare [events.dialect] encoding = "cp1252"'),
        (b"when,fare,fare\n2018-04-01,1,2\n", "header: column fare appears more than once"),
    ],
)
def test_an_unreadable_csv_is_a_problem_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "one.csv").write_bytes(content)
    (tmp_path / "two.csv").write_text("when,fare\n2018-04-02,1\n")
    assert_problem(csv_source(tmp_path), ["2018-04-02"], f"{tmp_path}/one.csv: {reason}{mapped.ANY_DAY}")


def test_a_cut_packed_csv_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "one.csv.gz").write_bytes(gzip.compress(b"when,fare\n2018-04-01,1\n")[:-9])
    source = csv_source(tmp_path, pattern="*.csv.gz")
    assert str(tmp_path / "one.csv.gz") in source.read(["2018-04-01"]).problems["2018-04-01"]


def test_parquet_with_two_columns_of_one_name_is_a_problem(tmp_path: Path) -> None:
    source = parquet_times(tmp_path, pa.array([clock_time("2018-04-01")]))
    pq.write_table(pa.table([pa.array([clock_time("2018-04-01")])] * 2, names=["AT", "AT"]), tmp_path / "one.parquet")
    assert_problem(source, ["2018-04-01"], f"{tmp_path}/one.parquet: column AT appears more than once{mapped.ANY_DAY}")


def test_a_value_without_text_is_a_problem_of_the_days_of_its_file(source: MappedFiles) -> None:
    rows = payments("2018-05")
    lists = {"ID": pa.array(rows["ID"]), "AT": pa.array(rows["AT"]), "SUM": pa.array([[1]] * len(rows))}
    path = write_parquet(source.folder / "pay" / "a.parquet", lists)
    batch = source.read(["2018-04-30", "2018-05-01"])
    assert list(batch.problems) == ["2018-05-01"]
    assert batch.problems["2018-05-01"].startswith(f"{path}: column SUM is list<")
    assert batch.problems["2018-05-01"].endswith("expected numbers, text, times, dates, true or false")
    assert set(batch.rows["day"]) == set(batch.counted) == set(batch.versions) == {"2018-04-30"}


def test_a_problem_takes_back_the_rows_of_its_day_from_other_files(source: MappedFiles) -> None:
    """The file that breaks off comes after one that has given rows of the same day."""
    rows = payments("2018-05")
    lists = {"ID": pa.array(rows["ID"]), "AT": pa.array(rows["AT"]), "SUM": pa.array([[1]] * len(rows))}
    write_parquet(source.folder / "pay" / "z.parquet", lists)
    batch = source.read(["2018-04-30", "2018-05-01"])
    assert set(batch.rows["day"]) == set(batch.counted) == {"2018-04-30"}


@pytest.mark.parametrize("pattern", ["{day}.jsonl", "*.jsonl"])
def test_a_day_without_a_line_of_json_is_a_day_without_rows(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "2018-04-01.jsonl").write_text("")
    (tmp_path / "2018-04-02.jsonl").write_text('{"at": "2018-04-02T10:00:00Z", "id": "1"}\n')
    source = csv_source(tmp_path, pattern=pattern, columns={"at": "at", "id": "id"})
    batch = source.read(["2018-04-02"] if pattern == "*.jsonl" else ["2018-04-01", "2018-04-02"])
    assert not batch.problems
    assert batch.rows[["day", "id"]].to_numpy().tolist() == [["2018-04-02", "1"]]
    if pattern == "{day}.jsonl":
        assert batch.counted["2018-04-01"] == 0
        assert "2018-04-01" in batch.versions


def test_a_file_that_changes_while_it_is_read_is_a_problem(source: MappedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    source.versions(SPRING)
    path = source.folder / "pay" / "2018-05.parquet"
    of_file = pq.ParquetFile.iter_batches

    def changing(*arguments: Any, **options: Any) -> Any:
        path.touch()
        return of_file(*arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", changing)
    assert source.read(["2018-05-01"]).problems == {
        "2018-05-01": f"{path}: it changed while it was read: materialise the day again",
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pattern": "*.xlsx"}, "expected a pattern below the folder that ends in .parquet, .csv, .csv.gz"),
        ({"pattern": "/data/*.csv"}, "expected a pattern below the folder"),
        ({"day_column": "day"}, "the day column day has no column in the files"),
        ({"columns": {"at": ""}}, "the day column at has no column in the files"),
        ({"delayed": {"at": ("when", timedelta(0))}}, "at is both a column and a delayed one"),
        ({"delayed": {"later": ("", timedelta(0))}}, "the delayed later has no column in the files"),
        ({"complete_to": "2018-4-1"}, "complete_to is '2018-4-1', expected a day such as 2018-04-01"),
        ({"timezone": "Berlin"}, "the time zone is 'Berlin', expected a name such as Europe/Berlin"),
        ({"timezone": ""}, "the time zone is ''"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_an_error(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="in ") as caught:
        csv_source(tmp_path, **changes)
    assert told in str(caught.value)


# The reference data -----------------------------------------------------------------------------------------------------------


def test_the_reference_data_are_delivered_whole() -> None:
    if "ML_ASSETS_REFERENCE_DATA" not in os.environ:
        pytest.skip("ML_ASSETS_REFERENCE_DATA does not name the folder of the reference data, which are not shipped")
    folder = Path(os.environ["ML_ASSETS_REFERENCE_DATA"])
    names = {"transaction_id": "TRANSACTION_ID", "paid_at": "TX_DATETIME", "amount": "TX_AMOUNT", "fraud": "TX_FRAUD"}
    source = MappedFiles(folder=folder, pattern="card_transactions/*.parquet", columns=names, day_column="paid_at", timezone="UTC")
    days = day_range("2018-04-01", "2018-07-31")
    rows = pd.concat([pd.read_parquet(path) for path in sorted((folder / "card_transactions").glob("*.parquet"))])
    of_row = rows["TX_DATETIME"].dt.strftime("%Y-%m-%d")

    batch = source.read(days)

    assert len(batch.rows) == sum(batch.counted.values()) == 1_169_723
    assert dict(batch.counted) == of_row.value_counts().to_dict()
    got, wanted = batch.rows[batch.rows["day"] == "2018-06-15"], rows[of_row == "2018-06-15"]
    assert got["transaction_id"].tolist() == [str(value) for value in wanted["TRANSACTION_ID"]]
    assert got["paid_at"].tolist() == [value.isoformat() + "Z" for value in wanted["TX_DATETIME"]]
    assert [float(text).hex() for text in got["amount"]] == [value.hex() for value in wanted["TX_AMOUNT"]]
    assert got["fraud"].tolist() == [str(value) for value in wanted["TX_FRAUD"]]
