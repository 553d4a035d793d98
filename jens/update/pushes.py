"""Pushes to a few repositories, of an instance in which nothing else has changed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from jens.config import Config
from jens.events import Event
from jens.git.remotes import Remotes
from jens.git.workers import no_progress
from jens.layout import Layout
from jens.model import COMMON, Branch, Inventory, Library, RepoId
from jens.repositories import inventory, retention
from jens.repositories.model import Needs, RepositoriesPlan
from jens.repositories.stage import Demand, RepositoriesStage, Work
from jens.statefile import StateError
from jens.update import baseline
from jens.update.baseline import Baseline
from jens.update.options import LongWay

log = logging.getLogger(__name__)


def follow(
    config: Config, layout: Layout, remotes: Remotes, sealed: Baseline, repos: list[RepoId], *, is_hinted: bool
) -> RepositoriesStage:
    """Bring these repositories up to date, and switch their branches. Raises LongWay, OSError."""
    # Which items the common repositories have decides which links environments have.
    if any(repo.partition == COMMON for repo in repos):
        raise LongWay
    try:
        work = _work(config, sealed, repos, inventory.load_some(layout, repos), is_hinted=is_hinted)
    except (StateError, ValueError) as error:
        raise LongWay from error
    stage = RepositoriesStage(layout, remotes, work)
    baseline.remove(layout)
    stage.prepare(config.git.jobs, no_progress, silent=True)
    if not stage.has_only_moved():
        stage.give_up()
        raise LongWay
    stage.tell()
    stage.switch(lambda entries: _detour(layout, sealed, entries))
    log.info("Persisting repositories inventory...")
    inventory.save_some(layout, stage.inventory())
    stage.clear_away(stage.needs, config.main.retention, only=repos)
    if stage.is_at_rest and not stage.failures:
        baseline.renew(layout, sealed, repos, retention.next_look(layout, config.main.retention))
    return stage


def _detour(layout: Layout, sealed: Baseline, entries: Mapping[tuple[RepoId, str], str]) -> list[Event]:
    from jens.environments import stage as environments_stage  # noqa: PLC0415 - there is next to never something in the way

    return environments_stage.detour(layout, sealed.environments, entries)


def _work(config: Config, sealed: Baseline, repos: Collection[RepoId], known: Inventory, *, is_hinted: bool) -> Work:
    mandatory = frozenset(map(Branch, config.main.mandatorybranches))
    needs = {repo: Needs(mandatory, sealed.overrides(repo), sealed.implied(repo)) for repo in repos}
    urls = {repo: sealed.urls[repo] for repo in repos}
    plan = RepositoriesPlan((), tuple(repos), (), ())
    work = Work(Library(urls), plan, known, needs)
    return work._replace(demand=Demand(frozenset(repos), {}, needs)) if is_hinted else work
