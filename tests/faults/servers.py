"""Git servers that lie: a real ``git upload-pack`` behind git://, http:// and ssh, until the lie begins.

Servers are threads in the test's process and listen on 127.0.0.1; the replacement for ssh is a process.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.faults import fake_ssh
from tests.faults.lies import Lie, Write, copy, upload_pack


class Servers:
    """All servers of a test; they lie while their directory has a file ``lying``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "reached").mkdir(parents=True)
        self._stop = threading.Event()
        self._listening: list[tuple[socket.socket, threading.Thread]] = []
        self._conversations: list[tuple[socket.socket, threading.Thread]] = []
        self._http: list[ThreadingHTTPServer] = []

    def lie(self, *, lying: bool = True) -> None:
        """Begin to lie, or become honest again."""
        if lying:
            (self.top / "lying").touch()
        else:
            (self.top / "lying").unlink()

    def reached(self) -> set[str]:
        """The lies that have begun."""
        return set(os.listdir(self.top / "reached"))

    def hang_up(self) -> None:
        """End the conversations that are under way with servers for git://."""
        for connection, _ in list(self._conversations):
            _hang_up(connection)

    def close(self) -> None:
        """End every server, and its conversations."""
        self._stop.set()
        for listening, thread in self._listening:
            # close(2) does not end an accept(2), which would go on with the next socket of the same descriptor.
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            listening.close()
        for connection, thread in self._conversations:
            _hang_up(connection)
            thread.join()
        for server in self._http:
            server.shutdown()
            server.server_close()

    def lie_of(self, name: str, lie: str) -> Lie:
        """The lie to tell now."""
        return Lie(lie if (self.top / "lying").exists() else "", (self.top / "reached" / name).touch, self._stop)

    def git(self, name: str, lie: str) -> str:
        """Start a server for git://; return the beginning of its URLs, before the path."""
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=self._accept, args=(listening, name, lie), daemon=True)
        self._listening.append((listening, thread))
        thread.start()
        return f"git://127.0.0.1:{listening.getsockname()[1]}"

    def _accept(self, listening: socket.socket, name: str, lie: str) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                thread = threading.Thread(target=self._serve, args=(connection, self.lie_of(name, lie)), daemon=True)
                self._conversations.append((connection, thread))
                thread.start()

    def _serve(self, connection: socket.socket, lie: Lie) -> None:
        """Have one conversation, as git-daemon(1) does."""
        with connection, suppress(OSError), connection.makefile("rb", buffering=0) as questions:
            request = questions.read(int(questions.read(4) or b"4", 16) - 4)
            command, _, more = request.partition(b"\0")
            path = command.decode().partition(" ")[2]
            protocol = more.rpartition(b"\0\0")[2].strip(b"\0").decode() if b"\0\0" in more else ""
            with upload_pack(["git", "upload-pack", path], protocol) as process:
                copying = threading.Thread(target=copy, args=(questions, process.stdin), daemon=True)
                copying.start()
                try:
                    assert process.stdout
                    lie.tell(process.stdout, connection.sendall)
                finally:
                    process.kill()
                    _hang_up(connection)
                    copying.join()

    def http(self, name: str, lie: str) -> str:
        """Start a server for http://; return the beginning of its URLs, before the path."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, name, lie))
        self._http.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def ssh(self) -> Path:
        """Make a program that replaces ssh; its hosts are ``LIE.example.org`` and ``LIE.ANYTHING.example.org``."""
        path = self.top / "ssh"
        program = f"{sys.executable} -S -E {fake_ssh.__file__} {shlex.quote(str(self.top))}"
        path.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        path.chmod(0o755)
        return path


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the other end may already have closed it
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def servers(top: Path) -> Iterator[Servers]:
    """Make servers that end with the block."""
    found = Servers(top)
    try:
        yield found
    finally:
        found.close()


def _handler(all_servers: Servers, name: str, lie_name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Hands everything to git-http-backend(1)."""

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            lie = all_servers.lie_of(name, lie_name)
            if lie.what == "password":
                (all_servers.top / "reached" / name).touch()
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="Git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            if not os.path.isdir(path.replace("/info/refs", "").replace("/git-upload-pack", "")):
                self.send_error(404)
                return
            headers = {"CONTENT_TYPE": "Content-Type", "CONTENT_LENGTH": "Content-Length"}
            headers |= {"HTTP_CONTENT_ENCODING": "Content-Encoding", "HTTP_GIT_PROTOCOL": "Git-Protocol"}
            environment = {**os.environ, **{key: self.headers[value] or "" for key, value in headers.items()}}
            environment |= {"GIT_PROJECT_ROOT": "/", "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path}
            environment |= {"REQUEST_METHOD": self.command, "QUERY_STRING": query, "REMOTE_ADDR": "127.0.0.1"}
            command = ["git", "-c", "safe.directory=*", "http-backend"]
            with (
                suppress(OSError),
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process,
            ):
                assert process.stdin
                assert process.stdout
                process.stdin.write(self.rfile.read(int(self.headers["Content-Length"] or 0)))
                process.stdin.close()
                lie.tell(process.stdout, self._status_and_body())
                process.kill()

        def _status_and_body(self) -> Write:
            head: list[bytes] = [b"HTTP/1.0 200 OK\r\n"]

            def write(chunk: bytes) -> None:
                self.wfile.write(b"".join(head) + chunk)
                head.clear()

            return write

    return Handler
