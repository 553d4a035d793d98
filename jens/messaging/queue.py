"""The queue of hints: producers add which repositories have changed, jens-update takes it.

The queue has the format of python-dirq, which other programs write, too. An element is a directory ``NNNNNNNN/`` + 14
hexadecimal digits, with a file for each field. It is made in ``temporary/`` and removed through ``obsolete/``.

python-dirq adds and locks elements. This module lists, reads and removes them itself, because python-dirq takes
an unreadable directory for an empty one, reads files of any size and kind, and relies on link counts that some file
systems do not keep.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, NamedTuple

from jens.errors import QueueError
from jens.events import Event
from jens.messaging.message import decode, encode, timestamp
from jens.model import RepoId
from jens.system import files

log = logging.getLogger(__name__)

SCHEMA = {"time": "string", "data": "binary"}

#: A larger message is dropped, in bytes.
LARGEST_MESSAGE = 2**20
#: One run takes about so many bytes, or so many different repositories. The rest waits for the next run.
_MOST_BYTES = 2**22
_MOST_REPOSITORIES = 20_000
#: How often to try to add a message while others purge the queue.
_ATTEMPTS = 50
#: Older pieces and locks of elements are left-overs of processes that died, in seconds; the defaults of python-dirq.
TEMPORARY_AGE = 300
LOCK_AGE = 600

_DIRECTORY = re.compile(r"[0-9a-f]{8}|1[0-9a-f]{8}")  # after ffffffff python-dirq goes on with nine
_ELEMENT = re.compile(r"[0-9a-f]{14}")
_TEMPORARY, _OBSOLETE, _LOCKED = "temporary", "obsolete", "locked"


class Hints(NamedTuple):
    """The content of the queue: how many messages there are, and the elements and repositories of those that were read.

    ``dropped`` are elements that are no messages. ``events`` say what is wrong.
    """

    found: int = 0
    messages: tuple[str, ...] = ()
    repos: frozenset[RepoId] = frozenset()
    dropped: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()


class Queue:
    """The queue in a directory, which must exist: hints below a mount point that is not mounted would be lost."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _library_queue(self, schema: Mapping[str, str] | None = None) -> Any:
        """The queue as an object of python-dirq."""
        from dirq.queue import Queue as LibraryQueue  # noqa: PLC0415 - most runs find nothing in the queue

        return LibraryQueue(str(self.path), schema=schema)

    def add(self, repos: Iterable[RepoId], time: str | None = None) -> str:
        """Add one message and flush it to stable storage. Returns the name of its element. Raises QueueError."""
        self.check()
        fields = {"time": time or timestamp(), "data": encode(repos)}
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                name = str(self._library_queue(SCHEMA).add(fields))
                self._flush(name)
                return name
            except OSError as error:
                # Perhaps somebody purged the directory in which the element was made, or to which it was to be moved.
                if _number(error) not in (errno.ENOENT, None) or not attempts_left:
                    raise QueueError(self.path, _reason(error), "written") from error
        raise AssertionError("there are attempts")

    def _flush(self, name: str) -> None:
        element = self.path / name
        with suppress(FileNotFoundError):  # jens-update has already taken it
            for path in (*(element / field for field in SCHEMA), element, element.parent, self.path):
                files.flush(path)

    def check(self) -> None:
        """Raises QueueError when there is no directory that this process may read and write."""
        if not os.path.isdir(self.path):
            raise QueueError(self.path, "it is no directory" if os.path.lexists(self.path) else "it does not exist")
        for name in ("", _TEMPORARY, *self._directories()[-1:]):
            path = self.path / name
            if name and path.is_symlink():
                raise QueueError(path, "it is a symbolic link", "written")
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK) and path.exists():
                raise QueueError(path, "there is no permission", "written")
        try:
            room = os.statvfs(self.path)
        except OSError as error:
            raise QueueError(self.path, _reason(error), "written") from error
        if room.f_bavail == 0 or (room.f_files and room.f_favail == 0):
            raise QueueError(self.path, os.strerror(errno.ENOSPC), "written")

    def names(self) -> list[str]:
        """The names of all hints, locked or not, the oldest first; left-overs do not count. Raises QueueError."""
        return [
            f"{directory}/{name}"
            for directory in self._directories()
            for name in sorted(self._list(directory))
            if _ELEMENT.fullmatch(name)
        ]

    def _directories(self) -> list[str]:
        """The intermediate directories, the oldest first. Raises QueueError."""
        found = (name for name in self._list("") if _DIRECTORY.fullmatch(name))
        return sorted(found, key=lambda name: int(name, 16))

    def _list(self, directory: str) -> list[str]:
        try:
            if directory and (self.path / directory).is_symlink():
                return []  # not made by python-dirq
            return os.listdir(self.path / directory)
        except OSError as error:
            if directory and error.errno == errno.ENOENT:
                return []  # purged a moment ago
            raise QueueError(self.path / directory, _reason(error)) from error

    def look(self) -> Hints:
        """Read the messages and change nothing. Raises QueueError."""
        return self._gather(self.names(), lambda _name: None)

    def take(self) -> Hints:
        """Lock and read the messages. Drops ill-formed ones; the others stay until acknowledged. Raises QueueError.

        Takes locked messages, too: only the holder of the run lock reads, so whoever locked them has died.
        """
        hints = self._gather(self.names(), self._lock)
        return hints._replace(events=(*hints.events, *self.acknowledge(hints.dropped)))

    def _gather(self, names: Sequence[str], lock: Callable[[str], None]) -> Hints:
        messages, dropped, events = [], [], []
        repos: set[RepoId] = set()
        size = 0
        for position, name in enumerate(names):
            if size >= _MOST_BYTES or len(repos) >= _MOST_REPOSITORIES:
                text = f"{len(names) - position} messages are left for the next run"
                events.append(Event(logging.WARNING, text))
                break
            try:
                self._check_element(name)
                lock(name)
                data = self._read(name)
                size += len(data)
                named, problems = decode(data)
            except FileNotFoundError:
                continue  # somebody else has removed it
            except ValueError as error:
                dropped.append(name)
                events.append(Event(logging.ERROR, f"Message '{name}' is dropped: {error}"))
            except OSError as error:
                events.append(Event(logging.ERROR, f"Message '{name}' cannot be read: {_reason(error)}"))
            else:
                messages.append(name)
                repos |= named
                events += [Event(logging.WARNING, f"Message '{name}': {problem}") for problem in problems]
        return Hints(len(names), tuple(messages), frozenset(repos), tuple(dropped), tuple(events))

    def _lock(self, name: str) -> None:
        try:
            self._library_queue().lock(name)
        except OSError as error:
            log.debug("'%s' could not be locked: %s", name, error)  # if it is gone, _read raises

    def _check_element(self, name: str) -> None:
        """Raises FileNotFoundError when an element is gone, ValueError when it is not an element."""
        if not stat.S_ISDIR(os.lstat(self.path / name).st_mode):
            raise ValueError("it is no directory")
        try:
            mode = os.lstat(self.path / name / "data").st_mode
        except FileNotFoundError:
            os.lstat(self.path / name)
            raise ValueError("it has no data") from None
        if not stat.S_ISREG(mode):
            raise ValueError("its data is no file")

    def _read(self, name: str) -> bytes:
        """The data of an element. Raises FileNotFoundError when it is gone, ValueError when it is too large."""
        descriptor = os.open(self.path / name / "data", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            data = file.read(LARGEST_MESSAGE + 1)
        if len(data) > LARGEST_MESSAGE:
            raise ValueError(f"it has more than {LARGEST_MESSAGE} bytes")
        return data

    def acknowledge(self, names: Iterable[str]) -> list[Event]:
        """Remove messages whose work is done. Returns an event for each one that cannot be removed."""
        events = []
        for name in names:
            try:
                self._remove(name)
            except OSError as error:
                events.append(Event(logging.ERROR, f"Unable to remove message '{name}': {_reason(error)}"))
        return events

    def _remove(self, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(self.path / _OBSOLETE)
        obsolete = self.path / _OBSOLETE / os.urandom(7).hex()
        with suppress(FileNotFoundError):  # somebody else has removed it
            os.rename(self.path / name, obsolete)
            files.remove_tree(obsolete)

    def purge(self) -> list[Event]:
        """Remove what dead writers and readers left: pieces of elements, locks, empty directories. Raises QueueError.

        Unlike the purge of python-dirq, it never removes what a living process may be using.
        """
        pieces = [f"{top}/{name}" for top in (_TEMPORARY, _OBSOLETE) for name in self._list(top)]
        locks = [f"{name}/{_LOCKED}" for name in self.names() if not (self.path / name).is_symlink()]
        # Writers use the last directory. A directory that is newly empty may have been the last when a writer looked.
        directories = self._directories()[:-1]
        return [
            *self._clear([name for name in pieces if _ELEMENT.fullmatch(name[-14:])], TEMPORARY_AGE, files.remove_tree),
            *self._clear(locks, LOCK_AGE, os.rmdir),
            *self._clear(directories, TEMPORARY_AGE, os.rmdir),
        ]

    def _clear(self, names: Iterable[str], age: float, remove: Callable[[Path], object]) -> list[Event]:
        """Remove what has not changed for ``age`` seconds. Skips what is gone, and directories that are not empty."""
        events, oldest = [], time.time() - age
        for name in names:
            path = self.path / name
            try:
                if os.lstat(path).st_mtime >= oldest:
                    continue
                remove(path)
                if os.path.lexists(path):
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                events.append(Event(logging.INFO, f"Removed '{path}'"))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                    events.append(Event(logging.ERROR, f"Unable to remove '{path}': {_reason(error)}"))
        return events


def _number(error: OSError) -> int | None:
    """The error number. python-dirq raises errors of its own without it; then it is in the error's context."""
    cause = error.__context__
    return error.errno or (cause.errno if isinstance(cause, OSError) else None)


def _reason(error: OSError) -> str:
    number = _number(error)
    return os.strerror(number) if number else str(error)
