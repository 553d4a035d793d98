"""Files of state: what was saved is loaded, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jens.layout import Layout
from jens.statefile import STATE_FILES, StateError, StateFile, drop, load, save, state_path
from jens.system import files
from tests.values import layout_in

X = StateFile("x.json", 3, "tests", "nothing")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return layout_in(tmp_path)


def test_a_state_file_comes_back(layout: Layout) -> None:
    save(layout, X, {"a": [1, "ä"]})
    assert load(layout, X) == {"a": [1, "ä"]}


def test_a_state_file_of_another_version_is_none(layout: Layout) -> None:
    save(layout, X, {})
    with pytest.raises(StateError, match="version 4"):
        load(layout, X._replace(version=4))


def test_a_state_file_that_would_not_change_is_left_alone(layout: Layout) -> None:
    path = state_path(layout, X)
    save(layout, X, {"a": 1, "b": 2})
    before = path.stat()
    save(layout, X, {"b": 2, "a": 1})
    assert os.path.samestat(before, path.stat())
    save(layout, X, {"a": 2})
    assert not os.path.samestat(before, path.stat())
    assert load(layout, X) == {"a": 2}


def test_each_file_has_a_name_of_its_own() -> None:
    assert len({file.name for file in STATE_FILES}) == len(STATE_FILES)


def _fail_for(monkeypatch: pytest.MonkeyPatch, number: int, times: int) -> None:
    """Let the next so many writes fail."""
    left = [times]
    real = files.write_file

    def write(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(number, os.strerror(number), str(path))
        assert not path.exists()  # its room is free
        real(path, content)

    monkeypatch.setattr(files, "write_file", write)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_the_old_content_gives_its_room_to_the_new_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save(layout, X, {"a": 1})
    _fail_for(monkeypatch, number, 1)
    save(layout, X, {"a": 2})
    assert load(layout, X) == {"a": 2}


def test_what_cannot_be_saved_even_so_is_lost_and_not_out_of_date(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(layout, X, {"a": 1})
    _fail_for(monkeypatch, errno.ENOSPC, 2)
    with pytest.raises(OSError, match="No space left"):
        save(layout, X, {"a": 2})
    with pytest.raises(StateError):
        load(layout, X)


@pytest.mark.parametrize(("number", "file"), [(errno.EIO, X), (errno.ENOSPC, X._replace(is_replaceable=False))])
def test_other_errors_and_what_must_not_be_lost_leave_the_old_content(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int, file: StateFile
) -> None:
    save(layout, file, {"a": 1})
    _fail_for(monkeypatch, number, 1)
    with pytest.raises(OSError, match=r"x\.json"):
        save(layout, file, {"a": 2})
    assert load(layout, file) == {"a": 1}


def test_a_file_is_dropped(layout: Layout) -> None:
    save(layout, X, {})
    assert drop(layout, X)
    assert drop(layout, X)
    state_path(layout, X).mkdir()
    (state_path(layout, X) / "x").mkdir()
    assert drop(layout, X)
