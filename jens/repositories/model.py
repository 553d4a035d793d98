"""Values of the repositories stage: what is needed, what is on disk, what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jens.events import Event
from jens.layout import branch_entry
from jens.model import (
    PARTITIONS,
    Branch,
    Commit,
    Ref,
    RepoId,
    ref_order,
)


class RepositoriesPlan(NamedTuple):
    """Which repositories to take in, to bring up to date, to keep as they are, and to remove."""

    new: tuple[RepoId, ...] = ()
    existing: tuple[RepoId, ...] = ()
    kept: tuple[RepoId, ...] = ()
    deleted: tuple[RepoId, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def remaining(self) -> list[RepoId]:
        """Every repository that is not removed, in the order of work."""
        repos = [*self.new, *self.existing, *self.kept]
        return sorted(repos, key=lambda repo: (PARTITIONS.index(repo.partition), repo.name))


class Needs(NamedTuple):
    """Refs that a repository must have expanded, and why: ``implied`` ones only where it has that branch.

    ``former`` ones are needed until environments have moved on: they stay as they are, and nothing is done for them.
    """

    mandatory: frozenset[Branch] = frozenset()
    overrides: frozenset[Ref] = frozenset()
    implied: frozenset[Branch] = frozenset()
    former: frozenset[Ref] = frozenset()

    @property
    def refs(self) -> list[Ref]:
        """All of them but the former ones, sorted."""
        return sorted(self.mandatory | self.overrides | self.implied, key=ref_order)


class OnDisk(NamedTuple):
    """What is in a repository's directory below clonedir.

    ``links`` has every link with the commit whose complete checkout it points to, None for one that was bent;
    ``clones`` are directories with a Git repository of their own, as Jens 1.x laid branches out; ``strays`` are
    directories that are nothing of ours.
    """

    links: Mapping[str, str | None] = MappingProxyType({})
    checkouts: frozenset[str] = frozenset()
    clones: frozenset[str] = frozenset()
    strays: frozenset[str] = frozenset()

    def commit_of(self, ref: Ref) -> str | None:
        """The commit that a ref is expanded at; an abbreviated one is not looked for."""
        if isinstance(ref, Branch):
            return self.links.get(branch_entry(ref))
        return ref.digits if ref.digits in self.checkouts else None


class RefsPlan(NamedTuple):
    """What becomes of each needed ref: expanded at a commit, missing (the remote said so), or nobody knows."""

    targets: Mapping[Ref, str]
    missing: frozenset[Ref] = frozenset()
    undetermined: frozenset[Ref] = frozenset()
    events: tuple[Event, ...] = ()


class Reply(Enum):
    """What a mirror's branches are worth."""

    NOW = "the remote said so in this run"
    BEFORE = "the remote said so when it was last asked, and nothing calls for asking again"
    NONE = "the remote did not answer, or there is none to ask"


class Request(NamedTuple):
    """One repository's work for a worker. Without a URL the mirror is all there is.

    Unless it is to be asked anyway, the remote is asked when it did not answer the last time (``lacking`` is None),
    when the mirror is not as ``recorded``, and when it has not got what is needed: but for refs that the remote was
    ``lacking`` then, and that only definitions need which are not ``fresh``, new or changed. ``is_new``: the library
    has it, the disk has not; ``is_known``: environments may hold it already.
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

    def full_id(self, commit: Commit) -> str | None:
        """The full id of a declared commit, as far as that is known without looking."""
        return commit.digits if commit.is_full else self.recorded.get(commit)


class Prepared(NamedTuple):
    """What a worker leaves for the switch: a plan whose checkouts are all made, some of them still aside.

    ``failed``: not all was done that should have been. Otherwise ``lacking`` are the needed refs that the remote
    does not have.
    """

    repo: RepoId
    disk: OnDisk
    plan: RefsPlan
    staged: Mapping[str, Path]
    events: tuple[Event, ...] = ()
    is_known: bool = True
    failed: bool = False
    lacking: frozenset[Ref] = frozenset()
