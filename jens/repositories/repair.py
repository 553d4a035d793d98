"""Restores what ties checkouts to their mirror, worktree records and .git files, so that Git keeps the commits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from pathlib import Path

from jens.events import Event
from jens.git import worktrees, wrapper
from jens.layout import Layout, commit_entry, ref_entry
from jens.model import Commit, Ref, RepoId
from jens.repositories import legacy
from jens.repositories.disk import scan
from jens.repositories.model import OnDisk, RefsPlan
from jens.repositories.refs import commits_to_check_out, links_to_put
from jens.system import files


def restore_ties(layout: Layout, repo: RepoId, disk: OnDisk) -> tuple[OnDisk, list[Event]]:
    """Adopt checkouts of Jens 1.x, and restore lost worktree records and .git files.

    Returns what is on disk, without checkouts that must be made anew, and warnings. Raises GitError, OSError.
    """
    bare = layout.bare(repo)
    events: list[Event] = []
    spoilt = set()
    restored = []
    clone = layout.clone(repo)
    way = worktrees.way_to_records(bare, clone)
    for commit in sorted(disk.checkouts):
        checkout = f"{clone}/{commit_entry(commit)}"  # strings and not paths: there are thousands of them
        if legacy.is_adoptable(checkout):
            is_adopted, warnings = legacy.adopt(bare, commit, Path(checkout))
            events += warnings
            if not is_adopted:
                spoilt.add(commit)
        elif not worktrees.is_tied(bare, commit, checkout, way) and wrapper.commits_like(bare, commit):
            worktrees.restore_record(bare, commit, Path(checkout))
            restored.append(commit[:7])
    if restored:
        events.append(Event(logging.WARNING, f"Checkouts of {repo} are tied to its mirror again: {restored}"))
    return disk._replace(checkouts=disk.checkouts - spoilt), events


def warn_of_repairs(
    layout: Layout, repo: RepoId, recorded: Mapping[Ref, str], disk: OnDisk, plan: RefsPlan
) -> list[Event]:
    """Warnings about what is not as the last run ``recorded`` it, and is therefore repaired."""
    known = set(recorded.values())
    lost = [commit for commit in commits_to_check_out(plan, disk) if commit in known]
    events = [f"'{layout.checkout(repo, commit)}' was missing, it is laid out again" for commit in lost]
    left = {ref_entry(ref, commit): commit for ref, commit in recorded.items() if not isinstance(ref, Commit)}
    for entry in sorted(links_to_put(plan, disk)):
        commit = left.get(entry)
        if commit in disk.checkouts and entry not in disk.clones and disk.links.get(entry) != commit:
            events.append(f"'{layout.clone(repo) / entry}' is not at the commit that is on record, it is put right")
    return [Event(logging.WARNING, text) for text in events]


def keep_commits(layout: Layout, repo: RepoId, needed: Set[str]) -> list[str]:
    """Make sure that Git keeps every commit that has a checkout or is needed, even if no branch has it.

    Returns the commits that Git would not keep. Something is in the place of their checkout that may be incomplete; a
    record would make it count as complete. Raises GitError, OSError.
    """
    bare, disk = layout.bare(repo), scan(layout, repo)
    repaired, _events = restore_ties(layout, repo, disk)
    unsafe = []
    for commit in sorted(disk.checkouts | needed):
        if worktrees.keeps_commit(bare, commit) or not wrapper.commits_like(bare, commit):
            continue
        checkout = layout.checkout(repo, commit)
        if commit in repaired.checkouts:
            worktrees.restore_record(bare, commit, checkout)
        elif commit in disk.checkouts or not files.is_there(checkout):
            worktrees.add_record(bare, commit, checkout)
        else:
            unsafe.append(commit)
    return unsafe
