"""Single steps on the file system: what is there, what an error means, and changes.

Each change is done completely or not at all, even when it is interrupted.

Nobody reads names that begin with STAGING or TRASH, and ``sweep`` deletes them.
"""

# ruff: noqa: PLC0415 - a run starts every minute, and one with nothing to do needs little of this

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from jens import deferred

STAGING = ".new-"
TRASH = ".trash-"
#: The mode of files that nobody but their owner may open.
PRIVATE = 0o600
#: Most bytes of a large file that are in memory at once.
_PIECE = 1 << 20


def is_gone(error: OSError) -> bool:
    """Whether an error only means that a path does not exist, or no longer exists."""
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENAMETOOLONG)


def is_full(error: OSError) -> bool:
    """Whether an error means that there is no room: the disk is full, or a quota is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


#: Errors that tell what is there: nothing, something else, or something that nobody lets us read.
_VERDICTS = frozenset(
    (
        *(errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EINVAL),
        *(errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM),
    )
)


def is_verdict(error: OSError) -> bool:
    """Whether an error tells what is there. Any other error tells only that nobody can look now.

    Too many open files, no memory, a disk that cannot be read: nothing is damaged or missing because of these.
    """
    return error.errno in _VERDICTS


def is_there(path: Path | str) -> bool:
    """Whether there is something at a path; links are not followed. Raises OSError when nobody can look now."""
    return status_of(path) is not None


def status_of(path: Path | str) -> os.stat_result | None:
    """What is at a path, None for nothing; links are not followed. Raises OSError when nobody can look now."""
    try:
        return os.lstat(path)
    except OSError as error:
        if not is_verdict(error):
            raise
        return None


def leads_to_file(path: Path | str) -> bool:
    """Whether a path leads to a regular file; links are followed. Raises OSError when nobody can look now."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        if not is_verdict(error):
            raise
        return False


def read_if_there(path: Path | str, most: int = -2) -> bytes | None:
    """The content of a regular file, None when there is none, or more than ``most`` bytes (negative: any number).

    Raises OSError when nobody can look now.
    """
    try:
        with open(open_file(path), "rb", buffering=0) as file:
            content = file.read(most + 1) if most >= 0 else file.readall()
            return None if 0 <= most < len(content) else content
    except OSError as error:
        if not is_verdict(error):
            raise
        return None


def is_missing(path: Path, *, follow: bool = True) -> bool:
    """Whether a path certainly leads nowhere; False when a missing permission hides the truth."""
    try:
        os.stat(path, follow_symlinks=follow)
    except OSError as error:
        return is_gone(error) or error.errno == errno.ELOOP
    return False


def staging_name(parent: Path) -> Path:
    """A fresh name in ``parent`` for something that is still being made."""
    return parent / f"{STAGING}{os.urandom(6).hex()}"


def make_directory(path: Path) -> None:
    """Make a directory and its parents, unless it is there."""
    path.mkdir(0o755, parents=True, exist_ok=True)


def open_file(path: Path | str, flags: int = 0, mode: int = 0o644) -> int:
    """A descriptor to read a regular file. Raises OSError for anything else: a pipe would wait for a writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def keep_private(descriptor: int, path: Path) -> None:
    """See to it that nobody but its owner can open a file: whoever can open a lock can hold it.

    What root makes in a directory of somebody else belongs to that user, who could not open it otherwise. A file that
    cannot be changed stays as it is: it belongs to somebody else, or is on a file system that is read only.
    """
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        above = os.stat(path.parent) if status.st_uid == 0 == os.geteuid() else status
        if above.st_uid != status.st_uid:
            os.fchown(descriptor, above.st_uid, above.st_gid)
        if stat.S_IMODE(status.st_mode) != PRIVATE:
            os.fchmod(descriptor, PRIVATE)


def read_file(path: Path | str) -> bytes:
    """The content of a regular file. Raises OSError."""
    with open(open_file(path), "rb", buffering=0) as file:
        return file.readall()


def read_pieces(path: Path | str) -> Iterator[bytes]:
    """The content of a regular file, in pieces that fit into memory, however large it is. Raises OSError."""
    with open(open_file(path), "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            yield piece


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an OSError name ``path`` instead of the staging name; the error of write(2) on a full disk has no name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_file(path: Path, content: bytes) -> None:
    """Replace a file's content: written aside, flushed and renamed."""
    aside = staging_name(path.parent)
    try:
        with naming(path), open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with naming(path):
            trash = _put(aside, path)
    except BaseException:
        remove_tree(aside)
        raise
    remove_tree(trash)
    flush(path.parent)


def write_files(directory: Path, contents: Mapping[Path, bytes]) -> None:
    """``write_file`` for many files in one directory, with a single flush for all of them."""
    aside = {path: staging_name(directory) for path in contents}
    try:
        for path, content in contents.items():
            with naming(path):
                aside[path].write_bytes(content)
        if contents:
            flush_file_system(directory)
        for path, staging in aside.items():
            with naming(path):
                remove_tree(_put(staging, path))
    finally:
        for staging in aside.values():
            remove_tree(staging)


def flush(path: Path) -> None:
    """Put a file, or the list of a directory's entries, on stable storage. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(path: Path) -> None:
    """Put a directory with all that is in it on stable storage, and nothing that others wrote. Raises OSError."""
    # Nobody can flush a link, and nobody has to: a directory on stable storage has its links there, with their texts.
    # ext4 and XFS keep both in one journal, in the order in which they were made (ext4_inode_journal_mode() of Linux
    # has the texts in it, xfs_dir_fsync() writes it up to there). btrfs logs what is new in a directory with it
    # (log_new_dir_dentries()). An NFS server answers when it has stored a link (nfs_fsync_dir()).
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                flush_tree(Path(entry.path))
            elif not entry.is_symlink():
                flush(Path(entry.path))
    flush(path)


def put_link(path: Path, target: str) -> Path | None:
    """Make ``path`` a link to ``target`` in one rename.

    A directory at ``path`` is moved to the trash first, and its new path is returned. The caller deletes it when nobody
    reads it any more.
    """
    aside = staging_name(path.parent)
    try:
        with naming(path):
            os.symlink(target, aside)
            return _put(aside, path)
    except BaseException:
        remove_tree(aside)
        raise


def replace_tree(staging: Path, path: Path) -> None:
    """Rename a finished directory to ``path``. What was there is moved to the trash first, and deleted afterwards."""
    with naming(path):
        remove_tree(_replace(staging, path))


def put_tree(staging: Path, path: Path) -> Path | None:
    """Rename a finished directory to ``path``. Returns where that is which was there, for the caller to delete.

    The two change places in one step, where the file system can do that. Raises OSError.
    """
    if not os.path.lexists(path):
        os.rename(staging, path)
        return None
    try:
        _exchange(staging, path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return _replace(staging, path)
    return staging


def _exchange(one: Path, other: Path) -> None:
    """Have two paths change places: renameat2(2), Linux. Raises OSError."""
    import ctypes

    at_cwd, exchange = -100, 2
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # a C library may lack it
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def _put(aside: Path, path: Path) -> Path | None:
    """Rename a file or link to ``path``. Returns the trash path of a directory that was there."""
    try:
        os.rename(aside, path)
    except IsADirectoryError:
        return _replace(aside, path)
    return None


def _replace(new: Path, path: Path) -> Path | None:
    """Rename to ``path``. What is there is moved to the trash first; it is moved back when the rename fails."""
    trash = move_to_trash(path) if os.path.lexists(path) else None
    try:
        os.rename(new, path)
    except BaseException:
        if trash is not None:
            os.rename(trash, path)
        raise
    return trash


def move_to_trash(path: Path) -> Path:
    """Hide something from readers in one rename. Returns its new path."""
    trash = path.parent / f"{TRASH}{os.urandom(6).hex()}"
    os.rename(path, trash)
    return trash


def discard(path: Path, *, is_unseen: bool = False) -> bool:
    """Remove a file, link or tree: hide it, then delete what can be deleted. Returns whether nothing is left.

    To hide it takes a new name, which can need room in its directory; to delete something needs none. On a full disk,
    a checkout that ``is_unseen`` (nobody reads it any more) is deleted where it is.
    """
    if not os.path.lexists(path):
        return True
    try:
        trash = move_to_trash(path)
    except OSError as error:
        if not is_unseen or not is_full(error):
            raise
        trash = path
        with contextlib.suppress(OSError):
            os.unlink(path / ".git")  # half a checkout must not look like a whole one
    remove_tree(trash)
    return not os.path.lexists(trash)


def remove_tree(path: Path | None) -> OSError | None:
    """Delete a file, link or tree as far as it can be deleted now, if there is one; links are never followed.

    A tree may have any depth. What is still busy (NFS keeps deleted files that somebody has open) stays for the next
    ``sweep``. Returns why something stays; None when all is gone.
    """
    if path is None:
        return None
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return None
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return None if is_gone(error) else error
    try:
        problem = deferred.removal.remove_directory(path.name, parent)
    finally:
        os.close(parent)
    return problem and OSError(problem.errno, problem.strerror, f"{path.parent}/{problem.filename or path.name}")


def sweep(directory: Path, *, only_trash: bool = False) -> list[OSError]:
    """Delete what earlier runs left in ``directory`` under staging and trash names. Returns why some of it stays.

    With ``only_trash`` what has a staging name stays: another process is at work there.
    """
    prefixes = (TRASH,) if only_trash else (STAGING, TRASH)
    found = [directory / name for name in os.listdir(directory) if name.startswith(prefixes)]
    return [problem for problem in map(remove_tree, found) if problem is not None]


def flush_file_systems(*paths: Path) -> None:
    """``flush_file_system`` for several directories, once for each file system. Raises OSError."""
    for path in {os.stat(path).st_dev: path for path in reversed(paths)}.values():
        flush_file_system(path)


def flush_file_system(path: Path) -> None:
    """Put everything written to the file system of ``path`` on stable storage: syncfs(2), Linux."""
    import ctypes

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
