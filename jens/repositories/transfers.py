"""What runs have left to jens-transfer: repositories that took longer than a run has patience.

A run asks for a transfer with a file ``cachedir/transfers/PARTITION/NAME``. Whoever works on a repository holds the
lock ``baredir/PARTITION/.NAME.lock`` meanwhile, which needs no mirror to be there. A lock that nobody holds is what a
killed transfer has left. Runs leave a repository alone while it is asked for or locked.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jens import locking
from jens.layout import Layout
from jens.model import PARTITIONS, RepoId
from jens.names import is_repository_name
from jens.system import files, processes

_LOCK = ".lock"


def _request(layout: Layout, repo: RepoId) -> Path:
    return layout.transfers / repo.partition / repo.name


def ask_for(layout: Layout, repo: RepoId, silent_server: str = "") -> None:
    """Leave a repository to jens-transfer. Say which server is silent, if that is the reason. Raises OSError."""
    path = _request(layout, repo)
    files.make_directory(path.parent.parent)
    files.make_directory(path.parent)
    files.write_file(path, silent_server.encode("utf-8", "surrogateescape"))


def withdraw(layout: Layout, repo: RepoId) -> None:
    """Let runs take care of a repository again. Raises OSError."""
    _request(layout, repo).unlink(missing_ok=True)


def put_at_the_end(layout: Layout, repo: RepoId) -> None:
    """Have the others come first the next time. Since when the repository was left, its fault tells. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(_request(layout, repo))


def asked_for(layout: Layout) -> dict[RepoId, float]:
    """The repositories that were left to jens-transfer, and since when (seconds since the epoch). Raises OSError."""
    found = {}
    for partition in PARTITIONS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(layout.transfers / partition):
                if is_repository_name(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        found[RepoId(partition, entry.name)] = entry.stat(follow_symlinks=False).st_mtime
    return found


def silent(layout: Layout) -> dict[RepoId, str]:
    """The repositories that were left since their server said nothing, with that server. Raises OSError."""
    found = {}
    for repo in asked_for(layout):
        with contextlib.suppress(FileNotFoundError):
            found[repo] = files.read_file(_request(layout, repo)).decode("utf-8", "surrogateescape")
    return {repo: server for repo, server in found.items() if server}


def silent_servers(layout: Layout) -> set[str]:
    """The servers that are to be asked nothing: several of their repositories got no answer. Raises OSError.

    When a single repository hangs, its server may be well.
    """
    servers = [*silent(layout).values()]
    return {server for server in servers if servers.count(server) > 1}


def withdraw_silent(layout: Layout, server: str) -> None:
    """Let runs take care again of all that was left since this server said nothing: it has answered. Raises OSError."""
    for repo, silent_server in silent(layout).items():
        if silent_server == server:
            withdraw(layout, repo)


def left(layout: Layout) -> dict[RepoId, float]:
    """The repositories that a run leaves alone: those asked for and those under way, and since when. Raises OSError."""
    return {**under_way(layout), **asked_for(layout)}


def under_way(layout: Layout) -> dict[RepoId, float]:
    """The repositories that a living transfer works on, and since when. Raises OSError."""
    found = {}
    for partition in PARTITIONS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(layout.baredir / partition):
                if is_lock(entry.name) and locking.is_held(Path(entry.path)):
                    repo = RepoId(partition, entry.name[1 : -len(_LOCK)])
                    found[repo] = entry.stat(follow_symlinks=False).st_mtime
    return found


def clear(layout: Layout) -> None:
    """End the process that transfers, with all that it started, and forget what was asked for. Raises OSError."""
    processes.end_holder(at_work(layout))
    end_orphans(layout)
    files.remove_tree(layout.transfers)
    for partition in layout.partitions(layout.baredir):
        for name in os.listdir(partition) if partition.is_dir() else ():
            if is_lock(name):
                (partition / name).unlink(missing_ok=True)


def is_lock(name: str) -> bool:
    """Whether an entry of a partition has the name of a repository's lock."""
    return name.startswith(".") and name.endswith(_LOCK) and is_repository_name(name[1 : -len(_LOCK)])


#: The variable that all processes have which a jens-transfer has started; its value is ``cachedir``.
MARK = "JENS_TRANSFER"


def end_orphans(layout: Layout) -> None:
    """End what a killed jens-transfer of this instance has left at work. None may be at work besides the caller."""
    processes.kill_marked(MARK, str(layout.cachedir))


def at_work(layout: Layout) -> Path:
    """The lock of the process that works off what was asked for; one at a time."""
    return layout.transfers / "at-work"
