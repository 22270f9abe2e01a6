"""The log of online scores: nothing is lost by a stop, little by a kill, and a full disk is told to who asks for a score."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_assets.folders import LocalFolder
from ml_assets.storage import predictions
from ml_assets.storage.predictions import LogFullError, LogWriter, PredictionLog

DAY, OTHER = "2018-05-20", "2018-05-21"


def line(number: int) -> bytes:
    return json.dumps({"event_id": number}).encode()


def ids(log: PredictionLog, day: str) -> list[int]:
    return [entry["event_id"] for entry in log.read(day)]


def place(log: PredictionLog) -> Path:
    return Path(log.root.place(log.folder(DAY)))


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(root=LocalFolder(tmp_path), case="case")


def test_lines_lie_in_order_in_the_folder_of_their_day(log: PredictionLog) -> None:
    assert log.days() == []
    assert log.version(DAY) is None
    writer = LogWriter(log=log, name="one")
    for number in range(1000):
        writer.add([(DAY, line(number)), (OTHER, line(-number))])
    writer.close()

    assert ids(log, DAY) == list(range(1000))
    assert ids(log, OTHER) == [-number for number in range(1000)]
    assert log.days() == [DAY, OTHER]
    assert writer.waiting == 0


def test_every_process_has_its_file_and_the_version_tells_of_all(log: PredictionLog) -> None:
    versions = [log.version(DAY)]
    for name in ("one", "two", "three"):
        writer = LogWriter(log=log, name=name)
        writer.add([(DAY, name.encode().join([b'{"event_id": "', b'"}']))])
        writer.close()
        versions.append(log.version(DAY))
    assert sorted(ids(log, DAY)) == ["one", "three", "two"]
    assert len(set(versions)) == 4


def test_a_line_that_a_killed_process_left_unfinished_is_left_out(log: PredictionLog) -> None:
    place(log).mkdir(parents=True)
    (place(log) / "killed.jsonl").write_bytes(line(1) + b"\n" + line(2)[:-3])
    assert ids(log, DAY) == [1]


def test_another_damaged_line_is_named(log: PredictionLog) -> None:
    place(log).mkdir(parents=True)
    (place(log) / "x.jsonl").write_bytes(line(1) + b"\n" + b"{oops\n" + line(3) + b"\n")
    with pytest.raises(ValueError, match=r"x\.jsonl, line 2 is damaged"):
        ids(log, DAY)


def test_what_cannot_be_written_waits_and_is_told(log: PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder of the day should be lies a file; once it is away everything is written, in order."""
    monkeypatch.setattr(predictions, "MOST_WAITING", 50)
    place(log).parent.mkdir(parents=True)
    place(log).write_text("in the way")
    writer = LogWriter(log=log, name="one")
    for number in range(50):
        writer.require_room()
        writer.add([(DAY, line(number))])
        time.sleep(0.001)
    with pytest.raises(LogFullError, match="50 scores wait to be logged"):
        writer.require_room()
    assert writer.waiting == 50
    place(log).unlink()
    until = time.monotonic() + 5
    while writer.waiting and time.monotonic() < until:
        time.sleep(0.02)
    writer.require_room()
    writer.close()
    assert ids(log, DAY) == list(range(50))


FULL = """
import resource, signal, sys, time
from pathlib import Path
from ml_assets.folders import LocalFolder
from ml_assets.storage.predictions import LogWriter, PredictionLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
writer = LogWriter(log=PredictionLog(root=LocalFolder(Path(sys.argv[1])), case="case"), name="full")
for number in range(200):
    writer.add([("2018-05-20", b'{"event_id": %d}' % number)])
time.sleep(0.5)
assert writer.waiting > 100, writer.waiting
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.close()
"""


def test_a_full_disk_loses_no_line_and_leaves_no_half(log: PredictionLog) -> None:
    subprocess.run([sys.executable, "-c", FULL, str(log.root.path)], check=True, timeout=30)
    assert ids(log, DAY) == list(range(200))


WRITES = """
import sys, time
from pathlib import Path
from ml_assets.folders import LocalFolder
from ml_assets.storage.predictions import LogWriter, PredictionLog
writer = LogWriter(log=PredictionLog(root=LocalFolder(Path(sys.argv[1])), case="case"), name="killed")
for number in range(10**7):
    writer.add([("2018-05-20", b'{"event_id": %d}' % number)])
    print(number, flush=True)
    time.sleep(0.0005)
"""


def test_a_kill_loses_no_more_than_the_last_moments(log: PredictionLog) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITES, str(log.root.path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(500):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
    found = ids(log, DAY)
    assert found == list(range(len(found)))
    assert len(found) > told - 100


ROOM_AGAIN = """
import resource, sys, time
from pathlib import Path
from ml_assets.storage import predictions
from ml_assets.storage.predictions import LogFullError, LogWriter, PredictionLog
from ml_assets.folders import LocalFolder
predictions.MOST_WAITING = 300
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
writer = LogWriter(log=PredictionLog(root=LocalFolder(Path(sys.argv[1])), case="case"), name="full")
taken = refused = 0
while not refused:
    try:
        writer.require_room()
    except LogFullError as error:
        assert "300 scores wait" in str(error) and "File too large" in str(error), error
        refused += 1
    else:
        writer.add([("2018-05-20", b'{"event_id": %d}' % taken)])
        taken += 1
        time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
end = time.monotonic() + 5
while writer.waiting and time.monotonic() < end:
    time.sleep(0.01)
writer.require_room()
print(taken)
"""


def test_when_there_is_room_again_everything_that_waited_is_written_by_itself(log: PredictionLog) -> None:
    """Nobody closes anything: the process ends without a word."""
    done = subprocess.run([sys.executable, "-c", ROOM_AGAIN, str(log.root.path)], check=True, timeout=30, stdout=subprocess.PIPE)
    taken = int(done.stdout)
    assert taken >= 300
    assert ids(log, DAY) == list(range(taken))


def test_a_log_that_cannot_be_written_is_told_when_it_is_closed(log: PredictionLog) -> None:
    place(log).parent.mkdir(parents=True)
    place(log).write_text("in the way")
    writer = LogWriter(log=log, name="one")
    writer.add([(DAY, line(1)), (OTHER, line(2))])
    with pytest.raises(OSError, match=DAY):
        writer.close()
    place(log).unlink()
    writer.close()
    assert (ids(log, DAY), ids(log, OTHER)) == ([1], [2])
