"""How a reader writes down where the rows of a table are, and which of their columns it has: one TOML file.

Belongs here: the form of that file, and what is wrong with one. Does not: the reading of what it names (the other modules).

    start = "2018-04-01"                    # first day
    end = "2018-08-09"                      # first day of which the files say nothing
    first_go_live = "2018-07-04"            # of a model, if not as soon as there are enough days
    earliest = "2008-04-01"                 # a time before it is a wrong one: its row is rejected; ten years before the start if not given
    latest = "2018-12-31"                   # a time behind that day is a wrong one; tomorrow, or `end` if later, if not given
    timezone = "UTC"                        # of times without an offset, and of days
    folder = "."                            # of the files, from where this file is, or "s3://bucket/prefix", "gs://bucket/prefix"

    [transactions]                          # any other name is a table
    files = "card_transactions/*.parquet"   # or "card_transactions/{day}.csv.gz": then the name says the day of all rows
    columns = {transaction_id = "TRANSACTION_ID", paid_at = "TX_DATETIME"}
    dates = "end"                           # times without a time of day are the last instant of their date, or "start" the first

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

Of each, how it is written, and how much it may hold, where that is not what most programs write (`sources.dialect`, `sources.limits`):

    [transactions.dialect]                  # columns by their names in the files
    separator = ";"                         # of CSV; and encoding = "cp1252", and index = true for a first column without a name
    decimal = ","
    thousands = "."
    missing = ["NA", "null"]                # or {amount = ["NA"]}
    time = "%d/%m/%Y %H:%M"                 # or "epoch seconds", or {TX_DATETIME = "%d/%m/%Y %H:%M"}
    true = ["yes"]
    false = ["no"]
    uuid = ["ID"]                           # 16 bytes

    [transactions.limits]
    field_lines = 100

or in messages of Kafka:

    [kafka]                                 # settings of librdkafka, passed on as they are
    "bootstrap.servers" = "broker.example.com:9093"
    "security.protocol" = "SASL_SSL"
    "sasl.password" = "${KAFKA_PASSWORD}"
    "schema.registry.url" = "https://registry.example.com"      # where values are Avro; else they are JSON

    [transactions]
    topic = "payments"

or in the pages of an HTTP interface (`sources.http.Pages`), or in server-sent events:

    [transactions.pages]
    url = "https://api.example.com/payments"
    headers = {Authorization = "Bearer ${TOKEN}"}

    [chargebacks.stream]
    url = "https://api.example.com/chargebacks"

or in files in S3 that an AWS Glue job writes first, one a day (`jobs.glue_extract`):

    folder = "s3://bucket/prefix"

    [transactions]
    files = "payments/{day}/*.parquet"
    glue = {job = "extract-payments", arguments = {source = "postgresql+psycopg://db/bank", rows = "payments", secret = "bank/reader"}}
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ml_assets.folders import Folder, LocalFolder, folder_at
from ml_assets.sources.as_text import Dates
from ml_assets.sources.bounds import FIRST, LAST, Bounds, real_time
from ml_assets.sources.delivered import Delivered, is_timezone
from ml_assets.sources.dialect import Dialect
from ml_assets.sources.files import as_day, digest
from ml_assets.sources.http import Pages, Paging, Stream
from ml_assets.sources.kafka import Topic
from ml_assets.sources.landing import Feed, LandedRows, Landing
from ml_assets.sources.limits import USUAL, Limits
from ml_assets.sources.mapped import DAY, SUFFIXES, MappedFiles
from ml_assets.sources.sql import SqlRows
from ml_assets.sources.time_format import ISO
from ml_assets.use_case import Day, DType, Extract, UseCase, shift


def _day(value: object) -> Day:
    text = value.isoformat() if isinstance(value, date) else value
    if not isinstance(text, str) or as_day(text) != text or not FIRST <= text <= LAST:
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


PLACES = ("files", "rows", "topic", "pages", "stream")
"""What of a table says where its rows are."""
_OWN = ("start", "end", "first_go_live", "earliest", "latest", "timezone", "folder", "database", "kafka")
"""Names at the top that are no tables."""
_PLAIN = ("start", "end", "first_go_live", "earliest", "latest", "timezone", "folder")
"""Of these, what cannot stand for something in the environment."""

_Day = Annotated[Day, BeforeValidator(_day)]
_ColumnName = Annotated[str, AfterValidator(_named)]


class PagesMapping(BaseModel):
    """As `http.Pages`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    url: str
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    items: str = ""
    paging: Paging = "link"
    cursor: str = ""
    parameter: str = ""
    page_size: int = 0
    requests_a_second: float = Field(default=10.0, gt=0)


class StreamMapping(BaseModel):
    """As `http.Stream`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    url: str
    headers: dict[str, str] = Field(default_factory=dict, repr=False)


class GlueMapping(BaseModel):
    """As `use_case.Extract`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    job: str = Field(min_length=1)
    arguments: dict[str, str] = Field(default_factory=dict)


class DialectMapping(BaseModel):
    """As `dialect.Dialect`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    separator: str = ","
    encoding: str = "utf-8"
    decimal: str = "."
    thousands: str = ""
    missing: list[str] | dict[str, list[str]] = Field(default_factory=list)
    time: str | dict[str, str] = ISO
    true: list[str] = Field(default_factory=list)
    false: list[str] = Field(default_factory=list)
    uuid: list[str] = Field(default_factory=list)
    index: bool = False

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self.of("")
        return self

    def of(self, table: str) -> Dialect:
        """The dialect of a table."""
        missing, time = self.missing, self.time
        return Dialect(
            separator=self.separator,
            encoding=self.encoding,
            decimal=self.decimal,
            thousands=self.thousands,
            missing=tuple((name, tuple(texts)) for name, texts in missing.items()) if isinstance(missing, dict) else tuple(missing),
            time=tuple(time.items()) if isinstance(time, dict) else time,
            true=tuple(self.true),
            false=tuple(self.false),
            uuid=tuple(self.uuid),
            index=self.index,
            table=table,
        )


class LimitsMapping(BaseModel):
    """As `limits.Limits`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    unpacked_bytes: int = USUAL.unpacked_bytes
    nesting: int = USUAL.nesting
    field_characters: int = USUAL.field_characters
    field_lines: int = USUAL.field_lines
    rows_in_field: int = USUAL.rows_in_field
    page_bytes: int = USUAL.page_bytes
    event_bytes: int = USUAL.event_bytes

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self.of("")
        return self

    def of(self, table: str) -> Limits:
        """The limits of a table."""
        return Limits(**self.model_dump(), table=table)


class TableMapping(BaseModel):
    """Where the rows of one table are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: Annotated[str, AfterValidator(_pattern)] | None = None
    """Glob below the folder."""
    rows: str | None = None
    """Instead of `files`: a table of the database, or a query."""
    topic: str | None = None
    """Instead of `files`: a topic of Kafka."""
    pages: PagesMapping | None = None
    """Instead of `files`: an HTTP interface."""
    stream: StreamMapping | None = None
    """Instead of `files`: server-sent events."""
    of: str | None = None
    """Instead of all: the table whose files, rows or messages these are, and whose columns they have unless named here."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Delivered column → column in the files; "" where they have none."""
    flag: _ColumnName | None = None
    """Only rows in which this column of the files is `flag_is`."""
    flag_is: str = "1"
    delayed: dict[str, _ColumnName] = Field(default_factory=dict)
    """Delivered column → a time in the files, `delay_days` before the delivered one. A delay of 0 reads text as a time."""
    dates: Dates | None = None
    """Which instant of its day a date without a time of day is, or a midnight, in the times above. None: for the case to say."""
    delay_days: float = Field(default=0, ge=0, allow_inf_nan=False)
    glue: GlueMapping | None = None
    """The job that writes `files`, one a day."""
    dialect: DialectMapping | None = None
    """How the rows are written; of a table with `of`, as the other's unless it says so itself."""
    limits: LimitsMapping | None = None
    """How much is refused when it holds more; likewise."""

    def of_columns(self, names: Sequence[str] | None) -> Self:
        """The same rows, of these columns alone."""
        wanted = {*self.columns, *self.delayed} if names is None else set(names)
        columns, delayed = ({name: each for name, each in of.items() if name in wanted} for of in (self.columns, self.delayed))
        return self.model_copy(update={"columns": columns, "delayed": delayed})

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if sum(getattr(self, name) is not None for name in (*PLACES, "of")) != 1:
            raise ValueError(f"expected one of {', '.join(f'`{name}`' for name in PLACES)} and `of`")
        if self.delay_days and not self.delayed:
            raise ValueError('expected the times to delay, such as delayed = {reported_at = "TX_DATETIME"}, with `delay_days`')
        if twice := sorted(set(self.columns) & set(self.delayed)):
            raise ValueError(f"expected {', '.join(twice)} either in `columns` or in `delayed`")
        if self.glue is not None and not _one_a_day(self.files):
            raise ValueError('a table with `glue` has a Parquet file a day: expected `files` such as "payments/{day}/*.parquet"')
        if self.glue is not None and (self.flag or self.delayed):
            raise ValueError("a table with `glue` is all rows of its files as they are: expected neither `flag` nor `delayed`")
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
    earliest: _Day | None = None
    """A time before this day is a wrong one: its row is delivered with its neighbours, for cleaning to reject, and says nothing about
    which days came. None: ten years before the start."""
    latest: _Day | None = None
    """So is a time behind this day. None: tomorrow, or `end` where that is later."""
    timezone: Annotated[str, AfterValidator(_timezone)] = "UTC"
    """Of times without an offset, and of days."""
    folder: str
    """Of all files: a path, from where this file is, or `s3://bucket/prefix` or `gs://bucket/prefix`."""
    database: str | None = None
    """SQLAlchemy's URL of the database that holds the tables with `rows`."""
    kafka: dict[str, str] = Field(default_factory=dict, repr=False)
    """Settings of librdkafka for the tables with a `topic`."""
    tables: dict[str, TableMapping]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.tables:
            raise ValueError("no table, expected one or more such as [transactions]")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"expected `end` after `start`, which is {self.start}")
        if self.earliest is not None and self.earliest > self.start:
            raise ValueError(f"expected `earliest` not after `start`, which is {self.start}")
        if self.latest is not None and self.latest < self.start:
            raise ValueError(f"expected `latest` not before `start`, which is {self.start}")
        for name, table in self.tables.items():
            if table.of is not None and table.of not in self._whole:
                raise ValueError(f"{name}.of is {table.of!r}, expected a table that is not `of` another: {', '.join(self._whole)}")
            if table.rows is not None and self.database is None:
                raise ValueError(f'{name}.rows needs a database, such as database = "sqlite:////path/to/file.db" at the top')
            if table.topic is not None and "bootstrap.servers" not in self.kafka:
                raise ValueError(f'{name}.topic needs a broker: [kafka] with "bootstrap.servers" = "host:9092"')
            if table.glue is not None and not self.folder.startswith("s3://"):
                raise ValueError(
                    f'{name}.glue writes to S3: expected folder = "s3://bucket/prefix" at the top, got {self.folder!r}'
                )
        return self

    def maps(self, table: str, column: str) -> bool:
        """Whether a table says itself where a delivered column is."""
        declared = self.tables.get(table)
        return declared is not None and bool(declared.columns.get(column) or column in declared.delayed)

    @property
    def elsewhere(self) -> bool:
        """Whether no table is in files."""
        return all(table.files is None for table in self.tables.values())

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
    settings = {name: value if name in _PLAIN else _filled(file, name, value, environment) for name, value in settings.items()}
    tables = {name: value for name, value in settings.items() if isinstance(value, dict) and name not in _OWN}
    own = {name: value for name, value in settings.items() if name not in tables}
    if unknown := sorted(set(own) - set(_OWN)):
        raise ValueError(f"{file}: unknown {', '.join(unknown)}; expected {', '.join(_OWN)} and tables")
    for name in ("folder", "database"):
        own[name] = _text(file, name, own.get(name, "." if name == "folder" else None))
    own["kafka"] = {key: str(value) for key, value in _flat(own.get("kafka", {})).items()}
    try:
        return FileMapping.model_validate({**own, "tables": tables, "file": file})
    except ValidationError as error:
        raise ValueError(f"{file}: {'; '.join(_fault(fault) for fault in error.errors())}") from error


def mapping_of(settings: Mapping[str, str], setting: str, *, otherwise: Path) -> FileMapping:
    """The mapping in the TOML file that a setting names, or else in another one.

    Raises:
        ValueError: as `read_mapping`; where there is no such file, with the setting that names one.
    """
    file = Path(settings.get(setting) or otherwise)
    if not file.is_file():
        raise ValueError(f"no file {file}, which says where the rows are: name one in {setting}")
    return read_mapping(file, settings)


def for_own_files(
    case: UseCase, settings: Mapping[str, str], setting: str, *, times: Mapping[str, str], timezone: str | None = None
) -> UseCase:
    """The case for the days that the reader's files say they hold: models go live from the first week with enough days before it.

    Args:
        setting: names the TOML file; without it the case stays as it is.
        times: the delivered column of each table that says the day of a row.
        timezone: in which the case's own code has its days. None: it has none, and days are days in the time zone of the file.

    Raises:
        ValueError: no model can go live when the file says, or its days are not those of the case.
    """
    if not settings.get(setting):
        return case
    mapping = read_mapping(Path(settings[setting]), settings)
    if timezone is not None and mapping.timezone != timezone:
        raise ValueError(
            f'{mapping.file}: timezone is {mapping.timezone!r}, expected timezone = "{timezone}" at the top: in it {case.name} has '
            f"its days, and times without an offset would be read as others than they are"
        )
    split = case.split
    needed = split.minimum_training_days + split.holdout_days + 2 * split.embargo_days
    earliest = shift(mapping.start, needed)
    first = mapping.first_go_live or case.week_of(shift(earliest, 6))
    if first < earliest:
        raise ValueError(
            f"{mapping.file}: first_go_live is {first}, expected {earliest} or later: a model needs the {needed} days before it, "
            f"and the files begin on {mapping.start}"
        )
    split = replace(split, first_go_live=first, weekday=date.fromisoformat(first).weekday())
    return replace(
        case, start=mapping.start, end=mapping.end, timezone=mapping.timezone, split=split, extracts=extracts_of(mapping, times)
    )


def source_of(
    mapping: FileMapping,
    table: str,
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    landings: Folder | None = None,
    day_column: str,
    known: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    may_lack: Sequence[str] = (),
    present: str | None = None,
    otherwise: str | None = None,
    now: Callable[[], datetime] = real_time,
    dtypes: Mapping[str, DType] = MappingProxyType({}),
) -> MappedFiles | SqlRows | LandedRows:
    """The source of one table.

    Args:
        landings: the folder in which feeds land.
        environment: credentials and endpoints of buckets, under the names that the AWS and Google libraries use themselves.
        day_column: the delivered column whose time says to which day a row belongs.
        known: all columns that the table delivers: each has to be mapped or optional, and no other may be.
        optional: columns that are delivered without values when they are not mapped.
        may_lack: columns that are delivered without values from a file, or a database, that has no such column.
        present: delivered column; rows without a value in it are left out.
        otherwise: the table whose rows these are where the mapping has no such table.
        now: what time it is, which says where `latest` does not which days cannot have come.
        dtypes: what delivered columns are to become, so that a decimal comma is looked for in numbers only.

    Raises:
        ValueError: the mapping has no such table or folder, or other columns than known; names the file and the field.
    """
    try:
        folder = folder_at(mapping.folder, mapping.file.parent, environment)
    except ValueError as error:
        raise ValueError(f"{mapping.file}: folder: {error}") from None
    if not mapping.elsewhere and isinstance(folder, LocalFolder) and not folder.path.is_dir():
        raise ValueError(f"{mapping.file}: folder: expected a folder with the files, {folder} is none")
    if table not in mapping.tables and otherwise not in mapping.tables:
        raise ValueError(f"{mapping.file}: no [{table}]; it has {', '.join(mapping.tables)}")
    declared = mapping.tables.get(table) or mapping.tables[otherwise or ""].of_columns(known)
    files_of = mapping.tables[declared.of] if declared.of is not None else declared
    inherited = {name: column for name, column in files_of.columns.items() if known is None or name in known}
    columns = dict.fromkeys(optional, "") | inherited | declared.columns
    columns = {name: column for name, column in columns.items() if name not in declared.delayed}
    where = table if table in mapping.tables else str(otherwise)
    if present is not None and not columns.get(present):
        raise ValueError(
            f"{mapping.file}: no column {present} of [{where}]: expected columns.{present} there, or a table [{table}] that has it"
        )
    _require_known(mapping, table, [*columns, *declared.delayed], known, optional)
    if not columns.get(day_column) and day_column not in declared.delayed:
        raise ValueError(f"{mapping.file}: [{table}] columns.{day_column}: expected the column in the files that says the day")
    delivered = Delivered(
        columns=columns,
        day_column=day_column,
        timezone=mapping.timezone,
        delayed={name: (column, timedelta(days=declared.delay_days)) for name, column in declared.delayed.items()},
        where=(declared.flag, declared.flag_is) if declared.flag else None,
        present=columns[present] if present is not None else None,
        may_lack=tuple(may_lack),
        bounds=_bounds(mapping, now),
        dates=declared.dates or files_of.dates,
        dialect=(declared.dialect or files_of.dialect or DialectMapping()).of(where),
        limits=(declared.limits or files_of.limits or LimitsMapping()).of(where),
        dtypes=dict(dtypes),
    )
    if faults := list(delivered.faults()):
        raise ValueError(f"{mapping.file}: [{table}] {'; '.join(faults)}")
    try:
        if files_of.rows is not None:
            return SqlRows(url=mapping.database or "", rows=files_of.rows, delivered=delivered, complete_to=mapping.end)
        if (feed := _feed_of(mapping, files_of, delivered.limits)) is not None:
            return _landed(feed, delivered, landings or LocalFolder(mapping.file.parent), table, mapping.end)
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
        present=delivered.present,
        may_lack=delivered.may_lack,
        complete_to=mapping.end,
        bounds=delivered.bounds,
        dates=delivered.dates,
        dialect=delivered.dialect,
        limits=delivered.limits,
        dtypes=delivered.dtypes,
    )


def extracts_of(mapping: FileMapping, day_columns: Mapping[str, str]) -> tuple[Extract, ...]:
    """The jobs that write files of these tables.

    Args:
        day_columns: for each table the delivered column whose time says to which day a row belongs.

    Raises:
        ValueError: a table does not say in which column of the files that time is.
    """
    return tuple(_extract(mapping, name, column) for name, column in day_columns.items() if _glue_of(mapping, name) is not None)


def _extract(mapping: FileMapping, name: str, day_column: str) -> Extract:
    table, glue = mapping.tables[name], _glue_of(mapping, name)
    assert glue is not None
    if not table.columns.get(day_column):
        raise ValueError(f"{mapping.file}: [{name}] columns.{day_column}: expected the column in the files that says the day")
    others = {other: each for other, each in mapping.tables.items() if each.of == name}
    changed_clock = 0 if mapping.timezone == "UTC" else 1
    return Extract(
        table=name,
        job=glue.job,
        arguments=glue.arguments,
        to=f"{mapping.folder.rstrip('/')}/{table.files}".replace("*", "part"),
        time=table.columns[day_column],
        timezone=mapping.timezone,
        span=partial(_bounds(mapping).days, mapping.timezone),
        readers={name: 0} | {other: math.ceil(each.delay_days) + changed_clock for other, each in others.items()},
    )


def _bounds(mapping: FileMapping, now: Callable[[], datetime] = real_time) -> Bounds:
    return Bounds(start=mapping.start, end=mapping.end, earliest=mapping.earliest, latest=mapping.latest, now=now)


def _glue_of(mapping: FileMapping, name: str) -> GlueMapping | None:
    return mapping.tables[name].glue if name in mapping.tables else None


def _one_a_day(pattern: str | None) -> bool:
    """Whether a pattern names one Parquet file for each day, but for a name that a `*` leaves open."""
    left_open = (pattern or "").replace(DAY, "")
    return (
        DAY in (pattern or "")
        and left_open.endswith(".parquet")
        and left_open.count("*") <= 1
        and re.search(r"[?\[]", left_open) is None
    )


def _feed_of(mapping: FileMapping, declared: TableMapping, limits: Limits) -> Feed | None:
    if declared.topic is not None:
        return Topic(topic=declared.topic, settings=mapping.kafka)
    if declared.pages is not None:
        return Pages(**declared.pages.model_dump(), limits=limits)
    if declared.stream is not None:
        return Stream(**declared.stream.model_dump(), limits=limits)
    return None


def _landed(feed: Feed, delivered: Delivered, landings: Folder, table: str, complete_to: Day | None) -> LandedRows:
    # What of a message decides about its day, decides where it lands: another declaration begins anew.
    column = delivered.time.column
    read_by = (delivered.dialect.time_of(column), delivered.dialect.missing_of(column))
    declared = (*(() if read_by == (ISO, ()) else read_by), *(() if delivered.dates is None else (delivered.dates,)))
    declared += delivered.bounds.declared if delivered.bounds else ()
    if delivered.present is not None:
        declared += (delivered.present, *delivered.dialect.missing_of(delivered.present))
    by = digest(repr((feed.name, delivered.time, *declared)).encode())[:8]
    landing = Landing(root=landings, name=f"{table}-{by}", feed=feed, delivered=delivered)
    return LandedRows(landing=landing, delivered=delivered, complete_to=complete_to)


def _filled(file: Path, where: str, value: Any, settings: Mapping[str, str]) -> Any:
    """The value with what stands in the environment in place of each `${NAME}`; in an address as it has to stand there."""
    if isinstance(value, dict) and where.endswith(".glue.arguments") and "${" in str(value):
        raise ValueError(f"{file}: {where}: everybody who sees the job can read them: expected the name of a secret, not ${{NAME}}")
    if isinstance(value, dict):
        return {name: _filled(file, f"{where}.{name}", each, settings) for name, each in value.items()}
    if not isinstance(value, str) or where.split(".")[1:2] in (["columns"], ["delayed"], ["flag"], ["flag_is"], ["dialect"]):
        return value  # what columns and values are called is the files' own
    names = re.findall(r"\$\{(\w+)\}", value)
    if absent := sorted({name for name in names if name not in settings}):
        raise ValueError(f"{file}: {where} needs {', '.join(absent)} in the environment")
    address = where == "database" or where.endswith(".url")
    return re.sub(r"\$\{(\w+)\}", lambda found: quote(settings[found[1]], safe="") if address else settings[found[1]], value)


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """TOML reads a name with dots that has no quotes as tables in tables."""
    if not isinstance(settings, dict):
        return {prefix[:-1]: settings}
    return {name: each for key, value in settings.items() for name, each in _flat(value, f"{prefix}{key}.").items()}


def _require_known(
    mapping: FileMapping, table: str, names: Sequence[str], known: Sequence[str] | None, optional: Sequence[str]
) -> None:
    if known is None:
        return
    faults = [f"unknown {name}" for name in names if name not in known]
    lacking = [name for name in known if name not in names]
    faults += [f"no {name}" for name in lacking]
    none = f'; where there is none, say so by {lacking[0]} = ""' if lacking else ""
    may = f" ({', '.join(optional)} may be left out)" if optional else ""
    if faults:
        raise ValueError(f"{mapping.file}: [{table}] columns: {', '.join(faults)}; expected {', '.join(known)}{may}{none}")


def _text(file: Path, name: str, value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError(f"{file}: {name} is {value!r}, expected text")
    return value


def _fault(fault: Any) -> str:
    """One line of pydantic's account, with what it got where that is short."""
    field = ".".join(str(part) for part in fault["loc"] if part != "tables")
    if fault["type"] == "extra_forbidden":
        forms: dict[str, type[BaseModel]] = {
            "pages": PagesMapping,
            "stream": StreamMapping,
            "glue": GlueMapping,
            "dialect": DialectMapping,
            "limits": LimitsMapping,
        }
        form = forms.get(str(fault["loc"][-2]), TableMapping)
        return f"{field}: unknown, expected {', '.join(form.model_fields)}"
    told = str(fault["msg"]).removeprefix("Value error, ")
    got = f" is {fault['input']!r}," if isinstance(fault["input"], str | int | float | date) else ":"
    return f"{field}{got} {told[0].lower()}{told[1:]}" if field else told
