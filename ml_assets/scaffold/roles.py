"""Which column of a file is the time, the id, the label, an entity; where that is not clear, a question.

Belongs here: the choice and its reason. Does not: what values are (`scaffold.profile`), nor how long windows are (`scaffold.windows`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.scaffold.names import words
from ml_assets.scaffold.profile import READABLE, Kind, Profile
from ml_assets.sources.dialect import TOKENS, toml_text
from ml_assets.stages.kept import ID_BYTES
from ml_assets.use_case import MAX_REJECTED_SHARE

MOST_CATEGORIES = 50
"""A text with more values than that is no category of a feature."""
FEWEST_REPEATS = 1.2
"""Rows a value, below which hardly any event has a past of this entity."""
MOST_REPEATS = 100
"""Rows a value, above which fewer than `FEW` values are categories: they say nothing that a model could not learn of each by itself."""
FEW = 20
_TRUE = ("1", "true", "yes", "y", "t")
_FALSE = ("0", "-1", "false", "no", "n", "f")
_KEY = re.compile(r"(^|_)(id|key|uuid|guid)$")
_NUMBERED = re.compile(r"(^|_)(no|nr|num|number|code|zip|postcode|ref|reference|account)$")
_INDEX_ALONE = re.compile(r"^(unnamed_[0-9]+|index(_level_[0-9]+)?|row_?names?)?$")
"""What R and pandas call an index, which nobody calls a column of events."""
_INDEX = re.compile(r"^(unnamed_[0-9]+|index(_level_[0-9]+)?|row_?names?|row_?(number|no|id)|x)?$")

_PARTS = ("year", "month", "day", "hour", "minute")
"""Of a time, the first three of a date."""

Profiles = Mapping[str, Profile]


class CannotInferError(ValueError):
    """The file does not say it, or says that it cannot be done; the message says what to give."""


class QuestionError(CannotInferError):
    """One thing is not clear: an option says it."""

    def __init__(self, message: str, *, field: str, choices: Sequence[str]) -> None:
        super().__init__(message)
        self.field, self.choices = field, tuple(choices)
        """The field of `Answers` that it is about, and what it could be; empty: anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """What was inferred, of which column, and why."""

    what: str
    column: str
    why: str


def indexes(profiles: Profiles, answered: Collection[str]) -> dict[str, str]:
    """Columns that only count the rows of this file, and why they are left out: in the next file they begin again."""

    def is_index(header: str, column: Profile) -> bool:
        name = words(header)
        return bool((_INDEX.match(name) and column.counts_rows) or (_INDEX_ALONE.match(name) and column.goes_up))

    return {
        header: "counts the rows of the file, as the index of a table does: no column of an event"
        for header, each in profiles.items()
        if header not in answered and is_index(header, each)
    }


def time_of(profiles: Profiles) -> Inference:
    """The one column with a time in nearly each row."""
    times = [each for each in profiles.values() if each.kind is Kind.TIME and each.known >= READABLE * each.rows]
    if len(times) == 1:
        return Inference(what="time", column=times[0].header, why=f"the one column with a time in {_share(times[0])}")
    could = f"it could be {_listed(times)}" if times else "no column has a time in each row, such as 2018-04-01T09:30:00Z"
    parts = [each for name in _PARTS for each in profiles.values() if words(each.header) == name and each.kind is Kind.WHOLE]
    if not times and len(parts) >= len(_PARTS[:3]):
        could += f"; {_listed(parts)} look like its parts: put them into one column of the file"
    headers = [each.header for each in times]
    raise QuestionError(f"which column says when an event happened? {could}; name it with --time", field="time", choices=headers)


def id_of(profiles: Profiles) -> Inference:
    """The one column with another value in each row, or the one of them that is called an id."""
    kinds = (Kind.WHOLE, Kind.UUID, Kind.TEXT)
    unique = [each for each in profiles.values() if each.kind in kinds and not each.missing and is_unique(each, profiles)]
    fitting = [each for each in unique if longest(each) <= ID_BYTES]
    called = [each for each in fitting if _KEY.search(words(each.header))]
    chosen = called if len(called) == 1 else fitting
    if len(chosen) == 1:
        again = chosen[0].rows - chosen[0].distinct
        identical = f" but {again:,} that repeat a row as it is" if again else ""
        why = f"has another value in each row{identical}" + (", and is called an id" if len(fitting) > 1 else "")
        return Inference(what="id", column=chosen[0].header, why=why)
    could = f"it could be {_listed(chosen)}" if chosen else "no column has another value in each row"
    raise QuestionError(
        f"which column identifies an event? {could}; name it with --id, several together with --id A --id B, or --generate-id for one "
        "made of everything that is known with the event",
        field="id",
        choices=[each.header for each in chosen],
    )


def require_identifies(columns: Sequence[str], profiles: Profiles) -> None:
    """Raises CannotInferError, naming two rows, unless no two different rows have the same values in these columns."""
    for header in columns:
        if profiles[header].missing:
            row = pc.index(pc.is_null(profiles[header].text), True).as_py() + 1
            raise CannotInferError(f"--id: column {header} has no value in row {row}, expected one in each row")
    keys = pd.DataFrame({str(place): profiles[header].text.to_pandas() for place, header in enumerate(columns)})
    again = keys.duplicated(keep=False).to_numpy()
    if not again.any():
        return
    everything = _texts(list(profiles), profiles)
    different = again & ~everything.duplicated(keep=False).to_numpy()
    if not different.any():
        return
    group = keys.loc[different].groupby(list(keys.columns), sort=False).ngroup()
    rows = group.index[group == group.iloc[0]]
    first = int(rows[0])
    second = int(rows[1]) if len(rows) > 1 else int(keys.index[(keys == keys.loc[first]).all(axis="columns")][1])
    value = ", ".join(f"{header} {profiles[header].text[first].as_py()!r}" for header in columns)
    values = keys.drop_duplicates()
    raise QuestionError(
        f"--id: rows {first + 1} and {second + 1} are different events with the same {value}; {len(keys) - len(values):,} of {len(keys):,} "
        "rows repeat an earlier one. Name a column with another value in each row, several together with --id A --id B, or use "
        "--generate-id",
        field="id",
        choices=[],
    )


def is_unique(column: Profile, profiles: Profiles) -> bool:
    """Whether each row has another value, but for rows that repeat one as it is."""
    if column.distinct == column.rows:
        return True
    if column.distinct < 0.9 * column.rows:
        return False
    rows = _texts(list(profiles), profiles)
    return int(rows.duplicated().sum()) == column.rows - column.distinct


def repeated_rows(headers: Sequence[str], profiles: Profiles) -> int:
    """Rows that have the same in all these columns as an earlier one."""
    rows = _texts(headers, profiles)
    return int(rows.duplicated().sum())


def contradicting_labels(headers: Sequence[str], label: str, profiles: Profiles) -> str:
    """What is said of rows that have the same in all these columns and different labels; nothing if there are none.

    Raises:
        CannotInferError: they are more than may be rejected of a day.
    """
    rows = _texts(headers, profiles)
    labels = profiles[label].text.to_pandas()
    known = rows[labels.notna()]
    group = known.groupby(list(known.columns), sort=False, dropna=False).ngroup()
    contradicting = group[labels[known.index].groupby(group).transform("nunique") > 1]
    if contradicting.empty:
        return ""
    alike = contradicting.index[contradicting == contradicting.iloc[0]]
    first = int(alike[0])
    second = next(int(row) for row in alike if labels[row] != labels[first])
    said = (
        f"rows {first + 1} and {second + 1} are alike in all that is known with the event, and differ in {label}; so do "
        f"{len(contradicting):,} of {len(rows):,} rows"
    )
    if len(contradicting) > MAX_REJECTED_SHARE * len(rows):
        raise CannotInferError(
            f"--generate-id: {said}. Nothing says of which event a label is: give the file a column with another value in each row, such "
            "as the number of the row, and name it with --id"
        )
    return f"{said}: of such the first label counts, the others are rejected as contradictions"


def _texts(headers: Sequence[str], profiles: Profiles) -> pd.DataFrame:
    return pd.DataFrame({str(place): profiles[header].text.to_pandas() for place, header in enumerate(headers)})


def longest(column: Profile) -> int:
    """Bytes of the longest value."""
    return int(pc.max(pc.binary_length(column.text)).as_py() or 0)


def label_of(profiles: Profiles) -> Inference:
    """The one column with two values."""
    two = [each for each in profiles.values() if each.distinct == 2 and each.kind is not Kind.TIME]
    if len(two) == 1:
        return Inference(what="label", column=two[0].header, why="the one column with two values")
    could = f"it could be {_listed(two)}" if two else "no column has two values"
    headers = [each.header for each in two]
    raise QuestionError(f"which column is to be predicted? {could}; name it with --label", field="label", choices=headers)


def truth_of(label: Profile, positive: str | None) -> tuple[str, str]:
    """The text of a positive and that of a negative."""
    values: list[str] = sorted(pc.unique(label.text.drop_null()).to_pylist())
    if len(values) != 2:
        listed = ", ".join(map(repr, values[:5])) + (", …" if len(values) > 5 else "")
        raise CannotInferError(
            f"--label: column {label.header} has {len(values)} values ({listed}), expected two, such as 0 and 1"
            + ("; a label that is missing is not known yet, and no negative" if label.missing and len(values) == 1 else "")
        )
    # Of 1 and 2 either may be; and NULL beside Y may be a label that is not known.
    plain = {value.lower() for value in values}
    likely = [value for value in values if value.lower() in _TRUE] if not plain.isdisjoint(_FALSE) else []
    chosen = _spelled(positive, values) if positive is not None else likely[0] if len(likely) == 1 else None
    if chosen is None or chosen not in values:
        tokens = [value for value in values if value in TOKENS]
        unknown = (
            f", or with --dialect 'missing = {toml_text({label.header: tokens})}' that {tokens[0]} is no label" if tokens else ""
        )
        raise QuestionError(
            f"which value of {label.header} is a positive, {' or '.join(values)}? Say it with --positive{unknown}",
            field="positive",
            choices=values,
        )
    return chosen, next(value for value in values if value != chosen)


def _spelled(answer: str, values: Collection[str]) -> str | None:
    """The value that an answer means, such as 1 for 1.0."""
    return next((value for value in (answer, answer.removesuffix(".0"), answer.lower()) if value in values), None)


def entities_of(profiles: Profiles, refused: Collection[str]) -> tuple[list[Inference], list[Inference]]:
    """Columns that several events have in common and whose past is worth a look, and those of which only a person can tell."""
    sure, unclear = list[Inference](), list[Inference]()
    for each in profiles.values():
        name, repeats = words(each.header), f"{each.distinct:,} values, {each.repeats:.1f} rows each"
        if each.header in refused or each.kind not in (Kind.WHOLE, Kind.TEXT, Kind.UUID) or each.distinct < 2:
            continue
        if _KEY.search(name):
            if each.repeats < FEWEST_REPEATS:
                unclear.append(Inference(what="no entity", column=each.header, why=f"hardly a value repeats ({repeats})"))
            elif each.distinct < FEW and each.repeats > MOST_REPEATS:
                unclear.append(Inference(what="no entity", column=each.header, why=f"a category: {repeats}"))
            else:
                sure.append(Inference(what="entity", column=each.header, why=f"is called an id, and values repeat ({repeats})"))
        elif each.repeats >= FEWEST_REPEATS and (
            _NUMBERED.search(name) or each.kind is Kind.UUID or (each.kind is Kind.TEXT and each.distinct > MOST_CATEGORIES)
        ):
            unclear.append(Inference(what="no entity", column=each.header, why=f"nobody said that it is one ({repeats})"))
    return sure, unclear


def rows_with(text: pa.Array, value: str) -> int:
    """How many rows have a value."""
    return int(pc.sum(pc.fill_null(pc.equal(text, value), False)).as_py() or 0)


def _share(column: Profile) -> str:
    return "each row" if not column.missing else f"all but {column.missing:,} of {column.rows:,} rows"


def _listed(columns: Sequence[Profile]) -> str:
    return ", ".join(repr(each.header) if not each.header.isidentifier() else each.header for each in columns)
