"""How much of a commit of the metadata is read, and what becomes of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.errors import GitError
from jens.git import clones, contents
from tests.conftest import Remote, git
from tests.faults.decoy import push_tree


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param({"b": 10, "a": 10}, ["a", "b"], id="two of the largest"),
        pytest.param({"a": 11, "b": 1}, ["b"], id="one that is too large"),
        pytest.param({"a": 10, "b": 10, "c": 10}, ["a", "b"], id="too many bytes in sum"),
        pytest.param({"a": 10, "b": 10, "c": 1, "d": 6}, ["c", "d", "a"], id="the small ones first"),
        pytest.param({"a": 0, "b": 0}, ["a", "b"], id="empty files"),
    ],
)
def test_small_files_are_read_first_and_no_more_than_may_be(sizes: dict[str, int], expected: list[str]) -> None:
    assert contents.some(sizes, 10, 25) == expected


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose commit has five files, two of them with the same content."""
    remote = Remote.create(tmp_path / "remote")
    files = {"a.yaml": "aaaa", "b.yaml": "aaaa", "c.yaml": "c", "large.yaml": "x" * 11, "other": "other"}
    push_tree(remote, {**{name: ("100644", text) for name, text in files.items()}, "link.yaml": ("120000", "a.yaml")})
    git("clone", "-q", "--no-checkout", remote.url, str(tmp_path / "clone"), directory=tmp_path)
    return tmp_path / "clone"


def _read(clone: Path) -> dict[str, bytes | None]:
    return contents.read_files(clone, clones.head(clone), suffix=".yaml", largest=10)


def test_files_that_are_too_large_or_too_many_count_as_too_large(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large = bytes(11)
    others = {"large.yaml": too_large, "link.yaml": None, "c.yaml": b"c"}
    assert _read(clone) == {"a.yaml": b"aaaa", "b.yaml": b"aaaa", **others}
    monkeypatch.setattr(contents, "_MOST_BYTES", 6)
    assert _read(clone) == {"a.yaml": b"aaaa", "b.yaml": too_large, **others}


def test_more_files_than_any_site_has_are_an_error(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_FILES", 5)
    assert len(_read(clone)) == 5
    monkeypatch.setattr(contents, "_MOST_FILES", 4)
    with pytest.raises(GitError, match="expected no more than 4 files, there are 5"):
        _read(clone)
