"""What a source delivered, reconciled with what it should have delivered.

Belongs here: whether a delivery is whole. Does not: what its values mean (`stages.clean`).
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from ml_assets.sources.files import PROVENANCE, delivered_as
from ml_assets.stages.quality import EXAMPLES, Finding
from ml_assets.use_case import Batch, Day, Severity, Table


def ingested(batch: Batch, table: Table, days: Sequence[Day]) -> pd.DataFrame:
    """The delivered rows of the days that could be read, in the order in which they were delivered.

    A column of the contract that no day delivered is there, without values, so that a day looks alike in any range.

    Raises:
        ValueError: the source broke its protocol: a provenance column is absent, rows of a day that was not asked for or
            has a problem, or a day that is neither counted nor a problem.
    """
    if absent := [name for name in PROVENANCE if name not in batch.rows]:
        raise ValueError(f"the source delivered rows without {', '.join(absent)}: every source adds them")
    readable = [day for day in days if day not in batch.problems]
    if unknown := [day for day in readable if day not in batch.counted]:
        raise ValueError(f"the source neither counted nor reported a problem for {', '.join(unknown)}")
    if stray := sorted(set(batch.rows["day"].unique()) - set(readable)):
        raise ValueError(
            f"the source delivered rows of {', '.join(map(str, stray))}, which were not asked for or could not be read"
        )
    rows = batch.rows.reset_index(drop=True)
    absent = [name for column in table.delivered if (name := delivered_as(column.name)) not in rows]
    return rows.assign(**{name: pd.Series(pd.NA, index=rows.index, dtype="str") for name in absent})


def delivery_findings(
    batch: Batch, table: Table, days: Sequence[Day], *, written: Mapping[Day, int] | None = None
) -> dict[Day, list[Finding]]:
    """Whether each day arrived whole. Of a day that could not be read, nothing more is asked.

    Args:
        written: for each day the number of rows that a job says it wrote for it, where one did.
    """
    counts = batch.rows["day"].value_counts()
    repeated = _repeated(batch.rows)
    findings: dict[Day, list[Finding]] = {}
    for day in days:
        if day in batch.problems:
            findings[day] = [_readable(batch.problems[day])]
            continue
        rows = int(counts.get(day, 0))
        delivered = batch.rows.columns if batch.columns is None else batch.columns[day]
        absent = [column.name for column in table.delivered if delivered_as(column.name) not in delivered]
        findings[day] = [
            _readable(None),
            _complete(rows, batch.counted.get(day)),
            _columns(absent, rows),
            _once(repeated.get(day, [])),
        ]
        if written is not None:
            findings[day].append(_all_written(rows, written[day]))
    return findings


def _readable(problem: str | None) -> Finding:
    return Finding(
        expectation="the source could be read",
        passed=problem is None,
        severity=Severity.ERROR,
        observed=problem or "it could be read",
    )


def _complete(rows: int, counted: int | None) -> Finding:
    return Finding(
        expectation="every row that the source counts arrived",
        passed=rows == counted,
        severity=Severity.ERROR,
        observed=f"{rows} rows arrived, the source counts {'none of this day' if counted is None else counted}",
    )


def _all_written(rows: int, written: int) -> Finding:
    return Finding(
        expectation="every row that the job wrote arrived",
        passed=rows == written,
        severity=Severity.ERROR,
        observed=f"{rows} rows arrived, the job says that it wrote {written}",
    )


def _columns(absent: Sequence[str], rows: int) -> Finding:
    """Judged for a day with rows."""
    lacking = absent if rows else ()
    return Finding(
        expectation="every column of the contract was delivered",
        passed=not lacking,
        severity=Severity.ERROR,
        observed=f"not delivered: {', '.join(lacking)}" if lacking else "all columns" if rows else "no rows",
    )


def _once(repeated: Sequence[str]) -> Finding:
    return Finding(
        expectation="no row was delivered twice",
        passed=not repeated,
        severity=Severity.WARN,
        observed=f"{len(repeated)} rows equal an earlier one of the day",
        unexpected=len(repeated),
        examples=tuple(repeated[:EXAMPLES]),
    )


def _repeated(rows: pd.DataFrame) -> dict[Day, list[str]]:
    """For each day, the rows whose delivered content equals that of an earlier row of the day."""
    content = rows[["day", *(name for name in rows.columns if name not in PROVENANCE)]]
    # Two rows of one hash are a suspicion only; hashing first is twice as fast as comparing 336,776 rows x 19 columns.
    suspect = pd.util.hash_pandas_object(content, index=False).duplicated(keep=False).to_numpy()
    again = rows[suspect][content[suspect].duplicated().to_numpy()]
    named = "row " + again["source_row"].astype(str) + " of " + again["source_file"]
    return {str(day): texts.tolist() for day, texts in named.groupby(again["day"])}
