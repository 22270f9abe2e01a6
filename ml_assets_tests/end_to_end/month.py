"""A simulated month of a shop, operated by Dagster's daemon and web server alone, with a clock that is replayed.

Of the days one comes late, one is poisoned and repaired, the source is down for two, and from some day on customers buy other things.
`benchmarks/month.py` plays it, kills processes if asked to, and lists the runs.
"""

import compileall
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
from dagster._core.execution.backfill import BulkActionStatus

from ml_assets.clock import Clock, read_clock
from ml_assets.folders import LocalFolder
from ml_assets.storage.models import ModelStore
from ml_assets.storage.tables import Tables
from ml_assets.use_case import Day, day_range, shift
from ml_assets_tests.scaffold.test_new import command, copy_of_the_project

CASE = "shop"
START, FIRST = "2024-01-01", "2024-02-19"
"""Mondays: of the history, and of what is simulated."""
HISTORY = day_range(START, shift(FIRST, -1))
EVENTS = 120
TICK = 5
"""Seconds between two looks of a sensor."""
COLUMNS = {
    "order_id": "order",
    "ordered_at": "at",
    "customer": "customer",
    "amount": "amount",
    "channel": "channel",
    "returned": "returned",
}
SETTINGS = {
    "ML_ASSETS_CASES": CASE,
    "ML_ASSETS_TICK_SECONDS": str(TICK),
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
}


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What happens, by the number of the day from 0 on."""

    days: int
    late: int
    came: int
    """How many days later than it should the late one comes."""
    poisoned: int
    repaired: int
    down: tuple[int, ...]
    drift: int | None = None
    kills: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Who is killed in the midst of a day."""

    def day(self, number: int) -> Day:
        return shift(FIRST, number)

    @property
    def all_days(self) -> list[Day]:
        return day_range(FIRST, self.day(self.days - 1))


MONTH = Plan(days=30, late=4, came=3, poisoned=9, repaired=2, down=(11, 12), drift=14)
"""That of the issue: late, poisoned, down for two days, drift from the 15th day on."""
WEEK = Plan(
    days=7,
    late=1,
    came=2,
    poisoned=2,
    repaired=2,
    down=(4, 5),
    kills={0: ("daemon",), 3: ("webserver",), 4: ("daemon", "webserver")},
)


@dataclass(kw_only=True)
class Month:
    """A copy of the project with the case in it, its deliveries, and what became of it."""

    place: Path
    plan: Plan
    told: Callable[[str], None] = lambda _: None
    """Gets a line for each day."""
    kills: list[str] = field(default_factory=list)
    _waiting: list[tuple[int, bool]] = field(default_factory=list)
    _good: set[Day] = field(default_factory=set)
    """Days that are delivered and can be made."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        drift = "9999-12-31" if self.plan.drift is None else self.plan.day(self.plan.drift)
        return orders([*HISTORY, *self.plan.all_days], drift=drift)

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
        text = settings.read_text().replace(".ml_assets/dagster", str(self.project / ".ml_assets" / "dagster"))
        assert "start_timeout_seconds: 90" in text
        settings.write_text(
            text.replace("start_timeout_seconds: 90", "start_timeout_seconds: 40")
        )  # runs that are killed before they began

    def _toml(self) -> str:
        columns = ", ".join(f'{name} = "{theirs}"' for name, theirs in COLUMNS.items())
        end, live = shift(self.plan.all_days[-1], 1), shift(FIRST, -7)
        return (
            f'start = "{START}"\nend = "{end}"\nfirst_go_live = "{live}"\nfolder = "{self.delivered}"\n\n'
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
        self._good = self._good - {day} if poisoned else self._good | {day}

    def happen(self, number: int) -> None:
        """What happens on the morning after a day. While the source is down, files wait beside it."""
        plan, away = self.plan, self.place / "away"
        if number == plan.down[0]:
            self.delivered.rename(away)
        if number == plan.down[-1] + 1:
            away.rename(self.delivered)
        came = [number] if number != plan.late else []
        came += [plan.late] if number == plan.late + plan.came else []
        came += [plan.poisoned] if number == plan.poisoned + plan.repaired else []
        self._waiting += [(each, each == plan.poisoned == number) for each in came]
        if not away.exists():
            for each, poisoned in self._waiting:
                self.deliver(plan.day(each), poisoned=poisoned)
            self._waiting.clear()

    def play(self) -> None:
        """All days, one after the other; the clock goes on when what can be made of a day is made."""
        self._at(FIRST, 1)
        with Operators(self) as operators, self.instance() as instance:
            for number, day in enumerate(self.plan.all_days):
                self._at(shift(day, 1), 5)
                self.happen(number)
                for name in self.plan.kills.get(number, ()):
                    time.sleep(random.Random(number).uniform(4, 12))
                    self.kills.append(f"{name} on {shift(day, 1)}")
                    operators.end(name, signal.SIGKILL)
                    operators.start(name)
                begin = time.monotonic()
                self._wait(instance, day)
                self._at(shift(day, 1), 22.5)
                time.sleep(2 * TICK)
                self.told(f"{day}: {time.monotonic() - begin:.0f} s, {len(self.runs(instance))} runs so far")
            self._wait(instance, self.plan.all_days[-1], quiet_ticks=6)

    def _at(self, day: Day, hour: float) -> None:
        """The clock stands at this hour, or nearly: a day takes a day."""
        shows = pd.Timestamp(day, tz="UTC") + pd.Timedelta(hours=hour)
        clock = Clock(begun=pd.Timestamp.now("UTC").isoformat(), shows=shows.isoformat(), day_seconds=86_400.0)
        file = self.project / ".ml_assets" / "clock" / f"{CASE}.json"
        file.parent.mkdir(exist_ok=True)
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(asdict(clock)))
        beside.replace(file)

    def _wait(self, instance: dg.DagsterInstance, day: Day, *, quiet_ticks: int = 2, seconds: float = 400) -> None:
        """Until features of every clean day are there and nothing was under way for some ticks."""
        until, quiet = time.monotonic() + seconds, 0
        while quiet < quiet_ticks:
            assert time.monotonic() < until, f"{day}: not settled within {seconds:.0f} s\n{self.log()}"
            time.sleep(TICK)
            made = set(self.tables.ledger("features")) >= {*self._good, *self.tables.ledger("events")}
            quiet = quiet + 1 if made and not self._under_way(instance) else 0

    def _under_way(self, instance: dg.DagsterInstance) -> bool:
        filling = (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING)
        return bool(
            instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED))
            or any(each.status in filling for each in instance.get_backfills(limit=20))
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
        other = Month(place=place, plan=self.plan)
        other.project.mkdir(parents=True)
        other._copy()
        for name in ("history.csv", "shop.toml"):
            shutil.copy(self.place / name, place / name)
        shutil.copytree(self.project / "ml_assets", other.project / "ml_assets", dirs_exist_ok=True)
        (place / "shop.toml").write_text(self._toml())
        assert sorted(path.stem for path in self.delivered.glob("*.csv")) == [*HISTORY, *self.plan.all_days]
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


def counted(runs: list[dict[str, str]]) -> Counter[str]:
    """How many runs there were for each reason."""
    return Counter(f"{run['by']}: {run['why'].split(':')[0]}" for run in runs)


def judge(month: Month, reference: Month) -> list[str]:
    """What is not as it should be in the end; empty when all is well.

    Tables of days are compared with those that the command makes of the same deliveries in one go. Models are not: which ones there are
    depends on what was known when, so their scores have to be those of the model in force.
    """
    ours, theirs = month.tables, reference.tables
    wrong = []
    for name in ("events", "rejected_events", "labels", "features"):
        contents = [{day: entry.content for day, entry in each.ledger(name).items()} for each in (ours, theirs)]
        if contents[0] != contents[1]:
            differ = sorted({day for day in {*contents[0], *contents[1]} if contents[0].get(day) != contents[1].get(day)})
            wrong.append(f"{name}: {', '.join(differ)} differ")
    scored = [day for day in ours.ledger("features") if day >= shift(FIRST, -7)]
    known = [day for day in theirs.ledger("live_performance") if day >= shift(FIRST, -7)]
    expected = {**dict.fromkeys(("scores", "estimated_performance", "drift_report"), scored)}
    expected |= dict.fromkeys(("live_performance", "performance_report"), known)
    missing = {name: [day for day in days if day not in ours.ledger(name)] for name, days in expected.items()}
    wrong += [f"{name}: {', '.join(days)} are missing" for name, days in missing.items() if days]
    in_force = {day: version for day, (_, version) in month.models.in_force_on(CASE, scored).items()}
    by_day = ours.read("scores").groupby("day")["model_version"].unique()
    wrong += [f"scores: {day} are by {by_day[day]}" for day in scored if day in by_day and list(by_day[day]) != [in_force[day]]]
    weeks = {shift(FIRST, 7 * week) for week in range(month.plan.days // 7)}  # a week that does not end in the case is not decided
    if undecided := weeks - set(month.models.reports(CASE)):
        wrong.append(f"weeks without a decision: {', '.join(sorted(undecided))}")
    told = month._must("stale", CASE)
    wrong += [line.strip() for line in told.splitlines() if line.split()[:1] and line.split()[0] in DAILY and "fresh" not in line]
    return wrong


DAILY = ("raw_events", "events", "labels", "features", "scores", "estimated_performance", "drift_report", "live_performance")
