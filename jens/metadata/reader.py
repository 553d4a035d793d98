"""Reads the Library and the Definitions from the commits of the two metadata clones."""

from __future__ import annotations

import logging

from jens.config import Config
from jens.errors import DirectoryError, GitError, LibraryError, MetadataError
from jens.git import clones
from jens.metadata.definition import SUFFIX, is_definition, read_definition
from jens.metadata.library import parse_library
from jens.metadata.yamlnodes import LARGEST, YamlError
from jens.model import Declared, Library

log = logging.getLogger(__name__)


def read_library(config: Config, commit: str) -> Library:
    """The library as of a commit of the repository metadata.

    Raises DirectoryError when the file is not there, LibraryError when it cannot be used.
    """
    main = config.main
    name = main.repositorymetadata.relative_to(main.repositorymetadatadir).as_posix()
    try:
        files = clones.read_files(main.repositorymetadatadir, commit, name, suffix="", largest=LARGEST)
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
        files = clones.read_files(main.environmentsmetadatadir, commit, suffix=SUFFIX, largest=LARGEST)
    except (GitError, OSError) as error:
        raise MetadataError(main.environmentsmetadatadir, str(error)) from error
    return {
        name[: -len(SUFFIX)]: read_definition(name, content, main.hashprefix)
        for name, content in sorted(files.items())
        if is_definition(name)
    }
