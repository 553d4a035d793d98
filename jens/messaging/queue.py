"""The queue of hints: producers add which repositories have changed, jens-update takes it.

Each message is an element on disk (``jens.messaging.elements``).

Others may write to the queue, and must not gain more by it. So each step is relative to a directory that is open, and
follows no link below the queue's own directory. python-dirq works with paths, takes an unreadable directory for an
empty one, reads files of any size and kind, and relies on link counts that some file systems do not keep.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Callable, NamedTuple

from jens.errors import QueueError
from jens.events import Event
from jens.messaging import elements
from jens.messaging.message import Move, decode, decode_moves, encode, encode_moves, parse_time, timestamp
from jens.model import RepoId
from jens.system import descriptors

log = logging.getLogger(__name__)


#: One run takes about so many bytes, or so many different repositories. The rest waits for the next run.
_MOST_BYTES = 2**22
_MOST_REPOSITORIES = 20_000
#: One run takes so many messages, and reads for about so many seconds. It deletes for as long; the purge does the rest.
_MOST_MESSAGES = 10_000
_MOST_SECONDS = 5.0
#: So many messages are told of one by one; of the others their number.
_MOST_TOLD = 20
#: How often to try to add a message while others purge the queue.
_ATTEMPTS = 50
#: Older pieces and locks of elements are left-overs of processes that died, in seconds; the defaults of python-dirq.
TEMPORARY_AGE = 300
LOCK_AGE = 600


class Push(NamedTuple):
    """A push that a message tells of: the message, the repository, and the move of a branch."""

    message: str
    repo: RepoId
    move: Move

    @property
    def added(self) -> int:
        """When the message was added, in seconds since the epoch."""
        return int(_added(self.message))


def _added(message: str) -> float:
    """When a message was added, in seconds since the epoch: its name says so."""
    name = message.rpartition("/")[2]
    return int(name[:8], 16) + min(int(name[8:13], 16) / 1e6, 1.0)


class Hints(NamedTuple):
    """The content of the queue: how many messages there are, and the elements and repositories of those that were read.

    ``dropped`` are elements that are no messages. ``events`` say what is wrong. ``pushes`` is in the order of messages.
    ``times`` has the time of the oldest message for each repository, in seconds since the epoch.
    """

    found: int = 0
    messages: tuple[str, ...] = ()
    repos: frozenset[RepoId] = frozenset()
    dropped: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    pushes: tuple[Push, ...] = ()
    times: Mapping[RepoId, float] = MappingProxyType({})


class Queue:
    """The queue in a directory, which must exist: hints below a mount point that is not mounted would be lost."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The descriptor of the queue's directory; its path may have links of the administrator. Raises QueueError."""
        try:
            top = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise QueueError(self.path, _reason(error)) from error
        try:
            yield top
        finally:
            os.close(top)

    def add(
        self, repos: Iterable[RepoId], time: str | None = None, moves: Mapping[RepoId, Sequence[Move]] | None = None
    ) -> str:
        """Add one message and flush it to stable storage. Returns the name of its element. Raises QueueError.

        ``moves``: the branches that pushes have moved, by repository.
        """
        self.check()
        fields = {"time": (time or timestamp()).encode("utf-8"), "data": encode(repos)}
        if moves and any(moves.values()):
            fields[elements.AFTER] = encode_moves(moves)
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                with self._opened() as top:
                    return elements.add(top, fields)
            except OSError as error:
                # Perhaps somebody purged the directory in which the element was made, or to which it was to be moved.
                if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY) or not attempts_left:
                    raise QueueError(self.path, _reason(error), "written") from error
        raise AssertionError("there are attempts")

    def check(self) -> None:
        """Raises QueueError when there is no directory that this process may read and write."""
        if not os.path.isdir(self.path):
            raise QueueError(self.path, "it is no directory" if os.path.lexists(self.path) else "it does not exist")
        with self._opened() as top:
            last = self._directories(top)[-1:]
        for name in ("", elements.TEMPORARY, *last):
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
        with self._opened() as top:
            return self._names(top)

    def _names(self, top: int) -> list[str]:
        return [
            f"{directory}/{name}"
            for directory in self._directories(top)
            for name in sorted(self._list(top, directory))
            if elements.ELEMENT.fullmatch(name)
        ]

    def _directories(self, top: int) -> list[str]:
        """The intermediate directories, the oldest first. Raises QueueError."""
        try:
            return elements.directories(top)
        except OSError as error:
            raise QueueError(self.path, _reason(error)) from error

    def _list(self, top: int, directory: str) -> list[str]:
        try:
            with descriptors.opened(directory, top) as descriptor:
                return os.listdir(descriptor)
        except FileNotFoundError:
            return []  # purged a moment ago
        except OSError as error:
            if descriptors.is_link(directory, top):
                return []  # not made by a program that keeps to the format
            raise QueueError(self.path / directory, _reason(error)) from error

    def look(self) -> Hints:
        """Read the messages and change nothing. Raises QueueError."""
        with self._opened() as top:
            return _gather(top, self._names(top), lock=False)

    def take(self) -> Hints:
        """Lock and read the messages. Drops ill-formed ones; the others stay until acknowledged. Raises QueueError.

        Takes locked messages, too: only the holder of the run lock reads, so whoever locked them has died.
        """
        with self._opened() as top:
            hints = _gather(top, self._names(top), lock=True)
        return hints._replace(events=(*hints.events, *self.acknowledge(hints.dropped)))

    def acknowledge(self, names: Sequence[str]) -> list[Event]:
        """Remove messages whose work is done. Returns an event for each one that cannot be removed.

        What takes too long to delete is left in ``obsolete/`` for the purge.
        """
        told = _Told()
        until = time.monotonic() + _MOST_SECONDS
        for name in names:
            try:
                with self._opened() as top:
                    elements.remove(top, name, until)
            except OSError as error:
                told.add(logging.ERROR, f"Unable to remove message '{name}': {_reason(error)}", "cannot be removed")
            except QueueError as error:
                told.add(logging.ERROR, f"Unable to remove message '{name}': {error.problem}", "cannot be removed")
        return [*told.events()]

    def is_without(self, name: str, repos: Collection[RepoId]) -> bool:
        """Whether a message is certain to name none of these repositories."""
        try:
            with self._opened() as top:
                return decode(elements.take(top, name, lock=False)[0])[0].isdisjoint(repos)
        except (OSError, QueueError, ValueError):
            return False

    def purge(self) -> list[Event]:
        """Remove what dead writers and readers left: pieces of elements, locks, empty directories. Raises QueueError.

        Unlike the purge of python-dirq, it never removes what a living process may be using.
        """
        with self._opened() as top:
            events = []
            for place in (elements.TEMPORARY, elements.OBSOLETE):
                names = [name for name in self._list(top, place) if elements.ELEMENT.fullmatch(name)]
                events += self._clear(top, place, names, TEMPORARY_AGE, descriptors.discard)
            for name in self._names(top):
                events += self._clear(top, name, [elements.LOCKED], LOCK_AGE, descriptors.remove_directory)
            # Writers use the last directory. One that is newly empty may have been the last when a writer looked.
            directories = self._directories(top)[:-1]
            events += self._clear(top, "", directories, TEMPORARY_AGE, descriptors.remove_directory)
        return events

    def _clear(
        self, top: int, place: str, names: Sequence[str], age: float, remove: Callable[[int, str], None]
    ) -> list[Event]:
        """Remove what has not changed for ``age`` seconds. Skips what is gone, and directories that are not empty."""
        events, oldest = [], time.time() - age
        for name in names:
            path = self.path / place / name
            try:
                with descriptors.opened(place, top) as directory:
                    if os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime >= oldest:
                        continue
                    remove(directory, name)
                events.append(Event(logging.INFO, f"Removed '{path}'"))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                    events.append(Event(logging.ERROR, f"Unable to remove '{path}': {_reason(error)}"))
        return events


# Reading messages


def _gather(top: int, names: Sequence[str], *, lock: bool) -> Hints:
    """Read messages, within the limits of a run."""
    messages: list[str] = []
    dropped: list[str] = []
    told = _Told()
    repos: set[RepoId] = set()
    pushes: list[Push] = []
    times: dict[RepoId, float] = {}
    size = 0
    until = time.monotonic() + _MOST_SECONDS
    for position, name in enumerate(names):
        is_enough = len(messages) + len(dropped) >= _MOST_MESSAGES or time.monotonic() > until
        if is_enough or size >= _MOST_BYTES or len(repos) >= _MOST_REPOSITORIES:
            told.add(logging.WARNING, f"{len(names) - position} messages are left for the next run")
            break
        try:
            data, after, told_time = elements.take(top, name, lock=lock)
            size += len(data)
            named, problems = decode(data)
        except FileNotFoundError:
            continue  # somebody else has removed it
        except ValueError as error:
            dropped.append(name)
            told.add(logging.ERROR, f"Message '{name}' is dropped: {error}", "are dropped")
        except OSError as error:
            told.add(logging.ERROR, f"Message '{name}' cannot be read: {_reason(error)}", "cannot be read")
        else:
            messages.append(name)
            repos |= named
            told_at = parse_time(told_time, _added(name))
            times.update((repo, min(told_at, times.get(repo, told_at))) for repo in named)
            moves, more = _moves(after)
            pushes += [Push(name, repo, move) for repo in sorted(named & moves.keys()) for move in moves[repo]]
            for problem in (*problems, *more):
                told.add(logging.WARNING, f"Message '{name}': {problem}", "are ill-formed in parts")
    return Hints(len(names), tuple(messages), frozenset(repos), tuple(dropped), told.events(), tuple(pushes), times)


def _moves(after: bytes) -> tuple[Mapping[RepoId, Sequence[Move]], list[str]]:
    """The moves of branches by repository, and what is ill-formed."""
    if not after:
        return {}, []
    try:
        return decode_moves(after), []
    except ValueError:
        return {}, [f"{elements.AFTER} is ignored, expected moves of branches"]


class _Told:
    """Events of messages: the first ones of each kind, and how many more there are."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._kinds: dict[str, list[int]] = {}

    def add(self, level: int, text: str, kind: str = "") -> None:
        """Add an event; ``kind`` says in the plural what is wrong with the messages."""
        counted = self._kinds.setdefault(kind, [level, 0])
        counted[1] += 1
        if counted[1] <= _MOST_TOLD:
            self._events.append(Event(level, text))

    def events(self) -> tuple[Event, ...]:
        """The events, and one for each kind of which there are more."""
        more = [(level, number - _MOST_TOLD, kind) for kind, (level, number) in self._kinds.items()]
        rest = [Event(level, f"{number} more messages {kind}") for level, number, kind in more if number > 0]
        return (*self._events, *rest)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
