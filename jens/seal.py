"""A seal on what a run has left: as long as it is unbroken, nothing has to be looked at but what somebody pushed.

It is broken when the configuration is another one, when an entry of a directory that Jens looks after was made, removed
or renamed (the kernel says so in the directory's ctime, which nobody can set), and every ten minutes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jens import files
from jens.config import Config
from jens.layout import ENVIRONMENT_CONF, ENVIRONMENT_DIRECTORIES, Layout, entry_ref, ref_entry
from jens.model import Branch, Ref, RepoId
from jens.names import parse_repository
from jens.state import StateError, encode_state, read_state
from jens.tracking import Snapshot, directories
from jens.workclones import Tracked

if TYPE_CHECKING:
    from jens.repositories import Needs

VERSION = 1

#: Seconds after which everything is looked at again, whatever the seal says.
FULL_LOOK = 600.0

log = logging.getLogger(__name__)

#: What of a mirror changes with everything that Git does there, in order of depth.
_OF_A_MIRROR = ("", "packed-refs", "refs/heads", "objects", "objects/pack", "worktrees")
_OF_A_CLONE = ("", "HEAD", "config", "packed-refs", "refs/heads")


@dataclass(frozen=True)
class Seal:
    """What the last run worked from and left, with ``needs`` as they were written down; ``due``: see FULL_LOOK."""

    snapshot: Snapshot
    urls: Mapping[RepoId, str]
    environments: Collection[str]
    due: float
    written: Mapping[str, Any]

    def overrides(self, repo: RepoId) -> frozenset[Ref]:
        """The refs of a repository that environments name."""
        return frozenset(map(_ref, self.written[str(repo)][1]))

    def implied(self, repo: RepoId) -> frozenset[Branch]:
        """The branches that environments want of each repository which has them."""
        return frozenset(ref for ref in map(_ref, self.written[str(repo)][2]) if isinstance(ref, Branch))


def _ref(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def recall(config: Config, layout: Layout) -> Seal | None:
    """The seal of the last run, if it is unbroken."""
    try:
        content = read_state(layout.seal, VERSION)
        environments, written = content["environments"], content["repositories"]
        first, second = (Tracked(*map(str, tracked)) for tracked in content["metadata"])
        urls = {parse_repository(key): str(values[0]) for key, values in written.items()}
        due = float(content["due"])
        is_unbroken = content["stamps"] == _stamps(config, layout, urls, environments)
    except (StateError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    if not is_unbroken or not due - FULL_LOOK <= time.time() < due:
        return None
    return Seal(Snapshot((first, second)), urls, environments, due, written)


def remove(layout: Layout) -> None:
    """Before anything changes, which would break it in any case."""
    files.remove_tree(layout.seal)


def put(
    config: Config,
    layout: Layout,
    snapshot: Snapshot,
    urls: Mapping[RepoId, str],
    needs: Mapping[RepoId, Needs],
    environments: Iterable[str],
    next_look: float,
) -> None:
    """Seal what there is now, until ``next_look`` (seconds since the epoch) at most.

    A seal that is lost costs time, not more: it is not flushed, and nothing is raised.
    """
    due = min(time.time() + FULL_LOOK, next_look)
    written = {
        str(repo): [url, _entries(needs[repo].overrides), _entries(needs[repo].implied)] for repo, url in urls.items()
    }
    _write(config, layout, snapshot, urls, sorted(environments), due, written)


def renew(config: Config, layout: Layout, seal: Seal, next_look: float) -> None:
    """Seal what there is now, after a run that changed no more than the commits of branches."""
    _write(config, layout, seal.snapshot, seal.urls, seal.environments, min(seal.due, next_look), seal.written)


def _write(
    config: Config,
    layout: Layout,
    snapshot: Snapshot,
    urls: Mapping[RepoId, str],
    environments: Collection[str],
    due: float,
    written: Mapping[str, Any],
) -> None:
    content = {
        "stamps": _stamps(config, layout, urls, environments),
        "metadata": [list(tracked) for tracked in snapshot.tracked],
        "due": due,
        "environments": list(environments),
        "repositories": written,
    }
    aside = files.staging_name(layout.cachedir)
    try:
        aside.write_bytes(encode_state(VERSION, content))
        os.replace(aside, layout.seal)
    except OSError as error:
        log.debug("'%s' is not sealed: %s", layout.cachedir, error)
        files.remove_tree(aside)


def _entries(refs: Iterable[Ref]) -> list[str]:
    return sorted(ref_entry(ref, None) for ref in refs)


def _stamps(config: Config, layout: Layout, repos: Iterable[RepoId], environments: Iterable[str]) -> str:
    digest = hashlib.sha256(f"{_boot()} {config!r}".encode("utf-8", "surrogateescape"))
    for path in _paths(config, layout, repos, environments):
        try:
            status = os.lstat(path)
            digest.update(b"%d %d " % (status.st_ino, status.st_ctime_ns))
        except OSError:
            digest.update(b"- ")
    return digest.hexdigest()


def _boot() -> str:
    """This start of the system: a power failure may have taken anything."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except OSError:
        return ""


def _paths(config: Config, layout: Layout, repos: Iterable[RepoId], environments: Iterable[str]) -> Iterator[str]:
    baredir, clonedir = str(layout.baredir), str(layout.clonedir)  # no paths: there are thousands of them
    for directory in directories(config):
        yield from (os.path.join(directory, ".git", name) for name in _OF_A_CLONE)
        yield from (os.path.join(directory, name) for name in _names(directory) if name != ".git")
    yield from map(str, (layout.environmentsdir, layout.definitions))
    yield from map(str, (layout.inventory, layout.answers, layout.refusals, layout.unreferenced))
    for top in (layout.baredir, layout.clonedir):
        yield str(top)
        yield from map(str, layout.partitions(top))
    for name in sorted(environments):
        yield from _under(f"{layout.environmentsdir}/{name}", (*ENVIRONMENT_DIRECTORIES, ENVIRONMENT_CONF))
    for repo in sorted(repos):
        yield f"{clonedir}/{repo}"
        yield from _under(f"{baredir}/{repo}", _OF_A_MIRROR)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _under(top: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{top}/{name}" if name else top for name in names)
