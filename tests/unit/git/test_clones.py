"""Clones of the metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.errors import GitError
from jens.git import clones
from tests.conftest import Remote, git


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone without a work tree, whose commit has one file."""
    remote = Remote.create(tmp_path / "remote")
    remote.push({"c.yaml": "c"})
    git("clone", "-q", "--no-checkout", remote.url, str(tmp_path / "clone"), directory=tmp_path)
    return tmp_path / "clone"


def test_a_branch_is_moved_and_the_work_tree_stays(clone: Path) -> None:
    first = clones.head(clone)
    (clone / "mine").write_text("x")
    second = git("commit-tree", "-m", "x", "-p", first, f"{first}^{{tree}}", directory=clone)
    clones.move_branch(clone, second)
    assert clones.head(clone) == second
    assert sorted(path.name for path in clone.iterdir()) == [".git", "mine"]
    blob = git("rev-parse", f"{first}:c.yaml", directory=clone)
    with pytest.raises(GitError):
        clones.move_branch(clone, blob)
    assert clones.head(clone) == second
