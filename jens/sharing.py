"""Checkouts share the files that they have in common, by hard links: most commits change few of many files.

What Git has to lay out is then only what differs. A checkout never changes, and Git replaces files and never writes
into them. What somebody has changed by hand all the same is not shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jens.files import read_file

#: gitformat-index(5), versions 2 and 3: what an index begins with, and what each entry does.
_HEADER = struct.Struct(">4sLL")
_ENTRY = struct.Struct(">10L20sH")
_EXTENDED, _ASSUMED, _STAGE, _LONG = 0x4000, 0x8000, 0x3000, 0x0FFF
_SECOND = 10**9
_MODES = {0o100644: 0o644, 0o100755: 0o755}
_ATTRIBUTES = b".gitattributes"


@dataclass(frozen=True)
class Entry:
    """A file in an index: as it was when Git wrote it (times in nanoseconds), and the object that it was made of."""

    path: bytes
    mode: int
    ctime: int
    mtime: int
    size: int
    name: bytes

    def describes(self, path: bytes) -> bool:
        """Whether a file is as it was then, and as a file of ours is. Raises OSError.

        The kernel's word for that ends with the first link to it: from then on its content is compared.
        """
        status = os.lstat(path)
        if status.st_mode != stat.S_IFREG | _MODES.get(self.mode, -1) or status.st_uid != os.geteuid():
            return False
        if (status.st_mtime_ns, status.st_size & 0xFFFFFFFF) != (self.mtime, self.size):
            return False
        return status.st_ctime_ns == self.ctime or _object_name(read_file(os.fsdecode(path))) == self.name


def read_index(path: Path) -> list[Entry]:
    """The entries of an index; none when it is not there, damaged, or of a format that is not known here."""
    try:
        return list(_entries(read_file(path)))
    except (OSError, ValueError, struct.error):
        return []


def _entries(content: bytes) -> Iterator[Entry]:
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
        yield Entry(content[start:end], mode, ctime, mtime, size, name)
        begin += (end - begin) // 8 * 8 + 8  # padded with one to eight NULs


def share(entries: list[Entry], checkout: Path, staging: Path) -> None:
    """Link the files of a checkout, as far as they are as its index says, into a new directory.

    Whatever cannot be linked is left out: too many links to a file, a file system without.
    """
    with contextlib.suppress(OSError):
        source, target = os.fsencode(checkout), os.fsencode(staging)
        made = {b"": True}
        for entry in entries:
            directory = entry.path.rpartition(b"/")[0]
            if made[directory] if directory in made else _make_directory(source, target, directory, made):
                path = b"%b/%b" % (source, entry.path)
                if _is_good(entry, path):
                    os.link(path, b"%b/%b" % (target, entry.path))


def _is_good(entry: Entry, path: bytes) -> bool:
    try:
        return entry.describes(path)
    except OSError:
        return False


def _make_directory(source: bytes, target: bytes, directory: bytes, made: dict[bytes, bool]) -> bool:
    """Make a directory as it is in another checkout; False when that has none, but a link that somebody has put."""
    if directory not in made:
        above = directory.rpartition(b"/")[0]
        is_there = _make_directory(source, target, above, made) and _is_directory(b"%b/%b" % (source, directory))
        if is_there:
            os.mkdir(b"%b/%b" % (target, directory), 0o755)
        made[directory] = is_there
    return made[directory]


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _object_name(content: bytes) -> bytes:
    """What Git calls a file that it lays out as it is."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).digest()


def attributes(entries: list[Entry]) -> set[tuple[bytes, bytes]]:
    """What says how Git lays out files: as long as it is the same, files of the same object are the same."""
    return {(entry.path, entry.name) for entry in entries if os.path.basename(entry.path) == _ATTRIBUTES}
