"""The configured directories: whether they can be used, and what must be in them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from jens.config import Config
from jens.errors import DirectoryError
from jens.layout import Layout
from jens.system import files

_WRITABLE = ("logdir", "baredir", "clonedir", "cachedir", "environmentsdir")
_METADATA = ("environmentsmetadatadir", "repositorymetadatadir")


def check_directories(config: Config) -> None:
    """Raises DirectoryError for the first configured directory that a run could not use."""
    for key in (*_WRITABLE, *_METADATA):
        check_writable(key, getattr(config.main, key))
    for key in _METADATA:
        _check_clone(key, getattr(config.main, key))


def _check_clone(key: str, path: Path) -> None:
    if not os.path.isdir(path / ".git"):
        raise DirectoryError(key, path, "is no Git repository, expected a clone with a .git directory")


def check_writable(key: str, path: Path) -> None:
    """Raises DirectoryError unless this is a directory to work in."""
    if not os.path.isdir(path):
        problem = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise DirectoryError(key, path, problem)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise DirectoryError(key, path, "cannot be written")


def check_readable(config: Config, keys: Iterable[str]) -> None:
    """Raises DirectoryError for the first of these directories of [main] that cannot be read."""
    for key in keys:
        path: Path = getattr(config.main, key)
        if not os.access(path, os.F_OK):
            raise DirectoryError(key, path, "does not exist")
        if not os.path.isdir(path):
            raise DirectoryError(key, path, "is not a directory")
        if not os.access(path, os.R_OK | os.X_OK):
            raise DirectoryError(key, path, "cannot be read")
        if key in _METADATA:
            _check_clone(key, path)


def check_queue(config: Config) -> None:
    """Raises DirectoryError when the queue of hints is not there, or what was read in it could not be removed."""
    path = config.messaging.queuedir
    if not os.path.lexists(path):
        raise DirectoryError("queuedir", path, "does not exist")
    if os.path.isdir(path) and os.access(path, os.R_OK) and not os.access(path, os.W_OK | os.X_OK):
        raise DirectoryError("queuedir", path, "cannot be written")


def make_directories(config: Config) -> None:
    """Make what lies inside the configured directories. Raises DirectoryError."""
    layout = Layout.of(config)
    inside = {"baredir": layout.partitions(layout.baredir), "clonedir": layout.partitions(layout.clonedir)}
    inside["cachedir"] = [layout.definitions]
    for key, paths in inside.items():
        for path in paths:
            try:
                files.make_directory(path)
            except OSError as error:
                raise DirectoryError(key, path, f"cannot be made: {error.strerror}") from error
