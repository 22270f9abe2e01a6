"""Evaluation: candidate, champion, baseline and climatology on the same hold-out rows, and the decision."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.adapters import adapter_of
from ml_assets.stages.comparison import Comparison, paired_bootstrap
from ml_assets.stages.contributions import Contribution, Example, contributions_of, examples_of
from ml_assets.stages.gate import (
    Decision,
    Reason,
    budget_reasons,
    champion_reasons,
    constant_reason,
    decide,
    floor_reasons,
    rival_reason,
    screening_reason,
)
from ml_assets.stages.inputs import FloatArray, labels_of
from ml_assets.stages.intervals import intervals
from ml_assets.stages.metrics import Curves, Performance, measure
from ml_assets.stages.model import Model
from ml_assets.stages.screening import ScreeningResult
from ml_assets.stages.slices import SliceResult, judge_slices
from ml_assets.stages.threshold import operating_threshold
from ml_assets.stages.train import Candidate
from ml_assets.stages.trials import Trial
from ml_assets.use_case import Day, UseCase

__all__ = [
    "Comparison",
    "Contribution",
    "Curves",
    "Decision",
    "Example",
    "Performance",
    "Reason",
    "Report",
    "SliceResult",
    "Trial",
    "compare",
    "measure_row_milliseconds",
]

IMPORTANT_FEATURES = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that the decision of a week rests on."""

    case: str
    week: Day
    as_of: str
    holdout_first: Day
    holdout_last: Day
    holdout_rows: int
    positives: int
    candidate: Performance
    champion: Performance | None
    baseline: Performance
    climatology: Performance
    comparison: Comparison | None
    slices: tuple[SliceResult, ...]
    importance: tuple[tuple[str, float], ...]
    decision: Decision
    contributions: tuple[Contribution, ...] = ()
    """What moved the candidate's scores, over rows spread evenly over the hold-out; empty for a family that cannot say."""
    screening: ScreeningResult | None = None
    """How well features of the candidate alone separate the classes of its training rows; None in a report from before this was asked."""
    examples: tuple[Example, ...] = ()
    """The hold-out's events with the highest scores, and why."""
    trials: tuple[Trial, ...] = ()
    """What the search for the candidate's recipe tried; empty without one."""

    def to_json(self) -> str:
        """Sorted keys, so that equal reports are equal texts; nan is refused."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Report":
        """Inverse of `to_json`; raises `pydantic.ValidationError` for anything else."""
        return adapter_of(Report).validate_json(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A model, its scores of the hold-out, and what they are worth."""

    scores: FloatArray
    performance: Performance


def compare(
    case: UseCase,
    *,
    week: Day,
    as_of: str,
    holdout: pd.DataFrame,
    labels: npt.ArrayLike,
    candidate: Candidate,
    candidate_version: str,
    champion: Model | None,
    champion_version: str | None,
    champion_threshold: float | None,
    candidate_bytes: int,
    row_milliseconds: float,
    further: Mapping[str, Callable[[FloatArray], float]] = MappingProxyType({}),
    trials: Sequence[Trial] = (),
) -> Report:
    """Judges the candidate and decides.

    Args:
        holdout: feature columns, `day` and the columns of the slices, one row an event; the same rows for every model.
        labels: 0 or 1, one a row.
        champion, champion_version, champion_threshold: the model in force; all None before the first.
        further: the case's own metrics by name, each from the scores of the hold-out's rows, in their order; floors may name them.
        trials: what the search for the candidate's recipe tried.

    Raises:
        ValueError: no rows or one class in the hold-out, a score or a metric that is not finite, a champion given in part, a column of
            a slice that the hold-out lacks.
    """
    truth = labels_of(holdout, labels)
    bench = _Bench(case=case, holdout=holdout, labels=truth, further=further)
    ours = bench.judged(candidate.model, version=candidate_version, threshold=candidate.threshold)
    theirs = _champion(bench, champion, champion_version, champion_threshold)
    baseline = bench.rival(candidate.baseline, version=f"baseline of {candidate_version}")
    climatology = bench.rival(candidate.climatology, version=f"climatology of {candidate_version}")
    comparison = _comparison(case, holdout, truth, ours, theirs)
    slices = tuple(judge_slices(holdout, truth, ours.scores, theirs.scores if theirs else None, gate=case.gate))
    reasons = [
        *floor_reasons(ours.performance, case.gate.floors),
        rival_reason(ours.performance, baseline, "the baseline", margin=case.gate.baseline_margin),
        rival_reason(ours.performance, climatology, "climatology"),
        *([screening_reason(candidate.screening, case.gate)] if candidate.screening else []),
        constant_reason(ours.scores),
        *(champion_reasons(comparison, slices, case.gate) if comparison else []),
        *budget_reasons(megabytes=candidate_bytes / 1e6, row_milliseconds=row_milliseconds, gate=case.gate),
    ]
    return Report(
        case=case.name,
        week=week,
        as_of=as_of,
        holdout_first=str(holdout["day"].min()),
        holdout_last=str(holdout["day"].max()),
        holdout_rows=len(holdout),
        positives=int(truth.sum()),
        candidate=ours.performance,
        champion=theirs.performance if theirs else None,
        baseline=baseline,
        climatology=climatology,
        comparison=comparison,
        slices=slices,
        importance=tuple(candidate.model.importance()[:IMPORTANT_FEATURES]),
        decision=decide(reasons, candidate_version=candidate_version, champion_version=champion_version),
        contributions=contributions_of(candidate.model, holdout, truth),
        examples=examples_of(candidate.model, holdout, truth, ours.scores),
        trials=tuple(trials),
        screening=candidate.screening and candidate.screening.strongest(case.gate.screening),
    )


def measure_row_milliseconds(model: Model, row: pd.DataFrame, *, repetitions: int = 50) -> float:
    """Median time of a prediction of one row, after one that is not counted."""
    model.predict(row)
    return 1000 * float(np.median([_seconds(model, row) for _ in range(repetitions)]))


def _seconds(model: Model, row: pd.DataFrame) -> float:
    start = time.perf_counter()
    model.predict(row)
    return time.perf_counter() - start


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bench:
    """The rows on which every model is measured."""

    case: UseCase
    holdout: pd.DataFrame
    labels: FloatArray
    further: Mapping[str, Callable[[FloatArray], float]]

    def judged(self, model: Model, *, version: str, threshold: float) -> Judged:
        """At its own threshold, with intervals."""
        scores = model.predict(self.holdout)
        performance = self._measured(model, scores, version=version, threshold=threshold)
        found = intervals(
            scores,
            self.labels,
            self.holdout["day"],
            threshold=threshold,
            resamples=self.case.gate.resamples,
            seed=self.case.training.seed,
        )
        return Judged(scores=scores, performance=replace(performance, intervals={name: list(ends) for name, ends in found.items()}))

    def rival(self, model: Model, *, version: str) -> Performance:
        """At the threshold that suits the hold-out itself: better than a rival could know, so never unfair to it."""
        scores = model.predict(self.holdout)
        days = self.holdout["day"].to_numpy(dtype=str)
        threshold = operating_threshold(scores, self.labels, days, self.case.training.operating)
        return self._measured(model, scores, version=version, threshold=threshold)

    def _measured(self, model: Model, scores: FloatArray, *, version: str, threshold: float) -> Performance:
        return measure(scores, self.labels, version=version, family=model.family, threshold=threshold, further=self.further)


def _champion(bench: _Bench, model: Model | None, version: str | None, threshold: float | None) -> Judged | None:
    if model is None and version is None and threshold is None:
        return None
    if model is None or version is None or threshold is None:
        raise ValueError(f"a champion is a model, a version and a threshold; got version {version!r}, threshold {threshold!r}")
    return bench.judged(model, version=version, threshold=threshold)


def _comparison(case: UseCase, holdout: pd.DataFrame, labels: FloatArray, ours: Judged, theirs: Judged | None) -> Comparison | None:
    if theirs is None:
        return None
    return paired_bootstrap(
        labels,
        holdout["day"].to_numpy(dtype=str),
        ours.scores,
        theirs.scores,
        resamples=case.gate.resamples,
        margin=case.gate.margin,
        seed=case.training.seed,
    )
