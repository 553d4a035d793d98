"""Checkouts as linked worktrees, built aside and recorded in their bare by a locked record: gitrepository-layout(5)."""

from __future__ import annotations

import io
import logging
import mmap
import os
import struct
from pathlib import Path

from jens.errors import GitError
from jens.git.index import Index, is_special, is_whole
from jens.git.process import run
from jens.names import is_commit_id
from jens.system.files import is_verdict, leads_to_file, open_file, read_file, read_if_there, remove_tree

log = logging.getLogger(__name__)


#: The first bytes of an index: gitformat-index(5).
_INDEX = b"DIRC"
#: Bytes of an index that is read as a whole: half a million files with usual names.
_LARGEST_INDEX = 1 << 26
#: Bytes of an index up to which reading it is quicker than mapping it.
_SMALL_INDEX = 1 << 18


def record_path(bare: Path, commit: str) -> Path:
    """The worktree record of the checkout of a commit."""
    return bare / "worktrees" / commit


def recorded_commits(bare: Path) -> list[str]:
    """The commits whose checkouts have a record in a bare, named as ``add_record`` does."""
    try:
        return [name for name in os.listdir(bare / "worktrees") if is_commit_id(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def add_record(bare: Path, commit: str, checkout: Path) -> None:
    """Record a checkout in its bare with a locked worktree record, so that Git keeps its commit.

    Without ``locked`` Git would drop the record whenever clonedir is not mounted. Source: gitrepository-layout(5).
    """
    record = record_path(bare, commit)
    record.mkdir(parents=True, exist_ok=True)
    (record / "HEAD").write_text(f"{commit}\n", "ascii")
    (record / "commondir").write_text("../..\n", "ascii")
    (record / "gitdir").write_text(f"{checkout}/.git\n", "utf-8")
    (record / "locked").write_text("in use by Jens\n", "ascii")


def has_record(bare: Path, commit: str) -> bool:
    """Whether a bare has a complete record of the checkout of a commit. Raises OSError when nobody can look now."""
    record = f"{bare}/worktrees/{commit}"  # strings and not paths, for speed: a run looks at each checkout
    return all(leads_to_file(f"{record}/{name}") for name in ("HEAD", "commondir", "gitdir", "locked"))


def size(bare: Path, commit: str) -> int:
    """Bytes of a checkout's index, a measure of its number of files; 0 when there is none."""
    try:
        return os.lstat(f"{bare}/worktrees/{commit}/index").st_size
    except OSError:
        return 0


def special(bare: Path, commit: str) -> tuple[list[str], bool]:
    """The paths of the .gitattributes files of a checkout, and whether it has submodules, as its index says.

    Nothing when there is no index that can be read.
    """
    try:
        with open(open_file(f"{bare}/worktrees/{commit}/index"), "rb", buffering=0) as file:
            if not _is_special(file):
                return [], False
            file.seek(0)
            index = Index(file.read(_LARGEST_INDEX))
        attributes = sorted(os.fsdecode(path) for path, _ in index.attributes())
        return attributes, bool(index.submodules())
    except (OSError, ValueError):
        return [], False


def _is_special(file: io.FileIO) -> bool:
    """Whether an index may name something special. A run looks at each checkout, so no large one is read."""
    content = file.read(_SMALL_INDEX)
    if len(content) < _SMALL_INDEX:
        return is_special(content)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return is_special(mapped)


def keeps_commit(bare: Path, commit: str) -> bool:
    """Whether a record makes Git keep its commit: it is complete, has an undamaged index, and names the commit.

    Raises OSError when nobody can look now.
    """
    record = record_path(bare, commit)
    head, back, index = (read_if_there(record / name) for name in ("HEAD", "gitdir", "index"))
    if head is None or back is None or index is None:
        return False
    return is_whole(index) and head == f"{commit}\n".encode("ascii") and bool(back.strip()) and has_record(bare, commit)


def point_to_record(directory: Path, bare: Path, commit: str, checkout: Path) -> None:
    """Write the ``.git`` of a worktree that is, or will be, at ``checkout``.

    It has a relative path, so that an instance can be moved as a whole.
    """
    (directory / ".git").write_text(_pointer(way_to_records(bare, checkout.parent), commit), "utf-8")


def way_to_records(bare: Path, clone: Path) -> str:
    """The relative path from any checkout in ``clone`` to the records of a bare."""
    # A checkout is a directory, or not there yet. So its real path is the one of its parent, plus its name.
    return os.path.relpath(os.path.realpath(bare / "worktrees"), os.path.join(os.path.realpath(clone), "checkout"))


def _pointer(records: str, commit: str) -> str:
    return f"gitdir: {records}/{commit}\n"


def is_tied(bare: Path, commit: str, checkout: str, records: str) -> bool:
    """Whether a checkout and its complete record name each other at the paths that they have now.

    ``records`` is the path from ``way_to_records``. Raises OSError when nobody can look now.
    """
    back = read_if_there(f"{bare}/worktrees/{commit}/gitdir")
    pointer = read_if_there(f"{checkout}/.git")
    tied = back == os.fsencode(f"{checkout}/.git\n") and pointer == os.fsencode(_pointer(records, commit))
    return tied and has_record(bare, commit) and _has_index(bare, commit)


def _has_index(bare: Path, commit: str) -> bool:
    """Whether the index of a checkout begins as one does. A cheap check: a power failure may have emptied it."""
    try:
        with open(open_file(f"{bare}/worktrees/{commit}/index"), "rb", buffering=0) as index:
            return index.read(len(_INDEX)) == _INDEX
    except OSError as error:
        if not is_verdict(error):
            raise
        return False


def check_out(bare: Path, commit: str, staging: Path, checkout: Path, like: tuple[str, Path] | None = None) -> None:
    """Lay out the files of a commit in the new directory ``staging``, ready to be renamed to ``checkout``.

    ``like`` is another checkout to link equal files from: its commit and its path. Raises GitError, OSError.
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
    """Lay out what differs from another checkout, and link the rest; False when that fails or the attributes differ."""
    index = record_path(bare, commit) / "index"
    if size(bare, other) > _LARGEST_INDEX:
        return False
    try:
        before = Index(read_file(record_path(bare, other) / "index"))
        staging.mkdir(mode=0o755)
        _forget_index(bare, commit)
        index.write_bytes(before.share(checkout, staging))
        _lay_out(bare, commit, staging)
        if before.attributes() == Index(read_file(index)).attributes():
            return True
    except (GitError, OSError, ValueError, struct.error) as error:
        if isinstance(error, GitError) and error.is_cut_short:
            raise  # it would take as much time or memory again
        log.debug("'%s' cannot be laid out like '%s': %s", staging, checkout, error)
    remove_tree(staging)
    return False


def _forget_index(bare: Path, commit: str) -> None:
    for left_over in ("index", "index.lock"):
        (record_path(bare, commit) / left_over).unlink(missing_ok=True)


def restore_record(bare: Path, commit: str, checkout: Path) -> None:
    """Make the record and the ``.git`` of a checkout that is in place already; its files are not touched."""
    add_record(bare, commit, checkout)
    _forget_index(bare, commit)
    run(["read-tree", "--reset", commit], git_dir=record_path(bare, commit), work_tree=checkout, lock_dir=bare)
    (checkout / ".git").unlink(missing_ok=True)
    point_to_record(checkout, bare, commit, checkout)


def is_unchanged(checkout: Path) -> bool:
    """Whether the files of a checkout are those of its commit; untracked ones count as a change."""
    return not run(["status", "--porcelain", "--ignored"], git_dir=checkout / ".git", work_tree=checkout, shared=True)


def checked_out_commit(checkout: Path) -> str:
    """The full id of the commit that a checkout has checked out. Raises GitError."""
    output = run(["rev-parse", "--verify", "HEAD^{commit}"], git_dir=checkout / ".git", work_tree=checkout, shared=True)
    return output.decode("ascii").strip()
