"""The values that travel through a run. None of them knows about files, YAML, Git or Config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Union

from jens.text import shortened

MODULES = "modules"
HOSTGROUPS = "hostgroups"
COMMON = "common"
PARTITIONS = (MODULES, HOSTGROUPS, COMMON)


#: Stands for all environments, where some are named.
ALL = "*"

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


# Named tuples, not dataclasses, here and in all modules that a run imports first: Python compiles the methods of a
# dataclass at each start, which takes a millisecond.


#: Begins the names of tags where there are branches, too: Git forbids it in the names of both.
TAG_MARK = "~"


class Branch(NamedTuple):
    """A ref that follows ``refs/heads/NAME``."""

    name: str

    @property
    def key(self) -> str:
        """What it is called among branches and tags: its name."""
        return self.name

    def __str__(self) -> str:
        return self.name


class Tag(NamedTuple):
    """A ref that follows ``refs/tags/NAME``: the commit that the tag leads to.

    ``is_tag`` makes it unequal to a branch of the same name: tuples with the same items are equal.
    """

    name: str
    is_tag: bool = True

    @property
    def key(self) -> str:
        """What it is called among branches: ``~`` and its name. No branch has such a name."""
        return f"{TAG_MARK}{self.name}"

    def __str__(self) -> str:
        return f"tag {self.name}"


class Commit(NamedTuple):
    """A ref that never moves: 4 to 40 hexadecimal digits in lower case, without the hash prefix.

    ``stays`` makes it unequal to a branch of the same name: tuples with the same items are equal.
    """

    digits: str
    stays: bool = True

    @property
    def is_full(self) -> bool:
        """Whether these are all 40 digits."""
        return len(self.digits) == 40

    def __str__(self) -> str:
        return f"commit {self.digits}"


#: A ref that follows what was pushed. It has a link of its own on disk.
Moving = Union[Branch, Tag]
Ref = Union[Moving, Commit]


class Prefixes(NamedTuple):
    """What marks a ref in a definition as a commit, and as a tag."""

    commit: str = "commit/"
    tag: str = "tag/"


def declared(ref: Ref, prefixes: Prefixes) -> str:
    """A ref as definitions write it."""
    if isinstance(ref, Commit):
        return f"{prefixes.commit}{ref.digits}"
    return f"{prefixes.tag}{ref.name}" if isinstance(ref, Tag) else ref.name


#: The ref of each ``common`` repository that a snapshot does not override, where there is such a branch.
SNAPSHOT_COMMON = Branch("master")


def common_branch(mandatory: Sequence[str]) -> Branch:
    """The branch that a snapshot has of a ``common`` repository without SNAPSHOT_COMMON: every repository has it."""
    return Branch(mandatory[0]) if mandatory else SNAPSHOT_COMMON


def ref_order(ref: Ref) -> tuple[bool, str]:
    """Sort key: branches by name, tags, then commits."""
    return (True, ref.digits) if isinstance(ref, Commit) else (False, ref.key)


class Directories(NamedTuple):
    """Where a repository has its Puppet code and its Hiera data: relative paths, ``.`` for the repository itself.

    Without ``data`` there are no links to it.
    """

    code: str = "code"
    data: str | None = "data"

    def changed(self, said: Mapping[str, str | None]) -> Directories:
        """The same with other values of some fields."""
        return Directories(said.get("code") or self.code, said.get("data", self.data))


class Usage(NamedTuple):
    """How environments use a repository, unless they say otherwise.

    Dynamic environments have its ``ref``, whatever their defaults are. ``fallback`` is for those whose defaults it
    lacks.
    """

    directories: Directories = Directories()
    ref: Ref | None = None
    fallback: Ref | None = None

    @property
    def has_mandatory_branches(self) -> bool:
        """Whether the repository must have the branches that every repository must have."""
        return self.ref is None and self.fallback is None

    def refs_for(self, defaults: Sequence[Ref]) -> tuple[Ref, ...]:
        """The refs for an environment with these defaults: the first of them counts that there is."""
        if self.ref is not None:
            return (self.ref,)
        return (*defaults, *([self.fallback] if self.fallback is not None else []))


#: The usage of a repository of which the library has a URL, and nothing else.
PLAIN = Usage()
#: Those of some repositories; all others are PLAIN.
Usages = Mapping[RepoId, Usage]


class Library(NamedTuple):
    """Every repository with its clone URL, and the entries that cannot be used, with the reason.

    What is on disk under the name of an unusable entry is kept as it is. ``usages`` has those that are not PLAIN.
    """

    urls: Mapping[RepoId, str]
    unusable: Mapping[RepoId, str] = MappingProxyType({})
    usages: Usages = MappingProxyType({})


class Definition(NamedTuple):
    """A well-formed definition; ``source`` is the file's content, as remembered on disk.

    Of a repository that lacks the default, the environment has the first of ``others`` that there is. ``directories``
    says where overridden repositories have what, if not where the library says: fields of Directories.

    One that ``is_held`` comes from a hold: the environment has what it overrides, and nothing else. But repositories
    that ``follow`` another definition have what that says.
    """

    name: str
    default: Moving | None
    overrides: Mapping[RepoId, Ref]
    notifications: tuple[str, ...] = ()
    parser: str | None = None
    source: bytes = b""
    unknown_keys: tuple[str, ...] = ()
    is_held: bool = False
    others: tuple[Moving, ...] = ()
    directories: Mapping[RepoId, Mapping[str, str | None]] = MappingProxyType({})
    follow: Mapping[RepoId, Definition] = MappingProxyType({})

    @property
    def defaults(self) -> tuple[Moving, ...]:
        """All defaults, the first one first; () for a snapshot."""
        return () if self.default is None else (self.default, *self.others)

    @property
    def special(self) -> tuple[RepoId, ...]:
        """The repositories of which the environment may not have what ``usual`` has."""
        return (*self.overrides, *self.follow, *(() if self.defaults else (SITE, HIERADATA)))

    @property
    def usual(self) -> Definition | None:
        """The definition that has these defaults and nothing else; None for a snapshot."""
        return None if self.default is None else Definition("", self.default, {}, others=self.others)

    def refs_of(self, repo: RepoId, usage: Usage, common: Branch) -> tuple[Ref, ...]:
        """The refs of a repository for this environment: it has the first that there is, or else the last dangles.

        () when the environment does not hold the repository. ``common``: see ``Expansion``.
        """
        if repo in self.follow:
            return self.follow[repo].refs_of(repo, usage, common)
        override = self.overrides.get(repo)
        if override is not None:
            return (override,)
        if self.default is not None:
            return usage.refs_for(self.defaults)
        return usage.refs_for((SNAPSHOT_COMMON, common)) if repo in (SITE, HIERADATA) and not self.is_held else ()

    def directories_of(self, repo: RepoId, usage: Usage) -> Directories:
        """Where a repository has code and data, as this environment uses it."""
        if repo in self.follow:
            return self.follow[repo].directories_of(repo, usage)
        return usage.directories.changed(self.directories.get(repo, {}))

    def pins(self, repo: RepoId) -> bool:
        """Whether the environment keeps a repository that leaves the library: it has no default, and overrides it."""
        if repo in self.follow:
            return self.follow[repo].pins(repo)
        return self.default is None and repo in self.overrides

    @property
    def address(self) -> str:
        """The addresses to notify, as text for a log line."""
        return shortened(", ".join(self.notifications)) or "nobody to notify"


class IllFormed(NamedTuple):
    """A definition that cannot be used: its environment stays as it was. Whom it says to tell counts all the same."""

    name: str
    reason: str
    notifications: tuple[str, ...] = ()


Declared = Union[Definition, IllFormed]


#: Which refs of which repositories are expanded, and at which commit (40 digits).
Inventory = Mapping[RepoId, Mapping[Ref, str]]


class Expansion(NamedTuple):
    """What environments can rely on after the repositories stage has moved the branch links.

    ``missing`` are needed refs that do not exist: links to them dangle. ``undetermined`` are refs that may or may not
    exist: their remote could not be asked, or their checkout could not be made. No link moves to such a ref yet.
    Only snapshots hold ``pinned`` repositories. Snapshots have the branch ``common`` of site and Hiera data where
    there is no SNAPSHOT_COMMON. ``usages`` are those of the library.
    """

    inventory: Inventory
    missing: frozenset[tuple[RepoId, Ref]] = frozenset()
    undetermined: frozenset[tuple[RepoId, Ref]] = frozenset()
    pinned: frozenset[RepoId] = frozenset()
    common: Branch = SNAPSHOT_COMMON
    usages: Usages = MappingProxyType({})

    def refs_of(self, definition: Definition, repo: RepoId) -> tuple[Ref, ...]:
        """The refs that an environment may have of a repository (see ``Definition.refs_of``)."""
        if repo in self.pinned and not definition.pins(repo):
            return ()
        return definition.refs_of(repo, self.usages.get(repo, PLAIN), self.common)

    def ref_of(self, definition: Definition, repo: RepoId) -> Ref | None:
        """The ref of a repository in an environment, or None when it does not hold the repository."""
        refs = self.refs_of(definition, repo)
        return next((ref for ref in refs if (repo, ref) not in self.missing), refs[-1] if refs else None)

    def directories_of(self, definition: Definition, repo: RepoId) -> Directories:
        """Where a repository has code and data, as an environment uses it."""
        return definition.directories_of(repo, self.usages.get(repo, PLAIN))

    def with_missing(self, definitions: Iterable[Definition], repos: Iterable[RepoId]) -> Expansion:
        """The same; what the inventory lacks of these repositories is missing, as far as definitions ask for it."""
        given = [*definitions]
        missing = {
            (repo, ref)
            for repo in repos
            for definition in given
            for ref in definition.refs_of(repo, self.usages.get(repo, PLAIN), self.common)
            if ref not in self.inventory.get(repo, ())
        }
        return self._replace(missing=self.missing | missing)


class Fault(NamedTuple):
    """Something that is wrong until somebody mends it; '' and () where it concerns none.

    Faults of the same kind, environment, repository and ref are one fault, whatever the text.
    """

    kind: str
    text: str
    environment: str = ""
    repository: str = ""
    ref: str = ""
    addresses: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two faults the same."""
        return self.kind, self.environment, self.repository, self.ref


class OpenFault(NamedTuple):
    """A fault, and when a run first found it: UTC, ISO 8601."""

    fault: Fault
    since: str


class Report(NamedTuple):
    """How a run went: what failed, one sentence each, what is wrong now, and whether the purge guard refused removals.

    ``changed`` counts the repositories and the environments that Puppet now sees differently. ``is_idle``: there was
    neither a hint, nor a change of a repository or a definition. ``deployment`` is the number of its deployment in the
    history, None when it made none.
    """

    failures: tuple[str, ...] = ()
    purge_refused: bool = False
    faults: tuple[OpenFault, ...] = ()
    changed: tuple[int, int] = (0, 0)
    is_idle: bool = False
    deployment: int | None = None
