"""Runs programs that are not ours: without a shell, bounded in time and output, ended with all that they started."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

from jens.system import processes

#: Bytes of output that are kept, the last ones.
_MOST = 4096
_PIECE = 65_536
#: Seconds to wait for output after the program has ended: what it has started may keep the pipe open.
_AFTERMATH = 0.5
_FOREVER = 365 * 86_400.0


class Ended(NamedTuple):
    """How a program ended: its exit status (negative: the signal; None: it took too long), and its last output."""

    status: int | None
    output: str

    @property
    def problem(self) -> str:
        """Why it was no success, with the last line that it printed; '' for a success."""
        if self.status == 0:
            return ""
        lines = [line for line in self.output.splitlines() if line.strip()]
        how = "" if self.status is None else f"signal {-self.status}" if self.status < 0 else f"status {self.status}"
        said = f": {lines[-1].strip()}" if lines else ""
        return f"it was ended, because it took too long{said}" if not how else f"it ended with {how}{said}"


def run(command: Sequence[str], content: bytes, seconds: float, environment: Mapping[str, str]) -> Ended:
    """Run a program with ``content`` as its input, and more variables in its ``environment``. Raises OSError.

    It may take so many seconds, 0: any number. Its output and its complaints are one text. It need not read its input.
    """
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        process = subprocess.Popen(
            command,
            cwd="/",
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    assert process.stdout is not None
    tail = bytearray()
    reader = threading.Thread(target=_keep_tail, args=(process.stdout, tail), daemon=True)
    reader.start()
    try:
        has_ended = processes.has_ended(process, seconds or _FOREVER)
    finally:
        if process.poll() is None:
            processes.end(process)
    reader.join(_AFTERMATH)
    return Ended(process.returncode if has_ended else None, bytes(tail).decode("utf-8", "replace"))


def _keep_tail(stream: IO[bytes], tail: bytearray) -> None:
    with stream:
        while True:
            piece = os.read(stream.fileno(), _PIECE)
            if not piece:
                return
            tail += piece
            del tail[:-_MOST]
