"""The lock of one repository, which Git's processes inherit: while one of them lives, no other run can start Git there.

The holder knows that no other Git of Jens works there. So lock files and incomplete packs there are from killed ones.
A Git that packs can be spared at any time. Whoever needs the repository meanwhile ends it, and takes the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from jens.errors import GitBusyError, GitError
from jens.system import files, processes
from jens.system.processes import Process, Signer

log = logging.getLogger(__name__)

_LOCK = "jens.lock"

#: What a lock is held for, if others may end the Git that inherits it.
PACKING = "packing"

#: Seconds to wait for a Git process that outlived an earlier run.
_PATIENCE = 60.0
#: Seconds that such a process has to finish when the run that started it is dead.
_MERCY = 5.0
#: Seconds between SIGTERM and SIGKILL.
_GRACE = 2.0
#: Seconds until the next look for a Git that packs: it may not have started yet.
_PAUSE = 0.1

#: Where Git makes lock files, except those of refs: gitrepository-layout(5).
_PLACES = ("", "objects", "objects/info", "objects/info/commit-graphs", "objects/pack")
#: Other files that act as locks. ``git pack-refs`` refuses to run when packed-refs.new exists.
_OTHER_LOCKS = ("gc.pid", "packed-refs.new")


@contextlib.contextmanager
def repository_lock(directory: Path, purpose: str = "") -> Iterator[int]:
    """Hold a repository's lock, and remove what a killed Git left. Yields the descriptor to inherit. Raises GitError.

    Waits for a Git process that outlived an earlier run. Ends it when it does not finish and its run is certainly dead.
    Ends a Git that packs at once. With the ``purpose`` PACKING, others do so with the Git of the caller.
    """
    descriptor = _open(directory / _LOCK)
    try:
        _wait_for(descriptor, directory)
        try:
            processes.sign(descriptor, purpose)
            remove_left_overs(directory)
            yield descriptor
        except GitError:
            _remove_temporary_packs(directory)  # at once: they may be what has filled the disk
            raise
        finally:
            if purpose:
                processes.sign(descriptor)
            # Closing is not enough: a helper of Git, such as a cache of passwords, may live on and keep the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def has_left_overs(directory: Path) -> bool:
    """Whether there are lock files, of a killed Git or of one that is at work and does not pack."""
    _keep_from_others(directory / _LOCK)
    if next(_locks(str(directory)), None) is None:
        return False
    packer = _packer(directory)
    return packer is None or not packer.is_alive()


def _keep_from_others(path: Path) -> None:
    """Correct the mode of a lock that nobody has needed for long: earlier releases let others open it, and hold it."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(os.lstat(path).st_mode) not in (files.PRIVATE, 0):
            descriptor = files.open_file(path, os.O_NOFOLLOW)
            try:
                files.keep_private(descriptor, path)
            finally:
                os.close(descriptor)


def end_packing(directory: Path) -> bool:
    """End a Git that packs a repository, and wait for its end. Returns whether there was one. Raises GitError.

    Call this with the run lock before a repository is removed, and before a commit counts as found that no branch and
    no worktree record has: no packing begins while somebody else has the run lock.
    """
    if _packer(directory) is None:
        return False
    with repository_lock(directory):
        return True


def _packer(directory: Path) -> Signer | None:
    """The process that packs a repository, or that was killed while it did; None when there is none.

    Raises GitBusyError when nobody can look now.
    """
    path = directory / _LOCK
    try:
        with open(files.open_file(path, os.O_NOFOLLOW), "rb") as file:
            holder = processes.signer(file.fileno())
    except OSError as error:
        if files.is_verdict(error):
            return None
        raise GitBusyError("open", f"{path}: {error.strerror}") from error
    return holder if holder and holder.purpose == PACKING else None


def _open(path: Path) -> int:
    for attempt in (1, 2):
        try:
            descriptor = files.open_file(path, os.O_CREAT | os.O_NOFOLLOW, files.PRIVATE)
            files.keep_private(descriptor, path)
            return descriptor
        except OSError as error:
            if attempt == 2 or error.errno not in (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO):
                kind = GitError if files.is_verdict(error) else GitBusyError
                raise kind("open", f"{path}: {error.strerror}") from error
            files.remove_tree(path)  # something else is in its place
    raise AssertionError


def _wait_for(descriptor: int, directory: Path) -> None:
    begin = time.monotonic()
    look = 0.0
    ended: _Groups = {}
    try:
        while not _obtain(descriptor):
            waited = time.monotonic() - begin
            if processes.is_stopping():
                raise GitBusyError("lock", f"not waited for in '{directory}', as this program is about to end")
            if waited > _PATIENCE:
                raise GitBusyError("lock", f"another Git process is still at work in '{directory}'")
            holder = processes.signer(descriptor)
            is_packing = holder is not None and holder.purpose == PACKING
            if waited >= look and (is_packing or waited > _MERCY):
                _kill_remaining(ended)
                found = _end_groups(holder, descriptor, directory, ended)
                ended |= found
                look = waited + (_PAUSE if is_packing and not ended else _GRACE)
            time.sleep(0.02)
    finally:
        _kill_remaining(ended)  # ssh does not hold the lock, and may outlive Git


def _obtain(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Git processes that may be ended: orphans, whose run was killed, and those that pack


#: Process groups, with who was in them.
_Groups = dict[int, list[Process]]


def _end_groups(holder: Signer | None, descriptor: int, directory: Path, known: _Groups) -> _Groups:
    found = _groups_to_end(holder, descriptor) if holder else {}
    groups = {group: members for group, members in found.items() if group not in known}
    for group in groups:
        if holder and holder.purpose == PACKING:
            log.info("Ending Git (process group %d), which packs '%s', as it is needed now", group, directory)
        else:
            log.warning("Ending Git (process group %d), which a killed run had left at work in '%s'", group, directory)
        processes.signal_group(group, signal.SIGTERM)  # lets Git remove its lock files
    return groups


def _kill_remaining(groups: _Groups) -> None:
    for group, members in groups.items():
        if any(_is_still_there(member) for member in members):  # else the id may belong to another group by now
            processes.signal_group(group, signal.SIGKILL)


def _is_still_there(member: Process) -> bool:
    now = processes.look(member.pid)
    return now is not None and (now.start, now.group) == (member.start, member.group)


def _groups_to_end(starter: Signer, descriptor: int) -> _Groups:
    """The process groups that hold a lock whose taker is dead or packs, with their members; none unless certain."""
    if starter.is_gone():
        takers = {0, starter.pid}
    elif starter.is_alive() and starter.purpose == PACKING:
        takers = {starter.pid}
    else:
        return {}
    # A taker that could not sign is not the signer, and may be alive: its processes are left alone.
    found = {holder.process.group for holder in processes.holders(descriptor) if holder.taker in takers}
    groups: _Groups = {group: [] for group in found}
    for process in processes.all_processes() if found else ():
        groups.get(process.group, []).append(process)
    if processes.signer(descriptor) != starter:
        return {}  # somebody else has the lock by now
    return {group: members for group, members in groups.items() if _is_session_of(members, starter)}


def _is_session_of(members: list[Process], starter: Signer) -> bool:
    """Whether a process group is certainly a session that ``starter`` began for Git."""
    return bool(members) and all(
        member.session == member.group
        and member.group not in (starter.pid, os.getpgrp(), os.getsid(0))
        and member.start > starter.start
        and member.user == os.geteuid()
        for member in members
    )


# What a killed Git leaves


def remove_left_overs(directory: Path) -> None:
    """Remove lock files and incomplete packs. The caller holds the lock, and its Git has ended. Raises GitError."""
    for path in map(Path, list(_locks(str(directory)))):
        files.remove_tree(path)
        if os.path.lexists(path):
            raise GitError("unlock", f"{path} cannot be removed")
        log.warning("Removed '%s', which a Git that was killed had left", path)
    _remove_temporary_packs(directory)


def _locks(top: str) -> Iterator[str]:
    # Strings and not paths, for speed: each run searches each mirror.
    for place in (*_PLACES, *(f"worktrees/{name}" for name in _names(f"{top}/worktrees"))):
        for name in _names(f"{top}/{place}"):
            is_lock = name.endswith(".lock") and name != _LOCK
            path = f"{top}/{place}/{name}" if place else f"{top}/{name}"
            if is_lock or name in _OTHER_LOCKS or (name.endswith(".keep") and _is_of_a_fetch(Path(path))):
                yield path
    for place in ("refs", "logs"):
        yield from _locks_below(f"{top}/{place}")


def _locks_below(directory: str) -> Iterator[str]:
    waiting = [directory]
    while waiting:  # no recursion: a name may have any depth
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".lock"):
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def _is_of_a_fetch(path: Path) -> bool:
    """Whether a .keep file is left from a fetch that did not finish, and not made on purpose."""
    with contextlib.suppress(OSError):
        return files.read_file(path).startswith(b"fetch-pack ")
    return False


def _remove_temporary_packs(directory: Path) -> None:
    """Remove incomplete packs: Git would keep them for weeks, or for ever."""
    for name in _names(f"{directory}/objects/pack"):
        if name.startswith(("tmp_", ".tmp-")):
            with contextlib.suppress(OSError):
                (directory / "objects" / "pack" / name).unlink()


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
