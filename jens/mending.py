"""Ties between checkouts and their mirror: restored where they are lost, made where Jens 1.x had others."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from jens import files, gitwrapper, worktrees
from jens.errors import GitError
from jens.layout import Layout
from jens.model import Event, RepoId
from jens.repositories import OnDisk


def mend(layout: Layout, repo: RepoId, disk: OnDisk) -> tuple[OnDisk, list[Event]]:
    """Adopt checkouts of Jens 1.x, and restore what ties checkouts to their mirror.

    Returns what is on disk without checkouts that must be made anew, and warnings. Raises GitError, OSError.
    """
    bare = layout.bare(repo)
    events: list[Event] = []
    spoilt = set()
    for commit in sorted(disk.checkouts):
        checkout = layout.checkout(repo, commit)
        if (checkout / ".git").is_dir():
            if not _adopt(bare, commit, checkout, events):
                spoilt.add(commit)
        elif not worktrees.is_tied(bare, commit, checkout) and gitwrapper.commits_like(bare, commit):
            worktrees.restore_record(bare, commit, checkout)
    return replace(disk, checkouts=disk.checkouts - spoilt), events


def _adopt(bare: Path, commit: str, checkout: Path, events: list[Event]) -> bool:
    """Make a commit's clone of Jens 1.x a checkout; False when its files are not those of the commit."""
    try:
        same = worktrees.checked_out_commit(checkout) == commit and worktrees.is_unchanged(checkout)
        if not same and gitwrapper.commits_like(bare, commit):
            events.append(Event(logging.WARNING, f"'{checkout}' was changed by hand, it is laid out anew"))
            return False
    except GitError:
        events.append(Event(logging.WARNING, f"'{checkout}' is kept, though Git has lost its commit"))
        return True
    if gitwrapper.commits_like(bare, commit):
        worktrees.add_record(bare, commit, checkout)
        trash = files.staging_name(checkout.parent)
        os.rename(checkout / ".git", trash)
        worktrees.restore_record(bare, commit, checkout)
        files.remove_tree(trash)
    return True
