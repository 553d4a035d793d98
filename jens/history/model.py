"""Values of the history: what is visible, what the history believes visible, and the rows that tell the difference.

Times are in seconds since the epoch. Repositories are named ``modules/dummy``. The name of a ref in the history is a
branch's name, or a dot and the digits of a commit, which no branch's name begins with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from jens.model import TAG_MARK, Branch, Commit, OpenFault, Ref, Tag

#: What comes before the digits of a commit: its files are there, or they are not.
_THERE, _MISSING = ".", "?"

# What becomes of an environment.
CREATED, CHANGED, DELETED = "created", "changed", "deleted"
HELD, RELEASED = "held", "released"
# What becomes of the whole instance: the history begins with what was there before, or jens-reset removes everything.
BEGUN, RESET = "begun", "reset"
# How a run learns of pushes.
POLL, HINTS = "POLL", "hints"


def name_of_ref(ref: Ref, *, is_there: bool = True) -> str:
    """The name of a ref in the history; ``is_there``: the files of a pinned commit are on disk."""
    if isinstance(ref, Commit):
        return f"{_THERE if is_there else _MISSING}{ref.digits}"
    return ref.key


def ref_of_name(name: str) -> Ref:
    """The ref that a name in the history stands for."""
    if name.startswith((_THERE, _MISSING)):
        return Commit(name[1:])
    return Tag(name[1:]) if name.startswith(TAG_MARK) else Branch(name)


def pinned_commit(name: str) -> str | None:
    """The commit whose files a pin shows, by its name in the history; None for other refs, and for missing files."""
    return name[1:] if name.startswith(_THERE) else None


# What is visible


class Link(NamedTuple):
    """A branch link: the commit that it leads to, and the time that it has."""

    commit: str
    time: float


class RepositorySeen(NamedTuple):
    """A repository on disk: its branch links by name, and when one was last removed, at the latest.

    ``fingerprint`` is another number when something has changed.
    """

    fingerprint: int
    links: Mapping[str, Link]
    time: float


class EnvironmentSeen(NamedTuple):
    """An environment on disk: the names of the refs that it holds, by repository, and when it last changed.

    ``conf`` is a number for its environment.conf, for those of its links that ``holds`` does not tell, and for whether
    it is held (see ``conf_number``). ``fingerprint`` is another number when something has changed.
    """

    fingerprint: int
    conf: int
    holds: Mapping[str, str]
    time: float


#: An environment's number has a checksum, then a bit that tells that it is held, then bits that tell one hold from
#: another. SQLite has integers of 63 bits.
_CHECKSUM, _HELD_BIT, _SINCE, _SINCE_BITS = (1 << 32) - 1, 1 << 32, 33, (1 << 30) - 1


def conf_number(checksum: int, held_since: float | None = None) -> int:
    """The number for a checksum (32 bits) of what is no repository's own, and for the hold of the environment.

    ``held_since`` is when the hold began (seconds since the epoch), 0 when that is not known, None when there is none.
    """
    if held_since is None:
        return checksum
    return checksum | _HELD_BIT | (round(held_since * 1000) & _SINCE_BITS) << _SINCE


def is_held(conf: int) -> bool:
    """Whether a number says that an environment is held."""
    return bool(conf & _HELD_BIT)


def is_same_hold(before: int, now: int) -> bool:
    """Whether two numbers may tell of the same hold, or both of none."""
    one, other = before >> _SINCE, now >> _SINCE
    return is_held(before) == is_held(now) and (one == other or not (one and other))


def is_same_conf(before: int, now: int) -> bool:
    """Whether two numbers have the same checksum."""
    return before & _CHECKSUM == now & _CHECKSUM


class Fingerprints(NamedTuple):
    """The fingerprints of what the history believes to be there, by name."""

    repositories: Mapping[str, int]
    environments: Mapping[str, int]


class Visible(NamedTuple):
    """What Puppet sees now, as far as it is not as it was. What is gone has the time since when, at the latest.

    ``holds_changed`` is when a hold was last made or removed, 0 when there never was one. ``versions`` has the numbers
    of the current versions, by environment.
    """

    repositories: Mapping[str, RepositorySeen] = MappingProxyType({})
    environments: Mapping[str, EnvironmentSeen] = MappingProxyType({})
    gone_repositories: Mapping[str, float] = MappingProxyType({})
    gone_environments: Mapping[str, float] = MappingProxyType({})
    holds_changed: float = 0.0
    versions: Mapping[str, int] = MappingProxyType({})

    @property
    def has_news(self) -> bool:
        """Whether anything is not as it was."""
        return any(self._replace(holds_changed=0.0, versions={}))


# What the history believes


class EnvironmentBelieved(NamedTuple):
    """An environment as the history knows it."""

    conf: int
    holds: Mapping[str, str]


class Believed(NamedTuple):
    """What the history believes visible of what was looked at: commits by repository and branch, and environments."""

    links: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    environments: Mapping[str, EnvironmentBelieved] = MappingProxyType({})


# The rows


class Author(NamedTuple):
    """What a commit says of itself; ``date`` is the committer's, None when it is none."""

    name: str
    subject: str
    date: int | None


class Change(NamedTuple):
    """A branch leads to another commit: from ``before`` to ``now`` (None: there was none, there is none any more).

    ``commits`` has ``now`` and ``before`` has not; of ``lost`` it is the other way round. ``hinted`` is the time of the
    oldest hint that led to it. What is not known is None.
    """

    repository: str
    ref: str
    before: str | None
    now: str | None
    time: float
    author: Author | None = None
    commits: int | None = None
    lost: int | None = None
    hinted: float | None = None


class EnvironmentChange(NamedTuple):
    """What became of an environment (None: of all), and the commit of the metadata behind it, with its author."""

    environment: str | None
    change: str
    time: float
    commit: str | None = None
    author: str | None = None


class Holding(NamedTuple):
    """An environment holds a repository at a ref."""

    environment: str
    repository: str
    ref: str


class Rows(NamedTuple):
    """What differs: rows for the history."""

    changes: Sequence[Change] = ()
    environments: Sequence[EnvironmentChange] = ()
    opened: Sequence[Holding] = ()
    closed: Sequence[Holding] = ()

    @property
    def time(self) -> float | None:
        """When the last of it became visible; None when nothing did."""
        times = [each.time for each in self.changes] + [each.time for each in self.environments]
        return max(times, default=None)

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(self)


class FaultRows(NamedTuple):
    """What became of faults: those that are open now and were not, those that say something else now, and the mended.

    Mended faults are given by their identities.
    """

    opened: Sequence[OpenFault] = ()
    reworded: Sequence[OpenFault] = ()
    closed: Sequence[tuple[str, str, str, str]] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(self)


class Deployment(NamedTuple):
    """A run that changed what Puppet sees; ``status`` is its exit code, ``mode`` how it learned of pushes.

    What is not known is None: nobody can tell how a run went that was killed.
    """

    host: str
    visible: float
    began: float | None = None
    seconds: float | None = None
    status: int | None = None
    mode: str | None = None
