"""The files of a Delta table that is partitioned by day, as Arrow reads them.

Belongs here: which files are opened, and by what. Does not: what a table means, or how it is written (`storage.tables`, `sources.landing`).
"""

from collections.abc import Sequence, Set

import pyarrow as pa
import pyarrow.dataset as pds
from deltalake import DeltaTable

from ml_assets.folders import Folder
from ml_assets.use_case import Day


def files_of_days(
    table: DeltaTable, root: Folder, name: str, days: Sequence[Day] | None, *, bounded: Set[str] = frozenset({"day"})
) -> pds.Dataset:
    """The files of these days; of all days when None.

    The files of other days are left out by the log. As for those that stay, deltalake states the least and the greatest value of every
    column of each in an expression, which takes longer than to read them: of a year of 30 columns three milliseconds a day.

    Args:
        name: of the table below `root`.
        bounded: the columns of which that is of use.
    """
    schema = pa.schema(table.schema().to_arrow())
    few = pa.schema([field for field in schema if field.name in bounded])
    predicate = None if days is None else [("day", "in", list(days) or ["none"])]
    files = table.to_pyarrow_dataset(file_pruning_predicate=predicate, filesystem=root.arrow(name), schema=few)
    return files.replace_schema(schema)
