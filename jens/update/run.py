"""The update run: the short way where nothing but pushes can have happened, or else the long way."""

# ruff: noqa: PLC0415 - a run that has nothing to do begins every minute, and needs little of this program

from __future__ import annotations

import logging
import time

from jens.config import Config
from jens.errors import RepositoriesError
from jens.git.remotes import Remotes
from jens.git.workers import DEFAULT_JOBS
from jens.layout import Layout
from jens.metadata import clones
from jens.model import Report
from jens.update import baseline, scope
from jens.update.options import Options, executed, git_options, is_on_demand, staged

log = logging.getLogger(__name__)


def run(config: Config, options: Options) -> Report:
    """Bring everything up to date. Raises MetadataError, QueueError, LibraryError, DirectoryError, StageError."""
    layout = Layout.of(config)
    with Remotes(git_options(config), config.git.jobs or DEFAULT_JOBS) as remotes:
        return _run(config, layout, remotes, options)


def _run(config: Config, layout: Layout, remotes: Remotes, options: Options) -> Report:
    sealed = None if options.allow_purge else baseline.load(config, layout)
    if sealed:
        scope.begin(config, remotes, sealed, with_hints=is_on_demand(config, options))
        is_unbroken = sealed.is_unbroken(config, layout, remotes.go_on)
        sealed = scope.make_room(config, layout, sealed) if is_unbroken else None
        if sealed is None:
            remotes.forget()
    is_clean = sealed is not None or start_anew(config, layout)
    with executed("refresh_metadata"):
        log.info("Refreshing metadata...")
        if sealed and clones.are_unchanged(config, sealed.snapshot, remotes):
            commits = sealed.snapshot
        else:
            sealed = None
            remotes.forget()  # what is pushed together is to be seen together: first the metadata, then the branches
            commits = clones.refresh(config, remotes.options)
    hints = None
    if is_on_demand(config, options):
        from jens.messaging import hints as messaging_hints

        with executed("fetch_update_hints"):
            hints = messaging_hints.take(config.messaging.queuedir)
    if sealed:
        log.info(
            "Nothing but pushes has to be looked at until %s", time.strftime("%H:%M:%S", time.localtime(sealed.due))
        )
        report = scope.run(config, layout, remotes, sealed, hints, options.progress)
        if report:
            return report
        is_clean = start_anew(config, layout)
    from jens.update import longway

    return longway.run(config, layout, remotes, options, commits, hints, is_clean=is_clean)


def start_anew(config: Config, layout: Layout) -> bool:
    """Clear away what earlier runs left, as far as it can be: whether all could. Raises StageError."""
    from jens.repositories import retention

    with staged(RepositoriesError):
        baseline.remove(layout)
        return retention.clear_left_overs(layout, config.main.retention)
