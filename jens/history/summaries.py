"""What pages of many lines ask the history: counts, and the last of each kind, in a few queries for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from jens.history import queries
from jens.history.queries import Change, EnvironmentChange
from jens.history.store import Reader, milliseconds

#: So many of the newest changes are looked through for the last one of each environment; others are asked one by one.
_NEWEST = 40


class LastMove(NamedTuple):
    """The last move of any branch of a repository that is still so."""

    time: float
    deployment: int
    ref: str
    now: str
    author: str | None
    subject: str | None


def last_moves(reader: Reader) -> dict[str, LastMove]:
    """The last move of each repository. Raises HistoryError."""
    return {
        name: LastMove(time / 1000, deployment, ref, now.hex(), author, subject)
        for name, time, deployment, ref, now, author, subject in reader.rows(_LAST_MOVES)
    }


def users(reader: Reader) -> dict[str, int]:
    """How many environments hold each repository. Raises HistoryError."""
    return dict(reader.rows(_USERS))


def last_changes(reader: Reader) -> dict[str, EnvironmentChange]:
    """What last became of each environment, of those that are gone, too. Raises HistoryError."""
    return {
        name: EnvironmentChange(time / 1000, number, host, name, change, commit and commit.hex(), author)
        for number, host, time, name, change, commit, author in reader.rows(_LAST_CHANGES)
    }


def last_shown(reader: Reader, environments: Collection[str]) -> dict[str, float]:
    """When each of these environments last showed a new commit of a branch, as far as it follows any.

    Most environments show one of the newest changes, and no query goes through all that they hold. Raises HistoryError.
    """
    found: dict[str, float] = {}
    left = {*environments}
    for number, entry in enumerate(queries.entries(reader, page=_NEWEST)):
        if number >= _NEWEST or not left:
            break
        for name in left.intersection(entry.environments) if isinstance(entry, Change) else ():
            found[name] = entry.time
        left -= found.keys()
    for name in left:
        [(time,)] = reader.rows(_LAST_SHOWN, (name,))
        if time is not None:
            found[name] = time / 1000
    return found


class Size(NamedTuple):
    """How many branches a deployment has moved, and of how many environments something became."""

    changes: int = 0
    environments: int = 0


def sizes(reader: Reader, deployments: Sequence[int]) -> dict[int, Size]:
    """How large deployments are, given by their numbers. Raises HistoryError."""
    return {number: Size(*reader.rows(_SIZE, (number, number))[0]) for number in deployments}


def endings(reader: Reader, since: float) -> Mapping[tuple[str | None, int | None], int]:
    """How many deployments since a time there are, by mode and exit status. Raises HistoryError."""
    return {(mode, status): count for mode, status, count in reader.rows(_ENDINGS, (milliseconds(since),))}


_LAST_MOVES = """
SELECT repository.name, max(change.time), change.deployment, ref.name, change.now, author.name, change.subject
    FROM change INDEXED BY change_open
    JOIN repository ON repository.id = change.repository
    JOIN ref ON ref.id = change.ref
    LEFT JOIN author ON author.id = change.author
    WHERE change.until IS NULL GROUP BY change.repository
"""

_USERS = """
SELECT repository.name, count(*) FROM holding INDEXED BY holding_open
    JOIN repository ON repository.id = holding.repository
    WHERE holding.until IS NULL GROUP BY holding.repository
"""

_LAST_CHANGES = """
SELECT max(environment_change.deployment), host.name, environment_change.time, environment.name,
    environment_change.change, environment_change.metadata, author.name
    FROM environment_change
    JOIN environment ON environment.id = environment_change.environment
    JOIN deployment ON deployment.number = environment_change.deployment
    JOIN host ON host.id = deployment.host
    LEFT JOIN author ON author.id = environment_change.author
    GROUP BY environment_change.environment
"""

_LAST_SHOWN = """
SELECT max(change.time) FROM holding INDEXED BY holding_open
    JOIN change INDEXED BY change_open ON change.repository = holding.repository AND change.ref = holding.ref
        AND change.until IS NULL
    WHERE holding.environment = (SELECT id FROM environment WHERE name = ?) AND holding.until IS NULL
"""

_SIZE = """
SELECT (SELECT count(*) FROM change WHERE deployment = ?),
    (SELECT count(*) FROM environment_change WHERE deployment = ? AND environment != 0)
"""

_ENDINGS = """
SELECT mode, status, count(*) FROM deployment WHERE visible >= ? GROUP BY mode, status
"""
