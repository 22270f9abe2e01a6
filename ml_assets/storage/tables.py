"""Tables: Delta Lake, one partition a day, every write one atomic commit.

Belongs here: what is published and how it is read back. Does not: what a table means (`use_case`) or whether it is good (`stages`).

A commit carries, in its own metadata, one entry for each day that it wrote: rows, a hash of the content, and a hash of what the
content was made from. The *ledger* of a table is the fold of these entries over its history. So a day is published exactly when
its rows are, a day without rows can be published too, and a reader needs nothing but the table.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from ml_assets.delta import files_of_days
from ml_assets.folders import Folder
from ml_assets.use_case import Day

_ENTRIES = "ml_assets.days"
_POSITION = (
    "_position"  # of a row within its day: Delta Lake promises no order of rows, and what is computed from them depends on it
)
_ATTEMPTS = 20
_PROPERTIES = {
    "delta.logRetentionDuration": "interval 36500 days",  # the ledger is in the log
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.checkpointInterval": "10",  # each opening reads the commits since the last one, and a night opens a table dozens of times
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is published for one day: `content` hashes the rows, `inputs` what they were made from, `version` is the Delta version.

    `notes` is what the writer wanted remembered.
    """

    day: Day
    rows: int
    content: str
    inputs: str
    version: int
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fold:
    """What the history of a table came to, up to a commit: that commit's information, and the entries then in force."""

    newest: Mapping[str, Any]
    entries: Mapping[Day, Entry]


_FOLDED: dict[str, _Fold] = {}  # by the place of the table


@dataclass(frozen=True, kw_only=True)
class Tables:
    """All tables of one use case under one root."""

    root: Folder
    case: str

    def place(self, name: str) -> str:
        """The path or URL of a table."""
        return self.root.place(self._name(name))

    def _name(self, name: str) -> str:
        return f"tables/{self.case}/{name}"

    def publish(
        self,
        name: str,
        rows: pd.DataFrame,
        *,
        schema: pa.Schema,
        inputs: Mapping[Day, str],
        notes: Mapping[Day, Mapping[str, Any]] | None = None,
    ) -> dict[Day, Entry]:
        """Replace the days in `inputs` by `rows` in one commit; days whose content and inputs are unchanged are left alone.

        Args:
            rows: has a column `day`; a day of `inputs` without rows is published as empty.
            schema: Arrow schema of the table, `day` included, so that an empty day has types.
            inputs: for every day to publish, a hash of what it was made from.
            notes: what else to remember of a day, JSON.

        Returns:
            The entries now in force for these days.

        Raises:
            ValueError: rows belong to a day that is not in `inputs`.
        """
        if stray := set(rows["day"].unique()) - set(inputs):
            raise ValueError(
                f"table {name}: rows of {', '.join(sorted(stray))} were handed over, but only {len(inputs)} other days are published"
            )
        contents = content_hashes(rows, inputs)
        for attempt in range(_ATTEMPTS):
            try:
                self._publish(name, rows, schema, contents, inputs, notes or {})
                break
            except CommitFailedError:
                # Another writer published one of the days meanwhile: who comes later writes over it, knowingly.
                if attempt + 1 == _ATTEMPTS:
                    raise
        after = self.ledger(name)
        return {day: after[day] for day in inputs}

    def _publish(
        self,
        name: str,
        rows: pd.DataFrame,
        schema: pa.Schema,
        contents: Mapping[Day, tuple[int, str]],
        inputs: Mapping[Day, str],
        notes: Mapping[Day, Mapping[str, Any]],
    ) -> None:
        before = self.ledger(name)
        changed = {
            day: {"rows": rows_of_day, "content": content, "inputs": inputs[day], "notes": dict(notes.get(day, {}))}
            for day, (rows_of_day, content) in contents.items()
            if day not in before or (before[day].content, before[day].inputs) != (content, inputs[day])
        }
        if changed:
            self._commit(name, rows[rows["day"].isin(list(changed))], schema, changed)

    def _commit(self, name: str, rows: pd.DataFrame, schema: pa.Schema, entries: Mapping[Day, Mapping[str, Any]]) -> None:
        days = ", ".join(f"'{day}'" for day in sorted(entries))
        there = self._table(name)
        stored = stored_names(schema.names, [] if there is None else _names(there))
        table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False).replace_schema_metadata(None)
        table = table.rename_columns(stored)
        table = table.append_column(_POSITION, pa.array(rows.groupby("day", sort=False).cumcount().to_numpy(), pa.int64()))
        at = self.root.delta(self._name(name))
        with self.root.plain_errors():
            if there is None:
                # Of two writers of a new table one creates it; an overwrite without a predicate would take the other's days away.
                DeltaTable.create(**at, schema=table.schema, mode="ignore", partition_by=["day"], configuration=_PROPERTIES)
            write_deltalake(
                at["table_uri"],
                table,
                storage_options=at.get("storage_options"),
                mode="overwrite",
                predicate=f"day IN ({days})",
                schema_mode="merge",
                commit_properties=CommitProperties(custom_metadata={_ENTRIES: json.dumps(entries, sort_keys=True)}),
            )

    def read(
        self,
        name: str,
        days: Iterable[Day] | None = None,
        *,
        columns: Sequence[str] | None = None,
        where: Sequence[tuple[str, str, Any]] = (),
        version: int | None = None,
    ) -> pd.DataFrame:
        """Rows of these days (all days when None), ordered by day and by the order in which they were written.

        Args:
            where: further conditions that rows must meet, such as `("event_id", "=", "…")`.
            version: a Delta version to read back, None for the newest.

        Raises:
            FileNotFoundError: the table has never been written.
        """
        table = self._table(name, version)
        if table is None:
            raise FileNotFoundError(f"table {name} of {self.case} does not exist at {self.place(name)}: materialise it first")
        wanted = None if days is None else sorted(days)
        stored = {name_of(name): name for name in _names(table)}
        conditions = [(stored.get(column, column), relation, value) for column, relation, value in where]
        chosen = (
            None if columns is None else [*dict.fromkeys((*(stored.get(column, column) for column in columns), "day", _POSITION))]
        )
        bounded = {"day", *(column for column, _, _ in conditions)}
        kept_rows = pq.filters_to_expression(conditions) if conditions else None
        with self.root.plain_errors():
            files = files_of_days(table, self.root, self._name(name), wanted, bounded=bounded)
            arrow = _in_order(files.to_table(columns=chosen, filter=kept_rows))
        arrow = arrow.drop_columns(_POSITION).rename_columns(list(map(name_of, arrow.drop_columns(_POSITION).column_names)))
        kept = [column for column in arrow.column_names if columns is None or column in columns]
        frame: pd.DataFrame = arrow.select(kept).to_pandas(types_mapper=_pandas_type, split_blocks=True, self_destruct=True)
        return frame

    def version(self, name: str) -> int:
        """The latest Delta version, which every change raises; -1 for a table that does not exist. Cheap."""
        table = self._table(name)
        return -1 if table is None else table.version()

    def ledger(self, name: str, days: Iterable[Day] | None = None) -> dict[Day, Entry]:
        """What is published for each day; empty for a table that does not exist."""
        table = self._table(name)
        entries = {} if table is None else self._folded(name, table)
        chosen = entries if days is None else {day: entries[day] for day in days if day in entries}
        return dict(sorted(chosen.items()))

    def _folded(self, name: str, table: DeltaTable) -> Mapping[Day, Entry]:
        """The entries in force, folded over the commits since this process last read them.

        A history is read from its end, up to the commit that was the newest then: where another stands in its place, the table was
        put back or replaced, and all of it is read.
        """
        place = self.place(name)
        with self.root.plain_errors():
            known = _FOLDED.get(place)
            since = table.version() - known.newest["version"] + 1 if known else 0
            commits = table.history(since) if since > 0 else []
            if known and commits and commits[-1] == known.newest:
                entries, commits = dict(known.entries), commits[:-1]
            else:
                entries, commits = {}, table.history()
        for commit in reversed(commits):
            for day, entry in json.loads(commit.get(_ENTRIES, "{}")).items():
                entries[day] = Entry(day=day, version=commit["version"], **entry)
        if commits:
            _FOLDED[place] = _Fold(newest=commits[0], entries=entries)
        return entries

    def _table(self, name: str, version: int | None = None) -> DeltaTable | None:
        with self.root.plain_errors():
            try:
                return DeltaTable(**self.root.delta(self._name(name)), version=version)
            except TableNotFoundError:
                return None


def stored_names(names: Sequence[str], there: Iterable[str] = ()) -> list[str]:
    """Under which names columns are stored: their own, unless Delta Lake would take it for one that it has, or cut it.

    To Delta Lake names that differ in case only are one, and a name ends at a zero byte. Such a name gets a mark, with which
    `name_of` knows it again.

    Args:
        there: what the table has already, as it is stored.

    >>> stored_names(["amount", "Amount", "day"])
    ['amount', 'Amount#49e96d7c', 'day']
    >>> [name_of(name) for name in stored_names(["amount", "Amount", "day"])]
    ['amount', 'Amount', 'day']
    """
    known = {name_of(name): name for name in there}
    taken = {name.lower() for name in (*there, "day", _POSITION)}
    found = []
    for name in names:
        free = name == "day" or (name.lower() not in taken and "\0" not in name and name_of(name) == name)
        stored = known.get(name, name if free else _marked(name))
        taken.add(stored.lower())
        found.append(stored)
    return found


def name_of(stored: str) -> str:
    """The name of a column that is stored under a name; see `stored_names`."""
    name = stored[:-9].replace("%00", "\0").replace("%25", "%") if stored[-9:-8] == "#" else stored
    return name if name != stored and _marked(name) == stored else stored


def _marked(name: str) -> str:
    return (
        f"{name.replace('%', '%25').replace(chr(0), '%00')}#{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
    )


def _names(table: DeltaTable) -> list[str]:
    """As they are stored; without the one that is the platform's own."""
    return [field.name for field in table.schema().fields if field.name != _POSITION]


def content_hashes(rows: pd.DataFrame, days: Iterable[Day]) -> dict[Day, tuple[int, str]]:
    """Number of rows and hash of the content of each day, in row order; equal rows give equal hashes on any machine."""
    columns = [column for column in sorted(rows.columns) if column != "day"]
    named = str([(column, str(rows[column].dtype)) for column in columns]).encode()
    row_hash = pd.util.hash_pandas_object(rows[columns], index=False).to_numpy()
    positions = rows.groupby("day", sort=False).indices
    empty = np.empty(0, dtype=np.int64)
    found = {day: positions.get(day, empty) for day in days}
    return {day: (len(at), hashlib.sha256(named + row_hash[np.sort(at)].tobytes()).hexdigest()[:16]) for day, at in found.items()}


def fingerprint(*parts: object) -> str:
    """A short hash of what something was made from.

    >>> fingerprint("a", 1) == fingerprint("a", 1), fingerprint("a", 1) == fingerprint("a", 2)
    (True, False)
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _in_order(rows: pa.Table) -> pa.Table:
    """Rows by day and position: files come back in any order, and so do the rows of a file."""
    days = rows["day"].combine_chunks().dictionary_encode()
    day = np.argsort(np.argsort(days.dictionary.to_numpy(zero_copy_only=False)))[days.indices.to_numpy()]
    order = np.lexsort((rows[_POSITION].to_numpy(), day))
    return rows if (np.diff(order) == 1).all() else rows.take(pa.array(order))


def _pandas_type(dtype: pa.DataType) -> Any:
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pd.StringDtype(na_value=np.nan)
    return None
