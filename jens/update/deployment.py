"""Records in the history what became visible: what differs between what it believes and what is there.

It is not told what a run has done. So a run that was killed after it had changed something is recorded by the next.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Callable, NamedTuple

from jens import deferred, lastrun
from jens.config import Config
from jens.errors import GitError, HistoryError
from jens.git import authors
from jens.history import record
from jens.history.model import (
    BEGUN,
    HELD,
    HINTS,
    POLL,
    RELEASED,
    Author,
    Change,
    Deployment,
    EnvironmentChange,
    FaultRows,
    Rows,
)
from jens.history.store import HistoryDamagedError, Store, set_aside
from jens.layout import Layout
from jens.metadata.definition import SUFFIX
from jens.model import OpenFault, RepoId
from jens.names import parse_repository
from jens.statefile import HISTORY, StateError, state_path
from jens.text import one_line
from jens.update import visible

log = logging.getLogger(__name__)

#: A deployment with more changes of branches, or of environments, does not ask who made them.
_MOST_ASKED = 100

_MODES = {True: HINTS, False: POLL, None: None}


class Made(NamedTuple):
    """The number of the deployment that was recorded, None for none, and why nothing could be recorded ('': it was)."""

    number: int | None = None
    problem: str = ""


class Run(NamedTuple):
    """What a run knows of itself: when it began, how it learned of pushes, the commit of the environment metadata.

    ``hinted`` has the time of the oldest hint for each repository. The run of which this is not known was killed.
    """

    began: float | None = None
    is_on_demand: bool | None = None
    definitions: str | None = None
    hinted: Mapping[RepoId, float] = MappingProxyType({})


def record_visible(
    config: Config, run: Run, only: Collection[RepoId] | None, faults: tuple[OpenFault, ...] | None, told: str = ""
) -> Made:
    """Record what is visible, of ``only`` some repositories or of everything, and which faults are open.

    Faults that are None stay as they are. What could not be recorded is a warning, unless the last run has ``told``
    the same.
    """
    layout = Layout.of(config)
    path = state_path(layout, HISTORY)
    try:
        return Made(_with_store(path, lambda store: _record(store, config, layout, run, only, faults)))
    except (HistoryError, OSError) as error:
        problem = error.problem if isinstance(error, HistoryError) else str(error)
        level = logging.DEBUG if problem == told else logging.WARNING
        log.log(level, "What changed is not in the history '%s' yet, the next run records it: %s", path, problem)
        return Made(problem=problem)


def _with_store(path: Path, work: Callable[[Store], int | None]) -> int | None:
    """Work with the history. A damaged one is set aside, and a new one begins. Raises HistoryError, OSError."""
    try:
        with Store(path) as store:
            return work(store)
    except HistoryDamagedError as error:
        place = set_aside(path)
        log.warning("The history '%s' begins anew (%s), what it had is in '%s'", path, error.problem, place)
    with Store(path) as store:
        return work(store)


def _record(
    store: Store,
    config: Config,
    layout: Layout,
    run: Run,
    only: Collection[RepoId] | None,
    faults: tuple[OpenFault, ...] | None,
) -> int | None:
    known, now = store.fingerprints(), time.time()
    if only is None or store.is_new:
        seen = visible.look(layout, known, lambda: _said(config, layout))
    else:
        seen = visible.look_at(layout, known, only)
    rows = record.plan(store.believed(seen), seen)
    found = FaultRows()
    if faults is not None:
        found = record.plan_faults(store.open_faults(), lastrun.bounded_faults(faults, lastrun.timestamp(now)))
    if not (rows or found or seen.has_news):
        return None
    made = Deployment(os.uname().nodename, rows.time or now, run.began, mode=_MODES[run.is_on_demand])
    if store.is_new:
        if rows:
            log.warning("The history begins with what is there: nothing is known of what was before")
        made = made._replace(visible=now, mode=BEGUN)
        rows = rows._replace(environments=[EnvironmentChange(None, BEGUN, now), *rows.environments]) if rows else rows
    else:
        rows = rows._replace(
            changes=[*_with_authors(layout, run, rows)], environments=[*_with_metadata(store, config, run, rows)]
        )
    if run.began is not None:
        made = made._replace(seconds=time.time() - run.began, status=0)
    return store.write(made, rows, found, seen, now, lastrun.timestamp(now), config.history.days)


def _said(config: Config, layout: Layout) -> visible.Said:
    """What environments with versions are built from. Raises OSError."""
    names = [name for name in layout.environments() if layout.place(name) != name]
    definitions = deferred.previous.as_they_are(config, layout, names) if names else ()
    usages = deferred.reader.known_library(config).usages if names else {}
    return visible.Said({definition.name: definition for definition in definitions}, usages)


def _with_authors(layout: Layout, run: Run, rows: Rows) -> Iterator[Change]:
    """The changes with what their commits say of themselves, and with the hints that led to them."""
    for change in rows.changes:
        repo = parse_repository(change.repository)
        hinted = record.hint_for(change.time, run.hinted.get(repo))
        asked = change if len(rows.changes) > _MOST_ASKED else _described(layout.bare(repo), change)
        yield asked._replace(hinted=hinted)


def _described(bare: Path, change: Change) -> Change:
    """A change with what the mirror knows about it: it may have lost a commit."""
    try:
        if change.now:
            said = authors.describe(bare, change.now)
            change = change._replace(author=Author(said.author, said.subject, said.date))
        if change.now and change.before:
            commits, lost = authors.count_between(bare, change.before, change.now)
            change = change._replace(commits=commits, lost=lost)
    except (GitError, OSError) as error:
        log.debug("Nothing more is known of %s at %s: %s", change.repository, change.now, error)
    return change


def _with_metadata(store: Store, config: Config, run: Run, rows: Rows) -> Iterator[EnvironmentChange]:
    """The changes of environments with the commits of the metadata that are behind them, or with who holds them.

    A commit that was behind an earlier change of the environment is not behind this one.
    """
    names = [f"{each.environment}{SUFFIX}" for each in rows.environments if each.change not in (HELD, RELEASED)]
    found: Mapping[str, authors.LastChange] = {}
    if run.definitions and 0 < len(names) <= _MOST_ASKED:
        try:
            found = authors.last_changes(config.main.environmentsmetadatadir / ".git", run.definitions, names)
        except (GitError, OSError) as error:
            log.debug("Nobody knows who changed definitions: %s", error)
    told = store.told_metadata(name[: -len(SUFFIX)] for name in found)
    for each in rows.environments:
        behind = found.get(f"{each.environment}{SUFFIX}")
        if behind is not None and each.environment is not None and told.get(each.environment) == behind.commit:
            behind = None
        if each.change == HELD and each.environment is not None:
            yield each._replace(author=_holder(config, each.environment))
        else:
            yield each._replace(commit=behind.commit, author=behind.author) if behind else each


def _holder(config: Config, name: str) -> str | None:
    """Who holds an environment, None when nobody can tell."""
    try:
        found = deferred.hold.load(Layout.of(config), name)
    except (OSError, StateError):
        return None
    return found and one_line(found.by)


def record_faults(config: Config, faults: tuple[OpenFault, ...]) -> None:
    """Record which faults are open after a run that did not come to its end. What became visible is left for the next.

    What could not be recorded is not lost: these faults are in the record of the last run.
    """
    record_visible(config, Run(), (), faults)


def finish(config: Config, number: int, status: int, seconds: float) -> None:
    """Note how a run ended that made a deployment, if the history can be written."""
    try:
        with Store(state_path(Layout.of(config), HISTORY)) as store:
            store.finish(number, status, seconds)
    except HistoryError as error:
        log.debug("The history does not know how the run ended: %s", error)
