"""Changes to the file system: each is done completely or not at all, and none follows a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from jens.system import files


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory elsewhere that no test may harm."""
    path = tmp_path / "precious"
    path.mkdir()
    (path / "file").write_text("precious")
    return path


def _full(*_arguments: object, **_keywords: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


# Files


@pytest.mark.parametrize("before", [None, b"old"], ids=["new", "replaced"])
def test_a_file_is_written(here: Path, before: bytes | None) -> None:
    if before is not None:
        (here / "x").write_bytes(before)
    files.write_file(here / "x", b"new")
    assert (here / "x").read_bytes() == b"new"
    assert _names(here) == ["x"]


def test_a_file_is_replaced_and_not_overwritten(here: Path) -> None:
    (here / "x").write_text("old")
    with open(here / "x", "rb") as reader:
        files.write_file(here / "x", b"new")
        assert reader.read() == b"old"


def test_a_file_is_flushed_before_it_is_renamed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_flush(descriptor: int) -> None:
        calls.append("flush")
        fsync(descriptor)

    def note_rename(source: Any, target: Any) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "rename", note_rename)
    files.write_file(here / "x", b"new")
    assert calls == ["flush", "rename", "flush"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_when_writing_fails_the_old_content_stays(here: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    (here / "x").write_text("old")
    monkeypatch.setattr(os, call, _full)
    with pytest.raises(OSError, match="No space left"):
        files.write_file(here / "x", b"new")
    assert (here / "x").read_text() == "old"
    assert _names(here) == ["x"]


def test_writing_replaces_a_link_and_leaves_what_it_points_to(here: Path, precious: Path) -> None:
    (here / "x").symlink_to(precious / "file")
    files.write_file(here / "x", b"new")
    assert not (here / "x").is_symlink()
    assert (precious / "file").read_text() == "precious"


def test_many_files_are_written_with_one_flush(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(files, "flush_file_system", flushed.append)
    (here / "a").write_text("old")
    files.write_files(here, {here / "a": b"1", here / "b": b"2"})
    assert ((here / "a").read_bytes(), (here / "b").read_bytes()) == (b"1", b"2")
    assert flushed == [here]
    files.write_files(here, {})
    assert flushed == [here]


def test_when_many_files_cannot_be_flushed_all_old_ones_stay(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "a").write_text("old")
    monkeypatch.setattr(files, "flush_file_system", _full)
    with pytest.raises(OSError, match="No space left"):
        files.write_files(here, {here / "a": b"1", here / "b": b"2"})
    assert (here / "a").read_text() == "old"
    assert _names(here) == ["a"]


# Links


def test_a_link_is_put_where_nothing_is(here: Path) -> None:
    files.put_link(here / "x", "target")
    assert os.readlink(here / "x") == "target"
    assert _names(here) == ["x"]


@pytest.mark.parametrize("kind", ["file", "link", "link to a directory", "dangling link"])
def test_a_link_takes_the_place_of_a_file_or_a_link(here: Path, precious: Path, kind: str) -> None:
    if kind == "file":
        (here / "x").write_text("old")
    else:
        targets = {"link": precious / "file", "link to a directory": precious, "dangling link": Path("nowhere")}
        (here / "x").symlink_to(targets[kind])
    files.put_link(here / "x", "target")
    assert os.readlink(here / "x") == "target"
    assert _names(here) == ["x"]
    assert _names(precious) == ["file"]


def test_a_link_takes_the_place_of_a_directory_which_moves_to_the_trash(here: Path) -> None:
    (here / "x").mkdir()
    (here / "x" / "file").write_text("old")
    files.put_link(here / "x", "target")
    assert os.readlink(here / "x") == "target"
    trash, link = _names(here)
    assert trash.startswith(files.TRASH)
    assert link == "x"
    files.sweep(here)
    assert _names(here) == ["x"]


def test_a_link_is_never_missing_in_between(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "x").symlink_to("old")
    rename = os.rename
    seen = []

    def look(source: Any, target: Any) -> None:
        seen.append(os.readlink(here / "x"))
        rename(source, target)
        seen.append(os.readlink(here / "x"))

    monkeypatch.setattr(os, "rename", look)
    files.put_link(here / "x", "new")
    assert seen == ["old", "new"]


def test_a_link_that_cannot_be_put_leaves_everything_as_it_was(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "x").symlink_to("old")
    monkeypatch.setattr(os, "rename", _full)
    with pytest.raises(OSError, match="No space left"):
        files.put_link(here / "x", "new")
    assert os.readlink(here / "x") == "old"
    assert _names(here) == ["x"]


# Trees


@pytest.mark.parametrize("kind", ["nothing", "file", "directory", "link", "dangling link"])
def test_a_tree_takes_the_place_of_whatever_is_there(here: Path, precious: Path, kind: str) -> None:
    if kind == "file":
        (here / "x").write_text("old")
    elif kind == "directory":
        (here / "x" / "old").mkdir(parents=True)
    elif kind != "nothing":
        (here / "x").symlink_to(precious if kind == "link" else "nowhere")
    staging = files.staging_name(here)
    (staging / "new").mkdir(parents=True)
    files.replace_tree(staging, here / "x")
    assert _names(here) == ["x"]
    assert _names(here / "x") == ["new"]
    assert not (here / "x").is_symlink()
    assert _names(precious) == ["file"]


@pytest.mark.parametrize("in_one_step", [True, False])
@pytest.mark.parametrize("kind", ["nothing", "file", "empty directory", "directory", "link", "dangling link"])
def test_a_tree_is_put_and_what_was_there_is_handed_over(
    here: Path, precious: Path, kind: str, in_one_step: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "file":
        (here / "x").write_text("old")
    elif kind.endswith("directory"):
        (here / "x").mkdir()
        if kind == "directory":
            (here / "x" / "old").mkdir()
    elif kind != "nothing":
        (here / "x").symlink_to(precious if kind == "link" else "nowhere")
    before = None if kind == "nothing" else os.lstat(here / "x").st_ino
    staging = files.staging_name(here)
    (staging / "new").mkdir(parents=True)

    def refuse(*paths: Path) -> None:
        raise OSError(errno.EINVAL, "a file system cannot do it", str(paths[1]))

    if not in_one_step:
        monkeypatch.setattr(files, "_exchange", refuse)
    elif kind != "nothing":
        monkeypatch.setattr(os, "rename", refuse)  # with two renames there would be nothing in between
    old = files.put_tree(staging, here / "x")
    assert _names(here / "x") == ["new"]
    assert (old and os.lstat(old).st_ino) == before
    assert _names(here) == sorted(["x"] + ([old.name] if old else []))
    assert _names(precious) == ["file"]


def test_staging_names_are_fresh_beside_their_target_and_read_by_nobody(here: Path) -> None:
    one, other = files.staging_name(here), files.staging_name(here)
    assert one != other
    assert one.parent == here
    assert one.name.startswith(".")


@pytest.mark.parametrize("act", [files.remove_tree, files.discard], ids=["remove_tree", "discard"])
@pytest.mark.parametrize("kind", ["nothing", "file", "tree", "link", "dangling link", "tree with a link"])
def test_removing_never_follows_a_link(here: Path, precious: Path, kind: str, act: Any) -> None:
    if kind == "file":
        (here / "x").write_text("old")
    elif kind in ("link", "dangling link"):
        (here / "x").symlink_to(precious if kind == "link" else "nowhere")
    elif kind != "nothing":
        (here / "x" / "sub").mkdir(parents=True)
        (here / "x" / "sub" / "file").write_text("old")
        if kind == "tree with a link":
            (here / "x" / "sub" / "link").symlink_to(precious)
    act(here / "x")
    assert _names(here) == []
    assert (precious / "file").read_text() == "precious"


def test_discarding_takes_out_of_sight_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "x").mkdir()
    deleted: list[Path] = []
    monkeypatch.setattr(files, "remove_tree", deleted.append)
    files.discard(here / "x")
    assert [path.name for path in deleted] == _names(here)
    assert _names(here)[0].startswith(files.TRASH)


def test_what_cannot_be_deleted_yet_stays_for_the_next_sweep(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "x").mkdir()
    (here / "x" / "busy").write_text("x")
    with monkeypatch.context() as busy:
        busy.setattr(os, "unlink", _full)
        files.discard(here / "x")
    assert _names(here)[0].startswith(files.TRASH)
    files.sweep(here)
    assert _names(here) == []


def test_a_sweep_clears_staging_and_trash_and_nothing_else(here: Path, precious: Path) -> None:
    (here / ".new-1").mkdir()
    (here / ".new-1" / "link").symlink_to(precious)
    (here / ".trash-1").symlink_to(precious)
    (here / ".trash-2").write_text("x")
    for name in (".newer", ".4f0c", "x", "new-1"):
        (here / name).mkdir()
    (here / "link").symlink_to(precious)
    files.sweep(here)
    assert _names(here) == [".4f0c", ".newer", "link", "new-1", "x"]
    assert (precious / "file").read_text() == "precious"


def test_one_thing_that_cannot_be_deleted_does_not_end_a_sweep(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".trash-1", ".trash-2", ".trash-3"):
        (here / name).write_text("x")
    unlink = os.unlink

    def busy(path: Any, **keywords: Any) -> None:
        if str(path).endswith("-2"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        unlink(path, **keywords)

    monkeypatch.setattr(os, "unlink", busy)
    files.sweep(here)
    assert _names(here) == [".trash-2"]


def test_a_directory_is_made_with_its_parents_unless_it_is_there(here: Path) -> None:
    files.make_directory(here / "a" / "b")
    files.make_directory(here / "a" / "b")
    assert (here / "a" / "b").is_dir()
    assert (here / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_flushing_what_is_not_there_is_an_error(here: Path) -> None:
    files.flush_file_system(here)
    with pytest.raises(FileNotFoundError):
        files.flush_file_system(here / "nowhere")


def test_a_tree_is_flushed_but_for_its_links(here: Path, precious: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), here))
        fsync(descriptor)

    (here / "a" / "b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (here / name).write_text(name)
    for name, target in (("a/dangling", Path("nowhere")), ("a/file", precious / "file"), ("a/b/directory", precious)):
        (here / name).symlink_to(target)
    monkeypatch.setattr(os, "fsync", note)
    files.flush_tree(here)
    assert sorted(flushed) == [".", "a", "a/b", "a/b/z", "a/y", "x"]
    for directory, inside in {"a/b": ["a/b/z"], "a": ["a/b", "a/y"], ".": ["a", "x"]}.items():
        assert all(flushed.index(each) < flushed.index(directory) for each in inside)


def test_what_cannot_be_flushed_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "x").write_text("")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        files.flush_tree(here)
    with pytest.raises(FileNotFoundError):
        files.flush_tree(here / "nothing")
