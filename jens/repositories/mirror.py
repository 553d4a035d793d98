"""Brings one repository's mirror up to date: asks the remote, clones, fetches, and replaces a damaged mirror."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jens.errors import GitBusyError, GitError, GitTimeoutError, GitUnreachedError
from jens.events import NOT_FETCHED, REFUSED, Event
from jens.git import damage as git_damage
from jens.git import lock, wrapper
from jens.git.remotes import Remotes
from jens.git.shells import Command
from jens.git.wrapper import GitOptions
from jens.model import TAG_MARK, Commit, Ref, RepoId
from jens.names import is_branch_name
from jens.repositories.model import Left, Reply, Request
from jens.repositories.refs import missing_mandatory
from jens.system import files

#: Git's exit status when it has done what it was asked for, or says so.
_SUCCESS = 0
#: Branches that a message names.
_MOST_NAMED = 5


class Mirror(NamedTuple):
    """The branches and needed tags of a repository by their keys, and how reliable they are."""

    heads: Mapping[str, str]
    reply: Reply
    events: tuple[Event, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether the remote lacks what the mirror lacks."""
        return self.reply is not Reply.NONE


class RefusedError(Exception):
    """A new repository is refused; the event says why."""

    def __init__(self, event: Event) -> None:
        super().__init__(event.text)
        self.event = event


def questions(requests: Iterable[Request]) -> list[Command]:
    """The commands that ask the remotes which are to be asked in any case, each once."""
    wanted = [request for request in requests if request.left is None and (request.ask or request.is_new)]
    return [*dict.fromkeys(request.question for request in wanted if request.url is not None)]


def bring_up_to_date(bare: Path, request: Request, remotes: Remotes, checkouts: Sequence[str]) -> Mirror:
    """Bring the mirror up to date as far as possible. Its events tell what went wrong.

    ``checkouts`` are the commits to salvage from a damaged mirror. Raises RefusedError for a new repository that
    cannot be cloned, or lacks a mandatory branch; OSError when nobody can look at the mirror now.
    """
    url = request.url
    if url is None:
        return Mirror(read_heads(bare), Reply.NONE)
    if request.is_new and not wrapper.is_repository(bare):
        return _take_in(bare, url, request, remotes)
    try:
        damage = _look_at(bare)
    except GitBusyError as error:
        return Mirror(read_heads(bare), Reply.NONE, (failure_event("fetch", request.repo, error),))
    if request.left is not None:
        return Mirror(read_heads(bare), Reply.NONE, (left_event(request.repo, request.left),))
    if damage:
        return renew(bare, request, remotes, checkouts, damage)
    if not must_ask(bare, request, checkouts):
        return Mirror(read_heads(bare), Reply.BEFORE)
    try:
        before = read_heads(bare)
        mirror = update_mirror(bare, url, request, remotes)
        mirror = mirror._replace(events=(*mirror.events, *_losses(request, before, mirror)))
    except GitError as error:
        doubt = _doubt(bare, error)
        if doubt is not None:
            mirror = Mirror(read_heads(bare), Reply.NONE, (failure_event("fetch", request.repo, doubt),))
        else:
            mirror = renew(bare, request, remotes, checkouts, f"is damaged ({error.problem})")
    if request.on_demand:
        announcement = Event(logging.INFO, f"Fetching {request.repo} upon demand...")
        mirror = mirror._replace(events=(announcement, *mirror.events))
    return mirror


def _doubt(bare: Path, error: GitError) -> GitError | None:
    """What to tell of a mirror that could not be updated; None when it is certainly damaged.

    Suspects the mirror only when the remote replied, and Git came to an end of its own.
    """
    if error.is_cut_short or is_remote(error) or error.status == _SUCCESS:
        return error
    try:
        return error if wrapper.is_intact(bare) else None
    except GitError as busy:
        text = f"{error.problem}; nobody can tell now whether the mirror is damaged ({busy})"
        return (GitTimeoutError if isinstance(busy, GitTimeoutError) else GitError)(error.verb, text, error.status)


def _look_at(bare: Path) -> str | None:
    """Tell why a mirror must be made anew, None if it need not be. Removes lock files that a killed Git left.

    Without the repository's lock, the unfinished work of another Git looks like damage. Raises GitBusyError,
    and OSError when nobody can look.
    """
    damage, _ = git_damage.examine(bare)
    if not damage and not lock.has_left_overs(bare):
        return None
    try:
        with lock.repository_lock(bare):
            return git_damage.examine(bare)[0]
    except GitBusyError:
        raise
    except GitError:  # there is nothing to lock
        return damage


def _losses(request: Request, before: Mapping[str, str], mirror: Mirror) -> list[Event]:
    """A warning about branches that were missing, and are now again as the last run left them."""
    now = mirror.heads if mirror.reply is Reply.NOW else {}
    recorded = {ref.key: commit for ref, commit in request.recorded.items() if not isinstance(ref, Commit)}
    lost = sorted(name for name in now if name not in before and recorded.get(name) == now[name])
    return [Event(logging.WARNING, f"The mirror of {request.repo} had lost branches: {lost}")] if lost else []


def must_ask(bare: Path, request: Request, checkouts: Sequence[str]) -> bool:
    """Whether the remote must be asked, since the mirror may lack something. ``checkouts`` are the commits on disk."""
    if request.ask or request.lacking is None or not wrapper.is_mirror_of(bare, request.url or ""):
        return True
    heads, lacking = read_heads(bare), request.lacking - request.fresh
    return _differs_from_record(heads, request.recorded) or any(
        ref not in lacking and not _has(bare, heads, ref, request, checkouts)
        for ref in request.needs.refs
        if ref not in request.needs.incidental
    )


def _differs_from_record(heads: Mapping[str, str], recorded: Mapping[Ref, str]) -> bool:
    """Whether branches are not as the last run left them: restored from a backup, or fetched by a killed run."""
    return any(not isinstance(ref, Commit) and heads.get(ref.key, commit) != commit for ref, commit in recorded.items())


def _has(bare: Path, heads: Mapping[str, str], ref: Ref, request: Request, checkouts: Sequence[str]) -> bool:
    if not isinstance(ref, Commit):
        return ref.key in heads
    digits = request.full_id(ref) or ref.digits
    if any(commit.startswith(digits) for commit in checkouts):
        return True
    try:
        found = wrapper.commits_like(bare, digits)
        return bool(found) and not (len(digits) == 40 and wrapper.lacks_parts(bare, digits))
    except GitError:
        return False


def _take_in(bare: Path, url: str, request: Request, remotes: Remotes) -> Mirror:
    try:
        return clone_mirror(bare, url, request, remotes)
    except GitError as error:
        event = failure_event("clone", request.repo, error)
        raise RefusedError(event if event.is_slow else event._replace(kind=REFUSED)) from error


def renew(bare: Path, request: Request, remotes: Remotes, checkouts: Sequence[str], reason: str) -> Mirror:
    """Make a mirror anew if its remote can be cloned. Otherwise it stays as it is."""
    try:
        reply = ask(bare, request, remotes)  # a silent remote times out sooner than a clone
        if not reply.is_settled:
            return reply
        mirror, lost = renew_mirror(bare, request, checkouts, remotes, reply.heads)
    except GitError as error:
        return Mirror(read_heads(bare), Reply.NONE, (failure_event("clone", request.repo, error),))
    text = f"The mirror of {request.repo} {reason}, it was made anew"
    text += f"; only their checkouts are left of {[commit[:7] for commit in lost]}" if lost else ""
    return mirror._replace(events=(Event(logging.WARNING, text),))


def is_remote(error: GitError) -> bool:
    """Whether an error is that there was no answer from a remote, which tells nothing of the mirror."""
    return error.is_cut_short or isinstance(error, GitUnreachedError) or error.verb == "ls-remote"


def failure_event(verb: str, repo: RepoId, error: GitError) -> Event:
    """The event for a remote that could not be cloned or fetched (``verb``)."""
    text = f"Unable to {verb} '{repo.name}' from remote ({repo}: {error.problem})"
    return Event(logging.ERROR, text, NOT_FETCHED, is_slow=isinstance(error, GitTimeoutError))


def left_event(repo: RepoId, left: Left) -> Event:
    """The event for a repository that jens-transfer takes care of. The run that left it has told of it in the log."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(left.since))
    text = f"{repo} is left to jens-transfer since {when}, because its remote takes long"
    return Event(logging.DEBUG, text, NOT_FETCHED)


def refusal_event(repo: RepoId, missing: Sequence[str]) -> Event:
    """The event for a new repository that lacks mandatory branches."""
    reason = f"it has no branch {', '.join(map(repr, missing))}, which every repository must have"
    return Event(logging.ERROR, f"Refusing new repository {repo}: {reason}", REFUSED)


def clone_mirror(bare: Path, url: str, request: Request, remotes: Remotes) -> Mirror:
    """Clone a new mirror aside, so that a refused one leaves nothing. Raises GitError, RefusedError."""
    said = remotes.heads(request.question)  # a silent remote times out sooner than a clone
    _refuse_without(request, said)
    staging = files.staging_name(bare.parent)
    try:
        heads = _clone(staging, url, request, remotes, said)
        _refuse_without(request, heads)
        files.replace_tree(staging, bare)
    finally:
        files.remove_tree(staging)
    return Mirror(heads, Reply.NOW)


def _refuse_without(request: Request, heads: Mapping[str, str]) -> None:
    missing = missing_mandatory(request.needs.mandatory, heads)
    if missing:
        raise RefusedError(refusal_event(request.repo, missing))


def _clone(staging: Path, url: str, request: Request, remotes: Remotes, said: Mapping[str, str]) -> dict[str, str]:
    """Clone a remote that ``said`` which branches it has. Returns what the clone brought. Raises GitError."""
    remotes.converse(url, lambda options: wrapper.clone(staging, url, options), is_long=True)
    if tags := tags_among(said):  # a clone brings branches, or all tags
        remotes.converse(url, lambda options: wrapper.fetch(staging, url, options, tags))
    heads = wrapper.heads(staging)
    _expect_brought("clone", request, remotes, not_brought(said, {}, heads), heads)
    return heads


def tags_among(heads: Mapping[str, str]) -> dict[str, str]:
    """The tags among branches and tags, by their keys."""
    return {key: commit for key, commit in heads.items() if key.startswith(TAG_MARK)}


def not_brought(said: Mapping[str, str], before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The branches and tags that a remote ``said`` to be elsewhere than in the mirror before, and that Git left there.

    Names that no branch can have do not count: Git ignores them, and no definition can use them.
    """
    left = (name for name in {*said, *before} if said.get(name) != before.get(name) == after.get(name))
    return sorted(name for name in left if name.startswith(TAG_MARK) or is_branch_name(name))


def _expect_brought(
    verb: str, request: Request, remotes: Remotes, left: list[str], heads: Mapping[str, str], text: str = ""
) -> None:
    """Raise GitError when the remote still has branches that Git has ``left`` as they were.

    A push between question and fetch may have taken them back. ``text`` is what Git complained of.
    """
    now = remotes.heads_now(request.question) if left else {}
    left = [name for name in left if now.get(name) != heads.get(name)]
    if left:
        names = f"{', '.join(map(repr, left[:_MOST_NAMED]))}{', …' if left[_MOST_NAMED:] else ''}"
        problem = f"Git ended with success, but did not bring what the remote has in {names}"
        raise GitError(verb, f"{problem}: {text}" if text else problem, _SUCCESS)


def ask(bare: Path, request: Request, remotes: Remotes) -> Mirror:
    """Ask the remote which branches and needed tags it has, without a fetch. Raises GitError."""
    heads = remotes.heads(request.question)
    if heads.keys() == tags_among(heads).keys():
        problem = f"The remote of {request.repo} has no branches at all, what is mirrored stays"
        return Mirror(read_heads(bare), Reply.NONE, (Event(logging.ERROR, problem, NOT_FETCHED),))
    return Mirror(heads, Reply.NOW)


def update_mirror(bare: Path, url: str, request: Request, remotes: Remotes) -> Mirror:
    """Ask the remote, and fetch when its branches, needed tags or its URL have changed. Raises GitError."""
    reply = ask(bare, request, remotes)
    moved = not wrapper.is_mirror_of(bare, url)
    before = read_heads(bare)
    if not reply.is_settled or (before == reply.heads and not moved):
        return reply
    text = remotes.converse(url, lambda options: wrapper.fetch(bare, url, options, tags_among(reply.heads)))
    heads = read_heads(bare)
    _expect_brought("fetch", request, remotes, not_brought(reply.heads, before, heads), heads, text)
    if moved:
        wrapper.record_url(bare, url)
    return Mirror(heads, Reply.NOW, (Event(logging.INFO, f"Fetched {request.repo}"),))


def read_heads(bare: Path) -> dict[str, str]:
    """The mirror's branches; empty when there is no usable mirror. Raises OSError when nobody can look now."""
    try:
        return wrapper.heads(bare)
    except OSError as error:
        if not files.is_verdict(error):
            raise
        return {}


def renew_mirror(
    bare: Path, request: Request, checkouts: Sequence[str], remotes: Remotes, said: Mapping[str, str]
) -> tuple[Mirror, list[str]]:
    """Make a damaged mirror anew, and salvage the commits of checkouts. ``said``: the branches of the remote.

    Returns the new mirror, and the commits that are lost. Raises GitError.
    """
    staging, lender = files.staging_name(bare.parent), files.staging_name(bare.parent)
    try:
        _clone(staging, request.url or "", request, remotes, said)
        missing = [commit for commit in checkouts if not wrapper.commits_like(staging, commit)]
        if missing and (bare / "objects").is_dir():
            wrapper.borrow(lender, bare / "objects")
        lost = [commit for commit in missing if not _salvage(staging, lender, commit, remotes.options)]
        files.replace_tree(staging, bare)
    finally:
        files.remove_tree(staging)
        files.remove_tree(lender)
    return Mirror(wrapper.heads(bare), Reply.NOW), lost


def _salvage(new: Path, lender: Path, commit: str, options: GitOptions) -> bool:
    try:
        wrapper.fetch_commits(new, str(lender), [commit], options)
    except GitError:
        return False
    return True
