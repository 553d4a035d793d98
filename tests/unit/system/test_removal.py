"""Trees of any depth are removed with few open files, and nothing outside them."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jens.system import files, processes, removal

#: More directories than any path may have, and than most processes may open.
DEEP = 12_000


def make_deep(top: Path, depth: int) -> None:
    """Make directories inside one another, with a file in every thousandth."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for level in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if level % 1000 == 0:
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


@contextmanager
def few_open_files(more: int) -> Iterator[None]:
    """Let this process open only so many more files than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.open("/", os.O_RDONLY)
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / ".trash-1"


def test_a_tree_of_any_depth_goes_with_four_open_files(top: Path) -> None:
    make_deep(top, DEEP)
    with few_open_files(5):
        assert files.remove_tree(top) is None
    assert os.listdir(top.parent) == []


def test_a_wide_tree_goes(top: Path) -> None:
    for name in ("a/b", "a/c", "d"):
        (top / name).mkdir(parents=True)
        for number in range(100):
            (top / name / str(number)).touch()
        (top / name / "link").symlink_to(top.parent)
    assert files.remove_tree(top) is None
    assert os.listdir(top.parent) == []


def refusing(operation: Callable[..., None], refused: str, number: int) -> Callable[..., None]:
    def refuse_or_do(name: Any, **more: Any) -> None:
        if name == refused:
            raise OSError(number, os.strerror(number), name)
        operation(name, **more)

    return refuse_or_do


def test_what_stays_is_named_and_the_rest_goes(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "a" / "b").mkdir(parents=True)
    for name in ("a/one", "a/busy", "a/b/two", "three"):
        (top / name).touch()
    monkeypatch.setattr(os, "unlink", refusing(os.unlink, "busy", errno.EBUSY))
    problem = files.remove_tree(top)
    assert problem is not None
    assert (problem.errno, problem.filename) == (errno.EBUSY, f"{top}/a/busy")
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == ["a", "a/busy"]
    assert files.sweep(top.parent)[0].filename == f"{top}/a/busy"
    monkeypatch.undo()
    assert files.sweep(top.parent) == []


def test_without_a_descriptor_everything_stays_and_that_is_told(top: Path) -> None:
    top.mkdir()
    with few_open_files(0):
        problem = files.remove_tree(top)
    assert problem is not None
    assert problem.errno == errno.EMFILE
    assert top.is_dir()


def test_a_tree_that_somebody_moves_meanwhile_leads_nowhere_else(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = top.parent / "elsewhere"
    for name in (top / "a" / "b", elsewhere / "d"):
        name.mkdir(parents=True)
    rmdir = os.rmdir

    def move_then_rmdir(name: Any, **more: Any) -> None:
        rmdir(name, **more)
        if name == "b":  # where it is now, ".." is another directory
            (top / "a").rename(elsewhere / "a")

    monkeypatch.setattr(os, "rmdir", move_then_rmdir)
    problem = files.remove_tree(top)
    assert problem is not None
    assert problem.errno == errno.ESTALE
    assert sorted(os.listdir(elsewhere)) == ["a", "d"]


def test_a_link_in_the_place_of_a_directory_is_not_followed(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = top.parent / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (top / "a").mkdir(parents=True)
    opening = os.open

    def swap_then_open(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        if path == "a":
            os.rmdir(top / "a")
            (top / "a").symlink_to(precious)
        return opening(path, flags, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", swap_then_open)
        files.remove_tree(top)
    assert not top.exists()
    assert os.listdir(precious) == ["file"]


def test_a_removal_ends_when_the_program_is_about_to_end(top: Path) -> None:
    make_deep(top, 10)
    with processes.stopping():
        problem = files.remove_tree(top)
    assert problem is not None
    assert problem.errno == errno.EINTR
    assert files.remove_tree(top) is None


def test_a_directory_goes_relative_to_a_descriptor(top: Path) -> None:
    make_deep(top, 3)
    parent = os.open(top.parent, os.O_RDONLY)
    top.parent.rename(top.parent.with_name("moved"))
    assert removal.remove_directory(top.name, parent) is None
    os.close(parent)
    assert os.listdir(top.parent.with_name("moved")) == []
