"""Checks metadata in work trees, before they are pushed: finds everything that is wrong, with file and line.

A run's own checks are in ``jens.metadata``. This module adds what is only worth knowing before a push.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jens.config import Config
from jens.errors import DirectoryError
from jens.git.contents import Entry as ListedFile
from jens.metadata import yamlnodes
from jens.metadata.definition import (
    SUFFIX,
    Lines,
    inspect_definition,
    is_definition,
    left_empty,
    lines_of,
    unknown_names,
)
from jens.metadata.library import Entry, library_doubts, library_entries, library_of
from jens.metadata.reader import plan_refusals
from jens.metadata.yamlnodes import Doubt, YamlError
from jens.model import PARTITIONS, Branch, Definition, Directories, Library, Prefixes, RepoId
from jens.text import one_line
from jens.urls import location_of, redact

ERROR = "error"
WARNING = "warning"

#: Puppet reserves these names; source: "Creating environments" in Puppet's documentation.
RESERVED = ("main", "master", "agent", "user")

#: Longer texts are cut after so many characters. Only nonsense makes them so long.
_LONGEST = 500
#: At most so many characters are reported for one file. Nobody reads more.
_MOST = 1024 * 1024

#: What a file is not, with the name of it for messages. A run finds none of these in a commit.
_NO_FILES = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_NEARLY = re.compile(r".*\.ya?ml", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Finding:
    """An error or a warning. The text is one line, without user names and passwords of URLs."""

    file: str
    line: int
    level: str
    text: str


@dataclass(frozen=True)
class Site:
    """The configuration of a site that its metadata depend on; ``writes_conf`` is true when it is unknown, too."""

    prefixes: Prefixes
    mandatory: tuple[Branch, ...]
    writes_conf: bool = True

    @classmethod
    def of(cls, config: Config, *, is_default: bool) -> Site:
        """Read it from a configuration. The default one tells nothing about mandatory branches and environment.conf."""
        main = config.main
        branches = () if is_default else tuple(map(Branch, main.mandatorybranches))
        return cls(main.prefixes, branches, is_default or main.directory_environments)


@dataclass(frozen=True)
class CheckedLibrary:
    """A library as far as it can be read."""

    file: str
    entries: Mapping[RepoId, Entry]
    findings: tuple[Finding, ...]
    is_whole: bool

    @property
    def library(self) -> Library | None:
        """The library for checks of definitions, None when the file cannot be read as a whole."""
        if not self.is_whole:
            return None
        return library_of(self.entries)

    @property
    def urls(self) -> dict[RepoId, str]:
        """The remotes that can be asked."""
        return {repo: entry.url for repo, entry in self.entries.items() if not entry.problem}


@dataclass(frozen=True)
class CheckedDefinition:
    """A definition as far as it can be read."""

    file: str
    definition: Definition
    lines: Lines
    findings: tuple[Finding, ...]


class _TooManyError(Exception):
    pass


class _Findings(list[Finding]):
    """The findings in one file. ``add`` raises _TooManyError when there are far too many."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        self._room = _MOST

    def report(self, problem: YamlError) -> None:
        self.add(ERROR, problem.place, problem.text)

    def add(self, level: str, line: int, text: str) -> None:
        if self._room <= 0:
            self.append(finding(self.file, line, ERROR, "there is more that is not well, which is left out"))
            raise _TooManyError
        self._room -= len(text)
        self.append(finding(self.file, line, level, text))

    @contextlib.contextmanager
    def whatever_ends_it(self) -> Iterator[None]:
        """Look through the file until it cannot be read, or until there is too much."""
        with contextlib.suppress(_TooManyError):
            try:
                yield
            except YamlError as problem:
                self.report(problem)
            except OSError as error:
                self.add(ERROR, 1, f"cannot be read: {error.strerror}")

    def doubt(self, doubts: Iterable[Doubt]) -> None:
        for line, text in doubts:
            self.add(WARNING, line, text)


def finding(file: str, line: int, level: str, text: str) -> Finding:
    """Make a finding from a text that may have several lines or credentials."""
    said = one_line(redact(text))
    return Finding(file, line, level, said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…")


# The library


def check_library(path: Path, site: Site) -> CheckedLibrary:
    """Check the file of the library. Raises DirectoryError when it does not exist."""
    if not os.path.lexists(path):
        raise DirectoryError("--repositories", path, "no such file")
    found = _Findings(str(path))
    entries: dict[RepoId, Entry] = {}
    is_whole = False
    with found.whatever_ends_it():
        if path.is_dir() and not path.is_symlink():
            raise YamlError("expected a file such as repositories.yaml, not a directory")
        source = _read(path)
        entries = library_entries(source, site.prefixes, found.report)
        is_whole = not found
        for entry in entries.values():
            if entry.problem:
                found.add(ERROR, entry.line, entry.problem)
        _repeated(found, source)
        found.doubt(library_doubts(source or b""))
        found.doubt(_unwise_entries(entries))
        found.doubt(_same_twice(entries))
    return CheckedLibrary(str(path), entries, tuple(found), is_whole)


def _read(path: Path) -> bytes | None:
    """The first LARGEST + 1 bytes of a file, None for a symbolic link or a submodule. Raises OSError, YamlError."""
    mode = path.lstat().st_mode
    for is_one, what in _NO_FILES:
        if is_one(mode):
            raise YamlError(f"expected a file, not {what}")
    if not stat.S_ISREG(mode):
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(yamlnodes.LARGEST + 1)


def _repeated(found: _Findings, source: bytes | None) -> None:
    try:
        root = yamlnodes.parse(source or b"")
    except YamlError:
        return  # library_entries or inspect_definition has reported it
    for key, line, first in yamlnodes.repeated(root) if root is not None else ():
        found.add(ERROR, line, f"the key {key!r} is there already, in line {first}")


def _unwise_entries(entries: Mapping[RepoId, Entry]) -> Iterator[Doubt]:
    for repo, entry in entries.items():
        if entry.usage.ref is not None and entry.usage.fallback is not None:
            yield Doubt(entry.line, f"{repo} has 'ref' and 'fallback', of which only 'ref' counts")


def _same_twice(entries: Mapping[RepoId, Entry]) -> Iterator[Doubt]:
    """Doubts about two names for one repository, and about names that differ in case only."""
    in_order = sorted(entries, key=lambda repo: entries[repo].line)
    for partition in PARTITIONS:
        for name, other in _differ_in_case([repo.name for repo in in_order if repo.partition == partition]):
            line = entries[RepoId(partition, name)].line
            yield Doubt(line, f"{partition} '{name}' differs from '{other}' in upper and lower case only")
    first: dict[tuple[str, Directories], RepoId] = {}  # several parts of one repository may be used
    for repo in in_order:
        if not entries[repo].problem:
            other_repo = first.setdefault((location_of(entries[repo].url), entries[repo].usage.directories), repo)
            if other_repo != repo:
                line = entries[other_repo].line
                yield Doubt(entries[repo].line, f"{repo} has the same URL as {other_repo}, in line {line}")


def _differ_in_case(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names that differ from an earlier one in upper and lower case only, with the first such."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(name.casefold(), name)
        if other != name:
            yield name, other


# Definitions


def check_definitions(
    directory: Path, library: Library | None, site: Site
) -> tuple[list[CheckedDefinition], list[Finding]]:
    """Check the definitions at the top of a directory, and tell of files that only look like definitions.

    Raises DirectoryError when the directory cannot be read.
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise DirectoryError("--environments", directory, error.strerror or str(error)) from error
    checked, others = [], []
    for path in (directory / name for name in names):
        doubt = _why_none(path)
        if doubt:
            others.append(finding(str(path), 1, WARNING, doubt))
        elif is_definition(path.name):
            checked.append(_check_definition(path, library, site))
    others += _too_much(directory, [Path(one.file).name for one in checked])
    for name, other in _differ_in_case([Path(one.file).name for one in checked]):
        text = f"its name differs from '{other}' in upper and lower case only"
        others.append(finding(str(directory / name), 1, WARNING, text))
    if not checked:
        expected = "a file NAME.yaml for each environment"
        others.append(finding(str(directory), 1, ERROR, f"there is no definition, expected {expected}"))
    return checked, others


def _too_much(directory: Path, names: Iterable[str]) -> Iterator[Finding]:
    """Definitions that a run would not read as all together are too large."""
    entries = {name: ListedFile("", (directory / name).lstat().st_size) for name in names}
    for name, reason in plan_refusals(entries).items():
        if entries[name].size <= yamlnodes.LARGEST:  # what is too large alone was reported
            yield finding(str(directory / name), 1, ERROR, reason)


def _why_none(path: Path) -> str:
    """Why a path that looks like a definition is none; '' for a definition, and for what does not look like one."""
    name = path.name
    if name.startswith("."):
        return ""
    if not name.endswith(SUFFIX):
        return "is no definition: its name does not end in .yaml" if _NEARLY.fullmatch(name) else ""
    if os.path.isdir(path) and not os.path.islink(path) and not os.path.lexists(path / ".git"):  # else a submodule
        return "is no definition, but a directory"
    return ""


def _check_definition(path: Path, library: Library | None, site: Site) -> CheckedDefinition:
    found = _Findings(str(path))
    definition = Definition(path.name, None, {})
    lines: Lines = {}
    with found.whatever_ends_it():
        source = _read(path)
        definition = inspect_definition(path.name, source, site.prefixes, found.report)
        lines = lines_of(definition.source)
        if not found:
            found.doubt(left_empty(definition, lines))
        _repeated(found, source)
        found.doubt(unknown_names(lines, library))
        found.doubt(_unwise(definition, lines, site))
    return CheckedDefinition(str(path), definition, lines, tuple(found))


def _unwise(definition: Definition, lines: Lines, site: Site) -> Iterable[Doubt]:
    if definition.name in RESERVED:
        yield Doubt(1, f"Puppet reserves the name '{definition.name}'")
    if definition.parser and not site.writes_conf:
        yield Doubt(lines["parser",], "has a 'parser', which counts only with directory_environments")
