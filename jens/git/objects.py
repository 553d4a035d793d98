"""Reads the trees of a commit, and the sizes of files, without a Git: gitformat-pack(5), gitrepository-layout(5)."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from jens.git import packs
from jens.git.packs import COMMIT, KINDS, NAME, NAMED_DELTA, NEAR_DELTA, TREE, Index, UnreadError
from jens.git.trees import Named, parse
from jens.system.files import open_file

#: What is more than this is left to Git: bytes of the index of a pack, of a tree, and of all trees; deltas upon one
#: another; objects.
_LARGEST_INDEX, _LARGEST, _MOST_BYTES, _LONGEST_CHAIN, _MOST_OBJECTS = 1 << 23, 1 << 20, 1 << 25, 64, 5000
#: Bytes of all trees that are in memory.
_MOST_KEPT = 1 << 23
#: Bytes to read at once; those of a delta or a loose object that tell the size, and what has them when compressed.
_SOME, _BEGINNING, _PREFIX = 1 << 12, 64, 512
_OF_COMMIT = "^{tree}"
#: What reading raises when something is missing, damaged, or made in a way that is not known here.
_UNUSUAL = (OSError, ValueError, LookupError, struct.error, zlib.error)


class _Stored(NamedTuple):
    """An object in a pack: its kind, the size of what is compressed, where this begins, and the base of a delta."""

    kind: int
    size: int
    begin: int
    base: int | None


class Objects:
    """Reads a repository like ``jens.git.trees.Trees``. All methods raise UnreadError."""

    def __init__(self, bare: Path) -> None:
        self._objects = f"{bare}/objects"
        self._stack = ExitStack()
        self._packs: list[_Pack] | None = None
        self._left, self._bytes_left = _MOST_OBJECTS, _MOST_BYTES

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *_: object) -> None:
        self._packs = None
        self._stack.close()

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, Iterator[Named]]]:
        """The ids of trees, and what they name; ``COMMIT^{tree}`` is the tree of a commit."""
        for name in names:
            try:
                tree = self._tree_of(name[: -len(_OF_COMMIT)]) if name.endswith(_OF_COMMIT) else name
                named = self._named(tree)
            except _UNUSUAL as error:
                raise UnreadError(str(error)) from error
            yield tree, iter([named])

    def sizes(self, names: Sequence[str]) -> Iterator[int]:
        """The sizes of files, in bytes."""
        for name in names:
            try:
                size = self._size(name)
            except _UNUSUAL as error:
                raise UnreadError(str(error)) from error
            yield size

    def _tree_of(self, commit: str) -> str:
        kind, content = self._read(commit)
        line = content.split(b"\n", 1)[0]
        if kind != COMMIT or len(line) != len("tree ") + 2 * NAME:
            raise ValueError(f"{commit} is no commit")
        return line[len("tree ") :].decode("ascii")

    def _named(self, tree: str) -> Named:
        kind, content = self._read(tree)
        named, end = parse(content)
        if kind != TREE or end != len(content):
            raise ValueError(f"{tree} is no tree")
        return named

    def _read(self, name: str) -> tuple[int, bytes]:
        found = self._find(name)
        kind, content = found[0].read(found[1]) if found else _read_loose(self._path(name))
        self._bytes_left -= len(content)
        if self._bytes_left < 0:
            raise ValueError(f"the trees have more than {_MOST_BYTES} bytes")
        return kind, content

    def _size(self, name: str) -> int:
        found = self._find(name)
        return found[0].size(found[1]) if found else _size_of_loose(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._objects}/{name[:2]}/{name[2:]}"

    def _find(self, name: str) -> tuple[_Pack, int] | None:
        """The pack that has an object, and where in it."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"there are more than {_MOST_OBJECTS} objects")
        if self._packs is None:
            self._packs = [
                self._stack.enter_context(_Pack(path[: -len(".idx")])) for path in packs.indexes(self._objects)
            ]
        wanted = bytes.fromhex(name)
        for pack in self._packs:
            offset = pack.find(wanted)
            if offset is not None:
                return pack, offset
        return None


class _Pack:
    """A pack and its index, of version 2. It is read piece by piece and not mapped: somebody may cut it off."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept: dict[int, tuple[int, bytes]] = {}
        self._kept_bytes = self._made = 0

    def __enter__(self) -> _Pack:
        self._pack = open_file(f"{self._path}.pack")
        try:
            self._index = Index(f"{self._path}.idx", _LARGEST_INDEX)
        except BaseException:
            os.close(self._pack)
            raise
        self._whole = os.pread(self._pack, _LARGEST, 0)
        if len(self._whole) == _LARGEST:
            self._whole = b""  # it has more: it is read object by object
        return self

    def __exit__(self, *_: object) -> None:
        self._index.__exit__()
        os.close(self._pack)

    def find(self, name: bytes) -> int | None:
        """Where an object begins; None when it is not in the pack."""
        return self._index.find(name)

    def size(self, offset: int) -> int:
        """The size of an object."""
        stored, beginning = self._stored(offset)
        if stored.base is None:
            return stored.size
        at = stored.begin - offset
        start = zlib.decompressobj().decompress(beginning[at : at + _PREFIX], _BEGINNING)
        return _number(start, _number(start, 0)[1])[0]

    def read(self, offset: int) -> tuple[int, bytes]:
        """The kind of an object, and its content."""
        deltas: list[tuple[int, bytes]] = []
        while offset not in self._kept:
            stored, beginning = self._stored(offset)
            content = self._inflated(stored, beginning[stored.begin - offset :])
            if stored.base is None:
                self._keep(offset, stored.kind, content)
                break
            deltas.append((offset, content))
            if len(deltas) > _LONGEST_CHAIN:
                raise ValueError(f"there are more than {_LONGEST_CHAIN} deltas")
            offset = stored.base
        kind, content = self._kept[offset]
        for at, delta in reversed(deltas):
            content = _applied(content, delta)
            self._keep(at, kind, content)
        return kind, content

    def _at(self, offset: int) -> bytes:
        """Some bytes of the pack."""
        return self._whole[offset : offset + _SOME] or os.pread(self._pack, _SOME, offset)

    def _keep(self, offset: int, kind: int, content: bytes) -> None:
        """Keep an object: it may be the base of others."""
        self._made += len(content)
        if self._made > _MOST_BYTES:
            raise ValueError(f"the objects have more than {_MOST_BYTES} bytes")
        if self._kept_bytes > _MOST_KEPT:
            self._kept.clear()
            self._kept_bytes = 0
        self._kept[offset] = kind, content
        self._kept_bytes += len(content)

    def _stored(self, offset: int) -> tuple[_Stored, bytes]:
        """How an object is stored, and the first bytes from there."""
        beginning = self._at(offset)
        kind, size, at = packs.entry(beginning)
        base = None
        if kind == NEAR_DELTA:
            back, at = _distance(beginning, at)
            base = offset - back
        elif kind == NAMED_DELTA:
            base, at = self.find(beginning[at : at + NAME]), at + NAME
        elif kind not in KINDS.values():
            raise ValueError(f"an object has the kind {kind}")
        if kind in (NEAR_DELTA, NAMED_DELTA) and not base:
            raise ValueError("a delta has no base")
        return _Stored(kind, size, offset + at, base), beginning

    def _inflated(self, stored: _Stored, some: bytes) -> bytes:
        """What is compressed at a place in the pack; ``some`` is the first bytes from there."""
        inflate, content, at = zlib.decompressobj(), b"", stored.begin + len(some)
        while some and not inflate.eof and len(content) <= stored.size <= _LARGEST:
            content += inflate.decompress(some, stored.size + 1 - len(content))
            some = inflate.unconsumed_tail
            if not some:
                some = self._at(at)
                at += len(some)
        if len(content) != stored.size or not inflate.eof:
            raise ValueError("an object is large, or cut off")
        return content


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number at a place in a delta, and where it ends."""
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at


def _distance(content: bytes, at: int) -> tuple[int, int]:
    """How far the base is before a delta, and where this number ends."""
    byte = content[at]
    distance = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = content[at]
        distance = (distance + 1) << 7 | byte & 0x7F
    return distance, at + 1


def _applied(base: bytes, delta: bytes) -> bytes:
    """The object that a delta makes of its base."""
    before, at = _number(delta, 0)
    after, at = _number(delta, at)
    made = bytearray()
    while at < len(delta) and len(made) <= min(after, _LARGEST):
        code, at = delta[at], at + 1
        if code & 0x80:
            begin, at = _bytes(delta, at, code & 0x0F)
            size, at = _bytes(delta, at, code >> 4 & 0x07)
            made += base[begin : begin + (size or 0x10000)]
        else:
            made += delta[at : at + code]
            at += code
    if len(base) != before or len(made) != after or after > _LARGEST:
        raise ValueError("a delta does not fit its base, or makes something large")
    return bytes(made)


def _bytes(content: bytes, at: int, present: int) -> tuple[int, int]:
    """A number of which only some bytes are there, those whose bits are ``present``; and where it ends."""
    number = shift = 0
    while present:
        if present & 1:
            number |= content[at] << shift
            at += 1
        present, shift = present >> 1, shift + 8
    return number, at


def _read_loose(path: str) -> tuple[int, bytes]:
    """The kind and the content of an object in a file of its own."""
    with open(open_file(path), "rb", buffering=0) as file:
        inflate = zlib.decompressobj()
        content = inflate.decompress(file.read(_LARGEST), _LARGEST)
    kind, size, begin = _header(content)
    if len(content) - begin != size or not inflate.eof:
        raise ValueError(f"{path} is large, or cut off")
    return kind, content[begin:]


def _size_of_loose(path: str) -> int:
    with open(open_file(path), "rb", buffering=0) as file:
        return _header(zlib.decompressobj().decompress(file.read(_SOME), _BEGINNING))[1]


def _header(content: bytes) -> tuple[int, int, int]:
    """The kind and the size of a loose object, and where its content begins."""
    end = content.index(b"\0", 0, _BEGINNING)
    kind, size = content[:end].split(b" ")
    return KINDS[kind], int(size), end + 1
