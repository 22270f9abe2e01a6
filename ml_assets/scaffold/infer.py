"""What a file of events says about the use case that is to be made of it.

Belongs here: everything that a declaration needs, from the columns and from what a person answered. Does not: which column is what
(`scaffold.roles`), how the declaration is written (`scaffold.write`).

Nothing is guessed where a guess can be wrong: then it is a question that lists the columns which it could be.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from pathlib import Path

import pyarrow.compute as pc

from ml_assets.scaffold import roles
from ml_assets.scaffold.declaration import Answers, CaseColumn, Inferred
from ml_assets.scaffold.generated import generated_names
from ml_assets.scaffold.names import RESERVED, case_names, words
from ml_assets.scaffold.profile import Kind, Number, Profile, number_of, profile
from ml_assets.scaffold.reading import Sample, read_sample
from ml_assets.scaffold.roles import CannotInferError, Inference, QuestionError
from ml_assets.scaffold.times import Arrival, Times, arrival_of, times_of
from ml_assets.scaffold.windows import TooFewError, Windows, windows_of
from ml_assets.sources.delivered import is_timezone
from ml_assets.sources.dialect import toml_text
from ml_assets.stages.kept import ID_BYTES
from ml_assets.use_case import Spelling

MONTH_DAYS = 30
"""So long after its event a label may come where nobody said how long."""


def infer(file: Path, answers: Answers) -> Inferred:
    """Reads the file and says what the case is.

    Raises:
        QuestionError: something is not clear.
        CannotInferError: the file cannot become a case.
    """
    if not is_timezone(answers.timezone):
        raise CannotInferError(f"--timezone: {answers.timezone!r} is no time zone, expected a name such as Europe/Berlin")
    if answers.known_within is not None and answers.known_within < (answers.known_after or timedelta(days=1)):
        raise CannotInferError(
            "--known-within: the last label cannot come before the first; expected a time from --known-after on, such as 20d"
        )
    if answers.known_after is not None and answers.known_after <= timedelta(0):
        raise CannotInferError(
            "--known-after: a label that is known with its event cannot be predicted; expected the time until it is known"
        )
    sample = read_sample(file, answers.dialect, time=answers.time)
    for option, column in answers.columns:
        if column not in sample.columns:
            raise CannotInferError(f"{option}: {file} has no column {column!r}; it has {', '.join(sample.columns)}")
    _require_one_role(answers)
    return _Choices(sample, answers).inferred()


def _require_one_role(answers: Answers) -> None:
    """What is known later is nothing of an event, and a label is nothing else: a column that were both would tell of itself."""
    named = list(dict.fromkeys(answers.columns))
    with_event = [(option, column) for option, column in named if option in ("--time", "--id", "--entity")]
    later = [(option, column) for option, column in named if option in ("--label", "--known-at", "--after")]
    labels = [(option, column) for option, column in named if option == "--label"]
    for (one, column), (other, same) in [*product(with_event, later), *product(labels, later)]:
        if column == same and one != other:
            why = "it cannot be known with an event and later" if one != "--label" else "a label is one already"
            raise CannotInferError(f"{one} and {other} both name column {column}: {why}; leave out one of them")


class _Choices:
    """One choice after the other, each among the columns that those before it left."""

    def __init__(self, sample: Sample, answers: Answers) -> None:
        self.sample, self.answers = sample, answers
        self.profiles = {header: profile(header, values, answers.timezone) for header, values in sample.columns.items()}
        self.left_out = roles.indexes(self.profiles, {column for _, column in answers.columns})
        self.after = tuple(dict.fromkeys((*answers.after, *filter(None, [answers.known_at]))))
        self.inferences: list[Inference] = []

    def inferred(self) -> Inferred:
        answers = self.answers
        time = answers.time or self._chosen(roles.time_of(self._others(*self.after)))
        ids = self._ids(time)
        alone = ids if len(ids) == 1 and not answers.generate_id else ()
        label = answers.label or self._chosen(roles.label_of(self._others(time, *alone, *answers.entities, *self.after)))
        positive, negative = roles.truth_of(self.profiles[label], answers.positive)
        entities = self._entities(time, label, *alone, *self.after)
        for option, column, role in (("--entity", time, "the event time"), ("--id", label, "the label")):
            if column in (answers.entities if option == "--entity" else answers.id):
                raise CannotInferError(f"{option}: column {column} is {role}: name another, or another one as {role}")
        if answers.generate_id:
            ids = self._everything(label)
        times = times_of(self.sample.columns[time], self.profiles[time], answers.timezone)
        self._tell_times(time, times)
        arrival = self._arrival(time, label)
        windows, share = self._windows(times, label, positive, arrival)
        dtypes = self._dtypes(list(self._others(time, label, *alone, *entities, *self.after)))
        draft = _Draft(
            time=time, ids=ids, label=label, entities=entities, after=answers.after, dtypes=dtypes, known_at=answers.known_at
        )
        return self._named(
            draft,
            generated_id=not alone,
            times=times,
            positive=positive,
            negative=negative,
            labelled=self.profiles[label].known,
            positive_share=share,
            arrival=arrival,
            windows=windows,
        )

    # Which column is what ------------------------------------------------------------------------------------------------------

    def _others(self, *than: str) -> dict[str, Profile]:
        return {header: each for header, each in self.profiles.items() if header not in than and header not in self.left_out}

    def _chosen(self, inference: Inference) -> str:
        self.inferences.append(inference)
        return inference.column

    def _ids(self, time: str) -> tuple[str, ...]:
        answers = self.answers
        if answers.generate_id:
            return ()
        if not answers.id:
            return (self._chosen(roles.id_of(self._others(time, *self.after, *filter(None, [answers.label])))),)
        roles.require_identifies(answers.id, self.profiles)
        if len(answers.id) == 1 and (size := roles.longest(self.profiles[answers.id[0]])) > ID_BYTES:
            raise CannotInferError(
                f"--id: column {answers.id[0]} has values of {size} bytes, expected {ID_BYTES} at most: name another, or use "
                "--generate-id"
            )
        return answers.id

    def _everything(self, label: str) -> tuple[str, ...]:
        """That is known with the event."""
        headers = [header for header, each in self._others(label, *self.after).items() if each.kind is not Kind.NONE and each.known]
        contradicting = roles.contradicting_labels(headers, label, self.profiles)
        again = roles.repeated_rows(headers, self.profiles)
        identical = f"; {again:,} rows that repeat one in all of that count once" if again else ""
        self.inferences.append(Inference(what="id", column="", why=f"made of {', '.join(headers)}{identical}"))
        if contradicting:
            self.inferences.append(Inference(what="id", column="", why=contradicting))
        return tuple(headers)

    def _entities(self, *others: str) -> tuple[str, ...]:
        named = self.answers.entities
        sure, unclear = roles.entities_of(self._others(*others, *named), self.answers.no_entities)
        self.inferences += [*sure, *unclear]
        return (*named, *(each.column for each in sure))

    def _dtypes(self, headers: Sequence[str]) -> dict[str, Number | str]:
        """How each feature is declared; the others are left out."""
        kinds = {header: _feature(self.profiles[header]) for header in headers}
        self.left_out |= {header: kind.why for header, kind in kinds.items() if isinstance(kind, _NoFeature)}
        for header, kind in kinds.items():
            if kind == "STRING" and (odd := _odd(self.profiles[header])):
                self.inferences.append(Inference(what="category", column=header, why=odd))
        return {header: kind for header, kind in kinds.items() if not isinstance(kind, _NoFeature)}

    # When ----------------------------------------------------------------------------------------------------------------------

    def _tell_times(self, time: str, times: Times) -> None:
        def tell(why: str) -> None:
            self.inferences.append(Inference(what="time", column=time, why=why))

        if times.dates:
            tell("has dates without a time of day: an event of a date counts for others from the end of that date")
        for rows, why in ((times.unreadable, "have no time"), (times.outside, f"lie outside {times.start} to {times.last}")):
            if rows:
                row, value = rows[0]
                tell(f"{len(rows):,} of {self.sample.rows:,} rows {why}, first row {row:,} ({value}): they are quarantined")
        if len(times.counts) < 0.7 * times.length:
            each = sum(times.counts.values()) / len(times.counts)
            tell(f"{len(times.counts):,} of {times.length:,} days have events, {each:.0f} a day: windows are longer than usual")

    def _arrival(self, time: str, label: str) -> Arrival:
        answers = self.answers
        if answers.known_at is not None:
            columns = self.sample.columns
            arrival = arrival_of(columns[answers.known_at], columns[time], answers.known_at, answers.timezone)
            why = f"{answers.known_at} says when; nearly all within {arrival.embargo_days} days of the event"
        elif answers.known_after is not None:
            embargo = -(-answers.known_after // timedelta(days=1))
            latest = max(MONTH_DAYS, embargo + 2) if answers.known_within is None else -(-answers.known_within // timedelta(days=1))
            arrival = Arrival(embargo_days=embargo, latest_days=latest)
            column = self.profiles[label]
            why = (
                f"is missing in {column.missing:,} of {column.rows:,} rows: these are not known yet, and scored all the same"
                if column.missing
                else "is there in each row; events whose label is not known yet are scored all the same, and learnt from once a file, or a "
                "table of labels, brings it"
            )
            why += f"; one that comes later than it should counts from when it comes, up to {latest} days after its event"
        else:
            raise QuestionError(
                "when is a label known? No file says it: give the time after the event with --known-after, such as 30m, 12h or 7d, or the "
                "column that has the label's own time with --known-at",
                field="known_after",
                choices=[],
            )
        self.inferences.append(Inference(what="labels", column=label, why=why))
        return arrival

    def _windows(self, times: Times, label: str, positive: str, arrival: Arrival) -> tuple[Windows, float]:
        text = self.profiles[label].text
        labels = Counter(times.days.filter(pc.is_valid(text)).drop_null().to_pylist())
        share = roles.rows_with(text, positive) / self.profiles[label].known
        try:
            windows = windows_of(
                times.counts,
                labels,
                start=times.start,
                last=times.last,
                embargo=arrival.embargo_days,
                rarer_share=min(share, 1 - share),
            )
        except TooFewError as error:
            raise CannotInferError(f"--from: {error}") from error
        return windows, share

    # Names ---------------------------------------------------------------------------------------------------------------------

    def _named(self, draft: "_Draft", **others: object) -> Inferred:
        """With names apart from those that the case generates, which depend on the names of others: those of the file give way."""
        reserved = set[str]()
        for _ in range(len(self.profiles) + 1):
            result = self._inferred(draft, reserved, **others)
            clashes = _names(result) & generated_names(
                time=result.time.name,
                entities=[each.name for each in result.entities],
                facts=[each.name for each in result.facts],
                money=[each.name for each in result.facts if each.hundredths],
                window_days=result.window_days,
            )
            if not clashes:
                return result
            reserved |= clashes
        raise CannotInferError(f"columns {', '.join(sorted(reserved))} have names that the case generates: rename them in the file")

    def _inferred(self, draft: "_Draft", reserved: set[str], **others: object) -> Inferred:
        names = case_names(list(self.profiles), roles=draft.roles, reserved=reserved)

        def column(header: str, *, nullable: bool | None = None, dtype: str = "STRING") -> CaseColumn:
            each = self.profiles[header]
            missing = each.missing > 0 if nullable is None else nullable
            spelling = each.spelling if dtype == "STRING" else Spelling.TEXT
            return CaseColumn(name=names[header], source=header, dtype=dtype, nullable=missing, spelling=spelling)

        def feature(header: str, number: Number | str) -> CaseColumn:
            if isinstance(number, str):
                return column(header)
            return replace(column(header, dtype=number.dtype), whole=number.whole, hundredths=number.hundredths)

        def later(header: str) -> CaseColumn:
            number = _feature(self.profiles[header])
            return replace(feature(header, number if isinstance(number, Number) else ""), dtype=_floating(number), nullable=True)

        features = {header: feature(header, number) for header, number in draft.dtypes.items()}
        time = column(draft.time, nullable=False, dtype="TIMESTAMP")
        known = {draft.time: time, **features}
        single = not others["generated_id"]
        return Inferred(
            file=self.sample.file,
            rows=self.sample.rows,
            timezone=self.answers.timezone,
            dialect=self.sample.dialect,
            time=time,
            ids=tuple(known.get(header) or column(header, nullable=False if single else None) for header in draft.ids),
            label=column(draft.label, nullable=True),
            known_after=self.answers.known_after if draft.known_at is None else None,
            known_at=column(draft.known_at, nullable=True, dtype="TIMESTAMP") if draft.known_at is not None else None,
            entities=tuple(column(header) for header in draft.entities),
            numbers=tuple(each for each in features.values() if each.dtype != "STRING"),
            categories=tuple(each for each in features.values() if each.dtype == "STRING"),
            after=tuple(later(header) for header in draft.after if header != draft.known_at),
            left_out={header: why for header, why in self.left_out.items() if header not in draft.ids},
            inferences=tuple(self.inferences),
            **others,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """Headers by what they are."""

    time: str
    ids: tuple[str, ...]
    label: str
    known_at: str | None
    entities: tuple[str, ...]
    after: tuple[str, ...]
    dtypes: Mapping[str, Number | str]

    @property
    def roles(self) -> dict[str, str]:
        """Header → the reserved name that it may have."""
        natural = {self.label: "label", self.time: "event_time"}
        if self.known_at is not None:
            natural[self.known_at] = "known_at"
        if len(self.ids) == 1:
            natural[self.ids[0]] = "event_id"
        return {header: name for header, name in natural.items() if words(header) == name and name in RESERVED}


@dataclass(frozen=True, kw_only=True, slots=True)
class _NoFeature:
    why: str


def _feature(column: Profile) -> Number | str | _NoFeature:
    """How a column is declared as a number, "STRING" for a category, or why it is no feature."""
    if column.kind is Kind.NONE:
        return _NoFeature(why=f"is {column.type}")
    if not column.known:
        return _NoFeature(why="has no value in any row")
    if column.distinct < 2:
        return _NoFeature(why="is the same in each row")
    if column.kind is Kind.TIME:
        return _NoFeature(why="is a time: name it with --after if it is known only later")
    if column.kind in (Kind.WHOLE, Kind.NUMBER):
        number = number_of(column)
        return _NoFeature(why=number) if isinstance(number, str) else number
    if column.distinct > roles.MOST_CATEGORIES:
        if odd := _odd(column):
            return _NoFeature(why=odd)
        return _NoFeature(why=f"is a text with {column.distinct:,} values: name it with --entity if events have it in common")
    return "STRING"


def _floating(number: Number | str | _NoFeature) -> str:
    """Of a column that may be missing in any row."""
    return "FLOAT64" if isinstance(number, Number) else "STRING"


def _names(result: Inferred) -> set[str]:
    return {each.name for each in (*result.known_with_event, *result.known_later)}


def _odd(column: Profile) -> str:
    """Why a column of numbers, but for some values, is a text, and what to do; "" for another."""
    if column.odd is None:
        return ""
    row, value = column.odd
    return (
        f"is a text, though most values are numbers: row {row:,} has {value!r}. Correct the file, or declare what means no value, such as "
        f"--dialect 'missing = {toml_text({column.header: [value]})}'"
    )
