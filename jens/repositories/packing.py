"""Before Git packs a mirror: what it must keep is made known to it."""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from jens.git import worktrees, wrapper
from jens.layout import Layout, entry_ref, is_checkout_name
from jens.model import Commit, RepoId
from jens.repositories import prepare, repair


def is_of_1x(layout: Layout, repo: RepoId) -> bool:
    """Whether a repository has clones of abbreviated commits, of which nobody has told the mirror yet."""
    clone = layout.clone(repo)
    names = os.listdir(clone) if os.path.isdir(clone) else []
    commits = [name for name in names if isinstance(entry_ref(name), Commit) and not is_checkout_name(name)]
    return any(os.path.isdir(clone / name / ".git") for name in commits)


def keep_commits(layout: Layout, repo: RepoId, needed: Set[str]) -> list[str]:
    """See to it that Git keeps every commit that has a checkout or is needed, on a branch or not.

    Returned are those that it would not: of what claims to be their checkout nobody knows whether it is complete, and
    a record would make it so. Raises GitError, OSError.
    """
    bare, disk = layout.bare(repo), prepare.scan(layout, repo)
    mended, _events = repair.mend(layout, repo, disk)
    unsafe = []
    for commit in sorted(disk.checkouts | needed):
        if worktrees.keeps_commit(bare, commit) or not wrapper.commits_like(bare, commit):
            continue
        checkout = layout.checkout(repo, commit)
        if commit in mended.checkouts:
            worktrees.restore_record(bare, commit, checkout)
        elif commit in disk.checkouts or not os.path.lexists(checkout):
            worktrees.add_record(bare, commit, checkout)
        else:
            unsafe.append(commit)
    return unsafe


def size(directory: Path) -> int:
    """The bytes in the files below a directory."""
    total = 0
    for parent, _directories, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total
