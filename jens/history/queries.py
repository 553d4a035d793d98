"""What readers ask the history: functions that return values, newest first where there are many.

Times are in seconds since the epoch, those of faults UTC in ISO 8601. An environment that shows what a ref leads to is
one that holds the repository at the ref: so a push is one row, however many environments it shows in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Union

from jens.history.model import BEGUN, RESET, pinned_commit, ref_of_name
from jens.history.store import Reader, milliseconds, split_addresses
from jens.model import Ref

#: So many rows are fetched at once: a reader who prints slowly does not hold up the next run.
_PAGE = 500


class Deployment(NamedTuple):
    """A run that changed what Puppet sees. What is not known is None: of a run that was killed, most."""

    number: int
    host: str
    visible: float
    began: float | None
    seconds: float | None
    status: int | None
    mode: str | None


class Change(NamedTuple):
    """A branch that leads to another commit since ``time``; ``environments`` show it, or have shown what is gone.

    ``commits`` are those of ``now`` that ``before`` has not; ``lost`` the other way round. ``date`` is the committer's.
    """

    time: float
    deployment: int
    host: str
    repository: str
    ref: Ref
    before: str | None
    now: str | None
    author: str | None
    subject: str | None
    date: int | None
    commits: int | None
    lost: int | None
    environments: tuple[str, ...]
    hinted: float | None

    @property
    def seconds_since_push(self) -> float | None:
        """How long it took from the push, as a webhook told it, until it was visible."""
        return None if self.hinted is None else round(max(0.0, self.time - self.hinted), 3)


class EnvironmentChange(NamedTuple):
    """What became of an environment, None for the whole instance, with the metadata commit behind it and its author."""

    time: float
    deployment: int
    host: str
    environment: str | None
    change: str
    commit: str | None
    author: str | None


Entry = Union[Change, EnvironmentChange]


class Held(NamedTuple):
    """A repository that an environment holds, at a ref; the commit that it shows (None: it dangles) since some time."""

    environment: str
    repository: str
    ref: Ref
    commit: str | None
    since: float


class Shown(NamedTuple):
    """A time in which a commit was visible in an environment; ``until`` None: it is still visible.

    ``replaced_by`` is the commit that took its place in its branch, None when the branch went, or the environment moved
    to another ref.
    """

    repository: str
    commit: str
    ref: Ref
    environment: str
    since: float
    until: float | None
    replaced_by: str | None


class Move(NamedTuple):
    """A branch, by its name in the history, leads to another commit since a deployment and a time (None: it is gone).

    ``commits`` are those that the commit before has not; ``lost`` the other way round. ``date`` is the committer's.
    """

    ref: str
    now: str | None
    deployment: int
    time: float
    commits: int | None = None
    lost: int | None = None
    author: str | None = None
    subject: str | None = None
    date: int | None = None


class Holding(NamedTuple):
    """An environment held a repository at a ref, by its name in the history, between two deployments and times.

    Both ends are None while it still does.
    """

    environment: str
    ref: str
    since: int
    since_time: float
    until: int | None
    until_time: float | None


class FaultLife(NamedTuple):
    """A fault, since when it was open, and until when (None: it still is)."""

    kind: str
    environment: str | None
    repository: str | None
    ref: str | None
    text: str
    addresses: tuple[str, ...]
    since: str
    until: str | None


class Filter(NamedTuple):
    """Which entries are asked for: those of some environments, of a repository, and of a time, its ends included.

    ``author`` is a part of a name, in any case. ``before`` and ``deployment`` are numbers of deployments: only those
    before, or only this one.
    """

    environments: tuple[str, ...] = ()
    repository: str | None = None
    since: float | None = None
    until: float | None = None
    author: str | None = None
    before: int | None = None
    deployment: int | None = None


#: Asks for everything.
ALL = Filter()

# What happened


def entries(reader: Reader, wanted: Filter = ALL, page: int = _PAGE) -> Iterator[Entry]:
    """Changes and changes of environments, the newest first. Raises HistoryError.

    The beginning of a history with what was there already, and a reset, are one entry each, without an environment.
    So many rows (``page``) are fetched at once.
    """
    changes, environments = _changes(reader, wanted, page), _environment_changes(reader, wanted, page)
    change, environment = next(changes, None), next(environments, None)
    while change is not None or environment is not None:
        # What became of environments comes first where it is newest first: they changed after the branch links.
        if change is None or (environment is not None and environment.deployment >= change.deployment):
            assert environment is not None
            yield environment
            environment = next(environments, None)
        else:
            yield change
            change = next(changes, None)


def _changes(reader: Reader, wanted: Filter, size: int) -> Iterator[Change]:
    clauses, values = _time_clauses(wanted, "change.time", "change.deployment")
    clauses += _author_clauses(reader, wanted, "change.author")
    source, more = _source(reader, wanted)
    query = _CHANGES.format(source=source, clauses=" AND ".join([*clauses, *more]))
    last = (_END, 0, 0)
    while True:
        page = reader.rows(query, {**values, "page": size, "deployment": last[0], "of": last[1], "ref": last[2]})
        shown = _showing(reader, page)
        for row in page:
            yield _change(row, shown)
        if len(page) < size:
            return
        last = page[-1][:3]


#: A filter that lets through fewer changes than this is asked by its repositories and refs, and not from the newest on.
_FEW = 2000


def _source(reader: Reader, wanted: Filter) -> tuple[str, list[str]]:
    """Where a filter's changes are looked for, and its conditions on environments and repository.

    Few changes are found by their repositories and refs: else nearly all changes would be looked at. Of many, a page is
    soon found from the newest on: else all of them would be sorted.
    """
    clauses = []
    is_few = False
    if wanted.repository is not None:
        is_few = not _is_busy(reader, wanted.repository)
        column = "change.repository" if is_few else "+change.repository"  # with a plus, no index is used
        clauses.append(f"{column} = (SELECT id FROM repository WHERE name = :repository)")
    if wanted.environments:
        numbers = _numbers(reader, wanted)
        if not is_few and _is_few(reader, numbers):
            return _SHOWN_CHANGES.format(numbers=numbers), clauses
        clauses.append(f"EXISTS (SELECT 1 FROM holding WHERE {_SHOWS} AND environment IN ({numbers}))")
    return "change", clauses


def _is_busy(reader: Reader, repository: str) -> bool:
    """Whether a repository has many changes."""
    return bool(reader.rows(_COUNT_OF_REPOSITORY, {"name": repository, "most": _FEW})[0][0] >= _FEW)


def _is_few(reader: Reader, environments: str) -> bool:
    """Whether environments, given by their numbers as SQL, have shown few changes."""
    left = _FEW
    for repository, ref, since, until in reader.rows(_HELD_BY.format(numbers=environments), {"end": _END}):
        between = {"repository": repository, "ref": ref, "since": since, "until": until, "most": left}
        [(count,)] = reader.rows(_COUNT, between)
        left -= count
        if left <= 0:
            return False
    return True


def _change(row: Sequence[Any], shown: _Shows) -> Change:
    number, of, ref, host, time, repository, name, before, now, author, subject, date, commits, lost, hinted = row
    return Change(
        *(time / 1000, number, host, repository, ref_of_name(name), before and before.hex(), now and now.hex()),
        *(author, subject, date, commits, lost, shown.at(number, of, ref, is_gone=now is None)),
        None if hinted is None else hinted / 1000,
    )


class _Shows:
    """The environments that hold some repositories at some refs, with the deployments between which they did."""

    def __init__(self, held: dict[tuple[int, int], list[tuple[str, int, int]]]) -> None:
        self._held = held

    def at(self, deployment: int, repository: int, ref: int, *, is_gone: bool) -> tuple[str, ...]:
        """The environments that show a ref after a deployment; those that have shown it before, if it is gone."""
        return tuple(
            sorted(
                environment
                for environment, since, until in self._held.get((repository, ref), ())
                if (since < deployment <= until if is_gone else since <= deployment < until)
            )
        )


def _showing(reader: Reader, changes: Sequence[Sequence[Any]]) -> _Shows:
    held: dict[tuple[int, int], list[tuple[str, int, int]]] = {}
    for repository, ref in {(row[1], row[2]) for row in changes}:
        held[repository, ref] = reader.rows(_HELD, {"repository": repository, "ref": ref, "end": _END})
    return _Shows(held)


def _environment_changes(reader: Reader, wanted: Filter, size: int) -> Iterator[EnvironmentChange]:
    clauses, values = _time_clauses(wanted, "environment_change.time", "environment_change.deployment")
    if wanted.environments:
        clauses.append(f"environment IN (0, {_numbers(reader, wanted)})")
    if wanted.repository is not None:
        clauses.append("environment = 0")
    clauses += _author_clauses(reader, wanted, "environment_change.author")
    query = _ENVIRONMENT_CHANGES.format(clauses=" AND ".join(clauses))
    last = (_END, -1)
    while True:
        page = reader.rows(query, {**values, "page": size, "deployment": last[0], "of": last[1]})
        for number, _, host, time, name, change, commit, author in page:
            yield EnvironmentChange(time / 1000, number, host, name, change, commit and commit.hex(), author)
        if len(page) < size:
            return
        last = page[-1][:2]


def _time_clauses(wanted: Filter, time: str, number: str) -> tuple[list[str], dict[str, Any]]:
    """Conditions on the columns that have a time and the number of a deployment, and the values of all queries."""
    clauses = ["1"]
    values: dict[str, Any] = {"repository": wanted.repository, "began": BEGUN, "reset": RESET}
    if wanted.before is not None:
        values["before"] = min(wanted.before, _END)
        clauses.append(f"{number} < :before")
    if wanted.deployment is not None:
        values["number"] = min(wanted.deployment, _END)
        clauses.append(f"{number} = :number")
    if wanted.since is not None:
        values["since"] = milliseconds(wanted.since)
        # A link may be older than the deployment that was recorded for it, and never younger.
        clauses += [f"{time} >= :since", f"{number} >= (SELECT min(number) FROM deployment WHERE visible >= :since)"]
    if wanted.until is not None:
        values["until"] = milliseconds(wanted.until)
        clauses.append(f"{time} <= :until")
    return clauses, values


def _author_clauses(reader: Reader, wanted: Filter, column: str) -> list[str]:
    """A condition on the column that has the number of an author; no author has the number -1."""
    if wanted.author is None:
        return []
    rows = reader.rows("SELECT id FROM author WHERE instr(lower(name), lower(?)) LIMIT ?", (wanted.author, _PAGE))
    return [f"{column} IN ({', '.join(str(int(number)) for (number,) in rows) or '-1'})"]


def _numbers(reader: Reader, wanted: Filter) -> str:
    """The numbers of the environments that are asked for, as SQL; no environment has the number -1."""
    found = [row for name in wanted.environments for row in reader.rows(_ENVIRONMENT, (name,))]
    return ", ".join(str(int(number)) for (number,) in found) or "-1"


def unknown(reader: Reader, wanted: Filter) -> list[str]:
    """What the filter names and the history has never heard of. Raises HistoryError."""
    named = [("environment", name) for name in wanted.environments]
    named += [("repository", wanted.repository)] if wanted.repository is not None else []
    return [f"{kind} '{name}'" for kind, name in named if not reader.rows(_KNOWN.format(kind=kind), (name, name))]


def deployments(reader: Reader, wanted: Filter = ALL, count: int = _PAGE) -> list[Deployment]:
    """The last deployments of a time, the newest first. Only times of the filter count. Raises HistoryError."""
    clauses, values = _time_clauses(wanted, "deployment.visible", "deployment.number")
    query = _DEPLOYMENTS.format(clauses=" AND ".join(clauses))
    return [*map(_deployment, reader.rows(query, {**values, "count": count}))]


def _deployment(row: Sequence[Any]) -> Deployment:
    number, host, visible, began, seconds, status, mode = row
    return Deployment(number, host, visible / 1000, None if began is None else began / 1000, seconds, status, mode)


def deployment_at(reader: Reader, time: float) -> int | None:
    """The number of the last deployment that was visible at a time, None when the history begins later."""
    query = "SELECT max(number) FROM deployment WHERE visible <= ?"
    [(number,)] = reader.rows(query, (milliseconds(time),))
    return None if number is None else int(number)


def deployment(reader: Reader, number: int) -> Deployment | None:
    """The deployment of this number, None when the history does not have it. Raises HistoryError."""
    if not 0 < number < _END:
        return None
    rows = reader.rows(_DEPLOYMENTS.format(clauses="deployment.number = :number"), {"number": number, "count": 1})
    return next(map(_deployment, rows), None)


def seconds_to_visible(reader: Reader, since: float) -> list[float]:
    """How long pushes took to be visible since a time, sorted; of those of which webhooks told. Raises HistoryError."""
    clauses, values = _time_clauses(Filter(since=since), "change.time", "change.deployment")
    rows = reader.rows(_HINTED.format(clauses=" AND ".join(clauses)), values)
    return sorted(max(0.0, (time - hinted) / 1000) for time, hinted in rows)


# Versions


def deployment_of_version(reader: Reader, environment: str, number: int) -> int | None:
    """The deployment that made a version of an environment; None when that is not known. Raises HistoryError."""
    if not reader.has_versions or number >= _END:
        return None
    rows = reader.rows(_VERSION, {"name": environment, "number": number})
    return next((int(made) for (made,) in rows), None)


def versions_made_by(reader: Reader, deployment: int) -> dict[str, int]:
    """The versions that a deployment made: environments and numbers. Raises HistoryError."""
    return dict(reader.rows(_VERSIONS_OF, (deployment,))) if reader.has_versions else {}


# What there is, or was


def held_by(reader: Reader, environment: str, deployment: int | None = None) -> list[Held]:
    """What an environment holds now, or held after a deployment, by repository. Raises HistoryError."""
    return _held(reader, "environment.name = :name", environment, deployment)


def holders_of(reader: Reader, repository: str, deployment: int | None = None) -> list[Held]:
    """Which environments hold a repository now, or held it after a deployment. Raises HistoryError."""
    return _held(reader, "repository.name = :name", repository, deployment)


def _held(reader: Reader, clause: str, name: str, deployment: int | None) -> list[Held]:
    at = _END - 1 if deployment is None else deployment
    rows = reader.rows(_HOLDINGS.format(clause=clause), {"name": name, "at": at, "end": _END})
    commits: dict[tuple[int, int], tuple[str | None, float]] = {}
    found = []
    for environment, of, repository, number, ref, since in rows:
        if (of, number) not in commits:
            commits[of, number] = _commit_of(reader, of, number, ref, at)
        commit, moved = commits[of, number]
        found.append(Held(environment, repository, ref_of_name(ref), commit, max(since / 1000, moved)))
    return sorted(found)


def _commit_of(reader: Reader, repository: int, ref: int, name: str, at: int) -> tuple[str | None, float]:
    """The commit that a ref led to after a deployment, and since when."""
    if pinned_commit(name) is not None:
        return pinned_commit(name), 0.0
    rows = reader.rows(_LAST_MOVE, {"repository": repository, "ref": ref, "at": at})
    return next(((now and now.hex(), time / 1000) for now, time in rows), (None, 0.0))


def environments_at(reader: Reader, deployment: int | None = None) -> list[str]:
    """The environments that hold something now, or held something after a deployment. Raises HistoryError."""
    at = _END - 1 if deployment is None else deployment
    return [name for (name,) in reader.rows(_HOLDERS, {"at": at, "end": _END})]


def shown(reader: Reader, digits: str) -> list[Shown]:
    """When commits that begin with these digits were visible in which environments, the newest first.

    Raises HistoryError.
    """
    digits = digits.lower()
    low, high = _range(digits)
    found = [
        Shown(
            *(repository, commit.hex(), ref_of_name(ref), environment),
            max(moved, held) / 1000,
            _earliest(replaced, left),
            _replacement(replaced, left, by),
        )
        for repository, commit, ref, environment, moved, held, replaced, left, by in reader.rows(
            _SHOWN, {"low": low, "high": high, "end": _END}
        )
    ]
    found += [
        Shown(repository, ref[1:], ref_of_name(ref), environment, since / 1000, until and until / 1000, None)
        for repository, ref, environment, since, until in reader.rows(
            _PINNED, {"low": f".{digits}", "high": f".{digits}g"}
        )
    ]
    return sorted(found, key=lambda each: (-each.since, each.repository, each.environment))


def _earliest(*times: int | None) -> float | None:
    known = [time for time in times if time is not None]
    return min(known) / 1000 if known else None


def _replacement(replaced: int | None, left: int | None, by: bytes | None) -> str | None:
    is_moved = replaced is not None and (left is None or replaced <= left)
    return by.hex() if by is not None and is_moved else None


def commits_seen(reader: Reader, digits: str) -> list[tuple[str, str]]:
    """Repositories and commits that branches have led to and that begin with these digits, visible or not."""
    query = (
        "SELECT DISTINCT repository.name, change.now FROM change JOIN repository ON repository.id = change.repository "
        "WHERE change.now BETWEEN ? AND ?"
    )
    return sorted((repository, commit.hex()) for repository, commit in reader.rows(query, _range(digits)))


def _range(digits: str) -> tuple[bytes, bytes]:
    """The first and the last commit that may begin with these digits."""
    return bytes.fromhex(digits.ljust(40, "0")), bytes.fromhex(digits.ljust(40, "f"))


def pins_seen(reader: Reader, digits: str) -> list[tuple[str, str]]:
    """Repositories and commits that environments have pinned, and that begin with these digits."""
    query = (
        "SELECT DISTINCT repository.name, ref.name FROM ref JOIN holding ON holding.ref = ref.id "
        "JOIN repository ON repository.id = holding.repository WHERE ref.name BETWEEN ? AND ?"
    )
    return sorted((repository, ref[1:]) for repository, ref in reader.rows(query, (f".{digits}", f".{digits}g")))


def ids_like(reader: Reader, digits: str) -> set[tuple[str, str]]:
    """Repositories and commits that begin with these digits, which branches led to or environments pinned."""
    return {*commits_seen(reader, digits), *pins_seen(reader, digits)}


def moves_of(reader: Reader, repository: str, newest: int | None = None, commit: str = "") -> list[Move]:
    """All moves of the branches of a repository, the oldest first; or only the ``newest`` and those to a commit.

    Raises HistoryError.
    """
    column, values = "change.repository", {"name": repository, "most": -1, "commit": bytes.fromhex(commit)}
    if newest is not None and _is_busy(reader, repository):
        column, values = "+change.repository", {**values, "most": newest}  # with a plus, no index is used
    rows = reader.rows(_MOVES.format(column=column), values)
    if len(rows) == newest and commit:
        rows += [row for row in reader.rows(_MOVES_TO, values) if row[2] < rows[-1][2]]
    return [
        Move(ref, now and now.hex(), deployment, time / 1000, *rest)
        for ref, now, deployment, time, *rest in reversed(rows)
    ]


def holdings_of(reader: Reader, repository: str) -> list[Holding]:
    """All environments that hold or held a repository, the oldest first. Raises HistoryError."""
    return [
        Holding(environment, ref, since, started / 1000, until, None if ended is None else ended / 1000)
        for environment, ref, since, started, until, ended in reader.rows(_HOLDINGS_OF, (repository,))
    ]


def last_change_of(reader: Reader, environment: str) -> EnvironmentChange | None:
    """What last became of an environment; None when the history does not know. Raises HistoryError."""
    values = {"page": 1, "began": BEGUN, "reset": RESET, "deployment": _END, "of": -1, "name": environment}
    query = _ENVIRONMENT_CHANGES.format(clauses="environment.name = :name")
    for number, _, host, time, name, change, commit, author in reader.rows(query, values):
        return EnvironmentChange(time / 1000, number, host, name, change, commit and commit.hex(), author)
    return None


# Faults


def faults(
    reader: Reader,
    environments: Collection[str] = (),
    repository: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[FaultLife]:
    """The open faults, with ``since`` also those mended since then, the newest first. Raises HistoryError.

    Times are UTC in ISO 8601, as the faults have them; with ``until`` later faults do not count.
    """
    clauses, values = ["(until IS NULL OR until >= :since)" if since else "until IS NULL"], {"since": since}
    if until:
        clauses.append("since <= :until")
        values["until"] = until
    rows = reader.rows(_FAULTS.format(clauses=" AND ".join(clauses)), values)
    found = [
        FaultLife(kind, environment or None, of or None, ref or None, text, split_addresses(addresses), begin, end)
        for kind, environment, of, ref, text, addresses, begin, end in rows
    ]
    return [
        each
        for each in found
        if (not environments or each.environment in environments) and repository in (None, each.repository)
    ]


# The queries

#: Larger than all numbers.
_END = 1 << 62

_ENVIRONMENT = "SELECT id FROM environment WHERE name = ?"
_KNOWN = "SELECT 1 FROM {kind} WHERE name = ? UNION ALL SELECT 1 FROM fault WHERE {kind} = ? LIMIT 1"

#: Whether a holding shows a change: after it, or before it when the branch is gone.
_SHOWS = """
holding.repository = change.repository AND holding.ref = change.ref AND CASE WHEN change.now IS NULL
    THEN holding.since < change.deployment AND (holding.until IS NULL OR holding.until >= change.deployment)
    ELSE holding.since <= change.deployment AND (holding.until IS NULL OR holding.until > change.deployment) END
"""

#: A page of changes, but of those which one entry tells of.
_CHANGES = """
SELECT change.deployment, change.repository, change.ref, host.name, change.time, repository.name, ref.name,
    change.before, change.now, author.name, change.subject, change.date, change.commits, change.lost, change.hinted
    FROM {source}
    JOIN deployment ON deployment.number = change.deployment
    JOIN host ON host.id = deployment.host
    JOIN repository ON repository.id = change.repository
    JOIN ref ON ref.id = change.ref
    LEFT JOIN author ON author.id = change.author
    WHERE change.deployment <= :deployment
        AND (change.deployment < :deployment OR (change.repository, change.ref) > (:of, :ref))
        AND coalesce(deployment.mode, '') NOT IN (:began, :reset) AND {clauses}
    ORDER BY change.deployment DESC, change.repository, change.ref LIMIT :page
"""

_COUNT_OF_REPOSITORY = """
SELECT count(*) FROM (SELECT 1 FROM change INDEXED BY change_repository
    WHERE repository = (SELECT id FROM repository WHERE name = :name) LIMIT :most)
"""

_COUNT = """
SELECT count(*) FROM (SELECT 1 FROM change INDEXED BY change_repository
    WHERE repository = :repository AND ref = :ref AND deployment BETWEEN :since AND :until LIMIT :most)
"""

_HELD_BY = """
SELECT repository, ref, since, coalesce(until, :end) FROM holding WHERE environment IN ({numbers})
"""

#: The changes that environments, given by their numbers, have shown.
_SHOWN_CHANGES = f"""
(SELECT DISTINCT change.* FROM holding CROSS JOIN change INDEXED BY change_repository
    ON change.repository = holding.repository AND change.ref = holding.ref
        AND change.deployment BETWEEN holding.since AND coalesce(holding.until, {_END})
    WHERE holding.environment IN ({{numbers}}) AND {_SHOWS}) AS change
"""

_ENVIRONMENT_CHANGES = """
SELECT deployment.number, environment_change.environment, host.name, environment_change.time, environment.name,
    environment_change.change, environment_change.metadata, author.name
    FROM environment_change
    JOIN deployment ON deployment.number = environment_change.deployment
    JOIN host ON host.id = deployment.host
    LEFT JOIN environment ON environment.id = environment_change.environment
    LEFT JOIN author ON author.id = environment_change.author
    WHERE environment_change.deployment <= :deployment
        AND (environment_change.deployment < :deployment OR environment_change.environment > :of)
        AND (environment_change.environment = 0 OR coalesce(deployment.mode, '') NOT IN (:began, :reset)) AND {clauses}
    ORDER BY environment_change.deployment DESC, environment_change.environment LIMIT :page
"""

_HINTED = "SELECT time, hinted FROM change WHERE hinted IS NOT NULL AND {clauses}"

_DEPLOYMENTS = """
SELECT deployment.number, host.name, deployment.visible, deployment.began, deployment.seconds, deployment.status,
    deployment.mode FROM deployment JOIN host ON host.id = deployment.host
    WHERE {clauses} ORDER BY deployment.number DESC LIMIT :count
"""

#: Which environments have held a repository at a ref, between which deployments.
_HELD = """
SELECT environment.name, holding.since, coalesce(holding.until, :end) FROM holding
    JOIN environment ON environment.id = holding.environment
    WHERE holding.repository = :repository AND holding.ref = :ref
"""

_VERSION = """
SELECT version.deployment FROM version JOIN environment ON environment.id = version.environment
    WHERE environment.name = :name AND version.number = :number
"""

_VERSIONS_OF = """
SELECT environment.name, max(version.number) FROM version JOIN environment ON environment.id = version.environment
    WHERE version.deployment = ? GROUP BY environment.name ORDER BY environment.name
"""

_HOLDINGS = """
SELECT environment.name, repository.id, repository.name, ref.id, ref.name, deployment.visible FROM holding
    JOIN environment ON environment.id = holding.environment
    JOIN repository ON repository.id = holding.repository
    JOIN ref ON ref.id = holding.ref
    JOIN deployment ON deployment.number = holding.since
    WHERE {clause} AND holding.since <= :at AND coalesce(holding.until, :end) > :at
"""

_LAST_MOVE = """
SELECT now, time FROM change WHERE repository = :repository AND ref = :ref AND deployment <= :at
    ORDER BY deployment DESC LIMIT 1
"""

_HOLDERS = """
SELECT DISTINCT environment.name FROM holding JOIN environment ON environment.id = holding.environment
    WHERE holding.since <= :at AND coalesce(holding.until, :end) > :at ORDER BY environment.name
"""

#: A commit is visible in an environment from the later of two times on, and until the earlier of two others.
_SHOWN = """
SELECT repository.name, change.now, ref.name, environment.name, change.time, started.visible, next.time, ended.visible,
    next.now
    FROM change
    JOIN repository ON repository.id = change.repository
    JOIN ref ON ref.id = change.ref
    JOIN holding ON holding.repository = change.repository AND holding.ref = change.ref
        AND holding.since < coalesce(change.until, :end) AND coalesce(holding.until, :end) > change.deployment
    JOIN environment ON environment.id = holding.environment
    JOIN deployment AS started ON started.number = holding.since
    LEFT JOIN deployment AS ended ON ended.number = holding.until
    LEFT JOIN change AS next ON next.deployment = change.until AND next.repository = change.repository
        AND next.ref = change.ref
    WHERE change.now BETWEEN :low AND :high
"""

_PINNED = """
SELECT repository.name, ref.name, environment.name, started.visible, ended.visible FROM ref
    JOIN holding ON holding.ref = ref.id
    JOIN repository ON repository.id = holding.repository
    JOIN environment ON environment.id = holding.environment
    JOIN deployment AS started ON started.number = holding.since
    LEFT JOIN deployment AS ended ON ended.number = holding.until
    WHERE ref.name BETWEEN :low AND :high
"""

_MOVES = """
SELECT ref.name, change.now, change.deployment, change.time, change.commits, change.lost, author.name, change.subject,
    change.date FROM change
    JOIN ref ON ref.id = change.ref
    LEFT JOIN author ON author.id = change.author
    WHERE {column} = (SELECT id FROM repository WHERE name = :name) ORDER BY change.deployment DESC LIMIT :most
"""

_MOVES_TO = f"""
{_MOVES.partition("    WHERE")[0]}
    WHERE change.now = :commit AND change.repository = (SELECT id FROM repository WHERE name = :name)
    ORDER BY change.deployment DESC
"""

_HOLDINGS_OF = """
SELECT environment.name, ref.name, holding.since, started.visible, holding.until, ended.visible FROM holding
    JOIN environment ON environment.id = holding.environment
    JOIN ref ON ref.id = holding.ref
    JOIN deployment AS started ON started.number = holding.since
    LEFT JOIN deployment AS ended ON ended.number = holding.until
    WHERE holding.repository = (SELECT id FROM repository WHERE name = ?) ORDER BY holding.since
"""

_FAULTS = """
SELECT kind, environment, repository, ref, text, addresses, since, until FROM fault
    WHERE {clauses} ORDER BY since DESC, id DESC
"""
