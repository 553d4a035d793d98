"""Tells which pushes have not arrived: a webhook may be quicker than the replica of the server that is fetched from."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Callable

from jens.errors import GitError
from jens.git import wrapper
from jens.layout import Layout
from jens.messaging.message import Move
from jens.model import RepoId
from jens.text import one_line

if TYPE_CHECKING:
    from jens.messaging.queue import Push

#: Seconds after which a push is given up: it may have been taken back before anybody fetched it.
PATIENCE = 600
#: No more pushes are waited for; anybody who can send webhooks may tell of pushes that never were.
MOST = 1000
#: So many pushes are named in the log.
_MOST_NAMED = 20

log = logging.getLogger(__name__)


def find_late(layout: Layout, pushes: Iterable[Push], failed: Collection[RepoId]) -> list[Push]:
    """The pushes whose hints stay for the next run: the mirrors, just fetched, do not have them yet.

    Logs which these are, and which are given up. A repository that failed is none of them.
    """
    found = [push for push in latest(pushes) if push.repo not in failed and not _has_arrived(layout, push)]
    late = [push for push in found if is_waited_for(push, time.time())][:MOST]
    over = [push for push in found if push not in late]
    if late:
        log.info("Not on the server yet, so the hints stay for the next run: %s", _named(late))
    if over:
        log.warning("The server has still not got what was pushed, so the hints are given up: %s", _named(over))
    return late


def latest(pushes: Iterable[Push]) -> list[Push]:
    """The last push of each branch: it has replaced those before."""
    return [*{(push.repo, push.move.branch): push for push in pushes}.values()]


def is_waited_for(push: Push, now: float) -> bool:
    """Whether a push that has not arrived is young enough; one of the future is not."""
    return abs(now - push.added) <= PATIENCE


def has_arrived(move: Move, heads: Mapping[str, str], has_commit: Callable[[str], bool]) -> bool:
    """Whether branches (name to commit) show a push, or what came after it."""
    tip = heads.get(move.branch, "")
    if tip == move.after:
        return True
    if not move.after:
        return tip != move.before
    return tip not in ("", move.before) and has_commit(move.after)


def _has_arrived(layout: Layout, push: Push) -> bool:
    bare = layout.bare(push.repo)
    if not wrapper.is_repository(bare):  # the library does not have it
        return True
    try:
        return has_arrived(push.move, wrapper.heads(bare), lambda commit: bool(wrapper.commits_like(bare, commit)))
    except (GitError, OSError):
        return False


def _named(pushes: Collection[Push]) -> str:
    names = sorted(f"{push.repo} {one_line(push.move.branch)} {push.move.after[:7] or 'deleted'}" for push in pushes)
    more = f" and {len(names) - _MOST_NAMED} more" if names[_MOST_NAMED:] else ""
    return f"{names[:_MOST_NAMED]}{more}"
