"""Reads values that a definition and the library may both have: refs, and directories of repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jens import names
from jens.metadata import yamlnodes
from jens.metadata.yamlnodes import Entries, Node, YamlError
from jens.model import Prefixes, Ref
from jens.text import one_line

#: The keys that name directories; the second one may be null.
_CODE, _DATA = "code", "data"


def refuse_unknown(entries: Entries, known: Sequence[str], begin: str) -> None:
    """Raise YamlError for a key that is not known, with the one that was meant; ``begin`` begins its text."""
    for key, (node, _value) in entries.items():
        if key not in known:
            meant = names.resembled(key, known)
            expected = repr(meant) if meant else ", ".join(known)
            raise YamlError(f"{begin}unknown key '{one_line(key)}', expected {expected}", yamlnodes.line_of(node))


def parse_ref(node: Node, what: str, prefixes: Prefixes) -> Ref:
    """The ref that a node names; ``what`` it is, for messages. Raises YamlError."""
    text = yamlnodes.string(node)
    if text is None:
        raise YamlError(f"{what} is expected to be a string, not {yamlnodes.kind(node)}", yamlnodes.line_of(node))
    try:
        return names.parse_ref(text, prefixes)
    except ValueError as error:
        raise YamlError(f"{what}: {error}", yamlnodes.line_of(node)) from error


def parse_directories(values: Mapping[str, Node]) -> dict[str, str | None]:
    """The fields of Directories among the values of a mapping. Raises YamlError."""
    return {key: _directory(key, values[key]) for key in (_CODE, _DATA) if key in values}


def _directory(key: str, node: Node) -> str | None:
    if key == _DATA and yamlnodes.is_null(node):
        return None
    path = yamlnodes.string(node)
    if path is None or not names.is_directory_path(path):
        said = yamlnodes.kind(node) if path is None else repr(path)
        expected = f"'.' or a relative path of letters, digits, '_', '.' and '-'{' or null' if key == _DATA else ''}"
        raise YamlError(f"{key!r}: expected {expected}, not {said}", yamlnodes.line_of(node))
    return path
