"""What a repository must have for environments to be of use, and what Git does not lay out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, NamedTuple

from jens.git import peek, worktrees
from jens.git.peek import Special
from jens.layout import Layout
from jens.links import HIERA_YAML, has_code, leads_out, links_of, optional_links_of
from jens.model import HIERADATA, PLAIN, Directories, RepoId
from jens.system import files


class Look(NamedTuple):
    """A look into a commit: ``at`` a path, and at what is ``special`` anywhere in it.

    ``at`` gives the content of a file, b'' for all else that is there, None for nothing. Raises OSError, GitError when
    nobody can look now.
    """

    at: Callable[[str], bytes | None]
    special: Callable[[], Special]


#: Bytes of a file that are looked at.
_MOST = 1 << 20
_MODULES, _ATTRIBUTES = ".gitmodules", ".gitattributes"
#: So many .gitattributes files of a checkout are looked at.
_MOST_ATTRIBUTES = 100
#: What says in .gitmodules that there is a submodule, and in .gitattributes that Git LFS has files.
_SUBMODULE = re.compile(rb"^\s*\[submodule\b", re.MULTILINE)
_LFS = re.compile(rb"^[^#\n][^\n]*\sfilter=lfs\b", re.MULTILINE)


def problems(repo: RepoId, look: Look, used: Iterable[Directories] = (PLAIN.directories,)) -> list[str]:
    """What a commit lacks that environments link to, or has that Git does not lay out; a clause each.

    ``used``: the directories that environments use of it.
    """
    wanted, special = sorted({directories.code for directories in used}) if has_code(repo) else [], look.special()
    found = [f"there is no '{code}', which environments link to" for code in wanted if look.at(code) is None]
    if special.has_submodules or _SUBMODULE.search(look.at(_MODULES) or b""):
        found.append("it has submodules, which are not laid out")
    if any(_LFS.search(content) for content in (look.at(_ATTRIBUTES) or b"", *special.attributes)):
        found.append("it has files in Git LFS, of which only the pointers are laid out")
    return found


def absent_items(layout: Layout, look: Look, used: Iterable[Directories]) -> list[str]:
    """The items of the common Hiera data that a commit lacks: links to them dangle."""
    linked = {below: None for directories in used for below in links_of(layout, HIERADATA, directories).values()}
    return [below for below in linked if look.at(below) is None]


def has_hiera(look: Look) -> bool:
    """Whether a commit has a hiera.yaml for environments."""
    return look.at(HIERA_YAML) is not None


def in_checkout(checkout: Path, bare: Path, commit: str) -> Look:
    """A look into the checkout of a commit, of which the mirror has the index."""

    def at(path: str) -> bytes | None:
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

    def special() -> Special:
        paths, has_submodules = worktrees.special(bare, commit)
        return Special(tuple(at(path) or b"" for path in paths[:_MOST_ATTRIBUTES]), has_submodules)

    return Look(at, special)


def in_commit(bare: Path, commit: str, wanted: Iterable[str]) -> Look:
    """A look into a commit of a repository: only at what is ``wanted``, and at its top. Raises GitError."""
    read = peek.read(bare, commit, [*dict.fromkeys((_MODULES, _ATTRIBUTES, *wanted))])
    return Look(lambda path: b"" if path == "." else read.get(path), lambda: peek.special(bare, commit))


def looked_at(layout: Layout, repo: RepoId, used: Iterable[Directories]) -> list[str]:
    """What ``problems``, ``absent_items`` and ``has_hiera`` look at in a commit, besides its top."""
    codes = {directories.code for directories in used} if has_code(repo) else set[str]()
    items = (links_of(layout, repo, directories).values() for directories in used) if repo == HIERADATA else ()
    return sorted(codes.union(*items, optional_links_of(layout, repo).values()) - {"."})
