"""Small file systems for tests: tmpfs, which needs root, with exact limits of bytes and of inodes."""

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
    """A mounted tmpfs: roomy until told otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def leave_inodes(self, count: int) -> None:
        """Let so many more files, directories or links be made, whatever is in them."""
        found = os.statvfs(self.path)
        self._remount(f"size=64m,nr_inodes={found.f_files - found.f_ffree + count}")

    def leave_pages(self, count: int) -> None:
        """Let so many more pages of content be written; links and directories of a tmpfs take none."""
        found = os.statvfs(self.path)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        # A size of 0 would be no limit at all.
        self._remount(f"size={max(used + count * _PAGE, _PAGE)},nr_inodes=16384")

    def make_read_only(self) -> None:
        self._remount("ro")

    def make_room(self) -> None:
        """As if there had never been a lack of anything."""
        self._remount(f"rw,{_PLENTY}")

    def _remount(self, options: str) -> None:
        _run("mount", "-o", f"remount,{options}", str(self.path))


@contextmanager
def small(path: Path) -> Iterator[Small]:
    """A tmpfs on a directory, with what is in that; unmounted after."""
    before = path.with_name(f"{path.name}.before")
    path.rename(before)
    path.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"{_PLENTY},mode=755", "tmpfs", str(path))
    try:
        shutil.copytree(before, path, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(before)
        yield Small(path)
    finally:
        _run("umount", "-l", str(path))  # whoever still reads there keeps it from nobody


@contextmanager
def small_ones(*paths: Path) -> Iterator[dict[str, Small]]:
    """One for each directory, by its name."""
    with ExitStack() as stack:
        yield {path.name: stack.enter_context(small(path)) for path in paths}


def require_mounts() -> None:
    """Skip a test that mounts something where that cannot be done."""
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
