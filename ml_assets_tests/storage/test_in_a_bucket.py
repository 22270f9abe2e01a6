"""What a store promises on a file system it keeps in a bucket, among writers that know nothing of each other."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets import folders
from ml_assets.folders import Folder, LocalFolder, folder_at
from ml_assets.storage.models import ModelStore
from ml_assets.storage.predictions import LogWriter, PredictionLog
from ml_assets.storage.tables import Tables
from ml_assets_tests.buckets import BUCKET, ObjectServer, running_gcs, running_s3
from ml_assets_tests.google_writes import writing_to

SCHEMA = pa.schema({"day": pa.string(), "x": pa.int64()})
FILES = {"model.txt": b"tree\n" * 100, "empty": b""}
WRITERS = 8


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with running_s3() as server:
        yield server


@pytest.fixture(scope="module")
def google() -> Iterator[Mapping[str, str]]:
    """Settings of a server of Google's protocol that can be written to."""
    with running_gcs() as server, writing_to(server.settings["STORAGE_EMULATOR_HOST"]) as url:
        yield {"STORAGE_EMULATOR_HOST": url}


@pytest.fixture(params=["s3", "gs", "folder"])
def root_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Folder]:
    """The same root for each writer, who has a connection of his own."""
    if request.param == "folder":
        return lambda: LocalFolder(tmp_path)
    settings = request.getfixturevalue("server").settings if request.param == "s3" else request.getfixturevalue("google")

    def opened() -> Folder:
        folders._bucket.cache_clear()
        return folder_at(f"{request.param}://{BUCKET}/{request.node.originalname}", Path(), settings)

    return opened


def at_once(write: Callable[[int], object], writers: int = WRITERS) -> list[object]:
    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(write, range(writers)))


def rows_of(day: str, *values: int) -> pd.DataFrame:
    return pd.DataFrame({"day": pd.Series([day] * len(values), dtype="str"), "x": list(values)})


def test_files_come_back_and_are_listed_until_they_are_removed(root_of: Callable[[], Folder]) -> None:
    root = root_of()
    assert root.get("a/b.json") is None
    root.put("a/b.json", b"1")
    root.put("a/b.json", b"2")
    root.put("a/c.json", b"3")
    assert [found.name for found in root.find("a/*.json")] == ["a/b.json", "a/c.json"]
    assert [root.read(found) for found in root.find("a/*.json")] == [b"2", b"3"]
    root.put("a/b.json", b"4")
    assert [root.read(found) for found in root.find("a/*.json")] == [b"4", b"3"], "what was read before is not what is there"
    root.remove("a/b.json")
    root.remove("a/b.json")
    assert (root.get("a/b.json"), [found.name for found in root.find("a/*.json")]) == (None, ["a/c.json"])


def test_of_many_who_create_a_file_one_does(root_of: Callable[[], Folder]) -> None:
    assert sum(bool(each) for each in at_once(lambda number: root_of().create("once", f"{number}".encode()))) == 1
    assert not root_of().create("once", b"another")


def test_no_change_of_many_at_once_is_lost(root_of: Callable[[], Folder]) -> None:
    def count(_: int) -> None:
        for _ in range(5):
            root_of().change("count", lambda before: str(int(before or b"0") + 1).encode())

    at_once(count)
    assert root_of().get("count") == str(5 * WRITERS).encode()


def test_a_request_whose_answer_was_lost_has_created_the_file(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_at(server.address("lost-answer"), Path(), server.settings)
    put = obstore.put

    def sent_twice(*arguments: object, **options: object) -> object:
        put(*arguments, **options)  # type: ignore[arg-type]
        return put(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "put", sent_twice)
    assert root.create("once", b"mine")


def test_days_that_many_publish_at_once_are_all_there(root_of: Callable[[], Folder]) -> None:
    days = [f"2024-01-{number + 1:02d}" for number in range(WRITERS)]

    def publish(number: int) -> None:
        Tables(root=root_of(), case="small").publish(
            "events", rows_of(days[number], number), schema=SCHEMA, inputs={days[number]: "made from it"}
        )

    at_once(publish)
    tables = Tables(root=root_of(), case="small")
    assert list(tables.ledger("events")) == days
    assert tables.read("events")["x"].tolist() == list(range(WRITERS))


def test_of_two_who_publish_one_day_the_later_one_has_it_and_the_ledger_says_so(root_of: Callable[[], Folder]) -> None:
    def publish(number: int) -> None:
        Tables(root=root_of(), case="small").publish(
            "events", rows_of("2024-01-01", number, number), schema=SCHEMA, inputs={"2024-01-01": f"input {number}"}
        )

    at_once(publish, writers=4)
    tables = Tables(root=root_of(), case="small")
    entry = tables.ledger("events")["2024-01-01"]
    value = int(entry.inputs.removeprefix("input "))
    assert tables.read("events")["x"].tolist() == [value, value]
    assert entry.rows == 2


def test_models_decisions_and_what_is_in_force_agree_after_many_at_once(root_of: Callable[[], Folder]) -> None:
    weeks = [f"2024-02-{day:02d}" for day in range(1, WRITERS + 1)]
    version = ModelStore(root=root_of()).save("small", FILES, {"week": weeks[0]})

    def decide(number: int) -> None:
        models = ModelStore(root=root_of())
        assert models.save("small", FILES, {"week": weeks[0]}) == version
        models.deploy("small", weeks[number], version, {"promoted": True})
        models.decisions.record(
            "small",
            kind="promoted",
            effective=weeks[number],
            version=version,
            candidate=version,
            champion_before=None,
            reason="better",
            decided_by="gate",
            decided_at="2024-03-01T10:00:00+00:00",
            evidence=json.dumps(number),
        )

    at_once(decide)
    models = ModelStore(root=root_of())
    assert models.load("small", version)[0] == FILES
    assert models.versions("small") == [version]
    assert list(models.deployments("small")) == weeks
    assert (models.current("small") or {})["week"] == weeks[-1]
    decisions = models.decisions.all("small")
    assert [each.number for each in decisions] == list(range(1, WRITERS + 1))
    assert sorted(each.effective for each in decisions) == weeks
    for week in weeks[1:]:
        models.withdraw("small", week)
    assert (models.current("small") or {})["week"] == weeks[0]
    models.withdraw("small", weeks[0])
    assert models.current("small") is None


def test_of_two_people_who_decide_at_once_the_second_knows_of_the_first(root_of: Callable[[], Folder]) -> None:
    models = ModelStore(root=root_of())
    version = models.save("small", FILES, {"week": "2024-02-01"})
    models.deploy("small", "2024-02-01", version, {})

    def pin(number: int) -> str:
        try:
            ModelStore(root=root_of()).decide(
                "small",
                "pin",
                version=version,
                effective="2024-02-02",
                reason="it is good",
                decided_by=f"person {number}",
                decided_at="2024-03-01T10:00:00+00:00",
                evidence="seen",
            )
        except ValueError as error:
            return str(error)
        return "done"

    told = at_once(pin, writers=4)
    assert sorted(str(each) for each in told) == [f"{version} is pinned on 2024-02-02 already, since 2024-02-02"] * 3 + ["done"]
    assert len(models.decisions.all("small")) == 1


def test_a_bucket_that_refuses_or_is_not_there_is_named_in_a_line(server: ObjectServer) -> None:
    rows, inputs = rows_of("2024-01-01", 1), {"2024-01-01": "made from it"}
    for address, settings, said in (
        (
            server.address("refused"),
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            "403 Forbidden: check the credentials, and what they may do",
        ),
        (server.address("refused"), {"AWS_ACCESS_KEY_ID": "nobody"}, "403 Forbidden: check the credentials, and what they may do"),
        ("s3://no-such-bucket/refused", {}, "404 Not Found: nothing is there"),
    ):
        root = folder_at(address, Path(), {**server.settings, **settings})
        tables, models = Tables(root=root, case="small"), ModelStore(root=root)
        for ask in (
            lambda tables=tables: tables.ledger("events"),
            lambda tables=tables: tables.read("events"),
            lambda tables=tables: tables.publish("events", rows, schema=SCHEMA, inputs=inputs),
            lambda models=models: models.versions("small"),
            *(
                [lambda models=models: models.save("small", FILES, {"week": "2024-02-01"})] if settings else []
            ),  # SeaweedFS makes a bucket
        ):
            with pytest.raises(OSError, match=f"^{address}: the store answers {said}$"):
                ask()


def test_a_bucket_that_is_down_is_said_and_what_was_there_is_there_again(server: ObjectServer) -> None:
    root = folder_at(server.address("down"), Path(), server.settings)
    tables = Tables(root=root, case="small")
    tables.publish("events", rows_of("2024-01-01", 1), schema=SCHEMA, inputs={"2024-01-01": "first"})
    server.stop()
    try:
        with pytest.raises(OSError, match=r"^s3://deliveries/down: .*error sending request"):
            tables.publish("events", rows_of("2024-01-01", 2), schema=SCHEMA, inputs={"2024-01-01": "second"})
        with pytest.raises(OSError, match=r"^s3://deliveries/down: .*error sending request"):
            ModelStore(root=root).versions("small")
    finally:
        server.start()
    assert tables.read("events")["x"].tolist() == [1]
    tables.publish("events", rows_of("2024-01-01", 2), schema=SCHEMA, inputs={"2024-01-01": "second"})
    assert tables.read("events")["x"].tolist() == [2]


def test_what_is_logged_gets_to_the_bucket_and_what_a_killed_process_left_does_too(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_assets.storage.predictions.SEND_SECONDS", 0.1)
    log = PredictionLog(root=folder_at(server.address("logged"), Path(), server.settings), case="small")
    left = tmp_path / log.folder("2024-01-01") / "killed.jsonl"
    left.parent.mkdir(parents=True)
    left.write_bytes(b'{"id": 0}\n')
    os.utime(left, (0, 0))
    writer = LogWriter(log=log, name="this-process", local=tmp_path)
    server.stop()
    writer.add([("2024-01-01", b'{"id": 1}')])
    time.sleep(1)
    server.start()
    writer.add([("2024-01-02", b'{"id": 2}')])
    writer.close()
    assert log.days() == ["2024-01-01", "2024-01-02"]
    assert sorted(line["id"] for day in log.days() for line in log.read(day)) == [0, 1, 2]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "sent once, and not kept"
