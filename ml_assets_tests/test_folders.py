"""Files in real object stores: found completely, told apart by version, read in pieces, and what is said when the store does not."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_assets import folders
from ml_assets.folders import Folder, LocalFolder, folder_at
from ml_assets.sources.mapped import MappedFiles
from ml_assets.use_case import Batch
from ml_assets_tests.buckets import SECRET, ObjectServer, put, running_gcs, running_s3

DAYS = ["2018-04-01", "2018-04-02", "2018-04-03"]
BOTH = pytest.mark.parametrize("server", ["s3", "gs"], indirect=True)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ObjectServer]]:
    with running_s3() as s3, running_gcs() as gcs:
        yield {"s3": s3, "gs": gcs}


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest, servers: dict[str, ObjectServer]) -> ObjectServer:
    return servers[request.param]


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"{abs(hash(request.node.name))}"


def folder(server: ObjectServer, prefix: str, **settings: str) -> Folder:
    return folder_at(server.address(prefix), Path(), {**server.settings, **settings})


def csv(day: str, *fares: object) -> bytes:
    return "".join(["when,fare\n", *(f"{day}T12:00:0{place},{fare}\n" for place, fare in enumerate(fares))]).encode()


def source(place: Folder, pattern: str = "*.csv", **changes: Any) -> MappedFiles:
    return MappedFiles(
        folder=place, pattern=pattern, columns={"at": "when", "fare": "fare"}, day_column="at", timezone="UTC", **changes
    )


def fares(batch: Batch) -> list[str]:
    return list(batch.rows["fare"])


# What is found -------------------------------------------------------------------------------------------------------------------


def test_every_object_is_found_however_many_there_are(server: ObjectServer, prefix: str) -> None:
    names = [f"{number:04}.csv" for number in range(1_100)]  # a page has a thousand
    for name in names:
        put(server, f"{prefix}/many/{name}", b"x")
    put(server, f"{prefix}/many-more/0000.csv", b"x")
    assert [found.name for found in folder(server, prefix).find("many/*.csv")] == [f"many/{name}" for name in names]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["b.csv"]),
        ("a/*.csv", ["a/1.csv"]),
        ("**/*.csv", ["a/1.csv", "a/deep/2.csv", "b.csv"]),
        ("a/**/*.csv.gz", ["a/deep/3.csv.gz"]),
        ("a/[0-9].csv", ["a/1.csv"]),
        ("c/*.csv", []),
    ],
)
def test_a_pattern_means_the_same_in_a_bucket_and_on_disk(
    server: ObjectServer, tmp_path: Path, pattern: str, found: list[str]
) -> None:
    for name in ("b.csv", "a/1.csv", "a/deep/2.csv", "a/deep/3.csv.gz", "a/10.csv.txt"):
        put(server, f"patterns/{name}", b"x")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [each.name for each in folder(server, "patterns").find(pattern)] == found
    assert [each.name for each in LocalFolder(tmp_path).find(pattern)] == found


def test_only_the_day_of_a_late_or_replaced_object_gets_another_version(server: ObjectServer, prefix: str) -> None:
    for day in DAYS[:2]:
        put(server, f"{prefix}/{day}.csv", csv(day, 1))
    first = source(folder(server, prefix), complete_to="2018-04-04").versions(DAYS)
    put(server, f"{prefix}/{DAYS[0]}.csv", csv(DAYS[0], 2))
    put(server, f"{prefix}/0-late.csv", csv(DAYS[2], 3))  # its name is before all others
    then = source(folder(server, prefix), complete_to="2018-04-04")
    again = then.versions(DAYS)
    assert [again[day] != first[day] for day in DAYS] == [True, False, True]
    batch = then.read(DAYS)
    assert (fares(batch), batch.versions, batch.problems) == (["3", "2", "1"], again, {})
    put(server, f"{prefix}/{DAYS[0]}.csv", csv(DAYS[0], 1))
    assert then.versions(DAYS[:2]) == {day: first[day] for day in DAYS[:2]}, "the same content is the same version"


def test_a_day_in_the_name_is_that_of_all_rows_and_no_other_object_is_opened(
    server: ObjectServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, f"{prefix}/day={DAYS[0]}/part-0.csv", csv(DAYS[0], 1))
    put(server, f"{prefix}/day={DAYS[0]}/part-1.csv", b"when,fare\nsoon,2\n")
    put(server, f"{prefix}/day={DAYS[2]}/part-0.csv", b"no CSV of ours")
    opened: list[str] = []
    original = folders.Bucket.open
    monkeypatch.setattr(folders.Bucket, "open", lambda self, name: opened.append(name) or original(self, name))
    by_name = source(folder(server, prefix), pattern="day={day}/*.csv")
    assert set(by_name.versions(DAYS)) == set(DAYS)
    assert opened == []
    batch = by_name.read(DAYS[:2])
    assert (fares(batch), list(batch.rows["day"]), dict(batch.counted)) == (["1", "2"], [DAYS[0]] * 2, {DAYS[0]: 2, DAYS[1]: 0})
    assert opened == [f"day={DAYS[0]}/part-0.csv", f"day={DAYS[0]}/part-1.csv"]
    assert "has no column when" in by_name.read(DAYS).problems[DAYS[2]]


def test_a_name_without_a_date_where_the_day_should_be_is_a_problem(server: ObjectServer, prefix: str) -> None:
    put(server, f"{prefix}/2018-04-31.csv", csv(DAYS[0], 1))
    problem = source(folder(server, prefix), pattern="{day}.csv").read(DAYS[:1]).problems[DAYS[0]]
    assert "2018-04-31.csv: its name has no day where {day}.csv says" in problem


def test_parquet_is_read_in_pieces(server: ObjectServer, prefix: str) -> None:
    rows = pd.DataFrame({"when": pd.date_range("2018-04-01", periods=50_000, freq="5s", unit="us"), "fare": range(50_000)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(rows), sink, row_group_size=5_000)
    put(server, f"{prefix}/all.parquet", sink.getvalue().to_pybytes())
    batch = source(folder(server, prefix), pattern="*.parquet").read([DAYS[1]])
    wanted = rows[rows["when"].dt.date.astype(str) == DAYS[1]]
    assert fares(batch) == wanted["fare"].astype(str).tolist()
    assert batch.rows["source_row"].tolist() == (wanted.index + 1).tolist()


# What can go wrong on the way ----------------------------------------------------------------------------------------------------


def test_wrong_credentials_are_said_without_the_secret(servers: dict[str, ObjectServer], prefix: str) -> None:
    put(servers["s3"], f"{prefix}/{DAYS[0]}.csv", csv(DAYS[0], 1))
    refused = source(folder(servers["s3"], prefix, AWS_SECRET_ACCESS_KEY="another-secret"))
    batch = refused.read(DAYS[:1])
    assert batch.problems[DAYS[0]].endswith("the store answers 403 Forbidden: check the credentials, and what they may do")
    assert (refused.versions(DAYS), len(batch.rows)) == ({}, 0)
    assert "secret" not in f"{batch.problems} {refused} {refused.folder!r}"
    assert SECRET not in repr(source(folder(servers["s3"], prefix)))


def test_a_bucket_that_is_not_there_is_said(servers: dict[str, ObjectServer]) -> None:
    nowhere = folder_at("s3://no-such-bucket/x", Path(), servers["s3"].settings)
    problem = source(nowhere).read(DAYS[:1]).problems[DAYS[0]]
    assert problem == "s3://no-such-bucket/x: the store answers 404 Not Found: nothing is there"


@pytest.mark.parametrize("run", [running_s3, running_gcs], ids=["s3", "gs"])
def test_a_store_that_is_killed_while_it_is_read_and_comes_back(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folders._RETRY, "max_retries", 1)
    with run() as server:
        for day in DAYS:
            put(server, f"pay/{day}.csv", csv(day, 1, 2))
        place = folder(server, "pay")
        whole = source(place, complete_to="2018-04-04").read(DAYS)
        original = folders.Bucket.open

        def killed(self: folders.Bucket, name: str) -> Any:
            if name == f"{DAYS[1]}.csv":
                server.stop(signal.SIGKILL)
            return original(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(folders.Bucket, "open", killed)
            broken = source(folder(server, "pay"), pattern="{day}.csv", complete_to="2018-04-04").read(DAYS)
        assert set(broken.problems) == set(DAYS[1:])
        assert all(str(place) in problem for problem in broken.problems.values())
        assert (broken.counted, len(broken.rows)) == ({DAYS[0]: 2}, 2), "nothing of a day that was not read to its end"
        server.start()
        again = _read_again(source(folder(server, "pay"), complete_to="2018-04-04"))
        pd.testing.assert_frame_equal(again.rows, whole.rows)


def _read_again(source: MappedFiles) -> Batch:
    """As soon as it reads without a problem: SeaweedFS says that it is there before it has found its volumes again."""
    until = time.monotonic() + 30
    while (batch := source.read(DAYS)).problems:
        assert time.monotonic() < until, batch.problems
        time.sleep(0.1)
    return batch


def test_a_store_that_hangs_for_a_moment_is_waited_for(servers: dict[str, ObjectServer], prefix: str) -> None:
    server = servers["s3"]
    put(server, f"{prefix}/{DAYS[0]}.csv", csv(DAYS[0], 1))
    place = folder(server, prefix)
    server.stop(signal.SIGSTOP)
    assert server.process is not None
    threading.Timer(1.5, server.process.send_signal, [signal.SIGCONT]).start()
    begin = time.monotonic()
    assert fares(source(place).read(DAYS[:1])) == ["1"]
    assert time.monotonic() - begin > 1


def test_an_object_that_is_replaced_while_it_is_read_is_not_half_taken(
    server: ObjectServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, f"{prefix}/{DAYS[0]}.csv", csv(DAYS[0], 1))
    original = folders.Bucket.open

    def replaced(self: folders.Bucket, name: str) -> Any:
        opened = original(self, name)
        put(server, f"{prefix}/{name}", csv(DAYS[0], 2, 3))
        return opened

    by_name = source(folder(server, prefix), pattern="{day}.csv")
    with monkeypatch.context() as patch:
        patch.setattr(folders.Bucket, "open", replaced)
        batch = by_name.read(DAYS[:1])
    assert "it changed while it was read" in batch.problems[DAYS[0]]
    assert len(batch.rows) == 0
    assert fares(by_name.read(DAYS[:1])) == ["2", "3"]


@pytest.mark.parametrize("address", ["ftp://host/x", "s3://", "s3:///x"])
def test_an_address_that_names_no_bucket_is_said(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected a path, or s3://bucket/prefix or gs://bucket/prefix"):
        folder_at(address, Path(), {})
