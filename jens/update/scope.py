"""The short way through a run: what the last one left is untouched, so only what was pushed since is to be done.

It ends where a push changes more than the commits of branches: then the run goes the long way.
"""

# ruff: noqa: PLC0415 - a run that has nothing to do begins every minute, and needs little of this program

from __future__ import annotations

import logging
import os
import time
from threading import Thread
from typing import TYPE_CHECKING

from jens.config import Config
from jens.errors import GitError, RepositoriesError
from jens.git import wrapper
from jens.git.remotes import Remotes
from jens.git.shells import Command
from jens.git.workers import Progress
from jens.layout import Layout, commit_entry
from jens.metadata import clones
from jens.model import RepoId, Report
from jens.update.baseline import Baseline
from jens.update.options import LongWay, executed, staged, tell_of_environments, tell_of_repositories

if TYPE_CHECKING:
    from jens.messaging.queue import Hints

log = logging.getLogger(__name__)


def run(
    config: Config, layout: Layout, remotes: Remotes, sealed: Baseline, hints: Hints | None, progress: Progress
) -> Report | None:
    """Bring up to date what hints name, or what remotes have that mirrors have not. None: the long way is to be gone.

    Raises StageError.
    """
    failures: list[str] = []
    failed: set[RepoId] = set()
    try:
        with executed("refresh_repositories"), staged(RepositoriesError):
            log.info("Refreshing repositories...")
            repos = _behind(layout, remotes, sealed, progress) if hints is None else _hinted(sealed, hints)
            if repos:
                from jens.update import pushes

                stage = pushes.follow(config, layout, remotes, sealed, repos, is_hinted=hints is not None)
                failures, failed = list(stage.failures), stage.failed()
            else:
                tell_of_repositories()
    except LongWay:
        return None
    tell_of_environments()
    if hints is not None:
        from jens.messaging import hints as messaging_hints

        failures += messaging_hints.finish_all(config.messaging.queuedir, hints, failed)
    return Report(tuple(failures))


def _hinted(sealed: Baseline, hints: Hints) -> list[RepoId]:
    if not hints.repos <= sealed.urls.keys():
        raise LongWay
    return sorted(hints.repos)


def begin(config: Config, remotes: Remotes, sealed: Baseline, *, with_hints: bool) -> None:
    """Begin to ask what will have to be asked, and to import what hints will need, should there be any."""
    clones.ask(config, sealed.snapshot, remotes)
    if with_hints:
        from jens.messaging import hints as messaging_hints

        if messaging_hints.has_messages(config.messaging.queuedir):
            _get_ready()
    else:
        remotes.ask(map(wrapper.question, sealed.urls.values()))


def make_room(config: Config, layout: Layout, sealed: Baseline) -> Baseline | None:
    """Remove the checkouts whose time is over, and seal what is left. None: the long way is to be gone."""
    if time.time() < sealed.expires:
        return sealed
    from jens.repositories import retention
    from jens.update import baseline

    over = retention.expired(layout, config.main.retention)
    try:
        before = {repo: _names(layout, repo) - {commit_entry(commit) for commit in over[repo]} for repo in over}
        # What is wrong with a repository must not be sealed: it is looked at before, and its links after.
        if not all(repo in sealed.urls and sealed.has_repository(layout, repo) for repo in over):
            return None
        if not retention.clear_expired(layout, over) or {repo: _names(layout, repo) for repo in over} != before:
            return None
    except OSError:
        return None
    return baseline.renew(layout, sealed, over, retention.next_look(layout, config.main.retention))


def _names(layout: Layout, repo: RepoId) -> set[str]:
    """What there is below a repository's directory, links with where they lead. Raises OSError."""
    with os.scandir(layout.clone(repo)) as entries:
        return {f"{each.name} -> {os.readlink(each.path)}" if each.is_symlink() else each.name for each in entries}


def _get_ready() -> None:
    """Import, while remotes are asked, what following a push takes."""

    def load() -> None:
        from jens.update import pushes  # noqa: F401

    Thread(target=load, daemon=True).start()


def _behind(layout: Layout, remotes: Remotes, sealed: Baseline, progress: Progress) -> list[RepoId]:
    """The repositories whose mirrors are not as their remotes are, or not as they should be."""
    found: list[RepoId] = []
    is_ready = False
    asked: dict[Command, list[tuple[RepoId, str]]] = {}
    for repo, url in sealed.urls.items():
        asked.setdefault(wrapper.question(url), []).append((repo, url))
    for done, answered in enumerate(remotes.heard(asked), 1):
        progress("Asking", done, len(asked))
        if found and not is_ready:
            is_ready = True
            _get_ready()
        found += [repo for repo, url in asked[answered] if not _is_as_it_should_be(layout, remotes, sealed, repo, url)]
    return sorted(found)


def _is_as_it_should_be(layout: Layout, remotes: Remotes, sealed: Baseline, repo: RepoId, url: str) -> bool:
    """Whether a mirror is as the last run left it, and its remote too."""
    try:
        return sealed.has_mirror(layout, repo, remotes.answer(wrapper.question(url)))
    except GitError:
        return False
