"""The long way through a run, from top to bottom: everything is looked at. Only the order, not how it is done."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from jens import purgeguard
from jens.config import Config
from jens.environments import dangling, stage
from jens.environments.plan import EnvironmentsPlan, plan_environments
from jens.environments.previous import Previous, look, resolved_before
from jens.environments.stage import Applied
from jens.environments.tree import Planner
from jens.errors import EnvironmentsError, RepositoriesError
from jens.git import wrapper
from jens.git.remotes import Remotes
from jens.layout import Layout
from jens.messaging import hints as messaging_hints
from jens.messaging.queue import Hints
from jens.metadata import reader
from jens.metadata.clones import Revisions
from jens.metadata.definition import doubts
from jens.model import Expansion, Library, Report
from jens.purgeguard import PurgeGuard
from jens.repositories import absent_refs, inventory, retention
from jens.repositories.absent_refs import AbsentRefs
from jens.repositories.plan import plan_needs, plan_repositories
from jens.repositories.stage import Demand, RepositoriesStage, Work
from jens.text import one_line
from jens.update import baseline
from jens.update.options import Options, executed, staged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plans:
    """What a run found out before it touched anything that is published."""

    library: Library
    past: Previous
    environments: EnvironmentsPlan
    work: Work


def run(
    config: Config,
    layout: Layout,
    remotes: Remotes,
    options: Options,
    commits: Revisions,
    hints: Hints | None,
    *,
    is_clean: bool,
) -> Report:
    """Bring everything up to date. Raises LibraryError, DirectoryError, MetadataError, StageError.

    Unless ``is_clean``, something is left for the next run to clear away.
    """
    with executed("refresh_repositories"), staged(RepositoriesError):
        log.info("Refreshing repositories...")
        plans = plan(config, layout, options, commits, hints)
        remember_refusals(layout, plans)
        repositories = RepositoriesStage(layout, remotes, plans.work)
        repositories.prepare(config.git.jobs, options.progress)
        repositories.switch(lambda entries: stage.detour(layout, plans.past.existing, entries))
        log.info("Persisting repositories inventory...")
        inventory.save(layout, repositories.inventory())
        absent_refs.withdraw(layout, repositories.failed())
    with executed("refresh_environments"), staged(EnvironmentsError):
        log.info("Refreshing environments...")
        applied = refresh_environments(config, layout, plans, repositories.expansion())
        needs = plan_needs(plans.work.plan.remaining, config.main.mandatorybranches, applied.standing)
        repositories.clear_away(needs, config.main.retention, lambda repo: stage.uses(layout, applied.clinging, repo))
        inventory.save(layout, repositories.inventory())
        definitions = absent_refs.asked_for(plans.environments.definitions)
        absent_refs.save(layout, AbsentRefs(repositories.lacking(), definitions))
    failures = [*commits.failures, *repositories.failures, *applied.failures]
    if hints is not None:
        failures += messaging_hints.finish_all(config.messaging.queuedir, hints, repositories.failed())
    refused = plans.work.plan.refusals or plans.environments.refusals
    if (
        is_clean
        and repositories.is_at_rest
        and not (failures or refused or applied.clinging or plans.environments.protected)
    ):
        names = [definition.name for definition in applied.standing]
        next_look = retention.next_look(layout, config.main.retention)
        baseline.save(config, layout, commits, plans.library.urls, needs, names, next_look)
    return Report(tuple(failures), bool(refused))


def plan(config: Config, layout: Layout, options: Options, commits: Revisions, hints: Hints | None = None) -> Plans:
    """Read metadata, cache and disk, and decide what there must be; without hints every remote is asked."""
    main = config.main
    guard = PurgeGuard(main.purgelimit, options.allow_purge, purgeguard.load_refusals(layout))
    library = reader.read_library(config, commits.repositories)
    declared = reader.read_definitions(config, commits.environments)
    past = look(layout, declared, main.hashprefix)
    for_environments = plan_environments(declared, past, main.protectedenvironments, guard)
    known = inventory.load_or_generate(layout)
    mirrored = [repo for repo in layout.repositories_in(layout.baredir) if wrapper.is_repository(layout.bare(repo))]
    for_repositories = plan_repositories(library, {*known, *mirrored}, guard)
    recorded = resolved_before(layout, for_environments.definitions, known)
    former = stage.former_definitions(layout, for_environments, past)
    needs = plan_needs(for_repositories.remaining, main.mandatorybranches, for_environments.definitions, former)
    work = Work(library, for_repositories, recorded, needs)
    if hints is not None:
        if unknown := messaging_hints.strangers(hints, library):
            log.warning("%s", unknown)
        said = absent_refs.load(layout)
        moving = said.fresh((*for_environments.new, *for_environments.changed))
        fresh = plan_needs(for_repositories.remaining, (), moving)
        work = work._replace(demand=Demand(hints.repos, said.lacking, fresh))
    return Plans(library, past, for_environments, work)


def remember_refusals(layout: Layout, plans: Plans) -> None:
    """What is refused now is not removed by a later run only because more is known by then. Raises OSError."""
    work, past = plans.work, plans.past
    refused = {repo.partition for repo in work.plan.kept if repo not in work.library.unusable}
    known = [repo for repo in (*work.plan.existing, *work.plan.kept) if repo.partition in refused]
    environments_known = {*past.remembered, *past.inferred} if plans.environments.refusals else set()
    purgeguard.save_refusals(layout, purgeguard.load_refusals(layout), known, environments_known)


def refresh_environments(config: Config, layout: Layout, plans: Plans, expansion: Expansion) -> Applied:
    """Bring environments in line with their definitions and with what repositories are expanded to."""
    for definition in (*plans.environments.new, *plans.environments.changed):
        for doubt in doubts(definition, plans.library):
            log.warning("Environment '%s' (%s) %s", definition.name, one_line(definition.address), doubt)
    planner = Planner(layout, expansion, with_conf=config.main.directory_environments)
    applied = stage.Stage(layout, plans.past, planner).apply(plans.environments)
    found = dangling.find(layout, applied.standing, expansion)
    dangling.report(layout, applied.standing, found, expansion)
    return applied
