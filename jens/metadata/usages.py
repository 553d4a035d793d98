"""Remembers how environments use repositories, for those whose entries of the library cannot be used any more.

What is on disk of such a repository is kept as it is: it keeps its ref, and where it has its code and data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jens import statefile
from jens.layout import Layout, entry_ref, ref_entry
from jens.model import PLAIN, Directories, Library, Ref, RepoId, Usage, Usages
from jens.names import is_directory_path, parse_repository
from jens.statefile import USAGES, StateError


def load(layout: Layout) -> dict[RepoId, Usage]:
    """Load what was saved last; nothing when that is lost or damaged."""
    try:
        content = statefile.load(layout, USAGES)
        return {parse_repository(key): decode(usage) for key, usage in content.items()}
    except (StateError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def save(layout: Layout, usages: Usages, known: Iterable[RepoId]) -> None:
    """Save the usages of the repositories that are known, if they are others now. Raises OSError."""
    now = {repo: usages[repo] for repo in known if repo in usages}
    if now != load(layout):
        statefile.save(layout, USAGES, {str(repo): encode(usage) for repo, usage in sorted(now.items())})


def with_remembered(library: Library, remembered: Usages) -> Library:
    """The library, which also has what it said of repositories of which it has no usable entry now."""
    others = {repo: usage for repo, usage in remembered.items() if repo not in library.urls}
    return library._replace(usages={**others, **library.usages}) if others else library


def encode(usage: Usage) -> list[str | None]:
    """A usage as JSON types."""
    return [*usage.directories, *(None if ref is None else ref_entry(ref, None) for ref in (usage.ref, usage.fallback))]


def decode(content: Any) -> Usage:
    """Reverse ``encode``. Raises TypeError, ValueError for content that it cannot have made."""
    code, data, *refs = content
    ref, fallback = map(_ref, refs)
    return Usage(decode_directories({"code": code, "data": data}), ref, fallback)


def _ref(entry: Any) -> Ref | None:
    found = None if entry is None else entry_ref(entry)
    if found is None and entry is not None:
        raise ValueError(f"unexpected {entry!r}")
    return found


def decode_directories(said: Mapping[str, Any]) -> Directories:
    """The Directories of which a file of state has some fields. Raises ValueError."""
    paths = {key: said[key] for key in Directories._fields if key in said}
    if not all(isinstance(path, str) and is_directory_path(path) for path in paths.values() if path is not None):
        raise ValueError(f"unexpected {said!r}")
    return PLAIN.directories.changed(paths)
