"""A look into commits that only a remote has: no file is fetched for it that is large."""

from __future__ import annotations

from pathlib import Path

from jens.git import peek
from jens.git.process import GitOptions
from tests.conftest import Remote, git


def test_a_file_that_was_left_out_is_there_and_is_not_fetched(tmp_path: Path) -> None:
    remote = Remote.create(tmp_path / "remote")
    git("config", "uploadpack.allowFilter", "true", directory=remote.path)
    commit = remote.push({".gitattributes": "x" * 100_000, ".gitmodules": "small", "code/x": "x"})
    bare = tmp_path / "bare"
    peek.fetch_tips(bare, remote.url, [commit], GitOptions())
    paths = ("code", ".gitmodules", ".gitattributes", "other")
    assert peek.read(bare, commit, paths) == {"code": b"", ".gitmodules": b"small", ".gitattributes": b""}
    assert peek.read(remote.path, commit, paths) == {"code": b"", ".gitmodules": b"small", ".gitattributes": b""}
