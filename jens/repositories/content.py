"""What a repository must have for environments to be of use, and what Git does not lay out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

from jens.git import peek
from jens.layout import Layout
from jens.links import HIERA_YAML, has_code, leads_out, links_of, optional_links_of
from jens.model import HIERADATA, PLAIN, Directories, RepoId
from jens.system import files

#: Gives what is at a path: the content of a file, b'' for all else that is there, None for nothing.
Look = Callable[[str], "bytes | None"]

#: Bytes of a file that are looked at.
_MOST = 1 << 20
_MODULES, _ATTRIBUTES = ".gitmodules", ".gitattributes"
#: What says in .gitmodules that there is a submodule, and in .gitattributes that Git LFS has files.
_SUBMODULE = re.compile(rb"^\s*\[submodule\b", re.MULTILINE)
_LFS = re.compile(rb"^[^#\n][^\n]*\sfilter=lfs\b", re.MULTILINE)


def problems(repo: RepoId, look: Look, used: Iterable[Directories] = (PLAIN.directories,)) -> list[str]:
    """What a commit lacks that environments link to, or has that Git does not lay out; a clause each.

    ``used``: the directories that environments use of it.
    """
    wanted = sorted({directories.code for directories in used}) if has_code(repo) else []
    found = [f"there is no '{code}', which environments link to" for code in wanted if look(code) is None]
    if _SUBMODULE.search(look(_MODULES) or b""):
        found.append("it has submodules, which are not laid out")
    if _LFS.search(look(_ATTRIBUTES) or b""):
        found.append("it has files in Git LFS, of which only the pointers are laid out")
    return found


def absent_items(layout: Layout, look: Look, used: Iterable[Directories]) -> list[str]:
    """The items of the common Hiera data that a commit lacks: links to them dangle."""
    linked = {below: None for directories in used for below in links_of(layout, HIERADATA, directories).values()}
    return [below for below in linked if look(below) is None]


def has_hiera(look: Look) -> bool:
    """Whether a commit has a hiera.yaml for environments."""
    return look(HIERA_YAML) is not None


def in_checkout(checkout: Path) -> Look:
    """What a checkout has. The function raises OSError when nobody can look now."""

    def look(path: str) -> bytes | None:
        where = f"{checkout}/{path}"
        if leads_out(checkout, path):  # nothing there is ours to look at
            return b""
        try:
            with open(files.open_file(where, os.O_NOFOLLOW), "rb") as file:
                return file.read(_MOST)
        except OSError as error:
            if not files.is_verdict(error):
                raise
            return b"" if files.is_there(where) else None

    return look


def in_commit(bare: Path, commit: str, wanted: Iterable[str]) -> Look:
    """What a commit of a repository has; only what is ``wanted``, and its top. Raises GitError."""
    read = peek.read(bare, commit, [*dict.fromkeys((_MODULES, _ATTRIBUTES, *wanted))])
    return lambda path: b"" if path == "." else read.get(path)


def looked_at(layout: Layout, repo: RepoId, used: Iterable[Directories]) -> list[str]:
    """What ``problems``, ``absent_items`` and ``has_hiera`` look at in a commit, besides its top."""
    codes = {directories.code for directories in used} if has_code(repo) else set[str]()
    items = (links_of(layout, repo, directories).values() for directories in used) if repo == HIERADATA else ()
    return sorted(codes.union(*items, optional_links_of(layout, repo).values()) - {"."})
