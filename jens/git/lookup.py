"""Looks up objects by the beginning of their ids, and single commits, quickly enough for all mirrors of a site at once.

It starts no Git, and reads of each pack only a few places. Whatever is stored in another way is left to Git.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

from jens.git import packs
from jens.git.packs import NAME, Index, UnreadError, names_in
from jens.git.process import run
from jens.system.files import open_file

#: How a commit begins.
_BEGIN = b"tree "

#: What is compressed may take so many bytes more than it has, with the header of its entry.
_MORE = 64


def ids_like(bare: Path, digits: str) -> list[str]:
    """The ids of all objects of a repository that begin with these digits (4 to 40). Raises GitError, OSError."""
    objects = f"{bare}/objects"
    packed: list[str] = []
    try:
        for path in packs.indexes(objects):
            with Index(path) as index:
                packed += index.like(digits)
    except (UnreadError, FileNotFoundError, struct.error):  # a pack may have been replaced a moment ago
        return run(["rev-parse", f"--disambiguate={digits}"], git_dir=bare, shared=True).decode("ascii").split()
    loose = [f"{digits[:2]}{name}" for name in names_in(f"{objects}/{digits[:2]}") if name.startswith(digits[2:])]
    return sorted({*packed, *(name for name in loose if len(name) == 2 * NAME)})


def read_packed(bare: Path, commit: str, most: int) -> bytes:
    """At most so many bytes of a commit (40 digits) in a pack.

    b'' when it is in none, is stored as a difference to another one, or cannot be read.
    """
    name = bytes.fromhex(commit)
    with contextlib.suppress(OSError, struct.error, zlib.error, IndexError, UnreadError):
        for path in packs.indexes(f"{bare}/objects"):
            with Index(path) as index:
                offset = index.find(name)
            if offset is not None:
                return _read_at(f"{path[: -len('idx')]}pack", offset, most)
    return b""


def _read_at(pack: str, offset: int, most: int) -> bytes:
    """The commit at an offset of a pack; b'' when something else is there."""
    descriptor = open_file(pack)
    try:
        content = os.pread(descriptor, most + _MORE, offset)
    finally:
        os.close(descriptor)
    stored = packs.entry(content)
    if stored.kind != packs.COMMIT:
        return b""
    commit = zlib.decompressobj().decompress(content[stored.end :], most)
    return commit if commit.startswith(_BEGIN) else b""
