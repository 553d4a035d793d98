"""The update run, from top to bottom: only the order, nothing of how anything is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from jens import (
    answers,
    dangling,
    demand,
    environments,
    gitwrapper,
    inventory,
    metadata,
    refusals,
    retention,
    seal,
    shortcut,
)
from jens.answers import Answers
from jens.config import Config
from jens.environments import Applied, EnvironmentsPlan
from jens.errors import EnvironmentsError, RepositoriesError, StageError
from jens.gitwrapper import GitOptions
from jens.guard import PurgeGuard
from jens.layout import Layout
from jens.messaging import Hints
from jens.model import Expansion, Library, RepoId, Report
from jens.names import one_line
from jens.past import Past, recall, resolved_before
from jens.pool import Progress, no_progress
from jens.remotes import Remotes
from jens.repositories import plan_needs, plan_repositories
from jens.repostage import Demand, RepositoriesStage, Work
from jens.trees import Planner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the administrator asked for, whatever the configured mode: ``poll`` has every remote asked.

    ``progress`` is told how many repositories of how many are done.
    """

    allow_purge: bool = False
    poll: bool = False
    progress: Progress = no_progress


@dataclass(frozen=True)
class Plans:
    """What a run found out before it touched anything that is published."""

    library: Library
    past: Past
    environments: EnvironmentsPlan
    work: Work


def run(config: Config, options: Options) -> Report:
    """Bring everything up to date. Raises MetadataError, QueueError, LibraryError, DirectoryError, StageError."""
    layout = Layout.of(config)
    remotes = Remotes(git_options(config))
    sealed = None if options.allow_purge else seal.recall(config, layout)
    if sealed is None:
        start_anew(config, layout)
    with executed("refresh_metadata"):
        log.info("Refreshing metadata...")
        if sealed and metadata.are_unchanged(config, sealed.snapshot, remotes.options):
            commits = sealed.snapshot
        else:
            sealed = None
            commits = metadata.refresh(config, remotes.options)
    hints = None
    if is_on_demand(config, options):
        with executed("fetch_update_hints"):
            hints = demand.take(config.messaging.queuedir)
    if sealed:
        with executed("refresh_repositories"), staged(RepositoriesError):
            log.info("Refreshing repositories...")
            done = shortcut.run(config, layout, remotes, sealed, hints, options.progress)
        if done:
            keep_environments(layout)
            failures = done.failures + (finish_hints(config, hints, done.failed()) if hints else [])
            return Report(tuple(failures))
        start_anew(config, layout)
    with executed("refresh_repositories"), staged(RepositoriesError):
        log.info("Refreshing repositories...")
        plans = plan(config, layout, options, commits, hints)
        remember_refusals(layout, plans)
        repositories = RepositoriesStage(layout, remotes, plans.work)
        repositories.prepare(config.git.jobs, options.progress)
        repositories.switch(lambda entries: environments.detour(layout, plans.past.existing, entries))
        log.info("Persisting repositories inventory...")
        inventory.persist(layout, repositories.inventory())
        answers.withdraw(layout, repositories.failed())
    with executed("refresh_environments"), staged(EnvironmentsError):
        log.info("Refreshing environments...")
        applied = refresh_environments(config, layout, plans, repositories.expansion())
        needs = plan_needs(plans.work.plan.remaining, config.main.mandatorybranches, applied.standing)
        repositories.clear_away(
            needs, config.main.retention, lambda repo: environments.uses(layout, applied.clinging, repo)
        )
        inventory.persist(layout, repositories.inventory())
        definitions = answers.asked_for(plans.environments.definitions)
        answers.remember(layout, Answers(repositories.lacking(), definitions))
    failures = [*commits.failures, *repositories.failures, *applied.failures]
    if hints is not None:
        failures += finish_hints(config, hints, repositories.failed())
    refused = plans.work.plan.refusals or plans.environments.refusals
    if repositories.is_at_rest and not (failures or refused or applied.clinging or plans.environments.protected):
        names = [definition.name for definition in applied.standing]
        next_look = retention.next_look(layout, config.main.retention)
        seal.put(config, layout, commits, plans.library.urls, needs, names, next_look)
    return Report(tuple(failures), bool(refused))


def keep_environments(layout: Layout) -> None:
    """Tell that there is nothing to do."""
    with executed("refresh_environments"):
        log.info("Refreshing environments...")
        planner = Planner(layout, Expansion({}), with_conf=False)
        environments.Stage(layout, Past({}, (), {}), planner).apply(EnvironmentsPlan((), (), (), ()))


def start_anew(config: Config, layout: Layout) -> None:
    """Clear away what earlier runs left. Raises StageError."""
    with staged(RepositoriesError):
        seal.remove(layout)
        retention.clear_left_overs(layout, config.main.retention)


def is_on_demand(config: Config, options: Options) -> bool:
    """Whether only what hints name is fetched."""
    return config.main.mode == "ONDEMAND" and not options.poll


def finish_hints(config: Config, hints: Hints, failed: Collection[RepoId]) -> list[str]:
    """Let hints go whose work is done; returned is what has failed, of the messages or of this."""
    events = demand.finish(config.messaging.queuedir, hints, failed)
    for event in events:
        log.log(event.level, "%s", event.text)
    return [event.text for event in (*hints.events, *events) if event.is_failure]


def git_options(config: Config) -> GitOptions:
    """How remotes are spoken to, as configured."""
    return GitOptions(config.git.ssh_cmd_path, config.git.timeout, config.git.clonetimeout)


@contextmanager
def executed(step: str) -> Iterator[None]:
    """Log how long a step took."""
    begin = time.perf_counter()
    yield
    log.info("Executed '%s' in %.2f ms", step, (time.perf_counter() - begin) * 1000)


@contextmanager
def staged(failure: type[StageError]) -> Iterator[None]:
    """Turn what no single item is to blame for into the failure of a stage."""
    try:
        yield
    except OSError as error:
        log.debug("The stage failed", exc_info=True)
        raise failure(error) from error


def plan(
    config: Config, layout: Layout, options: Options, commits: metadata.Snapshot, hints: Hints | None = None
) -> Plans:
    """Read metadata, cache and disk, and decide what there must be; without hints every remote is asked."""
    main = config.main
    guard = PurgeGuard(main.purgelimit, options.allow_purge, refusals.recall(layout))
    library = metadata.read_library(config, commits.repositories)
    declared = metadata.read_definitions(config, commits.environments)
    past = recall(layout, declared, main.hashprefix)
    for_environments = environments.plan_environments(declared, past, main.protectedenvironments, guard)
    known = inventory.fetch(layout)
    mirrored = [repo for repo in layout.repositories_in(layout.baredir) if gitwrapper.is_repository(layout.bare(repo))]
    for_repositories = plan_repositories(library, {*known, *mirrored}, guard)
    recorded = resolved_before(layout, for_environments.definitions, known)
    former = environments.former_definitions(layout, for_environments, past)
    needs = plan_needs(for_repositories.remaining, main.mandatorybranches, for_environments.definitions, former)
    work = Work(library, for_repositories, recorded, needs)
    if hints is not None:
        if unknown := demand.strangers(hints, library):
            log.warning("%s", unknown)
        said = answers.recall(layout)
        moving = said.fresh((*for_environments.new, *for_environments.changed))
        fresh = plan_needs(for_repositories.remaining, (), moving)
        work = replace(work, demand=Demand(hints.repos, said.lacking, fresh))
    return Plans(library, past, for_environments, work)


def remember_refusals(layout: Layout, plans: Plans) -> None:
    """What is refused now is not removed by a later run only because more is known by then. Raises OSError."""
    work, past = plans.work, plans.past
    refused = {repo.partition for repo in work.plan.kept if repo not in work.library.unusable}
    known = [repo for repo in (*work.plan.existing, *work.plan.kept) if repo.partition in refused]
    environments_known = {*past.remembered, *past.inferred} if plans.environments.refusals else set()
    refusals.remember(layout, refusals.recall(layout), known, environments_known)


def refresh_environments(config: Config, layout: Layout, plans: Plans, expansion: Expansion) -> Applied:
    """Bring environments in line with their definitions and with what repositories are expanded to."""
    for definition in (*plans.environments.new, *plans.environments.changed):
        for doubt in metadata.doubts(definition, plans.library):
            log.warning("Environment '%s' (%s) %s", definition.name, one_line(definition.address), doubt)
    planner = Planner(layout, expansion, with_conf=config.main.directory_environments)
    applied = environments.Stage(layout, plans.past, planner).apply(plans.environments)
    found = dangling.find(layout, applied.standing, expansion)
    dangling.report(layout, applied.standing, found, expansion)
    return applied
