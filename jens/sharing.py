"""Checkouts share the files that they have in common, by hard links: most commits change few of many files.

What Git has to lay out is then only what differs. A checkout never changes, and Git replaces files and never writes
into them, so nobody can tell whether a file is shared.
"""

from __future__ import annotations

import contextlib
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
_MODES = {0o100644: 0o644, 0o100755: 0o755}
_ATTRIBUTES = b".gitattributes"


@dataclass(frozen=True)
class Entry:
    """A file in an index: as it was when Git wrote it (times in nanoseconds), and the object that it was made of."""

    path: bytes
    mode: int
    mtime: int
    size: int
    name: bytes

    def describes(self, status: os.stat_result) -> bool:
        """Whether a file is as it was then, and as a file of ours is."""
        return (
            status.st_mode == stat.S_IFREG | _MODES.get(self.mode, -1)
            and (status.st_mtime_ns, status.st_size & 0xFFFFFFFF) == (self.mtime, self.size)
            and status.st_uid == os.geteuid()
        )


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
        _, _, seconds, nanoseconds, _, _, mode, _, _, size, name, flags = _ENTRY.unpack_from(content, begin)
        if flags & (_EXTENDED | _ASSUMED | _STAGE):
            raise ValueError("an entry that no checkout of ours has")
        start = begin + _ENTRY.size
        end = content.index(b"\0", start + (flags & _LONG))
        yield Entry(content[start:end], mode, seconds * 10**9 + nanoseconds, size, name)
        begin += (end - begin) // 8 * 8 + 8  # padded with one to eight NULs


def share(entries: list[Entry], checkout: Path, staging: Path) -> None:
    """Link the files of a checkout, as far as they are as its index says, into a new directory.

    Whatever cannot be linked is left out: too many links to a file, a file system without.
    """
    with contextlib.suppress(OSError):
        source, target = os.fsencode(checkout), os.fsencode(staging)
        made = {b""}
        for entry in entries:
            path = b"%b/%b" % (source, entry.path)
            try:
                is_good = entry.describes(os.lstat(path))
            except OSError:
                continue
            if is_good:
                directory = entry.path.rpartition(b"/")[0]
                if directory not in made:
                    _make_directory(target, directory, made)
                os.link(path, b"%b/%b" % (target, entry.path))


def _make_directory(top: bytes, directory: bytes, made: set[bytes]) -> None:
    if directory not in made:
        _make_directory(top, directory.rpartition(b"/")[0], made)
        os.mkdir(b"%b/%b" % (top, directory), 0o755)
        made.add(directory)


def attributes(entries: list[Entry]) -> set[tuple[bytes, bytes]]:
    """What says how Git lays out files: as long as it is the same, files of the same object are the same."""
    return {(entry.path, entry.name) for entry in entries if os.path.basename(entry.path) == _ATTRIBUTES}
