"""YAML as a tree of nodes: every value keeps its line, and nothing in the text is executed or expanded.

Everyone at a site can write metadata, so this works on PyYAML's node graph and not on constructed objects. Aliases
then cost nothing, tags construct nothing, and a problem can name its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Callable, NamedTuple

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # pragma: no cover - PyYAML without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Node = yaml.nodes.Node
#: The entries of a mapping, with the nodes of key and value.
Entries = Mapping[str, tuple[Node, Node]]

#: Larger texts are refused, in bytes. Nobody writes so much metadata by hand.
LARGEST = 1024 * 1024

#: The definitions of a site are not larger than this in all, in bytes, and not more.
LARGEST_SUM = 64 * LARGEST
MOST_DEFINITIONS = 20_000

#: Deeper texts are refused, in levels. Metadata needs four.
DEEPEST = 100

_INDENTATION = re.compile(r"^ *", re.MULTILINE)
_STRING = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
_MAP = "tag:yaml.org,2002:map"

#: The types of YAML itself: https://yaml.org/type/. Other tags ask the reader to make objects of a program.
_KINDS = ("binary", "bool", "float", "int", "map", "merge", "null", "omap", "pairs", "seq", "set", "str", "timestamp")
_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)


class YamlError(Exception):
    """A text that is not as expected. ``line`` counts from 1; it is 0 when the problem has no line.

    ``place`` always is a line to look at. Without ``line`` it is where something is missing, or where reading ended.
    """

    def __init__(self, text: str, line: int = 0, *, near: int = 1) -> None:
        super().__init__(text, line)
        self.text = text
        self.line = line
        self.place = line or near

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


def parse(source: bytes) -> Node | None:
    """The root node of the only document in the text, None when there is none. Raises YamlError."""
    if len(source) > LARGEST:
        raise YamlError(f"larger than {LARGEST} bytes")
    text = ""
    try:
        text = source.decode("utf-8-sig")
        _refuse_deep(text)
        loader = _Loader(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise YamlError("not UTF-8 text", near=source.count(b"\n", 0, error.start) + 1) from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlError(f"not YAML: {error.problem or error.context}", line) from error
    except yaml.YAMLError as error:
        near = text.encode().count(b"\n", 0, getattr(error, "position", 0)) + 1
        raise YamlError(f"not YAML: {str(error).splitlines()[0]}", near=near) from error


def _refuse_deep(text: str) -> None:
    """Raise YamlError for deep nesting. Each level takes C stack, and too little of it ends the program."""
    levels = sum(text.count(begin) for begin in "[{-?") + max(map(len, _INDENTATION.findall(text)), default=0)
    if levels < DEEPEST:  # true of almost every text, and then the exact depth does not matter
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            near = event.start_mark.line + 1 if event.start_mark else 1
            raise YamlError(f"nested more than {DEEPEST} levels deep", near=near)


def line_of(node: Node) -> int:
    """The line in which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def is_null(node: Node) -> bool:
    """Whether a node is null, written or implied."""
    return bool(node.tag == _NULL)


def string(node: Node) -> str | None:
    """The text of a string; None for anything else, numbers and dates included."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) and node.tag == _STRING else None


def items(node: Node) -> list[Node]:
    """The items of a list; another node, as if it were the only one. A tag may say that a text is a list."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) and kind(node) == "seq" else [node]


def is_foreign(node: Node) -> bool:
    """Whether a node is tagged as something that YAML does not know, such as an object of a program."""
    return node.tag not in _TAGS


def kind(node: Node) -> str:
    """What a node is, for a message."""
    return "null" if is_null(node) else str(node.tag).rpartition(":")[2]


def entries(node: Node, what: str) -> Entries:
    """A mapping's entries by the text of their keys, as (key node, value node). Follows merge keys.

    The last of repeated keys counts, as in every YAML reader. A key that is no scalar gets its kind in angle brackets
    as its text, which cannot be the name of anything. Raises YamlError when the node is no mapping.
    """
    try:
        pairs = reversed(list(_pairs(node, what, set())))
    except RecursionError as error:
        raise YamlError(f"{what} is merged from too long a chain", line_of(node)) from error
    return {
        str(key.value) if isinstance(key, yaml.ScalarNode) else f"<{kind(key)}>": (key, value) for key, value in pairs
    }


def dump(document: Mapping[str, object]) -> str:
    """A mapping as YAML, in its own order; plain ASCII, so that it can be printed in any locale."""
    text: str = yaml.safe_dump(dict(document), default_flow_style=False, sort_keys=False, width=LARGEST)
    return text


def _pairs(node: Node, what: str, seen: set[int]) -> Iterator[tuple[Node, Node]]:
    """The pairs of a mapping, the ones that count most first. Merges each mapping once, where it counts most."""
    if not isinstance(node, yaml.MappingNode) or node.tag != _MAP:
        raise YamlError(f"{what} is expected to be a mapping, not {kind(node)}", line_of(node))
    if id(node) in seen:
        return
    seen.add(id(node))
    yield from ((key, value) for key, value in reversed(node.value) if key.tag != _MERGE)
    for key, value in reversed(node.value):
        if key.tag == _MERGE:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _pairs(source, f"what is merged into {what}", seen)


def repeated(root: Node) -> Iterator[tuple[str, int, int]]:
    """Keys that a mapping anywhere in the tree repeats, which YAML forbids: text, line, and line of the first.

    Compares keys as ``entries`` does. A merged mapping may have the same key again, which is no repetition.
    """
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield from _repeated_in(node)
            left += [child for pair in node.value for child in pair]
        else:
            left += node.value


def _repeated_in(node: yaml.MappingNode) -> Iterator[tuple[str, int, int]]:
    first: dict[str, int] = {}
    for key, _value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        if key.value in first:
            yield key.value, line_of(key), first[key.value]
        first.setdefault(key.value, line_of(key))


# Problems and how they are reported


#: A function that gets each problem. If it raises, reading ends at the first problem.
Report = Callable[[YamlError], None]


class Doubt(NamedTuple):
    """Something that is allowed, but hardly meant; the line counts from 1."""

    line: int
    text: str


def stop(problem: YamlError) -> None:
    """Raise the problem: the report of a caller who wants only the first one."""
    raise problem


def ignore(_problem: YamlError) -> None:
    """Do nothing: the report of a caller who wants whatever can be read."""


@contextmanager
def reporting(report: Report) -> Iterator[None]:
    """Report a YamlError of the block. The code after the block goes on, unless the report raises."""
    try:
        yield
    except YamlError as problem:
        report(problem)
