"""Files of state: what was saved is loaded, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jens.layout import Layout
from jens.statefile import STATE_FILES, StateError, StateFile, load, save, state_path
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
