"""From the two metadata clones to a Library and Definitions: refreshed, read from the commit, checked."""

from __future__ import annotations

from dataclasses import dataclass

from jens import gitwrapper
from jens.config import Config
from jens.errors import DirectoryError, GitError, LibraryError, MetadataError
from jens.gitwrapper import GitOptions
from jens.model import Declared, Library
from jens.rules import SUFFIX, doubts, parse_definition, parse_library, read_definition
from jens.yamldoc import YamlError

__all__ = ["doubts", "parse_definition", "parse_library", "read_definition"]


@dataclass(frozen=True)
class Snapshot:
    """The commits of both metadata repositories that a run works from."""

    environments: str
    repositories: str


def refresh(config: Config, options: GitOptions, *, reset: bool = True) -> Snapshot:
    """Fetch both clones and reset them to what they track; without ``reset`` the work trees stay.

    Raises MetadataError.
    """
    main = config.main
    commits = []
    for directory in (main.environmentsmetadatadir, main.repositorymetadatadir):
        try:
            commits.append(gitwrapper.refresh_clone(directory, options, reset=reset))
        except (GitError, OSError) as error:
            raise MetadataError(directory, str(error)) from error
    return Snapshot(*commits)


def environments_commit(config: Config) -> str:
    """The commit of the environment metadata that the last run worked from. Raises MetadataError."""
    directory = config.main.environmentsmetadatadir
    try:
        return gitwrapper.head(directory)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error), "read") from error


def library_commit(config: Config) -> str:
    """The commit of the repository metadata that the last run worked from. Raises MetadataError."""
    directory = config.main.repositorymetadatadir
    try:
        return gitwrapper.head(directory)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error), "read") from error


def read_library(config: Config, commit: str) -> Library:
    """The library as of a commit of the repository metadata.

    Raises DirectoryError when the file is not there, LibraryError when it cannot be used.
    """
    main = config.main
    name = main.repositorymetadata.relative_to(main.repositorymetadatadir).as_posix()
    try:
        files = gitwrapper.read_files(main.repositorymetadatadir, commit, name)
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
        files = gitwrapper.read_files(main.environmentsmetadatadir, commit)
    except (GitError, OSError) as error:
        raise MetadataError(main.environmentsmetadatadir, str(error)) from error
    return {
        name[: -len(SUFFIX)]: read_definition(name, content, main.hashprefix)
        for name, content in sorted(files.items())
        if name.endswith(SUFFIX)
    }
