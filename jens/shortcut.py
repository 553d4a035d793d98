"""The short way through a run: what the last one left is untouched, so only what was pushed since is to be done.

It ends where a push changes more than the commits of branches: then the run goes the long way.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from jens import demand, environments, inventory, mirrors, retention, seal
from jens.config import Config
from jens.errors import RepositoriesError
from jens.layout import Layout
from jens.messaging import Hints
from jens.model import COMMON, Branch, Inventory, Library, RepoId, Report
from jens.pool import Progress, count, no_progress, result, workers
from jens.remotes import Remotes
from jens.repositories import Needs, RepositoriesPlan
from jens.repostage import Demand, RepositoriesStage, Work
from jens.seal import Seal
from jens.steps import executed, staged, tell_of_environments

log = logging.getLogger(__name__)


class _LongWay(Exception):
    """More has changed than commits of branches."""


def run(
    config: Config, layout: Layout, remotes: Remotes, sealed: Seal, hints: Hints | None, progress: Progress
) -> Report | None:
    """Bring up to date what hints name, or what remotes have that mirrors have not. None: the long way is to be gone.

    Raises StageError.
    """
    try:
        with executed("refresh_repositories"), staged(RepositoriesError):
            log.info("Refreshing repositories...")
            repos = _behind(config, layout, remotes, sealed, progress) if hints is None else _hinted(sealed, hints)
            stage = _bring_up_to_date(config, layout, remotes, sealed, repos, is_hinted=hints is not None)
    except _LongWay:
        return None
    tell_of_environments()
    failures = list(stage.failures)
    if hints is not None:
        failures += demand.finish_all(config.messaging.queuedir, hints, stage.failed())
    return Report(tuple(failures))


def _hinted(sealed: Seal, hints: Hints) -> list[RepoId]:
    if not hints.repos <= sealed.urls.keys():
        raise _LongWay
    return sorted(hints.repos)


def _bring_up_to_date(
    config: Config, layout: Layout, remotes: Remotes, sealed: Seal, repos: list[RepoId], *, is_hinted: bool
) -> RepositoriesStage:
    # Which items the common repositories have decides which links environments have.
    if any(repo.partition == COMMON for repo in repos):
        raise _LongWay
    known = inventory.fetch(layout) if repos else {}
    if not known.keys() >= set(repos):
        raise _LongWay
    stage = RepositoriesStage(layout, remotes, _work(config, sealed, repos, known, is_hinted=is_hinted))
    if not repos:
        stage.tell()
        return stage
    seal.remove(layout)
    stage.prepare(config.git.jobs, no_progress, silent=True)
    if not stage.has_only_moved():
        stage.give_up()
        raise _LongWay
    stage.tell()
    stage.switch(lambda entries: environments.detour(layout, sealed.environments, entries))
    log.info("Persisting repositories inventory...")
    inventory.persist(layout, {**known, **stage.inventory()})
    stage.clear_away(stage.needs, config.main.retention, only=repos)
    if stage.is_at_rest and not stage.failures:
        seal.renew(config, layout, sealed, retention.next_look(layout, config.main.retention))
    return stage


def _behind(config: Config, layout: Layout, remotes: Remotes, sealed: Seal, progress: Progress) -> list[RepoId]:
    """The repositories whose mirrors are not as their remotes are, or not as they should be."""
    with workers(config.git.jobs) as pool:
        asked = {
            repo: pool.submit(mirrors.is_current, layout.bare(repo), url, remotes) for repo, url in sealed.urls.items()
        }
        count(asked.values(), progress)
        return sorted(repo for repo, answer in asked.items() if not result(answer))


def _work(config: Config, sealed: Seal, repos: Collection[RepoId], known: Inventory, *, is_hinted: bool) -> Work:
    mandatory = frozenset(map(Branch, config.main.mandatorybranches))
    needs = {repo: Needs(mandatory, sealed.overrides(repo), sealed.implied(repo)) for repo in repos}
    urls = {repo: sealed.urls[repo] for repo in repos}
    plan = RepositoriesPlan((), tuple(repos), (), ())
    work = Work(Library(urls), plan, {repo: known[repo] for repo in repos}, needs)
    return replace(work, demand=Demand(frozenset(repos), {}, needs)) if is_hinted else work
