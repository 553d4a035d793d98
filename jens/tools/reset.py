"""Removes everything that Jens has made, and nothing that others have put beside it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from jens import lastrun
from jens.config import Config
from jens.environments import previous
from jens.errors import DirectoryError, GitError, HistoryError
from jens.git import lock
from jens.history import record, store
from jens.history.model import RESET, Deployment, EnvironmentChange, Visible
from jens.layout import Layout, version_of
from jens.model import PARTITIONS
from jens.names import is_environment_name, is_repository_name
from jens.repositories import legacy
from jens.repositories.transfers import is_lock
from jens.statefile import HISTORY, STATE_FILES, state_path
from jens.system import files


class Kind(Enum):
    """The kind of a directory entry; links are not followed."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"
    OTHER = "other"


class Verdict(Enum):
    """What a reset does with an entry. ``HOLDS`` is a directory that Jens works in."""

    GOES = "is removed"
    LEFT_OVER = "is removed, of whatever kind it is"
    HOLDS = "stays, and its entries are judged in turn"
    STRANGER = "stays, because Jens cannot have made it"


_TREES = frozenset({Kind.DIRECTORY, Kind.LINK})
_FILES = frozenset({Kind.FILE, Kind.LINK})


@dataclass(frozen=True)
class Place:
    """A directory that Jens works in, and which entries Jens makes there.

    It is the configured directory of ``key``, or inside it. Jens makes entries of certain names and ``kinds``, and the
    directories that it ``holds``. A link in the place of such an entry is removed; its target stays.
    """

    key: str
    directory: Path
    is_ours: Callable[[str], bool]
    kinds: frozenset[Kind]
    holds: frozenset[str] = frozenset()
    has_left_overs: bool = True


def judge(place: Place, name: str, kind: Kind) -> Verdict:
    """Decide what a reset does with an entry of a place."""
    if place.has_left_overs and (name.startswith((files.STAGING, files.TRASH)) or is_lock(name)):
        return Verdict.LEFT_OVER
    if name in place.holds:
        return {Kind.DIRECTORY: Verdict.HOLDS, Kind.LINK: Verdict.LEFT_OVER}.get(kind, Verdict.STRANGER)
    return Verdict.GOES if kind in place.kinds and place.is_ours(name) else Verdict.STRANGER


@dataclass(frozen=True)
class ResetPlan:
    """Everything that a reset removes, and the ``foreign`` entries that stay.

    A path in ``clones`` holds all checkouts of one repository; ``checkouts`` counts them all. ``environments`` has
    their ``versions``, too, so many; ``flipped`` are the links that lead to these.
    """

    environments: tuple[Path, ...]
    clones: tuple[Path, ...]
    bares: tuple[Path, ...]
    definitions: tuple[Path, ...]
    state: tuple[Path, ...]
    left_overs: tuple[Path, ...]
    foreign: tuple[Path, ...]
    checkouts: int
    versions: int = 0
    flipped: frozenset[Path] = frozenset()

    @property
    def links(self) -> list[Path]:
        """The links that are removed. Their targets stay."""
        environments = (path for path in self.environments if path not in self.flipped)
        found = (*environments, *self.clones, *self.bares, *self.definitions, *self.state, *self.left_overs)
        return [path for path in found if path.is_symlink() and not path.name.startswith((files.STAGING, files.TRASH))]


@dataclass(frozen=True)
class Remains:
    """What could not be removed, a sentence each, and what was renamed to trash but could not be deleted yet."""

    failures: tuple[str, ...] = ()
    undeleted: tuple[Path, ...] = ()


def plan(config: Config) -> ResetPlan:
    """Look at everything in the configured directories. Raises DirectoryError for what cannot be read."""
    layout, spared = Layout.of(config), _spared(config)
    environments = _sort([_environments(layout), *_versions(layout)], spared)
    versions = sum(path.parent == layout.versions for path in environments.goes)
    clones = _sort(_trees("clonedir", layout.clonedir, layout), spared)
    bares = _sort(_trees("baredir", layout.baredir, layout), spared)
    state = _sort([_state(layout)], spared)
    definitions = _sort(_definitions(layout), spared)
    everything = (environments, clones, bares, state, definitions)
    return ResetPlan(
        environments=tuple(environments.goes),
        clones=tuple(clones.goes),
        bares=tuple(bares.goes),
        definitions=tuple(definitions.goes),
        state=tuple(state.goes),
        left_overs=tuple(path for found in everything for path in found.left_overs),
        foreign=tuple(path for found in everything for path in found.foreign),
        checkouts=sum(map(_count_checkouts, clones.goes)),
        versions=versions,
        flipped=frozenset(path for path in environments.goes if layout.place(path.name) != path.name),
    )


def _spared(config: Config) -> list[str]:
    """The real paths of all that is configured, and of the holds. A reset keeps these, even inside one another."""
    main = config.main
    directories = [main.baredir, main.clonedir, main.cachedir, main.environmentsdir, main.logdir]
    directories += [
        Layout.of(config).holds,
        main.environmentsmetadatadir,
        main.repositorymetadatadir,
        config.messaging.queuedir,
    ]
    history = state_path(Layout.of(config), HISTORY)
    kept = (history, store.journal(history), store.aside(history), config.filelock.lockdir / config.lock.name)
    return [*(os.path.realpath(path) for path in (*directories, config.path)), *map(_beside, kept)]


def _beside(path: Path) -> str:
    """The real path of a file, or of a link that is in its place."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _environments(layout: Layout) -> Place:
    remembered = set(_names(layout.definitions))
    return Place(
        "environmentsdir",
        layout.environmentsdir,
        lambda name: is_environment_name(name) and (name in remembered or _has_our_links(layout, name)),
        _TREES,
        frozenset({layout.versions.name}),
    )


def _versions(layout: Layout) -> list[Place]:
    path = layout.versions
    return [] if path.is_symlink() else [Place("environmentsdir", path, lambda name: bool(version_of(name)), _TREES)]


def _names(directory: Path) -> list[str]:
    return [name for name, _kind in _entries("cachedir", directory)]


def _has_our_links(layout: Layout, name: str) -> bool:
    """Whether an environment without a remembered definition has links into checkouts, which would dangle."""
    path = layout.environment(name)
    try:
        is_ours = not path.is_symlink() or layout.place(name) != name
        return is_ours and bool(previous.infer_from_disk(layout, name).overrides)
    except OSError:
        return False


def _trees(key: str, top: Path, layout: Layout) -> list[Place]:
    places = [Place(key, top, lambda _name: False, frozenset(), frozenset(PARTITIONS), has_left_overs=False)]
    partitions = [path for path in layout.partitions(top) if not path.is_symlink()]
    return places + [Place(key, path, is_repository_name, _TREES) for path in partitions]


def _state(layout: Layout) -> Place:
    names = {*(file.name for file in STATE_FILES if not file.outlives_resets), legacy.PICKLED_INVENTORY}
    held = frozenset({layout.definitions.name, layout.transfers.name})
    return Place("cachedir", layout.cachedir, names.__contains__, _FILES, held)


def _definitions(layout: Layout) -> list[Place]:
    path = layout.definitions
    return [] if path.is_symlink() else [Place("cachedir", path, is_environment_name, _FILES)]


@dataclass(frozen=True)
class _Sorted:
    goes: list[Path] = field(default_factory=list)
    left_overs: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)


def _sort(places: Iterable[Place], spared: Collection[str]) -> _Sorted:
    found = _Sorted()
    heaps = {
        Verdict.GOES: found.goes,
        Verdict.LEFT_OVER: found.left_overs,
        Verdict.STRANGER: found.foreign,
        Verdict.HOLDS: [],
    }
    for place in places:
        real = os.path.realpath(place.directory)
        for name, kind in _entries(place.key, place.directory):
            if not any(f"{path}/".startswith(f"{real}/{name}/") for path in spared):
                heaps[judge(place, name, kind)].append(place.directory / name)
    return found


def _entries(key: str, directory: Path) -> list[tuple[str, Kind]]:
    """The entries of a directory, none when it does not exist. Raises DirectoryError."""
    try:
        with os.scandir(directory) as entries:
            return sorted(((entry.name, _kind(entry)) for entry in entries), key=lambda found: found[0])
    except OSError as error:
        if files.is_gone(error):
            return []
        raise DirectoryError(key, directory, f"cannot be read: {error.strerror}") from error


def _kind(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    return Kind.FILE if entry.is_file(follow_symlinks=False) else Kind.OTHER


def _count_checkouts(clone: Path) -> int:
    found = [] if clone.is_symlink() else _entries("clonedir", clone)
    return sum(kind is Kind.DIRECTORY and not name.startswith((files.STAGING, files.TRASH)) for name, kind in found)


def carry_out(layout: Layout, planned: ResetPlan) -> Remains:
    """Remove all that is planned. It may be interrupted anywhere, and started again.

    Removes the environments first, and nothing else while one is left. So no link of an environment ever dangles.
    """
    busy = _end_packing(planned.bares)
    if busy:
        return Remains(tuple(busy))
    environments = _remove(planned.environments)
    if environments.failures:
        return environments
    try:
        files.flush_file_system(layout.environmentsdir)  # else a power failure could bring back only the environments
    except OSError as error:
        return Remains((f"Unable to flush '{layout.environmentsdir}': {error.strerror}",), environments.undeleted)
    others = _remove((*planned.clones, *planned.bares, *planned.left_overs, *planned.definitions, *planned.state))
    with contextlib.suppress(OSError):  # somebody may have something there
        os.rmdir(layout.versions)
    unmade = _make_anew(layout)
    return Remains((*others.failures, *unmade), (*environments.undeleted, *others.undeleted))


def _end_packing(bares: Iterable[Path]) -> list[str]:
    """End a jens-gc's packing of mirrors, which does not hold the run lock. Returns the failures."""
    failures = []
    for bare in bares:
        try:
            lock.end_packing(bare)
        except GitError as error:
            failures.append(f"Unable to remove '{bare}': {error}")
    return failures


def _remove(paths: Iterable[Path]) -> Remains:
    failures, undeleted = [], []
    for path in paths:
        try:
            trash = path if path.name.startswith(files.TRASH) else files.move_to_trash(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            failures.append(f"Unable to remove '{path}': {error.strerror}")
            continue
        files.remove_tree(trash)
        if os.path.lexists(trash):
            undeleted.append(trash)
    return Remains(tuple(failures), tuple(undeleted))


def _make_anew(layout: Layout) -> list[str]:
    """Make the directories in whose place there was a link. Jens expects them. Returns the failures."""
    failures = []
    for path in (*layout.partitions(layout.baredir), *layout.partitions(layout.clonedir), layout.definitions):
        if not os.path.lexists(path):
            try:
                files.make_directory(path)
            except OSError as error:
                failures.append(f"Unable to make '{path}': {error.strerror}")
    return failures


def record_reset(config: Config) -> str:
    """Record in the history, if there is one, that everything is gone. Returns why that could not be done, or ''."""
    path = state_path(Layout.of(config), HISTORY)
    if not config.history.days or not os.path.lexists(path):
        return ""
    now = time.time()
    try:
        with store.Store(path) as history:
            known = history.fingerprints()
            gone = Visible(
                gone_repositories=dict.fromkeys(known.repositories, now),
                gone_environments=dict.fromkeys(known.environments, now),
            )
            rows = record.plan(history.believed(gone), gone)
            rows = rows._replace(environments=[EnvironmentChange(None, RESET, now), *rows.environments])
            faults = record.plan_faults(history.open_faults(), ())
            made = Deployment(os.uname().nodename, now, mode=RESET)
            history.write(made, rows, faults, gone, now, lastrun.timestamp(now), config.history.days)
    except HistoryError as error:
        return str(error)
    return ""
