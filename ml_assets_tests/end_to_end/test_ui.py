"""Dagster's web interface over a few real days, in a real browser: what a person who opens it reads there, and that a day can be launched.

Screenshots of every page looked at are left in `.artifacts/screenshots`.
"""

import os
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

import pytest
import requests
from playwright.sync_api import Page, expect, sync_playwright

from ml_assets.definitions import defs

PROJECT = Path(__file__).parents[2]
PICTURES = PROJECT / ".artifacts" / "screenshots"
BUILT, NEXT_DAY = ("2013-01-01", "2013-01-02", "2013-01-03"), "2013-01-04"
LINE = (
    *("raw_flights", "flights", "rejected_flights", "raw_weather", "weather", "rejected_weather"),
    *("labels", "features"),
)
GROUPS = ("raw", "clean", "rejected", "labels", "features", "models", "scores", "monitoring", "observed", "online")
# As root in a container, with no request to another host.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

LAUNCH = """
mutation launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
STATUS = "query status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"


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
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project's dagster.yaml in which the command has built a few days."""
    place = tmp_path_factory.mktemp("ui")
    shutil.copy(PROJECT / "dagster.yaml", place)
    command = [sys.executable, "-c", "from ml_assets.cli import app; app()", "run", "flight_delays", "--to", BUILT[-1]]
    done = subprocess.run(command, cwd=place, env=_environment(place), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "server.log"
    dagster = str(Path(sys.executable).with_name("dagster"))
    command = [dagster, "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    with (
        log.open("w") as lines,
        _stopped_afterwards(
            subprocess.Popen(command, cwd=home, env=_environment(home), stdout=lines, stderr=lines, preexec_fn=_own_group)
        ),
    ):
        started = Server(f"http://127.0.0.1:{port}", log)
        started.wait(started.is_ready, seconds=60, what="dagster dev")
        yield started


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        pytest.fail("no browser: install the package 'chromium', or set CHROMIUM to the command of one")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser:
        opened = browser.new_page(viewport={"width": 1600, "height": 1000})
        opened.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield opened


@pytest.fixture
def show(page: Page, server: Server) -> Callable[[str], Page]:
    """Opens a page of the interface, without the invitation to a newsletter that the first visitor gets."""

    def opened(path: str) -> Page:
        page.goto(server.address + path)
        page.wait_for_load_state("networkidle")
        if (skip := page.get_by_role("button", name="Skip", exact=True)).count():
            skip.click()
        return page

    return opened


def test_the_graph_shows_every_asset_of_the_case(page: Page, show: Callable[[str], Page]) -> None:
    groups = ",".join(f"global@global:flight_delays/{group}" for group in GROUPS)
    chosen = requests.utils.quote('key:"flight_delays/*"', safe="")  # all cases at once do not fit into a window
    window = page.viewport_size
    page.set_viewport_size({"width": 3000, "height": 4000})  # what lies outside the window is not drawn
    show(f"/asset-groups~{chosen}/?expanded={requests.utils.quote(groups, safe='')}")

    names = {key.path[-1] for key in defs.resolve_asset_graph().get_all_asset_keys() if key.path[0] == "flight_delays"}
    assert len(names) >= 16
    for name in names:
        expect(page.get_by_text(name, exact=True).first).to_be_attached()
    _keep(page, "asset-graph")
    assert window is not None
    page.set_viewport_size(window)


def test_the_partitions_page_shows_the_days_that_are_published(show: Callable[[str], Page]) -> None:
    page = show(f"/assets/flight_delays/features?view=partitions&partition={BUILT[1]}")

    expect(page.get_by_text(f"Materialized ({len(BUILT)})")).to_be_visible()
    expect(page.get_by_text("dagster/row_count")).to_be_visible()
    _keep(page, "partitions")


def test_the_check_of_a_day_can_be_read(show: Callable[[str], Page]) -> None:
    page = show("/assets/flight_delays/flights?view=checks&checkDetail=flights_keep_the_contract")

    page.get_by_text("flights_keep_the_contract").first.click()
    expect(page.get_by_text("Types, missing values, ranges, allowed values and keys are as the schema says")).to_be_visible()
    expect(page.get_by_text("expectations hold").first).to_be_visible()
    _keep(page, "check")


def test_each_day_has_its_own_check_result(show: Callable[[str], Page]) -> None:
    page = show("/assets/flight_delays/features?view=checks&checkDetail=features_are_point_in_time")

    page.get_by_text("features_are_point_in_time").first.click()
    page.get_by_text("Partitions", exact=True).last.click()
    expect(page.get_by_text("Missing (", exact=False)).to_be_visible()
    _keep(page, "check-partitions")
    expect(page.get_by_text(f"Passed ({len(BUILT)})")).to_be_visible()


def test_a_day_can_be_launched_from_the_interface(server: Server, show: Callable[[str], Page]) -> None:
    keys = [{"path": ["flight_delays", name]} for name in LINE]
    launched = server.answer(
        LAUNCH,
        params={
            "mode": "default",
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "ml_assets",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": keys,
            },
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": NEXT_DAY}]},
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]

    def ended() -> bool:
        status = server.answer(STATUS, run=run)["runOrError"]["status"]
        assert status not in {"FAILURE", "CANCELED"}, server.log.read_text()[-3000:]
        return bool(status == "SUCCESS")

    server.wait(ended, seconds=60, what=f"run {run}")
    page = show(f"/assets/flight_delays/features?view=partitions&partition={NEXT_DAY}")
    expect(page.get_by_text(f"Materialized ({len(BUILT) + 1})")).to_be_visible()
    _keep(page, "launched-day")


def _keep(page: Page, name: str) -> None:
    page.screenshot(path=PICTURES / f"{name}.png")


def _environment(home: Path) -> dict[str, str]:
    ours = {"DAGSTER_HOME": str(home), "ML_ASSETS_ROOT": str(home / ".ml_assets"), "PYTHONPATH": str(PROJECT)}
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
