"""Runs tools of Jens again and again in forked processes, without paying for the start of Python each time.

Reads a line for each run, the tool's module and its arguments as JSON; answers with the process id, and, once that
has ended, with its exit code or the negative number of the signal that ended it. The id stays taken until the next
line, so that nobody kills a stranger.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jens import deferred
from jens.git import process as git_process

_TOOLS = ("jens.commands.update", "jens.commands.purge_queue")
#: What runs import when they need it.
_IMPORTED_LATE = (
    *deferred.MODULES.values(),
    "concurrent.futures.thread",
    "ctypes",
    "dirq.queue",
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_8_sig",
    "shutil",
)
_TREE = Path(__file__).resolve().parent.parent


class Run:
    """One run of a tool, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self._process = process
        self.pid = pid

    def wait(self) -> int:
        """The exit code, or the negative number of the signal that ended it."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


class Warm:
    """The other end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, tool: str, *arguments: str) -> Run:
        """Begin a run of ``jens.commands.TOOL``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([tool, *arguments]) + "\n")
        self._process.stdin.flush()
        return Run(self._process, int(self._process.stdout.readline()))

    def run(self, tool: str, *arguments: str) -> int:
        """A whole run; returns its exit code."""
        return self.start(tool, *arguments).wait()


@contextmanager
def warm(output: Path) -> Iterator[Warm]:
    """What tools print goes to a file."""
    environment = {**os.environ, "PYTHONPATH": str(_TREE)}
    with open(output, "w") as file:
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env=environment,
        )
    try:
        yield Warm(process)
    finally:
        process.kill()
        process.communicate()


def _child(tool: str, arguments: list[str]) -> None:
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    code = 99
    try:
        code = importlib.import_module(f"jens.commands.{tool}").main(arguments)
    finally:
        os._exit(code)


def import_all() -> None:
    """Import what runs need, before a fork of which the child need not or, as another user, may not read it."""
    for module in (*_TOOLS, *_IMPORTED_LATE):
        importlib.import_module(module)


def get_warm() -> None:
    """Before the first of many forks: do what runs need not."""
    import_all()
    git_process.remote_environment(git_process.GitOptions())  # asks Git which ssh the user has configured, once
    gc.collect()
    gc.freeze()  # else each child copies the pages that its garbage collector looks at


def main() -> None:
    get_warm()
    pid = 0
    for line in sys.stdin:
        if pid:
            os.waitpid(pid, 0)
        tool, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(tool, arguments)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # whoever is first, child or parent: from now on the group can be killed
        print(pid, flush=True)  # noqa: T201 - its output is its result
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
