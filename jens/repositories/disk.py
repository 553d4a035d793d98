"""Reads what is on disk of one repository: checkouts, branch links, and directories in the place of a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jens.git import damage, worktrees
from jens.git.head import commit_of
from jens.layout import Layout, commit_entry, is_checkout_name, moving_entry
from jens.model import Commit, Ref, RepoId
from jens.repositories import legacy
from jens.repositories.model import OnDisk
from jens.system import files


def scan(layout: Layout, repo: RepoId) -> OnDisk:
    """Look at a repository's directory below clonedir. Raises OSError when it cannot be read."""
    links: dict[str, str] = {}
    checkouts: set[str] = set()
    clones: set[str] = set()
    strays: set[str] = set()
    bare = layout.bare(repo)
    try:
        entries = list(os.scandir(layout.clone(repo)))
    except FileNotFoundError:
        return OnDisk()
    for entry in entries:
        if entry.is_symlink():
            if not entry.name.startswith("."):
                links[entry.name] = os.readlink(entry.path)
        elif not entry.is_dir(follow_symlinks=False) or entry.name.startswith((files.STAGING, files.TRASH)):
            continue
        elif is_checkout_name(entry.name):
            if _is_complete(bare, entry):
                checkouts.add(entry.name[1:])
        else:
            (clones if legacy.is_clone(entry.path) else strays).add(entry.name)
    targets = {commit_entry(commit): commit for commit in checkouts}
    resolved = {entry: targets.get(target) for entry, target in links.items()}
    return OnDisk(resolved, frozenset(checkouts), frozenset(clones), frozenset(strays))


def is_as_left(layout: Layout, repo: RepoId, refs: Mapping[Ref, str]) -> bool:
    """Whether exactly these refs are expanded, at these commits, and the mirror is not damaged. Raises OSError."""
    disk = scan(layout, repo)
    links = {moving_entry(ref): commit for ref, commit in refs.items() if not isinstance(ref, Commit)}
    return disk.links == links and disk.checkouts >= {*refs.values()} and not damage.examine(layout.bare(repo))[0]


def _is_complete(bare: Path, checkout: os.DirEntry[str]) -> bool:
    # A checkout appears in one rename, with its .git. One of Jens 1.x has none for a moment, while it is adopted.
    return files.is_there(f"{checkout.path}/.git") or worktrees.has_record(bare, checkout.name[1:])


class Expanded(NamedTuple):
    """What an entry of a repository's directory below clonedir stands for: a commit, None when it is unknown.

    ``place`` is the entry that has the files: the checkout that a branch link names, or the entry itself. None when
    there are no files.
    """

    commit: str | None
    place: str | None


def look_up(layout: Layout, repo: RepoId, entry: str) -> Expanded:
    """Tell from names what an entry stands for now. For a clone of Jens 1.x, read its HEAD, without Git.

    A link is read once, and followed only when it names a checkout. Raises OSError when something cannot be read.
    """
    clone = layout.clone(repo)
    place = entry
    try:
        mode = os.lstat(clone / entry).st_mode
        if stat.S_ISLNK(mode):
            place = os.readlink(clone / entry)
            if not is_checkout_name(place):
                return Expanded(None, entry)
            mode = os.lstat(clone / place).st_mode
    except OSError as error:
        if not files.is_gone(error):
            raise
        mode = 0
    there = place if stat.S_ISDIR(mode) else None
    if is_checkout_name(place):
        return Expanded(place[1:], there)
    return Expanded(commit_of(clone / entry) if there else None, there)
