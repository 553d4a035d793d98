"""Looks for declared commits: on disk, in the mirror, and at the remote."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

from jens.errors import GitError
from jens.events import COMMIT, Event
from jens.git import lock, wrapper
from jens.git.remotes import Remotes
from jens.model import Commit, Ref
from jens.repositories.mirror import failure_event
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


#: Given mirror, full id, and what the mirror has of it: the ids found once the remote was asked. Raises GitError.
_Ask = Callable[[Path, str, "list[str]", Request, Remotes], "list[str]"]


def resolve_commits(
    bare: Path, request: Request, checkouts: Sequence[str], remotes: Remotes, reply: Reply
) -> Resolution:
    """Look for declared commits: on record, on disk, in the mirror; full ids also at the remote, if it replied now.

    Former commits are never looked for in the mirror or at the remote. Raises GitError when the mirror cannot be read.
    """
    return _resolve_commits(bare, request, checkouts, remotes, reply, _fetched)


def foresee_commits(
    bare: Path, request: Request, checkouts: Sequence[str], remotes: Remotes, reply: Reply
) -> Resolution:
    """Predict the result of ``resolve_commits`` without changing the mirror: commits are fetched into a place aside."""
    return _resolve_commits(bare, request, checkouts, remotes, reply, _fetched_aside)


def _resolve_commits(
    bare: Path, request: Request, checkouts: Sequence[str], remotes: Remotes, reply: Reply, ask: _Ask
) -> Resolution:
    needs = request.needs
    found: dict[Commit, str | None] = {ref: request.full_id(ref) for ref in needs.former if isinstance(ref, Commit)}
    unasked: set[Ref] = set()
    events: list[Event] = []
    for commit in (ref for ref in needs.refs if isinstance(ref, Commit)):
        full = request.full_id(commit)
        if full is not None and full in checkouts:
            found[commit] = full
            continue
        try:
            candidates = _in_mirror(bare, full or commit.digits)
            if full is not None and reply is Reply.NOW:
                candidates = ask(bare, full, candidates, request, remotes)
        except GitError as error:
            found[commit] = None
            unasked.add(commit)
            events.append(failure_event("fetch", request.repo, error))
            continue
        found[commit], problem = resolve(commit, candidates, checkouts)
        if problem and reply is not Reply.NONE:
            events.append(
                Event(logging.ERROR, f"{request.repo}: commit {commit.digits} {problem}", COMMIT, commit.digits)
            )
    suspicious = bool(unasked) or (None in found.values() and ask is _fetched and not wrapper.has_heads(bare))
    return Resolution(found, frozenset(unasked), tuple(events), suspicious)


def _in_mirror(bare: Path, digits: str) -> list[str]:
    """The commits of a mirror that begin with these digits. Git does not drop them meanwhile. Raises GitError."""
    found = wrapper.commits_like(bare, digits)
    if found and lock.end_packing(bare):  # it may have been about to drop a commit that nothing needed so far
        return wrapper.commits_like(bare, digits)
    return found


def _fetched_aside(_bare: Path, commit: str, found: list[str], request: Request, remotes: Remotes) -> list[str]:
    if found:
        return found
    url = request.url or ""
    with tempfile.TemporaryDirectory(prefix="jens-update-") as directory, remotes.speaking_to(url) as options:
        aside = Path(directory, "aside")
        return wrapper.commits_like(aside, commit) if wrapper.fetch_commit_alone(aside, url, commit, options) else []


def _fetched(bare: Path, commit: str, found: list[str], request: Request, remotes: Remotes) -> list[str]:
    """Ask the remote for a commit that the mirror lacks, whole or in part; the ids found then. Raises GitError."""
    if not found:
        return _fetch_commit(bare, commit, request, remotes)
    if wrapper.lacks_parts(bare, commit):
        with contextlib.suppress(GitError):  # its files can perhaps be laid out without the missing parts
            _fetch_commit(bare, commit, request, remotes)
    return found


def _fetch_commit(bare: Path, commit: str, request: Request, remotes: Remotes) -> list[str]:
    """Ask the remote for a commit, and look again in the mirror. Raises GitError when the remote could not be asked."""
    url = request.url or ""
    with remotes.speaking_to(url) as options:
        fetched = wrapper.fetch_commit(bare, url, commit, options)
    return wrapper.commits_like(bare, commit) if fetched else []
