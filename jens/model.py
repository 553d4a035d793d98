"""The values that travel through a run. None of them knows about files, YAML, Git or Config."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Union

MODULES = "modules"
HOSTGROUPS = "hostgroups"
COMMON = "common"
PARTITIONS = (MODULES, HOSTGROUPS, COMMON)


#: Puppet language versions that a definition may ask for.
PARSERS = ("current", "future")


class RepoId(NamedTuple):
    """A repository's name within a site."""

    partition: str
    name: str

    def __str__(self) -> str:
        return f"{self.partition}/{self.name}"


SITE = RepoId(COMMON, "site")
HIERADATA = RepoId(COMMON, "hieradata")


# Named tuples, here and wherever a run begins: a dataclass is compiled anew at each start, for a millisecond.


class Branch(NamedTuple):
    """A ref that follows ``refs/heads/NAME``."""

    name: str

    def __str__(self) -> str:
        return self.name


class Commit(NamedTuple):
    """A ref that stays: 4 to 40 hexadecimal digits in lower case, without the hash prefix.

    ``stays`` sets it apart from a branch of that name, for a tuple is equal to any other with the same items.
    """

    digits: str
    stays: bool = True

    @property
    def is_full(self) -> bool:
        """Whether these are all 40 digits."""
        return len(self.digits) == 40

    def __str__(self) -> str:
        return f"commit {self.digits}"


Ref = Union[Branch, Commit]

#: What a snapshot uses of ``common`` when it does not override it.
SNAPSHOT_COMMON = Branch("master")


def ref_order(ref: Ref) -> tuple[bool, str]:
    """Sort key: branches by name, then commits."""
    if isinstance(ref, Branch):
        return (False, ref.name)
    return (True, ref.digits)


class Library(NamedTuple):
    """Every repository with its clone URL, and the entries that cannot be used, with the reason.

    What is on disk under the name of an unusable entry is kept as it is.
    """

    urls: Mapping[RepoId, str]
    unusable: Mapping[RepoId, str] = MappingProxyType({})


class Definition(NamedTuple):
    """A well-formed definition; ``source`` is the file's content, as remembered on disk."""

    name: str
    default: Branch | None
    overrides: Mapping[RepoId, Ref]
    notifications: tuple[str, ...] = ()
    parser: str | None = None
    source: bytes = b""

    def ref_of(self, repo: RepoId) -> Ref | None:
        """The ref of a repository in this environment, or None when it does not hold it."""
        override = self.overrides.get(repo)
        if override is not None:
            return override
        if self.default is not None:
            return self.default
        return SNAPSHOT_COMMON if repo in (SITE, HIERADATA) else None

    @property
    def address(self) -> str:
        """Whom to tell, for a log line."""
        return ", ".join(self.notifications) or "nobody to notify"


class IllFormed(NamedTuple):
    """A definition that cannot be used: its environment stays as it was."""

    name: str
    reason: str


Declared = Union[Definition, IllFormed]


#: Which refs of which repositories are expanded, and at which commit (40 digits).
Inventory = Mapping[RepoId, Mapping[Ref, str]]


class Expansion(NamedTuple):
    """What environments can rely on once repositories were switched.

    ``missing`` are needed refs that do not exist: links to them dangle. ``undetermined`` are refs of which nobody
    could say whether they exist: their remote could not be asked, or their checkout could not be made. Links that
    would move there wait.
    """

    inventory: Inventory
    missing: frozenset[tuple[RepoId, Ref]] = frozenset()
    undetermined: frozenset[tuple[RepoId, Ref]] = frozenset()


class Report(NamedTuple):
    """How a run went: what failed, one sentence each, and which removals were held back."""

    failures: tuple[str, ...] = ()
    purge_refused: bool = False
