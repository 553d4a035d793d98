"""The commit that a clone has checked out, read from its files and without Git: gitrepository-layout(5)."""

from __future__ import annotations

import os
from pathlib import Path

from jens.names import is_commit_id
from jens.system import files

_SYMBOLIC = "ref: "
_LONGEST_CHAIN = 5  # of symbolic refs, as in Git


def commit_of(clone: Path) -> str | None:
    """The commit that a clone has checked out; None when its files do not tell.

    Raises OSError when nobody can look now.
    """
    try:
        git_dir = _git_dir(clone)
        value = files.read_file(git_dir / "HEAD").decode("utf-8").strip()
        linked = _is_linked(git_dir)
        shared = git_dir / files.read_file(git_dir / "commondir").decode("utf-8").strip() if linked else git_dir
        for _ in range(_LONGEST_CHAIN):
            if not value.startswith(_SYMBOLIC):
                break
            value = _ref_value(shared, value[len(_SYMBOLIC) :].strip())
    except ValueError:
        return None
    except OSError as error:
        if not files.is_verdict(error):
            raise
        return None
    return value if is_commit_id(value) else None


def _is_linked(git_dir: Path) -> bool:
    return os.path.lexists(git_dir / "commondir")


def _git_dir(clone: Path) -> Path:
    path = clone / ".git"
    if path.is_dir():
        return path
    named = files.read_file(path).decode("utf-8").strip().removeprefix("gitdir: ")
    git_dir = clone / named
    if os.path.isabs(named):
        # On a volume that another host wrote, this may be a path of that host. Here it may lead to another clone.
        back = Path(files.read_file(git_dir / "gitdir").decode("utf-8").strip())
        if not os.path.samefile(back.parent, clone):
            raise ValueError(f"{git_dir} is of another clone")
    return git_dir


def _ref_value(git_dir: Path, ref: str) -> str:
    if not ref.startswith("refs/") or ".." in ref:
        raise ValueError(f"unexpected ref {ref!r}")
    try:
        return files.read_file(git_dir / ref).decode("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        lines = files.read_file(git_dir / "packed-refs").decode("utf-8", "surrogateescape").split("\n")
        return next((line[:40] for line in lines if line[40:] == f" {ref}"), "")
