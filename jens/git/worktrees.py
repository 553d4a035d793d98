"""Checkouts as linked worktrees, built aside and tied to their bare by a locked record: gitrepository-layout(5)."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

from jens.errors import GitError
from jens.git.index import Index, is_whole
from jens.git.process import run
from jens.names import is_commit_id
from jens.system.files import open_file, read_file, remove_tree

log = logging.getLogger(__name__)


#: An index begins so: gitformat-index(5).
_INDEX = b"DIRC"


def record_path(bare: Path, commit: str) -> Path:
    """The worktree record of the checkout of a commit."""
    return bare / "worktrees" / commit


def recorded_commits(bare: Path) -> list[str]:
    """The commits that a bare has records of checkouts for, as ``add_record`` makes them."""
    try:
        return [name for name in os.listdir(bare / "worktrees") if is_commit_id(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def add_record(bare: Path, commit: str, checkout: Path) -> None:
    """Tell a bare of a checkout, so that its commit stays: a locked worktree record.

    Without ``locked`` Git would drop the record whenever clonedir is not mounted. Source: gitrepository-layout(5).
    """
    record = record_path(bare, commit)
    record.mkdir(parents=True, exist_ok=True)
    (record / "HEAD").write_text(f"{commit}\n", "ascii")
    (record / "commondir").write_text("../..\n", "ascii")
    (record / "gitdir").write_text(f"{checkout}/.git\n", "utf-8")
    (record / "locked").write_text("in use by Jens\n", "ascii")


def has_record(bare: Path, commit: str) -> bool:
    """Whether a bare knows of the checkout of a commit."""
    record = f"{bare}/worktrees/{commit}"  # strings and not paths: each checkout is looked at
    return all(os.path.isfile(f"{record}/{name}") for name in ("HEAD", "commondir", "gitdir", "locked"))


def size(bare: Path, commit: str) -> int:
    """Bytes of a checkout's index, which has so many for each file; 0 when there is none."""
    try:
        return os.lstat(f"{bare}/worktrees/{commit}/index").st_size
    except OSError:
        return 0


def keeps_commit(bare: Path, commit: str) -> bool:
    """Whether Git keeps a commit for the sake of its record: that is whole, its index too, and names the commit."""
    record = record_path(bare, commit)
    try:
        head, back, index = (read_file(record / name) for name in ("HEAD", "gitdir", "index"))
    except OSError:
        return False
    return is_whole(index) and head == f"{commit}\n".encode("ascii") and bool(back.strip()) and has_record(bare, commit)


def point_to_record(directory: Path, bare: Path, commit: str, checkout: Path) -> None:
    """Write the ``.git`` of a worktree that is, or will be, at ``checkout``.

    A relative path, so that an instance can be moved as a whole.
    """
    (directory / ".git").write_text(_pointer(way_to_records(bare, checkout.parent), commit), "utf-8")


def way_to_records(bare: Path, clone: Path) -> str:
    """The relative path from each checkout in a directory to where a bare has its records."""
    # Realpath of the checkout would be its parent's and its name: it is a directory, or not there yet.
    return os.path.relpath(os.path.realpath(bare / "worktrees"), os.path.join(os.path.realpath(clone), "checkout"))


def _pointer(way: str, commit: str) -> str:
    return f"gitdir: {way}/{commit}\n"


def is_tied(bare: Path, commit: str, checkout: str, way: str) -> bool:
    """Whether a checkout and its record name each other, wherever both may have been moved to.

    ``way`` is from the checkout to the records: see ``way_to_records``.
    """
    try:
        back = read_file(f"{bare}/worktrees/{commit}/gitdir").decode("utf-8")
        pointer = read_file(f"{checkout}/.git").decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    tied = back == f"{checkout}/.git\n" and pointer == _pointer(way, commit)
    return tied and has_record(bare, commit) and _has_index(bare, commit)


def _has_index(bare: Path, commit: str) -> bool:
    """A look at the index of a checkout that costs little: a power failure may have emptied it."""
    try:
        with open(open_file(f"{bare}/worktrees/{commit}/index"), "rb", buffering=0) as index:
            return index.read(len(_INDEX)) == _INDEX
    except OSError:
        return False


def check_out(bare: Path, commit: str, staging: Path, checkout: Path, like: tuple[str, Path] | None = None) -> None:
    """Lay out the files of a commit in the new directory ``staging``, ready to be renamed to ``checkout``.

    Files are shared with another checkout, if one is given: its commit, and where it is. Raises GitError, OSError.
    """
    add_record(bare, commit, checkout)
    if not (like and _lay_out_like(bare, commit, staging, *like)):
        staging.mkdir(mode=0o755)
        _forget_index(bare, commit)
        _lay_out(bare, commit, staging)
    point_to_record(staging, bare, commit, checkout)


def _lay_out(bare: Path, commit: str, staging: Path) -> None:
    run(["read-tree", "-u", "--reset", commit], git_dir=record_path(bare, commit), work_tree=staging, lock_dir=bare)


def _lay_out_like(bare: Path, commit: str, staging: Path, other: str, checkout: Path) -> bool:
    """Lay out what differs from another checkout, and share the rest; False when that cannot be done, or well."""
    index = record_path(bare, commit) / "index"
    try:
        before = Index(read_file(record_path(bare, other) / "index"))
        staging.mkdir(mode=0o755)
        _forget_index(bare, commit)
        index.write_bytes(before.share(checkout, staging))
        _lay_out(bare, commit, staging)
        if before.attributes() == Index(read_file(index)).attributes():
            return True
    except (GitError, OSError, ValueError, struct.error) as error:
        log.debug("'%s' cannot be laid out like '%s': %s", staging, checkout, error)
    remove_tree(staging)
    return False


def _forget_index(bare: Path, commit: str) -> None:
    for left_over in ("index", "index.lock"):
        (record_path(bare, commit) / left_over).unlink(missing_ok=True)


def restore_record(bare: Path, commit: str, checkout: Path) -> None:
    """Make the record of a checkout that is in place already, and its ``.git``; no file of it is touched."""
    add_record(bare, commit, checkout)
    _forget_index(bare, commit)
    run(["read-tree", "--reset", commit], git_dir=record_path(bare, commit), work_tree=checkout, lock_dir=bare)
    (checkout / ".git").unlink(missing_ok=True)
    point_to_record(checkout, bare, commit, checkout)


def is_unchanged(checkout: Path) -> bool:
    """Whether the files of a checkout are those of its commit; untracked ones count as a change."""
    return not run(["status", "--porcelain", "--ignored"], git_dir=checkout / ".git", work_tree=checkout, shared=True)


def checked_out_commit(checkout: Path) -> str:
    """The full id of what a checkout has checked out. Raises GitError."""
    output = run(["rev-parse", "--verify", "HEAD^{commit}"], git_dir=checkout / ".git", work_tree=checkout, shared=True)
    return output.decode("ascii").strip()
