"""A CA, certificates, and a small HTTPS server in this process that does what a Puppet Server may do to a flush."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

LOOPBACK = "127.0.0.1"
_PATH = "/puppet-admin-api/v1/environment-cache"


class Authority:
    """A CA. The certificates that it signs are valid for a day, or are no longer valid."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir()
        self.ca = top / "ca.pem"
        _openssl("req", "-x509", *_new_key(top / "ca.key"), "-out", str(self.ca), "-subj", "/CN=Puppet CA: test")

    def sign(self, name: str, *, days: int = 1, names: str = f"DNS:localhost,IP:{LOOPBACK}") -> tuple[Path, Path]:
        """A certificate and its key. With ``days`` below zero it has expired."""
        cert, key, request = (self.top / f"{name}{end}" for end in (".pem", ".key", ".csr"))
        extensions = self.top / "extensions"
        extensions.write_text(f"subjectAltName = {names}\n")
        _openssl("req", "-new", *_new_key(key), "-out", str(request), "-subj", f"/O=Example/CN={name}")
        signed = ("-CA", str(self.ca), "-CAkey", str(self.top / "ca.key"), "-extfile", str(extensions))
        _openssl("x509", "-req", "-in", str(request), *signed, "-days", str(days), "-out", str(cert))
        return cert, key


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass
class Flushes:
    """A server that keeps each flush that it answered as it should, and answers as it is told to.

    ``told``: environments, '' for all. ``does`` answers a request itself; what it returns is the status.
    """

    port: int = 0
    told: list[str] = field(default_factory=list)
    does: Callable[[http.server.BaseHTTPRequestHandler, str], int | None] = lambda _request, _name: 204
    _lock: Any = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def keep(self, name: str) -> None:
        with self._lock:
            self.told.append(name)

    def news(self) -> list[str]:
        """What it was told since the last call."""
        with self._lock:
            told, self.told[:] = [*self.told], []
        return told


def hang(_request: http.server.BaseHTTPRequestHandler, _name: str) -> None:
    """Say nothing, until the other side gives up."""
    _request.rfile.read(1)


def drip(request: http.server.BaseHTTPRequestHandler, _name: str) -> None:
    """Send a byte now and then."""
    with contextlib.suppress(OSError):
        request.wfile.write(b"HTTP/1.1 204 No Content\r\n")
        while True:
            request.wfile.write(b"X-A: b\r\n")
            time.sleep(0.1)


def rubbish(request: http.server.BaseHTTPRequestHandler, _name: str) -> None:
    """Send what is no HTTP."""
    request.wfile.write(b"220 mail.example.org ESMTP\r\n")


def answer(status: int, text: str = "") -> Callable[[http.server.BaseHTTPRequestHandler, str], int | None]:
    """Answer with a status and a text."""

    def answers(request: http.server.BaseHTTPRequestHandler, _name: str) -> int | None:
        if status == 204:
            return status
        request.send_response(status)
        request.send_header("Content-Length", str(len(text.encode())))
        request.end_headers()
        request.wfile.write(text.encode())
        return None

    return answers


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever ends a connection has reasons that are no news."""


@contextlib.contextmanager
def flushes(cert: tuple[Path, Path], ca: Path, port: int = 0) -> Iterator[Flushes]:
    """Run a server with this certificate until the end of the block. It accepts clients whom ``ca`` has signed."""
    kept = Flushes()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_DELETE(self) -> None:
            path, _, query = self.path.partition("?")
            name = query.partition("environment=")[2]
            assert path == _PATH
            if kept.does(self, name) == 204:
                kept.keep(name)
                self.send_response(204)
                self.end_headers()
            else:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*cert)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with _Server((LOOPBACK, port), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        kept.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
