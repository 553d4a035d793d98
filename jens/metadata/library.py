"""Reads the library, which lists repositories with their clone URLs, from its text alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jens import names, urls
from jens.metadata import yamlnodes
from jens.metadata.yamlnodes import Doubt, Entries, Node, Report, YamlError, ignore, reporting, stop
from jens.model import (
    COMMON,
    HIERADATA,
    PARTITIONS,
    SITE,
    Library,
    RepoId,
)
from jens.text import one_line


class Entry(NamedTuple):
    """An entry of the library; ``problem`` says why Jens cannot use it, '' when it can."""

    line: int
    url: str
    problem: str


def parse_library(source: bytes | None) -> Library:
    """Read a library. A bad entry spoils only itself. Raises YamlError when the text as a whole is no library."""
    found = library_entries(source)
    return Library(
        {repo: entry.url for repo, entry in found.items() if not entry.problem},
        {repo: f"line {entry.line}: {entry.problem}" for repo, entry in found.items() if entry.problem},
    )


def library_entries(source: bytes | None, report: Report = stop) -> dict[RepoId, Entry]:
    """Every entry of a library, also the unusable ones; reports what makes the whole text unusable.

    ``source`` is None for an entry of the repository that is no file.
    """
    found: dict[RepoId, Entry] = {}
    with reporting(report):
        if source is None:
            raise YamlError("expected a file, not a symbolic link or a submodule")
        root = yamlnodes.parse(source)
        top = yamlnodes.entries(root, "the library") if root is not None else {}
        if "repositories" not in top:
            _refuse_misspelt(top, "the library", "repositories")
            near = yamlnodes.line_of(root) if root is not None else 1
            raise YamlError("expected a mapping with the key 'repositories'", near=near)
        key, node = top["repositories"]
        partitions = yamlnodes.entries(node, "'repositories'")
        for partition in PARTITIONS:
            with reporting(report):
                if partition not in partitions:
                    _refuse_misspelt(partitions, "'repositories'", partition)
                    text = f"'repositories' has no partition '{partition}' (write '{partition}: {{}}' for none)"
                    raise YamlError(text, near=yamlnodes.line_of(key))
                found.update(_entries_of(partition, partitions[partition][1]))
    return found


def _refuse_misspelt(entries: Entries, what: str, missing: str) -> None:
    """Raise YamlError for a key that resembles the missing one, if there is such a key."""
    for key, (node, _value) in entries.items():
        if names.resembled(key, (missing,)):
            raise YamlError(f"{what} has an unknown key {key!r}, expected {missing!r}", yamlnodes.line_of(node))


def _not_refused(entries: Entries, needed: Iterable[str]) -> Entries:
    """The entries of a mapping without those that ``_refuse_misspelt`` finds."""
    missing = [name for name in needed if name not in entries]
    return {key: entry for key, entry in entries.items() if not names.resembled(key, missing)}


def _entries_of(partition: str, node: Node) -> Iterator[tuple[RepoId, Entry]]:
    entries = {} if yamlnodes.is_null(node) else yamlnodes.entries(node, f"partition '{partition}'")
    for name, (_key, value) in entries.items():
        entry = Entry(yamlnodes.line_of(value), yamlnodes.string(value) or "", _entry_problem(name, value) or "")
        yield RepoId(partition, name), entry


def _entry_problem(name: str, value: Node) -> str | None:
    if not names.is_repository_name(name):
        return "bad name, expected up to 200 letters, digits, '_', '.' and '-', beginning with neither '.' nor '-'"
    url = yamlnodes.string(value)
    if url is None:
        return f"expected a clone URL, not {yamlnodes.kind(value)}"
    return urls.url_problem(url)


def library_doubts(source: bytes) -> list[Doubt]:
    """Doubts about a library: what is allowed, but hardly meant."""
    found: list[Doubt] = []
    with reporting(ignore):
        root = yamlnodes.parse(source)
        top = yamlnodes.entries(root, "the library") if root is not None else {}
        others = _not_refused(top, ("repositories",))
        found += _unknown_keys(others, ("repositories",), "the library has an unknown key '{}'")
        partitions = yamlnodes.entries(top["repositories"][1], "'repositories'") if "repositories" in top else {}
        others = _not_refused(partitions, PARTITIONS)
        found += _unknown_keys(others, PARTITIONS, "'repositories' has an unknown key '{}'")
        common = yamlnodes.entries(partitions[COMMON][1], COMMON) if COMMON in partitions else {}
        found += _unknown_keys(common, (SITE.name, HIERADATA.name), "'common' has an entry '{}', which nothing uses")
    return found


def _unknown_keys(entries: Entries, known: Sequence[str], text: str) -> Iterator[Doubt]:
    for key, (node, _value) in entries.items():
        if key not in known:
            meant = names.resembled(key, known)
            hint = f", expected '{meant}'" if meant else ""
            yield Doubt(yamlnodes.line_of(node), text.format(one_line(key)) + hint)
