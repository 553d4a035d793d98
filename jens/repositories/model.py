"""Values of the repositories stage: what is needed, what is on disk, and what is to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jens.events import Event
from jens.git import wrapper
from jens.git.shells import Command
from jens.layout import moving_entry
from jens.model import (
    PARTITIONS,
    PLAIN,
    Branch,
    Commit,
    Directories,
    Ref,
    RepoId,
    Tag,
    ref_order,
)


class Budget(NamedTuple):
    """What a commit may have to be laid out: so many files, and so many bytes in all of them."""

    files: int = 500_000
    bytes: int = 1 << 33


class RepositoriesPlan(NamedTuple):
    """Which repositories to take in, to bring up to date, to keep as they are, and to remove.

    The library has lost the ``pinned`` ones, but snapshots hold them: they stay in these, and in no other environment.
    """

    new: tuple[RepoId, ...] = ()
    existing: tuple[RepoId, ...] = ()
    kept: tuple[RepoId, ...] = ()
    deleted: tuple[RepoId, ...] = ()
    pinned: tuple[RepoId, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def remaining(self) -> list[RepoId]:
        """Every repository that is not removed, in the order of work."""
        repos = [*self.new, *self.existing, *self.kept, *self.pinned]
        return sorted(repos, key=lambda repo: (PARTITIONS.index(repo.partition), repo.name))


class Needs(NamedTuple):
    """Refs that a repository must have expanded, and why. ``implied`` ones are needed only where they exist.

    ``former`` refs are needed until environments have changed: they stay as they are, and are not updated.
    ``incidental`` ones are no reason to ask a remote: only lists of defaults name them, and a push tells of them.

    Environments use ``directories`` of all refs, but ``others`` of some overrides.
    """

    mandatory: frozenset[Branch] = frozenset()
    overrides: frozenset[Ref] = frozenset()
    implied: frozenset[Ref] = frozenset()
    former: frozenset[Ref] = frozenset()
    incidental: frozenset[Ref] = frozenset()
    directories: Directories = PLAIN.directories
    others: Mapping[Ref, frozenset[Directories]] = MappingProxyType({})

    def directories_of(self, ref: Ref) -> frozenset[Directories]:
        """The directories of a ref that environments use."""
        others = self.others.get(ref, frozenset())
        is_used_as_usual = not others or ref in self.implied or ref in self.mandatory
        return others | {self.directories} if is_used_as_usual else others

    @property
    def refs(self) -> list[Ref]:
        """All refs but the former ones, sorted."""
        return sorted(self.mandatory | self.overrides | self.implied, key=ref_order)

    @property
    def tags(self) -> list[str]:
        """The names of the tags among them."""
        return [ref.name for ref in self.refs if isinstance(ref, Tag)]


class OnDisk(NamedTuple):
    """What is in a repository's directory below clonedir.

    ``links``: the commit of the complete checkout that each link points to, None for a link that leads elsewhere.
    ``clones``: directories with their own Git repository, as Jens 1.x made them for branches. ``strays``: directories
    that Jens did not make.
    """

    links: Mapping[str, str | None] = MappingProxyType({})
    checkouts: frozenset[str] = frozenset()
    clones: frozenset[str] = frozenset()
    strays: frozenset[str] = frozenset()

    def commit_of(self, ref: Ref) -> str | None:
        """The commit that a ref is expanded at, None if it is not. Abbreviated commits are not looked up."""
        if isinstance(ref, Commit):
            return ref.digits if ref.digits in self.checkouts else None
        return self.links.get(moving_entry(ref))


class RefsPlan(NamedTuple):
    """What becomes of each needed ref: a target commit, missing (the remote said so), or undetermined (unknown)."""

    targets: Mapping[Ref, str]
    missing: frozenset[Ref] = frozenset()
    undetermined: frozenset[Ref] = frozenset()
    events: tuple[Event, ...] = ()


class Reply(Enum):
    """How reliable a mirror's branches are."""

    NOW = "the remote said so in this run"
    BEFORE = "the remote said so when it was last asked, and nothing calls for asking again"
    NONE = "the remote did not reply, or there is none to ask"


class Left(NamedTuple):
    """A repository that was left to jens-transfer, and since when (seconds since the epoch).

    ``is_ended``: nobody works on it now, and what was brought can be taken up.
    """

    since: float
    is_ended: bool = False


class Request(NamedTuple):
    """A worker's work on one repository. Without a URL the mirror is all there is.

    With ``ask`` the remote is asked in any case. Otherwise it is asked when it did not reply the last time (``lacking``
    is None), when the mirror is not as ``recorded``, or when the mirror lacks a needed ref. Refs in ``lacking``, which
    the remote did not have then, do not count unless they are ``fresh``: needed by a new or changed definition.
    ``is_new``: the library has it, the disk does not. ``is_known``: environments may hold it already. The remote lacked
    the ``absent`` commits when it was as ``absent_at`` says, and no definition has changed since that names them. A
    repository that was ``left`` to jens-transfer is left alone, or taken up as it is on disk.
    """

    repo: RepoId
    url: str | None
    needs: Needs
    recorded: Mapping[Ref, str]
    ask: bool = True
    lacking: frozenset[Ref] | None = None
    fresh: frozenset[Ref] = frozenset()
    is_new: bool = False
    is_known: bool = True
    on_demand: bool = False
    budget: Budget = Budget()
    left: Left | None = None
    absent: frozenset[Ref] = frozenset()
    absent_at: str = ""

    @property
    def question(self) -> Command:
        """What the remote is asked: its branches, and the needed tags. There must be a URL."""
        return wrapper.question(self.url or "", self.needs.tags)

    def full_id(self, commit: Commit) -> str | None:
        """The full id of a declared commit, None when it is abbreviated and not on record."""
        return commit.digits if commit.is_full else self.recorded.get(commit)


class Prepared(NamedTuple):
    """A worker's result: a plan, and the new checkouts, still under the names in ``staged`` (commit to path).

    ``failed``: some of the work could not be done. Otherwise ``lacking`` has the needed refs that the remote lacks,
    being as ``lacking_at`` says (see ``absent_refs.state_of``), '' when that does not matter.
    A dry run tells which linked items of the common Hiera data refs have not (``absent``), and whether refs have a
    hiera.yaml that environments get (``has_hiera``).
    ``is_certain``: the plan has all that is needed of what is on disk, even if something new could not be laid out.
    """

    repo: RepoId
    disk: OnDisk
    plan: RefsPlan
    staged: Mapping[str, Path]
    events: tuple[Event, ...] = ()
    is_known: bool = True
    failed: bool = False
    lacking: frozenset[Ref] = frozenset()
    lacking_at: str = ""
    absent: Mapping[Ref, Sequence[str]] = MappingProxyType({})
    has_hiera: Mapping[Ref, bool] = MappingProxyType({})
    is_certain: bool = False

    @property
    def is_slow(self) -> bool:
        """Whether a time limit has ended some of the work."""
        return any(event.is_slow for event in self.events)
