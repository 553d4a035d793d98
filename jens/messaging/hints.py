"""Hints of a run on demand: taken before the work, and removed from the queue after it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from jens.errors import QueueError
from jens.events import Event, tell
from jens.messaging.message import MOST_MOVES, Move, timestamp
from jens.messaging.queue import Hints, Push, Queue
from jens.model import Library, RepoId

log = logging.getLogger(__name__)

#: At most so many repositories are named in one line of the log.
_MOST_NAMES = 20


def has_messages(queuedir: Path) -> bool:
    """Whether the queue has messages; False when it cannot be read."""
    try:
        return bool(Queue(queuedir).names())
    except QueueError:
        return False


def take(queuedir: Path) -> Hints:
    """Take the hints for a run, and log what is wrong with them. Raises QueueError."""
    log.info("Getting and processing hints...")
    hints = Queue(queuedir).take()
    log.info("%d messages found", hints.found)
    tell(log, hints.events)
    return hints


def unknown_repositories(hints: Hints, library: Library) -> str:
    """A warning that names hinted repositories that the library does not have, or ''."""
    unknown = hints.repos - set(library.urls)
    return f"Hints for repositories that the library does not have: {_listed(unknown)}" if unknown else ""


def finish(
    queuedir: Path,
    hints: Hints,
    failed: Collection[RepoId],
    late: Collection[Push] = (),
    left: Collection[RepoId] = (),
) -> list[Event]:
    """Remove messages from the queue. First add a new message for the repositories that failed.

    When it cannot be added, the messages that name these stay. The others go, or a full disk would stay full. Messages
    with a push that is ``late``, not on its server yet, stay, too. So does the message for repositories that are
    ``left`` to jens-transfer, if it is one, and names no others: nobody has asked their remotes since.
    """
    queue, again, waiting = Queue(queuedir), hints.repos & set(failed) - set(left), hints.repos & set(left)
    stay = {push.message for push in late if push.repo not in again}
    only = _only_message(queue, hints, waiting)
    stay |= {only} - {""}
    level = logging.WARNING if again else logging.INFO
    again |= frozenset() if only else waiting
    done = [name for name in hints.messages if name not in stay]
    if not again:
        return queue.acknowledge(done)
    try:
        oldest = min((hints.times[repo] for repo in again if repo in hints.times), default=None)
        name = queue.add(again, timestamp(oldest), _moves_of(hints, again, queue))
    except QueueError as error:
        done = [name for name in hints.messages if queue.is_without(name, again)]
        event = Event(logging.ERROR, f"{len(hints.messages) - len(done)} hints stay for the next run: {error}")
        return [event, *queue.acknowledge(done)]
    text = f"To be fetched again: {_listed(again)}, '{name}' added to the queue"
    return [Event(level, text), *queue.acknowledge(done)]


def _only_message(queue: Queue, hints: Hints, waiting: Collection[RepoId]) -> str:
    """The message that names repositories which wait, if it is the only one, and names no others; otherwise ''."""
    naming = [name for name in hints.messages if not queue.is_without(name, waiting)] if waiting else []
    is_alone = len(naming) == 1 and queue.is_without(naming[0], hints.repos - set(waiting))
    return naming[0] if is_alone else ""


def only_wait(hints: Hints, left: Collection[RepoId]) -> bool:
    """Whether a run can do nothing with what it found: all of it is for repositories that are ``left``."""
    return len(hints.messages) == hints.found and bool(hints.repos) and hints.repos <= set(left)


def _moves_of(hints: Hints, repos: Collection[RepoId], queue: Queue) -> dict[RepoId, list[Move]]:
    """Where the branches of repositories are now, as far as one message may tell.

    What was pushed meanwhile is in the queue already: an older push must not come after it. Raises QueueError.
    """
    latest = {(push.repo, push.move.branch): push for push in hints.pushes if push.repo in repos}
    for push in queue.look().pushes if latest else ():
        if push.message not in hints.messages:
            latest.pop((push.repo, push.move.branch), None)
    moves: dict[RepoId, list[Move]] = {}
    for push in [*latest.values()][-MOST_MOVES:]:
        moves.setdefault(push.repo, []).append(push.move)
    return moves


def finish_and_log(
    queuedir: Path,
    hints: Hints,
    failed: Collection[RepoId],
    late: Collection[Push] = (),
    left: Collection[RepoId] = (),
) -> list[str]:
    """Finish the hints and log it. Returns the failures: those of reading the messages, and those of removing them."""
    events = finish(queuedir, hints, failed, late, left)
    return [event.text for event in hints.events if event.is_failure] + tell(log, events)


def _listed(repos: Collection[RepoId]) -> str:
    names = sorted(map(str, repos))
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{names[:_MOST_NAMES]}{more}"
