"""The script of an AWS Glue job: days of a database's table or query, or of files below a prefix of S3, as one Parquet object a day.

Upload this one file and make a job of it (Spark or Python shell, Python 3.9 or later; it uses no Spark) with the additional Python modules
`dagster-pipes`, `pandas`, `pyarrow`, `sqlalchemy` and a driver such as `psycopg[binary]`. Its arguments:

    --source  an address of SQLAlchemy's or a JDBC one, without a password, or s3://bucket/prefix of Parquet and CSV files
    --rows    of a database: a table, or a query that begins with SELECT or WITH
    --secret  of a database: the name of its secret in AWS Secrets Manager, {"username": …, "password": …} or the password alone

Which days, by which column, and where to, says Dagster (`orchestration.extracts`). An object is written by one request, always under the
same name: who reads sees a day as it was or as it is, and one that is extracted again replaces itself. Each day that was written is
reported with the number of its rows.

A row whose time says no day, or one out of the bounds that the case has for its times, is written with those of the first day of the case,
where cleaning quarantines it.
"""

from __future__ import annotations  # a Python shell job of Glue has Python 3.9

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import quote, quote_plus
from zoneinfo import ZoneInfo

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import sqlalchemy as sa
from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesContext,
    PipesParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

SUFFIXES = (".parquet", ".csv", ".csv.gz")
_DAY = r"\d{4}-\d\d-\d\d"
_OFFSET = r"[T ].*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"


class ExtractError(Exception):
    """What went wrong, in words that tell no secret."""


@dataclass(frozen=True)
class Calendar:
    """Which day a time is of, as the case has it."""

    timezone: str
    """That of a time without an offset."""
    first_day: str
    """Gets the rows that are of no day from `earliest` to `latest`."""
    earliest: str
    latest: str

    def days(self, times: pa.ChunkedArray) -> pd.Series:
        """The day with which each row is written."""
        return self.known_days(times).fillna(self.first_day)

    def known_days(self, times: pa.ChunkedArray) -> pd.Series:
        """The day of each time; None where it says none, or one out of bounds."""
        found = times.to_pandas().astype(object)
        days = pd.Series(None, index=found.index, dtype=object)
        texts = found.map(lambda value: isinstance(value, str)).astype(bool)
        others = ~texts & found.notna()
        texts &= found.where(texts, "").str.match(_DAY)
        days[texts] = found[texts].str[:10]
        offset = texts & found.where(texts, "").str.contains(_OFFSET, regex=True)
        if offset.any():
            instants = pd.to_datetime(found[offset], utc=True, format="ISO8601", errors="coerce").dt.tz_convert(self.timezone)
            days[offset] = instants.dt.strftime("%Y-%m-%d").fillna(days[offset])  # what is too far away for pandas is out of bounds
        days[others] = found[others].map(self._day)
        bad = [day for day in days.dropna().unique() if not (self.earliest <= day <= self.latest and _is_date(day))]
        return days.where(~days.isin(bad), None)

    def _day(self, value: Any) -> str:
        if isinstance(value, datetime) and value.tzinfo is not None:
            with suppress(OverflowError):  # in the year 9999
                value = value.astimezone(ZoneInfo(self.timezone))
        return str(value.isoformat()[:10])


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def main(arguments: Sequence[str]) -> None:
    """Extract the days that Dagster asks for."""
    asked = _parser().parse_known_args(arguments)[0]
    params: PipesParamsLoader = PipesCliArgsParamsLoader()  # type: ignore[no-untyped-call]
    if not params.is_dagster_pipes_process():
        raise ExtractError("nobody asks for days: this job is started by Dagster")
    s3 = boto3.client("s3")
    with open_dagster_pipes(
        params_loader=params, context_loader=PipesS3ContextLoader(s3), message_writer=PipesS3MessageWriter(s3)
    ) as pipes:
        secrets: list[str] = []
        try:
            extract(pipes, asked, s3, secrets)
            return
        except Exception as error:
            told = (
                str(error)
                if isinstance(error, ExtractError)
                else f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
            )
        # Outside of `except`, so that no traceback brings the original error along, which may quote a password.
        for secret in secrets:
            for form in (secret, quote(secret, safe=""), quote(secret, safe=" +"), quote_plus(secret), repr(secret)[1:-1]):
                told = told.replace(form, "***")
        pipes.report_custom_message({"error": told})
        raise ExtractError(told)


def extract(pipes: PipesContext, asked: argparse.Namespace, s3: Any, secrets: list[str]) -> None:
    """Read, write and report one day after the other.

    Args:
        secrets: gets what must not be told.
    """
    days, to, time = (pipes.get_extra(name) for name in ("days", "to", "time"))
    calendar = Calendar(*(pipes.get_extra(name) for name in ("timezone", "first_day", "earliest", "latest")))
    if asked.source.startswith("s3://"):
        found = _of_files(asked.source, s3, days, time, calendar)
    else:
        found = _of_database(_address(asked, secrets), asked.rows, days, time, calendar)
    for day, rows in found:
        if day == calendar.first_day and (strays := int(calendar.known_days(rows[time]).isna().sum())):
            between = f"from {calendar.earliest} to {calendar.latest}, written as 2018-04-01"
            pipes.log.warning(f"{strays} rows have no {time} {between}: they are with those of {day}, to be quarantined")
        address = to.replace("{day}", day)
        version = _write(s3, address, rows)
        pipes.log.info(f"{day}: {rows.num_rows} rows of {asked.rows or asked.source} are in {address}")
        pipes.report_custom_message({"day": day, "file": address, "rows": rows.num_rows, "version": version})


# A database -------------------------------------------------------------------------------------------------------------------


def _address(asked: argparse.Namespace, secrets: list[str]) -> sa.URL:
    if not asked.rows:
        raise ExtractError("--rows is missing: expected a table, or a query, of the database")
    try:
        url = sa.make_url(asked.source[len("jdbc:") :] if asked.source.startswith("jdbc:") else asked.source)
    except sa.exc.ArgumentError:
        url = None
    if url is None:
        raise ExtractError("--source is neither an address of a database nor s3://bucket/prefix")
    if url.password is not None or "password" in url.query:
        raise ExtractError("--source has a password: everybody who sees the job can read it; name its secret with --secret instead")
    if not asked.secret:
        return url
    try:
        text = boto3.client("secretsmanager").get_secret_value(SecretId=asked.secret)["SecretString"]
    except Exception as error:
        raise ExtractError(f"secret {asked.secret}: {error}") from None
    try:
        found = json.loads(text)
    except ValueError:
        found = text
    if not isinstance(found, dict):
        found = {"password": text}
    if "password" not in found:
        raise ExtractError(f"secret {asked.secret} has no password; it has {', '.join(found)}")
    password = str(found["password"])
    secrets += [each for each in (text, password) if each]
    return url.set(username=found.get("username", url.username), password=password)


def _of_database(url: sa.URL, rows: str, days: Sequence[str], time: str, calendar: Calendar) -> Iterator[tuple[str, pa.Table]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    name = ".".join(engine.dialect.identifier_preparer.quote(part) for part in rows.split("."))
    query = re.match(r"\s*(select|with)\b", rows, re.IGNORECASE)
    table: Any = sa.text((f"({rows}) AS extracted" if query else name).replace(":", "\\:"))  # which else begins a parameter
    column: Any = sa.column(time)
    with engine.connect() as connection:

        def read(where: Any, *columns: Any) -> pa.Table:
            answer = connection.execute(sa.select(*columns or [sa.text("*")]).select_from(table).where(where))
            names = list(answer.keys())
            values = list(zip(*answer.fetchall())) or [()] * len(names)  # noqa: B905  # `strict` came with Python 3.10
            return pa.table([_array(each) for each in values], names)

        example = connection.execute(sa.select(column).select_from(table).where(_shows_the_kind(column, engine)).limit(1)).scalar()
        others: list[Any] = [sa.column(each) for each in read(sa.false()).column_names if each != time]
        for day in days:
            of_day = _within(column, example, day, day, calendar.timezone)
            found = [read(of_day)]
            if day == calendar.first_day:
                if isinstance(example, str):
                    begins = (sa.func.substr if engine.dialect.name == "oracle" else sa.func.substring)(column, 1, 10)
                    strays = _among(begins, connection.execute(sa.select(begins).select_from(table).distinct()).scalars(), calendar)
                else:
                    strays = [sa.not_(_within(column, example, calendar.earliest, calendar.latest, calendar.timezone))]
                strays = [column.is_(None), *(sa.and_(column.is_not(None), sa.not_(of_day), each) for each in strays)]
                # As text, since Python has no time for some, such as infinity.
                found += [read(each, sa.cast(column, sa.String).label(time), *others) for each in strays]
            united = _united(found, time)
            yield day, _ordered(united.filter(pa.array(calendar.days(united[time]) == day, pa.bool_())), time)


def _among(begins: Any, there: Iterable[str], calendar: Calendar) -> list[Any]:
    """Conditions that find the texts, by how they begin, that may be of no day in bounds: an offset moves one by a day."""
    first, last = (date.fromisoformat(day) for day in (calendar.earliest, calendar.latest))
    inner = (first + timedelta(days=1)).isoformat(), (last - timedelta(days=1)).isoformat()
    strays = sorted(text for text in there if text is not None and not (inner[0] <= text <= inner[1] and _is_date(text)))
    return [begins.in_(strays[place : place + 500]) for place in range(0, len(strays), 500)]


def _shows_the_kind(column: Any, engine: sa.Engine) -> Any:
    """That a value shows of which kind the times of a column are."""
    there = column.is_not(None)
    if engine.dialect.name != "postgresql":
        return there
    return sa.and_(there, sa.cast(column, sa.String).not_in(["infinity", "-infinity"]))


def _united(tables: Sequence[pa.Table], time: str) -> pa.Table:
    """With times as text where rows of no day are among them."""
    days, *strays = [table for table in tables if table.num_rows] or tables[:1]
    if not strays:
        return days
    place = days.column_names.index(time)
    days = days.set_column(place, time, _array([None if each is None else str(each) for each in days[time].to_pylist()]))
    return pa.concat_tables([days, *(table.select(days.column_names) for table in strays)], promote_options="permissive")


def _within(column: Any, example: object, first: str, last: str, timezone: str) -> Any:
    """That a time lies in some days, as the database compares them; a text may be of a day beside it."""
    begin, end = date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1)
    if example is None:
        return sa.false()  # there is none, or nothing but infinity
    if isinstance(example, str):
        return sa.and_(column >= (begin - timedelta(days=1)).isoformat(), column < (end + timedelta(days=1)).isoformat())
    if not isinstance(example, date):
        raise ExtractError(
            f"the time is of type {type(example).__name__}, expected a time, a date or text: convert it in the query"
        )
    if not isinstance(example, datetime):
        return sa.and_(column >= begin, column < end)
    zone = None if example.tzinfo is None else ZoneInfo(timezone)
    start, stop = (datetime(each.year, each.month, each.day, tzinfo=zone) for each in (begin, end))
    return sa.and_(column >= start, column < stop)


def _array(values: Sequence[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # SQLite has numbers and texts in one column
        return pa.array([None if value is None else str(value) for value in values], pa.string())


# Files ------------------------------------------------------------------------------------------------------------------------


def _of_files(source: str, s3: Any, days: Sequence[str], time: str, calendar: Calendar) -> Iterator[tuple[str, pa.Table]]:
    """Each file is read once; in memory are the rows of the days that are asked for."""
    bucket, _, prefix = source[len("s3://") :].partition("/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = sorted(each["Key"] for page in pages for each in page.get("Contents", ()) if each["Key"].endswith(SUFFIXES))
    if not keys:
        raise ExtractError(f"no file below {source}; expected some that end in {', '.join(SUFFIXES)}")
    found: dict[str, list[pa.Table]] = {day: [] for day in days}
    for key in keys:
        rows = _rows_of(key, s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        if time not in rows.column_names:
            raise ExtractError(f"s3://{bucket}/{key} has no column {time}; it has {', '.join(rows.column_names)}")
        of_row = calendar.days(rows[time])
        for day in set(of_row.unique()) & set(days):
            found[day].append(rows.filter(pa.array(of_row == day)))
    columns = rows.schema.empty_table()
    for day in days:
        yield day, _ordered(pa.concat_tables([*found.pop(day), columns], promote_options="permissive"), time)


def _rows_of(key: str, content: bytes) -> pa.Table:
    if key.endswith(".parquet"):
        return pq.read_table(BytesIO(content))
    with pa.input_stream(BytesIO(content), compression="gzip" if key.endswith(".gz") else None) as stream:
        plain = stream.read()
    options = pyarrow.csv.ConvertOptions(default_column_type=pa.string(), strings_can_be_null=True, null_values=[""])
    names = pyarrow.csv.open_csv(BytesIO(plain)).schema.names
    options.column_types = dict.fromkeys(names, pa.string())  # as written: 007 is no 7
    return pyarrow.csv.read_csv(BytesIO(plain), convert_options=options)


# A day ------------------------------------------------------------------------------------------------------------------------


def _ordered(rows: pa.Table, time: str) -> pa.Table:
    """By time and then by everything else: the same rows are the same bytes, and so the same version."""
    others = [each.name for each in rows.schema if each.name != time and not pa.types.is_nested(each.type)]
    return rows.sort_by([(name, "ascending") for name in (time, *others)])


def _write(s3: Any, address: str, rows: pa.Table) -> str:
    bucket, _, key = address[len("s3://") :].partition("/")
    with TemporaryFile() as file:
        pq.write_table(rows, file, compression="zstd")
        file.seek(0)
        return str(s3.put_object(Bucket=bucket, Key=key, Body=file)["ETag"]).strip('"')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--source", required=True)
    parser.add_argument("--rows", default="")
    parser.add_argument("--secret", default="")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
