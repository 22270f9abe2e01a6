"""Promise and outcome over a window: what falls, what is miscalibrated, and about what too little is known."""

from dataclasses import replace

import pandas as pd
import pytest

from ml_assets.stages.promise import alarms, promise_findings, promises
from ml_assets.use_case import Monitoring, day_range
from ml_assets_tests.stages.test_estimate import STRAIGHT, reference

DAYS = day_range("2024-01-01", "2024-01-20")
REFERENCES = {"v1": reference(STRAIGHT), "v2": replace(reference(STRAIGHT), roc_auc=0.9)}
MONITORING = Monitoring(max_fall=0.1, max_miscalibration=1.5, minimum_positives=30)


def live(**changed: object) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model_version": "v1",
            "positives": 10,
            "expected_positives": 10.0,
            "roc_auc": 0.7,
            "average_precision": 0.5,
            "day": DAYS,
        }
        | changed
    )


def estimates(live: pd.DataFrame) -> pd.DataFrame:
    return live[["model_version", "day"]].assign(roc_auc=0.72, average_precision=0.52)


def report(rows: pd.DataFrame, days: list[str] = DAYS, monitoring: Monitoring = MONITORING) -> pd.DataFrame:
    return promises(rows, estimates(rows), days, references=REFERENCES, monitoring=monitoring)


def test_a_model_that_keeps_its_promise_is_no_alarm() -> None:
    found = report(live())
    assert alarms(found) == []
    last = found.iloc[-1]
    assert (last["window_days"], last["positives"], last["observed_over_expected"]) == (7, 70, 1.0)
    assert last["fall"] == pytest.approx(0.0)
    assert (last["promised_roc_auc"], last["estimated_roc_auc"], last["realised_roc_auc"]) == pytest.approx((0.7, 0.72, 0.7))
    assert all(finding.passed for of_day in promise_findings(found, MONITORING).values() for finding in of_day)


def test_a_fall_is_an_alarm_once_the_window_says_so() -> None:
    since = 10
    rows = live(roc_auc=[0.7] * since + [0.5] * (len(DAYS) - since))
    found = report(rows)
    assert alarms(found) == DAYS[since + 3 :], "after four of seven days the mean fell by 0.114"
    fall, calibration = promise_findings(found, MONITORING)[DAYS[-1]]
    assert (fall.passed, calibration.passed) == (False, True)
    assert fall.severity == "warn"
    assert fall.observed == "0.500 over 7 days, promised 0.700"


@pytest.mark.parametrize(("positives", "alarm"), [(10, False), (14, False), (16, True), (7, False), (6, True)])
def test_positives_that_the_scores_did_not_foresee_are_an_alarm(positives: int, alarm: bool) -> None:
    found = report(live(positives=positives))
    assert (DAYS[-1] in alarms(found)) == alarm
    _, calibration = promise_findings(found, MONITORING)[DAYS[-1]]
    assert calibration.passed != alarm
    assert f"{7 * positives} positives, 70.0 expected" in calibration.observed


def test_with_few_positives_nothing_is_said() -> None:
    found = report(live(positives=4, roc_auc=0.1))
    assert alarms(found) == []
    assert found["fall"].isna().all()
    fall, _ = promise_findings(found, MONITORING)[DAYS[-1]]
    assert (fall.passed, fall.observed) == (True, "undefined: 28 positives, 30 are needed")


def test_each_day_is_measured_by_the_promise_of_its_own_model() -> None:
    rows = live(model_version=["v1"] * 17 + ["v2"] * 3)
    found = report(rows).iloc[-1]
    assert found["promised_roc_auc"] == pytest.approx((4 * 0.7 + 3 * 0.9) / 7)
    assert found["model_version"] == "v2"


def test_a_day_without_events_has_the_figures_of_its_window_or_none() -> None:
    rows = live()
    found = report(rows[rows["day"] != DAYS[14]].reset_index(drop=True), [DAYS[14]])
    assert found["window_days"].tolist() == [6]
    assert report(rows.head(0), [DAYS[14]]).empty


def test_days_that_are_not_known_yet_are_left_out() -> None:
    rows = live()
    found = report(rows[~rows["day"].isin(DAYS[10:13])].reset_index(drop=True), [DAYS[14]])
    assert found["window_days"].tolist() == [4]
