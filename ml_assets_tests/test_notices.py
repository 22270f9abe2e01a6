"""Messages on their way: to a real HTTP server and a real mail server, and settings that are wrong."""

import logging
import socket
import ssl
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from ml_assets import notices
from ml_assets.notices import EMAIL, UI_URL, WEBHOOK, Notice, NotSentError, Severity, run_link, ways
from ml_assets_tests.receivers import PASSWORD, PATH, USER, certified, running_mail, running_webhook

NOTICE = Notice(
    case="card_fraud",
    severity=Severity.ERROR,
    title="card_fraud: not published: 2018-04-03",
    lines=["not published: transactions 2018-04-03: every_row_is_accounted_for: 9 rows “lost”"],
    run_id="0123-abcd",
    partitions=["2018-04-03"],
    about={"why": "a test"},
)
FROM_TO = "from=alerts@a.org&to=c+d@b.org,e@b.org"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(notices, "_WAIT_SECONDS", 2.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certified(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def trusted(certificate: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    return certificate[0]


def webhook(url: str) -> notices.Way:
    (way,) = ways({WEBHOOK: url})
    return way


def email(port: int, *, scheme: str = "smtp", user: str = "", query: str = FROM_TO) -> notices.Way:
    (way,) = ways({EMAIL: f"{scheme}://{user}127.0.0.1:{port}/?{query}"})
    return way


LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"


def test_a_webhook_gets_text_to_read_and_fields_to_sort_by() -> None:
    with running_webhook() as posts:
        webhook(posts.url).send(NOTICE)
    (got,) = posts.got
    assert got == {
        "text": "card_fraud: not published: 2018-04-03\n" + NOTICE.lines[0],
        "title": "card_fraud: not published: 2018-04-03",
        "case": "card_fraud",
        "severity": "error",
        "run_id": "0123-abcd",
        "partitions": ["2018-04-03"],
        "why": "a test",
    }


def test_a_busy_webhook_is_asked_again_and_gets_the_message_once() -> None:
    with running_webhook() as posts:
        posts.answers = [503, 429]
        webhook(posts.url).send(NOTICE)
    assert (posts.asked, len(posts.got)) == (3, 1)


def test_a_webhook_that_stays_busy_is_given_up_after_three_tries() -> None:
    with running_webhook() as posts:
        posts.answers = [503] * 9
        with pytest.raises(NotSentError, match=rf"webhook at 127\.0\.0\.1 \({WEBHOOK}\) answers 503"):
            webhook(posts.url).send(NOTICE)
    assert (posts.asked, posts.got) == (3, [])


@pytest.mark.parametrize("status", [302, 404, 410])
def test_a_webhook_that_says_no_is_asked_once(status: int) -> None:
    with running_webhook() as posts:
        posts.answers = [status]
        with pytest.raises(NotSentError, match=f"answers {status}"):
            webhook(posts.url).send(NOTICE)
    assert posts.asked == 1


def test_the_address_of_a_webhook_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running_webhook() as posts:
        way = webhook(posts.url)
        way.send(NOTICE)
    with pytest.raises(NotSentError, match="does not answer") as failed:  # it is down now
        way.send(NOTICE)
    said = caplog.text + str(failed.value) + repr(way)
    assert PATH not in said
    assert "very-secret" not in said


def test_a_mail_without_encryption_or_password() -> None:
    with running_mail() as mails:
        email(mails.port).send(NOTICE)
    (mail,) = mails.got
    assert mails.envelopes == [("alerts@a.org", ["c+d@b.org", "e@b.org"])]
    assert mail["Subject"] == "[error] card_fraud: not published: 2018-04-03"
    assert (mail["From"], mail["To"]) == ("alerts@a.org", "c+d@b.org, e@b.org")
    assert mail.get_content().strip().splitlines() == NOTICE.text.splitlines()
    assert mail["Message-ID"] == "<0123-abcd@ml-assets>"
    assert mail["Date"]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_mail_with_a_password_is_encrypted(scheme: str, trusted: ssl.SSLContext) -> None:
    with running_mail(**{"starttls" if scheme == "smtp" else "tls": trusted}) as mails:
        email(mails.port, scheme=scheme, user=LOGIN).send(NOTICE)
    assert mails.users == [USER]
    assert mails.encrypted == [True]
    assert len(mails.got) == 1


def test_a_password_is_not_sent_in_the_open() -> None:
    with running_mail() as mails, pytest.raises(NotSentError, match=r"offers no encryption.*smtps://") as failed:
        email(mails.port, user=LOGIN).send(NOTICE)
    assert (mails.users, mails.got) == ([], [])
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_that_nobody_vouches_for_gets_nothing(scheme: str, certificate: tuple[ssl.SSLContext, Path]) -> None:
    server = running_mail(**{"starttls" if scheme == "smtp" else "tls": certificate[0]})
    with server as mails, pytest.raises(NotSentError, match="CERTIFICATE_VERIFY_FAILED"):
        email(mails.port, scheme=scheme, user=LOGIN).send(NOTICE)
    assert (mails.users, mails.got) == ([], [])


def test_a_wrong_password_is_said_and_not_told(trusted: ssl.SSLContext) -> None:
    with running_mail(starttls=trusted) as mails, pytest.raises(NotSentError, match="does not take user and password") as failed:
        email(mails.port, user=f"{USER}:nonsense@").send(NOTICE)
    assert f"127.0.0.1:{mails.port} ({EMAIL})" in str(failed.value)
    assert "nonsense" not in str(failed.value)
    assert mails.got == []


def test_recipients_that_a_server_refuses_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with running_mail() as mails:
        mails.refuses = {"e@b.org"}
        email(mails.port).send(NOTICE)
        assert "refuses e@b.org" in caplog.text
        mails.refuses |= {"c+d@b.org"}
        with pytest.raises(NotSentError, match=r"refuses c\+d@b\.org, e@b\.org"):
            email(mails.port).send(NOTICE)
    assert mails.envelopes == [("alerts@a.org", ["c+d@b.org"])]


def test_a_mail_server_that_is_down_is_named() -> None:
    with running_mail() as mails:
        way = email(mails.port)
    with pytest.raises(NotSentError, match=rf"mail server 127\.0\.0\.1:{mails.port}.*ConnectionRefused"):
        way.send(NOTICE)


def test_a_mail_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_WAIT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        with pytest.raises(NotSentError, match="timed out"):
            email(mute.getsockname()[1]).send(NOTICE)
    assert time.monotonic() - began < 2


def test_a_title_of_several_lines_makes_no_header() -> None:
    with running_mail() as mails:
        email(mails.port).send(replace(NOTICE, title="one\r\nBcc: x@y.org"))
    (mail,) = mails.got
    assert mail["Bcc"] is None
    assert mails.envelopes[0][1] == ["c+d@b.org", "e@b.org"]


def test_a_long_message_is_cut_and_says_so() -> None:
    long = replace(NOTICE, lines=["x" * 5000, *(f"line {number}" for number in range(2, 101))])
    lines = long.text.splitlines()
    assert len(lines) == 1 + notices.MOST_LINES + 1
    assert lines[-1] == f"… and {100 - notices.MOST_LINES} more lines"
    assert len(lines[1]) == notices._MOST_CHARACTERS


def test_credentials_in_an_address_that_an_error_quotes_are_left_out() -> None:
    quoted = replace(NOTICE, lines=["no connection to postgresql+psycopg://reader:p@ss:word@db/bank", "mail a@b.org: none"])
    assert quoted.text.splitlines()[1:] == ["no connection to postgresql+psycopg://…@db/bank", "mail a@b.org: none"]


def test_without_settings_there_is_no_way() -> None:
    assert ways({}) == ways({WEBHOOK: "", EMAIL: " "}) == ()
    assert run_link({}, "1") is None


def test_ports_are_those_of_the_scheme() -> None:
    ports = [ways({EMAIL: f"{scheme}://mail.b.org/?{FROM_TO}"})[0].port for scheme in ("smtp", "smtps")]  # type: ignore[attr-defined]
    assert ports == [587, 465]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("mailto:c@d.org", "no smtp:// or smtps:// address of a host"),
        (f"http://u:hunter2@host/?{FROM_TO}", "no smtp:// or smtps://"),
        (f"smtp:///?{FROM_TO}", "of a host"),
        ("smtp://u:hunter2@host:587/?to=c@d.org", "0 senders, wanted one"),
        ("smtp://u:hunter2@host:587/?from=a@b.org,b@b.org&to=c@d.org", "2 senders, wanted one"),
        ("smtp://u:hunter2@host:587/?from=a@b.org", "nobody to send to"),
        ("smtp://u:hunter2@host:587/?from=a@b.org&to=c", "'c' is no mail address"),
        ("smtp://u:hunter2@host:587/?from=a@b.org&to=c@d.org&starttls=no", "more than from="),
        (f"smtp://u:hunter2/x@host:587/?{FROM_TO}", "not an address.*percent-encoded"),
        (f"smtp://u:12?hunter2@host:587/?{FROM_TO}", "percent-encoded"),
        (f"smtp://u:12#hunter2@host:587/?{FROM_TO}", "percent-encoded"),
        (f"smtp://u@host/?{FROM_TO}", "user and password belong together"),
    ],
)
def test_a_wrong_mail_setting_is_named_without_its_password(address: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{EMAIL}: .*{says}") as failed:
        ways({EMAIL: address})
    assert "hunter2" not in str(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize(
    "address", ["hooks.slack.com/services/T0/very-secret", "ftp://x/very-secret", "https://", "http://[very-secret"]
)
def test_a_wrong_webhook_is_named_without_its_secret(address: str) -> None:
    with pytest.raises(ValueError, match=f"^{WEBHOOK}: expected an address such as") as failed:
        ways({WEBHOOK: address})
    assert "very-secret" not in str(failed.value)


def test_a_run_has_its_page_where_the_setting_says() -> None:
    assert run_link({UI_URL: "https://dagster.b.org/ui/"}, "0123") == "https://dagster.b.org/ui/runs/0123"
    with pytest.raises(ValueError, match=f"^{UI_URL}: expected"):
        run_link({UI_URL: "dagster.b.org"}, "0123")
