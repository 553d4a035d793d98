"""Runs tools of Jens again and again in forked processes, which saves the start of Python each time.

Reads one line of JSON for each run: the tool's module and its arguments. Prints the process id, and after the end of
the process its exit code, or the negative number of the signal that ended it. The process stays a zombie until the
next line is read. So its id is not used again, and nobody kills an unrelated process.
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

_TOOLS = ("jens.commands.update", "jens.commands.deliver", "jens.commands.purge_queue")
#: Modules that runs import only when they need them.
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
    """The client of the forking process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, tool: str, *arguments: str) -> Run:
        """Start a run of ``jens.commands.TOOL``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([tool, *arguments]) + "\n")
        self._process.stdin.flush()
        return Run(self._process, int(self._process.stdout.readline()))

    def run(self, tool: str, *arguments: str) -> int:
        """Run a tool to its end; return the exit code."""
        return self.start(tool, *arguments).wait()


@contextmanager
def warm(output: Path) -> Iterator[Warm]:
    """Start the forking process; what the tools print goes to ``output``."""
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
    """Import what runs need before a fork: it saves time, and a child of another user may not read the files."""
    for module in (*_TOOLS, *_IMPORTED_LATE):
        importlib.import_module(module)


def get_warm() -> None:
    """Do before the first fork what need not be done in every run."""
    import_all()
    git_process.remote_environment(git_process.GitOptions())  # asks Git which ssh the user has configured, once
    gc.collect()
    gc.freeze()  # without this, each child copies the pages that its garbage collector visits


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
            os.setpgid(pid, pid)  # the child does it, too: now the group can be killed, whoever was first
        print(pid, flush=True)  # noqa: T201 - its output is its result
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
