"""Makes new repositories from directories, for ``jens-init --example``. The only user of GitPython."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jens import deferred
from jens.errors import GitError
from jens.git import environment
from jens.text import one_line

#: Author and committer in the repositories that Jens makes.
_MAKER = {"NAME": "Jens", "EMAIL": "jens@example.org"}


def make_repository(directory: Path, message: str) -> None:
    """Turn a directory into a repository with one commit of all its files, on branch master. Raises GitError."""
    with _without_dropped_variables():
        _make_repository(directory, message)


@contextlib.contextmanager
def _without_dropped_variables() -> Iterator[None]:
    """Hide variables that Git must not see. GitPython reads the environment at its import, and passes it on to Git."""
    dropped = {name: os.environ.pop(name) for name in environment.dropped_variables()}
    try:
        yield
    finally:
        os.environ.update(dropped)


def _make_repository(directory: Path, message: str) -> None:
    try:
        import git  # noqa: PLC0415 - no run needs it, and its import is slow
    except ImportError as error:  # GitPython raises this when there is no Git
        import shutil  # noqa: PLC0415

        problem = "could not be started: there is no git on PATH" if shutil.which("git") is None else str(error)
        raise GitError("init", problem) from error
    identity = {f"GIT_{who}_{what}": _MAKER[what] for who in ("AUTHOR", "COMMITTER") for what in _MAKER}
    place = {"GIT_DIR": str(directory / ".git"), "GIT_WORK_TREE": str(directory)}  # so Git ignores who owns it
    for arguments in (
        ("init", "--quiet", "--template=", "--initial-branch=master"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", message),
    ):
        try:
            status, _, complaints = git.Git(directory).execute(
                ["git", *arguments],
                env={**environment.LOCAL, **identity, **place},
                with_extended_output=True,
                with_exceptions=False,
            )
        except (git.GitError, OSError) as error:
            raise GitError(arguments[0], one_line(str(error))) from error
        if status:
            problem = deferred.git_complaints.summary(complaints.encode("utf-8", "surrogateescape"), status, arguments)
            raise GitError(arguments[0], problem, status)
