"""What a commit is on disk is counted tree by tree, each tree once, and refused when it is too much."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from jens.errors import BudgetError, GitError, GitLimitError, GitTimeoutError
from jens.git import process
from jens.git.process import Limits
from jens.git.trees import Named, Trees
from jens.repositories.budget import MOST_LEVELS, Scales, Weight, refuse
from jens.repositories.model import Budget
from tests.conftest import Remote, git
from tests.faults.decoy import BOMB_FILES, push_bomb, push_tree


class Forest:
    """Trees without a Git: a tree's name to what it names, files with a size, trees without; '' is a submodule."""

    def __init__(self, trees: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> None:
        self.trees = trees
        self.file_sizes = sizes
        self.read: list[str] = []
        self.opened = 0

    def __enter__(self) -> Forest:
        self.opened += 1
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def contents(self, names: Sequence[str]) -> Iterator[tuple[str, Iterator[Named]]]:
        for name in names:
            tree = name.replace("^{tree}", "")
            self.read.append(tree)
            named, half = self.trees[tree], len(self.trees[tree]) // 2
            yield tree, map(self._named, (named[:half], named[half:]))

    def _named(self, part: Sequence[str]) -> Named:
        files = [name for name in part if name in self.file_sizes]
        trees = [name for name in part if name and name not in self.file_sizes]
        return Named(files, trees, part.count(""))

    def sizes(self, names: Sequence[str]) -> Iterator[int]:
        return (self.file_sizes[name] for name in names)


def _chain(levels: int) -> dict[str, list[str]]:
    return {**{f"t{n}": [f"t{n + 1}"] for n in range(levels)}, f"t{levels}": ["f"]}


def _bomb(levels: int) -> dict[str, list[str]]:
    return {**{f"t{n}": [f"t{n + 1}"] * 10 for n in range(levels)}, f"t{levels}": ["f"] * 10}


#: Directories of a commit, however few files are wanted.
_MOST = Budget().files
_TOO_MANY = f"more than {_MOST} directories"


@pytest.mark.parametrize(
    ("trees", "expected"),
    [
        pytest.param({"t0": []}, None, id="nothing at all"),
        pytest.param({"t0": ["f"] * 10}, None, id="as many files as may be"),
        pytest.param({"t0": ["f"] * 11}, "more than 10 files", id="one more"),
        pytest.param({"t0": ["f"] * 5 + ["t1"], "t1": ["f"] * 5}, None, id="in two directories"),
        pytest.param({"t0": ["f"] * 5 + ["t1"], "t1": ["f"] * 6}, "more than 10 files", id="in two, one more"),
        pytest.param({"t0": ["t1"] * 3, "t1": ["f"] * 4}, "more than 10 files", id="one tree in three places"),
        pytest.param({"t0": ["g"]}, None, id="as many bytes as may be"),
        pytest.param({"t0": ["g", "f"]}, "more than 1000 bytes", id="one byte more"),
        pytest.param({"t0": ["t1", "t1"], "t1": ["h"]}, "more than 1000 bytes", id="one file in two places"),
        pytest.param({"t0": ["t1"] * _MOST, "t1": []}, None, id="as many directories as may be"),
        pytest.param({"t0": ["t1"] * (_MOST + 1), "t1": []}, _TOO_MANY, id="one more, of the same tree"),
        pytest.param({"t0": ["t1"] * 708, "t1": ["t2"] * 708, "t2": []}, _TOO_MANY, id="of two levels"),
        pytest.param({"t0": [""] * _MOST}, None, id="as many submodules as may be"),
        pytest.param({"t0": [""] * (_MOST + 1)}, _TOO_MANY, id="submodules are directories"),
        pytest.param({"t0": ["t1", ""], "t1": [""] * (_MOST - 1)}, _TOO_MANY, id="submodules below"),
        pytest.param(_bomb(30), "more than 10 files", id="a bomb"),
        pytest.param({**_bomb(30), "t30": []}, _TOO_MANY, id="a bomb without files"),
    ],
)
def test_a_commit_is_refused_when_it_is_more_than_the_budget(trees: dict[str, list[str]], expected: str | None) -> None:
    forest = Forest(trees, {"f": 1, "g": 1000, "h": 501})
    with Scales(lambda: forest, Budget(10, 1000)) as scales:
        if expected:
            with pytest.raises(BudgetError, match=expected):
                scales.check("t0")
        else:
            scales.check("t0")
    assert len(forest.read) == len(set(forest.read)), "each tree is read once"


@pytest.mark.parametrize(
    ("trees", "is_refused"),
    [
        pytest.param(_chain(MOST_LEVELS), False, id="as many levels as may be"),
        pytest.param(_chain(MOST_LEVELS + 1), True, id="one more"),
        pytest.param(_chain(5000), True, id="many"),
        pytest.param({**_chain(MOST_LEVELS + 1), "t0": ["t1", f"t{MOST_LEVELS}"]}, True, id="with a short way down"),
    ],
)
def test_a_commit_is_refused_for_its_levels(trees: dict[str, list[str]], is_refused: bool) -> None:
    forest = Forest(trees, {"f": 1})
    with Scales(lambda: forest, Budget(10_000)) as scales:
        if is_refused:
            with pytest.raises(BudgetError, match=f"more than {MOST_LEVELS} levels of directories"):
                scales.check("t0")
        else:
            scales.check("t0")
    assert len(forest.read) <= MOST_LEVELS + 2, "no more is read than is needed to know"


def test_what_commits_have_in_common_is_read_once_and_counted_in_each() -> None:
    trees = {"a": ["t1", "f"], "b": ["t1", "f", "f"], "c": ["t1"], "t1": ["t2", "f"], "t2": ["f"] * 7}
    forest = Forest(trees, {"f": 1})
    with Scales(lambda: forest, Budget(10)) as scales:
        scales.check("a")
        scales.check("b")
        with pytest.raises(BudgetError, match="more than 8 bytes"):
            Scales.check(_with_budget(scales, Budget(10, 8)), "a")
        scales.check("c")
    assert sorted(forest.read) == ["a", "a", "b", "c", "t1", "t2"]


def _with_budget(scales: Scales, budget: Budget) -> Scales:
    scales._budget = budget
    return scales


def test_after_a_refusal_another_git_answers() -> None:
    forest = Forest({"bad": ["f"] * 11, "good": ["f"]}, {"f": 1})
    with Scales(lambda: forest, Budget(10)) as scales:
        for _ in range(2):
            with pytest.raises(BudgetError):
                scales.check("bad")
        scales.check("good")
        scales.check("good")
    assert forest.opened == 3


def test_a_weight_is_a_number_of_any_size() -> None:
    refuse(Weight(), Budget())
    with pytest.raises(BudgetError, match="more than 500000 files"):
        refuse(Weight(files=10**100), Budget())


# Trees that Git reads


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote.create(tmp_path / "remote")


def _weight(remote: Remote, commit: str) -> Weight:
    with Scales(lambda: Trees(remote.path), Budget()) as scales:
        scales.check(commit)
        return max(scales._weights.values())


def test_files_links_directories_and_submodules_are_counted(remote: Remote) -> None:
    files = {"a": ("100644", "12345"), "b/c/d": ("100755", "é"), "b/e": ("120000", "target"), "f": ("160000", "1" * 40)}
    assert _weight(remote, push_tree(remote, files)) == Weight(3, 5 + 2 + 6, 3, 2)


def test_a_commit_without_files_weighs_nothing(remote: Remote) -> None:
    remote.push({"x": "x"})
    assert _weight(remote, remote.push({"x": None})) == Weight()


def test_thousands_of_trees_and_files_are_all_counted(remote: Remote) -> None:
    names = [f"{number % 1500}/{number}\n\x80" for number in range(4000)]
    commit = push_tree(remote, {name: ("100644", name) for name in names})
    size = sum(len(name.encode()) for name in names)
    assert _weight(remote, commit) == Weight(4000, size, 1500, 1)


def test_a_bomb_is_counted_in_no_time(remote: Remote) -> None:
    commit = push_bomb(remote)
    begin = time.process_time()
    for _ in range(3):
        with pytest.raises(BudgetError, match="more than 500000 files"):
            _weight(remote, commit)
    with Scales(lambda: Trees(remote.path), Budget(files=10**20, bytes=10**20)) as scales:
        scales.check(commit)
        assert max(scales._weights.values()).files == BOMB_FILES
    assert time.process_time() - begin < 2


def test_a_tree_that_is_missing_or_none_is_an_error(remote: Remote) -> None:
    blob = git("hash-object", "-w", "--stdin", directory=remote.path, stdin=b"x")
    for name, problem in ((blob, f"object {blob} is a blob, expected a tree"), ("1" * 40, "missing")):
        content = b"40000 below\0" + bytes.fromhex(name)
        tree = git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", directory=remote.path, stdin=content)
        commit = git("commit-tree", "-m", "x", tree, directory=remote.path)
        with pytest.raises(GitError, match=problem):
            _weight(remote, commit)
    with pytest.raises(GitError, match="missing"):
        _weight(remote, "2" * 40)


@pytest.mark.parametrize(
    "content",
    [b"x", b"100644 name\0short", b"nonsense name\0" + bytes(20), b"100644 " + b"x" * 200_000 + b"\0"],
    ids=["no entry", "cut off", "without a mode", "with an endless name"],
)
def test_a_tree_that_is_malformed_is_an_error(remote: Remote, content: bytes) -> None:
    tree = git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", directory=remote.path, stdin=content)
    commit = git("commit-tree", "-m", "x", tree, directory=remote.path)
    with pytest.raises(GitError, match="malformed"):
        _weight(remote, commit)


def test_a_git_that_hangs_or_dies_while_it_reads_is_an_error(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nread -r line\necho killed >&2\nkill -KILL $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(GitError, match="killed") as caught:
        _weight(remote, "1" * 40)
    assert caught.value.is_cut_short
    program.write_text("#!/bin/sh\necho 'fatal: Out of memory, malloc failed' >&2\nexit 128\n")
    with pytest.raises(GitLimitError, match="the limit is 1024 MiB"):
        _weight(remote, "1" * 40)
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(process, "_limits", Limits(seconds=0.3))
    begin = time.monotonic()
    with pytest.raises(GitTimeoutError, match=r"did not end within 0\.3 seconds"):
        _weight(remote, "1" * 40)
    assert time.monotonic() - begin < 20
