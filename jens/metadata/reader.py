"""Reads the Library and the Definitions from the commits of the two metadata clones."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from jens.config import Config
from jens.errors import DirectoryError, GitError, LibraryError, MetadataError
from jens.git import contents
from jens.git.contents import Entry
from jens.layout import Layout
from jens.metadata import clones, usages
from jens.metadata.definition import SUFFIX, is_definition
from jens.metadata.library import parse_library
from jens.metadata.parsed import Parsed
from jens.metadata.yamlnodes import LARGEST, LARGEST_SUM, MOST_DEFINITIONS, YamlError
from jens.model import Declared, IllFormed, Library

log = logging.getLogger(__name__)


def read_library(config: Config, commit: str) -> Library:
    """The library as of a commit of the repository metadata.

    Raises DirectoryError when the file is not there, LibraryError when it cannot be used.
    """
    main = config.main
    name = main.repositorymetadata.relative_to(main.repositorymetadatadir).as_posix()
    try:
        files = contents.read_files(main.repositorymetadatadir, commit, name, suffix="", largest=LARGEST)
    except (GitError, OSError) as error:
        raise LibraryError(main.repositorymetadata, str(error)) from error
    if name not in files:
        raise DirectoryError("repositorymetadata", main.repositorymetadata, f"commit {commit[:7]} has no such file")
    try:
        return parse_library(files[name], main.prefixes)
    except YamlError as problem:
        raise LibraryError(main.repositorymetadata, problem.text, problem.line) from problem


def known_library(config: Config) -> Library:
    """The library as it was last fetched, with what is remembered; an empty one when it cannot be read."""
    try:
        library = read_library(config, clones.library_commit(config))
    except (DirectoryError, LibraryError, MetadataError) as error:
        log.debug("%s", error)
        library = Library({})
    return usages.with_remembered(library, usages.load(Layout.of(config)))


def read_definitions(config: Config, commit: str, parsed: Parsed | None = None) -> dict[str, Declared]:
    """Every definition at the top of the environment metadata, by the environment's name.

    What ``parsed`` knows is not parsed again. Raises MetadataError when they cannot be read at all.
    """
    directory = config.main.environmentsmetadatadir
    if parsed is None:
        parsed = Parsed.load(Layout.of(config), config.main.prefixes)
    try:
        listed = contents.list_files(directory, commit)
        found = {name: entry for name, entry in sorted(listed.items()) if is_definition(name)}
        refused = plan_refusals(found)
        sizes = {entry.blob: entry.size for name, entry in found.items() if entry.blob and name not in refused}
        blobs = contents.read_blobs(directory, sizes)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error)) from error
    return {
        name[: -len(SUFFIX)]: (
            IllFormed(name[: -len(SUFFIX)], f"{name}: {refused[name]}")
            if name in refused
            else parsed.read(name, blobs.get(entry.blob))
        )
        for name, entry in found.items()
    }


def plan_refusals(found: Mapping[str, Entry]) -> dict[str, str]:
    """The definitions that are not even read, with the reason: they are too large, or too many or too large in all.

    Those that exceed the sums are the last ones, in order of name.
    """
    refused = {}
    total = 0
    for number, (name, entry) in enumerate(sorted(found.items()), 1):
        if number > MOST_DEFINITIONS:
            refused[name] = f"with the definitions before it, more than {MOST_DEFINITIONS}"
            continue
        if entry.size > LARGEST:
            refused[name] = f"larger than {LARGEST} bytes"
            continue
        total += entry.size
        if total > LARGEST_SUM:
            refused[name] = f"together with the definitions before it, larger than {LARGEST_SUM} bytes"
    return refused
