"""The page of the service in a real browser: what somebody who watches it sees. Screenshots are left in `.artifacts/screenshots`."""

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from ml_assets.serving.keys import create_key

PICTURES = Path(__file__).parents[2] / ".artifacts" / "screenshots"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
HOSTILE = "<img src=x onerror=hacked=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if chromium is None:
        pytest.fail("no browser: install the package 'chromium', or set CHROMIUM to the command of one")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as started:
        expect.set_options(timeout=15_000)
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    yield opened
    opened.close()


def test_it_shows_what_is_scored_and_why(world: Any, serving: Callable[..., Any], page: Page) -> None:
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    rows = world.rows()
    with serving() as service:
        page.goto(service.url)
        expect(page.get_by_role("heading", level=1)).to_have_text(world.case.title)
        expect(page.get_by_text("Nothing has been scored yet.")).to_be_visible()

        answer = requests.post(f"{service.case_url}/score?reasons=always", json=rows[0], timeout=10).json()
        first = page.get_by_role("listitem").filter(has_text=answer["event_id"])
        expect(first).to_contain_text(f"{answer['score']:.4f}")
        expect(first).to_contain_text(answer["reasons"][0]["feature"])
        expect(first).to_contain_text("alert" if answer["alert"] else "quiet")
        expect(page.locator("#threshold")).to_have_text(f"{answer['threshold']:.4f}")
        expect(page.locator("#model")).to_have_text(answer["model_version"])
        expect(page.locator("#state")).to_have_text("live")

        requests.post(f"{service.case_url}/score", json={**rows[1], "transaction_id": HOSTILE, "customer_id": "new"}, timeout=10)
        strange = page.get_by_role("listitem").filter(has_text=HOSTILE)
        expect(strange).to_contain_text("first time: customer_id")
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("#feed img").count() == 0
    assert asked == {service.url.removeprefix("http://")}


def test_traffic_at_a_desk_and_on_a_phone(world: Any, serving: Callable[..., Any], browser: Browser) -> None:
    with serving() as service:
        ends = threading.Event()

        def traffic() -> None:
            for number, row in enumerate(world.rows() * 5):
                if ends.is_set():
                    return
                body = {**row, "transaction_id": f"{row['transaction_id']}-{number}"}
                body |= {"amount": "412.50"} if number % 11 == 0 else {}
                requests.post(f"{service.case_url}/score", json=body, timeout=10)
                time.sleep(0.01)

        client = threading.Thread(target=traffic)
        client.start()
        try:
            for name, width, height in (("scorer", 1280, 900), ("scorer-phone", 390, 844), ("scorer-narrow", 375, 667)):
                page = browser.new_page(viewport={"width": width, "height": height})
                page.goto(service.url)
                expect(page.locator("#rate")).to_have_text("–")
                expect(page.locator("#line polyline")).to_have_attribute("points", re.compile(r"(\S+ ){4}"))
                expect(page.locator("#rate")).to_have_text(re.compile(r"^\d\d"))
                expect(page.locator("#feed li.alert").first).to_be_visible()
                page.screenshot(path=PICTURES / f"{name}.png")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.close()
        finally:
            ends.set()
            client.join()


def test_with_keys_it_asks_for_one(serving: Callable[..., Any], page: Page) -> None:
    with serving() as service:
        file = service.root / "serving" / "keys.json"
        score, admin = (create_key(file, name=scope, scopes=[scope]) for scope in ("score", "admin"))
        time.sleep(1.2)
        page.goto(service.url)
        field, button = page.get_by_label("API key with the scope admin"), page.get_by_role("button", name="Use it")
        expect(page.get_by_role("alert")).to_contain_text("An API key is needed")
        for key, said in (("mla_wrong", "is not known"), (score, "does not have the scope admin")):
            field.fill(key)
            button.click()
            expect(page.get_by_role("alert")).to_contain_text(said)
        field.fill(admin)
        button.click()
        expect(page.locator("#state")).to_have_text("live")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_a_service_that_is_down_is_said_to_be_until_it_is_back(serving: Callable[..., Any], page: Page) -> None:
    with serving() as service:
        page.goto(service.url)
        expect(page.locator("#state")).to_have_text("live")
        service.kill()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
        service.start()
        expect(page.locator("#state")).to_have_text("live")
        expect(page.get_by_role("alert")).to_be_hidden()
