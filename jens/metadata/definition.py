"""Reads a definition from its text alone, and tells what is ill-formed or doubtful in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jens import names, text
from jens.metadata import yamlnodes
from jens.metadata.yamlnodes import Doubt, Node, Report, YamlError, ignore, reporting, stop
from jens.model import (
    PARSERS,
    PARTITIONS,
    Branch,
    Declared,
    Definition,
    IllFormed,
    Library,
    Ref,
    RepoId,
)

_DEFINITION_KEYS = ("default", "notifications", "overrides", "parser")
#: The suffix of a definition's file name.
SUFFIX = ".yaml"
#: The lines of a definition's keys: ``(key,)`` for a key at the top, the RepoId for an override.
Lines = Mapping["tuple[str, ...]", int]


def read_definition(file: str, content: bytes | None, hashprefix: str) -> Declared:
    """Read one definition; ``content`` is None for an entry of the repository that is no file."""
    try:
        return inspect_definition(file, content, hashprefix)
    except YamlError as problem:
        return IllFormed(file[: -len(SUFFIX)], f"{file}: {problem}")


def inspect_definition(file: str, content: bytes | None, hashprefix: str, report: Report = stop) -> Definition:
    """Read as much of a definition as possible, and report everything that makes it ill-formed."""
    name = file[: -len(SUFFIX)]
    if not names.is_environment_name(name):
        most = f", {names.LONGEST} at most" if len(name) > names.LONGEST else ""
        report(YamlError(f"bad name, expected letters, digits and '_'{most}"))
    if content is None:
        report(YamlError("expected a file, not a symbolic link or a submodule"))
        return Definition(name, None, {})
    return parse_definition(name, content, hashprefix, report)


def parse_definition(name: str, source: bytes, hashprefix: str, report: Report = stop) -> Definition:
    """Read a well-formed definition. Raises YamlError, which says what is wrong and in which line.

    With another ``report`` than ``stop``, the result has what can be read of an ill-formed definition.
    """
    top: Mapping[str, Node] = {}
    with reporting(report):
        root = yamlnodes.parse(source)
        if root is None:
            raise YamlError("empty, expected a mapping")
        top = {key: value for key, (_key, value) in yamlnodes.entries(root, "the definition").items()}
        if "notifications" not in top:
            raise YamlError("the mandatory key 'notifications' is missing", near=yamlnodes.line_of(root))
    default, overrides, parser = None, {}, None
    if "default" in top:
        with reporting(report):
            default = _default(top["default"], hashprefix)
    if "overrides" in top:
        with reporting(report):
            overrides = dict(_overrides(top["overrides"], hashprefix, report))
    if "parser" in top:
        with reporting(report):
            parser = _parser(top["parser"])
    notifications: tuple[str, ...] = ()
    if "notifications" in top:
        with reporting(report):
            notifications = _notifications(top["notifications"])
    return Definition(name, default, overrides, notifications, parser, source)


def _default(node: Node, hashprefix: str) -> Branch:
    ref = _ref(node, "'default'", hashprefix)
    if not isinstance(ref, Branch):
        raise YamlError("'default' is expected to be a branch, not a commit", yamlnodes.line_of(node))
    return ref


def _ref(node: Node, what: str, hashprefix: str) -> Ref:
    text = yamlnodes.string(node)
    if text is None:
        raise YamlError(f"{what} is expected to be a string, not {yamlnodes.kind(node)}", yamlnodes.line_of(node))
    try:
        return names.parse_ref(text, hashprefix)
    except ValueError as error:
        raise YamlError(f"{what}: {error}", yamlnodes.line_of(node)) from error


def _overrides(node: Node, hashprefix: str, report: Report) -> Iterator[tuple[RepoId, Ref]]:
    for partition, (key, value) in yamlnodes.entries(node, "'overrides'").items():
        with reporting(report):
            if partition not in PARTITIONS:
                expected = ", ".join(PARTITIONS)
                raise YamlError(
                    f"'overrides' has an unknown partition {partition!r}, expected {expected}", yamlnodes.line_of(key)
                )
            for name, (_name, ref) in yamlnodes.entries(value, f"'overrides: {partition}'").items():
                with reporting(report):
                    yield RepoId(partition, name), _ref(ref, f"the override of {partition} {name!r}", hashprefix)


def _notifications(node: Node) -> tuple[str, ...]:
    listed = node.value if isinstance(node.value, list) and not yamlnodes.is_null(node) else [node]
    nodes = [item for item in listed if isinstance(item, Node)]
    for item in (node, *nodes):
        if yamlnodes.is_foreign(item):
            expected = f"'notifications' is expected to be a string or a list of strings, not {yamlnodes.kind(item)}"
            raise YamlError(expected, yamlnodes.line_of(item))
    return tuple(text for text in map(yamlnodes.string, nodes) if text)


def _parser(node: Node) -> str:
    parser = yamlnodes.string(node)
    if parser not in PARSERS:
        raise YamlError(f"'parser' is expected to be {' or '.join(PARSERS)}", yamlnodes.line_of(node))
    return parser


def doubts(definition: Definition, library: Library) -> list[str]:
    """Doubts about a definition: what is allowed, but hardly meant, a sentence each."""
    lines = lines_of(definition.source)
    return [doubt.text for doubt in (*unknown_names(lines, library), *left_empty(definition, lines))]


def unknown_names(lines: Lines, library: Library | None) -> list[Doubt]:
    """Overrides of repositories that the library lacks, and unknown keys; without a library no override is reported."""
    overridden = sorted(RepoId(*key) for key in lines if len(key) == 2)
    found = [
        Doubt(
            lines[repo],
            f"overrides {repo.partition} '{text.one_line(repo.name)}', which the library does not have",
        )
        for repo in overridden
        if library is not None and repo not in library.urls and repo not in library.unusable
    ]
    unknown = [key for key in lines if len(key) == 1 and key[0] not in _DEFINITION_KEYS]
    return found + [Doubt(lines[key], f"has an unknown key '{text.one_line(key[0])}'") for key in unknown]


def left_empty(definition: Definition, lines: Lines) -> list[Doubt]:
    """Keys of a well-formed definition that are empty."""
    found = []
    if ("overrides",) in lines and not definition.overrides:
        found.append(Doubt(lines["overrides",], "has 'overrides' without any override"))
    if ("notifications",) in lines and not definition.notifications:
        found.append(Doubt(lines["notifications",], "has 'notifications' without an address"))
    return found


def lines_of(source: bytes) -> Lines:
    """The lines of a definition's keys, as far as it can be read."""
    found: dict[tuple[str, ...], int] = {}
    with reporting(ignore):
        root = yamlnodes.parse(source)
        top = yamlnodes.entries(root, "the definition") if root is not None else {}
        found.update(((key,), yamlnodes.line_of(node)) for key, (node, _value) in top.items())
        overrides = yamlnodes.entries(top["overrides"][1], "'overrides'") if "overrides" in top else {}
        for partition in set(PARTITIONS) & set(overrides):
            with reporting(ignore):
                entries = yamlnodes.entries(overrides[partition][1], partition)
                found.update(((partition, name), yamlnodes.line_of(node)) for name, (node, _ref) in entries.items())
    return found
