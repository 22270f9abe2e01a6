"""The stages of a case from source to features without Dagster: those of the assets, put together with the planner."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from ml_assets.folders import LocalFolder
from ml_assets.orchestration import daily
from ml_assets.orchestration.partitions import case_days
from ml_assets.orchestration.planning import expected_inputs, recipes, stale_days
from ml_assets.orchestration.publish import schema_of
from ml_assets.stages.quality import Verdict
from ml_assets.storage.tables import Entry, Tables, content_hashes
from ml_assets.use_case import Day, UseCase


@dataclass(frozen=True, kw_only=True)
class MemoryTables(Tables):
    """Tables that are gone with the test."""

    world: object
    """So that no two are the same."""

    @cached_property
    def _all(self) -> dict[str, dict[Day, tuple[pd.DataFrame, Entry]]]:
        return {}

    @cached_property
    def _versions(self) -> Counter[str]:
        return Counter()

    def publish(self, name: str, rows: pd.DataFrame, *, schema: Any, inputs: Any, notes: Any = None) -> dict[Day, Entry]:
        published = self._all.setdefault(name, {})
        for day, (count, content) in content_hashes(rows, inputs).items():
            if day not in published or (published[day][1].content, published[day][1].inputs) != (content, inputs[day]):
                self._versions[name] += 1
                entry = Entry(day=day, rows=count, content=content, inputs=inputs[day], version=self._versions[name])
                published[day] = rows.loc[rows["day"] == day, schema.names].reset_index(drop=True), entry
        return self.ledger(name, inputs)

    def read(self, name: str, days: Any = None, *, columns: Any = None, where: Any = (), version: Any = None) -> pd.DataFrame:
        published = self._all[name]
        wanted = sorted(published if days is None else set(days) & set(published))
        nothing = next(iter(published.values()))[0].iloc[:0]
        rows = pd.concat([nothing, *(published[day][0] for day in wanted)], ignore_index=True)
        for column, _, value in where:
            rows = rows[rows[column] != value]
        return rows if columns is None else rows[list(columns)]

    def version(self, name: str) -> int:
        return self._versions[name] - 1

    def ledger(self, name: str, days: Any = None) -> dict[Day, Entry]:
        published = self._all.get(name, {})
        return {day: published[day][1] for day in sorted(published) if days is None or day in days}


@dataclass(frozen=True)
class InMemory:
    """A store with nothing but tables."""

    of_case: MemoryTables

    def tables(self, _: UseCase) -> MemoryTables:
        return self.of_case


def without_expectations(rows: pd.DataFrame, *, days: Sequence[Day], also: Any = None, **_: Any) -> dict[Day, Verdict]:
    counts = rows["day"].value_counts()
    return {day: Verdict(day=day, rows=int(counts.get(day, 0)), findings=tuple((also or {}).get(day, ()))) for day in days}


class Pipeline:
    """What is made of the deliveries of a case, in any order."""

    def __init__(self, case: UseCase) -> None:
        self.case = case
        self.stages: dict[str, daily.Stage] = {}
        for table in case.tables:
            self.stages |= {table.raw_name: daily.raw_rows(case, table), table.name: daily.clean_rows(table)}
        self.stages |= {"labels": daily.label_rows(case), "features": daily.feature_rows(case)}
        self.names = [*self.stages, *(table.rejected_name for table in case.tables)]
        self.verdicts: dict[tuple[str, str], dict[Day, Verdict]] = {}
        """The last verdict of each check of a table about each day."""

    @cached_property
    def days(self) -> list[Day]:
        return list(case_days(self.case).get_partition_keys())

    def made(self, parts: Sequence[Sequence[Day]] | None = None, *, store: Any = None) -> dict[str, pd.DataFrame]:
        """All tables, made part by part (all days at once, if none are given), and then again until nothing is stale."""
        store = store or InMemory(MemoryTables(root=LocalFolder(Path("nowhere")), case=self.case.name, world=object()))
        for part in parts or [self.days]:
            self._settle(store, part)
        tried: list[Any] = []
        while (stale := self._settle(store, self.days)) and stale not in tried:  # bad days stay stale
            tried.append(stale)
        assert len(tried) <= 2 * len(self.days), "settles"
        tables = store.tables(self.case)
        rows = {each: tables.read(each) for each in self.names if tables.ledger(each)}
        return rows | {f"days of {each}": pd.DataFrame({"day": list(tables.ledger(each))}) for each in self.names}

    def red(self, table: str) -> dict[Day, str]:
        """The days that a check kept from being published, and what it said."""
        return {
            day: verdict.message()
            for (of_table, _), verdicts in self.verdicts.items()
            for day, verdict in verdicts.items()
            if of_table == table and not verdict.passed
        }

    def _settle(self, store: Any, days: Sequence[Day]) -> list[Any]:
        found: list[Any] = []
        for name, stage in self.stages.items():
            recipe = recipes(self.case)[name]
            if stale := stale_days(self.case, store, recipe, days):
                found.append((name, expected_inputs(self.case, store, recipe, stale)[0]))
                inputs, _ = expected_inputs(self.case, store, replace(recipe, repeats=None), stale)
                self._make(store, stage, inputs)
        return found

    def _make(self, store: Any, stage: daily.Stage, inputs: dict[Day, str]) -> None:
        context: Any = SimpleNamespace(log=SimpleNamespace(info=lambda _text: None))
        tables: Tables = store.tables(self.case)
        for made in stage(daily.Days(case=self.case, store=store, tables=tables, inputs=inputs, context=context)):
            for check, verdicts in made.checks.items():
                self.verdicts.setdefault((made.table, check), {}).update(verdicts)
            rows = made.rows[made.rows["day"].isin(list(made.good))]
            tables.publish(made.table, rows, schema=schema_of(made.columns), inputs=made.good, notes=made.notes)
