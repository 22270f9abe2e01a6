"""What people are told, and the ways by which it reaches them: a webhook, e-mail.

Belongs here: the form of a message, and how it is sent. Does not: what is worth telling, and what is done when a way is down
(`orchestration.alerts`).
"""

import logging
import re
import smtplib
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import httpx

from ml_assets.escape import chat, visible

WEBHOOK, EMAIL, UI_URL = "ML_ASSETS_ALERT_WEBHOOK", "ML_ASSETS_ALERT_EMAIL", "ML_ASSETS_UI_URL"
MOST_LINES = 30
"""Of a message; what is left is counted. Slack folds a long text, and nobody reads more on a telephone."""
_MOST_CHARACTERS = 600
"""Of one line."""
_WAIT_SECONDS = 5.0
"""For a connection, and for what comes over it: Dagster stops a tick after 60 s, in which it may have to send by every way."""
_ATTEMPTS, _PAUSE_SECONDS = 3, 0.5
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_CREDENTIALS = re.compile(r"(\w://)[^\s/@:]*:\S*@")
_EMAIL_FORM = "expected smtp://user:password@host:587/?from=a@b&to=c@d,e@f, with : / ? # @ and % of a password percent-encoded"


class Severity(StrEnum):
    """How much it matters, by rising rank."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def level(self) -> int:
        """The level of the log."""
        return logging.getLevelNamesMapping()[self.name]


class NotSentError(RuntimeError):
    """A way did not take a message. What it says names the way and why, and no credentials."""


class RefusedError(NotSentError):
    """A way is there, and does not take this message; it may take others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """A message about a run: `title` in one line, `lines` with the rest."""

    case: str
    severity: Severity
    title: str
    lines: Sequence[str]
    run_id: str
    partitions: Sequence[str] = ()
    """That it is about."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the webhook, for machines."""

    @property
    def text(self) -> str:
        """All of it, to read; long ones are cut, and say so."""
        left = len(self.lines) - MOST_LINES
        lines = [self.title, *self.lines[:MOST_LINES], *([f"… and {left} more lines"] if left > 0 else [])]
        return "\n".join(_without_credentials(visible(line, most=_MOST_CHARACTERS)) for line in "\n".join(lines).split("\n"))

    @property
    def subject(self) -> str:
        """The title in one line."""
        return _without_credentials(visible(" ".join(self.title.split()), most=_MOST_CHARACTERS))

    def payload(self) -> dict[str, Any]:
        """As the webhook gets it: `text` is what Slack and its likes show."""
        return {
            "text": chat(self.text),
            "title": self.subject,
            "case": self.case,
            "severity": self.severity.value,
            "run_id": self.run_id,
            "partitions": list(self.partitions),
            **{
                name: "\n".join(map(visible, value.split("\n"))) if isinstance(value, str) else value
                for name, value in self.about.items()
            },
        }


class Way(Protocol):
    """How a message reaches people."""

    @property
    def name(self) -> str:
        """`webhook` or `email`."""

    def send(self, notice: Notice) -> None:
        """Sends it.

        Raises:
            NotSentError: it was not taken, or nobody knows whether it was.
        """


@dataclass(frozen=True, slots=True)
class Webhook:
    """A POST of JSON. Its address is a secret: who knows it can write there."""

    url: str = field(repr=False)
    name: str = "webhook"

    def send(self, notice: Notice) -> None:
        """See `Way`. What is busy or down is asked again, twice."""
        with _unlogged(self.url), httpx.Client(timeout=_WAIT_SECONDS) as client:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    answer = client.post(self.url, json=notice.payload())
                except httpx.HTTPError as error:
                    trouble, again = f"does not answer ({type(error).__name__})", True
                else:
                    if answer.is_success:
                        return
                    trouble, again = f"answers {answer.status_code} {answer.reason_phrase}", answer.status_code in _BUSY
                if not again or attempt == _ATTEMPTS:
                    said = f"the webhook at {_host(self.url)} ({WEBHOOK}) {trouble}: look whether it is up and still valid"
                    raise NotSentError(said) if again else RefusedError(said)
                time.sleep(_PAUSE_SECONDS * attempt)


@dataclass(frozen=True, kw_only=True, slots=True)
class Email:
    """A mail by SMTP. A password is sent over TLS only."""

    host: str
    port: int
    sender: str
    recipients: Sequence[str]
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    """From the first byte (smtps); else as soon as the server offers it (STARTTLS)."""
    name: str = "email"

    def send(self, notice: Notice) -> None:
        """See `Way`. A recipient that the server refuses is logged when it takes the mail for another."""
        try:
            with self._connection() as server:
                if not self.tls and server.has_extn("starttls"):
                    server.starttls(context=ssl.create_default_context())
                    server.ehlo()
                elif not self.tls and self.user:
                    raise NotSentError(f"{self._label} offers no encryption, and a password is not sent without: use smtps://")
                if self.user:
                    server.login(self.user, self.password)
                refused = server.send_message(self._mail(notice))
        except smtplib.SMTPAuthenticationError as error:
            raise NotSentError(f"{self._label} does not take user and password ({error.smtp_code})") from None
        except smtplib.SMTPRecipientsRefused as error:
            raise RefusedError(f"{self._label} refuses {', '.join(error.recipients)}") from None
        except smtplib.SMTPDataError as error:
            raise RefusedError(f"{self._label} did not take the mail: {error}") from None
        except (smtplib.SMTPException, OSError) as error:
            raise NotSentError(f"{self._label} did not take the mail: {type(error).__name__}: {error}") from None
        if refused:
            logging.getLogger("ml_assets.notices").warning("%s refuses %s", self._label, ", ".join(refused))

    @property
    def _label(self) -> str:
        return f"the mail server {self.host}:{self.port} ({EMAIL})"

    def _connection(self) -> smtplib.SMTP:
        if self.tls:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=_WAIT_SECONDS, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=_WAIT_SECONDS)
        server.ehlo()
        return server

    def _mail(self, notice: Notice) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = f"[{notice.severity}] {notice.subject}"
        mail["From"], mail["To"] = self.sender, ", ".join(self.recipients)
        mail["Date"] = formatdate(localtime=False)
        # The same for the same run: a mail that comes twice, as after a lost connection, is seen to be one.
        mail["Message-ID"] = f"<{notice.run_id}@ml-assets>"
        mail.set_content(notice.text)
        return mail


def ways(settings: Mapping[str, str]) -> tuple[Way, ...]:
    """The ways that the settings name; without any, what is told is in the logs alone.

    Raises:
        ValueError: a setting is not what it should be; the message names it, and tells no password.
    """
    webhook, email = settings.get(WEBHOOK, "").strip(), settings.get(EMAIL, "").strip()
    return (*([_webhook(webhook)] if webhook else []), *([_email(email)] if email else []))


def run_link(settings: Mapping[str, str], run_id: str) -> str | None:
    """The page of a run in Dagster's web interface, if a setting says where that is.

    Raises:
        ValueError: the setting is no address.
    """
    base = settings.get(UI_URL, "").strip()
    if not base:
        return None
    if not _is_http(base):
        raise ValueError(f"{UI_URL}: expected the address of Dagster's web interface, such as https://dagster.example.com")
    return f"{base.rstrip('/')}/runs/{run_id}"


def _webhook(url: str) -> Webhook:
    if not _is_http(url):
        raise ValueError(
            f"{WEBHOOK}: expected an address such as https://hooks.example.com/…; what it is now is no http(s) address"
        )
    return Webhook(url)


def _email(url: str) -> Email:
    try:
        parts = urlsplit(url)
        port, fields = parts.port, parse_qs(parts.query.replace("+", "%2B"))  # a plus is part of an address
    except ValueError:
        raise ValueError(f"{EMAIL}: not an address; {_EMAIL_FORM}") from None  # what urlsplit says holds pieces of the password
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError(f"{EMAIL}: no smtp:// or smtps:// address of a host; {_EMAIL_FORM}")
    senders = _addresses(fields.get("from", []))
    recipients = _addresses(fields.get("to", []))
    if len(senders) != 1:
        raise ValueError(f"{EMAIL}: {len(senders)} senders, wanted one from=…; {_EMAIL_FORM}")
    if not recipients:
        raise ValueError(f"{EMAIL}: nobody to send to, to=… is missing; {_EMAIL_FORM}")
    if wrong := [address for address in (*senders, *recipients) if not re.fullmatch(r"[^\s@<>,]+@[^\s@<>,]+", address)]:
        raise ValueError(f"{EMAIL}: {wrong[0]!r} is no mail address; {_EMAIL_FORM}")
    if fields.keys() - {"from", "to"}:
        raise ValueError(f"{EMAIL}: more than from=… and to=…; {_EMAIL_FORM}")
    if bool(parts.username) != bool(parts.password):
        raise ValueError(f"{EMAIL}: user and password belong together; {_EMAIL_FORM}")
    tls = parts.scheme == "smtps"
    return Email(
        host=parts.hostname,
        port=port or (465 if tls else 587),
        sender=senders[0],
        recipients=recipients,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
    )


def _addresses(texts: Sequence[str]) -> list[str]:
    return [address.strip() for text in texts for address in text.split(",") if address.strip()]


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _host(url: str) -> str:
    return str(urlsplit(url).hostname)


def _without_credentials(text: str) -> str:
    """Errors of drivers quote addresses."""
    return _CREDENTIALS.sub(r"\1…@", text)


@contextmanager
def _unlogged(url: str) -> Iterator[None]:
    """Keeps an address out of the logs: httpx tells that of every request."""
    logger = logging.getLogger("httpx")

    def others(record: logging.LogRecord) -> bool:
        return url not in record.getMessage()

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)
