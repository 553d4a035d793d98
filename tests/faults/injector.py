"""Runs of jens-update for which the disk is full, or broken, from an exact operation on.

They are forked from a process that has imported Jens. It reads a line of JSON for each run, and prints another with
the result. Faults are injected where Python is about to change the file system (audit events), so they need no
special rights. Git's processes are not disturbed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.warm import get_warm

_TREE = Path(__file__).resolve().parent.parent.parent

#: Seconds after which a run counts as hanging.
_LONGEST = 60
_WRITING = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Fault:
    """Which operations fail below a directory: ``first`` to ``last``, counted from 1; none if ``first`` is 0."""

    below: str = ""
    name: str = "ENOSPC"
    first: int = 0
    last: int = sys.maxsize


NONE = Fault()


@dataclass(frozen=True)
class Ended:
    """The result of a run, and how many operations there were below the directory."""

    code: int
    stdout: str
    stderr: str
    operations: int


class Runner:
    """The client of the forking process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def update(self, config: str, *arguments: str, fault: Fault = NONE) -> Ended:
        """Do one whole run."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": [*arguments, "-c", config], "fault": asdict(fault)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))


@contextmanager
def runner() -> Iterator[Runner]:
    """Start a process that forks runs, and end it afterwards."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_TREE)},
    )
    try:
        yield Runner(process)
    finally:
        process.kill()
        process.communicate()


class _Hook:
    """An audit hook: https://docs.python.org/3/library/audit_events.html."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._top = fault.below + os.sep
        self.operations = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        path = self._changed(event, arguments)
        if path is None or not path.startswith(self._top):
            return
        self.operations += 1
        if self._fault.first and self._fault.first <= self.operations <= self._fault.last:
            number = getattr(errno, self._fault.name)
            raise OSError(number, os.strerror(number), path)

    def _changed(self, event: str, arguments: tuple[object, ...]) -> str | None:
        """The path where something is about to be made, written or, on a read-only disk, removed; else None."""
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not isinstance(path, (str, os.PathLike)):
                return None
            text = os.fspath(path)
            makes = flags & _WRITING or (flags & os.O_CREAT and not os.path.lexists(text))
            return str(text) if makes else None
        position = {"os.mkdir": 0, "os.symlink": 1, "os.rename": 1}.get(event)
        if event in ("os.remove", "os.rmdir") and self._fault.name == "EROFS":
            position = 0  # a removal needs no room, but is a change
        if position is None:
            return None
        found = arguments[position]
        path_text = os.fspath(found) if isinstance(found, (str, os.PathLike)) else ""
        # On a full disk, too, the error for an existing directory is EEXIST.
        return None if event == "os.mkdir" and os.path.lexists(path_text) else str(path_text)


def _child(order: dict[str, object], answer: int) -> None:
    from jens.commands import update  # noqa: PLC0415 - imported by the parent already

    signal.alarm(_LONGEST)
    fault = Fault(**order["fault"])  # type: ignore[arg-type]
    hook = _Hook(fault)
    if fault.below:
        sys.addaudithook(hook)
    out, complaints = io.StringIO(), io.StringIO()
    arguments = order["arguments"]
    assert isinstance(arguments, Sequence)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
        code = update.main(arguments)
    ended = Ended(code, out.getvalue(), complaints.getvalue(), hook.operations)
    os.write(answer, json.dumps(asdict(ended)).encode())


def main() -> None:
    sys.argv[0] = "jens-update"
    get_warm()
    for line in sys.stdin:
        source, answer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(source)
                _child(json.loads(line), answer)
            finally:
                os._exit(0)
        os.close(answer)
        with open(source, "rb") as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        died = asdict(Ended(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else 99, "", "the run died", 0))
        print(text.decode() or json.dumps(died), flush=True)  # noqa: T201 - its output is its result


if __name__ == "__main__":
    main()
