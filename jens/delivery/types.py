"""Types of resources: ``puppet generate types`` for the environments in which a module's types have changed.

Of each environment it remembers for which types it was run: a digest of the trees ``lib/puppet/type`` of its modules.
So nothing is lost when it fails or is killed, and an environment that is as it was costs a look, and no Puppet.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

from jens.config import Config
from jens.deliveries import Record, Told
from jens.delivery import puppetserver
from jens.delivery.generate import Done, generate
from jens.delivery.news import News
from jens.delivery.telling import Delivery, DeliveryError, Telling
from jens.errors import GitBusyError, GitError
from jens.git import process
from jens.history.model import CREATED, DELETED
from jens.history.since import Difference
from jens.layout import Layout, entry_ref, is_checkout_name
from jens.links import RESOURCE_TYPES, LinkReader, Target
from jens.model import HOSTGROUPS, MODULES, PLAIN
from jens.names import parse_repository
from jens.system import files
from jens.text import listed

log = logging.getLogger(__name__)

_NAME = "puppet generate types"
#: Where a module has its types.
_TYPES = "lib/puppet/type"
#: Where most repositories have their code.
_USUAL_CODE = PLAIN.directories.code

#: Seconds for all environments of a delivery, and those that must be left to begin with one.
_WHOLE, _LEAST = 60, 20
_LIMIT = _WHOLE + 15
#: Seconds for which types that took too long are left alone, unless they change: everybody waits for them.
_REST = 600
_RESTS = f"it took too long, it is tried again when its types change, or {_REST // 60} minutes later"


class _Memory(NamedTuple):
    """For which types Puppet was run in each environment ('': there are none), and where it is still to be run.

    ``slow``: for which types it took too long, and until when it is not run for these, in seconds since the epoch.
    """

    digests: Mapping[str, str] = MappingProxyType({})
    owed: frozenset[str] = frozenset()
    slow: Mapping[str, tuple[str, float]] = MappingProxyType({})

    @classmethod
    def of(cls, memory: Mapping[str, Any]) -> _Memory:
        try:
            digests = {str(name): str(digest) for name, digest in memory.get("digests", {}).items()}
            slow = {str(name): (str(digest), float(until)) for name, (digest, until) in memory.get("slow", {}).items()}
            return cls(digests, frozenset(map(str, memory.get("owed", ()))), slow)
        except (AttributeError, TypeError, ValueError):
            return cls()

    def encode(self) -> dict[str, Any]:
        """The same for the memory of a receiver."""
        return {"digests": dict(self.digests), "owed": sorted(self.owed), "slow": dict(self.slow)}

    def rests(self, name: str, digest: str, now: float) -> bool:
        """Whether Puppet took too long for these types, a short time ago."""
        known, until = self.slow.get(name, ("", 0.0))
        return known == digest and now < until <= now + _REST


def receivers(config: Config) -> Iterator[str]:
    """The name of this receiver, if it is configured."""
    if config.puppetserver.generate_types:
        yield _NAME


def tellings(delivery: Delivery) -> Iterator[Telling]:
    """The environments in which types may have changed. Raises HistoryError."""
    for name in receivers(delivery.config):
        told, layout = delivery.told(name), Layout.of(delivery.config)
        news, memory = delivery.news_for(told), _Memory.of(told.memory)
        wanted = {*memory.owed, *plan_looks(news, memory.digests, functools.partial(_may_concern, layout))}
        if wanted or news.position != told.position or told.failing:
            yield _telling(layout, Told(news.position), memory, wanted)


def _telling(layout: Layout, told: Told, memory: _Memory, wanted: set[str]) -> Telling:
    changed: set[str] = set()

    def also(record: Record) -> Record:
        # Who was flushed before, or will not be, because nothing else has changed.
        return puppetserver.owe(record, [*changed]) if changed else record

    return Telling(_NAME, lambda: _tell(layout, told, memory, wanted, changed), _LIMIT, is_quiet=True, also=also)


def plan_looks(news: News, digests: Mapping[str, str], may_concern: Callable[[Difference], bool]) -> list[str]:
    """The environments whose types are to be looked at. ``may_concern``: whether a difference may be one of types."""
    return [
        name
        for name, each in news.since.environments.items()
        if each.change != DELETED
        and (
            news.is_all
            or each.change == CREATED
            or name not in digests
            or not each.differences
            or any(map(may_concern, each.differences))
        )
    ]


def _may_concern(layout: Layout, difference: Difference) -> bool:
    """Whether a repository has types, or had. What is no longer on disk may have had some."""
    repo = parse_repository(difference.repository)
    if repo.partition not in (MODULES, HOSTGROUPS):
        return False
    for commit in filter(None, (difference.before, difference.now)):
        checkout = layout.checkout(repo, commit)
        # Where code is elsewhere, nobody has to know here where: its types are looked at.
        has_types = os.path.lexists(f"{checkout}/{_USUAL_CODE}/{_TYPES}")
        if has_types or not os.path.lexists(f"{checkout}/{_USUAL_CODE}"):
            return True
    return False


# The work


def _tell(layout: Layout, told: Told, memory: _Memory, wanted: Iterable[str], changed: set[str]) -> Told:
    """Run Puppet where it is to be run. Adds the environments whose files are others now to ``changed``.

    Raises DeliveryError: the environments of which this is true are tried again.
    """
    there, now = {*layout.environments()}, time.time()
    found = _look(layout, sorted(there.intersection(wanted)))
    known = {name: digest for name, digest in memory.digests.items() if name in there}
    todo = [name for name, digest in found.digests.items() if not _fits(layout, name, digest, known.get(name))]
    resting = {name for name in todo if memory.rests(name, found.digests[name], now)}
    done = _generate_all(layout, sorted({*todo} - resting, key=lambda name: (name in memory.owed, name)))
    changed.update(name for name, result in done.items() if result.is_changed)
    slow, left = _set_aside([name for name in todo if name not in resting], done)
    problems = {**found.problems, **{name: result.problem for name, result in done.items() if result.problem}}
    problems.update(dict.fromkeys(resting, _RESTS))
    until = {name: (found.digests[name], time.time() + _REST) for name in slow}
    until.update({name: memory.slow[name] for name in resting})
    owed = frozenset({*problems, *slow, *left})
    known.update({name: digest for name, digest in found.digests.items() if name not in owed})
    last = told._replace(memory=_Memory(known, owed, until).encode(), due=time.time() if left else None)
    if problems:
        first, more = min(problems), len(problems) - 1
        others = f" (and {more} more environments)" if more else ""
        raise DeliveryError(f"environment '{first}': {problems[first]}{others}", last)
    if left:
        log.info("Types of resources of %s are left for the next delivery", listed(sorted(left)))
    return last


def _set_aside(names: Iterable[str], done: Mapping[str, Done]) -> tuple[set[str], set[str]]:
    """The environments for which Puppet is not to be run soon, and those for which it is to be run next.

    Where some took too long, those that had to wait for them are likely to do so, too: they have the same modules.
    """
    left = {name for name in names if name not in done or done[name].is_left}
    slow = {name for name, result in done.items() if result.is_slow}
    return ({*slow, *left}, set()) if slow else (slow, left)


class _Found(NamedTuple):
    """The digests of the types of environments, and why others could not be looked at."""

    digests: Mapping[str, str]
    problems: Mapping[str, str]


def _look(layout: Layout, names: Iterable[str]) -> _Found:
    digests, problems, looker = {}, {}, _Looker(layout)
    for name in names:
        try:
            digests[name] = looker.digest(name)
        except (GitError, OSError) as error:
            problems[name] = str(error)
    return _Found(digests, problems)


def _fits(layout: Layout, name: str, digest: str, known: str | None) -> bool:
    """Whether what Puppet wrote fits the types that there are."""
    has_files = os.path.isdir(layout.tree(name) / RESOURCE_TYPES)
    if digest:
        return has_files and known == digest
    return known == "" or (known is None and not has_files)


class _Looker:
    """Tells which types environments have. It looks at each checkout once, as environments share them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._links = LinkReader(layout)
        self._trees: dict[Target, str] = {}

    def digest(self, name: str) -> str:
        """A text that is another one for other types, '' when there are none. Raises GitError, OSError."""
        found = [f"{link} {tree}\n" for link, tree in sorted(self._types(name)) if tree]
        text = "".join(found).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=8).hexdigest() if found else ""

    def _types(self, name: str) -> Iterator[tuple[str, str]]:
        for directory in (MODULES, HOSTGROUPS):
            for entry in _links_in(f"{self._layout.tree(name)}/{directory}"):
                link = f"{directory}/{entry.name}"
                target = self._links.target(self._layout.place(name), link, os.readlink(entry.path))
                if target is not None:
                    if target not in self._trees:
                        self._trees[target] = self._tree(target)
                    yield link, self._trees[target]

    def _tree(self, target: Target) -> str:
        """The id of the tree of types in a checkout, '' when it has none."""
        clone = self._layout.clone(target.repo)
        entry = target.entry
        try:
            entry = entry if is_checkout_name(entry) else os.readlink(clone / entry)
        except OSError as error:
            if not files.is_verdict(error):
                raise
            return ""  # the link dangles
        path = os.path.normpath(f"{target.below}/{_TYPES}")
        if not is_checkout_name(entry) or entry_ref(entry) is None or not files.is_there(clone / entry / path):
            return ""
        # Its id, and not its files: who pushes decides how many there are, and how large.
        arguments = ["rev-parse", "--verify", "--quiet", f"{entry[1:]}:{path}"]
        try:
            return process.run(arguments, git_dir=self._layout.bare(target.repo), shared=True).decode("ascii").strip()
        except GitBusyError:
            raise
        except GitError:
            return entry  # only the checkout still has this commit, whose files never change


def _links_in(directory: str) -> list[os.DirEntry[str]]:
    """The links in a directory, none when it is gone: a run may remove an environment meanwhile. Raises OSError."""
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if entry.is_symlink()]
    except OSError as error:
        if not files.is_gone(error):
            raise
        return []


def _generate_all(layout: Layout, names: list[str]) -> dict[str, Done]:
    """Run Puppet for some environments, as many at once as there are processors, and no longer than _WHOLE."""
    if not names:
        return {}
    log.info("Generating types of resources for %s...", listed(names))
    begin = time.monotonic()

    def work(name: str) -> Done:
        left = begin + _WHOLE - time.monotonic()
        if left < _LEAST:
            return Done(is_left=True)
        try:
            return generate(layout, name, left)
        except OSError as error:
            return Done(str(error))

    done: dict[str, Done] = {}
    waiting = names[::-1]

    def work_through() -> None:
        with contextlib.suppress(IndexError):  # there are no more
            while True:
                name = waiting.pop()
                done[name] = work(name)

    # Not a pool of the standard library: the program would not end before all of it is done.
    workers = [threading.Thread(target=work_through, daemon=True) for _ in os.sched_getaffinity(0)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    log.info("Generated types of resources in %.1f s", time.monotonic() - begin)
    return done
