"""The failures that can end a run or one item: one base class and a few kinds.

The kinds carry fields, and ``__str__`` makes the sentence that an administrator reads. Only jens.commands knows the
exit codes.
"""

from __future__ import annotations

from pathlib import Path


class JensError(Exception):
    """Base of all failures that Jens foresees."""


class ConfigError(JensError):
    """The configuration cannot be used."""

    def __init__(self, path: Path, problem: str, section: str = "", key: str = "") -> None:
        super().__init__(path, problem, section, key)
        self.path = path
        self.problem = problem
        self.section = section
        self.key = key

    def __str__(self) -> str:
        where = f"{self.path}: "
        if self.section:
            where += f"[{self.section}] "
        if self.key:
            where += f"{self.key}: "
        return where + self.problem


class DirectoryError(JensError):
    """A configured directory or file is not what the run needs."""

    def __init__(self, key: str, path: Path, problem: str) -> None:
        super().__init__(key, path, problem)
        self.key = key
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.key} '{self.path}': {self.problem}"


class MetadataError(JensError):
    """An ``action`` on a metadata repository failed: it could not be "refreshed", for example."""

    def __init__(self, path: Path, problem: str, action: str = "refreshed") -> None:
        super().__init__(path, problem, action)
        self.path = path
        self.problem = problem
        self.action = action

    def __str__(self) -> str:
        return f"Metadata in '{self.path}' could not be {self.action}: {self.problem}"


class LibraryError(JensError):
    """The library cannot be used."""

    def __init__(self, path: Path, problem: str, line: int = 0) -> None:
        super().__init__(path, problem, line)
        self.path = path
        self.problem = problem
        self.line = line

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"The library of repositories is unusable: {where}: {self.problem}"


class QueueError(JensError):
    """The queue of hints cannot be used."""

    def __init__(self, path: Path, problem: str, action: str = "read") -> None:
        super().__init__(path, problem, action)
        self.path = path
        self.problem = problem
        self.action = action

    def __str__(self) -> str:
        return f"The queue of hints '{self.path}' could not be {self.action}: {self.problem} (queuedir in [messaging])"


class StageError(JensError):
    """A stage of the run failed as a whole, not one of its items."""

    def __init__(self, problem: object) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"Unable to refresh {self.stage}: {self.problem}"

    stage = ""


class RepositoriesError(StageError):
    """The repositories stage failed as a whole."""

    stage = "repositories"


class EnvironmentsError(StageError):
    """The environments stage failed as a whole."""

    stage = "environments"


class HoldError(JensError):
    """An environment could not be held; nothing that Puppet sees was changed."""

    def __init__(self, environment: str, problem: str) -> None:
        super().__init__(environment, problem)
        self.environment = environment
        self.problem = problem

    def __str__(self) -> str:
        return f"Environment '{self.environment}' is not held, and nothing was changed: {self.problem}"


class LockHeldError(JensError):
    """Somebody else holds the lock; ``holder`` says who, '' when that is not known."""

    def __init__(self, path: Path, holder: str = "") -> None:
        super().__init__(path, holder)
        self.path = path
        self.holder = holder

    def __str__(self) -> str:
        return f"Lock '{self.path}' is held by another process{f' ({self.holder})' if self.holder else ''}"


class LockFailedError(JensError):
    """The lock could not be tried, so nobody knows whether it is held."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"Lock '{self.path}' could not be tried: {self.problem} (lockdir in [filelock])"


class GitError(JensError):
    """Git could not do what it was asked for.

    ``problem`` is Git's own complaint in one line, without user names and passwords.
    """

    def __init__(self, verb: str, problem: str, status: int | None = None) -> None:
        super().__init__(verb, problem, status)
        self.verb = verb
        self.problem = problem
        self.status = status

    @property
    def is_cut_short(self) -> bool:
        """Whether Git did not come to an end of its own, or could not look: it tells nothing of the repository then."""
        return self.status is not None and self.status < 0

    def __str__(self) -> str:
        return f"git {self.verb}: {self.problem}"


class GitBusyError(GitError):
    """Nobody can tell now: another Git holds the repository's lock and does not end, or the system lacks resources.

    For example, there are too many open files, no memory is left, or a disk cannot be read.
    """

    is_cut_short = True


class WayOutError(JensError):
    """Paths in a checkout that environments link to lead out of the checkout, through symbolic links."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(paths)
        self.paths = paths

    def __str__(self) -> str:
        return f"its symbolic links make {', '.join(map(repr, self.paths))} lead out of it"


class GitLimitError(GitError):
    """Git exceeded a limit: it got no more memory, or printed more than Jens takes."""

    is_cut_short = True


class GitTimeoutError(GitError):
    """Git exceeded its time limit, and Jens ended it."""

    is_cut_short = True


class GitUnreachedError(GitError):
    """No connection to the server could be made: it is down, drops packets, or has no such name."""


class BudgetError(JensError):
    """A commit exceeds what Jens lays out; the problem is a clause."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class HistoryError(JensError):
    """The history cannot be read or written, or (no ``action``) lacks what was asked for."""

    def __init__(self, path: Path, problem: str, action: str = "read") -> None:
        super().__init__(path, problem, action)
        self.path = path
        self.problem = problem
        self.action = action

    def __str__(self) -> str:
        if not self.action:
            return f"The history '{self.path}' {self.problem}"
        return f"The history '{self.path}' could not be {self.action}: {self.problem}"
