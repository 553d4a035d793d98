"""Collects garbage: removes unneeded checkouts, worktree records and mirrors, and has Git pack the other mirrors."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path

from jens import preflight
from jens.config import Config
from jens.environments import hold, tree
from jens.errors import DirectoryError, GitError, GitTimeoutError, LibraryError, MetadataError
from jens.git import damage, lock, packing, worktrees, wrapper
from jens.layout import VERSIONS, Layout, is_checkout_name
from jens.links import LinkReader
from jens.locking import run_lock
from jens.metadata import clones as metadata_clones
from jens.metadata import reader as metadata_reader
from jens.model import Inventory, Library, RepoId
from jens.repositories import inventory, legacy, publish, repair, retention, transfers
from jens.repositories.disk import scan
from jens.repositories.model import OnDisk
from jens.repositories.refs import entries_to_remove
from jens.statefile import StateError
from jens.system import clock, files

#: How often to try the lock, and the seconds between two tries.
ATTEMPTS, PAUSE = 10, 10
#: The run lock stays free as long as it was held, at most so many seconds, for jens-update tries it only once.
LONGEST_REST = 10.0
#: Seconds before each new try to pack mirrors that somebody has needed meanwhile.
PAUSES: Sequence[float] = (0.0, 30.0, 60.0)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    """What to do: pack the mirrors, remove what is not needed.

    ``aggressive``: pack better, but much slower. ``only_new``: pack only what is new, which is soon done.
    """

    bares: bool
    clones: bool
    aggressive: bool = False
    only_new: bool = False


@dataclass(frozen=True)
class Evidence:
    """The sources that tell which commits are needed; None for a source that cannot be read.

    ``used`` has every repository that environments link to. Its commits are those that they link to without a branch.
    """

    inventory: Inventory | None
    used: Mapping[RepoId, Set[str]] | None


@dataclass(frozen=True)
class Result:
    """The counts of what was done, for one or several repositories; sizes in bytes, of packed mirrors only.

    ``needed`` are the repositories whose packing was ended, as somebody needed them.
    """

    checkouts: int = 0
    records: int = 0
    bares: int = 0
    packed: int = 0
    before: int = 0
    after: int = 0
    failures: tuple[str, ...] = ()
    needed: tuple[RepoId, ...] = ()

    def __add__(self, other: Result) -> Result:
        return Result(*(getattr(self, key.name) + getattr(other, key.name) for key in fields(self)))


def needed_commits(evidence: Evidence, repo: RepoId) -> set[str]:
    """The commits of a repository that are needed, as far as the evidence tells."""
    expanded = (evidence.inventory or {}).get(repo, {}).values()
    return {*expanded, *(evidence.used or {}).get(repo, ())}


def may_be_left_over(evidence: Evidence, repo: RepoId) -> bool:
    """Whether neither the inventory nor an environment has a repository. Only the library may still have it."""
    if evidence.inventory is None or evidence.used is None:
        return False
    return repo not in evidence.inventory and repo not in evidence.used


def is_wanted(repo: RepoId, library: Library | None) -> bool:
    """Whether the library has a repository, or may have it."""
    return library is None or repo in library.urls or repo in library.unusable


def records_to_drop(recorded: Iterable[str], existing: Collection[str], needed: Collection[str]) -> list[str]:
    """The records without a checkout, except needed ones: the next run lays those checkouts out again."""
    return sorted(set(recorded) - set(existing) - set(needed))


def collect(config: Config, orders: Orders) -> Result:
    """Do it, under the run lock for one repository at a time, and pack without the run lock.

    Raises DirectoryError, LockHeldError, LockFailedError.
    """
    layout = Layout.of(config)
    with run_lock(config, ATTEMPTS, PAUSE):
        preflight.make_directories(config)
        used, total = _begin(layout)
        repos = sorted({*layout.repositories_in(layout.baredir), *layout.repositories_in(layout.clonedir)})
    for repo in repos:
        total += _take_care_of(config, orders, used, repo)
    return total + _try_again(config, orders, used, total.needed)


def _try_again(
    config: Config, orders: Orders, used: Mapping[RepoId, Set[str]] | None, repos: Sequence[RepoId]
) -> Result:
    """Pack what is new in mirrors that somebody has needed: where somebody pushes all the time, that is soon enough."""
    total, orders = Result(), replace(orders, clones=False, only_new=True)
    for pause in PAUSES if repos else ():
        time.sleep(pause)
        tried = sum((_take_care_of(config, orders, used, repo) for repo in repos), Result())
        total, repos = total + replace(tried, needed=()), tried.needed
        if not repos:
            break
    for repo in repos:
        log.warning("The mirror of %s is not packed this time: somebody needed it each time", repo)
    return total


def _take_care_of(config: Config, orders: Orders, used: Mapping[RepoId, Set[str]] | None, repo: RepoId) -> Result:
    """Tend one repository, pack its mirror when others may run again, and leave them time to do so.

    Packing begins under the run lock, with the lock of the repository. So whoever has the run lock can be sure that no
    packing begins, and that none is under way once it has the lock of the repository.
    """
    with contextlib.ExitStack() as stack:
        with run_lock(config, ATTEMPTS, PAUSE):
            begin = time.monotonic()
            result, held = tend(config, orders, used, repo, stack)
            seconds = time.monotonic() - begin
        free = time.monotonic()
        if held is not None:
            result += _pack(config, orders, repo, held)
    time.sleep(max(min(seconds, LONGEST_REST) - (time.monotonic() - free), 0.0))
    return result


def _begin(layout: Layout) -> tuple[Mapping[RepoId, Set[str]] | None, Result]:
    """Remove left-overs outside repositories, and find out what environments use."""
    shared = [layout.environmentsdir, layout.cachedir, layout.definitions]
    shared += [layout.holds] if layout.holds.is_dir() else []
    spared = retention.spared_directories(layout)
    for directory in (*shared, *layout.partitions(layout.baredir), *layout.partitions(layout.clonedir)):
        try:
            _sweep(directory, only_trash=directory in spared)
        except OSError as error:
            log.warning("Unable to look for left-overs in '%s': %s", directory, error)
    if _known(layout) is None:
        log.warning("The inventory cannot be used, so nothing that may be in it is removed; jens-update makes it anew")
    try:
        return find_used(layout), Result()
    except OSError as error:
        return None, _failure(f"Unable to see what environments use, so nothing of that kind is removed: {error}")


def _sweep(directory: Path, *, only_trash: bool = False) -> None:
    for problem in files.sweep(directory, only_trash=only_trash):
        log.warning("Unable to remove '%s' yet: %s", problem.filename, problem.strerror)


def _failure(text: str) -> Result:
    log.error("%s", text)
    return Result(failures=(text,))


def find_used(layout: Layout) -> dict[RepoId, Set[str]]:
    """What environments link to and holds keep, as ``Evidence.used``, whoever made the environments. Raises OSError.

    Environments may change later, while the lock is free. Whatever they then use is in the inventory before.
    """
    found = hold.commits(hold.load_all(layout).there.values())
    reader = LinkReader(layout)
    versions = [f"{VERSIONS}/{name}" for name in os.listdir(layout.versions)] if layout.versions.is_dir() else []
    for place in (*layout.environments(), *versions):
        for link, text in tree.read(layout.environmentsdir / place).links.items():
            target = reader.target(place, link, text)
            if target is not None:
                commits = found.setdefault(target.repo, set())
                commits |= {target.entry[1:]} if is_checkout_name(target.entry) else set()
    return {**found}


def tend(
    config: Config,
    orders: Orders,
    used: Mapping[RepoId, Set[str]] | None,
    repo: RepoId,
    stack: contextlib.ExitStack,
) -> tuple[Result, int | None]:
    """Clean up one repository, under the run lock. Its errors become failures in the result.

    Returns the descriptor of the repository's lock, which ``stack`` releases, if its mirror is to be packed.
    """
    layout = Layout.of(config)
    evidence = Evidence(_known(layout), used)
    result = Result()
    held = None
    try:
        if repo in transfers.left(layout):
            log.info("%s is left to jens-transfer, and tidied the next time", repo)
            return result, None
        if orders.clones:
            result += _clear(config, layout, evidence, repo)
        if orders.bares and _is_directory(layout.bare(repo)) and _can_be_packed(layout, evidence, repo):
            held = stack.enter_context(lock.repository_lock(layout.bare(repo), lock.PACKING))
    except (GitError, OSError) as error:
        result += _failure(f"Unable to tidy {repo}: {error}")
    return result, held


def _known(layout: Layout) -> Inventory | None:
    """The saved inventory, None when it cannot be used. One made from the disk would count left-overs as needed."""
    try:
        return inventory.load(layout)
    except (OSError, StateError) as error:
        log.debug("%s", error)
        return None


# Removing what is not needed


def _clear(config: Config, layout: Layout, evidence: Evidence, repo: RepoId) -> Result:
    is_laid_out = _is_directory(layout.clone(repo))
    if is_laid_out:
        _sweep(layout.clone(repo))
    if evidence.inventory is None or evidence.used is None:
        return Result()
    result = Result()
    if may_be_left_over(evidence, repo) and not is_wanted(repo, _library(config, repo)):
        result += _remove_repository(layout, repo)
    if is_laid_out:
        result += _remove_checkouts(layout, repo, needed_commits(evidence, repo), config.main.retention)
        result += _remove_records(layout, repo, needed_commits(evidence, repo))
        if repo not in evidence.inventory:
            retention.remove_if_empty(layout, repo)
    return result


def _is_directory(path: Path) -> bool:
    """Whether a path is a directory and no link. A link may lead out of the configured directories."""
    return path.is_dir() and not path.is_symlink()


def _library(config: Config, repo: RepoId) -> Library | None:
    """The library of the last run, None when it cannot be used."""
    try:
        return metadata_reader.read_library(config, metadata_clones.library_commit(config))
    except (MetadataError, LibraryError, DirectoryError) as error:
        log.warning("The mirror of %s is kept, as nobody knows whether the library has it: %s", repo, error)
        return None


def _remove_repository(layout: Layout, repo: RepoId) -> Result:
    """Remove the mirror and the branch links. The checkouts are removed after ``retention``."""
    is_mirrored = os.path.lexists(layout.bare(repo))
    disk = scan(layout, repo) if _is_directory(layout.clone(repo)) else OnDisk()
    entries = entries_to_remove(disk, ())
    events = [*publish.remove_entries(layout, repo, entries), *publish.remove_mirror(layout, repo)]
    failures = [event.text for event in events if event.is_failure]
    if failures:
        return _failure(failures[0])
    if is_mirrored:
        log.info("Removed the mirror of %s, which nothing needs", repo)
    return Result(bares=int(is_mirrored))


def _remove_checkouts(layout: Layout, repo: RepoId, needed: Set[str], seconds: float) -> Result:
    found = {repo: retention.unlinked_checkouts(layout, repo)}
    before = retention.load(layout)
    waiting, over = retention.plan_retention(found, {repo: needed}, before, clock.now().wall, seconds)
    others = {key: since for key, since in before.items() if key[0] != repo}
    for _repo, commit in over:  # first: that makes room to remember the others
        retention.remove_checkout(layout, repo, commit)
        log.info("Removed '%s', which nothing needs", layout.checkout(repo, commit))
    retention.save_what_fits(layout, {**others, **waiting})
    return Result(checkouts=len(over))


def _remove_records(layout: Layout, repo: RepoId, needed: Set[str]) -> Result:
    bare = layout.bare(repo)
    recorded = worktrees.recorded_commits(bare)
    existing = [commit for commit in recorded if files.is_there(layout.checkout(repo, commit))]
    lost = records_to_drop(recorded, existing, needed)
    for commit in lost:
        files.remove_tree(worktrees.record_path(bare, commit))
        log.info("Removed the record of '%s', which is not there", layout.checkout(repo, commit))
    return Result(records=len(lost))


# Packing mirrors


def _can_be_packed(layout: Layout, evidence: Evidence, repo: RepoId) -> bool:
    """Restore the records that protect commits. Returns whether Git may pack the mirror. Raises GitError, OSError."""
    bare = layout.bare(repo)
    if not wrapper.is_repository(bare):
        log.warning("The mirror of %s is no repository, jens-update will make it anew", repo)
        return False
    if legacy.has_abbreviations(layout, repo):
        log.warning("The mirror of %s is left alone until jens-update has taken over what Jens 1.x has left", repo)
        return False
    lock.end_packing(bare)  # of another jens-gc: it does not know which commits are needed by now
    unsafe = repair.keep_commits(layout, repo, needed_commits(evidence, repo))
    if unsafe:
        log.warning("The mirror of %s is left alone until jens-update has made %s anew", repo, unsafe)
    return not unsafe


def _pack(config: Config, orders: Orders, repo: RepoId, held: int) -> Result:
    """Have Git pack a mirror, without the run lock; ``held`` is the lock of the repository."""
    limit = config.git.gctimeout
    try:
        return _pack_within(Layout.of(config).bare(repo), orders, repo, held, limit)
    except GitTimeoutError as error:
        return _failure(f"Unable to pack {repo} within {limit} seconds (gctimeout): git {error.verb} was ended")
    except GitError as error:
        if error.status != -signal.SIGTERM:
            return _failure(f"Unable to tidy {repo}: {error}")
        log.info("The mirror of %s is packed later: somebody needed it, and ended git %s", repo, error.verb)
        return Result(needed=(repo,))
    except OSError as error:
        return _failure(f"Unable to tidy {repo}: {error}")


def _pack_within(bare: Path, orders: Orders, repo: RepoId, held: int, limit: float) -> Result:
    before = _size(bare)
    pack = packing.Packing(bare, held, limit)
    try:
        if orders.only_new:
            pack.pack_new()
        else:
            pack.gc(aggressive=orders.aggressive)
    except GitError as error:
        if error.is_cut_short or pack.is_intact():
            raise
        damage.mark_damaged(bare)
        return _failure(f"The mirror of {repo} is damaged, jens-update will make it anew: {error}")
    after = _size(bare)
    log.info("Packed the mirror of %s: %.1fKiB, before %.1fKiB", repo, after / 1024, before / 1024)
    return Result(packed=1, before=before, after=after)


def _size(directory: Path) -> int:
    """The bytes in all files below a directory."""
    total, waiting = 0, [str(directory)]
    while waiting:  # no recursion: the name of a branch may have any depth
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
