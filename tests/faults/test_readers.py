"""Readers of an instance, members of its group: they can hold no lock, and so stop no run."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jens.commands import update
from tests.conftest import Site
from tests.faults.users import PARTS, as_user, give, needs_root

pytestmark = needs_root

OWNER, READER = 4242, 4343
MODULES = [f"modules/m{number}" for number in range(10)]


@pytest.fixture
def owned(capfd: pytest.CaptureFixture[str]) -> Iterator[Site]:
    """A site of an owner, with ten modules, in directories that the owner's group may read; no run has happened yet."""
    top = Path(tempfile.mkdtemp())
    try:
        top.chmod(0o755)
        site = Site(top / "site", capfd)
        for repo in ("common/hieradata", "common/site", *MODULES):
            site.add(repo)
        site.publish()
        site.define("production")
        give(site.root, OWNER)
        for name in PARTS:
            (site.root / name).chmod(0o750)
        site.config.chmod(0o644)  # written here, for the owner to read
        yield site
    finally:
        shutil.rmtree(top)


def run(site: Site, *arguments: str) -> int:
    return as_user(OWNER, lambda: update.main(["-c", str(site.root / "main.conf"), *arguments]))


def locks_of(site: Site) -> list[Path]:
    return [site.root / "lock" / "jens", *site.root.rglob("jens.lock")]


def held_by_a_reader(paths: list[Path]) -> int:
    """How many of these locks a member of the owner's group can hold, and how many it may not even open."""

    def try_all() -> int:
        held = 0
        for path in paths:
            try:
                descriptor = os.open(path, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held += 1
            except PermissionError:
                pass
        return held

    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(OWNER)
            os.setuid(READER)
            os.listdir(paths[0].parent)  # a reader, no stranger
            code = try_all()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_no_reader_can_hold_a_lock(owned: Site) -> None:
    assert run(owned, "--strict") == 0
    locks = locks_of(owned)
    assert {"lock/jens", "metadata/environments/.git/jens.lock", *(f"bare/{repo}/jens.lock" for repo in MODULES)} <= {
        str(path.relative_to(owned.root)) for path in locks
    }
    assert held_by_a_reader(locks) == 0
    assert {oct(path.stat().st_mode & 0o7777) for path in locks} == {"0o600"}


def test_locks_of_earlier_releases_are_closed_to_readers(owned: Site) -> None:
    assert run(owned, "--strict") == 0
    for path in locks_of(owned):
        path.chmod(0o664)
    assert held_by_a_reader(locks_of(owned)) == len(locks_of(owned))
    (owned.root / "cache" / "baseline.json").unlink()  # or the run would look at nothing
    assert run(owned, "--strict") == 0
    assert held_by_a_reader(locks_of(owned)) == 0


def test_locks_that_root_makes_belong_to_the_owner(owned: Site) -> None:
    config = str(owned.root / "main.conf")
    give(owned.root / "remotes", 0)  # Git reads no repository of another user
    assert update.main(["-c", config, "--as-root"]) == 0
    theirs = [path for path in locks_of(owned) if "bare" not in path.parts]  # root makes whole mirrors
    assert len(theirs) == 3
    assert {path.stat().st_uid for path in theirs} == {OWNER}
    assert {oct(path.stat().st_mode & 0o7777) for path in locks_of(owned)} == {"0o600"}
