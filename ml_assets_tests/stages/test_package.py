"""A package answers its own test events, and a package that was tampered with does not."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.folders import LocalFolder
from ml_assets.stages.package import (
    MODELS,
    SERVED,
    TEST_EVENTS,
    candidate_in,
    files_of,
    manifest_of,
    model_in,
    served_by,
    wrong_answers,
)
from ml_assets.stages.train import Candidate, Recipe, by_recipe, train_candidate
from ml_assets.stages.trials import Trial
from ml_assets.storage.models import ModelStore
from ml_assets.use_case import AlertShare, AlertsPerDay, Costs, Operating, UseCase

Packed = tuple[dict[str, bytes], dict[str, Any]]


@pytest.fixture
def rows(events: Callable[..., Any]) -> tuple[pd.DataFrame, np.ndarray]:
    frame, labels = events("2024-01-01", "2024-01-30", per_day=60)
    return frame.assign(event_id=[f"e{number}" for number in range(len(frame))]), labels


@pytest.fixture
def candidate(small_case: UseCase, rows: tuple[pd.DataFrame, np.ndarray]) -> Candidate:
    return train_candidate(*rows, rows[0]["day"], case=small_case)


@pytest.fixture
def holdout(rows: tuple[pd.DataFrame, np.ndarray]) -> pd.DataFrame:
    """Its first event misses every value that may be missing, the second none."""
    frame = rows[0].tail(20).reset_index(drop=True)
    frame.loc[0, ["amount", "kind"]] = [np.nan, None]
    frame.loc[1, ["amount", "kind"]] = [0.1 + 0.2, "a"]
    return frame


def packed(case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> Packed:
    days = {"training": ("2024-01-01", "2024-01-20"), "holdout": ("2024-01-21", "2024-01-30")}
    contents = {"features": {"2024-01-01": "abc"}}
    manifest = manifest_of(case, candidate, week="2024-02-01", as_of="2024-01-31", days=days, contents=contents, holdout=holdout)
    return files_of(candidate), manifest


def through_json(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(manifest, allow_nan=False)))


def test_a_sound_package_answers_as_it_should(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    files, manifest = packed(small_case, candidate, holdout)

    assert wrong_answers(files, manifest) == []
    assert wrong_answers(files, through_json(manifest)) == []


def test_it_still_does_after_a_stay_on_disk(
    small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame, tmp_path: Path
) -> None:
    files, manifest = packed(small_case, candidate, holdout)
    store = ModelStore(root=LocalFolder(tmp_path))

    loaded, told = store.load("small", store.save("small", files, manifest))

    assert loaded == files
    assert wrong_answers(loaded, told) == []
    assert told["threshold"] == candidate.threshold


def test_missing_values_survive_json(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    events = through_json(packed(small_case, candidate, holdout)[1])["test_events"]

    assert [event["event_id"] for event in events] == holdout["event_id"].head(TEST_EVENTS).tolist()
    assert (events[0]["features"]["amount"], events[0]["features"]["kind"]) == (None, None)
    assert (events[1]["features"]["amount"], events[1]["features"]["kind"]) == (0.1 + 0.2, "a")
    assert [event["score"] for event in events] == candidate.model.predict(holdout).tolist()[:TEST_EVENTS]
    assert all(list(event["features"]) == small_case.features.names for event in events)


def test_a_changed_tree_is_found(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    files, manifest = packed(small_case, candidate, holdout)
    text = files["candidate/model.txt"].decode()
    at = text.index("leaf_value=")
    # Of the same length: LightGBM aborts the whole process when a tree is not as long as `tree_sizes` says.
    leaves = text[at : text.index("\n", at)]
    changed = re.sub(r"\.(\d)", lambda digit: f".{(int(digit[1]) + 1) % 10}", leaves)

    wrong = wrong_answers({**files, "candidate/model.txt": text.replace(leaves, changed).encode()}, manifest)

    assert len(wrong) == TEST_EVENTS
    assert wrong[0].startswith(f"{manifest['test_events'][0]['event_id']}: 0.")
    assert wrong[0].endswith(f" instead of {manifest['test_events'][0]['score']!r}")


def test_the_model_of_another_candidate_is_found(
    small_case: UseCase, candidate: Candidate, rows: tuple[pd.DataFrame, np.ndarray], holdout: pd.DataFrame
) -> None:
    other = train_candidate(rows[0].iloc[:-60], rows[1][:-60], rows[0]["day"].iloc[:-60], case=small_case)
    _, manifest = packed(small_case, candidate, holdout)

    assert len(wrong_answers(files_of(other), manifest)) == TEST_EVENTS


def test_a_single_changed_answer_is_found(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    files, manifest = packed(small_case, candidate, holdout)
    manifest["test_events"][2]["score"] = float(np.nextafter(manifest["test_events"][2]["score"], 1))

    assert [answer.split(":")[0] for answer in wrong_answers(files, manifest)] == [holdout["event_id"][2]]


def test_a_package_without_test_events_is_not_sound(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    files, manifest = packed(small_case, candidate, holdout.iloc[:0])

    assert wrong_answers(files, manifest) == ["the package has no test events"]


def test_each_model_comes_back_from_its_own_folder(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    files, _ = packed(small_case, candidate, holdout)

    back = {folder: model_in(files, folder) for folder in MODELS}

    assert back == {"candidate": candidate.model, "baseline": candidate.baseline, "climatology": candidate.climatology}
    with pytest.raises(KeyError, match=r"model\.json"):
        model_in(files, "champion")


def test_a_package_tells_where_it_comes_from(small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame) -> None:
    _, manifest = packed(small_case, candidate, holdout)

    assert (manifest["case"], manifest["week"], manifest["family"]) == ("small", "2024-02-01", "lightgbm")
    assert manifest["days"] == {"training": ["2024-01-01", "2024-01-20"], "holdout": ["2024-01-21", "2024-01-30"]}
    assert manifest["contents"] == {"features": {"2024-01-01": "abc"}}
    assert (manifest["training_rows"], manifest["positives"]) == (candidate.training_rows, candidate.positives)
    assert [feature["name"] for feature in manifest["features"]] == small_case.features.names
    assert packed(small_case, candidate, holdout) == packed(small_case, candidate, holdout)


@pytest.mark.parametrize(
    "operating",
    [AlertShare(share=0.1), AlertsPerDay(alerts=7), Costs(false_positive=1.5, false_negative=40)],
    ids=lambda each: type(each).__name__,
)
def test_a_candidate_comes_back_whole(
    operating: Operating, small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    """With the trials of its search, and the model that was fitted again on all rows."""
    training = replace(small_case.training, operating=operating, kept_negatives=0.5)
    trials = (
        Trial(number=0, state="complete", value=0.5, family="lightgbm", parameters={"num_leaves": 7}, folds=(0.4, 0.6), trees=60),
        Trial(
            number=1,
            state="pruned",
            value=0.1,
            family="logistic",
            parameters={"inverse_penalty": 0.1 + 0.2},
            folds=(0.1,),
            trees=None,
        ),
    )
    recipe = Recipe(family="lightgbm", training=training, inverse_penalty=0.3, trials=trials)
    case = replace(small_case, training=training)
    whole = replace(candidate, recipe=recipe, served=by_recipe(recipe, rows[0].iloc[:-200], rows[1][:-200], case=case))
    files, manifest = packed(case, whole, holdout)

    assert candidate_in(files, through_json(manifest)) == whole


def test_the_model_that_was_fitted_again_is_the_one_that_answers(
    small_case: UseCase, candidate: Candidate, holdout: pd.DataFrame, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    again = replace(candidate, served=by_recipe(candidate.recipe, rows[0].iloc[:-200], rows[1][:-200], case=small_case))

    files, manifest = packed(small_case, again, holdout)

    assert (served_by(files), served_by(files_of(candidate))) == (SERVED, "candidate")
    assert wrong_answers(files, manifest) == []
    assert [event["score"] for event in manifest["test_events"]] == again.served.predict(holdout).tolist()[:TEST_EVENTS]
    judged_alone = {name: content for name, content in files.items() if not name.startswith(SERVED)}
    assert len(wrong_answers(judged_alone, manifest)) == TEST_EVENTS


def test_a_package_holds_only_the_features_that_the_model_is_told(
    small_case: UseCase, holdout: pd.DataFrame, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    case = replace(small_case, training=replace(small_case.training, features=("risk", "kind")))
    files, manifest = packed(case, train_candidate(*rows, rows[0]["day"], case=case), holdout)

    assert {feature["name"] for feature in manifest["features"]} == {"risk", "kind"}
    assert set(manifest["test_events"][0]["features"]) == {"risk", "kind"}
    assert wrong_answers(files, through_json(manifest)) == []
