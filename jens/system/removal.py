"""Deletes a directory and all in it, however deep it is: without recursion, and with three open files at most.

Every step is relative to the descriptor of a directory, so nobody can lead it elsewhere: neither with a link, nor by
moving a directory meanwhile.
"""

from __future__ import annotations

import errno
import os
from typing import Callable, NamedTuple

from jens.system.processes import is_stopping

#: To open a directory itself: never a link, and nothing that would wait, such as a pipe that somebody put in its place.
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: How often a directory is read: a file system may skip entries while others are deleted, and somebody may add some.
_MOST_READINGS = 20
#: How many names of a path an error has.
_MOST_NAMES = 8


def remove_directory(name: str, parent: int) -> OSError | None:
    """Delete the directory ``name`` in the one that ``parent`` is a descriptor of, as far as it can be deleted now.

    Returns why something stays, with a path that begins with ``name``; None when all is gone.
    """
    walk = _Walk(parent)
    try:
        walk.go_down(name)
        while walk.is_inside:
            if is_stopping():
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR), name)
            inside = walk.next_inside()
            if inside is None:
                walk.go_up()
            else:
                walk.go_down(inside)
    except OSError as error:
        return walk.problem or error
    finally:
        walk.close()
    return walk.problem


class _Level(NamedTuple):
    """A directory on the way: its name in the one above, which one it is, and the directories in it that are left."""

    name: str
    identity: tuple[int, int]
    inside: list[str]


class _Walk:
    """The way into a tree and out of it. Only the directory where it is, is open."""

    def __init__(self, parent: int) -> None:
        self.problem: OSError | None = None
        self._here = os.dup(parent)
        self._way = [_Level("", _identity(parent), [])]

    def close(self) -> None:
        """Close the directory where it is."""
        os.close(self._here)

    @property
    def is_inside(self) -> bool:
        """Whether it is in the tree still."""
        return len(self._way) > 1

    def next_inside(self) -> str | None:
        """A directory to go down into; None when there is none left."""
        inside = self._way[-1].inside
        return inside.pop() if inside else None

    def go_down(self, name: str) -> None:
        """Go into a directory, and delete in it what is no directory. One that cannot be opened stays."""
        try:
            below = os.open(name, DIRECTORY, dir_fd=self._here)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):  # somebody has put something else in its place
                self._try(os.unlink, name)
            else:
                self._note(error, name)
            return
        os.close(self._here)
        self._here = below
        self._way.append(_Level(name, _identity(below), []))
        self._way[-1].inside.extend(self._delete_files())

    def go_up(self) -> None:
        """Go back, and delete the directory that it comes from. Raises OSError when somebody has moved that."""
        left = self._way.pop()
        above = os.open("..", DIRECTORY, dir_fd=self._here)
        if _identity(above) != self._way[-1].identity:
            os.close(above)
            raise OSError(errno.ESTALE, "Somebody has moved it meanwhile", self._path(left.name))
        os.close(self._here)
        self._here = above
        self._try(os.rmdir, left.name)

    def _delete_files(self) -> list[str]:
        """Delete what is no directory. Returns the names of the directories."""
        directories: list[str] = []
        for _ in range(_MOST_READINGS):
            directories, are_some_deleted = [], False
            with os.scandir(self._here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.name)
                    else:
                        are_some_deleted |= self._try(os.unlink, entry.name)
            if not are_some_deleted:
                break
        return directories

    def _try(self, delete: Callable[..., None], name: str) -> bool:
        """Delete an entry of the directory where it is. Returns whether that was possible."""
        try:
            delete(name, dir_fd=self._here)
        except OSError as error:
            self._note(error, name)
            return False
        return True

    def _note(self, error: OSError, name: str) -> None:
        """Keep the first problem; what is gone already is none."""
        if self.problem is None and error.errno != errno.ENOENT:
            self.problem = OSError(error.errno, error.strerror, self._path(name))

    def _path(self, name: str) -> str:
        names = [level.name for level in self._way[1 : 1 + _MOST_NAMES]]
        return "/".join([*names, *(["…"] if len(self._way) > 1 + _MOST_NAMES else []), name])


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
