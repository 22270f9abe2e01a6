"""What a file of events says about the use case that is to be made of it.

Belongs here: which column is what, and the figures that a declaration needs. Does not: how the declaration is written (`scaffold.write`).
Nothing is guessed where a guess can be wrong: then it is an error that lists the columns which it could be.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_assets.sources.as_text import days_of, plain, text_of
from ml_assets.sources.delivered import is_timezone
from ml_assets.sources.files import PROVENANCE, text_columns
from ml_assets.sources.json_lines import lines_as_columns
from ml_assets.sources.limits import unpacked
from ml_assets.use_case import Day, day_range, shift

MOST_CATEGORIES = 50
"""A text with more values than that is no category of a feature."""
MOST_FACTS = 5
"""Numbers of which an entity's past is told."""
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
_TRUE = ("1", "1.0", "true", "yes", "y", "t")
_ID = re.compile(r"(^|_)(id|key|uuid|number|no)$")
_OURS = frozenset(
    {"event_id", "event_day", "event_time", "reject_reason", "partition_day", "hour", "weekday", "one", "label_known_at"}
)


class CannotInferError(ValueError):
    """The file does not say it, or says that it cannot be done; the message says what to give."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the person said, None or empty where it is to be inferred."""

    time: str | None = None
    label: str | None = None
    id: str | None = None
    entities: tuple[str, ...] = ()
    positive: str | None = None
    after: tuple[str, ...] = ()
    """Columns that are known only when the label is."""
    known_after: timedelta = timedelta(days=1)
    timezone: str = "UTC"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A column of the file that the case delivers."""

    name: str
    """In the case."""
    source: str
    """In the file."""
    dtype: str
    """`STRING`, `INT64` or `FLOAT64`."""
    nullable: bool
    whole: bool = False
    hundredths: bool = False
    """Whether a number has two decimals at most, as money has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inferred:
    """Everything that the declaration needs."""

    file: Path
    rows: int
    timezone: str
    time: Found
    id: Found
    label: Found
    positive: str
    negative: str
    positive_share: float
    known_after: timedelta
    entities: tuple[Found, ...]
    numbers: tuple[Found, ...]
    categories: tuple[Found, ...]
    after: tuple[Found, ...]
    start: Day
    end: Day
    first_go_live: Day
    training_days: int
    holdout_days: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Column of the file → why the case does not deliver it."""

    @property
    def embargo_days(self) -> int:
        """Whole days until every label of a day is known."""
        return -(-self.known_after // timedelta(days=1))

    @property
    def facts(self) -> tuple[Found, ...]:
        """Numbers of which an entity's past is told: whole ones, and money."""
        return tuple(each for each in self.numbers if each.whole or each.hundredths)[:MOST_FACTS]


def infer(file: Path, wishes: Wishes) -> Inferred:
    """Reads the file and says what the case is.

    Raises:
        CannotInferError: something is not clear, or the file cannot become a case.
    """
    table = _read(file)
    if not is_timezone(wishes.timezone):
        raise CannotInferError(f"--timezone: {wishes.timezone!r} is no time zone, expected a name such as Europe/Berlin")
    if wishes.known_after <= timedelta(0):
        raise CannotInferError(
            "--known-after: a label that is known with its event cannot be predicted; expected the time until it is known"
        )
    names = _names(table.column_names)
    for option, column in _asked(wishes):
        if column not in names:
            raise CannotInferError(f"{option}: {file} has no column {column!r}; it has {', '.join(names)}")
    time = wishes.time or _time_of(table, wishes.timezone)
    days = _days(table, time, wishes.timezone)
    texts = {name: _text(table[name], wishes.timezone) for name in names if name != time}
    texts = {name: text for name, text in texts.items() if text is not None}
    id_column = wishes.id or _id_of(texts, table.num_rows)
    label = wishes.label or _label_of(texts)
    positive, negative, share = _truth(texts.get(label), label, wishes.positive)
    entities = wishes.entities or tuple(name for name in texts if name not in (id_column, label) and _ID.search(names[name]))
    taken = {time, id_column, label, *entities, *wishes.after}
    others = {name: _found(name, names[name], table[name], texts.get(name)) for name in names if name not in taken}
    kept = {name: found for name, found in others.items() if isinstance(found, Found)}
    start, end, go_live, training, holdout = _calendar(days, -(-wishes.known_after // timedelta(days=1)))

    def told(name: str, dtype: str = "STRING") -> Found:
        nulls = table[name].null_count > 0
        return Found(name=names[name], source=name, dtype=dtype, nullable=nulls)

    return Inferred(
        file=file.absolute(),
        rows=table.num_rows,
        timezone=wishes.timezone,
        time=told(time, "TIMESTAMP"),
        id=told(id_column),
        label=told(label),
        positive=positive,
        negative=negative,
        positive_share=share,
        known_after=wishes.known_after,
        entities=tuple(told(name) for name in entities),
        numbers=tuple(found for found in kept.values() if found.dtype != "STRING"),
        categories=tuple(found for found in kept.values() if found.dtype == "STRING"),
        after=tuple(told(name) for name in wishes.after),
        start=start,
        end=end,
        first_go_live=go_live,
        training_days=training,
        holdout_days=holdout,
        left_out={name: found for name, found in others.items() if isinstance(found, str)},
    )


def _read(file: Path) -> pa.Table:
    if not file.is_file():
        raise CannotInferError(f"--from: there is no file {file}")
    if not file.name.endswith(SUFFIXES):
        raise CannotInferError(f"--from: {file.name}, expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        if file.name.endswith(".parquet"):
            table = pq.read_table(file)
        else:
            content = unpacked(file, file.read_bytes())
            table = lines_as_columns(content) if ".jsonl" in file.suffixes else text_columns(content)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CannotInferError(f"--from: {file} cannot be read: {error}") from error
    if not table.num_rows:
        raise CannotInferError(f"--from: {file} has no rows: what is in them decides what the case is")
    columns = [plain(column.combine_chunks()) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _names(columns: Sequence[str]) -> dict[str, str]:
    """The name of each column in the case: words in small letters."""
    names: dict[str, str] = {}
    for column in columns:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
        name = re.sub(r"\W+", "_", words.lower()).strip("_") or "column"
        name = f"column_{name}" if name[0].isdigit() else name
        if name in (*PROVENANCE, *_OURS) and name != "event_id":
            name = f"given_{name}"
        while name in names.values():
            name += "_2"
        names[column] = name
    return names


def _asked(wishes: Wishes) -> Iterator[tuple[str, str]]:
    for option, column in (("--time", wishes.time), ("--label", wishes.label), ("--id", wishes.id)):
        if column is not None:
            yield option, column
    yield from (("--entity", column) for column in wishes.entities)
    yield from (("--after", column) for column in wishes.after)


def _time_of(table: pa.Table, timezone: str) -> str:
    found: list[str] = []
    for name in table.column_names:
        try:
            if days_of(table[name].combine_chunks(), timezone, timedelta(0)).null_count == 0:
                found.append(name)
        except ValueError:
            continue
    if len(found) != 1:
        told = f"it could be {', '.join(found)}" if found else "no column has a time in each row, such as 2018-04-01T09:30:00Z"
        raise CannotInferError(f"which column says when an event happened? {told}; name it with --time")
    return found[0]


def _days(table: pa.Table, time: str, timezone: str) -> list[Day]:
    """The days on which there are events, in order."""
    try:
        days = days_of(table[time].combine_chunks(), timezone, timedelta(0))
    except ValueError as error:
        raise CannotInferError(f"--time: column {time} {error}") from error
    if days.null_count:
        row = pc.index(pc.is_null(days), True).as_py() + 1
        raise CannotInferError(f"--time: column {time} has no time in row {row}, expected one such as 2018-04-01T09:30:00Z")
    return sorted(pc.unique(days).to_pylist())


def _text(column: pa.ChunkedArray, timezone: str) -> pa.Array | None:
    """As it would be delivered; None for a type that has no text."""
    try:
        return text_of(column.combine_chunks(), timezone)
    except ValueError:
        return None


def _id_of(texts: Mapping[str, pa.Array], rows: int) -> str:
    unique = [name for name, text in texts.items() if text.null_count == 0 and len(pc.unique(text)) == rows]
    named = [name for name in unique if _ID.search(_names([name])[name])]
    found = named if len(named) == 1 else unique
    if len(found) != 1:
        told = f"it could be {', '.join(found)}" if found else "no column has another value in each row: add one to the file"
        raise CannotInferError(f"which column identifies an event? {told}; name it with --id")
    return found[0]


def _label_of(texts: Mapping[str, pa.Array]) -> str:
    found = [name for name, text in texts.items() if len(pc.unique(text.drop_null())) == 2]
    if len(found) != 1:
        told = f"it could be {', '.join(found)}" if found else "no column has two values"
        raise CannotInferError(f"which column is to be predicted? {told}; name it with --label")
    return found[0]


def _truth(text: pa.Array | None, label: str, wished: str | None) -> tuple[str, str, float]:
    """The text of a positive, that of a negative, and the share of positives."""
    values: list[str] = sorted(pc.unique(text.drop_null()).to_pylist()) if text is not None else []
    if len(values) != 2 or text is None:
        shown = ", ".join(values[:5]) + (", …" if len(values) > 5 else "")
        raise CannotInferError(f"--label: column {label} has {len(values)} values ({shown}), expected two, such as 0 and 1")
    if text.null_count:
        raise CannotInferError(
            f"--label: column {label} is missing in {text.null_count} rows: leave out rows whose label is not known yet"
        )
    likely = [value for value in values if value.lower() in _TRUE]
    positive = wished or (likely[0] if len(likely) == 1 else None)
    if positive is None or positive not in values:
        raise CannotInferError(f"which value of {label} is a positive, {' or '.join(values)}? Say it with --positive")
    [negative] = [value for value in values if value != positive]
    return positive, negative, float(pc.mean(pc.equal(text, positive)).as_py())


def _found(source: str, name: str, column: pa.ChunkedArray, text: pa.Array | None) -> Found | str:
    """A feature, or why the column is none."""
    if text is None:
        return f"is {column.type}"
    known = text.drop_null()
    if len(pc.unique(known)) < 2:
        return "is the same in each row"
    nullable = text.null_count > 0
    if pa.types.is_temporal(column.type):
        return "is a time"
    numbers = None if pa.types.is_boolean(column.type) else pd.to_numeric(known.to_pandas(), errors="coerce")
    if numbers is not None and numbers.notna().all() and numbers.abs().max() < 2**53:
        whole = bool((numbers % 1 == 0).all())
        money = bool(((100 * numbers).round() / 100 == numbers).all()) and float(numbers.abs().max()) < 1e12
        dtype = "INT64" if whole and not nullable and not pc.any(pc.match_substring(known, ".")).as_py() else "FLOAT64"
        return Found(name=name, source=source, dtype=dtype, nullable=nullable, whole=whole, hundredths=money and not whole)
    if (values := len(pc.unique(known))) > MOST_CATEGORIES:
        return f"is a text with {values:,} values: name it with --entity if events have it in common"
    return Found(name=name, source=source, dtype="STRING", nullable=nullable)


def _calendar(days: Sequence[Day], embargo: int) -> tuple[Day, Day, Day, int, int]:
    """First day, the one after the last, the first on which a model goes live, and how many days it learns from and is judged on.

    The first model goes live once a third of the days has passed, so that the others show how models do.
    """
    start, end = days[0], shift(days[-1], 1)
    there = len(day_range(start, days[-1]))
    for training, holdout in ((56, 14), (28, 14), (21, 7), (14, 7)):
        needed = training + holdout + 2 * embargo
        if there >= 2 * needed or (training == 14 and there >= needed + 14):
            first = shift(start, max(needed, there // 3))
            monday = shift(first, -date.fromisoformat(first).weekday() % 7)
            return start, end, monday, training, holdout
    raise CannotInferError(
        f"--from: the file holds {there} days ({start} to {days[-1]}), expected {14 + 7 + 2 * embargo + 14} or more: a model learns from "
        "two weeks at least, is judged on the next, and scores the two after that"
    )
