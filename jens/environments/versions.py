"""Versions: each state of a versioned environment is a directory of its own, and one link is flipped.

A version is never changed once it has its name. A replaced one stays as long as Puppet may still read it, and so do the
checkouts that it uses.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jens import statefile
from jens.environments import tree
from jens.environments.wanted import Tree
from jens.layout import VERSIONS, Layout, entry_ref, version_name, version_of
from jens.links import RESOURCE_TYPES, LinkReader
from jens.model import PLAIN, SNAPSHOT_COMMON, Commit, Definition, Ref, RepoId, Usages
from jens.names import is_commit_id, parse_repository
from jens.statefile import StateError
from jens.system import clock, files
from jens.system.clock import Moment

log = logging.getLogger(__name__)

#: Where the file has the moment when it was written: the clock may have been set since then.
_NOTED = "noted"

#: Commits by repository.
Commits = Mapping[RepoId, frozenset[str]]


class Replaced(NamedTuple):
    """A version that was replaced, since when (seconds since the epoch), and commits that its successors lack."""

    since: float
    commits: Commits


# One version


def versions_in(layout: Layout) -> dict[str, list[int]]:
    """The numbers of the versions on disk, by environment. Raises OSError."""
    found: dict[str, list[int]] = {}
    try:
        names = os.listdir(layout.versions)
    except FileNotFoundError:
        return found
    for each in filter(None, map(version_of, names)):
        found.setdefault(each[0], []).append(each[1])
    return found


def current(layout: Layout, name: str) -> str | None:
    """The name of the current version of an environment, None when it has no versions."""
    place = layout.place(name)
    return place[len(VERSIONS) + 1 :] if place != name else None


def is_seen_at(layout: Layout, name: str, version: str, seen_at: str) -> bool:
    """Whether the link of an environment has the text that leads to a version below ``seen_at``. Raises OSError."""
    return os.readlink(layout.environment(name)) == f"{seen_at}/{version}"


def next_version(layout: Layout, name: str) -> str:
    """The name of the next version of an environment; no version on disk has its number or a higher one."""
    return version_name(name, max(versions_in(layout).get(name, []), default=0) + 1)


def put(layout: Layout, name: str, version: str, wanted: Tree, seen_at: str) -> None:
    """Make a version whole, flush it, and flip the link of its environment, which leads below ``seen_at``.

    Raises OSError.
    """
    path = layout.versions / version
    files.make_directory(layout.versions)
    staging = files.staging_name(layout.versions)
    try:
        with files.naming(path):
            tree.make(staging, wanted)
            _carry_types(layout.tree(name), staging)
            os.rename(staging, path)
            _flush(layout, path)
        flip(layout, name, version, seen_at)
    except BaseException:
        files.remove_tree(staging)
        files.remove_tree(path)
        raise


def _flush(layout: Layout, path: Path) -> None:
    """Put a version on stable storage. It does not wait for what others write to the file system. Raises OSError."""
    files.flush_tree(path)
    # Before the removal of a replaced version is there, so must be the flip that replaced it.
    files.flush(layout.environmentsdir)
    files.flush(layout.versions)


def flip(layout: Layout, name: str, version: str, seen_at: str) -> None:
    """Make the link of an environment lead to a version. A directory in its place goes. Raises OSError."""
    link = layout.environment(name)
    aside = files.staging_name(link.parent)
    try:
        with files.naming(link):
            os.symlink(f"{seen_at}/{version}", aside)
            before = tree.put(aside, link)
    except BaseException:
        files.remove_tree(aside)
        raise
    if before is not None:
        tree.let_go(link, before, os.lstat(before))


def _carry_types(before: Path, staging: Path) -> None:
    """Copy what Puppet has generated from the types of the version before. Raises OSError."""
    if (before / RESOURCE_TYPES).is_dir():
        with contextlib.suppress(shutil.Error):  # a part of it, which is no worse than none
            shutil.copytree(before / RESOURCE_TYPES, staging / RESOURCE_TYPES, symlinks=True)


def commits_of(layout: Layout, place: str) -> dict[RepoId, frozenset[str]]:
    """The commits that the links of a version lead to, by repository. Raises OSError."""
    return commits_among(layout, place, tree.read(layout.environmentsdir / place).links)


def commits_among(layout: Layout, place: str, links: Mapping[str, str]) -> dict[RepoId, frozenset[str]]:
    """The commits that links of an environment lead to, by repository."""
    reader = LinkReader(layout)
    found: dict[RepoId, set[str]] = {}
    for link, text in links.items():
        target = reader.target(place, link, text)
        if target is not None and isinstance(entry_ref(target.entry), Commit):
            found.setdefault(target.repo, set()).add(target.entry[1:])
    return {repo: frozenset(commits) for repo, commits in found.items()}


def lost(before: Commits, after: Commits) -> dict[RepoId, frozenset[str]]:
    """The commits of a version that its successor lacks."""
    return {repo: commits - after.get(repo, frozenset()) for repo, commits in before.items()}


def followed(
    layout: Layout, definition: Definition | None, entries: Mapping[RepoId, str], usages: Usages
) -> dict[RepoId, Ref]:
    """The refs that a version follows, of repositories whose links lead through these entries.

    A version has the commit of a branch, and not the branch. The definition says which one it is, if that leads there.
    ``usages`` are those of the library, as far as it is known.
    """
    refs = {}
    for repo, entry in entries.items():
        usage, common = usages.get(repo, PLAIN), SNAPSHOT_COMMON
        asked = definition.refs_of(repo, usage, common) if definition else ()
        leading = (each for each in asked if not isinstance(each, Commit) and _leads_to(layout.ref(repo, each), entry))
        ref = next(leading, entry_ref(entry))
        if ref is not None:
            refs[repo] = ref
    return refs


def _leads_to(link: Path, entry: str) -> bool:
    try:
        return os.readlink(link) == entry
    except OSError:
        return False


# Replaced versions


def keep(
    layout: Layout, replaced: Mapping[str, Commits], unfinished: Collection[str], only: Collection[RepoId] | None = None
) -> Commits:
    """Remember which versions were replaced, and return the commits that they use.

    ``replaced`` has what was replaced just now; of others that nobody remembers, the links tell. With ``only`` some
    repositories, others do not matter, and current versions have the commits that environments need; but for those of
    ``unfinished`` environments. What cannot be remembered, the next run finds out again. Raises OSError when nobody can
    look.
    """
    there = versions_in(layout)
    now_used = {current(layout, name) for name in there}
    over = {version_name(name, number) for name, numbers in there.items() for number in numbers} - now_used
    before, now = load(layout), clock.now().wall
    after = {
        version: before[version] if version in before else Replaced(now, _commits(layout, version, replaced))
        for version in sorted(over)
    }
    try:
        save(layout, after)
    except OSError as error:
        log.error("Unable to remember which versions were replaced: %s", error)
    names = unfinished if only is not None else there
    places = [place for name, place in zip(names, map(layout.place, names)) if place != name]
    used = [each.commits for each in after.values()] + [commits_of(layout, place) for place in places]
    return union(used, only)


def _commits(layout: Layout, version: str, replaced: Mapping[str, Commits]) -> Commits:
    known = replaced.get(version)
    return commits_of(layout, f"{VERSIONS}/{version}") if known is None else known


def union(some: Iterable[Commits], only: Collection[RepoId] | None = None) -> dict[RepoId, frozenset[str]]:
    """All commits of several versions."""
    found: dict[RepoId, frozenset[str]] = {}
    for commits in some:
        for repo, each in commits.items():
            if each and (only is None or repo in only):
                found[repo] = found.get(repo, frozenset()) | each
    return found


def clear(layout: Layout, retention: float, flushed: float | None = None) -> bool:
    """Remove replaced versions that Puppet can no longer be reading. Returns whether all went that should.

    ``flushed``: since when (seconds since the epoch) each server has read anew what had changed until then; None when
    nobody tells servers.
    """
    is_clean = True
    names = {version_name(name, number): name for name, numbers in versions_in(layout).items() for number in numbers}
    now_used = {current(layout, name) for name in names.values()}
    now = clock.now().wall
    for version, each in load(layout).items():
        name = names.get(version)
        if name is None or version in now_used or not plan_over(each.since, now, retention, flushed):
            continue
        try:
            is_clean = files.discard(layout.versions / version) and is_clean
            log.debug("Removed '%s'", layout.versions / version)
        except OSError as error:
            is_clean = False
            log.warning("Unable to remove '%s' yet: %s", layout.versions / version, error)
    with contextlib.suppress(OSError):  # there are others, or soon will be
        os.rmdir(layout.versions)
    return is_clean


def plan_over(since: float, now: float, retention: float, flushed: float | None) -> bool:
    """Whether a version may go that was replaced ``since``, when all servers were ``flushed`` last (None: no need).

    A time in the future counts as now.
    """
    return max(0.0, now - since) >= retention and (flushed is None or flushed > min(since, now))


# The file


def load(layout: Layout) -> dict[str, Replaced]:
    """Load which versions were replaced; nothing when that is lost: then each retention begins anew. Raises OSError."""
    try:
        content = statefile.load(layout, statefile.VERSIONS)
        noted = _moment(content.pop(_NOTED))
        now = clock.now()
        found = {str(version): _decode(entry) for version, entry in content.items()}
        return {
            version: each._replace(since=clock.translate(each.since, noted, now)) for version, each in found.items()
        }
    except (StateError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _moment(content: Any) -> Moment:
    wall, up, boot = content
    return Moment(float(wall), float(up), str(boot))


def _decode(entry: Any) -> Replaced:
    since, listed = entry
    if not math.isfinite(since):
        raise ValueError(f"unexpected {since!r}")
    commits = {parse_repository(repo): frozenset(filter(is_commit_id, each)) for repo, each in listed.items()}
    return Replaced(float(since), commits)


def save(layout: Layout, replaced: Mapping[str, Replaced]) -> None:
    """Save which versions were replaced. Raises OSError."""
    before = load(layout)
    if before.keys() == replaced.keys():
        return
    content = {
        version: [each.since, {str(repo): sorted(commits) for repo, commits in each.commits.items() if commits}]
        for version, each in replaced.items()
    }
    statefile.save(layout, statefile.VERSIONS, {**content, _NOTED: list(clock.now())})
