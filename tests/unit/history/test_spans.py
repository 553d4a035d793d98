"""When a commit was visible, decided from moves of branches and from what environments held."""

from __future__ import annotations

import time

import pytest

from jens.history import spans
from jens.history.queries import Holding, Move
from jens.history.spans import BRANCH_GONE, LEFT, MOVED_ON, REPLACED, REWRITTEN, ROLLED_BACK, Span, plan_spans

A, B, C, D = "a" * 40, "b" * 40, "c" * 40, "d" * 40


def move(deployment: int, now: str | None, ref: str = "master", **more: int) -> Move:
    return Move(ref, now, deployment, deployment * 10.0, more.get("commits"), more.get("lost"))


def held(since: int, until: int | None = None, ref: str = "master", environment: str = "e") -> Holding:
    return Holding(environment, ref, since, since * 10.0, until, None if until is None else until * 10.0)


def span(
    since: float,
    until: float | None = None,
    end: str | None = None,
    by: str | None = None,
    shown: str = B,
    ref: str = "master",
) -> Span:
    return Span("e", ref, shown, since, until, end, by)


#: B contains A, C contains B, D contains neither.
CASES = {
    "it is there": ([move(1, B)], [held(1)], {B}, [span(10)]),
    "never": ([move(1, A)], [held(1)], {B}, []),
    "nothing is known": ([], [], {B}, []),
    "since it is contained in another": ([move(1, A), move(2, C)], [held(1)], {B, C}, [span(20, shown=C)]),
    "since before, when another contains it": ([move(1, B), move(2, C)], [held(1)], {B, C}, [span(10, shown=C)]),
    "since the environment holds it": ([move(1, B)], [held(3)], {B}, [span(30)]),
    "set back": (
        [move(1, A), move(2, B), move(3, A, commits=0, lost=1)],
        [held(1)],
        {B},
        [span(20, 30, ROLLED_BACK, A)],
    ),
    "force-pushed": ([move(1, B), move(2, D, commits=2, lost=1)], [held(1)], {B}, [span(10, 20, REWRITTEN, D)]),
    "replaced in a way that nobody counted": ([move(1, B), move(2, D)], [held(1)], {B}, [span(10, 20, REPLACED, D)]),
    "the branch went": ([move(1, B), move(2, None)], [held(1)], {B}, [span(10, 20, BRANCH_GONE)]),
    "the branch came back": (
        [move(1, B), move(2, None), move(4, B)],
        [held(1)],
        {B},
        [span(10, 20, BRANCH_GONE), span(40)],
    ),
    "the environment went": ([move(1, B)], [held(1, 2)], {B}, [span(10, 20, LEFT)]),
    "environment and branch went": ([move(1, B), move(2, None)], [held(1, 2)], {B}, [span(10, 20, LEFT)]),
    "the environment moved elsewhere": (
        [move(1, B), move(1, A, "other")],
        [held(1, 2), held(2, ref="other")],
        {B},
        [span(10, 20, MOVED_ON, "other")],
    ),
    "the environment moved to another ref with it": (
        [move(1, B), move(1, C, "other")],
        [held(1, 2), held(2, ref="other")],
        {B, C},
        [span(10, shown=C, ref="other")],
    ),
    "the environment moved to a branch that got it later": (
        [move(1, B), move(1, A, "other"), move(3, C, "other")],
        [held(1, 2), held(2, ref="other")],
        {B, C},
        [span(10, 20, MOVED_ON, "other"), span(30, shown=C, ref="other")],
    ),
    "pinned": ([], [held(1, ref=f".{B}")], {B}, [span(10, ref=f".{B}")]),
    "pinned, and its files were missing at first": (
        [],
        [held(1, 2, ref=f"?{B}"), held(2, ref=f".{B}")],
        {B},
        [span(20, ref=f".{B}")],
    ),
    "no longer pinned": (
        [move(1, A)],
        [held(1, 2, ref=f".{B}"), held(2)],
        {B},
        [span(10, 20, MOVED_ON, "master", ref=f".{B}")],
    ),
    "not while another environment held it": (
        [move(1, B), move(2, A, commits=0, lost=1)],
        [held(2)],
        {B},
        [],
    ),
    "the environment went while it showed an earlier one": (
        [move(1, B), move(3, C)],
        [held(1, 2)],
        {B, C},
        [span(10, 20, LEFT)],
    ),
    "of what has been forgotten the rest": ([move(5, B)], [held(1)], {B}, [span(50)]),
}


@pytest.mark.parametrize("case", CASES)
def test_spans(case: str) -> None:
    moves, holdings, containing, expected = CASES[case]
    assert plan_spans(moves, holdings, containing) == expected


def test_environments_do_not_mix() -> None:
    moves = [move(1, B), move(2, C, commits=1, lost=0)]
    holdings = [held(1, environment="x"), held(1, 2, environment="y"), held(2, environment="a")]
    found = plan_spans(moves, holdings, {B})
    assert [(each.environment, each.since, each.until, each.end) for each in found] == [
        ("x", 10, 20, spans.REPLACED),
        ("y", 10, 20, LEFT),
    ]


def test_busy_branches_cost_little() -> None:
    """A year of a push every ten minutes, in as many environments as a site has: in the blink of an eye."""
    moves = [move(number, f"{number:040x}") for number in range(1, 50_000)]
    containing = {each.now for each in moves[25_000:] if each.now}
    holdings = [held(1, environment=f"e{number}") for number in range(300)]
    begin = time.process_time()
    found = plan_spans(moves, holdings, containing)
    assert time.process_time() - begin < 2  # one look at each move for each environment would take ten
    assert [each.since for each in found] == [250_010.0] * 300
