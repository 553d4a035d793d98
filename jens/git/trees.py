"""Reads what trees name, piece by piece: a tree that somebody has pushed may have any size."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from jens.errors import GitError, GitTimeoutError
from jens.git import process

#: An entry of a tree object: its mode, its name, and the id of what it names.
_ENTRY = re.compile(rb"(?P<mode>[0-7]+) [^\0]+\0(?P<name>.{20})", re.DOTALL)
#: The entry of a file that says how Git lays out others.
_ATTRIBUTES = re.compile(rb"100[0-7]{3} \.gitattributes\0(?P<name>.{20})", re.DOTALL)
#: The type of what an entry names, in its mode.
_TYPE, _DIRECTORY, _SUBMODULE = 0o170000, 0o040000, 0o160000
#: Bytes to read at once, and objects to ask for at once.
_SOME, _AT_ONCE = 1 << 16, 1000
_VERB = "cat-file"

Item = TypeVar("Item")


class Named(NamedTuple):
    """What a part of a tree names: ids of files and of trees, and how many submodules, which are empty directories.

    ``attributes`` are the ids of files of that name: .gitattributes.
    """

    files: list[str]
    trees: list[str]
    submodules: int
    attributes: Sequence[str] = ()


class Trees:
    """One Git that reads a repository. It ends with the context. All methods raise GitError, OSError."""

    def __init__(self, bare: Path) -> None:
        self._command = ["git", f"--git-dir={bare}", _VERB, "--batch-command", "--buffer"]
        self._stack = contextlib.ExitStack()
        self._input = memoryview(b"")
        self._output, self._complaints = bytearray(), bytearray()
        self._seconds = process.limits().seconds
        self._end = time.monotonic() + (self._seconds or math.inf)

    def __enter__(self) -> Trees:
        environment = {**process.inherited_environment(), **process.LOCAL}
        try:
            self._process = process.start(self._command, subprocess.PIPE, environment)
        except OSError as error:
            raise GitError(_VERB, f"could not be started: {error.strerror}") from error
        self._stack.enter_context(process.watched(self._process))
        self._stack.callback(self._stop)
        process.bound_memory(self._process.pid)
        self._pipes = self._stack.enter_context(selectors.PollSelector())
        started = self._process
        self._stdin, stdout, stderr = (
            pipe.fileno() for pipe in (started.stdin, started.stdout, started.stderr) if pipe
        )
        for descriptor, content in ((stdout, self._output), (stderr, self._complaints)):
            self._pipes.register(descriptor, selectors.EVENT_READ, content)
        os.set_blocking(self._stdin, False)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _stop(self) -> None:
        """End Git. It only reads, so there is nothing to wait for."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, Iterator[Named]]]:
        """The ids of trees, and what their parts name; ``COMMIT^{tree}`` is the tree of a commit.

        Read one tree to its end before the next.
        """
        for some in _parts(names):
            self._ask(f"contents {name}" for name in some)
            for _ in some:
                name, kind, size = self._header()
                if kind != "tree":
                    raise GitError(_VERB, f"object {name} is a {kind}, expected a tree")
                yield name, self._parts(name, size)

    def sizes(self, names: Sequence[str]) -> Iterator[int]:
        """The sizes of files, in bytes."""
        for some in _parts(names):
            self._ask(f"info {name}" for name in some)
            left = len(some)
            while left:
                lines = self._lines()
                left -= len(lines)
                for line in lines:
                    yield _size(line)

    def _parts(self, tree: str, size: int) -> Iterator[Named]:
        rest = b""
        left = size
        while left:
            piece = self._take(left)
            left -= len(piece)
            named, end = parse(rest + piece)
            yield named
            rest = (rest + piece)[end:]
            if len(rest) > _SOME:  # a name that no file system takes
                break
        if rest:
            raise GitError(_VERB, f"tree {tree} is malformed")
        self._take(1)  # the end of the line

    def _header(self) -> tuple[str, str, int]:
        """The next line of Git's output: id, type and size of an object."""
        while (end := self._output.find(b"\n")) < 0:
            self._go_on()
        line = bytes(self._output[:end])
        del self._output[: end + 1]
        size = _size(line)
        name, kind, _ = line.decode("ascii").split(" ")
        return name, kind, size

    def _lines(self) -> list[bytes]:
        """The next lines of Git's output, at least one."""
        while (end := self._output.rfind(b"\n")) < 0:
            self._go_on()
        lines = bytes(self._output[:end]).split(b"\n")
        del self._output[: end + 1]
        return lines

    def _take(self, most: int) -> bytes:
        """The next bytes of Git's output, at least one."""
        while not self._output:
            self._go_on()
        piece = bytes(self._output[:most])
        del self._output[: len(piece)]
        return piece

    def _ask(self, questions: Iterable[str]) -> None:
        self._input = memoryview("".join(f"{question}\n" for question in (*questions, "flush")).encode("ascii"))
        self._write()
        if self._input:
            self._pipes.register(self._stdin, selectors.EVENT_WRITE)

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self._input = self._input[os.write(self._stdin, self._input) :]

    def _go_on(self) -> None:
        """Wait for output, and go on to write. Raises GitError when Git has ended, GitTimeoutError."""
        left = self._end - time.monotonic()
        ready = self._pipes.select(None if left == math.inf else left) if left > 0 else []
        if not ready and left <= 0:
            raise GitTimeoutError(_VERB, f"did not end within {self._seconds:g} seconds")
        for key, _ in ready:
            if key.data is None:
                self._write()
                if not self._input:
                    self._pipes.unregister(key.fd)
            elif not self._read(key.fd, key.data):
                self._pipes.unregister(key.fd)
                if key.data is self._output:
                    raise self._failure()
        process.bound(self._complaints)

    def _failure(self) -> GitError:
        """Why Git has ended, although nobody told it to."""
        assert self._process.stderr
        status = self._process.wait()
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            self._read(self._process.stderr.fileno(), self._complaints)
        return process.failure(_VERB, bytes(self._complaints), status, self._command)

    @staticmethod
    def _read(pipe: int, content: bytearray) -> bool:
        piece = os.read(pipe, _SOME)
        content += piece
        return bool(piece)


def _size(line: bytes) -> int:
    """The size of an object, from a line ``ID TYPE SIZE``. Raises GitError for one that is missing."""
    size = line.rpartition(b" ")[2]
    if not size.isdigit():
        raise GitError(_VERB, f"object {line.decode('ascii', 'replace')}")  # such as: is missing
    return int(size)


def parse(content: bytes) -> tuple[Named, int]:
    """What the entries at the beginning of this name, and where the first that is not whole begins."""
    named: dict[int, list[str]] = {_DIRECTORY: [], _SUBMODULE: []}
    files: list[str] = []
    end = 0
    for match in _ENTRY.finditer(content):
        if match.start() != end:
            break
        end = match.end()
        mode, name = match.groups()
        named.get(_kind(mode), files).append(name.hex())
    attributes = [match["name"].hex() for match in _ATTRIBUTES.finditer(content, 0, end)]
    return Named(files, named[_DIRECTORY], len(named[_SUBMODULE]), attributes), end


@functools.lru_cache
def _kind(mode: bytes) -> int:
    return int(mode, 8) & _TYPE


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[begin : begin + _AT_ONCE] for begin in range(0, len(items), _AT_ONCE))
