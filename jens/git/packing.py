"""Packs a repository under its lock, within a time limit. Derived files that Git cannot read do not hold it up.

Nor does a commit-graph that Git cannot finish. Whoever pushes decides what dates commits have.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from jens.errors import GitError, GitTimeoutError
from jens.git import derived, lock, wrapper

log = logging.getLogger(__name__)

#: Seconds that a Git is given when its time is over already; 0 would be no limit.
_LEAST = 0.001

#: Seconds that writing a commit-graph may take: a million commits take a tenth of that.
GRAPH_SECONDS = 300.0
#: A file that tells that this was not enough, and seconds for which it counts. A mirror that is made anew has none.
_NO_GRAPH, _COUNTS_FOR = "jens.no-commit-graph", 90 * 86400.0


class Packing:
    """The packing of one repository, whose lock is ``held``; all of it takes ``limit`` seconds at most, 0 for any."""

    def __init__(self, bare: Path, held: int, limit: float) -> None:
        self._bare = bare
        self._held = held
        self._end = time.monotonic() + limit if limit else None

    def _left(self) -> float:
        return max(self._end - time.monotonic(), _LEAST) if self._end is not None else 0

    def gc(self, *, aggressive: bool) -> None:
        """Pack, and once more without any derived file if Git fails. Raises GitError, OSError."""
        self._gc(aggressive=aggressive)
        self._write_commit_graph()

    def pack_new(self) -> None:
        """Pack only what is new, which is soon done. Raises GitError, OSError."""
        derived.remove_damaged(self._bare)
        try:
            wrapper.pack_new(self._bare, held=self._held, limit=self._left())
        except GitError:
            lock.remove_left_overs(self._bare)
            raise

    def _write_commit_graph(self) -> None:
        """Write the commit-graph, which nothing depends on, unless that has taken too long not long ago."""
        mark = self._bare / _NO_GRAPH
        if _is_younger(mark, _COUNTS_FOR):
            return
        limit = min(filter(None, (self._left(), GRAPH_SECONDS)))
        try:
            wrapper.write_commit_graph(self._bare, held=self._held, limit=limit)
        except GitError as error:
            lock.remove_left_overs(self._bare)
            if isinstance(error, GitTimeoutError):
                mark.touch()
                text = "Git does not finish the commit-graph of '%s' within %g seconds, so it goes without for 90 days"
                log.warning(text, self._bare, limit)
            else:
                log.info("'%s' has no new commit-graph: %s", self._bare, error)

    def _gc(self, *, aggressive: bool) -> None:
        derived.remove_damaged(self._bare)
        try:
            self._try(aggressive=aggressive)
        except GitError as error:
            if error.is_cut_short or not derived.remove_all(self._bare):
                raise
            log.warning("Packing '%s' again without commit-graph and reverse indexes: %s", self._bare, error)
            self._try(aggressive=aggressive)

    def _try(self, *, aggressive: bool) -> None:
        try:
            wrapper.gc(self._bare, aggressive=aggressive, held=self._held, limit=self._left())
        except GitError:
            lock.remove_left_overs(self._bare)
            raise

    def is_intact(self) -> bool:
        """Whether the repository has all its objects, undamaged. Raises GitError when nobody can tell now."""
        return wrapper.is_intact(self._bare, held=self._held, limit=self._left())


def _is_younger(path: Path, seconds: float) -> bool:
    try:
        return abs(time.time() - os.lstat(path).st_mtime) < seconds
    except OSError:
        return False
