"""Pushes to a few repositories, of an instance in which nothing else has changed."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from jens import environments, inventory, retention, seal
from jens.config import Config
from jens.layout import Layout
from jens.model import COMMON, Branch, Inventory, Library, RepoId
from jens.pool import no_progress
from jens.remotes import Remotes
from jens.repositories import Needs, RepositoriesPlan
from jens.repostage import Demand, RepositoriesStage, Work
from jens.seal import Seal
from jens.steps import LongWay

log = logging.getLogger(__name__)


def follow(
    config: Config, layout: Layout, remotes: Remotes, sealed: Seal, repos: list[RepoId], *, is_hinted: bool
) -> RepositoriesStage:
    """Bring these repositories up to date, and switch their branches. Raises LongWay, OSError."""
    # Which items the common repositories have decides which links environments have.
    if any(repo.partition == COMMON for repo in repos):
        raise LongWay
    known = inventory.fetch(layout)
    if not known.keys() >= set(repos):
        raise LongWay
    stage = RepositoriesStage(layout, remotes, _work(config, sealed, repos, known, is_hinted=is_hinted))
    seal.remove(layout)
    stage.prepare(config.git.jobs, no_progress, silent=True)
    if not stage.has_only_moved():
        stage.give_up()
        raise LongWay
    stage.tell()
    stage.switch(lambda entries: environments.detour(layout, sealed.environments, entries))
    log.info("Persisting repositories inventory...")
    inventory.persist(layout, {**known, **stage.inventory()})
    stage.clear_away(stage.needs, config.main.retention, only=repos)
    if stage.is_at_rest and not stage.failures:
        seal.renew(config, layout, sealed, retention.next_look(layout, config.main.retention))
    return stage


def _work(config: Config, sealed: Seal, repos: Collection[RepoId], known: Inventory, *, is_hinted: bool) -> Work:
    mandatory = frozenset(map(Branch, config.main.mandatorybranches))
    needs = {repo: Needs(mandatory, sealed.overrides(repo), sealed.implied(repo)) for repo in repos}
    urls = {repo: sealed.urls[repo] for repo in repos}
    plan = RepositoriesPlan((), tuple(repos), (), ())
    work = Work(Library(urls), plan, {repo: known[repo] for repo in repos}, needs)
    return replace(work, demand=Demand(frozenset(repos), {}, needs)) if is_hinted else work
