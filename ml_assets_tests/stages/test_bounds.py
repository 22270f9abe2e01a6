"""Figures keep their bounds: rounding is forgiven, a wrong figure is not, and no check of a table is red for the last bit."""

import math

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages import comparison, drift, intervals, metrics
from ml_assets.stages.bounds import as_declared, bounded
from ml_assets.stages.estimate import ESTIMATE_COLUMNS, estimated
from ml_assets.stages.monitor import PERFORMANCE_COLUMNS, daily_performance
from ml_assets.stages.quality import audit
from ml_assets.stages.reference import Calibration
from ml_assets.use_case import Column, DType, UseCase

PERFECT = 53
"""Positives, all scored above the negatives: average precision of scikit-learn is above 1."""


def ranked(positives: int = PERFECT) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([0.0, 1.0], [20, positives]), np.concatenate([np.linspace(0, 0.1, 20), np.linspace(0.5, 1, positives)])


def test_rounding_is_forgiven_and_nothing_else() -> None:
    values = [1 + 2e-16, -1e-17, math.nan, 0.5]

    assert bounded(values, name="recall")[[0, 1, 3]].tolist() == [1.0, 0.0, 0.5]
    assert math.isnan(bounded(values, name="recall")[2])
    assert bounded([7.0, -1e-12], name="index", maximum=None).tolist() == [7.0, 0.0]
    with pytest.raises(ValueError, match=r"recall is (np.float64\()?1\.00001\)?, which lies outside 0 to 1 by more than rounding"):
        bounded([0.5, 1.00001], name="recall")
    with pytest.raises(ValueError, match=r"index is .*, which lies outside 0 to inf by more than rounding"):
        bounded([-1e-3], name="index", maximum=None)


def test_a_table_is_typed_and_within_its_declared_bounds() -> None:
    columns = (
        Column(name="share", dtype=DType.FLOAT64, nullable=True, minimum=0, maximum=1),
        Column(name="free", dtype=DType.FLOAT64),
    )
    rows = pd.DataFrame({"free": [2, 3], "day": ["2013-01-01"] * 2, "share": [1 + 2e-16, None]})

    typed = as_declared(rows, columns)

    assert list(typed.columns) == ["share", "free", "day"]
    assert typed["share"].tolist()[0] == 1.0
    assert typed["free"].tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match="share is"):
        as_declared(rows.assign(share=1.1), columns)


@pytest.mark.parametrize("positives", range(1, 200, 7))
def test_the_metrics_of_a_perfect_model_are_1_and_so_are_their_intervals(positives: int) -> None:
    labels, scores = ranked(positives)
    days = np.tile(["2013-01-01", "2013-01-02", "2013-01-03"], len(labels))[: len(labels)]

    found = metrics.measure(scores, labels, version="1", family="lightgbm", threshold=0.5, further={}).metrics
    ends = intervals.intervals(scores, labels, days, threshold=0.5, resamples=50, seed=1)
    drawn = comparison.average_precisions(labels, scores, np.unique(days, return_inverse=True)[1], np.ones((1, 3)))

    assert {found[name] for name in ("average_precision", "roc_auc", "accuracy", "precision", "recall", "f1")} == {1.0}
    assert {end for name in ("average_precision", "roc_auc") for end in ends[name]} == {1.0}
    assert drawn.tolist() == [1.0]


def test_the_performance_report_of_a_perfect_model_is_green(small_case: UseCase) -> None:
    labels, scores = ranked()
    ids = [f"e{place:03}" for place in range(len(labels))]
    rows = pd.DataFrame({"event_id": ids, "score": scores, "baseline_score": scores, "climatology_score": scores})
    rows = rows.assign(alert=(scores > 0.3).astype("int64"), rate=labels, model_version="v1", day="2024-01-01")
    known = pd.DataFrame({"event_id": ids, "label": labels.astype("int64"), "event_day": "2024-01-01"})
    known = known.assign(known_at=pd.Timestamp("2024-01-02", tz="UTC"))

    performance = daily_performance(rows, known, {"2024-01-01": "2024-01-01"}, case=small_case)

    assert performance["average_precision"].tolist() == [1.0]
    verdict = audit(performance, days=["2024-01-01"], columns=PERFORMANCE_COLUMNS, key=("model_version",))["2024-01-01"]
    assert verdict.passed, verdict.message()


def test_an_estimate_keeps_its_bounds() -> None:
    """All that is expected to be positive is flagged: recall is 1, in whatever order the parts are summed."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        rates = np.where(rng.random(997) < 0.3, 0.0, rng.random(997))
        found = estimated(rng.random(997), (rates > 0).astype(np.float64), rates)
        assert found["recall"] == 1.0
        assert all(0 <= found[column.name] <= 1 for column in ESTIMATE_COLUMNS if column.maximum == 1 and column.name in found)


def test_a_calibrated_rate_is_a_probability() -> None:
    line = Calibration(scores=np.array([0.1, 0.3, 0.7]), rates=np.array([0.0, 0.1, 1.0]))

    rates = line.rate(np.concatenate([np.nextafter([0.1, 0.3, 0.7], 0), np.linspace(0, 1, 10_001)]))

    assert rates.min() == 0
    assert rates.max() == 1


def test_drift_of_what_has_not_moved_is_not_negative() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        reference = rng.integers(0, 1000, 11)
        for counts in (reference, 3 * reference + 1):
            assert drift.population_stability(counts[None, :], reference)[0] >= 0
            assert 0 <= drift.jensen_shannon(counts[None, :], reference)[0] <= 1
