"""Any use case is served: flights, whose outcomes become known bit by bit, with weather and a register of planes."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.folders import LocalFolder
from ml_assets.serving.live import InForce, Live
from ml_assets.serving.replay import calls_of
from ml_assets.serving.scorer import Scorer
from ml_assets.stages import online_state
from ml_assets.stages.clean import clean
from ml_assets.stages.features import compute
from ml_assets.stages.ingest import ingested
from ml_assets.stages.train import fit
from ml_assets.storage.models import ModelStore
from ml_assets.storage.online import open_store
from ml_assets.storage.predictions import LogWriter, PredictionLog
from ml_assets.use_case import WHOLE, day_range
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS as CASE

LOADED = day_range("2013-01-01", "2013-01-05")
SENT = "2013-01-06"
CALLS = 420


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    found = {}
    for table in CASE.tables:
        days = [*LOADED, SENT] if table.daily else [WHOLE]
        found[table.name] = clean(ingested(table.source({}).read(days), table, days), table).rows
    return found


@pytest.fixture
def scorer(tables: dict[str, pd.DataFrame], tmp_path: Path) -> Any:
    events = tables["flights"]
    features = compute(CASE, events[events["day"].isin(LOADED[-2:])], tables)
    training = replace(CASE.training, trees=20, parameters={**CASE.training.parameters, "num_threads": 1})
    late = tables["flights"].set_index("event_id").loc[features["event_id"], "late"].to_numpy(dtype=np.float64)
    model = fit("lightgbm", features, late, features=CASE.features, training=training, climatology=CASE.climatology)
    texts = frozenset(CASE.features.categorical)
    live = Live(
        version="v", week=SENT, threshold=0.3, model=model, decision={}, features=(), names=frozenset(model.inputs), texts=texts
    )
    address = str(tmp_path / "online")
    with closing(open_store(address, CASE.name, create=True)) as store:
        for lookup in CASE.features.lookups:
            online_state.load_dimension(store, lookup, tables[lookup.table])
        rows = {name: tables[name][tables[name]["day"].isin(LOADED)] for name in ("flights", "weather")}
        online_state.load_days(CASE, store, rows, dict.fromkeys(LOADED, "loaded"))
    made = Scorer(
        case=CASE,
        store=open_store(address, CASE.name),
        in_force=InForce(case=CASE, models=ModelStore(root=LocalFolder(tmp_path)), live=live),
        writer=LogWriter(log=PredictionLog(root=LocalFolder(tmp_path), case=CASE.name), name="test"),
    )
    made.start()
    yield made
    made.stop()


def test_flights_are_scored_as_in_a_backfill(scorer: Scorer, tables: dict[str, pd.DataFrame]) -> None:
    calls, rejected = calls_of(CASE, [SENT], {})
    assert set(rejected.values()) == {0}
    kinds = {call.path.rsplit("/v1/flight_delays/", 1)[1] for call in calls}
    assert kinds == {"score", "labels", "events/weather"}

    entries = []
    for call in calls[:CALLS]:
        row, kind = json.loads(call.body), call.path.rsplit("/v1/flight_delays/", 1)[1]
        if kind == "score":
            entries += scorer.score_now([scorer.take(row, "never")])
        else:
            scorer.observe("flights" if kind == "labels" else "weather", [row])

    answers = [json.loads(entry) for entry in entries]
    assert len(answers) > 150
    events = tables["flights"].set_index("event_id", drop=False).loc[[answer["event_id"] for answer in answers]]
    offline = compute(CASE, events.reset_index(drop=True), tables)
    online = pd.DataFrame([answer["features"] for answer in answers]).astype(offline[CASE.features.names].dtypes)
    different = [name for name in CASE.features.names if not online[name].equals(offline[name])]
    assert different == []
    assert scorer.in_force.live is not None
    assert [answer["score"] for answer in answers] == scorer.in_force.live.model.predict(offline).tolist()
    assert any(answer["features"]["arrival_delay_mean_3h_by_origin"] is not None for answer in answers)
    assert any(answer["features"]["planes_built"] is not None for answer in answers)


def test_an_outcome_that_is_sent_with_the_event_is_not_known_before_its_time(scorer: Scorer) -> None:
    """What a scored row says of later is left out of what is kept: the flight has not departed yet."""
    [late] = [json.loads(call.body) for call in calls_of(CASE, [SENT], {})[0] if call.path.endswith("/score")][300:301]
    scorer.score_now([scorer.take(late, "never")])
    kept = scorer.features.kept["flights"]
    row = scorer.intakes["flights"].take(late).row
    [place] = [place for place in scorer.features.places if place == ("flights", ("origin",))]
    key = scorer.features.keys(row)[place]
    assert key is not None
    records = np.frombuffer(scorer.store.facts([key])[key], dtype=kept.dtype)
    [own] = records[records["id"] == kept.id(row)]
    assert row["departure_delay_minutes"] is not None
    assert np.isnan(own["departure_delay_minutes"])
    assert np.isnan(own["late"])

    scorer.observe("flights", [late])
    records = np.frombuffer(scorer.store.facts([key])[key], dtype=kept.dtype)
    [own] = records[records["id"] == kept.id(row)]
    assert own["departure_delay_minutes"] == row["departure_delay_minutes"]
