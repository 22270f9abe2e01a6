"""Figures of live events by hand; what is undefined is nan."""

import math

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.monitor import PERFORMANCE_COLUMNS, daily_performance, performance
from ml_assets.use_case import DType

RANKINGS = ("roc_auc", "average_precision", "baseline_average_precision", "climatology_average_precision")


def scored(**changed: object) -> pd.DataFrame:
    """Six events; e and f wait for their labels."""
    scores = pd.DataFrame(
        {
            "event_id": ["a", "b", "c", "d", "e", "f"],
            "score": [0.9, 0.8, 0.7, 0.1, 0.95, 0.2],
            "alert": [1, 1, 1, 0, 1, 0],
            "baseline_score": [0.1, 0.9, 0.2, 0.8, 0.5, 0.5],
            "climatology_score": [0.5] * 6,
            "model_version": ["v1"] * 4 + ["v2"] * 2,
            "day": ["2024-01-01"] * 3 + ["2024-01-02"] * 3,
        }
    )
    return scores.assign(**changed)


def labelled(**labels: int) -> pd.DataFrame:
    return pd.DataFrame({"event_id": list(labels), "label": np.array(list(labels.values()), dtype=np.int64)})


def test_known_small_numbers() -> None:
    """By score: a (1), b (0), c (1), d (0). By baseline: b (0), d (0), c (1), a (1)."""
    figures = performance(scored(), truth(d=0, c=1, b=0, a=1, somebody_else=1))

    assert figures == {
        "events": 6,
        "labelled": 4,
        "waiting": 2,
        "positives": 2,
        "alerts": 3,
        "precision": 2 / 3,
        "recall": 1.0,
        "roc_auc": 0.75,  # of the four pairs of a late and a punctual event only (c, b) is the wrong way round
        "average_precision": pytest.approx(0.5 * 1 + 0.5 * 2 / 3),
        "baseline_average_precision": pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4),
        "climatology_average_precision": 0.5,
    }


def truth(**labels: int) -> pd.Series:
    return labelled(**labels).set_index("event_id")["label"]


@pytest.mark.parametrize("label", [0, 1])
def test_a_ranking_of_one_class_is_undefined(label: int) -> None:
    figures = performance(scored(), truth(a=label, d=label))

    assert all(math.isnan(figures[name]) for name in RANKINGS)
    assert figures["positives"] == 2 * label
    assert figures["precision"] == label
    assert math.isnan(figures["recall"]) if label == 0 else figures["recall"] == 0.5


def test_precision_without_alerts_and_recall_without_positives_are_undefined() -> None:
    figures = performance(scored(alert=0), truth(a=0, b=0))

    assert (figures["alerts"], figures["positives"]) == (0, 0)
    assert math.isnan(figures["precision"])
    assert math.isnan(figures["recall"])
    assert performance(scored(alert=0), truth(a=1, b=0))["recall"] == 0


@pytest.mark.parametrize("scores", [scored(), scored().iloc[:0]], ids=["no label", "no event"])
def test_nothing_known_is_counted_and_nothing_more(scores: pd.DataFrame) -> None:
    figures = performance(scores, truth())

    assert (figures["events"], figures["labelled"], figures["waiting"]) == (len(scores), 0, len(scores))
    assert (figures["positives"], figures["alerts"]) == (0, 0)
    assert all(math.isnan(figures[name]) for name in (*RANKINGS, "precision", "recall"))


def test_each_day_and_each_model_is_judged_by_itself() -> None:
    rows = daily_performance(scored(), labelled(a=1, b=0, c=1, d=0, e=1))

    assert list(rows.columns) == [*(column.name for column in PERFORMANCE_COLUMNS), "day"]
    assert rows[["day", "model_version", "events", "labelled", "waiting"]].to_numpy().tolist() == [
        ["2024-01-01", "v1", 3, 3, 0],
        ["2024-01-02", "v1", 1, 1, 0],
        ["2024-01-02", "v2", 2, 1, 1],
    ]
    assert rows.loc[0, "precision"] == pytest.approx(2 / 3)
    assert rows["roc_auc"].isna().tolist() == [False, True, True]
    alone = daily_performance(scored().query("day == '2024-01-02'"), labelled(a=1, b=0, c=1, d=0, e=1))
    pd.testing.assert_frame_equal(alone, rows.iloc[1:].reset_index(drop=True))


def test_figures_are_within_their_declared_bounds_and_no_events_are_no_rows() -> None:
    rows = daily_performance(scored(), labelled(a=1, b=0, c=1, d=0))

    for column in (column for column in PERFORMANCE_COLUMNS if column.dtype is not DType.STRING):
        values = rows[column.name].dropna()
        assert (values >= column.minimum).all()
        assert column.maximum is None or (values <= column.maximum).all()
    assert daily_performance(scored().iloc[:0], labelled(a=1)).empty


def test_two_labels_of_one_event_are_refused() -> None:
    with pytest.raises(pd.errors.InvalidIndexError, match="uniquely"):
        performance(scored(), pd.concat([truth(a=1), truth(a=0)]))
