"""Metadata as it lies in work trees, checked before it is pushed: everything that is wrong, with file and line.

The rules are those of a run (``rules``); here is what else is worth knowing before a push.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jens.config import Config
from jens.errors import DirectoryError
from jens.metadata import yamlnodes
from jens.metadata.definition import SUFFIX, Lines, inspect_definition, left_empty, lines_of, unknown_names
from jens.metadata.library import Entry, library_doubts, library_entries
from jens.metadata.yamlnodes import Doubt, YamlError
from jens.model import Branch, Definition, Library, RepoId
from jens.text import one_line
from jens.urls import redact

ERROR = "error"
WARNING = "warning"

#: Puppet has other uses for these; source: "Creating environments" in Puppet's documentation.
RESERVED = ("main", "master", "agent", "user")

#: Of longer texts, which only nonsense has, the beginning is shown.
_LONGEST = 500
#: Characters in all that may be said of one file: people do not read on.
_MOST = 1024 * 1024

_NEARLY = re.compile(r".*\.ya?ml", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Finding:
    """Something wrong, or doubtful; the text is one line without user names and passwords of URLs."""

    file: str
    line: int
    level: str
    text: str


@dataclass(frozen=True)
class Site:
    """What the configuration of a site says of its metadata; ``writes_conf`` also when nobody knows."""

    hashprefix: str
    mandatory: tuple[Branch, ...]
    writes_conf: bool = True

    @classmethod
    def of(cls, config: Config, *, is_default: bool) -> Site:
        """As configured; a configuration that nobody gave does not tell whether environments have a file."""
        main = config.main
        branches = tuple(map(Branch, main.mandatorybranches))
        return cls(main.hashprefix, branches, is_default or main.directory_environments)


@dataclass(frozen=True)
class CheckedLibrary:
    """A library as far as it can be read."""

    file: str
    entries: Mapping[RepoId, Entry]
    findings: tuple[Finding, ...]
    is_whole: bool

    @property
    def library(self) -> Library | None:
        """What definitions can rely on, None when too little can be read to tell."""
        if not self.is_whole:
            return None
        return Library(self.urls, {repo: entry.problem for repo, entry in self.entries.items() if entry.problem})

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
    """What is found in one file; gives up, with _TooManyError, when that is beyond all measure."""

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

    def doubt(self, doubts: Iterable[Doubt]) -> None:
        for line, text in doubts:
            self.add(WARNING, line, text)


def finding(file: str, line: int, level: str, text: str) -> Finding:
    """A finding whose text may be shown to anybody."""
    said = one_line(redact(text))
    return Finding(file, line, level, said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…")


# The library


def check_library(path: Path) -> CheckedLibrary:
    """Check the file of the library. Raises DirectoryError when it is not there."""
    if not os.path.lexists(path):
        raise DirectoryError("--repositories", path, "no such file")
    found = _Findings(str(path))
    entries: dict[RepoId, Entry] = {}
    is_whole = False
    try:
        source = _read(path)
        entries = library_entries(source, found.report)
        is_whole = not found
        for entry in entries.values():
            if entry.problem:
                found.add(ERROR, entry.line, entry.problem)
        _repeated(found, source)
        found.doubt(library_doubts(source or b""))
    except OSError as error:
        found.add(ERROR, 1, f"cannot be read: {error.strerror}")
    except _TooManyError:
        pass
    return CheckedLibrary(str(path), entries, tuple(found), is_whole)


def _read(path: Path) -> bytes | None:
    """A file's content, as far as anybody will look; None for a link or anything else. Raises OSError."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(yamlnodes.LARGEST + 1)


def _repeated(found: _Findings, source: bytes | None) -> None:
    try:
        root = yamlnodes.parse(source or b"")
    except YamlError:
        return  # it was said before
    for key, line, first in yamlnodes.repeated(root) if root is not None else ():
        found.add(ERROR, line, f"the key {key!r} is there already, in line {first}")


# Definitions


def check_definitions(
    directory: Path, library: Library | None, site: Site
) -> tuple[list[CheckedDefinition], list[Finding]]:
    """Check the definitions at the top of a directory, and find what is nearly one, but none.

    Raises DirectoryError when there is no such directory.
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
        elif path.name.endswith(SUFFIX):
            checked.append(_check_definition(path, library, site))
    return checked, others


def _why_none(path: Path) -> str:
    """Why something is no definition though it looks like one; '' for one, and for what does not look so."""
    name = path.name
    if not name.endswith(SUFFIX):
        is_nearly = _NEARLY.fullmatch(name) is not None and not name.startswith(".")
        return "is no definition: its name does not end in .yaml" if is_nearly else ""
    if name.startswith("."):
        return "is no definition, but jens-update takes it for one with a bad name"
    if os.path.isdir(path) and not os.path.islink(path) and not os.path.lexists(path / ".git"):  # else a submodule
        return "is no definition, but a directory"
    return ""


def _check_definition(path: Path, library: Library | None, site: Site) -> CheckedDefinition:
    found = _Findings(str(path))
    definition = Definition(path.name, None, {})
    lines: Lines = {}
    try:
        source = _read(path)
        definition = inspect_definition(path.name, source, site.hashprefix, found.report)
        lines = lines_of(definition.source)
        if not found:
            found.doubt(left_empty(definition, lines))
        _repeated(found, source)
        found.doubt(unknown_names(lines, library))
        found.doubt(_unwise(definition, lines, site))
    except OSError as error:
        found.add(ERROR, 1, f"cannot be read: {error.strerror}")
    except _TooManyError:
        pass
    return CheckedDefinition(str(path), definition, lines, tuple(found))


def _unwise(definition: Definition, lines: Lines, site: Site) -> Iterable[Doubt]:
    if definition.name in RESERVED:
        yield Doubt(1, f"Puppet reserves the name '{definition.name}'")
    if definition.parser and not site.writes_conf:
        yield Doubt(lines["parser",], "has a 'parser', which counts only with directory_environments")
