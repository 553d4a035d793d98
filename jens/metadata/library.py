"""Reads the library, which lists repositories with their clone URLs, from its text alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jens import names, urls
from jens.metadata import yamlnodes
from jens.metadata.values import parse_directories, parse_ref, refuse_unknown
from jens.metadata.yamlnodes import Doubt, Entries, Node, Report, YamlError, ignore, reporting, stop
from jens.model import (
    COMMON,
    HIERADATA,
    PARTITIONS,
    PLAIN,
    SITE,
    Directories,
    Library,
    Prefixes,
    RepoId,
    Usage,
)
from jens.text import one_line

#: The keys of an entry that is a mapping.
_KEYS = ("url", "code", "data", "ref", "fallback")


class Entry(NamedTuple):
    """An entry of the library; ``problem`` says why Jens cannot use it, '' when it can."""

    line: int
    url: str = ""
    usage: Usage = PLAIN
    problem: str = ""


def parse_library(source: bytes | None, prefixes: Prefixes) -> Library:
    """Read a library. A bad entry spoils only itself. Raises YamlError when the text as a whole is no library."""
    return library_of(library_entries(source, prefixes))


def library_of(entries: Mapping[RepoId, Entry]) -> Library:
    """The library that has these entries."""
    good = {repo: entry for repo, entry in entries.items() if not entry.problem}
    return Library(
        {repo: entry.url for repo, entry in good.items()},
        {repo: f"line {entry.line}: {entry.problem}" for repo, entry in entries.items() if entry.problem},
        {repo: entry.usage for repo, entry in good.items() if entry.usage != PLAIN},
    )


def library_entries(source: bytes | None, prefixes: Prefixes, report: Report = stop) -> dict[RepoId, Entry]:
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
                found.update(_entries_of(partition, partitions[partition][1], prefixes))
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


def _entries_of(partition: str, node: Node, prefixes: Prefixes) -> Iterator[tuple[RepoId, Entry]]:
    entries = {} if yamlnodes.is_null(node) else yamlnodes.entries(node, f"partition '{partition}'")
    for name, (_key, value) in entries.items():
        try:
            entry = _entry(name, value, prefixes)
        except YamlError as problem:
            entry = Entry(problem.line, problem=problem.text)
        yield RepoId(partition, name), entry


def _entry(name: str, value: Node, prefixes: Prefixes) -> Entry:
    """An entry: a URL, or a mapping with one. Raises YamlError."""
    line = yamlnodes.line_of(value)
    if not names.is_repository_name(name):
        expected = "up to 200 letters, digits, '_', '.' and '-', beginning with neither '.' nor '-'"
        raise YamlError(f"bad name, expected {expected}", line)
    if not isinstance(value.value, list) or yamlnodes.kind(value) != "map":
        return Entry(line, _url(value, "a clone URL, or a mapping with one"))
    found = yamlnodes.entries(value, "the entry")
    refuse_unknown(found, _KEYS, "")
    if "url" not in found:
        raise YamlError("the mandatory key 'url' is missing", line)
    values = {key: node for key, (_key, node) in found.items()}
    return Entry(line, _url(values["url"], "a clone URL"), _usage(values, prefixes))


def _url(node: Node, expected: str) -> str:
    url = yamlnodes.string(node)
    if url is None:
        raise YamlError(f"expected {expected}, not {yamlnodes.kind(node)}", yamlnodes.line_of(node))
    if problem := urls.url_problem(url):
        raise YamlError(problem, yamlnodes.line_of(node))
    return url


def _usage(values: Mapping[str, Node], prefixes: Prefixes) -> Usage:
    refs = {key: parse_ref(values[key], repr(key), prefixes) for key in ("ref", "fallback") if key in values}
    return Usage(Directories().changed(parse_directories(values)), **refs)


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
