"""Whether the rows of a day keep the contract of their table: one Great Expectations pass over a range, one verdict a day.

Belongs here: the expectations that follow from a table's columns and ranges, and who broke them. Does not: repairing or
rejecting rows (`stages.clean`), or what a verdict blocks (`orchestration`).

Great Expectations judges frames with one row a (day, expectation) and one row a day, which pandas counts beforehand: put to the
rows themselves, 391 expectations took 39 s for 336,776 rows x 130 columns and 8 s for 900 rows; this way 1 s and 0.1 s.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.escape import markdown
from ml_assets.use_case import Column, Day, DayRange, DType, Severity, nullable_dtype

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

EXAMPLES = 5
"""Rows named for a broken expectation: enough to start looking, short enough to read."""

FAULTS = 5
"""Broken expectations spelled out in a message; the table has all."""

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One expectation, judged for one day.

    `unexpected` rows break the expectation (0 where it is about the whole day); `examples` name the first few by their key.
    """

    expectation: str
    passed: bool
    severity: Severity
    observed: str
    unexpected: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        examples = f", e.g. {', '.join(self.examples)}" if self.examples else ""
        return f"{self.expectation}: {self.observed}{examples}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was found about one day."""

    day: Day
    rows: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """No finding of severity ERROR failed."""
        return not any(finding.severity is Severity.ERROR for finding in self.failed)

    @property
    def warned(self) -> bool:
        """Some finding of severity WARN failed."""
        return any(finding.severity is Severity.WARN for finding in self.failed)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that failed, errors before warnings."""
        failed = [finding for finding in self.findings if not finding.passed]
        return tuple(sorted(failed, key=lambda finding: finding.severity is Severity.WARN))

    def message(self) -> str:
        """What failed, with rows, rule and examples, on one line: the first few, errors before warnings."""
        if not self.failed:
            return "1 expectation holds" if len(self.findings) == 1 else f"{len(self.findings)} expectations hold"
        faults = "; ".join(f"{finding.severity}: {finding}" for finding in self.failed[:FAULTS])
        more = f"; and {len(self.failed) - FAULTS} more" if len(self.failed) > FAULTS else ""
        return f"{len(self.failed)} of {len(self.findings)} expectations do not hold on {self.day}: {faults}{more}"

    def table(self) -> str:
        """All findings as a Markdown table, failed ones first."""
        findings = [*self.failed, *(finding for finding in self.findings if finding.passed)]
        return "\n".join([*_TABLE_HEAD, *map(_table_line, findings)])


_TABLE_HEAD = ("| expectation | holds | severity | observed | examples |", "|---|---|---|---|---|")


def _table_line(finding: Finding) -> str:
    cells = [
        markdown(finding.expectation),
        "yes" if finding.passed else "**no**",
        finding.severity,
        markdown(finding.observed),
        markdown(", ".join(finding.examples)),
    ]
    return f"| {' | '.join(cells)} |"


def audit(
    rows: pd.DataFrame,
    *,
    days: Sequence[Day],
    columns: Sequence[Column],
    key: Sequence[str],
    ranges: Sequence[DayRange] = (),
    also: Mapping[Day, Sequence[Finding]] | None = None,
) -> dict[Day, Verdict]:
    """One Great Expectations pass over a range of days, one verdict a day.

    Args:
        rows: the columns, those of the key, and `day`, the partition key of each row's day.
        days: the days to judge. What holds for rows holds for a day without rows; its `ranges` on `rows` may not.
        columns: the contract, of severity ERROR. A column that is missing or of another dtype fails every day, and
            nothing else is asked of it.
        key: what no two rows of one day share; other days are not looked at, so a day is judged alike in any range.
        ranges: bounds on figures of the day. A figure that is undefined (the mean of no values) is within any bound.
        also: findings from elsewhere, added to those of their day.

    Raises:
        ValueError: rows or findings of a day that is not in `days`, or a key or figure without its column.
        RuntimeError: an expectation could not be evaluated.
    """
    further = also or {}
    _require_known(further, days, what="findings")
    _require_known(rows["day"].unique(), days, what="rows")
    _require_columns(rows, columns=columns, key=key, ranges=ranges)
    of_day = pd.Categorical(rows["day"], categories=list(days)).codes.astype(np.int64)
    types, sound = _judge_types(rows, columns)
    by_row = _judge_rows(rows, of_day, days=days, rules=_rules(sound, key=key if set(key) <= set(rows) else ()), key=key)
    broken = {column.name for column in columns} - {column.name for column in sound}
    by_day = _judge_figures(rows, of_day, days=days, ranges=[bound for bound in ranges if _column_of(bound) not in broken])
    counts = np.bincount(of_day, minlength=len(days))
    return {
        day: Verdict(day=day, rows=int(count), findings=(*types, *by_row[day], *by_day[day], *further.get(day, ())))
        for day, count in zip(days, counts, strict=True)
    }


def _require_known(found: Collection[Any] | npt.NDArray[Any], days: Sequence[Day], *, what: str) -> None:
    if strange := [str(day) for day in found if day not in set(days)]:
        raise ValueError(f"{what} of days that are not judged: {', '.join(strange[:EXAMPLES])}; pass only those of `days`")


def _require_columns(rows: pd.DataFrame, *, columns: Sequence[Column], key: Sequence[str], ranges: Sequence[DayRange]) -> None:
    known = {*map(str, rows.columns), *(column.name for column in columns)}
    needed = {*key, *(name for bound in ranges if (name := _column_of(bound)))}
    if missing := sorted(needed - known):
        raise ValueError(f"the key or a figure of the day needs {', '.join(missing)}: neither in the rows nor declared")


def _judge_types(rows: pd.DataFrame, columns: Sequence[Column]) -> tuple[list[Finding], list[Column]]:
    """Findings that hold for every day, and the columns which are there in their dtype."""
    from great_expectations.expectations.core.expect_column_pair_values_to_be_equal import ExpectColumnPairValuesToBeEqual

    schema = pd.DataFrame(
        [(c.name, str(rows[c.name].dtype) if c.name in rows else "missing", str(nullable_dtype(c.dtype))) for c in columns],
        columns=["column", "got", "wanted"],
    )
    (wrong,) = _unexpected(schema, [ExpectColumnPairValuesToBeEqual(column_A="got", column_B="wanted")], index=["column"])
    findings = [
        Finding(expectation=f"{name} is {wanted}", passed=(name,) not in wrong, severity=Severity.ERROR, observed=got)
        for name, got, wanted in schema.itertuples(index=False)
    ]
    return findings, [column for column in columns if (column.name,) not in wrong]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """What every row must keep; `column` is what an example shows beside the key."""

    expectation: str
    broken_by: Callable[[pd.DataFrame], BoolArray]
    column: str | None = None


def _rules(columns: Sequence[Column], *, key: Sequence[str]) -> list[_Rule]:
    rules = [rule for column in columns for rule in _column_rules(column)]
    if not key:
        return rules
    unique = _Rule(
        expectation=f"{'/'.join(key)} is unique",
        broken_by=lambda rows: rows.duplicated(list(dict.fromkeys(["day", *key])), keep=False).to_numpy(),
    )
    return [unique, *rules]


def _column_rules(column: Column) -> Iterator[_Rule]:
    name, low, high, allowed = column.name, column.minimum, column.maximum, column.allowed
    if not column.nullable:
        yield _Rule(expectation=f"{name} is never missing", column=name, broken_by=lambda rows: rows[name].isna().to_numpy())
    if column.dtype is DType.FLOAT64:
        yield _Rule(expectation=f"{name} is finite", column=name, broken_by=lambda rows: np.isinf(rows[name].to_numpy()))
    if low is not None or high is not None:
        yield _Rule(expectation=f"{name} {_bounds(low, high)}", column=name, broken_by=lambda rows: _outside(rows[name], low, high))
    if allowed:
        yield _Rule(
            expectation=f"{name} is one of {', '.join(allowed)}",
            column=name,
            broken_by=lambda rows: (rows[name].notna() & ~rows[name].isin(allowed)).to_numpy(),
        )


def _outside(values: pd.Series, low: float | None, high: float | None) -> BoolArray:
    """A missing value is not outside."""
    array = values.to_numpy()
    below = array < low if low is not None else np.zeros(len(array), dtype=np.bool_)
    above = array > high if high is not None else np.zeros(len(array), dtype=np.bool_)
    return np.asarray(below | above, dtype=np.bool_)


def _judge_rows(
    rows: pd.DataFrame, of_day: IntArray, *, days: Sequence[Day], rules: Sequence[_Rule], key: Sequence[str]
) -> dict[Day, list[Finding]]:
    counts = np.array([np.bincount(of_day[rule.broken_by(rows)], minlength=len(days)) for rule in rules], dtype=np.int64)
    of_days = np.bincount(of_day, minlength=len(days))
    tally = pd.DataFrame(
        {
            "day": np.tile(np.array(days, dtype=object), len(rules)),
            "expectation": np.repeat([rule.expectation for rule in rules], len(days)),
            "unexpected": counts.reshape(-1),
        }
    )
    (failed,) = _unexpected(tally, [_between("unexpected", None, 0)], index=["expectation", "day"])
    suspects = {expectation for expectation, _ in failed}
    findings: dict[Day, list[Finding]] = {day: [] for day in days}
    for rule, unexpected in zip(rules, counts, strict=True):
        examples = _examples(rows, of_day, rule, key=key) if rule.expectation in suspects else {}
        for position, day in enumerate(days):
            finding = Finding(
                expectation=rule.expectation,
                passed=(rule.expectation, day) not in failed,
                severity=Severity.ERROR,
                observed=f"{unexpected[position]} of {of_days[position]} rows",
                unexpected=int(unexpected[position]),
                examples=examples.get(position, ()),
            )
            findings[day].append(finding)
    return findings


def _examples(rows: pd.DataFrame, of_day: IntArray, rule: _Rule, *, key: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """The first rows of each day (its position) that break the rule, by name."""
    broken = np.flatnonzero(rule.broken_by(rows))
    first = pd.Series(broken).groupby(of_day[broken]).head(EXAMPLES).to_numpy()
    names = _names(rows, first, key=key)
    if rule.column:
        values = rows[rule.column].iloc[first]
        names = [f"{name}: {rule.column}={value}" for name, value in zip(names, values, strict=True)]
    named: dict[int, tuple[str, ...]] = {}
    for day, name in dict.fromkeys(zip(of_day[first].tolist(), names, strict=True)):
        named[day] = (*named.get(day, ()), name)
    return named


def _names(rows: pd.DataFrame, positions: IntArray, *, key: Sequence[str]) -> list[str]:
    """What rows are called: by their key, or by their number where the key itself is missing."""
    known = [rows[name].iloc[positions] for name in key if name in rows]
    return ["/".join(map(str, values)) for values in zip(*known, strict=True)] or [f"row {position}" for position in positions]


def _judge_figures(
    rows: pd.DataFrame, of_day: IntArray, *, days: Sequence[Day], ranges: Sequence[DayRange]
) -> dict[Day, list[Finding]]:
    sentences = [_sentence(bound) for bound in ranges]
    figures = {bound.figure: _figure(rows, of_day, bound.figure, days=len(days)) for bound in ranges}
    expectations = [_between(bound.figure, bound.minimum, bound.maximum) for bound in ranges]
    failed = _unexpected(pd.DataFrame({"day": list(days), **figures}), expectations, index=["day"])
    return {
        day: [
            Finding(
                expectation=sentence,
                passed=(day,) not in broken,
                severity=bound.severity,
                observed=_number(figures[bound.figure][position]),
            )
            for bound, sentence, broken in zip(ranges, sentences, failed, strict=True)
        ]
        for position, day in enumerate(days)
    }


_FIGURES = {"rows": "rows a day", "null_share": "share of {} missing a day", "mean": "mean of {} a day"}


def _column_of(bound: DayRange) -> str:
    """The column a figure is about, or nothing.

    >>> _column_of(DayRange(figure="mean:distance_miles"))
    'distance_miles'
    """
    return bound.figure.partition(":")[2]


def _sentence(bound: DayRange) -> str:
    """What a day must be.

    >>> _sentence(DayRange(figure="null_share:gust_mph", maximum=0.9))
    'share of gust_mph missing a day is at most 0.9'
    """
    kind = bound.figure.partition(":")[0]
    if kind not in _FIGURES:
        raise ValueError(f"figure {bound.figure!r} is unknown; known are rows, null_share:<column> and mean:<column>")
    return f"{_FIGURES[kind].format(_column_of(bound))} {_bounds(bound.minimum, bound.maximum)}"


def _figure(rows: pd.DataFrame, of_day: IntArray, figure: str, *, days: int) -> npt.NDArray[np.float64]:
    """A figure of each day: shape (days,), nan where it is undefined because the day has no (such) rows."""
    kind, _, column = figure.partition(":")
    if kind == "rows":
        return np.bincount(of_day, minlength=days).astype(np.float64)
    values = rows[column].isna() if kind == "null_share" else rows[column]
    means = values.astype(np.float64).groupby(of_day).mean()
    return np.asarray(means.reindex(range(days)), dtype=np.float64)


def _bounds(low: float | None, high: float | None) -> str:
    """What a number must be.

    >>> _bounds(1, 6000), _bounds(0.5, None)
    ('is between 1 and 6000', 'is at least 0.5')
    """
    match low, high:
        case None, None:
            raise ValueError("a range needs a minimum or a maximum")
        case None, _:
            return f"is at most {_number(high)}"
        case _, None:
            return f"is at least {_number(low)}"
        case _:
            return f"is between {_number(low)} and {_number(high)}"


def _number(value: float | None) -> str:
    """A whole number in full, another to six digits.

    >>> _number(6000.0), _number(1234567), _number(1 / 3), _number(float("nan"))
    ('6000', '1234567', '0.333333', 'undefined')
    """
    if value is None or np.isnan(value):
        return "undefined"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def _between(column: str, low: float | None, high: float | None) -> "Expectation":
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween

    return ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _unexpected(frame: pd.DataFrame, expectations: Sequence["Expectation"], *, index: Sequence[str]) -> list[set[tuple[Any, ...]]]:
    """For each expectation, the rows of the frame that break it, named by their values in `index`.

    Great Expectations reports a missing column or its own failure in `exception_info`, beside the verdict: here it raises.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    if frame.empty or not expectations:
        return [set() for _ in expectations]
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    outcome = [batch.validate(expectation, result_format=_result_format(index)) for expectation in expectations]
    return [_rows_named(result, index) for result in outcome]


def _result_format(index: Sequence[str]) -> Any:
    return {"result_format": "COMPLETE", "unexpected_index_column_names": list(index)}


def _rows_named(result: Any, index: Sequence[str]) -> set[tuple[Any, ...]]:
    if result.exception_info and result.exception_info.get("raised_exception", True):
        raise RuntimeError(f"Great Expectations could not evaluate {result.expectation_config}: {result.exception_info}")
    named = {tuple(row[name] for name in index) for row in result.result["unexpected_index_list"]}
    if bool(named) is bool(result.success):
        raise RuntimeError(f"Great Expectations contradicts itself about {result.expectation_config}: {result.result}")
    return named
