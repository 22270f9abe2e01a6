"""Drift by planted shifts of known size, and none where nothing was planted."""

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.drift import (
    DRIFT_COLUMNS,
    SCORE,
    alarms,
    drift_figures,
    drift_findings,
    drift_markdown,
    drift_of_days,
    jensen_shannon,
    population_stability,
)
from ml_assets.stages.reference import Calibration, Reference
from ml_assets.stages.sketch import sketch
from ml_assets.use_case import Day, Monitoring, day_range, nullable_dtype, shift

NUMBERS = [f"number_{at:02}" for at in range(28)]
TEXTS = ["kind", "place"]
EVENTS = 400
"""A day."""
JUDGED = day_range("2024-01-01", "2024-01-14")
QUIET = day_range("2024-01-15", "2024-03-14")
MONITORING = Monitoring()


def events_of(days: list[Day], seed: int) -> pd.DataFrame:
    """28 numbers of several shapes and two texts, and a score; every weekday has a level of its own in a few of them."""
    random = np.random.default_rng(seed)
    rows = EVENTS * len(days)
    day = np.repeat(np.asarray(days, dtype=object), EVENTS)
    weekday = np.repeat([pd.Timestamp(each).weekday() for each in days], EVENTS)
    columns: dict[str, object] = {}
    for at, name in enumerate(NUMBERS):
        drawn = random.normal(size=rows) + (0.5 * weekday if at < 4 else 0.0)
        columns[name] = [drawn, np.exp(drawn), np.floor(3 * drawn).clip(0), np.where(drawn > 1.5, np.nan, drawn)][at % 4]
    columns["kind"] = random.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1], size=rows)
    columns["place"] = random.choice([f"place {at}" for at in range(60)], size=rows)
    frame = pd.DataFrame({**columns, SCORE: 1 / (1 + np.exp(3 - random.normal(size=rows))), "day": day})
    return frame.astype({"day": "str", "kind": "str", "place": "str"})


def reference_to(judged: pd.DataFrame) -> Reference:
    names = [*NUMBERS, *TEXTS]
    return Reference(
        features={name: sketch(judged, name, text=name in TEXTS) for name in names},
        score=sketch(judged, SCORE, text=False),
        importance=dict.fromkeys(names, 1 / len(names)),
        calibration=Calibration(scores=np.array([0.0, 1.0]), rates=np.array([0.0, 1.0])),
        average_precision=0.5,
        roc_auc=0.7,
        positive_rate=0.1,
    )


REFERENCE = reference_to(events_of(JUDGED, seed=1))


def drift_in(rows: pd.DataFrame, days: list[Day], monitoring: Monitoring = MONITORING) -> pd.DataFrame:
    return drift_of_days(rows, rows, days, version="v1", reference=REFERENCE, monitoring=monitoring)


def changed(name: str, change: object) -> pd.DataFrame:
    """A week in which one column is another one."""
    rows = events_of(QUIET[:7], seed=5)
    return rows.assign(**{name: change(rows[name]) if callable(change) else change})


def psi_of(rows: pd.DataFrame, name: str) -> float:
    found = drift_in(rows, [QUIET[6]])
    return float(found.loc[found["feature"] == name, "psi"].iloc[0])


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_nothing_is_reported_over_sixty_quiet_days(seed: int) -> None:
    assert len(QUIET) == 60
    found = drift_in(events_of([*JUDGED[-6:], *QUIET], seed=seed), QUIET)
    assert len(found) == 60 * 31
    assert found["psi"].notna().all()
    assert found["drifted"].sum() == 0
    assert found["psi"].max() < 0.05, "far from the limit, and not by luck"
    assert alarms(found, MONITORING) == []


@pytest.mark.parametrize("deviations", [0.5, 1.0, 1.5])
def test_a_shift_of_the_mean_has_the_index_that_theory_says(deviations: float) -> None:
    """Of two normal distributions with one deviation the index is the squared distance of their means; ten bins see a little less."""
    found = psi_of(changed("number_04", lambda values: values + deviations), "number_04")
    assert 0.75 * deviations**2 < found < 1.2 * deviations**2


@pytest.mark.parametrize(
    ("name", "change", "drifts"),
    [
        ("number_04", lambda values: values + 0.25, False),
        ("number_04", lambda values: values + 0.75, True),
        ("number_05", lambda values: values * 3, True),
        ("number_06", lambda values: values + 1, True),
        ("number_04", lambda values: values * 2.5, True),
        ("number_07", lambda values: values.where(np.arange(len(values)) % 100 >= 30), True),
        ("kind", lambda values: values.where(np.arange(len(values)) % 3 > 0, "c"), True),
        ("kind", lambda values: values.where(np.arange(len(values)) % 50 > 0, "c"), False),
        ("kind", "never seen before", True),
        ("place", "place 7", True),
        (SCORE, lambda values: values * 1.5, True),
    ],
)
def test_a_planted_shift_is_found_in_its_feature_and_in_no_other(name: str, change: object, drifts: bool) -> None:
    found = drift_in(changed(name, change), [QUIET[6]])
    assert found.loc[found["drifted"] == 1, "feature"].tolist() == ([name] if drifts else [])


def test_a_shift_is_found_before_the_window_is_full_of_it() -> None:
    rows = events_of(QUIET[:14], seed=6)
    since = rows["day"] >= QUIET[7]
    found = drift_in(rows.assign(number_04=rows["number_04"] + 1.5 * since), QUIET[6:14])
    first = found.loc[found["drifted"] == 1, "day"].min()
    assert QUIET[7] < first <= QUIET[10]


def test_an_index_does_not_depend_on_which_days_are_looked_at_together() -> None:
    rows = events_of(QUIET[:20], seed=7)
    together = drift_in(rows, QUIET[6:20])
    alone = drift_in(rows[rows["day"].between(QUIET[4], QUIET[10])], [QUIET[10]])
    pd.testing.assert_frame_equal(together[together["day"] == QUIET[10]].reset_index(drop=True), alone)


def test_a_day_that_is_missing_makes_its_window_smaller_and_nothing_else() -> None:
    rows = events_of(QUIET[:7], seed=8)
    found = drift_in(rows[rows["day"] != QUIET[3]], [QUIET[6]])
    assert found["window_rows"].unique().tolist() == [6 * EVENTS]


def test_a_day_without_events_is_judged_by_its_window() -> None:
    rows = events_of(QUIET[:7], seed=8)
    found = drift_in(rows[rows["day"] != QUIET[6]], QUIET[5:7])
    assert found.groupby("day")["window_rows"].first().tolist() == [6 * EVENTS, 6 * EVENTS]
    assert found["psi"].notna().all()
    nothing = drift_in(rows.head(0), [QUIET[6]])
    assert nothing["window_rows"].sum() == nothing["drifted"].sum() == 0
    assert nothing["psi"].isna().all()


def test_too_few_events_are_undefined_and_no_alarm() -> None:
    rows = changed("number_04", lambda values: values + 5).head(300)
    found = drift_in(rows, [QUIET[0]])
    assert found["psi"].isna().all()
    assert found["drifted"].sum() == 0
    (finding, calm) = drift_findings(found, [QUIET[0]], MONITORING)[QUIET[0]]
    assert (finding.passed, finding.observed) == (True, "undefined: too few events")
    assert calm.observed == "30 of 30"
    assert "undefined" in drift_markdown(found)
    assert "score_psi" not in drift_figures(found)[QUIET[0]]


def test_a_feature_of_the_calendar_is_shown_and_not_reported() -> None:
    rows = changed("number_04", lambda values: values + 2)
    found = drift_in(rows, [QUIET[6]], Monitoring(expected_to_drift=("number_04",)))
    assert found["drifted"].sum() == 0
    assert found.set_index("feature")["psi"]["number_04"] > 1
    assert found.loc[found["watched"] == 0, "feature"].tolist() == ["number_04"]
    assert drift_figures(found)[QUIET[6]]["largest_psi_feature"] != "number_04"
    shown = drift_markdown(found, most=40)
    assert "| number_04 (expected to) |" in shown
    assert shown.index("number_04") > shown.index("number_05"), "what is watched comes first"


def test_an_alarm_needs_the_score_or_features_that_matter() -> None:
    one = drift_in(changed("number_04", lambda values: values + 2), [QUIET[6]])
    assert one["drifted"].sum() == 1
    assert alarms(one, MONITORING) == [], "it carries a thirtieth of the gain"
    assert alarms(one, Monitoring(min_drifted_importance=0.03)) == [QUIET[6]]
    assert alarms(drift_in(changed(SCORE, lambda values: values * 2), [QUIET[6]]), MONITORING) == [QUIET[6]]


def test_what_is_found_is_said_with_its_size_and_direction() -> None:
    found = drift_in(changed("kind", "b"), [QUIET[6]])
    findings = drift_findings(found, [QUIET[6]], MONITORING)[QUIET[6]]
    (said,) = [finding for finding in findings if not finding.passed]
    assert said.expectation == "kind: population stability index up to 0.25 over 7 days"
    assert said.severity == "warn"
    assert said.observed.split(", ")[1].startswith("b: 3")
    assert said.observed.endswith("→ 100.0%")
    figures = drift_figures(found)[QUIET[6]]
    assert figures["features_drifted"] == 1
    assert figures["largest_psi_feature"] == "kind"
    assert figures["drifted_importance"] == pytest.approx(1 / 30)
    assert "| kind **drifted** |" in drift_markdown(found)
    assert found.dtypes.drop("day").to_dict() == {column.name: nullable_dtype(column.dtype) for column in DRIFT_COLUMNS}


def test_indices_of_two_bins_by_hand() -> None:
    """Halves are added to each bin: (50.5, 50.5) of 101 and (90.5, 10.5) of 101."""
    ours, theirs = np.array([90.5, 10.5]) / 101, np.array([0.5, 0.5])
    psi = ((ours - theirs) * np.log(ours / theirs)).sum()
    middle = (ours + theirs) / 2
    divergence = (ours * np.log2(ours / middle) + theirs * np.log2(theirs / middle)).sum() / 2
    counts, reference = np.array([[90, 10]]), np.array([50, 50])
    assert population_stability(counts, reference)[0] == pytest.approx(psi)
    assert jensen_shannon(counts, reference)[0] == pytest.approx(divergence)
    assert np.isnan(population_stability(np.array([[0, 0]]), reference)).all()
    assert shift(QUIET[0], 59) == QUIET[-1]
