"""Packs a repository under its lock, within a time limit. Derived files that Git cannot read do not hold it up."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from jens.errors import GitError
from jens.git import derived, lock, wrapper

log = logging.getLogger(__name__)

#: Seconds that a Git is given when its time is over already; 0 would be no limit.
_LEAST = 0.001


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
