"""The log says what a file system cannot do, before somebody finds out after a power failure."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from jens.commands.exitcodes import DIRECTORY, OK
from jens.preflight import Mount, Owned, judge, judge_lock, judge_user, mount_of, parse_mounts
from tests.conftest import Site, assert_complaint
from tests.faults.mounts import require_mounts

MOUNTS = r"""22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:33 / /mnt/puppet rw,relatime shared:2 - nfs4 server:/puppet rw,vers=4.2
41 22 0:34 / /mnt/my\040share rw,nosuid,nosymfollow - fuse.sshfs ann@example.org:/ rw,user_id=0
42 22 0:35 / /over rw - ext4 /dev/vdb rw
43 42 0:36 / /over rw - xfs /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib/jens/clone", "ext4"),
        ("/mnt/puppet", "nfs4"),
        ("/mnt/puppet/node1/clone", "nfs4"),
        ("/mnt/puppeteer", "ext4"),
        ("/mnt/my share/clone", "fuse.sshfs"),
        ("/over/clone", "xfs"),
    ],
)
def test_what_a_directory_is_on(path: str, kind: str) -> None:
    assert mount_of(Path(path), parse_mounts(MOUNTS)).kind == kind


def test_nothing_is_known_where_there_is_no_list_of_mounts() -> None:
    assert mount_of(Path("/var/lib/jens"), {}) == Mount()


@pytest.mark.parametrize(
    ("mount", "tells_case", "said"),
    [
        (Mount("ext4", frozenset({"rw", "relatime"})), True, []),
        (Mount("nfs4"), True, []),
        (Mount(), True, []),
        (Mount("xfs", frozenset({"rw", "nosymfollow"})), True, ["nosymfollow"]),
        (Mount("ext4"), False, ["upper and lower case"]),
        (Mount("fuse.sshfs"), True, ["(fuse.sshfs) cannot be told to put files on stable storage"]),
        (Mount("fuseblk"), True, ["(fuseblk) cannot be told"]),
        (Mount("fuse.vmhgfs-fuse", frozenset({"nosymfollow"})), False, ["nosymfollow", "case", "stable storage"]),
    ],
)
def test_what_a_file_system_cannot_do(mount: Mount, tells_case: bool, said: list[str]) -> None:
    doubts = list(judge(mount, tells_case=tells_case))
    assert len(doubts) == len(said)
    assert all(words in doubt for words, doubt in zip(said, doubts))


@pytest.mark.parametrize(
    ("kind", "is_doubtful"),
    [("tmpfs", False), ("ext4", False), ("xfs", False), ("", False), ("nfs", True), ("nfs4", True), ("cifs", True)],
)
def test_a_lock_belongs_on_a_file_system_of_its_host(kind: str, is_doubtful: bool) -> None:
    assert bool(list(judge_lock(Mount(kind)))) is is_doubtful


OURS, OTHER = 4711, 4712  # without names


@pytest.mark.parametrize(
    ("user", "bare", "cache", "as_root", "said"),
    [
        (0, 0, 0, False, []),
        (OURS, OURS, OURS, False, []),
        (0, OURS, OURS, False, ["baredir '/bare'", "'#4711'", "not 'root'", "sudo -u '#4711' jens-x -p", "--as-root"]),
        (0, 0, OURS, False, ["cachedir '/cache'", "'#4711'", "baredir '/bare' to 'root'", "chown one", "--as-root"]),
        (0, OURS, OURS, True, []),
        (0, OURS, OTHER, True, []),
        (
            OTHER,
            OURS,
            OURS,
            False,
            ["baredir '/bare'", "belongs to '#4711'", "not '#4712'", "sudo -u '#4711' jens-x -p"],
        ),
        (OTHER, OURS, OURS, True, ["baredir '/bare'", "not '#4712'", "sudo -u '#4711' jens-x -p"]),
        (OTHER, 0, 0, False, []),
        (OURS, OURS, OTHER, False, ["cachedir '/cache'", "'#4712'", "baredir '/bare' to '#4711'", "chown one of them"]),
    ],
)
def test_who_may_write_to_an_instance(user: int, bare: int, cache: int, as_root: bool, said: list[str]) -> None:
    owned = [Owned("baredir", Path("/bare"), bare), Owned("cachedir", Path("/cache"), cache)]
    refusal = judge_user(user, owned, ["jens-x", "-p"], as_root=as_root)
    assert (refusal is not None) == bool(said)
    assert all(words in str(refusal) for words in said), str(refusal)
    assert user == 0 or "--as-root" not in str(refusal)


@pytest.mark.parametrize(
    ("user", "owner", "is_open", "is_refused"),
    [
        (OURS, 0, True, False),
        (OURS, 0, False, True),
        (OURS, OURS, False, False),
        (OURS, OTHER, True, True),
        (0, 0, True, False),
    ],
)
def test_directories_of_root_are_anybodys_only_while_they_are_open(
    user: int, owner: int, is_open: bool, is_refused: bool
) -> None:
    owned = [Owned(key, Path(f"/{key}"), owner, is_open) for key in ("baredir", "cachedir")]
    refusal = judge_user(user, owned, ["jens-x"], as_root=False)
    assert (refusal is not None) == is_refused


def test_nothing_is_known_of_what_is_not_there() -> None:
    assert judge_user(OURS, [], ["jens-x"], as_root=False) is None


def test_an_ordinary_file_system_gives_no_warning_and_the_check_leaves_no_trace(site: Site) -> None:
    first, second = site.update(), site.update()
    assert not [line for line in first.lines("WARNING") if "file system" in line]
    assert second.lines("WARNING") == []
    assert site.environments() == ["production"]
    assert sorted(os.listdir(site.root / "clone")) == ["common", "hostgroups", "modules"]


def test_a_mount_on_which_links_lead_nowhere_is_logged(site: Site) -> None:
    require_mounts()
    environments = str(site.root / "environments")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosymfollow,size=16m", "tmpfs", environments], check=True)
    try:
        outcome = site.update()
    finally:
        subprocess.run(["umount", environments], check=True)
    assert outcome.code == OK
    [warning] = outcome.lines("WARNING environmentsdir")
    assert "nosymfollow" in warning


def test_a_file_system_that_does_not_tell_case_is_logged(site: Site) -> None:
    (site.root / "environments" / "readme").touch()
    os.link(site.root / "environments" / "readme", site.root / "environments" / "README")  # as if there were only one
    [warning] = site.update().lines("WARNING environmentsdir")
    assert "upper and lower case are the same" in warning


@pytest.mark.parametrize("key", ["clone", "environments"])
def test_a_file_system_without_links_ends_the_first_run_before_it_makes_anything(
    site: Site, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    symlink = os.symlink

    def refuse(target: str, path: Path) -> None:
        if str(path).startswith(str(site.root / key)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        symlink(target, path)

    monkeypatch.setattr(os, "symlink", refuse)
    outcome = site.update()
    assert_complaint(outcome, DIRECTORY, f"{key}dir", "symbolic links", str(site.root / key))
    assert site.environments() == []
    assert not list((site.root / "bare").glob("*/*"))
