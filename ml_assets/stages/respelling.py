"""Does a delivery write keys and categories otherwise than the days before? Then one customer would become two, and lose his past.

Belongs here: the comparison with earlier days. Does not: the spelling that is declared, which no value leaves (`stages.spelling`).
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ml_assets.stages.quality import EXAMPLES, Finding
from ml_assets.stages.values import shown
from ml_assets.use_case import Day, DType, Severity, Table, UseCase, shift

LOOK_BACK_DAYS = 14
MOST_RESPELLED = 0.05
"""Share of a day's values from which on the day is not published."""
_WHOLE = re.compile(r"([+-]?)0*([0-9]+)(?:\.0*)?", re.ASCII)
_WORDS = {"t": "true", "yes": "true", "y": "true", "f": "false", "no": "false", "n": "false"}


def compared_columns(case: UseCase, table: Table) -> list[str]:
    """The text columns of a table by which features look up a past, or which are categories."""
    declared = case.features
    names = {name for each in declared.trailing if each.fact.table == table.name for entity in each.entities for name in entity}
    names |= {name for each in declared.latest if each.table == table.name for name in each.entity}
    if table.name == case.events:
        names |= {*(lookup.by for lookup in declared.lookups), *declared.event_columns}
    return [column.name for column in table.columns if column.name in names and column.dtype is DType.STRING]


def respelling_findings(rows: pd.DataFrame, days: Sequence[Day], columns: Sequence[str]) -> dict[Day, list[Finding]]:
    """For each day and column, whether its values are written as on the days before.

    Args:
        rows: the columns and `day`, of these days and of `LOOK_BACK_DAYS` before each of them.
    """
    findings: dict[Day, list[Finding]] = {day: [] for day in days}
    for name in columns:
        counts = rows.groupby(["day", name]).size().rename("rows").reset_index()
        suspects = _several_spellings(counts, name)
        for day in days:
            findings[day].append(_finding(name, day, counts, suspects))
    return findings


def folded(text: str) -> str:
    """What is left of a value without its spelling: values that fold to the same are one value, written in two ways.

    >>> folded("017.0"), folded("17"), folded("True"), folded("yes")
    ('17', '17', 'true', 'true')
    """
    small = text.strip().casefold()
    if number := _WHOLE.fullmatch(small):
        return f"{number[1].replace('+', '')}{number[2]}"
    return _WORDS.get(small, small)


def _several_spellings(counts: pd.DataFrame, name: str) -> pd.DataFrame:
    """Of the values of days those that are written in more than one way, with `folded`."""
    values = counts[name].unique()
    fold = dict(zip(values.tolist(), map(folded, values.tolist()), strict=True))
    several = pd.Series(list(fold.values())).value_counts() > 1
    pairs = counts.assign(folded=counts[name].map(fold))
    return pairs[pairs["folded"].isin(several.index[several])]


def _finding(name: str, day: Day, counts: pd.DataFrame, suspects: pd.DataFrame) -> Finding:
    of_day = suspects[suspects["day"] == day]
    before = suspects[(suspects["day"] < day) & (suspects["day"] >= shift(day, -LOOK_BACK_DAYS))]
    first_way = before.drop_duplicates("folded").set_index("folded")[name]
    other = of_day[of_day["folded"].isin(first_way.index) & ~of_day[name].isin(before[name])]
    count, total = int(other["rows"].sum()), int(counts.loc[counts["day"] == day, "rows"].sum())
    examples = tuple(
        f"{shown(value)}, before {shown(first_way[key])}"
        for value, key in zip(other[name].head(EXAMPLES), other["folded"].head(EXAMPLES), strict=True)
    )
    severe = count > MOST_RESPELLED * total
    return Finding(
        expectation=f"{name} is written as on the days before",
        passed=not count,
        severity=Severity.ERROR if severe or not count else Severity.WARN,
        observed=f"{count} of {total} values are written otherwise" + ("; declare a spelling of the column" if count else ""),
        unexpected=count,
        examples=examples,
    )


def with_earlier(rows: pd.DataFrame, earlier: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """What is compared: rows of the days and of those before, which lie in another table or in none."""
    names = [*columns, "day"]
    parts = [part[names] for part in (earlier, rows) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else rows[names].iloc[:0].astype(dict.fromkeys(names, np.dtype(object)))
