"""Ids of rows that have none: made of what they hold.

Belongs here: one id from some columns. Does not: what becomes of rows with the same id (`stages.clean`).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

BYTES = 16
"""Of a hash: among a thousand million rows, two have the same by accident with a chance of one in 10^21."""


def row_ids(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """For each row a hash of these columns, 32 hexadecimal digits; the same for a row alone and among others.

    Args:
        rows: typed as the table is delivered, so that 17 and 17.0 of a column of floats are one value. A missing value is one of its own.
        columns: at least one, in a fixed order.
    """
    values = zip(*(_plain(rows[name]) for name in columns), strict=True)
    # The repr of a tuple of texts and numbers: no separator that a text could hold.
    ids = [hashlib.blake2b(repr(each).encode("utf-8", "surrogatepass"), digest_size=BYTES).hexdigest() for each in values]
    return pd.Series(ids, index=rows.index, dtype="str")


def _plain(values: pd.Series) -> list[Any]:
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = values.dt.as_unit("us").dt.tz_convert("UTC").astype("int64").where(values.notna())
        return [None if pd.isna(each) else int(each) for each in values.tolist()]
    return [None if missing else each for each, missing in zip(values.tolist(), values.isna().tolist(), strict=True)]
