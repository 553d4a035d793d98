"""A seal on what a run has left: as long as it is unbroken, nothing has to be looked at but what somebody pushed.

It is broken when the configuration is another one, when an entry of a directory that Jens looks after was made, removed
or renamed (the kernel says so in the directory's ctime, which nobody can set), and every ten minutes. A run that
changes a part of an instance seals that part anew, and no other.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from jens import statefile
from jens.config import Config
from jens.git import wrapper
from jens.git.clones import Tracked
from jens.layout import BASELINE, Layout, entry_ref, ref_entry
from jens.metadata.clones import Revisions
from jens.model import Branch, Ref, RepoId
from jens.names import parse_repository
from jens.statefile import StateError
from jens.system import files
from jens.update import fingerprints

if TYPE_CHECKING:
    from jens.repositories.model import Needs

#: Seconds after which everything is looked at again, whatever the seal says.
FULL_LOOK = 600.0

#: Repositories that are looked at in a millisecond or two.
_MANY = 20

#: Not the stamp of anything: hash() returns all numbers but this one.
_NOTHING = -1

log = logging.getLogger(__name__)


def _nothing() -> None:
    """There is nothing else to do."""


def _with_pauses(repos: Iterable[RepoId], pause: Callable[[], None]) -> Iterator[RepoId]:
    for number, repo in enumerate(repos, 1):
        yield repo
        if number % _MANY == 0:
            pause()


class MirrorState(NamedTuple):
    """How a mirror was left: a digest of its branches, the stamp of some of its files, and their names, a line each.

    As long as these and the part of its repository are unchanged, no other files matter.
    """

    branches: str
    stamp: int
    names: str


class Baseline(NamedTuple):
    """What the last run worked from and left, with ``needs`` as they were written down; ``due``: see FULL_LOOK.

    ``expires`` is when the time of the next checkout is over, unless it is ``due`` before that.
    ``parts`` has the stamps of all parts of the instance by which it is told whether they were changed. ``mirrors``
    has what is looked at when a remote has answered.
    """

    snapshot: Revisions
    urls: Mapping[RepoId, str]
    environments: Collection[str]
    due: float
    expires: float
    written: Mapping[str, Any]
    parts: Mapping[str, int]
    mirrors: Mapping[str, MirrorState]

    def is_unbroken(self, config: Config, layout: Layout, meanwhile: Callable[[], None] = _nothing) -> bool:
        """Whether all is as it was left. That takes time; every few repositories ``meanwhile`` has its turn."""
        return self.parts == _parts(config, layout, _with_pauses(self.urls, meanwhile), self.environments)

    def has_mirror(self, layout: Layout, repo: RepoId, answer: bytes) -> bool:
        """Whether a mirror is as it was left, as sound as it was found then, and its remote's answer says the same.

        Raises GitError for an answer that cannot be understood.
        """
        mirror = self.mirrors[str(repo)]
        if mirror.branches != _digest(answer):  # others sort by other rules
            answer = wrapper.listing(wrapper.remote_heads(answer))
        is_same = mirror.branches == _digest(answer)
        return is_same and mirror.stamp == fingerprints.of_mirror(layout, repo, mirror.names.split("\n"))

    def has_repository(self, layout: Layout, repo: RepoId) -> bool:
        """Whether all that is told of a repository is as it was left, its mirror included."""
        is_known = self.parts.get(str(repo)) == fingerprints.of_repository(layout, repo)
        return is_known and self.has_mirror(layout, repo, wrapper.listing(_heads(layout.bare(repo))))

    def overrides(self, repo: RepoId) -> frozenset[Ref]:
        """The refs of a repository that environments name."""
        return frozenset(map(_ref, self.written[str(repo)][1]))

    def implied(self, repo: RepoId) -> frozenset[Branch]:
        """The branches that environments want of each repository which has them."""
        return frozenset(ref for ref in map(_ref, self.written[str(repo)][2]) if isinstance(ref, Branch))


def _sealed_mirror(branches: object, stamp: int, names: object) -> MirrorState:
    return MirrorState(str(branches), int(stamp), str(names))


def _ref(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def load(config: Config, layout: Layout) -> Baseline | None:
    """The seal of the last run, if its time is not over, and it is not broken where that is told at once.

    Whether it is unbroken takes longer to tell.
    """
    try:
        content = statefile.load(layout, BASELINE)
        environments = sorted(map(str, content["environments"]))
        written = {
            key: (str(url), list(map(str, overrides)), list(map(str, implied)))
            for key, (url, overrides, implied) in content["repositories"].items()
        }
        first, second = (Tracked(*map(str, tracked)) for tracked in content["metadata"])
        urls = {parse_repository(key): str(values[0]) for key, values in written.items()}
        due, expires = float(content["due"]), float(content["expires"])
        parts = dict(content["parts"])
        mirrors = {key: _sealed_mirror(*content["mirrors"][key]) for key in written}
    except (StateError, AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return None
    if (
        not due - FULL_LOOK <= time.time() < due
        or not fingerprints.of_instance(config, layout).items() <= parts.items()
    ):
        return None
    return Baseline(Revisions((first, second)), urls, environments, due, expires, written, parts, mirrors)


def remove(layout: Layout) -> None:
    """Before anything changes, which would break it in any case."""
    files.remove_tree(layout.state(BASELINE))


def save(
    config: Config,
    layout: Layout,
    snapshot: Revisions,
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
    parts, mirrors = _parts(config, layout, urls, names), _mirrors(layout, urls)
    _write(layout, Baseline(snapshot, urls, names, due, min(due, next_look), written, parts, mirrors))


def renew(layout: Layout, seal: Baseline, repos: Collection[RepoId], next_look: float) -> Baseline:
    """Seal what there is now, when no more was changed than commits of branches, or checkouts, of these repositories.

    What somebody else has changed elsewhere breaks the new seal as it would have broken the old one.
    """
    parts = {**seal.parts, **fingerprints.of_state(layout), **_repositories(layout, repos)}
    mirrors = {**seal.mirrors, **_mirrors(layout, repos)}
    renewed = seal._replace(expires=min(seal.due, next_look), parts=parts, mirrors=mirrors)
    _write(layout, renewed)
    return renewed


def _write(layout: Layout, seal: Baseline) -> None:
    content = {
        "parts": seal.parts,
        "mirrors": seal.mirrors,
        "metadata": [list(tracked) for tracked in seal.snapshot.tracked],
        "due": seal.due,
        "expires": seal.expires,
        "environments": list(seal.environments),
        "repositories": seal.written,
    }
    aside = files.staging_name(layout.cachedir)
    try:
        aside.write_bytes(statefile.encode(BASELINE, content))
        os.replace(aside, layout.state(BASELINE))
    except OSError as error:
        log.debug("'%s' is not sealed: %s", layout.cachedir, error)
        files.remove_tree(aside)


def _entries(refs: Iterable[Ref]) -> list[str]:
    return sorted(ref_entry(ref, None) for ref in refs)


def _parts(config: Config, layout: Layout, repos: Iterable[RepoId], environments: Iterable[str]) -> dict[str, int]:
    return {
        **fingerprints.of_instance(config, layout),
        **fingerprints.of_environments(layout, environments),
        **_repositories(layout, repos),
    }


def _repositories(layout: Layout, repos: Iterable[RepoId]) -> dict[str, int]:
    return {str(repo): fingerprints.of_repository(layout, repo) for repo in repos}


def _mirrors(layout: Layout, repos: Iterable[RepoId]) -> dict[str, MirrorState]:
    return {str(repo): _mirror(layout, repo) for repo in repos}


def _mirror(layout: Layout, repo: RepoId) -> MirrorState:
    heads = _heads(layout.bare(repo))
    names = fingerprints.names_in_mirror(layout, repo, heads)
    stamp = fingerprints.of_mirror(layout, repo, names)
    # Who moves a branch just now must not have it sealed where it was before: then nothing is, and it is looked at.
    is_still = heads == _heads(layout.bare(repo))
    return MirrorState(_digest(wrapper.listing(heads)), stamp if is_still else _NOTHING, "\n".join(names))


def _digest(listing: bytes) -> str:
    """Of branches as Git lists them: their number, and what they are called, is up to who pushes."""
    from hashlib import blake2b  # noqa: PLC0415 - a run on demand with nothing to do needs none

    return blake2b(listing, digest_size=16).hexdigest()


def _heads(bare: Path) -> Mapping[str, str]:
    try:
        return wrapper.heads(bare)
    except OSError:
        return {}
