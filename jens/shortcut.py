"""The short way through a run: what the last one left is untouched, so only what was pushed since is to be done.

It ends where a push changes more than the commits of branches: then the run goes the long way.
"""

# ruff: noqa: PLC0415 - a run that has nothing to do begins every minute, and needs little of this program

from __future__ import annotations

import logging

from jens import demand
from jens.config import Config
from jens.errors import RepositoriesError
from jens.layout import Layout
from jens.messaging import Hints
from jens.model import RepoId, Report
from jens.pool import Progress, count, result, workers
from jens.remotes import Remotes
from jens.seal import Seal
from jens.steps import LongWay, executed, staged, tell_of_environments, tell_of_repositories

log = logging.getLogger(__name__)


def run(
    config: Config, layout: Layout, remotes: Remotes, sealed: Seal, hints: Hints | None, progress: Progress
) -> Report | None:
    """Bring up to date what hints name, or what remotes have that mirrors have not. None: the long way is to be gone.

    Raises StageError.
    """
    failures: list[str] = []
    failed: set[RepoId] = set()
    try:
        with executed("refresh_repositories"), staged(RepositoriesError):
            log.info("Refreshing repositories...")
            repos = _behind(config, layout, remotes, sealed, progress) if hints is None else _hinted(sealed, hints)
            if repos:
                from jens import pushes

                stage = pushes.follow(config, layout, remotes, sealed, repos, is_hinted=hints is not None)
                failures, failed = list(stage.failures), stage.failed()
            else:
                tell_of_repositories()
    except LongWay:
        return None
    tell_of_environments()
    if hints is not None:
        failures += demand.finish_all(config.messaging.queuedir, hints, failed)
    return Report(tuple(failures))


def _hinted(sealed: Seal, hints: Hints) -> list[RepoId]:
    if not hints.repos <= sealed.urls.keys():
        raise LongWay
    return sorted(hints.repos)


def _behind(config: Config, layout: Layout, remotes: Remotes, sealed: Seal, progress: Progress) -> list[RepoId]:
    """The repositories whose mirrors are not as their remotes are, or not as they should be."""
    from jens import mirrors

    with workers(config.git.jobs) as pool:
        asked = {
            repo: pool.submit(mirrors.is_current, layout.bare(repo), url, remotes) for repo, url in sealed.urls.items()
        }
        count(asked.values(), progress)
        return sorted(repo for repo, answer in asked.items() if not result(answer))
