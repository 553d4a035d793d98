"""Who has pushed what a fault is about, as far as history and metadata tell."""

from __future__ import annotations

import logging
import os

from jens.config import Config
from jens.errors import GitError
from jens.events import CHECKOUT, CONTENT, DANGLING_LINK, DEFINITION, MANDATORY_BRANCH, UNKNOWN_KEY, VOID_OVERRIDE
from jens.git import authors
from jens.history import since as changes
from jens.history.queries import FaultLife
from jens.history.store import Reader
from jens.layout import Layout, entry_ref
from jens.model import Branch
from jens.names import parse_repository

log = logging.getLogger(__name__)

#: Faults that whoever changed the definition has made.
_OF_DEFINITIONS = (DEFINITION, UNKNOWN_KEY, VOID_OVERRIDE)
_DIGITS = 7


class Pushes:
    """Tells who has pushed. Only that needs Git, and it is asked once for all definitions."""

    def __init__(self, config: Config, reader: Reader) -> None:
        self._layout = Layout.of(config)
        self._metadata = config.main.environmentsmetadatadir
        self._reader = reader
        self._known: dict[str, authors.LastChange | None] = {}

    @property
    def host(self) -> str:
        """The name of this host."""
        return os.uname().nodename

    def who(self, fault: FaultLife) -> str:
        """Who has pushed last what a fault is about, and what; '' when nobody knows. Raises HistoryError."""
        found = self._commit(fault) if fault.repository and fault.kind not in _OF_DEFINITIONS else None
        if found is not None:
            commit, author = found
            return f"{author} made the last commit there, {commit[:_DIGITS]}"
        change = self._definition(fault.environment) if fault.environment else None
        return f"{change.author} changed {fault.environment}.yaml last, in {change.commit[:_DIGITS]}" if change else ""

    def _commit(self, fault: FaultLife) -> tuple[str, str] | None:
        """The commit that a fault of a repository is about, and its author."""
        repository, ref = fault.repository or "", fault.ref or ""
        if fault.kind == CHECKOUT:
            return self._described(repository, ref)
        branch = _branch(fault.kind, ref)
        return None if branch is None else changes.last_push(self._reader, repository, branch)

    def _described(self, repository: str, commit: str) -> tuple[str, str] | None:
        try:
            return commit, authors.describe(self._layout.bare(parse_repository(repository)), commit).author
        except (GitError, OSError, ValueError) as error:
            log.debug("Nobody knows who made %s of %s: %s", commit, repository, error)
            return None

    def _definition(self, environment: str) -> authors.LastChange | None:
        if environment not in self._known:
            name = f"{environment}.yaml"
            try:
                self._known[environment] = authors.last_changes(self._metadata / ".git", "HEAD", [name]).get(name)
            except (GitError, OSError) as error:
                log.debug("Nobody knows who changed %s: %s", name, error)
                self._known[environment] = None
        return self._known[environment]


def _branch(kind: str, ref: str) -> str | None:
    """The branch that a fault is about, as the kinds name it in their refs; None when it is about no branch."""
    if kind == DANGLING_LINK:
        words, _, name = ref.partition(" ")
        return name.strip("'") if words == "branch" else None
    if kind == CONTENT:
        found = entry_ref(ref)
        return found.name if isinstance(found, Branch) else None
    return ref if kind == MANDATORY_BRANCH else None
