"""Questions over a master of ssh without a process for each: this program asks the master for a session, as ssh does.

The first question to a server waits for its greeting, as Git does. When the server has answered soon, the others say at
once what Git would say then: that saves a way there and back. It never says that something is wrong: whatever is not
plainly a good answer is a question for Git.
Sources: gitprotocol-pack(5), gitprotocol-v2(5), connect.c of Git.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import time

from jens.git import lsrefs, masterwords, wrapper
from jens.git.distance import Distance
from jens.git.masters import Master, Masters, State
from jens.git.masterwords import Word
from jens.git.settings import Entry, strange_keys
from jens.git.speaker import UNCLEAR, Command, Result, Speaker, Unclear, take

#: Paths that Git, the shell of the server and this module read in the same way.
_PATH = re.compile(
    r"(?:ssh://[^/]+(?=/)|[^/:]+:)(?P<path>/?[A-Za-z0-9_.][A-Za-z0-9_.+@=,-]*(?:/[A-Za-z0-9_.+@=,-]+)*/?)", re.ASCII
)
#: Sessions of a connection: sshd allows ten, and fetches have some, too.
_SESSIONS = 8
#: Bytes of an answer; longer ones are left to Git.
_LONGEST = 1 << 22
#: So many bad answers of a server that has given no good one, and Git alone asks it.
_MOST_BAD = 4
#: Seconds after which Git asks instead, if the greeting was not waited for, and the part of the time limit that this is
#: at most. Of a server that takes half as long to answer, each greeting is waited for.
_LATE, _PART = 2.0, 0.25


def path_of(url: str) -> str | None:
    """The path that Git asks a server for; None when the URL is not a plain one for ssh."""
    match = _PATH.fullmatch(url)
    return match["path"] if match else None


class Server:
    """What the server behind some masters has shown.

    ``most`` sessions a connection; ``version_2``: whether it greets in that version, None while its greeting is to be
    waited for; ``late``: how many did not get an answer soon.
    """

    def __init__(self, masters: list[Master]) -> None:
        self.masters = masters
        self.most = _SESSIONS
        self.distance = Distance()
        self.version_2: bool | None = None
        self.is_good = False
        self.bad = self.late = 0

    @property
    def is_left_to_git(self) -> bool:
        """Whether only Git asks it."""
        return self.bad >= _MOST_BAD and not self.is_good

    def refuse(self, master: Master) -> None:
        """Note that the server wants no more sessions over a master than there are besides one."""
        self.most = max(1, min(self.most, master.sessions - 1))
        self.bad += master.sessions == 1

    def open_masters(self) -> list[Master]:
        """The masters that can be shared, those with the fewest sessions first."""
        found = [master for master in self.masters if master.look() is State.OPEN]
        return sorted(found, key=lambda master: master.sessions)

    def free_master(self) -> Master | None:
        """A master with room for one more session."""
        return next((master for master in self.open_masters() if master.sessions < self.most), None)

    def may_need_more(self, sessions: int, most: int) -> bool:
        """Whether one more of at most so many masters is needed for so many sessions. A server may refuse it once."""
        is_refused = any(master.look() is State.GONE for master in self.masters)
        return not is_refused and len(self.masters) * self.most < sessions and len(self.masters) < most


class Sessions:
    """The sessions of one run: ``few`` at a time to a server, or ``many`` when it is far away.

    ``timeout``: seconds for a question, 0 for no limit.
    """

    def __init__(self, masters: Masters, settings: list[Entry] | None, few: int, many: int, timeout: float) -> None:
        self._masters = masters
        self._is_over = settings is None or bool(strange_keys(settings))
        self._few, self._many = few, many
        self._timeout = timeout
        self._servers: dict[tuple[str, ...], Server] = {}

    def _server(self, url: str) -> Server | None:
        key = None if self._is_over else self._masters.key_of(url)
        if key is None:
            return None
        return self._servers.setdefault(key, Server(self._masters.all_of(key)))

    def takes(self, command: Command) -> bool:
        """Whether a command is a question that may be asked here, and there is room for it."""
        tags = wrapper.asked_tags(command)
        url = "" if tags is None else wrapper.asked_url(command)
        server = self._server(url) if url else None
        if server is None or server.is_left_to_git or path_of(url) is None:
            return False
        return server.free_master() is not None

    def another(self, command: Command) -> Session:
        """A session for a question that is taken. Raises OSError, and takes none from then on."""
        server = self._server(wrapper.asked_url(command))
        master = server.free_master() if server else None
        try:
            if server is None or master is None:
                raise OSError("there is no room any more")
            return Session(server, master, self._timeout)
        except OSError:
            self._is_over = True
            raise

    def most(self, url: str, waiting: int) -> int:
        """How many questions to the server of a URL may be under way at once, of which so many wait.

        Opens further connections where that takes more than there are.
        """
        server = self._server(url)
        masters = server.open_masters() if server else []
        if server is None or not masters or server.is_left_to_git:
            return self._few
        wanted = self._many if server.distance.is_far else self._few
        while waiting >= wanted and server.may_need_more(wanted, self._few):
            if not self._masters.open_another(url):
                break
        return max(1, min(wanted, len(masters) * server.most))


class Session(Speaker):
    """One question over a master. Raises OSError when this program may open no more files."""

    def __init__(self, server: Server, master: Master, timeout: float) -> None:
        super().__init__(timeout or math.inf)
        self._server, self._master = server, master
        self._patience = min(_LATE, self._limit * _PART)
        self._begun = 0.0
        self._version_2: bool | None = None
        self._is_early = self._has_room = self._is_refused = False
        self._said, self._words = bytearray(), bytearray()
        with contextlib.ExitStack() as stack:
            self._socket = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._socket.setblocking(False)
            self._input, self._output = _pipe(stack), _pipe(stack)  # both ends, so that none looks closed
            os.set_blocking(self._output[0], False)
            self._stack = stack.pop_all()

    @property
    def pipes(self) -> tuple[int, ...]:
        """The descriptors that ``receive`` reads."""
        return self._socket.fileno(), self._output[0]

    def serves(self, command: Command, *, is_aside: bool) -> bool:
        """Whether it can run a command: none but the first."""
        del command, is_aside
        return False

    def begin(self, command: Command) -> None:
        """Start a command. When that does not work, ``receive`` finds no answer."""
        self.command, self._begun = command, time.monotonic()
        self._master.sessions += 1
        self._has_room = True
        with contextlib.suppress(OSError):
            if self._server.version_2 is not None:
                self._is_early = True
                self._say(version_2=self._server.version_2)
            self._ask_master(f"git-upload-pack '{path_of(wrapper.asked_url(command))}'")

    @property
    def _tags(self) -> tuple[str, ...]:
        return wrapper.asked_tags(self.command) or ()

    def _say(self, *, version_2: bool) -> None:
        self._version_2 = version_2
        os.write(self._input[1], lsrefs.words(self._tags, version_2=version_2))

    def _ask_master(self, command: str) -> None:
        self._socket.connect(str(self._master.path))
        self._socket.sendall(masterwords.opening(command))
        with open(os.devnull, "wb", buffering=0) as null:
            for descriptor in (self._input[0], self._output[1], null.fileno()):
                socket.send_fds(self._socket, [b"\0"], [descriptor])

    def set_deadline(self, now: float) -> bool:
        """Start the time limit of the command, False when it runs. Git asks when an early question takes long."""
        is_first = super().set_deadline(now)
        if is_first and self._is_early:
            self.passes_on = now + self._patience
        return is_first

    def receive(self) -> Result | Unclear | None:
        """Read what there is. The command has ended when the master says so: then it has passed on everything."""
        if self.has_ended:  # both descriptors had something to read
            return None
        try:
            is_open = take(self._socket.fileno(), self._words)
        except OSError:
            is_open = False
        take(self._output[0], self._said)
        try:
            self._listen()
            self._reply()
        except (OSError, ValueError):
            return self._result(None)
        return None if is_open else self._result(lsrefs.told(bytes(self._said), self._tags))

    def _listen(self) -> None:
        """Hear what the master says. Raises ValueError when it refuses."""
        for word in masterwords.heard(self._words):
            if word is Word.OPENED:
                self._server.distance.measure(time.monotonic() - self._begun)
            elif word is Word.REFUSED:
                self._is_refused = True
                self._server.refuse(self._master)
                raise ValueError("no session")

    def _reply(self) -> None:
        """Answer the server's greeting as Git does. Raises ValueError when it is none."""
        if len(self._said) > _LONGEST:
            raise ValueError("too long")
        if self._version_2 is None and (spoken := lsrefs.speaks_version_2(bytes(self._said))) is not None:
            self._say(version_2=spoken)

    def _result(self, listing: bytes | None) -> Result | Unclear:
        self.command, self.deadline, self.passes_on = (), math.inf, math.inf
        self.has_ended = True
        self._give_room()
        if listing is None:
            self._server.bad += not self._is_refused
            return UNCLEAR
        self._server.is_good = True
        if time.monotonic() - self._begun < self._patience / 2 and self._server.late < _MOST_BAD:
            self._server.version_2 = self._version_2
        return listing

    def _give_room(self) -> None:
        """Let another one have the room at the master."""
        if self._has_room:
            self._has_room = False
            self._master.sessions -= 1

    def dismiss(self) -> None:
        """Tell nothing: no other command would come."""

    def close(self) -> None:
        """Leave the session. The master ends it."""
        if self.command and time.monotonic() >= self.passes_on:
            self._server.late += 1
            self._server.version_2 = None
        self._give_room()
        self._stack.close()

    def ask_to_end(self) -> None:
        """Leave the session."""
        self.kill()

    def wait(self, until: float) -> None:
        """Wait for nothing: there is no process."""

    def kill(self) -> None:
        """Leave the session."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe that is closed with a stack: the end to read from, and the one to write to."""
    reads, writes = os.pipe()
    stack.callback(os.close, reads)
    stack.callback(os.close, writes)
    return reads, writes
