"""A reader that knows what must be there, and a witness of every change (inotify(7)).

The reader plays a Puppet server: it reads every expected path again and again. The witness notices paths that are
missing too briefly for the reader, and files that are made where readers look. Run as ``observer.py ROOT SCRATCH``: it
reads SCRATCH/expected.json, appends what is wrong to SCRATCH/met, and writes to SCRATCH/looks which expectation it has
checked, and how often.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_TREE = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[0] = str(_TREE)

from tests.reader import read_tree  # noqa: E402

#: The pause after a round, as a multiple of its length: the runs need the same processors.
_PAUSE = 5.5
#: Ends the pause: there is a new expectation.
_WAKE_UP = signal.SIGUSR1

DIRECTORY, TREE, FILE, ANYTHING = "directory", "tree", "file", "anything"


@dataclass(frozen=True)
class Expected:
    """What a reader must find from now on.

    ``environments`` has a kind for each path; paths of kind ANYTHING may dangle. Environments in ``may_go`` may be
    absent, but not incomplete. ``optional`` paths may be absent, but must not dangle. ``contents`` has the possible
    contents of each environment.conf. ``entries`` below clonedir are never missing.
    """

    number: int
    environments: Mapping[str, Mapping[str, str]]
    may_go: tuple[str, ...]
    optional: Mapping[str, Mapping[str, str]]
    contents: Mapping[str, tuple[str, ...]]
    entries: tuple[str, ...]


class Reader:
    """Reads everything that is expected."""

    def __init__(self, environments: Path, expected: Expected) -> None:
        self._top = environments
        self._expected = expected

    def look(self) -> Iterator[str]:
        """Read everything once; yield what is wrong."""
        for name, paths in self._expected.environments.items():
            yield from self._look_at(name, paths)
        for name, paths in self._expected.optional.items():
            for path, kind in paths.items():
                problem = self._problem(name, path, kind)
                if problem and problem != _MISSING:
                    yield f"{name}/{path}: {problem}"

    def _look_at(self, name: str, paths: Mapping[str, str]) -> Iterator[str]:
        top = f"{self._top}/{name}"
        try:
            identity = os.lstat(top).st_ino
        except FileNotFoundError:
            if name not in self._expected.may_go:
                yield f"{name}: the environment is missing"
            return
        for path, kind in paths.items():
            problem = self._problem(name, path, kind)
            if problem == _MISSING and not _is_still(top, identity):
                if name not in self._expected.may_go:
                    yield f"{name}: the environment went away"
                return
            if problem:
                yield f"{name}/{path}: {problem}"

    def _problem(self, name: str, path: str, kind: str) -> str:
        full = f"{self._top}/{name}/{path}"
        while True:
            text = _link_text(full)
            if text == _MISSING:
                return _MISSING
            try:
                return self._read(name, full, kind)
            except FileNotFoundError as error:
                if _link_text(full) == text:  # else somebody has just moved or removed it
                    return f"leads nowhere, to {text!r}: {error}"

    def _read(self, name: str, full: str, kind: str) -> str:
        if kind == ANYTHING:
            return ""
        if kind == TREE:
            return read_tree(full)
        if kind == DIRECTORY:
            return "" if stat.S_ISDIR(os.stat(full).st_mode) else "is no directory"
        with open(full) as file:
            content = file.read()
        allowed = self._expected.contents.get(name, ()) if full.endswith("/environment.conf") else (content,)
        return "" if content and content in allowed else f"has {content!r}"


_MISSING = "is missing"


def _is_still(top: str, identity: int) -> bool:
    try:
        return os.lstat(top).st_ino == identity
    except FileNotFoundError:
        return False


def _link_text(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return _MISSING
    except OSError:
        return "(no link)"


_CREATE, _DELETE, _MOVED_FROM, _ISDIR = 0x100, 0x200, 0x40, 0x40000000
_EVENT = struct.Struct("iIII")
_CHECKOUT = re.compile(r"\.[0-9a-f]{40}")


class Witness:
    """Notices removals of paths that must be there, and files that are made in place instead of renamed into it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._watched: dict[int, str] = {}
        self._never_missing: set[str] = set()

    def expect(self, expected: Expected) -> None:
        """Use another expectation from now on."""
        needed = {name: paths for name, paths in expected.environments.items() if name not in expected.may_go}
        self._never_missing = {f"environments/{name}" for name in needed}
        self._never_missing |= {f"environments/{name}/{path}" for name, paths in needed.items() for path in paths}
        self._never_missing |= {f"clone/{entry}" for entry in expected.entries}
        for directory in {"environments", *map(os.path.dirname, self._never_missing)}:
            self._watch(directory)

    def _watch(self, directory: str) -> None:
        path = os.fsencode(self._root / directory)
        number = self._libc.inotify_add_watch(self._descriptor, path, _CREATE | _DELETE | _MOVED_FROM)
        if number >= 0:
            self._watched[number] = directory

    def wrong(self) -> Iterator[str]:
        """Yield the forbidden changes since the last call."""
        while True:
            try:
                events = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return
            while events:
                number, mask, _, length = _EVENT.unpack_from(events)
                name = events[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
                events = events[_EVENT.size + length :]
                directory = self._watched.get(number)
                if directory is not None and name:
                    yield from self._judge(directory, name, mask)

    def _judge(self, directory: str, name: str, mask: int) -> Iterator[str]:
        path = f"{directory}/{name}"
        if mask & (_DELETE | _MOVED_FROM) and path in self._never_missing:
            yield f"{path}: was taken away, be it for a moment"
        if mask & _CREATE and directory == "environments" and not name.startswith("."):
            yield f"{path}: an environment was made in place"
        if mask & _CREATE and directory.startswith("clone/") and _CHECKOUT.fullmatch(name):
            yield f"{path}: a checkout was made in place"


class Observer:
    """The client in the process of the test."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None

    def expect(self, expected: Expected) -> None:
        """Set an expectation; return when the observer has checked everything by it once, from beginning to end."""
        aside = self._scratch / "expected.new"
        aside.write_text(json.dumps(asdict(expected)))
        aside.rename(self._scratch / "expected.json")
        if self._process:
            self._process.send_signal(_WAKE_UP)
        end = time.monotonic() + 60
        while self._looked() != expected.number:
            assert time.monotonic() < end, "the observer is stuck"
            assert self._process is None or self._process.poll() is None, "the observer has died"
            time.sleep(0.002)

    def _looked(self) -> int:
        try:
            return int((self._scratch / "looks").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return -1

    @property
    def looks(self) -> int:
        """How often it has checked everything."""
        try:
            return int((self._scratch / "looks").read_text().split()[1])
        except (FileNotFoundError, IndexError):
            return 0

    def met(self) -> list[str]:
        """Everything that was wrong so far."""
        try:
            return (self._scratch / "met").read_text().splitlines()
        except FileNotFoundError:
            return []

    @contextmanager
    def observing(self, root: Path) -> Iterator[Observer]:
        """Let it check all the time."""
        with open(self._scratch / "complaints", "wb") as complaints:
            signal.pthread_sigmask(signal.SIG_BLOCK, [_WAKE_UP])  # the child inherits this, and waits for the signal
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(root), str(self._scratch)], stderr=complaints
            )
        try:
            yield self
        finally:
            self._process.kill()
            self._process.wait()


def _identity(scratch: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(scratch / "expected.json")
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _expected(scratch: Path) -> Expected:
    return Expected(**json.loads((scratch / "expected.json").read_bytes()))


def main() -> None:
    root, scratch, parent = Path(sys.argv[1]), Path(sys.argv[2]), os.getppid()
    witness, reader, number, looks = Witness(root), None, -1, 0
    identity: tuple[int, int] | None = None
    descriptor = os.open(scratch / "looks", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with open(scratch / "met", "a", buffering=1) as met:
        while os.getppid() == parent:
            begin = time.perf_counter()
            expected = _expected(scratch) if _identity(scratch) != identity else None
            met.writelines(f"{problem}\n" for problem in witness.wrong())
            if expected is not None:
                identity = _identity(scratch)
                witness.expect(expected)
                reader, number = Reader(root / "environments", expected), expected.number
            if reader is not None:
                met.writelines(f"{problem}\n" for problem in reader.look())
                looks += 1
            os.pwrite(descriptor, f"{number:>9} {looks:>12}\n".encode(), 0)
            signal.sigtimedwait([_WAKE_UP], (time.perf_counter() - begin) * _PAUSE)


if __name__ == "__main__":
    main()
