"""The vocabulary in which a prediction problem is declared.

Belongs here: frozen declarations and the one protocol a source keeps. Does not: anything that computes (`stages`), reads
(`sources`, `storage`) or schedules (`orchestration`).

A *day* is written everywhere as its partition key, `YYYY-MM-DD`, and means the calendar day in the case's time zone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

Day = str
"""Partition key of a day, `YYYY-MM-DD`, in the time zone of the use case."""

WHOLE: Day = "all"
"""The one partition of a table that is not delivered by day."""

UNDECLARED_WITHIN = timedelta(days=2) - timedelta(hours=1)
"""So long after its day a row is known at the latest where nobody has said how long: two days, less a changed clock."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays of one length: a million events or one."""


class DType(StrEnum):
    """Types a column can have; `TIMESTAMP` is an instant in UTC with microseconds."""

    STRING = "string"
    INT64 = "int64"
    FLOAT64 = "float64"
    BOOL = "bool"
    TIMESTAMP = "timestamp[us, UTC]"


class Spelling(StrEnum):
    """The one way in which the values of a text column are written, whatever a source delivers and the scorer is sent.

    `TEXT`: as delivered, without white space around it. `WHOLE`: a whole number, so that 17, 17.0 and 1.7e1 are 17; one with leading zeros
    is a text and no number. `BOOLEAN`: true or false. `UUID`: small letters with hyphens.
    """

    TEXT = "text"
    WHOLE = "whole"
    BOOLEAN = "boolean"
    UUID = "uuid"


class Severity(StrEnum):
    """`ERROR`: the contract is broken, the day is not published. `WARN`: unusual, published, and said so."""

    ERROR = "error"
    WARN = "warn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column and what may stand in it; its description is Markdown.

    `nullable` leaves a missing value to the model; otherwise a row without a value is rejected, unless `fill` says what to put.
    A value outside `minimum`..`maximum` or not in `allowed` rejects its row, or is blanked where `impossible="blank"`.
    `known_at` names the column that says from when on the value can be known; without it the value is known from the start.
    """

    name: str
    dtype: DType
    description: str = ""
    unit: str | None = None
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    fill: float | str | None = None
    impossible: Literal["reject", "blank"] = "reject"
    known_at: str | None = None
    spelling: Spelling = Spelling.TEXT
    """Of a text; a value that cannot be written so rejects its row."""
    dates: Literal["start", "end"] | None = None
    """Of a time: which instant of its day a date without a time of day is; None rejects its row."""
    timezone: str = "UTC"
    """In which such a day begins and ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DayRange:
    """A bound on a figure of the whole day: `rows`, `null_share:<column>` or `mean:<column>`."""

    figure: str
    minimum: float | None = None
    maximum: float | None = None
    severity: Severity = Severity.WARN


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a source delivered for some days.

    `rows` holds text columns exactly as delivered, plus `day`, `source_file`, `source_row` (1-based, header not counted) and
    `source_version`. `counted` is the source's own number of rows a day, `versions` its version of each day (a content hash or
    ETag), `problems` why a day could not be read at all. A day is in `counted` or in `problems`, never in neither.
    """

    rows: pd.DataFrame
    counted: Mapping[Day, int]
    versions: Mapping[Day, str]
    problems: Mapping[Day, str] = field(default_factory=dict)
    columns: Mapping[Day, Sequence[str]] | None = None
    """Which columns of `rows` were delivered for each day, where that differs from day to day."""


class Source(Protocol):
    """Where rows come from."""

    def versions(self, days: Sequence[Day]) -> Mapping[Day, str]:
        """The version of each day that the source could deliver now; a day it cannot deliver is left out. Cheap."""

    def read(self, days: Sequence[Day]) -> Batch:
        """Everything the source holds for these days."""


@runtime_checkable
class WatchedSource(Source, Protocol):
    """A source of which a sensor can ask more: another one is asked about all days, and is never in trouble."""

    def trouble(self) -> str:
        """Why it cannot be asked about any day, "" when it can."""

    def watched(self, days: Sequence[Day]) -> Sequence[Day]:
        """Of these days those to ask about at each tick: all where that is cheap, however old."""


SourceFactory = Callable[[Mapping[str, str]], Source]
"""Makes a source from the settings (the environment of the process, or what a test passes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intake:
    """How single rows are taken in, as by the online scorer.

    `day` says in which day a typed delivered row would be delivered, None where the row does not say it; without it that is the day of
    the table's `time` in the time zone of the case. `derive` is the table's `derive`
    for one row of plain values (instants as microseconds since the epoch, None for what is missing); without it the table's own is given
    a frame of one row, which takes milliseconds. That both give the same is tested, and checked every day on what was scored.
    """

    day: Callable[[Mapping[str, Any]], Day | None] | None = None
    derive: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


MAX_REJECTED_SHARE = 0.05
"""Of the rows of a day, unless a table says otherwise: with more, the day is not published; but one row of several may always be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corrections:
    """Rows that replace an earlier row with their key: the one with the greatest value in a clean column counts.

    One that is delivered up to `within_days` after the day of the first row takes its place; a later one is rejected, with that reason.
    """

    by: str
    within_days: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of the case: what is delivered, what it becomes, and what it must keep.

    `delivered` types the raw text; `derive` turns typed delivered rows into clean ones (same rows, same order);
    `columns` is the contract of the result and `key` identifies a row in it: of several rows with one key the first stays.
    """

    name: str
    source: SourceFactory
    delivered: tuple[Column, ...]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    derive: Callable[[pd.DataFrame], pd.DataFrame]
    daily: bool = True
    expectations: tuple[DayRange, ...] = ()
    max_rejected_share: float = MAX_REJECTED_SHARE
    intake: Intake | None = None
    """None: the online scorer takes no rows of this table."""
    time: str | None = None
    """Delivered column whose time lies on the day under which a row is delivered, or up to `late_days` before it; None: not asked."""
    late_days: int = 0
    unique: Literal["day", "ever"] = "day"
    """Whether a key is one row of its day, or one row over all days. Events are `"ever"`: a case sees to it."""
    corrections: "Corrections | None" = None
    """None: of rows with one key the first counts, and a later one that contradicts it is rejected."""

    @property
    def raw_name(self) -> str:
        return f"raw_{self.name}"

    @property
    def rejected_name(self) -> str:
        return f"rejected_{self.name}"

    @property
    def assets(self) -> tuple[str, str, str]:
        """As it is delivered, as it is cleaned, and what is refused of it."""
        return self.raw_name, self.name, self.rejected_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Extract:
    """A job elsewhere that writes the files of a table, one for each day. It is started for a day once, and again when somebody asks."""

    table: str
    job: str
    arguments: Mapping[str, str]
    """What the job is told besides the days; whoever may see the job may read them."""
    to: str
    """Address of a day's file, with `{day}` in it."""
    time: str
    """The column by which a row has its day, in `timezone`."""
    timezone: str
    span: Callable[[], tuple[Day, Day]]
    """The first and the last day that a time can be of, as things are now; a row of none of them goes with the first day of the case."""
    readers: Mapping[str, int]
    """Tables whose rows come from these files, and how many days after a file's day these may be: 0 for `table` itself."""

    @property
    def name(self) -> str:
        return f"extract_{self.table}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """Something that becomes known about an entity at a time: a number, whole or not, in a column of a clean table."""

    name: str
    table: str
    value: str
    known_at: str
    unit: str
    id: str = "event_id"
    known_within: timedelta | None = None
    """`known_at` lies at most this long after the end of the row's day; None for up to two days, of which nobody has said how many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The share of facts in a window whose value is at least `at_least`."""

    name: str
    at_least: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trailing:
    """Statistics of a fact over trailing windows `(t - window, t]`, for each entity it is asked about.

    An entity is one column or several together (a route is an origin and a destination). `span` is the age in days of the oldest fact
    in the window.
    """

    fact: Fact
    entities: tuple[tuple[str, ...], ...]
    windows: tuple[timedelta, ...]
    statistics: tuple[Literal["count", "sum", "mean", "std", "span"] | Share, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Latest:
    """The latest row known about an entity: its values, their change over `change_over`, and its age in minutes."""

    name: str
    table: str
    entity: tuple[str, ...]
    known_at: str
    values: tuple[str, ...]
    id: str = "event_id"
    changes: tuple[str, ...] = ()
    change_over: timedelta = timedelta(hours=3)
    within: timedelta = timedelta(days=1)
    itself: bool = True
    """Whether the event's own row counts, where it is known at the event; without it, the latest is the one before."""
    known_within: timedelta | None = None
    """As `Fact.known_within`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """Values from a dimension table; an entity that is not in it gets missing values."""

    table: str
    by: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """All features of a case. `row` computes from the event's own columns and everything above, on arrays of any length.

    `event_columns` are the columns of the event known at prediction time: the only ones that features may see.
    """

    event_columns: tuple[str, ...]
    trailing: tuple[Trailing, ...]
    latest: tuple[Latest, ...]
    lookups: tuple[Lookup, ...]
    row: Callable[[Arrays], dict[str, npt.NDArray[Any]]]
    columns: tuple[Column, ...]

    @property
    def lookback(self) -> timedelta:
        """The longest way back that a feature looks."""
        return max((window + (known_within or timedelta(0)) for _, window, known_within in self.looks), default=timedelta(0))

    def longest_window(self, table: str) -> timedelta:
        """The longest way back from an event to the time at which something of a table became known."""
        return max((window for of_table, window, _ in self.looks if of_table == table), default=timedelta(0))

    @property
    def looks(self) -> list[tuple[str, timedelta, timedelta | None]]:
        """Each look back: the table, how far, and how long after its day a row is known."""
        facts = [(each.fact.table, window, each.fact.known_within) for each in self.trailing for window in each.windows]
        return [*facts, *((each.table, each.within + each.change_over, each.known_within) for each in self.latest)]

    def known_within(self, table: str, known_at: str) -> timedelta:
        """So long after its day a row of a table is known at the latest by this column: what its look backs can rely on."""
        facts = [each.fact.known_within for each in self.trailing if (each.fact.table, each.fact.known_at) == (table, known_at)]
        facts += [each.known_within for each in self.latest if (each.table, each.known_at) == (table, known_at)]
        return min((UNDECLARED_WITHIN if each is None else each for each in facts), default=UNDECLARED_WITHIN)

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def categorical(self) -> list[str]:
        return [column.name for column in self.columns if column.dtype is DType.STRING]


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """The truth about an event: a column that is 0, 1 or missing, and the column that says when it became known.

    It stands in the event table, or with `table` in one of its own, whose rows come with the event, later, or never, and name it by
    `event_id`. A missing label is no label: neither a negative nor a fault.
    """

    column: str
    known_at: str
    entities: tuple[str, ...]
    latest_after: timedelta
    """No label becomes known later than this after the start of its event's day."""
    table: str | None = None

    @property
    def settled_after(self) -> timedelta:
        """After this, an event whose label is not known has a problem."""
        return self.latest_after


@dataclass(frozen=True, kw_only=True, slots=True)
class Reported:
    """The truth about an event that others report, such as a charge-back: a positive is a row in a table of reports.

    An event without a report is negative once `settled_after` has passed; a report that comes later still corrects it, up to
    `latest_after` the event. A report has columns `event_id`, the event time, the entities and `known_at`.
    """

    table: str
    known_at: str
    entities: tuple[str, ...]
    settled_after: timedelta
    latest_after: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """When models go live and which days judge them: the last `holdout_days` before a model's `as_of`, less the embargo.

    Days whose labels come too late would enter with those of their events that ended early, which are the good ones. So the last
    `embargo_days` before the hold-out, and before the model goes live, are left out.
    """

    weekday: int
    first_go_live: Day
    holdout_days: int
    embargo_days: int
    minimum_training_days: int
    training_days: int | None = None
    """The most days to train on, the latest ones; None for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of the hold-out on which a candidate must not be much worse than the champion.

    A number is cut at `edges`: below the first, between two, from the last on. A slice that is not `required` is shown and decides nothing.
    With `of_positives` the column is one of the reports and says of which kind a positive is: its part are the positives of a kind and
    all negatives.
    """

    column: str
    minimum_rows: int
    edges: tuple[float, ...] = ()
    required: bool = True
    of_positives: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """When a single feature is too good to be true: it tells the classes apart nearly alone, as what is filled in afterwards does.

    Each feature is judged alone on the training days, by rates from half of the days on the other half. It must stay below both limits.
    """

    max_auc: float = 0.985
    """ROC AUC of the feature alone."""
    max_determined: float = 0.5
    """Share of the positives, or of the negatives, that its values determine: found with a precision of 99 % or more."""
    minimum_rows: int = 20
    """Of each class. With fewer in the training days nothing is said about single features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a candidate must show before it is deployed (the figures refer to the hold-out).

    Promoted only if every floor holds, the baseline is beaten, and, against a champion on the same rows, the mean difference of
    average precision is not negative, the chance of being worse by more than `margin` (paired bootstrap by day) is under `risk`,
    and no slice is worse by more than `slice_margin`. No feature may separate the classes alone, by the limits of `screening`, but
    those that `allowed_alone` names, because they are known when the event happens.
    """

    floors: Mapping[str, float]
    margin: float
    risk: float
    resamples: int
    slices: tuple[Slice, ...]
    slice_margin: float
    max_model_megabytes: float
    max_row_milliseconds: float
    baseline_margin: float = 0.0
    """How far the candidate's average precision may lie below that of the logistic baseline, which a small holdout cannot tell apart.
    At 0 it must lie above. The base rate of `climatology` must be beaten in any case."""
    screening: Screening = field(default_factory=Screening)
    allowed_alone: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertShare:
    """Flag this share of all events."""

    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertsPerDay:
    """Flag so many events a day on average: what the people who look at them can take."""

    alerts: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """Flag where the expected loss is least: `false_positive` for each wrong alert, `false_negative` for each positive missed."""

    false_positive: float
    false_negative: float


Operating = AlertShare | AlertsPerDay | Costs
"""How the threshold is chosen at which an event is flagged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A hyperparameter and where to look for it; `log` looks evenly over its orders of magnitude."""

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Search for the best recipe on prequential folds: train … gap … validate, each fold `fold_days` after the one before.

    Each family begins with the recipe that the case declares. A search ends after `trials`, or when `minutes` have passed, which makes its
    result depend on the machine.
    """

    trials: int
    folds: int
    fold_days: int
    gap_days: int
    lightgbm: tuple[Range, ...]
    logistic: tuple[Range, ...]
    families: tuple[Literal["lightgbm", "logistic"], ...] = ("lightgbm", "logistic")
    minutes: float | None = None
    most_trees: int = 400
    patience: int = 30
    """Trees without a gain in average precision on the validation days, after which a fold stops growing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The recipe: LightGBM parameters, trees, and how the operating threshold is chosen; with a `search`, where the search begins.

    `features` are the names that the model is told, None for all. With `refit` the recipe that was judged is fitted once more on all rows
    whose label is known when the model goes live, the hold-out included, and that model serves. Trees learn from all positives and from
    the share `kept_negatives` of the others, evenly spaced, which weigh as much as all of them.
    """

    parameters: Mapping[str, Any]
    trees: int
    operating: Operating
    seed: int
    kept_negatives: float = 1.0
    features: tuple[str, ...] | None = None
    search: Search | None = None
    refit: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Investigation:
    """What people do with alerts: each day they look into the `top` entities with the highest score of any of their events.

    `metric` names the share of these that are positive, a mean over days; an entity found positive is not looked into again that week.
    Entities already known as positive are no news, and are left out of every evaluation: those with a label that became known
    from `known_for` before the first day judged to the start of the day.
    """

    metric: str
    entity: str
    top: int
    known_for: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitoring:
    """When a model in force is worth a warning, and what follows from one.

    Windows end with the day that they are about and are a week long, so that each holds every weekday once. An index is of `drift`.
    """

    window_days: int = 7
    minimum_rows: int = 500
    """With fewer events in the window nothing is said about drift."""
    max_psi: float = 0.25
    """Of a feature."""
    max_psi_of_score: float = 0.1
    expected_to_drift: tuple[str, ...] = ()
    """Features that move with the calendar: shown, and no reason for a warning."""
    min_drifted_importance: float = 0.2
    """Drifted features that carry this share of the model's gain call for a new model, as a drifted score does."""
    max_fall: float = 0.1
    """Of ROC AUC over the window, below what the hold-out promised."""
    max_miscalibration: float = 1.5
    """Positives in the window over those expected, or the other way round."""
    minimum_positives: int = 30
    """With fewer in the window nothing is said about performance."""
    quiet_days: int = 7
    """A warning after fewer days without one belongs to the same onset."""
    retrain: bool = True
    """Whether an onset starts a new model, which has to pass the gate."""
    shadow: bool = True
    """Whether the model that lost a week's decision scores the week, too, and is compared."""
    remake_late: bool = True
    """Whether what was made from a day is made again when the day comes late or changes; otherwise it is shown as stale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UseCase:
    """One prediction problem, whole."""

    name: str
    title: str
    owner: str
    timezone: str
    start: Day
    end: Day | None
    """First day that is not part of the case; None for a case that goes on."""
    tables: tuple[Table, ...]
    events: str
    event_time: str
    climatology: tuple[str, ...]
    """Features whose training-set rate is the simplest forecast of all: what a model must beat to be worth anything."""
    label: Label | Reported
    features: Features
    split: Split
    gate: Gate
    training: Training
    investigation: Investigation | None = None
    monitoring: Monitoring = field(default_factory=Monitoring)
    extracts: tuple[Extract, ...] = ()
    scores_without_state: bool = False
    """Whether the online scorer, while its store is down, scores with what it does not know missing, and says so; or does not score."""
    configure: Callable[["UseCase", Mapping[str, str]], "UseCase"] | None = None
    """What settings change in the case, such as its first and last day where the reader's own files say them."""

    def __post_init__(self) -> None:
        # An event is one over all days, whatever a declaration forgot: its label and its answer are found by its id.
        tables = tuple(replace(table, unique="ever") if table.name == self.events else table for table in self.tables)
        object.__setattr__(self, "tables", tables)

    def table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"use case {self.name} has no table {name!r}; it has {', '.join(t.name for t in self.tables)}")

    def extract_read_by(self, table: str) -> Extract | None:
        """The job that writes what a table is read from."""
        return next((extract for extract in self.extracts if table in extract.readers), None)

    @property
    def event_table(self) -> Table:
        return self.table(self.events)

    @property
    def label_table(self) -> str:
        """The table whose rows say what became of events: that of events, or one of its own."""
        return self.label.table or self.events

    @property
    def daily_tables(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if table.daily)

    @property
    def dimensions(self) -> tuple[Table, ...]:
        return tuple(table for table in self.tables if not table.daily)

    @property
    def undated(self) -> frozenset[str]:
        """The assets of tables that are not delivered by day: they have no partitions."""
        return frozenset(name for table in self.dimensions for name in table.assets)

    @property
    def lookback_days(self) -> int:
        """Whole days before an event's day that its features may need, of any table."""
        return max((self.lookback_days_of(table.name) for table in self.daily_tables), default=0)

    def lookback_days_of(self, table: str) -> int:
        """Whole days before an event's day whose rows of a table its features may need.

        Where it is declared how long after its day a row is known, these are the days that a window can reach and no others. A window ends
        with the event, whose time can lie before its day by `late_days`.
        """
        late = self.event_table.late_days
        changed_clock = timedelta(hours=0 if self.timezone == "UTC" else 1)
        return max(
            (
                late
                + (window.days + 2 if known_within is None else -(-(window + known_within + changed_clock) // timedelta(days=1)))
                for of_table, window, known_within in self.features.looks
                if of_table == table
            ),
            default=0,
        )

    @property
    def label_lookback_days(self) -> int:
        """Whole days before a day whose events can have a label that became known on it."""
        return self.label.latest_after.days

    @property
    def settled_days(self) -> int:
        """Whole days after an event's day in which its label is settled."""
        return self.label.settled_after.days + (1 if isinstance(self.label, Reported) else 0)

    @property
    def model_features(self) -> list[str]:
        """The names of the features that the model is told."""
        return list(self.training.features or self.features.names)

    def week_of(self, day: Day) -> Day:
        """The latest day, at or before a day, on which a model may go live."""
        return shift(day, -((date.fromisoformat(day).weekday() - self.split.weekday) % 7))

    def starts(self, day: Day) -> pd.Timestamp:
        """The instant, in UTC, at which a day begins where the case lives."""
        return pd.Timestamp(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(self.timezone))).tz_convert("UTC")

    def days_of(self, instants: pd.Series) -> pd.Series:
        """The day (key) in which each instant lies."""
        days: pd.Series = instants.dt.tz_convert(self.timezone).dt.strftime("%Y-%m-%d")
        return days


def shift(day: Day, days: int) -> Day:
    """The day so many days later.

    >>> shift("2013-03-01", -1)
    '2013-02-28'
    """
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def day_at(instant: int, zone: tzinfo) -> Day:
    """The day, in a time zone, of an instant in microseconds since the epoch.

    >>> day_at(1_364_770_800_000_000, ZoneInfo("Europe/Berlin"))
    '2013-04-01'

    Raises:
        OverflowError: it lies before the first year, or after the last.
    """
    return datetime.fromtimestamp(instant // 1_000_000, tz=UTC).astimezone(zone).date().isoformat()


def day_range(first: Day, last: Day) -> list[Day]:
    """All days from the first to the last, both included; empty when the last lies before the first.

    >>> day_range("2013-02-28", "2013-03-01")
    ['2013-02-28', '2013-03-01']
    """
    start, count = date.fromisoformat(first), (date.fromisoformat(last) - date.fromisoformat(first)).days + 1
    return [(start + timedelta(days=offset)).isoformat() for offset in range(count)]


def nullable_dtype(dtype: DType) -> str | np.dtype[Any] | pd.DatetimeTZDtype:
    """The pandas dtype in which a column is kept: floats carry missing numbers as nan, strings as NA.

    Whole numbers that may be missing are declared FLOAT64.
    """
    match dtype:
        case DType.STRING:
            return "str"
        case DType.TIMESTAMP:
            return pd.DatetimeTZDtype("us", "UTC")
        case _:
            return np.dtype(dtype.value)
