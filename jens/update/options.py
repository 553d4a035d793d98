"""What a run was asked for, and works with. How its parts are timed, and fail as a whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jens.config import Config
from jens.errors import StageError
from jens.git.process import GitOptions, Limits, set_limits
from jens.git.remotes import Remotes
from jens.git.workers import DEFAULT_JOBS, Progress, no_progress
from jens.layout import Layout
from jens.statefile import StateError

log = logging.getLogger(__name__)


class Options(NamedTuple):
    """What the administrator asked for. With ``poll`` every remote is asked, whatever the configured mode.

    ``progress`` is called with what is being done, how many repositories are done, and how many there are.
    """

    allow_purge: bool = False
    poll: bool = False
    progress: Progress = no_progress


class Context(NamedTuple):
    """What all parts of a run work with."""

    config: Config
    layout: Layout
    remotes: Remotes
    options: Options

    @property
    def is_on_demand(self) -> bool:
        """Whether only repositories that hints name are fetched."""
        return is_on_demand(self.config, self.options)


@contextmanager
def opened(config: Config, options: Options) -> Iterator[Context]:
    """Open a run's context. Leaving it ends all questions to remotes that are under way."""
    git = config.git
    set_limits(Limits(git.clonetimeout, git.memory))
    git_options = GitOptions(git.ssh_cmd_path, git.timeout, git.clonetimeout)
    with Remotes(git_options, git.jobs or DEFAULT_JOBS) as remotes:
        yield Context(config, Layout.of(config), remotes, options)


def is_on_demand(config: Config, options: Options) -> bool:
    """Whether only repositories that hints name are fetched."""
    return config.main.mode == "ONDEMAND" and not options.poll


@contextmanager
def timed(action: str) -> Iterator[None]:
    """Log how long an action took, in milliseconds."""
    begin = time.perf_counter()
    yield
    log.info("Executed '%s' in %.2f ms", action, (time.perf_counter() - begin) * 1000)


@contextmanager
def failing_as(failure: type[StageError]) -> Iterator[None]:
    """Turn an error of files that no single item caused into the failure of a stage."""
    try:
        yield
    except (OSError, StateError) as error:
        log.debug("The stage failed", exc_info=True)
        raise failure(error) from error
