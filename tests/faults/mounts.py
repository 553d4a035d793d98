"""Small file systems for tests: tmpfs with exact limits of bytes and of inodes; mounting it needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PLENTY = "size=64m,nr_inodes=16384"


class Small:
    """A mounted tmpfs; it has much room at first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def leave_inodes(self, count: int) -> None:
        """Leave room for so many more files, directories or links, whatever their content."""
        found = os.statvfs(self.path)
        self._remount(f"size=64m,nr_inodes={found.f_files - found.f_ffree + count}")

    def leave_pages(self, count: int) -> None:
        """Leave room for so many more pages of content; links and directories of a tmpfs need none."""
        found = os.statvfs(self.path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        # A size of 0 means no limit.
        self._remount(f"size={max(used + count * _PAGE, _PAGE)},nr_inodes=16384")

    def make_read_only(self) -> None:
        self._remount("ro")

    def make_room(self) -> None:
        """Remove all limits."""
        self._remount(f"rw,{_PLENTY}")

    def _remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.path))


@contextmanager
def small(path: Path) -> Iterator[Small]:
    """Mount a tmpfs on a directory, with a copy of its content; unmount it afterwards."""
    before = path.with_name(f"{path.name}.before")
    path.rename(before)
    path.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"{_PLENTY},mode=755", "tmpfs", str(path))
    try:
        shutil.copytree(before, path, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(before)
        yield Small(path)
    finally:
        _run("umount", "-l", str(path))  # lazy: it works although somebody still reads there


@contextmanager
def small_ones(*paths: Path) -> Iterator[dict[str, Small]]:
    """Mount one on each directory; the keys are the directories' names."""
    with ExitStack() as stack:
        yield {path.name: stack.enter_context(small(path)) for path in paths}


def require_mounts() -> None:
    """Skip the test where nothing can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "mount").mkdir()
        try:
            with small(Path(directory) / "mount"):
                pass
        except AssertionError as error:
            pytest.skip(f"file systems cannot be mounted here: {error}")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
