"""What a receiver has not been told yet."""

from __future__ import annotations

import os
from typing import NamedTuple

from jens.deliveries import Position
from jens.history import queries
from jens.history import since as changes
from jens.history.model import CHANGED
from jens.history.queries import FaultLife
from jens.history.since import EnvironmentNews, Since
from jens.history.store import Reader


class News(NamedTuple):
    """What changed, on this host, and which faults were opened and closed. ``position``: where it leads a receiver.

    ``is_all``: nobody knows what the receiver knows. Every environment counts as changed.
    """

    host: str
    since: Since
    opened: tuple[FaultLife, ...]
    closed: tuple[FaultLife, ...]
    position: Position
    is_all: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.is_all or self.since.deployments or self.since.environments or self.opened or self.closed)


def collect(reader: Reader, position: Position) -> News:
    """What is new for a receiver. Raises HistoryError."""
    history, last = reader.id, changes.last_deployment(reader)
    is_known = position.history == history and position.deployment <= last
    if is_known:
        since = changes.since(reader, position.deployment)
    else:
        since = Since((), {name: EnvironmentNews(CHANGED) for name in queries.environments_at(reader)})
    number = changes.last_fault(reader)
    lives = changes.faults_since(reader, position.fault if is_known else number)
    opened, closed = _difference(reader, lives, position)
    now = Position(history, last, number, frozenset(identity(life) for life in lives if life.until is None))
    return News(os.uname().nodename, since, opened, closed, now, is_all=not is_known)


def identity(fault: FaultLife) -> tuple[str, ...]:
    """What tells a fault from others, also those of the same kind that were open before."""
    return fault.kind, fault.environment or "", fault.repository or "", fault.ref or "", fault.since


def _difference(
    reader: Reader, found: list[FaultLife], position: Position
) -> tuple[tuple[FaultLife, ...], tuple[FaultLife, ...]]:
    """The faults that were opened, and those that were closed."""
    lives = {identity(life): life for life in found}
    opened = [life for key, life in lives.items() if key not in position.faults]
    closed = [life for life in opened if life.until is not None]
    for key in sorted(position.faults):
        life = lives.get(key)
        if life is None or life.until is not None:
            closed.append(life or ended(reader, key))
    return tuple(opened), tuple(closed)


def ended(reader: Reader, key: tuple[str, ...]) -> FaultLife:
    """A fault that is over, as far as the history still knows it. Raises HistoryError."""
    *parts, since = key
    kind, environment, repository, ref = parts
    unknown = FaultLife(kind, environment or None, repository or None, ref or None, "", (), since, None)
    return changes.end_of_fault(reader, parts, since) or unknown
