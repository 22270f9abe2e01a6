"""A model says the same of a row wherever and whenever it is asked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.model import Family, Model
from ml_assets.stages.train import fit
from ml_assets.use_case import UseCase

FAMILIES: tuple[Family, ...] = ("lightgbm", "logistic", "climatology")
Events = Callable[..., Any]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, small_case: UseCase, events: Events) -> Model:
    rows, labels = events("2024-01-01", "2024-01-14")
    return fitted(request.param, rows, labels, small_case)


def fitted(family: Family, rows: pd.DataFrame, labels: np.ndarray, case: UseCase) -> Model:
    return fit(family, rows, labels, features=case.features, training=case.training, climatology=case.climatology)


def test_a_row_alone_scores_to_the_bit_what_it_scores_in_the_batch(model: Model, events: Events) -> None:
    rows, _ = events("2024-02-01", "2024-02-02", seed=1)

    batch = model.predict(rows)
    alone = [model.predict(rows.iloc[[place]])[0] for place in range(len(rows))]

    assert batch.dtype == np.float64
    assert batch.tobytes() == np.array(alone).tobytes()
    assert len(np.unique(batch)) > 20


def test_columns_are_found_by_name(model: Model, events: Events) -> None:
    rows, _ = events("2024-02-01", "2024-02-01", seed=1)

    turned = rows[rows.columns[::-1]].assign(unasked=1.0)

    np.testing.assert_array_equal(model.predict(turned), model.predict(rows))


def test_a_missing_column_is_named(model: Model, events: Events) -> None:
    rows, _ = events("2024-02-01", "2024-02-01")

    with pytest.raises(ValueError, match="hour"):
        model.predict(rows.drop(columns="hour"))


def test_files_give_back_the_same_model(model: Model, events: Events) -> None:
    rows, _ = events("2024-02-01", "2024-02-03", seed=1)

    files = model.to_files()
    loaded = Model.from_files(files)

    assert loaded.family == model.family
    assert loaded.inputs == model.inputs
    assert loaded.predict(rows).tobytes() == model.predict(rows).tobytes()
    assert loaded.to_files() == files


def test_types_of_the_frame_do_not_matter(model: Model, events: Events) -> None:
    rows, _ = events("2024-02-01", "2024-02-01", seed=1)

    loose = rows.assign(hour=rows["hour"].astype("Float64"), amount=rows["amount"].astype(object), kind=rows["kind"].astype(object))

    np.testing.assert_array_equal(model.predict(loose), model.predict(rows))


def test_no_rows_give_no_scores(model: Model, events: Events) -> None:
    rows, _ = events("2024-02-01", "2024-02-01")

    assert model.predict(rows.iloc[:0]).shape == (0,)


def test_a_new_category_scores_as_a_missing_one(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    for family in ("lightgbm", "logistic"):
        model = fitted(family, rows, labels, small_case)
        new, missing = rows.assign(kind="never seen"), rows.assign(kind=None)

        np.testing.assert_array_equal(model.predict(new), model.predict(missing))
        assert (model.predict(new) != model.predict(rows.assign(kind="a"))).mean() > 0.9


def test_categories_keep_their_codes_in_a_frame_that_lacks_some(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    model = fitted("lightgbm", rows, labels, small_case)
    only_c = (rows["kind"] == "c").to_numpy()

    np.testing.assert_array_equal(model.predict(rows[only_c]), model.predict(rows)[only_c])


def test_climatology_is_the_rate_of_the_combination_else_the_overall_rate(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    model = fitted("climatology", rows, labels, small_case)
    same = ((rows["kind"] == "b") & (rows["hour"] == 5)).to_numpy()
    neither = (rows["kind"].isna() & (rows["hour"] == 5)).to_numpy()
    asked = pd.DataFrame({"kind": ["b", None, "b"], "hour": [5, 5, 99]})

    assert model.predict(asked) == pytest.approx([labels[same].mean(), labels[neither].mean(), labels.mean()])


def test_climatology_without_features_is_the_overall_rate(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-02")
    model = fit("climatology", rows, labels, features=small_case.features, training=small_case.training, climatology=())

    assert Model.from_files(model.to_files()).predict(rows) == pytest.approx(np.full(len(rows), labels.mean()))


def test_importance_is_a_share_of_gain(small_case: UseCase, events: Events) -> None:
    rows, labels = events("2024-01-01", "2024-01-14")
    importance = fitted("lightgbm", rows, labels, small_case).importance()

    assert importance[0][0] == "risk"
    assert {name for name, _ in importance} == set(small_case.features.names)
    assert sum(share for _, share in importance) == pytest.approx(1)
    assert fitted("logistic", rows, labels, small_case).importance() == []


def test_a_family_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="oracle"):
        Model.from_files({"model.json": b'{"family": "oracle"}'})
