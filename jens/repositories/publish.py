"""Publishes what workers prepared: puts checkouts in place, moves branch links in one burst, removes entries.

The caller of the workers does this alone, when all of them have finished.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from jens.errors import GitError
from jens.events import Event
from jens.git import lock
from jens.layout import Layout, commit_entry
from jens.model import RepoId
from jens.repositories.model import Prepared
from jens.repositories.refs import links_to_put, settle
from jens.system import files


def put_in_place(layout: Layout, prepared: Sequence[Prepared]) -> tuple[list[Prepared], list[Event]]:
    """Flush finished checkouts to stable storage, then move them into place.

    When the flush fails, as it does for want of room over NFS, no checkout is known to be complete, and all go.
    """
    settled, events = [], []
    unflushed: OSError | None = None
    if any(work.staged for work in prepared):
        try:
            files.flush_file_systems(layout.clonedir, layout.baredir)
        except OSError as error:
            unflushed = error
    for work in prepared:
        failed = []
        for commit, staging in work.staged.items():
            try:
                if unflushed is not None:
                    files.remove_tree(staging)
                    raise unflushed
                files.replace_tree(staging, layout.checkout(work.repo, commit))
            except OSError as error:
                failed.append(commit)
                events.append(Event(logging.ERROR, f"Unable to put {work.repo} at {commit} in place: {error}"))
        plan = settle(work.plan, work.disk, failed)
        settled.append(work._replace(plan=plan, staged={}, failed=work.failed or bool(failed)))
    return settled, events


def directories_to_replace(prepared: Iterable[Prepared]) -> dict[tuple[RepoId, str], str]:
    """Directories that branch links are about to replace, with the commits of these links, which have a checkout."""
    return {
        (work.repo, entry): commit
        for work in prepared
        for entry, commit in links_to_put(work.plan, work.disk).items()
        if entry in work.disk.clones | work.disk.strays
    }


def move_links(layout: Layout, prepared: Sequence[Prepared]) -> tuple[list[Prepared], list[Event]]:
    """Move all branch links that must move, in one burst."""
    failed, events = set(), []
    for work in prepared:
        for entry, commit in links_to_put(work.plan, work.disk).items():
            path = layout.clone(work.repo) / entry
            try:
                files.put_link(path, commit_entry(commit))
            except OSError as error:
                failed.add(work.repo)
                events.append(Event(logging.ERROR, f"Unable to switch '{path}' to {commit[:7]}: {error}"))
    return [work._replace(failed=work.failed or work.repo in failed) for work in prepared], events


def remove_entries(layout: Layout, repo: RepoId, entries: Iterable[str]) -> list[Event]:
    """Remove branch links. A clone of Jens 1.x goes to the trash, which the next run empties."""
    events = []
    for entry in entries:
        path = layout.clone(repo) / entry
        try:
            if path.is_symlink():
                path.unlink()
            else:
                files.move_to_trash(path)
        except OSError as error:
            events.append(Event(logging.ERROR, f"Unable to remove '{path}': {error}"))
    return events


def remove_mirror(layout: Layout, repo: RepoId) -> list[Event]:
    """Remove a repository's mirror. Its checkouts go later, when no server can still be reading them."""
    try:
        lock.end_packing(layout.bare(repo))
        files.discard(layout.bare(repo))
    except (GitError, OSError) as error:
        return [Event(logging.ERROR, f"Unable to remove '{layout.bare(repo)}': {error}")]
    return []
