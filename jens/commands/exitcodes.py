"""The exit codes, and the errors that they belong to."""

from __future__ import annotations

from jens.errors import (
    ConfigError,
    DirectoryError,
    EnvironmentsError,
    HistoryError,
    HoldError,
    JensError,
    LibraryError,
    LockFailedError,
    LockHeldError,
    MetadataError,
    QueueError,
    RepositoriesError,
)

OK = 0
DIFFERENT = 1
CONFIGURATION = 2
DIRECTORY = 3
FAILED = 10
METADATA = 20
HINTS = 25
REPOSITORIES = 30
PURGE_REFUSED = 31
ENVIRONMENTS = 40
LOCKED = 50
LOCK_FAILED = 51
NOT_ALL_WELL = 60
UNFORESEEN = 70
INTERRUPTED = 130
_EXIT_CODES = {
    ConfigError: CONFIGURATION,
    DirectoryError: DIRECTORY,
    HistoryError: DIRECTORY,
    MetadataError: METADATA,
    QueueError: HINTS,
    LibraryError: REPOSITORIES,
    RepositoriesError: REPOSITORIES,
    HoldError: REPOSITORIES,
    EnvironmentsError: ENVIRONMENTS,
    LockHeldError: LOCKED,
    LockFailedError: LOCK_FAILED,
}


def status_of(error: BaseException) -> int:
    """The exit code that ``run_tool`` returns for an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    code = exit_code(error) if isinstance(error, JensError) else None
    return UNFORESEEN if code is None else code


def exit_code(error: JensError) -> int | None:
    """The exit code of an error, None for a kind that should have been handled before."""
    return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), None)
