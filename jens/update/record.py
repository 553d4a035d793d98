"""Saves what the next run reads: what is expanded, what remotes lack, and the baseline."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from jens import deferred, lastrun
from jens.environments.model import Applied
from jens.events import COMMIT, CONTENT, DELIVERY, MANDATORY_BRANCH, UNDECLARED
from jens.metadata import usages
from jens.metadata.clones import Revisions
from jens.model import Expansion, Fault, OpenFault, RepoId
from jens.repositories.model import Needs
from jens.repositories.stage import RepositoriesStage
from jens.statefile import StateError
from jens.text import one_line
from jens.update import baseline
from jens.update.options import Context, configuration_faults, versioning_of
from jens.update.plan import Plans, expansion_of
from jens.update.scope import Scope

if TYPE_CHECKING:
    from jens.messaging.queue import Hints
    from jens.update.deployment import Made

log = logging.getLogger(__name__)


# What cannot be saved ends no run: the run may be about to remove what fills the disk. Any of it may be lost.


def save_parsed(context: Context, plans: Plans) -> None:
    """Save what definitions say, so that no run parses them again."""
    if plans.parsed is not None:
        try:
            plans.parsed.save(context.layout)
        except OSError as error:
            log.debug("What definitions say is not saved: %s", error)


def save_published(context: Context, scope: Scope, repositories: RepositoriesStage) -> list[str]:
    """Save what is expanded now, before environments change. Returns what failed."""
    if scope.baseline is not None and not scope.repos:
        return []
    log.info("Persisting repositories inventory...")
    failures: list[str] = []
    if scope.baseline is not None:
        with _remembering("what is expanded", failures):
            deferred.inventory.save_some(context.layout, repositories.inventory())
        return failures
    with _remembering("what is expanded", failures):
        deferred.inventory.save(context.layout, repositories.inventory())
    with _remembering("what remotes lack", failures):
        deferred.absent_refs.withdraw(context.layout, repositories.failed())
    return failures


def save_retired(context: Context, scope: Scope, plans: Plans, repositories: RepositoriesStage) -> list[str]:
    """Save what is still expanded, and what remotes lack. Neither changes if branches only moved.

    Returns what failed.
    """
    failures: list[str] = []
    if scope.baseline is None:
        with _remembering("what is expanded", failures):
            deferred.inventory.save(context.layout, repositories.inventory())
        with _remembering("what remotes lack", failures):
            definitions = deferred.absent_refs.digests(plans.environments.definitions)
            absent = deferred.absent_refs.AbsentRefs(repositories.lacking(), definitions, repositories.states())
            deferred.absent_refs.save(context.layout, absent)
        with _remembering("how repositories are used", failures):
            usages.save(context.layout, plans.work.library.usages, plans.work.plan.remaining)
    return failures


def save_versions(
    context: Context, applied: Applied, only: Collection[RepoId] | None, failures: list[str]
) -> Mapping[RepoId, frozenset[str]] | None:
    """Save which versions of environments were replaced, and return the commits that they use.

    None when nobody can tell: then nothing may be removed. Adds what failed.
    """
    if applied.is_blind or not os.path.lexists(context.layout.versions):
        return None if applied.is_blind else {}
    try:
        return deferred.versions.keep(context.layout, applied.replaced, applied.unfinished, only)
    except OSError as error:
        failures.append(f"Unable to see what versions of environments use, so nothing is removed: {error}")
        log.error("%s", failures[-1])
        return None


@contextmanager
def _remembering(what: str, failures: list[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, StateError) as error:
        failures.append(f"Unable to remember {what}: {error}")
        log.error("%s", failures[-1])


def save_baseline(
    context: Context,
    scope: Scope,
    revisions: Revisions,
    plans: Plans,
    needs: Mapping[RepoId, Needs],
    applied: Applied,
    repositories: RepositoriesStage,
    unrecorded: str,
) -> None:
    """Save a baseline of what there is now, so that the next run need not look at it.

    ``unrecorded`` says why the history lacks what the run changed, '' when it does not.
    """
    if scope.baseline is not None and not scope.repos and scope.baseline.unrecorded == unrecorded:
        return
    layout = context.layout
    expiry = deferred.retention.next_expiry(layout, context.config.main.retention)

    def are_as_left(repos: Collection[RepoId], names: Collection[str]) -> bool:
        is_same = repositories.are_as_left(repos)
        return is_same and (
            not names or _are_as_left(context, names, applied, expansion_of(context, scope, plans, repositories))
        )

    if scope.baseline is not None:
        has_flipped = bool(plans.environments.unchanged)
        baseline.renew(*(layout, scope.baseline, scope.repos, expiry, are_as_left, unrecorded), has_flipped=has_flipped)
        return
    names = [definition.name for definition in applied.standing]
    seen, left = plans.seen, plans.work.left
    end = plans.previous.holds.next_end if plans.previous.holds else math.inf
    baseline.save(
        *(
            context.config,
            layout,
            revisions,
            plans.work.library,
            needs,
            names,
            expiry,
            seen,
            are_as_left,
            left,
            unrecorded,
            end,
        ),
        pinned=plans.work.plan.pinned,
    )


def _are_as_left(context: Context, names: Collection[str], applied: Applied, expansion: Expansion) -> bool:
    """Whether environments on disk have exactly the links that they should have. Raises OSError."""
    layout, with_conf = context.layout, context.config.main.directory_environments
    versioning, definitions = versioning_of(context.config), {each.name: each for each in applied.standing}
    for has_versions in (False, True):
        planner = deferred.wanted.Planner(
            layout,
            expansion,
            with_conf=with_conf,
            versions=has_versions,
            conf_lines=context.config.main.environment_conf,
        )
        for name in names:
            if versioning.has(name) == has_versions:
                version = deferred.versions.current(layout, name) if has_versions else ""
                wanted = planner.tree(definitions[name], versioning.told(version or ""))
                found = deferred.tree.read(layout.tree(name))
                if version is None or deferred.wanted.plan_changes(wanted, found).count:
                    return False
    return True


def save_killed(context: Context, hints: Hints | None) -> None:
    """Record in the history what earlier runs have changed that were killed before they could record it."""
    if context.config.history.days:
        deferred.deployment.record_visible(context.config, deferred.deployment.Run(hinted=_times(hints)), None, None)


def save_deployment(
    context: Context,
    scope: Scope,
    revisions: Revisions,
    hints: Hints | None,
    faults: Faults,
    has_changed: bool,
) -> Made | None:
    """Record in the history what the run has changed, and which faults are open. None when there is nothing to record.

    A run that relies on a baseline compares the repositories in its scope; unless the last run could not record.
    """
    told = scope.baseline.unrecorded if scope.baseline else ""
    if not context.config.history.days or (scope.baseline and not (told or has_changed or faults.are_others)):
        return None
    run = deferred.deployment.Run(context.began, hints is not None, revisions.environments, _times(hints))
    only = scope.repos if scope.baseline and not told else None
    return deferred.deployment.record_visible(context.config, run, only, faults.opened, told)


def flushed(context: Context) -> float | None:
    """Until when all Puppet servers know what has changed; None when nobody tells servers. Raises OSError."""
    return deferred.deliveries.flushed(context.layout) if context.config.puppetserver.urls else None


def _times(hints: Hints | None) -> Mapping[RepoId, float]:
    return {} if hints is None else hints.times


class Faults(NamedTuple):
    """The faults that are open, and whether the last run left others."""

    opened: tuple[OpenFault, ...]
    are_others: bool


#: Kinds of faults that any run closes which comes to its end, unless it finds them.
_OF_RUNS = ("metadata", "hints queue", "repositories", "environments", "run", DELIVERY)


#: Kinds of faults that only a run sees which can work on the repository.
_OF_COMMITS = (COMMIT, CONTENT, MANDATORY_BRANCH)


def open_faults(
    context: Context, scope: Scope, plans: Plans, repositories: RepositoriesStage, applied: Applied
) -> Faults:
    """What is wrong now, and since when. Faults of what the run did not look at stay open.

    They are saved when they have changed, before there is a baseline that lets the next run not look for them.
    """
    before = lastrun.load_faults(context.layout)
    faults = _open_faults(context, scope, plans, repositories, applied, before)
    if faults != before:
        with contextlib.suppress(OSError):  # whoever records the run tells
            lastrun.save_faults(context.layout, faults)
    return Faults(faults, faults != before)


def known_undeclared(context: Context) -> set[str]:
    """The environments of which earlier runs have told that nothing declares them any more. Raises OSError."""
    faults = (opened.fault for opened in lastrun.load_faults(context.layout))
    return {fault.environment for fault in faults if fault.kind == UNDECLARED}


def _open_faults(
    context: Context,
    scope: Scope,
    plans: Plans,
    repositories: RepositoriesStage,
    applied: Applied,
    before: tuple[OpenFault, ...],
) -> tuple[OpenFault, ...]:
    now = lastrun.timestamp(time.time())
    of_receivers = deferred.deliveries.faults(context.layout) if context.config.has_receivers else []
    found = repositories.faults()
    if scope.baseline is not None:
        repos = set(map(str, scope.repos))

        def was_looked_at(fault: Fault) -> bool:
            return fault.kind in _OF_RUNS or (fault.repository in repos and not fault.environment)

        told = {opened.fault.identity: opened.fault.addresses for opened in before}  # a small scope has no definitions
        found = [fault._replace(addresses=told.get(fault.identity, ())) for fault in found]
        return lastrun.still_open([*found, *of_receivers], before, was_looked_at, now)
    found = deferred.environments_faults.tell_who_names_it(found, plans.environments.definitions)
    dangling = deferred.dangling.load(context.layout)
    found += deferred.environments_faults.plan_faults(
        plans.environments, plans.previous, applied, plans.work.library, dangling
    )
    found += [*of_receivers, *configuration_faults(context.config)]
    failed = set(map(str, repositories.failed()))
    faults = lastrun.still_open(
        found, before, lambda fault: not (fault.kind in _OF_COMMITS and fault.repository in failed), now
    )
    _warn_of_news(plans, faults, before)
    return faults


def _warn_of_news(plans: Plans, faults: Iterable[OpenFault], before: Iterable[OpenFault]) -> None:
    """Warn of unchanged definitions that are doubtful now: the library has changed."""
    known = {opened.fault.identity for opened in before}
    addresses = {definition.name: definition.address for definition in plans.environments.unchanged}
    for fault in deferred.environments_faults.newly_doubtful((opened.fault for opened in faults), known):
        if fault.environment in addresses:
            address = one_line(addresses[fault.environment])
            log.warning("Environment '%s' (%s) %s", fault.environment, address, fault.text)
