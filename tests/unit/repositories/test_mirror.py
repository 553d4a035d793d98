"""Which branches a fetch left as they were, though the remote had said otherwise."""

from __future__ import annotations

import pytest

from jens.repositories.mirror import not_brought


@pytest.mark.parametrize(
    ("said", "before", "after", "expected"),
    [
        pytest.param({"a": "2"}, {"a": "1"}, {"a": "2"}, [], id="brought"),
        pytest.param({"a": "2"}, {"a": "1"}, {"a": "1"}, ["a"], id="rejected"),
        pytest.param({"a": "2"}, {"a": "1"}, {"a": "3"}, [], id="pushed again meanwhile"),
        pytest.param({"a": "2"}, {"a": "1"}, {}, [], id="deleted meanwhile"),
        pytest.param({"a": "2"}, {}, {}, ["a"], id="a new one that did not come"),
        pytest.param({"a": "2"}, {}, {"a": "2"}, [], id="a new one"),
        pytest.param({}, {"a": "1"}, {"a": "1"}, ["a"], id="a deleted one that stayed"),
        pytest.param({}, {"a": "1"}, {}, [], id="a deleted one"),
        pytest.param({"a": "1"}, {"a": "1"}, {"a": "1"}, [], id="nothing to bring"),
        pytest.param({"../a": "2", "b.lock": "2", "c": "2"}, {}, {}, ["c"], id="names that Git ignores"),
        pytest.param({"a": "2", "b": "2", "c": "2"}, {"a": "1", "b": "1"}, {"a": "1", "b": "2"}, ["a", "c"], id="some"),
    ],
)
def test_what_the_remote_moved_and_the_fetch_did_not_was_not_brought(
    said: dict[str, str], before: dict[str, str], after: dict[str, str], expected: list[str]
) -> None:
    assert not_brought(said, before, after) == expected
