"""Recognises what Jens 1.x left; the first run takes it over. Nothing of it is loaded or executed.

Jens 1.x laid out each branch and each commit as a directory with its own Git repository. It pickled its inventory.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from jens.errors import GitError
from jens.events import Event
from jens.git import worktrees, wrapper
from jens.layout import Layout, entry_ref, is_checkout_name
from jens.model import Commit, RepoId
from jens.system import files

#: The inventory of Jens 1.x in cachedir, a pickle. It is never loaded; jens-reset removes it.
PICKLED_INVENTORY = "repositories"


def is_clone(directory: str) -> bool:
    """Whether a directory in the place of a branch link is a clone of Jens 1.x: it has a ``.git`` of its own.

    Raises OSError when nobody can look now.
    """
    return files.is_there(f"{directory}/.git")


def is_adoptable(checkout: str) -> bool:
    """Whether a commit's checkout is still a clone of Jens 1.x: its ``.git`` is a directory, not a file."""
    return os.path.isdir(f"{checkout}/.git")


def has_abbreviations(layout: Layout, repo: RepoId) -> bool:
    """Whether a repository has clones of abbreviated commits. Its mirror has no record of these commits yet."""
    clone = layout.clone(repo)
    names = os.listdir(clone) if os.path.isdir(clone) else []
    commits = [name for name in names if isinstance(entry_ref(name), Commit) and not is_checkout_name(name)]
    return any(is_adoptable(f"{clone}/{name}") for name in commits)


def adopt(bare: Path, commit: str, checkout: Path) -> tuple[bool, list[Event]]:
    """Turn a commit's clone into a checkout. False when its files are not the commit's. Raises GitError, OSError."""
    try:
        same = worktrees.checked_out_commit(checkout) == commit and worktrees.is_unchanged(checkout)
        if not same and wrapper.commits_like(bare, commit):
            return False, [Event(logging.WARNING, f"'{checkout}' was changed by hand, it is laid out anew")]
    except GitError as error:
        if error.is_cut_short:
            raise
        return True, [Event(logging.WARNING, f"'{checkout}' is kept, though Git has lost its commit")]
    if wrapper.commits_like(bare, commit):
        worktrees.add_record(bare, commit, checkout)
        trash = files.staging_name(checkout.parent)
        os.rename(checkout / ".git", trash)
        worktrees.restore_record(bare, commit, checkout)
        files.remove_tree(trash)
    return True, []
