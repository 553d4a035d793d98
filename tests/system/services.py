"""Programs that sites run beside Jens: find them, start them on loopback, wait for them, end them by their ids."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from tests import TREE

LOOPBACK = "127.0.0.1"

#: Debian has servers in a directory that only root has on PATH.
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/lib/git-core"))
_PATIENCE = 20.0


def find(name: str) -> str | None:
    """The path of an installed program, or None."""
    return shutil.which(name, path=_PLACES)


def required(name: str, package: str) -> str:
    """The path of an installed program; without it, skip the test."""
    found = find(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian has it in the package {package})")
    return found


@dataclass
class Server:
    """A program that listens at a port of the loopback interface."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def said(self) -> str:
        """All that it has written to stdout and stderr."""
        return self.output.read_text("utf-8", "replace")


@contextlib.contextmanager
def serving(
    command: Callable[[int], Sequence[str]], output: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server with the command for a free port; at the end of the block, end all its processes."""
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # another process may take the free port first
            port = free_port()
            server = Server(stack.enter_context(started(command(port), output, environ)), port, output)
            if _listens(server.process, port):
                yield server
                return
        pytest.fail(f"it does not listen: {output.read_text('utf-8', 'replace')}")


@contextlib.contextmanager
def started(
    command: Sequence[str], output: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in its own process group, which is ended in any case."""
    with open(output, "ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the leader of a process group with SIGTERM, and then the whole group with SIGKILL."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.terminate()
        process.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port on which no process listens."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return True
        time.sleep(0.02)
    return False


_FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def documented(document: str, heading: str) -> str:
    """The text of a section of a document in docs, up to the next heading of any level."""
    text = (TREE / "docs" / document).read_text("utf-8")
    return re.split(r"^##+ ", text.split(f"\n{heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def commands(section: str, containing: str) -> str:
    """The only block of shell commands in a section that contains this text."""
    [block] = [fence["text"] for fence in _FENCE.finditer(section) if containing in fence["text"]]
    return block
