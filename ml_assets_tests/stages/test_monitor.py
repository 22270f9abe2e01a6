"""Figures of live events by hand; what is undefined is nan."""

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.monitor import PERFORMANCE_COLUMNS, daily_performance, performance, precision_at_top
from ml_assets.use_case import DType, Investigation, UseCase

RANKINGS = ("roc_auc", "average_precision", "baseline_average_precision", "climatology_average_precision")
FIRST = "2024-01-01"
EVENT_DAYS = {"d": "2024-01-02", "e": "2024-01-02", "f": "2024-01-02"}


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
    """Labels in force, all of them known a day after their event."""
    days = [EVENT_DAYS.get(name, FIRST) for name in labels]
    return pd.DataFrame(
        {
            "event_id": list(labels),
            "event_day": pd.array(days, dtype="str"),
            "known_at": pd.to_datetime(days, utc=True) + pd.Timedelta(days=1, hours=12),
            "label": np.array(list(labels.values()), dtype=np.int64),
        }
    )


def figures(case: UseCase, scores: pd.DataFrame, known: pd.DataFrame) -> dict[str, float]:
    return performance(scores, known, reported=known, first=FIRST, case=case)


def by_day(case: UseCase, scores: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    return daily_performance(scores, known, dict.fromkeys(scores["day"].unique(), FIRST), case=case)


def test_known_small_numbers(small_case: UseCase) -> None:
    """By score: a (1), b (0), c (1), d (0). By baseline: b (0), d (0), c (1), a (1)."""
    found = figures(small_case, scored(), labelled(d=0, c=1, b=0, a=1, somebody_else=1))

    assert math.isnan(found.pop("precision_at_top"))  # the case looks into nothing
    assert math.isnan(found.pop("expected_positives"))  # nothing says how probable a positive was
    assert found == {
        "events": 6,
        "labelled": 4,
        "waiting": 2,
        "already_known": 0,
        "positives": 2,
        "alerts": 3,
        "precision": 2 / 3,
        "recall": 1.0,
        "roc_auc": 0.75,  # of the four pairs of a late and a punctual event only (c, b) is the wrong way round
        "average_precision": pytest.approx(0.5 * 1 + 0.5 * 2 / 3),
        "baseline_average_precision": pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4),
        "climatology_average_precision": 0.5,
    }


@pytest.mark.parametrize("label", [0, 1])
def test_a_ranking_of_one_class_is_undefined(label: int, small_case: UseCase) -> None:
    found = figures(small_case, scored(), labelled(a=label, d=label))

    assert all(math.isnan(found[name]) for name in RANKINGS)
    assert found["positives"] == 2 * label
    assert found["precision"] == label
    assert math.isnan(found["recall"]) if label == 0 else found["recall"] == 0.5


def test_precision_without_alerts_and_recall_without_positives_are_undefined(small_case: UseCase) -> None:
    found = figures(small_case, scored(alert=0), labelled(a=0, b=0))

    assert (found["alerts"], found["positives"]) == (0, 0)
    assert math.isnan(found["precision"])
    assert math.isnan(found["recall"])
    assert figures(small_case, scored(alert=0), labelled(a=1, b=0))["recall"] == 0


@pytest.mark.parametrize("scores", [scored(), scored().iloc[:0]], ids=["no label", "no event"])
def test_nothing_known_is_counted_and_nothing_more(scores: pd.DataFrame, small_case: UseCase) -> None:
    found = figures(small_case, scores, labelled())

    assert (found["events"], found["labelled"], found["waiting"]) == (len(scores), 0, len(scores))
    assert (found["positives"], found["alerts"]) == (0, 0)
    assert all(math.isnan(found[name]) for name in (*RANKINGS, "precision", "recall", "precision_at_top"))


def test_each_day_and_each_model_is_judged_by_itself(small_case: UseCase) -> None:
    rows = by_day(small_case, scored(), labelled(a=1, b=0, c=1, d=0, e=1))

    assert list(rows.columns) == [*(column.name for column in PERFORMANCE_COLUMNS), "day"]
    assert rows[["day", "model_version", "events", "labelled", "waiting"]].to_numpy().tolist() == [
        ["2024-01-01", "v1", 3, 3, 0],
        ["2024-01-02", "v1", 1, 1, 0],
        ["2024-01-02", "v2", 2, 1, 1],
    ]
    assert rows.loc[0, "precision"] == pytest.approx(2 / 3)
    assert rows["roc_auc"].isna().tolist() == [False, True, True]
    alone = by_day(small_case, scored().query("day == '2024-01-02'"), labelled(a=1, b=0, c=1, d=0, e=1))
    pd.testing.assert_frame_equal(alone, rows.iloc[1:].reset_index(drop=True))


def test_figures_are_within_their_declared_bounds_and_no_events_are_no_rows(small_case: UseCase) -> None:
    rows = by_day(small_case, scored(), labelled(a=1, b=0, c=1, d=0))

    for column in (column for column in PERFORMANCE_COLUMNS if column.dtype is not DType.STRING):
        values = rows[column.name].dropna()
        assert (values >= column.minimum).all()
        assert column.maximum is None or (values <= column.maximum).all()
    assert by_day(small_case, scored().iloc[:0], labelled(a=1)).empty


def test_two_labels_of_one_event_are_refused(small_case: UseCase) -> None:
    with pytest.raises(ValueError, match="duplicate"):
        figures(small_case, scored(), pd.concat([labelled(a=1), labelled(a=0)], ignore_index=True))


# What people look into --------------------------------------------------------------------------------------------------------

TOP = Investigation(metric="card_precision_at_2", entity="card", top=2, known_for=timedelta(days=7))


@pytest.fixture
def cards(small_case: UseCase) -> UseCase:
    return replace(small_case, investigation=TOP)


def ranked(*rows: tuple[str, str, int, float], top: int = 2) -> float:
    """Rows of (day, card, label, score)."""
    days, names, labels, scores = zip(*rows, strict=True)
    return precision_at_top(pd.DataFrame({"day": days, "card": names, "label": labels}), np.array(scores), replace(TOP, top=top))


def test_a_card_has_its_highest_score_and_counts_once() -> None:
    assert ranked(("1", "p", 1, 0.9), ("1", "p", 0, 0.8), ("1", "q", 0, 0.7), ("1", "r", 1, 0.6)) == 0.5


def test_a_card_is_positive_where_any_of_its_events_is_not_only_the_highest() -> None:
    assert ranked(("1", "p", 0, 0.9), ("1", "p", 1, 0.1), ("1", "q", 0, 0.7)) == 0.5


def test_days_count_the_same_however_many_events_they_have() -> None:
    assert ranked(("1", "p", 1, 0.9), ("1", "q", 1, 0.8), *(("2", f"c{number}", 0, 0.5) for number in range(9))) == 0.5


def test_a_day_with_fewer_cards_than_can_be_looked_into_does_not_reach_1() -> None:
    assert ranked(("1", "p", 1, 0.9), top=4) == 0.25


def test_a_card_that_was_found_makes_room_for_others_later_and_one_that_was_missed_does_not() -> None:
    found = (("1", "p", 1, 0.9), ("1", "q", 0, 0.8), ("1", "missed", 1, 0.1))

    assert ranked(*found, ("2", "p", 1, 0.9), ("2", "r", 0, 0.8), ("2", "s", 1, 0.7)) == (0.5 + 0.5) / 2
    assert ranked(*found, ("2", "missed", 1, 0.9), ("2", "q", 0, 0.8), ("2", "s", 1, 0.7)) == (0.5 + 0.5) / 2
    assert ranked(*found, ("2", "p", 1, 0.9), ("2", "r", 0, 0.8), ("2", "s", 0, 0.7)) == (0.5 + 0) / 2


def test_cards_of_one_score_are_taken_by_name_in_any_order_of_rows() -> None:
    rows = [("1", "a", 1, 0.5), ("1", "b", 0, 0.5), ("1", "c", 0, 0.5)]

    assert ranked(*rows) == ranked(*reversed(rows)) == 0.5


def card_precision_top_k_day(df_day: pd.DataFrame, top_k: int) -> tuple[list[str], float]:
    """As published in the Fraud Detection Handbook (Le Borgne et al., 2022, chapter 4)."""
    df_day = df_day.groupby("CUSTOMER_ID").max().sort_values(by="predictions", ascending=False).reset_index(drop=False)
    df_day_top_k = df_day.head(top_k)
    detected = list(df_day_top_k[df_day_top_k["TX_FRAUD"] == 1]["CUSTOMER_ID"])
    return detected, len(detected) / top_k


def card_precision_top_k(predictions_df: pd.DataFrame, top_k: int) -> float:
    """Ditto, with `remove_detected_compromised_cards`."""
    detected: list[str] = []
    per_day = []
    for day in sorted(predictions_df["TX_TIME_DAYS"].unique()):
        df_day = predictions_df[predictions_df["TX_TIME_DAYS"] == day][["predictions", "CUSTOMER_ID", "TX_FRAUD"]]
        df_day = df_day[~df_day["CUSTOMER_ID"].isin(detected)]
        found, precision = card_precision_top_k_day(df_day, top_k)
        per_day.append(precision)
        detected.extend(found)
    return float(np.mean(per_day))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("top", [1, 7, 40, 500])
def test_precision_at_the_top_is_that_of_the_handbook(seed: int, top: int) -> None:
    random = np.random.default_rng(seed)
    count = 1500
    label = (random.random(count) < 0.06).astype(int)
    events = pd.DataFrame(
        {"day": random.integers(10, 17, count).astype(str), "card": [f"c{card}" for card in random.integers(0, 90, count)]}
    ).assign(label=label)
    scores = random.random(count) + 0.4 * label

    theirs = pd.DataFrame(
        {"predictions": scores, "CUSTOMER_ID": events["card"], "TX_FRAUD": label, "TX_TIME_DAYS": events["day"].astype(int)}
    )
    assert precision_at_top(events, scores, replace(TOP, top=top)) == pytest.approx(card_precision_top_k(theirs, top), abs=1e-12)


def of_cards(known: pd.DataFrame, **cards: str) -> pd.DataFrame:
    return known.assign(card=[cards[name] for name in known["event_id"]])


def test_events_of_cards_that_were_known_by_then_are_counted_and_judged_no_more(cards: UseCase) -> None:
    """The label of a becomes known at noon of the 2nd: its card's events of the 2nd are judged, those of the 3rd are not."""
    known = of_cards(labelled(a=1, b=0, c=0, d=1, e=1, f=0), a="p", b="q", c="r", d="p", e="s", f="q")

    second, third = (
        performance(scored(day=["2024-01-01"] * 3 + [day] * 3), known, reported=known, first=FIRST, case=cards)
        for day in ("2024-01-02", "2024-01-03")
    )

    assert (second["labelled"], second["already_known"], second["positives"], second["alerts"]) == (6, 0, 3, 4)
    assert (third["labelled"], third["already_known"], third["positives"], third["alerts"]) == (6, 1, 2, 4)
    assert second["precision_at_top"] == (0.5 + 0.5) / 2  # p is found on the first day, and s on the second
    assert third["precision_at_top"] == second["precision_at_top"]
    assert third["recall"] == 1.0  # d, whose score is low, is no part of it


def test_who_is_known_is_known_from_other_days_too(cards: UseCase) -> None:
    """A day is judged alone, and knows the positives of days before all the same."""
    known = of_cards(labelled(a=1, d=1, e=1, f=0), a="p", d="p", e="s", f="q")
    scores = scored(day=["2024-01-01"] * 3 + ["2024-01-03"] * 3, model_version="v1")

    rows = by_day(cards, scores, known.assign(event_day=scores.set_index("event_id").loc[known["event_id"], "day"].to_numpy()))

    assert rows[["day", "labelled", "already_known", "positives"]].to_numpy().tolist() == [
        ["2024-01-01", 1, 0, 1],
        ["2024-01-03", 3, 1, 1],
    ]
    assert rows["precision_at_top"].tolist()[1] == 0.5
