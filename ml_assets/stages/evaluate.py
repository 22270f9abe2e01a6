"""Evaluation: candidate, champion, baseline and climatology on the same hold-out rows, and the decision."""

import json
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import TypeAdapter

from ml_assets.stages.comparison import Comparison, paired_bootstrap
from ml_assets.stages.gate import (
    Decision,
    Reason,
    budget_reasons,
    champion_reasons,
    decide,
    floor_reasons,
    rival_reason,
)
from ml_assets.stages.inputs import FloatArray, labels_of
from ml_assets.stages.metrics import Curves, Performance, measure
from ml_assets.stages.model import Model
from ml_assets.stages.slices import SliceResult, judge_slices
from ml_assets.stages.train import Candidate, operating_threshold
from ml_assets.use_case import Day, UseCase

__all__ = [
    "Comparison",
    "Curves",
    "Decision",
    "Performance",
    "Reason",
    "Report",
    "SliceResult",
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

    def to_json(self) -> str:
        """Sorted keys, so that equal reports are equal texts; nan is refused."""
        return json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> "Report":
        """Inverse of `to_json`; raises `pydantic.ValidationError` for anything else."""
        return TypeAdapter(Report).validate_json(text)


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
) -> Report:
    """Judges the candidate and decides.

    Args:
        holdout: feature columns and `day`, one row an event; the same rows for every model.
        labels: 0 or 1, one a row.
        champion, champion_version, champion_threshold: the model in force; all None before the first.

    Raises:
        ValueError: no rows or one class in the hold-out, a score that is not finite, a champion given in part.
    """
    truth = labels_of(holdout, labels)
    ours = _judged(candidate.model, holdout, truth, version=candidate_version, threshold=candidate.threshold)
    theirs = _champion(champion, champion_version, champion_threshold, holdout, truth)
    baseline = _rival(candidate.baseline, holdout, truth, version=f"baseline of {candidate_version}", case=case)
    climatology = _rival(candidate.climatology, holdout, truth, version=f"climatology of {candidate_version}", case=case)
    comparison = _comparison(case, holdout, truth, ours, theirs)
    slices = tuple(judge_slices(holdout, truth, ours.scores, theirs.scores if theirs else None, gate=case.gate))
    reasons = [
        *floor_reasons(ours.performance, case.gate.floors),
        rival_reason(ours.performance, baseline, "the baseline"),
        rival_reason(ours.performance, climatology, "climatology"),
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
    )


def measure_row_milliseconds(model: Model, row: pd.DataFrame, *, repetitions: int = 50) -> float:
    """Median time of a prediction of one row, after one that is not counted."""
    model.predict(row)
    return 1000 * float(np.median([_seconds(model, row) for _ in range(repetitions)]))


def _seconds(model: Model, row: pd.DataFrame) -> float:
    start = time.perf_counter()
    model.predict(row)
    return time.perf_counter() - start


def _judged(model: Model, holdout: pd.DataFrame, labels: FloatArray, *, version: str, threshold: float) -> Judged:
    scores = model.predict(holdout)
    return Judged(scores=scores, performance=measure(scores, labels, version=version, family=model.family, threshold=threshold))


def _champion(
    model: Model | None, version: str | None, threshold: float | None, holdout: pd.DataFrame, labels: FloatArray
) -> Judged | None:
    if model is None and version is None and threshold is None:
        return None
    if model is None or version is None or threshold is None:
        raise ValueError(f"a champion is a model, a version and a threshold; got version {version!r}, threshold {threshold!r}")
    return _judged(model, holdout, labels, version=version, threshold=threshold)


def _rival(model: Model, holdout: pd.DataFrame, labels: FloatArray, *, version: str, case: UseCase) -> Performance:
    """At the threshold that flags the case's share of the hold-out itself: better than a rival could know, so never unfair to it."""
    scores = model.predict(holdout)
    threshold = operating_threshold(scores, case.training.alert_share)
    return measure(scores, labels, version=version, family=model.family, threshold=threshold)


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
