"""A source that reads a table, or the rows of a query, of a database that SQLAlchemy speaks to.

Belongs here: which rows are of a day, what tells their version, and reading them as of one moment. Does not: what becomes of their columns
(`sources.delivered`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from ml_assets.sources.canonical import written
from ml_assets.sources.delivered import Delivered, as_delivered, not_delivered
from ml_assets.sources.dialect import toml_text
from ml_assets.sources.files import digest, united
from ml_assets.sources.time_format import EPOCHS, ISO
from ml_assets.use_case import Batch, Day, shift

AT_ONCE = 50_000
"""Rows in memory before they become text."""
_WAIT_SECONDS = 10
_MOST_TEXTS = 10_000
"""So many texts behind the last time may be none."""
_TIMES_OF_POSTGRES = ("timestamp with time zone", "timestamp without time zone", "date")
_DAY = timedelta(days=1)
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

    A row without a time, or with one out of bounds, is stray: it is delivered behind the rows of the first day of the case, for cleaning to
    reject. A text that is no time is of the day behind which texts put it. No stray row makes a day one that was delivered. Without bounds
    nobody knows the first day of the case: then each row needs a time.

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
                found = {day: self._version_if_read(connection, time, day) for day in days if self._problem(time, day) is None}
                return {day: version for day, version in found.items() if version is not None}
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
                self._require_times(connection, time)
                for day in days:
                    if problem := self._problem(time, day):
                        problems[day] = problem
                        continue
                    try:
                        versions[day], found = self._of_day(connection, time, day)
                    except OperationalError as error:
                        if not _is_undecodable(error):
                            raise
                        problems[day] = f"{self._label}: {_without_password(error, self.url)}: write the row again in UTF-8"
                        continue
                    counted[day] = sum(table.num_rows for table in found)
                    tables += found
        except (SQLAlchemyError, _LackingError) as error:
            told = f"{self._label}: {_without_password(error, self.url)}"
            return Batch(rows=united(tables[:1]), counted={}, versions={}, problems=dict.fromkeys(days, told))
        return Batch(rows=united(tables), counted=counted, versions=versions, problems=problems)

    def trouble(self) -> str:
        """See `WatchedSource`."""
        try:
            with self._snapshot() as (connection, time):
                self._require_times(connection, time)
                return time.fault
        except (SQLAlchemyError, _LackingError) as error:
            return f"{self._label}: {_without_password(error, self.url)}"
        except ValueError as error:
            return str(error)

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
            needed = self._require_columns(connection)
            yield connection, replace(self._time(connection), needed=needed)
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

    def _require_columns(self, connection: sa.Connection) -> tuple[str, ...]:
        """Those to read. SQLite takes the name of a column that is not there for a text."""
        there = list(connection.execute(sa.text(f"SELECT * FROM {self._from} WHERE 1 = 0")).keys())
        if lacking := self.delivered.lacking(there):
            raise _LackingError(lacking)
        return tuple(self.delivered.needed_of(there))

    def _time(self, connection: sa.Connection) -> "_Time":
        column = self._quoted(self.delivered.time.column)
        time = _Time.of(self._sample(connection, column), self.delivered)
        if time.span is None:
            return replace(time, last=time.day_of(time.greatest, require=True))
        if time.kind != "none" and (day := self._last(connection, time)) is not None:
            return replace(time, last=day)
        if time.kind == "text":
            raise time.no_order()
        [(count,)] = connection.execute(sa.text(f"SELECT count(*) FROM {self._from}")).all()
        told = f"{self._label}: none of its {count:,} rows has a {self.delivered.time.column} from {time.span[0]} to {time.span[1]}"
        return replace(time, fault=told if count else "")

    def _sample(self, connection: sa.Connection, column: str) -> Any:
        """A value of the column that shows of which kind its times are: the greatest where nothing else does."""
        if self._engine.dialect.name == "postgresql":
            # Its greatest time may be infinity, which Python has not.
            kinds = connection.execute(sa.text(f"SELECT CAST(pg_typeof({column}) AS text) FROM {self._from} LIMIT 1")).all()
            if kinds and kinds[0][0] in _TIMES_OF_POSTGRES and self.delivered.bounds is not None:
                return connection.execute(sa.text(f"SELECT CAST('2000-01-01' AS {kinds[0][0]})")).scalar_one()
        [(greatest,)] = connection.execute(sa.text(f"SELECT max({column}) FROM {self._from}")).all()
        if (
            isinstance(greatest, bytes) and self._engine.dialect.name == "sqlite"
        ):  # which has any kind in any column, bytes behind texts
            texts = f"SELECT max({column}) FROM {self._from} WHERE typeof({column}) = 'text'"
            return connection.execute(sa.text(texts)).scalar() or greatest
        return greatest

    def _last(self, connection: sa.Connection, time: "_Time") -> Day | None:
        """The last day in bounds."""
        column, between = self._quoted(self.delivered.time.column), f"FROM {self._from} WHERE {self._where()}"
        [(last,)] = connection.execute(sa.text(f"SELECT max({column}) {between}"), time.bounds(*time.span or ())).all()
        if last is None or (day := time.day_of(last)) is not None:
            return None if last is None else day
        # The last of all texts is no time.
        ordered = sa.text(f"SELECT DISTINCT {column} {between} ORDER BY {column} DESC")
        with closing(connection.execute(ordered, time.bounds(*time.span or ()))) as texts:
            return next(filter(None, (time.day_of(each) for (each,) in islice(texts, _MOST_TEXTS))), None)

    def _problem(self, time: "_Time", day: Day) -> str | None:
        return time.fault or not_delivered(
            day, complete_to=self.complete_to, last=time.last, whole=self._label, latest=f"row of {self._label}"
        )

    def _require_times(self, connection: sa.Connection, time: "_Time") -> None:
        if time.span is not None:
            return
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

    def _stray(self) -> str:
        """Of the rows that are of no day."""
        column = self._quoted(self.delivered.time.column)
        return f"({column} IS NULL OR NOT ({column} >= :first_then AND {column} < :last_then))"

    def _version(self, connection: sa.Connection, time: "_Time", day: Day) -> str:
        if self._engine.dialect.name != "postgresql":
            return self._version_of(self._batches(connection, time, day))
        names = ", ".join(map(self._quoted, time.needed))
        checksum = f"coalesce(sum(hashtextextended(CAST(ROW({names}) AS text), 0)), 0)"
        strays = time.of_strays(day)
        where = f"({self._where()}) OR {self._stray()}" if strays else self._where()
        statement = f"SELECT count(*), {checksum} FROM {self._from} WHERE {where}"
        [(count, total)] = connection.execute(sa.text(statement), time.bounds(day) | strays).all()
        return self._named(count, total)

    def _version_if_read(self, connection: sa.Connection, time: "_Time", day: Day) -> str | None:
        """None where a text of the day cannot be read."""
        try:
            return self._version(connection, time, day)
        except OperationalError as error:
            if not _is_undecodable(error):
                raise
            return None

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
            found.append(self.delivered.rows(batch, [day], file=self._label, version=version, before=before, day=day))
            before += batch.num_rows
        return version, found

    def _batches(self, connection: sa.Connection, time: "_Time", day: Day) -> Iterator[pa.RecordBatch]:
        yield from self._selected(connection, self._where(), time.needed, time.bounds(day))
        if strays := time.of_strays(day):
            yield from self._selected(connection, self._stray(), time.needed, strays, stray=True)

    def _selected(
        self, connection: sa.Connection, where: str, names: Sequence[str], bounds: Mapping[str, Any], *, stray: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a condition, in order; the time of stray ones is text, whatever it is."""
        first = self.delivered.time.column
        order = ", ".join(self._quoted(name) for name in sorted(names, key=lambda name: name != first))
        as_text = first if stray and self._engine.dialect.name == "postgresql" else None
        columns = ", ".join(f"CAST({self._quoted(name)} AS text)" if name == as_text else self._quoted(name) for name in names)
        statement = sa.text(f"SELECT {columns} FROM {self._from} WHERE {where} ORDER BY {order}")
        streaming = connection.execution_options(stream_results=True, yield_per=AT_ONCE)
        with closing(streaming.execute(statement, bounds)) as found:
            for rows in found.partitions(AT_ONCE):
                values = dict(zip(names, zip(*rows, strict=True), strict=True))
                if stray:
                    values[first] = tuple(map(_time_text, values[first]))
                marks = self.delivered.dialect.writes_numbers
                yield as_delivered(pa.RecordBatch.from_arrays([_array(values[name], marks=marks) for name in names], names))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Time:
    """How the database has the time by which days are told apart."""

    kind: str
    greatest: Any
    """Of all values that can be one."""
    span: tuple[Day, Day] | None
    """The first and the last day in bounds; None for any."""
    delivered: Delivered
    needed: tuple[str, ...] = ()
    """Columns to read."""
    last: Day | None = None
    """Of all sound rows; None when there are none."""
    fault: str = ""
    """Why no day can be delivered, or ""."""

    @classmethod
    def of(cls, greatest: Any, delivered: Delivered) -> "_Time":
        """From the greatest of all values.

        Raises:
            NoOrderError: days of times of this kind cannot be found by comparing them.
        """
        name, delay = delivered.time.column, delivered.time.delay
        form = delivered.dialect.time_of(name)
        kind = next(
            kind
            for kind, fits in (
                ("none", greatest is None),
                ("instant", isinstance(greatest, datetime) and greatest.tzinfo is not None),
                ("clock", isinstance(greatest, datetime)),
                ("date", isinstance(greatest, date)),
                ("epoch", form in EPOCHS and isinstance(greatest, int | float | Decimal)),
                ("text", isinstance(greatest, str) and form == ISO),
                ("other", True),
            )
            if fits
        )
        if kind == "other" and isinstance(greatest, str):
            raise NoOrderError(
                f"column {name} is text such as {greatest!r} in the form {form!r}, by which a database cannot find the rows of a day: "
                f"expected ISO 8601, or `rows` as a query that converts it, such as one with to_timestamp"
            )
        if kind == "other" and isinstance(greatest, int | float | Decimal):
            told = delivered.dialect.cure(f"time = {toml_text({name: 'epoch seconds'})} (or milliseconds, microseconds)")
            raise NoOrderError(
                f"column {name} holds {type(greatest).__name__}, expected a time, a date or text in ISO 8601, or {told}"
            )
        if kind == "other":
            raise NoOrderError(f"column {name} holds {type(greatest).__name__}, expected a time, a date or text in ISO 8601")
        if delay and kind in ("clock", "date", "text") and delivered.timezone != "UTC":
            raise NoOrderError(f"column {name} is delayed and without an offset: expected timezone UTC, or times with their offset")
        if kind == "text" and delay % _DAY:
            raise NoOrderError(f"column {name} is text and delayed by {delay}: expected whole days")
        if delivered.dates == "end" and kind in ("instant", "clock", "epoch") and delay % _DAY:
            raise NoOrderError(f'column {name} is delayed by {delay} and has dates = "end": expected whole days')
        return cls(kind=kind, greatest=greatest, span=delivered.span(), delivered=delivered)

    def no_order(self) -> NoOrderError:
        """That texts are no times."""
        expected = f"ISO 8601, in UTC or the clock time of {self.delivered.timezone}"
        return NoOrderError(f"column {self.delivered.time.column} is text such as {self.greatest!r}, expected {expected}")

    def day_of(self, value: Any, *, require: bool = False) -> Day | None:
        """The day of a time; None of a text by which its day cannot be found.

        Raises:
            NoOrderError: it is required.
        """
        if value is None:
            return None
        time = self.delivered.time
        day: Day | None = time.days(pa.RecordBatch.from_arrays([pa.array([value])], [time.column]))[0].as_py()
        if self.kind == "text" and not (day is not None and value.startswith(shift(day, -time.delay.days))):
            if require:
                raise self.no_order()
            return None
        return day

    def of_strays(self, day: Day) -> dict[str, Any]:
        """Between which times of the source rows are of a day; empty where a day has no stray rows."""
        if self.span is None or self.delivered.bounds is None or day != self.delivered.bounds.start:
            return {}
        bounds = self.bounds(*self.span)
        return {"first_then": bounds["from_then"], "last_then": bounds["to_then"]}

    def bounds(self, first: Day, last: Day | None = None) -> dict[str, Any]:
        """Between which times of the source some days lie, or one."""
        zone, delay = ZoneInfo(self.delivered.timezone), self.delivered.time.delay
        starts = [datetime.fromisoformat(each) for each in (first, shift(last or first, 1))]
        found: list[Any]
        match self.kind:
            case "instant":
                found = [start.replace(tzinfo=zone).astimezone(UTC) - delay for start in starts]
            case "epoch":
                per_second = EPOCHS[self.delivered.dialect.time_of(self.delivered.time.column)]
                moments = [start.replace(tzinfo=zone).astimezone(UTC) - delay for start in starts]
                found = [int(moment.timestamp()) * per_second for moment in moments]
            case "date":
                # A date counts from its end, so that a part of a day more carries it into the next.
                behind = _DAY - timedelta(microseconds=1) if self.delivered.dates == "start" else timedelta(0)
                found = [(start - delay + behind).date() for start in starts]
            case "text":
                found = [(start - delay).date().isoformat() for start in starts]
            case _:
                found = [start - delay for start in starts]
        return {"from_then": found[0], "to_then": found[1]}


def _time_text(value: Any) -> str | None:
    """A time as text, whatever it is; one with the short offset of PostgreSQL in ISO 8601."""
    if value is None:
        return None
    text = value.isoformat() if isinstance(value, date) else str(value)
    return re.sub(r"^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)\+00$", r"\1T\2Z", text)


def _array(values: Sequence[Any], *, marks: bool) -> pa.Array:
    """Values of a column, whatever type the driver gave them; what Arrow does not know is its text.

    Args:
        marks: whether a column of several types, as SQLite has them, says which of its values were numbers.
    """
    known = [None if isinstance(value, Decimal) and value.is_nan() else value for value in values]
    try:
        return pa.array(known)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        texts = [None if value is None else str(value) for value in known]
        return (
            written(texts, [isinstance(value, int | float | Decimal) for value in known]) if marks else pa.array(texts, pa.string())
        )


def _is_undecodable(error: OperationalError) -> bool:
    """Whether SQLite, which keeps any bytes as text, has some that are no UTF-8: a fault of one row, and not of the database."""
    return "Could not decode to UTF-8" in str(error.orig)


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
