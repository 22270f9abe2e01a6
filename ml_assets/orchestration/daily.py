"""The daily assets: what each stage reads, which pure function it calls, which verdicts it hands to `publish`.

A step gets a range of days, often one, and there is no second code path for either. `Days` is that range.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg
import pandas as pd

from ml_assets.orchestration.partitions import case_days, days_back
from ml_assets.orchestration.planning import Recipe, expected_inputs, recipes, versions_in_force
from ml_assets.orchestration.publish import Event, Made, check_spec, not_made, outputs, publish, table_schema
from ml_assets.orchestration.repeats import published_elsewhere, with_repeats
from ml_assets.orchestration.staleness import observations, observations_after, provenance_tags, seen_by_now
from ml_assets.orchestration.store import Store
from ml_assets.settings import settings
from ml_assets.sources.files import PROVENANCE
from ml_assets.stages import features, ingest, labels, package, point_in_time, score
from ml_assets.stages.clean import Cleaned, accounting_findings, clean, no_rows
from ml_assets.stages.identity import Cause
from ml_assets.stages.quality import Finding, Verdict, audit
from ml_assets.stages.respelling import LOOK_BACK_DAYS, compared_columns, respelling_findings, with_earlier
from ml_assets.stages.stretches import stretches
from ml_assets.storage.tables import Tables
from ml_assets.use_case import WHOLE, Column, Day, DType, Label, Table, UseCase, shift

SOURCE_COLUMNS = (
    Column(name="source_file", dtype=DType.STRING, description="where the row was delivered"),
    Column(name="source_row", dtype=DType.INT64, description="its row there, from 1, without the header", minimum=1),
)
REJECTED_COLUMNS = (
    *SOURCE_COLUMNS,
    Column(name="reason", dtype=DType.STRING),
    Column(
        name="cause", dtype=DType.STRING, allowed=tuple(Cause), description="duplicates and corrections are set aside, and no fault"
    ),
    Column(name="key", dtype=DType.STRING, nullable=True, description="of a row that is sound by itself"),
    Column(name="content", dtype=DType.STRING, description="the row as delivered, JSON"),
)


HEAVY = "heavy"
"""Pool of the steps that take all cores and most of the memory: dagster.yaml lets one run of them at a time."""
READ_AGAIN = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""A source that fails is asked twice more within ten seconds; after that the night's schedule tries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Days:
    """The days that a step makes, at least one, and what it may read."""

    case: UseCase
    store: Store
    tables: Tables
    inputs: dict[Day, str]
    context: dg.AssetExecutionContext

    def log(self, text: str) -> None:
        self.context.log.info(text)

    @property
    def ready(self) -> list[Day]:
        """The days that can be made."""
        return list(self.inputs)

    def parts(self, bound: tuple[str, int] | None) -> Iterator["Days"]:
        """The days in stretches (`stage` says of what), or all at once. No days, no stretches: all held back, nothing is computed."""
        by, look_back = bound or ("", 0)
        counted = self.tables.ledger(by, self.ready) if by else {}
        rows = {day: counted[day].rows if day in counted else 0 for day in self.ready}
        for stretch in stretches(rows, columns=len(self.case.features.columns), look_back=look_back):
            yield replace(self, inputs={day: self.inputs[day] for day in stretch})

    def around(self, table: str, *, back: int = 0, ahead: int = 0) -> pd.DataFrame:
        """Rows of the ready days and of days around them, as far as they are published."""
        wanted = {shift(day, offset) for day in self.ready for offset in (range(-back, ahead + 1))}
        published = set(self.tables.ledger(table))
        return self.tables.read(table, published & wanted) if published else no_rows(self.case.table(table))

    def figures(self, table: str, column: str) -> dict[Day, int]:
        """A column of a table that has a row a day."""
        rows = self.tables.read(table, self.ready)
        return {str(day): int(value) for day, value in zip(rows["day"], rows[column], strict=True)}


Stage = Callable[[Days], Iterator[Made]]


def raw_asset(case: UseCase, table: Table) -> dg.AssetsDefinition:
    """Rows as delivered, with the file, row and version they came from."""
    check = "every_delivered_row_arrived"
    specs = {table.raw_name: {check: "The source could be read, and every row that it counts is here, once."}}
    return stage(
        case,
        raw_rows(case, table),
        specs,
        recipe=table.raw_name,
        kinds={"csv", "deltalake"},
        daily=table.daily,
        group="raw",
        retries=READ_AGAIN,
    )


def raw_rows(case: UseCase, table: Table) -> Stage:
    """What the source delivers, reconciled with what it should have delivered."""
    check = "every_delivered_row_arrived"

    def make(days: Days) -> Iterator[Made]:
        extract = case.extract_read_by(table.name)
        written = days.figures(extract.name, "rows") if extract and extract.table == table.name else None
        batch = table.source(settings()).read(days.ready)
        rows = ingest.ingested(batch, table, days.ready)
        columns = tuple(_raw_column(str(name)) for name in rows.columns if name != "day")
        verdicts = audit(
            rows,
            days=days.ready,
            columns=columns,
            key=["source_file", "source_row"],
            also=ingest.delivery_findings(batch, table, days.ready, written=written),
        )
        days.log(f"{len(rows):,} rows read for {len(days.ready)} days, {len(batch.problems)} of them with problems")
        yield Made(table=table.raw_name, rows=rows, columns=columns, inputs=days.inputs, checks={check: verdicts})

    return make


def clean_asset(case: UseCase, table: Table) -> dg.AssetsDefinition:
    """Typed, repaired rows without duplicates; what cannot be repaired goes to the rejected table, with the reason."""
    contract, account = f"{table.name}_keep_the_contract", "every_row_is_accounted_for"
    columns = (*table.columns, *SOURCE_COLUMNS)
    specs = {
        table.name: {
            contract: "Types, missing values, ranges, allowed values and keys are as the schema says; figures of the day are usual.",
            account: f"Rows in = rows out + rejected, and at most {table.max_rejected_share:.0%} are rejected.",
        },
        table.rejected_name: {},
    }
    schemas = {table.name: columns, table.rejected_name: REJECTED_COLUMNS}
    return stage(
        case,
        clean_rows(table),
        specs,
        recipe=table.name,
        kinds={"pandas", "deltalake"},
        schemas=schemas,
        daily=table.daily,
        group="clean",
    )


def clean_rows(table: Table) -> Stage:
    """Clean rows, and then the quarantined ones."""
    contract, account = f"{table.name}_keep_the_contract", "every_row_is_accounted_for"
    columns = (*table.columns, *SOURCE_COLUMNS)

    def make(days: Days) -> Iterator[Made]:
        ahead = table.corrections.within_days if table.corrections else 0
        delivered_rows = days.around(table.raw_name, ahead=ahead) if table.daily else days.tables.read(table.raw_name, days.ready)
        cleaned, checks, inputs = _cleaned_in_order(days, table, delivered_rows, contract, account)
        days.log(f"{len(delivered_rows):,} rows in, {len(cleaned.rows):,} out, {len(cleaned.rejected):,} rejected")
        delivered = days.tables.ledger(table.raw_name, days.ready)
        notes = {day: {"raw_version": entry.version, "raw_rows": entry.rows} for day, entry in delivered.items()}
        made = Made(table=table.name, rows=cleaned.rows, columns=columns, inputs=inputs, checks=checks, notes=notes)
        before = days.tables.ledger(table.name, days.ready)
        yield made
        # A refused delivery of a day that stays published as it was leaves its rejected rows as they were, too.
        together = {day: made_from for day, made_from in inputs.items() if day in made.good or day not in before}
        rejected = cleaned.rejected[cleaned.rejected["day"].isin(list(together))]
        yield Made(table=table.rejected_name, rows=rejected, columns=REJECTED_COLUMNS, inputs=together)

    return make


Checks = dict[str, dict[Day, Verdict]]


def _cleaned_in_order(
    days: Days, table: Table, delivered: pd.DataFrame, contract: str, account: str
) -> tuple[Cleaned, Checks, dict[Day, str]]:
    """Clean rows, verdicts and inputs of the days.

    A day that is not published decides nothing about the keys of later days, in a range as when each is made alone: where a later day
    has a key of a bad one, the days after it are cleaned again without it.
    """
    cleaned, checks, inputs = _cleaned(days, table, delivered, contract, account)
    bad = sorted(day for day in days.ready if not all(check[day].passed for check in checks.values()))
    first = next((day for day in bad if any(day == home for of_day in cleaned.repeats.values() for _, home, _ in of_day)), None)
    if first is None:
        return cleaned, checks, inputs
    later = replace(days, inputs={day: made_from for day, made_from in days.inputs.items() if day > first})
    if not later.inputs:
        return cleaned, checks, inputs
    rest = _cleaned_in_order(later, table, delivered[delivered["day"] != first], contract, account)
    until = set(days.ready) - set(later.ready)
    rows, rejected = (
        pd.concat([before[before["day"].isin(until)], after], ignore_index=True)
        for before, after in ((cleaned.rows, rest[0].rows), (cleaned.rejected, rest[0].rejected))
    )
    together = Cleaned(rows=rows, rejected=rejected, repeats={**cleaned.repeats, **rest[0].repeats})
    merged = {name: {**check, **rest[1][name]} for name, check in checks.items()}
    return together, merged, {**inputs, **rest[2]}


def _cleaned(
    days: Days, table: Table, delivered: pd.DataFrame, contract: str, account: str
) -> tuple[Cleaned, Checks, dict[Day, str]]:
    published = published_elsewhere(days.tables, table, set(delivered["day"]))
    cleaned = clean(delivered, table, timezone=days.case.timezone, days=days.ready, published=published)
    raw = delivered[delivered["day"].isin(days.ready)]
    written = _respelled(days, table, cleaned.rows)
    verdicts = audit(cleaned.rows, days=days.ready, columns=table.columns, key=table.key, ranges=table.expectations, also=written)
    counts = raw["day"].value_counts().reindex(days.ready, fill_value=0)
    found = accounting_findings(raw, cleaned, table, days.ready)
    accounts = {day: Verdict(day=day, rows=int(counts[day]), findings=tuple(found[day])) for day in days.ready}
    return cleaned, {contract: verdicts, account: accounts}, with_repeats(days.inputs, cleaned.repeats)


def _respelled(days: Days, table: Table, rows: pd.DataFrame) -> dict[Day, list[Finding]]:
    """Whether keys and categories are written as on the days before, which are in these rows or published."""
    names = compared_columns(days.case, table) if table.daily else []
    if not names:
        return {}
    before = {shift(day, -back) for day in days.ready for back in range(1, LOOK_BACK_DAYS + 1)} - set(days.ready)
    there = sorted(before & set(days.tables.ledger(table.name)))
    earlier = days.tables.read(table.name, there, columns=[*names, "day"]) if there else rows.iloc[:0]
    return respelling_findings(with_earlier(rows, earlier, names), days.ready, names)


def labels_asset(case: UseCase) -> dg.AssetsDefinition:
    """The truth about events, filed under the day on which it became known."""
    check = "labels_are_known_after_the_event"
    columns = labels.label_columns(case)
    specs = {"labels": {check: "No label is known before its event, and each is 0 or 1."}}
    return stage(
        case, label_rows(case), specs, recipe="labels", kinds={"pandas", "deltalake"}, schemas={"labels": columns}, group="labels"
    )


def label_rows(case: UseCase) -> Stage:
    """Labels, by the day on which they became known."""
    check = "labels_are_known_after_the_event"
    columns = labels.label_columns(case)

    def make(days: Days) -> Iterator[Made]:
        own = case.label_table if case.label_table != case.events else None
        reports = days.around(own, back=case.settled_days) if own else None
        events = days.around(case.events, back=case.settled_days)
        rows = labels.label_days(case, events, reports, days.ready)
        days.log(f"{len(rows):,} labels became known")
        found = labels.label_findings(rows, days.ready)
        if reports is not None and isinstance(case.label, Label):
            about = labels.unmatched_findings(case, events, reports, days.ready)
            found = {day: [*of_day, *about[day]] for day, of_day in found.items()}
        verdicts = audit(rows, days=days.ready, columns=columns, key=["event_id"], also=found)
        shown = {
            str(day): {"positives": int(of_day.sum()), "positive_share": float(of_day.mean())}
            for day, of_day in rows.groupby("day")["label"]
        }
        yield Made(table="labels", rows=rows, columns=columns, inputs=days.inputs, checks={check: verdicts}, shown=shown)

    return make


def features_asset(case: UseCase) -> dg.AssetsDefinition:
    """One row an event, computed from what was known at its time."""
    contract, honest = "features_keep_the_contract", "features_are_point_in_time"
    columns = (
        Column(name="event_id", dtype=DType.STRING),
        Column(name="event_time", dtype=DType.TIMESTAMP, description="moment of the prediction"),
        *case.features.columns,
    )
    specs = {
        "features": {
            contract: "Types, ranges and missing values of every feature are as declared, one row an event.",
            honest: "Computed again from a world that ends at the moment of the prediction, the features are the same.",
        }
    }
    return stage(
        case,
        feature_rows(case),
        specs,
        recipe="features",
        kinds={"pandas", "deltalake"},
        schemas={"features": columns},
        group="features",
        bound=(case.events, case.lookback_days),
        pool=HEAVY,
    )


def feature_rows(case: UseCase) -> Stage:
    """Features of events, computed and then computed again without the future."""
    contract, honest = "features_keep_the_contract", "features_are_point_in_time"
    columns = (
        Column(name="event_id", dtype=DType.STRING),
        Column(name="event_time", dtype=DType.TIMESTAMP, description="moment of the prediction"),
        *case.features.columns,
    )

    def make(days: Days) -> Iterator[Made]:
        sources = {table.name: days.around(table.name, back=case.lookback_days_of(table.name)) for table in case.daily_tables}
        sources |= {table.name: days.tables.read(table.name, [WHOLE]) for table in case.dimensions}
        events = sources[case.events]
        rows = features.compute(case, events[events["day"].isin(days.ready)], sources)
        days.log(f"{len(case.features.columns)} features of {len(rows):,} events")
        verdicts = audit(rows, days=days.ready, columns=columns, key=["event_id"])
        seen = point_in_time.look_ahead_findings(case, rows, sources, days.ready)
        counts = rows["day"].value_counts().reindex(days.ready, fill_value=0)
        honesty = {day: Verdict(day=day, rows=int(counts[day]), findings=tuple(seen[day])) for day in days.ready}
        yield Made(
            table="features",
            rows=rows,
            columns=columns,
            inputs=days.inputs,
            checks={contract: verdicts, honest: honesty},
        )

    return make


def scores_asset(case: UseCase) -> dg.AssetsDefinition:
    """Score and decision for each event, by the model in force on its day."""
    check = "every_event_is_scored"
    columns = score.SCORE_COLUMNS

    def make(days: Days) -> Iterator[Made]:
        rows = days.tables.read("features", days.ready)
        scored = [_score_days(days, version, chosen, rows) for version, chosen in by_model(days).items()]
        scores = pd.concat(scored, ignore_index=True)
        days.log(f"{len(scores):,} events scored by {len(scored)} models")
        events = {day: entry.rows for day, entry in days.tables.ledger("features", days.ready).items()}
        found = score.scoring_findings(events, scores, days.ready)
        verdicts = audit(scores, days=days.ready, columns=columns, key=["event_id"], also=found)
        shown = {
            str(day): {
                "alerts": int(of_day["alert"].sum()),
                "alert_share": float(of_day["alert"].mean()),
                "mean_score": float(of_day["score"].mean()),
            }
            for day, of_day in scores.groupby("day")
        }
        yield Made(table="scores", rows=scores, columns=columns, inputs=days.inputs, checks={check: verdicts}, shown=shown)

    specs = {"scores": {check: "One finite score for each event that has features, by the model in force on its day."}}
    return stage(
        case,
        make,
        specs,
        recipe="scores",
        kinds={"lightgbm", "deltalake"},
        schemas={"scores": columns},
        group="scores",
        bound=("features", 0),
    )


def stage(
    case: UseCase,
    make: Stage,
    checks: Mapping[str, Mapping[str, str]],
    *,
    recipe: str,
    kinds: set[str],
    group: str,
    schemas: Mapping[str, Sequence[Column]] | None = None,
    daily: bool = True,
    bound: tuple[str, int] | None = None,
    blocks: bool = True,
    pool: str | None = None,
    retries: dg.RetryPolicy | None = None,
) -> dg.AssetsDefinition:
    """An asset step over a range: reads what is ready, makes it, publishes the good days of each table.

    Checks that do not block are red in Dagster, and the day is published (`Made.blocks`).

    `bound` names the table whose rows bound the memory of a step, and how many days of facts each stretch reads before its own.
    """
    partitions = case_days(case) if daily else None
    specs = {
        table: [check_spec(case, table, name, text, partitions, blocks=blocks) for name, text in described.items()]
        for table, described in checks.items()
    }
    known = recipes(case)[recipe]

    @dg.multi_asset(
        name=f"{case.name}__{recipe}",
        specs=[
            dg.AssetSpec(
                [case.name, table],
                deps=list(_deps(case, known, daily=daily)),
                description=_DESCRIPTIONS[_kind_of(case, table)],
                group_name=f"{case.name}/{'rejected' if _kind_of(case, table) == 'rejected' else group}",
                kinds=kinds,
                owners=[case.owner],
                partitions_def=partitions,
                code_version=known.code,
                metadata={"dagster/column_schema": table_schema(schemas[table])} if schemas else {},
            )
            for table in checks
        ],
        check_specs=[spec for of_table in specs.values() for spec in of_table],
        backfill_policy=dg.BackfillPolicy.single_run() if daily else None,
        pool=pool,
        retry_policy=retries,
    )
    def step(context: dg.AssetExecutionContext, store: Store) -> Iterator[Event]:
        asked = list(context.partition_keys) if daily else [WHOLE]
        yield from observations(case, store, context.instance, known, asked)
        seen = seen_by_now(case, context.instance, known)  # before the ledgers are read: what comes in between is news
        inputs, held_back = expected_inputs(case, store, replace(known, repeats=None), asked)  # what repeats, the step itself finds
        provenance = provenance_tags(case, store, known, list(inputs), seen)
        days = Days(case=case, store=store, tables=store.tables(case), inputs=inputs, context=context)
        for part in days.parts(bound):
            for made in make(part):
                yield from publish(context, days.tables, made, specs[made.table], provenance)
        yield from observations_after(case, store, context.instance, recipe, asked)
        for table, checks_of_table in specs.items():
            yield from not_made(context, {} if known.awaits else held_back, checks_of_table)
            yield from outputs(case.name, table, checks_of_table)

    return step


def _deps(case: UseCase, recipe: Recipe, *, daily: bool) -> Iterator[dg.AssetDep]:
    for each in recipe.inputs:
        mapping = None if each.whole or not daily else days_back(each.back, ahead=each.ahead)
        yield dg.AssetDep([case.name, each.table], partition_mapping=mapping)
    for name in (*recipe.also_from, *([recipe.also_named] if recipe.also else [])):
        yield dg.AssetDep([case.name, name], partition_mapping=days_back(0) if daily else None)


def _raw_column(name: str) -> Column:
    whole = {"source_row": DType.INT64}
    return Column(name=name, dtype=whole.get(name, DType.STRING), nullable=name not in PROVENANCE)


def by_model(days: Days) -> dict[str, list[Day]]:
    """The days that can be made, by the model in force on them.

    Raises:
        RuntimeError: on one there is none any more.
    """
    in_force = versions_in_force(days.case, days.store, days.ready)
    chosen: dict[str, list[Day]] = {}
    for day in days.ready:
        if day not in in_force:
            raise RuntimeError(f"no model is in force on {day}, although one was a moment ago: rerun")
        chosen.setdefault(in_force[day], []).append(day)
    return chosen


def _score_days(days: Days, version: str, chosen: Sequence[Day], rows: pd.DataFrame) -> pd.DataFrame:
    files, manifest = days.store.models.load(days.case.name, version)
    models = {name: package.model_in(files, name) for name in (package.served_by(files), *package.MODELS[1:])}
    return score.score(
        rows[rows["day"].isin(list(chosen))],
        version=version,
        threshold=manifest["threshold"],
        model=models[package.served_by(files)],
        baseline=models["baseline"],
        climatology=models["climatology"],
    )


def _kind_of(case: UseCase, table: str) -> str:
    for declared in case.tables:
        kinds = dict(zip(declared.assets, ("raw", "clean", "rejected"), strict=True))
        if table in kinds:
            return kinds[table]
    return "extract" if table in [extract.name for extract in case.extracts] else table


_DESCRIPTIONS = {
    "extract": "What a job elsewhere wrote of each day before it is read here: which file, how many rows, which version.",
    "raw": "Rows exactly as delivered, as text, with the file, row and version they came from.",
    "clean": "Typed and repaired rows without duplicates, each keeping the contract of the schema.",
    "rejected": "Rows that break the contract: reason and original content. Nothing is thrown away.",
    "labels": "The truth about events, filed under the day on which it became known.",
    "features": "One row an event: everything the model is told, from what was known at the moment of the prediction.",
    "scores": "Score and decision for each event by the model in force on its day, beside the two forecasts it has to beat.",
    "shadow_scores": "Score and decision for each event by the model that lost the week's decision. Nobody acts on them.",
    "estimated_performance": "How well the model in force does on the day, estimated from its own confidence before any label is known.",
    "drift_report": "How far the last days' events and scores are from those that the model in force was judged on, feature by feature.",
    "performance_report": "What the model promised on its hold-out, what was estimated, and what came true, over the last days.",
    "online_state": "What the online scorer must remember of each day, in the online store; here, how much of each table that is.",
    "prediction_log": "What the online scorer answered about each event, with the features that it had.",
    "live_performance": "How the model in force did on the day, once the truth about every event of it is known.",
}
