"""Estimated performance: right where scores are calibrated, and blind to what only labels can tell."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ml_assets.stages.drift import SCORE
from ml_assets.stages.estimate import estimated, estimated_days
from ml_assets.stages.reference import Calibration, Reference
from ml_assets.stages.sketch import sketch

STRAIGHT = Calibration(scores=np.array([0.0, 1.0]), rates=np.array([0.0, 1.0]))


def reference(calibration: Calibration) -> Reference:
    return Reference(
        features={},
        score=sketch(pd.DataFrame({SCORE: [0.5]}), SCORE, text=False),
        importance={},
        calibration=calibration,
        average_precision=0.5,
        roc_auc=0.7,
        positive_rate=0.5,
    )


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_of_calibrated_scores_the_estimate_is_what_labels_say(spread: float) -> None:
    random = np.random.default_rng(3)
    scores = 1 / (1 + np.exp(-random.normal(-1.5, spread, size=60_000)))
    labels, alerts = random.random(60_000) < scores, (scores > 0.3).astype(np.float64)
    found = estimated(scores, alerts, scores)
    hits = (labels & (alerts == 1)).sum()
    assert found["expected_positives"] == pytest.approx(labels.sum(), rel=0.03)
    assert found["precision"] == pytest.approx(hits / alerts.sum(), abs=0.015)
    assert found["recall"] == pytest.approx(hits / labels.sum(), abs=0.015)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=0.01)
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores), abs=0.015)


def test_three_events_by_hand() -> None:
    found = estimated(np.array([0.9, 0.5, 0.1]), np.array([1.0, 0.0, 0.0]), np.array([0.8, 0.5, 0.2]))
    assert found["expected_positives"] == pytest.approx(1.5)
    assert found["precision"] == pytest.approx(0.8)
    assert found["recall"] == pytest.approx(0.8 / 1.5)
    pairs = 1.5 * 1.5  # expected positives times expected negatives
    before = 0.8 * (0.5 + 0.8) + 0.5 * 0.8
    same = (0.8 * 0.2 + 0.5 * 0.5 + 0.2 * 0.8) / 2
    assert found["roc_auc"] == pytest.approx((before + same) / pairs)


def test_what_is_undefined_is_nan() -> None:
    nothing = estimated(np.array([0.2, 0.1]), np.zeros(2), np.zeros(2))
    assert nothing["expected_positives"] == 0.0
    assert all(math.isnan(nothing[name]) for name in ("precision", "recall", "roc_auc", "average_precision"))
    certain = estimated(np.array([0.2, 0.1]), np.ones(2), np.ones(2))
    assert (certain["precision"], certain["recall"]) == (1.0, 1.0)
    assert math.isnan(certain["roc_auc"])


def test_each_day_is_estimated_by_the_calibration_of_its_model() -> None:
    scores = pd.DataFrame(
        {
            "score": [0.5, 0.5, 0.5, 0.5],
            "alert": [1, 0, 1, 1],
            "model_version": ["v1", "v1", "v2", "v2"],
            "day": ["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-02"],
        }
    )
    halved = Calibration(scores=np.array([0.0, 1.0]), rates=np.array([0.0, 0.5]))
    found = estimated_days(scores, {"v1": reference(STRAIGHT), "v2": reference(halved)})
    assert found["model_version"].tolist() == ["v1", "v2"]
    assert found["expected_positives"].tolist() == [1.0, 0.5]
    assert found["alert_share"].tolist() == [0.5, 1.0]
    assert found["alerts"].dtype == np.int64
