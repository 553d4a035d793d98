"""Files that Git derives from a repository's objects to be faster. It makes them anew when they are gone.

Commit-graphs, reverse indexes, bitmaps, times of objects, indexes of several packs: gitformat-commit-graph(5),
gitformat-pack(5). Each ends with the checksum of all before. Git does not compare it, and trusts what it reads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

from jens.system import files

log = logging.getLogger(__name__)

_PATTERNS = (
    "info/commit-graph",
    "info/commit-graphs/*.graph",
    "pack/pack-*.rev",
    "pack/pack-*.bitmap",
    "pack/pack-*.mtimes",
    "pack/multi-pack-index",
    "pack/multi-pack-index-*",
)
_LIST_OF_GRAPHS = "info/commit-graphs/commit-graph-chain"
_CHECKSUM = hashlib.sha1().digest_size
_SOME = 1 << 20


def remove_damaged(bare: Path) -> list[Path]:
    """Remove the derived files that cannot be read or do not have their checksum, with a warning for each.

    Raises OSError when nobody can look now.
    """
    damaged = [path for path in _found(bare) if not _is_whole(path)]
    for path in damaged:
        _remove(path)
        log.warning("Removed '%s', which is damaged, Git makes it anew", path)
    return damaged


def remove_all(bare: Path) -> list[Path]:
    """Remove all derived files, and return which these were."""
    found = [*_found(bare), *(bare / "objects").glob(_LIST_OF_GRAPHS)]
    for path in found:
        _remove(path)
    return found


def _found(bare: Path) -> Iterator[Path]:
    for pattern in _PATTERNS:
        yield from sorted((bare / "objects").glob(pattern))


def _remove(path: Path) -> None:
    if path.suffix == ".graph":
        files.remove_tree(path.with_name(Path(_LIST_OF_GRAPHS).name))  # a list must not name a graph that is gone
    files.remove_tree(path)


def _is_whole(path: Path) -> bool:
    try:
        with open(files.open_file(path), "rb") as file:
            digest, end = hashlib.sha1(), b""
            while some := file.read(_SOME):
                end += some
                digest.update(end[:-_CHECKSUM])
                end = end[-_CHECKSUM:]
            return digest.digest() == end
    except FileNotFoundError:
        return True  # there is nothing to remove
    except OSError as error:
        if not files.is_verdict(error):
            raise
        return False
