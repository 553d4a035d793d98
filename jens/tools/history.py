"""Reads the history for jens-history, and puts it into lines for people and values for programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Union

from jens import model
from jens.config import Config
from jens.errors import HistoryError
from jens.history import queries
from jens.history.model import BEGUN, RESET
from jens.history.queries import Change, Deployment, Entry, EnvironmentChange, FaultLife, Filter
from jens.history.store import Reader
from jens.layout import Layout, version_name, version_of
from jens.model import Ref
from jens.statefile import HISTORY, state_path
from jens.text import one_line

_TIME = "%Y-%m-%d %H:%M:%S"
#: So many environments are named in a line; of more, one fewer and how many more there are.
_MOST_NAMED = 3
_DIGITS = 7


def opened(config: Config) -> Reader:
    """The history of an instance. Raises HistoryError."""
    path = path_of(config)
    if not config.history.days:
        raise HistoryError(path, "there is none, as [history] days is 0 in the configuration")
    return Reader(path)


#: A time in seconds since the epoch (float), the number of a deployment (int), or the name of a version.
At = Union[float, int, str]


def deployment_of(reader: Reader, config: Config, at: At) -> Deployment:
    """The deployment of this number, that made this version, or the last one at a time. Raises HistoryError."""
    if isinstance(at, str):
        number = queries.deployment_of_version(reader, *(version_of(at) or (at, 0)))
        what = f"no version {at}"
    elif isinstance(at, int):
        number, what = at, f"no deployment {at}"
    else:
        number, what = queries.deployment_at(reader, at), f"nothing of {local(at)}"
    found = None if number is None else queries.deployment(reader, number)
    if found is None:
        raise HistoryError(path_of(config), f"has {what}", "")
    return found


def with_versions(reader: Reader, wanted: Filter) -> Filter:
    """What is asked for, if the only environment that is named is a version: what the deployment changed that made it.

    Raises HistoryError.
    """
    names = wanted.environments
    version = version_of(names[0]) if len(names) == 1 else None
    if version is None or queries.unknown(reader, Filter(names)) == []:
        return wanted
    made = queries.deployment_of_version(reader, *version)
    return wanted if made is None else wanted._replace(environments=version[:1], deployment=made)


def path_of(config: Config) -> Path:
    """Where the history of an instance is."""
    return state_path(Layout.of(config), HISTORY)


# For people


def lines(reader: Reader, config: Config, wanted: Filter, count: int | None) -> Iterator[str]:
    """What happened, one line each, the newest first; times are local. Raises HistoryError."""
    versions = _Versions(reader)
    for entry in itertools.islice(queries.entries(reader, wanted), count):
        made = versions.of(entry)
        text = _change(entry, config) if isinstance(entry, Change) else _environment_change(entry)
        yield f"{local(entry.time)} {text}{f' [{named(made, ())}]' if made else ''}"


class _Versions:
    """The versions that deployments made. Entries of one deployment come one after the other."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._deployment = 0
        self._made: dict[str, int] = {}

    def of(self, entry: Entry) -> list[str]:
        """The versions with which an entry became visible. Raises HistoryError."""
        if entry.deployment != self._deployment:
            self._deployment, self._made = entry.deployment, queries.versions_made_by(self._reader, entry.deployment)
        shows = entry.environments if isinstance(entry, Change) else (entry.environment,)
        return [version_name(name, number) for name, number in self._made.items() if name in shows]


def local(moment: float) -> str:
    """A time for people."""
    return f"{datetime.fromtimestamp(moment):{_TIME}}"


def declared(ref: Ref, config: Config) -> str:
    """A ref as definitions write it."""
    return model.declared(ref, config.main.prefixes)


def _change(change: Change, config: Config) -> str:
    said = f" {change.author}: {change.subject}" if change.author is not None else ""
    seconds = change.seconds_since_push
    after = "" if seconds is None else f", {seconds:.1f} s after the push"
    where = named(change.environments, config.main.protectedenvironments) or "in no environment"
    ref = one_line(declared(change.ref, config))
    return f"{change.repository} {ref} {_move(change)}{said} -- {where}{after}"


def _move(change: Change) -> str:
    if change.now is None:
        return f"{(change.before or '')[:_DIGITS]} (gone)"
    if change.before is None:
        return f"{change.now[:_DIGITS]} (new)"
    return f"{change.before[:_DIGITS]}..{change.now[:_DIGITS]}{_distance(change)}"


def _distance(change: Change) -> str:
    """How many commits lie between; a rewritten branch has lost some."""
    if change.commits is None:
        return ""
    if not change.commits and change.lost:
        return f" (back {_commits(change.lost)})"
    return f" ({_commits(change.commits)}{f', {change.lost} lost' if change.lost else ''})"


def _commits(number: int) -> str:
    return f"{number} commit{'' if number == 1 else 's'}"


def named(environments: Sequence[str], first: Sequence[str]) -> str:
    """Environments for a line: those that matter most first, and of many how many more there are."""
    names = [*(name for name in first if name in environments), *(name for name in environments if name not in first)]
    if len(names) <= _MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_NAMED - 1])} and {len(names) - _MOST_NAMED + 1} more"


def _environment_change(entry: EnvironmentChange) -> str:
    if entry.environment is None:
        return {BEGUN: "the history begins with what was there", RESET: "jens-reset removed everything"}[entry.change]
    behind = " ".join(filter(None, ((entry.commit or "")[:_DIGITS], entry.author)))
    return f"environment {entry.environment} {entry.change}{f' ({behind})' if behind else ''}"


def fault_lines(found: Iterable[FaultLife]) -> Iterator[str]:
    """Faults, one line each; times are local."""
    for fault in found:
        where = " ".join(filter(None, (fault.environment, fault.repository)))
        until = f" until {local_of(fault.until)}" if fault.until else ""
        told = f" ({', '.join(fault.addresses)})" if fault.addresses else ""
        yield f"{local_of(fault.since)}{until} {fault.kind}{f' {where}' if where else ''}: {fault.text}{told}"


def local_of(moment: str) -> str:
    """A time in ISO 8601, for people."""
    try:
        return local(datetime.fromisoformat(moment).timestamp())
    except (OverflowError, OSError, ValueError):
        return "at an unknown time"


# For programs


def encoded(reader: Reader, config: Config, wanted: Filter, count: int | None) -> Iterator[dict[str, Any]]:
    """What happened, as JSON types; times are UTC, and what is not known is None. Raises HistoryError."""
    versions = _Versions(reader)
    for entry in itertools.islice(queries.entries(reader, wanted), count):
        made = versions.of(entry)
        yield {**({"versions": made} if made else {}), **encode_entry(entry, config)}


def encode_entry(entry: Entry, config: Config) -> dict[str, Any]:
    """A change as JSON types; times are UTC, and what is not known is None."""
    return {
        "time": utc(entry.time),
        "deployment": entry.deployment,
        "host": entry.host,
        **(_encode(entry, config) if isinstance(entry, Change) else _encode_environment(entry)),
    }


def utc(moment: float) -> str:
    """A time for programs: UTC, ISO 8601, with milliseconds."""
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")


def _encode(change: Change, config: Config) -> dict[str, Any]:
    return {
        "repository": change.repository,
        "ref": declared(change.ref, config),
        "before": change.before,
        "now": change.now,
        "author": change.author,
        "subject": change.subject,
        "commits": change.commits,
        "environments": [*change.environments],
        "seconds_since_push": change.seconds_since_push,
    }


def _encode_environment(entry: EnvironmentChange) -> dict[str, Any]:
    return {"environment": entry.environment, "change": entry.change}


def encode_fault(fault: FaultLife) -> dict[str, Any]:
    """A fault as JSON types."""
    return {
        "kind": fault.kind,
        "environment": fault.environment,
        "repository": fault.repository,
        "text": fault.text,
        "addresses": [*fault.addresses],
        "since": fault.since,
        "until": fault.until,
    }
