"""The baseline: what the last run left, proved untouched. While it holds, a run need only look at what was pushed.

It no longer holds when the configuration is another, when an entry of a directory that Jens looks after was made,
removed or renamed, and ten minutes after the run. The kernel tells of such changes in the directory's ctime, which
nobody can set. A run that changes some repositories renews their part of the baseline, and no other.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

from jens import statefile
from jens.config import Config
from jens.git import wrapper
from jens.git.clones import Upstream
from jens.git.shells import Command
from jens.layout import Layout, entry_ref, ref_entry
from jens.metadata import usages
from jens.metadata.clones import Revisions
from jens.model import PLAIN, TAG_MARK, Branch, Directories, Library, Ref, RepoId, Tag, Usage, Usages
from jens.names import parse_repository
from jens.repositories.model import Left, Needs
from jens.statefile import BASELINE, StateError, state_path
from jens.system import clock, files
from jens.update import fingerprints

#: Seconds after which a run looks at everything, whatever the baseline says.
FULL_LOOK = 600.0

#: Seconds by which sums of times may differ.
_SLACK = 1.0

#: So many repositories are compared in a millisecond or two.
_MANY = 20

#: What every entry has of what is needed of a repository: see ``_encode``.
_URL, _OVERRIDES, _IMPLIED = "url", "overrides", "implied"

#: No fingerprint: hash() returns all numbers but this one.
_NOTHING = -1

log = logging.getLogger(__name__)


#: Tells whether these repositories and environments are on disk as the run has left them.
AreAsLeft = Callable[[Collection[RepoId], Collection[str]], bool]


class Seen(NamedTuple):
    """Fingerprints from before a run looks at what they prove: those of some parts, and of each environment."""

    parts: Mapping[str, int] = MappingProxyType({})
    environments: Mapping[str, int] = MappingProxyType({})


def see(config: Config, layout: Layout) -> Seen:
    """Take the fingerprints of all that there is, before anything is looked at. Raises OSError."""
    repos = {*layout.repositories_in(layout.baredir), *layout.repositories_in(layout.clonedir)}
    environments = {name: fingerprints.of_environment(layout, name) for name in layout.environments()}
    return Seen({**fingerprints.of_metadata(config), **_repositories(layout, repos)}, environments)


def _nothing() -> None:
    """There is nothing else to do."""


def _with_pauses(repos: Iterable[RepoId], pause: Callable[[], None]) -> Iterator[RepoId]:
    for number, repo in enumerate(repos, 1):
        yield repo
        if number % _MANY == 0:
            pause()


class MirrorState(NamedTuple):
    """How the last run left a mirror: a digest of its branches, and the fingerprint of some of its files.

    ``names`` has the names of these files, one a line. While the mirror and its repository's part of the baseline are
    unchanged, no other files matter.
    """

    branches: str
    fingerprint: int
    names: str


class Baseline(NamedTuple):
    """What the last run worked from, and what it left.

    Times are in seconds since the start of the system, for which alone a baseline holds. At ``due`` a run looks at
    everything (see FULL_LOOK); at ``expires``, or when it is due, the retention of a checkout is over. ``needs`` has
    what is needed of each repository, as JSON types. ``parts`` has the fingerprints that are compared at the
    beginning of a run, ``mirrors`` what is compared when a remote has replied. ``left``: what was left to
    jens-transfer, or is so now. As long as that works on a repository, nobody can tell whether it is untouched.
    ``unrecorded`` says why the history lacks what the last run changed, '' when it lacks nothing. The library has lost
    the ``pinned`` repositories, and snapshots or holds keep them: nobody asks for them.
    """

    revisions: Revisions
    urls: Mapping[RepoId, str]
    environments: Collection[str]
    due: float
    expires: float
    needs: Mapping[str, Any]
    parts: Mapping[str, int]
    mirrors: Mapping[str, MirrorState]
    left: Mapping[RepoId, Left] = MappingProxyType({})
    unrecorded: str = ""
    pinned: Collection[RepoId] = ()

    def is_untouched(self, config: Config, layout: Layout, meanwhile: Callable[[], None] = _nothing) -> bool:
        """Whether all is as the last run left it. ``meanwhile`` is called every few repositories."""
        parts = _parts(config, layout, _with_pauses((*self.urls, *self.pinned), meanwhile), self.environments)
        for repo, left in self.left.items():
            if not left.is_ended and str(repo) in parts:
                parts[str(repo)] = self.parts.get(str(repo), _NOTHING)
        return parts == self.parts

    def has_mirror(self, layout: Layout, repo: RepoId, reply: bytes) -> bool:
        """Whether a mirror is as the last run left it, and its remote's reply has the same branches.

        Raises GitError for a reply that cannot be understood.
        """
        mirror = self.mirrors[str(repo)]
        if mirror.branches != _digest(reply):  # others sort by other rules
            reply = wrapper.listing(wrapper.remote_heads(reply, wrapper.asked_tags(self.question(repo))))
        is_same = mirror.branches == _digest(reply)
        return is_same and mirror.fingerprint == fingerprints.of_mirror(layout, repo, mirror.names.split("\n"))

    def has_repository(self, layout: Layout, repo: RepoId) -> bool:
        """Whether a repository is as the last run left it, its mirror included."""
        is_same = self.parts.get(str(repo)) == fingerprints.of_repository(layout, repo)
        return is_same and self.has_mirror(layout, repo, wrapper.listing(_heads(layout.bare(repo))))

    def knows(self, repo: RepoId) -> bool:
        """Whether it says, readably, what environments need of a repository."""
        try:
            self.needs_of(repo, ())
        except (AttributeError, KeyError, TypeError, ValueError):
            return False
        return True

    def question(self, repo: RepoId) -> Command:
        """What the remote of a repository is asked: its branches, and the needed tags."""
        needed = self.needs[str(repo)]
        entries = {entry for entry in (*needed[_OVERRIDES], *needed[_IMPLIED]) if entry.startswith(TAG_MARK)}
        tags = [ref.name for ref in map(entry_ref, entries) if isinstance(ref, Tag)] if entries else ()
        return wrapper.question(self.urls[repo], tags)

    def needs_of(self, repo: RepoId, mandatory: Iterable[str]) -> Needs:
        """What environments need of a repository. Raises AttributeError, KeyError, TypeError, ValueError."""
        return _decode(self.needs[str(repo)], mandatory)

    def usages(self) -> Usages:
        """Those of the library. Raises as ``needs_of`` does."""
        found = ((repo, self.needs[str(repo)].get("usage")) for repo in self.urls)
        return {repo: usages.decode(usage) for repo, usage in found if usage}


def _encode(url: str, needs: Needs, usage: Usage) -> dict[str, Any]:
    """What is needed of a repository, and how environments use it, as JSON types; what is usual is left out."""
    content: dict[str, Any] = {
        _URL: url,
        _OVERRIDES: _entries(needs.overrides),
        _IMPLIED: _entries(needs.implied),
    }
    if usage != PLAIN:
        content["usage"] = usages.encode(usage)
    if needs.others:
        content["others"] = [[ref_entry(ref, None), *map(list, used)] for ref, used in needs.others.items()]
    return content


def _decode(content: Mapping[str, Any], mandatory: Iterable[str]) -> Needs:
    """Reverse ``_encode``, but for what is a reason to ask a remote: this one was pushed to."""
    usage = usages.decode(content["usage"]) if "usage" in content else PLAIN
    return Needs(
        frozenset(map(Branch, mandatory)) if usage.has_mandatory_branches else frozenset(),
        frozenset(map(_ref, content[_OVERRIDES])),
        frozenset(map(_ref, content[_IMPLIED])),
        directories=usage.directories,
        others={
            _ref(entry): frozenset(Directories(*each) for each in used) for entry, *used in content.get("others", ())
        },
    )


def _mirror_state(branches: object, fingerprint: int, names: object) -> MirrorState:
    return MirrorState(str(branches), int(fingerprint), str(names))


def _ref(entry: str) -> Ref:
    ref = entry_ref(entry)
    if ref is None:
        raise ValueError(f"unexpected {entry!r}")
    return ref


def load(config: Config, layout: Layout) -> Baseline | None:
    """The baseline of the last run, if it is not due and the parts that are compared quickly are unchanged.

    The caller still has to ask whether it ``is_untouched``, which takes longer.
    """
    try:
        content = statefile.load(layout, BASELINE)
        environments = sorted(map(str, content["environments"]))
        needs = dict(content["repositories"])
        first, second = (Upstream(*map(str, upstream)) for upstream in content["metadata"])
        urls = {parse_repository(key): str(each[_URL]) for key, each in needs.items()}
        if not all(isinstance(each[part], list) for each in needs.values() for part in (_OVERRIDES, _IMPLIED)):
            return None
        due, expires = float(content["due"]), float(content["expires"])
        parts = dict(content["parts"])
        mirrors = {key: _mirror_state(*content["mirrors"][key]) for key in needs}
        left = {parse_repository(key): Left(0.0) for key in content["left"]}
        unrecorded = str(content["unrecorded"])
        pinned = [*map(parse_repository, content["pinned"])]
    except (OSError, StateError, AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return None
    if not 0 < due - clock.now().up < FULL_LOOK + _SLACK:  # else it is due, or of another start of the system
        return None
    if not fingerprints.of_instance(config, layout).items() <= parts.items():
        return None
    return Baseline(
        *(Revisions((first, second)), urls, environments, due, expires, needs, parts, mirrors, left, unrecorded),
        pinned=pinned,
    )


def remove(layout: Layout) -> None:
    """Remove the baseline. A run does so before it changes anything."""
    files.remove_tree(state_path(layout, BASELINE))


def save(
    config: Config,
    layout: Layout,
    revisions: Revisions,
    library: Library,
    needs: Mapping[RepoId, Needs],
    environments: Iterable[str],
    expiry: float,
    seen: Seen,
    are_as_left: AreAsLeft,
    left: Mapping[RepoId, Left],
    unrecorded: str = "",
    end: float = math.inf,
    pinned: Collection[RepoId] = (),
) -> None:
    """Save what there is now. At ``expiry`` (seconds since the epoch) the next checkout's retention is over.

    At ``end`` the next hold is over, and a run looks at everything.

    ``seen`` are fingerprints from before the run looked at anything: what has changed since was changed by the run, or
    by somebody else after the run had looked. ``are_as_left`` looks at that again. Without a good answer there is no
    baseline. What is ``left`` to jens-transfer may change at any time: a run looks at it when its transfer has ended,
    unless it stayed as it was before this run. A lost baseline costs time, not more: it is not flushed, and nothing is
    raised for it.
    """
    clock.wait_for_step()
    due, names = min(clock.now().up + FULL_LOOK, _up(end)), sorted(environments)
    written = {
        str(repo): _encode(url, needs[repo], library.usages.get(repo, PLAIN)) for repo, url in library.urls.items()
    }
    urls = library.urls
    parts, mirrors = _parts(config, layout, (*urls, *pinned), names), _mirrors(layout, urls)
    changed = [name for name in names if fingerprints.of_environment(layout, name) != seen.environments.get(name)]
    moved = [repo for repo in (*urls, *pinned) if parts[str(repo)] != seen.parts.get(str(repo))]
    unsure = {repo for repo, each in left.items() if repo in moved or not each.is_ended}
    parts.update({str(repo): _NOTHING for repo in unsure.intersection(urls)})
    if are_as_left([repo for repo in moved if repo not in unsure], changed):
        parts[fingerprints.METADATA] = seen.parts.get(fingerprints.METADATA, _NOTHING)
        expires = min(due, _up(expiry))
        made = Baseline(revisions, urls, names, due, expires, written, parts, mirrors, left, unrecorded, pinned)
        _write(layout, made)


def _up(time: float) -> float:
    """A time in seconds since the epoch, as one in seconds since the start of the system."""
    now = clock.now()
    return now.up + time - now.wall


def renew(
    layout: Layout,
    baseline: Baseline,
    repos: Collection[RepoId],
    expiry: float,
    are_as_left: AreAsLeft,
    unrecorded: str | None = None,
    *,
    has_flipped: bool = False,
) -> Baseline | None:
    """Save what there is now of some repositories, of which branches moved or checkouts went, and no more.

    Without ``unrecorded`` that stays as it was. With ``has_flipped``, environments may have other versions, too.

    None when ``are_as_left`` finds that somebody has changed them, too. What somebody else changed elsewhere still ends
    the new baseline as it would have ended the old one.
    """
    clock.wait_for_step()
    versioned = fingerprints.versioned(layout, baseline.environments) if has_flipped else []
    of_versions = fingerprints.of_versions(layout, versioned)
    parts = {**baseline.parts, **fingerprints.of_state(layout), **of_versions, **_repositories(layout, repos)}
    mirrors = {**baseline.mirrors, **_mirrors(layout, repos)}
    flipped = versioned if not of_versions.items() <= baseline.parts.items() else ()
    if not are_as_left([repo for repo in repos if parts[str(repo)] != baseline.parts.get(str(repo))], flipped):
        return None
    renewed = baseline._replace(expires=min(baseline.due, _up(expiry)), parts=parts, mirrors=mirrors)
    renewed = renewed if unrecorded is None else renewed._replace(unrecorded=unrecorded)
    _write(layout, renewed)
    return renewed


def _write(layout: Layout, baseline: Baseline) -> None:
    content = {
        "parts": baseline.parts,
        "mirrors": baseline.mirrors,
        "metadata": [list(upstream) for upstream in baseline.revisions.upstreams],
        "due": baseline.due,
        "expires": baseline.expires,
        "environments": list(baseline.environments),
        "left": sorted(map(str, baseline.left)),
        "repositories": baseline.needs,
        "unrecorded": baseline.unrecorded,
        "pinned": sorted(map(str, baseline.pinned)),
    }
    aside = files.staging_name(layout.cachedir)
    try:
        # The URLs in it may have passwords.
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, files.PRIVATE), "wb") as file:
            file.write(statefile.encode(BASELINE, content))
        os.replace(aside, state_path(layout, BASELINE))
    except OSError as error:
        log.debug("No baseline of '%s' is saved: %s", layout.cachedir, error)
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
    try:
        names = fingerprints.names_in_mirror(layout, repo, heads)
    except OSError:
        return MirrorState("", _NOTHING, "")
    fingerprint = fingerprints.of_mirror(layout, repo, names)
    # Somebody may move a branch just now. Then the mirror gets no fingerprint, and the next run looks at it.
    is_still = heads == _heads(layout.bare(repo))
    return MirrorState(_digest(wrapper.listing(heads)), fingerprint if is_still else _NOTHING, "\n".join(names))


def _digest(listing: bytes) -> str:
    """A digest of branches as Git lists them. Who pushes decides how many there are, and how long their names."""
    from hashlib import blake2b  # noqa: PLC0415 - a run on demand with nothing to do needs none

    return blake2b(listing, digest_size=16).hexdigest()


def _heads(bare: Path) -> Mapping[str, str]:
    try:
        return wrapper.heads(bare)
    except OSError:
        return {}
