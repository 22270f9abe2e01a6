"""What clients do wrong, by accident or not: each is answered, nothing of it is kept, and the others go on being served."""

import http.client
import json
import resource
import shutil
import socket
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import requests

from ml_assets.serving.http import MOST_BYTES, MOST_BYTES_OF_HEAD, MOST_SECONDS
from ml_assets.stages.online_state import SEEN_UNTIL, refuse_old
from ml_assets.storage.online import open_store
from ml_assets_tests.serving.conftest import Service, World, free_port

SCORE = b"POST /v1/card_fraud/score HTTP/1.1\r\nHost: x\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Answer(NamedTuple):
    """What came back on a socket."""

    status: int
    code: str
    headers: dict[str, str]
    body: bytes
    closed: bool
    """Whether the service then closed the connection."""
    seconds: float


@contextmanager
def running(world: World, loaded: Path, folder: Path) -> Iterator[Service]:
    """A service that refuses what is older than its last day, and whose log is looked at when it has ended."""
    root = folder / "root"
    for name in ("models", "deployments"):
        shutil.copytree(world.root / name, root / name)
    shutil.copytree(loaded, folder / "online")
    with closing(open_store(str(folder / "online"), world.case.name)) as store:
        refuse_old(world.case, store, int(store.notes(SEEN_UNTIL)[SEEN_UNTIL]))
    service = Service(world=world, store=str(folder / "online"), port=free_port(), log=folder / "service.log", root=root)
    try:
        service.start()
        yield service
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()
    finally:
        service.stop()


@pytest.fixture(scope="module")
def plain(world: World, loaded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(world, loaded, tmp_path_factory.mktemp("plain")) as service:
        yield service


@pytest.fixture(scope="module")
def payments(world: World) -> Iterator[dict[str, Any]]:
    """The first payment of each customer on a day: however many of them are scored, each has the features of a backfill."""
    firsts: dict[str, dict[str, Any]] = {}
    for row in world.rows():
        firsts.setdefault(row["customer_id"], row)
    return iter(firsts.values())


@pytest.fixture
def service(plain: Service, payments: Iterator[dict[str, Any]]) -> Iterator[Service]:
    """Scores rightly when a test is over, and keeps only what it scored."""
    with unharmed(plain, payments):
        yield plain


@contextmanager
def unharmed(service: Service, payments: Iterator[dict[str, Any]]) -> Iterator[None]:
    process, before = service.process.pid, kept(service)
    yield
    assert kept(service) == before, "something of a refused request was kept"
    assert service.process.poll() is None
    assert service.process.pid == process
    score_rightly(service, next(payments))


def score_rightly(service: Service, row: dict[str, Any]) -> float:
    begin = time.monotonic()
    response = requests.post(f"{service.case_url}/score?features=true", json=row, timeout=10)
    took = time.monotonic() - begin
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = service.world.features.set_index("event_id").loc[answer["event_id"]]
    for name in ("amount", "payment_count_30d_by_customer_id", "payment_mean_30d_by_customer_id"):
        assert answer["features"][name] == expected[name], name
    model = service.world.model(answer["model_version"])
    assert answer["score"] == model.predict(pd.DataFrame([answer["features"]]).astype("float64"))[0]
    return took


def kept(service: Service) -> tuple[int, int, int]:
    """How many facts and answers are in the store, and what is logged."""
    with closing(sqlite3.connect(f"file:{service.store}/card_fraud.db?mode=ro", uri=True)) as store:
        [filed], [waiting, _], [_, answers] = (
            store.execute(statement).fetchone()
            for statement in (
                "SELECT count(*) FROM facts",
                "SELECT coalesce(sum(facts), 0), 0 FROM journal WHERE sequence > (SELECT until FROM folded)",
                "SELECT 0, coalesce(sum(answers), 0) FROM journal",
            )
        )
    time.sleep(0.05)
    return filed + waiting, answers, sum(file.stat().st_size for file in (service.root / "predictions").rglob("*.jsonl"))


def exchange(service: Service, *parts: bytes, seconds: float = 20, pause: float = 0.0) -> list[Answer]:
    """Sends bytes as they are; everything that came back until nothing more did for a moment, or the connection was closed."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as client:
        came, closed = b"", False
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
            while not closed:
                chunk = client.recv(1 << 16)
                came, closed = came + chunk, not chunk
                client.settimeout(0.3)
        except TimeoutError:
            pass
        except ConnectionError:
            closed = True
    return list(answers_in(came, closed, time.monotonic() - begin))


def answers_in(came: bytes, closed: bool, seconds: float) -> Iterator[Answer]:
    while came:
        head, _, came = came.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        if status == 100:
            continue
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        body, came = came[:length], came[length:]
        is_error = status >= 400 and headers["content-type"] == "application/json" and body
        code = json.loads(body)["error"]["code"] if is_error else ""
        yield Answer(status, code, headers, body, closed and not came, seconds)


def posted(body: bytes, *, length: int | str | None = None) -> bytes:
    return SCORE + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def post(service: Service, body: bytes | Iterator[bytes], path: str = "score") -> requests.Response:
    return requests.post(f"{service.case_url}/{path}", data=body, timeout=60)


def told(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def written(row: dict[str, Any], **changes: str) -> bytes:
    """A row as JSON, some values of which are written as they are."""
    marks = {name: f"<{name}>" for name in changes}
    text = json.dumps({**row, "transaction_id": "abuse", **marks})
    for name, mark in marks.items():
        text = text.replace(json.dumps(mark), changes[name])
    return text.encode("utf-8", "surrogatepass")


# Bodies -------------------------------------------------------------------------------------------------------------------------

NOT_JSON: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "nothing": lambda _: b"",
    "white space": lambda _: b" \n",
    "half of it": lambda row: written(row)[:50],
    "more behind it": lambda row: written(row) + b"{}",
    "invalid UTF-8": lambda row: written(row).replace(b"abuse", b"\xff\xfe"),
    "UTF-16": lambda row: written(row).decode().encode("utf-16"),
    "byte order mark": lambda row: b"\xef\xbb\xbf" + written(row),
    "half a surrogate pair, escaped": lambda row: written(row, customer_id=r'"\ud800"'),
    "the other half": lambda row: written(row, customer_id=r'"\udc00x"'),
    "half a surrogate pair, encoded": lambda row: written(row, customer_id='"\ud800"'),
    "NaN": lambda row: written(row, amount="NaN"),
    "Infinity": lambda row: written(row, amount="Infinity"),
    "-Infinity": lambda row: written(row, terminal_x="-Infinity"),
    "1e999": lambda row: written(row, amount="1e999"),
    "a number of 5,000 digits": lambda row: written(row, amount="1" * 5000),
    "100,000 lists": lambda _: b"[" * 100_000 + b"]" * 100_000,
    "100,000 lists, unclosed": lambda _: b"[" * 100_000,
    "100,000 objects": lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists in a field": lambda row: written(row, customer_id="[" * 50_000 + "]" * 50_000),
    "a control character": lambda row: written(row, customer_id='"a\x01"'),
    "single quotes": lambda row: written(row).replace(b'"', b"'"),
    "a comment": lambda row: written(row) + b"// payment",
    "form data": lambda _: b"transaction_id=1&amount=5",
    "a pickle": lambda _: b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json(service: Service, world: World, name: str) -> None:
    body = NOT_JSON[name](world.rows()[0])
    for path in ("score", "score:batch", "score:features", "events", "labels"):
        assert told(post(service, body, path)) == (400, "not_json"), path


INVALID: dict[str, dict[str, str]] = {
    "a number of 400 digits": {"amount": "1" * 400},
    "an infinite place": {"terminal_x": "1e308"},
    "a text of infinity": {"amount": '"1e999"'},
    "2 ** 64": {"amount": str(2**64)},
    "year 10000": {"paid_at": '"10000-01-01T00:00:00Z"'},
    "the last moment": {"paid_at": '"9999-12-31T23:59:59.999999Z"'},
    "after the last moment": {"paid_at": '"9999-12-31T23:59:59-14:00"'},
    "year 0": {"paid_at": '"0000-01-01T00:00:00Z"'},
    "year 1": {"paid_at": '"0001-01-01T00:00:00Z"'},
    "the day after tomorrow": {"paid_at": json.dumps((pd.Timestamp.now("UTC") + pd.Timedelta(days=2)).isoformat())},
    "older than the state": {"paid_at": '"2018-05-10T00:00:00Z"'},
    "a time as a number": {"paid_at": "1526774803"},
    "an id of 41 bytes": {"transaction_id": json.dumps("x" * 41)},
    "an id of 21 letters": {"transaction_id": json.dumps("é" * 21)},
    "an id with a zero byte": {"transaction_id": json.dumps("a\0b")},
    "a blank id": {"transaction_id": json.dumps("\u2003")},
    "an id of 1,001 letters": {"customer_id": json.dumps("x" * 1001)},
    "an id that is a fraction": {"customer_id": "1.5"},
    "an id that is a list": {"customer_id": '["C1"]'},
    "the same field twice, the last of them wrong": {"terminal_y": '1, "amount": -1'},
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_payment(service: Service, world: World, name: str) -> None:
    body = written(world.rows()[0], **INVALID[name])
    assert told(post(service, body)) == (422, "invalid")
    assert told(post(service, b"[" + written(world.rows()[1]) + b"," + body + b"]", "score:batch")) == (422, "invalid")
    if name not in ("year 1", "older than the state"):  # what comes late may be filed
        assert told(post(service, body, "events")) == (422, "invalid")
        assert told(post(service, b"[" + written(world.rows()[1]) + b"," + body + b"]", "events")) == (422, "invalid")


@pytest.mark.parametrize(
    "id", ["x" * 40, "é" * 20, "😀" * 10, "a\x01b", "\u202e", "a\tb", "\ud800\udc00", "\\", '"', "'; DROP TABLE facts; --", "%00"]
)
def test_ids_that_look_odd_and_are_none_the_worse(plain: Service, world: World, id: str) -> None:
    row = {**world.rows()[0], "transaction_id": id, "customer_id": f"customer {id}"}
    first, again = (requests.post(f"{plain.case_url}/score?features=true", json=row, timeout=10).json() for _ in range(2))
    assert first["event_id"] == id.encode("utf-16", "surrogatepass").decode("utf-16")
    assert first == again
    later = {**row, "transaction_id": f"{id[:4]}+", "paid_at": "2018-05-20T00:06:44Z"}
    answer = requests.post(f"{plain.case_url}/score?features=true", json=later, timeout=10).json()
    assert answer["features"]["payment_count_30d_by_customer_id"] == 2
    assert answer["unknown_entities"] == []


def test_of_a_field_that_comes_twice_the_last_counts(plain: Service, world: World) -> None:
    body = written({**world.rows()[0], "customer_id": "twice"}, terminal_y='1, "amount": 12.34, "transaction_id": "twice"')
    answer = post(plain, body, "score?features=true").json()
    assert (answer["event_id"], answer["features"]["amount"]) == ("twice", 1234)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["score", "score:features", "events", "labels"])
def test_a_body_of_50_megabytes(service: Service, path: str, chunked: bool) -> None:
    """Also a client that reads nothing until it has sent everything sees the answer."""
    body = b" " * 50_000_000
    parts = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as client:
        client.request("POST", f"/v1/card_fraud/{path}", body=parts if chunked else body, encode_chunked=chunked)
        response = client.getresponse()
        assert (response.status, json.load(response)["error"]["code"]) == (413, "too_large")


def test_one_that_never_ends(service: Service) -> None:
    """It is answered when it is too large, not when it is over."""
    chunk = b"%x\r\n" % 300_000 + b" " * 300_000 + b"\r\n"
    [answer] = exchange(service, SCORE + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 4, seconds=5)
    assert (answer.status, answer.code) == (413, "too_large")


def test_one_that_waits_to_be_told_to_go_on(service: Service, world: World) -> None:
    head = SCORE + b"Expect: 100-continue\r\nContent-Length: 50000000\r\n\r\n"
    [answer] = exchange(service, head, b" " * 100_000, pause=0.1, seconds=3)
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_body_of_just_the_limit(plain: Service, world: World) -> None:
    row = written({**world.rows()[0], "customer_id": "large"}, transaction_id='"large"')
    assert told(post(plain, row + b" " * (MOST_BYTES + 1 - len(row)))) == (413, "too_large")
    assert post(plain, row + b" " * (MOST_BYTES - len(row))).status_code == 200


def test_a_length_that_is_not_that_of_the_body(service: Service, world: World) -> None:
    body = written(world.rows()[0])
    for length in (len(body) - 5, -5, "+5", "abc", "5, 6", 10**30):
        answers = exchange(service, posted(body, length=length))  # where it is too short, to what it holds and to the rest
        assert {answer.status for answer in answers} == {400}, length
        assert answers[-1].closed, length
    for head in (
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip",
    ):
        [answer] = exchange(service, SCORE + head + b"\r\n\r\n12345")
        assert (answer.status, answer.closed) == (400, True), head
    [answer] = exchange(service, SCORE + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\nzz\r\n')
    assert (answer.status, answer.closed) == (400, True)
    [answer] = exchange(service, SCORE + b"\r\n")
    assert (answer.status, answer.code, answer.closed) == (400, "not_json", False)


def test_uploads_that_break_off(service: Service, world: World) -> None:
    body = written(world.rows()[0])
    for cut in (0, 1, len(body) // 2, len(body) - 1):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(posted(body[:cut], length=len(body)))
            time.sleep(0.05)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(SCORE + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n")
    time.sleep(0.2)


# Connections --------------------------------------------------------------------------------------------------------------------


def slowly(service: Service, head: bytes, body: bytes) -> Answer:
    """A byte at a time, until there is an answer."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(head)
        client.settimeout(0.2)
        for byte in body * 1000:
            try:
                client.sendall(bytes([byte]))
                came = client.recv(1 << 16)
            except TimeoutError:
                continue
            client.settimeout(5)
            while chunk := client.recv(1 << 16):
                came += chunk
            [answer] = answers_in(came, True, time.monotonic() - begin)
            return answer
    raise AssertionError("no answer")


def require_alive(client: socket.socket) -> None:
    client.sendall(ALIVE)
    came = b""
    while not came.endswith(b'{"status":"alive"}'):
        came += (chunk := client.recv(1 << 16))
        assert chunk, came
    assert came.startswith(b"HTTP/1.1 200 OK")


def scored_meanwhile(service: Service, row: dict[str, Any], until: Callable[[], bool]) -> list[float]:
    """How long each of some known events took."""
    took = [score_rightly(service, row)]
    while not until():
        took.append(score_rightly(service, row))
    return took


def test_slow_bodies_are_given_up_while_others_are_served(plain: Service, payments: Iterator[dict[str, Any]]) -> None:
    length = SCORE + b"Content-Length: 100000\r\n\r\n"
    chunked = SCORE + b"Transfer-Encoding: chunked\r\n\r\n"
    score_rightly(plain, row := next(payments))
    before = kept(plain)
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(slowly, plain, length, b" ") for _ in range(4)]
        slow += [pool.submit(slowly, plain, chunked, b"1\r\n \r\n") for _ in range(2)]
        silent = pool.submit(exchange, plain, length + written(row))
        took = scored_meanwhile(plain, row, lambda: all(each.done() for each in [*slow, silent]))
    for answer in [*(each.result() for each in slow), *silent.result()]:
        assert (answer.status, answer.code, answer.headers["connection"]) == (408, "too_slow", "close")
        assert MOST_SECONDS - 0.5 < answer.seconds < MOST_SECONDS + 3
    assert len(took) > 50
    assert statistics.median(took) < 0.2
    assert kept(plain) == before


def test_heads_that_never_end_are_given_up_and_so_is_the_rest_of_a_refused_body(service: Service) -> None:
    """Slowly sent, sent in part, sent behind an answer; who sends nothing at all is only idle."""
    starts = (b"P", SCORE, SCORE + b"X: ", ALIVE + b"GET /hea", b"\r\n")
    with socket.create_connection(("127.0.0.1", service.port), timeout=MOST_SECONDS + 4) as idle, ThreadPoolExecutor(8) as pool:
        slow = pool.submit(slowly, service, SCORE + b"X: ", b"x")
        rest = pool.submit(rest_of_a_refused_body, service)
        halves = [pool.submit(exchange_whole, service, start) for start in starts]
        late = [slow.result(), *(each.result()[-1] for each in halves[:3])]
        for answer in late:
            assert (answer.status, answer.code) == (408, "too_slow")
            assert MOST_SECONDS - 0.5 < answer.seconds < MOST_SECONDS + 2
        behind, blank = halves[3].result(), halves[4].result()
        assert [answer.status for answer in behind] == [200, 408]
        assert blank == []
        refused, seconds = rest.result()
        assert [answer.status for answer in refused] == [404]
        assert MOST_SECONDS - 0.5 < seconds < MOST_SECONDS + 2
        require_alive(idle)


def exchange_whole(service: Service, start: bytes) -> list[Answer]:
    """Until the service closes the connection."""
    begin, came = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=MOST_SECONDS + 5) as client:
        client.sendall(start)
        while chunk := client.recv(1 << 16):
            came += chunk
    return list(answers_in(came, True, time.monotonic() - begin))


def rest_of_a_refused_body(service: Service) -> tuple[list[Answer], float]:
    """It has its time, too: what was answered, and after how many seconds the connection was closed."""
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=MOST_SECONDS + 5) as client:
        client.sendall(head)
        time.sleep(0.2)
        client.sendall(b" ")
        came = b""
        while chunk := client.recv(1 << 16):
            came += chunk
    return list(answers_in(came, True, 0)), time.monotonic() - begin


def test_a_head_that_is_too_long(service: Service) -> None:
    long = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: "
    [answer] = exchange(service, long, *[b"x" * 10_000] * (MOST_BYTES_OF_HEAD // 10_000 + 2), pause=0.02)
    assert (answer.status, answer.code, answer.closed) == (431, "too_large", True)
    answers = exchange(service, *[long, *[b"x" * 10_000] * 5, b"\r\n\r\n"] * 3, pause=0.02)
    assert [answer.status for answer in answers] == [200] * 3, "each by itself"


def test_what_is_no_http_is_told_in_the_same_form(service: Service) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        posted(b"", length=-1),
    ):
        [answer] = exchange(service, noise)
        assert (answer.status, answer.code, answer.headers["content-type"]) == (400, "not_http", "application/json")
        assert answer.closed


def test_a_whole_request_before_noise_is_answered(plain: Service, payments: Iterator[dict[str, Any]]) -> None:
    """It is scored and counts: its sender must not be told that it was refused."""
    for parts in ([b"noise noise"], [b"noise", b" noise"]):
        row = next(payments)
        [answer] = exchange(plain, posted(json.dumps(row).encode()) + parts[0], *parts[1:])
        assert (answer.status, answer.closed) == (200, True)
        assert json.loads(answer.body)["event_id"] == row["transaction_id"]
    score_rightly(plain, next(payments))


def test_a_thousand_idle_connections(plain: Service, payments: Iterator[dict[str, Any]]) -> None:
    """Half of which have been used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))  # of this process: the service asks for its own
    score_rightly(plain, row := next(payments))
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", plain.port), timeout=5)) for _ in range(1000)]
        for client in idle[:500]:
            require_alive(client)
        begin = time.monotonic()
        took = scored_meanwhile(plain, row, lambda: time.monotonic() > begin + 3)
        for client in idle[::97]:
            require_alive(client)
    assert len(took) > 30
    assert statistics.median(took) < 0.2
    score_rightly(plain, next(payments))


def test_requests_sent_without_waiting_for_answers(plain: Service, payments: Iterator[dict[str, Any]]) -> None:
    """Each gets its own, in order, whatever the others are told."""
    rows = [next(payments) for _ in range(3)]
    first, second, third = (posted(json.dumps(row).encode()) for row in rows)
    nowhere = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    answers = exchange(plain, first + posted(b"[]") + second + nowhere + ALIVE + third + posted(b"{"))
    assert [answer.status for answer in answers] == [200, 422, 200, 404, 200, 200, 400]
    ids = [json.loads(answers[place].body)["event_id"] for place in (0, 2, 5)]
    assert ids == [row["transaction_id"] for row in rows]
    assert [answer.status for answer in exchange(plain, ALIVE * 500)] == [200] * 500


# Paths and methods --------------------------------------------------------------------------------------------------------------


def test_an_unknown_use_case(service: Service, world: World) -> None:
    for name in ("card_frauds", "flight_delays", "%00", "..", "", "%ff", "x" * 5000, "Card_Fraud"):
        for request in (
            b"GET /v1/%s/model HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /v1/%s/score HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        ):
            [answer] = exchange(service, request % name.encode())
            assert (answer.status, answer.code) == (404, "unknown_use_case"), name
            assert json.loads(answer.body)["error"]["message"].endswith("is served here; there are card_fraud")
            assert len(answer.body) < 300


# fmt: off
NOWHERE = [
    "/v1", "/v1/card_fraud", "/v1/card_fraud/", "/v1/card_fraud/score/", "/v1/card_fraud//score", "//healthz", "/./healthz", "/healthz/..",
    "/v1/card_fraud/events/transactions", "/v1/card_fraud/events/../score", "/healthz%00", "/healthz;x=1", "/%2e%2e/etc/passwd", "*",
    "/docs/../../keys.json", "/static/../ml_assets/serving/keys.py", "/HEALTHZ", "/" + "a" * 5000, "/%F0%9F%98%80", "/\\healthz",
]
# fmt: on


@pytest.mark.parametrize("path", NOWHERE)
def test_paths_that_lead_nowhere(service: Service, path: str) -> None:
    [answer] = exchange(service, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.status == 404
    assert len(answer.body) < 1000


def test_other_methods(service: Service, world: World) -> None:
    """Of which the library knows; another word is no HTTP. No body of theirs is looked at."""
    row = written(world.rows()[0])
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"):
        for path in ("score", "score:batch", "score:features", "events", "labels"):
            response = requests.request(method, f"{service.case_url}/{path}", data=row, timeout=10)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")
            assert bool(response.content) == (method != "HEAD")
    for method in ("POST", "PUT", "OPTIONS", "DELETE"):
        for path in (
            "/healthz",
            "/readyz",
            "/metrics",
            "/docs",
            "/",
            "/v1/card_fraud/model",
            "/v1/card_fraud/feed",
            "/openapi.json",
        ):
            response = requests.request(method, f"{service.url}{path}", data=row, timeout=10)
            assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    for noise in (b"SCORE / HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"):
        assert [answer.status for answer in exchange(service, noise)] == [400]


def test_head_is_get_without_the_body(service: Service) -> None:
    for path in ("/healthz", "/docs", "/", "/v1/card_fraud/model", "/docs/swagger-ui.css"):
        head, whole = requests.head(f"{service.url}{path}", timeout=10), requests.get(f"{service.url}{path}", timeout=10)
        assert (head.status_code, head.content, head.headers) == (200, b"", whole.headers)


def test_other_protocols_are_not_spoken(service: Service, world: World) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\n"
    socket_key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    for path in (b"/", b"/v1/card_fraud/score", b"/nowhere"):
        [answer] = exchange(service, b"GET %s HTTP/1.1\r\nHost: x\r\n" % path + upgrade % b"websocket" + socket_key + b"\r\n")
        assert answer.status == 403
    assert [each.status for each in exchange(service, ALIVE[:-2] + upgrade % b"h2c" + b"\r\n")] == [200]
    body = written(world.rows()[0])
    [answer] = exchange(service, SCORE + upgrade % b"h2c" + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (answer.status, answer.code) == (400, "no_upgrade")


def test_older_and_barer_http(service: Service) -> None:
    for request in (b"GET /healthz HTTP/1.0\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        [answer] = exchange(service, request)
        assert (answer.status, answer.closed) == (200, True)
    [answer] = exchange(service, b"GET http://somewhere.example/healthz HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.closed) == (200, False)
