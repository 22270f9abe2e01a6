"""A simulated month of a shop, operated by Dagster's daemon and web server alone, with a clock that is replayed.

Of the 30 days one comes late, one is poisoned and repaired, the source is down for two, and from the 15th on customers buy other things.
`test_month` lets it happen while processes are killed; `benchmarks/month.py` lists the runs.
"""

import compileall
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.clock import read_clock
from ml_assets.folders import LocalFolder
from ml_assets.storage.models import ModelStore
from ml_assets.storage.tables import Tables
from ml_assets.use_case import Day, day_range, shift
from ml_assets_tests.scaffold.test_new import command, copy_of_the_project

CASE = "shop"
START, MONTH = "2024-01-01", "2024-02-19"  # Mondays
DAYS = day_range(MONTH, shift(MONTH, 29))
HISTORY = day_range(START, shift(MONTH, -1))
END = shift(DAYS[-1], 1)
LATE, CAME = DAYS[4], 3
"""A day, and how many days later than it should it comes."""
POISONED, REPAIRED = DAYS[9], 2
DOWN = DAYS[11:13]
DRIFT = DAYS[14]
EVENTS = 120
COLUMNS = {
    "order_id": "order",
    "ordered_at": "at",
    "customer": "customer",
    "amount": "amount",
    "channel": "channel",
    "returned": "returned",
}
SETTINGS = {"ML_ASSETS_CASES": CASE, "DAGSTER_EVENT_BATCH_SIZE": "1000", "DAGSTER_DISABLE_TELEMETRY": "yes"}


def orders(days: list[Day], *, drift: Day = "9999-12-31") -> pd.DataFrame:
    """Orders of 60 customers, some of whom return more; from `drift` on they are four times as dear and made by telephone."""
    found = []
    for day in days:
        drawn = np.random.default_rng(int(day.replace("-", "")))
        seconds = np.sort(drawn.choice(86_400, size=EVENTS, replace=False))
        customer = drawn.integers(0, 60, EVENTS)
        amount = drawn.lognormal(3, 0.6, EVENTS) * (4 if day >= drift else 1)
        channel = np.where(drawn.random(EVENTS) < (0.9 if day >= drift else 0.1), "telephone", "web")
        logit = 1.6 * (np.log(amount) - 3) + 1.2 * (customer % 5 == 0) + 0.8 * (channel == "telephone") - 1.6
        returned = (drawn.random(EVENTS) < 1 / (1 + np.exp(-logit))).astype(int)
        at = pd.Timestamp(day, tz="UTC") + pd.to_timedelta(seconds, unit="s")
        ids = [f"{day}-{position:03}" for position in range(EVENTS)]
        found.append(
            pd.DataFrame(
                {
                    "order": ids,
                    "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "customer": customer,
                    "amount": amount.round(2),
                    "channel": channel,
                    "returned": returned,
                    "day": day,
                }
            )
        )
    return pd.concat(found, ignore_index=True)


@dataclass(kw_only=True)
class Month:
    """A copy of the project with the case in it, its deliveries, and what became of it."""

    place: Path
    day_seconds: float
    rows: pd.DataFrame = field(default_factory=lambda: orders([*HISTORY, *DAYS], drift=DRIFT))
    kills: list[str] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.place / "project"

    @property
    def delivered(self) -> Path:
        return self.place / "delivered"

    @property
    def settings(self) -> dict[str, str]:
        return {**SETTINGS, "ML_ASSETS_SHOP_FILES": str(self.place / "shop.toml")}

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith("ML_ASSETS_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        return {
            **kept,
            **self.settings,
            "PYTHONPATH": str(self.project),
            "DAGSTER_HOME": str(self.project),
            "PYTHONWARNINGS": "ignore",
        }

    @property
    def tables(self) -> Tables:
        return Tables(root=LocalFolder(self.project / ".ml_assets"), case=CASE)

    @property
    def models(self) -> ModelStore:
        return ModelStore(root=LocalFolder(self.project / ".ml_assets"))

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.project))

    def today(self) -> Day:
        return read_clock(self.project / ".ml_assets", CASE).now().date().isoformat()

    def prepare(self) -> None:
        """The project with the case, and everything before the month, made by the command."""
        self.project.mkdir(parents=True)
        self._copy()
        self.delivered.mkdir()
        for day in HISTORY:
            self.deliver(day)
        known = orders(HISTORY).drop(columns="day").rename(columns={ours: name for name, ours in COLUMNS.items()})
        known.to_csv(self.place / "history.csv", index=False)
        (self.place / "shop.toml").write_text(self._toml())
        self._must("new", CASE, "--from", str(self.place / "history.csv"), "--known-after", "1d", "--label", "returned")
        self._must("run", CASE, "--to", HISTORY[-1])

    def _copy(self) -> None:
        """The project; its Dagster keeps everything there, wherever a process was started."""
        copy_of_the_project(self.project)
        compileall.compile_dir(self.project / "ml_assets", quiet=1)  # each of a hundred runs would do it again
        settings = self.project / "dagster.yaml"
        settings.write_text(settings.read_text().replace(".ml_assets/dagster", str(self.project / ".ml_assets" / "dagster")))

    def _toml(self) -> str:
        columns = ", ".join(f'{name} = "{theirs}"' for name, theirs in COLUMNS.items())
        return (
            f'start = "{START}"\nend = "{END}"\nfirst_go_live = "{shift(MONTH, -7)}"\nfolder = "{self.delivered}"\n\n'
            f'[events]\nfiles = "{{day}}.csv"\ncolumns = {{{columns}}}\n'
        )

    def _must(self, *words: str) -> str:
        done = command(self.project, "-m", "ml_assets", *words, **self.settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deliver(self, day: Day, *, poisoned: bool = False) -> None:
        """The file of a day, there all at once; poisoned, every third amount is no number."""
        rows = self.rows[self.rows["day"] == day].drop(columns="day").astype("str")
        if poisoned:
            rows.loc[rows.index[::3], "amount"] = "much"
        beside = self.place / f"{day}.csv"
        rows.to_csv(beside, index=False)
        beside.replace(self.delivered / f"{day}.csv")

    def events(self) -> Iterator[tuple[Day, str]]:
        """What happens, by the day on whose morning it does."""
        for day in DAYS:
            morning = shift(day, 1)
            yield (shift(morning, CAME) if day == LATE else morning), f"deliver {day}" if day != POISONED else f"poison {day}"
        yield shift(POISONED, 1 + REPAIRED), f"deliver {POISONED}"
        yield shift(DOWN[0], 1), "down"
        yield shift(DOWN[-1], 2), "up"

    def happen(self, ended: threading.Event) -> None:
        """Lets everything happen by the clock. While the source is down, files wait beside it."""
        coming = sorted(self.events(), key=lambda event: (event[0], event[1] != "down", event[1] != "up", event[1]))
        away, waiting = self.place / "away", list[str]()
        while coming and not ended.is_set():
            if self.today() < coming[0][0]:
                time.sleep(0.1)
                continue
            what = coming.pop(0)[1]
            if what == "down":
                self.delivered.rename(away)
            elif what == "up":
                away.rename(self.delivered)
                for late in waiting:
                    self._deliver(late)
                waiting = []
            elif away.exists():
                waiting.append(what)
            else:
                self._deliver(what)

    def _deliver(self, what: str) -> None:
        kind, day = what.split()
        self.deliver(day, poisoned=kind == "poison")

    @contextmanager
    def operated(self, *, kill_seed: int | None = None) -> Iterator[None]:
        """Daemon and web server run; with a seed, both are killed and started again at random moments of the month."""
        ended = threading.Event()
        threads = [threading.Thread(target=self.happen, args=(ended,))]
        with Operators(self) as operators:
            if kill_seed is not None:
                threads.append(threading.Thread(target=operators.kill_at_random, args=(ended, kill_seed)))
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                ended.set()
                for thread in threads:
                    thread.join()

    def play(self, *, kill_seed: int | None = None, seconds: float) -> None:
        """The month, until its last day is over and nothing is left to do."""
        self._must("clock", CASE, "--from", MONTH, "--day-seconds", str(self.day_seconds))
        with self.operated(kill_seed=kill_seed), self.instance() as instance:
            until = time.monotonic() + seconds
            while not (self.today() > shift(DAYS[-1], 2) and self._quiet(instance)):
                assert time.monotonic() < until, f"{self.today()}: not at an end within {seconds:.0f} s\n{self.log()}"
                time.sleep(2)

    def _quiet(self, instance: dg.DagsterInstance) -> bool:
        """Nothing is under way, and nothing was for a few ticks."""
        for _ in range(8):
            if instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) or (
                instance.get_backfills(limit=1, status=None) and self._filling(instance)
            ):
                return False
            time.sleep(2.5)
        return True

    def _filling(self, instance: dg.DagsterInstance) -> bool:
        from dagster._core.execution.backfill import BulkActionStatus

        return any(
            each.status in (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING) for each in instance.get_backfills(limit=50)
        )

    def log(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted(self.place.glob("*.log")))

    def runs(self, instance: dg.DagsterInstance) -> list[dict[str, str]]:
        """Those of the month, earliest first: when, why, what, and how it ended."""
        found = []
        for record in reversed(instance.get_run_records()):
            tags = record.dagster_run.tags
            if "dagster/sensor_name" not in tags and "dagster/schedule_name" not in tags and "dagster/backfill" not in tags:
                continue  # the command made what was before
            names = sorted(key.path[-1] for key in record.dagster_run.asset_selection or ())
            first = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition", "")
            last = tags.get("dagster/asset_partition_range_end", first)
            found.append(
                {
                    "began": f"{record.create_timestamp:%H:%M:%S}",
                    "by": (tags.get("dagster/sensor_name") or tags.get("dagster/schedule_name", "")).removeprefix(f"{CASE}__"),
                    "why": tags.get("ml_assets/why", ""),
                    "partitions": first if first == last else f"{first} to {last}",
                    "assets": ", ".join(names),
                    "status": record.dagster_run.status.value,
                    "retry": tags.get("dagster/retry_number", ""),
                }
            )
        return found

    def reference(self, place: Path) -> "Month":
        """The same deliveries, as they are in the end, built by the command in one go."""
        other = Month(place=place, day_seconds=self.day_seconds, rows=self.rows)
        other.project.mkdir(parents=True)
        other._copy()
        for name in ("history.csv", "shop.toml"):
            shutil.copy(self.place / name, place / name)
        shutil.copytree(self.project / "ml_assets", other.project / "ml_assets", dirs_exist_ok=True)
        (place / "shop.toml").write_text(self._toml())
        assert sorted(path.stem for path in self.delivered.glob("*.csv")) == [*HISTORY, *DAYS]
        other._must("run", CASE)
        return other


UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class Operators:
    """Dagster's daemon and web server, each in a group of processes of its own."""

    def __init__(self, month: Month) -> None:
        self.month = month
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Operators":
        for name in ("daemon", "webserver"):
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self.end(name, signal.SIGTERM)

    def start(self, name: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        commands: Mapping[str, list[str]] = {
            "daemon": ["-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
            "webserver": ["-m", "dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", port],
        }
        with (self.month.place / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, *commands[name]],
                cwd=self.month.project,
                env=self.month.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, name: str, how: signal.Signals) -> None:
        """With all that it started: runs, too."""
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def kill_at_random(self, ended: threading.Event, seed: int) -> None:
        """The daemon six times and the web server three times, at moments between days 2 and 27 of the month."""
        drawn = random.Random(seed)
        moments = sorted((drawn.uniform(2, 27), name) for name in ["daemon"] * 6 + ["webserver"] * 3)
        begin = time.monotonic()
        for day, name in moments:
            if ended.wait(max(0.0, begin + day * self.month.day_seconds - time.monotonic())):
                return
            self.month.kills.append(f"{name} on {self.month.today()}")
            self.end(name, signal.SIGKILL)
            self.start(name)


def counted(runs: list[dict[str, str]]) -> Counter[str]:
    """How many runs there were for each reason."""
    return Counter(f"{run['by']}: {run['why'].split(':')[0]}" for run in runs)
