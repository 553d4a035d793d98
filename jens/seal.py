"""A seal on what a run has left: as long as it is unbroken, nothing has to be looked at but what somebody pushed.

It is broken when the configuration is another one, when an entry of a directory that Jens looks after was made, removed
or renamed (the kernel says so in the directory's ctime, which nobody can set), and every ten minutes. A run that
changes a part of an instance seals that part anew, and no other.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from jens import files, gitwrapper
from jens.config import Config
from jens.layout import ENVIRONMENT_CONF, ENVIRONMENT_DIRECTORIES, Layout, entry_ref, ref_entry
from jens.model import Branch, Ref, RepoId
from jens.names import parse_repository
from jens.state import StateError, encode_state, read_state
from jens.tracking import Snapshot, directories
from jens.workclones import Tracked

if TYPE_CHECKING:
    from jens.repositories import Needs

VERSION = 3

#: Seconds after which everything is looked at again, whatever the seal says.
FULL_LOOK = 600.0

#: Repositories that are looked at in a millisecond or two.
_MANY = 20

log = logging.getLogger(__name__)

#: What of a mirror changes with everything that Git does there, in order of depth.
_OF_A_MIRROR = ("", "packed-refs", "refs/heads", "objects", "objects/pack", "worktrees")
_OF_A_CLONE = ("", "HEAD", "config", "packed-refs", "refs/heads")


def _nothing() -> None:
    """There is nothing else to do."""


def _with_pauses(repos: Iterable[RepoId], pause: Callable[[], None]) -> Iterator[RepoId]:
    for number, repo in enumerate(repos, 1):
        yield repo
        if number % _MANY == 0:
            pause()


@dataclass(frozen=True)
class Seal:
    """What the last run worked from and left, with ``needs`` as they were written down; ``due``: see FULL_LOOK.

    ``expires`` is when the time of the next checkout is over, unless it is ``due`` before that.
    ``stamps`` has for each part of the instance (see ``_stamps``) when the kernel last changed its directories;
    ``mirrors`` for each mirror when it last changed the files in it that Git does not change in place.
    """

    snapshot: Snapshot
    urls: Mapping[RepoId, str]
    environments: Collection[str]
    due: float
    expires: float
    written: Mapping[str, Any]
    stamps: Mapping[str, int]
    mirrors: Mapping[str, int]

    def is_unbroken(self, config: Config, layout: Layout, meanwhile: Callable[[], None] = _nothing) -> bool:
        """Whether all is as it was left. That takes time; every few repositories ``meanwhile`` has its turn."""
        return self.stamps == _stamps(config, layout, _with_pauses(self.urls, meanwhile), self.environments)

    def has_mirror(self, layout: Layout, repo: RepoId, commits: Iterable[str]) -> bool:
        """Whether a mirror, whose branches are at these commits, is as it was left: as sound as it was found then."""
        return self.mirrors.get(str(repo)) == _stamp(_of_mirror(layout, repo, commits))

    def has_repository(self, layout: Layout, repo: RepoId) -> bool:
        """Whether all that is told of a repository is as it was left, its mirror included."""
        is_known = self.stamps.get(str(repo)) == _stamp(_of_repository(layout, repo))
        return is_known and self.has_mirror(layout, repo, _heads(layout.bare(repo)))

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
    """The seal of the last run, if its time is not over, and it is not broken where that is told at once.

    Whether it is unbroken takes longer to tell.
    """
    try:
        content = read_state(layout.seal, VERSION)
        environments, written = content["environments"], content["repositories"]
        first, second = (Tracked(*map(str, tracked)) for tracked in content["metadata"])
        urls = {parse_repository(key): str(values[0]) for key, values in written.items()}
        due, expires = float(content["due"]), float(content["expires"])
        stamps, mirrors = dict(content["stamps"]), dict(content["mirrors"])
    except (StateError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None
    if not due - FULL_LOOK <= time.time() < due or not _of_all(config, layout).items() <= stamps.items():
        return None
    return Seal(Snapshot((first, second)), urls, environments, due, expires, written, stamps, mirrors)


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
    """Seal what there is now; at ``next_look`` (seconds since the epoch) the time of a checkout is over.

    A seal that is lost costs time, not more: it is not flushed, and nothing is raised.
    """
    due = time.time() + FULL_LOOK
    names = sorted(environments)
    written = {
        str(repo): [url, _entries(needs[repo].overrides), _entries(needs[repo].implied)] for repo, url in urls.items()
    }
    stamps, mirrors = _stamps(config, layout, urls, names), _stamps_of_mirrors(layout, urls)
    _write(layout, Seal(snapshot, urls, names, due, min(due, next_look), written, stamps, mirrors))


def renew(layout: Layout, seal: Seal, repos: Collection[RepoId], next_look: float) -> Seal:
    """Seal what there is now, when no more was changed than commits of branches, or checkouts, of these repositories.

    What somebody else has changed elsewhere breaks the new seal as it would have broken the old one.
    """
    stamps = {**seal.stamps, **{str(repo): _stamp(_of_repository(layout, repo)) for repo in repos}}
    stamps["state"] = _stamp(_of_state(layout))
    mirrors = {**seal.mirrors, **_stamps_of_mirrors(layout, repos)}
    renewed = replace(seal, expires=min(seal.due, next_look), stamps=stamps, mirrors=mirrors)
    _write(layout, renewed)
    return renewed


def _write(layout: Layout, seal: Seal) -> None:
    content = {
        "stamps": seal.stamps,
        "mirrors": seal.mirrors,
        "metadata": [list(tracked) for tracked in seal.snapshot.tracked],
        "due": seal.due,
        "expires": seal.expires,
        "environments": list(seal.environments),
        "repositories": seal.written,
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


def _stamps(config: Config, layout: Layout, repos: Iterable[RepoId], environments: Iterable[str]) -> dict[str, int]:
    """A number for each part of an instance, by which it is told whether that was changed."""
    return {
        **_of_all(config, layout),
        "environments": _stamp(_of_environments(layout, environments)),
        **{str(repo): _stamp(_of_repository(layout, repo)) for repo in repos},
    }


def _of_all(config: Config, layout: Layout) -> dict[str, int]:
    """The numbers of those parts that do not grow with the site."""
    context = f"{_boot()} {config!r}".encode("utf-8", "surrogateescape")
    return {
        "": zlib.crc32(context),
        "metadata": _stamp(_of_metadata(config)),
        "tops": _stamp(_of_tops(layout)),
        "state": _stamp(_of_state(layout)),
    }


def _stamps_of_mirrors(layout: Layout, repos: Iterable[RepoId]) -> dict[str, int]:
    return {str(repo): _stamp(_of_mirror(layout, repo, _heads(layout.bare(repo)))) for repo in repos}


def _heads(bare: Path) -> Collection[str]:
    try:
        return gitwrapper.heads(bare).values()
    except OSError:
        return ()


def _stamp(paths: Iterable[str]) -> int:
    seen = []
    for path in paths:
        try:
            status = os.lstat(path)
            seen += [status.st_ino, status.st_ctime_ns]
        except OSError:
            seen.append(-1)
    return hash(tuple(seen))  # of whole numbers: the same in each process


def _boot() -> str:
    """This start of the system: a power failure may have taken anything."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except OSError:
        return ""


# Strings and not paths: there are thousands of them.


def _of_metadata(config: Config) -> Iterator[str]:
    for directory in directories(config):
        yield from (os.path.join(directory, ".git", name) for name in _OF_A_CLONE)
        yield from (os.path.join(directory, name) for name in _names(directory) if name != ".git")


def _of_tops(layout: Layout) -> Iterator[str]:
    tops = (layout.baredir, layout.clonedir)
    inside = [path for top in tops for path in layout.partitions(top)]
    yield from map(str, (layout.environmentsdir, layout.definitions, *tops, *inside))


def _of_state(layout: Layout) -> Iterator[str]:
    yield from map(str, (layout.inventory, layout.answers, layout.refusals, layout.unreferenced))


def _of_environments(layout: Layout, environments: Iterable[str]) -> Iterator[str]:
    for name in sorted(environments):
        yield from _under(f"{layout.environmentsdir}/{name}", (*ENVIRONMENT_DIRECTORIES, ENVIRONMENT_CONF))


def _of_repository(layout: Layout, repo: RepoId) -> Iterator[str]:
    yield f"{layout.clonedir}/{repo}"
    yield from _under(f"{layout.baredir}/{repo}", _OF_A_MIRROR)


def _of_mirror(layout: Layout, repo: RepoId, commits: Iterable[str]) -> list[str]:
    """What is told of a mirror by its files: those of branches' commits are there as long as they are not packed."""
    bare = f"{layout.baredir}/{repo}"
    packs, records = f"{bare}/objects/pack", f"{bare}/worktrees"
    return [
        *[f"{bare}/{name}" for name in ("HEAD", "config", "objects/info", "refs")],
        *[f"{packs}/{name}" for name in _names(packs)],
        *[f"{records}/{name}" for name in _names(records)],
        *[f"{bare}/objects/{commit[:2]}/{commit[2:]}" for commit in sorted(set(commits))],
    ]


def _names(directory: Path | str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _under(top: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{top}/{name}" if name else top for name in names)
