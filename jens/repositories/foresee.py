"""Predicts what a run would do with one repository. It looks and asks, and changes nothing."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

from jens.errors import BudgetError, GitError
from jens.events import Event
from jens.git import peek, wrapper
from jens.git.remotes import Remotes
from jens.layout import Layout
from jens.links import optional_links_of
from jens.model import HIERADATA, Commit, Ref
from jens.repositories import commits, content, mirror
from jens.repositories.commits import Resolution
from jens.repositories.content import Look
from jens.repositories.disk import scan
from jens.repositories.mirror import Mirror, RefusedError
from jens.repositories.model import OnDisk, Prepared, RefsPlan, Reply, Request
from jens.repositories.prepare import (
    absent_commits,
    content_events,
    leave_alone,
    must_be_left_alone,
    not_checked_out,
    outcome,
    plan_of,
    unfit,
    used_targets,
)
from jens.repositories.refs import missing_mandatory, plan_without_changes, settle


def foresee(layout: Layout, remotes: Remotes, request: Request) -> Prepared:
    """Predict the result of ``prepare``. What is needed of the remote is fetched aside, and thrown away."""
    disk = OnDisk()
    try:
        disk = scan(layout, request.repo)
        if must_be_left_alone(layout.bare(request.repo), request):
            return leave_alone(request, disk)
        with ExitStack() as stack:

            def aside() -> Path:  # few repositories need one
                return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jens-update-")))

            stack.enter_context(remotes.about(str(request.repo)))
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
    places = _places(bare, remotes, request, plan, disk, aside)
    refused = _refused(places, request)
    plan = settle(plan, disk, list(refused))
    looks = _looks(layout, request, disk, places)
    events = [*found.events, *resolution.events, *plan.events, *refused.values()]
    absent: dict[Ref, list[str]] = {}
    has_hiera: dict[Ref, bool] = {}
    for ref, commit in used_targets(request.needs, plan):
        used = request.needs.directories_of(ref)
        events += content_events(repo, ref, commit, looks[commit], used, is_new=False)
        if repo == HIERADATA:
            absent[ref] = content.absent_items(layout, looks[commit], used)
        if optional_links_of(layout, repo):
            has_hiera[ref] = content.has_hiera(looks[commit])
    return Prepared(*(repo, disk, plan, {}, tuple(events)), failed=bool(refused), absent=absent, has_hiera=has_hiera)


def _ask(bare: Path, remotes: Remotes, request: Request, disk: OnDisk) -> Mirror:
    """The branches that the mirror would have. Raises GitError."""
    if request.url is None:
        return Mirror(mirror.read_heads(bare), Reply.NONE)
    if request.left is not None:
        return Mirror(mirror.read_heads(bare), Reply.NONE, (mirror.left_event(request.repo, request.left),))
    if mirror.must_ask(bare, request, sorted(disk.checkouts)):
        return mirror.ask(bare, request, remotes)
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


def _places(
    bare: Path, remotes: Remotes, request: Request, plan: RefsPlan, disk: OnDisk, aside: Callable[[], Path]
) -> dict[str, Path]:
    """The repositories that have the commits to lay out: the mirror, or one that they are fetched to now.

    Raises GitError.
    """
    fresh = sorted({commit for _, commit in used_targets(request.needs, plan)} - disk.checkouts)
    places = {}
    if fresh and wrapper.is_repository(bare):
        places = {commit: bare for commit in fresh if wrapper.commits_like(bare, commit)}
    lacking = [commit for commit in fresh if commit not in places]
    if lacking and request.url is not None:
        tips, url = aside() / "tips", request.url
        remotes.converse(url, lambda options: peek.fetch_tips(tips, url, lacking, options))
        places.update(dict.fromkeys(lacking, tips))
    return places


def _refused(places: Mapping[str, Path], request: Request) -> dict[str, Event]:
    """The commits that would be too much. Of those that were fetched only now, large files are not known."""
    refused = {}
    for commit, place in places.items():
        error = unfit(place, [commit], request.budget).get(commit)
        if isinstance(error, BudgetError):
            refused[commit] = not_checked_out(request.repo, commit, error)
    return refused


def _looks(layout: Layout, request: Request, disk: OnDisk, places: Mapping[str, Path]) -> dict[str, Look]:
    """How to look into the commits that environments may use. Raises GitError."""
    repo, needs, bare = request.repo, request.needs, layout.bare(request.repo)
    wanted = content.looked_at(layout, repo, {needs.directories}.union(*needs.others.values()))
    looks = {commit: content.in_checkout(layout.checkout(repo, commit), bare, commit) for commit in disk.checkouts}
    looks.update({commit: content.in_commit(place, commit, wanted) for commit, place in places.items()})
    return looks
