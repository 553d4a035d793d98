"""What jens-show knows of an instance: from disk and history alone. It asks no remote, and takes no lock."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar

from jens import lastrun
from jens.config import Config
from jens.environments import versions
from jens.environments.previous import as_they_are
from jens.errors import DirectoryError, GitError, HistoryError, LibraryError, MetadataError, QueueError
from jens.events import LIBRARY_ENTRY, NOT_FETCHED, REFUSED
from jens.git import authors, contents, wrapper
from jens.git.authors import Described
from jens.git.workers import workers
from jens.history.store import Reader
from jens.lastrun import LastRun
from jens.layout import Layout, entry_ref, ref_entry
from jens.links import LinkReader, all_links_of
from jens.messaging.queue import Hints, Queue
from jens.metadata import clones, usages
from jens.metadata import reader as metadata_reader
from jens.metadata.definition import SUFFIX
from jens.metadata.parsed import Parsed
from jens.metadata.yamlnodes import LARGEST
from jens.model import Commit, Declared, Definition, Library, OpenFault, Ref, RepoId, Usages
from jens.names import parse_repository
from jens.repositories import disk, transfers
from jens.system import files
from jens.tools import history

Value = TypeVar("Value")

#: The version of the JSON documents. It goes up when a field changes its meaning, or is removed.
VERSION = 1

#: Kinds of faults that tell why a repository is not as new as its remote.
_NOT_NEW = (NOT_FETCHED, REFUSED, LIBRARY_ENTRY)
#: Exit statuses of runs that came as far as the repositories.
_WORKED = (0, 31, 40, 60)


# The past


class Past:
    """The history, as far as it can be read; ``problem`` says why it cannot be, '' when it can."""

    def __init__(self, config: Config, patience: float | None = None) -> None:
        """``patience``: the seconds that a question may take."""
        self.problem = ""
        self._reader: Reader | None = None
        try:
            self._reader = history.opened(config)
            if patience is not None:
                self._reader.end_after(patience)
        except HistoryError as error:
            self.problem = error.problem

    def __enter__(self) -> Past:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def ask(self, query: Callable[[Reader], Value]) -> Value | None:
        """The answer of the history, None when it cannot be read."""
        if self._reader is not None:
            try:
                return query(self._reader)
            except HistoryError as error:
                self.problem = error.problem
        return None


# Repositories and their remotes


class Contact(NamedTuple):
    """What is known of a repository's remote without asking it; times are in seconds since the epoch.

    ``fault`` says why the repository is not fetched. ``answered``: it gave an answer to a run that began then.
    ``changed``: the mirror last got something. ``hint``: a message says that it was pushed to, and no run has read it.
    ``transfer``: it was left to jens-transfer. ``under_way``: jens-transfer works on it now.
    """

    fault: OpenFault | None = None
    answered: float | None = None
    changed: float | None = None
    hint: float | None = None
    transfer: float | None = None
    under_way: float | None = None

    def encode(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {"answered": when(self.answered), "mirror_changed": when(self.changed), **self.encode_trouble()}

    def encode_trouble(self) -> dict[str, Any]:
        """Why the repository may not be as new as its remote, as JSON types."""
        return {
            "not_fetched": self.fault and {"since": self.fault.since, "text": self.fault.fault.text},
            "hint_waiting_since": when(self.hint),
            "left_to_transfer_since": when(self.transfer),
            "under_transfer_since": when(self.under_way),
        }


def plan_trouble(
    repo: RepoId,
    faults: Iterable[OpenFault],
    hint: float | None = None,
    transfer: float | None = None,
    under_way: float | None = None,
) -> Contact:
    """Tell why a repository may not be as new as its remote."""
    concerned = [opened for opened in faults if opened.fault.repository == str(repo) and not opened.fault.environment]
    fault = next((opened for kind in _NOT_NEW for opened in concerned if opened.fault.kind == kind), None)
    return Contact(fault, hint=hint, transfer=transfer, under_way=under_way)


def plan_answered(trouble: Contact, last_run: LastRun | None, *, is_poll: bool, has_mirror: bool) -> float | None:
    """When a remote last gave an answer, as far as that is known: a run in mode POLL asks each of them.

    What does not answer then is a fault. On demand nothing tells.
    """
    if not is_poll or not has_mirror or last_run is None or last_run.status not in _WORKED:
        return None
    is_asked = trouble.fault is None and trouble.transfer is None and trouble.under_way is None
    return last_run.begin if is_asked else None


class Instance:
    """An instance, each part of it read when it is first asked for."""

    #: So many of the newest moves of a repository's branches are looked at; None: all.
    newest: int | None = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self.layout = Layout.of(config)
        self.is_poll = config.main.mode == "POLL"
        self.prefixes = config.main.prefixes

    @functools.cached_property
    def last_run(self) -> LastRun | None:
        """How the last run went; None when nothing tells."""
        return lastrun.load(self.layout)

    @property
    def last_began(self) -> float | None:
        """When the last run began, in seconds since the epoch; None when nothing tells."""
        return None if self.last_run is None else self.last_run.begin

    @functools.cached_property
    def faults(self) -> tuple[OpenFault, ...]:
        """The open faults, as far as they can be read."""
        try:
            return lastrun.load_faults(self.layout)
        except OSError:
            return ()

    @functools.cached_property
    def hints(self) -> Hints:
        """The messages that wait; none in mode POLL, which does not read them, or when they cannot be read."""
        if self.is_poll:
            return Hints()
        try:
            return Queue(self.config.messaging.queuedir).look()
        except QueueError:
            return Hints()

    @functools.cached_property
    def _left(self) -> tuple[Mapping[RepoId, float], Mapping[RepoId, float]]:
        """The repositories that were left to jens-transfer, and those that it works on, as far as can be seen."""
        found = []
        for look in (transfers.asked_for, transfers.under_way):
            try:
                found.append(look(self.layout))
            except OSError:
                found.append({})
        return found[0], found[1]

    @property
    def left_to_transfer(self) -> frozenset[RepoId]:
        """The repositories that were left to jens-transfer, those that it works on included."""
        asked, under_way = self._left
        return frozenset([*asked, *under_way])

    @functools.cached_property
    def _faults_of(self) -> Mapping[str, list[OpenFault]]:
        """The open faults by repository: there may be many of both."""
        found: dict[str, list[OpenFault]] = {}
        for opened in self.faults:
            found.setdefault(opened.fault.repository, []).append(opened)
        return found

    def trouble(self, repo: RepoId) -> Contact:
        """Why a repository may not be as new as its remote."""
        asked, under_way = self._left
        return plan_trouble(
            repo, self._faults_of.get(str(repo), ()), self.hints.times.get(repo), asked.get(repo), under_way.get(repo)
        )

    def contact(self, repo: RepoId) -> Contact:
        """All that is known of a repository's remote."""
        trouble, changed = self.trouble(repo), mirror_changed(self.layout.bare(repo))
        answered = plan_answered(trouble, self.last_run, is_poll=self.is_poll, has_mirror=changed is not None)
        return trouble._replace(answered=answered, changed=changed)

    def suspects(self) -> list[RepoId]:
        """The repositories whose remotes may have what the mirrors lack."""
        named = {opened.fault.repository for opened in self.faults if opened.fault.kind in _NOT_NEW}
        asked, under_way = self._left
        waiting = {str(repo) for repo in (*self.hints.repos, *asked, *under_way)}
        return [repo for repo in map(repository, sorted({*named, *waiting} - {""})) if repo is not None]

    @functools.cached_property
    def library(self) -> Library | None:
        """The library as it was last fetched; None when it cannot be read."""
        try:
            return metadata_reader.read_library(self.config, clones.library_commit(self.config))
        except (DirectoryError, LibraryError, MetadataError):
            return None

    @property
    def urls(self) -> Mapping[RepoId, str] | None:
        """The library's repositories with their URLs; None when it cannot be read."""
        return None if self.library is None else self.library.urls

    @functools.cached_property
    def usages(self) -> Usages:
        """How environments use repositories, as far as the library can be read, or is remembered."""
        return usages.with_remembered(self.library or Library({}), usages.load(self.layout)).usages

    def declared(self, name: str) -> Declared | None:
        """The definition of an environment in the metadata; None when there is none, or they cannot be read."""
        directory, file = self.config.main.environmentsmetadatadir, f"{name}{SUFFIX}"
        try:
            commit = clones.environments_commit(self.config)
            found = contents.read_files(directory, commit, file, suffix=SUFFIX, largest=LARGEST)
        except (GitError, MetadataError, OSError):
            return None
        return Parsed(self.prefixes).read(file, found[file]) if file in found else None

    def described(self, commits: Collection[tuple[RepoId, str]]) -> dict[tuple[RepoId, str], Described]:
        """What commits say of themselves, of those that the mirrors have."""
        return said_of(self.layout, self.config.git.jobs, commits)

    def led(self, look: Callable[..., Value], repo: RepoId, targets: Any) -> Value:
        """Where targets of links in a repository lead, as ``look`` finds it."""
        return look(self, repo, targets)

    @functools.cached_property
    def versioned(self) -> Mapping[str, Definition]:
        """What environments with versions are built from; nothing when nobody can look."""
        try:
            names = [name for name in self.layout.environments() if self.layout.place(name) != name]
            return {each.name: each for each in as_they_are(self.config, self.layout, names)}
        except OSError:
            return {}

    def environments(self) -> list[str]:
        """The environments on disk, sorted. Raises DirectoryError."""
        try:
            return sorted(self.layout.environments())
        except OSError as error:
            path = self.layout.environmentsdir
            raise DirectoryError("environmentsdir", path, f"cannot be read: {error.strerror}") from error


def mirror_changed(bare: Path) -> float | None:
    """When a mirror last got something; None when there is none, or it cannot be read.

    A fetch leaves branches in files of their own. Where there are none, the time is that of the clone, or of a later
    packing.
    """
    times = [0.0]
    with contextlib.suppress(OSError):
        for directory, _, names in os.walk(bare / "refs" / "heads"):
            times += [os.lstat(f"{directory}/{name}").st_mtime for name in names]
    with contextlib.suppress(OSError):
        times += [os.lstat(bare / "packed-refs").st_mtime] if len(times) == 1 else []
    return max(times) or None


def heads_of(bare: Path) -> Mapping[str, str]:
    """The branches and tags of a mirror by their keys, none when it is missing or cannot be read."""
    try:
        return wrapper.heads(bare)
    except OSError:
        return {}


def repository(text: str) -> RepoId | None:
    """The repository of this name; None when it is no name of one: faults may concern anything."""
    with contextlib.suppress(ValueError):
        return parse_repository(text)
    return None


# What environments show


class Shown(NamedTuple):
    """What an entry of a repository stands for: its ref, the commit whose files it shows (None: there are none).

    ``since`` is the time of the branch link, None for a commit: it never moves.
    """

    ref: Ref
    commit: str | None
    since: float | None


def look_up(layout: Layout, repo: RepoId, entry: str) -> Shown | None:
    """What an entry stands for now; None when Jens makes no such entry. Raises DirectoryError."""
    ref = entry_ref(entry)
    if ref is None:
        return None
    try:
        found = disk.look_up(layout, repo, entry)
    except OSError as error:
        raise DirectoryError("clonedir", layout.clone(repo), f"cannot be read: {error.strerror}") from error
    since = None
    if not isinstance(ref, Commit):
        with contextlib.suppress(OSError):
            since = os.lstat(layout.clone(repo) / entry).st_mtime
    return Shown(ref, found.commit if found.place else None, since)


class Use(NamedTuple):
    """A repository in an environment: its ref, the commit that it shows (None: it dangles), and since when.

    ``since`` is the time of the links, in seconds since the epoch.
    """

    environment: str
    ref: Ref
    commit: str | None
    since: float | None


def since_of(shown: Shown, linked: float) -> float | None:
    """Since when an environment shows what its link, made at this time, leads to; None while it shows nothing."""
    return None if shown.commit is None else max(linked, shown.since or linked)


class Uses(NamedTuple):
    """The environments that have a repository, by name; and those that cannot be read."""

    found: tuple[Use, ...]
    unread: tuple[str, ...]


def uses_of(instance: Instance, repo: RepoId) -> Uses:
    """Look for the environments that have a repository. The link to the code counts. Raises DirectoryError."""
    layout, reader = instance.layout, LinkReader(instance.layout)
    links, known, found, unread = [*all_links_of(layout, repo)], dict[str, "Shown | None"](), [], []
    for name in instance.environments():
        place = layout.place(name)
        for link in links:
            path = layout.environmentsdir / place / link
            try:
                target = reader.target(place, link, os.readlink(path))
                linked = os.lstat(path).st_mtime
            except OSError as error:
                if files.is_gone(error) or error.errno == errno.EINVAL:  # something else is in its place
                    continue
                unread.append(name)
                break
            if target is None or target.repo != repo:
                continue
            if target.entry not in known:
                known[target.entry] = look_up(layout, repo, target.entry)
            shown = known[target.entry]
            if shown is not None and place != name:
                found.append(_use_of_version(instance, name, repo, shown, linked))
                break
            if shown is not None:
                found.append(Use(name, shown.ref, shown.commit, since_of(shown, linked)))
                break
    return Uses(tuple(found), tuple(unread))


def _use_of_version(instance: Instance, name: str, repo: RepoId, shown: Shown, linked: float) -> Use:
    """What the version of an environment has of a repository: the branch that it follows, as its definition tells."""
    definition = instance.versioned.get(name)
    entry = ref_entry(shown.ref, shown.commit)
    ref = versions.followed(instance.layout, definition, {repo: entry}, instance.usages).get(repo, shown.ref)
    branch = look_up(instance.layout, repo, ref_entry(ref, None)) if not isinstance(ref, Commit) else None
    return Use(name, ref, shown.commit, since_of(shown, linked) if branch is None else branch.since)


def is_directory(key: str, path: Path) -> bool:
    """Whether there is a directory that can be read. Raises DirectoryError for one that cannot."""
    try:
        with os.scandir(path):
            return True
    except OSError as error:
        if files.is_gone(error):
            return False
        raise DirectoryError(key, path, f"cannot be read: {error.strerror}") from error


def said_of(layout: Layout, jobs: int, commits: Collection[tuple[RepoId, str]]) -> dict[tuple[RepoId, str], Described]:
    """What commits say of themselves, of those that the mirrors have. Git reads only what is stored as a difference."""
    found = {each: authors.describe_without_git(layout.bare(each[0]), each[1]) for each in {*commits}}
    left = [each for each, said in found.items() if said is None and os.path.isdir(layout.bare(each[0]))]
    if left:
        with workers(jobs) as pool:
            futures = {each: pool.submit(_said, layout.bare(each[0]), each[1]) for each in left}
            found.update({each: future.result() for each, future in futures.items()})
    return {each: said for each, said in found.items() if said is not None}


def _said(bare: Path, commit: str) -> Described | None:
    try:
        return authors.describe(bare, commit)
    except (GitError, OSError):
        return None


# For programs


def when(time: float | None) -> str | None:
    """A time for programs: UTC, ISO 8601; None for none."""
    return None if time is None else datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="seconds")
