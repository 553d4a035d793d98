"""Where pages come from: the disk and the history of an instance, read anew for each page, within bounds."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Callable, TypeVar

from jens import lastrun
from jens.config import Config
from jens.environments.previous import remembered_definition
from jens.errors import MetadataError, QueueError
from jens.git.authors import Described
from jens.history.queries import Change, Entry
from jens.layout import Layout
from jens.messaging.queue import Hints, Queue
from jens.metadata import clones, reader
from jens.metadata.parsed import Parsed
from jens.model import Declared, Definition, OpenFault, RepoId
from jens.names import is_environment_name
from jens.statefile import DEFINITIONS, HISTORY, INVENTORY, LAST_RUN, state_path
from jens.status.memory import Memory
from jens.status.words import Redaction
from jens.tools import history, show, stats
from jens.tools.show import Instance, Past
from jens.tools.stats import Known

Value = TypeVar("Value")

#: The version of the JSON documents. It goes up when a field changes its meaning, or is removed.
VERSION = 1

#: Commits never change, so what they say of themselves is remembered: of so many of them.
_MOST_COMMITS = 20_000
#: Where so many links lead is remembered for a while.
_MOST_LED = 20_000
#: Seconds that a question to the history may take.
PATIENCE = 1.0
#: Seconds for which the messages that wait are remembered: reading thousands of them takes long.
_HINTS_LAST = 5.0
#: For so many seconds at most counts what was made from files that have not changed since.
_LASTS = 60.0


class Sources:
    """What pages are made from. ``instance`` and ``past`` are for one page; the rest is remembered."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.layout = Layout.of(config)
        self.redaction = Redaction(config)
        self._commits = Memory[Described](float("inf"), _MOST_COMMITS)
        self._hints = Memory[Hints](_HINTS_LAST, 1)
        self._kept = Memory[Any](_LASTS, 64)
        self.led = Memory[Any](_LASTS, _MOST_LED)

    # One look at the instance

    def instance(self) -> Instance:
        """The instance as it is now; each part is read when it is first asked for."""
        return _Instance(self)

    @contextmanager
    def past(self) -> Iterator[Past]:
        """The history, as far as it can be read. No question to it takes long."""
        with Past(self.config, PATIENCE) as past:
            yield past

    # Remembered

    def described(self, commits: Collection[tuple[RepoId, str]]) -> dict[tuple[RepoId, str], Described]:
        """What commits say of themselves, of those that the mirrors have."""
        found = {each: said for each in commits if (said := self._commits.look(each)) is not None}
        left = [each for each in commits if each not in found]
        more = show.said_of(self.layout, self.config.git.jobs, left) if left else {}
        for each, said in more.items():
            self._commits.put(each, said)
        return {**found, **more}

    def hints(self) -> Hints:
        """The messages that wait. Raises QueueError."""
        return self._hints.get(0, Queue(self.config.messaging.queuedir).look)

    def known(self) -> Known:
        """The inventory. Raises DirectoryError."""
        return self.kept("inventory", lambda: stats.known(self.layout), self.stamp(INVENTORY))

    def definitions(self) -> Mapping[str, Definition | None]:
        """The remembered definitions by environment; None for one that is lost."""
        stamp = (self.stamp(DEFINITIONS), _stamp(self.layout.definitions))
        return self.kept("definitions", self._definitions, stamp)

    def _definitions(self) -> Mapping[str, Definition | None]:
        found: dict[str, Definition | None] = {}
        prefixes = self.config.main.prefixes
        with suppress(OSError):
            parsed = Parsed.load(self.layout, prefixes)
            for name in filter(is_environment_name, os.listdir(self.layout.definitions)):
                found[name] = None
                with suppress(OSError):
                    found[name] = remembered_definition(self.layout, name, prefixes, None, parsed)
        return found

    def kept(self, key: Hashable, make: Callable[[], Value], stamp: Hashable) -> Value:
        """What was made from files whose stamp is the same, for a minute at most."""
        found: Value = self._kept.get(key, make, stamp)
        return found

    def stamp(self, *state: Any) -> Hashable:
        """What changes when one of these files of state does."""
        return tuple(_stamp(state_path(self.layout, file)) for file in state)

    @property
    def recorded(self) -> Hashable:
        """What changes when a run records something."""
        return self.stamp(HISTORY, LAST_RUN)

    # In documents

    def fault(self, opened: OpenFault) -> dict[str, Any]:
        """An open fault as JSON types, without paths of this host."""
        found = lastrun.encode_fault(opened)
        return {**found, "text": self.redaction.text(str(found["text"]))}

    def entry(self, entry: Entry) -> dict[str, Any]:
        """An entry of the history as JSON types: that of jens-history, and more."""
        found = history.encode_entry(entry, self.config)
        if isinstance(entry, Change):
            return {**found, "lost": entry.lost}
        return {**found, "commit": entry.commit, "author": entry.author}

    def head(self, past: Past | None = None) -> dict[str, Any]:
        """What each document begins with."""
        found = {"version": VERSION, "now": show.when(time.time())}
        if past is not None:
            found["history_problem"] = self.problem(past)
        return found

    def problem(self, past: Past) -> str | None:
        """Why the history cannot be read, None when it can."""
        if past.problem == "interrupted":
            return "this question takes too long, ask for less"
        return self.redaction.text(past.problem) or None


class _Instance(Instance):
    """An instance that remembers what cannot change, and for a moment what takes long to read."""

    newest = 1000

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources.config)
        self._sources = sources
        self._stamps: dict[RepoId, Hashable] = {}

    def described(self, commits: Collection[tuple[RepoId, str]]) -> dict[tuple[RepoId, str], Described]:
        """What commits say of themselves, of those that the mirrors have."""
        return self._sources.described(commits)

    def declared(self, name: str) -> Declared | None:
        """The definition of an environment in the metadata; None when there is none, or they cannot be read."""
        try:
            commit = clones.environments_commit(self.config)
            found = self._sources.kept("declared", lambda: reader.read_definitions(self.config, commit), commit)
        except MetadataError:
            return None
        return found.get(name)

    def led(self, look: Callable[..., Value], repo: RepoId, targets: Any) -> Value:
        """Where targets of links in a repository lead: to the same as long as nobody has touched its checkouts."""
        stamp = self._stamps.get(repo)
        if stamp is None:
            stamp = self._stamps[repo] = _stamp(f"{self.layout.clonedir}/{repo.partition}/{repo.name}")
        found: Value = self._sources.led.get((repo, targets), lambda: look(self, repo, targets), stamp)
        return found

    @functools.cached_property
    def hints(self) -> Hints:
        """The messages that wait; none in mode POLL, which does not read them, or when they cannot be read."""
        if self.is_poll:
            return Hints()
        try:
            return self._sources.hints()
        except QueueError:
            return Hints()


def _stamp(path: os.PathLike[str] | str) -> Hashable:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_ctime_ns
