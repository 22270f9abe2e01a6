"""What callers are told: scores with reasons and features, problems by field, known events, unknown entities."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from ml_assets.stages.online_state import ANSWERS_FROM, SEEN_UNTIL, SINCE_EVER, refuse_old
from ml_assets.storage.online import open_store

COUNT = "payment_count_30d_by_customer_id"


@pytest.fixture(scope="module")
def rows(world: Any) -> list[dict[str, Any]]:
    return list(world.rows())


@pytest.fixture(scope="module")
def offline(world: Any) -> pd.DataFrame:
    return world.features.set_index("event_id")


@pytest.fixture
def service(serving: Callable[..., Any]) -> Iterator[Any]:
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def shared(serving_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service for tests that look at nothing which another of them changes: it takes three seconds to start."""
    with serving_in(tmp_path_factory.mktemp("shared")) as started:
        yield started


def post(service: Any, path: str, body: Any) -> requests.Response:
    return requests.post(f"{service.case_url}/{path}", json=body, timeout=30)


def problems(response: requests.Response) -> list[tuple[str, Any, str]]:
    """Of a 422, which has one form."""
    assert response.status_code == 422, response.text
    [(name, error)] = response.json().items()
    assert (name, error["code"], set(error)) == ("error", "invalid", {"code", "message", "problems"})
    assert all(set(each) == {"field", "value", "rule"} for each in error["problems"])
    return [(each["field"], each["value"], each["rule"]) for each in error["problems"]]


def together(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first payments of one customer."""
    found = [row for row in rows if row["customer_id"] == rows[0]["customer_id"]][:count]
    assert len(found) == count
    return found


# Scores -------------------------------------------------------------------------------------------------------------------------


def test_an_answer_has_what_the_document_says_and_nothing_else(shared: Any, rows: list[dict[str, Any]]) -> None:
    schemas = requests.get(f"{shared.url}/openapi.json", timeout=10).json()["components"]["schemas"]
    answer = post(shared, "score?features=true&reasons=always", rows[0]).json()
    assert set(answer) == set(schemas["Score"]["properties"])
    assert set(answer["reasons"][0]) == set(schemas["Score"]["properties"]["reasons"]["items"]["properties"])
    features = schemas["card_fraud.given_features"]["properties"]["features"]["properties"]
    given = {name: answer["features"][name] for name in features}
    bare = post(shared, "score:features", {"features": given}).json()
    assert set(bare) == set(schemas["BareScore"]["properties"])
    assert {name: answer[name] for name in bare} == bare, "the features that it told give the score that it gave"
    model = requests.get(f"{shared.case_url}/model", timeout=10).json()
    assert set(model) == set(schemas["Model"]["properties"])
    assert {each["name"] for each in model["features"]} == set(features)
    ready = requests.get(f"{shared.url}/readyz", timeout=10).json()
    assert set(ready["use_cases"]["card_fraud"]) == set(
        schemas["Readiness"]["properties"]["use_cases"]["additionalProperties"]["properties"]
    )


def test_features_are_told_where_they_are_asked_for(service: Any, rows: list[dict[str, Any]], offline: pd.DataFrame) -> None:
    for row, query in zip(rows, ("", "?features=false", "?features=true"), strict=False):
        answer = post(service, f"score{query}", row).json()
        assert ("features" in answer) == (query == "?features=true")
    expected = offline.loc[answer["event_id"]]
    assert {name: answer["features"][name] for name in ("amount", COUNT)} == {name: expected[name] for name in ("amount", COUNT)}
    batch = post(service, "score:batch?features=true", rows[3:6]).json()["scores"]
    assert [each["features"][COUNT] for each in batch] == offline.loc[[each["event_id"] for each in batch]][COUNT].tolist()
    assert all("features" not in each for each in post(service, "score:batch", rows[3:6]).json()["scores"])


def test_reasons_are_the_contributions_that_move_a_score_most(world: Any, shared: Any, rows: list[dict[str, Any]]) -> None:
    answer = post(shared, "score?reasons=always&features=true", rows[1]).json()
    model = world.model(answer["model_version"])
    features = pd.DataFrame([answer["features"]]).astype("float64")
    parts = model.contributions(features)[0, :-1]
    largest = np.argsort(-np.abs(parts), kind="stable")[:5]
    assert [each["feature"] for each in answer["reasons"]] == [model.inputs[place] for place in largest]
    assert [each["contribution"] for each in answer["reasons"]] == parts[largest].tolist()
    assert [each["value"] for each in answer["reasons"]] == [answer["features"][each["feature"]] for each in answer["reasons"]]


def test_only_alerts_have_reasons_unless_all_or_none_are_asked_for(shared: Any, rows: list[dict[str, Any]]) -> None:
    answers = {
        query: [
            each
            for start in (0, 400)
            for each in post(shared, f"score:batch{query}", renamed(rows, f"{query}.")[start : start + 400]).json()["scores"]
        ]
        for query in ("", "?reasons=always", "?reasons=never")
    }
    assert {each["alert"] for each in answers[""]} == {True, False}
    assert all((each["reasons"] is not None) == each["alert"] for each in answers[""])
    assert all(len(each["reasons"]) == 5 for each in answers["?reasons=always"])
    assert all(each["reasons"] is None for each in answers["?reasons=never"])


def renamed(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The same payments as others."""
    return [{**row, "transaction_id": f"{row['transaction_id']}{name}"} for row in rows]


# Known events -------------------------------------------------------------------------------------------------------------------


def test_a_known_event_gets_its_answer_and_counts_once(service: Any, rows: list[dict[str, Any]], offline: pd.DataFrame) -> None:
    """However it is sent again: alone, in a batch, several times in one, as one that is only observed, with other content."""
    first, second, third = together(rows, 3)
    answer = post(service, "score?features=true&reasons=never", first).json()
    other = {**first, "amount": "99999", "terminal_id": "elsewhere"}
    assert post(service, "score?features=true&reasons=always", first).json() == answer, "also its reasons are those that it got"
    assert post(service, "score?features=true", other).json() == answer
    assert post(service, "score:batch?features=true", [first, other, first]).json()["scores"] == [answer] * 3
    assert post(service, "events", [first, first]).json() == {"observed": 2}
    [again, new] = post(service, "score:batch?features=true", [first, second]).json()["scores"]
    assert again == answer
    assert new["features"][COUNT] == offline.loc[new["event_id"]][COUNT]
    assert post(service, "score:batch?features=true", [second, second]).json()["scores"] == [new, new]
    last = post(service, "score?features=true", third).json()
    for name in (COUNT, "payment_mean_30d_by_customer_id", "payment_count_24h_by_customer_id"):
        assert last["features"][name] == offline.loc[last["event_id"]][name], name
    elsewhere = {**third, "transaction_id": "elsewhere", "customer_id": "nobody", "terminal_id": "elsewhere"}
    assert sorted(post(service, "score", elsewhere).json()["unknown_entities"]) == ["customer_id", "terminal_id"], (
        "nothing was kept"
    )


def test_an_event_that_was_observed_counts_once_when_it_is_scored(
    service: Any, rows: list[dict[str, Any]], offline: pd.DataFrame
) -> None:
    first, second = together(rows, 2)
    assert post(service, "events", first).json() == {"observed": 1}
    for row in (first, second):
        answer = post(service, "score?features=true", row).json()
        assert answer["features"][COUNT] == offline.loc[answer["event_id"]][COUNT]


def test_the_same_event_in_many_requests_at_once_is_one(
    world: Any, serving: Callable[..., Any], rows: list[dict[str, Any]]
) -> None:
    """In two processes, which settle it in the store."""
    from concurrent.futures import ThreadPoolExecutor

    first, second = together(rows, 2)
    with serving("--workers", "2") as service, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(service, "score?features=true", first).content, range(64)))
        assert len(set(answers)) == 1
        after = post(service, "score?features=true", second).json()
        expected = world.features.set_index("event_id").loc[after["event_id"]]
        assert after["features"][COUNT] == expected[COUNT]


# Entities -----------------------------------------------------------------------------------------------------------------------


def test_of_whom_nothing_is_known_is_said(service: Any, rows: list[dict[str, Any]]) -> None:
    known = rows[0]
    new_customer = {**known, "transaction_id": "new-1", "customer_id": "nobody"}
    assert post(service, "score", known).json()["unknown_entities"] == []
    assert post(service, "score", new_customer).json()["unknown_entities"] == ["customer_id"]
    both = {**known, "transaction_id": "new-2", "customer_id": "nobody else", "terminal_id": "nowhere"}
    answer = post(service, "score?features=true", both).json()
    assert sorted(answer["unknown_entities"]) == ["customer_id", "terminal_id"]
    assert answer["features"][COUNT] == 1, "of the event itself"
    assert not answer["degraded"]
    assert post(service, "score", both).json()["unknown_entities"] == answer["unknown_entities"], "the answer that it got"
    later = {**both, "transaction_id": "new-3"}
    assert post(service, "score", later).json()["unknown_entities"] == []


def test_one_that_was_observed_is_known(service: Any, rows: list[dict[str, Any]]) -> None:
    first = {**rows[0], "transaction_id": "seen-1", "customer_id": "somebody"}
    post(service, "events", first)
    assert post(service, "score", {**first, "transaction_id": "seen-2"}).json()["unknown_entities"] == []
    stranger = {**first, "transaction_id": "seen-3", "customer_id": "somebod"}
    assert post(service, "score", stranger).json()["unknown_entities"] == ["customer_id"], "a name that begins alike is another"


# What is wrong ------------------------------------------------------------------------------------------------------------------


def test_all_that_is_wrong_with_a_row_is_told_at_once(shared: Any, rows: list[dict[str, Any]]) -> None:
    bad = {"transaction_id": " ", "paid_at": "noon", "amount": -1, "terminal_id": ["T1"], "terminal_x": {"x": 1}, "colour": "red"}
    expected = [
        (
            "colour",
            "red",
            "is not a field; there are transaction_id, paid_at, customer_id, terminal_id, amount, terminal_x, terminal_y",
        ),
        ("transaction_id", " ", "is missing"),
        ("paid_at", "noon", "is not a time with its offset from UTC (ISO 8601, such as 2013-07-04T09:30:00Z)"),
        ("customer_id", None, "is missing"),
        ("terminal_id", "(a list)", "is not a text"),
        ("amount", -1, "is below 0"),
        ("terminal_x", "(an object)", "is not a number"),
    ]
    assert problems(post(shared, "score", bad)) == expected
    assert problems(post(shared, "events", bad)) == expected
    numbered = [(f"1.{field}", value, rule) for field, value, rule in expected]
    for path in ("score:batch", "events"):
        assert problems(post(shared, path, [rows[0], bad, rows[1]])) == numbered


@pytest.mark.parametrize("path", ["score:batch", "events", "labels"])
def test_problems_of_many_rows_have_their_numbers_whatever_is_wrong(world: Any, shared: Any, path: str) -> None:
    """A field, the row as a whole, its id, its time: in the order of the rows."""
    sound = world.rows(table="chargebacks")[0] if path == "labels" else world.rows()[0]
    own_time = "reported_at" if path == "labels" else "paid_at"
    long = "x" * 41
    assert [field for field, _, _ in problems(post(shared, path, [{**sound, "transaction_id": long}]))] == ["0.event_id"]
    assert problems(post(shared, path, [{**sound, "amount": None}, sound, {**sound, own_time: "noon"}])) == [
        ("0.amount", None, "is missing"),
        ("2." + own_time, "noon", "is not a time with its offset from UTC (ISO 8601, such as 2013-07-04T09:30:00Z)"),
    ]
    many = [sound, {**sound, "transaction_id": long}, sound, {**sound, "transaction_id": "é" * 21}]
    assert problems(post(shared, path, many)) == [
        ("1.event_id", long, "event_id has 41 bytes: from 1 to 40, none of them 0"),
        ("3.event_id", "é" * 21, "event_id has 42 bytes: from 1 to 40, none of them 0"),
    ]


def test_a_row_that_is_wrong_as_a_whole(world: Any, shared: Any) -> None:
    early = {**world.rows(table="chargebacks")[0], "reported_at": "2018-04-01T00:00:00Z"}
    assert problems(post(shared, "labels", early)) == [("row", None, "reported_at is before paid_at")]
    assert problems(post(shared, "labels", [early, early]))[1] == ("1.row", None, "reported_at is before paid_at")


def test_what_is_no_row_at_all(shared: Any, rows: list[dict[str, Any]]) -> None:
    no_object, no_list = "is not an object with the fields of one row", "is not a list of rows"
    assert problems(post(shared, "score", [rows[0]])) == [("body", "(a list)", no_object)]
    assert problems(post(shared, "score", "x" * 500)) == [("body", "x" * 199 + "…", no_object)]
    assert problems(post(shared, "score:batch", rows[0])) == [("body", "(an object)", no_list)]
    assert problems(post(shared, "score:batch", [rows[0], 7, None])) == [("1", 7, no_object), ("2", None, no_object)]
    assert problems(post(shared, "events", 7)) == [("body", 7, no_object)]
    for count in (0, 1001):
        for path in ("score:batch", "events", "labels"):
            assert problems(post(shared, path, [rows[0]] * count)) == [("body", "(a list)", f"has {count:,} rows: from 1 to 1,000")]


def test_a_thousand_rows_are_scored(shared: Any, rows: list[dict[str, Any]]) -> None:
    many = [row for number in range(3) for row in renamed(rows, f".{number}")][:1000]
    random.Random(3).shuffle(many)
    scores = post(shared, "score:batch", many).json()["scores"]
    assert [each["event_id"] for each in scores] == [row["transaction_id"] for row in many]


def test_a_long_list_of_problems_is_cut(shared: Any, rows: list[dict[str, Any]]) -> None:
    """Else a body could make an answer a hundred times its size."""
    response = post(shared, "score", {f"f{number}": number for number in range(60_000)})
    assert len(problems(response)) == 1000
    assert response.json()["error"]["message"].startswith("the request breaks 60,005 rules, of which these are the first 1,000")
    assert len(response.content) < 300_000


def test_parameters_that_are_wrong(shared: Any, rows: list[dict[str, Any]]) -> None:
    query = f"score?reasons=some&features=true&features=false&colour=red&{'x' * 1000}="
    assert problems(post(shared, query, rows[0])) == [
        ("reasons", "some", "is not one of alerts, always, never"),
        ("features", "false", "is given twice"),
        ("colour", "red", "is no parameter; there are reasons, features"),
        ("x" * 199 + "…", "", "is no parameter; there are reasons, features"),
    ]
    for path in ("events", "labels", "score:features"):
        assert problems(post(shared, f"{path}?a=1", {})) == [("a", "1", "is no parameter; there are none")]
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/card_fraud/model", "/v1/card_fraud/feed"):
        assert problems(requests.get(f"{shared.url}{path}?a=1", timeout=10)) == [("a", "1", "is no parameter; there are none")]


def test_features_that_are_wrong(shared: Any) -> None:
    names = [each["name"] for each in requests.get(f"{shared.case_url}/model", timeout=10).json()["features"]]
    given: dict[str, Any] = dict.fromkeys(names, 1.0)
    assert post(shared, "score:features", {"features": given}).status_code == 200
    assert post(shared, "score:features", {"features": dict.fromkeys(names)}).status_code == 200
    bad = {**given, names[0]: "1", names[1]: True, names[2]: [1], "colour": 1}
    del bad[names[3]]
    assert sorted(problems(post(shared, "score:features", {"features": bad}))) == sorted(
        [
            (names[0], "1", "is neither a number nor null"),
            (names[1], True, "is neither a number nor null"),
            (names[2], "(a list)", "is neither a number nor null"),
            (names[3], None, "is missing: null says that it is not known"),
            ("colour", 1, "is no feature of the model"),
        ]
    )
    whole = "is an object with the features by name, and all there is"
    assert problems(post(shared, "score:features", {})) == [("features", None, whole)]
    assert problems(post(shared, "score:features", {"features": given, "more": 1})) == [("features", "(an object)", whole)]
    assert problems(post(shared, "score:features", {"features": [1]})) == [("features", "(a list)", whole)]
    assert problems(post(shared, "score:features", [given])) == [
        ("body", "(a list)", "is not an object with the fields of one row")
    ]


# Times --------------------------------------------------------------------------------------------------------------------------


def test_an_event_that_cannot_have_happened_yet_or_here(service: Any, rows: list[dict[str, Any]], offline: pd.DataFrame) -> None:
    """Whether it is scored or observed: one of the far future would make the store forget everything."""
    tomorrow = pd.Timestamp.now("UTC") + pd.Timedelta(hours=25)
    gap = "is more than a day after 2018-05-20T00:00:00+00:00, the latest that the online store has seen: load the days in between"
    for path, number in (("score", ""), ("score:batch", "1."), ("events", ""), ("events", "1.")):
        for moment, rule in (
            ("9999-12-31T23:59:59+00:00", "is after tomorrow"),
            (tomorrow.isoformat(), "is after tomorrow"),
            ("2018-06-20T00:00:00+00:00", gap),
        ):
            bad = {**rows[0], "transaction_id": "early", "paid_at": moment}
            [(field, value, told)] = problems(post(service, path, [rows[0], bad] if number else bad))
            assert field == f"{number}paid_at", path
            assert pd.Timestamp(value).floor("s") == pd.Timestamp(moment).floor("s")
            assert told.replace("T00:06:43", "T00:00:00") == rule  # of a list, its first row counts as seen
    time.sleep(2.5)  # longer than it takes until the store is told what was seen
    answer = post(service, "score?features=true", rows[0]).json()
    assert answer["features"][COUNT] == offline.loc[answer["event_id"]][COUNT]


def test_an_event_of_now_waits_for_a_store_that_is_late(shared: Any, rows: list[dict[str, Any]]) -> None:
    """It is valid, and nobody but the operator can help."""
    now = {**rows[0], "transaction_id": "now", "paid_at": pd.Timestamp.now("UTC").isoformat()}
    for path, body in (("score", now), ("score:batch", [now]), ("events", now)):
        response = post(shared, path, body)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready"), path
        assert "load the days" in response.json()["error"]["message"]
        assert response.headers["retry-after"] == "1"


def test_days_may_be_observed_in_one_list_if_none_is_left_out(service: Any, rows: list[dict[str, Any]]) -> None:
    def at(hours: int) -> dict[str, Any]:
        moment = pd.Timestamp("2018-05-20T00:00:00Z") + pd.Timedelta(hours=hours)
        return {**rows[0], "transaction_id": f"at {hours}", "paid_at": moment.isoformat()}

    assert [field for field, _, _ in problems(post(service, "events", [at(70), at(20), at(40)]))] == ["0.paid_at"]
    assert post(service, "events", [at(60), at(20), at(40)]).json() == {"observed": 3}
    assert post(service, "score", at(80)).status_code == 200


def test_an_event_older_than_what_was_dropped_is_refused(service: Any, rows: list[dict[str, Any]]) -> None:
    """Its windows are not whole any more: the score would be wrong, and look right. The service notices by itself."""
    with closing(open_store(service.store, "card_fraud")) as store:
        assert int(store.notes(ANSWERS_FROM)[ANSWERS_FROM]) == SINCE_EVER
        refuse_old(service.world.case, store, int(store.notes(SEEN_UNTIL)[SEEN_UNTIL]))
    time.sleep(1.5)
    old = {**rows[0], "transaction_id": "old", "paid_at": "2018-05-10T12:00:00+00:00"}
    rule = "is before 2018-05-19T00:00:00+00:00: the online store knows enough only of events from then on"
    assert problems(post(service, "score", old)) == [("paid_at", "2018-05-10T12:00:00+00:00", rule)]
    assert problems(post(service, "score:batch", [rows[0], old])) == [("1.paid_at", "2018-05-10T12:00:00+00:00", rule)]
    assert post(service, "score", rows[0]).status_code == 200
