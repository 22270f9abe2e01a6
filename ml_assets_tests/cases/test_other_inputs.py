"""More inputs of the kinds of README.md, and deliveries of them: the right rows, labels and features, or the reason by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_assets.stages.intake import InvalidRowError, RowIntake
from ml_assets_tests.cases.make_cases import orders
from ml_assets_tests.generated_cases import generated
from ml_assets_tests.pipelines import Pipeline


@pytest.fixture
def rows() -> pd.DataFrame:
    return orders(n=400, customers=20)


def test_numbers_with_a_plus_are_those_without(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.assign(qty="+" + rows["qty"].astype(str)).to_csv(tmp_path / "orders.csv", index=False)
    with generated(tmp_path / "orders.csv") as (case, _):
        tables = Pipeline(case).made()
    assert tables["rejected_events"].empty
    assert tables["events"]["qty"].tolist() == rows["qty"].tolist()


def test_no_label_tells_of_itself(tmp_path: Path) -> None:
    """Some of the labels are known at the instant of their event: no feature of it may see them."""
    rows = orders(n=1400, customers=20)
    at = pd.to_datetime(rows["ordered_at"])
    known = at + pd.to_timedelta(np.where(rows.index % 200 == 7, 0, 1), unit="D")
    rows.assign(told_at=known.dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(tmp_path / "orders.csv", index=False)
    with generated(tmp_path / "orders.csv", time="ordered_at", known_at="told_at") as (case, _):
        tables = Pipeline(case).made()
    assert len(tables["features"]) == len(rows)
    assert set(tables["rejected_ground_truth"]["reason"]) == {
        "known_at is not after the event: a label that is known with its event would be told of itself"
    }
    assert len(tables["rejected_ground_truth"]) == 7
    counted = tables["features"]["label_count_7d_by_customer_id"]
    features = tables["features"].merge(tables["events"][["event_id", "customer_id", "ordered_at"]], on="event_id")
    truth = tables["ground_truth"]
    for row, count in zip(features.iloc[::29].itertuples(), counted.iloc[::29], strict=True):
        mine = truth[(truth["customer_id"] == row.customer_id) & (truth["event_id"] != row.event_id)]
        seen = (mine["known_at"] <= row.ordered_at) & (mine["known_at"] > row.ordered_at - pd.Timedelta(days=7))
        assert count == seen.sum()


def test_a_single_label_without_a_day_is_refused(tmp_path: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(tmp_path / "orders.csv", index=False)
    label = {"order_id": 7, "returned": 1, "ordered_at": "2024-02-01T10:00:00Z"}
    with generated(tmp_path / "orders.csv", timezone="Asia/Tokyo") as (case, _):
        intake = RowIntake(case.table("ground_truth"), timezone=case.timezone)
        assert intake.take(label).row["known_at"] == pd.Timestamp("2024-02-02T10:00:00Z").value // 1000
        assert intake.take({**label, "ordered_at": None, "known_at": "2024-02-02T15:00:00Z"}).day == "2024-02-03"
        for without, rule in (
            ({**label, "ordered_at": None}, "has no time that says its day"),
            ({**label, "ordered_at": "9999-12-31T23:00:00Z"}, "has a time whose day cannot be computed"),
        ):
            with pytest.raises(InvalidRowError, match=rule):
                intake.take(without)
            with pytest.raises(InvalidRowError, match=rf"^1\.row: None {rule}$"):
                intake.take_all([label, without])
        with pytest.raises(InvalidRowError, match="known_at is not after the event"):
            intake.take({**label, "known_at": label["ordered_at"]})
        assert intake.take({**label, "known_at": "2024-02-01T10:00:00.000001Z"}).row["returned"] == 1
