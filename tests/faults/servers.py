"""Git servers that lie: real ``git upload-pack`` behind git://, http:// and ssh, up to the moment when the lie begins.

Servers are threads of the test's process that listen on 127.0.0.1. The same file is the program that the fake ssh runs,
as a process: ``servers.py DIRECTORY [option…] [user@]HOST COMMAND``, where HOST begins with the lie that is told.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Callable

Write = Callable[[bytes], object]

#: For how many seconds servers keep to a lie: longer than any test waits, though not for ever.
PATIENCE = 90.0
#: Branches whose names are others on the wire, of the same length.
NAMES = {
    "climbs-out-of-here": "../../../../escape",
    "looks-like-options": "--upload-pack=evil",
    "is-a-lock-of-git's": ".git/../conf.lock/",
}


class Lie:
    """What a server does: ``WHAT`` at once, or ``WHAT-pack`` when the pack has begun; '' for an honest one."""

    def __init__(self, name: str, reached: Callable[[], object], stop: threading.Event) -> None:
        self.what, _, when = name.partition("-")
        self._in_pack = when == "pack"
        self._reached = reached
        self._stop = stop
        self._end = time.monotonic() + PATIENCE

    def tell(self, answer: IO[bytes], write: Write) -> None:
        """Pass an honest answer on until the lie begins, and tell it."""
        seen = b""
        for chunk in iter(lambda: os.read(answer.fileno(), 1 << 16), b""):
            seen = seen[-3:] + chunk
            if self.what == "names":
                self._reached()
                write(_renamed(chunk))
            elif self.what and (not self._in_pack or b"PACK" in seen):
                half = len(chunk) // 2 if self._in_pack else 0
                write(chunk[:half])
                self._reached()
                self._lie(chunk[half:], write)
                return
            else:
                write(chunk)

    def _lie(self, rest: bytes, write: Write) -> None:
        if self.what == "silent":
            self._wait(PATIENCE)
        elif self.what == "drip":
            for number in range(len(rest)):
                write(rest[number : number + 1])
                if self._wait(1):
                    break
        elif self.what == "garbage":
            write(bytes(range(256)) * 256)
        elif self.what == "endless":
            self._list_endlessly(write)

    def _list_endlessly(self, write: Write) -> None:
        count = 0
        while not self._wait(0):
            lines = []
            for number in range(count, count + 1000):
                line = f"{number + 1:040x} refs/heads/{number:040}".encode()
                line += b"\0side-band-64k ofs-delta\n" if number == 0 else b"\n"
                lines.append(f"{len(line) + 4:04x}".encode() + line)
            count += 1000
            write(b"".join(lines))

    def _wait(self, seconds: float) -> bool:
        """Whether there is an end to it."""
        return self._stop.wait(min(seconds, max(0.0, self._end - time.monotonic()))) or time.monotonic() >= self._end


def _renamed(chunk: bytes) -> bytes:
    for plain, hostile in NAMES.items():
        chunk = chunk.replace(f"refs/heads/{plain}".encode(), f"refs/heads/{hostile}".encode())
    return chunk


class Servers:
    """All servers of a test; they lie while there is a file ``lying`` in their directory."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "reached").mkdir(parents=True)
        self._stop = threading.Event()
        self._listening: list[tuple[socket.socket, threading.Thread]] = []
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

    def close(self) -> None:
        """End every server, and whatever it is at."""
        self._stop.set()
        for listening, thread in self._listening:
            # To close it ends no accept(2): that would go on, on whichever socket has the same descriptor next.
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            listening.close()
        for server in self._http:
            server.shutdown()
            server.server_close()

    def lie_of(self, name: str, lie: str) -> Lie:
        """The lie that is told now."""
        return Lie(lie if (self.top / "lying").exists() else "", (self.top / "reached" / name).touch, self._stop)

    def git(self, name: str, lie: str) -> str:
        """A server for git://; returns the beginning of its URLs, which go on with a path."""
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=self._accept, args=(listening, name, lie), daemon=True)
        self._listening.append((listening, thread))
        thread.start()
        return f"git://127.0.0.1:{listening.getsockname()[1]}"

    def _accept(self, listening: socket.socket, name: str, lie: str) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=self._serve, args=(connection, self.lie_of(name, lie)), daemon=True).start()

    def _serve(self, connection: socket.socket, lie: Lie) -> None:
        """One conversation, as git-daemon(1) has it."""
        with connection, suppress(OSError), connection.makefile("rb", buffering=0) as questions:
            request = questions.read(int(questions.read(4) or b"4", 16) - 4)
            command, _, more = request.partition(b"\0")
            path = command.decode().partition(" ")[2]
            protocol = more.rpartition(b"\0\0")[2].strip(b"\0").decode() if b"\0\0" in more else ""
            with _upload_pack(["git", "upload-pack", path], protocol) as process:
                threading.Thread(target=_copy, args=(questions, process.stdin), daemon=True).start()
                assert process.stdout
                lie.tell(process.stdout, connection.sendall)
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def http(self, name: str, lie: str) -> str:
        """A server for http://; returns the beginning of its URLs."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, name, lie))
        self._http.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    def ssh(self) -> Path:
        """A program to run for ssh; its hosts are ``LIE.example.org``, ``LIE.ANYTHING.example.org``."""
        path = self.top / "ssh"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} {shlex.quote(str(self.top))} "$@"\n')
        path.chmod(0o755)
        return path


@contextmanager
def servers(top: Path) -> Iterator[Servers]:
    """They end with the block."""
    found = Servers(top)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def _upload_pack(command: list[str], protocol: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "GIT_PROTOCOL": protocol}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdout
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _copy(questions: IO[bytes], to: IO[bytes]) -> None:
    with suppress(OSError, ValueError), to:
        for chunk in iter(lambda: os.read(questions.fileno(), 1 << 16), b""):
            to.write(chunk)
            to.flush()


def _handler(all_servers: Servers, name: str, lie_name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Hands everything on to git-http-backend(1)."""

        def log_message(self, *_arguments: object) -> None:
            """Nothing is logged."""

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


def _ssh(top: Path, host: str, command: str) -> int:
    """What stands for ssh: ends, and is ended, as ssh is."""
    os.closerange(3, 256)  # as ssh does
    lie_name = host.partition(".")[0] if (top / "lying").exists() else ""
    reached = (top / "reached" / host).touch
    if lie_name == "password":
        reached()
        return _ask_for_a_password(top)
    if lie_name == "detached":
        reached()
        if os.fork() == 0:
            os.setsid()
            with open(top / "detached", "a") as file:
                file.write(f"{os.getpid()}\n")
            os.execvpe("sleep", ["sleep", str(PATIENCE)], {"PATH": os.environ["PATH"]})  # none of the run's any more
        while not (top / "detached").exists():
            time.sleep(0.01)
        lie_name = ""
    if lie_name == "flood":
        reached()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            os.write(2, b"Still thinking of an answer.\n" * 2000)
    question = shlex.split(command.replace("git-upload-pack", "git upload-pack", 1))
    with suppress(OSError), _upload_pack(question, os.environ.get("GIT_PROTOCOL", "")) as process:
        assert process.stdout
        threading.Thread(target=_copy, args=(sys.stdin.buffer, process.stdin), daemon=True).start()
        Lie(lie_name, reached, threading.Event()).tell(process.stdout, lambda chunk: os.write(1, chunk))
    return 0


def _ask_for_a_password(top: Path) -> int:
    """As ssh asks when it may: on the terminal, or else through a program, which is not said to be unwanted."""
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:
            terminal.write(b"Password: ")
            (top / "asked").write_text("on the terminal")
            terminal.readline()
    except OSError:
        program = os.environ.get("SSH_ASKPASS")
        if program and os.environ.get("SSH_ASKPASS_REQUIRE") != "never":
            subprocess.run([program, "Password: "], check=False)
    os.write(2, b"git@git.example.org: Permission denied (publickey,password).\n")
    return 255


if __name__ == "__main__":
    _HOST, _COMMAND = sys.argv[-2:]
    os._exit(_ssh(Path(sys.argv[1]), _HOST.rpartition("@")[2], _COMMAND))
