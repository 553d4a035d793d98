"""From the two metadata clones to a Library and Definitions: refreshed, read from the commit, checked."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from jens import workclones
from jens.config import Config
from jens.errors import DirectoryError, GitError, LibraryError, MetadataError
from jens.gitwrapper import GitOptions
from jens.model import Declared, Library
from jens.pool import result, workers
from jens.rules import SUFFIX, doubts, parse_definition, parse_library, read_definition
from jens.workclones import Tracked
from jens.yamldoc import LARGEST, YamlError

__all__ = ["doubts", "parse_definition", "parse_library", "read_definition"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The commits of both metadata repositories that a run works from, and what else did not go well."""

    tracked: tuple[Tracked, Tracked]
    failures: tuple[str, ...] = ()

    @property
    def environments(self) -> str:
        """The commit of the environment metadata."""
        return self.tracked[0].commit

    @property
    def repositories(self) -> str:
        """The commit of the repository metadata."""
        return self.tracked[1].commit


def refresh(config: Config, options: GitOptions, *, reset: bool = True) -> Snapshot:
    """Fetch both clones and reset them to what they track; without ``reset`` the work trees stay.

    Raises MetadataError.
    """
    found = []
    failures: list[str] = []
    for directory in directories(config):
        try:
            tracked = workclones.refresh_clone(directory, options)
        except (GitError, OSError) as error:
            raise MetadataError(directory, str(error)) from error
        found.append(tracked)
        failures += _reset(directory, tracked.commit) if reset else []
    environments, repositories = found
    return Snapshot((environments, repositories), tuple(failures))


def directories(config: Config) -> tuple[Path, Path]:
    """The clones of the environment metadata and of the repository metadata."""
    return config.main.environmentsmetadatadir, config.main.repositorymetadatadir


def are_unchanged(config: Config, snapshot: Snapshot, options: GitOptions) -> bool:
    """Whether the remotes of both clones, asked at the same time, still have what an earlier run worked from.

    Raises MetadataError.
    """
    with workers(2) as pool:
        asked = [
            (directory, pool.submit(workclones.has_moved, directory, tracked, options))
            for directory, tracked in zip(directories(config), snapshot.tracked)
        ]
        for directory, answer in asked:
            try:
                if result(answer):
                    return False
            except (GitError, OSError) as error:
                raise MetadataError(directory, str(error)) from error
    return True


def _reset(directory: Path, commit: str) -> list[str]:
    """Bring a work tree up to date; since nobody reads metadata from there, one bad file of it stops nothing."""
    try:
        workclones.reset_clone(directory, commit)
    except (GitError, OSError) as error:
        failure = f"The work tree of '{directory}' could not be brought up to date: {error}"
        log.error("%s", failure)
        return [failure]
    return []


def environments_commit(config: Config) -> str:
    """The commit of the environment metadata that the last run worked from. Raises MetadataError."""
    directory = config.main.environmentsmetadatadir
    try:
        return workclones.head(directory)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error), "read") from error


def library_commit(config: Config) -> str:
    """The commit of the repository metadata that the last run worked from. Raises MetadataError."""
    directory = config.main.repositorymetadatadir
    try:
        return workclones.head(directory)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error), "read") from error


def read_library(config: Config, commit: str) -> Library:
    """The library as of a commit of the repository metadata.

    Raises DirectoryError when the file is not there, LibraryError when it cannot be used.
    """
    main = config.main
    name = main.repositorymetadata.relative_to(main.repositorymetadatadir).as_posix()
    try:
        files = workclones.read_files(main.repositorymetadatadir, commit, name, suffix="", largest=LARGEST)
    except (GitError, OSError) as error:
        raise LibraryError(main.repositorymetadata, str(error)) from error
    if name not in files:
        raise DirectoryError("repositorymetadata", main.repositorymetadata, f"commit {commit[:7]} has no such file")
    try:
        return parse_library(files[name])
    except YamlError as problem:
        raise LibraryError(main.repositorymetadata, problem.text, problem.line) from problem


def read_definitions(config: Config, commit: str) -> dict[str, Declared]:
    """Every definition at the top of the environment metadata, by the environment's name.

    Raises MetadataError when they cannot be read at all.
    """
    main = config.main
    try:
        files = workclones.read_files(main.environmentsmetadatadir, commit, suffix=SUFFIX, largest=LARGEST)
    except (GitError, OSError) as error:
        raise MetadataError(main.environmentsmetadatadir, str(error)) from error
    return {
        name[: -len(SUFFIX)]: read_definition(name, content, main.hashprefix) for name, content in sorted(files.items())
    }
