"""Plans of holds, as tables."""

from __future__ import annotations

import pytest

from jens.environments.hold import Hold, Kept, Moment
from jens.model import RepoId
from jens.tools.hold import plan_then
from tests.values import DUMMY, MASTER, MYAPP, A, B

THEN = Moment(4711, 900.0)
COMMITS = {DUMMY: Kept(MASTER, A), MYAPP: Kept(MASTER, B)}
HELD = Hold("production", COMMITS, "ann", 1000.0, then=THEN)


@pytest.mark.parametrize(
    ("before", "commits", "moving", "then"),
    [
        pytest.param(HELD, COMMITS, (), THEN, id="for another reason"),
        pytest.param(HELD, {**COMMITS, DUMMY: Kept(MASTER, B)}, (), None, id="a commit is another one"),
        pytest.param(HELD, {DUMMY: Kept(MASTER, A)}, (), None, id="a repository has gone"),
        pytest.param(HELD, {**COMMITS, DUMMY: Kept(MASTER, B)}, (DUMMY,), THEN, id="what moves does not count"),
        pytest.param(HELD._replace(moving=(DUMMY,)), COMMITS, (DUMMY,), THEN, id="it moves as before"),
        pytest.param(HELD._replace(moving=(DUMMY,)), COMMITS, (), None, id="it has moved"),
        pytest.param(HELD._replace(then=None), COMMITS, (), None, id="it was held as it was"),
        pytest.param(None, COMMITS, (), None, id="it was not held"),
    ],
)
def test_as_it_was_then_needs_all_commits_of_then(
    before: Hold | None, commits: dict[RepoId, Kept], moving: tuple[RepoId, ...], then: Moment | None
) -> None:
    assert plan_then(before, commits, moving) == then
