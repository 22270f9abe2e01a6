"""Weeks of a case: which days train and judge a candidate, which rows these are, and which weeks have to be made again.

Belongs here: what a week is made from. Does not: the assets themselves (`weekly`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import pandas as pd

from ml_assets.orchestration.decisions import champion_before
from ml_assets.orchestration.planning import code_of
from ml_assets.orchestration.store import Store
from ml_assets.stages import evaluate, labels, package, reference, train
from ml_assets.stages.evaluate import Report
from ml_assets.stages.sufficiency import CannotJudgeError, require_both_classes
from ml_assets.storage.tables import Entry, fingerprint
from ml_assets.use_case import Day, Reported, UseCase, day_range, shift

CANDIDATE, REPORT, DEPLOYED = "candidate_model", "evaluation_report", "deployed_model"
WEEKLY = (CANDIDATE, REPORT, DEPLOYED)
LIBRARIES = tuple((name, version(name)) for name in package.LIBRARIES)


class TooFewDaysError(CannotJudgeError):
    """Too little is published to train or judge a candidate; the message says how much there is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeekPlan:
    """Which days train and judge the model that goes live in a week, and what is published of them."""

    week: Day
    as_of: pd.Timestamp
    training: list[Day]
    holdout: list[Day]
    refit: list[Day]
    """All days that are mature when the model goes live; empty where the recipe is not fitted again."""
    holdout_begins: Day
    published: Mapping[str, Mapping[Day, Entry]]
    code: str

    @property
    def inputs(self) -> str:
        """Hash of everything that the candidate is made from."""
        return fingerprint(self.code, self.week, self.contents)

    @property
    def contents(self) -> dict[str, dict[Day, str]]:
        """Content hash of each day, by table."""
        return {table: {day: entry.content for day, entry in days.items()} for table, days in self.published.items()}

    @property
    def versions(self) -> dict[str, dict[Day, int]]:
        """Delta version that holds each day, by table."""
        return {table: {day: entry.version for day, entry in days.items()} for table, days in self.published.items()}


REFUSED, FAILED = "refused", "failed"
"""In a note of a week without a version: why there can be none, or the error in which it ended."""
RETRAINING = "retraining"
"""Kind of note: a model that goes live on a day of its own, and why."""


def go_lives(case: UseCase, store: Store, weeks: Sequence[Day]) -> list[Day]:
    """The days of these weeks on which a model may go live: the first of each, and those for which a retraining was asked."""
    extra = store.models.days_noted(case.name, RETRAINING)
    return sorted({*weeks, *(day for day in extra if case.week_of(day) in set(weeks))})


def plan(case: UseCase, store: Store, week: Day) -> WeekPlan:
    """The days before a week, as far as features and labels of them are published.

    Raises:
        TooFewDaysError: too few days to train on or to be judged on.
    """
    tables = store.tables(case)
    published = {name: tables.ledger(name, day_range(case.start, shift(week, -1))) for name in ("features", "labels")}
    last_holdout = shift(week, -1 - case.split.embargo_days)
    first_holdout = shift(last_holdout, 1 - case.split.holdout_days)
    holdout = [day for day in published["features"] if first_holdout <= day <= last_holdout]
    training = _latest(case, [day for day in published["features"] if day < shift(first_holdout, -case.split.embargo_days)])
    refit = _latest(case, [day for day in published["features"] if day <= last_holdout]) if case.training.refit else []
    if len(training) < case.split.minimum_training_days or 2 * len(holdout) < case.split.holdout_days:
        raise TooFewDaysError(
            f"week {week}: features of {len(training)} days before {first_holdout} and of {len(holdout)} days from it on are published; "
            f"a candidate needs {case.split.minimum_training_days} to train on and half of {case.split.holdout_days} to be judged on"
        )
    code = code_of(train, package, labels, reference) + fingerprint(
        case.training,
        case.split,
        case.climatology,
        case.features.columns,
        case.investigation,
        case.gate.screening.minimum_rows,
        LIBRARIES,
    )
    return WeekPlan(
        week=week,
        as_of=case.starts(week),
        training=training,
        holdout=holdout,
        refit=refit,
        holdout_begins=first_holdout,
        published=published,
        code=code,
    )


def _latest(case: UseCase, days: list[Day]) -> list[Day]:
    return days[-case.split.training_days :] if case.split.training_days else days


def evaluation_inputs(case: UseCase, planned: WeekPlan, *, candidate: str | None, champion: str | None) -> str:
    """Hash of everything that a decision is made from; `candidate` is None where there is none to judge."""
    code = code_of(evaluate, labels) + fingerprint(case.gate, case.training.seed, case.investigation)
    return fingerprint(code, candidate, champion, planned.holdout_begins, planned.contents)


def stale_weeks(case: UseCase, store: Store, weeks: Sequence[Day]) -> list[Day]:
    """Weeks not made from what is there now, or whose decision was not carried out, and all weeks after the first of them."""
    for position, week in enumerate(weeks):
        if not _is_fresh(case, store, week):
            return list(weeks[position:])
    return []


def _is_fresh(case: UseCase, store: Store, week: Day) -> bool:
    planned = plan(case, store, week)
    candidate, note = (store.models.noted(case.name, kind, week) for kind in (CANDIDATE, REPORT))
    text = store.models.report(case.name, week)
    if candidate is None or note is None or FAILED in candidate or FAILED in note or candidate["inputs"] != planned.inputs:
        return False
    champion = champion_before(case, store, week)
    if note["inputs"] != evaluation_inputs(case, planned, candidate=candidate["version"], champion=champion):
        return False
    if REFUSED in note:
        return text is None and week not in store.models.deployments(case.name)
    if text is None:
        return False
    decision = Report.from_json(text).decision
    return store.models.deployments(case.name).get(week) == (decision.champion_after if decision.promoted else None)


def refusals(case: UseCase, store: Store) -> dict[Day, str]:
    """The weeks that could not be judged, by the day on which their model would have gone live, with the reason."""
    notes = {week: store.models.noted(case.name, REPORT, week) for week in store.models.days_noted(case.name, REPORT)}
    return {week: note[REFUSED] for week, note in notes.items() if note and REFUSED in note}


def possible_weeks(case: UseCase, store: Store, weeks: Sequence[Day]) -> tuple[list[Day], list[str]]:
    """The weeks for which enough is published, and for the others what is missing."""
    possible, missing = [], []
    for week in weeks:
        try:
            plan(case, store, week)
        except TooFewDaysError as error:
            missing.append(str(error))
        else:
            possible.append(week)
    return possible, missing


class MatureEvents:
    """Features joined with the labels known at a moment; the tables are read once for all weeks of a step."""

    def __init__(self, case: UseCase, store: Store, weeks: Sequence[Day]) -> None:
        tables, days = store.tables(case), day_range(case.start, shift(max(weeks), -1))
        self._case = case
        self._features = tables.read("features", tables.ledger("features", days))
        self._labels = tables.read("labels", tables.ledger("labels", days))
        self._kinds = _kinds_of_positives(case, store, days)

    def rows(self, days: Sequence[Day], *, before: Day) -> pd.DataFrame:
        """Events of these days whose label became known before a day, with the column `label`."""
        return labels.labelled(self.events(days), self._known(before))

    def to_train(self, planned: WeekPlan) -> pd.DataFrame:
        """The rows that a candidate is trained on.

        Raises:
            CannotJudgeError: no events, no known labels, or one class.
        """
        return self._of_both_classes(
            self.rows(planned.training, before=planned.holdout_begins), planned.training, "training days", planned.holdout_begins
        )

    def holdout(self, planned: WeekPlan) -> pd.DataFrame:
        """The rows that judge a candidate: those of `to_judge`.

        Raises:
            CannotJudgeError: no events, no known labels, or one class.
        """
        return self._of_both_classes(self.to_judge(planned.holdout, before=planned.week), planned.holdout, "holdout", planned.week)

    def _of_both_classes(self, rows: pd.DataFrame, days: Sequence[Day], purpose: str, before: Day) -> pd.DataFrame:
        events = int(self._features["day"].between(min(days), max(days)).sum())
        require_both_classes(rows["label"], days, events=events, purpose=purpose, known_before=before)
        return rows

    def to_judge(self, days: Sequence[Day], *, before: Day) -> pd.DataFrame:
        """The same, without the events that are no news, with the entity that is looked into and the kinds of positives."""
        rows = labels.to_judge(self.events(days), self._known(before), first=min(days), case=self._case)
        if self._kinds is None:
            return rows
        told = self._kinds[self._kinds["day"] < before].drop_duplicates("event_id").set_index("event_id")
        kinds = [rows["event_id"].map(told[kind]).rename(kind) for kind in told.columns.drop("day")]
        return pd.concat([rows.drop(columns=[kind.name for kind in kinds], errors="ignore"), *kinds], axis=1)

    def events(self, days: Sequence[Day]) -> pd.DataFrame:
        """All events of these days, labelled or not."""
        return self._features[self._features["day"].between(min(days), max(days))]

    def _known(self, before: Day) -> pd.DataFrame:
        """By the day on which a label is filed, and so by what a week is hashed from; the clock would let midnight in."""
        return self._labels[self._labels["day"] < before]


def _kinds_of_positives(case: UseCase, store: Store, days: Sequence[Day]) -> pd.DataFrame | None:
    """What reports say about the kind of a positive, where slices ask for it: `event_id`, `day` of the report and these columns."""
    asked = [declared.column for declared in case.gate.slices if declared.of_positives]
    if not asked or not isinstance(case.label, Reported):
        return None
    tables, table = store.tables(case), case.label.table
    rows = tables.read(table, tables.ledger(table, days), columns=["event_id", case.label.known_at, "day", *asked])
    return rows.sort_values(case.label.known_at, kind="stable").drop(columns=case.label.known_at)
