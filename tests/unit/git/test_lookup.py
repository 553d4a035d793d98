"""Objects of a repository are found and read without Git; what only Git can read is left to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.errors import GitError
from jens.git import authors, history, lookup
from tests.conftest import Remote, git


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    made = Remote.create(tmp_path / "r.git")
    for number in range(30):
        made.push({"a": f"{number}\n" * 50, f"b{number}": "x\n"})
    return made


def all_ids(remote: Remote) -> list[str]:
    lines = git("cat-file", "--batch-check", "--batch-all-objects", directory=remote.path).splitlines()
    return [line.split()[0] for line in lines]


def store(remote: Remote, how: str) -> None:
    """Store all objects in this way. Pushes leave them loose."""
    if how == "packs":
        git("repack", "-dq", directory=remote.path)
        remote.push({"more": "1\n"})
        git("repack", "-dq", directory=remote.path)
        assert len([*(remote.path / "objects" / "pack").glob("*.idx")]) == 2
    if how in ("one pack", "both"):
        git("repack", "-adfq", "--depth=0", directory=remote.path)
    if how == "old index":
        git("-c", "pack.indexVersion=1", "repack", "-adq", directory=remote.path)
    if how == "both":
        git("hash-object", "-w", "--stdin", directory=remote.path, stdin=b"loose\n")


@pytest.mark.parametrize("stored", ["packs", "one pack", "loose", "old index", "both"])
def test_ids_are_found_wherever_they_are(remote: Remote, stored: str) -> None:
    store(remote, stored)
    ids = all_ids(remote)
    for digits in (4, 5, 7, 8, 40):
        for name in ids[::3]:
            found = lookup.ids_like(remote.path, name[:digits])
            assert found == sorted(other for other in ids if other.startswith(name[:digits]))
    assert lookup.ids_like(remote.path, "0123456789abcdef") == []


def test_borrowed_objects_are_found(remote: Remote, tmp_path: Path) -> None:
    git("clone", "-q", "--bare", "--shared", str(remote.path), str(tmp_path / "shared"), directory=tmp_path)
    commit = remote.commit()
    assert lookup.ids_like(tmp_path / "shared", commit[:9]) == [commit]
    assert lookup.read_packed(tmp_path / "shared", commit, 9999) == b""
    assert authors.describe(tmp_path / "shared", commit).subject == "push"


@pytest.mark.parametrize("stored", ["packs", "one pack"])
def test_commits_are_read_as_git_reads_them(remote: Remote, stored: str) -> None:
    store(remote, stored)
    for commit in git("rev-list", "master", directory=remote.path).split():
        content = lookup.read_packed(remote.path, commit, 9999)
        assert lookup.read_packed(remote.path, commit, 100) == content[:100]
        assert content.decode().strip() == git("cat-file", "commit", commit, directory=remote.path)
    tree = git("rev-parse", "master^{tree}", directory=remote.path)
    assert lookup.read_packed(remote.path, tree, 9999) == b""
    assert lookup.read_packed(remote.path, "0" * 40, 9999) == b""


def test_what_is_stored_as_a_difference_is_left_to_git(remote: Remote) -> None:
    long = "word " * 400
    for number in range(5):
        message = f"{number}\n\n{long}".encode()
        stream = b"commit refs/heads/master\ncommitter Ann <ann@example.org> now\ndata %d\n%s\n" % (
            len(message),
            message,
        )
        stream += b"from refs/heads/master^0\n"
        git("fast-import", "--quiet", "--date-format=now", directory=remote.path, stdin=stream)
    git("repack", "-adfq", "--depth=50", "--window=50", directory=remote.path)
    commits = git("rev-list", "--max-count=5", "master", directory=remote.path).split()
    assert b"" in [lookup.read_packed(remote.path, commit, 9999) for commit in commits]
    assert [authors.describe(remote.path, commit).subject for commit in commits] == ["4", "3", "2", "1", "0"]


def test_damaged_packs_tell_nothing(remote: Remote) -> None:
    git("repack", "-adq", directory=remote.path)
    [pack] = (remote.path / "objects" / "pack").glob("*.pack")
    [index] = (remote.path / "objects" / "pack").glob("*.idx")
    commit = remote.commit()
    for path, size in ((pack, 20), (index, 1500), (index, 100)):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:size])
        assert lookup.read_packed(remote.path, commit, 9999) == b""
    index.write_bytes(b"")
    assert lookup.ids_like(remote.path, commit[:7]) == []
    assert lookup.ids_like(remote.path / "none", commit[:7]) == []


def test_commits_that_contain_another(remote: Remote) -> None:
    old, *_ = git("rev-list", "--reverse", "master", directory=remote.path).split()
    middle, new = remote.commit(), remote.push({"c": "1\n"})
    side = remote.push({"d": "1\n"}, "side", onto="master")
    apart = remote.push({"d": "1\n"}, "apart", rewrite=True)
    tips = {old, middle, new, side, apart, "0" * 40}
    assert history.containing(remote.path, middle, tips) == {middle, new, side}
    assert history.containing(remote.path, apart, tips) == {apart}
    assert history.containing(remote.path, middle, {middle}) == {middle}
    assert history.containing(remote.path, middle, {old}) == frozenset()
    assert history.containing(remote.path, old, tips) == {old, middle, new, side}
    with pytest.raises(GitError):
        history.containing(remote.path, "1" * 40, tips)
