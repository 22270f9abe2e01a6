"""What of a file says how it is written: a `Dialect`, with a line for each inference.

Belongs here: guesses that a person sees before they count. Does not: reading by a dialect (`sources.canonical`).
"""

import pyarrow as pa

from ml_assets.sources.dialect import Dialect


def infer_csv(content: bytes) -> Dialect:
    """How a CSV file (unpacked) is written: everything of a `Dialect`.

    What can be read in two ways, such as 03/04/2024 in every row, is a question and keeps the default.
    """
    raise NotImplementedError


def infer_columns(table: pa.Table) -> Dialect:
    """How the text columns of Parquet, JSON lines or a database are written: what of a `Dialect` is not CSV."""
    raise NotImplementedError
