"""Values by the dialect of their source, as the one text that every later step reads: 1234.56, true, 2024-01-31T10:00:00Z.

Belongs here: reading numbers, truth, times and what means no value. Does not: the declaration (`sources.dialect`), or types that are no
text (`sources.as_text`).

A value that cannot be read by the dialect stays as it is, with the reason behind it, and cleaning quarantines its row: 1.5 is no number
where "," is the decimal mark, although every later step would take it for one.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.sources.as_text import uuid_text
from ml_assets.sources.dialect import Dialect, toml_text
from ml_assets.sources.limits import Limits
from ml_assets.sources.number_format import number_pattern, plain_numbers
from ml_assets.sources.time_format import EPOCHS, ISO, pattern_of
from ml_assets.use_case import DType

MARK = "\ufdd0"
"""Stands between a text and why it is refused: Unicode gives it to no character."""
NOT_READ = "not_read"
"""Delivered column with what was no row, such as a line that is no JSON object: cleaning quarantines it."""
REFUSED = f"{MARK}{NOT_READ}"
"""The same beside the columns of a source, which may have any name."""
WRITTEN = pa.struct({"text": pa.string(), "number": pa.bool_()})
"""Values of JSON or of a database without types, where it counts which were texts and which numbers."""
_IS = pa.types
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,2})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def canonical(values: pa.Array, column: str, dialect: Dialect, dtype: DType | None, limits: Limits) -> pa.Array:
    """The values of a column of the source, read by its dialect; those of types that say what they are stay as they are.

    Args:
        values: as `as_text.plain` gives them, or `WRITTEN`.
        dtype: which the column is to become; None for a text of which nothing is known.
    """
    number = None
    if values.type == WRITTEN:
        number, values = values.field("number"), values.field("text")
    form = dialect.time_of(column) if dtype is DType.TIMESTAMP else ISO
    if not _IS.is_string(values.type):
        if column in dialect.uuid and values.type == pa.binary(16):
            return uuid_text(values)
        if _IS.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
        numeric = _IS.is_integer(values.type) or _IS.is_floating(values.type) or _IS.is_decimal(values.type)
        if numeric and dtype is DType.TIMESTAMP and form not in EPOCHS:
            told = f"time = {toml_text({column: 'epoch seconds'})} (or milliseconds, microseconds)"
            raise ValueError(f"is {values.type}, expected timestamps, dates or text; of numbers since 1970 {dialect.cure(told)}")
        return _epoch_text(pc.cast(values, pa.string()), form) if numeric and dtype is DType.TIMESTAMP else values
    values = _within(_known(values, dialect.missing_of(column)), limits)
    match dtype:
        case DType.INT64 | DType.FLOAT64 if dialect.writes_numbers:
            read = _numbers(values, dialect)
            return read if number is None else pc.if_else(pc.fill_null(number, False), values, read)
        case DType.BOOL if dialect.true or dialect.false:
            return _truth(values, dialect)
        case DType.TIMESTAMP if form in EPOCHS:
            return _epoch_text(values, form)
        case DType.TIMESTAMP if form != ISO:
            return _times(values, form)
        case _:
            return values


def text_alone(values: pa.Array) -> pa.Array:
    """`WRITTEN` values as their text; others as they are."""
    return values.field("text") if values.type == WRITTEN else values


def written(texts: list[str | None], numbers: list[bool]) -> pa.Array:
    """`WRITTEN` values."""
    return pa.StructArray.from_arrays([pa.array(texts, pa.string()), pa.array(numbers, pa.bool_())], fields=list(WRITTEN))


def refused(text: pa.Array, why: str) -> pa.Array:
    """Texts that cannot be read, with the reason behind them."""
    return pc.binary_join_element_wise(text, why, MARK)


def without_reasons(rows: pd.DataFrame) -> tuple[pd.DataFrame, Mapping[str, pd.Series]]:
    """Delivered rows with their texts alone, and for each column that has some the reasons why values of it are refused, by their row."""
    reasons: dict[str, pd.Series] = {}
    for name in rows.columns:
        if not isinstance(rows[name].dtype, pd.StringDtype):
            continue
        array = pa.array(rows[name], pa.large_string(), from_pandas=True)
        marked = pc.fill_null(pc.match_substring(array, MARK), False).to_numpy(zero_copy_only=False)
        if marked.any():
            parts = rows.loc[marked, name].str.split(MARK, n=1, expand=True)
            reasons[str(name)] = parts[1]
            rows = rows.assign(**{str(name): rows[name].where(~marked, parts[0].reindex(rows.index))})
    return rows, reasons


# Texts ------------------------------------------------------------------------------------------------------------------------


def _known(text: pa.Array, missing: tuple[str, ...]) -> pa.Array:
    if not missing:
        return text
    tokens = pa.array([each.strip() for each in missing], pa.string())
    return pc.if_else(pc.is_in(pc.utf8_trim_whitespace(text), tokens), None, text)


def _within(text: pa.Array, limits: Limits) -> pa.Array:
    most = limits.field_characters
    if (pc.max(pc.binary_length(text)).as_py() or 0) <= most:
        return text
    length = pc.utf8_length(text)
    long = pc.fill_null(pc.greater(length, most), False)
    if not (longest := pc.max(pc.if_else(long, length, None)).as_py()):
        return text
    begin = pc.binary_join_element_wise(pc.utf8_slice_codeunits(text, 0, 100), "…", "")
    why = limits.exceeded(f"has up to {longest:,} characters", "field_characters", longest)
    return pc.if_else(long, refused(begin, why), text)


def _numbers(text: pa.Array, dialect: Dialect) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(text)
    pattern = number_pattern(dialect.decimal, dialect.thousands)
    plain = plain_numbers(trimmed, dialect.decimal, dialect.thousands)
    grouped = f" and thousands = {dialect.thousands!r}" if dialect.thousands else ""
    return _read(text, pattern, plain, f"is not a number with decimal = {dialect.decimal!r}{grouped}")


def _read(text: pa.Array, pattern: str, plain: pa.Array, why: str) -> pa.Array:
    """The plain form of the texts of a pattern; the others are refused."""
    return pc.if_else(pc.match_substring_regex(pc.utf8_trim_whitespace(text), pattern), plain, _unread(text, why))


def _unread(text: pa.Array, why: str) -> pa.Array:
    """Texts that are refused; an empty one is none, and one that is refused already stays so."""
    stays = pc.or_(pc.equal(pc.utf8_trim_whitespace(text), ""), pc.match_substring(text, MARK))
    return pc.if_else(stays, text, refused(text, why))


def _truth(text: pa.Array, dialect: Dialect) -> pa.Array:
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    for words, told in ((dialect.true, "true"), (dialect.false, "false")):
        text = pc.if_else(pc.is_in(lower, pa.array([word.strip().lower() for word in words], pa.string())), told, text)
    return text


# Times ------------------------------------------------------------------------------------------------------------------------


def _times(text: pa.Array, form: str) -> pa.Array:
    """ISO 8601, with an offset where the format has one (or ends in UTC or Z), else clock times; a date where it has no clock."""
    trimmed = pc.utf8_trim_whitespace(text)
    fitting = pc.if_else(pc.match_substring_regex(trimmed, pattern_of(form)), trimmed, None)
    # One time with nanoseconds would have all of them parsed as such, which range from 1677 to 2262 only.
    fitting = pc.replace_substring_regex(fitting, r"([.,][0-9]{6})[0-9]{1,3}", r"\1")
    in_utc = "%z" in form or form.rstrip().endswith(("UTC", "GMT", "Z"))
    times = pd.to_datetime(fitting.to_pandas().astype("str"), format=form, utc=in_utc, errors="coerce", cache=False)
    clocks = pa.array(times.dt.as_unit("us").dt.tz_localize(None), pa.timestamp("us"), from_pandas=True)
    has_clock = any(each in form for each in ("%H", "%I"))
    shown = _iso(clocks, "Z" if in_utc else "") if has_clock else pc.cast(pc.cast(clocks, pa.date32()), pa.string())
    return pc.coalesce(shown, _unread(text, f"is not a time in the form {form!r}"))


def _epoch_text(text: pa.Array, form: str) -> pa.Array:
    """Numbers since 1970 as ISO 8601 in UTC, to the microsecond."""
    per_number = 10**6 // EPOCHS[form]
    trimmed = pc.utf8_trim_whitespace(text)
    whole = pc.match_substring_regex(trimmed, rf"^-?[0-9]{{1,{18 - len(str(per_number))}}}$")
    if pc.all(whole).as_py():
        moments = pc.multiply(pc.cast(trimmed, pa.int64()), per_number)
    else:
        moments = pa.array([_microseconds(each, per_number) for each in trimmed.to_pylist()], pa.int64())
    moments = pc.if_else(pc.and_(pc.greater_equal(moments, _FIRST), pc.less_equal(moments, _LAST)), moments, None)
    return pc.coalesce(_iso(pc.cast(moments, pa.timestamp("us")), "Z"), _unread(text, f"is not a time in {form}"))


def _microseconds(text: str | None, per_number: int) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    moment = Decimal(text) * per_number
    return int(moment // 1) if _FIRST <= moment <= _LAST else None


def _iso(times: pa.Array, offset: str) -> pa.Array:
    text = pc.replace_substring(pc.cast(times, pa.string()), " ", "T", max_replacements=1)
    return pc.binary_join_element_wise(pc.replace_substring_regex(text, r"(\.[0-9]*[1-9])0*$|\.0+$", r"\1"), offset, "")
