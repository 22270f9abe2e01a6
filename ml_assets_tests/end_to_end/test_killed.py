"""A build that is killed, three times at random or between two writes, ends like one that was not; readers see whole days only."""

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from ml_assets.storage.tables import content_hashes
from ml_assets.use_cases.flight_delays.source import FOLDER

PROGRAM = """
import importlib.util, os, signal, sys
from pathlib import Path

conftest, place, folder, last_words = sys.argv[1:]
spec = importlib.util.spec_from_file_location("end_to_end_conftest", conftest)
here = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = here
spec.loader.exec_module(here)

def heard(record):
    said = str(getattr(record, "dagster_meta", {}).get("orig_message", ""))
    if last_words and last_words in said:
        os.kill(os.getpid(), signal.SIGKILL)

world = here.open_world(Path(place), folder=Path(folder))
print("ready", flush=True)
with world.instance:
    here.bring_up_to_date(here.Runner(case=world.case, store=world.store, instance=world.instance, heard=heard))
"""
PROJECT = Path(__file__).parents[2]
READ = ("raw_flights", "flights", "weather", "labels", "features", "scores")


class Reader(threading.Thread):
    """Reads the tables as fast as it can, and remembers each day that is not what its ledger says."""

    def __init__(self, tables) -> None:
        super().__init__(daemon=True)
        self.tables, self.over = tables, threading.Event()
        self.days_seen, self.reads, self.broken = 0, 0, []

    def run(self) -> None:
        while not self.over.is_set():
            self.over.wait(0.1)  # the machine is shared with the build
            for name in READ:
                try:
                    self._read(name)
                except Exception as error:
                    self.broken.append(f"{name}: {error!r}")
                    return

    def _read(self, name: str) -> None:
        before = self.tables.ledger(name)
        if not before:
            return
        rows = self.tables.read(name)
        after = self.tables.ledger(name)
        seen = content_hashes(rows, rows["day"].unique())
        self.reads, self.days_seen = self.reads + 1, self.days_seen + len(seen)
        for day, found in seen.items():
            # A day that is rewritten while it is read may be as it was before or as it is after.
            entries = [(entry.rows, entry.content) for ledger in (before, after) if (entry := ledger.get(day))]
            if found not in entries:
                self.broken.append(f"{name} {day}: {found}, the ledger says {entries}")
        self.broken += [f"{name} {day}: not there" for day, entry in before.items() if entry.rows and day not in seen]


def started(place: Path, folder: Path, *, last_words: str = "") -> subprocess.Popen:
    """A process that brings a world up to date, as soon as it begins to."""
    arguments = [str(Path(__file__).with_name("conftest.py")), str(place), str(folder), last_words]
    environment = {**os.environ, FOLDER: str(folder), "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments],
        env=environment,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process: subprocess.Popen, *, within: float) -> int:
    """Its return code; it is killed when it takes longer."""
    try:
        process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.stdout.close()
    return process.returncode


def is_as_undisturbed(world, undisturbed) -> None:
    assert world.contents() == undisturbed.contents()
    assert world.contents_of_rows() == undisturbed.contents_of_rows()
    assert world.store.models.deployments(world.case.name) == undisturbed.store.models.deployments(world.case.name)


def test_a_build_killed_three_times_ends_like_one_that_was_not(make_world, undisturbed, tmp_path):
    world = make_world()
    moments = random.Random(20130101)
    reader = Reader(world.tables)
    reader.start()
    codes = []
    try:
        # A whole build takes 7 to 20 seconds.
        for delay in (moments.uniform(1, 5), moments.uniform(1, 5), moments.uniform(1, 5), 400):
            code = ended(started(tmp_path / "world", world.folder), within=delay)
            codes.append(code)
    finally:
        reader.over.set()
        reader.join(timeout=30)
    assert reader.broken == []
    assert reader.days_seen > 100
    assert -signal.SIGKILL in codes[:3]
    assert codes[-1] == 0
    is_as_undisturbed(world, undisturbed)


def test_rejected_rows_that_a_killed_step_did_not_publish_any_more_are_published_by_the_next(make_world, undisturbed, tmp_path):
    world = make_world(since="the end", without=("rejected_planes",))
    assert ended(started(tmp_path / "world", world.folder), within=240) == 0
    is_as_undisturbed(world, undisturbed)


MODELS = ("models", "reports", "weeks", "deployments", "candidate_model", "evaluation_report", "deployed_model")


def test_days_published_by_a_step_that_was_killed_before_it_told_dagster_are_told_by_the_next(make_world, undisturbed, tmp_path):
    world = make_world(since="the end", without=("live_performance",))
    killed = started(tmp_path / "world", world.folder, last_words="live_performance: ")
    assert ended(killed, within=240) == -signal.SIGKILL
    assert ended(started(tmp_path / "world", world.folder), within=240) == 0
    is_as_undisturbed(world, undisturbed)
    assert world.partitions("live_performance") == undisturbed.partitions("live_performance")


def test_a_model_promoted_by_a_step_after_which_the_process_was_killed_is_deployed_by_the_next(make_world, undisturbed, tmp_path):
    world = make_world(since="the end", without=(*MODELS, "scores", "live_performance"))
    killed = started(tmp_path / "world", world.folder, last_words="2013-02-04: promoted")
    assert ended(killed, within=240) == -signal.SIGKILL
    assert ended(started(tmp_path / "world", world.folder), within=240) == 0
    is_as_undisturbed(world, undisturbed)
    assert world.partitions("deployed_model") == undisturbed.partitions("deployed_model")
