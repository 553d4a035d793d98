"""Hard links between checkouts for the files that they have in common: most commits change few of many files.

Git then lays out only the files that differ. Links are safe, because a checkout never changes, and because Git replaces
files and never writes into them. A file that somebody has changed by hand nevertheless is not linked.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jens.system.files import read_pieces

#: gitformat-index(5), versions 2 and 3: the header of an index, the fixed part of an entry, the first field of that
#: part, and the checksum at the end of the index.
_HEADER = struct.Struct(">4sLL")
_ENTRY = struct.Struct(">10L20sH")
_TIME = struct.Struct(">2L")
_CHECKSUM = hashlib.sha1().digest_size
_EXTENDED, _ASSUMED, _STAGE, _LONG = 0x4000, 0x8000, 0x3000, 0x0FFF
_SECOND = 10**9
_MODES = {0o100644: 0o644, 0o100755: 0o755}
_ATTRIBUTES = b".gitattributes"
#: The mode of a submodule, as an index has it.
_SUBMODULE = struct.pack(">L", 0o160000)
#: Where in an entry its mode is, and at what multiples of bytes entries begin, after the header.
_MODE, _ALIGNED = 24, 8


class Entry(NamedTuple):
    """A file in an index: its state when Git wrote it (times in nanoseconds), and the ``name`` of its object.

    ``position`` is the offset of the entry in the index, in bytes.
    """

    path: bytes
    mode: int
    ctime: int
    mtime: int
    size: int
    name: bytes
    position: int

    def describes(self, path: bytes) -> bool:
        """Whether a file is unchanged, and has the mode and owner that Jens gives its files. Raises OSError.

        Another hard link to a file changes its ctime. So the content is compared when the ctime differs.
        """
        status = os.lstat(path)
        if status.st_mode != stat.S_IFREG | _MODES.get(self.mode, -1) or status.st_uid != os.geteuid():
            return False
        if status.st_mtime_ns != self.mtime or status.st_size & 0xFFFFFFFF != self.size:
            return False
        return status.st_ctime_ns == self.ctime or _object_name(path, status.st_size) == self.name


def is_whole(index: bytes) -> bool:
    """Whether an index is undamaged: it ends with the checksum of all before."""
    return hashlib.sha1(index[:-_CHECKSUM]).digest() == index[-_CHECKSUM:]


def is_special(index: bytes | mmap.mmap) -> bool:
    """Whether an index may name .gitattributes files or submodules: hardly any does, and this is soon known."""
    return index.find(_ATTRIBUTES) >= 0 or _may_have_submodules(index)


def _may_have_submodules(index: bytes | mmap.mmap) -> bool:
    place = index.find(_SUBMODULE)
    while place >= 0 and (place - _HEADER.size - _MODE) % _ALIGNED:
        place = index.find(_SUBMODULE, place + 1)
    return place >= 0


class Index:
    """What Git knows about the files of a checkout. Raises ValueError when it is damaged, or in an unknown format."""

    def __init__(self, content: bytes) -> None:
        if not is_whole(content):
            raise ValueError("the index is damaged")
        self._content = content

    def entries(self) -> Iterator[Entry]:
        """The entries, one for each file. Raises ValueError."""
        content = self._content
        signature, version, count = _HEADER.unpack_from(content)
        if signature != b"DIRC" or version not in (2, 3):
            raise ValueError("not an index of version 2 or 3")
        begin = _HEADER.size
        for _ in range(count):
            changed, changed_part, written, written_part, _, _, mode, _, _, size, name, flags = _ENTRY.unpack_from(
                content, begin
            )
            if flags & (_EXTENDED | _ASSUMED | _STAGE):
                raise ValueError("an entry that no checkout of ours has")
            start = begin + _ENTRY.size
            end = content.index(b"\0", start + (flags & _LONG))
            ctime, mtime = changed * _SECOND + changed_part, written * _SECOND + written_part
            yield Entry(content[start:end], mode, ctime, mtime, size, name, begin)
            begin += (end - begin) // 8 * 8 + 8  # padded with one to eight NULs

    def attributes(self) -> set[tuple[bytes, bytes]]:
        """The .gitattributes files, path and object; they decide how Git lays out the other files.

        While they are the same, Git lays out the same object as the same file. Raises ValueError.
        """
        if _ATTRIBUTES not in self._content:  # the usual case
            return set()
        entries = self.entries()
        return {(entry.path, entry.name) for entry in entries if os.path.basename(entry.path) == _ATTRIBUTES}

    def submodules(self) -> list[bytes]:
        """The paths of submodules. Raises ValueError."""
        entries = self.entries() if _may_have_submodules(self._content) else ()
        return [entry.path for entry in entries if entry.mode == 0o160000]

    def share(self, checkout: Path, staging: Path) -> bytes:
        """Link the files of a checkout that are unchanged according to its index into a new directory.

        Returns an index for the linked files, whose ctime has changed. Files that cannot be linked are left out: they
        have too many links, or the file system has no hard links. Raises ValueError.
        """
        source, target = os.fsencode(checkout), os.fsencode(staging)
        made = {b"": True}
        index = bytearray(self._content)
        for entry in self.entries():
            directory = entry.path.rpartition(b"/")[0]
            try:
                if made[directory] if directory in made else _make_directory(source, target, directory, made):
                    path = b"%b/%b" % (source, entry.path)
                    if entry.describes(path):
                        os.link(path, b"%b/%b" % (target, entry.path))
                        seconds, part = divmod(os.lstat(path).st_ctime_ns, _SECOND)
                        _TIME.pack_into(index, entry.position, seconds & 0xFFFFFFFF, part)
            except OSError:
                continue
        index[-_CHECKSUM:] = hashlib.sha1(index[:-_CHECKSUM]).digest()
        return bytes(index)


def _make_directory(source: bytes, target: bytes, directory: bytes, made: dict[bytes, bool]) -> bool:
    """Make a directory that another checkout has; False when it is none there, but a link that somebody made."""
    missing = []
    while directory not in made:  # no recursion: a tree may have any depth
        missing.append(directory)
        directory = directory.rpartition(b"/")[0]
    is_there = made[directory]
    for directory in reversed(missing):
        made[directory] = False
        if is_there and _is_directory(b"%b/%b" % (source, directory)):
            os.mkdir(b"%b/%b" % (target, directory), 0o755)
            made[directory] = True
        is_there = made[directory]
    return is_there


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _object_name(path: bytes, size: int) -> bytes:
    """The name of the object of a file that Git lays out without conversion. ``size`` in bytes. Raises OSError."""
    name = hashlib.sha1(b"blob %d\0" % size)
    for piece in read_pieces(os.fsdecode(path)):  # a file may be larger than the memory
        name.update(piece)
    return name.digest()
