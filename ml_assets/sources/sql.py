"""A source that reads a table, or the rows of a query, of a database that SQLAlchemy speaks to.

Belongs here: which rows are of a day, what tells their version, and reading them as of one moment. Does not: what becomes of their columns
(`sources.delivered`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ml_assets.sources.delivered import Delivered, as_delivered, not_delivered
from ml_assets.sources.files import digest, united
from ml_assets.use_case import Batch, Day, shift

AT_ONCE = 50_000
"""Rows in memory before they become text."""
_WAIT_SECONDS = 10
_SNAPSHOT = {"postgresql": "REPEATABLE READ", "mysql": "REPEATABLE READ", "mariadb": "REPEATABLE READ"}
"""How a transaction sees the rows of one moment; others do that by themselves."""


class _LackingError(Exception):
    """There are not all columns."""


class NoOrderError(ValueError):
    """The database cannot tell which rows are of a day."""


@dataclass(frozen=True, kw_only=True)
class SqlRows:
    """The rows of a table or a query that has a time; within a day they are ordered by it, and then by their other columns.

    All that is read at once is as of one moment. The version of a day is the number of its rows and a checksum of them, so that rows that
    come late, are changed or are deleted make it another one. PostgreSQL adds up the checksum itself; from others the rows are read for it.

    Raises:
        ValueError: the declaration contradicts itself, or the URL is none of SQLAlchemy's.
    """

    url: str
    """SQLAlchemy's, with the password: it is never told."""
    rows: str
    """A table as the database spells it, with its schema where it needs one (`my orders`, `sales.order`), or a query that begins with
    SELECT or WITH."""
    delivered: Delivered
    look_back_days: int = 30
    """So many days a sensor looks for rows that came late, were changed or deleted."""
    complete_to: Day | None = None
    """First day of which the database says nothing: a day before it without a row had none. None: that after the last row's."""

    def __post_init__(self) -> None:
        if faults := list(self.delivered.faults()):
            raise ValueError(f"{self.rows}: {'; '.join(faults)}")
        try:
            sa.make_url(self.url).get_dialect()
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise ValueError(f"no database that can be reached: {_without_password(error, self.url)}") from None

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """For each day the database can deliver a hash over its rows and how they are read."""
        try:
            with self._snapshot() as (connection, time):
                return {day: self._version(connection, time, day) for day in days if self._problem(time, day) is None}
        except (SQLAlchemyError, _LackingError):
            return {}

    def read(self, days: Sequence[Day]) -> Batch:
        """Rows of these days.

        Raises:
            ValueError: a row to keep has no time, or the time is of a kind by which the database cannot find a day.
        """
        tables, versions, problems = [self.delivered.no_rows()], dict[Day, str](), dict[Day, str]()
        counted: dict[Day, int] = {}
        try:
            with self._snapshot() as (connection, time):
                self._require_times(connection)
                for day in days:
                    if problem := self._problem(time, day):
                        problems[day] = problem
                        continue
                    versions[day], found = self._of_day(connection, time, day)
                    counted[day] = sum(table.num_rows for table in found)
                    tables += found
        except (SQLAlchemyError, _LackingError) as error:
            told = f"{self._label}: {_without_password(error, self.url)}"
            return Batch(rows=united(tables[:1]), counted={}, versions={}, problems=dict.fromkeys(days, told))
        return Batch(rows=united(tables), counted=counted, versions=versions, problems=problems)

    def trouble(self) -> str:
        """See `WatchedSource`."""
        try:
            with self._snapshot() as (connection, _):
                self._require_times(connection)
        except (SQLAlchemyError, _LackingError) as error:
            return f"{self._label}: {_without_password(error, self.url)}"
        except ValueError as error:
            return str(error)
        return ""

    def watched(self, days: Sequence[Day]) -> Sequence[Day]:
        """The last days that have rows, since each is scanned: an older one that changes is found by `ml-assets run`."""
        try:
            with self._snapshot() as (_, time):
                return [day for day in days if time.last is not None and day <= time.last][-self.look_back_days :]
        except (SQLAlchemyError, _LackingError, ValueError):
            return []

    # A moment ------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[sa.Connection, "_Time"]]:
        options = {"isolation_level": level} if (level := _SNAPSHOT.get(self._engine.dialect.name)) else {}
        with self._engine.connect().execution_options(**options) as connection:
            if not options:
                connection.exec_driver_sql("BEGIN")  # Python's driver of SQLite would begin with the first change only
            if self._engine.dialect.name == "postgresql":  # a checksum is of text, which depends on these
                connection.exec_driver_sql(
                    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL extra_float_digits = 1"
                )
            self._table.update(self._looked_up(connection) if not self._table else {})
            self._require_columns(connection)
            yield connection, self._time(connection)
            connection.rollback()

    @cached_property
    def _engine(self) -> sa.Engine:
        url = sa.make_url(self.url)
        waiting = {"connect_timeout": _WAIT_SECONDS} if url.get_backend_name() in _SNAPSHOT else {}
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args=waiting, hide_parameters=True)
        # SQLite's dialect would call a column by what is behind the last dot of its name.
        return engine.execution_options(sqlite_raw_colnames=True) if url.get_backend_name() == "sqlite" else engine

    @property
    def _from(self) -> str:
        """For `sa.text`: the table, or else what is written, as it is: a query, or names in quotes."""
        if self._table:
            return self._table["quoted"]
        is_query = self.rows.split(None, 1)[0].upper() in ("SELECT", "WITH")
        return _verbatim(f"({self.rows}) AS delivered" if is_query else self.rows)

    @cached_property
    def _table(self) -> dict[str, str]:
        """The table as SQL has it, `quoted`, once the database was asked for it; nothing while it has none by that name."""
        return {}

    def _looked_up(self, connection: sa.Connection) -> dict[str, str]:
        """Looked for as it is written, since one may be called `order`, `my orders` or `a.b`, and only then as schema and table."""
        schema, _, name = self.rows.partition(".")
        for table, within in ((self.rows, None), *([(name, schema)] if name and schema else [])):
            if sa.inspect(connection).has_table(table, schema=within):
                return {"quoted": ".".join(map(self._quoted, filter(None, (within, table))))}
        return {}

    @property
    def _label(self) -> str:
        url = sa.make_url(self.url)
        return f"{self.rows[:60]} in {url.get_backend_name()}://{url.host or ''}/{url.database or ''}"

    def _quoted(self, name: str) -> str:
        """For `sa.text`, which doubles a percent sign itself where the driver wants it."""
        preparer = self._engine.dialect.identifier_preparer
        return _verbatim(
            f"{preparer.initial_quote}{name.replace(preparer.escape_quote, preparer.escape_to_quote)}{preparer.final_quote}"
        )

    def _require_columns(self, connection: sa.Connection) -> None:
        """SQLite takes the name of a column that is not there for a text."""
        there = list(connection.execute(sa.text(f"SELECT * FROM {self._from} WHERE 1 = 0")).keys())
        if lacking := self.delivered.lacking(there):
            raise _LackingError(lacking)

    def _time(self, connection: sa.Connection) -> "_Time":
        name = self.delivered.time.column
        column = self._quoted(name)
        [(last,)] = connection.execute(sa.text(f"SELECT max({column}) FROM {self._from}")).all()
        return _Time.of(last, name, self.delivered)

    def _problem(self, time: "_Time", day: Day) -> str | None:
        return not_delivered(day, complete_to=self.complete_to, last=time.last, whole=self._label, latest=f"row of {self._label}")

    def _require_times(self, connection: sa.Connection) -> None:
        column = self._quoted(self.delivered.time.column)
        [(without,)] = connection.execute(sa.text(f"SELECT count(*) FROM {self._from} WHERE {column} IS NULL")).all()
        if without:
            raise ValueError(
                f"{self._label}: {without:,} rows have no {self.delivered.time.column}, so nobody knows their day: give them one, or leave "
                f"them out by a query"
            )

    # A day ---------------------------------------------------------------------------------------------------------------------

    def _where(self) -> str:
        column = self._quoted(self.delivered.time.column)
        return f"{column} >= :from_then AND {column} < :to_then"

    def _version(self, connection: sa.Connection, time: "_Time", day: Day) -> str:
        if self._engine.dialect.name != "postgresql":
            return self._version_of(self._batches(connection, time, day))
        names = ", ".join(self._quoted(name) for name in self.delivered.needed)
        checksum = f"coalesce(sum(hashtextextended(CAST(ROW({names}) AS text), 0)), 0)"
        statement = f"SELECT count(*), {checksum} FROM {self._from} WHERE {self._where()}"
        [(count, total)] = connection.execute(sa.text(statement), time.bounds(day)).all()
        return self._named(count, total)

    def _version_of(self, batches: Iterable[pa.RecordBatch]) -> str:
        count = total = 0
        for batch in batches:
            count += batch.num_rows
            total += int(pd.util.hash_pandas_object(batch.to_pandas().astype("str"), index=False).sum())
        return self._named(count, total)

    def _named(self, count: int, total: Any) -> str:
        return digest(repr((count, str(total), self.rows, self.delivered.meaning)).encode() if count else b"")

    def _of_day(self, connection: sa.Connection, time: "_Time", day: Day) -> tuple[str, list[pa.Table]]:
        """The version of a day, and its rows."""
        batches: Iterable[pa.RecordBatch] = self._batches(connection, time, day)
        if self._engine.dialect.name == "postgresql":
            version = self._version(connection, time, day)
        else:
            batches = list(batches)
            version = self._version_of(batches)
        found, before = list[pa.Table](), 0
        for batch in batches:
            found.append(self.delivered.rows(batch, [day], file=self._label, version=version, before=before))
            before += batch.num_rows
        return version, found

    def _batches(self, connection: sa.Connection, time: "_Time", day: Day) -> Iterator[pa.RecordBatch]:
        names = list(self.delivered.needed)
        first = self.delivered.time.column
        order = ", ".join(self._quoted(name) for name in sorted(names, key=lambda name: name != first))
        columns = ", ".join(map(self._quoted, names))
        statement = sa.text(f"SELECT {columns} FROM {self._from} WHERE {self._where()} ORDER BY {order}")
        streaming = connection.execution_options(stream_results=True, yield_per=AT_ONCE)
        with closing(streaming.execute(statement, time.bounds(day))) as found:
            for rows in found.partitions(AT_ONCE):
                arrays = [_array(values) for values in zip(*rows, strict=True)]
                yield as_delivered(pa.RecordBatch.from_arrays(arrays, names))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Time:
    """How the database has the time by which days are told apart."""

    kind: str
    last: Day | None
    """Of all rows; None when there are none."""
    delivered: Delivered

    @classmethod
    def of(cls, last: Any, name: str, delivered: Delivered) -> "_Time":
        """From the latest of all times.

        Raises:
            NoOrderError: days of times of this kind cannot be found by comparing them.
        """
        zone, delay = ZoneInfo(delivered.timezone), delivered.time.delay
        kind = next(
            kind
            for kind, fits in (
                ("none", last is None),
                ("instant", isinstance(last, datetime) and last.tzinfo is not None),
                ("clock", isinstance(last, datetime)),
                ("date", isinstance(last, date)),
                ("text", isinstance(last, str)),
                ("other", True),
            )
            if fits
        )
        if kind == "other":
            raise NoOrderError(f"column {name} holds {type(last).__name__}, expected a time, a date or text in ISO 8601")
        if delay and kind in ("clock", "date", "text") and delivered.timezone != "UTC":
            raise NoOrderError(f"column {name} is delayed and without an offset: expected timezone UTC, or times with their offset")
        if kind == "text" and delay % timedelta(days=1):
            raise NoOrderError(f"column {name} is text and delayed by {delay}: expected whole days")
        if last is None:
            return cls(kind=kind, last=None, delivered=delivered)
        if kind == "text":
            batch = pa.RecordBatch.from_arrays([pa.array([last], pa.string())], [name])
            told = delivered.time.days(batch)[0].as_py()
            if told is None or not last.startswith(shift(told, -delay.days)):
                expected = f"ISO 8601, in UTC or the clock time of {delivered.timezone}"
                raise NoOrderError(f"column {name} is text such as {last!r}, expected {expected}")
            return cls(kind=kind, last=told, delivered=delivered)
        at = (last if isinstance(last, datetime) else datetime.fromisoformat(last.isoformat())) + delay
        return cls(kind=kind, last=(at.astimezone(zone) if at.tzinfo else at).date().isoformat(), delivered=delivered)

    def bounds(self, day: Day) -> dict[str, Any]:
        """Between which times of the source a day lies."""
        zone, delay = ZoneInfo(self.delivered.timezone), self.delivered.time.delay
        starts = [datetime.fromisoformat(each) for each in (day, shift(day, 1))]
        found: list[Any]
        match self.kind:
            case "instant":
                found = [start.replace(tzinfo=zone).astimezone(UTC) - delay for start in starts]
            case "date":
                found = [(start - delay).date() for start in starts]
            case "text":
                found = [(start - delay).date().isoformat() for start in starts]
            case _:
                found = [start - delay for start in starts]
        return {"from_then": found[0], "to_then": found[1]}


def _array(values: Sequence[Any]) -> pa.Array:
    """Values of a column, whatever type the driver gave them; what Arrow does not know, such as a UUID, is its text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _verbatim(statement: str) -> str:
    """For `sa.text`: a colon would begin a parameter, also one inside a name or a text."""
    return statement.replace(":", "\\:")


def _without_password(error: Exception, url: str) -> str:
    """The first line of what the driver says."""
    told = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
    try:
        password = sa.make_url(url).password
    except ArgumentError:
        return "expected a URL such as postgresql+psycopg://user:${PGPASSWORD}@host/database or sqlite:////path/to/file.db"
    return told.replace(str(password), "***") if password else told
