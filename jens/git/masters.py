"""One connection of ssh for all questions to a server: ssh(1) calls it a master.

Nothing is shared where somebody says how ssh is to be called, or has a ControlPath of his own. A master ends with its
run, however that ends: a process beside it waits for the end of a pipe that only the run holds. What goes wrong with a
master is no failure of a repository, for without it each question makes a connection of its own, and ssh tells what is
wrong. Sources: ssh(1), ssh_config(5).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from enum import Enum
from pathlib import Path

from jens.git import process as git_process
from jens.git.environment import BATCH_SSH, inherited_environment
from jens.git.process import GitOptions
from jens.git.settings import Entry, rewritten
from jens.system import processes

#: Bytes of a socket's path, and those that ssh adds while it makes the socket.
_LONGEST, _ADDED = 107, 17
#: Paths in which neither a shell nor ssh finds anything to replace.
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
#: Seconds in which a master ends when its connection is closed.
_MOMENT = 0.2
#: URLs that Git and this module read in the same way. The user and the host are no options.
_SSH = re.compile(r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*)(?::(?P<port>\d{1,5}))?/", re.ASCII)
_SCP = re.compile(r"(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*):(?!//)", re.ASCII)
#: The directory, and the arguments of ssh that name the server. Descriptor 3 is the pipe that the run holds.
_SCRIPT = """
exec 3<&0 </dev/null
directory=$1
shift
if ssh -G "$@" 2>/dev/null 3<&- | grep -iq '^controlpath '; then
    exit 1
fi
(
    read -r _ <&3
    rm -rf "$directory"
    kill 0
) &
exec ssh -oBatchMode=yes -oControlMaster=yes -oControlPath="$directory/master" -oControlPersist=no \
    -oClearAllForwardings=yes -oRemoteCommand=none -N -T "$@" 3<&-
"""


class State(Enum):
    """What has become of a master."""

    OPENING = "ssh is about to log in"
    OPEN = "it can be shared"
    GONE = "there is none"


class Master:
    """The master for one server and user, which ``arguments`` of ssh name. Raises OSError when nothing can be made."""

    def __init__(self, arguments: list[str]) -> None:
        self._directory = _private_directory()
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._has_been_open = False
        self.sessions = 0  # of questions
        self.is_given_up = False
        try:
            self._process = subprocess.Popen(
                ["sh", "-c", _SCRIPT, "sh", str(self._directory), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**inherited_environment(), **git_process.remote_environment(GitOptions())},
                start_new_session=True,
            )
        except OSError:
            self._stack.close()
            raise
        self._stack.callback(processes.end, self._process)
        self._stack.enter_context(git_process.watched(self._process))

    @property
    def path(self) -> Path:
        """Its socket."""
        return self._directory / "master"

    def look(self) -> State:
        """What has become of it by now."""
        if self._process.poll() is not None:
            return State.GONE
        self._has_been_open = self._has_been_open or self.path.exists()
        return State.OPEN if self._has_been_open else State.OPENING

    def has_ended(self, *, is_likely: bool) -> bool:
        """Whether it has ended. Where that is likely, it gets a moment: those who share it may see the end first."""
        return processes.has_ended(self._process, _MOMENT if is_likely else 0.0)

    def give_up(self) -> None:
        """End it, because it does not come to be."""
        self.is_given_up = True
        processes.signal_group(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and what is under way over it."""
        if self._process.stdin:
            self._process.stdin.close()
        self._stack.close()


def _private_directory() -> Path:
    """A new directory whose path is short enough for a socket. Raises OSError when there is no place for one."""
    for top in dict.fromkeys((tempfile.gettempdir(), "/tmp")):
        with contextlib.suppress(OSError):
            directory = Path(tempfile.mkdtemp(prefix="jens-", dir=top))
            if _may_have_socket(directory):
                return directory
            shutil.rmtree(directory, ignore_errors=True)
    raise OSError("there is no place for a socket")


def _may_have_socket(directory: Path) -> bool:
    """Whether ssh can make a master's socket there: it makes it under a longer name, and links it."""
    socket_path, link = directory / f"master{'x' * _ADDED}", directory / "link"
    if len(os.fsencode(socket_path)) > _LONGEST or not _PLAIN.fullmatch(str(directory)):
        return False
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(socket_path))
        os.link(socket_path, link)
    except OSError:
        return False
    socket_path.unlink()
    link.unlink()
    return True


def arguments_of(url: str) -> list[str] | None:
    """How Git names the server of a URL to ssh; None when the URL is not a plain one for ssh."""
    match = _SSH.match(url) if "://" in url else _SCP.match(url)
    if match is None:
        return None
    port = match.groupdict().get("port")
    user = match["user"]
    return [*(["-p", port] if port else []), f"{user}@{match['host']}" if user else match["host"]]


class Masters:
    """The masters of one run, one for each server and user that many questions are for."""

    def __init__(self, options: GitOptions, settings: list[Entry] | None) -> None:
        variables = git_process.remote_environment(options)
        is_own = any(name.startswith("GIT_SSH") for name in os.environ)
        self._is_over = settings is None or is_own or variables.get("GIT_SSH_COMMAND") != BATCH_SSH
        self._settings = settings or []
        self._masters: dict[tuple[str, ...], list[Master]] = {}

    def key_of(self, url: str) -> tuple[str, ...] | None:
        """The arguments of ssh for the server of a URL; None when nothing is shared with it."""
        arguments = None if self._is_over or rewritten(url, self._settings) != url else arguments_of(url)
        return None if arguments is None else tuple(arguments)

    def of(self, url: str, *, is_worth: bool = False) -> Master | None:
        """The master for a URL, one that is open if possible; None when there is none.

        If it ``is_worth`` it, one is opened, once.
        """
        key = self.key_of(url)
        if key is None:
            return None
        if key not in self._masters and is_worth:
            self._open(key)
        masters = self._masters.get(key, [])
        if len(masters) > 1:
            masters = sorted(masters, key=lambda master: (master.look() is not State.OPEN, master.sessions))
        return masters[0] if masters else None

    def all_of(self, key: tuple[str, ...]) -> list[Master]:
        """All masters for a server, also those that will be opened."""
        return self._masters.setdefault(key, [])

    def open_another(self, url: str) -> bool:
        """Open one more master for a URL. Returns False when that is not possible."""
        key = self.key_of(url)
        return key is not None and self._open(key)

    def _open(self, key: tuple[str, ...]) -> bool:
        masters = self.all_of(key)
        try:
            masters.append(Master([*key]))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """End all of them."""
        masters, self._masters = self._masters, {}
        for master in (each for found in masters.values() for each in found):
            master.close()
