"""Fetch wanted commits all at once, and find out which of them a remote does not have."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple

from jens.errors import GitError
from jens.git.wrapper import refused

#: How often a remote is asked again about the commits of one repository. Each time most servers name one that they
#: do not have.
_MOST_REFUSALS = 256


class Asked(NamedTuple):
    """The commits that the remote does not have, those that it was not asked for, and the error that is why."""

    lacking: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    error: GitError | None = None


def fetch_wanted(
    commits: Iterable[str], fetch: Callable[[Sequence[str]], None], has_time: Callable[[float], bool]
) -> Asked:
    """Fetch commits (40 digits) that a remote perhaps has.

    ``fetch`` gets all of the commits that it is called with, or raises GitError: a remote that does not have one of
    them refuses all. ``has_time`` is called with the seconds that this took, and says whether to ask once more.
    """
    lacking: frozenset[str] = frozenset()
    groups = [group] if (group := sorted(set(commits))) else []
    refusals = 0
    while groups:
        group = groups.pop()
        begin = time.monotonic()
        try:
            fetch(group)
        except GitError as error:
            named = refused(error, group)
            if named is None:
                return Asked(lacking, frozenset(group).union(*groups), error)
            named = named if named or len(group) > 1 else frozenset(group)
            lacking |= named
            groups += _rest(group, named)
            refusals += 1
            if groups and (refusals >= _MOST_REFUSALS or not has_time(time.monotonic() - begin)):
                left = frozenset[str]().union(*groups)
                problem = f"it lacks commits, and no time was left to ask which of {len(left)} more it has"
                return Asked(lacking, left, GitError("ls-remote", problem))
    return Asked(lacking)


def _rest(group: Sequence[str], named: frozenset[str]) -> list[list[str]]:
    """What to ask next: for all that was not named, or for halves when the remote has named none."""
    if named:
        rest = [commit for commit in group if commit not in named]
        return [rest] if rest else []
    half = len(group) // 2
    return [list(group[half:]), list(group[:half])]
