"""The commits of the metadata that a run works from."""

from __future__ import annotations

import logging

from jens import deferred
from jens.errors import MetadataError
from jens.metadata import clones
from jens.metadata.clones import Revisions
from jens.update.baseline import Baseline
from jens.update.options import Context, timed

log = logging.getLogger(__name__)


def refresh(context: Context, baseline: Baseline | None) -> tuple[Baseline | None, Revisions]:
    """The commits to work from; the baseline is void when they are others than before. Raises MetadataError."""
    with timed("refresh_metadata"):
        log.info("Refreshing metadata...")
        if baseline is not None and clones.are_unchanged(context.config, baseline.revisions, context.remotes):
            return baseline, baseline.revisions
        # What is pushed together is to be seen together: first the metadata, then the branches.
        context.remotes.forget()
        return None, _refresh_clones(context)


def _refresh_clones(context: Context) -> Revisions:
    """Refresh both clones. On a full disk this takes the room that earlier runs have reserved. Raises MetadataError."""
    directories = clones.directories(context.config)
    try:
        revisions = clones.refresh(context.config, context.remotes)
    except MetadataError:
        if not deferred.reserve.release(directories):
            raise
        revisions = clones.refresh(context.config, context.remotes)
    deferred.reserve.fill(directories)
    return revisions
