"""What was answered online against what a backfill gives: the same to the last bit, or the column that differs, by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.quality import Finding, audit
from ml_assets.stages.skew import HEAD_COLUMNS, SCORE, Skew, compare, log_columns, logged_frame, skew_findings, skew_html
from ml_assets.use_case import Column, DType, Severity, UseCase

DAY, NEXT = "2024-01-01", "2024-01-02"
COUNT = 12


@pytest.fixture
def case(small_case: UseCase) -> UseCase:
    """With a number that is true or false, beside numbers, whole numbers and a text."""
    columns = (*small_case.features.columns, Column(name="large", dtype=DType.BOOL))
    return replace(small_case, title="Small & <b>", features=replace(small_case.features, columns=columns))


@pytest.fixture
def features(events: Callable[..., Any]) -> pd.DataFrame:
    """Offline: twelve events on each of two days, of which the fourth lacks a number and the fifth a text."""
    rows: pd.DataFrame = events(DAY, NEXT, per_day=COUNT)[0]
    rows = rows.fillna({"amount": 30.0, "kind": "c"})
    rows["large"] = rows["amount"] > 20
    rows.loc[3, "amount"] = np.nan
    rows.loc[4, "kind"] = None
    ids = [f"e{place}" for place in range(len(rows))]
    return rows.assign(event_id=pd.array(ids, dtype="str"), event_time=pd.Timestamp(DAY, tz="UTC"))


def scored(version: str, rows: pd.DataFrame) -> np.ndarray:
    """Each version of the model has scores of its own."""
    return (rows["risk"].to_numpy() * (1 if version == "first" else -1)).clip(-1, 1) / 2 + 0.5


def entries_of(case: UseCase, features: pd.DataFrame, day: str, *, version: str = "first") -> list[dict[str, Any]]:
    """What the log has of a day when online and offline are the same."""
    rows = features[features["day"] == day]
    values = rows[list(case.features.names)].astype(object)
    contents = values.where(values.notna(), None).to_dict("records")
    heads = zip(rows["event_id"], rows["event_time"], scored(version, rows).tolist(), contents, strict=True)
    return [
        {
            "event_id": id,
            "event_time": time.isoformat(),
            "scored_at": "2024-01-03T00:00:00.123+00:00",
            "score": score,
            "alert": score > 0.9,
            "threshold": 0.9,
            "model_version": version,
            "degraded": False,
            "unknown_entities": [],
            "reasons": None,
            "features": content,
        }
        for id, time, score, content in heads
    ]


def compared(case: UseCase, features: pd.DataFrame, entries: list[dict[str, Any]], day: str = DAY) -> Skew:
    return compare(case, logged_frame(case, {day: entries}), features, [day], scored=scored)[day]


def failed(case: UseCase, skew: Skew) -> list[Finding]:
    return [each for each in skew_findings({skew.day: skew}, len(case.features.columns))[skew.day] if not each.passed]


def test_the_same_is_green_with_numbers_texts_and_gaps(case: UseCase, features: pd.DataFrame) -> None:
    entries = {DAY: entries_of(case, features, DAY), NEXT: entries_of(case, features, NEXT, version="second")}
    logged = logged_frame(case, entries)

    skews = compare(case, logged, features, [DAY, NEXT], scored=scored)

    assert list(skews) == [DAY, NEXT]
    for day, skew in skews.items():
        assert skew == Skew(day=day, logged=COUNT, degraded=0, offline=COUNT, unknown=(), differences=())
        assert failed(case, skew) == []
    assert logged[["feature_amount", "feature_kind"]].isna().sum().tolist() == [1, 1]
    findings = skew_findings(skews, len(case.features.columns))
    verdicts = audit(logged, days=[DAY, NEXT], columns=log_columns(case), key=["event_id"], also=findings)
    assert [verdict.message() for verdict in verdicts.values() if verdict.failed] == []


@pytest.mark.parametrize(
    ("name", "values", "largest", "examples"),
    [
        ("amount", {2: 1.5, 7: -2.25, 5: 0.25, 9: 0.125}, 2.25, 3),
        ("hour", {0: 1}, 1.0, 1),
        ("noise", {1: 1e-9}, 1e-9, 1),
    ],
)
def test_a_number_that_differs_is_named_with_the_largest_difference_and_examples(
    case: UseCase, features: pd.DataFrame, name: str, values: dict[int, float], largest: float, examples: int
) -> None:
    features["amount"] = features["amount"].round(3)
    entries = entries_of(case, features, DAY)
    for place, more in values.items():
        entries[place]["features"][name] += more

    skew = compared(case, features, entries)

    [found] = skew.differences
    assert (found.column, found.events, found.compared) == (name, len(values), COUNT)
    assert found.largest == pytest.approx(largest, rel=1e-3)
    assert len(found.examples) == examples
    first = min(values)
    offline = float(features[name].iloc[first])
    assert found.examples[0].startswith(f"e{first}: {float(entries[first]['features'][name])!r} online, ")
    assert float(found.examples[0].removesuffix(" offline").rsplit(" ", 1)[1]) == offline
    whole, of_column = failed(case, skew)
    assert whole.severity is of_column.severity is Severity.ERROR
    assert whole.observed == f"1 of {len(case.features.columns) + 1} columns differ on {COUNT} events: {name}"
    assert of_column.expectation == f"{name} is the same online and offline"
    assert of_column.observed == f"{len(values)} of {COUNT} events differ, by {found.largest:.6g} at most"
    assert of_column.examples == found.examples


def test_the_last_bit_counts(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    entries[6]["features"]["risk"] = float(np.nextafter(entries[6]["features"]["risk"], np.inf))
    assert [each.column for each in compared(case, features, entries).differences] == ["risk"]


def test_a_value_on_one_side_alone_differs_by_nothing_that_can_be_told(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    entries[0]["features"]["amount"] = None
    entries[3]["features"]["amount"] = 2.0

    [found] = compared(case, features, entries).differences

    assert (found.column, found.events, found.largest) == ("amount", 2, None)
    assert found.examples[0].startswith("e0: missing online, ")
    assert found.examples[1] == "e3: 2.0 online, missing offline"
    assert failed(case, compared(case, features, entries))[1].observed == f"2 of {COUNT} events differ"


def test_a_text_and_a_yes_or_no_that_differ(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    entries[1]["features"]["kind"] = "unheard of"
    entries[4]["features"]["kind"] = "a"
    entries[2]["features"]["large"] = not entries[2]["features"]["large"]

    kind, large = compared(case, features, entries).differences

    assert (kind.column, kind.events, kind.largest) == ("kind", 2, None)
    assert kind.examples == (f"e1: 'unheard of' online, {features['kind'][1]!r} offline", "e4: 'a' online, missing offline")
    assert (large.column, large.events, large.largest) == ("large", 1, 1.0)


def test_a_score_is_computed_again_by_the_version_that_gave_it(case: UseCase, features: pd.DataFrame) -> None:
    first, second = (entries_of(case, features, DAY, version=version) for version in ("first", "second"))
    mixed = [second[place] if place % 3 == 0 else first[place] for place in range(COUNT)]
    assert compared(case, features, mixed).differences == ()

    mixed[5]["score"] += 0.125
    mixed[6]["model_version"] = "first"

    [found] = compared(case, features, mixed).differences
    assert (found.column, found.events) == (SCORE, 2)
    assert found.largest == pytest.approx(max(0.125, abs(second[6]["score"] - first[6]["score"])))
    assert [example.split(":")[0] for example in found.examples] == ["e5", "e6"]


def test_degraded_scores_are_counted_and_not_compared(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    for entry in entries[:2]:
        entry |= {"degraded": True, "score": 0.0, "features": dict.fromkeys(case.features.names)}

    skew = compared(case, features, entries)

    assert (skew.logged, skew.degraded, skew.differences) == (COUNT, 2, ())
    [warning] = failed(case, skew)
    assert (warning.severity, warning.unexpected) == (Severity.WARN, 2)
    assert warning.observed == f"2 of {COUNT} were"


def test_a_day_of_degraded_scores_alone(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    for entry in entries:
        entry |= {"degraded": True, "features": dict.fromkeys(case.features.names)}
    skew = compared(case, features, entries)
    assert (skew.degraded, skew.differences, skew.unknown) == (COUNT, (), ())


def test_events_that_are_not_there_offline_are_named(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    entries[0]["event_id"] = "refused"
    entries[7]["features"]["risk"] += 1

    skew = compared(case, features, entries)

    assert skew.unknown == ("refused",)
    assert [(each.column, each.events, each.compared) for each in skew.differences] == [("risk", 1, COUNT - 1)]
    whole, _, warning = failed(case, skew)
    assert whole.observed.startswith(f"1 of {len(case.features.columns) + 1} columns differ on {COUNT - 1} events")
    assert (warning.severity, warning.examples) == (Severity.WARN, ("refused",))


def test_of_an_event_the_first_answer_with_state_counts(case: UseCase, features: pd.DataFrame) -> None:
    first = entries_of(case, features, DAY)
    blind = [entry | {"degraded": True, "scored_at": "2024-01-02T00:00:00+00:00", "score": 0.0} for entry in first[:2]]
    again = [entry | {"scored_at": "2024-01-04T00:00:00+00:00", "score": 1.0} for entry in first[:3]]

    logged = logged_frame(case, {DAY: [*again, *blind, *first]})

    assert logged["event_id"].tolist() == sorted(f"e{place}" for place in range(COUNT))
    assert not logged["degraded"].any()
    assert logged.set_index("event_id")["score"].to_dict() == {entry["event_id"]: entry["score"] for entry in first}


def test_a_feature_that_was_declared_after_the_score_is_missing_online(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    for entry in entries:
        del entry["features"]["hour"]
    [found] = compared(case, features, entries).differences
    assert (found.column, found.events, found.largest) == ("hour", COUNT, None)


def test_a_day_without_entries_has_the_columns_all_the_same(case: UseCase) -> None:
    logged = logged_frame(case, {DAY: []})
    assert len(logged) == 0
    assert logged.columns.tolist() == [column.name for column in log_columns(case)] + ["day"]
    assert [column.name for column in log_columns(case)[: len(HEAD_COLUMNS)]] == [column.name for column in HEAD_COLUMNS]


def test_the_page_says_what_is_the_same(case: UseCase, features: pd.DataFrame) -> None:
    page = skew_html(case, compared(case, features, entries_of(case, features, DAY)))
    assert f"All {len(case.features.names)} features and the score are the same on {COUNT} events." in page
    assert "Small &amp; &lt;b&gt;: online against offline, 2024-01-01" in page
    assert "<p>None.</p>" in page


def test_the_page_names_what_differs_and_nothing_else(case: UseCase, features: pd.DataFrame) -> None:
    entries = entries_of(case, features, DAY)
    entries[1]["features"]["kind"] = "<script>alert(1)</script>"
    entries[2]["features"]["hour"] += 2

    page = skew_html(case, compared(case, features, entries))

    assert f"2 of {len(case.features.names) + 1} columns differ." in page
    named = {name for name in (*case.features.names, SCORE) if f'<th scope="row">{name}</th>' in page}
    assert named == {"kind", "hour"}
    assert f"1 of {COUNT}" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
