"""Bringing one repository's mirror up to date: asked, cloned, fetched, and made anew when it is damaged."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from jens import files, gitwrapper
from jens.errors import GitError, GitTimeoutError
from jens.gitwrapper import GitOptions
from jens.model import Commit, Event, Ref, RepoId
from jens.names import server_of
from jens.repositories import Needs, missing_mandatory, resolve


class Remotes:
    """The remotes of one run: a server that did not answer in time is not tried again."""

    def __init__(self, options: GitOptions) -> None:
        self.options = options
        self._silent: set[str] = set()

    @contextmanager
    def speaking_to(self, url: str) -> Iterator[GitOptions]:
        """Guard one conversation. Raises GitError at once when the server was silent before."""
        server = server_of(url)
        if server and server in self._silent:
            raise GitError("ls-remote", f"not tried, {server} did not answer in time before")
        try:
            yield self.options
        except GitTimeoutError:
            self._silent.add(server)
            raise


@dataclass(frozen=True)
class Mirror:
    """What is known of a repository's branches; ``answered``: the remote said so in this run."""

    heads: Mapping[str, str]
    answered: bool
    events: tuple[Event, ...] = ()


class RefusedError(Exception):
    """A new repository is not taken in; the event says why."""

    def __init__(self, event: Event) -> None:
        super().__init__(event.text)
        self.event = event


@dataclass(frozen=True)
class Request:
    """One repository's work for a worker. Without a URL, or when not to be asked, the mirror is all there is.

    ``is_new``: the library has it, the disk has not; ``is_known``: environments may hold it already.
    """

    repo: RepoId
    url: str | None
    needs: Needs
    recorded: Mapping[Commit, str]
    ask: bool = True
    is_new: bool = False
    is_known: bool = True


def bring_up_to_date(bare: Path, request: Request, remotes: Remotes, checkouts: Sequence[str]) -> Mirror:
    """The mirror as up to date as it can be made; what went wrong is among its events.

    ``checkouts`` are commits worth salvaging from a damaged mirror. Raises RefusedError for a new repository that
    cannot be had, or is not as every repository must be.
    """
    url, is_there = request.url, gitwrapper.is_repository(bare)
    if url is None or (is_there and not request.ask):
        return Mirror(read_heads(bare), answered=False)
    if request.is_new and not is_there:
        return _take_in(bare, url, request, remotes)
    if not is_there:
        return renew(bare, request, remotes, checkouts, "is missing or no repository")
    try:
        return update_mirror(bare, url, request.repo, remotes)
    except GitError as error:
        # Only when the remote is well can it be the mirror that is damaged.
        if isinstance(error, GitTimeoutError) or error.verb == "ls-remote" or gitwrapper.is_sound(bare):
            return Mirror(read_heads(bare), answered=False, events=(_unable("fetch", request.repo, error),))
        return renew(bare, request, remotes, checkouts, f"is damaged ({error.problem})")


def _take_in(bare: Path, url: str, request: Request, remotes: Remotes) -> Mirror:
    try:
        return clone_mirror(bare, url, request, remotes)
    except GitError as error:
        raise RefusedError(_unable("clone", request.repo, error)) from error


def renew(bare: Path, request: Request, remotes: Remotes, checkouts: Sequence[str], reason: str) -> Mirror:
    """Make a mirror anew, if its remote can be cloned; else it stays as it is."""
    try:
        mirror = renew_mirror(bare, request.url or "", checkouts, remotes)
    except GitError as error:
        return Mirror(read_heads(bare), answered=False, events=(_unable("clone", request.repo, error),))
    event = Event(logging.WARNING, f"The mirror of {request.repo} {reason}, it was made anew")
    return replace(mirror, events=(event,))


def _unable(verb: str, repo: RepoId, error: GitError) -> Event:
    return Event(logging.ERROR, f"Unable to {verb} '{repo.name}' from remote ({repo}: {error.problem})")


def refusal(repo: RepoId, missing: Sequence[str]) -> Event:
    """Why a new repository is not taken in."""
    reason = f"it has no branch {', '.join(map(repr, missing))}, which every repository must have"
    return Event(logging.ERROR, f"Refusing new repository {repo}: {reason}")


def clone_mirror(bare: Path, url: str, request: Request, remotes: Remotes) -> Mirror:
    """Take in a new repository: aside first, so that a refused one leaves nothing. Raises GitError, RefusedError."""
    staging = files.staging_name(bare.parent)
    try:
        with remotes.speaking_to(url) as options:
            gitwrapper.clone(staging, url, options)
        heads = gitwrapper.heads(staging)
        missing = missing_mandatory(request.needs.mandatory, heads)
        if missing:
            raise RefusedError(refusal(request.repo, missing))
        files.replace_tree(staging, bare)
    finally:
        files.remove_tree(staging)
    return Mirror(heads, answered=True)


def ask(bare: Path, url: str, repo: RepoId, remotes: Remotes) -> Mirror:
    """What the remote has, without fetching it. Raises GitError."""
    with remotes.speaking_to(url) as options:
        heads = gitwrapper.remote_heads(url, options)
    if not heads:
        problem = f"The remote of {repo} has no branches at all, what is mirrored stays"
        return Mirror(read_heads(bare), answered=False, events=(Event(logging.ERROR, problem),))
    return Mirror(heads, answered=True)


def update_mirror(bare: Path, url: str, repo: RepoId, remotes: Remotes) -> Mirror:
    """Ask the remote, and fetch when it differs from the mirror, or is another than before. Raises GitError."""
    answer = ask(bare, url, repo, remotes)
    moved = gitwrapper.mirrored_url(bare) != url
    if not answer.answered or (read_heads(bare) == answer.heads and not moved):
        return answer
    with remotes.speaking_to(url) as options:
        gitwrapper.fetch(bare, url, options)
    if moved:
        gitwrapper.record_url(bare, url)
    return Mirror(read_heads(bare), answered=True)


def read_heads(bare: Path) -> dict[str, str]:
    """The mirror's branches; none when there is no usable mirror."""
    try:
        return gitwrapper.heads(bare)
    except OSError:
        return {}


def renew_mirror(bare: Path, url: str, checkouts: Sequence[str], remotes: Remotes) -> Mirror:
    """Make a damaged mirror anew, salvaging the commits of existing checkouts. Raises GitError."""
    staging = files.staging_name(bare.parent)
    try:
        with remotes.speaking_to(url) as options:
            gitwrapper.clone(staging, url, options)
        for commit in checkouts:
            if bare.is_dir() and not gitwrapper.commits_like(staging, commit):
                _salvage(staging, bare, commit, remotes.options)
        files.replace_tree(staging, bare)
    finally:
        files.remove_tree(staging)
    return Mirror(gitwrapper.heads(bare), answered=True)


def _salvage(new: Path, damaged: Path, commit: str, options: GitOptions) -> None:
    with suppress(GitError):  # its checkout stays all the same
        gitwrapper.fetch_commit(new, str(damaged), commit, options)


@dataclass(frozen=True)
class Resolution:
    """Which commits the declared ones are; None for those that are not to be had.

    Of ``unasked`` ones nobody knows, the remote could not be asked. Suspicious when the reason may be that the mirror
    has lost objects.
    """

    commits: Mapping[Commit, str | None]
    unasked: frozenset[Ref] = frozenset()
    events: tuple[Event, ...] = ()
    is_suspicious: bool = False


def resolve_commits(
    bare: Path, request: Request, checkouts: Sequence[str], remotes: Remotes, *, answered: bool
) -> Resolution:
    """Look for declared commits: recorded, on disk, in the mirror, and full ids at the remote, if it answers.

    Former ones are only looked for on disk. Raises GitError when the mirror cannot be read.
    """
    needs = request.needs
    found: dict[Commit, str | None] = {ref: _full_id(ref, request) for ref in needs.former if isinstance(ref, Commit)}
    unasked: set[Ref] = set()
    events: list[Event] = []
    for commit in (ref for ref in needs.refs if isinstance(ref, Commit)):
        full = _full_id(commit, request)
        if full is not None and full in checkouts:
            found[commit] = full
            continue
        try:
            candidates = gitwrapper.commits_like(bare, full or commit.digits)
            if not candidates and full is not None and answered:
                candidates = _fetch_commit(bare, full, request, remotes)
        except GitError as error:
            found[commit] = None
            unasked.add(commit)
            events.append(_unable("fetch", request.repo, error))
            continue
        found[commit], problem = resolve(commit, candidates, checkouts)
        if problem and answered:
            events.append(Event(logging.ERROR, f"{request.repo}: commit {commit.digits} {problem}"))
    suspicious = bool(unasked) or (None in found.values() and not gitwrapper.has_heads(bare))
    return Resolution(found, frozenset(unasked), tuple(events), suspicious)


def _full_id(commit: Commit, request: Request) -> str | None:
    return commit.digits if commit.is_full else request.recorded.get(commit)


def _fetch_commit(bare: Path, commit: str, request: Request, remotes: Remotes) -> list[str]:
    """Ask the remote for a commit, and look again. Raises GitError when it could not be asked."""
    url = request.url or ""
    with remotes.speaking_to(url) as options:
        fetched = gitwrapper.fetch_commit(bare, url, commit, options)
    return gitwrapper.commits_like(bare, commit) if fetched else []
