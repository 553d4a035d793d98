"""Small files of state: JSON with a format version, replaced as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jens.system import files


class StateError(Exception):
    """A state file is not there, damaged, or of another version."""


def read_state(path: Path, version: int) -> Any:
    """What ``write_state`` was given. Raises StateError."""
    try:
        document = json.loads(files.read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("version") != version or "content" not in document:
        raise StateError(f"{path}: not version {version} of this file")
    return document["content"]


#: One for all: json.dumps makes another one each time.
_json = json.JSONEncoder(sort_keys=True).encode


def encode_state(version: int, content: Any) -> bytes:
    """What a file of state has in it: for people, too, a line for each entry."""
    return f"{_lines({'content': content, 'version': version}, 3)}\n".encode("ascii")


def _lines(value: Any, depth: int) -> str:
    """JSON with its outer mappings in lines; the json module's own way to do that takes ten times as long."""
    if depth == 0 or not isinstance(value, dict) or not value:
        return _json(value)
    return "{\n" + ",\n".join([f"{_json(key)}: {_lines(value[key], depth - 1)}" for key in sorted(value)]) + "\n}"


def write_state(path: Path, version: int, content: Any) -> None:
    """Remember something that JSON can express; a file that would not change is left alone. Raises OSError."""
    new = encode_state(version, content)
    try:
        if files.read_file(path) == new:
            return
    except OSError:
        pass
    files.write_file(path, new)
