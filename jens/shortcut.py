"""The short way through a run: what the last one left is untouched, so only what was pushed since is to be done.

It ends where a push changes more than the commits of branches: then the run goes the long way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import replace

from jens import environments, inventory, mirrors, retention, seal
from jens.config import Config
from jens.layout import Layout
from jens.messaging import Hints
from jens.model import COMMON, Inventory, Library, RepoId
from jens.pool import Progress, count, no_progress, result, workers
from jens.remotes import Remotes
from jens.repositories import RepositoriesPlan
from jens.repostage import Demand, RepositoriesStage, Work
from jens.seal import Seal

log = logging.getLogger(__name__)


def run(
    config: Config, layout: Layout, remotes: Remotes, sealed: Seal, hints: Hints | None, progress: Progress
) -> RepositoriesStage | None:
    """Bring up to date what hints name, or what remotes have that mirrors have not. None: the long way is to be gone.

    Raises OSError.
    """
    hinted = None if hints is None else hints.repos
    if hinted is not None and not hinted <= sealed.urls.keys():
        return None
    repos = _behind(config, layout, remotes, sealed, progress) if hinted is None else sorted(hinted)
    # Which items the common repositories have decides which links environments have.
    if any(repo.partition == COMMON for repo in repos):
        return None
    known = inventory.fetch(layout) if repos else {}
    if not known.keys() >= set(repos):
        return None
    stage = RepositoriesStage(layout, remotes, _work(config, sealed, repos, known, is_hinted=hinted is not None))
    log.info("Nothing but remotes has to be looked at until %s", _time(sealed.due))
    if repos:
        seal.remove(layout)
    stage.prepare(config.git.jobs, no_progress, silent=True)
    if not stage.has_only_moved():
        stage.give_up()
        return None
    stage.tell()
    if repos:
        stage.switch(lambda entries: environments.detour(layout, sealed.environments, entries))
        log.info("Persisting repositories inventory...")
        inventory.persist(layout, {**known, **stage.inventory()})
        stage.clear_away(stage.needs, config.main.retention, only=repos)
        if stage.is_at_rest and not stage.failures:
            seal.renew(config, layout, sealed, retention.next_look(layout, config.main.retention))
    return stage


def _time(due: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(due))


def _behind(config: Config, layout: Layout, remotes: Remotes, sealed: Seal, progress: Progress) -> list[RepoId]:
    """The repositories whose mirrors are not as their remotes are, or not as they should be."""
    with workers(config.git.jobs) as pool:
        asked = {
            repo: pool.submit(mirrors.is_current, layout.bare(repo), url, remotes) for repo, url in sealed.urls.items()
        }
        count(asked.values(), progress)
        return sorted(repo for repo, answer in asked.items() if not result(answer))


def _work(config: Config, sealed: Seal, repos: Collection[RepoId], known: Inventory, *, is_hinted: bool) -> Work:
    needs = {repo: sealed.needs(repo, config.main.mandatorybranches) for repo in repos}
    urls = {repo: sealed.urls[repo] for repo in repos}
    plan = RepositoriesPlan((), tuple(repos), (), ())
    work = Work(Library(urls), plan, {repo: known[repo] for repo in repos}, needs)
    return replace(work, demand=Demand(frozenset(repos), {}, needs)) if is_hinted else work
