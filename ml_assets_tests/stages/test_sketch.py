"""Sketches: every row lies in one bin, days add up to weeks, and a sketch is read back as it was written."""

import json

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.stages.sketch import BINS, CATEGORIES, count, count_days, sketch, sketch_from_json, trailing_sum
from ml_assets.use_case import day_range

DAYS = day_range("2024-01-01", "2024-01-10")
values = st.lists(st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 1.0, -0.0])), max_size=60)


def numbers(found: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame({"x": pd.array(found, dtype="Float64").to_numpy(dtype=np.float64, na_value=np.nan)})


@settings(deadline=None, max_examples=150)
@given(made_from=values, counted=values)
def test_every_row_is_counted_once_whatever_the_bins_were_made_from(
    made_from: list[float | None], counted: list[float | None]
) -> None:
    bins = sketch(numbers(made_from), "x", text=False)
    found = count(numbers(counted), "x", bins)
    assert found.sum() == len(counted)
    assert found[-1] == sum(value is None or np.isnan(value) for value in counted)
    assert len(found) == len(bins.labels) == len(bins.edges) + 2
    assert (np.diff(bins.edges) > 0).all()
    assert len(bins.edges) < BINS


def test_bins_hold_equally_many_rows() -> None:
    found = sketch(pd.DataFrame({"x": np.random.default_rng(1).normal(size=10_000)}), "x", text=False)
    assert found.counts.tolist() == [1000] * 10 + [0]
    assert found.null_share == 0.0


def test_a_column_with_few_values_has_a_bin_for_each() -> None:
    found = sketch(pd.DataFrame({"x": [0] * 90 + [1] * 8 + [2] * 2}), "x", text=False)
    assert found.counts.tolist() == [90, 10, 0], "the rare ones share a bin"
    assert found.labels == ["up to 0", "over 0", "missing"]
    assert sketch(pd.DataFrame({"x": [7.0] * 5}), "x", text=False).counts.tolist() == [5, 0]


def test_texts_have_the_frequent_ones_and_the_others() -> None:
    rows = pd.DataFrame({"x": pd.array([f"{at:02}" for at in range(30) for _ in range(30 - at)] + [None], dtype="str")})
    found = sketch(rows, "x", text=True)
    assert found.categories == tuple(f"{at:02}" for at in range(CATEGORIES))
    assert found.counts[-1] == 1
    assert found.counts.sum() == len(rows)
    assert found.labels[-2:] == ["others", "missing"]
    assert sketch(rows.head(0), "x", text=True).counts.sum() == 0


def test_days_add_up() -> None:
    random = np.random.default_rng(2)
    rows = pd.DataFrame({"x": random.normal(size=500), "day": random.choice(DAYS, size=500)})
    bins = sketch(rows, "x", text=False)
    of_day = np.searchsorted(DAYS, rows["day"].to_numpy(dtype=str)).astype(np.int64)
    by_day = count_days(rows, "x", bins, DAYS, of_day)
    assert by_day.shape == (10, len(bins.counts))
    assert by_day.sum(axis=0).tolist() == bins.counts.tolist()
    assert by_day[3].tolist() == count(rows[rows["day"] == DAYS[3]], "x", bins).tolist()
    week = trailing_sum(by_day, DAYS, window=7)
    assert week[9].tolist() == by_day[3:10].sum(axis=0).tolist()
    assert week[2].tolist() == by_day[:3].sum(axis=0).tolist()
    gap = [*DAYS[:3], *DAYS[8:]]
    assert trailing_sum(by_day[[0, 1, 2, 8, 9]], gap, window=7)[3].tolist() == (by_day[2] + by_day[8]).tolist()


def test_a_sketch_is_read_back_as_it_was() -> None:
    for rows, text in (
        (pd.DataFrame({"x": [1.5, 2.5, np.nan, 0.1]}), False),
        (pd.DataFrame({"x": ["a", "b", "a"]}, dtype="str"), True),
    ):
        found = sketch(rows, "x", text=text)
        again = sketch_from_json(json.loads(json.dumps(found.to_json())))
        assert again.to_json() == found.to_json()
        assert count(rows, "x", again).tolist() == found.counts.tolist()
