"""What an environment would show if nothing were missing: each rule is a row of a table."""

from __future__ import annotations

import pytest

from jens.environments.hold import Kept
from jens.model import Commit, Definition
from jens.tools.as_it_is import Sources, plan
from jens.tools.snapshot import Seen
from tests.values import DUMMY, MASTER, MYAPP, QA, A, B, C

_NONE = "nobody knows"


def seen(*, has_links: bool = True) -> Seen:
    """An environment that shows a hostgroup, and should show a module."""
    refs = {MYAPP: MASTER, **({DUMMY: QA} if has_links else {})}
    return Seen(
        {MYAPP: A}, refs, Definition("production", MASTER, {}), True, {DUMMY: "is missing"} if has_links else {}, ()
    )


@pytest.mark.parametrize(
    ("told", "commit", "source"),
    [
        pytest.param(Sources(earlier={DUMMY: Kept(QA, B)}, links={DUMMY: C}), B, "the hold that there was", id="held"),
        pytest.param(Sources(links={DUMMY: B}, inventory={DUMMY: {QA: C}}), B, "a link", id="a branch link"),
        pytest.param(
            Sources(inventory={DUMMY: {QA: B}}, past={DUMMY: Kept(QA, C)}), B, "the inventory", id="inventory"
        ),
        pytest.param(Sources(past={DUMMY: Kept(QA, B)}), B, "the history", id="no inventory"),
        pytest.param(Sources(inventory={}, past={DUMMY: Kept(QA, B)}), B, "the history", id="not in the inventory"),
        pytest.param(Sources(inventory={DUMMY: {MASTER: B}}), None, "left out", id="the branch was never there"),
        pytest.param(Sources(past={DUMMY: Kept(QA, None)}), None, "left out", id="it dangled before"),
        pytest.param(Sources(earlier={DUMMY: Kept(QA, None)}), None, "left out", id="it dangled when it was held"),
        pytest.param(Sources(past={DUMMY: Kept(MASTER, B)}), None, _NONE, id="the history knows another ref"),
        pytest.param(Sources(), None, _NONE, id="nobody knows"),
    ],
)
def test_what_is_missing(told: Sources, commit: str | None, source: str) -> None:
    found = plan(seen(), told)
    assert found.repositories[MYAPP] == Kept(MASTER, A)
    if source == _NONE:
        assert (len(found.lost), found.doubts) == (1, ())
    else:
        assert (found.repositories[DUMMY], found.lost) == (Kept(QA, commit), ())
        (doubt,) = found.doubts
        assert source in doubt
        assert "is missing" in doubt
    assert plan(seen(), told, [DUMMY]).lost == ()  # what keeps moving need not be known


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        pytest.param(Sources(earlier={DUMMY: Kept(QA, B)}), Kept(QA, B), id="held"),
        pytest.param(Sources(past={DUMMY: Kept(QA, B)}), Kept(QA, B), id="it was there"),
        pytest.param(Sources(inventory={DUMMY: {QA: B}}, links={DUMMY: B}), None, id="it never was"),
    ],
)
def test_links_that_are_gone(told: Sources, kept: Kept | None) -> None:
    found = plan(seen(has_links=False), told)
    assert (found.repositories.get(DUMMY), len(found.doubts), found.lost) == (kept, kept is not None, ())
    assert plan(seen(has_links=False), told, [DUMMY]) == found._replace(doubts=())  # it moves, and is not held


def test_refs_are_those_from_before_the_hold_that_there_was() -> None:
    pinned = Seen({DUMMY: A}, {DUMMY: Commit(A)}, Definition("production", None, {}), True, {}, ())
    assert plan(pinned, Sources(earlier={DUMMY: Kept(QA, A)})).repositories == {DUMMY: Kept(QA, A)}


def test_nothing_cannot_be_held() -> None:
    nothing = Seen({}, {}, Definition("production", None, {}), True, {}, ())
    assert plan(nothing, Sources()).lost == ("it shows nothing that could be held",)
