"""What runs have left to jens-transfer: repositories that took longer than a run has patience.

A run asks for a transfer with a file ``cachedir/transfers/PARTITION/NAME``. Whoever works on a repository holds the
lock ``baredir/PARTITION/.NAME.lock`` meanwhile, which needs no mirror to be there. A lock that nobody holds is what a
killed transfer has left. Runs leave a repository alone while it is asked for or locked.

The file has the silent server, if that is why the repository was left. A second line says that the remote has answered,
but later than a run has patience, and whether it did so the last time. Then jens-transfer alone asks it, and runs take
up what that has brought.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from jens import locking
from jens.layout import Layout
from jens.model import PARTITIONS, RepoId
from jens.names import is_repository_name
from jens.repositories.model import Left
from jens.system import files, processes

_LOCK = ".lock"
_SLOW, _SILENT = "slow", "silent again"


def _request(layout: Layout, repo: RepoId) -> Path:
    return layout.transfers / repo.partition / repo.name


def ask_for(layout: Layout, repo: RepoId, silent_server: str = "") -> None:
    """Leave a repository to jens-transfer. Say which server is silent, if that is the reason. Raises OSError."""
    path = _request(layout, repo)
    files.make_directory(path.parent.parent)
    files.make_directory(path.parent)
    _write(layout, repo, silent_server)


def mark_slow(layout: Layout, repo: RepoId) -> None:
    """Note that a remote answers slowly, and that runs can take up what was brought. Raises OSError."""
    _write(layout, repo, f"{_contents(layout).get(repo, [''])[0]}\n{_SLOW}")


def mark_silent(layout: Layout, repo: RepoId) -> None:
    """Note that a remote which has answered slowly answers no more. Raises OSError."""
    if repo in slow(layout):
        _write(layout, repo, f"{_contents(layout).get(repo, [''])[0]}\n{_SILENT}")


def _write(layout: Layout, repo: RepoId, content: str) -> None:
    files.write_file(_request(layout, repo), content.encode("utf-8", "surrogateescape"))


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


def _contents(layout: Layout) -> dict[RepoId, list[str]]:
    """The lines of each file that asks for a transfer, one at least. Raises OSError."""
    found = {}
    for repo in asked_for(layout):
        with contextlib.suppress(FileNotFoundError):
            found[repo] = files.read_file(_request(layout, repo)).decode("utf-8", "surrogateescape").split("\n")
    return found


def silent(layout: Layout) -> dict[RepoId, str]:
    """The repositories that were left since their server said nothing, with that server. Raises OSError."""
    return {repo: lines[0] for repo, lines in _contents(layout).items() if lines[0]}


def slow(layout: Layout) -> set[RepoId]:
    """The repositories whose remotes answer, but take longer than a run has patience. Raises OSError."""
    return {repo for repo, lines in _contents(layout).items() if _SLOW in lines[1:]}


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


def left(layout: Layout) -> dict[RepoId, Left]:
    """The repositories that a run does not ask about: those asked for and those under way. Raises OSError."""
    at_work = under_way(layout)
    ended = {repo for repo, lines in _contents(layout).items() if lines[1:]}
    since = {**at_work, **asked_for(layout)}
    return {repo: Left(since[repo], is_ended=repo in ended and repo not in at_work) for repo in since}


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
