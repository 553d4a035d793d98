"""Plans a run: what it finds out and decides before it touches anything that is published."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from jens import deferred, purgeguard
from jens.environments.model import EnvironmentsPlan, Previous
from jens.events import Event
from jens.git import wrapper
from jens.layout import Layout
from jens.metadata import usages
from jens.metadata.clones import Revisions
from jens.model import Definition, Expansion, Library, RepoId, Usages, common_branch
from jens.purgeguard import PurgeGuard
from jens.repositories.model import Budget, Left, Needs, RepositoriesPlan
from jens.repositories.stage import Absent, OnDemand, RepositoriesStage, Work
from jens.text import one_line
from jens.update.baseline import Baseline, Seen, see
from jens.update.options import Context, versioning_of
from jens.update.scope import Scope

if TYPE_CHECKING:
    from jens.messaging.queue import Hints
    from jens.metadata.parsed import Parsed

log = logging.getLogger(__name__)


class Plans(NamedTuple):
    """What is to be done with the repositories and environments in the scope of the run, and what guards them.

    ``seen`` are fingerprints from before anything was looked at.
    """

    work: Work
    environments: EnvironmentsPlan
    previous: Previous
    guard: PurgeGuard
    parsed: Parsed | None = None
    seen: Seen = Seen()

    @property
    def is_refused(self) -> bool:
        """Whether the purge guard refuses removals."""
        return bool(self.work.plan.refusals or self.environments.refusals or self.environments.refused_changes)


def plan(context: Context, scope: Scope, revisions: Revisions, hints: Hints | None) -> Plans:
    """Decide what there must be. Raises LibraryError, DirectoryError, MetadataError, OSError."""
    if scope.baseline is not None:
        return _plan_some(context, scope.repos, scope.baseline, hints)
    seen = see(context.config, context.layout)
    left = deferred.patience.left(context)
    return plan_everything(context, revisions, hints, left)._replace(seen=seen)


def _plan_some(context: Context, repos: tuple[RepoId, ...], baseline: Baseline, hints: Hints | None) -> Plans:
    """Plan to bring some repositories up to date. Environments stay as they are."""
    needs = {repo: baseline.needs_of(repo, context.config.main.mandatorybranches) for repo in repos}
    recorded = deferred.inventory.load_some(context.layout, repos) if repos else {}
    library = Library({repo: baseline.urls[repo] for repo in repos})
    on_demand = None if hints is None else OnDemand(frozenset(repos), {}, needs)
    plan = RepositoriesPlan(existing=repos)
    work = Work(library, plan, recorded, needs, on_demand, budget=_budget(context), may_leave=_may_leave(context))
    guard = PurgeGuard(context.config.main.purgelimit)
    versioned = _versioned(context, baseline) if repos else ()
    previous = Previous({each.name: each for each in versioned}, baseline.environments)  # not to be remembered again
    return Plans(work, EnvironmentsPlan(unchanged=versioned), previous, guard)


def _versioned(context: Context, baseline: Baseline) -> tuple[Definition, ...]:
    """The definitions of environments with versions: what was pushed needs another version. Raises OSError."""
    names = [name for name in baseline.environments if versioning_of(context.config).has(name)]
    return deferred.previous.as_they_are(context.config, context.layout, names) if names else ()


def expansion_of(context: Context, scope: Scope, plans: Plans, repositories: RepositoriesStage) -> Expansion:
    """What environments can rely on. For versions a small scope needs the repositories that it did not look at."""
    expansion = repositories.expansion()
    if scope.baseline is None or not plans.environments.unchanged:
        return expansion
    inventory = {**deferred.inventory.load(context.layout), **expansion.inventory}
    whole = Expansion(
        inventory,
        expansion.missing,
        expansion.undetermined,
        frozenset(inventory.keys() - scope.baseline.urls.keys()),
        common_branch(context.config.main.mandatorybranches),
        {**usages.load(context.layout), **scope.baseline.usages()},
    )
    return whole.with_missing(plans.environments.unchanged, inventory.keys() - {*scope.repos})


def _budget(context: Context) -> Budget:
    return Budget(context.config.main.maxfiles, context.config.main.maxbytes)


def _may_leave(context: Context) -> bool:
    return context.config.git.patience > 0


def plan_everything(
    context: Context, revisions: Revisions, hints: Hints | None, left: Mapping[RepoId, Left] = MappingProxyType({})
) -> Plans:
    """Read metadata, cache and disk, and compare them. Without hints every remote is asked.

    What was ``left`` to jens-transfer is asked by nobody else.
    """
    config, layout = context.config, context.layout
    main = config.main
    guard = PurgeGuard(main.purgelimit, context.options.allow_purge, purgeguard.load_refusals(layout))
    library = usages.with_remembered(deferred.reader.read_library(config, revisions.repositories), usages.load(layout))
    parsed = deferred.parsed.Parsed.load(layout, main.prefixes)
    declared = deferred.reader.read_definitions(config, revisions.environments, parsed)
    previous = deferred.previous.look(layout, declared, main.prefixes, parsed)
    environments = deferred.environments_plan.plan_environments(
        declared, previous, main.protectedenvironments, guard, main.maxenvironments
    )
    known = deferred.inventory.load_or_generate(layout)
    mirrored = [repo for repo in layout.repositories_in(layout.baredir) if _may_be_mirrored(layout, repo)]
    held = deferred.repositories_plan.held_by_snapshots(environments.definitions)
    mirrored += _laid_out(layout, previous, library)
    shown = _shown_elsewhere(layout, environments, held - library.urls.keys())
    repositories = deferred.repositories_plan.plan_repositories(library, {*known, *mirrored}, guard, held, shown)
    recorded = deferred.previous.resolved_before(layout, environments.definitions, known)
    former = deferred.previous.former_definitions(layout, environments, previous)
    needs = deferred.repositories_plan.plan_needs(
        *(repositories.remaining, main.mandatorybranches, environments.definitions),
        *(former, repositories.pinned, library.usages),
    )
    common = common_branch(main.mandatorybranches)
    work = Work(library, repositories, recorded, needs, common=common, budget=_budget(context), left=left)
    work = work._replace(may_leave=_may_leave(context))
    return _with_what_remotes_lack(context, Plans(work, environments, previous, guard, parsed), hints)


def _laid_out(layout: Layout, previous: Previous, library: Library) -> list[RepoId]:
    """The repositories of holds that have checkouts, and that the library has no more: nothing else may know them."""
    kept = {repo for definition in previous.held.values() for repo in definition.overrides}
    return [repo for repo in kept - library.urls.keys() if os.path.isdir(layout.clone(repo))]


def _shown_elsewhere(layout: Layout, plan: EnvironmentsPlan, repos: Iterable[RepoId]) -> set[RepoId]:
    """Those repositories that environments have on disk whose definitions do not pin them."""
    return {
        repo
        for repo in repos
        if any(not each.pins(repo) and deferred.previous.shows(layout, each.name, repo) for each in plan.definitions)
    }


def _may_be_mirrored(layout: Layout, repo: RepoId) -> bool:
    """Whether there is a mirror; True as well when nobody can look now."""
    try:
        return wrapper.is_repository(layout.bare(repo))
    except OSError:
        return True


def _with_what_remotes_lack(context: Context, plans: Plans, hints: Hints | None) -> Plans:
    """Do not ask for what remotes did not have. With hints ask only these remotes, and those that must be asked."""
    work, environments = plans.work, plans.environments
    absent = deferred.absent_refs.load(context.layout)
    fresh = absent.fresh((*environments.new, *environments.changed))
    needs = deferred.repositories_plan.plan_needs(work.plan.remaining, (), fresh, usages=work.library.usages)
    needs = {**needs, **_named_anew(work.library.usages, usages.load(context.layout), needs)}
    commits = {
        repo: Absent(absent.lacking[repo].difference(needs[repo].refs), state)
        for repo, state in absent.states.items()
        if repo in absent.lacking and repo in needs
    }
    work = work._replace(absent=commits)
    if hints is None:
        return plans._replace(work=work)
    if unknown := deferred.hints.unknown_repositories(hints, work.library):
        log.warning("%s", unknown)
    return plans._replace(work=work._replace(on_demand=OnDemand(hints.repos, absent.lacking, needs)))


def _named_anew(now: Usages, before: Usages, needs: Mapping[RepoId, Needs]) -> dict[RepoId, Needs]:
    """The fresh needs of repositories of which the library says something else than before: their refs are fresh."""
    found = {}
    for repo, usage in now.items():
        if repo in needs and usage != before.get(repo):
            refs = {ref for ref in (usage.ref, usage.fallback) if ref is not None}
            found[repo] = needs[repo]._replace(overrides=needs[repo].overrides | refs)
    return found


def remember_refusals(layout: Layout, plans: Plans) -> Plans:
    """Save what is refused now, so that later runs refuse it too, even if they know more.

    Returns the plans. When refusals cannot be saved, nothing new is taken in: so later runs will not know more.
    """
    work, previous = plans.work, plans.previous
    refused = {repo.partition for repo in work.plan.kept if repo not in work.library.unusable}
    known = [repo for repo in (*work.plan.existing, *work.plan.kept) if repo.partition in refused]
    environments = previous.names if plans.environments.refusals else set()
    try:
        purgeguard.save_refusals(layout, purgeguard.load_refusals(layout), known, environments)
    except OSError as error:
        log.error("Unable to remember what is refused, so nothing new is taken in: %s", error)
        work = work._replace(plan=work.plan._replace(new=()))
        return plans._replace(work=work, environments=plans.environments._replace(new=()))
    return plans


def without_losses(plans: Plans, expansion: Expansion) -> Plans:
    """The plans, in which environments stay as they are that would lose too much."""
    if not plans.environments.changed:
        return plans
    environments = deferred.environments_plan.refuse_losses(plans.environments, plans.previous, expansion, plans.guard)
    return plans._replace(environments=environments)


def doubts(plans: Plans) -> Iterator[Event]:
    """Warnings about what new and changed definitions say, but probably do not mean."""
    for definition in (*plans.environments.new, *plans.environments.changed):
        for doubt in deferred.definition.doubts(definition, plans.work.library):
            text = f"Environment '{definition.name}' ({one_line(definition.address)}) {doubt}"
            yield Event(logging.WARNING, text)
