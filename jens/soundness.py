"""A look at a mirror's files that finds great damage without starting Git, cheap enough for each mirror in each run.

Sources: gitrepository-layout(5), gitformat-pack(5). What is damaged deeper, Git tells when it needs it.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from jens.files import open_file, read_file

_HEAD = re.compile(rb"(ref: refs/\S+|[0-9a-f]{40})\s*")
_CHECKSUM = 20
_FANOUT = struct.Struct(">256L")
_VERSION_2 = b"\377tOc\0\0\0\2"
_HEADER = 8  # of an index, version 2, before its fan-out table
_TABLE = _HEADER + _FANOUT.size


def find_damage(bare: Path, commits: Iterable[str]) -> str | None:
    """What is wrong with a mirror that has these commits (40 digits), as a clause; None when nothing is."""
    try:
        if not _HEAD.fullmatch(read_file(bare / "HEAD")):
            return "its HEAD is no reference"
        if b"[core]" not in read_file(bare / "config"):
            return "its configuration is none"
        os.stat(bare / "refs")  # a backup may leave empty directories out
        indexes = []
        for pack, index in _packs(bare / "objects" / "pack"):
            if not _is_whole(pack, index):
                return f"{pack.name} is cut off"
            indexes.append(index)
        if (bare / "objects" / "info" / "alternates").exists():
            return None  # what it borrows is not looked at
        missing = [commit for commit in commits if not _has(bare, indexes, commit)]
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except struct.error:
        return "an index of a pack is cut off"
    return f"it has lost {missing[0]}" if missing else None


def _packs(directory: Path) -> Iterator[tuple[Path, Path]]:
    for name in os.listdir(directory):
        if name.startswith("pack-") and name.endswith(".idx"):
            index = directory / name
            yield index.with_suffix(".pack"), index


def _is_whole(pack: Path, index: Path) -> bool:
    """Whether a pack ends with the checksum that its index has for it."""
    return _tail(pack, _CHECKSUM) == _tail(index, 2 * _CHECKSUM)[:_CHECKSUM]


def _tail(path: Path, size: int) -> bytes:
    with open(open_file(path), "rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, max(0, length - size))


def _has(bare: Path, indexes: Iterable[Path], commit: str) -> bool:
    try:
        return os.stat(bare / "objects" / commit[:2] / commit[2:]).st_size > 0
    except FileNotFoundError:
        return any(_is_in(index, bytes.fromhex(commit)) for index in indexes)


def _is_in(index: Path, name: bytes) -> bool:
    with open(open_file(index), "rb", buffering=0) as file:
        head = os.pread(file.fileno(), _TABLE, 0)
        if not head.startswith(_VERSION_2):
            return True  # who knows; Git does
        fanout = _FANOUT.unpack_from(head, _HEADER)
        first, last = fanout[name[0] - 1] if name[0] else 0, fanout[name[0]]
        names = os.pread(file.fileno(), (last - first) * len(name), _TABLE + first * len(name))
    place = names.find(name)
    while place % len(name) and place >= 0:
        place = names.find(name, place + 1)
    return place >= 0
