"""What workers have prepared becomes visible: put in place, switched in one burst, and cleared away.

Done by the caller of the workers alone, when all of them are done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from jens.events import Event
from jens.layout import Layout, commit_entry
from jens.model import RepoId
from jens.repositories.model import Prepared
from jens.repositories.refs import links_to_put, settle
from jens.system import files


def put_in_place(layout: Layout, prepared: Sequence[Prepared]) -> tuple[list[Prepared], list[Event]]:
    """Move finished checkouts into place, once all of them are on stable storage. Raises OSError when that fails."""
    if any(work.staged for work in prepared):
        files.flush_file_systems(layout.clonedir, layout.baredir)
    settled, events = [], []
    for work in prepared:
        failed = []
        for commit, staging in work.staged.items():
            try:
                files.replace_tree(staging, layout.checkout(work.repo, commit))
            except OSError as error:
                failed.append(commit)
                events.append(Event(logging.ERROR, f"Unable to put {work.repo} at {commit} in place: {error}"))
        plan = settle(work.plan, work.disk, failed)
        settled.append(work._replace(plan=plan, staged={}, failed=work.failed or bool(failed)))
    return settled, events


def obstacles(prepared: Iterable[Prepared]) -> dict[tuple[RepoId, str], str]:
    """Directories that are about to give way to a branch link, with the commit whose files are there already."""
    return {
        (work.repo, entry): commit
        for work in prepared
        for entry, commit in links_to_put(work.plan, work.disk).items()
        if entry in work.disk.clones | work.disk.strays
    }


def switch(layout: Layout, prepared: Sequence[Prepared]) -> tuple[list[Prepared], list[Event]]:
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
    """Take branch links away; a 1.x clone goes to the trash, which is emptied by the next run."""
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
    """Remove a repository's mirror; its checkouts go when nobody can be reading them any more."""
    try:
        files.discard(layout.bare(repo))
    except OSError as error:
        return [Event(logging.ERROR, f"Unable to remove '{layout.bare(repo)}': {error}")]
    return []
