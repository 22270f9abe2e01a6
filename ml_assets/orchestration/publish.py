"""Audit before publish: from the rows of a range to what Dagster is told about each of its days.

A day that fails an ERROR check is not committed, not materialised, and its check is red; all other days of the same step go on, and so
does the run. Dagster itself knows no such thing: an output stands for the whole range (docs/adr/0002-a-bad-day-blocks-itself.md).
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData as Target
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from ml_assets.escape import markdown, plain
from ml_assets.orchestration.planning import NotMade
from ml_assets.stages.quality import Verdict
from ml_assets.storage.tables import Entry, Tables, fingerprint
from ml_assets.use_case import Column, Day, DType, UseCase

_ARROW = {
    DType.STRING: pa.string(),
    DType.INT64: pa.int64(),
    DType.FLOAT64: pa.float64(),
    DType.BOOL: pa.bool_(),
    DType.TIMESTAMP: pa.timestamp("us", "UTC"),
}
_MOST_FINDINGS_SHOWN = 40
_MOST_COLUMNS_REPEATED = 40
"""Wider tables have their column schema on the asset alone: 137 columns on each of 365 days would be 14 MB for one page of the UI."""

_REPORTED_ELSEWHERE = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""On an output: downstream steps may go on, but do not mark the whole range as materialised."""

Event = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation | dg.Output[None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """The rows that a stage made of a table, and what was found about them.

    `inputs` names every day that was made (see `Tables.publish`); `checks` has, for each check of the asset, a verdict for each of these
    days; `notes` go into the ledger, `shown` into the metadata of the materialisation.
    """

    table: str
    rows: pd.DataFrame
    columns: Sequence[Column]
    inputs: Mapping[Day, str]
    checks: Mapping[str, Mapping[Day, Verdict]] = field(default_factory=dict)
    notes: Mapping[Day, Mapping[str, Any]] = field(default_factory=dict)
    shown: Mapping[Day, Mapping[str, Any]] = field(default_factory=dict)
    blocks: bool = True
    """Whether a day that fails a check stays unpublished. A log is what it is: it is kept, and the check is red."""

    @property
    def good(self) -> dict[Day, str]:
        """The days, with their inputs, that no check stands against."""
        if not self.blocks:
            return dict(self.inputs)
        return {
            day: made_from for day, made_from in self.inputs.items() if all(check[day].passed for check in self.checks.values())
        }


def check_spec(
    case: UseCase, table: str, name: str, description: str, partitions: dg.PartitionsDefinition | None, *, blocks: bool = True
) -> dg.AssetCheckSpec:
    """A check of each day by itself, which blocks it or does not."""
    with warnings.catch_warnings():
        # Partitioned checks are in preview in Dagster 1.13; an unpartitioned one would release a bad day with the next good one.
        warnings.simplefilter("ignore", category=dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name, asset=[case.name, table], description=description, blocking=blocks, partitions_def=partitions
        )


def publish(
    context: dg.AssetExecutionContext,
    tables: Tables,
    made: Made,
    checks: Sequence[dg.AssetCheckSpec],
    provenance: Mapping[Day, Mapping[str, str]],
) -> Iterator[Event]:
    """Commit the good days and report every day that was asked for, with the tags that say what it was made from."""
    key = dg.AssetKey([tables.case, made.table])
    good = made.good
    started = time.monotonic()
    rows = made.rows[made.rows["day"].isin(list(good))] if len(good) < len(made.inputs) else made.rows
    entries = tables.publish(made.table, rows, schema=schema_of(made.columns), inputs=good, notes=made.notes)
    took = time.monotonic() - started
    refused = len(made.inputs) - len(good)
    context.log.info(
        f"{made.table}: {len(good)} of {len(made.inputs)} days published in {took:.1f} s"
        + (f", {refused} refused by a check" if refused else "")
    )
    metadata = _metadata(rows, made, entries)
    for day, entry in entries.items():
        tags = {DATA_VERSION_TAG: entry.content, **provenance[day]}
        yield dg.AssetMaterialization(key, partition=_partition(context, day), metadata=metadata[day], tags=tags)
    targets = latest_materializations(context, key) if checks else {}
    for spec in checks:
        yield from _evaluations(context, spec, made, targets)


def not_made(
    context: dg.AssetExecutionContext, held_back: Mapping[Day, NotMade], checks: Sequence[dg.AssetCheckSpec]
) -> Iterator[dg.AssetCheckEvaluation]:
    """A check result for each day that could not be made, with the reason: an error unless nothing is wrong."""
    for spec in checks if held_back else ():
        targets = latest_materializations(context, spec.asset_key)
        for day, why in held_back.items():
            yield evaluation(
                spec,
                _partition(context, day),
                targets,
                passed=False,
                severity=dg.AssetCheckSeverity.WARN if why.expected else dg.AssetCheckSeverity.ERROR,
                description=f"not made: {why.reason}",
                metadata={},
            )


def outputs(case: str, table: str, checks: Sequence[dg.AssetCheckSpec]) -> Iterator[dg.Output[None]]:
    """What ends a step and lets downstream steps go on, without a word on which partitions were materialised."""
    for spec in checks:
        yield dg.Output(None, output_name=spec.get_python_identifier())
    yield dg.Output(None, output_name=f"{case}__{table}", metadata=_REPORTED_ELSEWHERE)


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Arrow schema of a table: its columns, then `day`."""
    return pa.schema([*((column.name, _ARROW[column.dtype]) for column in columns), ("day", pa.string())])


def table_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """The columns as the Dagster UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.dtype.value,
                description=" ".join(part for part in (column.description, column.unit and f"[{markdown(column.unit)}]") if part),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


def _partition(context: dg.AssetExecutionContext, day: Day) -> Day | None:
    return day if context.has_partition_key or context.has_partition_key_range else None


def latest_materializations(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[Day | None, Target]:
    """What a check result of each partition is about. Dagster takes a result that does not name it for out of date, and hides it."""
    if _partition(context, "") is None:
        records = context.instance.fetch_materializations(key, limit=1).records
        latest: dict[Day | None, int] = {None: records[0].storage_id} if records else {}
    else:
        log = context.instance.event_log_storage
        latest = dict(log.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION))
    return {day: Target(storage_id=id, run_id=context.run.run_id, timestamp=time.time()) for day, id in latest.items()}


def _evaluations(
    context: dg.AssetExecutionContext, spec: dg.AssetCheckSpec, made: Made, targets: Mapping[Day | None, Target]
) -> Iterator[dg.AssetCheckEvaluation]:
    for day, verdict in made.checks[spec.name].items():
        if not verdict.passed:
            context.log.error(f"{made.table} {day}{' is not published' if made.blocks else ''}: {verdict.message()}")
        yield evaluation(
            spec,
            _partition(context, day),
            targets,
            passed=verdict.passed and not verdict.warned,
            severity=dg.AssetCheckSeverity.ERROR if not verdict.passed else dg.AssetCheckSeverity.WARN,
            description=verdict.message(),
            metadata={
                "expectations": dg.MarkdownMetadataValue(_shown(verdict)),
                "rows": verdict.rows,
                "failed": len(verdict.failed),
            },
        )


def evaluation(
    spec: dg.AssetCheckSpec, partition: Day | None, targets: Mapping[Day | None, Target], *, description: str, **findings: Any
) -> dg.AssetCheckEvaluation:
    """The result of a check for one partition, about its latest materialisation.

    Args:
        description: plain text; the web interface takes a description for Markdown, so that it is escaped here (`described` reads it).
    """
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        partition=partition,
        target_materialization_data=targets.get(partition),
        # True would fail the step, and with it every good day downstream. What blocks is that the day is not published.
        blocking=False,
        description=markdown(description),
        **findings,
    )


def described(check: dg.AssetCheckEvaluation) -> str:
    """The description of a result of `evaluation`, as plain text."""
    return plain(check.description or "")


def _shown(verdict: Verdict) -> str:
    if len(verdict.findings) <= _MOST_FINDINGS_SHOWN:
        return verdict.table()
    lines = verdict.table().splitlines()[: 2 + max(len(verdict.failed), 10)]
    return "\n".join([*lines, "", f"{len(verdict.findings)} expectations in all, {len(verdict.failed)} of which do not hold."])


def _metadata(rows: pd.DataFrame, made: Made, entries: Mapping[Day, Entry]) -> dict[Day, dict[str, Any]]:
    """What the UI shows for each day: row count, null shares, where the rows are, and what the stage adds."""
    nullable = [column.name for column in made.columns if column.nullable]
    shares = rows[nullable].isna().groupby(rows["day"]).mean().to_dict("index") if nullable else {}
    described: dict[str, Any] = {
        "schema": f"{len(made.columns)} columns, {fingerprint([(column.name, column.dtype) for column in made.columns])}"
    }
    if len(made.columns) <= _MOST_COLUMNS_REPEATED:
        described |= {"dagster/column_schema": table_schema(made.columns)}
    found = {}
    for day, entry in entries.items():
        nulls = {str(name): float(share) for name, share in shares.get(day, {}).items()}
        worst = sorted((item for item in nulls.items() if item[1] > 0), key=lambda item: -item[1])[:20]
        found[day] = {
            "dagster/row_count": entry.rows,
            "null_share": round(sum(nulls.values()) / len(nulls), 4) if nulls else 0.0,
            **described,
            "delta_version": entry.version,
            "content_hash": entry.content,
            **made.shown.get(day, {}),
            **({"null_shares": dg.MetadataValue.json({name: round(share, 4) for name, share in worst})} if worst else {}),
        }
    return found
