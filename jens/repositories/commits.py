"""Looks for declared commits: on disk, in the mirror, and at the remote."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from jens.errors import GitError
from jens.events import COMMIT, Event
from jens.git import lock, wrapper
from jens.git.remotes import Remotes
from jens.git.wanted import fetch_wanted
from jens.layout import ref_entry
from jens.model import Commit, Ref, Tag
from jens.names import describe_ref
from jens.repositories.mirror import failure_event, is_remote
from jens.repositories.model import Reply, Request
from jens.repositories.refs import resolve


class Resolution(NamedTuple):
    """The full id of each declared commit; None for one that cannot be had.

    ``unasked``: nothing is known of these, since the remote could not be asked. ``is_suspicious``: the reason may be
    that the mirror has lost objects.
    """

    commits: Mapping[Commit, str | None]
    unasked: frozenset[Ref] = frozenset()
    events: tuple[Event, ...] = ()
    is_suspicious: bool = False


def resolve_commits(
    bare: Path, request: Request, checkouts: Sequence[str], remotes: Remotes, reply: Reply, absent: Collection[Ref]
) -> Resolution:
    """Look for declared commits: on record, on disk, in the mirror; full ids also at the remote, if it replied now.

    The remote is not asked for ``absent`` commits. Former commits are never looked for in the mirror or at the remote.
    Raises GitError when the mirror cannot be read.
    """
    search = _Search(bare, request, remotes, absent if reply is Reply.NOW else None)
    resolution = _resolve_commits(search, checkouts, reply)
    is_suspicious = resolution.is_suspicious or (None in resolution.commits.values() and not wrapper.has_heads(bare))
    return resolution._replace(is_suspicious=is_suspicious)


def foresee_commits(
    bare: Path,
    request: Request,
    checkouts: Sequence[str],
    remotes: Remotes,
    reply: Reply,
    absent: Collection[Ref],
    aside: Callable[[], Path],
) -> Resolution:
    """Predict the result of ``resolve_commits`` without changing the mirror.

    What has to be fetched is fetched into a bare to be made in a directory of ``aside``.
    """
    search = _Search(bare, request, remotes, absent if reply is Reply.NOW else None, aside)
    return _resolve_commits(search, checkouts, reply)


def without_false_tags(
    bare: Path, request: Request, heads: Mapping[str, str], checkouts: Collection[str]
) -> tuple[Mapping[str, str], list[Event]]:
    """Branches and tags without the needed tags that lead to no commit, and an error for each. Raises GitError."""
    found = {tag: heads[tag.key] for tag in map(Tag, request.needs.tags) if tag.key in heads}
    unsure = {tag: commit for tag, commit in found.items() if commit not in checkouts}
    if not unsure or not wrapper.is_repository(bare):
        return heads, []
    are_commits = wrapper.commits_among(bare, sorted({*unsure.values()}))
    false = [tag for tag, commit in unsure.items() if commit not in are_commits]
    keys = {tag.key for tag in false}
    events = [
        Event(logging.ERROR, f"{request.repo}: {describe_ref(tag)} leads to no commit", COMMIT, ref_entry(tag, None))
        for tag in false
    ]
    return {key: commit for key, commit in heads.items() if key not in keys}, events


class _Search(NamedTuple):
    """Where to look for commits: in the mirror; and at the remote, but for ``absent`` ones, unless that is None.

    With ``aside``, a bare in a directory of it gets what the remote gives.
    """

    bare: Path
    request: Request
    remotes: Remotes
    absent: Collection[Ref] | None
    aside: Callable[[], Path] | None = None


class _Found(NamedTuple):
    """The commits (40 digits) that are there, those of which nothing is known, and the error that is why."""

    commits: frozenset[str] = frozenset()
    unasked: frozenset[str] = frozenset()
    error: GitError | None = None


def _resolve_commits(search: _Search, checkouts: Sequence[str], reply: Reply) -> Resolution:
    request = search.request
    found: dict[Commit, str | None] = {
        ref: request.full_id(ref) for ref in request.needs.former if isinstance(ref, Commit)
    }
    declared = {ref: request.full_id(ref) for ref in request.needs.refs if isinstance(ref, Commit)}
    there = _look_for({ref: full for ref, full in declared.items() if full and full not in checkouts}, search)
    unasked: set[Ref] = set()
    events: list[Event] = []
    errors = [there.error] if there.error else []
    for commit, full in declared.items():
        if full is not None and full in checkouts:
            found[commit] = full
            continue
        try:
            candidates = _in_mirror(search.bare, commit.digits) if full is None else [*{full} & there.commits]
        except GitError as error:
            errors.append(error)
            candidates = None
        if candidates is None or full in there.unasked:
            found[commit] = None
            unasked.add(commit)
            continue
        found[commit], problem = resolve(commit, candidates, checkouts)
        if problem and reply is not Reply.NONE:
            events.append(
                Event(logging.ERROR, f"{request.repo}: commit {commit.digits} {problem}", COMMIT, commit.digits)
            )
    events += [failure_event("fetch", request.repo, error) for error in errors[:1]]
    return Resolution(found, frozenset(unasked), tuple(events), not all(map(is_remote, errors)))


def _in_mirror(bare: Path, digits: str) -> list[str]:
    """The commits of a mirror that begin with these digits. Git does not drop them meanwhile. Raises GitError."""
    found = wrapper.commits_like(bare, digits)
    if found and lock.end_packing(bare):  # it may have been about to drop a commit that nothing needed so far
        return wrapper.commits_like(bare, digits)
    return found


def _look_for(full_ids: Mapping[Commit, str], search: _Search) -> _Found:
    """Look for commits by their full ids, all at once: in the mirror, and those that it lacks at the remote."""
    ids = sorted(set(full_ids.values()))
    try:
        found = wrapper.commits_among(search.bare, ids)
        if found and lock.end_packing(search.bare):  # as in ``_in_mirror``
            found = wrapper.commits_among(search.bare, ids)
        if search.absent is None:
            return _Found(frozenset(found))
        partial = [] if search.aside else [commit for commit in found if wrapper.lacks_parts(search.bare, commit)]
    except GitError as error:
        return _Found(unasked=frozenset(ids), error=error)
    lacking = {full for commit, full in full_ids.items() if full not in found and commit not in search.absent}
    fetched = _fetch(lacking, search)
    if partial and not fetched.error:
        _fetch(partial, search)  # its files can perhaps be laid out without the missing parts
    return fetched._replace(commits=fetched.commits.union(found))


def _fetch(ids: Collection[str], search: _Search) -> _Found:
    """Ask the remote for commits, and look for them where it has put them."""
    if not ids:
        return _Found()
    url, place = search.request.url or "", search.aside() / "commits" if search.aside else search.bare

    def fetch(some: Sequence[str]) -> None:
        fetch_into = wrapper.fetch_commits_alone if search.aside else wrapper.fetch_commits
        search.remotes.converse(url, lambda options: fetch_into(place, url, some, options))

    try:
        if search.aside:
            wrapper.make_bare(place)
        asked = fetch_wanted(ids, fetch, lambda seconds: search.remotes.has_time_for_more(url, seconds))
        found = frozenset(wrapper.commits_among(place, sorted(frozenset(ids) - asked.lacking - asked.left)))
    except GitError as error:
        return _Found(unasked=frozenset(ids), error=error)
    return _Found(found, asked.left, asked.error)
