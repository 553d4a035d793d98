"""Removes unneeded checkouts. They stay for a while (``retention``, seconds): servers may still be reading them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import Any

from jens import statefile
from jens.events import Event
from jens.git import worktrees
from jens.layout import Layout, is_checkout_name
from jens.model import RepoId
from jens.names import parse_repository
from jens.repositories import transfers
from jens.statefile import UNREFERENCED, StateError
from jens.system import clock, files
from jens.system.clock import Moment

#: Since when (seconds since the epoch, by the clock as it is now) each checkout is unneeded.
Unreferenced = Mapping[tuple[RepoId, str], float]

#: Where the file has the moment when it was written: the clock may have been set since then.
_NOTED = "noted"

log = logging.getLogger(__name__)


def clear_left_overs(layout: Layout, retention: float) -> bool:
    """Remove what earlier runs left: staging, trash, and checkouts whose retention is over. Returns whether all went.

    A run does this first, or a full disk would never recover.
    """
    is_clean = True
    spared = spared_directories(layout)
    for directory in _directories_with_left_overs(layout):
        try:
            problems = files.sweep(directory, only_trash=directory in spared)
            is_clean = is_clean and not problems
            for problem in problems:
                log.warning("Unable to remove '%s' yet: %s", problem.filename, problem.strerror)
        except OSError as error:
            is_clean = False
            log.warning("Unable to look for left-overs in '%s': %s", directory, error)
    _, is_all = _remove(layout, expired(layout, retention))
    return is_clean and is_all


def expired(layout: Layout, retention: float) -> dict[RepoId, set[str]]:
    """The checkouts whose retention is over."""
    found: dict[RepoId, set[str]] = {}
    now = clock.now().wall
    for (repo, commit), since in load(layout).items():
        if is_over(since, now, retention):
            found.setdefault(repo, set()).add(commit)
    return found


def clear_expired(layout: Layout, commits: Mapping[RepoId, Set[str]]) -> bool:
    """Remove checkouts whose retention is over, when earlier runs left nothing else. Returns whether all went.

    Raises OSError.
    """
    gone, is_all = _remove(layout, commits)
    save(layout, {key: since for key, since in load(layout).items() if key not in gone})
    return is_all


def _remove(layout: Layout, commits: Mapping[RepoId, Set[str]]) -> tuple[set[tuple[RepoId, str]], bool]:
    """Remove these checkouts. Returns those that are gone, and whether all are."""
    gone, is_all = set(), True
    for repo, commit in [(repo, commit) for repo, some in commits.items() for commit in sorted(some)]:
        try:
            if commit not in _linked(layout, repo) and remove_checkout(layout, repo, commit):
                gone.add((repo, commit))
                log.info("Removed '%s', its retention is over", layout.checkout(repo, commit))
            else:
                is_all = False
        except OSError as error:
            is_all = False
            log.warning("Unable to remove '%s' yet: %s", layout.checkout(repo, commit), error)
    return gone, is_all


def _directories_with_left_overs(layout: Layout) -> list[Path]:
    return [
        layout.environmentsdir,
        *([layout.versions] if layout.versions.is_dir() else []),
        layout.cachedir,
        layout.definitions,
        *([layout.holds] if layout.holds.is_dir() else []),
        *layout.partitions(layout.baredir),
        *layout.partitions(layout.clonedir),
        *(layout.clone(repo) for repo in layout.repositories_in(layout.clonedir)),
    ]


def spared_directories(layout: Layout) -> set[Path]:
    """Where jens-transfer may be at work, or begin at any time: staging names there may be in use. Raises OSError.

    Runs alone leave something to it, under the run lock, which the caller holds.
    """
    left = transfers.left(layout)
    return {path for repo in left for path in (layout.baredir / repo.partition, layout.clone(repo))}


def is_over(since: float, now: float, retention: float) -> bool:
    """Whether something may go. A time in the future counts as now."""
    return max(0.0, now - since) >= retention


def load(layout: Layout) -> Unreferenced:
    """Load since when checkouts are unneeded. Nothing when that is lost: then each retention begins anew.

    Raises OSError when nobody can look now.
    """
    times, noted = _load(layout)
    now = clock.now()
    return {key: clock.translate(since, noted or now, now) for key, since in times.items()}


def _load(layout: Layout) -> tuple[Unreferenced, Moment | None]:
    """The times by the clock as it was when they were noted, and when that was, if it is known."""
    try:
        content = statefile.load(layout, UNREFERENCED)
        noted = content.pop(_NOTED, None)
        times = {_parse_key(key): float(since) for key, since in content.items()}
        return {key: since for key, since in times.items() if math.isfinite(since)}, noted and _parse_moment(noted)
    except (StateError, AttributeError, TypeError, ValueError):
        return {}, None


def _parse_moment(content: Any) -> Moment:
    wall, up, boot = content
    return Moment(float(wall), float(up), str(boot))


def _parse_key(key: str) -> tuple[RepoId, str]:
    repo, _, commit = key.rpartition("/")
    if not is_checkout_name(f".{commit}"):
        raise ValueError(f"unexpected {key!r}")
    return parse_repository(repo), commit


def next_expiry(layout: Layout, retention: float) -> float:
    """When (seconds since the epoch) the next checkout's retention is over; infinity when none waits."""
    return min(load(layout).values(), default=math.inf) + retention


def save(layout: Layout, unreferenced: Unreferenced) -> None:
    """Save since when checkouts are unneeded. Raises OSError."""
    times, noted = _load(layout)
    now = clock.now()
    if noted and times == unreferenced and noted.up <= now.up:
        return
    content: dict[str, Any] = {f"{repo}/{commit}": since for (repo, commit), since in unreferenced.items()}
    statefile.save(layout, UNREFERENCED, {**content, _NOTED: list(now)} if content else content)


def save_what_fits(layout: Layout, unreferenced: Unreferenced) -> None:
    """``save``; on a full disk only those that have waited longest, as many as there is room for. Raises OSError.

    Without any, no retention would ever be over, and the disk would stay full.
    """
    oldest = sorted(unreferenced.items(), key=lambda item: item[1])
    while True:
        try:
            save(layout, dict(oldest))
            return
        except OSError as error:
            if not oldest or not files.is_full(error):
                raise
        oldest = oldest[: len(oldest) // 2]


def reclaim(layout: Layout, needed: Mapping[RepoId, Set[str]]) -> None:
    """Forget that these commits were unneeded, before the first link points at one of them again.

    Otherwise, if this run were killed, the next one could delete what is in use. All are forgotten when they cannot be
    saved. Raises OSError when not even that is possible, or when nobody can look now: then nothing is forgotten.
    """
    unreferenced = _without(load(layout), needed)
    try:
        save_what_fits(layout, unreferenced)
    except OSError:
        if not statefile.drop(layout, UNREFERENCED):
            raise


def _without(unreferenced: Unreferenced, needed: Mapping[RepoId, Set[str]]) -> Unreferenced:
    return {
        (repo, commit): since
        for (repo, commit), since in unreferenced.items()
        if commit not in needed.get(repo, frozenset())
    }


def plan_retention(
    found: Mapping[RepoId, Set[str]],
    needed: Mapping[RepoId, Set[str]],
    before: Unreferenced,
    now: float,
    retention: float,
) -> tuple[Unreferenced, list[tuple[RepoId, str]]]:
    """Which unneeded checkouts wait, since when, and which ones go."""
    waiting: dict[tuple[RepoId, str], float] = {}
    over = []
    for repo, commits in found.items():
        for commit in sorted(commits - needed.get(repo, frozenset())):
            since = min(before.get((repo, commit), now), now)
            if is_over(since, now, retention):
                over.append((repo, commit))
            else:
                waiting[repo, commit] = since
    return waiting, over


def retire_checkouts(
    layout: Layout,
    needed: Mapping[RepoId, Set[str]],
    spared: Set[RepoId],
    retention: float,
    only: Collection[RepoId] | None = None,
) -> list[Event]:
    """Begin the retention of unneeded checkouts, and remove those whose retention is over. Raises OSError.

    Removes first: that makes room to remember the others.

    The needs of ``spared`` repositories are unknown, so they are left alone. With ``only``, all others are too.
    """
    repos = layout.repositories_in(layout.clonedir) if only is None else only
    events = []
    found = {}
    for repo in set(repos) - spared:
        try:
            found[repo] = _checkouts(layout, repo) - _linked(layout, repo)
            _drop_records(layout, repo)
        except OSError as error:
            events.append(
                Event(logging.WARNING, f"Unable to look for old checkouts in '{layout.clone(repo)}': {error}")
            )
    before = load(layout)
    others = {} if only is None else {key: since for key, since in before.items() if key[0] not in only}
    waiting, over = plan_retention(found, needed, before, clock.now().wall, retention)
    for repo, commit in over:
        try:
            remove_checkout(layout, repo, commit)
            events.append(Event(logging.INFO, f"Removed '{layout.checkout(repo, commit)}', its retention is over"))
        except OSError as error:
            events.append(Event(logging.ERROR, f"Unable to remove '{layout.checkout(repo, commit)}': {error}"))
    try:
        save_what_fits(layout, {**others, **waiting})
    except OSError as error:
        events.append(Event(logging.ERROR, f"Unable to remember since when checkouts are unused: {error}"))
    for repo in set(repos) - set(needed):
        remove_if_empty(layout, repo)
    return events


def unlinked_checkouts(layout: Layout, repo: RepoId) -> Set[str]:
    """The commits with a checkout that no branch link points to. Raises OSError."""
    return _checkouts(layout, repo) - _linked(layout, repo)


def _checkouts(layout: Layout, repo: RepoId) -> Set[str]:
    return {name[1:] for name in os.listdir(layout.clone(repo)) if is_checkout_name(name)}


def _drop_records(layout: Layout, repo: RepoId) -> None:
    """Remove worktree records without a checkout. A killed run may have begun them."""
    for commit in worktrees.recorded_commits(layout.bare(repo)):
        if not files.is_there(layout.checkout(repo, commit)):
            files.remove_tree(worktrees.record_path(layout.bare(repo), commit))


def _linked(layout: Layout, repo: RepoId) -> Set[str]:
    """The commits that branch links point to. Raises OSError when nobody can look now."""
    try:
        with os.scandir(layout.clone(repo)) as entries:
            return {os.readlink(entry.path)[1:] for entry in entries if entry.is_symlink()}
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def remove_checkout(layout: Layout, repo: RepoId, commit: str) -> bool:
    """Remove a checkout and its record in the mirror. Returns whether both could be deleted. Raises OSError."""
    # The record goes first. A checkout without one gets it again; a record without a checkout stays until a later run.
    files.remove_tree(worktrees.record_path(layout.bare(repo), commit))
    is_gone = files.discard(layout.checkout(repo, commit), is_unseen=True)
    return is_gone and not os.path.lexists(worktrees.record_path(layout.bare(repo), commit))


def remove_if_empty(layout: Layout, repo: RepoId) -> None:
    """Remove the directory of a repository that is gone, if it is empty."""
    try:
        os.rmdir(layout.clone(repo))
    except OSError:
        log.debug("'%s' is not empty yet", layout.clone(repo))
