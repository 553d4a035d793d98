"""What is common to all ways through a run: what was asked for, and how its steps are timed and fail."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jens.config import Config
from jens.errors import StageError
from jens.git.workers import Progress, no_progress
from jens.git.wrapper import GitOptions
from jens.model import PARTITIONS

log = logging.getLogger(__name__)


class LongWay(Exception):
    """More has changed than commits of branches."""


class Options(NamedTuple):
    """What the administrator asked for, whatever the configured mode: ``poll`` has every remote asked.

    ``progress`` is told what is done to repositories, and to how many of how many it has been.
    """

    allow_purge: bool = False
    poll: bool = False
    progress: Progress = no_progress


def is_on_demand(config: Config, options: Options) -> bool:
    """Whether only what hints name is fetched."""
    return config.main.mode == "ONDEMAND" and not options.poll


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


_OF_REPOSITORIES = (
    "New repositories: []",
    "Deleted repositories: []",
    "Cloning and expanding NEW bare repositories...",
    "Expanding EXISTING bare repositories...",
    "Purging REMOVED bare repositories...",
)
_OF_ENVIRONMENTS = (
    "Refreshing environments...",
    "New environments: []",
    "Existing and changed environments: []",
    "Deleted environments: []",
    "Creating new environments...",
    "Purging deleted environments...",
    "Recreating changed environments...",
    "Refreshing not changed environments...",
)


def tell_of_repositories() -> None:
    """Log that no repository changes."""
    for partition in PARTITIONS:
        log.info("Refreshing bare repositories (%s)", partition)
        for line in _OF_REPOSITORIES:
            log.info("%s", line)


def tell_of_environments() -> None:
    """Log that no environment changes."""
    with executed("refresh_environments"):
        for line in _OF_ENVIRONMENTS:
            log.info("%s", line)
