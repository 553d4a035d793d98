"""Where a commit is: in which environments since when, or why not yet, or until when it was there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jens import lastrun, preflight
from jens.config import Config
from jens.errors import DirectoryError, GitError
from jens.events import CHECKOUT, CONTENT, WAY_OUT
from jens.git import authors, lookup, wrapper
from jens.git import clones as git_clones
from jens.git import history as git_history
from jens.git.authors import Described
from jens.history import queries
from jens.history.model import pinned_commit, ref_of_name
from jens.history.spans import LEFT, MOVED_ON, Span, plan_spans
from jens.layout import Layout, entry_ref, is_checkout_name
from jens.messaging.queue import Push
from jens.metadata import clones
from jens.model import Commit, OpenFault, Ref, RepoId, declared
from jens.tools import history
from jens.tools.show import (
    VERSION,
    Contact,
    Instance,
    Past,
    Use,
    heads_of,
    is_directory,
    repository,
    uses_of,
    when,
)
from jens.tools.show_environment import is_environment

# What is known of a commit. The first one that is true counts.
VISIBLE, WAS_VISIBLE, IN_MIRROR = "visible", "was visible", "in the mirror"
ANNOUNCED, NOT_IN_MIRROR = "announced", "not in the mirror"

# Why an environment that has the repository does not show the commit.
DANGLES, NOT_LAID_OUT, WITHOUT = "dangles", "not laid out", "without it"

# Why a commit is no longer visible, besides what the history tells.
ENVIRONMENT_GONE = "environment gone"

#: Of so many commits that an abbreviation may mean all is told.
_MOST = 20
#: Kinds of faults because of which a commit of the mirror is not laid out.
_NOT_LAID_OUT = (CHECKOUT, CONTENT, WAY_OUT)


class Visible(NamedTuple):
    """An environment that has a commit, as its ref shows ``shown``, which is the commit or contains it.

    ``since``: seconds since the epoch, None when nothing tells.
    """

    environment: str
    ref: Ref
    shown: str
    since: float | None


class Lacking(NamedTuple):
    """An environment that has the repository and not the commit; ``reason`` is one of the constants above."""

    environment: str
    ref: Ref
    shown: str | None
    reason: str


class Places(NamedTuple):
    """Which environments have a commit, have it not, and had it once; in the last ones also those that are gone."""

    visible: tuple[Visible, ...] = ()
    lacking: tuple[Lacking, ...] = ()
    past: tuple[Span, ...] = ()


class Found(NamedTuple):
    """A commit of a repository. ``branches`` of the mirror contain it, of which environments use those ``in_use``.

    ``announced`` says which push told of it, None for none. ``contact`` tells what is known of the remote. ``unread``
    environments cannot be read.
    """

    id: str
    repository: RepoId
    said: Described | None
    places: Places
    is_in_mirror: bool
    branches: tuple[str, ...]
    in_use: tuple[str, ...]
    announced: Push | None
    contact: Contact
    faults: tuple[OpenFault, ...]
    unread: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """What is known of it, in a word."""
        if self.places.visible:
            return VISIBLE
        if self.places.past:
            return WAS_VISIBLE
        if self.is_in_mirror:
            return IN_MIRROR
        return ANNOUNCED if self.announced else NOT_IN_MIRROR

    def encode(self, config: Config) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            "commit": self.id,
            "repository": str(self.repository),
            "state": self.state,
            "author": self.said and self.said.author,
            "subject": self.said and self.said.subject,
            "date": self.said and when(self.said.date),
            "visible": [
                {
                    "environment": each.environment,
                    "ref": history.declared(each.ref, config),
                    "shown": each.shown,
                    "since": when(each.since),
                }
                for each in self.places.visible
            ],
            "lacking": [
                {
                    "environment": each.environment,
                    "ref": history.declared(each.ref, config),
                    "shown": each.shown,
                    "reason": each.reason,
                }
                for each in self.places.lacking
            ],
            "past": [_encode_past(each, config) for each in self.places.past],
            "in_mirror": self.is_in_mirror,
            "branches": [*self.branches],
            "branches_in_use": [*self.in_use],
            "announced": self.announced and {"branch": self.announced.move.branch, "since": when(self.announced.added)},
            **self.contact.encode(),
            "faults": [*map(lastrun.encode_fault, self.faults)],
            "unread_environments": [*self.unread],
        }


def _encode_past(span: Span, config: Config) -> dict[str, Any]:
    by = span.by
    if by is not None and span.end == MOVED_ON:
        by = history.declared(ref_of_name(by), config)
    return {
        "environment": span.environment,
        "ref": history.declared(ref_of_name(span.ref), config),
        "shown": span.shown,
        "since": when(span.since),
        "until": when(span.until),
        "end": span.end,
        "by": by,
    }


class MetadataCommit(NamedTuple):
    """A commit of the metadata of ``which``: the last run worked from ``head``; ``is_in_use``: this contains it."""

    id: str
    which: str
    said: Described
    head: str
    is_in_use: bool

    def encode(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            "commit": self.id,
            "metadata": self.which,
            "author": self.said.author,
            "subject": self.said.subject,
            "date": when(self.said.date),
            "head": self.head,
            "in_use": self.is_in_use,
        }


class Answer(NamedTuple):
    """All that is known of the commits that begin with these digits. Of very many there are so many ``more``.

    ``suspects`` are repositories whose remotes may have the commit, when no mirror has it. ``problem`` says why the
    history cannot be read, '' when it can. ``unread`` repositories could not be looked at. ``last_run`` began then;
    when nothing tells, it is None. ``metadata`` has commits of the metadata, when no repository has any.
    """

    digits: str
    commits: tuple[Found, ...]
    more: int
    suspects: tuple[tuple[RepoId, Contact], ...]
    unread: tuple[str, ...]
    problem: str
    last_run: float | None
    metadata: tuple[MetadataCommit, ...] = ()

    def encode(self, config: Config) -> dict[str, Any]:
        """The same as JSON types. Times are UTC; what is not known is None."""
        return {
            "version": VERSION,
            "asked": self.digits,
            "commits": [commit.encode(config) for commit in self.commits],
            "metadata": [each.encode() for each in self.metadata],
            "more": self.more,
            "suspects": [{"repository": str(repo), **contact.encode()} for repo, contact in self.suspects],
            "unread_repositories": [*self.unread],
            "history_problem": self.problem or None,
            "last_run": when(self.last_run),
        }


# Deciding


def plan_places(
    uses: Iterable[Use],
    spans: Iterable[Span],
    containing: Collection[str],
    heads: Mapping[str, str],
    environments: Collection[str],
    only: str | None = None,
) -> Places:
    """Where a commit is, was, and is not; ``containing`` has the commit and all that contain it.

    What is on disk (``uses``) outranks the history: a run may have been killed before it recorded what it did. The
    ``environments`` are those on disk. With ``only`` no other environment counts.
    """
    past = [span for span in spans if only in (None, span.environment)]
    open_since = {span.environment: span.since for span in past if span.until is None}
    visible, lacking = [], []
    for use in uses:
        if only not in (None, use.environment):
            continue
        if use.commit in containing:
            times = [time for time in (use.since, open_since.get(use.environment)) if time is not None]
            visible.append(Visible(use.environment, use.ref, str(use.commit), min(times, default=None)))
        else:
            lacking.append(Lacking(use.environment, use.ref, use.commit, _reason(use, containing, heads)))
    shown = {each.environment for each in visible}
    return Places(
        tuple(visible),
        tuple(lacking),
        tuple(_ended(span, environments) for span in past if span.until is not None or span.environment not in shown),
    )


def _reason(use: Use, containing: Collection[str], heads: Mapping[str, str]) -> str:
    if not isinstance(use.ref, Commit) and heads.get(use.ref.key) in containing:
        return NOT_LAID_OUT
    return DANGLES if use.commit is None else WITHOUT


def _ended(span: Span, environments: Collection[str]) -> Span:
    """A span that is over. When the environment has gone, that is why."""
    is_gone = span.end == LEFT and span.environment not in environments
    return span._replace(end=ENVIRONMENT_GONE) if is_gone else span


# Reading


def look(instance: Instance, digits: str, repo: RepoId | None = None, environment: str | None = None) -> Answer:
    """Look for a commit, in all repositories or in one, and in all environments or in one.

    Raises DirectoryError when there is no such repository or environment, or when they cannot be read.
    """
    config, layout = instance.config, instance.layout
    preflight.check_readable(config, ("baredir", "clonedir", "environmentsdir"))
    if environment is not None and not is_environment(layout, environment):
        raise DirectoryError("environment", layout.environment(environment), "does not exist")
    if repo is not None and not (is_directory("baredir", layout.bare(repo)) or repo in (instance.urls or ())):
        raise DirectoryError("repository", Path(str(repo)), "neither the library nor the disk has it")
    with Past(config) as past:
        candidates, mirrored, unread = _candidates(instance, past, digits, repo)
        found = [
            _commit(instance, past, each, commit, (each, commit) in mirrored, environment)
            for each, commit in candidates[:_MOST]
        ]
        if not found and repo is not None:
            found = [_absent(instance, repo, digits)]
        metadata = () if found else tuple(_in_metadata(config, digits))
        is_known = found or metadata
        suspects = () if is_known else tuple((each, instance.contact(each)) for each in instance.suspects())
        return Answer(
            digits,
            tuple(found),
            len(candidates[_MOST:]),
            suspects,
            tuple(unread),
            past.problem,
            instance.last_began,
            metadata,
        )


def _in_metadata(config: Config, digits: str) -> Iterator[MetadataCommit]:
    """Commits of the metadata that begin with these digits, as far as these can be read."""
    for which, directory in zip(("environments", "repositories"), clones.directories(config)):
        git_dir = directory / ".git"
        try:
            head = git_clones.head(directory)
            for commit in _in_mirror(git_dir, digits):
                is_in_use = head in git_history.containing(git_dir, commit, [head])
                yield MetadataCommit(commit, which, authors.describe(git_dir, commit), head, is_in_use)
        except (GitError, OSError):
            continue


def _candidates(
    instance: Instance, past: Past, digits: str, only: RepoId | None
) -> tuple[list[tuple[RepoId, str]], set[tuple[RepoId, str]], list[str]]:
    """Commits that begin with these digits: all, those in mirrors, and the mirrors that could not be looked at."""
    mirrored: set[tuple[RepoId, str]] = set()
    unread = []
    for repo in [only] if only else _repositories(instance.layout):
        try:
            mirrored |= {(repo, commit) for commit in _in_mirror(instance.layout.bare(repo), digits)}
        except (GitError, OSError):
            unread.append(str(repo))
    others = {*_on_disk(instance.layout, digits, unread)}
    others |= {(push.repo, push.move.after) for push in instance.hints.pushes if push.move.after.startswith(digits)}
    for name, commit in past.ask(lambda reader: queries.ids_like(reader, digits)) or ():
        repo_of_name = repository(name)
        others |= {(repo_of_name, commit)} if repo_of_name else set()
    return sorted(mirrored | {each for each in others if only in (None, each[0])}), mirrored, sorted({*unread})


def _repositories(layout: Layout) -> list[RepoId]:
    try:
        return sorted(layout.repositories_in(layout.baredir))
    except OSError as error:
        raise DirectoryError("baredir", layout.baredir, f"cannot be read: {error.strerror}") from error


def _in_mirror(bare: Path, digits: str) -> list[str]:
    found = lookup.ids_like(bare, digits)
    return wrapper.commits_among(bare, found) if found else []


def _on_disk(layout: Layout, digits: str, unread: list[str]) -> Iterator[tuple[RepoId, str]]:
    """Checkouts: one outranks Git, and its commit may be in no mirror any more. Adds what cannot be read to a list."""
    try:
        repos = layout.repositories_in(layout.clonedir)
    except OSError as error:
        raise DirectoryError("clonedir", layout.clonedir, f"cannot be read: {error.strerror}") from error
    for repo in repos:
        try:
            entries = os.listdir(layout.clone(repo))
        except OSError:
            unread.append(str(repo))
            continue
        yield from ((repo, name[1:]) for name in entries if is_checkout_name(name) and name.startswith(f".{digits}"))


def _declared(instance: Instance, key: str) -> str:
    """A branch or a tag of a mirror as definitions write it."""
    ref = entry_ref(key)
    return key if ref is None else declared(ref, instance.prefixes)


def _commit(instance: Instance, past: Past, repo: RepoId, commit: str, is_in_mirror: bool, only: str | None) -> Found:
    bare, name = instance.layout.bare(repo), str(repo)
    heads, (uses, closed) = heads_of(bare), uses_of(instance, repo)
    moves = past.ask(lambda reader: queries.moves_of(reader, name, instance.newest, commit)) or []
    holdings = past.ask(lambda reader: queries.holdings_of(reader, name)) or []
    tips = {commit, *heads.values(), *(use.commit for use in uses), *(move.now for move in moves)}
    tips |= {pinned_commit(held.ref) for held in holdings}
    containing = _containing(bare, commit, {tip for tip in tips if tip}, is_in_mirror)
    spans = plan_spans(moves, holdings, containing)
    places = plan_places(uses, spans, containing, heads, instance.environments(), only)
    branches = sorted(_declared(instance, key) for key, tip in heads.items() if tip in containing)
    in_use = {declared(use.ref, instance.prefixes) for use in uses if not isinstance(use.ref, Commit)}
    return Found(
        commit,
        repo,
        instance.described([(repo, commit)]).get((repo, commit)) or _said_once(moves, commit),
        places,
        is_in_mirror,
        tuple(branches),
        tuple(branch for branch in branches if branch in in_use),
        _push(instance.hints.pushes, repo, commit),
        instance.contact(repo),
        tuple(o for o in instance.faults if o.fault.repository == name and o.fault.kind in _NOT_LAID_OUT),
        closed if only is None else tuple({only}.intersection(closed)),
    )


def _said_once(moves: Iterable[queries.Move], commit: str) -> Described | None:
    """What a commit said of itself that the mirror has lost; None when the history does not know."""
    for move in moves:
        if move.now == commit and move.author is not None:
            return Described(move.author, move.subject or "", move.date, ())
    return None


def _containing(bare: Path, commit: str, tips: Collection[str], is_in_mirror: bool) -> frozenset[str]:
    """The commit, and those of the tips that contain it, as far as the mirror can tell."""
    if is_in_mirror:
        try:
            return git_history.containing(bare, commit, tips) | {commit}
        except GitError:
            pass
    return frozenset([commit])


def _push(pushes: Sequence[Push], repo: RepoId, commit: str) -> Push | None:
    return next((push for push in pushes if push.repo == repo and push.move.after == commit), None)


def _absent(instance: Instance, repo: RepoId, digits: str) -> Found:
    """A commit that nothing knows of, in a repository where it should be."""
    return Found(digits, repo, None, Places(), False, (), (), None, instance.contact(repo), ())
