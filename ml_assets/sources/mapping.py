"""How a reader writes down which of their files, or rows of a database, and which columns are a table: one TOML file.

Belongs here: the form of that file, and what is wrong with one. Does not: the reading of what it names (`sources.mapped`, `sources.sql`).

    start = "2018-04-01"                    # first day
    end = "2018-08-09"                      # first day of which the files say nothing
    first_go_live = "2018-07-04"            # of a model, if not as soon as there are enough days
    timezone = "UTC"                        # of times without an offset, and of days
    folder = "."                            # of the files, from where this file is, or "s3://bucket/prefix", "gs://bucket/prefix"

    [transactions]                          # any other name is a table
    files = "card_transactions/*.parquet"   # or "card_transactions/{day}.csv.gz": then the name says the day of all rows
    columns = {transaction_id = "TRANSACTION_ID", paid_at = "TX_DATETIME"}

    [chargebacks]
    of = "transactions"                     # its files (or its rows of the database), and its columns unless named here
    flag = "TX_FRAUD"                       # only rows in which this column is 1
    delay_days = 7                          # for the times in `delayed`
    columns = {scenario = "TX_FRAUD_SCENARIO"}
    delayed = {reported_at = "TX_DATETIME"}

or in a database, with `${NAME}` for what stands in the environment:

    database = "postgresql+psycopg://reader:${PGPASSWORD}@db.example.com/bank"

    [transactions]
    rows = "payments"                       # a table, or a query
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ml_assets.sources.delivered import Delivered, is_timezone
from ml_assets.sources.files import as_day
from ml_assets.sources.folders import LocalFolder, folder_at
from ml_assets.sources.mapped import SUFFIXES, MappedFiles
from ml_assets.sources.sql import SqlRows
from ml_assets.use_case import Day


def _day(value: object) -> Day:
    text = value.isoformat() if isinstance(value, date) else value
    if not isinstance(text, str) or as_day(text) != text:
        raise ValueError("expected a day such as 2018-04-01")
    return text


def _timezone(name: str) -> str:
    if not is_timezone(name):
        raise ValueError("expected a time zone such as Europe/Berlin")
    return name


def _pattern(text: str) -> str:
    if not text.endswith(SUFFIXES) or Path(text).is_absolute():
        raise ValueError(f"expected a pattern below `folder` that ends in {', '.join(SUFFIXES)}")
    return text


def _named(text: str) -> str:
    if not text:
        raise ValueError("expected the name of a column in the files")
    return text


_Day = Annotated[Day, BeforeValidator(_day)]
_ColumnName = Annotated[str, AfterValidator(_named)]


class TableMapping(BaseModel):
    """Where one table is in the reader's files."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: Annotated[str, AfterValidator(_pattern)] | None = None
    """Glob below the folder."""
    rows: str | None = None
    """Instead of `files`: a table of the database, or a query."""
    of: str | None = None
    """Instead of both: the table whose files or rows these are, and whose columns they have unless named here."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Delivered column → column in the files; "" where they have none."""
    flag: _ColumnName | None = None
    """Only rows in which this column of the files is `flag_is`."""
    flag_is: str = "1"
    delayed: dict[str, _ColumnName] = Field(default_factory=dict)
    """Delivered column → a time in the files, `delay_days` before the delivered one. A delay of 0 reads text as a time."""
    delay_days: float = Field(default=0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if [self.files, self.rows, self.of].count(None) != 2:
            raise ValueError("expected one of `files`, `rows` and `of`")
        if self.delay_days and not self.delayed:
            raise ValueError('expected the times to delay, such as delayed = {reported_at = "TX_DATETIME"}, with `delay_days`')
        if twice := sorted(set(self.columns) & set(self.delayed)):
            raise ValueError(f"expected {', '.join(twice)} either in `columns` or in `delayed`")
        return self


class FileMapping(BaseModel):
    """Where the tables of a case are in the reader's files, and of which days these speak."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: Path
    """The TOML file that says so."""
    start: _Day
    end: _Day | None = None
    """First day of which the files say nothing; a day before it without a row had none. None: the day after a table's last row."""
    first_go_live: _Day | None = None
    """Day on which the first model goes live; None where the case itself finds it."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Of times without an offset, and of days."""
    folder: str
    """Of all files: a path, from where this file is, or `s3://bucket/prefix` or `gs://bucket/prefix`."""
    database: str | None = None
    """SQLAlchemy's URL of the database that holds the tables with `rows`."""
    tables: dict[str, TableMapping]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.tables:
            raise ValueError("no table, expected one or more such as [transactions]")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"expected `end` after `start`, which is {self.start}")
        for name, table in self.tables.items():
            if table.of is not None and table.of not in self._whole:
                raise ValueError(f"{name}.of is {table.of!r}, expected a table with `files` or `rows`: {', '.join(self._whole)}")
            if table.rows is not None and self.database is None:
                raise ValueError(f'{name}.rows needs a database, such as database = "sqlite:////path/to/file.db" at the top')
        return self

    @property
    def _whole(self) -> list[str]:
        return [name for name, table in self.tables.items() if table.of is None]


def read_mapping(file: Path, environment: Mapping[str, str] = MappingProxyType({})) -> FileMapping:
    """What a TOML file declares, in the form that the module shows.

    Args:
        environment: what `${NAME}` stands for in the address of the database.

    Raises:
        ValueError: the file cannot be read, or a field is not what it should be: names the file, the field, what it got and
            what was expected.
    """
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: expected a TOML file: {error}") from error
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    own = {name: value for name, value in settings.items() if name not in tables}
    if unknown := sorted(set(own) - {"start", "end", "first_go_live", "timezone", "folder", "database"}):
        raise ValueError(
            f"{file}: unknown {', '.join(unknown)}; expected start, end, first_go_live, timezone, folder, database and tables"
        )
    own["folder"] = _text(file, "folder", own.get("folder", "."))
    if "database" in own:
        own["database"] = _filled(file, _text(file, "database", own["database"]), environment)
    try:
        return FileMapping.model_validate({**own, "tables": tables, "file": file})
    except ValidationError as error:
        raise ValueError(f"{file}: {'; '.join(_fault(fault) for fault in error.errors())}") from error


def source_of(
    mapping: FileMapping,
    table: str,
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    day_column: str,
    known: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> MappedFiles | SqlRows:
    """The source of one table.

    Args:
        environment: credentials and endpoints of buckets, under the names that the AWS and Google libraries use themselves.
        day_column: the delivered column whose time says to which day a row belongs.
        known: all columns that the table delivers: each has to be mapped or optional, and no other may be.
        optional: columns that are delivered without values when they are not mapped.

    Raises:
        ValueError: the mapping has no such table or folder, or other columns than known; names the file and the field.
    """
    try:
        folder = folder_at(mapping.folder, mapping.file.parent, environment)
    except ValueError as error:
        raise ValueError(f"{mapping.file}: folder: {error}") from None
    if mapping.database is None and isinstance(folder, LocalFolder) and not folder.path.is_dir():
        raise ValueError(f"{mapping.file}: folder: expected a folder with the files, {folder} is none")
    if table not in mapping.tables:
        raise ValueError(f"{mapping.file}: no [{table}]; it has {', '.join(mapping.tables)}")
    declared = mapping.tables[table]
    files_of = mapping.tables[declared.of] if declared.of is not None else declared
    inherited = {name: column for name, column in files_of.columns.items() if known is None or name in known}
    columns = dict.fromkeys(optional, "") | inherited | declared.columns
    columns = {name: column for name, column in columns.items() if name not in declared.delayed}
    _require_known(mapping, table, [*columns, *declared.delayed], known, optional)
    if not columns.get(day_column) and day_column not in declared.delayed:
        raise ValueError(f"{mapping.file}: [{table}] columns.{day_column}: expected the column in the files that says the day")
    delivered = Delivered(
        columns=columns,
        day_column=day_column,
        timezone=mapping.timezone,
        delayed={name: (column, timedelta(days=declared.delay_days)) for name, column in declared.delayed.items()},
        where=(declared.flag, declared.flag_is) if declared.flag else None,
    )
    if files_of.rows is not None:
        try:
            return SqlRows(url=mapping.database or "", rows=files_of.rows, delivered=delivered, complete_to=mapping.end)
        except ValueError as error:
            raise ValueError(f"{mapping.file}: [{table}] {error}") from None
    return MappedFiles(
        folder=folder,
        pattern=files_of.files or "",
        columns=delivered.columns,
        day_column=day_column,
        timezone=mapping.timezone,
        delayed=delivered.delayed,
        where=delivered.where,
        complete_to=mapping.end,
    )


def _filled(file: Path, text: str, settings: Mapping[str, str]) -> str:
    names = re.findall(r"\$\{(\w+)\}", text)
    if absent := sorted({name for name in names if name not in settings}):
        raise ValueError(f"{file}: database needs {', '.join(absent)} in the environment")
    return re.sub(r"\$\{(\w+)\}", lambda found: quote(settings[found[1]], safe=""), text)


def _require_known(
    mapping: FileMapping, table: str, names: Sequence[str], known: Sequence[str] | None, optional: Sequence[str]
) -> None:
    if known is None:
        return
    faults = [f"unknown {name}" for name in names if name not in known]
    faults += [f"no {name}" for name in known if name not in names]
    may = f" ({', '.join(optional)} may be left out)" if optional else ""
    if faults:
        raise ValueError(f"{mapping.file}: [{table}] columns: {', '.join(faults)}; expected {', '.join(known)}{may}")


def _text(file: Path, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{file}: {name} is {value!r}, expected text")
    return value


def _fault(fault: Any) -> str:
    """One line of pydantic's account, with what it got where that is short."""
    field = ".".join(str(part) for part in fault["loc"] if part != "tables")
    if fault["type"] == "extra_forbidden":
        return f"{field}: unknown, expected {', '.join(TableMapping.model_fields)}"
    told = str(fault["msg"]).removeprefix("Value error, ")
    got = f" is {fault['input']!r}," if isinstance(fault["input"], str | int | float | date) else ":"
    return f"{field}{got} {told[0].lower()}{told[1:]}" if field else told
