"""Who gets messages in tests: an HTTP server that keeps what is posted, and an SMTP server (aiosmtpd) that keeps mails."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session

USER, PASSWORD, PATH = "mailer", "hunter2/#?@:%", "/services/T0/very-secret"


@dataclass
class Posts:
    """What a webhook got. `answers` are the next statuses; then it takes everything."""

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    """That it took."""
    asked: int = 0
    answers: list[int] = field(default_factory=list)


@contextmanager
def running_webhook() -> Iterator[Posts]:
    posts = Posts()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            posts.asked += 1
            status = posts.answers.pop(0) if posts.answers else 200
            if status == 200:
                posts.got.append(json.loads(body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    posts.url = f"http://127.0.0.1:{server.server_port}{PATH}"
    try:
        yield posts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Mails:
    """What a mail server took, and from whom."""

    port: int = 0
    got: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    tls: bool = False
    """From the first byte, of which a session does not know."""
    refuses: set[str] = field(default_factory=set)
    """Recipients."""

    async def handle_RCPT(self, _server: Any, _session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:  # noqa: N802
        if address in self.refuses:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        assert envelope.mail_from is not None
        self.got.append(message_from_bytes(envelope.content, policy=policy.default))
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        self.encrypted.append(self.tls or session.ssl is not None)
        return "250 OK"

    def authenticate(self, _server: Any, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        user, password = data.login.decode(), data.password.decode()
        self.users.append(user)
        return AuthResult(success=(user, password) == (USER, PASSWORD), handled=False)


class _AnyPort(Controller):
    """Listens on a free port, and knows then which one it is."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def running_mail(*, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Mails]:
    mails = Mails(tls=tls is not None)
    controller = _AnyPort(
        mails,
        hostname="127.0.0.1",
        port=0,
        ssl_context=tls,
        tls_context=starttls,
        authenticator=mails.authenticate,
        auth_require_tls=False,
    )
    controller.start()
    mails.port = controller.port
    try:
        yield mails
    finally:
        controller.stop()


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server of this machine says who it is with, and the file that a client has to trust."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    return context, trusted
