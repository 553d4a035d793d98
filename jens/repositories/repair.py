"""Ties between checkouts and their mirror: restored where they are lost, made where Jens 1.x had others."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from jens.errors import GitError
from jens.events import Event
from jens.git import worktrees, wrapper
from jens.layout import Layout, commit_entry, ref_entry
from jens.model import Branch, Ref, RepoId
from jens.repositories.plan import OnDisk, RefsPlan, commits_to_check_out, links_to_put
from jens.system import files


def mend(layout: Layout, repo: RepoId, disk: OnDisk) -> tuple[OnDisk, list[Event]]:
    """Adopt checkouts of Jens 1.x, and restore what ties checkouts to their mirror.

    Returns what is on disk without checkouts that must be made anew, and warnings. Raises GitError, OSError.
    """
    bare = layout.bare(repo)
    events: list[Event] = []
    spoilt = set()
    restored = []
    clone = layout.clone(repo)
    way = worktrees.way_to_records(bare, clone)
    for commit in sorted(disk.checkouts):
        checkout = f"{clone}/{commit_entry(commit)}"  # strings and not paths: there are thousands of them
        if os.path.isdir(f"{checkout}/.git"):
            if not _adopt(bare, commit, Path(checkout), events):
                spoilt.add(commit)
        elif not worktrees.is_tied(bare, commit, checkout, way) and wrapper.commits_like(bare, commit):
            worktrees.restore_record(bare, commit, Path(checkout))
            restored.append(commit[:7])
    if restored:
        events.append(Event(logging.WARNING, f"Checkouts of {repo} are tied to its mirror again: {restored}"))
    return disk._replace(checkouts=disk.checkouts - spoilt), events


def notice(layout: Layout, repo: RepoId, recorded: Mapping[Ref, str], disk: OnDisk, plan: RefsPlan) -> list[Event]:
    """Warnings of what is not as the last run ``recorded`` it, and of what is therefore done again."""
    known = set(recorded.values())
    lost = [commit for commit in commits_to_check_out(plan, disk) if commit in known]
    events = [f"'{layout.checkout(repo, commit)}' was missing, it is laid out again" for commit in lost]
    left = {ref_entry(ref, commit): commit for ref, commit in recorded.items() if isinstance(ref, Branch)}
    for entry in sorted(links_to_put(plan, disk)):
        commit = left.get(entry)
        if commit in disk.checkouts and entry not in disk.clones and disk.links.get(entry) != commit:
            events.append(f"'{layout.clone(repo) / entry}' is not at the commit that is on record, it is put right")
    return [Event(logging.WARNING, text) for text in events]


def _adopt(bare: Path, commit: str, checkout: Path, events: list[Event]) -> bool:
    """Make a commit's clone of Jens 1.x a checkout; False when its files are not those of the commit."""
    try:
        same = worktrees.checked_out_commit(checkout) == commit and worktrees.is_unchanged(checkout)
        if not same and wrapper.commits_like(bare, commit):
            events.append(Event(logging.WARNING, f"'{checkout}' was changed by hand, it is laid out anew"))
            return False
    except GitError:
        events.append(Event(logging.WARNING, f"'{checkout}' is kept, though Git has lost its commit"))
        return True
    if wrapper.commits_like(bare, commit):
        worktrees.add_record(bare, commit, checkout)
        trash = files.staging_name(checkout.parent)
        os.rename(checkout / ".git", trash)
        worktrees.restore_record(bare, commit, checkout)
        files.remove_tree(trash)
    return True
