"""Objects are read from the files of a repository as Git reads them, or not at all."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from jens.git import objects
from jens.git.objects import Objects
from jens.git.packs import UnreadError
from jens.git.trees import Trees
from jens.repositories.budget import Scales, Weight
from jens.repositories.model import Budget
from tests.conftest import Remote, git
from tests.faults.decoy import push_tree

BUDGET = Budget(10**20, 10**20)
SEED = 7


def _weights(source: Callable[[Path], Objects | Trees], bare: Path, commit: str) -> dict[str, Weight]:
    with Scales(lambda: source(bare), BUDGET) as scales:
        scales.check(commit)
        return scales._weights


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Remote, list[str]]:
    """A repository whose objects are much alike, so that Git stores most of them as deltas; and its commits."""
    remote, chance = Remote.create(tmp_path_factory.mktemp("history") / "remote"), random.Random(SEED)
    files = {
        f"{top}/{number}": f"{top} {number}\n" * 30 for top in ("code", "data/a", "data/b") for number in range(30)
    }
    commits = [remote.push({**files, "large": "x" * 3_000_000, "empty": ""})]
    for _ in range(8):
        changed = dict(chance.sample(sorted(files.items()), 4))
        commits.append(remote.push({name: text + f"{chance.random()}\n" for name, text in changed.items()}))
    return remote, commits


def _unpacked(bare: Path) -> None:
    packs = list((bare / "objects" / "pack").glob("*.pack"))
    for pack in packs:
        aside = bare / pack.name
        pack.rename(aside)
        pack.with_suffix(".idx").unlink()
        git("unpack-objects", "-q", directory=bare, stdin=aside.read_bytes())


def _packed(bare: Path) -> None:
    git("gc", "-q", "--aggressive", "--prune=now", directory=bare)


def _deltas_that_name_their_base(bare: Path) -> None:
    git("-c", "repack.useDeltaBaseOffset=false", "repack", "-q", "-adf", directory=bare)


def _far_offsets(bare: Path) -> None:
    """An index as that of a pack of more than two gigabytes."""
    _packed(bare)
    [pack] = (bare / "objects" / "pack").glob("*.pack")
    pack.with_suffix(".rev").unlink(missing_ok=True)
    pack.with_suffix(".idx").unlink()
    git("index-pack", "--index-version=2,0x40", str(pack), directory=bare)


def _two_packs_and_loose_objects(bare: Path) -> None:
    _unpacked(bare)
    git("repack", "-q", directory=bare)
    (bare / "objects" / "pack" / "other").mkdir()
    tip = git("rev-parse", "HEAD", directory=bare)
    commit = git("commit-tree", "-m", "x", "-p", tip, f"{tip}^{{tree}}", directory=bare)
    git("update-ref", "HEAD", commit, directory=bare)
    git("repack", "-q", directory=bare)
    git(
        "update-ref",
        "HEAD",
        git("commit-tree", "-m", "y", "-p", commit, f"{tip}^{{tree}}", directory=bare),
        directory=bare,
    )


def _as_it_is(_bare: Path) -> None:
    pass


@pytest.mark.parametrize(
    "stored",
    [_as_it_is, _unpacked, _packed, _deltas_that_name_their_base, _far_offsets, _two_packs_and_loose_objects],
)
def test_commits_are_weighed_as_git_does(
    history: tuple[Remote, list[str]], tmp_path: Path, stored: Callable[[Path], None]
) -> None:
    remote, commits = history
    bare = tmp_path / "bare"
    shutil.copytree(remote.path, bare)
    stored(bare)
    for commit in [*commits, git("rev-parse", "HEAD", directory=bare)]:
        assert _weights(Objects, bare, commit) == _weights(Trees, bare, commit)


@pytest.mark.parametrize("stored", [_unpacked, _packed])
def test_what_is_damaged_is_left_to_git(
    history: tuple[Remote, list[str]], tmp_path: Path, stored: Callable[[Path], None]
) -> None:
    # Whatever byte is wrong: the weight is the right one, or nobody says any. A file's size has no checksum here.
    remote, commits = history
    bare, chance = tmp_path / "bare", random.Random(SEED)
    shutil.copytree(remote.path, bare)
    stored(bare)
    files = sorted(path for path in (bare / "objects").rglob("*") if path.is_file() and path.suffix != ".rev")
    expected = _weights(Trees, bare, commits[-1])
    unread = 0
    for _ in range(150):
        path = chance.choice(files)
        content = path.read_bytes()
        at = chance.randrange(len(content))
        path.chmod(0o600)
        cut = content[:at]
        path.write_bytes(
            cut if chance.random() < 0.2 else cut + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        )
        try:
            found = _weights(Objects, bare, commits[-1])
            assert {tree: weight._replace(bytes=0) for tree, weight in found.items()} == {
                tree: weight._replace(bytes=0) for tree, weight in expected.items()
            }
        except UnreadError:
            unread += 1
        path.write_bytes(content)
    assert unread > 5


def _missing(_remote: Remote) -> str:
    return "1" * 40


def _a_blob(remote: Remote) -> str:
    return git("hash-object", "-w", "--stdin", directory=remote.path, stdin=b"x")


def _of_a_blob(remote: Remote) -> str:
    content = b"40000 below\0" + bytes.fromhex(_a_blob(remote))
    tree = git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", directory=remote.path, stdin=content)
    return git("commit-tree", "-m", "x", tree, directory=remote.path)


def _malformed(remote: Remote) -> str:
    tree = git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", directory=remote.path, stdin=b"100644 x\0")
    return git("commit-tree", "-m", "x", tree, directory=remote.path)


def _of_a_large_tree(remote: Remote) -> str:
    return push_tree(remote, {f"{number:0200}": ("100644", "") for number in range(6000)})


def _of_many_files(remote: Remote) -> str:
    return push_tree(remote, {f"{number}": ("100644", "") for number in range(6000)})


@pytest.mark.parametrize("unusual", [_missing, _a_blob, _of_a_blob, _malformed, _of_a_large_tree, _of_many_files])
def test_what_is_unusual_is_left_to_git(tmp_path: Path, unusual: Callable[[Remote], str]) -> None:
    remote = Remote.create(tmp_path / "remote")
    commit = unusual(remote)
    for pack in (_as_it_is, _packed):
        pack(remote.path)
        with pytest.raises(UnreadError):
            _weights(Objects, remote.path, commit)


def test_an_index_of_another_version_is_left_to_git(history: tuple[Remote, list[str]], tmp_path: Path) -> None:
    remote, commits = history
    bare = tmp_path / "bare"
    shutil.copytree(remote.path, bare)
    _packed(bare)
    [pack] = (bare / "objects" / "pack").glob("*.pack")
    pack.with_suffix(".idx").unlink()
    git("index-pack", "--index-version=1", str(pack), directory=bare)
    with pytest.raises(UnreadError):
        _weights(Objects, bare, commits[0])


@pytest.mark.parametrize("stored", [_unpacked, _packed])
def test_trees_of_many_bytes_are_left_to_git(
    history: tuple[Remote, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: Callable[[Path], None],
) -> None:
    remote, commits = history
    bare = tmp_path / "bare"
    shutil.copytree(remote.path, bare)
    stored(bare)
    monkeypatch.setattr(objects, "_MOST_BYTES", 3000)
    with pytest.raises(UnreadError, match="more than 3000 bytes"):
        _weights(Objects, bare, commits[-1])


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Nothing is left open."""
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("descriptors")
def test_a_large_pack_is_read_piece_by_piece(
    history: tuple[Remote, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, commits = history
    bare = tmp_path / "bare"
    shutil.copytree(remote.path, bare)
    _packed(bare)
    expected = _weights(Trees, bare, commits[-1])
    monkeypatch.setattr(objects, "_LARGEST", 8192)  # of a pack in memory
    monkeypatch.setattr(objects, "_MOST_KEPT", 1000)
    assert _weights(Objects, bare, commits[-1]) == expected
