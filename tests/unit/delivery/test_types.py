"""In which environments types are looked at, and what becomes of the files that Puppet makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from jens.deliveries import Position
from jens.delivery.generate import Done, take_over
from jens.delivery.news import News
from jens.delivery.types import _REST, _Memory, _set_aside, plan_looks
from jens.history.model import CHANGED, CREATED, DELETED
from jens.history.since import Difference, EnvironmentNews, Since
from jens.model import Branch

PLAIN = Difference("modules/plain", Branch("master"), "1" * 40, "2" * 40)
TYPED = Difference("modules/typed", Branch("master"), "1" * 40, "2" * 40)


@pytest.mark.parametrize(
    ("change", "differences", "digests", "is_all", "is_looked_at"),
    [
        (CREATED, (PLAIN,), {}, False, True),
        (CREATED, (PLAIN,), {"e": "1"}, False, True),
        (CHANGED, (PLAIN,), {}, False, True),  # nobody has looked at it
        (CHANGED, (PLAIN,), {"e": ""}, False, False),
        (CHANGED, (PLAIN, TYPED), {"e": ""}, False, True),
        (CHANGED, (), {"e": "1"}, False, True),  # it may have been made anew
        (CHANGED, (PLAIN,), {"e": "1"}, True, True),
        (DELETED, (TYPED,), {"e": "1"}, False, False),
    ],
)
def test_which_environments_are_looked_at(
    change: str, differences: tuple[Difference, ...], digests: Mapping[str, str], is_all: bool, is_looked_at: bool
) -> None:
    since = Since((), {"e": EnvironmentNews(change, differences)})
    news = News("host", since, (), (), Position(), is_all)
    assert plan_looks(news, digests, lambda each: each is TYPED) == ["e"] * is_looked_at


@pytest.mark.parametrize(
    ("done", "slow", "left"),
    [
        ({"a": Done(), "b": Done()}, set(), set()),
        ({"a": Done("no luck"), "b": Done(is_left=True)}, set(), {"b"}),
        ({"a": Done()}, set(), {"b"}),
        ({"a": Done("too long", is_slow=True), "b": Done()}, {"a"}, set()),
        ({"a": Done("too long", is_slow=True), "b": Done(is_left=True)}, {"a", "b"}, set()),
    ],
)
def test_what_is_left_for_later(done: Mapping[str, Done], slow: set[str], left: set[str]) -> None:
    assert _set_aside(["a", "b"], done) == (slow, left)


@pytest.mark.parametrize(
    ("digest", "now", "rests"),
    [
        ("1", 1000.0, True),
        ("1", 1000.0 + _REST, False),
        ("2", 1000.0, False),
        ("1", 999.0, False),  # the clock was set back
    ],
)
def test_types_that_took_too_long_rest(digest: str, now: float, rests: bool) -> None:
    memory = _Memory(slow={"e": ("1", 1000.0 + _REST)})
    assert _Memory.of(memory.encode()) == memory
    assert memory.rests("e", digest, now) == rests
    assert not memory.rests("f", digest, now)


def test_files_that_say_the_same_are_not_written(tmp_path: Path) -> None:
    made, environment = tmp_path / "made", tmp_path / "environment"
    made.mkdir()
    environment.mkdir()
    (made / "a.pp").write_text("# This file was automatically generated on Monday.\na\n")
    assert take_over(made, environment, is_whole=True)
    place = environment / ".resource_types"
    before = (place / "a.pp").stat().st_ino
    (made / "a.pp").write_text("# This file was automatically generated on Tuesday.\na\n")
    assert not take_over(made, environment, is_whole=True)
    assert (place / "a.pp").stat().st_ino == before

    (place / ".new-0123").write_text("half a file of one that was killed")
    (made / "b.pp").write_text("b\n")
    (made / "a.pp").unlink()
    assert take_over(made, environment, is_whole=False)  # Puppet has failed: what it did not make stays
    assert {"a.pp", "b.pp"} <= {path.name for path in place.iterdir()}
    assert take_over(made, environment, is_whole=True)
    assert [path.name for path in place.iterdir()] == ["b.pp"]


def test_where_there_are_no_types_there_is_no_directory(tmp_path: Path) -> None:
    assert not take_over(tmp_path / "nothing", tmp_path, is_whole=True)
    assert not (tmp_path / ".resource_types").exists()
    assert not take_over(tmp_path / "home", tmp_path / "nothing", is_whole=True)  # a run has removed it


def test_where_puppet_found_none_there_is_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    assert not take_over(tmp_path / "made", tmp_path, is_whole=True)
    assert [*(tmp_path / ".resource_types").iterdir()] == []
