"""What commits say of themselves, and how many lie between two."""

from __future__ import annotations

from pathlib import Path

import pytest

from jens.errors import GitError
from jens.git import authors
from jens.git.authors import Described, count_between, describe, last_changes, parse
from tests.conftest import Remote, git

_PARENT = "a" * 40


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(
            f"tree {_PARENT}\nparent {_PARENT}\nauthor Ann B <ann@example.org> 1 +0000\n"
            "committer Bob <bob@example.org> 1700000000 +0100\n\nAdd foo\n\nAnd say why\n",
            Described("Ann B", "Add foo", 1700000000, (_PARENT,)),
            id="as usual",
        ),
        pytest.param(
            "author <> 1 +0000\ncommitter <> -5 +0000\n\n\n\n  two \n lines \n\nrest",
            Described("", "two lines", None, ()),
            id="without a name, with a date before 1970",
        ),
        pytest.param("committer x <y> 999999999999 +0000\n\n", Described("", "", None, ()), id="a date that is none"),
        pytest.param(
            "author a\x1b[31m\tb <x> 1 +0000\n\n\x07", Described("a\\x1b[31m\\tb", "\\x07", None, ()), id="bells"
        ),
        pytest.param("author x <\nparent y\n", Described("x", "", None, ()), id="no message"),
        pytest.param("", Described("", "", None, ()), id="nothing"),
        pytest.param(
            f"author {'x' * 300} <> 1 +0\n\n{'y' * 300}",
            Described("x" * 200 + "…", "y" * 200 + "…", None, ()),
            id="long",
        ),
        pytest.param(
            "author A <> 1 +0000\ngpgsig -----BEGIN\n \n author B <> 2 +0000\n -----END\n\nparent\n",
            Described("A", "parent", None, ()),
            id="a signature with lines of its own",
        ),
    ],
)
def test_a_commit_says(content: str, said: Described) -> None:
    assert parse(content.encode()) == said


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("encoding ISO-8859-1\n", "Müller"),
        ("", "M\ufffdller"),
        ("encoding no-such\n", "M\ufffdller"),
        ("encoding base64\n", "M\ufffdller"),
        ("encoding idna\n", None),
    ],
)
def test_other_encodings_are_read_as_far_as_they_are_known(encoding: str, name: str | None) -> None:
    said = parse(f"author Müller <> 1 +0000\n{encoding}\nx".encode("latin-1"))
    assert said.author == name if name else isinstance(said.author, str)


@pytest.fixture
def bare(tmp_path: Path) -> Remote:
    return Remote.create(tmp_path / "x.git", {"a": "1\n"})


def test_commits_are_described_loose_and_packed(bare: Remote) -> None:
    commit = bare.push({"a": "2\n"})
    first = describe(bare.path, commit)
    assert (first.author, first.subject) == ("Ann", "push")
    git("gc", "-q", directory=bare.path)
    assert describe(bare.path, commit) == first
    with pytest.raises(GitError):
        describe(bare.path, "0" * 40)


@pytest.mark.parametrize("is_packed", [False, True])
def test_commits_between_two_are_counted(bare: Remote, is_packed: bool) -> None:
    old = bare.commit()
    new = [bare.push({"a": f"{number}\n"}) for number in range(3)][-1]
    other = bare.push({"a": "other\n"}, rewrite=True)
    if is_packed:
        bare.branch("new", "master")
        git("update-ref", "refs/heads/new", new, directory=bare.path)
        git("gc", "-q", directory=bare.path)
    assert count_between(bare.path, old, new) == (3, 0)
    assert count_between(bare.path, new, old) == (0, 3)
    assert count_between(bare.path, new, other) == (1, 4)
    with pytest.raises(GitError):
        count_between(bare.path, "0" * 40, new)


def test_usual_pushes_need_no_git(bare: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = bare.commit(), bare.push({"a": "2\n"})
    assert (bare.path / "objects" / new[:2] / new[2:]).exists()
    monkeypatch.setattr(authors, "run", lambda *_, **__: pytest.fail("a Git was started"))
    assert count_between(bare.path, old, new) == (1, 0)
    assert describe(bare.path, new).author == "Ann"


def test_the_last_changes_of_files_are_known(bare: Remote) -> None:
    first = bare.commit()
    second = bare.push({"b": "1\n", "c": "1\n"})
    third = bare.push({"b": None})
    found = last_changes(bare.path, third, {"a", "b", "c", "d"})
    assert {name: change.commit for name, change in found.items()} == {"a": first, "b": third, "c": second}
    assert {change.author for change in found.values()} == {"Ann"}
