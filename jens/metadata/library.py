"""What the library must be, from its text alone: repositories with their clone URLs."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import NamedTuple

from jens import names, urls
from jens.metadata import yamlnodes
from jens.metadata.yamlnodes import Doubt, Node, Report, YamlError, ignore, reporting, stop
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
    """An entry of the library; ``problem`` is why it cannot be used, '' when it can."""

    line: int
    url: str
    problem: str


def parse_library(source: bytes | None) -> Library:
    """Raises YamlError when the text as a whole is no library; a bad entry spoils only itself."""
    found = library_entries(source)
    return Library(
        {repo: entry.url for repo, entry in found.items() if not entry.problem},
        {repo: f"line {entry.line}: {entry.problem}" for repo, entry in found.items() if entry.problem},
    )


def library_entries(source: bytes | None, report: Report = stop) -> dict[RepoId, Entry]:
    """Every entry of a library, the unusable ones too; what makes it none as a whole is reported.

    ``source`` is None for what is in the repository, but no file.
    """
    found: dict[RepoId, Entry] = {}
    with reporting(report):
        if source is None:
            raise YamlError("expected a file, not a symbolic link")
        root = yamlnodes.parse(source)
        top = yamlnodes.entries(root, "the library") if root is not None else {}
        if "repositories" not in top:
            near = yamlnodes.line_of(root) if root is not None else 1
            raise YamlError("expected a mapping with the key 'repositories'", near=near)
        key, node = top["repositories"]
        partitions = yamlnodes.entries(node, "'repositories'")
        for partition in PARTITIONS:
            with reporting(report):
                if partition not in partitions:
                    text = f"'repositories' has no partition '{partition}' (write '{partition}: {{}}' for none)"
                    raise YamlError(text, near=yamlnodes.line_of(key))
                found.update(_entries_of(partition, partitions[partition][1]))
    return found


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
    """What is allowed in a library, but hardly meant."""
    found: list[Doubt] = []
    with reporting(ignore):
        root = yamlnodes.parse(source)
        top = yamlnodes.entries(root, "the library") if root is not None else {}
        found += _strangers(top, ("repositories",), "the library has an unknown key '{}'")
        partitions = yamlnodes.entries(top["repositories"][1], "'repositories'") if "repositories" in top else {}
        found += _strangers(partitions, PARTITIONS, "'repositories' has an unknown key '{}'")
        common = yamlnodes.entries(partitions[COMMON][1], COMMON) if COMMON in partitions else {}
        found += _strangers(common, (SITE.name, HIERADATA.name), "'common' has an entry '{}', which nothing uses")
    return found


def _strangers(entries: Mapping[str, tuple[Node, Node]], known: Container[str], text: str) -> Iterator[Doubt]:
    for key, (node, _value) in entries.items():
        if key not in known:
            yield Doubt(yamlnodes.line_of(node), text.format(one_line(key)))
