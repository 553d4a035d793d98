"""Small files of state: JSON with a format version, replaced as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jens import files


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


def encode_state(version: int, content: Any) -> bytes:
    """What a file of state has in it."""
    return json.dumps({"version": version, "content": content}, indent=1, sort_keys=True).encode() + b"\n"


def write_state(path: Path, version: int, content: Any) -> None:
    """Remember something that JSON can express; a file that would not change is left alone. Raises OSError."""
    new = encode_state(version, content)
    try:
        if files.read_file(path) == new:
            return
    except OSError:
        pass
    files.write_file(path, new)
