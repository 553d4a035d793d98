"""Looks up objects by the beginning of their ids, and single commits, quickly enough for all mirrors of a site at once.

It starts no Git, and reads of each pack only a few places. Whatever is stored in another way is left to Git. Sources:
gitrepository-layout(5), gitformat-pack(5).
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jens.git.process import run
from jens.system.files import is_gone, is_there, open_file

_COUNT = struct.Struct(">L")
_LARGE = struct.Struct(">Q")
_VERSION_2 = b"\377tOc\0\0\0\2"
_HEADER = 8  # of an index, version 2, before its fan-out table
_TABLE = _HEADER + 256 * _COUNT.size
_NAME = 20
#: An offset with this bit is the number of a large offset.
_IS_LARGE = 0x80000000
#: The kind of an object that is stored as a whole, and is a commit.
_COMMIT = 1
#: How a commit begins.
_BEGIN = b"tree "


def ids_like(bare: Path, digits: str) -> list[str]:
    """The ids of all objects of a repository that begin with these digits (4 to 40). Raises GitError, OSError."""
    top = str(bare)
    try:
        packed = [*_packed_like(top, digits)]
    except (_ForGitError, FileNotFoundError, struct.error):  # a pack may have been replaced a moment ago
        return run(["rev-parse", f"--disambiguate={digits}"], git_dir=bare, shared=True).decode("ascii").split()
    loose = [f"{digits[:2]}{name}" for name in _names(f"{top}/objects/{digits[:2]}") if name.startswith(digits[2:])]
    return sorted({*packed, *(name for name in loose if len(name) == 2 * _NAME)})


class _ForGitError(Exception):
    """Only Git can read this."""


def read_packed(bare: Path, commit: str, most: int) -> bytes:
    """At most so many bytes of a commit (40 digits) in a pack.

    b'' when it is in none, is stored as a difference to another one, or cannot be read.
    """
    name = bytes.fromhex(commit)
    with contextlib.suppress(OSError, struct.error, zlib.error, IndexError, _ForGitError):
        for path in _indexes(str(bare)):
            with _opened(path) as index:
                offset = index.offset_of(name)
            if offset is not None:
                return _read_at(f"{path[: -len('idx')]}pack", offset, most)
    return b""


def _read_at(pack: str, offset: int, most: int) -> bytes:
    """The commit at an offset of a pack; b'' when something else is there."""
    descriptor = open_file(pack)
    try:
        content = os.pread(descriptor, most, offset)
    finally:
        os.close(descriptor)
    if content[0] >> 4 & 7 != _COMMIT:
        return b""
    place = 0
    while content[place] & 0x80:  # the size follows, seven bits a byte
        place += 1
    commit = zlib.decompressobj().decompress(content[place + 1 :], most)
    return commit if commit.startswith(_BEGIN) else b""


class _Index(NamedTuple):
    """An open index of a pack, version 2: how many names there are up to each first byte."""

    descriptor: int
    counts: tuple[int, ...]

    def range(self, first: int) -> tuple[int, int]:
        """The positions of the names that begin with this byte: the first one, and the one after the last."""
        return (self.counts[first - 1] if first else 0), self.counts[first]

    def names(self, first: int) -> bytes:
        """All names that begin with this byte, one behind the other."""
        begin, end = self.range(first)
        return os.pread(self.descriptor, (end - begin) * _NAME, _TABLE + begin * _NAME)

    def offset_of(self, name: bytes) -> int | None:
        """Where an object is in the pack; None when it is not there."""
        names = self.names(name[0])
        place = names.find(name)
        while place % _NAME and place >= 0:
            place = names.find(name, place + 1)
        if place < 0:
            return None
        total, position = self.counts[-1], self.range(name[0])[0] + place // _NAME
        offsets = _TABLE + total * (_NAME + _COUNT.size)
        [offset] = _COUNT.unpack(os.pread(self.descriptor, _COUNT.size, offsets + position * _COUNT.size))
        if not offset & _IS_LARGE:
            return int(offset)
        where = offsets + total * _COUNT.size + (offset ^ _IS_LARGE) * _LARGE.size
        return int(_LARGE.unpack(os.pread(self.descriptor, _LARGE.size, where))[0])


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Index]:
    """An index of a pack. Raises OSError, struct.error when it is cut off, _ForGitError for another version."""
    descriptor = open_file(path)
    try:
        head = os.pread(descriptor, _TABLE, 0)
        if head[:_HEADER] != _VERSION_2:
            raise _ForGitError
        yield _Index(descriptor, struct.unpack(">256L", head[_HEADER:]))
    finally:
        os.close(descriptor)


def _indexes(top: str) -> list[str]:
    """The indexes of all packs. Raises _ForGitError when objects are borrowed from elsewhere, OSError."""
    if is_there(f"{top}/objects/info/alternates"):
        raise _ForGitError
    return [f"{top}/objects/pack/{name}" for name in _names(f"{top}/objects/pack") if name.endswith(".idx")]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        if not is_gone(error):
            raise
        return []


def _packed_like(top: str, digits: str) -> Iterator[str]:
    begin = bytes.fromhex(digits[: len(digits) // 2 * 2])
    for path in _indexes(top):
        with _opened(path) as index:
            names = index.names(begin[0])
        place = names.find(begin)
        while place >= 0:
            if place % _NAME == 0 and (found := names[place : place + _NAME].hex()).startswith(digits):
                yield found
            place = names.find(begin, place + 1)
