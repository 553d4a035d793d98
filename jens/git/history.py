"""Tells whether one commit is in the history of another."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from jens.errors import GitError
from jens.git.process import run
from jens.system.files import open_file

#: ``git merge-base --is-ancestor``: exit status for "no", and what it says of a commit that the repository has lost.
_NO = 1
_UNKNOWN = "Not a valid commit name"
#: A loose commit up to its first parent: gitformat-commit(5). Its size has no more digits than a number of 64 bits.
_FIRST_PARENT = re.compile(rb"commit \d{1,20}\0tree [0-9a-f]{40}\nparent ([0-9a-f]{40})\n")
_HEAD = 160
#: So many bytes of a compressed commit have its head.
_BEGINNING = 4096
#: Commits of a push that are followed without Git.
_NEAR = 20


def is_rewritten(bare: Path, old: str, new: str) -> bool:
    """Whether the history of a commit lacks an older one, which the repository may have lost. Raises GitError."""
    if _is_near(bare, old, new):
        return False
    try:
        run(["merge-base", "--is-ancestor", old, new], git_dir=bare, shared=True)
    except GitError as error:
        if not error.is_cut_short and (error.status == _NO or _UNKNOWN in error.problem):
            return True
        raise
    return False


def containing(bare: Path, commit: str, others: Iterable[str]) -> frozenset[str]:
    """Those of some commits that have this one (which the repository has) in their history, or are it.

    Commits that the repository has lost are left out. Raises GitError.
    """
    wanted = frozenset(others)
    if not wanted - {commit}:
        return wanted
    # The descendants of a commit, among all that lead to the others.
    stdin = "\n".join([*sorted(wanted), f"^{commit}"]).encode("ascii")
    arguments = ["rev-list", "--ancestry-path", "--ignore-missing", "--stdin"]
    found = run(arguments, git_dir=bare, shared=True, stdin=stdin).decode("ascii").split()
    return wanted.intersection([commit, *found])


def _is_near(bare: Path, old: str, new: str) -> bool:
    """Whether a few steps over first parents lead from one commit to an older one.

    Usual pushes are like that, and a fetch leaves their commits in files of their own. So most runs need no Git here.
    """
    for _ in range(_NEAR):
        parent = _first_parent(bare, new)
        if parent in (None, old):
            return parent == old
        new = str(parent)
    return False


def _first_parent(bare: Path, commit: str) -> str | None:
    """The first parent of a loose commit; None when it has none, is packed, or cannot be read."""
    found = _FIRST_PARENT.match(read_loose(bare, commit, _BEGINNING, _HEAD))
    return found[1].decode("ascii") if found else None


def read_loose(bare: Path, commit: str, compressed: int, most: int) -> bytes:
    """At most so many bytes of a commit in a file of its own, its header included, and of what is compressed there.

    b'' when it is packed, or cannot be read.
    """
    try:
        with open(open_file(f"{bare}/objects/{commit[:2]}/{commit[2:]}"), "rb", buffering=0) as file:
            return zlib.decompressobj().decompress(file.read(compressed), most)
    except (OSError, zlib.error):
        return b""
