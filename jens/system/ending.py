"""Ends of processes: waited for without looking again and again, and brought about."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator

#: Seconds between a polite end and a forced one.
_GRACE = 2.0


@contextlib.contextmanager
def end_of(process: subprocess.Popen[bytes]) -> Iterator[int | None]:
    """A descriptor that can be read once a process has ended; None where the kernel has none: before Linux 5.3.

    To wait for so long and no longer is else to look again and again, a millisecond later than it could be.
    """
    descriptor = None
    with contextlib.suppress(AttributeError, OSError):  # nor does a Python have it that was made on an older one
        descriptor = os.pidfd_open(process.pid)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a process has ended, or does within so many seconds."""
    with end_of(process) as descriptor:
        if descriptor is not None:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll(seconds * 1000)
            return process.poll() is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group, politely at first."""
    signal_group(process.pid, signal.SIGTERM)  # lets Git remove its lock files
    has_ended(process, _GRACE)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def signal_group(group: int, number: int) -> None:
    """Send a signal to all of a process group, if there is anybody."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
