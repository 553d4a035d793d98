"""A web server for Git that does what the first part of each path says, and a proxy; both note what they are asked.

Behind it is a real ``git http-backend``. Servers are threads in the test's process and listen on loopback.
"""

from __future__ import annotations

import base64
import gzip
import os
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

USER, PASSWORD, TOKEN = "ann@corp", "p@ss:w0rd", "glpat-secret"


class Asked(NamedTuple):
    """A request: its method, the path, the headers with names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Refusal(NamedTuple):
    """An answer without Git."""

    status: int
    headers: Mapping[str, str] = {}


class Backend(NamedTuple):
    """What ``git http-backend`` has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class GitWeb:
    """One server; ``asked`` has all requests, ``connections`` how many clients have connected."""

    def __init__(self, root: Path, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.root = root
        self.asked: list[Asked] = []
        self.connections = 0
        self.delay = 0.0  # seconds that a way there and back takes
        self.limit = 0  # requests at a time, for the kinds that have many
        self.under_way = 0
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self._server = _server_class(host)((host, 0), type("Handler", (_Handler,), {"web": self}))
        self._server.daemon_threads = True
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Forget what was asked."""
        self.asked.clear()
        self.connections = 0

    def close(self) -> None:
        """End the server."""
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()

    def backend(self, asked: Asked, path: str, query: str, body: bytes, protocol: str | None) -> Backend:
        """What the real program answers; ``protocol`` replaces the version that the client wants."""
        headers = asked.headers
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": asked.method,
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", "") if protocol is None else protocol,
        }
        command = ["git", "-c", "safe.directory=*", "http-backend"]
        done = subprocess.run(
            command, input=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=False
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        found = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        return Backend(int(found.pop("Status", "200").split()[0]), found, rest)


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_arguments: object) -> None:
            """Say nothing: clients may leave at any time."""

    return Server


def _allowed(asked: Asked) -> bool:
    words = asked.headers.get("authorization", "").split()
    return len(words) == 2 and base64.b64decode(words[1]).decode() == f"{USER}:{PASSWORD}"


#: What each kind of path refuses, given the request: a status, headers, or None.
_REFUSALS: dict[str, Callable[[Asked], Refusal | None]] = {
    "private": lambda asked: None if _allowed(asked) else Refusal(401, {"WWW-Authenticate": 'Basic realm="Git"'}),
    "digest": lambda _asked: Refusal(401, {"WWW-Authenticate": "Digest realm=x, nonce=y"}),
    "header": lambda asked: None if asked.headers.get("x-token") == TOKEN else Refusal(403),
    "cookie": lambda asked: None if TOKEN in asked.headers.get("cookie", "") else Refusal(403),
    "agent": lambda asked: None if asked.headers.get("user-agent", "").startswith("git/") else Refusal(403),
    "html": lambda _asked: Refusal(200, {"Content-Type": "text/html"}),
}


def _refusal(kind: str, asked: Asked, rest: str) -> Refusal | None:
    if kind in {"301", "302", "307", "308"}:
        return Refusal(int(kind), {"Location": f"/ok/{rest}"})
    if kind.isdecimal():
        return Refusal(int(kind), {"Content-Type": "text/plain"})
    refuse = _REFUSALS.get(kind)
    return refuse(asked) if refuse else None


def _changed(kind: str, said: Backend) -> Backend:
    """What a server of this kind makes of an honest answer."""
    headers, body = said.headers, said.body
    if kind == "lie":
        body = b"<html>hello</html>"
    elif kind == "more":
        body += b"0000"
    elif kind == "gzip":
        headers, body = {**headers, "Content-Encoding": "gzip"}, gzip.compress(body)
    elif kind == "close":
        headers = {**headers, "Connection": "close"}
    return Backend(said.status, headers, body)


def _protocol(kind: str, asked: Asked) -> str | None:
    """The version of the protocol that a server speaks, whatever the client wants; None for the client's."""
    if kind == "v1" and "version" in asked.headers.get("git-protocol", ""):
        return "version=1"
    return "" if kind in {"v0", "v1"} else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: GitWeb

    def setup(self) -> None:
        super().setup()
        self.web.connections += 1
        time.sleep(2 * self.web.delay)  # before TLS begins, so that connecting takes two ways

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.web.asked.append(asked)
        path, _, query = self.path.partition("?")
        kind, _, rest = path.lstrip("/").partition("/")
        with suppress(ConnectionError, ssl.SSLError):
            if kind == "silent":
                self.web.stop.wait(60)
                return
            refusal = _refusal(kind, asked, f"{rest}{'?' if query else ''}{query}")
            if refusal:
                self._send(refusal.status, refusal.headers, b"no\n")
                return
            with self._counted() as is_one_of_many:
                time.sleep(self.web.delay)
                said = self.web.backend(asked, f"/{rest}", query, body, _protocol(kind, asked))
            if is_one_of_many and kind.startswith("many"):
                self._refuse(kind[len("many") :])
            else:
                self._pass_on(kind, _changed(kind, said))

    @contextmanager
    def _counted(self) -> Iterator[bool]:
        """Count a request; whether there are more than the limit."""
        with self.web.lock:
            self.web.under_way += 1
            is_one_of_many = self.web.under_way > self.web.limit
        try:
            yield is_one_of_many
        finally:
            with self.web.lock:
                self.web.under_way -= 1

    def _refuse(self, how: str) -> None:
        """Answer with a status, or close the connection."""
        if how.isdecimal():
            self._send(int(how), {"Content-Type": "text/plain"}, b"no\n")
        else:
            self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _pass_on(self, kind: str, said: Backend) -> None:
        if kind == "chunked":
            self._send_in_chunks(said)
        elif kind == "drip":
            self._head(said.status, {**said.headers, "Content-Length": str(len(said.body))})
            for place in range(0, len(said.body), 40):
                self.wfile.write(said.body[place : place + 40])
                time.sleep(0.01)
        elif kind == "cut":
            self._head(said.status, {**said.headers, "Content-Length": str(len(said.body))})
            self.wfile.write(said.body[: len(said.body) // 2])
        else:
            self._send(said.status, said.headers, said.body)
        # The last one goes without a word, as servers do after a while.
        self.close_connection = self.close_connection or kind in {"cut", "close", "vanish"}

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _send_in_chunks(self, said: Backend) -> None:
        self._head(said.status, {**said.headers, "Transfer-Encoding": "chunked"})
        for place in range(0, len(said.body), 7):
            part = said.body[place : place + 7]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


class Proxy:
    """A proxy for http (whole URLs) and https (CONNECT); ``used`` has what it was asked for."""

    def __init__(self) -> None:
        self.used: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End the proxy."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (some := client.recv(1 << 16)):
                    return
                head += some
            line, _, rest = head.partition(b"\r\n")
            method, url, version = line.decode().split(" ")
            self.used.append(f"{method} {url}")
            if method == "CONNECT":
                host, _, port = url.rpartition(":")
                with socket.create_connection((host, int(port))) as server:
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    _relay(client, server)
                return
            authority, _, path = url.partition("://")[2].partition("/")
            host, _, port = authority.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                server.sendall(f"{method} /{path} {version}\r\nConnection: close\r\n".encode() + rest)
                _relay(client, server)


def _relay(client: socket.socket, server: socket.socket) -> None:
    while True:
        for source in select.select([client, server], [], [], 30)[0]:
            some = source.recv(1 << 16)
            if not some:
                return
            (server if source is client else client).sendall(some)


class Certificates(NamedTuple):
    """A private authority, what it has signed for localhost, and what it has signed for a time that is over."""

    authority: Path
    good: ssl.SSLContext
    expired: ssl.SSLContext
    wants_client: ssl.SSLContext
    client: Path


def certificates(directory: Path, openssl: str) -> Certificates:
    """Make an authority, and certificates; a certificate and its key are in one file."""

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-subj", "/CN=Example authority", "-days", "9", "-keyout", "ca.key", "-out", "ca.pem")
    (directory / "extensions").write_text("subjectAltName=DNS:localhost\n")
    for name, days in (("good", "9"), ("expired", "-1"), ("client", "9")):
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        sign = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        run(*sign, "-days", days, "-extfile", "extensions", "-out", f"{name}.crt")
        (directory / f"{name}.pem").write_text(
            (directory / f"{name}.crt").read_text() + (directory / f"{name}.key").read_text()
        )

    def context(name: str) -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(directory / f"{name}.pem")
        return found

    wants_client = context("good")
    wants_client.load_verify_locations(directory / "ca.pem")
    wants_client.verify_mode = ssl.CERT_REQUIRED
    return Certificates(
        directory / "ca.pem", context("good"), context("expired"), wants_client, directory / "client.pem"
    )
