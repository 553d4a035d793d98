"""Find great damage in a mirror's files without starting Git, cheaply enough for each mirror in each run.

Sources: gitrepository-layout(5), gitformat-pack(5). Git itself finds deeper damage when it reads the damaged objects.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jens.git import wrapper
from jens.system.files import is_there, is_verdict, open_file, read_file

#: A file that marks a mirror as damaged. The mirror has lost objects that most runs do not need.
_DAMAGED = "jens.damaged"
_HEAD = re.compile(rb"(ref: refs/\S+|[0-9a-f]{40})\s*")
_CHECKSUM = 20
_COUNT = struct.Struct(">L")
_COUNTS = struct.Struct(">LL")
_VERSION_2 = b"\377tOc\0\0\0\2"
_HEADER = 8  # of an index, version 2, before its fan-out table
_TABLE = _HEADER + 256 * _COUNT.size


def examine(bare: Path) -> tuple[str | None, dict[str, str]]:
    """Why a mirror must be made anew, as a predicate ("is damaged"), or None; and the branches that can be read.

    Raises OSError when nobody can look now.
    """
    heads: dict[str, str] = {}
    if not wrapper.is_repository(bare):
        return "is missing or no repository", heads
    if is_there(f"{bare}/{_DAMAGED}"):
        return "is damaged", heads
    try:
        heads = wrapper.heads(bare)
        damage = find_damage(bare, heads.values())
    except OSError as error:
        if not is_verdict(error):
            raise
        damage = f"{error.filename}: {error.strerror}"
    return f"is damaged ({damage})" if damage else None, heads


def mark_damaged(bare: Path) -> None:
    """Mark a mirror, so that the next run makes it anew. Raises OSError."""
    (bare / _DAMAGED).touch()


def find_damage(bare: Path, commits: Iterable[str]) -> str | None:
    """What is wrong with a mirror that should have these commits (40 digits), as a clause; None when nothing is.

    Raises OSError when nobody can look now.
    """
    top = str(bare)  # strings and not paths: each mirror is looked at in each run
    try:
        if not _HEAD.fullmatch(read_file(f"{top}/HEAD")):
            return "its HEAD is no reference"
        if b"[core]" not in read_file(f"{top}/config"):
            return "its configuration is none"
        os.stat(f"{top}/refs")  # a backup may leave empty directories out
        missing = list(commits)
        for pack in _packs(f"{top}/objects/pack"):
            with _opened(f"{pack[: -len('pack')]}idx") as index:
                if not _is_whole(pack, index):
                    return f"{os.path.basename(pack)} is cut off"
                missing = [commit for commit in missing if not _is_in(index, bytes.fromhex(commit))]
        if missing and is_there(f"{top}/objects/info/alternates"):
            return None  # borrowed objects are not examined
        missing = [commit for commit in missing if not _is_loose(top, commit)]
    except OSError as error:
        if not is_verdict(error):
            raise
        return f"{error.filename}: {error.strerror}"
    except struct.error:
        return "an index of a pack is cut off"
    return f"it has lost {missing[0]}" if missing else None


def _packs(directory: str) -> Iterator[str]:
    for name in os.listdir(directory):
        if name.startswith("pack-") and name.endswith(".idx"):
            yield f"{directory}/{name[: -len('idx')]}pack"


class _File(NamedTuple):
    """An open file and its size in bytes."""

    descriptor: int
    size: int

    def tail(self, size: int) -> bytes:
        return os.pread(self.descriptor, size, max(0, self.size - size))


@contextmanager
def _opened(path: str) -> Iterator[_File]:
    descriptor = open_file(path)
    try:
        yield _File(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def _is_whole(pack: str, index: _File) -> bool:
    """Whether a pack ends with the checksum that its index has for it."""
    with _opened(pack) as file:
        return file.tail(_CHECKSUM) == index.tail(2 * _CHECKSUM)[:_CHECKSUM]


def _is_loose(top: str, commit: str) -> bool:
    try:
        return os.stat(f"{top}/objects/{commit[:2]}/{commit[2:]}").st_size > 0
    except FileNotFoundError:
        return False


def _is_in(index: _File, name: bytes) -> bool:
    if os.pread(index.descriptor, _HEADER, 0) != _VERSION_2:
        return True  # an index of another version, which only Git can read
    # The fan-out table counts the names up to each first byte: those with the first byte of this one lie in between.
    place = _HEADER + name[0] * _COUNT.size
    if name[0]:
        first, last = _COUNTS.unpack(os.pread(index.descriptor, _COUNTS.size, place - _COUNT.size))
    else:
        first, [last] = 0, _COUNT.unpack(os.pread(index.descriptor, _COUNT.size, place))
    names = os.pread(index.descriptor, (last - first) * len(name), _TABLE + first * len(name))
    place = names.find(name)
    while place % len(name) and place >= 0:
        place = names.find(name, place + 1)
    return place >= 0
