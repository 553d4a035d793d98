"""Prepares one repository in a worker: mirror and new checkouts. Nothing becomes visible yet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jens import locking
from jens.errors import BudgetError, GitError, GitTimeoutError, WayOutError
from jens.events import CHECKOUT, CONTENT, NOT_FETCHED, Event
from jens.git import history, worktrees, wrapper
from jens.git.objects import Objects
from jens.git.packs import UnreadError
from jens.git.remotes import Remotes
from jens.git.trees import Trees
from jens.layout import Layout, entry_ref, ref_entry
from jens.links import refuse_ways_out
from jens.model import Commit, Directories, Ref, RepoId, Tag, ref_order
from jens.names import describe_ref
from jens.repositories import absent_refs, commits, content, repair
from jens.repositories import mirror as repositories_mirror
from jens.repositories.budget import Scales
from jens.repositories.commits import Resolution
from jens.repositories.content import Look
from jens.repositories.disk import scan
from jens.repositories.mirror import Mirror, RefusedError
from jens.repositories.model import Budget, Needs, OnDisk, Prepared, RefsPlan, Reply, Request
from jens.repositories.refs import (
    checked_out_before,
    commits_to_check_out,
    describe,
    plan_refs,
    plan_without_changes,
    predecessors,
    settle,
)
from jens.system import files

log = logging.getLogger(__name__)


def size(layout: Layout, request: Request) -> int:
    """Estimate how much there is to lay out of a repository: bytes of the largest Git index of its recorded commits."""
    bare = layout.bare(request.repo)
    return max((worktrees.size(bare, commit) for commit in {*request.recorded.values()}), default=0)


def prepare(layout: Layout, remotes: Remotes, request: Request) -> Prepared:
    """Bring the mirror up to date, and lay out all needed commits aside. One worker does this for one repository.

    Does not raise for what is wrong with one repository: events tell of it.
    """
    with remotes.about(str(request.repo)):
        return _take_up_or_prepare(layout, remotes, request)


def _take_up_or_prepare(layout: Layout, remotes: Remotes, request: Request) -> Prepared:
    if request.left is None:
        return _prepare(layout, remotes, request)
    if request.left.is_ended and (work := _take_up(layout, remotes, request)) is not None:
        return work
    return _prepare(layout, remotes, request._replace(left=request.left._replace(is_ended=False)))


def _take_up(layout: Layout, remotes: Remotes, request: Request) -> Prepared | None:
    """Prepare what jens-transfer has brought, while it cannot begin anew; None when it has just begun."""
    work = None
    try:
        with locking.holding(layout.transfer_lock(request.repo)) as is_alone:
            work = _prepare(layout, remotes, request) if is_alone else None
    except OSError as error:
        log.debug("The lock of %s cannot be used: %s", request.repo, error)
    return work


def _prepare(layout: Layout, remotes: Remotes, request: Request) -> Prepared:
    repo, bare = request.repo, layout.bare(request.repo)
    events: list[Event] = []
    disk = OnDisk()
    try:
        disk = scan(layout, repo)
        if must_be_left_alone(bare, request):
            return leave_alone(request, disk)
        mirror = repositories_mirror.bring_up_to_date(bare, request, remotes, sorted(disk.checkouts))
        events += mirror.events
        if not wrapper.is_repository(bare):
            if request.url is None:
                text = f"The mirror of {repo} is gone, and the library has no URL to make it anew: its checkouts stay"
                events.append(Event(logging.ERROR, text, NOT_FETCHED))
            return outcome(
                request, disk, plan_without_changes(request.needs, request.recorded, disk), events, failed=True
            )
        attempt = _lay_out(layout, remotes, request, disk, mirror)
        if attempt.is_suspicious and mirror.is_settled and _is_damaged(repo, bare, attempt, events):
            mirror = repositories_mirror.renew(bare, request, remotes, sorted(disk.checkouts), "is damaged")
            events += mirror.events
            attempt = _lay_out(layout, remotes, request, disk, mirror)
        failed = attempt.has_failed or (request.url is not None and not mirror.is_settled)
        work = outcome(request, attempt.disk, attempt.plan, [*events, *attempt.events], attempt.staged, failed=failed)
        lacking_at = _lacking_at(request, mirror, attempt.lacking)
        return work._replace(lacking=attempt.lacking, lacking_at=lacking_at, is_certain=attempt.is_certain)
    except RefusedError as refused:
        return Prepared(repo, disk, RefsPlan({}), {}, (refused.event,), is_known=False, failed=True)
    except (GitError, OSError) as error:
        text = f"Unable to prepare {repo}: {error}"
        events.append(Event(logging.ERROR, text, NOT_FETCHED, is_slow=isinstance(error, GitTimeoutError)))
        return outcome(request, disk, plan_without_changes(request.needs, request.recorded, disk), events, failed=True)


def must_be_left_alone(bare: Path, request: Request) -> bool:
    """Whether jens-transfer takes care of a repository, and has brought nothing that can be taken up."""
    return request.left is not None and not (request.left.is_ended and wrapper.is_repository(bare))


def leave_alone(request: Request, disk: OnDisk) -> Prepared:
    """The result for a repository that jens-transfer takes care of: it stays as it is."""
    events = [repositories_mirror.left_event(request.repo, request.left)] if request.left else []
    return outcome(request, disk, plan_without_changes(request.needs, request.recorded, disk), events, failed=True)


class _Attempt(NamedTuple):
    """Checkouts laid out aside, as far as possible. ``is_suspicious``: a damaged mirror may be why some failed.

    ``is_unresolved``: it may be why commits were not found.
    """

    disk: OnDisk
    plan: RefsPlan
    staged: Mapping[str, Path]
    events: Sequence[Event]
    has_failed: bool
    is_suspicious: bool
    lacking: frozenset[Ref]
    is_certain: bool
    is_unresolved: bool = False


def plan_of(request: Request, mirror: Mirror, resolution: Resolution, disk: OnDisk) -> RefsPlan:
    """What becomes of the refs of a repository, now that its remote was asked."""
    return plan_refs(
        request.repo,
        request.needs,
        mirror.heads,
        resolution.commits,
        disk,
        has_replied=mirror.is_settled,
        unasked=resolution.unasked,
    )


def _lay_out(layout: Layout, remotes: Remotes, request: Request, on_disk: OnDisk, mirror: Mirror) -> _Attempt:
    repo = request.repo
    disk, events = repair.restore_ties(layout, repo, on_disk)
    bare = layout.bare(repo)
    heads, found = commits.without_false_tags(bare, request, mirror.heads, disk.checkouts)
    mirror = mirror._replace(heads=heads)
    events += found
    on_disk_now, absent = sorted(disk.checkouts), absent_commits(request, mirror)
    resolution = commits.resolve_commits(bare, request, on_disk_now, remotes, mirror.reply, absent)
    plan = plan_of(request, mirror, resolution, disk)
    events += [*resolution.events, *plan.events, *repair.warn_of_repairs(layout, repo, request.recorded, on_disk, plan)]
    events += _announcements(layout, repo, disk, plan)
    staged: dict[str, Path] = {}
    failed = []
    is_suspicious = resolution.is_suspicious
    missing = commits_to_check_out(plan, disk)
    too_much = unfit(bare, missing, request.budget)
    for commit in missing:
        try:
            if commit in too_much:
                raise too_much[commit]
            like = _like(layout, repo, commit, plan, disk, staged)
            staged[commit] = _check_out(layout, repo, commit, like, request.needs.directories)
        except (GitError, OSError, BudgetError, WayOutError) as error:
            failed.append(commit)
            events.append(not_checked_out(repo, commit, error))
            is_suspicious = is_suspicious or _may_be_damage(error)
    for commit in checked_out_before(plan, disk):
        try:
            refuse_ways_out(layout, repo, layout.checkout(repo, commit), request.needs.directories)
        except WayOutError as error:
            failed.append(commit)
            events.append(Event(logging.ERROR, f"Unable to use {repo} at {commit}: {error}", CHECKOUT, commit))
    settled = settle(plan, disk, failed)
    events += [*_updated(layout, repo, disk, settled), *_moved_tags(repo, disk, settled)]
    events += _content(layout, repo, request.needs, settled, staged)
    lacking = _lacking(request.needs, mirror, resolution)
    # A branch that is not expanded uses no checkout, whatever its commit is; an abbreviation may mean one on disk.
    is_certain = not any(isinstance(ref, Commit) for ref in plan.undetermined)
    return _Attempt(
        *(disk, settled, staged, events, bool(failed), is_suspicious, lacking, is_certain),
        is_unresolved=any(found is None and ref not in resolution.unasked for ref, found in resolution.commits.items()),
    )


def not_checked_out(repo: RepoId, commit: str, error: Exception) -> Event:
    """The fault of a commit that was not laid out."""
    text = f"Unable to check out {repo} at {commit}: {error}"
    return Event(logging.ERROR, text, CHECKOUT, commit, isinstance(error, GitTimeoutError))


def unfit(bare: Path, commits_to_count: Sequence[str], budget: Budget) -> dict[str, Exception]:
    """The commits that must not be laid out, or that cannot be counted, and why."""
    found: dict[str, Exception] = {}
    with Scales(lambda: Objects(bare), budget) as quick, Scales(lambda: Trees(bare), budget) as thorough:
        for commit in commits_to_count:
            try:
                try:
                    quick.check(commit)
                except UnreadError:
                    thorough.check(commit)
            except (GitError, OSError, BudgetError) as error:
                found[commit] = error
    return found


def _may_be_damage(error: Exception) -> bool:
    """Whether a damaged mirror may be why a commit could not be laid out."""
    return isinstance(error, GitError) and not error.is_cut_short


def _content(layout: Layout, repo: RepoId, needs: Needs, plan: RefsPlan, staged: Mapping[str, Path]) -> list[Event]:
    events = []
    for ref, commit in used_targets(needs, plan):
        checkout = staged.get(commit) or layout.checkout(repo, commit)
        look = content.in_checkout(checkout, layout.bare(repo), commit)
        events += content_events(repo, ref, commit, look, needs.directories_of(ref), is_new=commit in staged)
    return events


def used_targets(needs: Needs, plan: RefsPlan) -> list[tuple[Ref, str]]:
    """The refs that environments may use, with their commits."""
    used = sorted(needs.overrides | needs.implied, key=ref_order)
    return [(ref, plan.targets[ref]) for ref in used if ref in plan.targets]


def content_events(
    repo: RepoId, ref: Ref, commit: str, look: Look, used: Iterable[Directories], *, is_new: bool
) -> list[Event]:
    """The fault of what a ref has, as no event or one: a warning when the commit is laid out now (``is_new``).

    ``used``: the directories that environments use of it.
    """
    problems = content.problems(repo, look, used)
    text = f"{repo} {describe_ref(ref)}: {'; '.join(problems)}"
    level = logging.WARNING if is_new else logging.DEBUG
    return [Event(level, text, CONTENT, ref_entry(ref, commit))] if problems else []


def _lacking(needs: Needs, mirror: Mirror, resolution: Resolution) -> frozenset[Ref]:
    heads, found = mirror.heads, resolution.commits
    absent = [ref for ref in needs.refs if (found[ref] is None if isinstance(ref, Commit) else ref.key not in heads)]
    return frozenset(absent) - resolution.unasked


def absent_commits(request: Request, mirror: Mirror) -> frozenset[Ref]:
    """The commits that the remote still lacks: it is as it was when it lacked them."""
    is_same = bool(request.absent) and request.absent_at == absent_refs.state_of(request.url or "", mirror.heads)
    return request.absent if is_same else frozenset()


def _lacking_at(request: Request, mirror: Mirror, lacking: frozenset[Ref]) -> str:
    """What the remote is like that lacks commits; '' when it lacks none."""
    if not any(isinstance(ref, Commit) for ref in lacking):
        return ""
    return absent_refs.state_of(request.url or "", mirror.heads) if mirror.reply is Reply.NOW else request.absent_at


def _is_damaged(repo: RepoId, bare: Path, attempt: _Attempt, events: list[Event]) -> bool:
    """Whether damage of the mirror is why something failed; then what was laid out is removed.

    Adds an event when nobody can tell now. Raises GitError when then nobody knows which commits there are, either.
    """
    try:
        is_damaged = not wrapper.is_intact(bare)
    except GitError as error:
        if attempt.is_unresolved:
            _give_up(attempt)
            events += attempt.events
            raise
        text = f"Nobody can tell now whether the mirror of {repo} is damaged: {error}"
        events.append(Event(logging.ERROR, text, NOT_FETCHED, is_slow=isinstance(error, GitTimeoutError)))
        return False
    if is_damaged:
        _give_up(attempt)
    return is_damaged


def _give_up(attempt: _Attempt) -> None:
    for staging in attempt.staged.values():
        files.remove_tree(staging)


def outcome(
    request: Request,
    disk: OnDisk,
    plan: RefsPlan,
    events: Sequence[Event],
    staged: Mapping[str, Path] | None = None,
    *,
    failed: bool,
) -> Prepared:
    """The result of a worker."""
    # A new repository is known once one of its refs is expanded, or when its remote has none that it must have.
    # Environments do not hold it before.
    known = request.is_known or bool(plan.targets) or not (failed or request.needs.mandatory)
    return Prepared(request.repo, disk, plan, staged or {}, tuple(events), is_known=known, failed=failed)


def _like(
    layout: Layout, repo: RepoId, commit: str, plan: RefsPlan, disk: OnDisk, staged: Mapping[str, Path]
) -> tuple[str, Path] | None:
    """The commit and path of the checkout that probably shares most files with a new one; None if there is none."""
    others = [*predecessors(commit, plan, disk), *reversed(list(staged)), *sorted(disk.checkouts)]
    return next(((other, staged.get(other) or layout.checkout(repo, other)) for other in others), None)


def _check_out(
    layout: Layout, repo: RepoId, commit: str, like: tuple[str, Path] | None, directories: Directories
) -> Path:
    clone = layout.clone(repo)
    files.make_directory(clone)
    staging = files.staging_name(clone)
    try:
        worktrees.check_out(layout.bare(repo), commit, staging, layout.checkout(repo, commit), like)
        refuse_ways_out(layout, repo, staging, directories)
    except BaseException:
        files.remove_tree(staging)
        files.remove_tree(worktrees.record_path(layout.bare(repo), commit))
        raise
    return staging


def _announcements(layout: Layout, repo: RepoId, disk: OnDisk, plan: RefsPlan) -> list[Event]:
    lines = []
    for entry, old, new in describe(disk, plan):
        ref = f"ref '{layout.clone(repo) / entry}'"
        lines.append(Event(logging.INFO, f"Updating {ref}" if old else f"Populating new {ref} ({new[:7]})"))
    return lines


def _updated(layout: Layout, repo: RepoId, disk: OnDisk, plan: RefsPlan) -> list[Event]:
    return [
        Event(logging.INFO, f"Updated ref '{layout.clone(repo) / entry}' ({_way(layout.bare(repo), old, new)})")
        for entry, old, new in describe(disk, plan)
        if old
    ]


def _moved_tags(repo: RepoId, disk: OnDisk, plan: RefsPlan) -> list[Event]:
    """Warnings about tags that lead elsewhere now: who uses one expects that it stays."""
    return [
        Event(logging.WARNING, f"{repo} {describe_ref(ref)} was moved from {old} to {new}, it is followed")
        for entry, old, new in describe(disk, plan)
        if old and isinstance(ref := entry_ref(entry), Tag)
    ]


def _way(bare: Path, old: str, new: str) -> str:
    """The move of a branch as ``git fetch`` prints it, and whether history was rewritten."""
    try:
        forced = ", forced" if history.is_rewritten(bare, old, new) else ""
    except GitError:  # a damaged history: the files of the new commit are there nevertheless
        forced = ""
    return f"{old[:7]}..{new[:7]}{forced}"
