"""One score an event, in the order of the events, by models that see a row alone as they see it among others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.score import SCORE_COLUMNS, score, scoring_findings
from ml_assets.stages.train import Candidate, train_candidate
from ml_assets.use_case import Severity, UseCase, nullable_dtype


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Events of two days, a candidate, and what it says."""

    features: pd.DataFrame
    candidate: Candidate

    def by(self, features: pd.DataFrame, threshold: float = 0.4) -> pd.DataFrame:
        model, baseline, climatology = self.candidate.model, self.candidate.baseline, self.candidate.climatology
        return score(features, version="v1", threshold=threshold, model=model, baseline=baseline, climatology=climatology)


@pytest.fixture
def scored(small_case: UseCase, events: Callable[..., Any]) -> Scored:
    rows, labels = events("2024-01-01", "2024-01-30", per_day=60)
    times = pd.Series(pd.to_datetime(rows["day"]).dt.tz_localize("UTC")).astype("datetime64[us, UTC]")
    rows = rows.assign(event_id=[f"e{number}" for number in range(len(rows))], event_time=times)
    return Scored(features=rows.tail(120), candidate=train_candidate(rows, labels, rows["day"], case=small_case))


def test_every_event_has_its_row_in_the_order_of_the_features(scored: Scored) -> None:
    features = scored.features.sample(frac=1, random_state=3)

    scores = scored.by(features)

    assert list(scores.columns) == [*(column.name for column in SCORE_COLUMNS), "day"]
    assert scores[["event_id", "event_time", "day"]].equals(features[["event_id", "event_time", "day"]])
    assert np.array_equal(scores["score"], scored.candidate.model.predict(features))
    assert np.array_equal(scores["baseline_score"], scored.candidate.baseline.predict(features))
    assert np.array_equal(scores["climatology_score"], scored.candidate.climatology.predict(features))
    assert set(scores["model_version"]) == {"v1"}
    assert {column.name: scores[column.name].dtype for column in SCORE_COLUMNS} == {
        column.name: nullable_dtype(column.dtype) for column in SCORE_COLUMNS
    }


def test_a_score_at_the_threshold_alerts(scored: Scored) -> None:
    threshold = float(scored.by(scored.features)["score"].iloc[7])

    scores = scored.by(scored.features, threshold)

    assert scores["alert"].iloc[7] == 1
    assert scores["alert"].tolist() == [int(value >= threshold) for value in scores["score"]]
    assert (scores["threshold"] == threshold).all()
    assert 0 < scores["alert"].sum() < len(scores)


def test_an_event_alone_has_the_score_that_it_has_among_others(scored: Scored) -> None:
    together = scored.by(scored.features)

    alone = pd.concat([scored.by(scored.features.iloc[[at]]) for at in range(10)])

    pd.testing.assert_frame_equal(alone, together.head(10), check_exact=True)


def test_no_events_have_no_scores_of_the_right_types(scored: Scored) -> None:
    empty = scored.by(scored.features.iloc[:0])

    assert len(empty) == 0
    assert list(empty.columns) == [*(column.name for column in SCORE_COLUMNS), "day"]
    assert {column.name: empty[column.name].dtype for column in SCORE_COLUMNS} == {
        column.name: nullable_dtype(column.dtype) for column in SCORE_COLUMNS
    }


def test_a_day_with_a_missing_score_is_found(scored: Scored) -> None:
    scores = scored.by(scored.features)
    first, second = sorted(scores["day"].unique())
    events = {first: 60, second: 60, "2024-02-01": 0, "2024-02-02": 5}

    found = scoring_findings(events, scores.drop(scores.index[-1]), list(events))

    assert {day: findings[0].passed for day, findings in found.items()} == {
        first: True,
        second: False,
        "2024-02-01": True,
        "2024-02-02": False,
    }
    assert (found[second][0].observed, found[second][0].severity) == (
        "59 scores of 59 events, for 60 with features",
        Severity.ERROR,
    )
    assert found["2024-02-02"][0].observed == "0 scores of 0 events, for 5 with features"


def test_a_score_twice_does_not_stand_for_a_missing_one(scored: Scored) -> None:
    scores = scored.by(scored.features)
    day = scores["day"].iloc[0]
    of_day = scores[scores["day"] == day]

    found = scoring_findings({day: 60}, pd.concat([of_day.iloc[:-1], of_day.iloc[:1]]), [day])

    assert not found[day][0].passed


def test_an_event_scored_twice_is_found(scored: Scored) -> None:
    scores = scored.by(scored.features)
    day = str(scores["day"].iloc[0])
    twice = pd.concat([scores, scores[scores["day"] == day].head(1)], ignore_index=True)
    events = {day: int((scores["day"] == day).sum())}

    assert [finding.passed for finding in scoring_findings(events, scores, [day])[day]] == [True]
    assert [finding.passed for finding in scoring_findings(events, twice, [day])[day]] == [False]
