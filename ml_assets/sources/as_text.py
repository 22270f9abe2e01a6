"""Values of any plain Arrow type as text that reads back the same, and times as ISO 8601 with their offset from UTC.

Belongs here: arithmetic on arrays, and what a clock time means. Does not: where arrays come from (`sources.mapped`).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import timezone as fixed
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.sources.iso import CLOCK, DATE, INSTANT, as_most_write

_IS = pa.types
_NUMBERS = (_IS.is_integer, _IS.is_floating, _IS.is_decimal, _IS.is_boolean, _IS.is_null)
_OTHERS = (_IS.is_string, _IS.is_date, _IS.is_time, _IS.is_binary, _IS.is_large_binary, _IS.is_fixed_size_binary)
_DAY = timedelta(days=1)
_LAST_MOMENT = _DAY - timedelta(microseconds=1)
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

Dates = Literal["start", "end"]
"""Which instant of its day a date without a time of day is delivered as."""
_CLOCK_TIME = f"^{DATE}({CLOCK})?$"
_HYPHENS = (8, 13, 18, 23)
"""Where the text of a UUID has them."""


def plain(values: pa.Array) -> pa.Array:
    """The same values, text as `string` however it was encoded, and UUIDs as text: what the other functions here take."""
    if _IS.is_dictionary(values.type):
        values = values.dictionary_decode()
    if isinstance(values.type, pa.UuidType):
        return uuid_text(values.storage)
    if isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    return pc.cast(values, pa.string()) if _IS.is_large_string(values.type) or _IS.is_string_view(values.type) else values


def uuid_text(values: pa.Array) -> pa.Array:
    """16 bytes each, as a UUID is written: small hexadecimal digits with hyphens."""
    count, start = len(values), values.offset * 16
    digits = np.frombuffer(values.buffers()[1], np.uint8)[start : start + count * 16]
    digits = np.frombuffer(digits.tobytes().hex().encode(), np.uint8).reshape(count, 32)
    text = np.full((count, 36), ord("-"), np.uint8)
    text[:, [place for place in range(36) if place not in _HYPHENS]] = digits
    written = pa.FixedSizeBinaryArray.from_buffers(pa.binary(36), count, [None, pa.py_buffer(text.tobytes())])
    return pc.if_else(values.is_valid(), pc.cast(written, pa.string()), None)


def text_of(values: pa.Array, timezone: str) -> pa.Array:
    """Each value as text, a time as `time_text` says; null stays null, and the not-a-number of a float is null, too.

    Raises:
        ValueError: the type has no text of its own, such as a list, or bytes are not UTF-8.
    """
    if _IS.is_timestamp(values.type):
        return time_text(values, timezone, timedelta(0))
    if not any(fits(values.type) for fits in (*_NUMBERS, *_OTHERS)):
        raise ValueError(f"is {values.type}, expected numbers, text, times, dates, true or false")
    if _IS.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    # Arrow writes a float in the fewest digits that read back the same.
    text = pc.cast(values, pa.string())
    return _without_exponents(text) if _IS.is_decimal(values.type) else text


def _without_exponents(text: pa.Array) -> pa.Array:
    """Decimals in full: Arrow writes 0.0000001 as 1E-7."""
    if not pc.any(pc.match_substring(text, "E")).as_py():
        return text
    return pa.array([each and format(Decimal(each), "f") for each in text.to_pylist()], pa.string())


def time_text(values: pa.Array, timezone: str, delay: timedelta, dates: Dates | None = None) -> pa.Array:
    """The times so much later, in ISO 8601 with an offset; without an offset where a clock never or twice shows such a time.

    Text that has an offset stays as it is when there is no delay; text that is no time, in any case.

    Args:
        values: timestamps, dates or text; those without an offset are of the clocks of `timezone`.
        dates: which instant of its day a date without a time of day is, midnights included. None: it stays a date, for the contract of its
            column to say; but with a delay that is no whole days it counts from its end, since no earlier instant is certain.

    Raises:
        ValueError: the values are of another type.
    """
    if _IS.is_string(values.type) and not delay and dates != "end" and _all_in_utc(values) is not None:
        return values
    moments = _moments(values, timezone, delay, dates)
    in_utc = moments.instant.dt.tz_localize(None)
    shown = in_utc.where(moments.placed, moments.clock)
    offsets = _offsets(shown - in_utc)
    text = pc.binary_join_element_wise(_iso(shown), offsets, "")
    if _IS.is_string(values.type):
        stays = pa.array(shown.isna() if delay else (moments.placed & ~moments.dated) | shown.isna())
        told = text if delay else pc.if_else(pa.array(moments.dated), text, _with_offset(values, offsets))
        text = pc.if_else(stays, values, told)
    elif text.null_count > values.null_count:  # of a year that Python does not have
        text = pc.coalesce(text, pc.cast(values, pa.string()))
    return pc.if_else(pa.array(moments.bare), _day_text(moments.clock), text) if moments.bare.any() else text


def days_of(values: pa.Array, timezone: str, delay: timedelta, dates: Dates | None = None) -> pa.Array:
    """The day, as text, that the clocks of `timezone` show at the times so much later, as `time_text` has them; null without a time.

    Raises:
        ValueError: the values are neither timestamps, dates nor text.
    """
    return _day_text(_moments(values, timezone, delay, dates).clock)


@dataclass(frozen=True, kw_only=True, slots=True)
class DateShare:
    """How many of some times have no time of day."""

    times: int
    """All that can be read."""
    dates: int
    """Written as a date, which is certain."""
    midnights: int
    """Written as a time that clocks show as midnight: of a spreadsheet, each may be a date."""

    @property
    def any(self) -> bool:
        """Whether some of them are dates."""
        return self.dates > 0 or self.only_midnights

    @property
    def only_midnights(self) -> bool:
        """Whether none has a time of day, though all are written as if they had."""
        return self.dates == 0 and self.times > 1 and self.midnights == self.times


def dates_among(values: pa.Array, timezone: str) -> DateShare:
    """How many of these times have no time of day.

    Raises:
        ValueError: the values are neither timestamps, dates nor text.
    """
    moments = _moments(values, timezone, timedelta(0), None)
    dates, midnight = moments.dated, moments.clock == moments.clock.dt.floor("D")
    return DateShare(times=int(moments.clock.notna().sum()), dates=int(dates.sum()), midnights=int((midnight & ~dates).sum()))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Moments:
    """Times after the delay, NaT where there is none."""

    instant: pd.Series
    """In UTC; NaT also where a clock time does not exist or exists twice."""
    clock: pd.Series
    """What the clocks of the time zone show."""
    placed: pd.Series
    """Whether the value itself says which instant it is."""
    dated: pd.Series
    """Whether the value is a date without a time of day, or counts as one."""
    bare: pd.Series
    """Whether it stays a date."""


def _moments(values: pa.Array, timezone: str, delay: timedelta, dates: Dates | None) -> _Moments:
    given, shown, dated = _given(values)
    if dates is not None or dated.any():
        given, shown = (each if each.dt.unit == "ns" else each.dt.as_unit("us") for each in (given, shown))
    placed = given.notna()
    if dates == "end" and placed.any():
        there = _within(given, timezone).dt.tz_convert(timezone).dt.tz_localize(None)
        midnight = there == there.dt.floor("D")
        shown, given, dated = shown.where(~midnight, there), given.where(~midnight), dated | midnight
    if dates == "end":
        dated = dated | (shown == shown.dt.floor("D"))
    bare = dated & (dates is None and not delay % _DAY)
    instant = given + delay
    if shown.notna().any():
        clock_times = _within(shown.where(~dated), timezone)
        localized = clock_times.dt.tz_localize(timezone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")
        if dated.any():
            last = dates != "start"
            localized = localized.fillna(_of_dates(shown.where(dated & ~bare), timezone, last=last))
            shown = shown.where(~(dated & ~bare), shown + _LAST_MOMENT if last else shown)
        instant = given.fillna(localized) + delay
    clock = _within(instant, timezone).dt.tz_convert(timezone).dt.tz_localize(None).fillna(shown + delay)
    if (beyond := clock.isna() & instant.notna()).any():  # of a year that has no clocks: its day is one in any case
        clock = clock.where(~beyond, instant.dt.tz_localize(None))
    return _Moments(instant=instant, clock=clock, placed=placed, dated=dated, bare=bare)


def _of_dates(days: pd.Series, timezone: str, *, last: bool) -> pd.Series:
    """The first or the last instant of days: one without a midnight begins when clocks are changed, one with two at the first."""
    begins = _within(days + _DAY if last else days, timezone)
    first = np.ones(len(begins), dtype=np.bool_)
    instants: pd.Series = begins.dt.tz_localize(timezone, ambiguous=first, nonexistent="shift_forward").dt.tz_convert("UTC")
    return instants - (_DAY - _LAST_MOMENT if last else timedelta(0))


def _within(times: pd.Series, timezone: str) -> pd.Series:
    """Only times that pandas can convert: 9999-12-31, which often means never, is too late for it in any zone but UTC."""
    return times if timezone == "UTC" else times.where((times.dt.year > date.min.year) & (times.dt.year < date.max.year))


def _given(values: pa.Array) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Instants in UTC of the values that say which they are, clock times of the others, and which of these are dates."""
    if _IS.is_string(values.type):
        if (in_utc := _all_in_utc(values)) is not None:
            instants: pd.Series = in_utc.to_pandas()
            return instants, pd.Series(pd.NaT, index=instants.index, dtype="datetime64[us]"), _none_of(instants)
        # One time with nanoseconds would have all of them parsed as such, which range from 1677 to 2262 only.
        text = pc.replace_substring_regex(values, r"([.,][0-9]{6})[0-9]+", r"\1")
        instants = _parsed(text, INSTANT)
        if instants.notna().all():  # as most are, and to look for others takes as long again
            return instants, pd.Series(pd.NaT, index=instants.index, dtype="datetime64[us]"), _none_of(instants)
        clocks = _parsed(text, _CLOCK_TIME)
        if (instants.isna() & clocks.isna() & text.is_valid().to_pandas()).any():
            spelled = as_most_write(text)
            instants, clocks = _parsed(spelled, INSTANT), _parsed(spelled, _CLOCK_TIME)
        dated = pc.fill_null(pc.equal(pc.utf8_length(text), 10), False).to_pandas()
        return instants, clocks.dt.tz_localize(None), dated & clocks.notna()
    if _IS.is_null(values.type):  # of a column without any value
        values = pc.cast(values, pa.timestamp("us"))
    if dated := _IS.is_date(values.type):
        values = pc.cast(values, pa.timestamp("ms"))
    if not _IS.is_timestamp(values.type):
        raise ValueError(f"is {values.type}, expected timestamps, dates or text")
    times = _of_known_years(pc.cast(values, pa.timestamp(values.type.unit, "UTC"))).to_pandas()
    nothing = pd.Series(pd.NaT, index=times.index, dtype=times.dtype)
    of_dates = times.notna() if dated else _none_of(times)
    if values.type.tz is None:
        return nothing, times.dt.tz_localize(None), of_dates
    return times, nothing.dt.tz_localize(None), of_dates


def _of_known_years(times: pa.Array) -> pa.Array:
    """Only times of the years that Python has: pandas cannot even add nothing to others."""
    if times.type.unit not in ("s", "ms"):
        return times
    known = pc.and_(*(fits(times, pa.scalar(at, times.type)) for fits, at in ((pc.greater_equal, _FIRST), (pc.less_equal, _LAST))))
    return times if pc.all(known).as_py() else pc.if_else(known, times, None)


def _none_of(times: pd.Series) -> pd.Series:
    return pd.Series(False, index=times.index)


def _all_in_utc(text: pa.Array) -> pa.Array | None:
    """The instants, if each is written like 2018-04-01T09:30:00Z, as most are: Arrow reads these twenty times as fast as pandas.

    It takes some that are no such times, but none with a colon and a Z where these have them.
    """
    if not pc.all(pc.and_(pc.ends_with(text, "Z"), pc.equal(pc.utf8_slice_codeunits(text, 13, 14), ":"))).as_py():
        return None
    try:
        return pc.cast(text, pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return None


def _parsed(text: pa.Array, pattern: str) -> pd.Series:
    """The times of the texts of this pattern, in UTC unless they have an offset."""
    fitting = pc.if_else(pc.match_substring_regex(text, pattern), text, None).to_pandas()
    times: pd.Series = pd.to_datetime(fitting, utc=True, format="ISO8601", errors="coerce", cache=False).dt.as_unit("us")
    return times


def _iso(times: pd.Series) -> pa.Array:
    text = pc.replace_substring(pc.cast(pa.array(times), pa.string()), " ", "T", max_replacements=1)
    return pc.replace_substring_regex(text, r"(\.[0-9]*[1-9])0*$|\.0+$", r"\1")


def _with_offset(text: pa.Array, offsets: pa.Array) -> pa.Array:
    """The text itself, with all its digits, which may be more than pandas keeps."""
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T", max_replacements=1), offsets, "")


def _day_text(clock: pd.Series) -> pa.Array:
    days = pc.cast(pa.array(clock), pa.date32())
    # A delay can carry a time out of the years that a date can have.
    known = pc.and_(pc.greater_equal(days, date.min), pc.less_equal(days, date.max))
    return pc.cast(pc.if_else(known, days, None), pa.string())


def _offsets(ahead: pd.Series) -> pa.Array:
    """How far clocks are ahead of UTC, as an ISO time ends; "" where that is not known."""
    codes, values = pd.factorize(ahead)
    texts = [str(fixed(each)).removeprefix("UTC") or "Z" for each in pd.to_timedelta(values).to_pytimedelta()]
    return pa.array([*texts, ""]).take(pa.array(np.where(codes < 0, len(texts), codes)))
