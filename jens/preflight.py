"""The configured directories: whether they can be used, what must be in them, and what their file systems cannot do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jens.config import Config
from jens.errors import DirectoryError
from jens.layout import Layout
from jens.system import files
from jens.system.users import name_of
from jens.text import one_line

_WRITABLE = ("logdir", "baredir", "clonedir", "cachedir", "environmentsdir")
_METADATA = ("environmentsmetadatadir", "repositorymetadatadir")


def check_directories(config: Config) -> None:
    """Check the directories of a run. Raises DirectoryError for the first one that a run cannot use."""
    check_instance(config)
    for key in _METADATA:
        check_writable(key, getattr(config.main, key))
    for key in _METADATA:
        _check_clone(key, getattr(config.main, key))


def check_instance(config: Config) -> None:
    """Check the directories that Jens fills. Raises DirectoryError for the first one that cannot be used."""
    for key in _WRITABLE:
        check_writable(key, getattr(config.main, key))


def _check_clone(key: str, path: Path) -> None:
    if not os.path.isdir(path / ".git"):
        raise DirectoryError(key, path, "is no Git repository, expected a clone with a .git directory")


def check_writable(key: str, path: Path) -> None:
    """Check that a path is a directory that Jens may read and write. Raises DirectoryError."""
    if not os.path.isdir(path):
        problem = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise DirectoryError(key, path, problem)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise DirectoryError(key, path, "cannot be written")


def check_readable(config: Config, keys: Iterable[str]) -> None:
    """Check these directories of [main]. Raises DirectoryError for the first one that cannot be read."""
    for key in keys:
        path: Path = getattr(config.main, key)
        if not os.access(path, os.F_OK):
            raise DirectoryError(key, path, "does not exist")
        if not os.path.isdir(path):
            raise DirectoryError(key, path, "is not a directory")
        if not os.access(path, os.R_OK | os.X_OK):
            raise DirectoryError(key, path, "cannot be read")
        if key in _METADATA:
            _check_clone(key, path)


def check_queue(config: Config) -> None:
    """Check the queue of hints. Raises DirectoryError when it is missing, or messages read could not be removed."""
    path = config.messaging.queuedir
    if not os.path.lexists(path):
        raise DirectoryError("queuedir", path, "does not exist")
    if os.path.isdir(path) and os.access(path, os.R_OK) and not os.access(path, os.W_OK | os.X_OK):
        raise DirectoryError("queuedir", path, "cannot be written")


def make_directories(config: Config) -> None:
    """Make the directories inside the configured ones. Raises DirectoryError."""
    layout = Layout.of(config)
    inside = {"baredir": layout.partitions(layout.baredir), "clonedir": layout.partitions(layout.clonedir)}
    inside["cachedir"] = [layout.definitions]
    for key, paths in inside.items():
        for path in paths:
            try:
                files.make_directory(path)
            except OSError as error:
                raise DirectoryError(key, path, f"cannot be made: {error.strerror}") from error


# Who runs a tool: what somebody else makes, the owner of the instance can neither change nor remove


class Owned(NamedTuple):
    """A configured directory, the id of the user that it belongs to, and whether this user may write to it."""

    key: str
    path: Path
    owner: int
    is_open: bool = True


def check_instance_owner(config: Config, command: Sequence[str], *, as_root: bool) -> None:
    """Check that the owner of the instance runs a tool that writes to it. Raises DirectoryError.

    ``command`` is the tool with its arguments. With ``as_root``, root may run it, too.
    """
    main = config.main
    _check_owner({"baredir": main.baredir, "cachedir": main.cachedir}, command, as_root=as_root)


def check_queue_owner(config: Config, command: Sequence[str], *, as_root: bool) -> None:
    """Check that the owner of the queue of hints runs a tool that changes it. Raises DirectoryError."""
    _check_owner({"queuedir": config.messaging.queuedir}, command, as_root=as_root)


def check_producer(config: Config) -> None:
    """Check that root does not run the producer for the instance of another user. Raises DirectoryError.

    What root writes to the queue and the log, that user could not remove. A WSGI server gives no option to allow it.
    """
    main = config.main
    paths = {"queuedir": config.messaging.queuedir, "baredir": main.baredir, "cachedir": main.cachedir}
    for key, path in paths.items() if os.geteuid() == 0 else ():
        owner = _owner(path)
        if owner:
            name = name_of(owner)
            how = f"have the WSGI server run it as '{name}': gunicorn --user={name}, WSGIDaemonProcess user={name}"
            raise DirectoryError(
                key, path, f"belongs to '{name}', expected that 'root' does not run the producer: {how}"
            )


def check_queue_access(config: Config) -> None:
    """Check that this user, if it is not the owner of the queue, may write to it. Raises DirectoryError."""
    path = config.messaging.queuedir
    owner, user = _owner(path), os.geteuid()
    if owner is not None and owner != user and not _is_open(path):
        problem = f"belongs to '{name_of(owner)}', expected that '{name_of(owner)}' runs the producer"
        raise DirectoryError("queuedir", path, f"{problem}, or that '{name_of(user)}' may write to it")


def _check_owner(directories: Mapping[str, Path], command: Sequence[str], *, as_root: bool) -> None:
    owners = [(key, path, _owner(path)) for key, path in directories.items()]
    owned = [Owned(key, path, owner, _is_open(path)) for key, path, owner in owners if owner is not None]
    refusal = judge_user(os.geteuid(), owned, command, as_root=as_root)
    if refusal is not None:
        raise refusal


def _owner(path: Path) -> int | None:
    """The owner of a directory, or of the one above it that hides it; None when that is not known."""
    try:
        return os.stat(path).st_uid
    except PermissionError:
        for parent in path.parents:
            with contextlib.suppress(OSError):
                return os.stat(parent).st_uid
    except OSError:
        pass  # the other checks tell
    return None


def _is_open(path: Path) -> bool:
    """Whether this user may write to a directory. A file system that is read only is so for all users."""
    if os.access(path, os.W_OK | os.X_OK):
        return True
    with contextlib.suppress(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def judge_user(user: int, owned: Sequence[Owned], command: Sequence[str], *, as_root: bool) -> DirectoryError | None:
    """Why a user must not run a tool that writes to these directories; None when the user may.

    A directory of root that the user may write to is no reason: a mount point often belongs to root, and lets a group
    write.
    """
    foreign = next((each for each in owned if each.owner != user and not (each.owner == 0 and each.is_open)), None)
    if foreign is None or (as_root and user == 0):
        return None
    owner, more = name_of(foreign.owner), ", or add --as-root" if user == 0 else ""
    other = next((each for each in owned if each.owner != foreign.owner), None)
    if other is not None:
        theirs = f"{other.key} '{other.path}' to '{name_of(other.owner)}'"
        problem = f"belongs to '{owner}' and {theirs}, expected one owner: chown one of them{more}"
        return DirectoryError(foreign.key, foreign.path, problem)
    import shlex  # noqa: PLC0415 - only a refusal needs it

    again = one_line(shlex.join(["sudo", "-u", owner, *command]))
    problem = f"belongs to '{owner}', expected that '{owner}' runs this and not '{name_of(user)}': {again}{more}"
    return DirectoryError(foreign.key, foreign.path, problem)


# What the file systems cannot do: without a warning, a guarantee would silently not hold


_MOUNTS = Path("/proc/self/mountinfo")
#: Kinds of file systems that several hosts write to. Their servers decide whether a lock works.
_SHARED = re.compile(r"nfs4?|cifs|smb3|afs|ceph|gfs2|gpfs|lustre|ocfs2|9p|beegfs|fuse\..*")
#: FUSE passes syncfs(2) on only to the host of a virtual machine: fs/fuse/inode.c of Linux, fuse_sync_fs().
_UNFLUSHABLE = re.compile(r"fuse|fuseblk|fuse\..*")
#: Errors of symlink(2) and rename(2) where links cannot be made, or cannot be replaced.
_UNSUPPORTED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EEXIST, errno.EINVAL)


class Mount(NamedTuple):
    """A mount: the kind of its file system, as mount(8) names it, and its options."""

    kind: str = ""
    options: frozenset[str] = frozenset()


def filesystem_doubts(config: Config) -> list[str]:
    """What the file systems of the configured directories cannot do, one sentence each.

    Raises DirectoryError when one of them has no symbolic links: environments consist of links.
    """
    main = config.main
    if not os.listdir(main.environmentsdir):  # otherwise it has links already
        for key in ("clonedir", "environmentsdir"):
            _try_links(key, getattr(main, key))
    mounts = _mounts()
    found = []
    for key in ("baredir", "clonedir", "environmentsdir"):
        path: Path = getattr(main, key)
        found += [f"{key} '{path}': {doubt}" for doubt in judge(mount_of(path, mounts), tells_case=_tells_case(path))]
    if config.lock.type == "FILE":
        lockdir = config.filelock.lockdir
        found += [f"lockdir '{lockdir}': {doubt}" for doubt in judge_lock(mount_of(lockdir, mounts))]
    return found


def judge(mount: Mount, *, tells_case: bool) -> Iterator[str]:
    """What such a file system cannot do for a directory of Jens, one clause each."""
    if "nosymfollow" in mount.options:
        yield "is mounted with nosymfollow, expected a mount without: no link leads anywhere on this host"
    if not tells_case:
        yield (
            "upper and lower case are the same on this file system: of two names that differ only in case, "
            "such as branches QA and qa, one replaces the other"
        )
    if _UNFLUSHABLE.fullmatch(mount.kind):
        yield (
            f"this kind of file system ({mount.kind}) cannot be told to put files on stable storage: "
            "after a power failure what was written last may be incomplete"
        )


def judge_lock(mount: Mount) -> Iterator[str]:
    """What such a file system cannot do for a lock, one clause each."""
    if _SHARED.fullmatch(mount.kind):
        yield (
            f"is on a shared file system ({mount.kind}), expected a directory of this host: "
            "a lock there may stay when this host fails, or not be seen by others"
        )


def _try_links(key: str, directory: Path) -> None:
    """Try to make a link and to replace it in one rename. Raises DirectoryError when the file system cannot do it."""
    link = files.staging_name(directory)
    try:
        os.symlink(".", link)
        files.put_link(link, "..")
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            problem = f"symbolic links cannot be made there ({error.strerror}), expected a file system that has them"
            raise DirectoryError(key, directory, problem) from error
    finally:
        with contextlib.suppress(OSError):
            link.unlink()


def _tells_case(directory: Path) -> bool:
    """Whether a directory tells upper from lower case; True when no entry has a letter in its name."""
    with os.scandir(directory) as entries:
        for entry in entries:
            other = os.path.join(directory, entry.name.swapcase())
            if entry.name.swapcase() != entry.name:
                with contextlib.suppress(OSError):
                    return not os.path.samestat(os.lstat(entry.path), os.lstat(other))
                return True
    return True


def _mounts() -> dict[str, Mount]:
    """Everything that is mounted, by mount point: proc_pid_mountinfo(5). Empty where there is no /proc."""
    try:
        return parse_mounts(_MOUNTS.read_text("utf-8", "surrogateescape"))
    except OSError:
        return {}


def parse_mounts(text: str) -> dict[str, Mount]:
    """The mounts in the text of a mountinfo file, by mount point. Of several mounts at one point the last counts."""
    found = {}
    for line in text.splitlines():
        fields, _, more = line.partition(" - ")
        point, options = fields.split(" ")[4:6]
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
        found[point] = Mount(more.split(" ")[0], frozenset(options.split(",")))
    return found


def mount_of(path: Path, mounts: Mapping[str, Mount]) -> Mount:
    """The mount that a path is on; an empty one when the mounts are not known."""
    where = os.path.realpath(path)
    while where not in mounts and where != os.path.dirname(where):
        where = os.path.dirname(where)
    return mounts.get(where, Mount())
