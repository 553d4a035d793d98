"""Small files of state: JSON with a format version, replaced as a whole or not at all."""

from __future__ import annotations

import json
from typing import Any

from jens.layout import Layout, StateFile
from jens.system import files


class StateError(Exception):
    """A file of state is missing, damaged, or of another version."""


def load(layout: Layout, file: StateFile) -> Any:
    """The content that was saved. Raises StateError."""
    path = layout.state(file)
    try:
        document = json.loads(files.read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("version") != file.version or "content" not in document:
        raise StateError(f"{path}: not version {file.version} of this file")
    return document["content"]


def save(layout: Layout, file: StateFile, content: Any) -> None:
    """Replace the content of a file of state; an unchanged file is not written. Raises OSError."""
    path, new = layout.state(file), encode(file, content)
    try:
        if files.read_file(path) == new:
            return
    except OSError:
        pass
    files.write_file(path, new)


#: One encoder for all calls: json.dumps makes a new one for each call.
_json = json.JSONEncoder(sort_keys=True).encode


def encode(file: StateFile, content: Any) -> bytes:
    """The bytes of a file of state: one line for each entry, so that people can read it."""
    return f"{_lines({'content': content, 'version': file.version}, 3)}\n".encode("ascii")


def _lines(value: Any, depth: int) -> str:
    """JSON with one line for each entry of the outer mappings; the json module takes ten times as long to do this."""
    if depth == 0 or not isinstance(value, dict) or not value:
        return _json(value)
    return "{\n" + ",\n".join([f"{_json(key)}: {_lines(value[key], depth - 1)}" for key in sorted(value)]) + "\n}"
