"""Small files of state: JSON with a format version, replaced as a whole or not at all."""

from __future__ import annotations

import json
from typing import Any

from jens.layout import Layout, StateFile
from jens.system import files


class StateError(Exception):
    """A file of state is not there, damaged, or of another version."""


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
    """Replace a file's content by something that JSON can express. An unchanged file is left alone. Raises OSError."""
    path, new = layout.state(file), encode(file, content)
    try:
        if files.read_file(path) == new:
            return
    except OSError:
        pass
    files.write_file(path, new)


#: One encoder for all: json.dumps makes another one each time.
_json = json.JSONEncoder(sort_keys=True).encode


def encode(file: StateFile, content: Any) -> bytes:
    """The bytes of a file of state: one line for each entry, so that people can read it."""
    return f"{_lines({'content': content, 'version': file.version}, 3)}\n".encode("ascii")


def _lines(value: Any, depth: int) -> str:
    """JSON with its outer mappings in lines; the json module's own way to do that takes ten times as long."""
    if depth == 0 or not isinstance(value, dict) or not value:
        return _json(value)
    return "{\n" + ",\n".join([f"{_json(key)}: {_lines(value[key], depth - 1)}" for key in sorted(value)]) + "\n}"
