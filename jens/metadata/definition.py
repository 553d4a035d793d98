"""Reads a definition from its text alone, and tells what is ill-formed or doubtful in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Optional

from jens import names, text
from jens.metadata import yamlnodes
from jens.metadata.values import parse_directories, parse_ref, refuse_unknown
from jens.metadata.yamlnodes import Doubt, Entries, Node, Report, YamlError, ignore, reporting, stop
from jens.model import (
    PARSERS,
    PARTITIONS,
    Commit,
    Declared,
    Definition,
    IllFormed,
    Library,
    Moving,
    Prefixes,
    Ref,
    RepoId,
)

_DEFINITION_KEYS = ("default", "notifications", "overrides", "parser")
#: The keys of an override that is a mapping.
_OVERRIDE_KEYS = ("ref", "code", "data")
#: A definition has not more defaults.
MOST_DEFAULTS = 20
#: The suffix of a definition's file name.
SUFFIX = ".yaml"
#: A definition has not more overrides, and all together have not more. A site has some hundred repositories.
MOST_OVERRIDES = 20_000
MOST_OVERRIDES_IN_ALL = 1_000_000
#: At most so many doubts about one definition are told.
MOST_DOUBTS = 20
#: The lines of a definition's keys: ``(key,)`` for a key at the top, the RepoId for an override.
Lines = Mapping["tuple[str, ...]", int]


def is_definition(file: str) -> bool:
    """Whether a file at the top of the environment metadata is a definition, by its name. Hidden files are none."""
    return file.endswith(SUFFIX) and not file.startswith(".")


def read_definition(file: str, content: bytes | None, prefixes: Prefixes) -> Declared:
    """Read one definition; ``content`` is None for an entry of the repository that is no file."""
    try:
        return inspect_definition(file, content, prefixes)
    except YamlError as problem:
        return ill_formed(file, str(problem), notifications_of(content or b""))


def ill_formed(file: str, problem: str, notifications: tuple[str, ...]) -> IllFormed:
    """A definition that cannot be used. What it quotes is cut: whoever pushes decides how long that is."""
    return IllFormed(file[: -len(SUFFIX)], text.shortened(f"{text.name_in_line(file)}: {problem}"), notifications)


def notifications_of(source: bytes) -> tuple[str, ...]:
    """Whom a definition says to tell, if that can be read, whatever else is wrong with it."""
    try:
        top = _top(source)[1]
        return _notifications(top["notifications"][1]) if "notifications" in top else ()
    except YamlError:
        return ()


def inspect_definition(file: str, content: bytes | None, prefixes: Prefixes, report: Report = stop) -> Definition:
    """Read as much of a definition as possible, and report everything that makes it ill-formed."""
    name = file[: -len(SUFFIX)]
    if not names.is_environment_name(name):
        most = f", {names.LONGEST} at most" if len(name) > names.LONGEST else ""
        report(YamlError(f"bad name, expected letters, digits and '_'{most}"))
    if content is None:
        report(YamlError("expected a file, not a symbolic link or a submodule"))
        return Definition(name, None, {})
    definition = Definition(name, None, {}, source=content)
    with reporting(report):
        line, top = _top(content)
        misspelt = dict(_misspelt(top))
        for key, known in misspelt.items():
            report(YamlError(f"unknown key {key!r}, expected {known!r}", yamlnodes.line_of(top[key][0])))
        keys = {*top, *misspelt.values()}
        if "notifications" not in keys:
            report(YamlError("the mandatory key 'notifications' is missing", near=line))
        definition = _read(name, content, top, prefixes, report)
        if "default" not in keys and ("overrides" not in keys or _is_without_overrides(top)):
            report(YamlError("neither 'default' nor an override, expected one at least", near=line))
    return definition


def parse_definition(name: str, source: bytes, prefixes: Prefixes) -> Definition:
    """Read a definition that was well-formed when its environment was built. Raises YamlError.

    What a definition must have besides is a matter of ``inspect_definition``: an older Jens may have built from less.
    """
    return _read(name, source, _top(source)[1], prefixes, stop)


def _top(source: bytes) -> tuple[int, Entries]:
    """The line of a definition's mapping, and its entries."""
    root = yamlnodes.parse(source)
    if root is None:
        raise YamlError("empty, expected a mapping")
    return yamlnodes.line_of(root), yamlnodes.entries(root, "the definition")


def _misspelt(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The unknown keys that resemble a known one, with that."""
    for key in keys:
        known = "" if key in _DEFINITION_KEYS else names.resembled(key, _DEFINITION_KEYS)
        if known:
            yield key, known


def _is_without_overrides(top: Entries) -> bool:
    """Whether 'overrides' are well-formed, but name no repository."""
    if "overrides" not in top:
        return False  # they are misspelt
    try:
        partitions = yamlnodes.entries(top["overrides"][1], "'overrides'")
        return not any(yamlnodes.entries(node, key) for key, (_key, node) in partitions.items())
    except YamlError:
        return False


def _read(name: str, source: bytes, top: Entries, prefixes: Prefixes, report: Report) -> Definition:
    """The values of the known keys. Reports the ill-formed ones and leaves them out."""
    defaults: tuple[Moving, ...] = ()
    overrides, directories, parser = {}, {}, None
    if "default" in top:
        with reporting(report):
            defaults = _defaults(top["default"][1], prefixes)
    if "overrides" in top:
        with reporting(report):
            found = dict(_overrides(top["overrides"][1], prefixes, report))
            overrides = {repo: ref for repo, (ref, _said) in found.items()}
            directories = {repo: said for repo, (_ref, said) in found.items() if said}
    if "parser" in top:
        with reporting(report):
            parser = _parser(top["parser"][1])
    notifications: tuple[str, ...] = ()
    if "notifications" in top:
        with reporting(report):
            notifications = _notifications(top["notifications"][1])
    unknown = tuple(key for key in top if key not in _DEFINITION_KEYS)
    default, others = (defaults[0], defaults[1:]) if defaults else (None, ())
    return Definition(
        *(name, default, overrides, notifications, parser, source, unknown), others=others, directories=directories
    )


def _defaults(node: Node, prefixes: Prefixes) -> tuple[Moving, ...]:
    """The defaults that a definition has: one, or a list."""
    listed = yamlnodes.items(node)
    if not listed or len(listed) > MOST_DEFAULTS:
        expected = f"a branch, a tag, or a list of 1 to {MOST_DEFAULTS} of them"
        raise YamlError(f"'default' is expected to be {expected}", yamlnodes.line_of(node))
    return tuple(dict.fromkeys(_default(item, prefixes) for item in listed))


def _default(node: Node, prefixes: Prefixes) -> Moving:
    ref = parse_ref(node, "'default'", prefixes)
    if isinstance(ref, Commit):
        raise YamlError("'default' is expected to be a branch or a tag, not a commit", yamlnodes.line_of(node))
    return ref


#: What an override says of a repository: its ref, and fields of Directories.
_Override = tuple[Ref, Mapping[str, Optional[str]]]


def _override(node: Node, what: str, prefixes: Prefixes) -> _Override:
    """An override: a ref, or a mapping with one. Raises YamlError."""
    if yamlnodes.kind(node) != "map":
        return parse_ref(node, what, prefixes), {}
    found = yamlnodes.entries(node, what)
    refuse_unknown(found, _OVERRIDE_KEYS, f"{what} has an ")
    if "ref" not in found:
        raise YamlError(f"{what} has no 'ref'", yamlnodes.line_of(node))
    values = {key: value for key, (_name, value) in found.items()}
    return parse_ref(values["ref"], what, prefixes), parse_directories(values)


def _overrides(node: Node, prefixes: Prefixes, report: Report) -> Iterator[tuple[RepoId, _Override]]:
    count = 0
    for partition, (key, value) in yamlnodes.entries(node, "'overrides'").items():
        with reporting(report):
            if partition not in PARTITIONS:
                known = names.resembled(partition, PARTITIONS)
                expected = repr(known) if known else ", ".join(PARTITIONS)
                raise YamlError(
                    f"'overrides' has an unknown partition {partition!r}, expected {expected}", yamlnodes.line_of(key)
                )
            found = yamlnodes.entries(value, f"'overrides: {partition}'")
            count += len(found)
            if count > MOST_OVERRIDES:
                raise YamlError(f"'overrides' has more than {MOST_OVERRIDES} overrides", yamlnodes.line_of(key))
            for name, (_name, ref) in found.items():
                with reporting(report):
                    yield RepoId(partition, name), _override(ref, f"the override of {partition} {name!r}", prefixes)


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
    found = [doubt.text for doubt in (*unknown_names(lines, library), *left_empty(definition, lines))]
    more = len(found) - MOST_DOUBTS
    return [*map(text.shortened, found[:MOST_DOUBTS]), *([f"has {more} more such doubts"] if more > 0 else [])]


def unknown_names(lines: Lines, library: Library | None) -> list[Doubt]:
    """Overrides of repositories that the library lacks, and unknown keys; without a library no override is reported.

    An unknown key that resembles a known one is no doubt, but an error.
    """
    overridden = sorted(RepoId(*key) for key in lines if len(key) == 2)
    found = [
        Doubt(
            lines[repo],
            f"overrides {repo.partition} '{text.one_line(repo.name)}', which the library does not have",
        )
        for repo in overridden
        if library is not None and repo not in library.urls and repo not in library.unusable
    ]
    keys = [key[0] for key in lines if len(key) == 1]
    unknown = set(keys) - set(_DEFINITION_KEYS) - dict(_misspelt(keys)).keys()
    return found + [Doubt(lines[key,], f"has an unknown key '{text.one_line(key)}'") for key in keys if key in unknown]


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
