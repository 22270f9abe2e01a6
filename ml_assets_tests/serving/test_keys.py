"""Who is let in: keys are made, used, limited and revoked, through the commands and against the running service."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner, Result

from ml_assets.serving import keys as keys_module
from ml_assets.serving.commands import app
from ml_assets.serving.keys import KeyRing, UnknownKeyError, create_key, list_keys, revoke_key

Headers = dict[str, str]


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As an operator types it."""
    return subprocess.run(
        [sys.executable, "-m", "ml_assets", *arguments],
        env={**os.environ, "ML_ASSETS_ROOT": str(root), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def typed(root: Path, *arguments: str) -> Result:
    """The same in this process: another takes more than a second to start."""
    return CliRunner().invoke(app, arguments, env={"ML_ASSETS_ROOT": str(root), "COLUMNS": "200", "NO_COLOR": "1"})


def made(root: Path, name: str, *scopes: str) -> str:
    options = [part for scope in scopes for part in ("--scope", scope)]
    ran = typed(root, "keys", "create", name, *options)
    assert ran.exit_code == 0, ran.stderr
    return ran.stdout.strip()


def bearer(key: str) -> Headers:
    return {"authorization": f"Bearer {key}"}


def code(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json().get("error", {}).get("code", "")


# The file ---------------------------------------------------------------------------------------------------------------------


def test_only_hashes_are_kept_where_only_the_owner_can_read_them(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        key = create_key(tmp_path / "serving" / "keys.json", name="gateway", scopes=["score"])
    finally:
        os.umask(old)
    file = tmp_path / "serving" / "keys.json"
    _, id, secret = key.split("_", 2)
    assert secret not in file.read_text()
    assert id in file.read_text()
    assert [path.name for path in file.parent.iterdir() if path.name not in ("keys.json", "keys.lock")] == []
    assert [stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()] == [0o600, 0o600]


def test_it_is_never_readable_by_others_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what stands beside it until it is whole."""
    modes = []
    dump = json.dump

    def watched(content: Any, file: Any, **options: Any) -> None:
        modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        dump(content, file, **options)

    monkeypatch.setattr(keys_module.json, "dump", watched)
    create_key(tmp_path / "keys.json", name="gateway", scopes=["score"])
    assert modes == [0o600]


def test_a_key_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not exist takes the same way as one that is wrong."""
    compared = []
    compare = keys_module.hmac.compare_digest

    def watched(given: str, expected: str) -> bool:
        compared.append((len(given), len(expected)))
        return compare(given, expected)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", watched)
    file = tmp_path / "keys.json"
    key = create_key(file, name="gateway", scopes=["score"])
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    unknown = key.replace(key[4:12], "00000000")
    ring = KeyRing(file=file)
    assert ring.admit([(b"x-api-key", key.encode())], "score") == "gateway"
    for given in (wrong, unknown, "", "nonsense", "ÿ"):
        with pytest.raises(UnknownKeyError):
            ring.admit([(b"x-api-key", given.encode("latin-1"))], "score")
    assert compared == [(64, 64)] * 6


@pytest.mark.parametrize(
    ("name", "scopes", "message"),
    [
        ("gateway", ["score"], "there is a key 'gateway' already"),
        ("other", [], "scopes are score, feedback, admin; got none"),
        ("other", ["root"], "scopes are score, feedback, admin; got root"),
        (" ", ["score"], "a name that can be read in a list"),
        ("a\nb", ["score"], "a name that can be read in a list"),
    ],
)
def test_a_key_that_cannot_be_made_leaves_the_others(tmp_path: Path, name: str, scopes: list[str], message: str) -> None:
    file = tmp_path / "keys.json"
    create_key(file, name="gateway", scopes=["score"])
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        create_key(file, name=name, scopes=scopes)
    assert file.read_bytes() == before


def test_the_last_key_stays(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    create_key(file, name="gateway", scopes=["score", "score"])
    with pytest.raises(KeyError, match="without any, everyone would be let in"):
        revoke_key(file, "gateway")
    with pytest.raises(KeyError, match="no key 'nobody'; there are gateway"):
        revoke_key(file, "nobody")
    [kept] = list_keys(file)
    assert (kept["name"], kept["scopes"], set(kept)) == ("gateway", ["score"], {"name", "scopes", "created"})


@pytest.mark.parametrize("content", [None, "{}", "", "not json", "[]", '{"0a1b2c3d": {"name": "x"}}', '{"0a1b2c3d": 5}'])
def test_a_file_that_is_lost_or_damaged_lets_nobody_in(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_LOOK_SECONDS", -1.0)
    file = tmp_path / "keys.json"
    key = create_key(file, name="gateway", scopes=["score"]).encode()
    ring = KeyRing(file=file)
    ring.admit([(b"x-api-key", key)], "score")
    whole = file.read_bytes()
    file.unlink() if content is None else file.write_text(content)
    for headers in ([], [(b"x-api-key", key)]):
        for _ in range(2):
            with pytest.raises(UnknownKeyError):
                ring.admit(headers, "score")
    file.write_bytes(whole)
    assert ring.admit([(b"x-api-key", key)], "score") == "gateway"


@pytest.mark.parametrize("content", ["", "not json", "[]"])
def test_nor_does_one_that_was_damaged_from_the_start(tmp_path: Path, content: str) -> None:
    """Neither the first request nor the second, for which the file is not looked at again."""
    (tmp_path / "keys.json").write_text(content)
    ring = KeyRing(file=tmp_path / "keys.json")
    for _ in range(2):
        with pytest.raises(UnknownKeyError):
            ring.admit([], "score")


@pytest.mark.parametrize("value", ["Basic {}", "{}", "Bearer{}", "Foobar {}", "Bearer  {} x"])
def test_a_key_under_another_scheme_is_none(tmp_path: Path, value: str) -> None:
    key = create_key(tmp_path / "keys.json", name="gateway", scopes=["score"])
    ring = KeyRing(file=tmp_path / "keys.json")
    assert ring.admit([(b"authorization", f"bearer {key}".encode())], "score") == "gateway"
    with pytest.raises(UnknownKeyError):
        ring.admit([(b"authorization", value.format(key).encode())], "score")


# The commands -----------------------------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked_by_commands(tmp_path: Path) -> None:
    assert "no keys" in typed(tmp_path, "keys", "list").stdout
    key = made(tmp_path, "gateway", "score", "feedback")
    made(tmp_path, "[bold]odd[/]", "admin")
    listed = typed(tmp_path, "keys", "list").stdout
    assert "gateway" in listed
    assert "score, feedback" in listed
    assert "[bold]odd[/]" in listed
    assert key not in listed
    assert key.split("_", 2)[2] not in listed
    assert typed(tmp_path, "keys", "revoke", "gateway").exit_code == 0
    assert "gateway" not in typed(tmp_path, "keys", "list").stdout
    again = typed(tmp_path, "keys", "revoke", "gateway")
    assert (again.exit_code, "no key 'gateway'" in again.stderr, again.stdout) == (1, True, "")


def test_a_wrong_command_says_what_is_wrong(tmp_path: Path) -> None:
    ran = command(tmp_path, "keys", "create", "gateway", "--scope", "root")
    assert (ran.returncode, "scopes are score, feedback, admin; got root" in ran.stderr) == (1, True)
    assert not (tmp_path / "serving" / "keys.json").exists()


# The service ------------------------------------------------------------------------------------------------------------------


def given(service: Any, name: str, *scopes: str) -> str:
    """A key that is made while the service runs."""
    return create_key(service.root / "serving" / "keys.json", name=name, scopes=list(scopes))


def test_each_scope_opens_its_doors_and_no_other(world: Any, serving: Callable[..., Any]) -> None:
    first, second = world.rows()[:2]
    label = world.rows(table="chargebacks")[0]
    with serving() as service:
        keys = {scope: given(service, scope, scope) for scope in ("score", "feedback", "admin")}
        asked = {
            "score": [("POST", "score", first), ("POST", "score:batch", [first]), ("GET", "model", None)],
            "feedback": [("POST", "events", second), ("POST", "labels", label)],
            "admin": [("GET", "feed", None), ("GET", "../../metrics", None)],
        }
        closed_within(service, 2.0)
        for needed, requests_of in asked.items():
            for method, path, body in requests_of:
                url = f"{service.url}/metrics" if "metrics" in path else f"{service.case_url}/{path}"
                for scope, key in keys.items():
                    for headers in (bearer(key), {"x-api-key": key}):
                        answer = requests.request(method, url, json=body, headers=headers, timeout=10)
                        let_in = scope in (needed, "admin")
                        assert answer.status_code == (200 if let_in else 403), (scope, path, answer.text)
                for headers in ({}, bearer(keys["score"][:-1]), bearer("mla_00000000_" + "a" * 43), {"x-api-key": "\xff"}):
                    answer = requests.request(method, url, json=body, headers=headers, timeout=10)
                    assert code(answer) == (401, "unknown_key")
                    assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert requests.get(f"{service.url}{path}", timeout=10).status_code == 200, path


def closed_within(service: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while requests.get(f"{service.case_url}/model", timeout=10).status_code != 401:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_nothing_of_a_request_that_is_not_let_in_is_kept(world: Any, serving: Callable[..., Any]) -> None:
    rows = world.rows()
    first, second = [row for row in rows if row["customer_id"] == rows[0]["customer_id"]][:2]
    with serving() as service:
        feedback, score = given(service, "feedback", "feedback"), given(service, "score", "score")
        closed_within(service, 2.0)
        refused = [
            requests.post(f"{service.case_url}/score", json=first, headers=bearer(feedback), timeout=10),
            requests.post(f"{service.case_url}/events", json=first, headers=bearer(score), timeout=10),
            requests.post(f"{service.case_url}/events", json=first, timeout=10),
        ]
        assert [each.status_code for each in refused] == [403, 403, 401]
        answer = requests.post(f"{service.case_url}/score?features=true", json=second, headers=bearer(score), timeout=10).json()
        expected = world.features.set_index("event_id").loc[answer["event_id"]]
        name = "payment_count_30d_by_customer_id"
        assert answer["features"][name] == expected[name] - 1, "the first of the two payments was never let in"


def test_a_revoked_key_is_refused_within_a_second_by_every_process(world: Any, serving: Callable[..., Any]) -> None:
    with serving("--workers", "2") as service:
        keys = [given(service, name, "score") for name in ("one", "two")]
        closed_within(service, 2.0)
        sessions = [requests.Session() for _ in range(8)]  # their connections are of both processes
        for session in sessions:
            assert session.get(f"{service.case_url}/model", headers=bearer(keys[0]), timeout=10).status_code == 200
        assert command(service.root, "keys", "revoke", "one").returncode == 0
        time.sleep(1.05)
        for session in sessions:
            assert code(session.get(f"{service.case_url}/model", headers=bearer(keys[0]), timeout=10)) == (401, "unknown_key")
            assert session.get(f"{service.case_url}/model", headers=bearer(keys[1]), timeout=10).status_code == 200
            session.close()


def test_who_sends_too_much_is_told_when_to_come_back(world: Any, serving: Callable[..., Any]) -> None:
    with serving("--requests-a-second", "2") as service:
        busy, calm = given(service, "busy", "score"), given(service, "calm", "score")
        closed_within(service, 2.0)
        with requests.Session() as session:
            answers = [session.get(f"{service.case_url}/model", headers=bearer(busy), timeout=10) for _ in range(16)]
            statuses = [each.status_code for each in answers]
            assert 10 <= statuses.count(200) < 16, "five seconds' worth at once, and what came in meanwhile"
            assert set(statuses) == {200, 429}
            refused = next(each for each in answers if each.status_code == 429)
            assert code(refused) == (429, "too_many_requests")
            assert session.get(f"{service.case_url}/model", headers=bearer(calm), timeout=10).status_code == 200
            time.sleep(int(refused.headers["retry-after"]))
            assert session.get(f"{service.case_url}/model", headers=bearer(busy), timeout=10).status_code == 200


def test_retry_after_is_never_too_soon(tmp_path: Path) -> None:
    """Rounded up: at 0.4 requests a second it takes 2.5 seconds."""
    from ml_assets.serving.app import _as_http
    from ml_assets.serving.keys import TooManyRequestsError

    ring = KeyRing(file=tmp_path / "none.json", requests_a_second=0.4)
    ring.admit([], "score")
    ring.admit([], "score")
    with pytest.raises(TooManyRequestsError) as refused:
        ring.admit([], "score")
    assert 2.4 < refused.value.after <= 2.5
    assert dict(_as_http(refused.value, "", "").headers)[b"retry-after"] == b"3"


def test_it_does_not_open_itself_to_other_machines_without_keys(world: Any, tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        ran = command(tmp_path, "serve", "card_fraud", "--host", host, "--port", "18999")
        assert ran.returncode == 1
        assert f"--host {host} can be reached from other machines, and there is no API key" in ran.stderr
        assert "ml-assets keys create" in ran.stderr
    assert not list(tmp_path.rglob("*.db"))


def test_with_a_key_it_does(world: Any, serving: Callable[..., Any], tmp_path: Path) -> None:
    """And asks for it from the first request on."""
    (tmp_path / "root").mkdir()
    key = create_key(tmp_path / "root" / "serving" / "keys.json", name="gateway", scopes=["score"])
    for name in ("models", "deployments"):
        subprocess.run(["cp", "-r", str(world.root / name), str(tmp_path / "root" / name)], check=True)
    with serving("--host", "0.0.0.0") as service:
        assert code(requests.post(f"{service.case_url}/score", json=world.rows()[0], timeout=10)) == (401, "unknown_key")
        answer = requests.post(f"{service.case_url}/score", json=world.rows()[0], headers=bearer(key), timeout=10)
        assert answer.status_code == 200
