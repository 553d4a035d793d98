"""Reads files from the commits of a clone, some at a time: who pushes decides how many there are, and how large."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jens.errors import GitError
from jens.git.process import run

#: So many bytes of blobs are read at a time.
_BATCH = 1 << 23
#: How many files of a commit are read, and how many bytes in all of them.
_MOST_FILES, _MOST_BYTES = 20_000, 1 << 26


class Entry(NamedTuple):
    """An entry of a commit that is no directory. ``blob`` is '' for what is no file: a symbolic link, a submodule."""

    blob: str
    size: int


def list_files(directory: Path, commit: str, path: str = "") -> dict[str, Entry]:
    """What is at the top of a commit (or only at ``path``), without directories. It reads no content."""
    arguments = ["ls-tree", "-z", "--long", commit, *(["--", path] if path else [])]
    found = {}
    for line in run(arguments, git_dir=directory / ".git", shared=True).decode("utf-8", "surrogateescape").split("\0"):
        attributes, _, name = line.partition("\t")
        if name and not attributes.startswith("040000"):
            mode, _, blob, size = attributes.split()
            found[name] = Entry(blob if mode.startswith("100") else "", int(size) if size.isdigit() else 0)
    return found


def read_blobs(directory: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """The contents of blobs, whose sizes in bytes are known. A few are read at a time: Git's output is in memory."""
    contents: dict[str, bytes] = {}
    batch: list[str] = []
    left = _BATCH
    for blob, size in sorted(sizes.items()):
        if batch and size > left:
            contents.update(_read_blobs(directory / ".git", batch))
            batch, left = [], _BATCH
        batch.append(blob)
        left -= size
    return {**contents, **_read_blobs(directory / ".git", batch)}


def read_files(directory: Path, commit: str, path: str = "", *, suffix: str, largest: int) -> dict[str, bytes | None]:
    """The files at the top of a commit (or only the one at ``path``) whose names end with ``suffix``, name to content.

    What is neither file nor directory (a symbolic link, a submodule) has the content None. A file of more than
    ``largest`` bytes is not read; its content is ``largest`` + 1 NULs. So is that of the largest files, when all files
    have too many bytes in sum. Raises GitError.
    """
    listed = {name: entry for name, entry in list_files(directory, commit, path).items() if name.endswith(suffix)}
    if len(listed) > _MOST_FILES:
        raise GitError("ls-tree", f"expected no more than {_MOST_FILES} files, there are {len(listed)}")
    read = set(some({name: entry.size for name, entry in listed.items()}, largest, _MOST_BYTES))
    contents = read_blobs(directory, {blob: size for name, (blob, size) in listed.items() if blob and name in read})
    too_large = bytes(largest + 1)
    return {
        name: None if not blob else contents[blob] if name in read else too_large
        for name, (blob, _size) in listed.items()
    }


def some(sizes: Mapping[str, int], largest: int, most: int) -> list[str]:
    """The names of the files to read, by their sizes: up to ``largest`` bytes each, and ``most`` bytes in all.

    The small ones come first, so that no large file keeps others from being read.
    """
    read: list[str] = []
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        most -= sizes[name]
        if sizes[name] > largest or most < 0:
            break
        read.append(name)
    return read


def _read_blobs(git_dir: Path, blobs: list[str]) -> dict[str, bytes]:
    if not blobs:
        return {}
    output = run(["cat-file", "--batch"], git_dir=git_dir, shared=True, stdin="\n".join(blobs).encode("ascii"))
    contents, position = {}, 0
    for _ in blobs:
        end = output.index(b"\n", position)
        header = output[position:end].decode("ascii").split()
        if len(header) != 3:
            raise GitError("cat-file", f"object {header[0]} is missing")
        start, size = end + 1, int(header[2])
        contents[header[0]] = output[start : start + size]
        position = start + size + 1
    return contents
