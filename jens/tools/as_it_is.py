"""Tells what an environment shows, also where files or links of it are missing at this moment: the next run mends them.

A hold keeps what it names, and nothing else. What it did not name because of the damage would be missing until it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jens.config import Config
from jens.environments.hold import Hold, Kept
from jens.errors import DirectoryError, HistoryError
from jens.history import queries
from jens.layout import Layout, ref_entry
from jens.model import Commit, Inventory, Ref, RepoId
from jens.names import parse_repository
from jens.repositories import disk, inventory
from jens.statefile import StateError
from jens.tools import history, snapshot


class Sources(NamedTuple):
    """Who may know the commits of what is missing.

    ``earlier`` is what a hold says that there was, ``past`` what the history says. ``links`` has the commits that links
    name, though the files are missing. The inventory is None when it is lost.
    """

    earlier: Mapping[RepoId, Kept] = MappingProxyType({})
    links: Mapping[RepoId, str] = MappingProxyType({})
    inventory: Inventory | None = None
    past: Mapping[RepoId, Kept] = MappingProxyType({})

    def find(self, repo: RepoId, ref: Ref | None) -> tuple[Kept, str] | None:
        """What an environment has of a repository, and who says so; None when nobody knows.

        ``ref`` is what its links name, None when there are none.
        """
        if repo in self.earlier:
            return self.earlier[repo], "the hold that there was"
        if ref is not None and repo in self.links:
            return Kept(ref, self.links[repo]), "a link"
        if ref is not None and self.inventory is not None and repo in self.inventory:
            return Kept(ref, self.inventory[repo].get(ref)), "the inventory"
        past = self.past.get(repo)
        if past is not None and ref in (None, past.ref):
            return past, "the history"
        return None


def look(config: Config, environment: str, now: snapshot.Seen, before: Hold | None) -> Sources:
    """Ask who may know. Raises DirectoryError when nobody can look now."""
    layout = Layout.of(config)
    earlier = {
        repo: kept
        for repo, kept in (before.repositories if before else {}).items()
        if before and repo not in before.moving
    }
    try:
        try:
            known: Inventory | None = inventory.load(layout)
        except StateError:
            known = None
        missing = {repo: ref for repo, ref in now.refs.items() if repo not in now.commits}
        named = {repo: _named(layout, repo, ref, known) for repo, ref in missing.items()}
    except OSError as error:
        raise DirectoryError("clonedir", layout.clonedir, f"cannot be read: {error.strerror}") from error
    past = {repo: kept for repo, kept in _past(config, environment).items() if known is None or repo in known}
    return Sources(earlier, {repo: commit for repo, commit in named.items() if commit}, known, past)


def _named(layout: Layout, repo: RepoId, ref: Ref, known: Inventory | None) -> str | None:
    """The commit that a link names, whose files were there once; None when they may never have been. Raises OSError."""
    commit = disk.look_up(layout, repo, ref_entry(ref, None)).commit
    if not isinstance(ref, Commit) or commit is None:
        return commit
    is_expanded = known is not None and commit in known.get(repo, {}).values()
    return commit if is_expanded or snapshot.is_known(layout, repo, commit) else None


def _past(config: Config, environment: str) -> dict[RepoId, Kept]:
    """What the history believes that an environment shows; nothing when it does not know."""
    try:
        with history.opened(config) as reader:
            held = queries.held_by(reader, environment)
    except HistoryError:
        return {}
    return {parse_repository(each.repository): Kept(each.ref, each.commit) for each in held}


class AsItIs(NamedTuple):
    """What an environment shows, or would show if nothing were missing.

    ``doubts`` say, a sentence each, what is missing; ``lost`` what nobody can tell.
    """

    repositories: Mapping[RepoId, Kept]
    doubts: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def plan(now: snapshot.Seen, told: Sources, moving: Collection[RepoId] = ()) -> AsItIs:
    """Decide what the environment shows. The refs of what is held already are those that it had when it was not.

    A repository whose links dangle because nobody has its ref is left out. ``moving`` repositories need no commit.
    """
    found: dict[RepoId, Kept] = {}
    doubts, lost = [], []
    for repo in sorted({*now.refs, *told.earlier, *told.past}):
        ref, commit = now.refs.get(repo), now.commits.get(repo)
        if ref is not None and (commit is not None or repo in moving):
            was = told.earlier[repo].ref if repo in told.earlier else ref
            found[repo] = Kept(was, commit, now.directories_of(repo))
            continue
        reason = now.left_out.get(repo, "no link leads to it")
        known = told.find(repo, ref)
        if repo in moving:
            found.update({repo: known[0]} if known else {})
            continue
        if known is None:
            lost.append(
                f"{repo}: {reason}, and neither the inventory nor the history knows which commit it should show"
            )
            continue
        found[repo], source = known
        if repo not in told.earlier:
            found[repo] = found[repo]._replace(directories=now.directories_of(repo))
        if found[repo].commit is not None:
            doubts.append(f"{repo} is held at {found[repo].commit}, as {source} says: {reason}")
        elif ref is not None:
            doubts.append(f"{repo} is left out: {reason}")
    if not lost and not any(kept.commit for kept in found.values()):
        lost.append("it shows nothing that could be held")
    return AsItIs(found, tuple(doubts), tuple(lost))
