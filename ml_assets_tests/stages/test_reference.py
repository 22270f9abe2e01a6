"""What is kept of a model to watch it by: read back as it was written, and calibrated on what judged it."""

from collections.abc import Callable

import numpy as np
import pytest

from ml_assets.stages.reference import reference_in, reference_of
from ml_assets.stages.train import fit
from ml_assets.use_case import UseCase
from ml_assets_tests.stages.conftest import Rows


@pytest.fixture
def made(small_case: UseCase, events: Callable[..., Rows]) -> tuple:
    rows, labels = events("2024-01-01", "2024-01-28")
    half = len(rows) // 2
    model = fit(
        "lightgbm", rows.head(half), labels[:half], features=small_case.features, training=small_case.training, climatology=()
    )
    judged = rows.iloc[half:].assign(label=labels[half:])
    return model, judged


def test_it_is_read_back_as_it_was_and_the_same_model_gives_the_same_bytes(made: tuple) -> None:
    model, judged = made
    found = reference_of(model, judged, judged)
    written = found.to_file()
    again = reference_in({"reference.json": written, "other": b""})
    assert again is not None
    assert again.to_file() == written == reference_of(model, judged, judged).to_file()
    assert list(again.features) == list(model.inputs)
    assert sum(again.importance.values()) == pytest.approx(1)
    assert again.features["kind"].categories
    assert again.score.counts.sum() == len(judged)
    assert reference_in({"other": b""}) is None


def test_its_calibration_is_the_observed_rate(made: tuple) -> None:
    model, judged = made
    found = reference_of(model, judged, judged)
    scores = model.predict(judged)
    assert found.calibration.rate(scores).mean() == pytest.approx(judged["label"].mean(), abs=1e-9)
    halved = reference_of(model, judged, judged.assign(label=judged["label"] * (np.arange(len(judged)) % 2)))
    assert halved.calibration.rate(scores).mean() == pytest.approx(judged["label"].mean() / 2, rel=0.2)
    assert (np.diff(found.calibration.rate(np.linspace(-1, 2, 50))) >= 0).all()


def test_sketches_are_of_all_events_and_not_of_labelled_ones_alone(made: tuple) -> None:
    model, judged = made
    found = reference_of(model, judged, judged.head(len(judged) // 2))
    assert all(sketch.counts.sum() == len(judged) for sketch in (*found.features.values(), found.score))
