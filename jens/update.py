"""The update run: the short way where nothing but pushes can have happened, or else the long way."""

# ruff: noqa: PLC0415 - a run that has nothing to do begins every minute, and needs little of this program

from __future__ import annotations

import logging
import time

from jens import seal, shortcut, tracking
from jens.config import Config
from jens.errors import RepositoriesError
from jens.layout import Layout
from jens.model import Report
from jens.pool import DEFAULT_JOBS
from jens.remotes import Remotes
from jens.steps import Options, executed, git_options, is_on_demand, staged

log = logging.getLogger(__name__)


def run(config: Config, options: Options) -> Report:
    """Bring everything up to date. Raises MetadataError, QueueError, LibraryError, DirectoryError, StageError."""
    layout = Layout.of(config)
    with Remotes(git_options(config), config.git.jobs or DEFAULT_JOBS) as remotes:
        return _run(config, layout, remotes, options)


def _run(config: Config, layout: Layout, remotes: Remotes, options: Options) -> Report:
    sealed = None if options.allow_purge else seal.recall(config, layout)
    if sealed:
        shortcut.begin(config, remotes, sealed, with_hints=is_on_demand(config, options))
        if sealed.is_unbroken(config, layout, remotes.go_on):
            sealed = shortcut.make_room(config, layout, sealed)
        else:
            sealed = None
        if sealed is None:
            remotes.forget()
    is_clean = sealed is not None or start_anew(config, layout)
    with executed("refresh_metadata"):
        log.info("Refreshing metadata...")
        if sealed and tracking.are_unchanged(config, sealed.snapshot, remotes):
            commits = sealed.snapshot
        else:
            sealed = None
            remotes.forget()  # what is pushed together is to be seen together: first the metadata, then the branches
            commits = tracking.refresh(config, remotes.options)
    hints = None
    if is_on_demand(config, options):
        from jens import demand

        with executed("fetch_update_hints"):
            hints = demand.take(config.messaging.queuedir)
    if sealed:
        log.info(
            "Nothing but pushes has to be looked at until %s", time.strftime("%H:%M:%S", time.localtime(sealed.due))
        )
        report = shortcut.run(config, layout, remotes, sealed, hints, options.progress)
        if report:
            return report
        is_clean = start_anew(config, layout)
    from jens import longway

    return longway.run(config, layout, remotes, options, commits, hints, is_clean=is_clean)


def start_anew(config: Config, layout: Layout) -> bool:
    """Clear away what earlier runs left, as far as it can be: whether all could. Raises StageError."""
    from jens import retention

    with staged(RepositoriesError):
        seal.remove(layout)
        return retention.clear_left_overs(layout, config.main.retention)
