"""Strangers who send to the producer slowly, or very much: it goes on to answer, and each request has an end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.gitlabproducer import limits
from tests.conftest import Site
from tests.stories.test_gitlabproducer import FOO, LISTENING, OK, RUNNER, Server, environment, follow, serving
from tests.unit.gitlabproducer.test_webhooks import GITLAB_PUSH, SSH

STRANGERS = 110
MANY = 1000
#: Seconds that each request has here.
LIMIT = 3.0
GUNICORN = rb"Listening at: http://127\.0\.0\.1:(\d+)"
HEAD = b"POST /gitlab HTTP/1.1\r\nHost: jens.example.org\r\n"
SETTINGS = "jens.gitlabproducer.gunicorn_settings"

_LIMITED = f"""
import sys
from jens.gitlabproducer import limits
limits.REQUEST_SECONDS = {LIMIT}
"""
_WAITRESS = f"""{_LIMITED}
from jens.commands.gitlab_producer_runner import main
sys.exit(main(sys.argv[1:]))
"""


def waitress(site: Site) -> list[str]:
    return [sys.executable, "-c", _WAITRESS, "-c", str(site.config), "-p", "0"]


def gunicorn(site: Site) -> list[str]:
    settings = site.root / "settings.py"
    settings.write_text(f"{_LIMITED}\nfrom {SETTINGS} import *\n")
    call = f"jens.commands.gitlab_producer_runner:application('{site.config}')"
    return [sys.executable, "-m", "gunicorn", "--config", str(settings), "--bind", "127.0.0.1:0", call]


@pytest.fixture
def known(bare_site: Site) -> Site:
    """A site whose library has one repository and has been fetched."""
    bare_site.urls[FOO] = SSH
    follow(bare_site)
    return bare_site


@pytest.fixture(params=["waitress", "gunicorn"])
def server(request: pytest.FixtureRequest, known: Site) -> Iterator[Server]:
    pytest.importorskip(request.param)
    command, announced = (waitress(known), LISTENING) if request.param == "waitress" else (gunicorn(known), GUNICORN)
    with serving(known, command, announced) as served:
        yield served


class Crowd:
    """Connections that send a byte now and then, some of their headers and some of their bodies."""

    def __init__(self, port: int, number: int) -> None:
        self._stop = threading.Event()
        self.ended: set[int] = set()
        self.connections = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(number)]
        for position, connection in enumerate(self.connections):
            body = b"Content-Length: 100000\r\n\r\n{" if position % 2 else b"X-Filler: "
            with contextlib.suppress(OSError):
                connection.sendall(HEAD + body)
            connection.setblocking(False)
        self._thread = threading.Thread(target=self._drip, daemon=True)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for connection in self.connections:
            connection.close()

    def _drip(self) -> None:
        while not self._stop.wait(0.5):
            for position, connection in enumerate(self.connections):
                if position in self.ended:
                    continue
                try:
                    connection.send(b"x")
                    while connection.recv(1000):
                        pass
                    self.ended.add(position)
                except BlockingIOError:
                    pass
                except OSError:
                    self.ended.add(position)

    def wait_for_the_end_of(self, number: int) -> None:
        end = time.monotonic() + 90
        while len(self.ended) < number and time.monotonic() < end:
            time.sleep(0.1)
        assert len(self.ended) >= number


def healthz(server: Server) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.mark.parametrize("number", [STRANGERS, MANY])
def test_who_drips_holds_up_nobody_and_is_ended(known: Site, server: Server, number: int) -> None:
    with Crowd(server.port, number) as crowd:
        for _ in range(3):
            assert healthz(server) == (200, "OK")
            assert server.post(json.dumps(GITLAB_PUSH).encode()) == OK
        crowd.wait_for_the_end_of(number)
    assert healthz(server) == (200, "OK")
    assert known.hinted() == [FOO] * 3
    assert server.end() == 0
    assert "Traceback" not in server.output.read_text()


def files_in(process: int, top: Path) -> list[str]:
    """The open files of a process and its children below a directory, deleted ones as well."""
    found = []
    for number in [process, *children(process)]:
        for entry in Path("/proc", str(number), "fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(entry)
                found += [target] if target.startswith(str(top)) else []
    return found


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def memory(process: int) -> int:
    """The most memory that a process and its children have had, in MiB."""
    lines = [
        line for pid in (process, *children(process)) for line in Path(f"/proc/{pid}/status").read_text().split("\n")
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


@pytest.mark.parametrize("name", ["waitress", "gunicorn"])
def test_large_bodies_fill_neither_disk_nor_memory(known: Site, tmp_path: Path, name: str) -> None:
    """Thirty strangers with 10 MB each, and thirty with almost as much as one may send."""
    pytest.importorskip(name)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {**environment(), "TMPDIR": str(scratch)}
    command = [*RUNNER, "-c", str(known.config), "-p", "0"] if name == "waitress" else gunicorn(known)
    with serving(known, command, LISTENING if name == "waitress" else GUNICORN, environ) as server:
        connections = []
        for size in (10 * 10**6, limits.LARGEST_BODY - 1):
            for _ in range(30):
                connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
                connections.append(connection)
                with contextlib.suppress(OSError):  # it is refused before it is sent
                    connection.sendall(HEAD + f"Content-Length: {size}\r\n\r\n".encode())
                    for _ in range(size // 2**16):
                        connection.sendall(b"x" * 2**16)
        assert healthz(server) == (200, "OK")
        ours = [path for path in files_in(server.process.pid, scratch) if "wgunicorn" not in path]
        assert ours == []
        assert memory(server.process.pid) < 400
        assert server.post(json.dumps(GITLAB_PUSH).encode()) == OK
        for connection in connections:
            connection.close()
    assert known.hinted() == [FOO]
