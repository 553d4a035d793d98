"""Which pushes have arrived, told from the branches of a mirror."""

from __future__ import annotations

import pytest

from jens.messaging.message import Move
from jens.messaging.queue import Push
from jens.update import arrivals
from tests.values import DUMMY, MYAPP

OLD, NEW, LATER = "1" * 40, "2" * 40, "3" * 40


@pytest.mark.parametrize(
    ("before", "after", "tip", "has", "arrived"),
    [
        pytest.param(OLD, NEW, NEW, True, True, id="it is there"),
        pytest.param(OLD, NEW, OLD, False, False, id="it is not there yet"),
        pytest.param(OLD, NEW, LATER, True, True, id="another push came after it"),
        pytest.param(OLD, NEW, LATER, False, False, id="it was taken back, or other pushes are on the way"),
        pytest.param(OLD, NEW, "", False, False, id="the branch is not there yet"),
        pytest.param("", NEW, "", True, False, id="a new branch at a known commit is not there yet"),
        pytest.param("", NEW, NEW, True, True, id="a new branch is there"),
        pytest.param(NEW, OLD, NEW, True, False, id="back to an old commit, not yet"),
        pytest.param(NEW, OLD, OLD, True, True, id="back to an old commit"),
        pytest.param(OLD, "", OLD, True, False, id="not deleted yet"),
        pytest.param(OLD, "", "", True, True, id="deleted"),
        pytest.param(OLD, "", NEW, True, True, id="deleted, and made again"),
        pytest.param("", "", "", False, True, id="nothing is known"),
    ],
)
def test_has_arrived(before: str, after: str, tip: str, has: bool, arrived: bool) -> None:
    heads = {"master": LATER, **({"x": tip} if tip else {})}
    assert arrivals.has_arrived(Move("x", before, after), heads, lambda commit: has and commit == after) is arrived


def test_a_branch_that_is_where_it_should_be_needs_no_git() -> None:
    def no_git(_commit: str) -> bool:
        pytest.fail("Git was asked")

    assert arrivals.has_arrived(Move("x", OLD, NEW), {"x": NEW}, no_git)
    assert not arrivals.has_arrived(Move("x", OLD, NEW), {"x": OLD}, no_git)


def _push(name: str, move: Move, seconds: int = 0) -> Push:
    return Push(f"00000000/{seconds:08x}{name:>06}".replace(" ", "0"), DUMMY, move)


def test_the_last_push_of_a_branch_counts() -> None:
    pushes = [
        _push("1", Move("x", "", OLD)),
        _push("2", Move("y", "", OLD)),
        _push("3", Move("x", OLD, NEW)),
        _push("4", Move("x", NEW, "")),
    ]
    other = pushes[0]._replace(repo=MYAPP)
    assert arrivals.latest([*pushes, other]) == [pushes[3], pushes[1], other]


@pytest.mark.parametrize(
    ("age", "waits"), [(0, True), (600, True), (601, False), (-600, True), (-601, False), (10**8, False)]
)
def test_a_push_is_waited_for_some_minutes(age: int, waits: bool) -> None:
    assert arrivals.is_waited_for(_push("1", Move("x", OLD, NEW), 10**9), 10**9 + age) is waits
