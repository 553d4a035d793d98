"""Files of another user, and runs by another user; only root can do this."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Site
from tests.warm import import_all

NOBODY = 65534

#: Directories of an instance that hold what Puppet reads, or what runs remember.
PARTS = ("bare", "clone", "cache", "environments", "log", "lock")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def give(path: Path, user: int) -> None:
    """Give a path and everything below it to another user."""
    for found in (path, *path.rglob("*")):
        os.chown(found, user, user, follow_symlinks=False)


def instance_of(site: Site) -> list[Path]:
    return [site.root / name for name in (*PARTS, "spool", "metadata")]


def as_user(user: int, work: Callable[[], int]) -> int:
    """Run a tool as another user; return its exit code."""
    import_all()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
