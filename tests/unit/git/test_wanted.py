"""Commits that a remote perhaps has: how it is asked, and how few questions it takes to know which it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jens.errors import GitError, GitTimeoutError
from jens.git.wanted import Asked, fetch_wanted

COMMITS = [f"{number:040x}" for number in range(16)]


class Remote:
    """A remote that has some of the commits; ``names``: its refusals name so many of the others."""

    def __init__(self, has: Sequence[str], names: int = 1) -> None:
        self._has = set(has)
        self._names = names
        self.asked: list[list[str]] = []
        self.given: set[str] = set()

    def fetch(self, commits: Sequence[str]) -> None:
        self.asked.append(list(commits))
        lacking = [commit for commit in commits if commit not in self._has]
        if lacking:
            named = " ".join(lacking[: self._names])
            raise GitError("fetch", f"fatal: remote error: upload-pack: not our ref {named}", 128)
        self.given.update(commits)


def always(_seconds: float) -> bool:
    return True


@pytest.mark.parametrize(
    ("has", "names", "questions"),
    [
        pytest.param(COMMITS, 1, 1, id="it has all"),
        pytest.param(COMMITS[1:], 1, 2, id="all but one"),
        pytest.param(COMMITS[3:], 1, 4, id="it names each that it lacks"),
        pytest.param(COMMITS[3:], 3, 2, id="it names all that it lacks at once"),
        pytest.param([], 1, 16, id="it has none"),
        pytest.param(COMMITS[1:], 0, 9, id="it names none: halves"),
    ],
)
def test_a_remote_is_asked_few_questions(has: Sequence[str], names: int, questions: int) -> None:
    remote = Remote(has, names)
    asked = fetch_wanted(COMMITS, remote.fetch, always)
    assert asked == Asked(frozenset(COMMITS) - frozenset(has))
    assert remote.given == set(has)
    assert len(remote.asked) == questions


def test_nothing_is_asked_for_nothing() -> None:
    remote = Remote([])
    assert fetch_wanted([], remote.fetch, always) == Asked()
    assert remote.asked == []


def test_when_time_is_over_what_is_known_is_kept() -> None:
    remote, times = Remote(COMMITS[3:]), iter([True, False])
    asked = fetch_wanted(COMMITS, remote.fetch, lambda _seconds: next(times))
    assert (asked.lacking, asked.left) == (frozenset(COMMITS[:2]), frozenset(COMMITS[2:]))
    assert "no time was left to ask which of 14 more it has" in str(asked.error)
    assert len(remote.asked) == 2


@pytest.mark.parametrize(
    "error", [GitTimeoutError("fetch", "no answer within 3 seconds"), GitError("fetch", f"no {COMMITS[0]}", 1)]
)
def test_an_error_that_is_no_refusal_says_nothing_of_the_commits(error: GitError) -> None:
    def fetch(_commits: Sequence[str]) -> None:
        raise error

    assert fetch_wanted(COMMITS, fetch, always) == Asked(frozenset(), frozenset(COMMITS), error)


def test_who_names_commits_without_end_is_not_asked_for_ever() -> None:
    many = [f"{number:040x}" for number in range(1000)]
    remote = Remote([])
    asked = fetch_wanted(many, remote.fetch, always)
    assert len(remote.asked) == len(asked.lacking) == 256
    assert len(asked.left) == 744


def test_a_refusal_that_names_a_commit_nobody_asked_for_ends_too() -> None:
    def fetch(_commits: Sequence[str]) -> None:
        raise GitError("fetch", f"not our ref {'f' * 40}", 128)

    assert fetch_wanted(COMMITS, fetch, always) == Asked(frozenset(COMMITS))
