"""Holds: environments that stay as they are, or as they were, whatever is pushed, redeclared or deleted.

A hold is a file in cachedir that says what the environment has. For a run it is one more source of a definition.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jens import statefile
from jens.layout import Layout, entry_ref, ref_entry
from jens.metadata import usages
from jens.model import PARSERS, PLAIN, Commit, Definition, Directories, Ref, RepoId
from jens.names import is_commit_id, is_environment_name, parse_repository
from jens.statefile import StateError, StateFile, state_path
from jens.system import clock, files
from jens.text import one_line

log = logging.getLogger(__name__)

_SUFFIX = ".json"
#: A time that is over, whatever the clock says.
_LONG_AGO = 0.0
#: The version of a hold's file. Later versions of Jens may add to what a repository has.
VERSION = 1


class Kept(NamedTuple):
    """A repository of a held environment: the ref that it had, the commit that it shows, and where that has what.

    Without a commit its links led nowhere: the environment has no links to it while it is held.
    """

    ref: Ref
    commit: str | None
    directories: Directories = PLAIN.directories


class Moment(NamedTuple):
    """A deployment, and when it was visible (seconds since the epoch)."""

    deployment: int
    time: float


class Hold(NamedTuple):
    """What an environment has while it is held: who holds it since when, why, and until when (None: until released).

    Times are in seconds since the epoch. ``then`` is the deployment after which the environment was like this; None: it
    was so when the hold began. The ``moving`` repositories are not held. ``notifications`` and ``parser`` are those of
    its definition.
    """

    environment: str
    repositories: Mapping[RepoId, Kept]
    by: str
    since: float
    reason: str = ""
    until: float | None = None
    moving: tuple[RepoId, ...] = ()
    then: Moment | None = None
    notifications: tuple[str, ...] = ()
    parser: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether its time has come."""
        return self.until is not None and self.until <= clock.now().wall

    @property
    def why(self) -> str:
        """Who holds the environment, and why."""
        return f"by {one_line(self.by)}{f': {one_line(self.reason)}' if self.reason else ''}"

    def definition(self, basis: Definition | None) -> Definition:
        """What the environment is built from. ``basis``, if there is one, would be that without the hold.

        Repositories that are not held have the refs that ``basis`` says, or else those that they had.
        """
        there = {repo: kept for repo, kept in self.repositories.items() if kept.commit is not None}
        overrides: dict[RepoId, Ref] = {repo: Commit(str(kept.commit)) for repo, kept in there.items()}
        for repo in self.moving:
            overrides.pop(repo, None)
            if basis is None and repo in self.repositories:
                overrides[repo] = self.repositories[repo].ref
        told = basis.notifications if basis is not None and basis.notifications else self.notifications
        return Definition(
            *(self.environment, None, overrides, told, self.parser),
            is_held=True,
            directories={repo: there[repo].directories._asdict() for repo in overrides if repo in there},
            follow={} if basis is None else dict.fromkeys(self.moving, basis),
        )

    def encode(self) -> dict[str, Any]:
        """The hold as JSON types. Times are UTC, in ISO 8601."""
        return {
            "by": self.by,
            "since": timestamp(self.since),
            "reason": self.reason,
            "until": None if self.until is None else timestamp(self.until),
            "then": self.then and {"deployment": self.then.deployment, "time": timestamp(self.then.time)},
            "except": [*map(str, self.moving)],
            "notifications": [*self.notifications],
            "parser": self.parser,
            "repositories": {
                str(repo): {"ref": ref_entry(kept.ref, None), "commit": kept.commit, **kept.directories._asdict()}
                for repo, kept in sorted(self.repositories.items())
            },
        }

    def tell(self) -> dict[str, Any]:
        """The same without what the environment has, and whether it has ended and waits for a run."""
        return {"ended": self.is_over, **{key: value for key, value in self.encode().items() if key != "repositories"}}


def decode(environment: str, content: Any) -> Hold:
    """Reverse ``encode``. Raises StateError for content that it cannot have made."""
    try:
        until, then = content["until"], content["then"]
        parser = content["parser"]
        if parser not in (None, *PARSERS):
            raise ValueError(f"unexpected {parser!r}")
        return Hold(
            environment,
            {parse_repository(key): _kept(entry) for key, entry in content["repositories"].items()},
            str(content["by"]),
            _seconds(content["since"]),
            str(content["reason"]),
            None if until is None else _seconds(until),
            tuple(map(parse_repository, content["except"])),
            None if then is None else Moment(int(then["deployment"]), _seconds(then["time"])),
            tuple(map(str, content["notifications"])),
            parser,
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise StateError(f"no hold: {error}") from error


def _kept(entry: Any) -> Kept:
    ref, commit = entry_ref(entry["ref"]), entry["commit"]
    if ref is None or not (commit is None or is_commit_id(commit)):
        raise ValueError(f"unexpected {entry!r}")
    return Kept(ref, commit, usages.decode_directories(entry))


def timestamp(time: float) -> str:
    """A time in seconds since the epoch as UTC, in ISO 8601."""
    return datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="milliseconds")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Holds(NamedTuple):
    """The holds of an instance: those that count, those whose time is over, and what is wrong with damaged ones.

    A hold that is over stays until a run has brought its environment up to date: until then that shows what it did.
    """

    there: Mapping[str, Hold] = MappingProxyType({})
    over: Mapping[str, Hold] = MappingProxyType({})
    damaged: Mapping[str, str] = MappingProxyType({})

    @property
    def listed(self) -> tuple[Hold, ...]:
        """Those that count, and those that are over, by name."""
        return tuple(hold for _, hold in sorted({**self.there, **self.over}.items()))

    @property
    def next_end(self) -> float:
        """When (seconds since the epoch) the next one is over; infinity when none ends by itself."""
        return min((hold.until for hold in self.there.values() if hold.until is not None), default=math.inf)


def path_of(layout: Layout, name: str) -> Path:
    """Where the hold of an environment is."""
    return state_path(layout, _file(layout, name))


def _file(layout: Layout, name: str) -> StateFile:
    return StateFile(
        f"{layout.holds.name}/{name}{_SUFFIX}",
        VERSION,
        "environments.hold",
        "the environment is no longer held",
        is_replaceable=False,
        outlives_resets=True,
    )


def load_all(layout: Layout) -> Holds:
    """Load all holds. Raises OSError when nobody can look now."""
    there, over, damaged = {}, {}, {}
    for name in names(layout):
        try:
            found = load(layout, name)
        except StateError as error:
            damaged[name] = str(error)
            continue
        if found is not None and found.is_over:
            over[name] = found
        elif found is not None:
            there[name] = found
    return Holds(there, over, damaged)


def names(layout: Layout) -> list[str]:
    """The environments that have a hold, be it over or damaged. Raises OSError when nobody can look now."""
    try:
        found = os.listdir(layout.holds)
    except OSError as error:
        if not files.is_verdict(error):
            raise
        return []
    stems = (name[: -len(_SUFFIX)] for name in found if name.endswith(_SUFFIX))
    return sorted(filter(is_environment_name, stems))


def load(layout: Layout, name: str) -> Hold | None:
    """The hold of an environment, None when there is none. Raises StateError when it is damaged, OSError."""
    if not os.path.lexists(path_of(layout, name)):
        return None
    return decode(name, statefile.load(layout, _file(layout, name)))


def save(layout: Layout, hold: Hold) -> None:
    """Save a hold, in the place of an earlier one of its environment. Raises OSError."""
    if not os.path.isdir(layout.holds):
        files.make_directory(layout.holds)
        files.flush(layout.cachedir)
    statefile.save(layout, _file(layout, hold.environment), hold.encode())


def end(layout: Layout, name: str) -> Hold | None:
    """End the hold of an environment: its time is over. Returns what it was; None for a damaged one. Raises OSError.

    The next run removes it, after it has brought the environment up to date. What cannot be written is removed at once:
    a full disk keeps nothing held.
    """
    try:
        found = load(layout, name)
    except (OSError, StateError):
        found = None
    try:
        if found is not None:
            save(layout, found._replace(until=_LONG_AGO))
            return found
    except OSError as error:
        log.warning("The hold of environment '%s' is removed at once, as it cannot be written: %s", name, error)
    remove(layout, name)
    return found


def remove(layout: Layout, name: str) -> None:
    """Remove the hold of an environment, if there is one. Raises OSError."""
    if error := files.remove_tree(path_of(layout, name)):
        raise error
    if layout.holds.is_dir():
        files.flush(layout.holds)


def commits(holds: Iterable[Hold]) -> dict[RepoId, set[str]]:
    """The commits that holds keep, by repository."""
    found: dict[RepoId, set[str]] = {}
    for hold in holds:
        for repo, kept in hold.repositories.items():
            if kept.commit is not None and repo not in hold.moving:
                found.setdefault(repo, set()).add(kept.commit)
    return found
