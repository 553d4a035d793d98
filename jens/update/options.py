"""What a run was asked for, and works with. How its parts are timed, and fail as a whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jens.config import Config
from jens.environments.model import Versioning
from jens.errors import StageError
from jens.events import CONFIGURATION
from jens.git.process import GitOptions, Limits, set_limits
from jens.git.remotes import Remotes
from jens.git.workers import DEFAULT_JOBS, Progress, affordable, no_progress, questions
from jens.layout import VERSIONS, Layout
from jens.model import Fault
from jens.statefile import StateError
from jens.system import limits

log = logging.getLogger(__name__)


class Options(NamedTuple):
    """What the administrator asked for. With ``poll`` every remote is asked, whatever the configured mode.

    ``progress`` is called with what is being done, how many repositories are done, and how many there are.
    """

    allow_purge: bool = False
    poll: bool = False
    progress: Progress = no_progress


def versioning_of(config: Config) -> Versioning:
    """Which environments have versions."""
    main = config.main
    seen_at = main.versionsdir or str(main.environmentsdir / VERSIONS)
    return Versioning(main.versionedenvironments, seen_at, main.config_version)


class Context(NamedTuple):
    """What all parts of a run work with; ``jobs`` is how many repositories are worked on at once.

    ``began`` is in seconds since the epoch.
    """

    config: Config
    layout: Layout
    remotes: Remotes
    options: Options
    jobs: int
    began: float = 0.0

    @property
    def is_on_demand(self) -> bool:
        """Whether only repositories that hints name are fetched."""
        return is_on_demand(self.config, self.options)


@contextmanager
def opened(config: Config, options: Options, *, is_patient: bool = False) -> Iterator[Context]:
    """Open a run's context. Leaving it ends all questions to remotes that are under way.

    Only who ``is_patient`` gives remotes all the time that they may have.
    """
    git = config.git
    timeout, clonetimeout = (
        limit if is_patient else within(limit, git.patience) for limit in (git.timeout, git.clonetimeout)
    )
    set_limits(Limits(git.clonetimeout, git.memory))  # nobody could go on with local work that was ended
    patience = 0 if is_patient else git.patience
    git_options = GitOptions(
        git.ssh_cmd_path, timeout, clonetimeout, is_patient, patience, share=git.share_connections and not is_patient
    )
    jobs = _jobs(git.jobs)
    with Remotes(git_options, jobs, questions(git.jobs)) as remotes:
        yield Context(config, Layout.of(config), remotes, options, jobs, time.time())


def _jobs(configured: int) -> int:
    """How many repositories to work on at once: as many as configured, if so many files may be open."""
    wanted, jobs = configured or DEFAULT_JOBS, affordable(configured)
    if jobs < wanted:
        text = "Only %d repositories are worked on at once, not %d: this process may open no more than %d files"
        log.log(logging.WARNING if configured else logging.INFO, text, jobs, wanted, limits.open_files())
    return jobs


def within(limit: int, patience: int) -> int:
    """The smaller one of two limits in seconds, of which 0 is none."""
    return min(filter(None, (limit, patience)), default=0)


def configuration_faults(config: Config) -> list[Fault]:
    """The keys and sections that nobody knows, a fault each."""
    return [Fault(CONFIGURATION, text, ref=text.partition(" is ignored")[0]) for text in config.unknown]


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
