"""What a run was asked for and works with; how its steps are timed, and fail as a whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jens.config import Config
from jens.errors import StageError
from jens.git.process import GitOptions
from jens.git.remotes import Remotes
from jens.git.workers import DEFAULT_JOBS, Progress, no_progress
from jens.layout import Layout

log = logging.getLogger(__name__)


class Options(NamedTuple):
    """What the administrator asked for: ``poll`` has every remote asked, whatever the configured mode.

    ``progress`` is told what is done to repositories, and to how many of how many.
    """

    allow_purge: bool = False
    poll: bool = False
    progress: Progress = no_progress


class Context(NamedTuple):
    """What all steps of a run work with."""

    config: Config
    layout: Layout
    remotes: Remotes
    options: Options

    @property
    def is_on_demand(self) -> bool:
        """Whether only what hints name is fetched."""
        return is_on_demand(self.config, self.options)


@contextmanager
def opened(config: Config, options: Options) -> Iterator[Context]:
    """A run's context; leaving it ends all questions that are under way."""
    git = config.git
    git_options = GitOptions(git.ssh_cmd_path, git.timeout, git.clonetimeout)
    with Remotes(git_options, git.jobs or DEFAULT_JOBS) as remotes:
        yield Context(config, Layout.of(config), remotes, options)


def is_on_demand(config: Config, options: Options) -> bool:
    """Whether only what hints name is fetched."""
    return config.main.mode == "ONDEMAND" and not options.poll


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
