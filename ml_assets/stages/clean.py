"""From delivered text to typed rows that keep the table's contract; a row that cannot is kept aside with the reason.

Belongs here: parsing, the rules of `Column`, duplicates, and the account of what became of every row. Does not: what a
column means (the table's `derive`) or whether a day is good enough to publish (`stages.quality`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.sources.canonical import NOT_READ, without_reasons
from ml_assets.sources.dialect import hint
from ml_assets.sources.files import PROVENANCE, delivered_as, delivered_name
from ml_assets.sources.iso import as_most_write
from ml_assets.stages.dates import DATE, NO_DATE, NOT_DATED, instant_of
from ml_assets.stages.identity import SET_ASIDE, Cause, Published, key_texts, repeats_by_day, resolve
from ml_assets.stages.quality import EXAMPLES, Finding
from ml_assets.stages.spelling import EXPECTED, respelled
from ml_assets.stages.values import shown
from ml_assets.use_case import Column, Day, DType, Severity, Spelling, Table, nullable_dtype, shift

MOST_HINTS = 20
"""Rows of a column for which it is looked up what would make them readable."""
KEPT_PROVENANCE = ["day", "source_file", "source_row"]

Reasons = dict[int, list[str]]
"""Why rows are rejected, by their position in the delivery."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """Every delivered row, in one frame or the other, both in the order of the delivery."""

    rows: pd.DataFrame
    """The table's columns in their dtypes, then `day`, `source_file`, `source_row`."""
    rejected: pd.DataFrame
    """`day`, `source_file`, `source_row`, `reason` (several joined by '; '), `cause` (`identity.Cause`), `key` (of a row that has one, else
    missing), `content` (the delivered row as JSON)."""
    repeats: Mapping[Day, Sequence[tuple[str, Day, int]]] = field(default_factory=dict)
    """For each day its keys that an earlier day has, that day and a hash of its row: what another day decides about this one."""


def clean(
    raw: pd.DataFrame,
    table: Table,
    *,
    timezone: str = "UTC",
    days: Sequence[Day] | None = None,
    published: Published | None = None,
) -> Cleaned:
    """Parse, judge, derive, judge again and keep one row a key; a row is quarantined at the first of these steps that it fails.

    Args:
        raw: rows as `ingest.ingested` gives them. A column that is absent is missing in every row.
        table: its `derive` gets the delivered columns in their dtypes and `partition_day`, index 0…n-1; it may add
            `reject_reason`, a text for each row to reject.
        timezone: in which a day is a day.
        days: those to clean; None for all of `raw`. Rows of later days are there for their corrections.
        published: looks up rows of days that are not in `raw`, where a key is one row over all days.

    Returns:
        Of rows with one key the first stays, so that a day is cleaned alike alone or in any range.

    Raises:
        ValueError: the declaration contradicts itself, or `derive` gave other rows, columns or dtypes than declared.
    """
    _require_sound(table)
    raw, refused = without_reasons(raw.reset_index(drop=True))
    reasons: Reasons = _no_rows(raw, table)
    typed = _typed(raw, table, refused, reasons)
    stray = _of_another_day(typed, raw["day"], table, timezone)
    derived = _derived(typed, raw.loc[typed.index, "day"], table, reasons)
    judged = _judged(derived, table, reasons).join(raw[KEPT_PROVENANCE])
    resolved = resolve(judged, table, published, stray)
    reasons |= {position: [reason] for position, reason in resolved.reasons.items()}
    rows, rejected = resolved.rows, _rejected(raw, reasons, resolved.causes, key_texts(judged, table.key))
    repeats = repeats_by_day(resolved.repeats)
    if days is not None:
        rows, rejected = (frame[frame["day"].isin(list(days))] for frame in (rows, rejected))
        repeats = {day: of_day for day, of_day in repeats.items() if day in set(days)}
    return Cleaned(rows=rows.reset_index(drop=True), rejected=rejected.reset_index(drop=True), repeats=repeats)


def _require_sound(table: Table) -> None:
    names = [column.name for column in table.columns]
    faults = [f"{name} is a provenance column" for name in names if name in PROVENANCE]
    faults += [
        f"the delivered {column.name} has a name that `derive` gets or gives: deliver it under another one"
        for column in table.delivered
        if column.name in ("partition_day", "reject_reason")
    ]
    faults += [f"the key {name} is not a column" for name in table.key if name not in names]
    if table.corrections and table.corrections.by not in names:
        faults.append(f"corrections are ordered by {table.corrections.by}, which is not a column")
    if table.time is not None and not any(each.name == table.time and each.dtype is DType.TIMESTAMP for each in table.delivered):
        faults.append(f"`time` is {table.time}, expected a delivered column of {DType.TIMESTAMP}")
    faults += [f"{column.name} {fault}" for column in (*table.delivered, *table.columns) for fault in _contradictions(column)]
    if faults:
        raise ValueError(f"table {table.name}: {'; '.join(faults)}")


def _contradictions(column: Column) -> Iterator[str]:
    if column.nullable and column.fill is None and column.dtype in (DType.INT64, DType.BOOL):
        yield f"is nullable but {column.dtype} has no missing value: declare FLOAT64"
    if column.impossible == "blank" and not column.nullable and column.fill is None:
        yield "is blanked where impossible, but neither nullable nor filled"
    if column.allowed and column.dtype is not DType.STRING:
        yield f"has allowed texts but is {column.dtype}"
    if column.spelling is not Spelling.TEXT and column.dtype is not DType.STRING:
        yield f"has a spelling but is {column.dtype}"
    if (column.minimum, column.maximum) != (None, None) and column.dtype not in (DType.INT64, DType.FLOAT64):
        yield f"has a range but is {column.dtype}"
    if column.dates is not None and column.dtype is not DType.TIMESTAMP:
        yield f"says what a date means but is {column.dtype}"


# Delivered text to values ---------------------------------------------------------------------------------------------------

_INTERIM = {DType.INT64: "Int64", DType.BOOL: "boolean"}
"""While values may still be missing: numpy has no missing integer, and a float cannot hold all of them."""

_NOTHING = pd.Series(dtype="str", index=pd.RangeIndex(0))

PATTERNS = {
    # 18 digits always fit into 64 bits.
    DType.INT64: r"^[+-]?[0-9]{1,18}$",
    DType.FLOAT64: r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$",
    DType.BOOL: r"^(?i:true|false|1|0)$",
    DType.TIMESTAMP: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})$",
}
WANTED = {
    DType.INT64: "is not a whole number",
    DType.FLOAT64: "is not a number",
    DType.BOOL: "is neither true nor false",
    DType.TIMESTAMP: "is not a time with its offset from UTC (ISO 8601, such as 2013-07-04T09:30:00Z)",
}


def _no_rows(raw: pd.DataFrame, table: Table) -> Reasons:
    """Why rows are none: what their source could not even take apart."""
    if NOT_READ not in raw or NOT_READ in [column.name for column in table.delivered]:
        return {}
    content = raw[NOT_READ].dropna()
    return {
        position: [f"is no row: {shown(text)}"] for position, text in zip(content.index.tolist(), content.tolist(), strict=True)
    }


def _typed(raw: pd.DataFrame, table: Table, refused: Mapping[str, pd.Series], reasons: Reasons) -> pd.DataFrame:
    """The delivered columns in their dtypes, without the rows that are rejected; the index is the position in `raw`.

    Args:
        refused: for each delivered column why its source could not read values of it, by their position.
    """
    kept = {}
    for column in table.delivered:
        name = delivered_as(column.name)
        text = _trimmed(raw[name]) if name in raw else pd.Series(pd.NA, index=raw.index, dtype="str")
        values = _parsed(text, column)
        told = refused.get(name, _NOTHING)
        values = values.mask(values.index.isin(told.index)) if len(told) else values
        unreadable = (text.notna() & values.isna()).to_numpy()
        if unreadable.any():
            if len(texts := text[unreadable].drop(told.index, errors="ignore")):
                _note_unreadable(reasons, column, texts, table)
            for why, some in told.groupby(told):
                _note(reasons, column.name, text[some.index], str(why))
        kept[column.name] = _kept(values, column, reasons, unreadable=unreadable)
    return _exact(_survivors(pd.DataFrame(kept, index=raw.index), reasons), table.delivered)


def _trimmed(text: pd.Series) -> pd.Series:
    """Without white space around it; nothing left is missing."""
    stripped = pc.utf8_trim_whitespace(_arrow(text))
    return _series(pc.if_else(pc.equal(stripped, ""), None, stripped), text.index).astype("str")


def no_rows(table: Table) -> pd.DataFrame:
    """What is clean of a table of which nothing was delivered yet."""
    dtypes = {column.name: nullable_dtype(column.dtype) for column in table.columns}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()}).assign(
        day=pd.Series(dtype="str"), source_file=pd.Series(dtype="str"), source_row=pd.Series(dtype="int64")
    )


def expected(column: Column) -> str:
    """What is wrong with a text that is none of the column's values."""
    return EXPECTED[column.spelling] if column.dtype is DType.STRING else WANTED[column.dtype]


def _parsed(text: pd.Series, column: Column) -> pd.Series:
    """Values in the interim dtype, missing where the text is missing or not of this type and spelling."""
    dtype = column.dtype
    if dtype is DType.STRING:
        spelled = column.spelling is not Spelling.TEXT
        return _series(respelled(_arrow(text), column.spelling), text.index).astype("str") if spelled else text
    given = _arrow(text)
    array = given
    fits = pc.match_substring_regex(array, PATTERNS[dtype])
    if dtype is DType.TIMESTAMP and not pc.all(fits).as_py():
        array = as_most_write(array)
        fits = pc.match_substring_regex(array, PATTERNS[dtype])
    array = pc.if_else(fits, array, None)
    match dtype:
        case DType.INT64:
            return _series(pc.cast(pc.ascii_ltrim(array, "+"), pa.int64()), text.index).astype("Int64")
        case DType.FLOAT64:
            values = _series(pc.cast(array, pa.float64()), text.index).astype("float64")
            # A number too large for a float is read as infinity: it is not that number.
            return values.mask(np.isinf(values.to_numpy()))
        case DType.BOOL:
            true = pc.is_in(pc.utf8_lower(array), value_set=pa.array(["true", "1"], pa.large_string()))
            return _series(pc.if_else(pc.is_valid(array), true, None), text.index).astype("boolean")
        case _:
            # One time with nanoseconds would have all of them parsed as such, which range from 1677 to 2262 only.
            cut = _series(pc.replace_substring_regex(array, r"(\.[0-9]{6})[0-9]+", r"\1"), text.index).astype("str")
            times: pd.Series = pd.to_datetime(cut, utc=True, format="ISO8601", errors="coerce").dt.as_unit("us")
            # The offset can carry a time out of the years 1 to 9999, which Python cannot even print.
            times = times.where(times.dt.year.between(1, 9999))
            return times if column.dates is None else times.fillna(_dated(given, column, text.index))


def _dated(text: pa.Array, column: Column, index: pd.Index) -> pd.Series:
    """The instants that dates without a time of day mean, missing where a text is none."""
    dates = pc.if_else(pc.match_substring_regex(text, f"^{DATE}$"), text, None)
    instants = {}
    for each in pc.unique(dates.drop_null()).to_pylist():
        with suppress(ValueError):
            instants[each] = instant_of(each, column)
    known = pa.array([instants.get(each) for each in dates.to_pylist()], pa.timestamp("us", "UTC"))
    return pd.Series(known.to_pandas().array, index=index)


def _note_unreadable(reasons: Reasons, column: Column, text: pd.Series, table: Table) -> None:
    """What is wrong, and what would make it readable; a date in a column of times has a cure of its own."""
    dated = text.str.fullmatch(DATE).to_numpy(dtype=np.bool_) & (column.dtype is DType.TIMESTAMP)
    texts = text[~dated]
    _note(reasons, column.name, texts, expected(column))
    for position, each in list(zip(texts.index.tolist(), texts.tolist(), strict=True))[:MOST_HINTS]:
        reasons[position][-1] += hint(each, column.dtype, column=column.name, table=table.name)
    _note(reasons, column.name, text[dated], NOT_DATED if column.dates is None else NO_DATE)


def _arrow(text: pd.Series) -> pa.Array:
    array = pa.array(text, pa.large_string(), from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _series(array: pa.Array, index: pd.Index) -> pd.Series:
    values = array.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
    return pd.Series(values.array, index=index)


# The rules of a column --------------------------------------------------------------------------------------------------------


def _kept(values: pd.Series, column: Column, reasons: Reasons, *, unreadable: npt.NDArray[np.bool_] | None = None) -> pd.Series:
    """Blank or reject what is impossible, fill what is missing, reject what is missing still (and was not unreadable)."""
    for impossible, why in _impossible(values, column):
        if column.impossible == "blank":
            values = values.mask(impossible)
        else:
            _note(reasons, column.name, values[impossible], why)
    if column.fill is not None:
        values = values.fillna(column.fill)
    if not column.nullable:
        missing = values.isna().to_numpy() if unreadable is None else values.isna().to_numpy() & ~unreadable
        for position in values.index[missing]:
            reasons.setdefault(int(position), []).append(f"{column.name}: missing")
    return values


def _impossible(values: pd.Series, column: Column) -> Iterator[tuple[npt.NDArray[np.bool_], str]]:
    """Where values break the column's rules, and how; only rules that some value breaks."""
    broken: list[tuple[pd.Series, str]] = []
    if column.dtype is DType.FLOAT64:
        broken.append((values.abs() == np.inf, "is not finite"))
    if column.minimum is not None:
        broken.append((values < column.minimum, f"is below {shown(column.minimum)}"))
    if column.maximum is not None:
        broken.append((values > column.maximum, f"is above {shown(column.maximum)}"))
    if column.allowed:
        broken.append((values.notna() & ~values.isin(column.allowed), f"is not one of {', '.join(column.allowed)}"))
    for rows, why in broken:
        mask = rows.fillna(False).to_numpy(dtype=np.bool_)
        if mask.any():
            yield mask, why


def _note(reasons: Reasons, name: str, values: pd.Series, why: str) -> None:
    for position, value in zip(values.index.tolist(), values.tolist(), strict=True):
        reasons.setdefault(position, []).append(f"{name}: {shown(value)} {why}")


def _survivors(rows: pd.DataFrame, reasons: Reasons) -> pd.DataFrame:
    return rows[~rows.index.isin(list(reasons))]


def _exact(rows: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    return rows[[column.name for column in columns]].astype({column.name: nullable_dtype(column.dtype) for column in columns})


# The day of a row -------------------------------------------------------------------------------------------------------------


def _of_another_day(typed: pd.DataFrame, delivered: pd.Series, table: Table, timezone: str) -> dict[int, str]:
    """The rows whose time lies after the day under which they were delivered, or too long before it, and what is said of them."""
    if table.time is None or typed.empty:
        return {}
    times = typed[table.time]
    # Beyond these years no time zone can be asked for its clock.
    own = times.where(times.dt.year.between(2, 9998)).dt.tz_convert(timezone).dt.strftime("%Y-%m-%d")
    own = own.where(own.notna() | times.isna(), times.dt.strftime("%Y-%m-%d"))
    day = delivered.loc[typed.index]
    first = day.map({each: shift(each, -table.late_days) for each in day.unique()})
    stray = typed.index[times.notna() & ~own.between(first, day)]
    wanted = f"expected that day or up to {table.late_days} days before it (late_days)" if table.late_days else "expected that day"
    return {
        int(
            position
        ): f"{table.time}: {times.loc[position].isoformat()} is of another day than {day.loc[position]}, its delivery: {wanted}"
        for position in stray
    }


# Derived columns --------------------------------------------------------------------------------------------------------------


def _derived(typed: pd.DataFrame, days: pd.Series, table: Table, reasons: Reasons) -> pd.DataFrame:
    """What `derive` makes of the rows, without those that it rejects; the index is again the position in the delivery."""
    given = typed.assign(partition_day=days).reset_index(drop=True)
    made = table.derive(given)
    if len(made) != len(given) or not made.index.equals(given.index):
        raise ValueError(
            f"table {table.name}: derive gave {len(made)} rows for {len(given)}, or others: it keeps rows, order and index"
        )
    if absent := [column.name for column in table.columns if column.name not in made]:
        raise ValueError(f"table {table.name}: derive gave no {', '.join(absent)}; it gave {', '.join(map(str, made.columns))}")
    made = made.set_axis(typed.index, axis=0)
    if "reject_reason" not in made:
        return made
    bad = made["reject_reason"].dropna()
    reasons.update({int(position): [str(text)] for position, text in zip(bad.index, bad, strict=True)})
    return _survivors(made, reasons)


def _judged(derived: pd.DataFrame, table: Table, reasons: Reasons) -> pd.DataFrame:
    """The table's columns in their dtypes, without the rows that break their rules."""
    kept = {column.name: _kept(_as_declared(derived[column.name], column, table), column, reasons) for column in table.columns}
    return _exact(_survivors(pd.DataFrame(kept, index=derived.index), reasons), table.columns)


def _as_declared(values: pd.Series, column: Column, table: Table) -> pd.Series:
    wanted: Any = _INTERIM.get(column.dtype, nullable_dtype(column.dtype))
    try:
        return values.astype(wanted)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"table {table.name}: derive gave {column.name} as {values.dtype}, declared {column.dtype}: {error}"
        ) from error


def _rejected(raw: pd.DataFrame, reasons: Reasons, causes: Mapping[int, Cause], keys: pd.Series) -> pd.DataFrame:
    positions = sorted(reasons)
    refused = raw.loc[positions]
    content = refused[[name for name in raw.columns if name not in PROVENANCE]]
    content = content.rename(columns=delivered_name).astype(object)
    delivered = content.where(content.notna(), None).to_dict("records")
    return (
        refused[KEPT_PROVENANCE]
        .assign(
            reason=pd.Series(["; ".join(reasons[position]) for position in positions], index=refused.index, dtype="str"),
            cause=pd.Series(
                [causes.get(position, Cause.CONTRACT).value for position in positions], index=refused.index, dtype="str"
            ),
            key=keys.reindex(positions).astype("str"),
            content=pd.Series([json.dumps(row, ensure_ascii=False) for row in delivered], index=refused.index, dtype="str"),
        )
        .reset_index(drop=True)
    )


# The account -------------------------------------------------------------------------------------------------------------------


def accounting_findings(raw: pd.DataFrame, cleaned: Cleaned, table: Table, days: Sequence[Day]) -> dict[Day, list[Finding]]:
    """Three findings a day: no row is lost, not too many are rejected, and (WARN) none is. All hold for a day without rows.

    Duplicates and corrections are set aside: each is sound, and counts once. A row that is twice in one day's delivery is noted.
    One rejected row of several is not too many, however few they are, unless the table allows none.
    """
    aside = cleaned.rejected["cause"].isin([cause.value for cause in SET_ASIDE])
    repeated = _repeated(cleaned)
    delivered_again = pd.Series(
        [(day, key) in repeated for day, key in zip(cleaned.rejected["day"], cleaned.rejected["key"], strict=True)],
        index=cleaned.rejected.index,
        dtype=bool,
    )
    noted = cleaned.rejected[~(aside & delivered_again)]
    frames = (raw, cleaned.rows, cleaned.rejected[~aside], cleaned.rejected[aside], noted)
    counts = [frame["day"].value_counts() for frame in frames]
    named = "row " + noted["source_row"].astype(str) + ": " + noted["reason"]
    examples = {str(day): texts.head(EXAMPLES).tolist() for day, texts in named.groupby(noted["day"])}
    found = {}
    for day in days:
        came, out, refused, spare, told = (int(count.get(day, 0)) for count in counts)
        losses = _losses(came, refused, told, examples.get(day, []), limit=table.max_rejected_share)
        found[day] = [_balance(came, out, refused, spare), *losses]
    return found


def _repeated(cleaned: Cleaned) -> set[tuple[Day, str]]:
    """Days and keys that an earlier day has, too."""
    return {(day, key) for day, of_day in cleaned.repeats.items() for key, _, _ in of_day}


def _balance(came: int, out: int, refused: int, aside: int) -> Finding:
    repeated = f" + {aside} set aside as duplicates or corrections" if aside else ""
    return Finding(
        expectation="rows in = rows out + rejected",
        passed=came == out + refused + aside,
        severity=Severity.ERROR,
        observed=f"{came} rows in, {out} out + {refused} rejected{repeated}",
    )


def _losses(came: int, refused: int, noted: int, examples: Sequence[str], *, limit: float) -> Iterator[Finding]:
    share = refused / came if came else 0.0
    one_of_several = refused == 1 < came and limit > 0
    passed = share <= limit or one_of_several
    observed = f"{refused} of {came} rows" + (f" ({100 * share:.3g} %)" if came else "")
    allowed = "; one alone stops no day" if passed and share > limit else ""
    twice = f", {noted - refused} are there twice" if noted > refused else ""
    yield Finding(
        expectation=f"at most {100 * limit:g} % of rows are rejected",
        passed=passed,
        severity=Severity.ERROR,
        observed=observed + allowed,
        unexpected=refused,
        examples=() if passed else tuple(examples[:3]),
    )
    yield Finding(
        expectation="no row is rejected",
        passed=noted == 0,
        severity=Severity.WARN,
        observed=observed + twice,
        unexpected=noted,
        examples=tuple(examples),
    )
