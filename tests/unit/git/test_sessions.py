"""Which questions go over a master without a process, and how many sessions a server gets. A socket is the master."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from jens.git import wrapper
from jens.git.masters import Master, State
from jens.git.sessions import Server, Session, path_of
from jens.git.speaker import Result, Unclear
from tests.unit.git.test_lsrefs import GREETING_0, GREETING_2, MASTER, ONE

PATHS: dict[str, str | None] = {
    "ssh://git.example.org/srv/a.git": "/srv/a.git",
    "ssh://git@git.example.org:2222/a.git/": "/a.git/",
    "git@git.example.org:group/a-b_c+d.git": "group/a-b_c+d.git",
    "git.example.org:/srv/a.git": "/srv/a.git",
    "git.example.org:a": "a",
    "ssh://git.example.org/~ann/a.git": None,
    "git.example.org:~ann/a.git": None,
    "git.example.org:-a": None,
    "git.example.org:a'b": None,
    "git.example.org:a b": None,
    "git.example.org:a!b": None,
    "ssh://git.example.org/a%20b": None,
    "ssh://git.example.org/ä": None,
    "ssh://git.example.org//a": None,
    "ssh://git.example.org/": None,
    "ssh://git.example.org": None,
    "git.example.org:a\n": None,
}


@pytest.mark.parametrize("url", PATHS)
def test_only_plain_paths_are_asked_for(url: str) -> None:
    assert path_of(url) == PATHS[url]


class FakeMaster:
    """A master whose answers a test writes: ``serve`` gets the connection and the three descriptors."""

    def __init__(self, path: Path, serve: Callable[[socket.socket, list[int]], None]) -> None:
        self.path, self.sessions = path, 0
        self._serve = serve
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def look(self) -> State:
        return State.OPEN

    def _work(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            for _ in range(2):
                [length] = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
                connection.recv(length, socket.MSG_WAITALL)
            passed = [socket.recv_fds(connection, 1, 1)[1][0] for _ in range(3)]
            with contextlib.suppress(BrokenPipeError):  # who asks may leave at any time
                self._serve(connection, passed)
            for descriptor in passed:
                os.close(descriptor)

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


def words(kind: int, text: bytes = b"\0\0\0\0") -> bytes:
    """What a master says."""
    return struct.pack(">II", len(text) + 4, kind) + text


HELLO, OPENED, EXIT = words(1, b"\0\0\0\4"), words(0x80000006), words(0x80000004)
COMMAND = wrapper.question("git.example.org:a.git")
Asked = Callable[[Server, Callable[[socket.socket, list[int]], None]], "Result | Unclear"]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asked]:
    """Ask over a master that does what a function says; returns the result."""
    masters = list[FakeMaster]()

    def asked(server: Server, serve: Callable[[socket.socket, list[int]], None]) -> Result | Unclear:
        made = FakeMaster(tmp_path / f"m{len(masters)}", serve)
        masters.append(made)
        session = Session(server, cast("Master", made), 20)
        try:
            session.begin(COMMAND)
            assert made.sessions == 1
            while (result := session.receive()) is None:
                assert select.select(session.pipes, [], [], 20)[0], "nothing is said"
            assert session.has_ended
            assert session.receive() is None, "the other descriptor may have something to read, too"
            assert made.sessions == 0
            return result
        finally:
            session.close()

    yield asked
    for master in masters:
        master.close()


def answering(greeting: bytes, reply: bytes, heard: list[bytes]) -> Callable[[socket.socket, list[int]], None]:
    """What serves a session: a server that greets, hears something, and replies."""

    def serve(connection: socket.socket, files: list[int]) -> None:
        connection.sendall(HELLO + OPENED)
        os.write(files[1], greeting)
        heard.append(os.read(files[0], 1 << 16))
        os.write(files[1], reply)
        connection.sendall(EXIT)

    return serve


@pytest.mark.parametrize(
    ("greeting", "reply", "begins"),
    [(GREETING_2, MASTER + b"0000", b"0014command=ls-refs"), (GREETING_0, b"", b"0000")],
    ids=["version 2", "version 0"],
)
def test_the_first_question_waits_for_the_greeting_and_the_next_ones_do_not(
    ask: Asked, greeting: bytes, reply: bytes, begins: bytes
) -> None:
    server, heard = Server([]), list[bytes]()
    for _ in range(2):
        assert ask(server, answering(greeting, reply, heard)) == ONE + b"\trefs/heads/master\n"
    assert heard[0] == heard[1]
    assert heard[0].startswith(begins)
    assert heard[0].endswith(b"0000")
    assert server.version_2 is (heard[0] != b"0000")
    assert server.is_good


@pytest.mark.parametrize(
    ("said", "greeting"),
    [
        (words(1, b"\0\0\0\5"), b""),
        (HELLO + words(0x80000002), b""),
        (HELLO + words(0x80000003), b""),
        (b"\xff" * 12, b""),
        (b"\0\0\0\0" * 3, b""),
        (b"", b""),
        (HELLO + OPENED + EXIT, b""),
        (HELLO + OPENED, b"Welcome!\n"),
        (HELLO + OPENED + EXIT, GREETING_2),
        (HELLO + OPENED + EXIT, GREETING_2 + MASTER),
        (HELLO + OPENED + EXIT, b"000eversion 1\n" + GREETING_0),
    ],
)
def test_whatever_else_is_a_question_for_git(ask: Asked, said: bytes, greeting: bytes) -> None:
    def serve(connection: socket.socket, files: list[int]) -> None:
        if greeting:
            os.write(files[1], greeting)
        connection.sendall(said)

    server = Server([])
    assert isinstance(ask(server, serve), Unclear)
    assert server.bad == 1
    assert server.version_2 is None


def known() -> Server:
    """A server whose greeting is known."""
    server = Server([])
    server.version_2 = False
    return server


class NoMaster:
    """A master that has just ended."""

    def __init__(self, path: Path, state: State = State.GONE) -> None:
        self.path, self.sessions = path, 0
        self._state = state

    def look(self) -> State:
        return self._state


def test_a_master_that_is_not_there_is_a_question_for_git(tmp_path: Path) -> None:
    server, master = Server([]), NoMaster(tmp_path / "none")
    session = Session(server, cast("Master", master), 20)
    session.begin(COMMAND)
    assert select.select(session.pipes, [], [], 20)[0]
    assert isinstance(session.receive(), Unclear)
    assert master.sessions == 0
    session.close()


def test_an_early_question_that_takes_long_is_one_for_git_and_the_next_one_waits(tmp_path: Path) -> None:
    def silent(connection: socket.socket, _files: list[int]) -> None:
        connection.recv(1)

    made, server = FakeMaster(tmp_path / "m", silent), known()
    session = Session(server, cast("Master", made), 20)
    session.begin(COMMAND)
    begun = time.monotonic() - 3
    assert session.set_deadline(begun)
    assert session.passes_on == begun + 2
    session.close()
    made.close()
    assert (server.version_2, server.late, made.sessions) == (None, 1, 0)
    waiting = Session(server, cast("Master", NoMaster(tmp_path / "none")), 20)
    waiting.begin(COMMAND)
    waiting.set_deadline(begun)
    assert waiting.passes_on == math.inf, "it is what Git would do"
    waiting.close()


#: Sessions at a master, those that a connection may have, and what is left when one is refused; whether that is bad.
REFUSED = [(8, 8, 7, 0), (2, 8, 1, 0), (1, 8, 1, 1), (5, 3, 3, 0)]


@pytest.mark.parametrize(("sessions", "most", "left", "bad"), REFUSED)
def test_a_server_that_limits_sessions_gets_fewer_a_connection(sessions: int, most: int, left: int, bad: int) -> None:
    server, master = Server([]), NoMaster(Path("/none"))
    server.most, master.sessions = most, sessions
    server.refuse(cast("Master", master))
    assert (server.most, server.bad) == (left, bad)


OPEN, OPENING, GONE = State.OPEN, State.OPENING, State.GONE


@pytest.mark.parametrize(
    ("states", "sessions", "is_needed"),
    [
        ([OPEN], 8, False),
        ([OPEN], 9, True),
        ([OPEN, OPENING], 16, False),
        ([OPEN, OPENING], 24, True),
        ([OPEN, OPENING, OPENING], 24, False),
        ([OPEN, GONE], 24, False),
        ([OPEN] * 4, 256, False),
    ],
)
def test_one_more_master_is_opened_when_there_are_too_few_and_none_was_refused(
    states: list[State], sessions: int, is_needed: bool
) -> None:
    server = Server([cast("Master", NoMaster(Path("/none"), state)) for state in states])
    assert server.may_need_more(sessions, 4) == is_needed


def test_a_question_goes_to_the_master_with_the_fewest_sessions() -> None:
    masters = [NoMaster(Path(f"/{number}"), state) for number, state in enumerate((OPEN, OPEN, OPENING, GONE))]
    server = Server([cast("Master", master) for master in masters])
    masters[0].sessions, masters[1].sessions = 3, 2
    free = server.free_master()
    assert free is not None
    assert free.path == Path("/1")
    server.most = 2
    assert server.free_master() is None
