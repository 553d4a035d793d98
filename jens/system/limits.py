"""The limits that the system sets to this process: getrlimit(2)."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

#: Descriptors that are open whatever a run does, and those that one job may need at its worst moment: a shell that asks
#: a remote, a Git with its pipes and those of its start, the lock of a repository, and directories that are removed.
_ALWAYS_OPEN = 32
_OF_A_JOB = 16


@contextlib.contextmanager
def most_open_files() -> Iterator[None]:
    """Have this process, and those that it starts, open as many files as the system lets them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with contextlib.suppress(OSError, ValueError):  # more than this kernel allows by now
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files() -> int:
    """How many files this process may have open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def affordable(jobs: int, files: int) -> int:
    """How many of these jobs may work at once, one at least, when so many files may be open (-1: any number)."""
    return jobs if files == resource.RLIM_INFINITY else max(1, min(jobs, (files - _ALWAYS_OPEN) // _OF_A_JOB))
