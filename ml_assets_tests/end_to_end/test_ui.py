"""Dagster's web interface over a small world, in a real browser, with the mouse: what a person who opens it sees, reads and starts there.

Screenshots of every page looked at are left in `.artifacts/screenshots`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import requests
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
)
from playwright.sync_api import Error, Locator, Page, expect, sync_playwright

from ml_assets.orchestration.rounds import bring_up_to_date
from ml_assets.use_case import day_range, shift
from ml_assets.use_cases.flight_delays.source import FOLDER
from ml_assets_tests.end_to_end.conftest import World, open_world, write_delivery
from ml_assets_tests.end_to_end.small_case import CASE, defs

PROJECT = Path(__file__).parents[2]
PICTURES = PROJECT / ".artifacts" / "screenshots"
WEEK, BAD, ONE_DAY = "2013-01-28", "2013-02-03", "2013-02-04"
"""The week of the first model, and its last day, which is poisoned; all days up to it are built by a command. The next one is launched."""
DAYS = day_range(CASE.start, shift(CASE.end or "", -1))
BACKFILLED = day_range(shift(ONE_DAY, 1), DAYS[-1])
SCORED = day_range(WEEK, shift(BAD, -1))
LINE = (
    *("raw_flights", "flights", "rejected_flights", "raw_weather", "weather", "rejected_weather"),
    *("labels", "features", "scores"),
)
# As root in a container, with no request to another host.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WORKSPACE = """load_from:
  - python_module: {module_name: ml_assets_tests.end_to_end.small_case, location_name: ml_assets}
"""
PATIENCE = 40_000
"""Milliseconds; nothing that is clicked takes a tenth of that on an idle machine."""
RUN, BACKFILL = 120_000, 300_000
"""What waits in Dagster's queue, or for the ticks of 30 s in which its daemon cuts a backfill into runs."""
Show = Callable[..., Page]
AUTOMATION = """{
  repositoriesOrError { ... on RepositoryConnection { nodes {
    sensors { sensorState { status } } schedules { scheduleState { status } }
  } } }
}"""


class Server:
    """`dagster dev` on a port of its own: what `make ui` starts."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self.log = address, log

    def answer(self, query: str, **variables: Any) -> Any:
        reply = requests.post(f"{self.address}/graphql", json={"query": query, "variables": variables}, timeout=30).json()
        assert "errors" not in reply, reply["errors"]
        return reply["data"]

    def is_ready(self) -> bool:
        """Whether it answers and has loaded the code."""
        try:
            found = self.answer("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
        except requests.ConnectionError:
            return False
        return bool(found["repositoriesOrError"].get("nodes"))

    def wait(self, holds: Callable[[], bool], *, seconds: float, what: str) -> None:
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                pytest.fail(f"{what}: not within {seconds:.0f} s. The server's last lines:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A delivery of all days, one of them poisoned, and nothing built; no sensor or schedule does what the mouse shall do."""
    place = tmp_path_factory.mktemp("ui")
    write_delivery(place / "delivery", DAYS)
    opened = open_world(place, folder=place / "delivery", case=CASE)
    rows = pd.read_csv(opened.file(BAD), dtype="str", keep_default_na=False)
    rows.assign(distance=rows["distance"].mask(rows.index % 8 == 3, "-17")).to_csv(opened.file(BAD), index=False)
    with opened.instance:
        _turn_automation_off(opened.instance)
        yield opened


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Server]:
    """While it starts, the days up to the bad one and the first model are built."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = world.root.parent
    log, workspace = place / "server.log", place / "workspace.yaml"
    workspace.write_text(WORKSPACE, encoding="utf-8")
    dagster = str(Path(sys.executable).with_name("dagster"))
    command = [dagster, "dev", "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    with (
        log.open("w") as lines,
        _stopped_afterwards(
            subprocess.Popen(command, cwd=place, env=_environment(world), stdout=lines, stderr=lines, preexec_fn=_own_group)
        ),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(FOLDER, str(world.folder))
            bring_up_to_date(world.runner(), last=BAD)
        started = Server(f"http://127.0.0.1:{port}", log)
        started.wait(started.is_ready, seconds=60, what="dagster dev")
        [repository] = started.answer(AUTOMATION)["repositoriesOrError"]["nodes"]
        states = [each["sensorState"] for each in repository["sensors"]] + [
            each["scheduleState"] for each in repository["schedules"]
        ]
        assert {state["status"] for state in states} == {"STOPPED"}
        yield started


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    """After the server, since Playwright keeps an event loop in this thread, in which none of Dagster's can begin."""
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        pytest.fail("no browser: install the package 'chromium', or set CHROMIUM to the command of one")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser:
        opened = browser.new_page()
        opened.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        # The first visitor is invited to a newsletter, some time after the page is there.
        opened.add_locator_handler(opened.get_by_role("button", name="Skip", exact=True), lambda skip: skip.click())
        yield opened


@pytest.fixture(scope="module")
def show(page: Page, server: Server) -> Show:
    """Opens a page of the interface as if it had been typed."""

    def opened(path: str, *, width: int = 1600, height: int = 1000) -> Page:
        page.set_viewport_size({"width": width, "height": height})
        page.goto(server.address + path)
        return page

    return opened


@pytest.fixture(scope="module")
def day(show: Show) -> Page:
    """The page after the run that was launched for one day of everything from raw rows to scores."""
    page = show("/")
    _launch(page, ONE_DAY, name="launch-a-day")
    expect(page).to_have_url(re.compile("/runs/"))
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=RUN)
    expect(page.get_by_text(f"partition: {ONE_DAY}")).to_be_visible()
    expect(page.get_by_text(f"{len(LINE)} assets")).to_be_visible()
    _keep(page, "run-of-a-day")
    return page


@pytest.fixture(scope="module")
def backfill(day: Page) -> str:
    """The path of the page of a backfill of thirty days of the same, launched after that run."""
    _launch(day, f"[{BACKFILLED[0]}...{BACKFILLED[-1]}]", name="launch-a-backfill")
    expect(day).to_have_url(re.compile("/runs/b/"))
    return day.url[day.url.index("/runs/b/") :]


def test_the_graph_opens_and_shows_every_asset_of_the_case(show: Show) -> None:
    page = show("/", width=3000, height=4000)  # what lies outside the window is not drawn
    _navigate(page, "Lineage")
    expect(page.get_by_text("flight_delays", exact=True).last).to_be_visible()
    page.get_by_role("img", name="settings", exact=True).last.click()
    page.get_by_text("Expand all groups").last.click()
    expect(page).to_have_url(re.compile("expanded="))
    page.reload()  # it zooms out to the whole graph only when it opens
    names = {key.path[-1] for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert len(names) >= 16
    for name in names:
        shortened = f"{name[:4]}\\w*…\\w*{name[-4:]}"
        expect(page.get_by_text(re.compile(f"^({name}|{shortened})$")).last).to_be_attached()
    _keep(page, "asset-graph")


def test_a_day_is_materialised_with_the_mouse(day: Page, show: Show) -> None:
    page = show("/assets/flight_delays/scores")
    _tab(page, "Partitions").click()
    expect(page.get_by_text(f"Materialized ({len(SCORED) + 1})")).to_be_visible()
    _partition(page, ONE_DAY).click()
    expect(page.get_by_text("dagster/row_count")).to_be_visible()
    _keep(page, "scores-of-a-day")


def test_a_backfill_of_thirty_days_is_under_way(page: Page, backfill: str) -> None:
    assert len(BACKFILLED) == 30
    expect(page.get_by_text(f"{BACKFILLED[0]}...{BACKFILLED[-1]}")).to_be_visible()
    _navigate(page, "Runs")
    _tab(page, "Backfills").click()
    expect(page.get_by_role("link", name=backfill.rpartition("/")[2])).to_be_visible()
    _keep(page, "backfills")


def test_the_bad_day_is_found_and_says_what_is_wrong(show: Show) -> None:
    page = show("/assets/flight_delays/flights")
    _tab(page, "Checks").click()
    page.get_by_text("every_row_is_accounted_for").first.click()
    expect(page.get_by_text("Rows in = rows out + rejected, and at most 5% are rejected.")).to_be_visible()
    _keep(page, "check")
    _tab(page, "Partitions", last=True).click()
    expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()
    page.get_by_text(re.compile(r"^Passed \(\d+\)$")).click()
    page.get_by_text(re.compile(r"^Missing \(\d+\)$")).click()
    expect(page.get_by_text("1 Partitions Selected")).to_be_visible()
    _partition(page, BAD).click()
    expect(page.get_by_text(f"2 of 3 expectations do not hold on {BAD}: error: at most 5 % of rows are rejected")).to_be_visible()
    _keep(page, "bad-day")
    page.get_by_text("[Show Markdown]").click()
    table = _dialog(page).get_by_role("table")
    expect(table.get_by_role("row").nth(1)).to_contain_text("row 4: distance: -17 is below 1")
    expect(table.get_by_role("row").nth(1)).to_contain_text(re.compile(r"at most 5 % of rows are rejected\s*no\s*error"))
    expect(table.get_by_role("row")).to_have_count(4)
    _keep(page, "bad-day-expectations")


def test_the_check_of_a_good_day_can_be_read(show: Show) -> None:
    page = show("/assets/flight_delays/features")
    _tab(page, "Checks").click()
    page.get_by_text("features_are_point_in_time").first.click()
    expect(page.get_by_text("Computed again from a world that ends at the moment of the prediction")).to_be_visible()
    _tab(page, "Partitions", last=True).click()
    expect(page.get_by_text("Failed (1)", exact=True)).to_be_visible()  # the bad day: not made
    _partition(page, DAYS[3]).click()
    expect(page.get_by_text("1 expectation holds")).to_be_visible()
    _keep(page, "good-day")


def test_the_pictures_of_an_evaluation_are_seen(show: Show) -> None:
    page = show("/assets/flight_delays/evaluation_report")
    _tab(page, "Partitions").click()
    _partition(page, WEEK).click()
    expect(page.get_by_text("average_precision", exact=True)).to_be_visible()
    _keep(page, "evaluation-report")
    for name in ("precision_recall", "roc", "calibration", "confusion_matrix", "importance", "contributions"):
        row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
        row.get_by_text("[Show Markdown]").click()
        picture = _dialog(page).get_by_role("img", name=name, exact=True)
        expect(picture).to_be_visible()
        size = picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
        assert min(size) > 100, (name, size)
        _keep(page, f"evaluation-{name}")
        _dialog(page).get_by_text("Close", exact=True).click()
        expect(picture).to_be_hidden()


def test_lineage_leads_from_scores_to_raw_rows(show: Show) -> None:
    page = show("/assets/flight_delays/scores")
    for name in ("scores", "features", "flights", "raw_flights"):
        if name != "scores":
            page.get_by_text(name, exact=True).last.click()
        expect(page).to_have_url(re.compile(f"/assets/flight_delays/{name}\\b"))
        _tab(page, "Lineage").click()
        page.get_by_text("Upstream", exact=True).click()
        expect(page).to_have_url(re.compile(f"/assets/flight_delays/{name}\\?.*upstream"))
        _keep(page, f"lineage-{name}")
    expect(page.get_by_text("delivered_flights", exact=True).last).to_be_visible()


def test_the_backfill_is_watched_until_all_thirty_days_are_there(world: World, backfill: str, show: Show) -> None:
    page = show("/runs?view=backfills")
    expect(page.get_by_role("link", name=backfill.rpartition("/")[2])).to_be_visible()
    expect(page.get_by_text(re.compile("^(Success|Failure|Canceled)$"))).to_be_visible(timeout=BACKFILL)
    _keep(page, "backfills-ended")
    expect(page.get_by_text("Success", exact=True)).to_be_visible()
    page.get_by_text("View", exact=True).click()
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(2)  # the status, and a column
    expect(page.get_by_text("100% completed")).to_have_count(len(LINE))
    _keep(page, "backfill")
    for name in ("flights", "features", "scores"):
        assert world.partitions(name) >= {ONE_DAY, *BACKFILLED}, name
        assert set(world.tables.ledger(name)) >= {ONE_DAY, *BACKFILLED}, name
    assert BAD not in world.partitions("flights")


def _launch(page: Page, partitions: str, *, name: str) -> None:
    """Chooses everything from raw rows to scores in the graph, and partitions in the dialog; then goes to what was launched."""
    _navigate(page, "Lineage")
    page.locator(".CodeMirror").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(" or ".join(f'key:"flight_delays/{each}"' for each in LINE))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"{LINE[0]}.*{LINE[-1]}"))
    page.get_by_role("button", name="Materialize all").click()
    expect(page.get_by_text(f"Launch runs to materialize {len(LINE)} assets")).to_be_visible()
    chosen = page.get_by_placeholder(f"ex: {DAYS[0]}")
    chosen.fill(partitions)
    chosen.press("Enter")
    launch = page.get_by_role("button", name=re.compile("^Launch (1 run|backfill)$"))
    expect(launch).to_be_enabled()
    _keep(page, name)
    launch.click()
    page.get_by_text("View", exact=True).click()


def _navigate(page: Page, name: str) -> None:
    """By the links at the left."""
    page.get_by_role("link").filter(has_text=re.compile(f"^{name}$")).first.click()


def _tab(page: Page, name: str, *, last: bool = False) -> Locator:
    """Of the asset, or of the check when that is open, too."""
    found = page.get_by_role("tab", name=name)
    return found.last if last else found.first


def _partition(page: Page, day: str) -> Locator:
    """Its line in the list at the left; the bar above has dates, too."""
    page.get_by_placeholder("Filter by").fill(day)
    return page.locator("span").get_by_text(day, exact=True).last


def _dialog(page: Page) -> Locator:
    return page.locator("[class*=dialog i]").filter(has=page.get_by_text("Close", exact=True)).last


def _keep(page: Page, name: str) -> None:
    """When nothing is on its way any more; a page that asks for news all the time is taken as it is."""
    with suppress(Error):
        page.wait_for_load_state("networkidle", timeout=3_000)
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


def _turn_automation_off(instance: dg.DagsterInstance) -> None:
    """As if a person had done it before the daemon first looked; `server` asks Dagster whether it sees it so."""
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ml_assets"), "__repository__")
    repository = defs.get_repository_def()
    for sensor in repository.sensor_defs:
        data = SensorInstigatorData(sensor_type=sensor.sensor_type)
        place = origin.get_instigator_origin(sensor.name)
        instance.add_instigator_state(InstigatorState(place, InstigatorType.SENSOR, InstigatorStatus.STOPPED, data))
    for schedule in repository.schedule_defs:
        place = origin.get_instigator_origin(schedule.name)
        timed = ScheduleInstigatorData(schedule.cron_schedule)
        instance.add_instigator_state(InstigatorState(place, InstigatorType.SCHEDULE, InstigatorStatus.STOPPED, timed))


def _environment(world: World) -> dict[str, str]:
    ours = {
        "DAGSTER_HOME": str(world.root.parent / "dagster"),
        "ML_ASSETS_ROOT": str(world.root),
        FOLDER: str(world.folder),
        "PYTHONPATH": str(PROJECT),
    }
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("ML_ASSETS_")
    }  # other tests deliver files of their own
    return {**kept, **ours, "DAGSTER_DISABLE_TELEMETRY": "yes"}


def _own_group() -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background shell hands down SIGINT ignored, and nothing would stop it


@contextmanager
def _stopped_afterwards(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process with all that it started."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
