"""The shapes of JSON documents, as docs/status.md has them, and whether a document has its shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests import TREE

Shapes = Mapping[str, Mapping[str, str]]

_BLOCK = re.compile(r"^```text\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"(GET \S+|[A-Z_]+)")
_PLAIN = {"text": (str,), "number": (int, float), "boolean": (bool,), "null": (type(None),)}


def documented() -> Shapes:
    """Each documented shape: its fields with their types."""
    section = (TREE / "docs" / "status.md").read_text("utf-8").split("\n## For programs\n")[1].split("\n## ")[0]
    found: dict[str, dict[str, str]] = {}
    name = ""
    for line in "\n\n".join(block["lines"] for block in _BLOCK.finditer(section)).splitlines():
        if _NAME.fullmatch(line):
            name = line
            found[name] = {}
        elif line:
            field, kind = line.split(maxsplit=1)
            found[name][field] = kind
    return found


def faults_of_shape(value: Any, kind: str, shapes: Shapes, place: str = "") -> list[str]:
    """Where a value has not the documented shape, and what is there."""
    if kind.startswith("list of "):
        wanted, _, null = kind[len("list of ") :].partition(" or null")
        del null
        if value is None and kind.endswith(" or null"):
            return []
        if not isinstance(value, list):
            return [f"{place}: {value!r} is no {kind}"]
        return [each for item in value for each in faults_of_shape(item, wanted, shapes, f"{place}[]")]
    alternatives = kind.split(" or ")
    found = [_faults(value, each, shapes, place) for each in alternatives]
    return [] if not all(found) else min(found, key=len)


def _faults(value: Any, kind: str, shapes: Shapes, place: str) -> list[str]:
    if kind in _PLAIN:
        is_good = isinstance(value, _PLAIN[kind]) and (kind == "boolean" or not isinstance(value, bool))
        return [] if is_good else [f"{place}: {value!r} is no {kind}"]
    if not isinstance(value, dict):
        return [f"{place}: {value!r} is no {kind}"]
    fields = shapes[kind]
    if value.keys() != fields.keys():
        return [f"{place}: {kind} differs in {sorted(value.keys() ^ fields.keys())}"] * 100
    return [
        each
        for name, type_ in fields.items()
        for each in faults_of_shape(value[name], type_, shapes, f"{place}.{name}")
    ]
