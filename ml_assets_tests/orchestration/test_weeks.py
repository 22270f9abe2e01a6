"""A week knows what became known before it began, alone as among others."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.orchestration.store import Store
from ml_assets.orchestration.weeks import MatureEvents
from ml_assets.use_case import shift
from ml_assets.use_cases.card_fraud import CARD_FRAUD as CASE

WEEK, PAID = "2018-07-04", "2018-06-24"


def at(day: str, clock: str = "10:00") -> pd.Timestamp:
    return pd.Timestamp(f"{day} {clock}", tz="UTC").as_unit("us")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two payments; one of them is charged back at the very moment at which the week begins."""
    store = Store(root=str(tmp_path))
    told = [("a", 0, at(shift(PAID, 7))), ("b", 0, at(shift(PAID, 7))), ("a", 1, at(WEEK, "00:00"))]
    labels = pd.DataFrame(
        {
            "event_id": [event for event, _, _ in told],
            "event_day": PAID,
            "event_time": at(PAID),
            "known_at": pd.Series([known for _, _, known in told]).dt.as_unit("us"),
            "label": [label for _, label, _ in told],
            "customer_id": ["c", "d", "c"],
            "terminal_id": "t",
        }
    )
    labels["day"] = CASE.days_of(labels["known_at"])
    reports = labels[labels["label"] == 1].rename(columns={"known_at": "reported_at"}).assign(scenario=2.0)
    features = pd.DataFrame({"event_id": ["a", "b"], "event_time": at(PAID), "day": PAID, "amount": [1.0, 2.0]})
    for name, rows in (("labels", labels), ("features", features), ("chargebacks", reports)):
        schema = pa.Schema.from_pandas(rows, preserve_index=False).remove_metadata()
        store.tables(CASE).publish(name, rows, schema=schema, inputs=dict.fromkeys(rows["day"].unique(), "x"))
    return store


@pytest.mark.parametrize("weeks", [[WEEK], [WEEK, shift(WEEK, 7)]])
def test_a_label_of_the_moment_at_which_a_week_begins_is_not_known_in_it(weeks: list[str], store: Store) -> None:
    mature = MatureEvents(CASE, store, weeks)

    assert mature.rows([PAID], before=WEEK)["label"].tolist() == [0, 0]
    assert mature.to_judge([PAID], before=WEEK)["label"].tolist() == [0, 0]
    assert mature.to_judge([PAID], before=WEEK)["scenario"].isna().all()


def test_the_next_week_knows_it(store: Store) -> None:
    mature = MatureEvents(CASE, store, [WEEK, shift(WEEK, 7)])

    judged = mature.to_judge([PAID], before=shift(WEEK, 7))

    assert judged[["event_id", "label"]].to_dict("list") == {"event_id": ["a", "b"], "label": [1, 0]}
    assert judged["scenario"].fillna(-1.0).tolist() == [2.0, -1.0]
