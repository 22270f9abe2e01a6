"""Pages and events of a real HTTP server: all rows once, patience with a busy one, and no secret in what is told."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_assets.folders import LocalFolder
from ml_assets.sources import http
from ml_assets.sources.delivered import Delivered
from ml_assets.sources.http import Pages, Stream, bare, with_parameters, without_parameters
from ml_assets.sources.landing import Feed, FeedError, LandedRows, Landing
from ml_assets_tests.feeds import Api, running_api

DELIVERED = Delivered(columns={"at": "when", "fare": "fare"}, day_column="at", timezone="UTC")
DAYS = ["2018-04-01", "2018-04-02", "2018-04-03"]
AUTHORIZED = {"Authorization": "Bearer right"}
WAYS: dict[str, dict[str, Any]] = {
    "linked": {},
    "cursors": {"items": "data.items", "paging": "cursor", "cursor": "next", "parameter": "cursor"},
    "numbered": {"paging": "page", "parameter": "page", "page_size": 100},
}


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api(Api(rows=rows(250))) as running:
        yield running


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"when": f"{DAYS[number % 3]}T12:00:00Z", "fare": number} for number in range(start, start + count)]


def pages(api: Api, way: str = "linked", *, query: str = "", **changes: Any) -> Pages:
    declared = {"headers": AUTHORIZED, "requests_a_second": 1e6, **WAYS[way], **changes}
    return Pages(url=f"{api.url}/{way}{query}", **declared)


def landed(path: Path, feed: Feed) -> LandedRows:
    return LandedRows(landing=Landing(root=LocalFolder(path), name="landing", feed=feed, delivered=DELIVERED), delivered=DELIVERED)


def fares(source: LandedRows) -> list[int]:
    batch = source.read(DAYS)
    assert not batch.problems
    return sorted(map(int, batch.rows["fare"]))


@pytest.mark.parametrize("way", WAYS)
def test_all_pages_are_read_and_those_that_come_later(api: Api, tmp_path: Path, way: str) -> None:
    source = landed(tmp_path, pages(api, way))
    assert fares(source) == list(range(250))
    api.rows += rows(120, 250)
    asked = len(api.asked)
    assert source.landing.catch_up().messages == 120
    assert len(api.asked) - asked == 2, "it begins where it was"
    assert fares(source) == list(range(370))
    numbers = source.read(DAYS).rows["source_row"]
    assert sorted(numbers) == list(range(1, 371))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [0, 100, 200])
def test_full_last_pages_and_none(api: Api, tmp_path: Path, way: str, count: int) -> None:
    api.rows = rows(count)
    source = landed(tmp_path, pages(api, way))
    assert source.landing.catch_up().messages == count
    api.rows += rows(1, count)
    assert source.landing.catch_up().messages == 1


def test_a_value_is_landed_as_it_was_written(api: Api, tmp_path: Path) -> None:
    api.rows = ['{"when": "2018-04-01T12:00:00Z", "fare": 12.50, "name": "\\u00e9"}']
    source = landed(tmp_path, pages(api))
    assert list(source.read(DAYS[:1]).rows["fare"]) == ["12.50"]


def test_a_busy_server_is_asked_again_when_it_says(api: Api, tmp_path: Path) -> None:
    api.busy = [(429, {"Retry-After": "1"}), (503, {}), (500, {})]
    begin = time.monotonic()
    assert landed(tmp_path, pages(api)).landing.catch_up().messages == 250
    assert time.monotonic() - begin > 1


def test_a_server_that_stays_busy_is_given_up_and_what_landed_stays(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_ATTEMPTS", 1)
    monkeypatch.setattr(http, "AT_ONCE", 100)
    source = landed(tmp_path, pages(api))
    original = Landing._commit

    def then_busy(self: Landing, *parts: Any) -> None:
        api.busy = [(503, {})] * 5
        original(self, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(Landing, "_commit", then_busy)
        with pytest.raises(FeedError, match="/linked answers 503 Service Unavailable: try again later"):
            source.landing.catch_up()
    assert sum(source.landing.counts().values()) == 100
    api.busy = []
    assert fares(source) == list(range(250))


def test_a_slow_server_is_waited_for_and_no_more_is_asked_than_it_allows(api: Api, tmp_path: Path) -> None:
    api.delay = 0.3
    begin = time.monotonic()
    assert landed(tmp_path, pages(api, requests_a_second=2.0)).landing.catch_up().messages == 250
    assert time.monotonic() - begin > 1.4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"headers": {"Authorization": "Bearer hush"}}, "/linked answers 401 Unauthorized: check the credentials"),
        ({"items": "data"}, "/linked: expected JSON with a list at data, got '[{"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(api: Api, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    feed = pages(api, query="?key=hush", **changes)
    source = landed(tmp_path, feed)
    problem = source.read(DAYS).problems[DAYS[0]]
    assert told in problem
    assert "hush" not in f"{problem} {feed.name}"


def test_an_answer_that_is_no_json_is_an_error(api: Api, tmp_path: Path) -> None:
    problem = landed(tmp_path, Pages(url=f"{api.url}/broken", headers=AUTHORIZED)).read(DAYS).problems[DAYS[0]]
    assert "expected JSON with a list, got '<html>down for maintenance" in problem


def test_a_server_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_ATTEMPTS", 1)
    first = Api(rows=rows(150))
    with running_api(first):
        source = landed(tmp_path, pages(first))
        assert source.landing.catch_up().messages == 150
    assert "/linked does not answer (ConnectionError)" in source.read(DAYS).problems[DAYS[0]]
    with running_api(Api(rows=rows(160)), port=int(first.url.rpartition(":")[2])):
        assert fares(source) == list(range(160))


def test_a_key_in_the_address_is_sent_and_never_kept(api: Api, tmp_path: Path) -> None:
    source = landed(tmp_path, pages(api, query="?key=hush"))
    source.landing.catch_up()
    assert "key=hush" in api.asked[0]
    kept = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert "hush" not in kept + json.dumps(source.landing.position())
    api.rows += rows(1, 250)
    assert source.landing.catch_up().messages == 1
    assert "key=hush" in api.asked[-1]


def test_parameters_of_an_address() -> None:
    assert bare("https://me:hush@host:1/a?b=c") == "https://host:1/a"
    kept = without_parameters("https://host/a?key=hush&page=2", "https://me:pw@host/a?key=hush")
    assert kept == "https://host/a?page=2"
    assert with_parameters(kept, "https://me:pw@host/a?key=hush&page=1") == "https://me:pw@host/a?key=hush&page=2"
    assert with_parameters("https://other/a", "https://me:pw@host/a?key=hush") == "https://other/a"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"paging": "page", "page_size": 1}, "needs the parameter that carries it"),
        ({"paging": "cursor", "parameter": "c"}, "needs where in an answer the cursor is"),
        ({"paging": "page", "parameter": "p"}, "needs the page_size"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Pages(url="http://host", **changes)


# Events --------------------------------------------------------------------------------------------------------------------------


def followed(source: LandedRows, count: int) -> None:
    """Lands until so many messages landed."""
    until = time.monotonic() + 30
    for _ in source.landing.follow():
        if sum(source.landing.counts().values()) >= count:
            return
        assert time.monotonic() < until, source.landing.counts()


@pytest.mark.parametrize("forgets", [False, True], ids=["resumes", "begins anew"])
def test_events_land_once_although_the_connection_breaks(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    monkeypatch.setattr(http, "_GATHER_SECONDS", 0.1)
    monkeypatch.setattr(http, "_BACKOFF_SECONDS", 0.01)
    api.breaks_after, api.forgets = (230 if forgets else 70), forgets
    source = landed(tmp_path, Stream(url=f"{api.url}/events", headers=AUTHORIZED))
    followed(source, 230)
    api.breaks_after = 0
    followed(source, 250)
    assert fares(source) == list(range(250))
    assert source.landing.position() == {"id": "250", "rows": source.landing.position()["rows"]}  # type: ignore[index]


def test_an_event_lands_although_none_follows(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_GATHER_SECONDS", 0.1)
    source = landed(tmp_path, Stream(url=f"{api.url}/events", headers=AUTHORIZED))
    followed(source, 250)
    api.rows += rows(1, 250)
    begin = time.monotonic()
    followed(source, 251)
    assert time.monotonic() - begin < 5


def test_events_are_there_only_while_one_listens(api: Api, tmp_path: Path) -> None:
    source = landed(tmp_path, Stream(url=f"{api.url}/events", headers=AUTHORIZED))
    assert source.landing.catch_up().messages == 0
    assert "not delivered yet" in source.read(DAYS).problems[DAYS[0]]
    assert api.asked == []


@pytest.mark.parametrize(("token", "path", "told"), [("wrong", "events", "answers 401"), ("right", "linked", "sends no events")])
def test_a_stream_that_cannot_be_read_is_an_error(api: Api, tmp_path: Path, token: str, path: str, told: str) -> None:
    source = landed(tmp_path, Stream(url=f"{api.url}/{path}", headers={"Authorization": f"Bearer {token}"}))
    with pytest.raises(FeedError, match=told):
        next(source.landing.follow())
