"""Data that are markup, code and queries go through everything, come out as what they are, and become nothing else.

A real browser opens the pages: no script runs, and nobody else is asked for anything.
"""

import http.server
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import lightgbm as lgb
import pandas as pd
import pytest
import uvicorn
from markdown_it import MarkdownIt
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ml_assets import console
from ml_assets.escape import visible
from ml_assets.orchestration import provenance
from ml_assets.orchestration.rounds import RunResult
from ml_assets.serving.app import App
from ml_assets.serving.keys import KeyRing
from ml_assets.serving.live import InForce
from ml_assets.serving.scorer import Scorer
from ml_assets.stages import online_state
from ml_assets.storage.online import open_store
from ml_assets.storage.predictions import LogWriter
from ml_assets_tests.end_to_end.conftest import World, open_world
from ml_assets_tests.end_to_end.hostile_case import (
    CASE,
    CUSTOMER,
    DAYS,
    FILE,
    GO_LIVE,
    HEADERS,
    HOSTILE,
    KIND,
    LOWER,
    NEGATIVE,
    PIPES,
    PLACE,
    POSITIVE,
    UPPER,
    Seen,
    write_deliveries,
)
from ml_assets_tests.serving.conftest import free_port

COMMONMARK = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OF_MARKDOWN = {"p", "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "img"}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
LAST = DAYS[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, list[RunResult]]]:
    """Everything, from the files to the pages."""
    place = tmp_path_factory.mktemp("hostile")
    write_deliveries(place / "delivery")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTILE_FILES", str(place / "delivery"))
        world = open_world(place, folder=place / "delivery", case=CASE)
        with world.instance:
            yield world, world.bring_up_to_date().results


@pytest.fixture(scope="module")
def world(built: tuple[World, list[RunResult]]) -> World:
    return built[0]


@pytest.fixture(scope="module")
def pages(world: World) -> dict[Path, Seen]:
    return {file: Seen(file.read_text(encoding="utf-8")) for file in sorted(world.root.rglob("*.html"))}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        pytest.fail("no browser: install the package 'chromium', or set CHROMIUM to the command of one")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as started:
        expect.set_options(timeout=15_000)
        yield started


# Tables -----------------------------------------------------------------------------------------------------------------------


def test_every_value_is_in_the_tables_as_it_was_delivered(world: World) -> None:
    delivered = pd.read_csv(world.folder / FILE.format(day=LAST), dtype="str", keep_default_na=False, na_values=[""])
    raw, clean = (world.tables.read(name, [LAST]) for name in ("raw_events", "events"))
    for name, header in HEADERS.items():
        assert raw[name].tolist() == pytest.approx(delivered[header].tolist(), nan_ok=True), name
    kept = delivered.drop(index=[3, 4])
    for name in (CUSTOMER, KIND, PLACE):
        assert clean[name].tolist() == pytest.approx(kept[HEADERS[name]].tolist(), nan_ok=True), name
    assert clean[PIPES].tolist() == kept[HEADERS[PIPES]].astype(float).tolist()
    assert clean[UPPER].tolist() == kept["AMOUNT"].astype(int).tolist()
    assert clean[LOWER].tolist() == pytest.approx(kept["amount"].astype(float).tolist(), nan_ok=True)
    assert clean["label"].tolist() == (kept["label"] == POSITIVE).astype(int).tolist()
    assert set(raw["source_file"]) == {FILE.format(day=LAST)}


def test_quarantined_rows_say_what_they_were(world: World) -> None:
    rows = world.tables.read("rejected_events", [LAST])
    bad_number, bad_label = rows["reason"]
    assert bad_number == f"{PIPES}: {HOSTILE[(len(DAYS) - 1) % 2]!r} is not a number"
    assert bad_label == f"truth: {HOSTILE[2 + (len(DAYS) - 1) % 2]!r} is not one of {POSITIVE}, {NEGATIVE}"
    assert json.loads(rows["content"].iloc[0])[PIPES] == HOSTILE[(len(DAYS) - 1) % 2]


def test_a_model_learns_from_features_of_any_name(world: World) -> None:
    models = world.store.models
    assert GO_LIVE in models.deployments(CASE.name)
    files, manifest = models.load(CASE.name, models.deployments(CASE.name)[GO_LIVE])
    assert [feature["name"] for feature in manifest["features"]] == CASE.features.names
    text = next(content for name, content in files.items() if b"feature_names=" in content and "candidate" in name).decode()
    assert lgb.Booster(model_str=text[text.index("tree\n") :] if not text.startswith("tree") else text).num_feature() == len(
        CASE.features.names
    )
    scores = world.tables.read("scores")
    assert scores["score"].nunique() > 100


# Pages ------------------------------------------------------------------------------------------------------------------------


def test_nothing_of_the_data_is_markup_on_a_page(pages: Mapping[Path, Seen]) -> None:
    assert {file.name for file in pages} >= {"report.html", "overview.html", "backtest.html"}
    for file, page in pages.items():
        assert page.strange == [], file
        assert page.tags & {"b", "i"} == set(), file


def test_all_of_the_data_is_read_on_the_pages(pages: Mapping[Path, Seen]) -> None:
    text = "".join(page.text for page in pages.values())
    for value in (*HOSTILE, KIND, PIPES, CUSTOMER, UPPER, LOWER):
        assert visible(value) in text, value


def test_a_browser_runs_nothing_of_it_and_asks_nobody(world: World, pages: Mapping[Path, Seen], browser: Browser) -> None:
    handler = partial(Quiet, directory=str(world.root / "reports"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            here = f"http://127.0.0.1:{server.server_port}/"
            page = browser.new_page()
            asked, dialogs = watched(page)
            for file in pages:
                page.goto(here + file.relative_to(world.root / "reports").as_posix())
                assert page.evaluate("typeof hacked") == "undefined", file
                assert page.locator("script, a, iframe, b, i").count() == 0, file
            assert {address for address in asked if not address.startswith((here, "data:"))} == set()
            assert dialogs == []
        finally:
            server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def watched(page: Page) -> tuple[set[str], list[str]]:
    """The addresses that are asked, and the dialogs that open."""
    asked, dialogs = set[str](), list[str]()
    page.on("request", lambda request: asked.add(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    return asked, dialogs


# Dagster ----------------------------------------------------------------------------------------------------------------------


def test_dagster_shows_the_data_as_text(built: tuple[World, list[RunResult]]) -> None:
    """Its interface reads Markdown in metadata, in what a check says and in the descriptions of columns."""
    world, results = built
    checks = [check for result in results for check in result.checks]
    texts = [check.description or "" for check in checks]
    texts += [value.value for check in checks for value in check.metadata.values() if isinstance(value, dg.MarkdownMetadataValue)]
    for key in world.instance.get_asset_keys():
        for record in world.instance.fetch_materializations(key, limit=5).records:
            materialization = record.asset_materialization
            assert materialization is not None
            for value in materialization.metadata.values():
                if isinstance(value, dg.MarkdownMetadataValue):
                    texts.append(value.value)
                elif isinstance(value, dg.TableSchemaMetadataValue):
                    texts += [column.description or "" for column in value.value.columns if column.name not in (KIND, "at")]
    shown = ""
    for text in texts:
        seen = Seen(COMMONMARK.render(text))
        assert (seen.strange, seen.tags - OF_MARKDOWN) == ([], set()), text
        assert all(attributes["src"].startswith("data:") for tag, attributes in seen.elements if tag == "img"), text
        shown += seen.text
    for value in (*HOSTILE[:4], KIND, PIPES, CUSTOMER):
        assert visible(value) in shown or visible(repr(value))[1:-1] in shown, value


def test_the_terminal_is_told_text(built: tuple[World, list[RunResult]]) -> None:
    world, _ = built
    event = world.tables.read("scores", [LAST])["event_id"].iloc[0]
    with redirect_stdout(io.StringIO()) as out:
        console.print_provenance(CASE, provenance.explain(CASE, world.store, event))
    raw = world.tables.read("raw_events", [LAST], where=[("id", "=", event)]).iloc[0]
    for name in (KIND, PLACE, PIPES, LOWER):
        assert f"          {name}: {visible(raw[name]) if isinstance(raw[name], str) else 'missing'}\n" in out.getvalue()


# The scorer -------------------------------------------------------------------------------------------------------------------


@contextmanager
def serving(world: World, folder: Path) -> Iterator[str]:
    """The service with all but its last day loaded, in a thread; where it is."""
    address = str(folder / "online")
    with closing(open_store(address, CASE.name, create=True)) as store:
        rows = {"events": world.tables.read("events", DAYS[:-1])}
        online_state.load_days(CASE, store, rows, dict.fromkeys(DAYS[:-1], "loaded"))
    scorer = Scorer(
        case=CASE,
        store=open_store(address, CASE.name),
        in_force=InForce(case=CASE, models=world.store.models),
        writer=LogWriter(log=world.store.predictions(CASE), name="test"),
    )
    scorer.start()

    async def nothing() -> None: ...

    app = App(
        scorers={CASE.name: scorer},
        keys=KeyRing(file=folder / "keys.json", requests_a_second=None),
        started=nothing,
        stopped=nothing,
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", http="ml_assets.serving.http:Connection"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        scorer.stop()


def test_the_scorer_answers_for_any_name_and_its_page_shows_text(world: World, browser: Browser, tmp_path: Path) -> None:
    raw = world.tables.read("raw_events", [LAST])
    wanted = world.tables.read("scores", [LAST]).set_index("event_id")["score"]
    rows = [
        {name: None if pd.isna(row[name]) else row[name] for name in HEADERS}
        for row in raw.sort_values("at").to_dict("records")
        if row["id"] in wanted.index
    ]
    with serving(world, tmp_path) as url, httpx.Client(base_url=f"{url}/v1/{CASE.name}", timeout=30) as client:
        page = browser.new_page()
        asked, dialogs = watched(page)
        page.goto(url)
        answers = [client.post("/score?reasons=always&features=true", json=row).raise_for_status().json() for row in rows]
        assert {answer["event_id"]: answer["score"] for answer in answers} == wanted.to_dict()
        assert answers[0]["features"].keys() == set(CASE.features.names)
        by_features = client.post("/score:features", json={"features": answers[-1]["features"]}).raise_for_status().json()
        assert by_features["score"] == answers[-1]["score"]
        unknown = client.post("/score:features", json={"features": {**answers[-1]["features"], "<b>": 1}})
        assert (unknown.status_code, "<b>" in unknown.text) == (422, True)
        refused = client.post("/score", json={**rows[0], PIPES: HOSTILE[1]}).json()["error"]
        assert [(each["field"], each["value"]) for each in refused["problems"]] == [(PIPES, HOSTILE[1])]

        document = client.get(f"{url}/openapi.json").json()
        assert set(document["components"]["schemas"]) > set()
        for text in descriptions(document):
            if f"{HOSTILE[2]} [" not in text and "<b>it</b>" not in text:  # the case's own words, which are Markdown
                assert Seen(COMMONMARK.render(text)).tags <= {"p", "code"}, text

        last = page.get_by_role("listitem").filter(has_text=answers[-1]["event_id"]).first
        expect(last).to_be_visible()
        expect(last).to_contain_text(answers[-1]["reasons"][0]["feature"])
        expect(page.get_by_role("heading", level=1)).to_have_text(CASE.title)
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("main img, main script, main a, main i:not(.bar i)").count() == 0
        assert {address for address in asked if not address.startswith((url, "data:"))} == set()
        assert dialogs == []


def descriptions(content: Any) -> Iterator[str]:
    """All in a document, at any depth."""
    if isinstance(content, dict):
        if isinstance(text := content.get("description"), str):
            yield text
        for each in content.values():
            yield from descriptions(each)
    elif isinstance(content, list):
        for each in content:
            yield from descriptions(each)
