"""The file in which a reader says where their tables are: what it means, and what is said of one that is wrong."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from ml_assets.folders import LocalFolder
from ml_assets.sources import mapping as form
from ml_assets.sources.bounds import Bounds
from ml_assets.sources.mapping import extracts_of, for_own_files, read_mapping, source_of
from ml_assets.stages.clean import clean
from ml_assets.stages.ingest import ingested
from ml_assets.stages.intake import RowIntake
from ml_assets.use_case import day_range
from ml_assets.use_cases.card_fraud import CARD_FRAUD
from ml_assets.use_cases.card_fraud.source import FILES as CARD_FILES

TOML = """
start = "2018-04-01"
end = "2018-08-09"

[transactions]
files = "cards/*.csv"

[transactions.columns]
transaction_id = "ID"
paid_at = "AT"
amount = "SUM"

[chargebacks]
of = "transactions"
flag = "FRAUD"
delay_days = 7
delayed = {reported_at = "AT"}

[chargebacks.columns]
scenario = "SCENARIO"
"""
CHARGEBACK = ("transaction_id", "reported_at", "scenario")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bank.toml"
    path.write_text(TOML)
    return path


def written(file: Path, old: str, new: str) -> Path:
    assert TOML.count(old) == 1
    file.write_text(TOML.replace(old, new))
    return file


def test_a_mapping_is_read_with_its_defaults(file: Path) -> None:
    mapping = read_mapping(file)
    assert (mapping.file, mapping.folder, mapping.timezone) == (file, ".", "UTC")
    assert (mapping.start, mapping.end) == ("2018-04-01", "2018-08-09")
    assert list(mapping.tables) == ["transactions", "chargebacks"]
    with pytest.raises(ValidationError, match="frozen"):
        mapping.start = "2018-05-01"


def test_the_form_that_the_module_shows_is_valid(tmp_path: Path) -> None:
    shown = []
    for number, part in enumerate(re.split(r"^or in", str(form.__doc__), flags=re.MULTILINE)):
        lines = [] if number == 0 else ['start = "2018-04-01"']
        file = tmp_path / f"{number}.toml"
        file.write_text("\n".join([*lines, *(line for line in part.splitlines() if line.startswith("    "))]))
        shown.append(read_mapping(file, {"PGPASSWORD": "se/cret", "KAFKA_PASSWORD": "se/cret", "TOKEN": "se/cret"}))
    mapping, database, kafka, http, glue = shown
    assert (database.database, database.tables["transactions"].rows) == (
        "postgresql+psycopg://reader:se%2Fcret@db.example.com/bank",
        "payments",
    )
    assert (kafka.kafka["sasl.password"], kafka.tables["transactions"].topic) == ("se/cret", "payments")
    assert http.tables["transactions"].pages is not None
    assert http.tables["transactions"].pages.headers == {"Authorization": "Bearer se/cret"}
    assert "se/cret" not in repr(kafka) + repr(http)
    assert glue.tables["transactions"].glue is not None
    assert glue.tables["transactions"].glue.job == "extract-payments"
    assert source_of(mapping, "transactions", day_column="paid_at").columns["transaction_id"] == "TRANSACTION_ID"
    assert source_of(mapping, "chargebacks", day_column="reported_at").where == ("TX_FRAUD", "1")


@pytest.mark.parametrize(("folder", "resolved"), [("data", "data"), ("../up", "../up"), ("$HOME", "$HOME"), ("~", "~")])
def test_a_folder_is_seen_from_the_file_and_taken_literally(file: Path, folder: str, resolved: str) -> None:
    written(file, 'end = "2018-08-09"', f'folder = "{folder}"')
    mapping = read_mapping(file)
    assert (mapping.folder, mapping.end) == (resolved, None)
    (file.parent / mapping.folder).mkdir(exist_ok=True)
    assert source_of(mapping, "transactions", day_column="paid_at").complete_to is None


def test_a_folder_may_be_absolute_and_days_need_no_quotes(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    written(file, 'start = "2018-04-01"', f'start = 2018-04-01\nfolder = "{elsewhere}"\ntimezone = "Europe/Berlin"')
    mapping = read_mapping(file)
    assert (mapping.folder, mapping.start, mapping.timezone) == (str(elsewhere), "2018-04-01", "Europe/Berlin")
    assert source_of(mapping, "transactions", day_column="paid_at").timezone == "Europe/Berlin"


def test_bounds_of_time_and_what_a_date_means_are_read(file: Path) -> None:
    now = datetime(2018, 5, 1, 12, tzinfo=UTC)
    source = source_of(read_mapping(file), "transactions", day_column="paid_at", now=lambda: now)
    assert source.bounds == Bounds(start="2018-04-01", end="2018-08-09")
    assert source.bounds is not None
    assert source.bounds.days("UTC") == ("2008-04-01", "2018-08-09")
    assert source.dates is None
    written(file, 'end = "2018-08-09"', 'earliest = 2018-01-01\nlatest = "2018-07-31"')
    for table, time in (("transactions", "paid_at"), ("chargebacks", "reported_at")):
        bounds = source_of(read_mapping(file), table, day_column=time).bounds
        assert bounds == Bounds(start="2018-04-01", earliest="2018-01-01", latest="2018-07-31")
    written(file, 'files = "cards/*.csv"', 'files = "cards/*.csv"\ndates = "end"')
    dates = [
        source_of(read_mapping(file), table, day_column=time).dates
        for table, time in (("transactions", "paid_at"), ("chargebacks", "reported_at"))
    ]
    assert dates == ["end", "end"], "a table of the files of another has their times"
    file.write_text(TOML.replace('flag = "FRAUD"', 'flag = "FRAUD"\ndates = "start"'))
    assert source_of(read_mapping(file), "chargebacks", day_column="reported_at").dates == "start"


def test_without_an_end_no_time_lies_behind_tomorrow(file: Path) -> None:
    written(file, 'end = "2018-08-09"', 'timezone = "Europe/Berlin"')
    late = datetime(2018, 5, 1, 22, 30, tzinfo=UTC)
    bounds = source_of(read_mapping(file), "transactions", day_column="paid_at", now=lambda: late).bounds
    assert bounds is not None
    assert bounds.days("Europe/Berlin") == ("2008-04-01", "2018-05-03")


def test_a_table_with_files_is_a_source_of_them(file: Path) -> None:
    source = source_of(
        read_mapping(file),
        "transactions",
        day_column="paid_at",
        known=("transaction_id", "paid_at", "amount", "country"),
        optional=("country", "amount"),
    )
    assert dict(source.columns) == {"transaction_id": "ID", "paid_at": "AT", "amount": "SUM", "country": ""}
    assert (source.folder, source.pattern, source.complete_to) == (LocalFolder(file.parent / "."), "cards/*.csv", "2018-08-09")
    assert (source.where, dict(source.delayed)) == (None, {})


def test_a_table_of_flagged_rows_has_the_known_columns_of_the_other(file: Path) -> None:
    source = source_of(read_mapping(file), "chargebacks", day_column="reported_at", known=CHARGEBACK)
    assert dict(source.columns) == {"transaction_id": "ID", "scenario": "SCENARIO"}
    assert dict(source.delayed) == {"reported_at": ("AT", timedelta(days=7))}
    assert (source.pattern, source.where) == ("cards/*.csv", ("FRAUD", "1"))
    everything = source_of(read_mapping(file), "chargebacks", day_column="reported_at")
    assert set(everything.columns) == {"transaction_id", "paid_at", "amount", "scenario"}


def test_a_column_of_its_own_goes_before_that_of_the_other_table(file: Path) -> None:
    written(file, 'scenario = "SCENARIO"', 'scenario = "SCENARIO"\namount = "LOST"\ntransaction_id = ""')
    columns = source_of(read_mapping(file), "chargebacks", day_column="reported_at").columns
    assert (columns["amount"], columns["transaction_id"]) == ("LOST", "")


def test_a_column_of_the_other_table_may_be_delayed(file: Path) -> None:
    written(file, 'delayed = {reported_at = "AT"}', 'delayed = {paid_at = "AT"}')
    source = source_of(read_mapping(file), "chargebacks", day_column="paid_at")
    assert (set(source.columns), set(source.delayed)) == ({"transaction_id", "amount", "scenario"}, {"paid_at"})


def test_what_the_mapping_says_is_what_is_read(file: Path) -> None:
    (file.parent / "cards").mkdir()
    rows = "ID,AT,SUM,FRAUD,SCENARIO\n1,2018-04-01 10:00:00,5.00,0,0\n2,2018-04-01 11:00:00,7.50,1,3\n"
    (file.parent / "cards" / "april.csv").write_text(rows)
    mapping = read_mapping(file)
    paid = source_of(mapping, "transactions", day_column="paid_at").read(["2018-04-01"]).rows
    assert paid[["transaction_id", "paid_at", "amount"]].values.tolist() == [
        ["1", "2018-04-01T10:00:00Z", "5.00"],
        ["2", "2018-04-01T11:00:00Z", "7.50"],
    ]
    back = source_of(mapping, "chargebacks", day_column="reported_at", known=CHARGEBACK).read(["2018-04-01", "2018-04-08"])
    assert back.rows[[*CHARGEBACK, "source_row"]].values.tolist() == [["2", "2018-04-08T11:00:00Z", "3", 2]]
    assert back.counted == {"2018-04-01": 0, "2018-04-08": 1}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('start = "2018-04-01"', "", "start: field required"),
        ('start = "2018-04-01"', 'start = "1.4.2018"', "start is '1.4.2018', expected a day such as 2018-04-01"),
        ('start = "2018-04-01"', "start = 20180401", "start is 20180401, expected a day such as 2018-04-01"),
        ('end = "2018-08-09"', 'end = "2018-04-01"', "expected `end` after `start`, which is 2018-04-01"),
        ('end = "2018-08-09"', 'timezone = "Berlin"', "timezone is 'Berlin', expected a time zone such as Europe/Berlin"),
        ('end = "2018-08-09"', "folder = 3", "folder is 3, expected text"),
        (
            'end = "2018-08-09"',
            'until = "x"',
            "unknown until; expected start, end, first_go_live, earliest, latest, timezone, folder, database, kafka and",
        ),
        (
            'end = "2018-08-09"',
            'file = "x"',
            "unknown file; expected start, end, first_go_live, earliest, latest, timezone, folder, database, kafka and",
        ),
        ('end = "2018-08-09"', "end = ", "expected a TOML file: "),
        ('files = "cards/*.csv"', "", "transactions: expected one of `files`, `rows`, `topic`, `pages`, `stream` and `of`"),
        (
            'of = "transactions"',
            'of = "transactions"\nfiles = "*.csv"',
            "chargebacks: expected one of `files`, `rows`, `topic`, `pages`, `stream` and `of`",
        ),
        (
            'of = "transactions"',
            'of = "payments"',
            "chargebacks.of is 'payments', expected a table that is not `of` another: transactions",
        ),
        ('of = "transactions"', 'of = "chargebacks"', "chargebacks.of is 'chargebacks', expected a table that is not `of` another"),
        ('files = "cards/*.csv"', 'files = "*.xlsx"', "transactions.files is '*.xlsx', expected a pattern below `folder` that"),
        ('files = "cards/*.csv"', 'files = "/x/*.csv"', "transactions.files is '/x/*.csv', expected a pattern below `folder`"),
        ('amount = "SUM"', "amount = 3", "transactions.columns.amount is 3, input should be a valid string"),
        (
            'flag = "FRAUD"',
            'flags = "FRAUD"',
            "chargebacks.flags: unknown, expected files, rows, topic, pages, stream, of, columns, flag, flag_is, delayed",
        ),
        ('flag = "FRAUD"', 'flag = ""', "chargebacks.flag is '', expected the name of a column in the files"),
        ('end = "2018-08-09"', 'earliest = "2018-04-02"', "expected `earliest` not after `start`, which is 2018-04-01"),
        ('end = "2018-08-09"', 'latest = "2018-03-31"', "expected `latest` not before `start`, which is 2018-04-01"),
        ('end = "2018-08-09"', 'latest = "9999-12-31"', "latest is '9999-12-31', expected a day such as 2018-04-01"),
        ('end = "2018-08-09"', 'latest = "soon"', "latest is 'soon', expected a day such as 2018-04-01"),
        ('flag = "FRAUD"', 'dates = "noon"', "chargebacks.dates is 'noon', input should be 'start' or 'end'"),
        ("delay_days = 7", "delay_days = -7", "chargebacks.delay_days is -7, input should be greater than or equal to 0"),
        ('delayed = {reported_at = "AT"}', "", "chargebacks: expected the times to delay, such as delayed = {"),
        ('scenario = "SCENARIO"', 'reported_at = "AT"', "chargebacks: expected reported_at either in `columns` or in `delayed`"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_field(file: Path, old: str, new: str, told: str) -> None:
    written(file, old, new)
    with pytest.raises(ValueError, match=r"expected|required|should") as caught:
        read_mapping(file)
    assert str(caught.value).startswith(f"{file}: {told}")
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(file: Path) -> None:
    written(file, 'start = "2018-04-01"', 'timezone = "x"')
    with pytest.raises(ValueError, match=r"start: field required; timezone is 'x', expected"):
        read_mapping(file)


def test_a_file_that_is_absent_or_declares_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.toml: expected a TOML file: .*No such file"):
        read_mapping(tmp_path / "no.toml")
    (tmp_path / "bare.toml").write_text('start = "2018-04-01"')
    with pytest.raises(ValueError, match=r"bare\.toml: no table, expected one or more such as \[transactions\]"):
        read_mapping(tmp_path / "bare.toml")


@pytest.mark.parametrize(
    ("table", "day_column", "known", "told"),
    [
        ("refunds", "paid_at", None, "no [refunds]; it has transactions, chargebacks"),
        ("transactions", "seen_at", None, "[transactions] columns.seen_at: expected the column in the files that says the day"),
        (
            "transactions",
            "paid_at",
            ("paid_at", "amount"),
            "[transactions] columns: unknown transaction_id; expected paid_at, amount",
        ),
        (
            "chargebacks",
            "reported_at",
            (*CHARGEBACK, "bank"),
            "[chargebacks] columns: no bank; expected transaction_id, reported_at",
        ),
        ("chargebacks", "reported_at", ("scenario",), "[chargebacks] columns: unknown reported_at; expected scenario"),
    ],
)
def test_a_table_that_does_not_fit_its_case_is_an_error(
    file: Path, table: str, day_column: str, known: tuple[str, ...] | None, told: str
) -> None:
    with pytest.raises(ValueError, match=r"expected|it has") as caught:
        source_of(read_mapping(file), table, day_column=day_column, known=known)
    assert str(caught.value).startswith(f"{file}: {told}")


def test_an_optional_day_column_needs_a_name_all_the_same(file: Path) -> None:
    with pytest.raises(ValueError, match=r"columns\.seen_at: expected the column in the files that says the day"):
        source_of(read_mapping(file), "transactions", day_column="seen_at", optional=("seen_at",))


def test_a_folder_that_is_not_there_is_said_before_anything_runs(file: Path) -> None:
    written(file, 'end = "2018-08-09"', 'folder = "nowhere"')

    with pytest.raises(ValueError, match=rf"{file.name}: folder: expected a folder with the files, .*nowhere is none"):
        source_of(read_mapping(file), "transactions", day_column="paid_at")


def test_what_may_be_left_out_is_said_where_a_column_is_missing(file: Path) -> None:
    with pytest.raises(ValueError, match=r"no bank; expected transaction_id, bank, scenario \(scenario may be left out\)"):
        source_of(
            read_mapping(file),
            "transactions",
            day_column="paid_at",
            known=("transaction_id", "bank", "scenario"),
            optional=("scenario",),
        )


GLUE = """
start = "2018-04-01"
timezone = "Europe/Berlin"
folder = "s3://lake/bank/"

[transactions]
files = "payments/{day}/*.parquet"
glue = {job = "extract-payments", arguments = {source = "postgresql://db/bank", rows = "payments", secret = "bank/reader"}}
columns = {paid_at = "AT"}

[chargebacks]
of = "transactions"
delay_days = 7
delayed = {reported_at = "AT"}
"""
DAY_COLUMNS = {"transactions": "paid_at", "chargebacks": "reported_at"}


def test_a_job_writes_the_files_of_a_table_and_of_those_of_it(file: Path) -> None:
    file.write_text(GLUE)
    [extract] = extracts_of(read_mapping(file), DAY_COLUMNS)
    assert (extract.name, extract.job, extract.arguments["secret"]) == ("extract_transactions", "extract-payments", "bank/reader")
    assert extract.to == "s3://lake/bank/payments/{day}/part.parquet"
    assert (extract.time, extract.timezone) == ("AT", "Europe/Berlin")
    assert extract.readers == {"transactions": 0, "chargebacks": 8}, "a clock that is changed may make it a day more"
    file.write_text(TOML)
    assert extracts_of(read_mapping(file), DAY_COLUMNS) == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("s3://lake/bank/", "payments", "transactions.glue writes to S3: expected folder = "),
        ("payments/{day}/*.parquet", "payments/*.parquet", "has a Parquet file a day"),
        ("payments/{day}/*.parquet", "payments/{day}.csv", "has a Parquet file a day"),
        ("payments/{day}/*.parquet", "**/{day}/*.parquet", "has a Parquet file a day"),
        ('job = "extract-payments"', 'job = ""', "transactions.glue.job is '',"),
        ('job = "extract-payments"', 'name = "extract-payments"', "transactions.glue.name: unknown, expected job, arguments"),
        ('secret = "bank/reader"', 'password = "${PGPASSWORD}"', "everybody who sees the job can read them"),
        ('columns = {paid_at = "AT"}', 'columns = {paid_at = "AT"}\nflag = "OK"', "expected neither `flag` nor `delayed`"),
    ],
)
def test_what_cannot_be_extracted_is_said(file: Path, old: str, new: str, said: str) -> None:
    assert GLUE.count(old) == 1
    file.write_text(GLUE.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(said)):
        read_mapping(file, {"PGPASSWORD": "hunter2"})


def test_a_job_has_to_know_which_column_says_the_day(file: Path) -> None:
    file.write_text(GLUE.replace('columns = {paid_at = "AT"}', 'columns = {amount = "SUM"}'))
    with pytest.raises(ValueError, match=r"\[transactions\] columns.paid_at: expected the column in the files that says the day"):
        extracts_of(read_mapping(file), DAY_COLUMNS)


# Time zones -------------------------------------------------------------------------------------------------------------------

PAYMENTS = """start = "2024-03-29"
end = "2024-04-02"
first_go_live = "2024-06-05"
timezone = "Europe/Berlin"

[transactions]
files = "payments.csv"
columns = {transaction_id = "id", paid_at = "at", customer_id = "customer", terminal_id = "terminal", amount = "amount"}

[chargebacks]
of = "transactions"
flag = "fraud"
delay_days = 7
columns = {}
delayed = {reported_at = "at"}
"""


def test_days_and_times_without_an_offset_are_in_the_time_zone_of_the_file(tmp_path: Path) -> None:
    """One payment an hour, around the night that has 23 of them: each on its day in Berlin, none taken for one of another day."""
    hours = pd.date_range("2024-03-29", "2024-04-02", freq="h", tz="Europe/Berlin", inclusive="left")
    shown = [f"{at:%Y-%m-%d %H:%M:%S}" for at in hours]
    lines = "".join(f"{place:012},{at},c1,t1,9.5,0\n" for place, at in enumerate(shown))
    (tmp_path / "payments.csv").write_text(f"id,at,customer,terminal,amount,fraud\n{lines}", encoding="utf-8")
    (tmp_path / "files.toml").write_text(PAYMENTS, encoding="utf-8")
    settings = {CARD_FILES: str(tmp_path / "files.toml")}

    case = for_own_files(CARD_FRAUD, settings, CARD_FILES, times={"transactions": "paid_at", "chargebacks": "reported_at"})
    table, days = case.table("transactions"), day_range("2024-03-29", "2024-04-01")
    rows = ingested(table.source(settings).read(days), table, days)

    assert case.timezone == "Europe/Berlin"
    assert rows.groupby("day").size().to_dict() == {days[0]: 24, days[1]: 24, days[2]: 23, days[3]: 24}
    cleaned = clean(rows, table, timezone=case.timezone, days=days)
    assert cleaned.rejected["reason"].tolist() == []
    assert cleaned.rows["paid_at"].tolist() == list(hours.tz_convert("UTC"))
    intake = RowIntake(table, timezone=case.timezone)
    row = {"transaction_id": "1", "customer_id": "c1", "terminal_id": "t1", "amount": 9.5}
    taken = intake.take_all([{**row, "paid_at": at.isoformat()} for at in hours])
    assert [each.day for each in taken] == [f"{at:%Y-%m-%d}" for at in hours]


def test_a_file_of_another_time_zone_than_the_code_of_a_case_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files.toml").write_text(PAYMENTS, encoding="utf-8")
    wanted = (
        r"files\.toml: timezone is 'Europe/Berlin', expected timezone = \"Asia/Tokyo\" at the top: in it card_fraud has its days, "
        "and times without an offset would be read as others than they are"
    )
    with pytest.raises(ValueError, match=wanted):
        for_own_files(CARD_FRAUD, {CARD_FILES: str(tmp_path / "files.toml")}, CARD_FILES, times={}, timezone="Asia/Tokyo")
