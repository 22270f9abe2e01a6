"""An id made of columns: the same for a row alone and among others, another for other values."""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.stages.row_ids import row_ids

times = st.none() | st.datetimes(
    min_value=pd.Timestamp("1900-01-01").to_pydatetime(), max_value=pd.Timestamp("2200-01-01").to_pydatetime()
)
rows = st.lists(
    st.tuples(st.none() | st.text(max_size=5), st.none() | st.floats(), times, st.integers(0, 9)), min_size=1, max_size=20
)


def frame(values: list[tuple[object, ...]]) -> pd.DataFrame:
    text, number, time, whole = zip(*values, strict=True)
    return pd.DataFrame(
        {
            "text": pd.Series(text, dtype="str"),
            "number": pd.Series(number, dtype="float64"),
            "time": pd.Series(pd.to_datetime(pd.Series(time, dtype="object"), utc=True)).dt.as_unit("us"),
            "whole": pd.Series(whole, dtype="int64"),
        }
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows)
def test_ids_differ_as_rows_do_and_are_the_same_alone(values: list[tuple[object, ...]]) -> None:
    table = frame(values)
    names = list(table.columns)
    ids = row_ids(table, names)
    assert ids.str.len().eq(32).all()
    for place in range(len(table)):
        assert row_ids(table.iloc[[place]], names).tolist() == [ids[place]]
    plain = [repr([None if pd.isna(each) else each for each in row]) for row in table.itertuples(index=False)]
    assert len(set(plain)) == ids.nunique()


def test_no_two_rows_meet_by_where_a_text_ends() -> None:
    table = pd.DataFrame({"a": ["x", "x', 'y", "x\x1f"], "b": ["y', 'z", "z", "y"]}, dtype="str")
    assert row_ids(table, ["a", "b"]).nunique() == 3
