"""The script of an AWS Glue job: days of a database's table or query, or of files below a prefix of S3, as one Parquet object a day.

Upload this one file and make a job of it (Spark or Python shell, Python 3.9 or later; it uses no Spark) with the additional Python modules
`dagster-pipes`, `pandas`, `pyarrow`, `sqlalchemy` and a driver such as `psycopg[binary]`. Its arguments:

    --source  an address of SQLAlchemy's or a JDBC one, without a password, or s3://bucket/prefix of Parquet and CSV files
    --rows    of a database: a table, or a query that begins with SELECT or WITH
    --secret  of a database: the name of its secret in AWS Secrets Manager, {"username": …, "password": …} or the password alone

Which days, by which column, and where to, says Dagster (`orchestration.extracts`). An object is written by one request, always under the
same name: who reads sees a day as it was or as it is, and one that is extracted again replaces itself. Each day that was written is
reported with the number of its rows.

A row whose time says no day is written with those of the first day of the case, where cleaning quarantines it.
"""

from __future__ import annotations  # a Python shell job of Glue has Python 3.9

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
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
    days, to, time, timezone, first = (pipes.get_extra(name) for name in ("days", "to", "time", "timezone", "first_day"))
    if asked.source.startswith("s3://"):
        found = _of_files(asked.source, s3, days, time, timezone, first)
    else:
        found = _of_database(_address(asked, secrets), asked.rows, days, time, timezone, first)
    for day, rows in found:
        if day == first and (timeless := int(_days(rows[time], timezone).isna().sum())):
            pipes.log.warning(f"{timeless} rows have no {time} such as 2018-04-01: they are with those of {day}, to be quarantined")
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


def _of_database(
    url: sa.URL, rows: str, days: Sequence[str], time: str, timezone: str, first: str
) -> Iterator[tuple[str, pa.Table]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    name = ".".join(engine.dialect.identifier_preparer.quote(part) for part in rows.split("."))
    query = re.match(r"\s*(select|with)\b", rows, re.IGNORECASE)
    table: Any = sa.text((f"({rows}) AS extracted" if query else name).replace(":", "\\:"))  # which else begins a parameter
    column: Any = sa.column(time)
    with engine.connect() as connection:
        example = connection.execute(sa.select(column).select_from(table).where(column.is_not(None)).limit(1)).scalar()
        none = sa.or_(column.is_(None), column.not_like("____-__-__%")) if isinstance(example, str) else column.is_(None)
        for day in days:
            begin, end = _bounds(day, example, timezone)
            within = sa.and_(column >= begin, column < end) if example is not None else sa.false()
            within = sa.or_(within, none) if day == first else within
            answer = connection.execute(sa.select(sa.text("*")).select_from(table).where(within))
            names = list(answer.keys())
            columns = list(zip(*answer.fetchall())) or [()] * len(names)  # noqa: B905  # `strict` came with Python 3.10
            found = pa.table([_array(values) for values in columns], names)
            on_day = _days(found[time], timezone).fillna(first) == day
            yield day, _ordered(found.filter(pa.array(on_day, pa.bool_())), time)


def _bounds(day: str, example: object, timezone: str) -> tuple[object, object]:
    """Between which values of a column the times of a day lie, as the database compares them; a text may be of a day beside it."""
    first = date.fromisoformat(day)
    last = first + timedelta(days=1)
    if isinstance(example, str):
        return (first - timedelta(days=1)).isoformat(), (last + timedelta(days=1)).isoformat()
    if example is not None and not isinstance(example, date):
        raise ExtractError(
            f"the time is of type {type(example).__name__}, expected a time, a date or text: convert it in the query"
        )
    if not isinstance(example, datetime):
        return first, last
    zone = None if example.tzinfo is None else ZoneInfo(timezone)
    begin, end = (datetime(each.year, each.month, each.day, tzinfo=zone) for each in (first, last))
    return begin, end


def _array(values: Sequence[object]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # SQLite has numbers and texts in one column
        return pa.array([None if value is None else str(value) for value in values], pa.string())


# Files ------------------------------------------------------------------------------------------------------------------------


def _of_files(source: str, s3: Any, days: Sequence[str], time: str, timezone: str, first: str) -> Iterator[tuple[str, pa.Table]]:
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
        of_row = _days(rows[time], timezone).fillna(first)
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


def _days(times: pa.ChunkedArray, timezone: str) -> pd.Series:
    """The day of each time; one without an offset is clock time in `timezone`."""
    found = times.to_pandas().astype(object)
    days = pd.Series(None, index=found.index, dtype=object)
    texts = found.map(lambda value: isinstance(value, str))
    others = ~texts & found.notna()
    texts &= found.where(texts, "").str.match(_DAY)
    offset = texts & found.where(texts, "").str.contains(_OFFSET, regex=True)
    days[texts & ~offset] = found[texts & ~offset].str[:10]
    if offset.any():
        days[offset] = pd.to_datetime(found[offset], utc=True, format="ISO8601").dt.tz_convert(timezone).dt.strftime("%Y-%m-%d")
    days[others] = found[others].map(lambda value: _day(value, timezone))
    return days


def _day(value: Any, timezone: str) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(ZoneInfo(timezone))
    return str(value.strftime("%Y-%m-%d"))


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
