"""Whether a push rewrote history: told without Git for usual pushes, and the same as Git tells it for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jens.git import history
from tests.conftest import MODULE, Remote, git


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote.create(tmp_path / "r.git", MODULE)


def chain(remote: Remote, *parents: str) -> str:
    """A commit with these parents, in a file of its own."""
    tree = git("rev-parse", "master^{tree}", directory=remote.path)
    words = [word for parent in parents for word in ("-p", parent)]
    return git("commit-tree", tree, *words, directory=remote.path, stdin=b"x")


def refuse(*_: Any, **__: Any) -> bytes:
    raise AssertionError("Git is not needed")


@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_few_commits_more_are_followed_without_git(
    remote: Remote, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new = remote.commit()
    for _ in range(count):
        new = chain(remote, new)
    monkeypatch.setattr(history, "run", refuse)
    assert not history.is_rewritten(remote.path, first, new)


def many(remote: Remote, first: str) -> str:
    for _ in range(30):
        first = chain(remote, first)
    return first


def merged(remote: Remote, first: str) -> str:
    return chain(remote, chain(remote), first)


def packed(remote: Remote, first: str) -> str:
    new = chain(remote, first)
    git("update-ref", "refs/heads/master", new, directory=remote.path)
    git("gc", "-q", directory=remote.path)
    return new


def damaged(remote: Remote, first: str) -> str:
    new = chain(remote, first)
    path = remote.path / "objects" / new[:2] / new[2:]
    git("update-ref", "refs/heads/master", new, directory=remote.path)
    git("gc", "-q", directory=remote.path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no object")
    return new


def root(remote: Remote, _first: str) -> str:
    return chain(remote)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(many, False), (merged, False), (packed, False), (damaged, False), (root, True)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_all_else_is_told_by_git(remote: Remote, make: Any, expected: bool) -> None:
    first = remote.commit()
    new = make(remote, first)
    assert history.is_rewritten(remote.path, first, new) == expected


def test_a_branch_that_goes_back_was_rewritten(remote: Remote) -> None:
    first = remote.commit()
    assert history.is_rewritten(remote.path, chain(remote, first), first)


def test_an_old_commit_that_is_lost_is_in_no_history(remote: Remote) -> None:
    assert history.is_rewritten(remote.path, "0123456789" * 4, chain(remote, remote.commit()))
