"""In front of fake-gcs-server, which does not know one of Google's two ways to write: the one that obstore and delta-rs use.

A `PUT /bucket/object` becomes an upload of the other kind, with its condition (`x-goog-if-generation-match`), and a listing begins after
`start-after`, which that server ignores. Everything else goes through.
"""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

_BOUNDARY = "parts-of-one-upload"
_HOP = {"connection", "transfer-encoding", "content-length", "host"}


@contextmanager
def writing_to(url: str) -> Iterator[str]:
    """The address of a server that also takes these writes, while `url` is that of fake-gcs-server.

    It is a process of its own: obstore keeps other threads of its own process from answering while it waits.
    """
    with subprocess.Popen([sys.executable, __file__, url], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""

    def passed(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        path, method = self.path, self.command
        if method == "PUT" and "?" not in path:
            path, headers, body = upload_of(path, body, self.headers.get("x-goog-if-generation-match"))
            method = "POST"
        with_server = http.client.HTTPConnection(urlsplit(sys.argv[1]).netloc, timeout=30)
        try:
            with_server.request(method, path, body, headers)
            answer = with_server.getresponse()
            content = answer.read()
        finally:
            with_server.close()
        told = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        if method == "POST" and self.command == "PUT" and answer.status == 200:
            made = json.loads(content)
            told |= {"ETag": f'"{made["etag"]}"', "x-goog-generation": made["generation"]}
            content = b""
        if after := parse_qs(urlsplit(self.path).query).get("start-after"):
            content = listed_after(content, after[0])
        self.send_response(answer.status)
        for name, value in told.items():
            self.send_header(name, value)
        length = answer.getheader("Content-Length") if method == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = passed  # noqa: N815


def upload_of(path: str, content: bytes, generation: str | None) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body that write the same under the same condition."""
    bucket, _, name = unquote(path).lstrip("/").partition("/")
    condition = f"&ifGenerationMatch={generation}" if generation is not None else ""
    about = json.dumps({"name": name}).encode()
    parts = [b"Content-Type: application/json\r\n\r\n" + about, b"Content-Type: application/octet-stream\r\n\r\n" + content]
    body = b"".join(b"--" + _BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in parts) + f"--{_BOUNDARY}--".encode()
    headers = {"Content-Type": f"multipart/related; boundary={_BOUNDARY}"}
    return f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=multipart{condition}", headers, body


def listed_after(content: bytes, name: str) -> bytes:
    """A listing without the objects up to that name."""

    def kept(match: re.Match[bytes]) -> bytes:
        key = re.search(rb"<Key>(.*?)</Key>", match[0])
        return match[0] if key is not None and key[1].decode() > name else b""

    return re.sub(rb"<Contents>.*?</Contents>", kept, content, flags=re.DOTALL)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)  # noqa: T201
    server.serve_forever()
