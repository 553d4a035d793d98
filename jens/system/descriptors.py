"""Steps relative to open directories: nobody can lead them elsewhere, neither with a link nor by moving a directory.

``above``, ``place`` and ``directory`` are descriptors of directories. Use this where others may write, too.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress


@contextlib.contextmanager
def opened(name: str, above: int) -> Iterator[int]:
    """The descriptor of a directory, one or two levels below another; no link is followed. Raises OSError."""
    first, _, second = name.partition("/")
    descriptor = os.open(first or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        if not second:
            yield descriptor
        else:
            with opened(second, descriptor) as found:
                yield found
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def made(name: str, above: int) -> Iterator[int]:
    """The descriptor of a directory, which is made if it is missing. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    with opened(name, above) as descriptor:
        yield descriptor


def is_link(name: str, above: int) -> bool:
    """Whether there is a symbolic link of this name; False when nobody can look."""
    with suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    return False


def remove_directory(place: int, name: str) -> None:
    """Remove an empty directory. Raises OSError."""
    os.rmdir(name, dir_fd=place)


def discard(place: int, name: str, until: float = math.inf) -> None:
    """Delete something in a directory, with all that is in it, until a time of the monotonic clock. Raises OSError.

    Directories in it move up beside it first. So any depth needs neither recursion nor many descriptors, and no step
    follows a link, or leads up to where somebody else has moved a directory.
    """
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if not stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=place)
            continue
        with opened(name, place) as directory:
            for entry in os.listdir(directory):
                if time.monotonic() > until:
                    return
                try:
                    os.unlink(entry, dir_fd=directory)
                except IsADirectoryError:
                    waiting += _lift(entry, directory, place)
        os.rmdir(name, dir_fd=place)


def _lift(name: str, directory: int, place: int) -> list[str]:
    """Move a directory up to ``place``, unless it is empty and can go. Returns its new name there. Raises OSError."""
    with suppress(OSError):
        os.rmdir(name, dir_fd=directory)
        return []
    fresh = os.urandom(7).hex()
    os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=place)
    return [fresh]
