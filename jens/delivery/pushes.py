"""Who has pushed what a fault is about, as far as history and metadata tell."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence

from jens.config import Config
from jens.delivery.news import identity
from jens.errors import GitError
from jens.events import CHECKOUT, CONTENT, DANGLING_LINK, DEFINITION, MANDATORY_BRANCH, UNKNOWN_KEY, VOID_OVERRIDE
from jens.git import authors
from jens.history import since as changes
from jens.history.queries import FaultLife
from jens.history.store import Reader
from jens.layout import Layout, entry_ref
from jens.model import Branch, Commit, Tag
from jens.names import parse_repository

log = logging.getLogger(__name__)

#: Faults that whoever changed the definition has made.
_OF_DEFINITIONS = (DEFINITION, UNKNOWN_KEY, VOID_OVERRIDE)
_DIGITS = 7


class Pushes:
    """Tells who has pushed what some faults are about.

    The history is asked at once. Git is asked when somebody wants to know, once for all definitions: in the thread of
    a receiver, so that nobody else waits for it.
    """

    def __init__(self, config: Config, reader: Reader, faults: Sequence[FaultLife]) -> None:
        self._layout = Layout.of(config)
        self._metadata = config.main.environmentsmetadatadir
        self._moves = {identity(fault): changes.last_push(reader, *branch) for fault, branch in _branches(faults)}
        self._names = {f"{fault.environment}.yaml" for fault in faults if fault.environment}
        self._definitions: Mapping[str, authors.LastChange] | None = None
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        """The name of this host."""
        return os.uname().nodename

    def who(self, fault: FaultLife) -> str:
        """Who has pushed last what a fault is about, and what; '' when nobody knows."""
        found = self._moves.get(identity(fault))
        if fault.kind == CHECKOUT:
            found = self._described(fault.repository or "", fault.ref or "")
        if found is not None:
            commit, author = found
            return f"{author} made the last commit there, {commit[:_DIGITS]}"
        change = self._changes().get(f"{fault.environment}.yaml") if fault.environment else None
        return f"{change.author} changed {fault.environment}.yaml last, in {change.commit[:_DIGITS]}" if change else ""

    def _described(self, repository: str, commit: str) -> tuple[str, str] | None:
        try:
            return commit, authors.describe(self._layout.bare(parse_repository(repository)), commit).author
        except (GitError, OSError, ValueError) as error:
            log.debug("Nobody knows who made %s of %s: %s", commit, repository, error)
            return None

    def _changes(self) -> Mapping[str, authors.LastChange]:
        """The last changes of the definitions of all faults."""
        with self._lock:
            if self._definitions is None:
                try:
                    self._definitions = authors.last_changes(self._metadata / ".git", "HEAD", self._names)
                except (GitError, OSError) as error:
                    log.debug("Nobody knows who changed definitions: %s", error)
                    self._definitions = {}
            return self._definitions


def _branches(faults: Sequence[FaultLife]) -> Iterator[tuple[FaultLife, tuple[str, str]]]:
    """The faults that are about a branch or a tag, with repository and its key."""
    for fault in faults:
        if fault.repository and fault.kind not in _OF_DEFINITIONS:
            branch = _branch(fault.kind, fault.ref or "")
            if branch is not None:
                yield fault, (fault.repository, branch)


def _branch(kind: str, ref: str) -> str | None:
    """The key of the branch or tag that a fault is about, as the kinds name it in their refs; None for neither."""
    if kind == DANGLING_LINK:
        words, _, name = ref.partition(" ")
        kinds = {"branch": Branch, "tag": Tag}
        return kinds[words](name.strip("'")).key if words in kinds else None
    if kind == CONTENT:
        found = entry_ref(ref)
        return None if found is None or isinstance(found, Commit) else found.key
    return ref if kind == MANDATORY_BRANCH else None
