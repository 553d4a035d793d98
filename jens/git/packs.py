"""Packs and their indexes, read without a Git: gitformat-pack(5).

To start a Git takes longer than to read a few objects. Whatever is not as usual here is left to Git: so nothing that is
found here is a verdict on a repository.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from jens.system.files import is_gone, is_there, open_file

#: Bytes of an object's name.
NAME = 20
#: Kinds of objects, and of differences to another object: near in the same pack, and given by its name.
COMMIT, TREE, BLOB, TAG, NEAR_DELTA, NAMED_DELTA = 1, 2, 3, 4, 6, 7
KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}

#: The beginning of an index, version 2, and the table of first bytes after it.
_BEGINNING, _FIRSTS = b"\xfftOc\0\0\0\x02", struct.Struct(">256L")
_TABLE = len(_BEGINNING) + _FIRSTS.size
_CHECKSUM, _OFFSET, _FAR = struct.Struct(">L"), struct.Struct(">L"), struct.Struct(">Q")
#: An offset with this bit is the number of a far offset.
_IS_FAR = 1 << 31
#: An index up to this size is read at once.
_SMALL = 1 << 16


class UnreadError(Exception):
    """Something is not as usual. Ask Git."""


def indexes(objects: str) -> list[str]:
    """The indexes of all packs below ``objects``. Raises UnreadError when objects are borrowed, and OSError."""
    if is_there(f"{objects}/info/alternates"):
        raise UnreadError("objects are borrowed from another repository")
    return [f"{objects}/pack/{name}" for name in names_in(f"{objects}/pack") if name.endswith(".idx")]


def names_in(directory: str) -> list[str]:
    """The names in a directory; none when it is not there. Raises OSError."""
    try:
        return os.listdir(directory)
    except OSError as error:
        if not is_gone(error):
            raise
        return []


class Index:
    """An open index of a pack, version 2. It is not mapped: somebody may cut it off.

    Opening raises OSError, UnreadError for another version, and for one that is cut off. The rest raises struct.error
    when it is cut off.
    """

    def __init__(self, path: str, largest: int | None = None) -> None:
        self._descriptor = open_file(path)
        try:
            size = os.fstat(self._descriptor).st_size
            if largest is not None and size > largest:
                raise UnreadError(f"{path} is large")
            self._whole = os.pread(self._descriptor, size, 0) if size <= _SMALL else b""
            beginning = self._at(0, _TABLE)
            if not beginning.startswith(_BEGINNING) or len(beginning) < _TABLE:
                raise UnreadError(f"{path} is no index of version 2")
        except BaseException:
            os.close(self._descriptor)
            raise
        self._firsts = (0, *_FIRSTS.unpack_from(beginning, len(_BEGINNING)))
        self._known: dict[int, bytes] = {}

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _at(self, begin: int, size: int) -> bytes:
        return self._whole[begin : begin + size] if self._whole else os.pread(self._descriptor, size, begin)

    def find(self, name: bytes) -> int | None:
        """Where an object is in the pack; None when it is not there."""
        place = self._place(name[0], name)
        return None if place is None else self._offset(self._firsts[name[0]] + place)

    def like(self, digits: str) -> Iterator[str]:
        """The ids that begin with these digits (4 to 40)."""
        begin = bytes.fromhex(digits[: len(digits) // 2 * 2])
        names = self._names(begin[0])
        place = names.find(begin)
        while place >= 0:
            if place % NAME == 0 and (found := names[place : place + NAME].hex()).startswith(digits):
                yield found
            place = names.find(begin, place + 1)

    def _names(self, first: int) -> bytes:
        """All names that begin with this byte, one behind the other."""
        if first not in self._known:
            begin, end = self._firsts[first], self._firsts[first + 1]
            self._known[first] = self._at(_TABLE + begin * NAME, (end - begin) * NAME)
        return self._known[first]

    def _place(self, first: int, name: bytes) -> int | None:
        """The position of a name among those that begin with the same byte."""
        names = self._names(first)
        at = names.find(name)
        while at >= 0 and at % NAME:
            at = names.find(name, at + 1)
        return None if at < 0 else at // NAME

    def _offset(self, number: int) -> int:
        count = self._firsts[-1]
        offsets = _TABLE + count * (NAME + _CHECKSUM.size)
        [offset] = _OFFSET.unpack(self._at(offsets + number * _OFFSET.size, _OFFSET.size))
        if offset < _IS_FAR:
            return int(offset)
        far = offsets + count * _OFFSET.size + (offset ^ _IS_FAR) * _FAR.size
        return int(_FAR.unpack(self._at(far, _FAR.size))[0])


class Entry(NamedTuple):
    """The beginning of an object in a pack: its kind, the size of what is compressed, and where the rest begins.

    Of a NEAR_DELTA the distance of its base comes first, of a NAMED_DELTA the name of its base.
    """

    kind: int
    size: int
    end: int


def entry(content: bytes) -> Entry:
    """Read the beginning of an object in a pack. Raises IndexError when it is cut off."""
    byte, at = content[0], 1
    kind, size, shift = byte >> 4 & 7, byte & 15, 4
    while byte & 0x80:
        byte = content[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return Entry(kind, size, at)
