"""Saves what the next run reads: what is expanded, what remotes lack, and the baseline."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from jens import deferred
from jens.environments.model import Applied
from jens.metadata.clones import Revisions
from jens.model import RepoId
from jens.repositories.model import Needs
from jens.repositories.stage import RepositoriesStage
from jens.update import baseline
from jens.update.options import Context
from jens.update.plan import Plans
from jens.update.scope import Scope

log = logging.getLogger(__name__)


def save_published(context: Context, scope: Scope, repositories: RepositoriesStage) -> None:
    """Save what is expanded now, before environments change. Raises OSError, StateError."""
    if scope.baseline is not None and not scope.repos:
        return
    log.info("Persisting repositories inventory...")
    if scope.baseline is not None:
        deferred.inventory.save_some(context.layout, repositories.inventory())
        return
    deferred.inventory.save(context.layout, repositories.inventory())
    deferred.absent_refs.withdraw(context.layout, repositories.failed())


def save_retired(context: Context, scope: Scope, plans: Plans, repositories: RepositoriesStage) -> None:
    """Save what is still expanded, and what remotes lack. If branches only moved, neither changes. Raises OSError."""
    if scope.baseline is None:
        deferred.inventory.save(context.layout, repositories.inventory())
        definitions = deferred.absent_refs.digests(plans.environments.definitions)
        deferred.absent_refs.save(context.layout, deferred.absent_refs.AbsentRefs(repositories.lacking(), definitions))


def save_baseline(
    context: Context,
    scope: Scope,
    revisions: Revisions,
    plans: Plans,
    needs: Mapping[RepoId, Needs],
    applied: Applied,
) -> None:
    """Save a baseline of what there is now, so that the next run need not look at it."""
    if scope.baseline is not None and not scope.repos:
        return
    layout = context.layout
    expiry = deferred.retention.next_expiry(layout, context.config.main.retention)
    if scope.baseline is not None:
        baseline.renew(layout, scope.baseline, scope.repos, expiry)
        return
    names = [definition.name for definition in applied.standing]
    baseline.save(context.config, layout, revisions, plans.work.library.urls, needs, names, expiry)
