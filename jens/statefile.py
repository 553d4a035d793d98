"""Files of state in cachedir: small JSON files with a format version, replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from jens.layout import Layout
from jens.system import files


class StateFile(NamedTuple):
    """A file of state in cachedir, JSON with a format version: who writes it, and what its loss costs.

    The history is no JSON. When a file that ``is_fingerprinted`` changes, the next run looks at everything. On a full
    disk the old content of a file that ``is_replaceable`` is removed to make room for the new one. jens-reset leaves a
    file that ``outlives_resets``.
    """

    name: str
    version: int
    writer: str
    loss: str
    is_fingerprinted: bool = False
    is_replaceable: bool = True
    outlives_resets: bool = False


INVENTORY = StateFile("inventory.json", 1, "repositories.inventory", "it is generated from mirrors and checkouts", True)
UNREFERENCED = StateFile(
    "unreferenced.json", 1, "repositories.retention", "unused checkouts stay for another retention", True
)
ABSENT_REFS = StateFile("absent-refs.json", 1, "repositories.absent_refs", "the next run asks every remote", True)
VERSIONS = StateFile("versions.json", 1, "environments.versions", "replaced versions stay for another retention")
REFUSALS = StateFile("refusals.json", 1, "purgeguard", "the purge guard forgets what it refused", True, False)
DANGLING = StateFile("dangling.json", 1, "environments.dangling", "dangling links are logged once more")
BASELINE = StateFile("baseline.json", 11, "update.baseline", "the next run looks at everything")
LAST_RUN = StateFile(
    "last-run.json",
    1,
    "lastrun",
    "jens-stats does not tell how the last run went, and the next run looks at everything",
)

HISTORY = StateFile(
    "history.sqlite", 1, "history.store", "the history begins anew", is_replaceable=False, outlives_resets=True
)
DELIVERIES = StateFile(
    "deliveries.json", 1, "deliveries", "every receiver is told of all environments anew", outlives_resets=True
)
USAGES = StateFile(
    "usages.json",
    1,
    "metadata.usages",
    "repositories with a bad entry in the library are used as if it had a URL alone",
)
DEFINITIONS = StateFile("definitions.json", 1, "metadata.parsed", "the next run parses every definition")

#: Every file of state. A new one gets a row here, and in docs/operation.md.
STATE_FILES = (
    *(INVENTORY, UNREFERENCED, ABSENT_REFS, VERSIONS, REFUSALS, DANGLING, BASELINE, LAST_RUN, DEFINITIONS),
    USAGES,
    DELIVERIES,
    HISTORY,
)


def state_path(layout: Layout, file: StateFile) -> Path:
    """The path of a file of state."""
    return layout.cachedir / file.name


class StateError(Exception):
    """A file of state is missing, damaged, or of another version."""


def load(layout: Layout, file: StateFile) -> Any:
    """The content that was saved. Raises StateError, and OSError when nobody can look now: then nothing is lost."""
    path = state_path(layout, file)
    try:
        document = json.loads(files.read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and not files.is_verdict(error):
            raise
        raise StateError(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.get("version") != file.version or "content" not in document:
        raise StateError(f"{path}: not version {file.version} of this file")
    return document["content"]


def save(layout: Layout, file: StateFile, content: Any) -> None:
    """Replace the content of a file of state; an unchanged file is not written. Raises OSError.

    On a full disk the old content gives its room to the new one. If that is not enough, or this is interrupted, the
    content is lost, which costs what ``file.loss`` says; a content that is out of date could do harm.
    """
    path, new = state_path(layout, file), encode(file, content)
    try:
        if files.read_file(path) == new:
            return
    except OSError:
        pass
    try:
        files.write_file(path, new)
    except OSError as error:
        if not files.is_full(error) or not file.is_replaceable:
            raise
        files.remove_tree(path)
        files.write_file(path, new)


def drop(layout: Layout, file: StateFile) -> bool:
    """Remove a file of state, which costs what ``file.loss`` says. Returns whether it is gone."""
    path = state_path(layout, file)
    files.remove_tree(path)
    return not os.path.lexists(path)


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
