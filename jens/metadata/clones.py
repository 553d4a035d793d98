"""The two metadata clones: refreshes them, or tells that they are up to date."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jens.config import Config
from jens.errors import GitError, MetadataError
from jens.git import clones
from jens.git.clones import Upstream
from jens.git.remotes import Remotes
from jens.git.shells import Command
from jens.git.workers import result, workers

log = logging.getLogger(__name__)


class Revisions(NamedTuple):
    """The commits of both metadata repositories that a run works from; ``failures`` say what else went wrong."""

    upstreams: tuple[Upstream, Upstream]
    failures: tuple[str, ...] = ()

    @property
    def environments(self) -> str:
        """The commit of the environment metadata."""
        return self.upstreams[0].commit

    @property
    def repositories(self) -> str:
        """The commit of the repository metadata."""
        return self.upstreams[1].commit


def refresh(config: Config, remotes: Remotes, *, reset: bool = True) -> Revisions:
    """Fetch both clones, and reset their branches to those that they track; without ``reset`` these stay.

    Nobody needs their work trees: whatever is pushed would be laid out there. Raises MetadataError.
    """
    with workers(2) as pool:
        futures = [pool.submit(_refresh, directory, remotes, reset) for directory in directories(config)]
        outcomes = [result(future) for future in futures]
    clones.keep_from_others(config.main.repositorymetadata)  # earlier releases checked it out
    (environments, first), (repositories, second) = map(_raised, outcomes)
    return Revisions((environments, repositories), (*first, *second))


def _refresh(directory: Path, remotes: Remotes, reset: bool) -> tuple[Upstream, list[str]] | MetadataError:
    """What a clone tracks now, and what else went wrong. Returns an error, so as not to stop the other clone."""
    try:
        url = clones.remote_url(directory)
        upstream = remotes.converse(url, lambda options: clones.refresh_clone(directory, options))
    except (GitError, OSError) as error:
        return MetadataError(directory, str(error))
    return upstream, _reset(directory, upstream.commit) if reset else []


def _raised(outcome: tuple[Upstream, list[str]] | MetadataError) -> tuple[Upstream, list[str]]:
    if isinstance(outcome, MetadataError):
        raise outcome
    return outcome


def directories(config: Config) -> tuple[Path, Path]:
    """The clones of the environment metadata and of the repository metadata."""
    return config.main.environmentsmetadatadir, config.main.repositorymetadatadir


def ask(config: Config, revisions: Revisions, remotes: Remotes) -> None:
    """Begin to ask the remotes of both clones for the commits that they have now."""
    for directory, upstream, question in _questions(config, revisions):
        remotes.ask([question], clones.remote_url(directory, upstream.remote))


def are_unchanged(config: Config, revisions: Revisions, remotes: Remotes) -> bool:
    """Whether the remotes of both clones still have the commits of an earlier run. Raises MetadataError."""
    found = list(_questions(config, revisions))
    ask(config, revisions, remotes)
    for _ in remotes.replies_to(question for _, _, question in found):
        pass
    for directory, upstream, question in found:
        try:
            if clones.has_moved(upstream, remotes.reply(question)):
                return False
        except (GitError, OSError) as error:
            raise MetadataError(directory, str(error)) from error
    return True


def _questions(config: Config, revisions: Revisions) -> Iterator[tuple[Path, Upstream, Command]]:
    for directory, upstream in zip(directories(config), revisions.upstreams):
        yield directory, upstream, clones.question(directory, upstream)


def _reset(directory: Path, commit: str) -> list[str]:
    """Move the branch of a clone, which other tools read. A failure does not end the run: it reads from the commit."""
    try:
        clones.move_branch(directory, commit)
    except (GitError, OSError) as error:
        failure = f"The branch of '{directory}' could not be brought up to date: {error}"
        log.error("%s", failure)
        return [failure]
    return []


def current(config: Config) -> Revisions:
    """The commits that the last run worked from, read without a question to the remotes. Raises MetadataError."""
    first, second = (Upstream("", "", _head(directory)) for directory in directories(config))
    return Revisions((first, second))


def environments_commit(config: Config) -> str:
    """The commit of the environment metadata that the last run worked from. Raises MetadataError."""
    return _head(config.main.environmentsmetadatadir)


def library_commit(config: Config) -> str:
    """The commit of the repository metadata that the last run worked from. Raises MetadataError."""
    return _head(config.main.repositorymetadatadir)


def _head(directory: Path) -> str:
    try:
        return clones.head(directory)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error), "read") from error
