"""The package of a candidate: models, threshold, schema, and events with the scores that it must give for them."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.stages.adapters import adapter_of
from ml_assets.stages.model import Model
from ml_assets.stages.screening import FILE as SCREENING
from ml_assets.stages.screening import screening_from_json
from ml_assets.stages.train import Candidate, Recipe
from ml_assets.stages.trials import Trial
from ml_assets.use_case import AlertShare, AlertsPerDay, Costs, Day, Operating, Training, UseCase

MODELS = ("candidate", "baseline", "climatology")
SERVED = "served"
"""Folder of the model that serves, where the recipe was fitted again after it was judged; without it the judged candidate serves."""
TEST_EVENTS = 5
LIBRARIES = ("lightgbm", "scikit-learn", "numpy", "pandas")


def files_of(candidate: Candidate) -> dict[str, bytes]:
    """The models, each in a folder of its own, and how well each feature alone separates the classes."""
    models = {"candidate": candidate.model, "baseline": candidate.baseline, "climatology": candidate.climatology}
    models |= {SERVED: candidate.served} if candidate.served else {}
    files = {f"{folder}/{name}": content for folder, model in models.items() for name, content in model.to_files().items()}
    if candidate.screening is not None:
        files[SCREENING] = json.dumps(candidate.screening.to_json(), indent=1, allow_nan=False).encode()
    return files


def model_in(files: Mapping[str, bytes], folder: str) -> Model:
    """One of the `MODELS` of a package."""
    return Model.from_files(
        {name.removeprefix(f"{folder}/"): content for name, content in files.items() if name.startswith(f"{folder}/")}
    )


def candidate_in(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> Candidate:
    """What was trained, as the package holds it."""
    model, recipe = model_in(files, "candidate"), manifest["training"]
    return Candidate(
        model=model,
        baseline=model_in(files, "baseline"),
        climatology=model_in(files, "climatology"),
        threshold=manifest["threshold"],
        training_rows=manifest["training_rows"],
        positives=manifest["positives"],
        recipe=Recipe(
            family=model.family,
            training=Training(
                parameters=recipe["parameters"],
                trees=recipe["trees"],
                operating=_operating(recipe["operating"]),
                seed=recipe["seed"],
                kept_negatives=recipe.get("kept_negatives", 1.0),  # packages of before have none
            ),
            inverse_penalty=recipe["inverse_penalty"],
            trials=adapter_of(tuple[Trial, ...]).validate_python(manifest["trials"]),
        ),
        served=model_in(files, SERVED) if served_by(files) == SERVED else None,
        screening=screening_from_json(json.loads(files[SCREENING])) if SCREENING in files else None,
    )


def _operating(content: Mapping[str, Any]) -> Operating:
    kinds = {kind.__name__: kind for kind in (AlertShare, AlertsPerDay, Costs)}
    return kinds[content["by"]](**{name: value for name, value in content.items() if name != "by"})


def served_by(files: Mapping[str, bytes]) -> str:
    """The folder of the model that scores events."""
    return SERVED if any(name.startswith(f"{SERVED}/") for name in files) else "candidate"


def manifest_of(
    case: UseCase,
    candidate: Candidate,
    *,
    week: Day,
    as_of: str,
    days: Mapping[str, tuple[Day, Day]],
    contents: Mapping[str, Any],
    holdout: pd.DataFrame,
) -> dict[str, Any]:
    """What a reader needs to trust and use the package. It depends on content alone, so equal models have equal versions.

    Args:
        days: first and last day of `training`, `holdout` and, where the served model was fitted again, `refit`.
        contents: for each table read, the content hash of each day.
        holdout: rows of which the first few become test events.
    """
    return {
        "case": case.name,
        "week": week,
        "as_of": as_of,
        "family": candidate.model.family,
        "threshold": candidate.threshold,
        "training_rows": candidate.training_rows,
        "positives": candidate.positives,
        "days": {name: list(bounds) for name, bounds in days.items()},
        "features": [
            {"name": column.name, "dtype": column.dtype.value, "unit": column.unit}
            for column in case.features.columns
            if column.name in case.model_features
        ],
        "training": {
            "parameters": dict(candidate.recipe.training.parameters),
            "trees": candidate.recipe.training.trees,
            "seed": candidate.recipe.training.seed,
            "kept_negatives": candidate.recipe.training.kept_negatives,
            "inverse_penalty": candidate.recipe.inverse_penalty,
            "operating": {"by": type(case.training.operating).__name__, **asdict(case.training.operating)},
        },
        "trials": [asdict(trial) for trial in candidate.recipe.trials],
        "libraries": {name: version(name) for name in LIBRARIES},
        "contents": contents,
        "test_events": test_events(case, candidate.served or candidate.model, holdout.head(TEST_EVENTS)),
    }


def test_events(case: UseCase, model: Model, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Events with all their features, missing ones as None, and the model's score."""
    features = rows[case.model_features].astype(object)
    records = features.where(features.notna(), None).to_dict("records")
    ids, scores = rows["event_id"].tolist(), model.predict(rows).tolist()
    return [{"event_id": id, "features": record, "score": score} for id, record, score in zip(ids, records, scores, strict=True)]


def wrong_answers(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> list[str]:
    """What the package, as loaded, gets wrong of its own test events: empty for a sound one."""
    model, events = model_in(files, served_by(files)), manifest["test_events"]
    if not events:
        return ["the package has no test events"]
    wrong = []
    for event in events:
        row = pd.DataFrame([event["features"]])
        row = row.astype(
            {feature["name"]: "str" if feature["dtype"] == "string" else np.float64 for feature in manifest["features"]}
        )
        got = float(model.predict(row)[0])
        if not math.isfinite(got) or got != event["score"]:
            wrong.append(f"{event['event_id']}: {got!r} instead of {event['score']!r}")
    return wrong
