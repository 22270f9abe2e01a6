"""Times as text: what Arrow reads at once is what is read one pattern after the other."""

from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_assets.sources import as_text
from ml_assets.sources.as_text import days_of, time_text

NO_DELAY = timedelta(0)
ALMOST = st.from_regex(
    r"[0-9]{4}-[01][0-9]-[0-3][0-9][T t]?[0-9]{0,2}:?[0-9]{0,2}:?[0-9]{0,2}(\.[0-9]{0,10})?(Z|z|\+01|\+01:00|-0100|)",
    fullmatch=True,
)


@settings(deadline=None)
@given(st.lists(st.none() | ALMOST, max_size=4))
@example(["2018-04-01T09:30:00Z", None])
@example(["2018-04-01T09:30:00.1234567Z"])
@example(["2018-04-01 09:30Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@example(["2018-04-01T09:30:60Z"])
@example(["2018-04-01T24:00:00Z"])
@example(["2018-04-01T9:30:00Z"])
@example(["2018-04-01T09:30:00.Z"])
def test_what_arrow_reads_at_once_is_what_the_patterns_say(texts: list[str | None]) -> None:
    values = pa.array(texts, pa.string())
    found = [(days_of(values, zone, NO_DELAY), time_text(values, zone, NO_DELAY)) for zone in ("UTC", "Europe/Berlin")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(as_text, "_all_in_utc", lambda _: None)
        expected = [(days_of(values, zone, NO_DELAY), time_text(values, zone, NO_DELAY)) for zone in ("UTC", "Europe/Berlin")]
    assert [each.to_pylist() for pair in found for each in pair] == [each.to_pylist() for pair in expected for each in pair]


def test_times_in_utc_are_read_at_once() -> None:
    assert as_text._all_in_utc(pa.array(["2018-04-01T09:30:00Z", None, "2018-04-01 09:30Z"])) is not None
