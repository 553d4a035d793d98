"""Steps relative to open directories lead nowhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jens.system import descriptors


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that others may write to, beside one that is precious."""
    (tmp_path / "place").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    return tmp_path / "place"


@pytest.fixture
def opened(place: Path) -> Iterator[int]:
    descriptor = os.open(place, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("name", ["link", "link/inside", "inside/link"])
@pytest.mark.parametrize("function", [descriptors.opened, descriptors.made])
def test_no_link_is_followed(place: Path, opened: int, name: str, function: object) -> None:
    (place / "inside").mkdir()
    (place / "link").symlink_to(place.parent / "precious")
    (place / "inside" / "link").symlink_to(place.parent / "precious")
    (place.parent / "precious" / "inside").mkdir()
    assert callable(function)
    with pytest.raises(NotADirectoryError), function(name, opened):
        pass


def test_a_directory_is_opened_two_levels_below(place: Path, opened: int) -> None:
    (place / "one" / "two" / "three").mkdir(parents=True)
    with descriptors.opened("one/two", opened) as found:
        assert os.listdir(found) == ["three"]
    with descriptors.opened("", opened) as found:
        assert os.listdir(found) == ["one"]


def test_a_missing_directory_is_made_once(place: Path, opened: int) -> None:
    for _ in range(2):
        with descriptors.made("new", opened) as found:
            (place / "new" / "file").touch()
            assert os.listdir(found) == ["file"]


def test_only_a_link_is_one(place: Path, opened: int) -> None:
    (place / "link").symlink_to("nowhere")
    (place / "directory").mkdir()
    assert [descriptors.is_link(name, opened) for name in ("link", "directory", "nothing")] == [True, False, False]


def test_what_is_discarded_is_gone_and_nothing_that_it_leads_to(place: Path, opened: int) -> None:
    (place / "tree" / "one" / "two").mkdir(parents=True)
    for directory in ("tree", "tree/one", "tree/one/two"):
        (place / directory / "link").symlink_to(place.parent / "precious")
        (place / directory / "file").touch()
    (place / "file").touch()
    (place / "link").symlink_to(place.parent / "precious")
    for name in ("tree", "file", "link"):
        descriptors.discard(opened, name)
    assert os.listdir(place) == []
    assert os.listdir(place.parent / "precious") == ["file"]


def test_what_takes_too_long_stays(place: Path, opened: int) -> None:
    (place / "tree" / "one").mkdir(parents=True)
    with suppress(OSError):
        descriptors.discard(opened, "tree", time.monotonic() - 1)
    assert os.listdir(place / "tree") == ["one"]
