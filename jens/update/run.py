"""The update run, from top to bottom: the one order in which things are done."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Callable

from jens import deferred
from jens.config import Config
from jens.environments.model import Applied
from jens.environments.stage import EnvironmentsStage, bypass
from jens.errors import EnvironmentsError, RepositoriesError
from jens.events import Event, tell
from jens.layout import Layout
from jens.metadata.clones import Revisions
from jens.model import RepoId, Report
from jens.repositories.model import Needs
from jens.repositories.stage import RepositoriesStage
from jens.update import baseline as baselines
from jens.update import metadata, record
from jens.update import scope as scopes
from jens.update.options import Context, Options, failing_as, opened, timed, versioning_of
from jens.update.plan import Plans, doubts, expansion_of, plan, remember_refusals, without_losses
from jens.update.scope import EVERYTHING, Scope

if TYPE_CHECKING:
    from jens.messaging.queue import Hints

log = logging.getLogger(__name__)


def run(config: Config, options: Options) -> Report:
    """Bring everything up to date. Raises MetadataError, QueueError, LibraryError, DirectoryError, StageError."""
    with opened(config, options) as context:
        return _run(context)


def _run(context: Context) -> Report:
    config, layout, retention = context.config, context.layout, context.config.main.retention
    baseline = scopes.look(context)
    is_tidy = baseline is not None or _clear_left_overs(context)
    baseline, revisions = metadata.refresh(context, baseline)
    hints = _take_hints(context)
    if baseline is None:
        record.save_killed(context, hints)

    with timed("refresh_repositories"), failing_as(RepositoriesError):
        log.info("Refreshing repositories...")
        scope = scopes.find(context, baseline, hints)
        plans, repositories, events = _prepare(context, scope, revisions, hints)
        if scope.baseline and not repositories.only_branches_moved():
            log.info("More than tips of branches changed, so the run looks at every repository")
            slow = [event for event in events if event.is_slow]  # they are left alone from now on
            scope, is_tidy = EVERYTHING, _clear_left_overs(context)
            plans, repositories, events = _prepare(context, scope, revisions, hints)
            events = itertools.chain(slow, events)
        failures = [*revisions.failures, *tell(log, events)]
        plans = without_losses(plans, repositories.expansion())
        failures += tell(log, repositories.publish(lambda places: bypass(layout, plans.previous.existing, places)))
        failures += record.save_published(context, scope, repositories)

    with timed("refresh_environments"), failing_as(EnvironmentsError):
        log.info("Refreshing environments...")
        applied = _refresh_environments(context, scope, plans, repositories)
        needs = _needs(context, scope, plans, applied)
        only = scope.repos if scope.baseline else None
        failures += applied.failures
        kept = record.save_versions(context, applied, only, failures)
        if kept is not None:
            failures += tell(log, repositories.retire(needs, retention, _used_by(layout, applied), only, kept))
        failures += record.save_retired(context, scope, plans, repositories)

    changed = (len(repositories.changed), applied.changed)
    with failing_as(EnvironmentsError):
        faults = record.open_faults(context, scope, plans, repositories, applied)
    made = record.save_deployment(context, scope, revisions, hints, faults, any(changed))
    left = scope.baseline.left if scope.baseline else plans.work.left
    if hints is not None:
        failed = repositories.failed()
        late = deferred.arrivals.find_late(layout, hints.pushes, {*failed, *left}) if hints.pushes else ()
        failures += deferred.hints.finish_and_log(config.messaging.queuedir, hints, failed, late, left)
    is_unsettled = plans.is_refused or applied.unfinished
    with failing_as(EnvironmentsError):
        if is_tidy and repositories.is_at_rest and not (failures or is_unsettled):
            unrecorded = made.problem if made else ""
            record.save_baseline(context, scope, revisions, plans, needs, applied, repositories, unrecorded)
    has_hints = hints is not None and hints.found > 0 and not deferred.hints.only_wait(hints, left)
    is_idle = not (failures or plans.is_refused or any(changed) or plans.environments.has_news or has_hints)
    return Report(tuple(failures), plans.is_refused, faults.opened, changed, is_idle, made and made.number)


def _clear_left_overs(context: Context) -> bool:
    """Clear away what earlier runs left, as far as it can be: whether all could. Raises StageError."""
    layout, retention = context.layout, context.config.main.retention
    with failing_as(RepositoriesError):
        baselines.remove(layout)
        is_clean = not layout.versions.exists() or deferred.versions.clear(layout, retention, record.flushed(context))
        return deferred.retention.clear_left_overs(layout, retention) and is_clean


def _take_hints(context: Context) -> Hints | None:
    """The hints of this run, None when every remote is asked. Raises QueueError."""
    if not context.is_on_demand:
        return None
    with timed("fetch_update_hints"):
        return deferred.hints.take(context.config.messaging.queuedir)


def _prepare(
    context: Context, scope: Scope, revisions: Revisions, hints: Hints | None
) -> tuple[Plans, RepositoriesStage, Iterable[Event]]:
    """Plan, fetch, and lay out aside. The events of some repositories are complete: they may not be what is told."""
    plans = plan(context, scope, revisions, hints)
    if scope.baseline is None:
        plans = remember_refusals(context.layout, plans)
        record.save_parsed(context, plans)
    if scope.baseline is None or scope.repos:
        baselines.remove(context.layout)
    repositories = RepositoriesStage(context.layout, context.remotes, plans.work)
    events = repositories.prepare(context.jobs, context.options.progress)
    return plans, repositories, list(events) if scope.baseline else events


def _refresh_environments(context: Context, scope: Scope, plans: Plans, repositories: RepositoriesStage) -> Applied:
    tell(log, doubts(plans))
    expansion, versioning = expansion_of(context, scope, plans, repositories), versioning_of(context.config)
    with_conf = context.config.main.directory_environments
    lines = context.config.main.environment_conf
    stage = EnvironmentsStage(
        *(context.layout, plans.previous, expansion), with_conf=with_conf, versioning=versioning, conf_lines=lines
    )
    known = record.known_undeclared(context) if plans.environments.protected else ()
    applied = stage.apply(plans.environments, known)
    if scope.baseline is None:
        problems = deferred.dangling.refresh(context.layout, applied.standing, expansion)
        return applied._replace(failures=(*applied.failures, *problems))
    return applied


def _needs(context: Context, scope: Scope, plans: Plans, applied: Applied) -> Mapping[RepoId, Needs]:
    """Which refs environments need, as they are now."""
    if scope.baseline is not None:
        return plans.work.needs
    mandatory = context.config.main.mandatorybranches
    plan = plans.work.plan
    return deferred.repositories_plan.plan_needs(
        *(plan.remaining, mandatory, applied.standing), pinned=plan.pinned, usages=plans.work.library.usages
    )


def _used_by(layout: Layout, applied: Applied) -> Callable[[RepoId], bool]:
    """Tells which repositories those environments use that could not be changed."""
    return lambda repo: deferred.previous.uses(layout, applied.unfinished, repo)
