"""What a message about a run says: that it failed, or what its checks and the gate found.

Belongs here: from the log of a run to the words. Does not: when it is told, and to whom (`alerts`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ml_assets.notices import Notice, Severity, run_link
from ml_assets.orchestration.conditions import pages_of
from ml_assets.orchestration.partitions import case_days, case_weeks, contiguous, daily_tables_of
from ml_assets.orchestration.planning import recipes
from ml_assets.orchestration.publish import described
from ml_assets.orchestration.weekly import GATE
from ml_assets.orchestration.weeks import DEPLOYED, WEEKLY
from ml_assets.settings import settings
from ml_assets.use_case import UseCase

RETRY = "ml_assets/retry"
"""Tag of a failed run: its retry is awaited, or did not come."""
_EVENTS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}
_NOT_MADE = "not made: "
_MOST_CHECKS = 100
"""In the fields for machines: a year of red days would be megabytes."""


def notice_of(
    instance: dg.DagsterInstance, run: dg.DagsterRun, cases: Mapping[str, UseCase], warnings: Collection[str] = ()
) -> Notice | None:
    """What there is to tell of a run that ended; None when that is nothing, or when it is about none of the cases."""
    found = _Run.read(instance, run, cases)
    if not found.keys:
        return None
    return found.failure() if run.status is dg.DagsterRunStatus.FAILURE else found.findings(warnings)


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What the log of a run says."""

    run: dg.DagsterRun
    keys: Sequence[dg.AssetKey]
    """Of the cases, in the order of the steps."""
    cases: Mapping[str, UseCase]
    """Those that it is about."""
    made: Mapping[tuple[dg.AssetKey, str | None], dg.AssetMaterialization]
    """Materialised, by it or by the tries before it, of which it repeats what is missing only."""
    checks: Sequence[dg.AssetCheckEvaluation]
    """Ditto."""
    errors: Sequence[dg.DagsterEvent]

    @classmethod
    def read(cls, instance: dg.DagsterInstance, run: dg.DagsterRun, cases: Mapping[str, UseCase]) -> "_Run":
        events = _events(instance, run.run_id)
        all_events = [event for earlier in _tries_before(instance, run) for event in _events(instance, earlier)] + events
        planned = [event.asset_key for event in events if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED]
        evaluated = [
            event.asset_check_evaluation_data
            for event in all_events
            if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ]
        checks = [check for check in evaluated if check.asset_key.path[0] in cases]
        selected = {key for key in (*planned, *(run.asset_selection or ()), *(check.asset_key for check in checks)) if key}
        keys = sorted((key for key in selected if key.path[0] in cases), key=lambda key: _position(cases[key.path[0]], key))
        made = {
            (event.asset_key, event.partition): event.step_materialization_data.materialization
            for event in all_events
            if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key
        }
        errors = [event for event in events if event.is_step_failure] or [event for event in events if event.is_run_failure]
        return cls(
            run=run,
            keys=keys,
            cases={key.path[0]: cases[key.path[0]] for key in keys},
            made=made,
            # Of a check that was made twice, as of a step that was tried again, the last result counts.
            checks=list({(check.asset_key, check.check_name, check.partition): check for check in checks}.values()),
            errors=errors,
        )

    def failure(self) -> Notice:
        """That the run failed."""
        wanted = {key: self._wanted(key) for key in self.keys}
        left = {key: [each for each in keys if (key, each) not in self.made] for key, keys in wanted.items()}
        done = {key: [each for each in keys if (key, each) in self.made] for key, keys in wanted.items()}
        partitions = sorted({each for keys in wanted.values() for each in keys if each})
        lines = [f"started by: {_why(self.run)}"]
        for event in self.errors[:3]:
            lines += [f"failed at {event.step_key}" if event.step_key else "failed outside of its steps", *_error_lines(event)]
        if "dagster/retry_number" in self.run.tags:
            lines.append(f"tried {int(self.run.tags['dagster/retry_number']) + 1} times")
        elif self.run.tags.get(RETRY) == self.run.run_id:
            lines.append("Dagster was to try it again, and has not")
        lines += [f"published by this run: {text}" for text in self._spans(done)] or ["published by this run: nothing"]
        lines += [f"not published by this run: {text}" for text in self._spans(left)]
        names = ", ".join(self.cases)
        lines += self._finding_lines(_Findings.of(self))
        lines.append(f"what to do: look at the run; once the cause is gone, {self._commands} makes what is missing")
        about = {
            "assets": ["/".join(key.path) for key in self.keys],
            "failed_steps": [event.step_key for event in self.errors if event.step_key],
            "not_published": {"/".join(key.path): self._stretches(key, keys) for key, keys in left.items() if keys},
        }
        span = f", {_stretch(partitions)}" if partitions else ""
        return self._notice(Severity.ERROR, f"{names}: a run failed{span}", lines, partitions, about)

    def findings(self, warnings: Collection[str]) -> Notice | None:
        """What checks found in a run that went well by itself."""
        found = _Findings.of(self, warnings)
        if not found.told and not found.live:
            return None
        lines = list(self._finding_lines(found))
        if found.blocked:
            lines.append(
                "what to do: mend what was delivered; a sensor that is on, or "
                f"{self._commands}, then makes it again. What was published of it before stays until then"
            )
        lines.append(f"started by: {_why(self.run)}")
        about = {
            "checks": [
                {
                    "asset": "/".join(check.asset_key.path),
                    "check": check.check_name,
                    "partition": check.partition,
                    "severity": check.severity.value,
                    "description": described(check),
                    "published": self._is_published(check),
                }
                for check in found.told[:_MOST_CHECKS]
            ],
            "promoted": {partition or "": version for partition, version in found.live},
        }
        partitions = sorted(
            {each for each in (*(check.partition for check in found.told), *(each for each, _ in found.live)) if each}
        )
        return self._notice(found.severity, self._title(found), lines, partitions, about)

    def _title(self, found: "_Findings") -> str:
        left = [check for check in found.blocked if not self._is_published(check)]
        days = _stretches_of(left)
        parts = [
            f"not published: {', '.join(days)}" if days else f"not published: {self._name(left[0].asset_key)}" if left else "",
            _counted(len(found.blocked) - len(left), "failed check of what is published", "failed checks of what is published"),
            _counted(len(found.warned), "warning", "warnings"),
            _counted(len(found.refused), "candidate refused", "candidates refused"),
            _counted(len(found.live), "model goes live", "models go live"),
        ]
        return f"{', '.join(self.cases)}: {'; '.join(part for part in parts if part)}"

    def _finding_lines(self, found: "_Findings") -> Iterator[str]:
        """A line for each cause and one for all that could not be made because of it; then what is less urgent."""
        derived = [check for check in found.blocked if _is_derived(check)]
        for check in found.blocked:
            if not _is_derived(check):
                yield f"{'published all the same' if self._is_published(check) else 'not published'}: {self._told(check)}"
        tables: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        for check in derived:
            tables[described(check).removeprefix(_NOT_MADE), check.partition].append(self._name(check.asset_key))
        partitions: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
        for (reason, partition), names in tables.items():
            partitions[reason, tuple(dict.fromkeys(names))] += [partition] if partition else []
        for (reason, of_reason), days in partitions.items():
            yield f"not made: {' '.join([', '.join(of_reason), ', '.join(_stretches(days, weekly=False))]).strip()}: {reason}"
        for check in found.warned:
            yield f"warning: {self._told(check)}"
        for check in found.refused:
            yield f"refused: the candidate of {check.partition} does not go live: {described(check)}"
        for week, version in found.live:
            yield f"promoted: model {version} goes live on {week}"

    def _told(self, check: dg.AssetCheckEvaluation) -> str:
        what = " ".join(filter(None, [self._name(check.asset_key), check.partition]))
        return f"{what}: {check.check_name}: {described(check) or 'failed'}"

    @property
    def _commands(self) -> str:
        return " and ".join(f"`ml-assets run {name}`" for name in self.cases)

    def _is_published(self, check: dg.AssetCheckEvaluation) -> bool:
        return (check.asset_key, check.partition) in self.made

    def _wanted(self, key: dg.AssetKey) -> list[str | None]:
        """The partitions that an asset was to be made of; [None] for one without."""
        tags = self.run.tags
        first = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
        last = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
        case = self.cases[key.path[0]]
        if not first or not last or key.path[-1] in case.undated.union(pages_of(case)):
            return [None]
        definition = case_weeks(case) if key.path[-1] in WEEKLY else case_days(case)
        return [each for each in definition.get_partition_keys() if first <= each <= last]

    def _spans(self, partitions: Mapping[dg.AssetKey, Sequence[str | None]]) -> Iterator[str]:
        """Assets by what they have of partitions: `features, scores (2013-02-04 to 2013-02-17)`."""
        alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for key, keys in partitions.items():
            if keys:
                alike[tuple(self._stretches(key, keys))].append(self._name(key))
        for stretches, names in alike.items():
            yield ", ".join(names) + (f" ({', '.join(stretches)})" if stretches else "")

    @staticmethod
    def _stretches(key: dg.AssetKey, partitions: Sequence[str | None]) -> list[str]:
        return _stretches([each for each in partitions if each], weekly=key.path[-1] in WEEKLY)

    def _name(self, key: dg.AssetKey) -> str:
        return key.path[-1] if len(self.cases) == 1 else "/".join(key.path)

    def _notice(
        self, severity: Severity, title: str, lines: Sequence[str], partitions: Sequence[str], about: Mapping[str, Any]
    ) -> Notice:
        link = run_link(settings(), self.run.run_id)
        return Notice(
            case=", ".join(self.cases),
            severity=severity,
            title=title,
            lines=[f"run: {link or self.run.run_id}", *lines],
            run_id=self.run.run_id,
            partitions=partitions,
            about={**about, **({"url": link} if link else {}), "why": _why(self.run)},
        )


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What checks found, by what it means."""

    blocked: Sequence[dg.AssetCheckEvaluation]
    """Of severity ERROR. The few that do not block are told apart by what was materialised."""
    warned: Sequence[dg.AssetCheckEvaluation]
    refused: Sequence[dg.AssetCheckEvaluation]
    live: Sequence[tuple[str | None, str]]
    """Partition and version of models that go live."""

    @classmethod
    def of(cls, read: _Run, warnings: Collection[str] = ()) -> "_Findings":
        failed = [check for check in read.checks if not check.passed]
        by_name = [check for check in failed if check.check_name != GATE]
        return cls(
            blocked=[check for check in by_name if check.severity is dg.AssetCheckSeverity.ERROR],
            warned=[check for check in by_name if check.severity is dg.AssetCheckSeverity.WARN and check.check_name in warnings],
            refused=[check for check in failed if check.check_name == GATE],
            live=[
                (partition, _version(made))
                for (key, partition), made in read.made.items()
                if key.path[0] in read.cases and key.path[-1] == DEPLOYED
            ],
        )

    @property
    def told(self) -> list[dg.AssetCheckEvaluation]:
        return [*self.blocked, *self.warned, *self.refused]

    @property
    def severity(self) -> Severity:
        return Severity.ERROR if self.blocked else Severity.WARNING if self.warned else Severity.INFO


def _events(instance: dg.DagsterInstance, run_id: str) -> list[dg.DagsterEvent]:
    records = instance.get_records_for_run(run_id, of_type=_EVENTS).records
    return [record.event_log_entry.get_dagster_event() for record in records]


def _tries_before(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """The runs that it tries again, the first one first."""
    tries: list[str] = []
    while run.parent_run_id and (parent := instance.get_run_by_id(run.parent_run_id)):
        tries.insert(0, parent.run_id)
        run = parent
    return tries


def _why(run: dg.DagsterRun) -> str:
    tags = run.tags
    if why := tags.get("ml_assets/why"):
        sensor = tags.get("dagster/sensor_name")
        return f"{sensor} ({why})" if sensor else why
    for tag, what in (("dagster/schedule_name", "schedule"), ("dagster/sensor_name", "sensor"), ("dagster/backfill", "backfill")):
        if tag in tags:
            return f"{what} {tags[tag]}"
    return "a person, or a command"


def _error_lines(event: dg.DagsterEvent) -> Iterator[str]:
    """The error in its own words, and what it came from, without what Dagster wraps around it."""
    error = getattr(event.event_specific_data, "error", None)
    chain = []
    while error is not None:
        chain.append(error)
        error = error.cause
    own = [each for each in chain if not str(each.cls_name).startswith("Dagster")] or chain[-1:]
    if not own:
        yield event.message or "without a reason"
        return
    yield own[0].message.strip()
    if own[-1] is not own[0]:
        yield f"because of {own[-1].message.strip()}"


def _position(case: UseCase, key: dg.AssetKey) -> tuple[str, int, str]:
    """Where in the order of the pipeline an asset comes."""
    order = [*daily_tables_of(case, list(recipes(case))), *WEEKLY, *pages_of(case)]
    name = key.path[-1]
    return case.name, order.index(name) if name in order else len(order), name


def _is_derived(check: dg.AssetCheckEvaluation) -> bool:
    return described(check).startswith(_NOT_MADE)


def _version(made: dg.AssetMaterialization) -> str:
    version = made.metadata.get("model_version")
    return str(version.value) if version else "a model"


def _stretches_of(checks: Sequence[dg.AssetCheckEvaluation]) -> list[str]:
    """The partitions that they are about, daily and weekly ones each by themselves."""
    days = {check.partition for check in checks if check.partition and check.asset_key.path[-1] not in WEEKLY}
    weeks = {check.partition for check in checks if check.partition and check.asset_key.path[-1] in WEEKLY}
    return [*_stretches(days, weekly=False), *_stretches(weeks, weekly=True)]


def _stretches(days: Collection[str], *, weekly: bool) -> list[str]:
    return [_stretch([first, last]) for first, last in contiguous(sorted(days), step=7 if weekly else 1)]


def _stretch(days: Sequence[str]) -> str:
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}" if count else ""
