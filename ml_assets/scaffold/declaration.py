"""What a person answered about a file of events, and what is declared of it.

Belongs here: values. Does not: how they are inferred (`scaffold.infer`) or written (`scaffold.write`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ml_assets.scaffold.roles import Inference
from ml_assets.scaffold.times import Arrival, Times
from ml_assets.scaffold.windows import Windows
from ml_assets.sources.dialect import Dialect
from ml_assets.use_case import Spelling

MOST_FACTS = 5
"""Numbers of which an entity's past is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What the person said, None or empty where it is to be inferred."""

    time: str | None = None
    label: str | None = None
    id: tuple[str, ...] = ()
    """One column, or several that identify an event together."""
    generate_id: bool = False
    """Whether an id is made of everything that is known with the event."""
    entities: tuple[str, ...] = ()
    """Besides those that are called an id and repeat."""
    no_entities: tuple[str, ...] = ()
    positive: str | None = None
    after: tuple[str, ...] = ()
    """Columns that are known only when the label is."""
    known_after: timedelta | None = None
    known_at: str | None = None
    """Column with the time at which the label was known, instead of `known_after`."""
    known_within: timedelta | None = None
    """So long after its event the last label comes; None for a month, or two days after `known_after`."""
    timezone: str = "UTC"
    dialect: tuple[str, ...] = ()
    """Settings of the dialect as lines of TOML, in place of those inferred."""

    @property
    def columns(self) -> Iterator[tuple[str, str]]:
        """Each column that was named, behind its option."""
        for option, column in (("--time", self.time), ("--label", self.label), ("--known-at", self.known_at)):
            if column is not None:
                yield option, column
        named = (("--id", self.id), ("--entity", self.entities), ("--no-entity", self.no_entities), ("--after", self.after))
        for option, columns in named:
            yield from ((option, column) for column in columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseColumn:
    """A column of the file that the case delivers."""

    name: str
    """In the case."""
    source: str
    """In the file."""
    dtype: str
    """`STRING`, `INT64`, `FLOAT64` or `TIMESTAMP`."""
    nullable: bool
    whole: bool = False
    hundredths: bool = False
    """Whether a number has two decimals at most, as money has."""
    spelling: Spelling = Spelling.TEXT


@dataclass(frozen=True, kw_only=True, slots=True)
class Inferred:
    """Everything that the declaration needs."""

    file: Path
    rows: int
    timezone: str
    dialect: Dialect
    time: CaseColumn
    times: Times
    ids: tuple[CaseColumn, ...]
    """What identifies an event."""
    generated_id: bool
    """Whether the id of an event is made of `ids`, rather than that one column."""
    label: CaseColumn
    positive: str
    negative: str
    labelled: int
    """Rows with a label."""
    positive_share: float
    """Of these."""
    known_after: timedelta | None
    known_at: CaseColumn | None
    arrival: Arrival
    entities: tuple[CaseColumn, ...]
    numbers: tuple[CaseColumn, ...]
    categories: tuple[CaseColumn, ...]
    after: tuple[CaseColumn, ...]
    windows: Windows
    left_out: Mapping[str, str]
    """Column of the file → why the case does not deliver it."""
    inferences: tuple[Inference, ...]
    """What was inferred rather than said, each with its reason."""

    @property
    def start(self) -> str:
        return self.windows.start

    @property
    def end(self) -> str:
        return self.windows.end

    @property
    def first_go_live(self) -> str:
        return self.windows.first_go_live

    @property
    def training_days(self) -> int:
        return self.windows.training_days

    @property
    def holdout_days(self) -> int:
        return self.windows.holdout_days

    @property
    def embargo_days(self) -> int:
        """Whole days until nearly every label of a day is known."""
        return self.arrival.embargo_days

    @property
    def dialect_settings(self) -> dict[str, object]:
        """What of the dialect is to be declared."""
        return {} if self.dialect == Dialect() else self.dialect.settings()

    @property
    def earliest(self) -> str | None:
        """The first day, where rows lie far before it: they are quarantined. None where none do."""
        return self.start if any(day < self.start for day in self.times.outside_days) else None

    @property
    def latest(self) -> str | None:
        """The last day, where rows lie far after it."""
        return self.times.last if any(day > self.times.last for day in self.times.outside_days) else None

    @property
    def window_days(self) -> tuple[int, ...]:
        """Of trailing windows: longer where most days have no events."""
        return (7, 30, 90) if self.windows.sparse else (1, 7, 30)

    @property
    def facts(self) -> tuple[CaseColumn, ...]:
        """Numbers of which an entity's past is told: whole ones, and money."""
        return tuple(each for each in self.numbers if each.whole or each.hundredths)[:MOST_FACTS] if self.entities else ()

    @property
    def known_with_event(self) -> tuple[CaseColumn, ...]:
        """Delivered columns that are known when the event is, once each."""
        every = (*self.ids, self.time, *self.entities, *self.numbers, *self.categories)
        return tuple({each.source: each for each in every}.values())

    @property
    def known_later(self) -> tuple[CaseColumn, ...]:
        """Delivered columns that are known with the label or after it, the label first."""
        every = (self.label, *self.after, *([self.known_at] if self.known_at else []))
        return tuple({each.source: each for each in every}.values())
