"""Parts of a hold-out: values, bands of numbers, and what is too small to judge."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from ml_assets.stages.slices import SliceResult, bands, judge_slices
from ml_assets.use_case import Slice, UseCase

ROWS = 4000


def judged(case: UseCase, frame: pd.DataFrame, *slices: Slice) -> tuple[list[SliceResult], np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = (random.random(len(frame)) < 0.3).astype(float)
    scores = random.random(len(frame)) + 0.3 * labels
    return list(judge_slices(frame, labels, scores, scores - 0.1 * labels, gate=replace(case.gate, slices=slices))), labels, scores


@pytest.mark.parametrize("dtype", ["float64", "int64", "Float64"])
def test_numbers_fall_in_bands_in_the_order_of_the_edges(dtype: str, small_case: UseCase) -> None:
    amount = pd.Series(np.arange(ROWS) % 2000).astype(dtype)  # a plain column, not a feature of the case

    found, labels, scores = judged(
        small_case, pd.DataFrame({"unasked": amount}), Slice(column="unasked", minimum_rows=1, edges=(50, 100, 1000))
    )

    assert [(part.value, part.rows) for part in found] == [
        ("below 50", 100),
        ("50 to 100", 100),
        ("100 to 1,000", 1800),
        ("from 1,000", 2000),
    ]
    inside = ((amount >= 50) & (amount < 100)).to_numpy(dtype=bool)
    assert found[1].candidate == pytest.approx(average_precision_score(labels[inside], scores[inside]), rel=1e-14)


def test_missing_numbers_are_a_band_of_their_own(small_case: UseCase) -> None:
    frame = pd.DataFrame({"unasked": np.where(np.arange(ROWS) % 4 == 0, np.nan, 70.0)})

    found, _, _ = judged(small_case, frame, Slice(column="unasked", minimum_rows=1, edges=(50, 100)))

    assert [(part.value, part.rows) for part in found] == [("50 to 100", 3000), ("missing", 1000)]


def test_a_column_that_the_hold_out_lacks_is_named(small_case: UseCase) -> None:
    with pytest.raises(ValueError, match="no column channel to slice by"):
        judged(small_case, pd.DataFrame({"kind": ["a"] * ROWS}), Slice(column="channel", minimum_rows=1))


def test_edges_must_rise() -> None:
    with pytest.raises(ValueError, match="rise"):
        bands([100, 50])


def test_bands_keep_the_digits_of_their_edges() -> None:
    assert bands([0.25, 1_000_000]) == ["below 0.25", "0.25 to 1,000,000", "from 1,000,000"]


KINDS = Slice(column="scenario", minimum_rows=1, of_positives=True, required=False)


@pytest.mark.parametrize(
    ("kinds", "names"),
    [([1.0, 2.0, 3.0], {1.0: "1", 2.0: "2", 3.0: "3"}), (["stolen", "copied"], {"copied": "copied", "stolen": "stolen"})],
    ids=["numbers", "texts"],
)
def test_a_kind_of_positives_is_judged_with_all_negatives(kinds: list[Any], names: dict[Any, str], small_case: UseCase) -> None:
    """Some positives have no kind; no negative has one."""
    _, labels, _ = judged(small_case, pd.DataFrame({"kind": ["a"] * ROWS}), Slice(column="kind", minimum_rows=1))
    kind = pd.Series(np.resize([*kinds, None], ROWS)).where(labels == 1, None)
    frame = pd.DataFrame({"scenario": kind.astype("float64" if isinstance(kinds[0], float) else "str")})

    found, labels, scores = judged(small_case, frame, KINDS)

    parts = {part.value: part for part in found}
    assert list(parts) == sorted([*names.values(), "missing"])
    for kind_of_part, name in names.items():
        inside = (labels == 0) | (frame["scenario"] == kind_of_part).to_numpy(dtype=bool)
        assert parts[name].rows == inside.sum()
        assert parts[name].candidate == pytest.approx(average_precision_score(labels[inside], scores[inside]), rel=1e-14)
    assert sum(part.rows for part in found) == ROWS + (len(parts) - 1) * (labels == 0).sum()


def test_a_kind_without_positives_is_no_part(small_case: UseCase) -> None:
    """Where every positive has its kind, what is missing are negatives alone."""
    _, labels, _ = judged(small_case, pd.DataFrame({"kind": ["a"] * ROWS}), Slice(column="kind", minimum_rows=1))

    found, _, _ = judged(small_case, pd.DataFrame({"scenario": np.where(labels == 1, 2.0, np.nan)}), KINDS)

    assert [(part.value, part.rows) for part in found] == [("2", ROWS)]
