"""What has changed since a deployment, as one difference: what is told to those who read environments.

A branch that has moved ten times is one change, from the first commit to the last. What is as it was is none. Times
are in seconds since the epoch, those of faults UTC in ISO 8601.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jens.history.model import CHANGED, CREATED, DELETED, pinned_commit, ref_of_name
from jens.history.queries import Deployment, FaultLife
from jens.history.store import Reader, split_addresses
from jens.model import Ref

#: So many deployments are named, the last ones.
_MOST_DEPLOYMENTS = 1000


class Difference(NamedTuple):
    """A repository shows another commit in an environment; None: there was none, there is none any more.

    ``ref`` is the one that the environment holds now, or held before. Author and subject are those of ``now``.
    """

    repository: str
    ref: Ref
    before: str | None
    now: str | None
    author: str | None = None
    subject: str | None = None


class EnvironmentNews(NamedTuple):
    """What became of an environment: created, changed or deleted, and what differs in it, by repository."""

    change: str
    differences: tuple[Difference, ...] = ()


class Since(NamedTuple):
    """What has changed since a deployment. The newest of ``deployments`` comes first, environments are by name."""

    deployments: Sequence[Deployment]
    environments: Mapping[str, EnvironmentNews]


def last_deployment(reader: Reader) -> int:
    """The number of the last deployment, 0 when there is none. Raises HistoryError."""
    [(number,)] = reader.rows("SELECT coalesce(max(number), 0) FROM deployment")
    return int(number)


def since(reader: Reader, deployment: int) -> Since:
    """What has changed since a deployment, by its number; 0: since the history began. Raises HistoryError."""
    refs = _Refs(reader, deployment)
    became = _became(reader.rows(_ENVIRONMENTS, (deployment,)))
    differences = refs.differences()
    names = sorted({*became, *differences})
    found = {name: EnvironmentNews(became.get(name, CHANGED), tuple(differences.get(name, ()))) for name in names}
    deployments = [
        Deployment(number, host, visible / 1000, None if began is None else began / 1000, *rest)
        for number, host, visible, began, *rest in reader.rows(_DEPLOYMENTS, (deployment, _MOST_DEPLOYMENTS))
    ]
    # What was made and is gone again, nobody was told of.
    return Since(deployments, {name: news for name, news in found.items() if news.change})


def touched(reader: Reader, deployment: int) -> set[str]:
    """The environments that were not the same all the time since a deployment, by its number.

    Among them are those that are now as they were then. Who keeps what he has read of an environment may have read it
    in between. Raises HistoryError.
    """
    limits = {"deployment": deployment}
    return {str(name) for query in (_TOUCHED_NAMES, _SHOWED_MOVES) for (name,) in reader.rows(query, limits)}


def _became(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What became of environments in the end, '' for those that were made and are gone again.

    One that is held or released counts as changed: the same row may tell that its environment.conf is another one.
    """
    changes: dict[str, list[str]] = {}
    for name, change in rows:
        changes.setdefault(name, []).append(change)
    return {name: _net(found[0] != CREATED, found[-1] != DELETED) for name, found in changes.items()}


def _net(was_there: bool, is_there: bool) -> str:
    if was_there:
        return CHANGED if is_there else DELETED
    return CREATED if is_there else ""


class _Refs:
    """Which refs environments held at a deployment and hold now, and what those refs led to and lead to."""

    def __init__(self, reader: Reader, deployment: int) -> None:
        self._reader = reader
        self._moves: dict[tuple[int, int], tuple[bytes | None, Sequence[Any]]] = {}
        for row in reader.rows(_MOVES, (deployment,)):
            key, before = row[:2], row[2]
            self._moves[key] = (self._moves[key][0] if key in self._moves else before, row[3:])
        self._held: dict[tuple[str, int], list[tuple[int, str] | None]] = {}
        self._repositories: dict[int, str] = {}
        self._sayings: dict[tuple[int, str], tuple[str | None, str | None]] = {}
        for row in reader.rows(_TOUCHED, (deployment, deployment)):
            self._hold(row, deployment)
        for repository, ref in self._moves:
            for row in reader.rows(_HOLDERS, (repository, ref)):
                self._hold(row, deployment)

    def _hold(self, row: Sequence[Any], deployment: int) -> None:
        environment, repository, name, ref, ref_name, since, until = row
        self._repositories[repository] = name
        ends = self._held.setdefault((environment, repository), [None, None])
        if since <= deployment:
            ends[0] = (ref, ref_name)
        if until is None:
            ends[1] = (ref, ref_name)

    def differences(self) -> dict[str, list[Difference]]:
        """What differs, by environment and in the order of repositories."""
        found: dict[str, list[Difference]] = {}
        for (environment, repository), (before, now) in sorted(
            self._held.items(), key=lambda each: (each[0][0], self._repositories[each[0][1]])
        ):
            difference = self._difference(repository, before, now)
            if difference is not None:
                found.setdefault(environment, []).append(difference)
        return found

    def _difference(
        self, repository: int, before: tuple[int, str] | None, now: tuple[int, str] | None
    ) -> Difference | None:
        was, shows = self._commit(repository, before, 0), self._commit(repository, now, 1)
        held = now or before
        if was == shows or held is None:
            return None
        said = (None, None) if shows is None else self._said(repository, shows)
        return Difference(self._repositories[repository], ref_of_name(held[1]), was, shows, *said)

    def _commit(self, repository: int, held: tuple[int, str] | None, end: int) -> str | None:
        """The commit that a ref led to at the deployment (``end`` 0), or leads to now (1)."""
        if held is None:
            return None
        ref, name = held
        if pinned_commit(name) is not None:
            return pinned_commit(name)
        if (repository, ref) in self._moves:
            before, (now, *_) = self._moves[repository, ref]
            commit = now if end else before
        else:
            commit = next((now for (now,) in self._reader.rows(_LEADS_TO, (repository, ref))), None)
        return commit.hex() if commit else None

    def _said(self, repository: int, commit: str) -> tuple[str | None, str | None]:
        """The author and the subject of a commit, as far as the history knows them."""
        if (repository, commit) not in self._sayings:
            rows = self._reader.rows(_SAID, (repository, bytes.fromhex(commit)))
            self._sayings[repository, commit] = next(((author, subject) for author, subject in rows), (None, None))
        return self._sayings[repository, commit]


# Faults


def last_fault(reader: Reader) -> int:
    """The number of the last fault, 0 when there was none. Raises HistoryError."""
    [(number,)] = reader.rows("SELECT coalesce(max(id), 0) FROM fault")
    return int(number)


def faults_since(reader: Reader, number: int) -> list[FaultLife]:
    """The faults that are open, and those with higher numbers, the oldest first. Raises HistoryError."""
    return [*map(_life, reader.rows(_FAULTS, (number,)))]


def _life(row: Sequence[Any]) -> FaultLife:
    kind, environment, repository, ref, text, addresses, since, until = row
    whom = split_addresses(addresses)
    return FaultLife(kind, environment or None, repository or None, ref or None, text, whom, since, until)


def end_of_fault(reader: Reader, identity: Sequence[str], since: str) -> FaultLife | None:
    """A fault that is over, by kind, environment, repository and ref; None when the history does not have it."""
    return next(map(_life, reader.rows(_ENDED, (*identity, since))), None)


def last_push(reader: Reader, repository: str, branch: str) -> tuple[str, str] | None:
    """The last commit of a branch of a repository that is known, and its author; None when none is."""
    rows = reader.rows(_LAST_PUSH, {"repository": repository, "ref": branch})
    return next(((commit.hex(), author) for commit, author in rows), None)


_DEPLOYMENTS = """
SELECT deployment.number, host.name, deployment.visible, deployment.began, deployment.seconds, deployment.status,
    deployment.mode FROM deployment JOIN host ON host.id = deployment.host
    WHERE deployment.number > ? ORDER BY deployment.number DESC LIMIT ?
"""

_ENVIRONMENTS = """
SELECT environment.name, environment_change.change FROM environment_change
    JOIN environment ON environment.id = environment_change.environment
    WHERE environment_change.deployment > ? ORDER BY environment_change.deployment
"""

_MOVES = """
SELECT change.repository, change.ref, change.before, change.now FROM change
    WHERE change.deployment > ? ORDER BY change.deployment
"""

_HOLDING = """
SELECT environment.name, repository.id, repository.name, ref.id, ref.name, holding.since, holding.until FROM holding
    JOIN environment ON environment.id = holding.environment
    JOIN repository ON repository.id = holding.repository
    JOIN ref ON ref.id = holding.ref
"""

#: What environments began to hold, or ended to hold. It looks at every row, which takes some milliseconds.
_TOUCHED = f"{_HOLDING} WHERE holding.since > ? OR holding.until > ?"

#: Who holds a ref that has moved.
_HOLDERS = f"{_HOLDING} WHERE holding.repository = ? AND holding.ref = ? AND holding.until IS NULL"

#: Environments that were made, changed or deleted, or that began or ended to hold something.
_TOUCHED_NAMES = """
SELECT name FROM environment WHERE id IN (
    SELECT environment FROM environment_change WHERE deployment > :deployment AND environment IS NOT NULL
    UNION SELECT environment FROM holding WHERE since > :deployment OR until > :deployment
)
"""

#: Environments that held a ref when it moved, or after that.
_SHOWED_MOVES = """
SELECT DISTINCT environment.name
    FROM (SELECT DISTINCT repository, ref FROM change WHERE deployment > :deployment) AS moved
    JOIN holding ON holding.repository = moved.repository AND holding.ref = moved.ref
    JOIN environment ON environment.id = holding.environment
    WHERE holding.until IS NULL OR holding.until > :deployment
"""

_LEADS_TO = """
SELECT now FROM change INDEXED BY change_open WHERE repository = ? AND ref = ? AND until IS NULL
"""

_SAID = """
SELECT author.name, change.subject FROM change JOIN author ON author.id = change.author
    WHERE change.repository = ? AND change.now = ? LIMIT 1
"""

_FAULTS = """
SELECT kind, environment, repository, ref, text, addresses, since, until FROM fault
    WHERE until IS NULL OR id > ? ORDER BY id
"""

_ENDED = """
SELECT kind, environment, repository, ref, text, addresses, since, until FROM fault
    WHERE kind = ? AND environment = ? AND repository = ? AND ref = ? AND since = ? AND until IS NOT NULL
    ORDER BY id DESC LIMIT 1
"""

_LAST_PUSH = """
SELECT coalesce(change.now, change.before), author.name FROM change
    JOIN repository ON repository.id = change.repository
    JOIN ref ON ref.id = change.ref
    JOIN author ON author.id = change.author
    WHERE repository.name = :repository AND ref.name = :ref
    ORDER BY change.deployment DESC LIMIT 1
"""
