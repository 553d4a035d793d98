"""Predicts what a run would do with one repository. It looks and asks, and changes nothing."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

from jens.errors import GitError
from jens.events import Event
from jens.git import peek, wrapper
from jens.git.remotes import Remotes
from jens.layout import Layout
from jens.links import links_of
from jens.model import HIERADATA, Commit, Ref
from jens.repositories import commits, content, mirror
from jens.repositories.commits import Resolution
from jens.repositories.content import Look
from jens.repositories.disk import scan
from jens.repositories.mirror import Mirror, RefusedError
from jens.repositories.model import OnDisk, Prepared, RefsPlan, Reply, Request
from jens.repositories.prepare import absent_commits, content_events, leave_alone, outcome, plan_of, used_targets
from jens.repositories.refs import missing_mandatory, plan_without_changes


def foresee(layout: Layout, remotes: Remotes, request: Request) -> Prepared:
    """Predict the result of ``prepare``. What is needed of the remote is fetched aside, and thrown away."""
    disk = OnDisk()
    try:
        disk = scan(layout, request.repo)
        if request.left_since is not None:
            return leave_alone(request, disk, request.left_since)
        with ExitStack() as stack:

            def aside() -> Path:  # few repositories need one
                return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jens-update-")))

            return _foresee(layout, remotes, request, disk, aside)
    except RefusedError as refused:
        return Prepared(request.repo, disk, RefsPlan({}), {}, (refused.event,), is_known=False, failed=True)
    except (GitError, OSError) as error:
        event = Event(logging.ERROR, f"Unable to ask the remote of {request.repo}: {error}")
        plan = plan_without_changes(request.needs, request.recorded, disk)
        return outcome(request, disk, plan, [event], failed=True)


def _foresee(layout: Layout, remotes: Remotes, request: Request, disk: OnDisk, aside: Callable[[], Path]) -> Prepared:
    repo, bare = request.repo, layout.bare(request.repo)
    found = _ask(bare, remotes, request, disk)
    missing = missing_mandatory(request.needs.mandatory, found.heads)
    if request.is_new and missing:
        raise RefusedError(mirror.refusal_event(repo, missing))
    resolution = _resolve(bare, remotes, request, disk, found, aside)
    plan = plan_of(request, found, resolution, disk)
    looks = _looks(layout, remotes, request, plan, disk, aside)
    events = [*found.events, *resolution.events, *plan.events]
    absent: dict[Ref, list[str]] = {}
    for ref, commit in used_targets(request.needs, plan):
        events += content_events(repo, ref, commit, looks[commit], is_new=False)
        if repo == HIERADATA:
            absent[ref] = content.absent_items(layout, looks[commit])
    return Prepared(repo, disk, plan, {}, tuple(events), absent=absent)


def _ask(bare: Path, remotes: Remotes, request: Request, disk: OnDisk) -> Mirror:
    """The branches that the mirror would have. Raises GitError."""
    if request.url is None:
        return Mirror(mirror.read_heads(bare), Reply.NONE)
    if mirror.must_ask(bare, request, sorted(disk.checkouts)):
        return mirror.ask(bare, request.url, request.repo, remotes)
    return Mirror(mirror.read_heads(bare), Reply.BEFORE)


def _resolve(
    bare: Path, remotes: Remotes, request: Request, disk: OnDisk, found: Mirror, aside: Callable[[], Path]
) -> Resolution:
    """Look for declared commits; of a new repository, in a clone of it. Raises GitError."""
    wanted = [ref for ref in request.needs.refs if isinstance(ref, Commit)]
    if not wrapper.is_repository(bare):
        if not wanted or request.url is None:
            return Resolution({ref: request.full_id(ref) for ref in wanted})
        bare, url = aside() / "clone", request.url
        remotes.converse(url, lambda options: wrapper.clone(bare, url, options), is_long=True)
    absent = absent_commits(request, found)
    return commits.foresee_commits(bare, request, sorted(disk.checkouts), remotes, found.reply, absent, aside)


def _looks(
    layout: Layout, remotes: Remotes, request: Request, plan: RefsPlan, disk: OnDisk, aside: Callable[[], Path]
) -> Mapping[str, Look]:
    """How to look into the commits that environments may use: on disk, in the mirror, or fetched. Raises GitError."""
    repo, bare = request.repo, layout.bare(request.repo)
    items = tuple(links_of(layout, repo).values()) if repo == HIERADATA else ()
    wanted = {commit for _, commit in used_targets(request.needs, plan)}
    looks = {commit: content.in_checkout(layout.checkout(repo, commit)) for commit in wanted & disk.checkouts}
    fresh = sorted(wanted - disk.checkouts)
    if fresh and wrapper.is_repository(bare):
        here = [commit for commit in fresh if wrapper.commits_like(bare, commit)]
        looks.update({commit: content.in_commit(bare, commit, items) for commit in here})
    lacking = [commit for commit in fresh if commit not in looks]
    if lacking and request.url is not None:
        tips, url = aside() / "tips", request.url
        remotes.converse(url, lambda options: peek.fetch_tips(tips, url, lacking, options))
        looks.update({commit: content.in_commit(tips, commit, items) for commit in lacking})
    return looks
